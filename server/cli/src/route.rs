//! `quern route`: which version answers whom, from now on?

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use quern_wire::{RouteRequest, Routed, Share, percentages, route_path};

use super::Options;
use super::backend::Backend;
use super::failure::{Failure, Result};
use super::output::{print, print_json};
use super::words::directory_and;

#[derive(Debug, Args)]
#[command(
    override_usage = "quern route [OPTIONS] [DIR] <MODEL> [VERSION=SHARE]...",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]               The repository (default: the nearest folder upwards with a quern.yaml)
  <MODEL>             The model
  [VERSION=SHARE]...  Versions and their new shares; without any, the weights are shown. `2=50`
                      sets a weight, and the other versions keep theirs; `2=10%` sets a part of
                      all, and the others are scaled into the rest\n\n{all-args}"
)]
pub(super) struct Arguments {
    #[arg(required = true, hide = true, value_name = "MODEL")]
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
        let (version, share) = assignment.split_once('=').unwrap_or_default();
        let share: Share =
            share.parse().map_err(|why| Failure::Usage(format!("version `{version}`: {why}")))?;
        if weights.insert(version.to_owned(), share).is_some() {
            return Err(Failure::Usage(format!("version `{version}` is given twice")));
        }
    }
    if arguments.reset && !weights.is_empty() {
        return Err(Failure::Usage("give shares or --reset, not both".to_owned()));
    }
    let backend = Backend::open_to_change(&directory, options).await?;
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
            let percent = percentages(&weights);
            Routed { number: catalogue.number, percent_before: percent.clone(), percent, weights }
        }
    } else {
        backend.call(&route_path(&model), &RouteRequest { weights }).await?
    };
    if arguments.json {
        print_json(&routed);
        return Ok(());
    }
    for (version, weight) in &routed.weights {
        let (now, before) = (shown(&routed.percent, version), shown(&routed.percent_before, version));
        let moved = if now == before { now } else { format!("{before} → {now}") };
        print(format!("version {version}: {weight} ({moved})"));
    }
    print(format!("live with apply {}", routed.number));
    Ok(())
}

/// A version's part of all, in as few digits as tell it from nothing and from everything.
fn shown(percent: &BTreeMap<String, f64>, version: &str) -> String {
    let percent = percent.get(version).copied().unwrap_or_default();
    let is_extreme = (percent > 0.0 && percent < 1.0) || (percent > 99.0 && percent < 100.0);
    match is_extreme {
        true => format!("{} %", format!("{percent:.6}").trim_end_matches('0')),
        false => format!("{percent:.1} %"),
    }
}
