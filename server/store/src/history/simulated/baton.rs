//! Who does the next step?
//!
//! Each simulated server is a thread, of which one runs at a time: until it asks a store for something. Then whoever
//! draws decides who goes on, and what becomes of the call. So one seed is one history.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::world::Op;
use crate::error::{Error, Result};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It happens.
    Done,
    /// It does not happen, and whoever asks is told that nobody answered.
    Away,
    /// It happens, and whoever asks is told that nobody answered.
    Unheard,
    /// Whoever asks ends before it happens.
    EndBefore,
    /// Whoever asks ends after it has happened.
    EndAfter,
}

/// What a server says to whoever draws.
#[derive(Debug)]
pub(super) enum Said {
    /// It waits for the fate of its next call.
    Asks,
    /// What it was told to do is done, or has failed, or it has ended.
    Through(Outcome),
}

/// How something ended that a server was told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Well,
    Failed,
    /// It was refused: something is lost.
    Refused,
    Ended,
}

/// A server's end of the baton.
pub(super) struct Baton {
    pub(super) says: Sender<Said>,
    pub(super) fates: Receiver<Fate>,
    /// It has ended: nothing that it does happens any more.
    ended: std::cell::Cell<bool>,
}

/// What stands for the end of a process: everything returns at once.
pub(super) fn ended() -> Error {
    Error::broken("this server has ended")
}

impl Baton {
    /// Does a step, if its fate is so.
    pub(super) fn step<T>(&self, happens: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.ended.get() {
            return Err(ended());
        }
        self.says.send(Said::Asks).map_err(|_| ended())?;
        let fate = self.fates.recv().map_err(|_| ended())?;
        if matches!(fate, Fate::EndBefore | Fate::EndAfter) {
            self.ended.set(true);
        }
        match fate {
            Fate::Done => happens(),
            Fate::Away => Err(Error::busy("nobody answers")),
            Fate::EndBefore => Err(ended()),
            Fate::Unheard => {
                let _ = happens();
                Err(Error::busy("nobody answers"))
            }
            Fate::EndAfter => {
                let _ = happens();
                Err(ended())
            }
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// It begins anew.
    pub(super) fn begin(&self) {
        self.ended.set(false);
    }
}

/// Whoever draws holds this end.
pub(super) struct Driver {
    pub(super) told: Sender<Op>,
    pub(super) fates: Sender<Fate>,
    pub(super) said: Receiver<Said>,
}

/// Both ends, and what tells a server what to do.
pub(super) fn pair() -> (Driver, Baton, Receiver<Op>) {
    let ((told, ops), (fates, hears), (says, said)) = (channel(), channel(), channel());
    let baton = Baton { says, fates: hears, ended: std::cell::Cell::new(false) };
    (Driver { told, fates, said }, baton, ops)
}
