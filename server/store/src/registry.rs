//! Which definitions went live, when, and with which model files?
//!
//! Every apply that changed something has a number and is kept for good: its definition files verbatim, the schemas
//! its sources had, and the digests of its models. One transaction writes an apply, whole or not at all.
//!
//! SQLite keeps it for one server, PostgreSQL for several. The statements are the same, so each is written once and
//! `on!` runs it on whichever database there is.

mod artifacts;
mod changes;
mod copy;
mod digest;
mod keys;
mod leases;
mod ramps;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use feature_defs::DefFile;
use quern_engine::SourceSchemas;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

pub use artifacts::Artifacts;
pub use changes::Changes;
pub use keys::{ApiKey, NewApiKey};
pub use ramps::RampCounts;
pub use runs::{KnownRuns, Run, RunEnd, RunNote};

use super::log::SharedLog;
use quern_base::digest::hexadecimal;

use crate::error::{Error, Result, is_lost};

/// Numbered, and never edited once landed. SQLite does without what several servers share: its model files lie beside
/// it on the same disk, and a migration that it does not need would only keep earlier builds from reading it.
const MIGRATIONS: [(i64, &str, &str); 12] = [
    (1, "applies", include_str!("../../../migrations/0001_applies.sql")),
    (2, "artifacts", include_str!("../../../migrations/0002_artifacts.sql")),
    (3, "weights", include_str!("../../../migrations/0003_weights.sql")),
    (4, "pushed", include_str!("../../../migrations/0004_pushed.sql")),
    (5, "runs", include_str!("../../../migrations/0005_runs.sql")),
    (6, "segments", include_str!("../../../migrations/0006_segments.sql")),
    (7, "sources", include_str!("../../../migrations/0007_sources.sql")),
    (8, "sealed", include_str!("../../../migrations/0008_sealed.sql")),
    (9, "digests", include_str!("../../../migrations/0009_digests.sql")),
    (10, "api_keys", include_str!("../../../migrations/0010_api_keys.sql")),
    (11, "projects", include_str!("../../../migrations/0011_projects.sql")),
    (12, "ramps", include_str!("../../../migrations/0012_ramps.sql")),
];
const SQLITE_MIGRATIONS: &[i64] = &[1, 3, 5, 6, 9, 10, 11, 12];
/// Its name in the data folder.
const SQLITE_FILE: &str = "registry.sqlite";

/// How long PostgreSQL may take to connect ...
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// ... and to answer. Nothing that the registry is asked takes long, but a network that swallows packets never says so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// One hears of changes, one asks for them, and the others are for an apply.
const CONNECTIONS_MAX: u32 = 4;

/// Where a registry is.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// `registry.sqlite` in the data folder, for one server.
    Sqlite,
    /// A PostgreSQL database, by its URL, for several servers.
    Postgres(String),
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "sqlite" {
            return Ok(Location::Sqlite);
        }
        // What was typed may hold a password, so it is not repeated.
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err("this is either `sqlite` or a URL, as in `postgres://user@host/database`".to_owned());
        }
        PgConnectOptions::from_str(text).map_err(|error| format!("not the URL of a database: {error}"))?;
        Ok(Location::Postgres(text.to_owned()))
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may hold a password, and settings end up in logs.
        f.write_str(match self {
            Location::Sqlite => "Sqlite",
            Location::Postgres(_) => "Postgres",
        })
    }
}

/// Every apply, and the model files that they name.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(crate) database: Database,
    /// The model files that the applies name.
    pub artifacts: Artifacts,
}

