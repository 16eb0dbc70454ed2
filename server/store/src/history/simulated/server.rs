//! What does a simulated server do? What a real one does, by the same code, over stores that are simulated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use parking_lot::Mutex;

use super::super::copied::Copied;
use super::super::kept::Kept;
use super::super::pushed::Pushed;
use super::baton::Baton;
use super::world::{KEYS, Op, SOURCES, World, batch, ids_of};
use crate::error::{Error, Kind, Result};
use crate::follow::{self, Behind, Follower, Noted, late};
use crate::log::{Commits, Logged, Position, Seen, SeenKey, Standing, State};
use crate::rocks::Applied;
use crate::segments::{Range, Segment};

/// One server's way to the stores.
pub(super) struct Rim {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) baton: Mutex<Baton>,
    /// Whose disk segments lie on; that of all where it is shared.
    pub(super) disk: Mutex<usize>,
    pub(super) is_shared: bool,
}

impl fmt::Debug for Rim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rim")
    }
}

impl Rim {
    fn step<T>(&self, happens: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
        self.baton.lock().step(|| happens(&mut self.world.lock()))
    }

    /// The same of what changes the head over the connection `over` alone.
    fn write<T>(&self, over: u64, happens: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
        self.step(|world| match world.failovers == over {
            true => happens(world),
            false => Err(Error::busy("the connection was lost in between")),
        })
    }

    /// The connection of now.
    fn connection(&self) -> u64 {
        self.world.lock().failovers
    }

    fn disk(&self) -> usize {
        if self.is_shared { 0 } else { *self.disk.lock() }
    }
}

impl Commits for Rim {
    fn states(&self, source: Option<&str>) -> Result<BTreeMap<String, State>> {
        self.step(|world| {
            let all =
                world.database.sources.keys().filter(|name| source.is_none_or(|source| source == *name));
            Ok(all.map(|name| (name.clone(), world.database.state(name))).collect())
        })
    }

    fn went_through(&self, source: &str, position: Position) -> Result<bool> {
        self.step(|world| Ok(world.database.went_through(source, position)))
    }

    fn after(&self, source: &str, from: (i64, u64), see: &mut dyn FnMut(Logged) -> Result<()>) -> Result<()> {
        self.step(|world| Ok(world.database.after(source, from)))?.into_iter().try_for_each(see)
    }

    fn commit(
        &self,
        lasts: &BTreeMap<String, Position>,
        rows: &[Logged],
        _: &[(SeenKey, Seen)],
    ) -> Result<()> {
        let seen = |group: &Logged| {
            let source = group.source.clone();
            ids_of(&group.history).into_iter().map(move |id| (source.clone(), id))
        };
        let seen: Vec<(String, i64)> = rows.iter().flat_map(seen).collect();
        self.step(|world| world.database.commit(lasts, rows, &seen))
    }

    fn sealed(&self, source: &str, end: u64) -> Result<()> {
        self.step(|world| {
            world.database.sealed(source, end);
            Ok(())
        })
    }

    fn forget_rows(&self, source: &str, number: i64, end: u64, _: &str) -> Result<()> {
        self.step(|world| {
            world.database.forget(source, number, end);
            Ok(())
        })
    }
}

impl Kept for Rim {
    fn all(&self) -> Result<Vec<Segment>> {
        let disk = self.disk();
        self.step(|world| Ok(world.database.segments(disk)))
    }

    fn list(&self, source: &str) -> Result<Vec<Segment>> {
        let disk = self.disk();
        self.step(|world| Ok(world.database.list(disk, source)))
    }

    fn write(
        &self,
        source: &str,
        range: Range,
        of: Option<Position>,
        rows: &[&RecordBatch],
    ) -> Result<Segment> {
        let (disk, ids) = (self.disk(), rows.iter().flat_map(|rows| ids_of(rows)).collect::<Vec<_>>());
        let path = self.step(|world| {
            let path = format!("{disk}/{source}/{}", world.name());
            world.files.insert(path.clone(), ids);
            Ok(path)
        })?;
        self.step(|world| world.database.name_segment((disk, source), range, path, of))
    }

