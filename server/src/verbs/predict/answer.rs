//! What does one version say of these instances?

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use tracing::Instrument;

use super::Predict;
use super::target::{Part, Target};
use super::then::Then;
use crate::error::{Error, Kind, Result};
use crate::live::LiveVersion;
use crate::metrics::metrics;
use quern_base::memory::Part as Held;
use quern_base::stage;
use quern_engine::Misfit;
use quern_engine::size::row_bytes;
use quern_features::Vectors;
use quern_features::past::Rule;
use quern_inference::{Limits, Predictions};

/// How often, and for how long, a row of a batch asks for room where too many wait for the model.
const QUEUED_PAUSE: Duration = Duration::from_millis(50);
const QUEUED_MAX: Duration = Duration::from_secs(60);

/// Some instances of a request.
#[derive(Debug, Clone)]
pub(super) struct Instances {
    /// Their places in the request, ascending.
    pub(super) rows: Vec<usize>,
    /// Their keys and request columns: columns as [`Target::inputs`].
    pub(super) inputs: RecordBatch,
    /// The time that each asks for.
    pub(super) query_times_us: Vec<i64>,
}

impl Instances {
    pub(super) fn all(inputs: RecordBatch, query_times_us: Vec<i64>) -> Instances {
        Instances { rows: (0..query_times_us.len()).collect(), inputs, query_times_us }
    }

    /// Those at `places` among these.
    pub(super) fn pick(&self, places: &[usize]) -> Result<Instances> {
        if places.len() == self.rows.len() {
            return Ok(self.clone());
        }
        Ok(Instances {
            rows: places.iter().map(|place| self.rows[*place]).collect(),
            inputs: take_record_batch(&self.inputs, &indices(places))?,
            query_times_us: places.iter().map(|place| self.query_times_us[*place]).collect(),
        })
    }

    /// Those from one on.
    fn slice(&self, first: usize, count: usize) -> Instances {
        let places = first..first + count;
        Instances {
            rows: self.rows[places.clone()].to_vec(),
            inputs: self.inputs.slice(first, count),
            query_times_us: self.query_times_us[places].to_vec(),
        }
    }
}

/// Says what an error's `instance 7` is counted from, where these are some of many.
fn among(rows: &[usize], error: Error) -> Error {
    match (rows.first(), rows.last()) {
        (Some(first), Some(last)) if error.kind() == Kind::InvalidArgument => {
            error.told(|what| format!("instances {first} to {last}, counted from the first of them: {what}"))
        }
        _ => error,
    }
}

/// Whose turn it is, and for which instances.
pub(super) struct Turn {
    /// The version.
    pub(super) place: usize,
    pub(super) instances: Instances,
    /// Whether nothing may stand in for it.
    pub(super) alone: bool,
    /// Whether the vectors are wanted afterwards.
    pub(super) keeps: bool,
}

/// Where the vectors of instances come from.
#[derive(Clone, Copy)]
pub(super) enum Store<'a> {
    /// The head.
    Head(&'a Arc<Predict>),
    /// History, of whose table the instances are the rows from this one on.
    History(&'a Then, usize),
}

/// How long an answer may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) limits: Limits,
    /// How many rows are under way before it and with it, for a row of a batch: nobody waits for that alone, so each
    /// has the time of its own that a request would have. None for a request, for which somebody waits.
    pub(super) rows: Option<u32>,
}

impl Patience {
    /// The same with a time-out that begins now.
    pub(super) fn within(self, timeout: Option<Duration>) -> Patience {
        let time = timeout.map(|timeout| timeout.saturating_mul(self.rows.unwrap_or(1)));
        let until = time.and_then(|time| Instant::now().checked_add(time));
        let deadline = self.limits.deadline.into_iter().chain(until).min();
        Patience { limits: Limits { deadline, ..self.limits }, ..self }
    }
}

/// Places as Arrow's kernels name them.
pub(super) fn indices(places: &[usize]) -> UInt32Array {
    places.iter().map(|place| *place as u32).collect()
}

