//! Which of several servers materializes?
//!
//! The tiles of whole days are made anew from all their events up to some time; two servers that do so at once, up to
//! different times, would undo each other's work. So they take turns. A turn is a token in Redis that expires unless it
//! is renewed: a server that dies holds nobody up for long, and one that was held up itself writes no more.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use quern_base::random;
use redis::Value;
use tokio::task::JoinHandle;

use super::cluster::slot;
use super::{Connected, Redis, WRITE_PATIENCE};
use crate::error::{Error, Result};

/// How long a turn lasts unless it is renewed, and how often it is.
const LEASE: Duration = Duration::from_secs(15);
const RENEWAL: Duration = Duration::from_secs(3);
/// How often it is looked whether the turn is free.
const PAUSE: Duration = Duration::from_millis(100);

/// The turn, given back when this is dropped.
pub struct Turn {
    redis: Arc<Redis>,
    token: String,
    renewing: JoinHandle<()>,
}

impl Redis {
    /// Waits for the turn to materialize. Call it where blocking is allowed.
    pub fn turn(self: &Arc<Redis>) -> Result<Turn> {
        let token = token();
        let mut waits = false;
        while !self.wait(self.take_turn(&token, LEASE))? {
            if !std::mem::replace(&mut waits, true) {
                tracing::info!(url = %self.address, "another server is materializing; waiting for it to end");
            }
            std::thread::sleep(PAUSE);
        }
        let renewing = self.runtime.spawn(renew(Arc::downgrade(self), token.clone()));
        Ok(Turn { redis: Arc::clone(self), token, renewing })
    }

    /// Takes or keeps the turn, or with no time gives it back; whether it is ours.
    async fn take_turn(&self, token: &str, time: Duration) -> Result<bool> {
        // Before it is asked: it lasts no longer than this there.
        let until = Instant::now() + time;
        let script = &self.scripts.turn;
        let mut command = script.run([self.names.turn.as_bytes()].into_iter());
        command.arg(token).arg(time.as_millis() as u64);
        let (commands, load) = (vec![(slot(self.slot_of_names()), command)], script.load());
        let sent = async |connected: Arc<Connected>| connected.writes.send(commands, &load).await;
        let taken = self.ask(WRITE_PATIENCE.min(LEASE), sent).await?;
        let taken = matches!(taken[..], [Value::Int(1)]);
        *self.turn_until.write() = taken.then_some(until);
        Ok(taken)
    }

    /// Refuses to go on where the turn has ended without our doing.
    pub fn check_turn(&self) -> Result<()> {
        match *self.turn_until.read() {
            Some(until) if Instant::now() > until => Err(Error::unavailable(format!(
                "the online store {} did not answer for so long that another server may materialize; materialize again",
                self.address
            ))),
            _ => Ok(()),
        }
    }
}

/// A name that nobody else has.
pub(super) fn token() -> String {
    format!("{:016x}-{}", random::number(), std::process::id())
}

async fn renew(redis: Weak<Redis>, token: String) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        let Some(redis) = redis.upgrade() else { return };
        // Where it fails, the turn ends by itself.
        if let Ok(false) = redis.take_turn(&token, LEASE).await {
            // Somebody else has it: whatever is written from now on is refused.
            *redis.turn_until.write() = Some(Instant::now());
            return;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.renewing.abort();
        // Where this fails, it expires.
        let _ = self.redis.wait(self.redis.take_turn(&self.token, Duration::ZERO));
        *self.redis.turn_until.write() = None;
    }
}
