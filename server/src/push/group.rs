//! What do pushes that come together change, in one step?
//!
//! Rows get their numbers, and with them their place in the order of arrival. What they change is written at once: the
//! tail of history, the latest rows, the tiles, and what tells a repetition when it comes. Where a source has an
//! `event_id`, an event may be one that the tiles hold already. One that was pushed before with the same content is
//! dropped. One with another content, or one that a file may hold, cannot be added: the tiles of its key are made anew
//! from history, which knows all events.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use chrono::Utc;
use feature_defs::Source;
use quern_engine::ViewPlan;
use quern_engine::asof::KeyTable;
use quern_engine::windows::Windows;
use quern_wire::{PushReply, PushTo};

use super::log::{Log, Memory, Order, Shared};
use super::missing::Anew;
use super::repeats::{all_known_key, digest, events, position_key, push_key};
use super::{Job, Position, Push, seal};
use crate::error::{Error, Result};
use crate::materialize::newest;
use crate::store::log::Logged;
use crate::store::rocks::{Commit, Head, Seen, SeenKey};
use crate::windows;
use crate::{Deployment, Quern};

/// How long a push is known by its idempotency key, and an event by its `event_id`.
const KNOWN_US: i64 = 86_400_000_000;
/// How long an apply of another server may take to go live here while pushes wait, and how often it is looked for.
const APPLY_PATIENCE: Duration = Duration::from_secs(5);
const APPLY_PAUSE: Duration = Duration::from_millis(20);
/// Commits all jobs and answers them.
pub(super) fn commit(quern: &Arc<Quern>, jobs: Vec<Job>) {
    let together = together(quern, &jobs);
    let mut sources: Vec<String> = jobs.iter().map(|job| job.push.source.clone()).collect();
    match together {
        Ok(answers) => {
            for (job, answer) in jobs.into_iter().zip(answers) {
                // Who has gone away need not know.
                let _ = job.answer.send(answer);
            }
        }
        Err(error) => {
            let cause = error.to_string();
            tracing::error!(cause, pushes = jobs.len(), "pushed rows could not be committed");
            for job in jobs {
                let _ = job.answer.send(Err(error.again().into()));
            }
        }
    }
    sources.sort_unstable();
    sources.dedup();
    for source in sources {
        if seal::is_large(quern, &source) {
            let quern = Arc::clone(quern);
            tokio::task::spawn_blocking(move || seal::seal(&quern, &source));
        }
    }
}

fn together(quern: &Quern, jobs: &[Job]) -> Result<Vec<Result<PushReply>>> {
    let (order, live, last) = in_order(quern)?;
    order.complete(quern, &live, last)?;
    let now_us = Utc::now().timestamp_micros();
    let mut memory = Memory::default();
    let keys = jobs.iter().map(|job| keys(&live, &job.push)).collect::<Result<Vec<_>>>()?.concat();
    memory.fetch(&quern.log, keys, now_us)?;
    let mut group = Group {
        quern,
        live: &live,
        now_us,
        last,
        memory,
        commit: Commit::default(),
        noted: HashMap::new(),
        arrivals: BTreeMap::new(),
    };
    let answers = jobs.iter().map(|job| group.admit(&job.push)).collect();
    group.write()?;
    Ok(answers)
}

/// The turn to commit, at a time when what is live here is what was applied last; and the number of the last commit.
pub(super) fn in_order(quern: &Quern) -> Result<(Order<'_>, Arc<Deployment>, i64)> {
    let give_up = Instant::now() + APPLY_PATIENCE;
    loop {
        let order = quern.order()?;
        let live = quern.live();
        if let Some(last) = order.last(&live) {
            return Ok((order, live, last));
        }
        if Instant::now() > give_up {
            return Err(Error::unavailable(
                "other definitions were applied and are not live here yet; push again in a moment",
            ));
        }
        drop(order);
        std::thread::sleep(APPLY_PAUSE);
    }
}

