//! Which vectors do these entities have? Join keys and request columns in, feature vectors out.

use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{interleave, take_record_batch};
use quern_base::stage;
use quern_base::tasks::blocking;
use quern_engine::key::Keys;
use quern_engine::row::times;
use quern_engine::time::{last_us, state_at, visible_from};
use quern_engine::windows::{self, Excluded, Kept};
use quern_engine::{Failed, Found, Lookup, Origin, RowState, ServicePlan, Status, ViewId};
use quern_store::history::History;
use quern_store::online::Online;
use quern_store::redis::Redis;
use quern_store::rocks::{Head, Wanted};
use tracing::Instrument;

use crate::as_of::{Question, ask};
use crate::compiled::Compiled;
use crate::error::{Error, Kind, Result, check_strict};
use crate::metrics::metrics;
use crate::windows::head::{self, Tiles, kept_in_both};

/// So many keys are looked up right where the request is; more could keep the async runtime waiting for the disk.
const KEYS_INLINE_MAX: usize = 512;

/// What values are read from.
#[derive(Clone)]
pub struct Reader {
    /// What happened.
    pub history: Arc<History>,
    /// What of it is the latest.
    pub head: Online,
    /// Whether a time before what the head holds is asked of history.
    pub history_fallback: bool,
}

/// Feature vectors and what is known of each value.
#[derive(Debug, Clone)]
pub struct Vectors {
    /// A row for each instance; columns are the service's outputs.
    pub vectors: RecordBatch,
    /// What each look-up found.
    pub found: Vec<Found>,
    /// The service they belong to.
    pub service: Arc<ServicePlan>,
    /// Which of the values could not be computed for this answer; what is stored as null is not among them.
    pub failed: Failed,
}

impl Vectors {
    /// How the value of `output` in `row` is to be understood.
    pub fn status(&self, output: usize, row: usize) -> Status {
        let state = match self.service.origins[output] {
            Origin::Feature { lookup, feature } => match self.found[lookup].absent.get(feature) {
                Some(true) => RowState::NotFound,
                _ => self.found[lookup].states[row],
            },
            Origin::Input(_) | Origin::Derived => RowState::Present,
        };
        Status::of(state, self.vectors.column(output).is_null(row))
    }

    /// Event timestamp (µs) of the stored row that the value comes from; none for what was not stored or not found.
    pub fn event_timestamp(&self, output: usize, row: usize) -> Option<i64> {
        match self.service.origins[output] {
            Origin::Feature { lookup, .. } => {
                let found = &self.found[lookup];
                let has_row = found.states[row].has_row();
                has_row.then(|| found.event_timestamps.get(row).copied()).flatten()
            }
            Origin::Input(_) | Origin::Derived => None,
        }
    }

    /// Some of the rows.
    pub fn pick(&self, rows: &UInt32Array) -> Result<Vectors> {
        let found = self.found.iter().map(|found| found.pick(rows)).collect::<std::result::Result<_, _>>()?;
        let vectors = take_record_batch(&self.vectors, rows)?;
        let failed = self.failed.pick(rows.values());
        Ok(Vectors { vectors, found, service: Arc::clone(&self.service), failed })
    }
}

impl Reader {
    /// Up to which query time (µs) a view is materialized, as far as is known without asking; none where it never was.
    pub fn materialized_until(&self, view: ViewId) -> Option<i64> {
        self.head.materialized_until(view)
    }

