//! Which definitions went live, when, and with which model files?
//!
//! Every apply that changed something has a number and is kept for good: its definition files verbatim, the schemas
//! its sources had, and the digests of its models. One transaction writes an apply, whole or not at all.

mod artifacts;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use feature_defs::DefFile;
use quern_engine::SourceSchemas;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

pub use artifacts::{Artifacts, digest};

use crate::error::{Error, Result};

/// Numbered, and never edited once landed.
const MIGRATIONS: [(i64, &str, &str); 1] =
    [(1, "applies", include_str!("../../../migrations/0001_applies.sql"))];

/// The registry of one data folder.
#[derive(Debug, Clone)]
pub struct Registry {
    pool: SqlitePool,
    /// The model files that the applies name.
    pub artifacts: Artifacts,
}

/// One apply, as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Apply {
    /// 1 for the first one; each is one more than the one that it changed.
    pub number: u64,
    /// When it went live, in microseconds since the Unix epoch.
    pub applied_at_us: i64,
    /// Digest of the definitions, whatever their files look like.
    pub fingerprint: String,
    /// The definition files, sorted by path.
    pub files: Vec<DefFile>,
    /// The schemas of the sources.
    pub source_schemas: SourceSchemas,
    /// The versions of all models.
    pub models: Vec<AppliedModel>,
}

/// One version of a model, as an apply names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedModel {
    /// Name of the model.
    pub model: String,
    /// Name of the version.
    pub version: String,
    /// SHA-256 of the ONNX file.
    pub digest: String,
    /// Where the file lay in the repository.
    pub path: String,
    /// Name of the feature service.
    pub service: String,
}

/// One line of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyHeader {
    /// See [`Apply`].
    pub number: u64,
    /// See [`Apply`].
    pub applied_at_us: i64,
    /// See [`Apply`].
    pub fingerprint: String,
}

impl Registry {
    /// Opens the registry in the folder `data`, or makes one.
    ///
    /// # Errors
    /// Where the file is damaged, or was written by a later version of Quern.
    pub async fn open(data: &Path) -> Result<Registry> {
        let path = data.join("registry.sqlite");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An apply that was answered must outlive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        let failed = |cause: String| Error::Internal(format!("the registry {}: {cause}", path.display()));
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let migrations = MIGRATIONS.into_iter().map(|(number, name, sql)| {
            Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        });
        Migrator::with_migrations(migrations.collect())
            .run(&pool)
            .await
            .map_err(|error| failed(format!("{error}; was it written by a later version of Quern?")))?;
        Ok(Registry { pool, artifacts: Artifacts::open(&data.join("models"))? })
    }

    /// The apply that is live; none before the first one.
    pub async fn latest(&self) -> Result<Option<Apply>> {
        let number: Option<i64> =
            sqlx::query_scalar("SELECT MAX(number) FROM applies").fetch_one(&self.pool).await?;
        match number {
            Some(number) => Ok(Some(self.apply(number.unsigned_abs()).await?)),
            None => Ok(None),
        }
    }

