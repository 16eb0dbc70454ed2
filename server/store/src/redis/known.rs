//! How far is the head? Up to which time views are materialized, which tiles are kept, and which pushes are in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join;
use quern_engine::ViewId;
use quern_engine::windows::Kept;
use redis::{RedisError, RedisResult, Value};

use super::cluster::slot;
use super::connection::KEEPER_PAUSE;
use super::reply::unexpected;
use super::scripts::Named;
use super::{Connected, Redis, WRITE_PATIENCE};
use crate::error::{Error, Result};
use crate::made_of::MadeOf;
use crate::position::Standing;
use crate::rocks::{Applied, Commit};

/// How old what is known of the tiles kept may be when a look-up begins, and when it has read the tiles.
const KEPT_FRESH: Duration = Duration::from_secs(1);
const KEPT_RELIED: Duration = Duration::from_secs(3);

/// What is kept of the events of each view, and up to when it is materialized, as of some time.
pub(super) struct KnownKept {
    as_of: Instant,
    views: HashMap<ViewId, Arc<Kept>>,
    watermarks: HashMap<ViewId, i64>,
}

impl KnownKept {
    /// Nothing, as of now.
    pub(super) fn nothing() -> KnownKept {
        KnownKept { as_of: Instant::now(), views: HashMap::new(), watermarks: HashMap::new() }
    }

    /// Of these views nothing is kept any more.
    pub(super) fn forget(&mut self, gone: &[ViewId]) {
        gone.iter().for_each(|view| {
            self.views.remove(view);
            self.watermarks.remove(view);
        });
    }
}

impl Redis {
    /// As [`Head::watermark`](crate::rocks::Head::watermark).
    pub fn watermark(&self, view: ViewId) -> Result<Option<i64>> {
        self.instant(&self.names.watermark, view)
    }

    /// Moves the view's watermark to `to_us`, never back. Everything written before is in Redis first; what a crash of
    /// Redis leaves of both is up to how it keeps its data.
    pub fn set_watermark(&self, view: ViewId, to_us: i64) -> Result<()> {
        self.raise(&self.names.watermark, view, to_us)?;
        let mut known = self.kept.write();
        let watermark = known.watermarks.entry(view).or_insert(to_us);
        *watermark = to_us.max(*watermark);
        Ok(())
    }

    /// As [`Head::known_watermark`](crate::rocks::Head::known_watermark): as of a moment ago.
    pub fn known_watermark(&self, view: ViewId) -> Option<i64> {
        self.kept.read().watermarks.get(&view).copied()
    }

    /// As [`Head::forget_watermark`](crate::rocks::Head::forget_watermark).
    pub fn forget_watermark(&self, view: ViewId) -> Result<()> {
        let mut command = redis::cmd("HSET");
        command.arg(&self.names.watermark).arg(&view.0.to_be_bytes()).arg(&i64::MIN.to_be_bytes());
        self.now(&command)?;
        self.kept.write().watermarks.insert(view, i64::MIN);
        Ok(())
    }

    /// As [`Head::files_until`](crate::rocks::Head::files_until).
    pub fn files_until(&self, view: ViewId) -> Result<Option<i64>> {
        self.instant(&self.names.files_until, view)
    }

    /// Notes that events of files up to `to_us` are about to come in.
    pub fn set_files_until(&self, view: ViewId, to_us: i64) -> Result<()> {
        self.raise(&self.names.files_until, view, to_us)
    }

    /// As [`Head::made_of`](crate::rocks::Head::made_of).
    pub fn made_of(&self, view: ViewId) -> Result<MadeOf> {
        let mut command = redis::cmd("HGET");
        command.arg(&self.names.made_of).arg(&view.0.to_be_bytes());
        match self.now(&command)? {
            Value::Nil => Ok(MadeOf::default()),
            Value::BulkString(bytes) => MadeOf::read(&bytes),
            _ => Err(self.explain(&unexpected())),
        }
    }

