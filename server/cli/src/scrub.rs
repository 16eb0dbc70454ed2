//! `quern scrub`: is everything that is kept still what was written?

use std::process::ExitCode;

use clap::Args;
use futures::StreamExt;
use quern_wire::{Damaged, ScrubLine, ScrubRequest, ScrubSummary};
use serde::Serialize;

use super::backend::existing;
use super::bytes::BytesBar;
use super::failure::Result;
use super::output::{counted, print, print_json};
use super::{Options, Repository};
use crate::error::Error;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    repository: Repository,
    /// Read at most so many MiB in a second, so that others have the disk too; else as fast as it goes.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// What a program reads.
#[derive(Serialize)]
struct Report<'r> {
    damaged: &'r [Damaged],
    summary: &'r ScrubSummary,
}

/// Ends with 1 where something is damaged or missing.
pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<ExitCode> {
    let backend = existing(&arguments.repository.folder(), options).await?;
    let request = ScrubRequest { mib_per_second: arguments.rate };
    let mut lines = backend.call_lines::<ScrubLine>("/v1/scrub", &request).await?;
    let (mut bar, mut found) = (BytesBar::default(), Vec::new());
    while let Some(line) = lines.next().await {
        match line? {
            ScrubLine::Progress(progress) => {
                bar.show(&progress.part, progress.done_bytes, progress.total_bytes);
            }
            ScrubLine::Damaged(damaged) => {
                bar.aside(|| {
                    if !arguments.json {
                        print(&damaged.error);
                    }
                });
                found.push(damaged);
            }
            ScrubLine::Summary(summary) => {
                bar.clear();
                match arguments.json {
                    true => print_json(&Report { damaged: &found, summary: &summary }),
                    false => print_summary(&summary),
                }
                return Ok(if summary.damaged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            ScrubLine::Error(error) => {
                bar.clear();
                return Err(backend.failed(error));
            }
        }
    }
    bar.clear();
    Err(Error::unavailable("the scrub broke off; run it again".to_owned()).into())
}

fn print_summary(summary: &ScrubSummary) {
    let ScrubSummary { segments, models, bytes, damaged, notes, seconds } = summary;
    for note in notes {
        print(format!("note: {note}"));
    }
    let damaged = match damaged {
        0 => "nothing is damaged or missing".to_owned(),
        1 => "1 thing is damaged or missing".to_owned(),
        many => format!("{many} things are damaged or missing"),
    };
    print(format!(
        "{damaged}: read {}, {} and what else there is, {} MiB in {seconds:.1} s",
        counted(*segments, "segment"),
        counted(*models, "model file"),
        bytes >> 20
    ));
}
