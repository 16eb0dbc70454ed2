//! Which store is this, whose is it, and do the other servers have the same one?
//!
//! A store has an id, in its file `store.json`, and belongs to the registry that knows this id: two registries in one
//! store would take each other's files for nobody's. Each server writes again and again a file with its name into the
//! store, and tells the registry. So where the registry knows another server, this one can try whether it sees what the
//! other has written just now: that a folder is shared is not believed, but seen.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quern_base::random;
use sqlx::AssertSqlSafe;

use super::manifest::micros;
use super::{Segments, StoreAt};
use crate::error::{Error, Result};
use crate::registry::{Database, Registry, answer, on};

/// Stands in every store.
pub(super) const MARK: &str = "store.json";
/// Where servers write their names.
pub(super) const SERVERS: &str = "servers";
/// A server that has said nothing for so long is not asked about any more.
const SEEN_FOR: Duration = Duration::from_secs(90);
/// One that has said nothing for so long is forgotten.
const KNOWN_FOR: Duration = Duration::from_secs(86_400);
/// How long the registry may take to hear that a server ends.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Of so many others it is looked whether they have the same store.
const OTHERS_MAX: i64 = 16;

/// Whether the servers of a registry have one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shared {
    /// It is this server's own: nobody has said otherwise.
    Own,
    /// It is said to be shared, and there is no other server to see it by.
    Alone,
    /// Every other server that is there has this store.
    Seen,
    /// It is said to be shared, and is not, or nobody knows.
    Unproved(String),
}

impl Shared {
    /// Whether what this server writes may be relied on to be there for others.
    pub fn holds(&self) -> bool {
        matches!(self, Shared::Alone | Shared::Seen)
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shared::Own => f.write_str("this server's own"),
            Shared::Alone => f.write_str("shared, with no other server now"),
            Shared::Seen => f.write_str("shared, as other servers' files in it show"),
            Shared::Unproved(cause) => write!(f, "said to be shared, which is not known to be so: {cause}"),
        }
    }
}

/// One server among those that have a store.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    /// How often it has said that it is there.
    beats: AtomicI64,
    /// Whether the store is known to be shared.
    pub(super) holds: Arc<AtomicBool>,
    known: Mutex<(Option<String>, Shared)>,
}

impl Member {
    pub(super) fn new(number: u64) -> Member {
        let unknown = Shared::Unproved("it was not looked yet".to_owned());
        let name = format!("{number:016x}");
        Member { name, beats: AtomicI64::new(0), holds: Arc::default(), known: Mutex::new((None, unknown)) }
    }

    /// The id of the store, where it is known.
    pub(super) fn store(&self) -> Option<String> {
        self.known.lock().0.clone()
    }
}

impl Segments {
    /// Whether the servers of the registry have one store, as it was seen last.
    pub fn shared(&self) -> Shared {
        self.member.known.lock().1.clone()
    }

    /// Finds out which store this is, makes this server known, and looks whether others have the same; gives its id. To
    /// be called at least every half a minute where others are to know of this server.
    ///
    /// # Errors
    /// `Kind::Refused` where the store belongs to another registry.
    pub fn meet(&self) -> Result<String> {
        let store = self.identify()?;
        let shared = match self.at.is_said_shared() {
            true => self.look(&store).unwrap_or_else(|error| Shared::Unproved(error.logged())),
            false => Shared::Own,
        };
        self.member.holds.store(shared.holds(), Ordering::Relaxed);
        let before = {
            let mut known = self.member.known.lock();
            known.0 = Some(store.clone());
            std::mem::replace(&mut known.1, shared.clone())
        };
        if let Shared::Unproved(cause) = &shared
            && before != shared
        {
            tracing::warn!(
                store = %self.at,
                cause,
                "it is not known that all servers have this store, as it is said: others may not see what this one writes"
            );
        }
        Ok(store)
    }

    /// Tells the others that this server has a store of its own, and so another one than theirs.
    pub(super) fn tell_of_own(&self, store: &str) -> Result<()> {
        match self.registry.is_shared() && !self.at.is_said_shared() {
            true => self.wait(self.registry.servers(&self.member.name, store, 0)).map(drop),
            false => Ok(()),
        }
    }

    /// Tells the others that this server is no longer there. Where that fails they find out.
    pub async fn leave(&self) {
        let left = tokio::time::timeout(LEAVE_TIMEOUT, self.registry.forget_server(&self.member.name)).await;
        if let Ok(Err(error)) = left {
            tracing::debug!(error = error.logged(), "the registry is not told that this server ends");
        }
    }

