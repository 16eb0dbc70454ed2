//! `quern route`: which version answers whom, from now on, and which gets more by and by?

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use quern_wire::{Percent, RampRequest, RampStatus, RouteRequest, Routed, Share, percentages, route_path};

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
    /// Go back to the weights that are declared, and forget the model's ramp.
    #[arg(long, conflicts_with = "ramp")]
    reset: bool,
    /// Have the share of a version go through these steps by itself, as in `--ramp 2 10% 50% 100%`. It stops and goes
    /// back by itself; `quern status` shows how far it is, other shares or --reset end it.
    #[arg(long, num_args = 2.., value_names = ["VERSION", "SHARE"], requires = "every")]
    ramp: Vec<String>,
    /// How long each step lasts at least, as in `10m`; it also waits for 100 requests of the version.
    #[arg(long, value_name = "DURATION", requires = "ramp")]
    every: Option<String>,
    /// What stops it and gives back the weights from before: `error_rate > 0.01`, `fallback_rate > 5%`, `p99 > 50ms`
    /// (p95, p50), also with `or` between, or given several times [default: error_rate > 0.01].
    #[arg(long, value_name = "CONDITION", requires = "ramp")]
    stop_if: Vec<String>,
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
    let ramp = ramp(arguments, &weights)?;
    let backend = Backend::open_to_change(&directory, options).await?;
    let routed: Routed = if weights.is_empty() && ramp.is_none() && !arguments.reset {
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
            let percent_before = percent.clone();
            Routed { number: catalogue.number, percent_before, percent, weights, ..Routed::default() }
        }
    } else {
        backend.call(&route_path(&model), &RouteRequest { weights, ramp }).await?
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
    if let Some(ended) = &routed.ended_ramp {
        print(format!("this ends {ended}"));
    }
    if let Some(ramp) = &routed.ramp {
        print(told(ramp));
    }
    print(format!("live with apply {}", routed.number));
    Ok(())
}

/// The ramp that is asked for.
fn ramp(arguments: &Arguments, weights: &BTreeMap<String, Share>) -> Result<Option<RampRequest>> {
    let [version, shares @ ..] = arguments.ramp.as_slice() else { return Ok(None) };
    if !weights.is_empty() {
        return Err(Failure::Usage(
            "give shares or --ramp, not both: a ramp sets the weights itself".to_owned(),
        ));
    }
    let steps = shares.iter().map(|share| {
        let wrong = |why| Failure::Usage(format!("--ramp {version}: {why}"));
        Percent::try_from(share.clone()).map_err(wrong)
    });
    Ok(Some(RampRequest {
        version: version.clone(),
        steps: steps.collect::<Result<_>>()?,
        every: arguments.every.clone().unwrap_or_default(),
        stop_if: arguments.stop_if.clone(),
    }))
}

/// A ramp that has begun.
fn told(ramp: &RampStatus) -> String {
    let steps: Vec<String> = ramp.steps.iter().map(Percent::to_string).collect();
    let conditions: Vec<&str> = ramp.stop_if.iter().map(|stop| stop.condition.as_str()).collect();
    format!(
        "version {} goes on by itself: {}, each for {} and {} requests at least; stops if {}",
        ramp.version,
        steps.join(", "),
        ramp.every,
        ramp.requests_min,
        conditions.join(" or ")
    )
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
