//! `quern verify`: were models served what training would have shown them?

mod training;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use quern_wire::{FeatureReport, ModelReport, Report, VerifyRequest};

use super::backend::Backend;
use super::failure::Result;
use super::materialize::time_us;
use super::output::{Align, print, print_json, table, thousands};
use super::{EXIT_CHANGES, Options, Repository};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    repository: Repository,
    /// Only what was logged of this model.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Predictions that were asked for at this time or later, such as 2013-01-31 or 2013-01-31T08:30:00Z.
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    from: Option<i64>,
    /// Predictions that were asked for before this time.
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    to: Option<i64>,
    /// Make the training set again that a version was trained on, and say what became of it.
    #[arg(long, requires = "model", requires = "spine", conflicts_with_all = ["from", "to"])]
    training: bool,
    /// The version; the last one unless given.
    #[arg(long, value_name = "VERSION", requires = "training")]
    version: Option<String>,
    /// The spine of the training set, Parquet or CSV; the training set itself has its columns, too.
    #[arg(long, value_name = "FILE", requires = "training")]
    spine: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<ExitCode> {
    let backend = Backend::open(&arguments.repository.folder(), options).await?;
    if let (true, Some(spine)) = (arguments.training, &arguments.spine) {
        return training::run(arguments, spine, backend).await;
    }
    let request =
        VerifyRequest { model: arguments.model.clone(), from_us: arguments.from, to_us: arguments.to };
    let report: Report = backend.call("/v1/verify", &request).await?;
    if arguments.json {
        print_json(&report);
    } else {
        print_report(&report);
    }
    Ok(exit(report.is_clean()))
}

fn exit(is_same: bool) -> ExitCode {
    if is_same { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CHANGES) }
}

fn print_report(report: &Report) {
    if report.models.is_empty() {
        print("nothing was logged; a model keeps a log with `log: {sample: 1}`");
    }
    for (place, it) in report.models.iter().enumerate() {
        if place > 0 {
            print("");
        }
        let ModelReport { model, rows, rows_differ, not_compared, features, .. } = it;
        print(format!(
            "model {model}: {} predictions compared, {} differ",
            thousands(*rows),
            thousands(*rows_differ)
        ));
        for (cause, count) in not_compared {
            print(format!("not compared: {}: {cause}", thousands(*count)));
        }
        print_replayed(it);
        let head = [
            ("feature service", Align::Left),
            ("feature", Align::Left),
            ("compared", Align::Right),
            ("differ", Align::Right),
            ("why", Align::Left),
            ("first", Align::Left),
        ];
        if !features.is_empty() {
            print(table(&head, &features.iter().map(line).collect::<Vec<_>>()));
        }
    }
}

fn print_replayed(of: &ModelReport) {
    let ModelReport { not_reproducible, replayed, replayed_differ, .. } = of;
    if !not_reproducible.is_empty() {
        let columns: Vec<&str> = not_reproducible.iter().map(String::as_str).collect();
        print(format!(
            "not reproducible: {}, of other servers; from what they said then, {} predictions made again, {} differ",
            columns.join(", "),
            thousands(*replayed),
            thousands(*replayed_differ)
        ));
    }
}

fn line(feature: &FeatureReport) -> Vec<String> {
    let causes =
        feature.causes.iter().map(|(cause, count)| format!("{} {}", cause.as_str(), thousands(*count)));
    let first = feature.first.as_ref().map(|place| format!("{} row {}", place.request_id, place.row));
    vec![
        feature.feature_service.clone(),
        feature.feature.clone(),
        thousands(feature.rows),
        thousands(feature.differ),
        causes.collect::<Vec<_>>().join(", "),
        first.unwrap_or_default(),
    ]
}
