//! How does a head follow a log?
//!
//! It notes of each source the last commit that it has whole, and lacks what comes after that. There is no other rule
//! for what is owed: whoever comes next brings it in, as often as it is cut short.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::log::{Commits, Log, Logged, Position, Standing};
use crate::online::Online;
use crate::rocks::{Applied, Commit};

/// A head that notes how far it is, over one connection: one that fails over may lose the last of what it was told, and
/// hears nothing more of whoever had begun.
pub trait Noted {
    /// How far it is with the logs of `sources`, in their order.
    ///
    /// # Errors
    /// Where it does not answer; so with all others.
    fn standings(&self, sources: &[&str]) -> Result<Vec<Standing>>;

    /// Notes that some of what comes up to a commit is about to come in, where what was begun before is known.
    ///
    /// # Errors
    /// `Kind::Unavailable` where somebody else has begun something.
    fn begin(&self, begun: Applied) -> Result<()>;

    /// Notes how far it is, where it was as far as is said, and nothing else was begun since.
    fn note(&self, applied: Applied) -> Result<()>;
}

impl Noted for Online {
    fn standings(&self, sources: &[&str]) -> Result<Vec<Standing>> {
        Online::standings(self, sources)
    }

    fn begin(&self, begun: Applied) -> Result<()> {
        self.begin_commits(&[begun])
    }

    fn note(&self, applied: Applied) -> Result<()> {
        self.commit(&Commit { applied: vec![applied], ..Commit::default() })
    }
}

/// A head, as whoever brings it up to its log asks it.
pub trait Follower: Noted {
    /// Takes the rows of a commit, which are the first `of_all` that were ever pushed to their source or are not.
    fn add(&mut self, logged: &Logged, of_all: bool) -> Result<()>;

    /// Has what it took of `source`, and nothing that comes after commit `last`. It may have had some of it before.
    fn bring_in(&mut self, source: &str, last: Position) -> Result<()>;

    /// Lacks rows of `source` that the log has no more: they are history's, and the next run that makes it is the
    /// first.
    fn begin_anew(&mut self, source: &str) -> Result<()>;
}

/// A log that a head follows.
pub trait Followed {
    /// As [`Commits::went_through`].
    fn went_through(&self, source: &str, position: Position) -> Result<bool>;

    /// Shows every group of `source` after commit `number`, in order.
    fn after(&self, source: &str, number: i64, see: &mut dyn FnMut(Logged) -> Result<()>) -> Result<()>;
}

impl Followed for Log {
    fn went_through(&self, source: &str, position: Position) -> Result<bool> {
        Log::went_through(self, source, position)
    }

    fn after(&self, source: &str, number: i64, see: &mut dyn FnMut(Logged) -> Result<()>) -> Result<()> {
        Log::after(self, source, number, see)
    }
}

impl<T: Commits + ?Sized> Followed for T {
    fn went_through(&self, source: &str, position: Position) -> Result<bool> {
        Commits::went_through(self, source, position)
    }

    fn after(&self, source: &str, number: i64, see: &mut dyn FnMut(Logged) -> Result<()>) -> Result<()> {
        Commits::after(self, source, (number, 0), see)
    }
}

/// Why the head of a source must not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// It lacks commits, and cannot be given them now.
    Late,
    /// It has commits that the log has no more: up to one of this number, and the log ends at another.
    Lost {
        /// The head's last commit.
        applied: i64,
        /// The log's.
        last: i64,
    },
}

impl Behind {
    /// Refuses to go on from what is lost of `source`.
    ///
    /// # Errors
    /// Where it is: with the way out.
    pub fn check(self, source: &str) -> Result<()> {
        let Behind::Lost { applied, last } = self else { return Ok(()) };
        Err(Error::refused(format!(
            "the log of pushed rows is from before what was acknowledged: it has {last} commits of source `{source}`, \
             and the online store {applied}, or others (was PostgreSQL restored, or did it fail over to a server that \
             lacked some?); bring the newer log back, or go on without what it had: `quern materialize --accept-loss`"
        )))
    }
}