    /// Looks up `inputs` (columns as in [`ServicePlan::inputs`]) at `query_times_us`.
    ///
    /// The head answers; a row that asks for a time before what the head holds for its key is answered from history,
    /// the same value at a higher price.
    ///
    /// # Errors
    /// `Kind::Unavailable` where a shared online store does not answer in time and a feature has no default. Where all
    /// have, they are the answer, and the status of each says so.
    pub async fn look_up(
        &self,
        live: &Arc<Compiled>,
        service: &Arc<ServicePlan>,
        inputs: RecordBatch,
        query_times_us: Vec<i64>,
    ) -> Result<Vectors> {
        let rows = inputs.num_rows();
        let span = stage!("look_up", quern.feature_service = service.name, quern.rows = rows);
        let (asked, found) = self.find(live, service, &inputs, query_times_us).instrument(span).await?;
        note_ages(service, &asked, &found);
        let _span = stage!("transform", quern.feature_service = service.name, quern.rows = rows).entered();
        let _timer = metrics().transform.start_timer();
        let times: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from(asked.query_times_us.clone()).with_timezone("UTC"));
        let mut failed = Failed::default();
        found.iter().for_each(|found| failed.join(&found.failed));
        let vectors = service.finish(&inputs, &times, &found, &mut failed)?;
        check_strict(&failed, &format!("feature service `{}`", service.name), |row| {
            format!("instance {row}")
        })?;
        metrics().note_failed(&service.name, &failed);
        Ok(Vectors { vectors, found, service: Arc::clone(service), failed })
    }

    /// What is stored of them, and what was asked.
    async fn find(
        &self,
        live: &Arc<Compiled>,
        service: &Arc<ServicePlan>,
        inputs: &RecordBatch,
        query_times_us: Vec<i64>,
    ) -> Result<(Arc<Asked>, Vec<Found>)> {
        let timer = metrics().look_up.start_timer();
        let (keys, excluded) = (encode_keys(service, inputs)?, excluded(service, inputs)?);
        let asked = Arc::new(Asked { keys, query_times_us, excluded });
        let here = asked.query_times_us.len() * asked.keys.len() <= KEYS_INLINE_MAX;
        let (mut found, past) = match &self.head {
            Online::Rocks(head) if here => from_rocks(head, service, &asked)?,
            Online::Rocks(head) => {
                let (head, service, asked) = (Arc::clone(head), Arc::clone(service), Arc::clone(&asked));
                blocking("look-up", move || from_rocks(&head, &service, &asked)).await?
            }
            // On the heap: what waits for the network takes a hundred kilobytes, which every look-up would carry along.
            Online::Redis(redis) => match Box::pin(from_redis(redis, service, &asked)).await {
                Ok((kept, stored)) if here => from_head(service, &asked, &kept, &stored)?,
                Ok((kept, stored)) => {
                    let (service, asked) = (Arc::clone(service), Arc::clone(&asked));
                    blocking("look-up", move || from_head(&service, &asked, &kept, &stored)).await?
                }
                Err(error) if error.kind() == Kind::Unavailable => fall_back(service, &asked, error)?,
                Err(error) => return Err(error),
            },
        };
        if past.iter().any(|rows| !rows.is_empty()) {
            if !self.history_fallback {
                return Err(Error::refused(
                    "a query time lies before what the online store holds, or an event is left out \
                     (`exclude_event`), and this server does not read history (`history_fallback: false`); ask for a \
                     later `event_timestamp`, and for all events",
                ));
            }
            let (history, live, service) = (Arc::clone(&self.history), Arc::clone(live), Arc::clone(service));
            let asked = Arc::clone(&asked);
            found =
                blocking("look-up", move || from_history(&history, &live, &service, &asked, found, &past))
                    .await?;
        }
        timer.observe_duration();
        Ok((asked, found))
    }
}

/// Observes how old the oldest row is that each look-up found.
fn note_ages(service: &ServicePlan, asked: &Asked, found: &[Found]) {
    for (lookup, found) in service.lookups.iter().zip(found) {
        let rows = found.states.iter().zip(&found.event_timestamps).zip(&asked.query_times_us);
        let ages = rows.filter(|((state, _), _)| state.has_row());
        if let Some(age_us) = ages.map(|((_, ts_us), q_us)| q_us.saturating_sub(*ts_us)).max() {
            metrics().feature_age.with_label_values(&[&lookup.view.name]).observe(age_us as f64 / 1e6);
        }
    }
}

/// The keys of each look-up, and the time that each row asks for.
struct Asked {
    keys: Vec<Keys>,
    query_times_us: Vec<i64>,
    excluded: Vec<AllExcluded>,
}

