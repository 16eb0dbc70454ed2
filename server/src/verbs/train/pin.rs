//! What was a training set made of, and what came of it?

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use quern_engine::expr::functions_fingerprint;
use quern_engine::{ColumnDigest, ServicePlan};
use quern_features::past::Past;
use quern_wire::TrainingSetPin;

use crate::error::Result;
use crate::live::Deployment;
use crate::live::describe::{service_digest, view_digest};
use crate::pin::digest;

/// The pin of a training set, while that is made.
pub(super) struct Pinning {
    pin: TrainingSetPin,
    /// A digest for each column; none where the language does not have its values.
    columns: Vec<Option<ColumnDigest>>,
}

impl Pinning {
    /// Begins with what it is made of: what `live` says of `service`, and the sources as `past` found them.
    pub(super) fn begin(
        live: &Deployment,
        service: &ServicePlan,
        past: &Past,
        schema: &Schema,
        as_known: bool,
    ) -> Pinning {
        let mut made_of = BTreeMap::from([
            (format!("feature service {}", service.name), service_digest(live, &service.name)),
            ("functions".to_owned(), functions_fingerprint().to_owned()),
        ]);
        for view in service.lookups.iter().map(|lookup| &lookup.view.name) {
            made_of.insert(format!("feature view {view}"), view_digest(live, view));
        }
        let sources = past.sources.iter();
        made_of.extend(sources.map(|(source, state)| (format!("source {source}"), state.to_string())));
        let columns = schema.fields().iter().map(|field| ColumnDigest::new(field.data_type())).collect();
        Pinning { pin: TrainingSetPin { as_known, made_of, ..TrainingSetPin::default() }, columns }
    }

    /// Adds the next rows.
    pub(super) fn take(&mut self, rows: &RecordBatch) {
        self.pin.rows += rows.num_rows() as u64;
        for (digest, column) in self.columns.iter_mut().zip(rows.columns()) {
            // A spine may bring values that the language does not have, such as times of a picosecond.
            if digest.as_mut().is_some_and(|digest| digest.take(column).is_err()) {
                *digest = None;
            }
        }
    }

    /// The pin of all rows.
    pub(super) fn finish(&self, schema: &Schema) -> Result<TrainingSetPin> {
        let columns = schema.fields().iter().zip(&self.columns);
        // What has no name no definition can have.
        let columns = columns.filter(|(field, _)| !field.name().is_empty());
        let columns = columns.filter_map(|(field, digest)| {
            Some((field.name().clone(), format!("xxh3:{:032x}", digest.as_ref()?.finish())))
        });
        let mut pin = TrainingSetPin { columns: columns.collect(), ..self.pin.clone() };
        pin.digest = digest(&pin)?;
        Ok(pin)
    }
}
