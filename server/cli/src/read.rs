//! `quern get` and `quern predict`: what does a model get for these keys, and what does it say?

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use quern_wire::{
    FeatureVectors, OnlineFeatures, OnlineFeaturesRequest, PredictRequest, Predictions, Status, TableNotes,
    predict_path,
};
use serde_json::{Map, Value};

use super::backend::Backend;
use super::failure::{Failure, Result};
use super::output::{Align, print, print_json, table, warn};
use super::words::{directory_and, inputs, inputs_of_model, instance, repository, split};
use super::{Options, batch};
use crate::error::Error;

#[derive(Debug, Args)]
#[command(
    override_usage = "quern get [OPTIONS] [DIR] <SERVICE> [COLUMN=VALUE]...",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]              The repository (default: the nearest folder upwards with a quern.yaml)
  <SERVICE>          The feature service
  [COLUMN=VALUE]...  Join keys, request columns and, where it is not now, `event_timestamp`\n\n{all-args}"
)]
pub(super) struct GetArguments {
    #[arg(required = true, hide = true, value_name = "SERVICE")]
    words: Vec<String>,
    /// Print the reply as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "quern predict [OPTIONS] --model <MODEL> [DIR] [COLUMN=VALUE]...",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]              The repository (default: the nearest folder upwards with a quern.yaml)
  [COLUMN=VALUE]...  Join keys, request columns and, where it is not now, `event_timestamp`\n\n{all-args}"
)]
pub(super) struct PredictArguments {
    #[arg(hide = true, value_name = "COLUMN=VALUE")]
    words: Vec<String>,
    /// The model.
    #[arg(long, value_name = "MODEL")]
    pub(super) model: String,
    /// Its version; else whichever the model's route says, without a route the last.
    #[arg(long, value_name = "VERSION")]
    pub(super) version: Option<String>,
    /// A JSON file with a list of instances, instead of one on the command line.
    #[arg(long, value_name = "FILE")]
    instances: Option<PathBuf>,
    /// Predict for all rows of a Parquet or CSV file: join keys, request columns, and any others, which are carried
    /// through.
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with_all = ["instances", "with_features"])]
    pub(super) entities: Option<PathBuf>,
    /// Where the rows go, as Parquet or CSV, with the model's outputs appended, and who answered where it may be one or
    /// another.
    #[arg(long, value_name = "FILE", requires = "entities")]
    pub(super) out: Option<PathBuf>,
    /// Predict each row of `--entities` as of its `event_timestamp`, from history, instead of now.
    #[arg(long, requires = "entities")]
    pub(super) as_of: bool,
    /// Show the feature vectors that the model saw.
    #[arg(long)]
    with_features: bool,
    /// Print the reply as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn get(arguments: &GetArguments, options: &Options) -> Result<()> {
    let (names, assignments) = split(&arguments.words);
    let (directory, service) = directory_and(&names, "the feature service")?;
    let backend = Backend::open(&directory, options).await?;
    let columns = inputs(&backend.catalogue().await?, &service);
    let instance = instance(&assignments, &columns)?;
    let request = OnlineFeaturesRequest {
        feature_service: Some(service),
        entities: instance
            .into_iter()
            .map(|(column, value)| (column, vec![value]))
            .collect::<BTreeMap<_, _>>(),
        ..OnlineFeaturesRequest::default()
    };
    let reply: OnlineFeatures = backend.call("/get-online-features", &request).await?;
    if arguments.json {
        print_json(&reply);
        return Ok(());
    }
    let rows = reply.metadata.feature_names.iter().zip(&reply.results).map(|(name, column)| {
        let time = column.event_timestamps.first().and_then(Option::as_deref);
        row(name, column.values.first(), column.statuses.first(), time)
    });
    print(table(&VECTOR_HEAD, &rows.collect::<Vec<_>>()));
    warn(&TableNotes { failed: reply.metadata.failed, ..TableNotes::default() });
    Ok(())
}

