//! What had happened to these keys within their windows, at each of these times?

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arrow::array::ArrayRef;
use parking_lot::Mutex;
use quern_engine::asof::Spine;
use quern_engine::time::last_us;
use quern_engine::windows::{Asked, Chunk, Events, Excluded, Group, Windows};
use quern_engine::{Failed, RowState, Stamps};
use quern_store::history::Scan;

use super::gather::{BUCKETS, Gathering, LeftOut, Route, TURN_BYTES, buckets, turn};
use crate::error::{Result, check_strict};
use crate::question::{Answer, Cursor, Place, Question};
use crate::read::{Visitor, cores, for_each};

/// Those whose events fit into memory together, in groups; there is always one. Who does not fit is alone. Turns of
/// whole views cost less than turns of all their buckets: each reader looks at every row in each turn that it takes.
pub(crate) fn in_groups<'r, 'a>(all: impl Iterator<Item = &'r Windowed<'a>>) -> Vec<Vec<&'r Windowed<'a>>> {
    let (mut groups, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
    for asked in all {
        bytes += asked.bytes();
        if bytes > TURN_BYTES && !group.is_empty() {
            groups.push(std::mem::take(&mut group));
            bytes = asked.bytes();
        }
        group.push(asked);
    }
    groups.push(group);
    groups
}

/// A question about windows that history streams past: turn by turn its buckets are filled ([`Windowed::visitor`]) and
/// answered ([`Windowed::sweep`]).
pub(crate) struct Windowed<'a> {
    question: &'a Question<'a>,
    gathering: Gathering<'a>,
    spine: Arc<Spine>,
    /// From when to when events matter to each key, µs. Looked at for every event: side by side, so that each costs
    /// one miss of the cache.
    matters: Vec<(i64, i64)>,
    buckets: Vec<Mutex<Vec<Chunk>>>,
    /// The features of each bucket's spine places, with the first of these.
    answers: Mutex<Vec<(usize, Vec<ArrayRef>)>>,
    /// Windows beyond their type.
    failed: Mutex<Failed>,
    /// For each key when its first event ever became visible, µs; nothing where nobody asks.
    first_us: Vec<AtomicI64>,
    /// How much memory the events take, by estimate.
    bytes: u64,
    /// How many places see an event of their very time.
    coinciding: AtomicU64,
}

/// The first key of a bucket, of so many keys.
fn first_key(bucket: usize, keys: usize) -> usize {
    (bucket * keys).div_ceil(BUCKETS)
}

/// Which events all questions about a key leave out.
fn left_out<'a>(spine: Arc<Spine>, excluded: &'a [Option<Excluded>]) -> Box<LeftOut<'a>> {
    Box::new(move |(bucket, number), identity| {
        let key = first_key(bucket, spine.keys.len()) as u32 + number;
        let rows = &spine.rows[spine.places(key)];
        rows.iter().all(|row| excluded[*row as usize].is_some_and(|excluded| excluded.is(identity)))
    })
}

