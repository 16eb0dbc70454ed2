//! What does one version say of these instances?

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use tracing::Instrument;

use super::Predict;
use super::target::{Part, Target};
use crate::error::Result;
use crate::live::LiveVersion;
use quern_base::stage;
use quern_features::Vectors;
use quern_inference::Limits;

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
}

/// Places as Arrow's kernels name them.
pub(super) fn indices(places: &[usize]) -> UInt32Array {
    places.iter().map(|place| *place as u32).collect()
}

impl Target {
    /// What the version at `place` says, and nothing else.
    pub(super) async fn answer(
        &self,
        verb: &Arc<Predict>,
        place: usize,
        instances: Instances,
        limits: Limits,
    ) -> Result<Part> {
        let (rows, vectors) = self.look_up(verb, place, instances).await?;
        let outputs = self.infer(&self.model.versions[place], &vectors.vectors, limits).await?;
        Ok(self.part(place, rows, Some(vectors), outputs))
    }

    /// What `version` makes of `vectors`.
    pub(super) async fn infer(
        &self,
        version: &LiveVersion,
        vectors: &RecordBatch,
        limits: Limits,
    ) -> Result<RecordBatch> {
        let span = stage!(
            "inference",
            quern.model = self.model.name,
            quern.version = version.version,
            quern.rows = vectors.num_rows(),
        );
        Ok(quern_inference::predict(&version.model, vectors, limits).instrument(span).await?.outputs)
    }

    /// The vectors of `instances` as the version at `place` gets them.
    pub(super) async fn look_up(
        &self,
        verb: &Arc<Predict>,
        place: usize,
        instances: Instances,
    ) -> Result<(Vec<usize>, Vectors)> {
        let Instances { rows, inputs, query_times_us } = instances;
        let inputs = match &self.model.reads[place] {
            // Who names a version brings what that one wants.
            Some(reads) if self.pinned.is_none() => inputs.project(reads)?,
            _ => inputs,
        };
        let service = &self.model.versions[place].service;
        Ok((rows, verb.reader.look_up(&self.live.compiled, service, inputs, query_times_us).await?))
    }

    /// What the version at `place` said of the instances `rows`.
    pub(super) fn part(
        &self,
        place: usize,
        rows: Vec<usize>,
        vectors: Option<Vectors>,
        outputs: RecordBatch,
    ) -> Part {
        let version = &self.model.versions[place];
        let served_by = version.version.clone();
        Part { rows, version: Arc::clone(version), served_by, reason: None, vectors, outputs }
    }
}
