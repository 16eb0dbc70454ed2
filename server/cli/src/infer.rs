//! `quern infer`: a file goes in, the source that it makes comes out.

use std::path::{Path, PathBuf, absolute};

use clap::Args;
use quern_server::settings::SETTINGS_FILE;

use super::failure::Result;
use super::output::print;
use super::words::directory_and;
use crate::error::Error;

#[derive(Debug, Args)]
#[command(
    override_usage = "quern infer [OPTIONS] [DIR] FILE",
    after_help = "Arguments:
  [DIR]  The repository (default: the nearest folder with a quern.yaml, else the current one)
  FILE   A Parquet or CSV file, a folder of such files, or a glob"
)]
pub(super) struct Arguments {
    #[arg(required = true, num_args = 1..=2, hide = true, value_name = "FILE")]
    words: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let (directory, file) = directory_and(&arguments.words, "the file")?;
    let failed = |error: std::io::Error| Error::invalid(format!("{file}: {error}"));
    let here = absolute(&directory).map_err(failed)?;
    let root = match arguments.words.len() {
        1 => root_of(&here),
        _ => here,
    };
    // As everywhere, a file begins at the current folder; one of a repository that was named may begin there.
    let from_here = absolute(&file).map_err(failed)?;
    let found = if !from_here.exists() && root.join(&file).exists() { root.join(&file) } else { from_here };
    let path = found.strip_prefix(&root).unwrap_or(&found);
    print(quern_server::infer::source(&root, &path.to_string_lossy())?);
    Ok(())
}

/// The repository around a folder; the folder itself where it is in none.
fn root_of(folder: &Path) -> PathBuf {
    let found = folder.ancestors().find(|folder| folder.join(SETTINGS_FILE).exists());
    found.unwrap_or(folder).to_owned()
}
