//! Which segments count? What the registry says of them.
//!
//! One statement names a segment, one transaction replaces some by another one: whoever lists a set sees it before or
//! after. Times that decide something are the database's.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::set::{Family, Prepared, Range, Segment, Set};
use crate::error::{Error, Result};
use crate::position::Position;
use crate::registry::{Database, Registry, answer, on};

/// What a row of `segments` is read as.
const COLUMNS: &str =
    "path, family, log, name, first_row, end_row, row_count, byte_count, sha256, from_us, to_us, created";
type Row = (String, String, String, String, i64, i64, i64, i64, String, i64, i64, i64);
/// Under which name a log has what becomes a segment.
const SOURCE: &str = "CASE $3 WHEN 'labels' THEN 'labels/' || $5 ELSE $5 END";
/// Rows that are read at a time where all are.
const PAGE: i64 = 1_000;

/// The segments of one store.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) registry: Registry,
    /// The store's id.
    pub(super) store: String,
}

/// Segments of a family and a log: those of the names that begin so, with rows of these times.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What kind of rows.
    pub family: Family,
    /// The log that numbered them.
    pub log: &'a str,
    /// What the names of their sets begin with.
    pub name_begins: &'a str,
    /// From this time on (µs) ...
    pub from_us: Option<i64>,
    /// ... and before this one.
    pub to_us: Option<i64>,
}

/// Names a segment, unless it is named already, or another one that counts has rows of its numbers; and of rows out of
/// a shared log only while that has the commit `of`, and after the segments before: a database that came back older has
/// others.
fn insert(clock: &str, of: Option<Position>) -> String {
    let is_there = of.map(|Position { number, token }| {
        format!(
            "AND EXISTS (SELECT 1 FROM pushed_rows WHERE source = {SOURCE} AND number = {number} AND token = {token}) \
             AND $6 = (SELECT COALESCE(MAX(end_row), 0) FROM segments WHERE store = $1 AND family = $3 AND log = $4 \
             AND name = $5 AND replaced IS NULL)"
        )
    });
    format!(
        "INSERT INTO segments (store, {COLUMNS}) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, {clock} \
         WHERE ($13 = 0 OR NOT EXISTS (SELECT 1 FROM segments WHERE store = $1 AND family = $3 AND log = $4 \
         AND name = $5 AND replaced IS NULL AND first_row < $7 AND end_row > $6)) {} \
         ON CONFLICT DO NOTHING",
        is_there.unwrap_or_default()
    )
}

/// Lets a segment count no more, where it does.
fn end(clock: &str) -> String {
    format!("UPDATE segments SET replaced = {clock} WHERE store = $1 AND path = $2 AND replaced IS NULL")
}

/// [`insert`], with its values, on `$executor`.
macro_rules! insert {
    ($sql:expr, $store:expr, $file:expr, $executor:expr) => {{
        let Prepared { set, path, range, rows, bytes, sha256 } = $file;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        sqlx::query(AssertSqlSafe($sql))
            .bind($store)
            .bind(path)
            .bind(set.family.name())
            .bind(&set.log)
            .bind(&set.name)
            .bind(number(range.first))
            .bind(number(range.end))
            .bind(number(*rows))
            .bind(number(*bytes))
            .bind(sha256)
            .bind(range.from_us)
            .bind(range.to_us)
            .bind(i64::from(set.family.is_numbered()))
            .execute($executor)
            .await?
    }};
}

