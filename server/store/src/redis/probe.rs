//! Does it answer, and what went wrong last? For whoever wants to know how it is.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::link::unexpected;
use super::{Connected, Redis};
use crate::error::{Error, Result};

impl Redis {
    /// Asks within `patience`. Gives the number of the last commit of the log of pushed rows that is in; none where
    /// nobody noted one.
    pub async fn probe(&self, patience: Duration) -> Result<Option<i64>> {
        let mut command = redis::cmd("GET");
        command.arg(&self.names.applied);
        let asked = async |connected: Arc<Connected>| connected.writes.command(&command).await;
        match self.ask(patience, asked).await? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => {
                let bytes = bytes[..].try_into().map_err(|_| self.explain(&unexpected()))?;
                Ok(Some(i64::from_be_bytes(bytes)))
            }
            _ => Err(self.explain(&unexpected())),
        }
    }

    /// What went wrong last, and when (µs).
    pub fn last_failure(&self) -> Option<(String, i64)> {
        self.last_failure.lock().clone()
    }

    pub(super) fn note_failure(&self, error: &Error) {
        *self.last_failure.lock() = Some((error.logged(), quern_base::clock::now_us()));
    }
}
