//! `quern backup` and `quern restore`: how does everything that counts get elsewhere, and back?

use std::path::{Path, PathBuf, absolute};

use clap::Args;
use futures::StreamExt;
use quern_wire::{BackupLine, BackupRequest, BackupSummary};

use super::Options;
use super::backend::existing;
use super::bytes::BytesBar;
use super::failure::{Failure, Result};
use super::output::{counted, print, print_json};
use super::words::directory_and;
use crate::error::Error;

#[derive(Debug, Args)]
#[command(
    override_usage = "quern backup [OPTIONS] [DIR] <TO>",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]  The repository (default: the nearest folder upwards with a quern.yaml)
  <TO>   A folder on the server's machine, new or empty, in one that is there\n\n{all-args}"
)]
pub(super) struct BackupArguments {
    #[arg(required = true, hide = true, value_name = "TO")]
    words: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "quern restore [OPTIONS] [DIR] <FROM>",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]   The repository (default: the nearest folder upwards with a quern.yaml)
  <FROM>  The folder of a backup\n\n{all-args}"
)]
pub(super) struct RestoreArguments {
    #[arg(required = true, hide = true, value_name = "FROM")]
    words: Vec<String>,
}

/// `[DIR] FOLDER`.
fn folders(words: &[String], what: &str) -> Result<(PathBuf, PathBuf)> {
    if let [_, _, other, ..] = words {
        return Err(Failure::Usage(format!("`{other}` is one folder too many")));
    }
    let (directory, folder) = directory_and(words, what)?;
    // Relative to where the command is typed, wherever the server runs.
    let whole =
        absolute(Path::new(&folder)).map_err(|error| Failure::Usage(format!("`{folder}`: {error}")))?;
    Ok((directory, whole))
}

pub(super) async fn backup(arguments: &BackupArguments, options: &Options) -> Result<()> {
    let (directory, to) = folders(&arguments.words, "the folder that the backup goes to")?;
    let to =
        to.to_str().ok_or_else(|| Failure::Usage("the folder's path is not UTF-8".to_owned()))?.to_owned();
    let backend = existing(&directory, options).await?;
    let mut lines = backend.call_lines::<BackupLine>("/v1/backup", &BackupRequest { to }).await?;
    let mut bar = BytesBar::default();
    while let Some(line) = lines.next().await {
        match line? {
            BackupLine::Progress(copied) => bar.show(&copied.file, copied.done_bytes, copied.total_bytes),
            BackupLine::Summary(summary) => {
                bar.clear();
                match arguments.json {
                    true => print_json(&summary),
                    false => print_summary(&summary),
                }
                return Ok(());
            }
            BackupLine::Error(error) => {
                bar.clear();
                return Err(backend.failed(error));
            }
        }
    }
    bar.clear();
    let cause = "the backup broke off, and what there is of it is none; begin again in a new folder";
    Err(Error::unavailable(cause.to_owned()).into())
}

fn print_summary(summary: &BackupSummary) {
    let BackupSummary { to, files, bytes, segments, positions, notes, seconds } = summary;
    print(format!(
        "{to} holds {}, {} among them: {} MiB in {seconds:.1} s",
        counted(*files, "file"),
        counted(*segments, "segment"),
        bytes >> 20
    ));
    for (source, position) in positions {
        print(format!("source {source}: up to commit {position}"));
    }
    for note in notes {
        print(format!("note: {note}"));
    }
}

pub(super) async fn restore(arguments: &RestoreArguments, options: &Options) -> Result<()> {
    let (directory, from) = folders(&arguments.words, "the folder of the backup")?;
    let settings = options.settings(&directory, &[])?;
    let (data, store) = (settings.data.clone(), settings.store());
    let bar = BytesBar::default();
    let mut shown = bar.clone();
    let restored = quern_server::restore(settings, from, move |copied| {
        shown.show(&copied.file, copied.done_bytes, copied.total_bytes);
    })
    .await;
    bar.clear();
    let restored = restored?;
    print(format!(
        "restored the backup of {}: {}, {} MiB, into {} and the store {store}",
        restored.time,
        counted(restored.files as u64, "file"),
        restored.bytes >> 20,
        data.display()
    ));
    print(match restored.registry {
        true => "next: quern materialize, then quern serve",
        false => {
            "next: quern materialize --accept-loss, once the dump of the database is back, then quern serve"
        }
    });
    Ok(())
}