impl Manifest {
    fn clock(&self) -> &'static str {
        self.registry.clock()
    }

    /// Names `file`: it counts from now on. Where it is named already, that is all.
    ///
    /// # Errors
    /// `Kind::Refused` where another segment has rows of its numbers, or the log has not the commit `of`.
    /// `Kind::Unavailable` where the connection broke: whether it is named shows later.
    pub(super) async fn commit(&self, file: &Prepared, of: Option<Position>) -> Result<Segment> {
        let sql = insert(self.clock(), of);
        on!(self.registry.database, |pool| async {
            insert!(sql, &self.store, file, pool);
            Ok::<_, sqlx::Error>(())
        })?;
        self.named(file).await
    }

    /// Names `file` in place of `old`, all of which count until now.
    ///
    /// # Errors
    /// `Kind::Refused` where one of them does not count any more; and as [`Manifest::commit`].
    pub(super) async fn replace(&self, old: &[Segment], file: &Prepared) -> Result<Segment> {
        let (sql, ends) = (insert(self.clock(), None), end(self.clock()));
        on!(self.registry.database, |pool| async {
            let mut transaction = pool.begin().await?;
            for segment in old {
                let ended = sqlx::query(AssertSqlSafe(ends.clone())).bind(&self.store).bind(&segment.path);
                if ended.execute(&mut *transaction).await?.rows_affected() != 1 {
                    return Err(Error::refused(format!(
                        "the segment `{}` does not count any more: another server has replaced it",
                        segment.path
                    )));
                }
            }
            // Where it cannot be named, those before count on.
            if insert!(sql, &self.store, file, &mut *transaction).rows_affected() == 0 {
                return Err(taken(file));
            }
            Ok::<_, Error>(transaction.commit().await?)
        })?;
        self.named(file).await
    }

    /// The segment of a file that should be named by now.
    async fn named(&self, file: &Prepared) -> Result<Segment> {
        let asked = "SELECT created FROM segments WHERE store = $1 AND path = $2";
        let created: Option<i64> = on!(self.registry.database, |pool| sqlx::query_scalar(asked)
            .bind(&self.store)
            .bind(&file.path)
            .fetch_optional(pool))?;
        match created {
            Some(created_us) => Ok(Segment { file: file.clone(), created_us }),
            None => Err(taken(file)),
        }
    }

    /// Lets segments count no more.
    pub(super) async fn end(&self, old: &[Segment]) -> Result<()> {
        let ends = end(self.clock());
        on!(self.registry.database, |pool| async {
            let mut transaction = pool.begin().await?;
            for segment in old {
                let ended = sqlx::query(AssertSqlSafe(ends.clone())).bind(&self.store).bind(&segment.path);
                ended.execute(&mut *transaction).await?;
            }
            transaction.commit().await
        })?;
        Ok(())
    }

    /// The segments of a set that count, in the order of their rows.
    pub(super) async fn list(&self, set: &Set) -> Result<Vec<Segment>> {
        let asked = format!(
            "SELECT {COLUMNS} FROM segments WHERE store = $1 AND family = $2 AND log = $3 AND name = $4 \
             AND replaced IS NULL"
        );
        let rows: Vec<Row> = on!(self.registry.database, |pool| sqlx::query_as(AssertSqlSafe(asked))
            .bind(&self.store)
            .bind(set.family.name())
            .bind(&set.log)
            .bind(&set.name)
            .fetch_all(pool))?;
        sorted(rows)
    }

    /// The segments that are wanted, of one set after the other, each in the order of its rows.
    pub(super) async fn find(&self, wanted: Wanted<'_>) -> Result<Vec<Segment>> {
        let asked = format!(
            "SELECT {COLUMNS} FROM segments WHERE store = $1 AND family = $2 AND log = $3 \
             AND substr(name, 1, length($4)) = $4 AND to_us >= $5 AND from_us < $6 AND replaced IS NULL"
        );
        let rows: Vec<Row> = on!(self.registry.database, |pool| sqlx::query_as(AssertSqlSafe(asked))
            .bind(&self.store)
            .bind(wanted.family.name())
            .bind(wanted.log)
            .bind(wanted.name_begins)
            .bind(wanted.from_us.unwrap_or(i64::MIN))
            .bind(wanted.to_us.unwrap_or(i64::MAX))
            .fetch_all(pool))?;
        sorted(rows)
    }

    /// The sets of a family and a log that have segments.
    pub(super) async fn sets(&self, family: Family, log: &str) -> Result<Vec<Set>> {
        let asked = "SELECT DISTINCT name FROM segments WHERE store = $1 AND family = $2 AND log = $3 \
                     AND replaced IS NULL";
        let mut names: Vec<String> = on!(self.registry.database, |pool| sqlx::query_scalar(asked)
            .bind(&self.store)
            .bind(family.name())
            .bind(log)
            .fetch_all(pool))?;
        // Sorted here: databases differ in how they order texts.
        names.sort();
        Ok(names.into_iter().map(|name| Set { family, log: log.to_owned(), name }).collect())
    }

    /// The segments after the one at `after`, a page of them; in the database's order.
    pub(super) async fn page(&self, after: &str, only_counting: bool) -> Result<Vec<Segment>> {
        let asked = format!(
            "SELECT {COLUMNS} FROM segments WHERE store = $1 AND path > $2 AND ($3 = 0 OR replaced IS NULL) \
             ORDER BY path LIMIT $4"
        );
        let rows: Vec<Row> = on!(self.registry.database, |pool| sqlx::query_as(AssertSqlSafe(asked))
            .bind(&self.store)
            .bind(after)
            .bind(i64::from(only_counting))
            .bind(PAGE)
            .fetch_all(pool))?;
        rows.into_iter().map(segment).collect()
    }

    /// The segment at `path`, where it counts.
    pub(super) async fn segment(&self, path: &str) -> Result<Option<Segment>> {
        let asked =
            format!("SELECT {COLUMNS} FROM segments WHERE store = $1 AND path = $2 AND replaced IS NULL");
        let row: Option<Row> = on!(self.registry.database, |pool| sqlx::query_as(AssertSqlSafe(asked))
            .bind(&self.store)
            .bind(path)
            .fetch_optional(pool))?;
        row.map(segment).transpose()
    }

    /// Segments that have counted no more for so long, a page of them.
    pub(super) async fn ended(&self, since: Duration) -> Result<Vec<Segment>> {
        let asked = format!(
            "SELECT {COLUMNS} FROM segments WHERE store = $1 AND replaced <= {} - $2 LIMIT $3",
            self.clock()
        );
        let rows: Vec<Row> = on!(self.registry.database, |pool| sqlx::query_as(AssertSqlSafe(asked))
            .bind(&self.store)
            .bind(micros(since))
            .bind(PAGE)
            .fetch_all(pool))?;
        rows.into_iter().map(segment).collect()
    }

    /// Forgets a segment that counts no more, and whose file is gone.
    pub(super) async fn forget(&self, segment: &Segment) -> Result<()> {
        let gone = "DELETE FROM segments WHERE store = $1 AND path = $2 AND replaced IS NOT NULL";
        on!(self.registry.database, |pool| async {
            sqlx::query(gone).bind(&self.store).bind(&segment.path).execute(pool).await.map(drop)
        })?;
        Ok(())
    }
}

