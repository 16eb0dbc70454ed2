//! Which servers read a stream, and what of it is whose?
//!
//! Each says again and again that it does ([`SharedLog::share`]), and hears in the same statement which others do, in
//! the order in which they came: so who comes takes nobody's place. Two may see different ones for a moment. What is
//! pushed of a stream says where it begins, so that no event counts twice then.

use super::{ANSWER_TIMEOUT, SharedLog, in_time, lost};
use crate::error::Result;

/// Who is back after its time was over comes last. The others are seen as they were before, its own entry as it is now.
const SHARE: &str = "WITH own AS (INSERT INTO stream_readers AS here (source, reader, since, until) \
         VALUES ($1, $2, now(), now() + $3 * interval '1 second') \
         ON CONFLICT (source, reader) DO UPDATE SET until = excluded.until, \
         since = CASE WHEN here.until < now() THEN excluded.since ELSE here.since END \
         RETURNING since, reader), \
     others AS (SELECT since, reader FROM stream_readers \
         WHERE source = $1 AND reader <> $2 AND until >= now()) \
     SELECT COUNT(*) FILTER (WHERE (others.since, others.reader) < (own.since, own.reader)), COUNT(others.reader) \
     FROM own LEFT JOIN others ON TRUE";

/// What of a stream is a server's to read: of n servers, each reads every n-th part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamShare {
    /// How many of the others came before it.
    before: usize,
    others: usize,
}

impl StreamShare {
    /// All of it.
    pub const WHOLE: StreamShare = StreamShare { before: 0, others: 0 };

    /// Whether the part at `index` of all parts in order is its own. Where everybody knows of everybody, each part is
    /// one server's.
    pub fn has(self, index: usize) -> bool {
        index % (self.others + 1) == self.before
    }
}

impl SharedLog {
    /// Notes that `reader` reads the stream of `source`, for as many seconds from now on, and gives its share.
    ///
    /// # Errors
    /// Where PostgreSQL does not answer; so with [`leave`](Self::leave).
    pub async fn share(&self, source: &str, reader: &str, seconds: f64) -> Result<StreamShare> {
        let asked = sqlx::query_as::<_, (i64, i64)>(SHARE).bind(source).bind(reader).bind(seconds);
        let answered = in_time(ANSWER_TIMEOUT, asked.fetch_one(&self.pool)).await;
        let (before, others) = answered.map_err(lost)?;
        Ok(StreamShare { before: before as usize, others: others as usize })
    }

    /// Notes that `reader` does not read it any more.
    pub async fn leave(&self, source: &str, reader: &str) -> Result<()> {
        let left = sqlx::query("DELETE FROM stream_readers WHERE source = $1 AND reader = $2");
        let left = left.bind(source).bind(reader).execute(&self.pool);
        in_time(ANSWER_TIMEOUT, left).await.map(drop).map_err(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_one_servers() {
        for others in 0..5 {
            let shares: Vec<_> = (0..=others).map(|before| StreamShare { before, others }).collect();
            for index in 0..12 {
                let readers = shares.iter().filter(|share| share.has(index)).count();
                assert_eq!(readers, 1, "part {index} of {} servers", others + 1);
            }
        }
        assert!((0..12).all(|index| StreamShare::WHOLE.has(index)));
    }
}