    fn identify(&self) -> Result<String> {
        if let Some(text) = self.place.read_small(MARK)? {
            let id = id_in(&text).ok_or_else(|| self.damaged_mark())?;
            return self.owned(id);
        }
        self.check_nothing_lies_elsewhere()?;
        // The registry first: a store that names an id which no registry knows would be nobody's.
        let id = format!("{:016x}{:016x}", random::number(), random::number());
        self.wait(self.registry.add_store(&id, self.at.is_said_shared()))?;
        let text = format!("{{\"format\":1,\"id\":\"{id}\"}}\n");
        if self.place.create_small(MARK, &text, random::number())? {
            return Ok(id);
        }
        // Another server was quicker.
        let text = self.place.read_small(MARK)?.unwrap_or_default();
        self.owned(id_in(&text).ok_or_else(|| self.damaged_mark())?)
    }

    /// Refuses to begin a new store where the registry, which is this server's alone, knows segments of another one.
    fn check_nothing_lies_elsewhere(&self) -> Result<()> {
        if self.registry.is_shared() {
            return Ok(());
        }
        let asked = "SELECT store, COUNT(*) FROM segments WHERE replaced IS NULL GROUP BY store ORDER BY 2 DESC LIMIT 1";
        let registry = &self.registry;
        let known: Option<(String, i64)> = self.wait(async {
            Result::Ok(on!(registry.database, |pool| sqlx::query_as(asked).fetch_optional(pool))?)
        })?;
        let Some((id, count)) = known else { return Ok(()) };
        Err(Error::refused(format!(
            "the store {} has no `{MARK}`, so it is a new one, and the registry knows {count} segments of another store: \
             let `store` name that one. Where they lie here and the file alone is gone, bring it back, or write it: \
             {{\"format\":1,\"id\":\"{id}\"}}; where they are lost, `quern restore` a backup",
            self.at
        )))
    }

    fn owned(&self, id: String) -> Result<String> {
        match self.wait(self.registry.has_store(&id, self.at.is_said_shared()))? {
            true => Ok(id),
            false => Err(Error::refused(format!(
                "the store {} belongs to another registry than this server's: each needs a store of its own, since it \
                 removes there what it does not know. Name another `store`, or move what lies there away. Where this \
                 server's registry was lost, bring it back from a backup: without it nobody knows what the files are",
                self.at
            ))),
        }
    }

    pub(super) fn damaged_mark(&self) -> Error {
        Error::refused(format!(
            "the file `{MARK}` in the store {} does not say which store it is; bring it back from a backup, or run the \
             version of Quern that wrote it",
            self.at
        ))
    }

    /// Says that this server is here, and looks whether it sees what others have said.
    fn look(&self, store: &str) -> Result<Shared> {
        let name = &self.member.name;
        if !self.registry.is_shared() {
            return Ok(Shared::Alone);
        }
        // The file first: whoever hears of a server looks for it.
        let beat = self.member.beats.fetch_add(1, Ordering::Relaxed) + 1;
        self.place.write_small(&format!("{SERVERS}/{name}"), &beat.to_string())?;
        let others = self.wait(self.registry.servers(name, store, beat))?;
        for (other, theirs, beat) in &others {
            if theirs != store {
                return Ok(Shared::Unproved(format!("server {other} has another store")));
            }
            let found = self.place.read_small(&format!("{SERVERS}/{other}"))?;
            // A copy of a folder has what was written before it was copied.
            let found = found.and_then(|found| found.trim().parse::<i64>().ok());
            if found.is_none_or(|found| found < *beat) {
                return Ok(Shared::Unproved(match &self.at {
                    StoreAt::Folder { path, .. } => {
                        format!("what server {other} has written there is not in {} here", path.display())
                    }
                    StoreAt::Bucket(location) => {
                        format!("what server {other} has written there is not in {location}")
                    }
                }));
            }
        }
        Ok(if others.is_empty() { Shared::Alone } else { Shared::Seen })
    }
}

