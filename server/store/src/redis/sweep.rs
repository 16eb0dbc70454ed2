//! How do rows go out of Redis? Those of views that are gone, and those that history does not say any more.

use std::sync::Arc;

use quern_engine::ViewId;
use redis::{Cmd, Value};

use super::cluster::slot;
use super::reply::unexpected;
use super::{Connected, Redis, WRITE_PATIENCE};
use crate::error::{Error, Result};
use crate::rocks::{Rows, Wanted};

/// Keys that one step of a scan looks at.
const SCAN_KEYS: usize = 1_000;
const START: &[u8] = b"0";

impl Redis {
    /// Removes the rows of the views `gone` from one server, a bounded number of keys at a time.
    pub(super) async fn sweep(&self, shard: usize, gone: &[ViewId]) -> Result<()> {
        let mut cursor = START.to_vec();
        loop {
            let (next, keys) = self.scan(shard, &cursor, &self.names.rows).await?;
            let is_gone = |key: &&Vec<u8>| self.names.view_of(key).is_some_and(|view| gone.contains(&view));
            let removals = keys.iter().filter(is_gone).map(|key| {
                let mut command = redis::cmd("UNLINK");
                command.arg(key);
                (slot(key), command)
            });
            let removals: Vec<(u16, Cmd)> = removals.collect();
            if !removals.is_empty() {
                let ping = redis::cmd("PING");
                let sent = async |connected: Arc<Connected>| connected.writes.send(removals, &ping).await;
                self.ask(WRITE_PATIENCE, sent).await?;
            }
            if next == START {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// One step of a scan of one server: where the next one begins, and some keys that begin with `prefix`.
    async fn scan(&self, shard: usize, cursor: &[u8], prefix: &[u8]) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
        let mut scan = redis::cmd("SCAN");
        let all = [&escaped(prefix)[..], b"*"].concat();
        scan.arg(cursor).arg("MATCH").arg(all).arg("COUNT").arg(SCAN_KEYS);
        let scanned = async |connected: Arc<Connected>| connected.writes.on_master(shard, scan).await;
        let Value::Array(reply) = self.ask(WRITE_PATIENCE, scanned).await? else {
            return Err(self.explain(&unexpected()));
        };
        let Ok([Value::BulkString(next), Value::Array(keys)]) = <[Value; 2]>::try_from(reply) else {
            return Err(self.explain(&unexpected()));
        };
        let key = |key: Value| match key {
            Value::BulkString(key) => Ok(key),
            _ => Err(self.explain(&unexpected())),
        };
        Ok((next, keys.into_iter().map(key).collect::<Result<_>>()?))
    }

    /// As [`Head::walk`](crate::rocks::Head::walk), in any order; a row may be shown twice.
    pub fn walk<E: From<Error>>(
        &self,
        view: ViewId,
        visit: &mut dyn FnMut(&Rows) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let prefix = self.names.row(&view.0.to_be_bytes());
        for shard in 0..self.connected()?.writes.shards() {
            let mut cursor = START.to_vec();
            loop {
                let (next, mut keys) = self.wait(self.scan(shard, &cursor, &prefix))?;
                // One step may show a key twice.
                keys.sort_unstable();
                keys.dedup();
                let keys: Vec<&[u8]> = keys.iter().filter_map(|key| key.strip_prefix(&prefix[..])).collect();
                let mut wanted = Wanted::default();
                keys.iter().for_each(|key| wanted.push(view, Some(key)));
                let mut rows = Rows::default();
                for (key, row) in keys.iter().zip(self.get_many(&wanted)?) {
                    if let Some(row) = row {
                        rows.push(view, key, |out| out.extend(row));
                    }
                }
                if !rows.is_empty() {
                    visit(&rows)?;
                }
                if next == START {
                    break;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    /// Removes rows of distinct keys, where they are still what is stored. Gives how many that were.
    pub fn remove_if(&self, over: Option<u64>, rows: &Rows) -> Result<u64> {
        let each = |row: usize, command: &mut Cmd| {
            command.arg(rows.get(row).1);
        };
        let replies = self.wait(self.run(over, &self.scripts.remove_if, rows, each))?;
        let removed = replies.into_iter().map(|(_, reply)| match reply {
            Value::Int(removed) => Ok(removed.unsigned_abs()),
            _ => Err(self.explain(&unexpected())),
        });
        removed.sum()
    }
}

/// Bytes as a pattern that only they match.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let special = |byte: &u8| b"*?[]^\\".contains(byte);
    bytes.iter().flat_map(|byte| special(byte).then_some(b'\\').into_iter().chain([*byte])).collect()
}