/// Brings in what the head lacks of the sources of which `lasts` are the last commits, while nobody takes those
/// further. Gives those for which that cannot be done, and tells `failed` why: it keeps nobody else from going on.
///
/// # Errors
/// Where log or head do not answer.
pub fn complete(
    log: &(impl Followed + ?Sized),
    head: &mut impl Follower,
    lasts: &BTreeMap<String, Position>,
    failed: &mut dyn FnMut(&str, crate::Error),
) -> Result<BTreeMap<String, Behind>> {
    let mut behind = BTreeMap::new();
    for (source, standing, last) in late(head, lasts)? {
        if let Some(lost) = lost_of(log, &source, standing, last)? {
            behind.insert(source, lost);
        } else if standing.begun.number > last.number {
            // Somebody has gone on with the log though it is not their turn, or this one has lost its own.
            behind.insert(source, Behind::Late);
        } else if let Err(error) = complete_source(log, head, (&source, standing, last)) {
            failed(&source, error);
            behind.insert(source, Behind::Late);
        }
    }
    Ok(behind)
}

/// The sources of which the head has commits that the log has no more.
///
/// # Errors
/// Where log or head do not answer.
pub fn lost(
    log: &(impl Followed + ?Sized),
    head: &impl Noted,
    lasts: &BTreeMap<String, Position>,
) -> Result<BTreeMap<String, Behind>> {
    let mut lost = BTreeMap::new();
    for (source, standing, last) in late(head, lasts)? {
        let of_source = lost_of(log, &source, standing, last)?;
        lost.extend(of_source.map(|of_source| (source, of_source)));
    }
    Ok(lost)
}

/// Goes on without what the log has lost: `drop_all` is told the sources of which the head must have nothing any more,
/// to be made anew from what is left.
///
/// # Errors
/// Where log or head do not answer.
pub fn accept_loss(
    log: &(impl Followed + ?Sized),
    head: &impl Noted,
    lasts: &BTreeMap<String, Position>,
    drop_all: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    for (source, standing, last) in late(head, lasts)? {
        if lost_of(log, &source, standing, last)?.is_some() {
            tracing::warn!(source, "pushed rows that the log has lost are given up");
            // Nothing is begun here: it would hide the loss, if this came no further.
            drop_all(&source)?;
            head.note(Applied { source, from: standing, to: last })?;
        }
    }
    Ok(())
}

/// The sources of which the head is not where the log is, as it is here and as it is there.
///
/// # Errors
/// Where the head does not answer.
pub fn late(
    head: &impl Noted,
    lasts: &BTreeMap<String, Position>,
) -> Result<Vec<(String, Standing, Position)>> {
    let sources: Vec<&str> = lasts.keys().map(String::as_str).collect();
    let standings = head.standings(&sources)?;
    let both = lasts.iter().zip(standings).filter(|((_, last), standing)| *standing != Standing::at(**last));
    Ok(both.map(|((source, last), standing)| (source.clone(), standing, *last)).collect())
}

/// What the head has of `source` that the log, which ends at `last`, has no more.
fn lost_of(
    log: &(impl Followed + ?Sized),
    source: &str,
    Standing { applied, begun }: Standing,
    last: Position,
) -> Result<Option<Behind>> {
    for position in [applied, begun] {
        if position.number != 0 && !log.went_through(source, position)? {
            return Ok(Some(Behind::Lost { applied: begun.number, last: last.number }));
        }
    }
    Ok(None)
}

fn complete_source(
    log: &(impl Followed + ?Sized),
    head: &mut impl Follower,
    (source, from, last): (&str, Standing, Position),
) -> Result<()> {
    tracing::info!(
        source,
        commits = last.number - from.applied.number,
        "pushed rows that the online store lacks are brought in"
    );
    let applied = Applied { source: source.to_owned(), from, to: last };
    head.begin(applied.clone())?;
    bring_in(log, head, applied.begun())
}

fn bring_in(log: &(impl Followed + ?Sized), head: &mut impl Follower, applied: Applied) -> Result<()> {
    let (source, from, last) = (&applied.source, applied.from.applied.number, applied.to);
    let mut next = from + 1;
    log.after(source, from, &mut |logged| {
        if logged.position.number == next {
            head.add(&logged, next == 1 && logged.first == 0)?;
            next += 1;
        }
        Ok(())
    })?;
    head.bring_in(source, last)?;
    if next <= last.number {
        head.begin_anew(source)?;
    }
    // Not sooner: what was begun may be done again from the start.
    head.note(applied)
}
