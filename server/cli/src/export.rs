//! `quern export`: rows go out, as a table that others read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::Args;
use futures::StreamExt;
use quern::{Client, Rows};
use quern_access::Caller;
use quern_base::clock::now_us;
use quern_wire::{PredictionsCommand, SourceCommand, TableNotes, ViewCommand};
use serde::Serialize;

use super::Options;
use super::backend::Backend;
use super::failure::{Failure, Result};
use super::materialize::time_us;
use super::out::{Output, Stretch, Target, WriteMode, Writing, Written};
use super::output::{print, print_json, warn};
use super::tables::bar;
use super::words::{directory_and, repository};
use crate::error::Error;
use quern_server::{Node, NotedRows};

#[derive(Debug, Args)]
#[command(
    override_usage = "quern export [OPTIONS] --out <FILE> [DIR] <VIEW>
       quern export [OPTIONS] --out <FILE> [DIR] --source <SOURCE>
       quern export [OPTIONS] --out <FILE> [DIR] --predictions <MODEL>",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]   The repository (default: the nearest folder upwards with a quern.yaml)
  <VIEW>  The feature view\n\n{all-args}"
)]
pub(super) struct Arguments {
    #[arg(num_args = 0..=2, hide = true, value_name = "VIEW")]
    words: Vec<String>,
    /// Where the table goes: a file, `.parquet` or `.csv`, the URL of one in a bucket, or a table's folder.
    #[arg(long, value_name = "FILE")]
    out: String,
    #[command(flatten)]
    writing: Writing,
    /// Append rows wherever they begin: a table goes on where its rows end otherwise.
    #[arg(long, requires = "mode")]
    again: bool,
    /// Write the history of this source instead: files, and what was pushed, streamed and pulled.
    #[arg(long, value_name = "SOURCE", conflicts_with = "predictions")]
    source: Option<String>,
    /// Write what was logged of this model's predictions instead, with what came true of them.
    #[arg(long, value_name = "MODEL")]
    predictions: Option<String>,
    /// Only these features, in this order.
    #[arg(long, value_name = "FEATURE,…", value_delimiter = ',', conflicts_with_all = ["source", "predictions"])]
    features: Vec<String>,
    /// Rows of this event timestamp or a later one, such as 2013-01-31 or 2013-01-31T08:30:00Z; of predictions, when
    /// they were asked for.
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    from: Option<i64>,
    /// Rows before this time; what goes into a table ends by now.
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    to: Option<i64>,
    /// One row for each entity: what a look-up finds at one moment.
    #[arg(long, conflicts_with_all = ["from", "to", "source", "predictions"])]
    latest: bool,
    /// That moment (default: now).
    #[arg(long, value_name = "TIME", value_parser = time_us, requires = "latest")]
    at: Option<i64>,
    /// Only predictions that have a label.
    #[arg(long, requires = "predictions")]
    labelled: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Exported {
    #[serde(flatten)]
    written: Written,
    /// Of how many rows each feature is null because it could not be computed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed: BTreeMap<String, u64>,
}

pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let (directory, mut asked) = Asked::of(arguments)?;
    let settings = options.settings(&directory, &[])?;
    let mut target = Target::open(&arguments.out, arguments.writing, WriteMode::Error, &settings).await?;
    match &mut asked {
        // What is of one moment counts for itself.
        Asked::View(ViewCommand { view, latest: true, .. }) => target.forget(format!("view/{view}")),
        asked => target.follow(asked.stretch(), arguments.again)?,
    }
    let backend = Backend::open(&directory, options).await?;
    backend.live(&directory, "quern export DIR VIEW").await?;
    let bar = bar(0);
    let create = move |schema: &SchemaRef| Output::create(&target, schema, bar);
    let (out, notes) = asked.from(backend, create, Output::write).await?;
    let written = out.finish(&notes)?;
    warn(&notes);
    let exported = Exported { written, failed: notes.failed };
    match arguments.json {
        true => print_json(&exported),
        false => print(exported.written),
    }
    Ok(())
}

/// Whose rows are asked for.
enum Asked {
    View(ViewCommand),
    Source(SourceCommand),
    Predictions(PredictionsCommand),
}

/// Batches that are made in this process.
type Batches = Box<dyn Iterator<Item = quern_server::Result<NotedRows>>>;