#[derive(Debug, Clone)]
pub(crate) enum Database {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Asks `$database`: `$asked` is a future that runs its statements on `$pool`, whichever pool that is.
macro_rules! on {
    ($database:expr, |$pool:ident| $asked:expr) => {
        match &$database {
            Database::Sqlite($pool) => $asked.await,
            Database::Postgres($pool) => answer($asked).await,
        }
    };
}

pub(crate) use on;
// Below the macro, which it asks by.
mod runs;

/// The answer, or an error where it takes too long.
pub(crate) async fn answer<T, E: From<sqlx::Error>>(
    asked: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, E> {
    let late = |_| Err(sqlx::Error::Io(ErrorKind::TimedOut.into()).into());
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(late)
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
    /// The definition files of all projects, sorted by project and path.
    pub files: Vec<DefFile>,
    /// The schemas of the sources.
    pub source_schemas: SourceSchemas,
    /// The versions of all models.
    pub models: Vec<AppliedModel>,
    /// The weights of versions, by model, where they were set since the model's route was declared.
    pub weights: BTreeMap<String, Vec<(String, u32)>>,
    /// The ramps of versions, by model, as whoever runs them wrote them.
    pub ramps: BTreeMap<String, String>,
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
    /// Where the file lay: in the repository, or in an object store.
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
    /// Opens the registry at `location`, or makes one. Whichever it is, the folder `data` takes its model files.
    ///
    /// # Errors
    /// Where it is damaged or cannot be reached, or was written by a later version of Quern.
    pub async fn open(location: &Location, data: &Path) -> Result<Registry> {
        let models = data.join("models");
        match location {
            Location::Sqlite => {
                let path = data.join(SQLITE_FILE);
                let pool = open_sqlite(&path).await.map_err(|cause| failed(path.display(), &cause))?;
                Ok(Registry { database: Database::Sqlite(pool), artifacts: Artifacts::open(&models, None)? })
            }
            Location::Postgres(url) => {
                let options = PgConnectOptions::from_str(url)?.application_name("quern");
                let place = format!("at {}", place(&options));
                let pool = open_postgres(options).await.map_err(|cause| failed(place, &cause))?;
                let artifacts = Artifacts::open(&models, Some(pool.clone()))?;
                Ok(Registry { database: Database::Postgres(pool), artifacts })
            }
        }
    }

    /// Whether other servers may write it too.
    pub fn is_shared(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }

    /// Where it is, to people.
    pub fn place(&self) -> String {
        match &self.database {
            // Where that lies is the operator's business.
            Database::Sqlite(_) => format!("`{SQLITE_FILE}` in the data folder"),
            Database::Postgres(pool) => place(&pool.connect_options()),
        }
    }

    /// Its connections, all and those that nobody uses, where other servers may write it too.
    pub fn connections(&self) -> Option<(u64, u64)> {
        match &self.database {
            Database::Sqlite(_) => None,
            Database::Postgres(pool) => Some((u64::from(pool.size()), pool.num_idle() as u64)),
        }
    }

    /// What the time is in the database, in SQL: microseconds since the Unix epoch.
    pub(crate) fn clock(&self) -> &'static str {
        match &self.database {
            Database::Sqlite(_) => "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
            Database::Postgres(_) => "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
        }
    }

    /// The log of pushed rows, where other servers may write the registry too.
    pub async fn log(&self) -> Result<Option<SharedLog>> {
        match &self.database {
            Database::Sqlite(_) => Ok(None),
            Database::Postgres(pool) => {
                let options = PgConnectOptions::clone(&pool.connect_options());
                Ok(Some(SharedLog::open(options).await?))
            }
        }
    }

    /// Number of the latest apply; 0 before the first one.
    pub async fn latest_number(&self) -> Result<u64> {
        let latest = "SELECT MAX(number) FROM applies";
        let number: Option<i64> = on!(self.database, |pool| sqlx::query_scalar(latest).fetch_one(pool))?;
        Ok(number.map_or(0, i64::unsigned_abs))
    }

    /// The apply that is live; none before the first one.
    pub async fn latest(&self) -> Result<Option<Apply>> {
        match self.latest_number().await? {
            0 => Ok(None),
            number => Ok(Some(self.apply(number).await?)),
        }
    }

    /// The apply with this number.
    pub async fn apply(&self, number: u64) -> Result<Apply> {
        let key = i64::try_from(number).unwrap_or(i64::MAX);
        let header = "SELECT applied_at, fingerprint, sha256 FROM applies WHERE number = $1";
        let header: Option<(i64, String, String)> =
            on!(self.database, |pool| sqlx::query_as(header).bind(key).fetch_optional(pool))?;
        let Some((applied_at_us, fingerprint, sha256)) = header else {
            return Err(Error::not_found(format!("there is no apply {number}")));
        };
        let weights = "SELECT model, version, weight FROM weights WHERE apply_number = $1";
        let mut set: Vec<(String, String, i64)> =
            on!(self.database, |pool| sqlx::query_as(weights).bind(key).fetch_all(pool))?;
        set.sort();
        let mut weights: BTreeMap<String, Vec<(String, u32)>> = BTreeMap::new();
        for (model, version, weight) in set {
            weights.entry(model).or_default().push((version, u32::try_from(weight).unwrap_or(0)));
        }
        let ramps = "SELECT model, ramp FROM ramps WHERE apply_number = $1";
        let ramps: Vec<(String, String)> =
            on!(self.database, |pool| sqlx::query_as(ramps).bind(key).fetch_all(pool))?;
        let files = "SELECT project, path, content FROM project_files WHERE apply_number = $1";
        let mut files: Vec<(String, String, String)> =
            on!(self.database, |pool| sqlx::query_as(files).bind(key).fetch_all(pool))?;
        // Sorted here: databases differ in how they order texts.
        files.sort();
        let schemas = "SELECT source, arrow_schema FROM source_schemas WHERE apply_number = $1";
        let mut schemas: Vec<(String, String)> =
            on!(self.database, |pool| sqlx::query_as(schemas).bind(key).fetch_all(pool))?;
        schemas.sort();
        let models =
            "SELECT model, version, digest, path, service FROM model_versions WHERE apply_number = $1";
        let mut models: Vec<(String, String, String, String, String)> =
            on!(self.database, |pool| sqlx::query_as(models).bind(key).fetch_all(pool))?;
        models.sort();
        let source_schemas = schemas
            .iter()
            .map(|(source, schema)| Ok((source.clone(), decode_schema(schema)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let apply = Apply {
            number,
            applied_at_us,
            fingerprint,
            files: files.into_iter().map(|(project, path, text)| DefFile { project, path, text }).collect(),
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
            weights,
            ramps: ramps.into_iter().collect(),
        };
        match apply.sha256(&schemas)? {
            found if found == sha256 || sha256.is_empty() => Ok(apply),
            found => Err(Error::refused(format!(
                "apply {number} is damaged in the registry ({}): its SHA-256 is {found}, and that of what was applied \
                 {sha256}; bring the registry back from a backup",
                self.place()
            ))),
        }
    }

    /// Every apply, the oldest first.
    pub async fn history(&self) -> Result<Vec<ApplyHeader>> {
        let rows = "SELECT number, applied_at, fingerprint FROM applies ORDER BY number";
        let rows: Vec<(i64, i64, String)> = on!(self.database, |pool| sqlx::query_as(rows).fetch_all(pool))?;
        let headers = rows.into_iter().map(|(number, applied_at_us, fingerprint)| ApplyHeader {
            number: number.unsigned_abs(),
            applied_at_us,
            fingerprint,
        });
        Ok(headers.collect())
    }

    /// Writes an apply, whole or not at all. Its model files must be in [`Registry::artifacts`] already.
    ///
    /// # Errors
    /// `Kind::Refused` where its number is not the one after the latest: someone else applied in the meantime.
    /// `Kind::Unavailable` where the connection broke; whether it was written shows later.
    pub async fn record(&self, apply: &Apply) -> Result<()> {
        let schemas = apply.stored_schemas()?;
        let (number, sha256) = (i64::try_from(apply.number).unwrap_or(i64::MAX), apply.sha256(&schemas)?);
        on!(self.database, |pool| async {
            let mut transaction = pool.begin().await?;
            let latest: Option<i64> =
                sqlx::query_scalar("SELECT MAX(number) FROM applies").fetch_one(&mut *transaction).await?;
            if latest.unwrap_or(0) + 1 != number {
                return Err(taken(apply.number));
            }
            let header = sqlx::query(
                "INSERT INTO applies (number, applied_at, fingerprint, sha256) VALUES ($1, $2, $3, $4)",
            )
            .bind(number)
            .bind(apply.applied_at_us)
            .bind(&apply.fingerprint)
            .bind(&sha256)
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
                let row = "INSERT INTO project_files (apply_number, project, path, content) VALUES ($1, $2, $3, $4)";
                let row = sqlx::query(row).bind(number).bind(&file.project).bind(&file.path).bind(&file.text);
                row.execute(&mut *transaction).await?;
            }
            for (source, schema) in &schemas {
                sqlx::query(
                    "INSERT INTO source_schemas (apply_number, source, arrow_schema) VALUES ($1, $2, $3)",
                )
                .bind(number)
                .bind(source)
                .bind(schema)
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
            let set = "INSERT INTO weights (apply_number, model, version, weight) VALUES ($1, $2, $3, $4)";
            for (model, weights) in &apply.weights {
                for (version, weight) in weights {
                    let set =
                        sqlx::query(set).bind(number).bind(model).bind(version).bind(i64::from(*weight));
                    set.execute(&mut *transaction).await?;
                }
            }
            for (model, ramp) in &apply.ramps {
                let kept = sqlx::query("INSERT INTO ramps (apply_number, model, ramp) VALUES ($1, $2, $3)");
                kept.bind(number).bind(model).bind(ramp).execute(&mut *transaction).await?;
            }
            if self.is_shared() {
                // Heard when the transaction is committed, and not if it is not.
                sqlx::query(changes::NOTIFY).execute(&mut *transaction).await?;
            }
            Ok(transaction.commit().await?)
        })
    }

    /// Hears of the applies that other servers write from now on; none where nobody else can.
    pub async fn changes(&self) -> Result<Option<Changes>> {
        match &self.database {
            Database::Sqlite(_) => Ok(None),
            Database::Postgres(pool) => Ok(Some(answer(Changes::listen(pool)).await?)),
        }
    }
}

/// Where a PostgreSQL is; the user and the password are nobody's business.
fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    format!("{}:{}, database `{database}`", options.get_host(), options.get_port())
}

/// Why a database does not open, in its own words.
type Cause = Box<dyn std::error::Error + Send + Sync>;

async fn open_sqlite(path: &Path) -> std::result::Result<SqlitePool, Cause> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // An apply that was answered must outlive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    migrations(|number| SQLITE_MIGRATIONS.contains(&number)).run(&pool).await?;
    Ok(pool)
}

async fn open_postgres(options: PgConnectOptions) -> std::result::Result<PgPool, Cause> {
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_with(options)
        .await?;
    // Servers that start at the same time take turns here: the migrator holds a lock in the database.
    migrations(|_| true).run(&pool).await?;
    Ok(pool)
}

fn migrations(wanted: impl Fn(i64) -> bool) -> Migrator {
    let wanted = MIGRATIONS.into_iter().filter(|(number, _, _)| wanted(*number));
    let migrations = wanted.map(|(number, name, sql)| {
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

fn failed(place: impl fmt::Display, cause: &Cause) -> Error {
    match cause.downcast_ref::<sqlx::Error>() {
        Some(lost) if is_lost(lost) => Error::unavailable(format!("the registry {place} does not answer"))
            .because(format!("{cause}; is the database running, and can it be reached from here?")),
        Some(_) => Error::internal(format!("the registry {place}"), cause.to_string()),
        None => Error::internal(
            format!("the registry {place} cannot be read; was it written by a later version of Quern?"),
            cause.to_string(),
        ),
    }
}

fn taken(number: u64) -> Error {
    Error::refused(format!(
        "another apply went live in the meantime, so this one can't be number {number}; plan again to see what is left to change"
    ))
}

/// Arrow IPC keeps every type there is, also those that the definition language has no word for.
fn encode_schema(schema: &SchemaRef) -> Result<String> {
    let mut bytes = Vec::new();
    StreamWriter::try_new(&mut bytes, schema)?.finish()?;
    Ok(hexadecimal(&bytes))
}

fn decode_schema(text: &str) -> Result<SchemaRef> {
    let damaged = || Error::broken("a source schema in the registry is damaged");
    let bytes: Vec<u8> = text
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect::<Option<_>>()
        .ok_or_else(damaged)?;
    Ok(Arc::clone(&StreamReader::try_new(bytes.as_slice(), None).map_err(|_| damaged())?.schema()))
}
