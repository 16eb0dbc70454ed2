//! Which online store does a test run on?

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quern_store::online::Online;
use quern_store::redis::{Address, Redis};
use quern_store::rocks;
use tempfile::TempDir;

use crate::{RedisCluster, RedisServer, Result, fresh_database, fresh_prefix};

/// An online store, and for one of them a registry.
#[derive(Debug, Clone, Copy)]
pub enum Store {
    /// RocksDB, in the data folder.
    Rocks,
    /// One Redis.
    Redis,
    /// A Redis Cluster of three.
    Cluster,
    /// Redis, with a registry in PostgreSQL: it takes pushes.
    Shared,
    /// A Redis Cluster of three, with a registry in PostgreSQL.
    SharedCluster,
}

impl Store {
    /// Whether rows can be pushed to it.
    pub fn takes_pushes(self) -> bool {
        matches!(self, Store::Rocks | Store::Shared | Store::SharedCluster)
    }

    /// Returns what selects it. Every call names another part of the store.
    pub async fn settings(self) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        if let Some(url) = self.url() {
            // A machine that is busy with tests is no reason to give up.
            settings.extend([("online", url), ("online_timeout", "30s".to_owned())]);
        }
        if matches!(self, Store::Shared | Store::SharedCluster) {
            settings.push(("registry", fresh_database().await));
        }
        settings
    }

    /// Returns the URL of a part that is nobody else's; none for RocksDB.
    pub fn url(self) -> Option<String> {
        let url = match self {
            Store::Rocks => return None,
            Store::Redis | Store::Shared => RedisServer::shared().url(),
            Store::Cluster | Store::SharedCluster => RedisCluster::shared().url(),
        };
        let separator = if url.contains('?') { '&' } else { '?' };
        Some(format!("{url}{separator}prefix={}", fresh_prefix()))
    }
}

/// An online store without a server around it; this part of it is nobody else's.
pub struct Head {
    online: Online,
    store: Store,
    place: Place,
}

/// Where a head keeps its rows.
enum Place {
    Folder(TempDir),
    Url(String),
}

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

impl Store {
    /// Opens an empty part of it.
    pub async fn open_head(self) -> Head {
        Head::open(self, self.url().map_or_else(|| Place::Folder(TempDir::new().unwrap()), Place::Url)).await
    }
}

impl Head {
    async fn open(store: Store, place: Place) -> Head {
        let online = match &place {
            Place::Folder(folder) => Online::Rocks(Arc::new(rocks::Head::open(folder.path()).unwrap())),
            Place::Url(url) => Online::Redis(open_redis(url, PATIENCE).await.unwrap(), None),
        };
        Head { online, store, place }
    }

    /// Closes it, and opens it again.
    pub async fn reopen(self) -> Head {
        let Head { online, store, place } = self;
        drop(online);
        Head::open(store, place).await
    }

    /// Returns which store it is in.
    pub fn store(&self) -> Store {
        self.store
    }
}

impl Deref for Head {
    type Target = Online;

    fn deref(&self) -> &Online {
        &self.online
    }
}

/// Connects to the Redis at `url`, as a server does; a look-up waits for an answer until `deadline`.
///
/// # Errors
/// What keeps a server from starting on it.
///
/// # Panics
/// Where that is no URL of a Redis.
pub async fn open_redis(url: &str, deadline: Duration) -> Result<Arc<Redis>> {
    let address = Address::parse(url, Path::new("/")).unwrap();
    Ok(Redis::open(address, deadline).await?)
}
