//! `quern predict --entities`: a file of rows goes in, and comes out with the model's outputs appended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use quern::Client;
use quern_access::Caller;
use quern_wire::{BatchCommand, FALLBACK_CAUSE, SERVED_BY, TableNotes};
use serde::Serialize;

use super::Options;
use super::backend::Backend;
use super::failure::Result;
use super::out::{Output, Target, Written};
use super::output::{print, print_json, thousands, warn};
use super::tables::{Table, bar};
use super::words::inputs_of_model;
use crate::error::Error;
use quern_base::Failure;
use quern_server::Node;
use quern_server::verbs::predict::batch::{Batch, When};

/// What came out.
#[derive(Debug, Serialize)]
struct Predicted {
    #[serde(flatten)]
    written: Written,
    /// How many rows each answered, where it may be one or another.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    served_by: BTreeMap<String, u64>,
    /// How many rows were left to a substitute, by cause.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fallbacks: BTreeMap<String, u64>,
    /// Of how many rows each feature is null because it could not be computed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed: BTreeMap<String, u64>,
}

/// What is asked about a whole table.
pub(super) struct Arguments<'a> {
    pub(super) entities: &'a Path,
    pub(super) out: &'a Path,
    pub(super) model: &'a str,
    pub(super) version: Option<&'a str>,
    pub(super) as_of: bool,
    pub(super) json: bool,
}

pub(super) async fn run(arguments: &Arguments<'_>, directory: &Path, options: &Options) -> Result<()> {
    let Arguments { entities, model, version, json, .. } = *arguments;
    let target = Target::file(arguments.out)?;
    let backend = Backend::open(directory, options).await?;
    let known = inputs_of_model(&backend.catalogue().await?, model, version);
    let table = Table::open("table", entities, &known)?;
    let bar = bar(table.rows);
    let (written, who, notes) = match backend {
        Backend::Here { node, .. } => here(&node, arguments, table, (&target, bar)).await?,
        Backend::There(client) => there(&client, arguments, table, (&target, bar)).await?,
    };
    warn(&notes);
    let Who { served_by, fallbacks } = who;
    let predicted = Predicted { written, served_by, fallbacks, failed: notes.failed };
    if json {
        print_json(&predicted);
        return Ok(());
    }
    print(&predicted.written);
    let counted = |counts: &BTreeMap<String, u64>| {
        let counts = counts.iter().map(|(name, rows)| format!("{name}: {}", thousands(*rows)));
        counts.collect::<Vec<_>>().join(", ")
    };
    if !predicted.served_by.is_empty() {
        print(format!("answered by {}", counted(&predicted.served_by)));
    }
    if !predicted.fallbacks.is_empty() {
        print(format!("left to a substitute for {}", counted(&predicted.fallbacks)));
    }
    Ok(())
}

/// What was written, who answered them, and what else there is to say.
type Done = (Written, Who, TableNotes);

async fn here(
    node: &Arc<Node>,
    arguments: &Arguments<'_>,
    table: Table,
    (to, bar): (&Target, Option<ProgressBar>),
) -> Result<Done> {
    let target = node.predict.target(&Caller::owner(), arguments.model, arguments.version)?;
    let batch = Batch::new(target, &table.schema, arguments.as_of)?;
    let when = if arguments.as_of { When::AsOf } else { When::Now };
    let mut out = Output::create(to, batch.schema(), bar)?;
    let rows = table.batches.map(|batch| batch.map_err(|error| Failure::from(error).into()));
    let mut notes = TableNotes::default();
    let answers = batch.answers(&node.predict, stream::iter(rows), when).map_ok(|answers| {
        notes.add(&answers.notes);
        answers.rows
    });
    let who = write(&mut out, answers.map_err(Into::into)).await?;
    Ok((out.finish(&notes)?, who, notes))
}

async fn there(
    client: &Client,
    arguments: &Arguments<'_>,
    table: Table,
    (to, bar): (&Target, Option<ProgressBar>),
) -> Result<Done> {
    let Arguments { model, version, as_of, .. } = *arguments;
    let command = BatchCommand { model: model.to_owned(), version: version.map(str::to_owned), as_of };
    let (rows, broken) = until_broken(table.batches);
    let mut answers = client.predict_batch(&command, table.schema, rows).await?;
    let mut out = Output::create(to, answers.schema(), bar)?;
    let whole = |rows: Result<RecordBatch>| match taken(&broken) {
        Some(error) => Err(error.into()),
        None => rows,
    };
    // A file that breaks off ends what goes up early, and what comes down like any other: it must not count.
    let end = stream::once(async { taken(&broken) })
        .filter_map(|broken| std::future::ready(broken.map(|error| Err(error.into()))));
    let who = write(&mut out, (&mut answers).map_err(Into::into).map(whole).chain(end)).await?;
    let notes = answers.notes().clone();
    Ok((out.finish(&notes)?, who, notes))
}

/// Who answered how many rows, and why others than those whose turn it was.
#[derive(Debug, Default)]
struct Who {
    served_by: BTreeMap<String, u64>,
    fallbacks: BTreeMap<String, u64>,
}

impl Who {
    fn count(&mut self, batch: &RecordBatch) {
        let schema = batch.schema_ref();
        for (key, counts) in [(SERVED_BY, &mut self.served_by), (FALLBACK_CAUSE, &mut self.fallbacks)] {
            let column = schema.metadata().get(key).and_then(|name| batch.column_by_name(name));
            let names = column.and_then(|column| column.as_string_opt::<i32>());
            for name in names.into_iter().flatten().flatten() {
                match counts.get_mut(name) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(name.to_owned(), 1)),
                }
            }
        }
    }
}

async fn write(out: &mut Output, answers: impl futures::Stream<Item = Result<RecordBatch>>) -> Result<Who> {
    let mut answers = std::pin::pin!(answers);
    let mut who = Who::default();
    while let Some(batch) = answers.next().await {
        let batch = batch?;
        who.count(&batch);
        out.write(&batch)?;
    }
    Ok(who)
}

type Broken = Arc<Mutex<Option<Error>>>;

/// The batches up to the first that cannot be read, and why it cannot.
fn until_broken(
    batches: impl Iterator<Item = std::result::Result<RecordBatch, Error>> + Send + 'static,
) -> (impl futures::Stream<Item = RecordBatch> + Send + 'static, Broken) {
    let broken = Broken::default();
    let noted = Arc::clone(&broken);
    let batches = batches.map_while(move |batch| {
        batch.map_err(|error| *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error)).ok()
    });
    (stream::iter(batches), broken)
}

fn taken(broken: &Broken) -> Option<Error> {
    broken.lock().unwrap_or_else(PoisonError::into_inner).take()
}