/// Until when memory is waited for that others will give back: rows of a batch do, and who waits for an answer is told.
#[derive(Clone, Copy)]
struct ForRoom(Option<Instant>);

impl ForRoom {
    fn of(patience: Patience) -> ForRoom {
        ForRoom(patience.rows.map(|_| Instant::now() + QUEUED_MAX))
    }

    /// Waits for a moment after this error; false where it is final.
    async fn again(self, error: &Error) -> bool {
        let in_time = self.0.is_some_and(|until| Instant::now() + QUEUED_PAUSE < until);
        if !in_time || error.kind() != Kind::Overloaded {
            return false;
        }
        tokio::time::sleep(QUEUED_PAUSE).await;
        true
    }
}

/// What `version` makes of rows of a batch, which come again rather than be turned away for want of room.
async fn in_its_turn(
    version: &LiveVersion,
    vectors: &RecordBatch,
    limits: Limits,
) -> quern_inference::Result<Predictions> {
    let until = limits.deadline.unwrap_or_else(|| Instant::now() + QUEUED_MAX);
    loop {
        match quern_inference::predict(&version.model, vectors, limits).await {
            Err(error) if error.kind() == Kind::Overloaded && Instant::now() + QUEUED_PAUSE < until => {
                tokio::time::sleep(QUEUED_PAUSE).await;
            }
            said => return said,
        }
    }
}

impl Target {
    /// What a version says, or stands in for it: of all instances, or of fewer at a time where together they are too
    /// large.
    pub(super) async fn answer_all(
        &self,
        store: Store<'_>,
        Turn { place, instances, alone, keeps }: Turn,
        patience: Patience,
    ) -> Result<Vec<Part>> {
        let all = instances.rows.len();
        let (mut first, mut most, mut parts) = (0, all, Vec::new());
        loop {
            let count = most.min(all - first);
            let some = if count == all { instances.clone() } else { instances.slice(first, count) };
            let said = match alone {
                false => self.answer_or_fall_back(store, place, some, patience).await,
                true => self.answer(store, place, some, patience).await.map(|part| vec![part]),
            };
            match said {
                Err(error) if error.kind() == Kind::TooLarge && count > 1 => most = count / 2,
                said if count == all => return said,
                said => {
                    let rows = &instances.rows[first..first + count];
                    for part in said.map_err(|error| among(rows, error))? {
                        parts.push(self.keep(part, patience, keeps)?);
                    }
                    first += count;
                    if first == all {
                        return Ok(parts);
                    }
                }
            }
        }
    }

    /// One of many parts, without what nobody asks for any more.
    fn keep(&self, part: Part, patience: Patience, keeps: bool) -> Result<Part> {
        let vectors = match part.vectors {
            Some(vectors) if !keeps => Some(vectors.without_values()?),
            vectors => vectors,
        };
        // Rows of a batch go on at once.
        if let (Some(room), None) = (&self.room, patience.rows) {
            room.take(row_bytes(&part.outputs))?;
        }
        Ok(Part { vectors, ..part })
    }

    /// Takes what vectors are while a model runs on them: here they are columns, in the model tensors.
    pub(super) async fn hold(&self, vectors: &Vectors, patience: Patience) -> Result<Option<Held>> {
        let Some(room) = &self.room else { return Ok(None) };
        let bytes = 2 * row_bytes(&vectors.vectors);
        let waits = ForRoom::of(patience);
        loop {
            match room.part(bytes).map_err(Error::from) {
                Err(error) if waits.again(&error).await => {}
                held => return Ok(Some(held?)),
            }
        }
    }

    /// What the version at `place` says, and nothing else.
    pub(super) async fn answer(
        &self,
        store: Store<'_>,
        place: usize,
        instances: Instances,
        patience: Patience,
    ) -> Result<Part> {
        let (rows, vectors) = self.look_up(store, place, instances, patience).await?;
        let _held = self.hold(&vectors, patience).await?;
        let said = self.infer_found(place, &vectors, patience).await?;
        Ok(self.part(place, rows, Some(vectors), said))
    }

