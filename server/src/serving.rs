//! Which vectors do these entities have? Join keys and request columns in, feature vectors out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::interleave;
use quern_engine::key::Keys;
use quern_engine::row::times;
use quern_engine::time::{state_at, visible_from};
use quern_engine::{Found, Lookup, Origin, RowState, ServicePlan, Status};

use crate::error::{Error, Result};
use crate::metrics::metrics;
use crate::point_in_time::{Question, ask};
use crate::store::rocks::Wanted;
use crate::{Deployment, Quern};

/// So many keys are looked up right where the request is; more could keep the async runtime waiting for the disk.
const KEYS_INLINE_MAX: usize = 512;

/// Feature vectors and what is known of each value.
pub struct Vectors {
    /// A row for each instance; columns are the service's outputs.
    pub vectors: RecordBatch,
    /// What each look-up found.
    pub found: Vec<Found>,
    /// The service they belong to.
    pub service: Arc<ServicePlan>,
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
                let found_row = found.states[row] != RowState::NotFound;
                found_row.then(|| found.event_timestamps.get(row).copied()).flatten()
            }
            Origin::Input(_) | Origin::Derived => None,
        }
    }
}

/// Looks up `inputs` (columns as in [`ServicePlan::inputs`]) at `query_times_us`.
///
/// The head answers; a row that asks for a time before what the head holds for its key is answered from history, the
/// same value at a higher price.
pub async fn look_up(
    quern: &Arc<Quern>,
    live: &Arc<Deployment>,
    service: &Arc<ServicePlan>,
    inputs: RecordBatch,
    query_times_us: Vec<i64>,
) -> Result<Vectors> {
    let timer = metrics().look_up.start_timer();
    let asked = Arc::new(Asked { keys: encode_keys(service, &inputs)?, query_times_us });
    let here = asked.query_times_us.len() * asked.keys.len() <= KEYS_INLINE_MAX;
    let (mut found, past) = if here {
        from_head(quern, service, &asked)?
    } else {
        let (quern, service, asked) = (Arc::clone(quern), Arc::clone(service), Arc::clone(&asked));
        blocking(move || from_head(&quern, &service, &asked)).await?
    };
    if past.iter().any(|rows| !rows.is_empty()) {
        if !quern.settings.history_fallback {
            return Err(Error::Refused(
                "a query time lies before what the online store holds, and this server does not read history \
                 (`history_fallback: false`); ask for a later `event_timestamp`"
                    .into(),
            ));
        }
        let (quern, live, service) = (Arc::clone(quern), Arc::clone(live), Arc::clone(service));
        let asked = Arc::clone(&asked);
        found = blocking(move || from_history(&quern, &live, &service, &asked, found, &past)).await?;
    }
    timer.observe_duration();
    let _timer = metrics().transform.start_timer();
    let times: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from(asked.query_times_us.clone()).with_timezone("UTC"));
    let vectors = service.finish(&inputs, &times, &found)?;
    Ok(Vectors { vectors, found, service: Arc::clone(service) })
}

/// Runs what may take long on a thread that may block: the async runtime is for those who wait.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(job).await.map_err(|e| Error::internal("look-up", e))?
}

/// The keys of each look-up, and the time that each row asks for.
struct Asked {
    keys: Vec<Keys>,
    query_times_us: Vec<i64>,
}

/// The encoded keys of each look-up.
pub(crate) fn encode_keys(service: &ServicePlan, inputs: &RecordBatch) -> Result<Vec<Keys>> {
    let encode = |lookup: &Lookup| {
        let columns: Vec<ArrayRef> = lookup.keys.iter().map(|place| inputs.column(*place).clone()).collect();
        Ok(Keys::encode(&lookup.view.keys, &columns)?)
    };
    service.lookups.iter().map(encode).collect()
}

/// What the head says, and for each look-up the rows that it cannot answer.
fn from_head(
    quern: &Quern,
    service: &ServicePlan,
    Asked { keys, query_times_us }: &Asked,
) -> Result<(Vec<Found>, Vec<Vec<u32>>)> {
    let n = query_times_us.len();
    let mut wanted = Wanted::default();
    for (lookup, keys) in service.lookups.iter().zip(keys) {
        (0..n).for_each(|row| wanted.push(lookup.view.id, keys.get(row)));
    }
    let stored = quern.head.get_many(&wanted)?;
    let (mut all_found, mut all_past) = (Vec::new(), Vec::new());
    for (i, lookup) in service.lookups.iter().enumerate() {
        let view = &lookup.view;
        let stored = &stored[i * n..(i + 1) * n];
        if let Some(windows) = &view.windows {
            let (found, past) =
                crate::windows::from_head(quern, lookup, windows, stored, &keys[i], query_times_us)?;
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
                    if visible_from(ts_us, view.lag_us) > *q_us {
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
        all_found.push(Found { columns, states, event_timestamps, absent: Vec::new() });
        all_past.push(past);
    }
    Ok((all_found, all_past))
}

/// Fills in the rows `past` of each look-up from history.
fn from_history(
    quern: &Quern,
    live: &Deployment,
    service: &ServicePlan,
    Asked { keys, query_times_us }: &Asked,
    mut found: Vec<Found>,
    past: &[Vec<u32>],
) -> Result<Vec<Found>> {
    let times_us = |rows: &[u32]| rows.iter().map(|row| query_times_us[*row as usize]).collect::<Vec<_>>();
    let asked: Vec<(usize, Keys, Vec<i64>)> = (0..past.len())
        .filter(|i| !past[*i].is_empty())
        .map(|i| (i, keys[i].pick(&past[i]), times_us(&past[i])))
        .collect();
    let questions = asked.iter().map(|(i, keys, query_times_us)| Question {
        view: &service.lookups[*i].view,
        keys,
        query_times_us,
        features: &service.lookups[*i].features,
        as_known: false,
        expired: true,
    });
    let answers = ask(quern, live, &questions.collect::<Vec<_>>())?;
    for ((i, ..), answer) in asked.iter().zip(answers) {
        let (rows, head) = (&past[*i], &mut found[*i]);
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