    /// The apply with this number.
    pub async fn apply(&self, number: u64) -> Result<Apply> {
        let key = i64::try_from(number).unwrap_or(i64::MAX);
        let header: Option<(i64, String)> =
            sqlx::query_as("SELECT applied_at, fingerprint FROM applies WHERE number = $1")
                .bind(key)
                .fetch_optional(&self.pool)
                .await?;
        let Some((applied_at_us, fingerprint)) = header else {
            return Err(Error::NotFound(format!("there is no apply {number}")));
        };
        let files: Vec<(String, String)> = sqlx::query_as(
            "SELECT path, content FROM definition_files WHERE apply_number = $1 ORDER BY path",
        )
        .bind(key)
        .fetch_all(&self.pool)
        .await?;
        let schemas: Vec<(String, String)> =
            sqlx::query_as("SELECT source, arrow_schema FROM source_schemas WHERE apply_number = $1")
                .bind(key)
                .fetch_all(&self.pool)
                .await?;
        let models: Vec<(String, String, String, String, String)> = sqlx::query_as(
            "SELECT model, version, digest, path, service FROM model_versions WHERE apply_number = $1 \
             ORDER BY model, version",
        )
        .bind(key)
        .fetch_all(&self.pool)
        .await?;
        let source_schemas = schemas
            .into_iter()
            .map(|(source, schema)| Ok((source, decode_schema(&schema)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        Ok(Apply {
            number,
            applied_at_us,
            fingerprint,
            files: files.into_iter().map(|(path, text)| DefFile { path, text }).collect(),
            source_schemas,
            models: models
                .into_iter()
                .map(|(model, version, digest, path, service)| AppliedModel {
                    model,
                    version,
                    digest,
                    path,
                    service,
                })
                .collect(),
        })
    }

    /// Every apply, the oldest first.
    pub async fn history(&self) -> Result<Vec<ApplyHeader>> {
        let rows: Vec<(i64, i64, String)> =
            sqlx::query_as("SELECT number, applied_at, fingerprint FROM applies ORDER BY number")
                .fetch_all(&self.pool)
                .await?;
        let headers = rows.into_iter().map(|(number, applied_at_us, fingerprint)| ApplyHeader {
            number: number.unsigned_abs(),
            applied_at_us,
            fingerprint,
        });
        Ok(headers.collect())
    }

    /// The digest under which a version of a model was first applied, and the number of that apply.
    pub async fn first_digest(&self, model: &str, version: &str) -> Result<Option<(u64, String)>> {
        let row: Option<(i64, String)> = sqlx::query_as(
            "SELECT apply_number, digest FROM model_versions WHERE model = $1 AND version = $2 \
             ORDER BY apply_number LIMIT 1",
        )
        .bind(model)
        .bind(version)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|(number, digest)| (number.unsigned_abs(), digest)))
    }

    /// Writes an apply, whole or not at all. Its model files must be in [`Registry::artifacts`] already.
    ///
    /// # Errors
    /// [`Error::Refused`] where its number is not the one after the latest: someone else applied in the meantime.
    pub async fn record(&self, apply: &Apply) -> Result<()> {
        let number = i64::try_from(apply.number).unwrap_or(i64::MAX);
        let mut transaction = self.pool.begin().await?;
        let latest: Option<i64> =
            sqlx::query_scalar("SELECT MAX(number) FROM applies").fetch_one(&mut *transaction).await?;
        if latest.unwrap_or(0) + 1 != number {
            return Err(taken(apply.number));
        }
        let header = sqlx::query("INSERT INTO applies (number, applied_at, fingerprint) VALUES ($1, $2, $3)")
            .bind(number)
            .bind(apply.applied_at_us)
            .bind(&apply.fingerprint)
            .execute(&mut *transaction)
            .await;
        match header {
            // Two transactions may have read the same latest number; the key lets one of them through.
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                return Err(taken(apply.number));
            }
            other => other?,
        };
        for file in &apply.files {
            sqlx::query("INSERT INTO definition_files (apply_number, path, content) VALUES ($1, $2, $3)")
                .bind(number)
                .bind(&file.path)
                .bind(&file.text)
                .execute(&mut *transaction)
                .await?;
        }
        for (source, schema) in &apply.source_schemas {
            sqlx::query(
                "INSERT INTO source_schemas (apply_number, source, arrow_schema) VALUES ($1, $2, $3)",
            )
            .bind(number)
            .bind(source)
            .bind(encode_schema(schema)?)
            .execute(&mut *transaction)
            .await?;
        }
        for model in &apply.models {
            sqlx::query(
                "INSERT INTO model_versions (apply_number, model, version, digest, path, service) \
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(number)
            .bind(&model.model)
            .bind(&model.version)
            .bind(&model.digest)
            .bind(&model.path)
            .bind(&model.service)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

fn taken(number: u64) -> Error {
    Error::Refused(format!(
        "another apply went live in the meantime, so this one can't be number {number}; plan again to see what is left to change"
    ))
}

/// Arrow IPC keeps every type there is, also those that the definition language has no word for.
fn encode_schema(schema: &SchemaRef) -> Result<String> {
    let mut bytes = Vec::new();
    StreamWriter::try_new(&mut bytes, schema)?.finish()?;
    Ok(artifacts::hexadecimal(&bytes))
}

fn decode_schema(text: &str) -> Result<SchemaRef> {
    let damaged = || Error::Internal("a source schema in the registry is damaged".to_owned());
    let bytes: Vec<u8> = text
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect::<Option<_>>()
        .ok_or_else(damaged)?;
    Ok(Arc::clone(&StreamReader::try_new(bytes.as_slice(), None).map_err(|_| damaged())?.schema()))
}

#[cfg(test)]
mod tests;
