//! `quern seal`: is what was pushed in segments now?

use std::path::{Path, PathBuf};

use clap::Args;
use quern_server::settings::SETTINGS_FILE;
use quern_wire::{SealRequest, Sealed, SealedSource};

use super::Options;
use super::backend::Backend;
use super::failure::{Failure, Result};
use super::output::{Align, print, print_json, table, thousands};
use super::words::repository;

#[derive(Debug, Args)]
#[command(
    override_usage = "quern seal [OPTIONS] [DIR] [SOURCE]...",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]        The repository (default: the nearest folder upwards with a quern.yaml)
  [SOURCE]...  The sources; all that take pushes, where none is named\n\n{all-args}"
)]
pub(super) struct Arguments {
    #[arg(hide = true, value_name = "SOURCE")]
    words: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let (directory, sources) = words(&arguments.words);
    let backend = Backend::open(&directory, options).await?;
    let sealed: Sealed = backend.call("/v1/seal", &SealRequest { sources }).await?;
    match arguments.json {
        true => print_json(&sealed),
        false => print_sealed(&sealed),
    }
    let left: Vec<&str> =
        sealed.sources.iter().filter(|of| of.left > 0).map(|of| of.source.as_str()).collect();
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::Printed(format!(
        "rows of {} stay in the log for now: a run of materialize is under way, or another server seals them; seal again",
        left.join(", ")
    )))
}

/// `[DIR] [SOURCE]...`: no source is called like a path, or has settings in it.
fn words(words: &[String]) -> (PathBuf, Vec<String>) {
    let is_folder = |word: &&String| {
        let path = Path::new(word);
        path.is_dir() && (word.contains(['/', '.']) || path.join(SETTINGS_FILE).exists())
    };
    let folder = words.first().filter(is_folder);
    let sources = &words[usize::from(folder.is_some())..];
    (repository(folder.map(Path::new)), sources.to_vec())
}

fn print_sealed(sealed: &Sealed) {
    if sealed.sources.is_empty() {
        return print("no source takes pushes: there is nothing to seal");
    }
    let head = [
        ("source", Align::Left),
        ("rows", Align::Right),
        ("segments", Align::Right),
        ("left in the log", Align::Right),
    ];
    let row = |of: &SealedSource| {
        vec![of.source.clone(), thousands(of.rows), thousands(of.segments), thousands(of.left)]
    };
    print(table(&head, &sealed.sources.iter().map(row).collect::<Vec<_>>()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_first_or_not_at_all() {
        let of = |given: &[&str]| {
            let (folder, sources) = words(&given.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            (folder.display().to_string(), sources)
        };
        assert_eq!(of(&["..", "src"]), ("..".to_owned(), vec!["src".to_owned()]));
        // There is such a folder here, and it is no repository.
        assert_eq!(of(&["src", "events"]).1, ["src", "events"]);
        assert_eq!(of(&[]).1, [""; 0]);
    }
}
