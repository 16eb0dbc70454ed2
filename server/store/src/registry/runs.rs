//! When was which view materialized, by whom, and what came of it?
//!
//! A row for each view, of its latest run. Who notes something says how long ago it was, and the database what time it
//! is: clocks of servers are not one, and a note may come late. A run whose process does not say any more that it is at
//! it has died, unless it has ended.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::AssertSqlSafe;

use super::{Database, Registry, answer};
use crate::error::Result;
use crate::log::labelled_model;

/// What time it is by the clock of PostgreSQL, and of SQLite, µs; one time throughout a statement.
const POSTGRES_NOW: &str = "(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000)::BIGINT";
const SQLITE_NOW: &str = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)";

/// Other heads than ours whose servers are gone: their runs are of no use after so long, µs.
const FORGOTTEN_AFTER_US: i64 = 30 * 86_400_000_000;

/// A run of a view at the moment that it is noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunNote {
    /// Name of the view.
    pub view: String,
    /// How long ago it began, µs.
    pub begun_ago_us: i64,
    /// How it ended; none while it runs.
    pub ended: Option<RunEnd>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEnd {
    /// How long ago, µs.
    pub ago_us: i64,
    /// Keys whose head is new.
    pub rows_written: u64,
    /// The query time up to which it has materialized, µs; none where it failed.
    pub until_us: Option<i64>,
    /// The newest event that it saw, µs.
    pub newest_us: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The latest run of a view, as it is known. Times are of the database's clock, µs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Name of the view.
    pub view: String,
    /// The process that ran.
    pub instance: String,
    /// When it began.
    pub begun_us: i64,
    /// When its process last said that it is at it.
    pub seen_us: i64,
    /// When it ended; none while it runs, and where its process died.
    pub ended_us: Option<i64>,
    /// Keys whose head is new.
    pub rows_written: Option<i64>,
    /// The query time up to which it has materialized.
    pub until_us: Option<i64>,
    /// The newest event of all runs of the view.
    pub newest_us: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
    /// When the latest run that did not fail ended.
    pub success_us: Option<i64>,
}

/// What the registry says of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownRuns {
    /// What time it was by the database's clock, µs.
    pub now_us: i64,
    /// The latest run of each view, by view.
    pub runs: Vec<Run>,
    /// The number of the last commit of each source in the log of pushed rows, where servers share one there.
    pub commits: Option<BTreeMap<String, i64>>,
}

/// A run as it is read: the columns of its table, less the head's name.
type Read = (
    String,
    String,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<i64>,
);

impl From<Read> for Run {
    fn from(read: Read) -> Run {
        let (
            view,
            instance,
            begun_us,
            seen_us,
            ended_us,
            rows_written,
            until_us,
            newest_us,
            error,
            success_us,
        ) = read;
        Run {
            view,
            instance,
            begun_us,
            seen_us,
            ended_us,
            rows_written,
            until_us,
            newest_us,
            error,
            success_us,
        }
    }
}

