//! `quern route`: which version answers whom, from now on?

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use quern_wire::{RouteRequest, Routed, route_path};

use super::Options;
use super::backend::Backend;
use super::failure::{Failure, Result};
use super::output::{print, print_json};
use super::words::directory_and;

#[derive(Debug, Args)]
#[command(override_usage = "quern route [OPTIONS] [DIR] MODEL [VERSION=WEIGHT]...")]
pub(super) struct Arguments {
    /// The repository (default: the current folder), the model, then versions and their weights; without any, the
    /// weights are shown.
    #[arg(required = true, value_name = "[DIR] MODEL [VERSION=WEIGHT]...")]
    words: Vec<String>,
    /// Go back to the weights that are declared.
    #[arg(long)]
    reset: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let (assignments, names): (Vec<String>, Vec<String>) =
        arguments.words.iter().cloned().partition(|word| word.contains('='));
    let (directory, model): (PathBuf, String) = directory_and(&names, "the model")?;
    let mut weights = BTreeMap::new();
    for assignment in &assignments {
        let (version, weight) = assignment.split_once('=').unwrap_or_default();
        let weight = weight.parse::<u32>().map_err(|_| {
            Failure::Usage(format!("`{assignment}`: a weight is a whole number, as in `{version}=10`"))
        })?;
        if weights.insert(version.to_owned(), weight).is_some() {
            return Err(Failure::Usage(format!("version `{version}` is given twice")));
        }
    }
    if arguments.reset && !weights.is_empty() {
        return Err(Failure::Usage("give weights or --reset, not both".to_owned()));
    }
    let backend = Backend::open(&directory, options).await?;
    let routed: Routed = if weights.is_empty() && !arguments.reset {
        let catalogue = backend.catalogue().await?;
        let found = catalogue.models.iter().find(|known| known.name == model);
        let versions = found.map(|model| model.versions.as_slice()).unwrap_or_default();
        let weights: BTreeMap<_, _> =
            versions.iter().map(|known| (known.version.clone(), known.weight)).collect();
        if weights.is_empty() {
            // The server knows the nearest names.
            backend.call(&route_path(&model), &RouteRequest::default()).await?
        } else {
            Routed { number: catalogue.number, weights }
        }
    } else {
        backend.call(&route_path(&model), &RouteRequest { weights }).await?
    };
    if arguments.json {
        print_json(&routed);
        return Ok(());
    }
    let total: u64 = routed.weights.values().sum();
    for (version, weight) in &routed.weights {
        let share = *weight as f64 / total.max(1) as f64 * 100.0;
        print(format!("version {version}: {weight} ({share:.1} %)"));
    }
    print(format!("live with apply {}", routed.number));
    Ok(())
}