    fn remove(&self, old: &[Segment]) -> Result<()> {
        let disk = self.disk();
        self.step(|world| {
            world.database.remove(disk, old);
            Ok(())
        })
    }

    fn open(&self, _: &Segment) -> Result<File> {
        Err(Error::broken("a simulated file is in no folder"))
    }

    fn store(&self) -> Result<String> {
        Ok(self.disk().to_string())
    }

    fn is_shared(&self) -> bool {
        self.is_shared
    }

    fn lease(&self, _: &str, _: Duration) -> Result<bool> {
        // Nothing may rely on it.
        Ok(true)
    }
}

/// The turn of some sources, given back when this is dropped.
struct Turn<'a> {
    rim: &'a Rim,
    number: u64,
    lasts: BTreeMap<String, Position>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.rim.world.lock().give_back(self.number);
    }
}

/// What a server has in memory.
pub(super) struct Server {
    rim: Arc<Rim>,
    pushed: Pushed,
    copied: Copied,
    /// As in `Push::look_after_log`.
    behind: BTreeMap<String, Standing>,
    sealed: BTreeMap<String, u64>,
}

/// The head, as this server brings it up to the log.
struct Following<'a> {
    server: &'a Server,
    over: u64,
    keys: BTreeSet<(String, i64)>,
}

impl Noted for Following<'_> {
    fn standings(&self, sources: &[&str]) -> Result<Vec<Standing>> {
        self.server.standings(sources)
    }

    fn begin(&self, begun: Applied) -> Result<()> {
        match self.server.rim.write(self.over, |world| Ok(world.head.begin(&begun)))? {
            true => Ok(()),
            false => Err(Error::busy("another server changes the online store")),
        }
    }

    fn note(&self, Applied { source, from, to }: Applied) -> Result<()> {
        self.server.rim.write(self.over, |world| {
            let stored = world.head.standings.entry(source).or_default();
            if *stored != Standing::at(to) && *stored != from {
                return Err(Error::busy("another server changed the online store in between"));
            }
            *stored = Standing::at(to);
            Ok(())
        })
    }
}

impl Follower for Following<'_> {
    fn add(&mut self, logged: &Logged, _: bool) -> Result<()> {
        let keys = ids_of(&logged.history).into_iter().map(|id| (logged.source.clone(), id % KEYS));
        self.keys.extend(keys);
        Ok(())
    }

    fn bring_in(&mut self, _: &str, last: Position) -> Result<()> {
        let keys = std::mem::take(&mut self.keys);
        keys.iter().try_for_each(|(source, key)| self.server.rebuild(self.over, (source, *key), last))
    }

    fn begin_anew(&mut self, source: &str) -> Result<()> {
        self.server.rim.step(|world| Ok(_ = world.head.anew.insert(source.to_owned())))
    }
}

impl Server {
    pub(super) fn start(rim: &Arc<Rim>) -> Result<Server> {
        let kept: Arc<dyn Kept> = Arc::clone(rim) as Arc<dyn Kept>;
        let log: Arc<dyn Commits> = Arc::clone(rim) as Arc<dyn Commits>;
        let (pushed, copied) = (Pushed::open(kept, Vec::new())?, Copied::of(log));
        Ok(Server { rim: Arc::clone(rim), pushed, copied, behind: BTreeMap::new(), sealed: BTreeMap::new() })
    }

