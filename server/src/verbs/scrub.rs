//! Is all that is kept still what was written? Everything is read, wherever it lies, and held to its sums.

use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feature_defs::Operation;
use parking_lot::Mutex;
use quern_store::log::Log;
use quern_store::registry::Registry;
use quern_store::segments::Segments;
use quern_wire::{Damaged, ScrubProgress, ScrubRequest, ScrubSummary};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::error::{Error, Kind, Result};
use crate::live::Permitted;
use crate::settings::Settings;

/// How long is waited at a time before it is looked whether anybody waits for the rest.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said how far it is, in bytes.
const SAY_BYTES: u64 = 8 << 20;

/// Reads all that is kept.
pub struct Scrub {
    pub(crate) settings: Arc<Settings>,
    pub(crate) registry: Registry,
    pub(crate) segments: Arc<Segments>,
    pub(crate) log: Log,
    /// Held by the one that is under way.
    pub(crate) one: Mutex<()>,
}

/// Is shown how far it is and what is wrong, and says whether to go on.
pub trait Watch {
    /// Hears how far it is.
    fn progress(&mut self, progress: ScrubProgress);
    /// Hears of something that is damaged or missing.
    fn damaged(&mut self, damaged: Damaged);
    /// Whether anybody waits for the rest.
    fn goes_on(&self) -> bool;
}

/// One scrub that is under way.
struct Round<'w> {
    watch: &'w mut dyn Watch,
    begun: Instant,
    bytes_per_second: Option<u64>,
    part: &'static str,
    total_bytes: u64,
    said_bytes: u64,
    summary: ScrubSummary,
}

impl Round<'_> {
    /// Notes that so much was read, and waits as long as that should have taken.
    fn read(&mut self, bytes: u64) -> ControlFlow<()> {
        self.summary.bytes += bytes;
        if self.summary.bytes >= self.said_bytes + SAY_BYTES {
            self.say();
        }
        let due = self.bytes_per_second.map(|rate| self.summary.bytes as f64 / rate as f64);
        let due = due.map_or(Duration::ZERO, Duration::from_secs_f64);
        while self.watch.goes_on() {
            let left = due.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                return ControlFlow::Continue(());
            }
            std::thread::sleep(left.min(PAUSE));
        }
        ControlFlow::Break(())
    }

    fn say(&mut self) {
        self.said_bytes = self.summary.bytes;
        self.watch.progress(ScrubProgress {
            part: self.part.to_owned(),
            done_bytes: self.summary.bytes,
            total_bytes: self.total_bytes.max(self.summary.bytes),
        });
    }

    fn begin(&mut self, part: &'static str) {
        self.part = part;
        self.say();
    }

    fn damaged(&mut self, name: impl Into<String>, error: String) {
        self.summary.damaged += 1;
        self.watch.damaged(Damaged { part: self.part.to_owned(), name: name.into(), error });
    }
}

impl Scrub {
    /// Reads everything, and shows `watch` what is wrong; ends early where that says so. Call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// Where a store does not answer; what was found before that was shown.
    pub fn run(
        &self,
        permitted: &Permitted,
        request: &ScrubRequest,
        watch: &mut dyn Watch,
    ) -> Result<ScrubSummary> {
        permitted.to(Operation::Scrub)?;
        let Some(_one) = self.one.try_lock() else {
            return Err(Error::refused("another scrub of this server is under way; wait until it is done"));
        };
        if request.mib_per_second == Some(0) {
            return Err(Error::invalid("nothing is read at 0 MiB a second; give more, or leave it out"));
        }
        let begun = Instant::now();
        let (segments, total_bytes) = self.segments.total()?;
        let bytes_per_second = request.mib_per_second.map(|rate| rate.saturating_mul(1 << 20));
        let summary = ScrubSummary { segments, ..ScrubSummary::default() };
        let mut round =
            Round { watch, begun, bytes_per_second, part: "", total_bytes, said_bytes: 0, summary };
        self.look_at_registry(&mut round)?;
        self.look_at_log(&mut round)?;
        self.look_at_models(&mut round)?;
        self.look_at_segments(&mut round)?;
        round.summary.seconds = begun.elapsed().as_secs_f64();
        match round.watch.goes_on() {
            true => Ok(round.summary),
            false => Err(Error::unavailable("whoever asked for it has gone")),
        }
    }

