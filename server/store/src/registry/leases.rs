//! Whose turn is it to do what only one server does at a time?

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::{Database, Registry, answer, on};
use crate::error::Result;

impl Registry {
    /// Whether `holder` has the lease called `name`, for so long from now on. It has it longer where it asks again in
    /// time; the database's clock decides.
    pub async fn lease(&self, name: &str, holder: &str, time: Duration) -> Result<bool> {
        let clock = self.clock();
        let asked = format!(
            "INSERT INTO leases (name, holder, until) VALUES ($1, $2, {clock} + $3) \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until \
             WHERE leases.holder = excluded.holder OR leases.until <= {clock}"
        );
        let time_us = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let taken = on!(self.database, |pool| async {
            let asked = sqlx::query(AssertSqlSafe(asked)).bind(name).bind(holder).bind(time_us);
            asked.execute(pool).await.map(|taken| taken.rows_affected())
        })?;
        Ok(taken == 1)
    }

    /// What time it is by the database's clock (µs).
    pub async fn now_us(&self) -> Result<i64> {
        let asked = format!("SELECT {}", self.clock());
        Ok(on!(self.database, |pool| sqlx::query_scalar(AssertSqlSafe(asked)).fetch_one(pool))?)
    }
}
