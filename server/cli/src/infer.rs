//! `quern infer`: a file goes in, the source that it makes comes out.

use std::path::{Component, Path, PathBuf, absolute};

use clap::Args;

use super::failure::{Failure, Result};
use super::output::print;
use super::words::directory_and;
use crate::error::Error;

#[derive(Debug, Args)]
#[command(
    override_usage = "quern infer [OPTIONS] [DIR] <FILE>",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]   The repository (default: the nearest folder upwards with a quern.yaml)
  <FILE>  A file of a source, a folder of such files, or a glob\n\n{all-args}"
)]
pub(super) struct Arguments {
    #[arg(required = true, num_args = 1..=2, hide = true, value_name = "FILE")]
    words: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let (directory, file) = directory_and(&arguments.words, "the file")?;
    if directory.is_file() {
        let cause = format!("`{}` is a file, and one path is looked at", directory.display());
        return Err(Failure::Usage(format!("{cause}; of a glob put quotes around it, as in 'data/*.csv'")));
    }
    let failed = |error: std::io::Error| Error::invalid(format!("{file}: {error}"));
    let root = without_dots(&absolute(&directory).map_err(failed)?);
    // As everywhere, a file begins at the current folder; one of a repository that was named may begin there.
    let from_here = without_dots(&absolute(&file).map_err(failed)?);
    let found = if !from_here.exists() && root.join(&file).exists() { root.join(&file) } else { from_here };
    let path = found.strip_prefix(&root).unwrap_or(&found);
    print(quern_server::infer::source(&root, &path.to_string_lossy())?);
    Ok(())
}

/// The same path, without ways back: in definitions `data/a.csv` is better to read than `sub/../data/a.csv`.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}
