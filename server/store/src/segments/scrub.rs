//! Which segments are damaged or missing, though nobody has read them?

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

pub use super::checked::Damage;
use super::checked::Fault;
use super::{Prepared, Segment, Segments};
use crate::error::Result;
use crate::metrics::metrics;

impl Segments {
    /// Reads every segment that counts, no more of them in a second than `bytes_per_second`, and shows `visit` what it
    /// found of each, until that says to stop.
    ///
    /// # Errors
    /// Where the registry or the store does not answer; what was found before that was shown.
    pub fn scrub(
        &self,
        bytes_per_second: u64,
        mut visit: impl FnMut(&Segment, Option<&Damage>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (begun, mut read, mut after) = (Instant::now(), 0, String::new());
        loop {
            let manifest = self.manifest()?;
            let page = self.wait(manifest.page(&after, true))?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.path.clone();
            for segment in &page {
                let damage = self.look_at(segment)?;
                if visit(segment, damage.as_ref()).is_break() {
                    return Ok(());
                }
                read += segment.bytes;
                let due = Duration::from_secs_f64(read as f64 / bytes_per_second.max(1) as f64);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
        }
    }

    /// What is wrong with a segment; notes it.
    fn look_at(&self, segment: &Segment) -> Result<Option<Damage>> {
        match self.examine(segment) {
            Ok(()) => {
                self.note_sound(&segment.path);
                Ok(None)
            }
            Err(Fault::Unknown(error)) => Err(error),
            Err(Fault::Damaged(damage)) => {
                let manifest = self.manifest()?;
                // Replaced since it was listed, and gone.
                if self.wait(manifest.segment(&segment.path))?.is_none() {
                    self.note_sound(&segment.path);
                    return Ok(None);
                }
                self.note_damage(segment, &damage);
                Ok(Some(damage))
            }
        }
    }

    /// Looks at those again that were wrong before.
    pub(super) fn look_at_damaged(&self) -> Result<()> {
        let damaged = self.damaged.lock().clone();
        for path in damaged {
            let manifest = self.manifest()?;
            match self.wait(manifest.segment(&path))? {
                Some(segment) => drop(self.look_at(&segment)?),
                None => self.note_sound(&path),
            }
        }
        Ok(())
    }

    /// The paths of the segments that are known to be damaged or missing.
    pub fn damaged(&self) -> Vec<String> {
        self.damaged.lock().clone()
    }

    pub(super) fn note_damage(&self, segment: &Prepared, damage: &Damage) {
        let mut damaged = self.damaged.lock();
        if !damaged.contains(&segment.path) {
            damaged.push(segment.path.clone());
            tracing::error!(
                segment = segment.path,
                store = %self.at,
                "this segment {damage}; bring the file back from a backup of the store"
            );
        }
        metrics().segments_damaged.set(damaged.len() as i64);
    }

    fn note_sound(&self, path: &str) {
        let mut damaged = self.damaged.lock();
        let before = damaged.len();
        damaged.retain(|other| other != path);
        if damaged.len() < before {
            tracing::info!(segment = path, "this segment is whole again, or counts no more");
            metrics().segments_damaged.set(damaged.len() as i64);
        }
    }
}