fn taken(Prepared { range, set, .. }: &Prepared) -> Error {
    Error::refused(format!("rows {} to {} are in another segment already: {set}", range.first, range.end))
}

pub(super) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

fn segment(row: Row) -> Result<Segment> {
    let (path, family, log, name, first, end, rows, bytes, sha256, from_us, to_us, created_us) = row;
    let family = Family::named(&family).ok_or_else(|| {
        Error::refused(format!(
            "the registry names a segment of `{family}`, which this build does not know; run the version of Quern that wrote \
             it, or a later one"
        ))
    })?;
    let range = Range { first: first.unsigned_abs(), end: end.unsigned_abs(), from_us, to_us };
    let (rows, bytes) = (rows.unsigned_abs(), bytes.unsigned_abs());
    let file = Prepared { set: Set { family, log, name }, path, range, rows, bytes, sha256 };
    Ok(Segment { file, created_us })
}

/// Sorted here: databases differ in how they order texts.
fn sorted(rows: Vec<Row>) -> Result<Vec<Segment>> {
    let mut segments = rows.into_iter().map(segment).collect::<Result<Vec<_>>>()?;
    segments.sort_by(|a, b| {
        let key = |segment: &Segment| (segment.range.first, segment.range.from_us, segment.created_us);
        (&a.set, key(a), &a.path).cmp(&(&b.set, key(b), &b.path))
    });
    Ok(segments)
}
