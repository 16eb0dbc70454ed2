//! Which online store does a test run on?

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quern_server::store::redis::{Address, Redis};

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
}

impl Store {
    /// Whether rows can be pushed to it.
    pub fn takes_pushes(self) -> bool {
        matches!(self, Store::Rocks | Store::Shared)
    }

    /// Returns what selects it. Every call names another part of the store.
    pub async fn settings(self) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        if let Some(url) = self.url() {
            // A machine that is busy with tests is no reason to give up.
            settings.extend([("online", url), ("online_timeout", "30s".to_owned())]);
        }
        if matches!(self, Store::Shared) {
            settings.push(("registry", fresh_database().await));
        }
        settings
    }

    /// Returns the URL of a part that is nobody else's; none for RocksDB.
    pub fn url(self) -> Option<String> {
        let url = match self {
            Store::Rocks => return None,
            Store::Redis | Store::Shared => RedisServer::shared().url(),
            Store::Cluster => RedisCluster::shared().url(),
        };
        let separator = if url.contains('?') { '&' } else { '?' };
        Some(format!("{url}{separator}prefix={}", fresh_prefix()))
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
