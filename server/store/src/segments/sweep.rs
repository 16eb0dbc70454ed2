//! Which files of the store does nobody need any more?
//!
//! Those of segments that were replaced or removed, and those that no registry ever named: what crashes leave behind.
//! Both stay for a day. Somebody may read the former still, and somebody may be about to name the latter.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quern_base::random;

use super::Segments;
use super::members::SERVERS;
use super::set::{EXTENSION, Family};
use crate::error::{Error, Result};

/// How long a file stays that nobody needs.
const GRACE: Duration = Duration::from_secs(86_400);

/// How long the registry knows what was logged by a server that had a store of its own, and does not come back.
const UNSEEN: Duration = Duration::from_secs(90 * 86_400);

/// What a sweep has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files of segments that counted no more.
    pub ended: usize,
    /// Files that nobody named.
    pub unnamed: usize,
}

impl Segments {
    /// Removes what nobody needs any more.
    ///
    /// # Errors
    /// Where the registry or the store does not answer.
    pub fn sweep(&self) -> Result<Swept> {
        self.sweep_older(GRACE)
    }

    /// The same, of what nobody needed for so long.
    pub fn sweep_older(&self, grace: Duration) -> Result<Swept> {
        // Asked anew: what is removed must be this registry's.
        let store = self.meet()?;
        let manifest = self.manifest()?;
        if manifest.store != store {
            return Err(Error::broken("the store became another one"));
        }
        self.wait(self.registry.forget_stores(UNSEEN))?;
        let mut swept = Swept::default();
        // Whoever copies the store needs them all; there is a next time.
        if self.staying.load(Ordering::Relaxed) > 0 {
            return Ok(swept);
        }
        loop {
            let ended = self.wait(manifest.ended(grace))?;
            for segment in &ended {
                self.place.remove(&segment.path)?;
                self.cache.remove(&self.cache.path(&segment.path));
                self.wait(manifest.forget(segment))?;
                swept.ended += 1;
            }
            if ended.is_empty() {
                break;
            }
        }
        // By the store's own clock, which another one may be far from.
        let probe = format!("{SERVERS}/{}.clock", self.member.name);
        self.place.write_small(&probe, &format!("{:016x}", random::number()))?;
        let now = self.place.modified(&probe)?;
        self.place.remove(&probe)?;
        let now = now.ok_or_else(|| Error::busy("the store has lost what was just written"))?;
        // The files first, so that whatever was named before is known.
        let mut old = self.place.list()?;
        old.retain(|file| {
            let grace = grace_of(&file.path, grace);
            grace.is_some_and(|grace| now.duration_since(file.modified).is_ok_and(|age| age >= grace))
        });
        if old.is_empty() {
            return Ok(swept);
        }
        let (mut named, mut after) = (HashSet::new(), String::new());
        loop {
            let page = self.wait(manifest.page(&after, false))?;
            let Some(last) = page.last() else { break };
            after = last.path.clone();
            named.extend(page.into_iter().map(|segment| segment.file.path));
        }
        for file in old.iter().filter(|file| !named.contains(&file.path)) {
            tracing::info!(
                path = file.path,
                bytes = file.bytes,
                "a file in the store that nobody names is removed"
            );
            self.place.remove(&file.path)?;
            swept.unnamed += 1;
        }
        Ok(swept)
    }
}

/// How old a file must be that may be nobody's; none where it is not one that Quern writes, and so somebody's.
fn grace_of(path: &str, grace: Duration) -> Option<Duration> {
    let (folder, rest) = path.split_once('/')?;
    let is_segment =
        rest.ends_with(&format!(".{EXTENSION}")) || rest.ends_with(&format!(".{EXTENSION}.part"));
    match Family::ALL.iter().any(|family| family.name() == folder) {
        true => is_segment.then_some(grace),
        // A server that is there writes its own again and again.
        false => (folder == SERVERS).then_some(GRACE),
    }
}
