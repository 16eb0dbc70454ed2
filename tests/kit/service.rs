//! Which vectors does a feature service have, and what does a model say of them?

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use futures::{TryStreamExt, stream};
use quern::wire::{TableNotes, TrainingSetCommand};
use quern_access::Caller;
use quern_engine::ServicePlan;
use quern_engine::key::Keys;
use quern_features::Vectors;
use quern_features::past::Rule;
use quern_inference::Limits;
use quern_server::verbs::predict::batch::{Batch, When};
use quern_server::verbs::predict::{Ask, Given, Priority, Target};
use quern_server::verbs::train::TrainingSet;
use quern_server::{Deployment, NotedRows};
use quern_store::rocks::Wanted;
use tokio::task::block_in_place;

use crate::{Node, Result};

/// A feature service, as one apply made it live.
pub struct Service {
    pub(crate) node: Node,
    pub(crate) live: Arc<Deployment>,
    pub(crate) plan: Arc<ServicePlan>,
}

impl Service {
    /// Returns its compiled plan.
    pub fn plan(&self) -> &Arc<ServicePlan> {
        &self.plan
    }

    /// Returns the columns of its vectors.
    pub fn outputs(&self) -> &SchemaRef {
        &self.plan.outputs
    }

    /// Makes a batch of its join keys and request columns.
    pub fn inputs(&self, columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_new(Arc::clone(&self.plan.inputs), columns).unwrap()
    }

    /// Looks up the vectors of `inputs` at these query times (µs).
    ///
    /// # Errors
    /// Where an online store does not answer and a feature has no default.
    pub async fn look_up(&self, inputs: RecordBatch, query_times_us: Vec<i64>) -> Result<Vectors> {
        let (reader, rule) = (&self.node.inner.reader, Rule { unseen: true, ..Rule::default() });
        Ok(reader.look_up(&self.live.compiled, &self.plan, inputs, query_times_us, rule).await?)
    }

    /// Makes the training set of `spine`.
    pub fn training_set(&self, spine: &RecordBatch, as_known: bool) -> RecordBatch {
        self.training_set_and_notes(spine, as_known).0
    }

    /// Makes the training set of `spine`, and says what else there is to say of it.
    pub fn training_set_and_notes(&self, spine: &RecordBatch, as_known: bool) -> (RecordBatch, TableNotes) {
        noted(self.train(spine, as_known)).unwrap()
    }

    /// Makes the training set of `spine`, batch by batch.
    pub fn training_batches(&self, spine: &RecordBatch, as_known: bool) -> impl Iterator<Item = RecordBatch> {
        self.train(spine, as_known).map(|batch| batch.unwrap().rows)
    }

    /// The same.
    ///
    /// # Errors
    /// What is wrong with the files that it is made of.
    pub fn try_training_set(&self, spine: &RecordBatch) -> Result<(RecordBatch, TableNotes)> {
        noted(self.try_train(spine, false)?)
    }

    fn train(&self, spine: &RecordBatch, as_known: bool) -> TrainingSet {
        self.try_train(spine, as_known).unwrap()
    }

    fn try_train(&self, spine: &RecordBatch, as_known: bool) -> quern_server::Result<TrainingSet> {
        let command = TrainingSetCommand { feature_service: self.plan.name.clone(), as_known, received: 0 };
        let (schema, spine) = (spine.schema(), std::slice::from_ref(spine));
        block_in_place(|| {
            self.node.inner.train.training_set(
                (&self.live, &Caller::owner()),
                &command,
                (&schema, spine),
                None,
            )
        })
    }

    /// Reads what the online store has for these join keys: of each view those of all keys, view after view.
    pub fn stored(&self, keys: &[ArrayRef]) -> Vec<Option<Vec<u8>>> {
        let mut wanted = Wanted::default();
        for lookup in &self.plan.lookups {
            let keys = Keys::encode(&lookup.view.keys, keys).unwrap();
            (0..keys.len()).for_each(|row| wanted.push(lookup.view.id, keys.get(row)));
        }
        let stored = self.node.head().get_many(&wanted).unwrap();
        stored.into_iter().map(|row| row.map(|row| row.to_vec())).collect()
    }
}

/// All of a training set, and what else there is to say of it.
fn noted(set: TrainingSet) -> Result<(RecordBatch, TableNotes)> {
    let (schema, mut notes) = (Arc::clone(set.schema()), TableNotes::default());
    let batch = |batch: quern_server::Result<NotedRows>| {
        let batch = batch?;
        notes.add(&batch.notes);
        Ok(batch.rows)
    };
    let batches: Vec<RecordBatch> = set.map(batch).collect::<Result<_>>()?;
    Ok((concat_batches(&schema, &batches).unwrap(), notes))
}

/// A model, as one apply made it live.
pub struct Model {
    node: Node,
    target: Target,
}

impl Model {
    pub(crate) fn find(node: &Node, name: &str) -> Model {
        Model { node: node.clone(), target: node.inner.predict.target(&Caller::owner(), name, None).unwrap() }
    }

    /// Returns the feature service of the version that answers most.
    pub fn service(&self) -> Service {
        let (node, live) = (self.node.clone(), Arc::clone(self.target.live()));
        Service { node, live, plan: Arc::clone(&self.target.version().service) }
    }

    /// Answers a request: `columns` are join keys and request columns, one query time (µs) for each row.
    pub async fn predict(
        &self,
        request_id: &str,
        columns: Vec<ArrayRef>,
        query_times_us: Vec<i64>,
    ) -> RecordBatch {
        let inputs = RecordBatch::try_new(Arc::clone(self.target.inputs().schema), columns).unwrap();
        let ask = Ask {
            given: Given::Entities { inputs, query_times_us, timed: true },
            request_id: request_id.to_owned(),
            deadline: None,
            priority: Priority::Interactive,
        };
        self.target.predict(&self.node.inner.predict, ask).await.unwrap().outputs
    }

    /// Answers a table that comes in parts: its columns, then the model's outputs.
    pub async fn predict_table(
        self,
        schema: &SchemaRef,
        parts: Vec<RecordBatch>,
        when: When,
    ) -> (RecordBatch, TableNotes) {
        let batch = Batch::new(self.target, schema, when == When::AsOf).unwrap();
        let schema = Arc::clone(batch.schema());
        let parts = stream::iter(parts.into_iter().map(Ok));
        let answers: Vec<NotedRows> =
            batch.answers(&self.node.inner.predict, parts, when).try_collect().await.unwrap();
        let mut notes = TableNotes::default();
        answers.iter().for_each(|batch| notes.add(&batch.notes));
        (concat_batches(&schema, answers.iter().map(|batch| &batch.rows)).unwrap(), notes)
    }

    /// Runs the version that answers most on whole vectors.
    ///
    /// # Errors
    /// Those of the model.
    pub async fn run(&self, vectors: &RecordBatch) -> Result<RecordBatch> {
        Ok(quern_inference::predict(&self.target.version().model, vectors, Limits::default()).await?.outputs)
    }
}

/// Opens a session on an ONNX file, set up as those of every model, for who runs it past Quern.
pub fn onnx_session(onnx: &[u8]) -> ort::session::Session {
    quern_inference::Runtime::load(None).unwrap().session(onnx).unwrap().0
}