/// What a push asks the memory for.
fn keys(live: &Deployment, push: &Push) -> Result<Vec<SeenKey>> {
    let Ok(source) = super::source(live, &push.source) else { return Ok(Vec::new()) };
    let mut keys: Vec<SeenKey> =
        push.positions.iter().map(|position| position_key(&source.name, &position.part)).collect();
    keys.extend(push.idempotency_key.as_ref().map(|key| push_key(&source.name, key)));
    if !source.event_id.is_empty() && push.rows.num_rows() > 0 {
        keys.push(all_known_key(&source.name));
        keys.extend(events(source, &push.rows)?.into_iter().map(|event| event.key));
    }
    Ok(keys)
}

struct Group<'a> {
    quern: &'a Quern,
    live: &'a Deployment,
    now_us: i64,
    /// The number of the commit before.
    last: i64,
    memory: Memory,
    commit: Commit,
    /// What was seen within this group.
    noted: HashMap<SeenKey, Vec<u8>>,
    arrivals: BTreeMap<String, Arrivals>,
}

/// What is noted of what was seen.
type Notes = Vec<(SeenKey, Seen)>;

/// What comes in for one source.
#[derive(Default)]
struct Arrivals {
    both: Vec<RecordBatch>,
    online: Vec<RecordBatch>,
    offline: Vec<RecordBatch>,
    /// For each row that goes to both, whether its event may be in the tiles already; empty without `event_id`.
    doubtful: Vec<bool>,
    /// What is noted once tiles have been made anew.
    after: Vec<(SeenKey, Seen)>,
}

