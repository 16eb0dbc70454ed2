//! Does it answer, and what went wrong last? For whoever wants to know how it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::reply::unexpected;
use super::{Connected, Redis};
use crate::error::{Error, Result};
use crate::position::{Position, Standing};

impl Redis {
    /// Asks within `patience`. Gives how far it follows the log of each source.
    pub async fn probe(&self, patience: Duration) -> Result<BTreeMap<String, Position>> {
        let mut command = redis::cmd("HGETALL");
        command.arg(&self.names.positions);
        let asked = async |connected: Arc<Connected>| connected.writes.command(&command).await;
        let Value::Array(entries) = self.ask(patience, asked).await? else {
            return Err(self.explain(&unexpected()));
        };
        let position = |[source, position]: &[Value; 2]| match (source, position) {
            (Value::BulkString(source), Value::BulkString(position)) => {
                let standing = Standing::read(position)?;
                Some((String::from_utf8(source.clone()).ok()?, standing.applied))
            }
            _ => None,
        };
        let positions: Option<_> = entries.as_chunks().0.iter().map(position).collect();
        positions.ok_or_else(|| self.explain(&unexpected()))
    }

    /// What went wrong last, and when (µs).
    pub fn last_failure(&self) -> Option<(String, i64)> {
        self.last_failure.lock().clone()
    }

    pub(super) fn note_failure(&self, error: &Error) {
        *self.last_failure.lock() = Some((error.logged(), quern_base::clock::now_us()));
    }
}
