//! Of which format is a file, as its name says, and how is it packed?

use feature_defs::Format;

/// How a file of text is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    /// What a file of this name is packed with.
    pub(super) fn of(name: &str) -> Option<Packing> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "gz" => Some(Packing::Gzip),
            "zst" => Some(Packing::Zstd),
            _ => None,
        }
    }
}

/// What the names of a format's files end with, in small letters.
pub(super) fn extensions(format: Format) -> &'static [&'static str] {
    match format {
        Format::Parquet => &["parquet"],
        // A folder, whatever its files are called.
        Format::Delta | Format::Iceberg => &[],
        Format::Arrow => &["arrow", "feather", "ipc"],
        Format::Csv => &["csv", "csv.gz", "csv.zst"],
        Format::Json => &[
            "json",
            "json.gz",
            "json.zst",
            "jsonl",
            "jsonl.gz",
            "jsonl.zst",
            "ndjson",
            "ndjson.gz",
            "ndjson.zst",
        ],
    }
}

/// Whether a file in a folder is one of the format's.
pub(super) fn is_of(format: Format, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let ends_so = |end: &&str| name.strip_suffix(*end).is_some_and(|stem| stem.ends_with('.'));
    extensions(format).iter().any(ends_so)
}

/// The format that a file's name says.
pub fn format_of(name: &str) -> Option<Format> {
    Format::ALL.into_iter().find(|format| is_of(*format, name))
}

/// What else the names of tables end with.
const TABLES: [&str; 5] = [".tsv", ".tsv.gz", ".tsv.zst", ".parq", ".pq"];
/// What keys and settings end with as well.
const OTHERS: [&str; 3] = [".json", ".json.gz", ".json.zst"];
/// What is said instead of the columns of what is called otherwise.
pub(super) const NOT_SHOWN: &str =
    "its columns are not shown, since its name does not end as a table's does, as in `.csv`";

/// Whether a file is called as tables are. Of any other an error tells no word, not even the names of its columns: its
/// first line may be a password.
pub(super) fn is_called_a_table(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| lower.ends_with(end));
    ends(&TABLES) || format_of(name).is_some() && !ends(&OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_format_and_packing() {
        assert_eq!(format_of("a/b.CSV.gz"), Some(Format::Csv));
        assert_eq!(["a.json", "a.jsonl", "a.ndjson.zst"].map(format_of), [Some(Format::Json); 3]);
        assert_eq!(Packing::of("a/b.CSV.gz"), Some(Packing::Gzip));
        assert_eq!(Packing::of("b.csv.zst"), Some(Packing::Zstd));
        assert_eq!(["a.arrow", "a.feather", "a.ipc"].map(format_of), [Some(Format::Arrow); 3]);
        assert_eq!((format_of("b.parquet"), Packing::of("b.parquet")), (Some(Format::Parquet), None));
        assert_eq!([format_of("csv"), format_of("b.gz"), format_of("bcsv"), format_of("csv.gz")], [None; 4]);
        assert!(["x.tsv.gz", "x.csv", "x.jsonl"].into_iter().all(is_called_a_table));
        assert!(!["passwd.gz", "key.json", "key.json.gz", "x"].into_iter().any(is_called_a_table));
    }
}
