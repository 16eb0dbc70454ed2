//! Whose turn is it to change what?
//!
//! The locks that verbs share, in the order in which they are taken. Whoever holds one may take those below it, and
//! none above; debug builds check it of those that are held here.
//!
//! | lock | who holds it | what nobody else does meanwhile |
//! |---|---|---|
//! | materializing | materialize; whoever writes pushed rows into a file | make the head from history here |
//! | head turn | materialize | the same at another server that shares the head |
//! | order | whoever commits a push, or completes the head | put pushed rows of those sources into history or head here |
//! | labels | whoever commits labels | the same here |
//! | log turn | who has order or labels | the same, for the same sources or model, at another server that shares the log |
//!
//! Over a log of this server's own each source has its order ([`line`]): what is slow at one is nobody else's matter.
//! Where servers share the log, all sources of a server have one, since each turn there keeps a connection.
//!
//! Below all of them is the lock of the copy that a server has of a shared log
//! ([`History::refresh`](crate::history::History::refresh)): it is held while rows are added, and never while another
//! is waited for.

mod line;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use parking_lot::{Mutex, MutexGuard};

use self::line::{Line, Place, Wants};
use crate::error::Result;
use crate::log::{self, Log, Position};
use crate::online::Online;
use crate::redis;

/// The locks of a data folder.
pub struct Turns {
    head: Online,
    log: Log,
    materializing: Mutex<()>,
    order: Line,
    labels: Mutex<()>,
    /// Held by whoever writes labels into a segment; nothing is waited for meanwhile.
    sealing_labels: Mutex<()>,
}

/// The turn to make the head from history, given back when this is dropped.
pub struct Materializing<'t> {
    // Given back first, so that whoever waits here does not wait there.
    _at_all: Option<redis::Turn>,
    _here: Held<'t>,
}

/// The turn to change pushed history or what it makes of the head: nobody else does, here or at another server, until
/// this is dropped.
pub struct Order<'t> {
    /// The last commit of each source that it is for.
    pub lasts: BTreeMap<String, Position>,
    log: Option<log::Turn>,
    _here: Held<'t>,
}

impl Turns {
    /// The locks of a data folder with this head and this log.
    pub fn new(head: Online, log: Log) -> Turns {
        Turns {
            head,
            log,
            materializing: Mutex::default(),
            order: Line::default(),
            labels: Mutex::default(),
            sealing_labels: Mutex::default(),
        }
    }

    /// Waits for the turn to make the head from history: two runs over the same rows would only do the same work twice.
    /// Call it where blocking is allowed, as all others.
    pub fn materializing(&self) -> Result<Materializing<'_>> {
        let _here = Held::take(Rank::Materializing, &self.materializing);
        Ok(Materializing { _at_all: self.head.turn()?, _here })
    }

    /// The turn to write pushed rows into files, where the head is not being made: whoever makes it takes from the tail
    /// what came meanwhile, so the tail stays until then.
    pub fn sealing(&self) -> Option<Materializing<'_>> {
        let _here = Held::try_take(Rank::Materializing, &self.materializing)?;
        Some(Materializing { _at_all: None, _here })
    }

    /// The same for labels, which no head is made from.
    pub fn sealing_labels(&self) -> Option<MutexGuard<'_, ()>> {
        self.sealing_labels.try_lock()
    }

    /// Waits for the turn to change the pushed history of `sources`, or what it makes of the head.
    pub fn order(&self, sources: &BTreeSet<String>) -> Result<Order<'_>> {
        let wants = match self.log.shared() {
            Some(_) => Wants::All,
            None => Wants::Sources(sources.clone()),
        };
        self.order_of(sources, Held::stand(&self.order, &wants))
    }

    /// Waits for the turn to add to the labels that the log has under `name`. Pushes do not wait for that.
    pub fn labelling(&self, name: &str) -> Result<Order<'_>> {
        self.order_of(&[name.to_owned()].into(), Held::take(Rank::Labels, &self.labels))
    }

    fn order_of<'t>(&'t self, sources: &BTreeSet<String>, _here: Held<'t>) -> Result<Order<'t>> {
        let log = self.log.shared().map(|shared| shared.log.turn(sources)).transpose()?;
        let lasts = match (&log, self.log.local()) {
            (Some(turn), _) => turn.lasts.clone(),
            (None, Some(local)) => {
                local.log.heal()?;
                sources.iter().map(|source| (source.clone(), local.log.last(source))).collect()
            }
            (None, None) => BTreeMap::new(),
        };
        Ok(Order { lasts, log, _here })
    }

    /// The same where no other server has a turn: `source` takes no pushes.
    pub fn order_here(&self, source: &str) -> Order<'_> {
        let wants = Wants::Sources([source.to_owned()].into());
        Order { lasts: BTreeMap::new(), log: None, _here: Held::stand(&self.order, &wants) }
    }

    /// Runs `work` while pushes wait.
    pub fn hold_pushes<T>(&self, work: impl FnOnce() -> T) -> T {
        let _order = Held::stand(&self.order, &Wants::All);
        work()
    }
}