    /// As [`Head::set_made_of`](crate::rocks::Head::set_made_of).
    pub fn set_made_of(&self, view: ViewId, files: &MadeOf) -> Result<()> {
        let mut command = redis::cmd("HSET");
        command.arg(&self.names.made_of).arg(&view.0.to_be_bytes()).arg(files.write());
        self.now(&command).map(drop)
    }

    fn instant(&self, what: &str, view: ViewId) -> Result<Option<i64>> {
        let mut command = redis::cmd("HGET");
        command.arg(what).arg(&view.0.to_be_bytes());
        self.number(self.now(&command)?)
    }

    fn raise(&self, what: &str, view: ViewId, to_us: i64) -> Result<()> {
        let mut command = self.scripts.raise.run([what.as_bytes()].into_iter());
        command.arg(&view.0.to_be_bytes()).arg(&to_us.to_be_bytes());
        let load = self.scripts.raise.load();
        let command = vec![(slot(self.slot_of_names()), command)];
        let sent = async |connected: Arc<Connected>| connected.writes.send(command, &load).await;
        self.wait(self.ask(WRITE_PATIENCE, sent)).map(drop)
    }

    /// How far the head follows the logs of `sources`, in their order.
    pub fn standings(&self, sources: &[&str]) -> Result<Vec<Standing>> {
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("HMGET");
        command.arg(&self.names.positions).arg(sources);
        let Value::Array(found) = self.now(&command)? else { return Err(self.explain(&unexpected())) };
        let position = |found: &Value| match found {
            Value::Nil => Some(Standing::default()),
            Value::BulkString(bytes) => Standing::read(bytes),
            _ => None,
        };
        let positions: Option<_> = found.iter().map(position).collect();
        positions.ok_or_else(|| self.explain(&unexpected()))
    }

    /// Which of all connections is used now. A Redis that fails over may lose the last of what it was told, and ends
    /// its connections.
    pub fn connection(&self) -> u64 {
        self.connected.read().as_ref().map_or(0, |connected| connected.number)
    }

    /// Notes that some of what comes up to these commits is about to come in, where what was begun before is as it is
    /// said. So a log that comes back without them is recognised.
    ///
    /// # Errors
    /// `Kind::Unavailable` where somebody else has begun something, and where the connection was lost.
    pub fn begin_commits(&self, over: Option<u64>, begun: &[Applied]) -> Result<()> {
        self.advance(over, &self.scripts.begin, begun, |Applied { from, to, .. }| {
            (from.begun.bytes().to_vec(), to.bytes().to_vec())
        })
    }

    /// Brings a group of pushes in: first what it changes, and then how far the head is with it.
    ///
    /// # Errors
    /// `Kind::Unavailable` where another server changed the same in between, and where the connection was lost.
    pub fn commit(&self, over: Option<u64>, commit: &Commit) -> Result<()> {
        if !commit.rows.is_empty() {
            self.upsert(over, &commit.rows)?;
        }
        if !commit.tiles.is_empty() {
            let made_from: Vec<Option<&[u8]>> = commit.made_from.iter().map(Option::as_deref).collect();
            self.replace_if(over, &commit.tiles, &made_from)?.done()?;
        }
        self.advance(over, &self.scripts.advance, &commit.applied, |Applied { from, to, .. }| {
            (from.bytes().to_vec(), Standing::at(*to).bytes().to_vec())
        })
    }