pub(super) async fn predict(arguments: &PredictArguments, options: &Options) -> Result<()> {
    let (names, assignments) = split(&arguments.words);
    let directory = match names.as_slice() {
        [] => repository(None),
        [directory] => repository(Some(Path::new(directory))),
        [_, other, ..] => return Err(Failure::Usage(format!("`{other}` is not COLUMN=VALUE"))),
    };
    if let (Some(entities), Some(out)) = (&arguments.entities, &arguments.out) {
        if let Some((column, _)) = assignments.first() {
            return Err(Failure::Usage(format!("`{column}=…` and --entities exclude each other")));
        }
        let PredictArguments { model, version, as_of, json, .. } = arguments;
        let table = batch::Arguments {
            entities,
            out,
            model,
            version: version.as_deref(),
            as_of: *as_of,
            json: *json,
        };
        return batch::run(&table, &directory, options).await;
    }
    let backend = Backend::open(&directory, options).await?;
    let instances = match &arguments.instances {
        Some(file) => read_instances(file, &assignments)?,
        None => {
            let catalogue = backend.catalogue().await?;
            let known = inputs_of_model(&catalogue, &arguments.model, arguments.version.as_deref());
            vec![instance(&assignments, &known)?]
        }
    };
    let request = PredictRequest { instances, with_features: arguments.with_features };
    let path = predict_path(&arguments.model, arguments.version.as_deref());
    let reply: Predictions = backend.call(&path, &request).await?;
    if let Backend::Here { node, .. } = &backend {
        node.predictions.flush().await;
    }
    if arguments.json {
        print_json(&reply);
        return Ok(());
    }
    for (place, prediction) in reply.predictions.iter().enumerate() {
        if let Some((features, place)) = seen(&reply, place) {
            print(vector_table(features, place));
        }
        print(prediction);
    }
    warn(&TableNotes { failed: reply.failed, ..TableNotes::default() });
    Ok(())
}

/// What the version that answered `instance` saw, and the place of the instance there.
fn seen(reply: &Predictions, instance: usize) -> Option<(&FeatureVectors, usize)> {
    let of_all = reply.features.iter().map(|features| (features, instance));
    let of_parts = reply.parts.iter().filter_map(|part| {
        let place = part.instances.iter().position(|known| *known == instance)?;
        Some((part.features.as_ref()?, place))
    });
    of_all.chain(of_parts).next()
}

const VECTOR_HEAD: [(&str, Align); 4] = [
    ("feature", Align::Left),
    ("value", Align::Right),
    ("status", Align::Left),
    ("event timestamp", Align::Left),
];

fn vector_table(features: &FeatureVectors, place: usize) -> String {
    let rows = features.names.iter().enumerate().map(|(feature, name)| {
        let value = features.values.get(place).and_then(|values| values.get(feature));
        let status = features.statuses.get(place).and_then(|statuses| statuses.get(feature));
        let times = features.event_timestamps.get(place).and_then(|times| times.get(feature));
        row(name, value, status, times.and_then(Option::as_deref))
    });
    table(&VECTOR_HEAD, &rows.collect::<Vec<_>>())
}

fn row(name: &str, value: Option<&Value>, status: Option<&Status>, time: Option<&str>) -> Vec<String> {
    let value = match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let status = status.map_or("", |status| status.as_str());
    // What no row of history gave has the time zero, as Feast has it; a person is shown none.
    let time = time.filter(|time| *time != "1970-01-01T00:00:00Z").unwrap_or_default();
    vec![name.to_owned(), value, status.to_owned(), time.to_owned()]
}

fn read_instances(file: &Path, assignments: &[(String, String)]) -> Result<Vec<Map<String, Value>>> {
    if let Some((column, _)) = assignments.first() {
        return Err(Failure::Usage(format!("`{column}=…` and --instances exclude each other")));
    }
    let wrong = |cause: String| Error::invalid(format!("{}: {cause}", file.display()));
    let text = fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    // A whole request as the server takes it will do as well.
    let list = match value {
        Value::Object(mut request) => request.remove("instances").unwrap_or_default(),
        list => list,
    };
    let instances = serde_json::from_value(list).map_err(|_| {
        wrong("must be a list of objects, each with join keys and request columns".to_owned())
    })?;
    Ok(instances)
}