impl Order<'_> {
    /// Whether `apply` is what all servers were told to serve. One that is behind does not know what belongs in the
    /// head.
    pub fn is_latest(&self, apply: u64) -> bool {
        self.log.as_ref().is_none_or(|turn| turn.applies == apply)
    }

    /// The time (µs) by the clock of a shared log, where there is one: those of servers are not one.
    pub fn now_us(&self) -> Option<i64> {
        self.log.as_ref().map(|turn| turn.now_us)
    }
}

/// Where a lock stands among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Materializing,
    Order,
    Labels,
}

thread_local! {
    /// What this thread holds.
    static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
}

/// A lock that is held.
struct Held<'t> {
    rank: Rank,
    _guard: Guard<'t>,
}

#[expect(dead_code, reason = "what is in it is given back when it is dropped")]
enum Guard<'t> {
    Lock(MutexGuard<'t, ()>),
    Place(Place<'t>),
}

impl<'t> Held<'t> {
    fn take(rank: Rank, lock: &'t Mutex<()>) -> Held<'t> {
        Held::check(rank);
        Held::noted(rank, Guard::Lock(lock.lock()))
    }

    fn stand(line: &'t Line, wants: &Wants) -> Held<'t> {
        Held::check(Rank::Order);
        Held::noted(Rank::Order, Guard::Place(line.take(wants)))
    }

    fn check(rank: Rank) {
        HELD.with_borrow(|held| {
            debug_assert!(
                held.iter().all(|other| *other < rank),
                "{rank:?} is taken while {held:?} are held: see the order in turns.rs"
            );
        });
    }

    fn try_take(rank: Rank, lock: &'t Mutex<()>) -> Option<Held<'t>> {
        lock.try_lock().map(|guard| Held::noted(rank, Guard::Lock(guard)))
    }

    fn noted(rank: Rank, _guard: Guard<'t>) -> Held<'t> {
        HELD.with_borrow_mut(|held| held.push(rank));
        Held { rank, _guard }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            if let Some(place) = held.iter().rposition(|rank| *rank == self.rank) {
                held.remove(place);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn locks_are_taken_from_above_to_below() {
        let (above, below) = (Mutex::new(()), Mutex::new(()));
        {
            let _first = Held::take(Rank::Materializing, &above);
            let _second = Held::take(Rank::Order, &below);
        }
        let held = Held::take(Rank::Order, &below);
        let wrong = catch_unwind(AssertUnwindSafe(|| drop(Held::take(Rank::Materializing, &above))));
        assert_eq!(wrong.is_err(), cfg!(debug_assertions));
        drop(held);
        let again = Held::take(Rank::Materializing, &above);
        assert!(Held::try_take(Rank::Materializing, &above).is_none());
        drop(again);
    }
}