/// The id that a mark names.
pub(super) fn id_in(text: &str) -> Option<String> {
    let rest = text.trim().strip_prefix("{\"format\":1,\"id\":\"")?;
    let (id, _) = rest.split_once("\"}")?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

impl Registry {
    async fn add_store(&self, id: &str, shared: bool) -> Result<()> {
        let added = format!("INSERT INTO stores (id, shared, seen) VALUES ($1, $2, {})", self.clock());
        on!(self.database, |pool| async {
            let added = sqlx::query(AssertSqlSafe(added)).bind(id).bind(i64::from(shared));
            added.execute(pool).await.map(drop)
        })?;
        Ok(())
    }

    /// Whether a store is this registry's; notes that it is there, once a day.
    async fn has_store(&self, id: &str, shared: bool) -> Result<bool> {
        let asked = "SELECT COUNT(*) FROM stores WHERE id = $1";
        let noted = format!(
            "UPDATE stores SET shared = $2, seen = {clock} WHERE id = $1 AND (shared <> $2 OR seen < {clock} - $3)",
            clock = self.clock()
        );
        let found: i64 = on!(self.database, |pool| async {
            let noted = sqlx::query(AssertSqlSafe(noted)).bind(id).bind(i64::from(shared));
            noted.bind(micros(KNOWN_FOR)).execute(pool).await?;
            sqlx::query_scalar(asked).bind(id).fetch_one(pool).await
        })?;
        Ok(found > 0)
    }

    /// Forgets what was logged into the own stores of servers that have gone long ago.
    pub(super) async fn forget_stores(&self, unseen: Duration) -> Result<()> {
        let gone = format!(
            "DELETE FROM segments WHERE family = 'predictions' AND store IN \
             (SELECT id FROM stores WHERE shared = 0 AND seen < {} - $1)",
            self.clock()
        );
        on!(self.database, |pool| async {
            sqlx::query(AssertSqlSafe(gone)).bind(micros(unseen)).execute(pool).await.map(drop)
        })?;
        Ok(())
    }

    async fn forget_server(&self, server: &str) -> Result<()> {
        let gone = "DELETE FROM store_servers WHERE server = $1";
        on!(self.database, |pool| async { sqlx::query(gone).bind(server).execute(pool).await.map(drop) })?;
        Ok(())
    }

    /// Notes that `server` has `store` open; gives the others that have said so lately, their stores, and how often.
    async fn servers(&self, server: &str, store: &str, beat: i64) -> Result<Vec<(String, String, i64)>> {
        let clock = self.clock();
        let noted = format!(
            "INSERT INTO store_servers (server, store, beat, seen) VALUES ($1, $2, $3, {clock}) \
             ON CONFLICT (server) DO UPDATE SET store = excluded.store, beat = excluded.beat, seen = excluded.seen"
        );
        let gone = format!("DELETE FROM store_servers WHERE seen < {clock} - $1");
        let asked = format!(
            "SELECT server, store, beat FROM store_servers WHERE server <> $1 AND seen >= {clock} - $2 \
             ORDER BY seen DESC LIMIT $3"
        );
        let others = on!(self.database, |pool| async {
            let noted = sqlx::query(AssertSqlSafe(noted)).bind(server).bind(store).bind(beat);
            noted.execute(pool).await?;
            sqlx::query(AssertSqlSafe(gone)).bind(micros(KNOWN_FOR)).execute(pool).await?;
            let asked = sqlx::query_as(AssertSqlSafe(asked)).bind(server).bind(micros(SEEN_FOR));
            asked.bind(OTHERS_MAX).fetch_all(pool).await
        })?;
        Ok(others)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use tempfile::TempDir;

    use super::super::{Family, Range, Set};
    use super::*;
    use crate::registry::Location;

    #[test]
    fn a_mark_names_a_store_or_none() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(id_in(&format!("{{\"format\":1,\"id\":\"{id}\"}}\n")).as_deref(), Some(id));
        for wrong in
            ["", "{}", &format!("{{\"format\":2,\"id\":\"{id}\"}}"), "{\"format\":1,\"id\":\"../..\"}"]
        {
            assert_eq!(id_in(wrong), None, "{wrong}");
        }
    }

    /// What was pushed is never forgotten: the server may come back.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_server_has_logged_that_went_long_ago_is_forgotten() {
        let folder = TempDir::new().unwrap();
        let registry = Registry::open(&Location::Sqlite, folder.path()).await.unwrap();
        let open = |name: &str| {
            let at = StoreAt::Folder { path: folder.path().join(name), shared: false };
            Segments::open(at, &registry, (folder.path().join("scratch"), 1 << 20)).unwrap()
        };
        let (gone, here) = (open("gone"), open("here"));
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let sets = [Family::Pushed, Family::Predictions].map(|family| Set::of(family, "", "a"));
        for segments in [&gone, &here] {
            for set in &sets {
                let range = Range { first: 0, end: 1, from_us: 0, to_us: 0 };
                segments.write(set, range, |writer| writer.write(&rows)).unwrap();
            }
        }
        let counts =
            || [&gone, &here].map(|segments| sets.clone().map(|set| segments.list(&set).unwrap().len()));
        here.sweep().unwrap();
        assert_eq!(counts(), [[1, 1], [1, 1]]);
        let Database::Sqlite(pool) = &registry.database else { panic!("SQLite") };
        let long_ago = "UPDATE stores SET seen = 0 WHERE id = $1";
        sqlx::query(long_ago).bind(gone.meet().unwrap()).execute(pool).await.unwrap();
        here.sweep().unwrap();
        assert_eq!(counts(), [[1, 0], [1, 1]]);
    }
}
