//! What is done for a store beside everything else, as long as a server is there?
//!
//! It says that it is there, and looks whether others have the same store. Once an hour one of them removes what nobody
//! needs, and once a day one reads all segments, to find those that are damaged while there still is a backup.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quern_base::random;
use quern_base::tasks::{Round, Rounds};

use super::Segments;
use crate::error::Result;

/// How often a server says that it is there.
const MEET: Duration = Duration::from_secs(20);
/// How often it is looked again at what was damaged.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
const SWEEP: Duration = Duration::from_secs(3_600);
const SCRUB: Duration = Duration::from_secs(86_400);
/// What a scrub reads in a second, so that others have the disk too.
const SCRUB_BYTES_PER_SECOND: u64 = 64 << 20;

impl Segments {
    /// Keeps the store in order as long as the result lives.
    pub fn keep(self: &Arc<Self>) -> Keeping {
        let [meeting, scrubbing] = [Arc::clone(self), Arc::clone(self)];
        Keeping {
            meeting: Rounds::start(|round| meet(meeting, round)),
            scrubbing: Rounds::start(|round| scrub(scrubbing, round)),
        }
    }

    /// Whether a job that is done once in so long is due, and is this server's to do.
    ///
    /// # Errors
    /// Where the registry does not answer.
    pub fn is_due(&self, job: &str, every: Duration) -> Result<bool> {
        let name = format!("{job} {}", self.manifest()?.store);
        // Nobody has it twice, not even who had it before.
        self.wait(self.registry.lease(&name, &format!("{:016x}", random::number()), every))
    }
}

/// What keeps a store in order, until this is dropped or ended.
#[derive(Debug)]
pub struct Keeping {
    meeting: Rounds,
    scrubbing: Rounds,
}

impl Keeping {
    /// Ends it, and waits for what is under way, but no longer than this.
    pub async fn end(self, longest: Duration) {
        tokio::join!(self.meeting.end(longest), self.scrubbing.end(longest));
    }
}

async fn meet(segments: Arc<Segments>, round: Round) {
    let mut looked = Instant::now();
    let one = Arc::clone(&segments);
    // What fails now is done in the next round.
    let _ = round.work("the store", move || one.tell_of_own(&one.meet()?)).await;
    loop {
        tokio::time::sleep(MEET).await;
        let again = looked.elapsed() > LOOK_AGAIN;
        if again {
            looked = Instant::now();
        }
        let one = Arc::clone(&segments);
        let work = round.work("the store", move || {
            one.tell_of_own(&one.meet()?)?;
            if again {
                one.look_at_damaged()?;
            }
            if one.is_due("sweep", SWEEP)? {
                one.sweep()?;
            }
            Ok::<_, crate::Error>(())
        });
        if let Err(error) = work.await {
            tracing::warn!(store = %segments.at(), error = error.logged(), "the store is not kept in order now");
        }
    }
}

async fn scrub(segments: Arc<Segments>, round: Round) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        // A thread that reads is not ended from outside: it looks whether anybody waits for it still.
        let waits = Arc::new(());
        let waited = Arc::downgrade(&waits);
        let one = Arc::clone(&segments);
        let work = round.work("reading all segments", move || {
            if !one.is_due("scrub", SCRUB)? {
                return Ok::<_, crate::Error>(());
            }
            one.scrub(SCRUB_BYTES_PER_SECOND, |_, _| match waited.strong_count() {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        });
        if let Err(error) = work.await {
            tracing::warn!(store = %segments.at(), error = error.logged(), "not all segments were read");
        }
        drop(waits);
    }
}