impl<'a> Windowed<'a> {
    pub(crate) fn new(
        scan: &'a Scan,
        windows: &'a Windows,
        question: &'a Question<'a>,
    ) -> Result<Windowed<'a>> {
        let spine = Arc::new(Spine::new(question.keys, question.query_times_us));
        let reach_us = windows.reach_us(question.features);
        let first_us = |q_us: i64| reach_us.map_or(i64::MIN, |reach_us| q_us.saturating_sub(reach_us));
        let range = (
            spine.times.iter().min().copied().map_or(i64::MAX, first_us),
            spine.times.iter().max().copied().unwrap_or(i64::MIN),
        );
        let needed = windows.inputs_of(question.features);
        let keys = if question.unseen { spine.keys.len() } else { 0 };
        let mut gathering = Gathering::new(scan, question.view, windows, needed, range)?;
        let bytes = gathering.bytes();
        if question.unseen {
            gathering.widen((i64::MIN, range.1))?;
        }
        gathering.ordered = windows.needs_order(question.as_known);
        gathering.left_out = question.excluded.map(|excluded| left_out(Arc::clone(&spine), excluded));
        let matters = (0..spine.keys.len())
            .map(|id| &spine.times[spine.places(id as u32)])
            .map(|times| (first_us(times[0]), times[times.len() - 1]))
            .collect();
        Ok(Windowed {
            question,
            gathering,
            spine,
            matters,
            buckets: buckets(),
            answers: Mutex::default(),
            failed: Mutex::default(),
            first_us: (0..keys).map(|_| AtomicI64::new(i64::MAX)).collect(),
            bytes,
            coinciding: AtomicU64::default(),
        })
    }

    /// How much memory the events take, by estimate.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first key of a bucket.
    fn first_key(&self, bucket: usize) -> usize {
        first_key(bucket, self.matters.len())
    }

    /// Fills the buckets whose turn it is.
    pub(crate) fn visitor(&self, now: usize, turns: usize) -> Visitor<'_> {
        let route = move |stamps: &Stamps, row: usize, visible_us: i64, _: u32| -> Option<Route> {
            let id = self.spine.keys.find(stamps.keys.get(row)?)?;
            if let Some(first_us) = self.first_us.get(id as usize) {
                first_us.fetch_min(visible_us, Ordering::Relaxed);
            }
            let bucket = id as usize * BUCKETS / self.matters.len();
            let (from_us, to_us) = self.matters[id as usize];
            (bucket % turns == now && from_us <= visible_us && visible_us <= to_us)
                .then(|| (bucket, id - self.first_key(bucket) as u32))
        };
        self.gathering.visitor(&self.buckets, route, &|_, _| ())
    }

    /// Answers from the buckets whose turn it was, and empties them.
    pub(crate) fn sweep(&self, now: usize, turns: usize) -> Result<()> {
        let spine = &self.spine;
        for_each(cores(), &turn(now, turns), |bucket| {
            let (from, to) = (self.first_key(bucket), self.first_key(bucket + 1));
            if from == to {
                return Ok(());
            }
            let chunks = std::mem::take(&mut *self.buckets[bucket].lock());
            let (events, ranges) = Events::sort(chunks, to - from, self.question.as_known)?;
            let base = spine.places(from as u32).start;
            let groups: Vec<Group> = ranges
                .into_iter()
                .zip(from..to)
                .map(|(events, id)| {
                    let places = spine.places(id as u32);
                    Group { events, times: places.start - base..places.end - base }
                })
                .collect();
            let places = base..spine.places(to as u32 - 1).end;
            let excluded = self.question.excluded.map(|excluded| {
                spine.rows[places.clone()].iter().map(|row| excluded[*row as usize]).collect::<Vec<_>>()
            });
            let (times_us, excluded) = (&spine.times[places], excluded.as_deref());
            let asked = Asked { groups: &groups, times_us, excluded };
            let windows = self.gathering.windows;
            self.coinciding.fetch_add(windows.coinciding(&events, asked), Ordering::Relaxed);
            let mut failed = Failed::default();
            let columns = windows.sweep(&events, asked, self.question.features, &mut failed)?;
            let view = format!("feature view `{}`", self.question.view.name);
            check_strict(&failed, &view, |row| format!("row {} of what was asked", spine.rows[base + row]))?;
            self.failed.lock().join(&failed.placed(|row| [spine.rows[base + row as usize]]));
            self.answers.lock().push((base, columns));
            Ok(())
        })
    }

    /// All turns are over: what did each spine row find?
    pub(crate) fn answer(self) -> Result<Answer> {
        let Windowed { question, spine, answers, failed, gathering, coinciding, first_us, .. } = self;
        let mut failed = failed.into_inner();
        failed.add(&gathering.failed());
        gathering.check_strict()?;
        let mut answers = answers.into_inner();
        answers.sort_unstable_by_key(|(before, _)| *before);
        let (before, pieces): (Vec<usize>, Vec<_>) = answers.into_iter().unzip();
        let mut rows = vec![Place::Null; question.keys.len()];
        let mut states = vec![RowState::NotFound; question.keys.len()];
        let mut cursor = Cursor::new(&before);
        for (index, row) in spine.rows.iter().enumerate() {
            rows[*row as usize] = cursor.place(index);
            states[*row as usize] = RowState::Present;
        }
        for (id, first_us) in first_us.into_iter().map(AtomicI64::into_inner).enumerate() {
            let places = spine.places(id as u32);
            for place in places.filter(|place| first_us > last_us(spine.times[*place], question.view.at)) {
                states[spine.rows[place] as usize] = RowState::Unseen;
            }
        }
        let mut answer = Answer::new(question, pieces, rows, states, None);
        (answer.failed, answer.coinciding) = (failed, coinciding.into_inner());
        Ok(answer)
    }
}