    /// What the version at `place` makes of what was looked up for it. A value there that it cannot take is no fault of
    /// whoever asked, unless they brought it.
    pub(super) async fn infer_found(
        &self,
        place: usize,
        vectors: &Vectors,
        patience: Patience,
    ) -> Result<Predictions> {
        let version = &self.model.versions[place];
        let said = self.infer(version, &vectors.vectors, patience).await;
        said.map_err(|error| match error.facts::<Misfit>() {
            Some(misfit) if version.service.inputs.fields().find(&misfit.column).is_none() => {
                Error::broken(format!("model `{}`, version `{}`: {misfit}", self.model.name, version.version))
            }
            _ => error,
        })
    }

    /// What `version` makes of `vectors`.
    pub(super) async fn infer(
        &self,
        version: &LiveVersion,
        vectors: &RecordBatch,
        patience: Patience,
    ) -> Result<Predictions> {
        let span = stage!(
            "inference",
            quern.model = self.model.name,
            quern.version = version.version,
            quern.rows = vectors.num_rows(),
        );
        let limits = patience.limits;
        let said = async {
            match patience.rows {
                None => quern_inference::predict(&version.model, vectors, limits).await,
                Some(_) => Box::pin(in_its_turn(version, vectors, limits)).await,
            }
        };
        let begun = Instant::now();
        let said = said.instrument(span).await.map_err(Error::from);
        let failed = said.as_ref().err().map(|error| error.kind());
        metrics().count_asked([&self.model.name, &version.version], begun.elapsed(), failed);
        said.map_err(|error| match error.kind() {
            // Of a fault of its own the caller reads which one has it.
            Kind::Internal => error
                .told(|what| format!("model `{}`, version `{}`: {what}", self.model.name, version.version)),
            _ => error,
        })
    }

    /// What of `inputs`, columns as [`Target::inputs`], the version at `place` takes.
    pub(super) fn inputs_of(&self, place: usize, inputs: RecordBatch) -> Result<RecordBatch> {
        match &self.model.reads[place] {
            // Who names a version brings what that one wants.
            Some(reads) if self.pinned.is_none() => Ok(inputs.project(reads)?),
            _ => Ok(inputs),
        }
    }

    /// The vectors of `instances` as the version at `place` gets them.
    pub(super) async fn look_up(
        &self,
        store: Store<'_>,
        place: usize,
        instances: Instances,
        patience: Patience,
    ) -> Result<(Vec<usize>, Vectors)> {
        let Instances { rows, inputs, query_times_us } = instances;
        match store {
            Store::Head(verb) => {
                let inputs = self.inputs_of(place, inputs)?;
                let (live, service) = (&self.live.compiled, &self.model.versions[place].service);
                let waits = ForRoom::of(patience);
                let rule = Rule { unseen: self.tells_unseen(), room: self.room.as_ref(), ..Rule::default() };
                loop {
                    let (inputs, times) = (inputs.clone(), query_times_us.clone());
                    let found = verb.reader.look_up(live, service, inputs, times, rule).await;
                    match found.map_err(Error::from) {
                        Err(error) if waits.again(&error).await => {}
                        found => return Ok((rows, found?)),
                    }
                }
            }
            Store::History(then, first) => then.look_up(self, place, first, rows).await,
        }
    }

    /// What the version at `place` said of the instances `rows`.
    pub(super) fn part(
        &self,
        place: usize,
        rows: Vec<usize>,
        vectors: Option<Vectors>,
        said: impl Into<Predictions>,
    ) -> Part {
        let Predictions { outputs, asked } = said.into();
        let version = &self.model.versions[place];
        let served_by = version.version.clone();
        Part { rows, version: Arc::clone(version), served_by, reason: None, vectors, outputs, asked }
    }
}
