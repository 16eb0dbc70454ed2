//! What did the version of a ramp answer since its step began, on all servers?
//!
//! Each server says for itself what it counted, again and again, and nobody adds to what another one said: so a word
//! that is said twice, or lost, changes nothing.

use std::ops::AddAssign;

use super::{Database, Registry, answer, on};
use crate::error::{Error, Result};

/// What was counted of a version in one step of its ramp.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RampCounts {
    /// Its requests.
    pub requests: u64,
    /// For each condition, how many of them met it.
    pub hits: Vec<u64>,
}

impl AddAssign<&RampCounts> for RampCounts {
    fn add_assign(&mut self, other: &RampCounts) {
        self.requests += other.requests;
        self.hits.resize(self.hits.len().max(other.hits.len()), 0);
        self.hits.iter_mut().zip(&other.hits).for_each(|(all, more)| *all += more);
    }
}

impl Registry {
    /// Notes what `server` counted in the step of `model`'s ramp that began with the apply `since`.
    pub async fn note_ramp_counts(
        &self,
        (model, since): (&str, u64),
        server: &str,
        counts: &RampCounts,
    ) -> Result<()> {
        let noted = "INSERT INTO ramp_counts (model, since, server, requests, hits) VALUES ($1, $2, $3, $4, $5) \
                     ON CONFLICT (model, since, server) DO UPDATE SET requests = excluded.requests, hits = excluded.hits";
        let hits: Vec<String> = counts.hits.iter().map(u64::to_string).collect();
        on!(self.database, |pool| async {
            let noted = sqlx::query(noted).bind(model).bind(number(since)).bind(server);
            noted.bind(number(counts.requests)).bind(hits.join(",")).execute(pool).await?;
            Ok(())
        })
    }

    /// What all servers counted in that step, as far as they said so.
    pub async fn ramp_counts(&self, model: &str, since: u64) -> Result<RampCounts> {
        let asked = "SELECT requests, hits FROM ramp_counts WHERE model = $1 AND since = $2";
        let rows: Vec<(i64, String)> = on!(self.database, |pool| {
            sqlx::query_as(asked).bind(model).bind(number(since)).fetch_all(pool)
        })?;
        let mut all = RampCounts::default();
        for (requests, hits) in rows {
            let hits = hits.split(',').filter(|hits| !hits.is_empty()).map(str::parse);
            let hits = hits.collect::<std::result::Result<_, _>>();
            let hits = hits.map_err(|_| Error::broken("what servers counted for a ramp is damaged"))?;
            all += &RampCounts { requests: requests.unsigned_abs(), hits };
        }
        Ok(all)
    }

    /// Forgets what was counted in steps of `model`'s ramps that began before the apply `since`.
    pub async fn forget_ramp_counts(&self, model: &str, since: u64) -> Result<()> {
        let forgotten = "DELETE FROM ramp_counts WHERE model = $1 AND since < $2";
        on!(self.database, |pool| async {
            sqlx::query(forgotten).bind(model).bind(number(since)).execute(pool).await?;
            Ok(())
        })
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