    fn advance(
        &self,
        over: Option<u64>,
        script: &Named,
        steps: &[Applied],
        each: impl Fn(&Applied) -> (Vec<u8>, Vec<u8>),
    ) -> Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        let mut command = script.run([self.names.positions.as_bytes()].into_iter());
        for step in steps {
            let (from, to) = each(step);
            command.arg(&step.source).arg(from).arg(to);
        }
        let (commands, load) = (vec![(slot(self.slot_of_names()), command)], script.load());
        let sent = async |connected: Arc<Connected>| connected.writes.send(commands, &load).await;
        match self.wait(self.ask_over(over, WRITE_PATIENCE, sent))?[..] {
            [Value::Int(1)] => Ok(()),
            _ => Err(Error::busy("another server changed the online store in between")),
        }
    }

    fn number(&self, value: Value) -> Result<Option<i64>> {
        let Value::BulkString(bytes) = value else {
            return if value == Value::Nil { Ok(None) } else { Err(self.explain(&unexpected())) };
        };
        let bytes = <[u8; 8]>::try_from(&bytes[..])
            .map_err(|_| Error::broken("the online store holds a broken number"))?;
        Ok(Some(i64::from_be_bytes(bytes)))
    }

    /// The part of the names that a cluster hashes.
    pub(super) fn slot_of_names(&self) -> &[u8] {
        self.address.prefix.as_bytes()
    }

    /// As [`Head::begin`](crate::rocks::Head::begin).
    pub fn begin(&self, view: ViewId) -> Result<()> {
        self.set_watermark(view, i64::MIN)
    }

    /// What is kept of the events of `view`, as far as is known here; none until it is materialized.
    pub fn kept(&self, view: ViewId) -> Option<Arc<Kept>> {
        self.kept.read().views.get(&view).cloned()
    }

    /// Makes sure that [`Redis::kept`] was read a short while ago, and says until when tiles may be read that are
    /// understood by it. The keeper sees to it, as long as nothing holds it up.
    pub async fn freshen_kept(&self) -> Result<Instant> {
        if self.kept.read().as_of.elapsed() > KEPT_FRESH {
            self.ask(self.deadline, async |connected: Arc<Connected>| self.read_kept(&connected).await)
                .await?;
        }
        Ok(self.kept.read().as_of + KEPT_RELIED)
    }

    /// Makes [`Redis::kept`] what it is now.
    pub fn reread_kept(&self) -> Result<()> {
        self.wait(
            self.ask(WRITE_PATIENCE, async |connected: Arc<Connected>| self.read_kept(&connected).await),
        )
    }

    pub(super) async fn read_kept(&self, connected: &Connected) -> RedisResult<()> {
        // Before it is asked: the answer is not older than this.
        let as_of = Instant::now();
        let (kept, watermarks) =
            try_join(by_view(connected, &self.names.kept), by_view(connected, &self.names.watermark)).await?;
        let views = kept.into_iter().map(|(view, kept)| (view, Arc::new(Kept::read(&kept)))).collect();
        let instant = |(view, bytes): (ViewId, Vec<u8>)| {
            let bytes = <[u8; 8]>::try_from(&bytes[..]).map_err(|_| unexpected())?;
            Ok::<_, RedisError>((view, i64::from_be_bytes(bytes)))
        };
        let watermarks = watermarks.into_iter().map(instant).collect::<RedisResult<_>>()?;
        let mut known = self.kept.write();
        if known.as_of <= as_of {
            *known = KnownKept { as_of, views, watermarks };
        }
        Ok(())
    }

    /// Notes what is kept of the events of `view`, all of which are in. Where that is less than was kept, waits until
    /// no server can still rely on the rest.
    pub fn set_kept(&self, view: ViewId, kept: Kept) -> Result<()> {
        self.reread_kept()?;
        let is_less = self.kept(view).is_some_and(|before| !kept.holds(&before));
        let mut command = redis::cmd("HSET");
        command.arg(&self.names.kept).arg(&view.0.to_be_bytes()).arg(kept.write());
        self.now(&command)?;
        self.kept.write().views.insert(view, Arc::new(kept));
        if is_less {
            std::thread::sleep(KEPT_RELIED + KEEPER_PAUSE);
        }
        Ok(())
    }
}

/// The entries of a hash whose fields are views.
async fn by_view(connected: &Connected, names: &str) -> RedisResult<Vec<(ViewId, Vec<u8>)>> {
    let mut command = redis::cmd("HGETALL");
    command.arg(names);
    let Value::Array(entries) = connected.reads.command(&command).await? else { return Err(unexpected()) };
    let entry = |[view, value]: &[Value; 2]| match (view, value) {
        (Value::BulkString(view), Value::BulkString(value)) => {
            let view = <[u8; 8]>::try_from(&view[..]).map_err(|_| unexpected())?;
            Ok((ViewId(u64::from_be_bytes(view)), value.clone()))
        }
        _ => Err(unexpected()),
    };
    entries.as_chunks().0.iter().map(entry).collect()
}