/// Of one look-up, where events are left out: for each row the one that does not count.
type AllExcluded = Option<Vec<Option<Excluded>>>;

/// The encoded keys of each look-up.
pub(crate) fn encode_keys(service: &ServicePlan, inputs: &RecordBatch) -> Result<Vec<Keys>> {
    let encode = |lookup: &Lookup| {
        let columns: Vec<ArrayRef> = lookup.keys.iter().map(|place| inputs.column(*place).clone()).collect();
        Ok(Keys::encode(&lookup.view.keys, &columns)?)
    };
    service.lookups.iter().map(encode).collect()
}

/// The events that each look-up leaves out.
pub(crate) fn excluded(service: &ServicePlan, inputs: &RecordBatch) -> Result<Vec<AllExcluded>> {
    let of = |lookup: &Lookup| {
        let columns = |places: &Vec<usize>| -> Vec<ArrayRef> {
            places.iter().map(|place| inputs.column(*place).clone()).collect()
        };
        Ok(lookup.exclude_event.as_ref().map(|places| windows::excluded(&columns(places))).transpose()?)
    };
    service.lookups.iter().map(of).collect()
}

/// What is kept of the events of each look-up's view.
type AllKept = Vec<Option<Arc<Kept>>>;

/// The keys of all look-ups, one look-up after the other.
fn wanted(service: &ServicePlan, Asked { keys, query_times_us, .. }: &Asked) -> Wanted {
    let mut wanted = Wanted::default();
    for (lookup, keys) in service.lookups.iter().zip(keys) {
        (0..query_times_us.len()).for_each(|row| wanted.push(lookup.view.id, keys.get(row)));
    }
    wanted
}

fn kept(service: &ServicePlan, kept: impl Fn(ViewId) -> Option<Arc<Kept>>) -> AllKept {
    let of = |lookup: &Lookup| lookup.view.windows.as_ref().and_then(|_| kept(lookup.view.id));
    service.lookups.iter().map(of).collect()
}

fn from_rocks(head: &Head, service: &ServicePlan, asked: &Asked) -> Result<(Vec<Found>, Vec<Vec<u32>>)> {
    let before = kept(service, |view| head.kept(view));
    let stored = head.get_many(&wanted(service, asked))?;
    let after = kept(service, |view| head.kept(view));
    let kept: AllKept =
        before.into_iter().zip(after).map(|(before, after)| kept_in_both(before, after)).collect();
    from_head(service, asked, &kept, &stored)
}

async fn from_redis(
    redis: &Redis,
    service: &ServicePlan,
    asked: &Asked,
) -> Result<(AllKept, Vec<Option<Vec<u8>>>)> {
    let has_windows = |lookup: &&Lookup| lookup.view.windows.is_some();
    let windows: Vec<ViewId> =
        service.lookups.iter().filter(has_windows).map(|lookup| lookup.view.id).collect();
    let answer = redis.look_up(&wanted(service, asked), &windows).await?;
    let kept = kept(service, |view| {
        let place = windows.iter().position(|known| *known == view)?;
        answer.kept[place].clone()
    });
    Ok((kept, answer.stored))
}

/// The defaults, where every feature has one.
fn fall_back(service: &ServicePlan, asked: &Asked, error: Error) -> Result<(Vec<Found>, Vec<Vec<u32>>)> {
    let fallen = service.lookups.iter().zip(&asked.keys).map(|(lookup, keys)| lookup.fall_back(keys));
    match fallen.collect::<std::result::Result<Option<Vec<_>>, _>>()? {
        Some(found) => Ok((found, vec![Vec::new(); service.lookups.len()])),
        None => Err(error),
    }
}