impl Group<'_> {
    /// Takes a push into the group, less what it repeats.
    fn admit(&mut self, push: &Push) -> Result<PushReply> {
        let source = super::source(self.live, &push.source)?;
        if push.rows.schema_ref() != &self.live.source_schemas[&source.name] {
            return Err(Error::unavailable(format!(
                "the columns of source `{}` changed while the rows waited; push again",
                source.name
            )));
        }
        for Position { part, from, .. } in &push.positions {
            if self.seen(&position_key(&source.name, part))? != *from {
                return Err(Error::refused(format!(
                    "the stream of source `{}` was read on already",
                    source.name
                )));
            }
        }
        let given = push.rows.num_rows();
        let reply = PushReply { accepted: given, rejected: push.rejected.clone(), ..PushReply::default() };
        let named = push.idempotency_key.as_ref().map(|key| (key, digest(push)));
        if let Some((key, digest)) = &named {
            match self.seen(&push_key(&source.name, key))? {
                Some(known) if known == *digest => {
                    return Ok(PushReply { accepted: 0, repeated: given, ..reply });
                }
                Some(_) => {
                    return Err(Error::refused(format!(
                        "the idempotency key `{key}` was used for other rows; give each push its own"
                    )));
                }
                None => {}
            }
        }
        let reply = self.admit_rows(source, push, reply)?;
        for Position { part, to, .. } in &push.positions {
            self.note(position_key(&source.name, part), to.clone(), i64::MAX);
        }
        if let Some((key, digest)) = named {
            self.note(push_key(&source.name, key), digest, self.now_us);
        }
        Ok(reply)
    }

    fn admit_rows(&mut self, source: &Source, push: &Push, reply: PushReply) -> Result<PushReply> {
        let mut rows = push.rows.clone();
        let mut doubtful = vec![false; rows.num_rows()];
        let mut repeated = 0;
        let mut after = Vec::new();
        if !source.event_id.is_empty() && rows.num_rows() > 0 {
            let all_known = self.all_known(source)?;
            let events = events(source, &rows)?;
            let keys: Vec<SeenKey> = events.iter().map(|event| event.key.clone()).collect();
            let stored = self.memory.seen(&self.quern.log, &keys, self.now_us)?;
            let mut keep = vec![true; rows.num_rows()];
            for (row, (event, stored)) in events.into_iter().zip(stored).enumerate() {
                let known = self.known(&event.key, stored);
                // What goes to history alone is not in the tiles, and whoever brings it there does not note it.
                let content = if push.to.online() { event.content } else { Vec::new() };
                if known.as_ref() == Some(&content) && push.to.online() {
                    keep[row] = false;
                    repeated += 1;
                    continue;
                }
                doubtful[row] = known.is_some() || !all_known && event.ts_us < self.now_us - KNOWN_US;
                let until_us = self.now_us.max(event.ts_us);
                if doubtful[row] {
                    self.noted.insert(event.key.clone(), content.clone());
                    after.push((
                        event.key,
                        Seen { until_us: until_us.saturating_add(KNOWN_US), value: content },
                    ));
                } else {
                    self.note(event.key, content, until_us);
                }
            }
            rows = filter_record_batch(&rows, &BooleanArray::from(keep.clone()))?;
            doubtful = doubtful.into_iter().zip(&keep).filter_map(|(is, keep)| keep.then_some(is)).collect();
        }
        let accepted = rows.num_rows();
        let arrivals = self.arrivals.entry(source.name.clone()).or_default();
        arrivals.after.extend(after);
        match push.to {
            PushTo::OnlineAndOffline => {
                arrivals.both.push(rows);
                arrivals.doubtful.extend(doubtful);
            }
            PushTo::Online => arrivals.online.push(rows),
            PushTo::Offline => arrivals.offline.push(rows),
        }
        Ok(PushReply { accepted, repeated, ..reply })
    }

    /// What is known of `key`.
    fn seen(&self, key: &SeenKey) -> Result<Option<Vec<u8>>> {
        let stored = self.memory.seen(&self.quern.log, std::slice::from_ref(key), self.now_us)?;
        Ok(self.known(key, stored.into_iter().next().flatten()))
    }

    /// What was noted in this group, else what is stored.
    fn known(&self, key: &SeenKey, stored: Option<Seen>) -> Option<Vec<u8>> {
        self.noted.get(key).cloned().or(stored.map(|seen| seen.value))
    }

    fn note(&mut self, key: SeenKey, value: Vec<u8>, from_us: i64) {
        self.noted.insert(key.clone(), value.clone());
        self.commit.seen.push((key, Seen { until_us: from_us.saturating_add(KNOWN_US), value }));
    }

    /// Whether every event that was ever pushed to the source is still known.
    fn all_known(&mut self, source: &Source) -> Result<bool> {
        let key = all_known_key(&source.name);
        if let Some(since) = self.seen(&key)? {
            let since_us = since.as_slice().try_into().map_or(i64::MIN, i64::from_be_bytes);
            return Ok(self.now_us - since_us < KNOWN_US);
        }
        let is_first = self.quern.history.pushed.of(&source.name).is_empty();
        let since_us = if is_first { self.now_us } else { i64::MIN };
        self.note(key, since_us.to_be_bytes().to_vec(), i64::MAX);
        Ok(is_first)
    }

    /// Writes everything; what is in the stores then is durable.
    fn write(mut self) -> Result<()> {
        let mut anew = Vec::new();
        let mut after = Vec::new();
        let mut logged = Vec::new();
        for (name, arrivals) in std::mem::take(&mut self.arrivals) {
            let schema = &self.live.source_schemas[&name];
            let pushed = self.quern.history.pushed.of(&name);
            let first = pushed.end();
            let rows = concat_batches(schema, arrivals.both.iter().chain(&arrivals.online))?;
            let kept = concat_batches(schema, arrivals.both.iter().chain(&arrivals.offline))?;
            let is_new = pushed.is_empty() && self.live.catalog.definitions.sources[&name].batch.is_none();
            for view in self.live.catalog.views.values().filter(|view| view.source == name) {
                if rows.num_rows() == 0 {
                    break;
                }
                if self.quern.head.watermark(view.id)?.is_none() {
                    self.quern.head.begin(view.id)?;
                }
                let Some(windows) = &view.windows else {
                    newest(view, &rows, first, &mut self.commit.rows)?;
                    continue;
                };
                if is_new && self.quern.head.kept(view.id).is_none() {
                    // All that there will be comes this way.
                    self.quern.head.set_kept(view.id, windows.kept())?;
                }
                anew.extend(self.tiles(view, windows, &rows, first, &arrivals.doubtful)?);
            }
            logged.push(Logged {
                number: self.last + 1,
                source: name,
                first,
                in_head: arrivals.both.iter().map(RecordBatch::num_rows).sum(),
                history: kept,
                online: Some(concat_batches(schema, &arrivals.online)?).filter(|rows| rows.num_rows() > 0),
            });
            after.extend(arrivals.after);
        }
        logged.retain(|logged| logged.history.num_rows() > 0 || logged.online.is_some());
        match &self.quern.log {
            Log::Local(local) => self.write_here(local, logged, &anew, after),
            Log::Shared(shared) => self.write_for_all(shared, logged, &anew, after),
            Log::Nowhere => self.quern.log.check(),
        }
    }

    /// History, head and what was seen in one write.
    fn write_here(
        mut self,
        local: &Head,
        logged: Vec<Logged>,
        anew: &[Anew<'_>],
        after: Notes,
    ) -> Result<()> {
        let kept = logged.into_iter().filter(|logged| logged.history.num_rows() > 0);
        self.commit.tail = kept.map(|logged| (logged.source, logged.first, logged.history)).collect();
        local.commit(&self.commit)?;
        for (source, _, rows) in self.commit.tail {
            self.quern.history.pushed.append(&source, rows)?;
        }
        for anew in anew {
            anew.make(self.quern, self.live)?;
        }
        if !after.is_empty() {
            // Not sooner: after a crash in between, the same push must find its tiles wanting.
            local.commit(&Commit { seen: after, ..Commit::default() })?;
        }
        Ok(())
    }

    /// History and what was seen first: a crash before the head is changed leaves it behind, and whoever commits next
    /// finds that it is.
    fn write_for_all(
        mut self,
        shared: &Shared,
        logged: Vec<Logged>,
        anew: &[Anew<'_>],
        after: Notes,
    ) -> Result<()> {
        self.commit.seen.extend(after);
        if logged.is_empty() && self.commit.seen.is_empty() {
            return Ok(());
        }
        shared.commit(self.quern, self.last, logged, &self.commit.seen)?;
        shared.apply(self.quern, &self.commit)?;
        for anew in anew {
            anew.make(self.quern, self.live)?;
        }
        shared.note_applied(Some(self.last), self.last + 1)
    }

    /// Adds the rows to the view's tiles, but for those that may be there: the tiles of their keys are to be made anew.
    fn tiles<'v>(
        &mut self,
        view: &'v ViewPlan,
        windows: &'v Windows,
        rows: &RecordBatch,
        first: u64,
        doubtful: &[bool],
    ) -> Result<Option<Anew<'v>>> {
        let files_us = if doubtful.is_empty() { None } else { self.quern.head.files_until(view.id)? };
        let anew = RefCell::new(Anew { view, windows, keys: KeyTable::default(), from_us: i64::MAX });
        let is_sound = |row: usize, key: &[u8], visible_us: i64| {
            let is_doubtful =
                doubtful.get(row).is_some_and(|is| *is || files_us.is_some_and(|us| visible_us <= us));
            if is_doubtful {
                let mut anew = anew.borrow_mut();
                anew.keys.intern(key);
                anew.from_us = anew.from_us.min(Windows::cut_us(visible_us));
            }
            !is_doubtful
        };
        let tiles = &mut self.commit.tiles;
        let made_from = windows::on_top(self.quern, view, rows, first, &is_sound, tiles)?;
        self.commit.made_from.extend(made_from);
        Ok(Some(anew.into_inner()).filter(|anew| !anew.keys.is_empty()))
    }
}
