//! Which vectors do these entities have? Join keys and request columns in, feature vectors out.

use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::interleave;
use quern_base::memory::Lease;
use quern_base::stage;
use quern_base::tasks::blocking;
use quern_engine::key::Keys;
use quern_engine::row::times;
use quern_engine::size::{check_together, row_bytes};
use quern_engine::time::{last_us, state_at, visible_from};
use quern_engine::windows::Kept;
use quern_engine::{Failed, Found, Lookup, RowState, ServicePlan, ViewId};
use quern_store::history::History;
use quern_store::online::Online;
use quern_store::redis::Redis;
use quern_store::rocks::Head;
use tracing::Instrument;

use crate::as_of::{Question, ask};
use crate::asked::{AllExcluded, Asked};
use crate::compiled::Compiled;
use crate::error::{Error, Kind, Result, check_strict};
use crate::metrics::metrics;
use crate::past::Rule;
use crate::vectors::{Vectors, together, told};
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
    /// have, they are the answer, and the status of each says so. `Kind::TooLarge` where fewer rows may do, by what may
    /// be held together or by `room`.
    pub async fn look_up(
        &self,
        live: &Arc<Compiled>,
        service: &Arc<ServicePlan>,
        inputs: RecordBatch,
        query_times_us: Vec<i64>,
        rule: Rule<'_>,
    ) -> Result<Vectors> {
        let rows = inputs.num_rows();
        let held = rule.room.map(|room| room.part(0)).transpose()?.map(Arc::new);
        let span = stage!("look_up", quern.feature_service = service.name, quern.rows = rows);
        let mut asked = Asked::new(service, &inputs, query_times_us, held.clone())?;
        asked.unseen = rule.unseen;
        let asked = Arc::new(asked);
        let found = self.find(live, service, &asked).instrument(span).await?;
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
        // What was found has become a part of them.
        held.as_ref().map_or(Ok(()), |held| held.hold(row_bytes(&vectors)))?;
        Ok(Vectors { vectors, found: told(found), service: Arc::clone(service), failed, held })
    }

    /// Looks up all rows for a reply that shows them all: fewer at a time where together they are too large.
    ///
    /// # Errors
    /// As [`Reader::look_up`]; `Kind::TooLarge` where `room` does not hold them all.
    pub async fn look_up_all(
        &self,
        live: &Arc<Compiled>,
        service: &Arc<ServicePlan>,
        (inputs, query_times_us): (RecordBatch, Vec<i64>),
        room: &Arc<Lease>,
    ) -> Result<Vectors> {
        let all = inputs.num_rows();
        let rule = Rule { room: Some(room), ..Rule::default() };
        let (mut first, mut most, mut parts) = (0, all, Vec::with_capacity(1));
        while parts.is_empty() || first < all {
            let rows = most.min(all - first);
            let (some, times) = (inputs.slice(first, rows), query_times_us[first..first + rows].to_vec());
            match self.look_up(live, service, some, times, rule).await {
                Err(error) if error.kind() == Kind::TooLarge && rows > 1 => most = rows / 2,
                said if rows == all => return said,
                said => {
                    parts.push(said.map_err(|error| among(first, rows, error))?);
                    first += rows;
                }
            }
        }
        together(&parts, room)
    }

    /// What is stored of what is asked.
    async fn find(
        &self,
        live: &Arc<Compiled>,
        service: &Arc<ServicePlan>,
        asked: &Arc<Asked>,
    ) -> Result<Vec<Found>> {
        let timer = metrics().look_up.start_timer();
        let here = asked.query_times_us.len() * asked.keys.len() <= KEYS_INLINE_MAX;
        let (mut found, past) = match &self.head {
            Online::Rocks(head) if here => from_rocks(head, service, asked)?,
            Online::Rocks(head) => {
                let (head, service, asked) = (Arc::clone(head), Arc::clone(service), Arc::clone(asked));
                blocking("look-up", move || from_rocks(&head, &service, &asked)).await?
            }
            // On the heap: what waits for the network takes a hundred kilobytes, which every look-up would carry along.
            Online::Redis(redis, _) => match Box::pin(from_redis(redis, service, asked)).await {
                Ok((kept, stored)) if here => from_head(service, asked, &kept, &stored)?,
                Ok((kept, stored)) => {
                    let (service, asked) = (Arc::clone(service), Arc::clone(asked));
                    blocking("look-up", move || from_head(&service, &asked, &kept, &stored)).await?
                }
                Err(error) if error.kind() == Kind::Unavailable => fall_back(service, asked, error)?,
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
            let asked = Arc::clone(asked);
            found =
                blocking("look-up", move || from_history(&history, &live, &service, &asked, found, &past))
                    .await?;
        }
        timer.observe_duration();
        Ok(found)
    }
}

/// Says what an error's `instance 7` is counted from, where these rows are some of many.
fn among(first: usize, rows: usize, error: Error) -> Error {
    let last = first + rows - 1;
    match error.kind() {
        Kind::InvalidArgument => {
            error.told(|what| format!("instances {first} to {last}, counted from the first of them: {what}"))
        }
        _ => error,
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

/// What is kept of the events of each look-up's view.
type AllKept = Vec<Option<Arc<Kept>>>;

fn kept(service: &ServicePlan, kept: impl Fn(ViewId) -> Option<Arc<Kept>>) -> AllKept {
    let of = |lookup: &Lookup| lookup.view.windows.as_ref().and_then(|_| kept(lookup.view.id));
    service.lookups.iter().map(of).collect()
}

fn from_rocks(head: &Head, service: &ServicePlan, asked: &Asked) -> Result<(Vec<Found>, Vec<Vec<u32>>)> {
    let before = kept(service, |view| head.kept(view));
    let (rows, mut bytes) = (asked.query_times_us.len(), 0);
    let mut stored = Vec::with_capacity(asked.wanted.len());
    for some in asked.wanted.in_parts(KEYS_INLINE_MAX) {
        let found = head.get_many(&some)?;
        bytes += found.iter().flatten().map(|row| row.len()).sum::<usize>();
        check_together(rows, bytes)?;
        stored.extend(found);
    }
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
    let answer = redis.look_up(&asked.wanted, &windows).await?;
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
    asked: &Asked,
    kept: &AllKept,
    stored: &[Option<S>],
) -> Result<(Vec<Found>, Vec<Vec<u32>>)> {
    let Asked { keys, query_times_us, excluded, .. } = asked;
    let n = query_times_us.len();
    asked.take_found(stored)?;
    let (mut all_found, mut all_past) = (Vec::new(), Vec::new());
    for (i, lookup) in service.lookups.iter().enumerate() {
        let view = &lookup.view;
        let mut rows = asked.found(i, stored);
        if let Some(windows) = &view.windows {
            let excluded = excluded[i].as_deref();
            let tiles = Tiles { kept: kept[i].clone(), stored: rows, keys: &keys[i], excluded };
            let (found, past) = head::from_head(lookup, windows, tiles, query_times_us)?;
            all_found.push(found);
            all_past.push(past);
            continue;
        }
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
    Asked { keys, query_times_us, excluded, unseen, .. }: &Asked,
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
        unseen: *unseen && past[*i].iter().any(|row| found[*i].states[*row as usize] == RowState::Unseen),
        room: None,
    });
    let (answers, ..) = ask(history, live, &questions.collect::<Vec<_>>())?;
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
