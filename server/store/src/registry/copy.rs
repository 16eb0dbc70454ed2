//! What is in a copy of the registry, of one moment? And is the registry whole?

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection};

use super::{Database, Registry, answer, on};
use crate::error::{Error, Kind, Result};

/// What SQLite says where a disk takes nothing more.
const FULL: &str = "13";

impl Registry {
    /// Writes all of it, as it is at one moment between call and return, into `file`, which is not there; gives the
    /// copy, to be read only. Others write the registry meanwhile.
    ///
    /// # Errors
    /// `Kind::Refused` where it is in PostgreSQL, which has its own ways.
    pub async fn copy_to(&self, file: &Path) -> Result<Registry> {
        let Database::Sqlite(pool) = &self.database else {
            return Err(Error::refused("the registry is in PostgreSQL: back it up with `pg_dump`"));
        };
        let name = file.to_str().ok_or_else(|| Error::invalid("the path of a backup is no text"))?;
        let failed = |error: sqlx::Error| {
            let is_full =
                matches!(&error, sqlx::Error::Database(error) if error.code().as_deref() == Some(FULL));
            let said = format!("the registry is not copied to {name}: {error}");
            if is_full {
                Error::busy(format!("{said}; make room there and try again"))
            } else {
                Error::broken(said)
            }
        };
        // A connection of its own: the others go on.
        let mut reading = pool.connect_options().as_ref().clone().connect().await.map_err(failed)?;
        sqlx::query("VACUUM INTO $1").bind(name).execute(&mut reading).await.map_err(failed)?;
        reading.close().await?;
        // As it lies there: it gets no journal.
        let options = SqliteConnectOptions::new().filename(file).read_only(true).immutable(true);
        let copy = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(failed)?;
        Ok(Registry { database: Database::Sqlite(copy), artifacts: self.artifacts.clone() })
    }

    /// The digests of all model files that any apply names.
    pub async fn model_digests(&self) -> Result<Vec<String>> {
        // A version of several steps is no file.
        let asked = "SELECT DISTINCT digest FROM model_versions WHERE path <> '' ORDER BY digest";
        Ok(on!(self.database, |pool| sqlx::query_scalar(asked).fetch_all(pool))?)
    }

    /// What is wrong with the database itself, as far as it tells; PostgreSQL has its own ways.
    pub async fn examine(&self) -> Result<Option<String>> {
        let Database::Sqlite(pool) = &self.database else { return Ok(None) };
        let mut reading = pool.connect_options().as_ref().clone().connect().await?;
        let said: std::result::Result<Vec<String>, sqlx::Error> =
            sqlx::query_scalar("PRAGMA integrity_check(3)").fetch_all(&mut reading).await;
        match said {
            Ok(said) if said == ["ok"] => match self.latest().await {
                Err(error) if error.kind() == Kind::Refused => Ok(Some(error.said())),
                read => read.map(|_| None),
            },
            Ok(said) => Ok(Some(said.join("; "))),
            Err(sqlx::Error::Database(error)) => Ok(Some(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}