impl Registry {
    /// Notes runs of `instance` on `head`, but where a later one of another process was noted already.
    pub async fn note_runs(&self, head: &str, instance: &str, notes: &[RunNote]) -> Result<()> {
        let statement = self.at_its_time(
            "INSERT INTO runs (head, view, instance, begun_us, seen_us, ended_us, rows_written, until_us, newest_us, \
                 error, success_us) \
             VALUES ($1, $2, $3, NOW - $4, NOW, NOW - $5, $6, $7, $8, $9, CASE WHEN $9 IS NULL THEN NOW - $5 END) \
             ON CONFLICT (head, view) DO UPDATE SET instance = excluded.instance, begun_us = excluded.begun_us, \
                 seen_us = excluded.seen_us, ended_us = excluded.ended_us, rows_written = excluded.rows_written, \
                 until_us = excluded.until_us, error = excluded.error, \
                 newest_us = CASE WHEN excluded.newest_us IS NULL OR excluded.newest_us < runs.newest_us \
                     THEN runs.newest_us ELSE excluded.newest_us END, \
                 success_us = COALESCE(excluded.success_us, runs.success_us) \
             WHERE runs.instance = excluded.instance OR runs.begun_us <= excluded.begun_us",
        );
        on!(self.database, |pool| async {
            let mut transaction = pool.begin().await?;
            for note in notes {
                let ended = note.ended.as_ref();
                sqlx::query(AssertSqlSafe(&statement[..]))
                    .bind(head)
                    .bind(&note.view)
                    .bind(instance)
                    .bind(note.begun_ago_us)
                    .bind(ended.map(|end| end.ago_us))
                    .bind(ended.map(|end| end.rows_written as i64))
                    .bind(ended.and_then(|end| end.until_us))
                    .bind(ended.and_then(|end| end.newest_us))
                    .bind(ended.and_then(|end| end.error.as_deref()))
                    .execute(&mut *transaction)
                    .await?;
            }
            Ok(transaction.commit().await?)
        })
    }

    /// Notes that `instance` is still at its runs.
    pub async fn beat_runs(&self, head: &str, instance: &str) -> Result<()> {
        let statement = self.at_its_time(
            "UPDATE runs SET seen_us = NOW WHERE head = $1 AND instance = $2 AND ended_us IS NULL",
        );
        on!(self.database, |pool| async {
            sqlx::query(AssertSqlSafe(statement)).bind(head).bind(instance).execute(pool).await?;
            Ok(())
        })
    }

    /// The latest run of each view on `head`, and what else tells how far the head is.
    pub async fn runs(&self, head: &str) -> Result<KnownRuns> {
        let runs = "SELECT view, instance, begun_us, seen_us, ended_us, rows_written, until_us, newest_us, error, \
                    success_us FROM runs WHERE head = $1 ORDER BY view";
        let now = self.at_its_time("SELECT NOW");
        let commits = "SELECT source, commits FROM push_sources";
        on!(self.database, |pool| async {
            let runs: Vec<Read> = sqlx::query_as(runs).bind(head).fetch_all(pool).await?;
            let now_us = sqlx::query_scalar(AssertSqlSafe(now)).fetch_one(pool).await?;
            let commits = match self.is_shared() {
                true => {
                    let commits: Vec<(String, i64)> = sqlx::query_as(commits).fetch_all(pool).await?;
                    Some(commits.into_iter().filter(|(name, _)| labelled_model(name).is_none()).collect())
                }
                false => None,
            };
            Ok(KnownRuns { now_us, runs: runs.into_iter().map(Run::from).collect(), commits })
        })
    }

    /// Forgets runs of views on `head` that are not among `live`, and those of other heads that nobody has seen for
    /// long.
    pub async fn forget_runs(&self, head: &str, live: &BTreeSet<String>) -> Result<()> {
        let known = self.runs(head).await?.runs;
        let gone = known.into_iter().map(|run| run.view).filter(|view| !live.contains(view));
        let gone: Vec<String> = gone.collect();
        let old = self.at_its_time("DELETE FROM runs WHERE head <> $1 AND seen_us < NOW - $2");
        on!(self.database, |pool| async {
            for view in &gone {
                let forgotten = sqlx::query("DELETE FROM runs WHERE head = $1 AND view = $2");
                forgotten.bind(head).bind(view).execute(pool).await?;
            }
            sqlx::query(AssertSqlSafe(old)).bind(head).bind(FORGOTTEN_AFTER_US).execute(pool).await?;
            Ok(())
        })
    }

    /// The statement, with the database's clock in the place of `NOW`.
    fn at_its_time(&self, statement: &str) -> String {
        let now = match &self.database {
            Database::Sqlite(_) => SQLITE_NOW,
            Database::Postgres(_) => POSTGRES_NOW,
        };
        statement.replace("NOW", now)
    }
}