    fn look_at_registry(&self, round: &mut Round<'_>) -> Result<()> {
        round.begin("registry");
        if self.registry.is_shared() {
            let note = "the registry and what was pushed are in PostgreSQL, which has its own ways (`amcheck`, checksums)";
            round.summary.notes.push(note.to_owned());
            return Ok(());
        }
        if let Some(damage) = block_in_place(|| Handle::current().block_on(self.registry.examine()))? {
            let name = self.registry.place();
            round.damaged(
                "registry.sqlite",
                format!(
                    "the registry, {name}, is damaged: {damage}; bring a backup back with `quern restore`"
                ),
            );
        }
        Ok(())
    }

    fn look_at_log(&self, round: &mut Round<'_>) -> Result<()> {
        let Some(local) = self.log.local() else { return Ok(()) };
        round.begin("log");
        let scratch = self.settings.data.join("cache/scrub");
        // What a process has left that was killed.
        let _ = fs::remove_dir_all(&scratch);
        if let Some(damage) = local.log.examine(&scratch, &mut |bytes| round.read(bytes))? {
            round.damaged(
                "log",
                format!(
                    "the log of pushed rows is damaged: {damage}; a server that runs has its newest rows in memory, so run \
                     `quern seal` now, which writes them into segments, and `quern restore` a backup before the next start; \
                     or go on without what is left: stop the server, move `log` and `head` away, and materialize"
                ),
            );
        }
        Ok(())
    }

    fn look_at_models(&self, round: &mut Round<'_>) -> Result<()> {
        round.begin("models");
        for digest in block_in_place(|| Handle::current().block_on(self.registry.model_digests()))? {
            round.summary.models += 1;
            match block_in_place(|| Handle::current().block_on(self.registry.artifacts.examine(&digest))) {
                Ok(bytes) if round.read(bytes).is_break() => break,
                Ok(_) => {}
                Err(error) if error.kind() == Kind::Internal => round.damaged(&digest, error.logged()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn look_at_segments(&self, round: &mut Round<'_>) -> Result<()> {
        round.begin("segments");
        Ok(self.segments.scrub(u64::MAX, |segment, damage| {
            if let Some(damage) = damage {
                round.damaged(
                    &segment.path,
                    format!(
                        "the segment `{}` of the store {damage}; bring the file back from a backup of the store, or from an \
                         earlier version of the object, where the bucket keeps any",
                        segment.path
                    ),
                );
            }
            round.read(segment.bytes)
        })?)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Waits so often, and then goes away.
    struct Leaving(Cell<usize>);

    impl Watch for Leaving {
        fn progress(&mut self, _: ScrubProgress) {}

        fn damaged(&mut self, _: Damaged) {}

        fn goes_on(&self) -> bool {
            self.0.set(self.0.get().saturating_sub(1));
            self.0.get() > 0
        }
    }

    #[test]
    fn a_scrub_that_is_to_be_slow_ends_as_soon_as_nobody_waits_for_it() {
        let mut watch = Leaving(Cell::new(3));
        let mut round = Round {
            watch: &mut watch,
            begun: Instant::now(),
            bytes_per_second: Some(1),
            part: "segments",
            total_bytes: 0,
            said_bytes: 0,
            summary: ScrubSummary::default(),
        };
        // Else it would be years.
        assert!(round.read(1 << 40).is_break());
        let mut watch = Leaving(Cell::new(9));
        let mut round = Round { watch: &mut watch, bytes_per_second: None, ..round };
        assert!(round.read(1 << 40).is_continue());
    }
}