    pub(super) fn run(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Start { .. } => Ok(()),
            Op::Push { source, ids } => self.push(source, ids),
            Op::Look => self.look(),
            Op::Seal { source } => self.seal(source),
            Op::Read { source } => self.read(source).map(drop),
            Op::AcceptLoss => self.accept_loss(),
            Op::Materialize { source } => self.materialize(source),
        }
    }

    fn turn(&self, sources: &BTreeSet<String>) -> Result<Turn<'_>> {
        // Where nobody hears that it was taken, it is given back as the connection ends.
        let mut turn = Turn { rim: &self.rim, number: self.rim.world.lock().name(), lasts: BTreeMap::new() };
        loop {
            let taken = self.rim.step(|world| {
                let is_ours = world.take_turn(turn.number, sources);
                let lasts = sources.iter().map(|source| (source.clone(), world.database.state(source).last));
                Ok(is_ours.then(|| lasts.collect()))
            })?;
            if let Some(lasts) = taken {
                turn.lasts = lasts;
                return Ok(turn);
            }
        }
    }

    /// The head, over the connection of now.
    fn following(&self) -> Following<'_> {
        Following { server: self, over: self.rim.connection(), keys: BTreeSet::new() }
    }

    fn standings(&self, sources: &[&str]) -> Result<Vec<Standing>> {
        self.rim.step(|world| {
            let standings = &world.head.standings;
            Ok(sources.iter().map(|source| standings.get(*source).copied().unwrap_or_default()).collect())
        })
    }

    /// As a group of one push is committed (`verbs/push/group.rs`).
    fn push(&self, source: &str, ids: &[i64]) -> Result<()> {
        let turn = self.turn(&[source.to_owned()].into())?;
        self.copied.refresh_to(&self.pushed, &turn.lasts)?;
        let mut head = self.following();
        let behind = follow::complete(&*self.rim, &mut head, &turn.lasts, &mut |_, _| ())?;
        if let Some(Behind::Lost { .. }) = behind.get(source) {
            return Err(Error::refused("the log is from before what was acknowledged"));
        }
        let fresh = self.rim.step(|world| {
            if world.database.state(source).last != turn.lasts[source] {
                return Err(Error::busy("another server pushed in between"));
            }
            let is_new = |id: &&i64| !world.database.seen.contains(&(source.to_owned(), **id));
            Ok(ids.iter().filter(is_new).copied().collect::<Vec<i64>>())
        })?;
        let acknowledge = |world: &mut World| {
            world.acknowledged.extend(ids.iter().map(|id| (source.to_owned(), *id)));
        };
        if fresh.is_empty() {
            acknowledge(&mut self.rim.world.lock());
            return Ok(());
        }
        let head = self.following();
        let counts = self.counts(source, &fresh)?;
        let last = turn.lasts[source];
        let logged = Logged {
            position: last.next(),
            source: source.to_owned(),
            first: self.copied.end_at(&self.pushed, source, last)?,
            history: batch(&fresh),
            in_head: fresh.len(),
            online: None,
        };
        let applied = Applied { source: source.to_owned(), from: Standing::at(last), to: logged.position };
        self.rim.commit(&turn.lasts, std::slice::from_ref(&logged), &[])?;
        self.copied.committed(&self.pushed, &turn.lasts, vec![logged])?;
        acknowledge(&mut self.rim.world.lock());
        if behind.contains_key(source) {
            return Ok(());
        }
        head.begin(applied.clone())?;
        self.rim.write(head.over, |world| world.head.replace(source, &counts))?;
        head.note(applied.begun())
    }

    /// What the counts of these rows' keys are, and what they become.
    fn counts(&self, source: &str, ids: &[i64]) -> Result<Vec<(i64, i64, i64)>> {
        self.rim.step(|world| {
            let keys: BTreeSet<i64> = ids.iter().map(|id| id % KEYS).collect();
            let count = |key: i64| {
                let (from, more) =
                    (world.head.count(source, key), ids.iter().filter(|id| *id % KEYS == key).count());
                (key, from, from + more as i64)
            };
            Ok(keys.into_iter().map(count).collect())
        })
    }

    /// As the tiles of a key are rebuilt (`features/write/windows.rs`).
    fn rebuild(&self, over: u64, (source, key): (&str, i64), at: Position) -> Result<()> {
        let stored = self.rim.step(|world| Ok(world.head.count(source, key)))?;
        let ids = self.read(source)?;
        self.copied.end_at(&self.pushed, source, at)?;
        let count = ids.into_iter().filter(|id| id % KEYS == key).count() as i64;
        self.rim.write(over, |world| world.head.replace(source, &[(key, stored, count)]))
    }

    /// All rows of a source that were acknowledged anywhere before this was asked.
    pub(super) fn read(&self, source: &str) -> Result<Vec<i64>> {
        let restores = self.rim.world.lock().restores;
        let before: Vec<i64> = {
            let world = self.rim.world.lock();
            let acknowledged = world.acknowledged.iter().filter(|(of, _)| of == source);
            acknowledged.map(|(_, id)| *id).collect()
        };
        self.copied.refresh(&self.pushed, Some(source))?;
        let pushed = self.pushed.of(source);
        let world = self.rim.world.lock();
        let mut ids: Vec<i64> =
            pushed.files.iter().flat_map(|file| world.files[&file.file.name].clone()).collect();
        ids.extend(pushed.tail.iter().flat_map(|rows| ids_of(&rows.rows)));
        let distinct: BTreeSet<i64> = ids.iter().copied().collect();
        assert_eq!(distinct.len(), ids.len(), "a row is in history twice: {ids:?}");
        // What a restored database has lost meanwhile nobody can have.
        let missing = before
            .iter()
            .find(|id| !distinct.contains(id) && world.acknowledged.contains(&(source.to_owned(), **id)));
        let came_back = world.restores > restores;
        assert!(
            came_back || missing.is_none(),
            "{missing:?} was acknowledged and is not in history: {ids:?}"
        );
        let all = world.database.history(source);
        assert!(came_back || all.starts_with(&ids), "history is {ids:?}, and the log is {all:?}");
        Ok(ids)
    }

    fn seal(&self, source: &str) -> Result<()> {
        let end = self.copied.seal(&self.pushed, source, None)?;
        if self.rim.is_shared {
            self.rim.sealed(source, end)?;
        }
        Ok(())
    }

    /// As `Push::look_after_log`.
    fn look(&mut self) -> Result<()> {
        let before = std::mem::take(&mut self.behind);
        self.copied.refresh(&self.pushed, None)?;
        if self.rim.is_shared {
            let sources: Vec<&str> = self.sealed.keys().map(String::as_str).collect();
            for (standing, (source, end)) in self.standings(&sources)?.into_iter().zip(&self.sealed) {
                self.rim.forget_rows(source, standing.applied.number, *end, "")?;
            }
            let ends = self.pushed.ends().into_iter().map(|(source, _)| source);
            self.sealed = ends.map(|source| (source.clone(), self.pushed.of(&source).sealed())).collect();
        }
        let lasts = self.rim.states(None)?.into_iter().map(|(source, state)| (source, state.last)).collect();
        let mut head = self.following();
        let behind: BTreeMap<String, Standing> =
            late(&head, &lasts)?.into_iter().map(|(source, standing, _)| (source, standing)).collect();
        let stuck = behind.iter().filter(|(source, standing)| before.get(*source) == Some(standing));
        let stuck: BTreeSet<String> = stuck.map(|(source, _)| source.clone()).collect();
        if !stuck.is_empty() {
            let turn = self.turn(&stuck)?;
            self.copied.refresh_to(&self.pushed, &turn.lasts)?;
            follow::complete(&*self.rim, &mut head, &turn.lasts, &mut |_, _| ())?;
        }
        self.behind = behind;
        Ok(())
    }

    fn accept_loss(&self) -> Result<()> {
        let turn = self.turn(&SOURCES.map(str::to_owned).into())?;
        self.copied.refresh_to(&self.pushed, &turn.lasts)?;
        let head = self.following();
        follow::accept_loss(&*self.rim, &head, &turn.lasts, &mut |source| {
            self.rim.step(|world| {
                world.head.counts.retain(|(of, _), _| of != source);
                world.head.anew.insert(source.to_owned());
                Ok(())
            })
        })
    }

    fn materialize(&self, source: &str) -> Result<()> {
        let turn = self.turn(&[source.to_owned()].into())?;
        (0..KEYS)
            .try_for_each(|key| self.rebuild(self.rim.connection(), (source, key), turn.lasts[source]))?;
        self.rim.step(|world| Ok(_ = world.head.anew.remove(source)))
    }
}

/// Whether it is an error that says what is lost.
pub(super) fn is_refusal(error: &Error) -> bool {
    error.kind() == Kind::Refused
}