impl Asked {
    /// The repository, and what is asked of it.
    fn of(arguments: &Arguments) -> Result<(PathBuf, Asked)> {
        let Arguments { words, features, from, to, latest, at, labelled, .. } = arguments;
        let (from_us, to_us) = (*from, *to);
        if from_us.zip(to_us).is_some_and(|(from_us, to_us)| from_us > to_us) {
            return Err(Failure::Usage("`--from` is after `--to`: no row is between them".to_owned()));
        }
        let asked = match (&arguments.source, &arguments.predictions) {
            (None, None) => {
                let (directory, view) = directory_and(words, "the feature view")?;
                let at_us = latest.then(|| at.unwrap_or_else(now_us));
                let (features, latest) = (features.clone(), *latest);
                let command = ViewCommand { view, features, from_us, to_us, latest, at_us, received: 0 };
                return Ok((directory, Asked::View(command)));
            }
            (Some(source), _) => {
                Asked::Source(SourceCommand { source: source.clone(), from_us, to_us, received: 0 })
            }
            (None, Some(model)) => {
                let (predictions, labelled) = (model.clone(), *labelled);
                Asked::Predictions(PredictionsCommand { predictions, from_us, to_us, labelled, received: 0 })
            }
        };
        match &words[..] {
            [] => Ok((repository(None), asked)),
            [other] if !Path::new(other).is_dir() => Err(Failure::Usage(format!(
                "`{other}` is no folder; name either a feature view or whose rows by the option"
            ))),
            [directory] => Ok((repository(Some(directory.as_ref())), asked)),
            [_, other, ..] => Err(Failure::Usage(format!(
                "`{other}` is one name too many: whose rows is said by the option"
            ))),
        }
    }

    /// Which rows these are.
    fn stretch(&mut self) -> Stretch<'_> {
        let (of, from_us, to_us) = match self {
            Asked::View(ViewCommand { view, from_us, to_us, .. }) => (format!("view/{view}"), from_us, to_us),
            Asked::Source(SourceCommand { source, from_us, to_us, .. }) => {
                (format!("source/{source}"), from_us, to_us)
            }
            Asked::Predictions(PredictionsCommand { predictions, from_us, to_us, .. }) => {
                (format!("predictions/{predictions}"), from_us, to_us)
            }
        };
        Stretch { of, from_us, to_us }
    }

    /// Has `backend` make the table: what `begin` makes of its schema takes the batches.
    async fn from<Sink: Send + 'static>(
        self,
        backend: Backend,
        begin: impl FnOnce(&SchemaRef) -> Result<Sink> + Send + 'static,
        take: impl Fn(&mut Sink, &RecordBatch) -> Result<()> + Send + 'static,
    ) -> Result<(Sink, TableNotes)> {
        let model = match &self {
            Asked::Predictions(command) => command.predictions.clone(),
            _ => String::new(),
        };
        let nothing = move |schema: &SchemaRef| match schema.fields().is_empty() {
            true => Err(Error::not_found(format!(
                "nothing is logged of model `{model}` in that time; a model keeps a log with `log: {{sample: 1}}`"
            ))),
            false => Ok(()),
        };
        let client = match backend {
            Backend::There(client) => client,
            Backend::Here { node, .. } => {
                node.predictions.flush().await;
                let work = tokio::task::spawn_blocking(move || {
                    let (schema, batches) = self.here(&node)?;
                    nothing(&schema)?;
                    let (mut sink, mut notes) = (begin(&schema)?, TableNotes::default());
                    for batch in batches {
                        let batch = batch?;
                        notes.add(&batch.notes);
                        take(&mut sink, &batch.rows)?;
                    }
                    Ok((sink, notes))
                });
                return work.await.map_err(|error| Error::internal("export", error))?;
            }
        };
        let mut rows = self.there(&client).await?;
        nothing(rows.schema())?;
        let mut sink = begin(rows.schema())?;
        while let Some(batch) = rows.next().await {
            take(&mut sink, &batch?)?;
        }
        Ok((sink, rows.notes().clone()))
    }

    fn here(&self, node: &Arc<Node>) -> Result<(SchemaRef, Batches)> {
        let (live, who) = (node.live(), Caller::owner());
        let exported = match self {
            Asked::View(command) => node.export.view((&live, &who), command, (now_us(), None))?,
            Asked::Source(command) => node.export.source((&live, &who), command)?,
            Asked::Predictions(command) => {
                let joined = node.joined(&who, command)?;
                let schema = Arc::clone(joined.schema());
                return Ok((schema, Box::new(joined.map(|rows| rows.map(NotedRows::from)))));
            }
        };
        Ok((Arc::clone(exported.schema()), Box::new(exported)))
    }

    async fn there(&self, client: &Client) -> Result<Rows> {
        Ok(match self {
            Asked::View(command) => client.export(command).await?,
            Asked::Source(command) => client.export_source(command).await?,
            Asked::Predictions(command) => client.predictions(command).await?,
        })
    }
}