/// What the head says, and for each look-up the rows that it cannot answer.
fn from_head<S: Deref<Target = [u8]>>(
    service: &ServicePlan,
    Asked { keys, query_times_us, excluded }: &Asked,
    kept: &AllKept,
    stored: &[Option<S>],
) -> Result<(Vec<Found>, Vec<Vec<u32>>)> {
    let n = query_times_us.len();
    let (mut all_found, mut all_past) = (Vec::new(), Vec::new());
    for (i, lookup) in service.lookups.iter().enumerate() {
        let view = &lookup.view;
        let stored = &stored[i * n..(i + 1) * n];
        if let Some(windows) = &view.windows {
            let excluded = excluded[i].as_deref();
            let tiles = Tiles { kept: kept[i].clone(), stored, keys: &keys[i], excluded };
            let (found, past) = head::from_head(lookup, windows, tiles, query_times_us)?;
            all_found.push(found);
            all_past.push(past);
            continue;
        }
        let mut rows: Vec<Option<&[u8]>> = stored.iter().map(Option::as_deref).collect();
        let (mut states, mut event_timestamps) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let mut past = Vec::new();
        for (row, q_us) in rows.iter_mut().zip(query_times_us) {
            let (state, ts_us) = match row {
                None => (RowState::NotFound, 0),
                Some(bytes) => {
                    let ts_us = times(bytes)?.ts_us;
                    if visible_from(ts_us, view.lag_us) > last_us(*q_us, view.at) {
                        past.push(states.len() as u32);
                        (RowState::NotFound, 0)
                    } else {
                        (state_at(*q_us, ts_us, view.lag_us, view.ttl_us), ts_us)
                    }
                }
            };
            if state != RowState::Present {
                *row = None;
            }
            states.push(state);
            event_timestamps.push(ts_us);
        }
        let columns = view.codec.decode(&rows, &lookup.features)?;
        let (absent, failed) = (Vec::new(), Failed::default());
        all_found.push(Found { columns, states, event_timestamps, absent, failed });
        all_past.push(past);
    }
    Ok((all_found, all_past))
}

/// Fills in the rows `past` of each look-up from history.
fn from_history(
    history: &History,
    live: &Compiled,
    service: &ServicePlan,
    Asked { keys, query_times_us, excluded }: &Asked,
    mut found: Vec<Found>,
    past: &[Vec<u32>],
) -> Result<Vec<Found>> {
    let times_us = |rows: &[u32]| rows.iter().map(|row| query_times_us[*row as usize]).collect::<Vec<_>>();
    let excluded = |i: usize| -> AllExcluded {
        excluded[i].as_ref().map(|all| past[i].iter().map(|row| all[*row as usize]).collect())
    };
    let asked: Vec<(usize, Keys, Vec<i64>, AllExcluded)> = (0..past.len())
        .filter(|i| !past[*i].is_empty())
        .map(|i| (i, keys[i].pick(&past[i]), times_us(&past[i]), excluded(i)))
        .collect();
    let questions = asked.iter().map(|(i, keys, query_times_us, excluded)| Question {
        view: &service.lookups[*i].view,
        keys,
        query_times_us,
        excluded: excluded.as_deref(),
        features: &service.lookups[*i].features,
        as_known: false,
        expired: true,
    });
    let answers = ask(history, live, &questions.collect::<Vec<_>>())?;
    for ((i, ..), answer) in asked.iter().zip(answers) {
        let (rows, head) = (&past[*i], &mut found[*i]);
        let failed = service.lookups[*i].named(&answer.failed);
        head.failed.join(&failed.placed(|row| [rows[row as usize]]));
        head.failed.add(&failed.elsewhere());
        let answer = answer.found(0..rows.len())?;
        let mut places: Vec<(usize, usize)> = (0..query_times_us.len()).map(|row| (0, row)).collect();
        for (j, row) in rows.iter().enumerate() {
            let row = *row as usize;
            places[row] = (1, j);
            head.states[row] = answer.states[j];
            if let Some(ts_us) = answer.event_timestamps.get(j) {
                head.event_timestamps[row] = *ts_us;
            }
        }
        for (column, answer) in head.columns.iter_mut().zip(&answer.columns) {
            *column = interleave(&[column.as_ref(), answer.as_ref()], &places)?;
        }
    }
    Ok(found)
}
