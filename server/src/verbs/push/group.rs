//! What do pushes that come together change, in one step?
//!
//! Rows get their numbers, and with them their place in the order of arrival. What they change is written at once: the
//! tail of history, the latest rows, the tiles, and what tells a repetition when it comes. Where a source has an
//! `event_id`, an event may be one that the tiles hold already. One that was pushed before with the same content is
//! dropped. One with another content, or one that a file may hold, cannot be added: the tiles of its key are rebuilt
//! from history, which knows all events.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use feature_defs::Source;
use quern_base::clock::now_us;
use quern_base::points::pass;
use quern_engine::windows::Windows;
use quern_features::write::{ViewWriter, newest};
use quern_store::follow::Behind;
use quern_store::log::{Logged, Position, Seen, SeenKey, Standing};
use quern_store::online::Online;
use quern_store::rocks::{Applied, Commit};
use quern_wire::{PushReply, PushTo};

use super::memory::Memory;
use super::missing::complete;
use super::order::in_order;
use super::repeats::{all_known_key, digest, events, position_key, push_key};
use super::tiles::Rebuild;
use super::{Job, Position as Place, Push, PushedBatch};
use crate::error::{Error, Result};
use crate::live::Deployment;

/// How long a push is known by its idempotency key, and an event by its `event_id`.
const KNOWN_US: i64 = 86_400_000_000;

/// Commits all jobs and answers them.
pub(super) fn commit(push: &Arc<Push>, jobs: Vec<Job>) {
    match together(push, &jobs) {
        Ok(answers) => {
            for (job, answer) in jobs.into_iter().zip(answers) {
                job.answer(answer);
            }
        }
        Err(error) => {
            tracing::error!(
                cause = error.logged(),
                pushes = jobs.len(),
                "pushed rows could not be committed"
            );
            for job in jobs {
                job.answer(Err(error.again().into()));
            }
        }
    }
    let sealing = Arc::clone(push);
    tokio::task::spawn_blocking(move || sealing.tail().seal_large());
}

fn together(push: &Push, jobs: &[Job]) -> Result<Vec<Result<PushReply>>> {
    let sources = jobs.iter().map(|job| job.push.source.clone()).collect();
    let turn = in_order(&push.turns, &push.live, &sources)?;
    let now_us = turn.order.now_us().unwrap_or_else(now_us);
    let behind = complete(push, &turn)?;
    let mut memory = Memory::default();
    let keys = jobs.iter().map(|job| keys(&turn.live, job)).collect::<Result<Vec<_>>>()?.concat();
    memory.fetch(&push.log, keys, (now_us, &turn.order.lasts))?;
    // Before any of it is read that is made more of.
    let head = push.head.bound();
    let mut group = Group {
        push,
        live: &turn.live,
        now_us,
        lasts: &turn.order.lasts,
        behind: &behind,
        memory,
        head: &head,
        commit: Commit::default(),
        seen: Notes::new(),
        noted: HashMap::new(),
        arrivals: BTreeMap::new(),
    };
    let mut answers: Vec<Result<PushReply>> = jobs.iter().map(|job| group.admit(job)).collect();
    let in_head = group.write()?;
    for (job, answer) in jobs.iter().zip(&mut answers) {
        if let Ok(reply) = answer
            && reply.accepted > 0
            && (!in_head || behind.contains_key(&job.push.source))
        {
            reply.visible = Some(false);
        }
    }
    Ok(answers)
}

/// What a push asks the memory for.
fn keys(live: &Deployment, Job { push, who, .. }: &Job) -> Result<Vec<SeenKey>> {
    let Ok(source) = live.pushed_to(&push.source) else { return Ok(Vec::new()) };
    let mut keys: Vec<SeenKey> =
        push.positions.iter().map(|position| position_key(&source.name, &position.part)).collect();
    keys.extend(push.idempotency_key.as_ref().map(|key| push_key(&source.name, who, key)));
    if !source.event_id.is_empty() && push.rows.num_rows() > 0 {
        keys.push(all_known_key(&source.name));
        keys.extend(events(source, &push.rows)?.into_iter().map(|event| event.key));
    }
    Ok(keys)
}

/// Whether the head has followed; why it has not is for the log, since what was pushed is durable.
fn told(followed: Result<()>) -> bool {
    if let Err(error) = &followed {
        tracing::error!(
            cause = error.logged(),
            "pushed rows are in the log, and not in the online store yet"
        );
    }
    followed.is_ok()
}

struct Group<'a> {
    push: &'a Push,
    live: &'a Deployment,
    now_us: i64,
    /// The commits before.
    lasts: &'a BTreeMap<String, Position>,
    /// The sources whose head must not go on.
    behind: &'a BTreeMap<String, Behind>,
    memory: Memory,
    head: &'a Online,
    commit: Commit,
    /// What is noted with the rows.
    seen: Notes,
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
    /// For each row that goes to both, whether its event was pushed before, or may have been so long ago that nobody
    /// knows.
    repeats: Vec<bool>,
}

