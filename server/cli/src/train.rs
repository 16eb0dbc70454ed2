//! `quern train`: a spine file goes in, a training set comes out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::Args;
use futures::StreamExt;
use indicatif::ProgressBar;
use quern_access::Caller;
use quern_wire::{TableNotes, TrainingSetCommand};
use serde::Serialize;

use super::Options;
use super::backend::Backend;
use super::failure::Result;
use super::materialize::rate;
use super::output::{counted, print, print_json, warn};
use super::tables::{Form, Output, Table, bar};
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
    /// Where the training set goes, as Parquet or CSV.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
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
    rows: u64,
    columns: usize,
    seconds: f64,
    out: PathBuf,
    /// As in the notes of a training set.
    coinciding: BTreeMap<String, u64>,
    /// And this.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed: BTreeMap<String, u64>,
}

pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let start = Instant::now();
    let (directory, service) = directory_and(&arguments.words, "the feature service")?;
    Form::of(&arguments.out)?;
    let backend = Backend::open(&directory, options).await?;
    let known = inputs(&backend.catalogue().await?, &service);
    let table = Table::open("spine", &arguments.spine, &known)?;
    let schema = Arc::clone(&table.schema);
    let spine: Vec<RecordBatch> = table.batches.collect::<std::result::Result<_, _>>()?;
    let bar = bar(spine.iter().map(|batch| batch.num_rows() as u64).sum());
    let request = TrainingSetCommand { feature_service: service, as_known: arguments.as_known, received: 0 };
    let ((rows, columns), notes) = match backend {
        Backend::Here { node, .. } => {
            let (out, bar) = (arguments.out.clone(), bar.clone());
            let work = move || train_here(&node, &request, &schema, &spine, &out, bar);
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| Error::internal("training set", error))??
        }
        Backend::There(client) => {
            let spine = futures::stream::iter(spine);
            let mut set =
                client.training_set(&request.feature_service, schema, spine, request.as_known).await?;
            let mut out = Output::create(&arguments.out, set.schema(), bar.clone())?;
            while let Some(batch) = set.next().await {
                out.write(&batch?)?;
            }
            (out.finish(set.notes())?, set.notes().clone())
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    warn(&notes);
    let (seconds, out) = (start.elapsed().as_secs_f64(), arguments.out.clone());
    let TableNotes { coinciding, failed, .. } = notes;
    let trained = Trained { rows, columns, seconds, out, coinciding, failed };
    if arguments.json {
        print_json(&trained);
        return Ok(());
    }
    print(format!(
        "{} × {} in {:.1} s, {} rows/s: {}",
        counted(rows, "row"),
        counted(columns as u64, "column"),
        trained.seconds,
        rate(rows, trained.seconds),
        trained.out.display()
    ));
    Ok(())
}

fn train_here(
    node: &Node,
    request: &TrainingSetCommand,
    schema: &SchemaRef,
    spine: &[RecordBatch],
    out: &Path,
    bar: Option<ProgressBar>,
) -> Result<((u64, usize), TableNotes)> {
    let live = node.live();
    let set = node.train.training_set((&live, &Caller::owner()), request, (schema, spine), None)?;
    let mut out = Output::create(out, set.schema(), bar)?;
    let mut notes = TableNotes::default();
    // One thread makes the rows, this one writes them.
    let (sender, batches) = std::sync::mpsc::sync_channel(BATCHES_AHEAD);
    std::thread::scope(|scope| {
        scope.spawn(move || set.into_iter().try_for_each(|batch| sender.send(batch)));
        batches.into_iter().try_for_each(|batch| {
            let batch = batch?;
            notes.add(&batch.notes);
            out.write(&batch.rows)
        })
    })?;
    Ok((out.finish(&notes)?, notes))
}
