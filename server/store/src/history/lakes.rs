//! Are these files a table of their own, whose log says which of them count?
//!
//! Delta Lake, Apache Iceberg and Apache Hudi leave files behind that hold rows which were deleted or replaced since;
//! only their log tells. Read as plain files, such rows come back, so a table of theirs is refused.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with a log.
#[derive(Debug, PartialEq)]
pub(super) struct Lake {
    /// As messages show it.
    folder: PathBuf,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    Delta,
    Iceberg,
    Hudi,
}

impl Format {
    fn of(folder: &Path) -> Option<Format> {
        if folder.join("_delta_log").is_dir() {
            return Some(Format::Delta);
        }
        if folder.join(".hoodie").is_dir() {
            return Some(Format::Hudi);
        }
        let metadata = fs::read_dir(folder.join("metadata")).ok()?;
        let mut names = metadata.flatten().map(|entry| entry.file_name());
        names.any(|name| name.to_string_lossy().contains(".metadata.json")).then_some(Format::Iceberg)
    }
}

/// Where each keeps its log.
pub(super) const LOGS: [&str; 3] = ["_delta_log", ".hoodie", "metadata"];

/// The table of which an object with these parts tells: one of its log.
pub(super) fn told_by(parts: &[String]) -> Option<Lake> {
    let is_metadata = || parts.last().is_some_and(|name| name.contains(".metadata.json"));
    let format = |part: &str| match part {
        "_delta_log" => Some(Format::Delta),
        ".hoodie" => Some(Format::Hudi),
        "metadata" if is_metadata() => Some(Format::Iceberg),
        _ => None,
    };
    let (folders, _) = parts.split_at(parts.len().saturating_sub(1));
    let told = folders.iter().enumerate().find_map(|(place, part)| Some((place, format(part)?)));
    told.map(|(place, format)| Lake { folder: parts[..place].join("/").into(), format })
}

/// The first table that one of the files belongs to. A file belongs to the folders above it, wherever links lead: up to
/// `root`, where it lies inside.
pub(super) fn among(root: &Path, files: &[PathBuf]) -> Option<Lake> {
    let root = fs::canonicalize(root).ok()?;
    let nearest: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    let mut looked_at: BTreeSet<PathBuf> = BTreeSet::new();
    for folder in nearest.into_iter().filter_map(|folder| fs::canonicalize(folder).ok()) {
        for folder in folder.ancestors().take_while(|folder| *folder != root) {
            if !looked_at.insert(folder.to_owned()) {
                break;
            }
            if let Some(format) = Format::of(folder) {
                return Some(Lake {
                    folder: folder.strip_prefix(&root).unwrap_or(folder).to_owned(),
                    format,
                });
            }
        }
    }
    None
}

impl fmt::Display for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, log) = match self.format {
            Format::Delta => ("a Delta", "_delta_log"),
            Format::Iceberg => ("an Iceberg", "metadata"),
            Format::Hudi => ("a Hudi", ".hoodie"),
        };
        write!(
            f,
            "`{}` is {table} table: its `{log}` says which files count, and without it deleted rows would come back",
            self.folder.display()
        )
    }
}

impl Lake {
    /// What to do instead.
    pub(super) fn way_out(&self) -> String {
        let folder = self.folder.display();
        let written = |by: &str| {
            format!(
                "such tables are not read yet; write what it holds now into Parquet files, as {by}, and name those"
            )
        };
        match self.format {
            Format::Delta => format!("read it as a table: `format: delta, path: {folder}`"),
            Format::Iceberg => format!("read it as a table: `format: iceberg, path: {folder}`"),
            Format::Hudi => written("in Spark's `spark.read.format(\"hudi\").load(…).write.parquet(…)`"),
        }
    }
}
