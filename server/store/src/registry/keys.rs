//! Who may ask by an API key?
//!
//! The registry keeps no key, only the SHA-256 of its secret. Two that are valid may have one name, so that one takes
//! the place of the other while both are in use. What happened to all keys is counted, so that other servers ask for a
//! number and read keys only where it is another one.

use sqlx::AssertSqlSafe;

use super::{Database, Registry, answer, on};
use crate::error::{Error, Result};

/// So many valid keys of one name: the one in use, and the one that takes its place.
const OF_A_NAME_MAX: i64 = 2;
/// Servers have all of them in memory.
const VALID_MAX: i64 = 10_000;
const COLUMNS: &str = "id, name, sha256, last_four, created_us, expires_us, revoked_us";
/// Of two who make a key of one name at once, the second one counts the first one's.
const LOCK: &str = "LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE";
const NEXT: &str = "(SELECT COALESCE(MAX(changed), 0) + 1 FROM api_keys)";

/// An API key, as it is kept. Times are of the database's clock (µs since the Unix epoch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name among keys, which stands in it.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// SHA-256 of its secret, in hexadecimal.
    pub sha256: String,
    /// Its last characters.
    pub last_four: String,
    /// When it was made.
    pub created_us: i64,
    /// When it expires; never where there is none.
    pub expires_us: Option<i64>,
    /// When it was revoked.
    pub revoked_us: Option<i64>,
}

/// An API key that is to be kept.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// See [`ApiKey`].
    pub id: String,
    /// See [`ApiKey`].
    pub name: String,
    /// See [`ApiKey`].
    pub sha256: String,
    /// See [`ApiKey`].
    pub last_four: String,
    /// After how long it expires (µs).
    pub lifetime_us: Option<i64>,
}

/// A key as it is read, by [`COLUMNS`].
type Read = (String, String, String, String, i64, Option<i64>, Option<i64>);

impl From<Read> for ApiKey {
    fn from((id, name, sha256, last_four, created_us, expires_us, revoked_us): Read) -> ApiKey {
        ApiKey { id, name, sha256, last_four, created_us, expires_us, revoked_us }
    }
}

impl Registry {
    /// Keeps a key, from now on.
    ///
    /// # Errors
    /// `Kind::Refused` where there are two of its name that are valid.
    pub async fn make_key(&self, key: &NewApiKey) -> Result<ApiKey> {
        let now = self.clock();
        let valid = format!("revoked_us IS NULL AND (expires_us IS NULL OR expires_us > {now})");
        let counted =
            format!("SELECT COUNT(CASE WHEN name = $1 THEN 1 END), COUNT(*) FROM api_keys WHERE {valid}");
        let written = format!(
            "INSERT INTO api_keys (id, name, sha256, last_four, created_us, expires_us, changed) \
             SELECT $1, $2, $3, $4, clock.now, clock.now + $5, {NEXT} FROM (SELECT {now} AS now) AS clock \
             RETURNING {COLUMNS}"
        );
        on!(self.database, |pool| async {
            let mut transaction = pool.begin().await?;
            if self.is_shared() {
                sqlx::query(LOCK).execute(&mut *transaction).await?;
            }
            let counted = sqlx::query_as(AssertSqlSafe(counted)).bind(&key.name);
            let (of_name, of_all): (i64, i64) = counted.fetch_one(&mut *transaction).await?;
            if of_name >= OF_A_NAME_MAX {
                return Err(Error::refused(format!(
                    "there are {of_name} valid keys of `{}` already, the one in use and the one that takes its place: \
                     revoke one first",
                    key.name
                )));
            }
            if of_all >= VALID_MAX {
                return Err(Error::refused(format!("there are {of_all} valid keys, and no more may be")));
            }
            let written: Read = sqlx::query_as(AssertSqlSafe(written))
                .bind(&key.id)
                .bind(&key.name)
                .bind(&key.sha256)
                .bind(&key.last_four)
                .bind(key.lifetime_us)
                .fetch_one(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(written.into())
        })
    }

    /// All keys that there ever were, by name, the oldest first.
    pub async fn keys(&self) -> Result<Vec<ApiKey>> {
        let asked = format!("SELECT {COLUMNS} FROM api_keys");
        let keys: Vec<Read> =
            on!(self.database, |pool| sqlx::query_as(AssertSqlSafe(asked)).fetch_all(pool))?;
        let mut keys: Vec<ApiKey> = keys.into_iter().map(ApiKey::from).collect();
        // Sorted here: databases differ in how they order texts.
        keys.sort_by(|a, b| (&a.name, a.created_us, &a.id).cmp(&(&b.name, b.created_us, &b.id)));
        Ok(keys)
    }

    /// How many things happened to keys so far.
    pub async fn key_changes(&self) -> Result<i64> {
        let asked = "SELECT COALESCE(MAX(changed), 0) FROM api_keys";
        Ok(on!(self.database, |pool| sqlx::query_scalar(asked).fetch_one(pool))?)
    }

    /// Revokes the key of this ID, or else all of this name; gives them, those too that were revoked before.
    ///
    /// # Errors
    /// `Kind::NotFound` where there is none.
    pub async fn revoke_keys(&self, which: &str) -> Result<Vec<ApiKey>> {
        let now = self.clock();
        on!(self.database, |pool| async {
            let mut transaction = pool.begin().await?;
            if self.is_shared() {
                sqlx::query(LOCK).execute(&mut *transaction).await?;
            }
            let of_id: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM api_keys WHERE id = $1")
                .bind(which)
                .fetch_one(&mut *transaction)
                .await?;
            let column = if of_id > 0 { "id" } else { "name" };
            let revoked = format!(
                "UPDATE api_keys SET revoked_us = {now}, changed = {NEXT} WHERE {column} = $1 AND revoked_us IS NULL"
            );
            sqlx::query(AssertSqlSafe(revoked)).bind(which).execute(&mut *transaction).await?;
            let found = format!("SELECT {COLUMNS} FROM api_keys WHERE {column} = $1 ORDER BY created_us, id");
            let found: Vec<Read> =
                sqlx::query_as(AssertSqlSafe(found)).bind(which).fetch_all(&mut *transaction).await?;
            if found.is_empty() {
                return Err(Error::not_found(format!(
                    "there is no key `{which}`, neither by name nor by ID"
                )));
            }
            transaction.commit().await?;
            Ok(found.into_iter().map(ApiKey::from).collect())
        })
    }
}