impl<'a> Group<'a> {
    /// Takes a push into the group, less what it repeats.
    fn admit(&mut self, Job { push, who, .. }: &Job) -> Result<PushReply> {
        let source = self.live.pushed_to(&push.source)?;
        if push.rows.schema_ref() != &self.live.compiled.source_schemas[&source.name] {
            return Err(Error::busy(format!(
                "the columns of source `{}` changed while the rows waited",
                source.name
            )));
        }
        self.behind.get(&source.name).map_or(Ok(()), |behind| behind.check(&source.name))?;
        for Place { part, from, .. } in &push.positions {
            if self.seen(&position_key(&source.name, part))? != *from {
                return Err(Error::read_on(&source.name));
            }
        }
        let given = push.rows.num_rows();
        let reply = PushReply { accepted: given, rejected: push.rejected.clone(), ..PushReply::default() };
        let named = push.idempotency_key.as_ref().map(|key| (key, digest(push)));
        if let Some((key, digest)) = &named {
            match self.seen(&push_key(&source.name, who, key))? {
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
        for Place { part, to, .. } in &push.positions {
            self.note(position_key(&source.name, part), to.clone(), i64::MAX);
        }
        if let Some((key, digest)) = named {
            self.note(push_key(&source.name, who, key), digest, self.now_us);
        }
        Ok(reply)
    }

    fn admit_rows(&mut self, source: &Source, push: &PushedBatch, reply: PushReply) -> Result<PushReply> {
        let mut rows = push.rows.clone();
        let mut repeats = vec![false; rows.num_rows()];
        let mut repeated = 0;
        // What goes to look-ups alone may come again, for history.
        if !source.event_id.is_empty() && rows.num_rows() > 0 && push.to != PushTo::Online {
            let known_from_us = self.known_from_us(source)?;
            let events = events(source, &rows)?;
            let keys: Vec<SeenKey> = events.iter().map(|event| event.key.clone()).collect();
            let stored = self.memory.seen(&self.push.log, &keys, self.now_us)?;
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
                repeats[row] = known.is_some() || event.ts_us < known_from_us;
                self.note(event.key, content, self.now_us.max(event.ts_us));
            }
            rows = filter_record_batch(&rows, &BooleanArray::from(keep.clone()))?;
            repeats = repeats.into_iter().zip(&keep).filter_map(|(is, keep)| keep.then_some(is)).collect();
        }
        let accepted = rows.num_rows();
        let arrivals = self.arrivals.entry(source.name.clone()).or_default();
        match push.to {
            PushTo::OnlineAndOffline => {
                arrivals.both.push(rows);
                arrivals.repeats.extend(repeats);
            }
            PushTo::Online => arrivals.online.push(rows),
            PushTo::Offline => arrivals.offline.push(rows),
        }
        Ok(PushReply { accepted, repeated, ..reply })
    }

    /// What is known of `key`.
    fn seen(&self, key: &SeenKey) -> Result<Option<Vec<u8>>> {
        let stored = self.memory.seen(&self.push.log, std::slice::from_ref(key), self.now_us)?;
        Ok(self.known(key, stored.into_iter().next().flatten()))
    }

    /// What was noted in this group, else what is stored.
    fn known(&self, key: &SeenKey, stored: Option<Seen>) -> Option<Vec<u8>> {
        self.noted.get(key).cloned().or(stored.map(|seen| seen.value))
    }

    fn note(&mut self, key: SeenKey, value: Vec<u8>, from_us: i64) {
        self.noted.insert(key.clone(), value.clone());
        self.seen.push((key, Seen { until_us: from_us.saturating_add(KNOWN_US), value }));
    }

    /// From which time of an event on every one that was pushed to the source is known. What is noted is since when
    /// events are: below zero where others had come before.
    fn known_from_us(&mut self, source: &Source) -> Result<i64> {
        let key = all_known_key(&source.name);
        let since_us = match self.seen(&key)? {
            Some(since) => since.as_slice().try_into().map_or(i64::MIN, i64::from_be_bytes),
            None => {
                let is_first = self.push.history.pushed.of(&source.name).is_empty();
                let since_us = if is_first { self.now_us } else { -self.now_us };
                self.note(key, since_us.to_be_bytes().to_vec(), i64::MAX);
                since_us
            }
        };
        let forgotten_us = self.now_us - KNOWN_US;
        Ok(match since_us {
            ..0 => forgotten_us.max(since_us.saturating_neg()),
            _ if since_us > forgotten_us => i64::MIN,
            _ => forgotten_us,
        })
    }

    /// Writes everything; what is in the log then is durable, and counts. Gives whether the head has all of it, but for
    /// the sources that are behind.
    fn write(mut self) -> Result<bool> {
        let mut rebuilds = Vec::new();
        let mut logged = Vec::new();
        for (name, arrivals) in std::mem::take(&mut self.arrivals) {
            let schema = &self.live.compiled.source_schemas[&name];
            let pushed = self.push.history.pushed.of(&name);
            let last = self.lasts.get(&name).copied().unwrap_or_default();
            let first = self.push.history.end_at(&name, last)?;
            let counted = concat_batches(schema, &arrivals.both)?;
            let rows = concat_batches(schema, std::iter::once(&counted).chain(&arrivals.online))?;
            let kept = concat_batches(schema, arrivals.both.iter().chain(&arrivals.offline))?;
            let source = &self.live.compiled.catalog.definitions.sources[&name];
            let is_new = pushed.is_empty() && source.batch.is_none();
            for view in self.live.compiled.views_of(&name) {
                let writer = self.push.writer(self.head, source, view);
                if rows.num_rows() == 0 || self.behind.contains_key(&name) {
                    break;
                }
                self.push.begin(view, is_new)?;
                let Some(windows) = &view.windows else {
                    newest(view, &rows, first, &mut self.commit.rows)?;
                    continue;
                };
                // Windows count what history has.
                rebuilds.extend(self.tiles(writer, windows, (&counted, first), &arrivals.repeats)?);
            }
            logged.push(Logged {
                position: last.next(),
                source: name,
                first,
                in_head: arrivals.both.iter().map(RecordBatch::num_rows).sum(),
                history: kept,
                online: Some(concat_batches(schema, &arrivals.online)?).filter(|rows| rows.num_rows() > 0),
            });
        }
        if self.seen.is_empty() {
            logged.retain(|logged| logged.history.num_rows() > 0 || logged.online.is_some());
        }
        if logged.is_empty() {
            return Ok(true);
        }
        pass("push: before the log");
        self.push.log.commit(self.lasts, &logged, &self.seen)?;
        pass("push: in the log");
        let applied = logged.iter().filter(|group| !self.behind.contains_key(&group.source));
        let applied = applied.map(|group| Applied {
            source: group.source.clone(),
            from: Standing::at(self.lasts.get(&group.source).copied().unwrap_or_default()),
            to: group.position,
        });
        let applied: Vec<Applied> = applied.collect();
        self.push.history.committed(self.lasts, logged)?;
        pass("push: in history");
        let followed = self.follow(applied, &rebuilds);
        pass("push: followed, not answered");
        Ok(told(followed))
    }

    /// What is rebuilt is in the head only once that is done: brought in again after a crash, its keys are rebuilt once
    /// more.
    fn follow(mut self, applied: Vec<Applied>, rebuilds: &[Rebuild<'_>]) -> Result<()> {
        let head = self.head;
        head.begin_commits(&applied)?;
        let applied: Vec<Applied> = applied.into_iter().map(Applied::begun).collect();
        pass("push: begun in the head");
        if rebuilds.is_empty() {
            self.commit.applied = applied;
            return Ok(head.commit(&self.commit)?);
        }
        head.commit(&self.commit)?;
        pass("push: rows in the head, without a note");
        for rebuild in rebuilds {
            let of = applied.iter().find(|applied| applied.source == rebuild.source());
            rebuild.run(&self.live.compiled, of.map_or_else(Position::default, |applied| applied.to))?;
        }
        pass("push: rebuilt, without a note");
        Ok(head.commit(&Commit { applied, ..Commit::default() })?)
    }

    /// Adds rows, of which the first has number `first`, to the view's tiles, but for those that may be there, as
    /// `repeats` says: the tiles of their keys are to be rebuilt.
    fn tiles<'v>(
        &mut self,
        writer: ViewWriter<'v>,
        windows: &'v Windows,
        (rows, first): (&RecordBatch, u64),
        repeats: &[bool],
    ) -> Result<Option<Rebuild<'v>>> {
        let files_us = if repeats.is_empty() { None } else { self.head.files_until(writer.view.id)? };
        let rebuild = RefCell::new(Rebuild::nothing(writer, windows));
        let is_new = |row: usize, key: &[u8], visible_us: i64| {
            let may_be_there = repeats[row] || files_us.is_some_and(|us| visible_us <= us);
            if may_be_there {
                rebuild.borrow_mut().add(key, visible_us);
            }
            !may_be_there
        };
        let made_from = writer.add_events(rows, first, &is_new, &mut self.commit.tiles)?;
        self.commit.made_from.extend(made_from);
        Ok(Some(rebuild.into_inner()).filter(|rebuild| !rebuild.is_empty()))
    }
}
