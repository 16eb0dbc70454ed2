//! `quern train`: a spine file goes in, a training set comes out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::Args;
use futures::StreamExt;
use quern_access::Caller;
use quern_wire::{ObjectReads, TableNotes, TrainingSetCommand, TrainingSetPin};
use serde::Serialize;

use super::Options;
use super::backend::Backend;
use super::failure::Result;
use super::out::{Output, Target, WriteMode, Writing, Written};
use super::output::{print, print_json, warn};
use super::tables::{Table, bar};
use super::words::{directory_and, inputs};
use crate::error::Error;
use quern_server::Node;

/// Batches made while one is written.
const BATCHES_AHEAD: usize = 2;

#[derive(Debug, Args)]
#[command(
    override_usage = "quern train [OPTIONS] --spine <FILE> --out <FILE> [DIR] <SERVICE>",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]      The repository (default: the nearest folder upwards with a quern.yaml)
  <SERVICE>  The feature service\n\n{all-args}"
)]
pub(super) struct Arguments {
    #[arg(required = true, num_args = 1..=2, hide = true, value_name = "SERVICE")]
    words: Vec<String>,
    /// The spine, Parquet or CSV: join keys, `event_timestamp`, request columns, and any others, which are carried
    /// through.
    #[arg(long, value_name = "FILE")]
    spine: PathBuf,
    /// Where the training set goes: a file, `.parquet` or `.csv`, the URL of one in a bucket, or a table's folder.
    #[arg(long, value_name = "FILE")]
    out: String,
    #[command(flatten)]
    writing: Writing,
    /// Leave rows out that became known after the query time.
    #[arg(long)]
    as_known: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Trained {
    #[serde(flatten)]
    written: Written,
    /// As in the notes of a training set.
    coinciding: BTreeMap<String, u64>,
    /// And this.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed: BTreeMap<String, u64>,
    /// And this.
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<ObjectReads>,
    /// And this, by which a model version remembers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pin: Option<Box<TrainingSetPin>>,
}

pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let (directory, service) = directory_and(&arguments.words, "the feature service")?;
    let settings = options.settings(&directory, &[])?;
    let target = Target::open(&arguments.out, arguments.writing, WriteMode::Overwrite, &settings).await?;
    let backend = Backend::open(&directory, options).await?;
    let known = inputs(&backend.live(&directory, "quern train DIR SERVICE").await?, &service);
    let table = Table::open("spine", &arguments.spine, &known)?;
    let schema = Arc::clone(&table.schema);
    let spine: Vec<RecordBatch> = table.batches.collect::<std::result::Result<_, _>>()?;
    let bar = bar(spine.iter().map(|batch| batch.num_rows() as u64).sum());
    let request = TrainingSetCommand { feature_service: service, as_known: arguments.as_known, received: 0 };
    let pull = Pull { request, schema, spine };
    let create = move |schema: &SchemaRef| Output::create(&target, schema, bar);
    let (out, notes) = pull.from(backend, create, Output::write).await?;
    let written = out.finish(&notes)?;
    warn(&notes);
    let TableNotes { coinciding, failed, read, pin, .. } = notes;
    let read = (read != ObjectReads::default()).then_some(read);
    let trained = Trained { written, coinciding, failed, read, pin };
    match arguments.json {
        true => print_json(&trained),
        false => print(trained.written),
    }
    Ok(())
}

/// A training set that is asked for.
pub(super) struct Pull {
    pub(super) request: TrainingSetCommand,
    pub(super) schema: SchemaRef,
    pub(super) spine: Vec<RecordBatch>,
}

impl Pull {
    /// Has `backend` make it: what `begin` makes of its schema takes the batches.
    pub(super) async fn from<Sink: Send + 'static>(
        self,
        backend: Backend,
        begin: impl FnOnce(&SchemaRef) -> Result<Sink> + Send + 'static,
        take: impl Fn(&mut Sink, &RecordBatch) -> Result<()> + Send + 'static,
    ) -> Result<(Sink, TableNotes)> {
        let client = match backend {
            Backend::There(client) => client,
            Backend::Here { node, .. } => {
                let work = tokio::task::spawn_blocking(move || self.here(&node, begin, take));
                return work.await.map_err(|error| Error::internal("training set", error))?;
            }
        };
        let Pull { request, schema, spine } = self;
        let spine = futures::stream::iter(spine);
        let mut set = client.training_set(&request.feature_service, schema, spine, request.as_known).await?;
        let mut sink = begin(set.schema())?;
        while let Some(batch) = set.next().await {
            take(&mut sink, &batch?)?;
        }
        Ok((sink, set.notes().clone()))
    }

    fn here<Sink>(
        &self,
        node: &Node,
        begin: impl FnOnce(&SchemaRef) -> Result<Sink>,
        take: impl Fn(&mut Sink, &RecordBatch) -> Result<()>,
    ) -> Result<(Sink, TableNotes)> {
        let (live, spine) = (node.live(), (&self.schema, &self.spine[..]));
        let set = node.train.training_set((&live, &Caller::owner()), &self.request, spine, None)?;
        let mut sink = begin(set.schema())?;
        let mut notes = TableNotes::default();
        // One thread makes the rows, this one takes them.
        let (sender, batches) = std::sync::mpsc::sync_channel(BATCHES_AHEAD);
        std::thread::scope(|scope| {
            scope.spawn(move || set.into_iter().try_for_each(|batch| sender.send(batch).map_err(drop)));
            batches.into_iter().try_for_each(|batch| {
                let batch = batch?;
                notes.add(&batch.notes);
                take(&mut sink, &batch.rows)
            })
        })?;
        Ok((sink, notes))
    }
}
