//! Which source would a file make?

use std::path::Path;

use feature_defs::Format;
use quern_store::history::format_of;
use quern_store::history::infer::{Inferred, Shown, block, format_within, infer, quoted};

use crate::error::{Error, Result};

/// What columns are called that say when a row became true, the likeliest first.
const EVENT_TIMES: [&str; 8] =
    ["event_timestamp", "event_time", "timestamp", "ts", "time", "datetime", "at", "date"];
/// Parts of the names of those that say when it became known.
const KNOWN_TIMES: [&str; 6] = ["load", "ingest", "insert", "creat", "updat", "process"];
/// Stands for what a person has to fill in.
const UNKNOWN: &str = "FILL_IN";

/// The source, as a document to paste, that the files which `path` names from `root` on make: a file, a folder or a
/// glob.
///
/// # Errors
/// `Kind::InvalidArgument` where there is no such file, or its name says none of the formats.
pub fn source(root: &Path, path: &str) -> Result<String> {
    if path.contains(":/") {
        let cause = format!("`{path}` is a URL, and columns are shown of files on this machine");
        return Err(Error::invalid(format!(
            "{cause}; copy one of its files here, or write the source and `quern check` it"
        )));
    }
    let tables = [("_delta_log", "delta", "Delta Lake"), ("metadata", "iceberg", "Iceberg")];
    if let Some((_, format, of)) = tables.iter().find(|(log, ..)| root.join(path).join(log).is_dir()) {
        let cause = format!("`{path}` is a table of {of}, which says its columns itself");
        return Err(Error::invalid(format!(
            "{cause}; say `batch: {{format: {format}, path: {}}}`",
            quoted(path)
        )));
    }
    // Of a folder or a glob the files tell.
    let format = format_of(path).or_else(|| format_within(root, path)).ok_or_else(|| {
        let files = Format::ALL.iter().filter(|format| !format.is_table());
        let known = files.map(|format| format!(".{}", format.name())).collect::<Vec<_>>().join(" or ");
        Error::invalid(format!("`{path}` names no file that ends in {known}"))
    })?;
    let Shown { file, dialect, columns } = infer(root, format, path)?;
    let times = likely_times(&columns);
    let event_timestamp = times.first().map_or(UNKNOWN, |column| column.name.as_str());
    let others: Vec<&str> = times.iter().skip(1).map(|column| column.name.as_str()).collect();
    let epoch = times.first().and_then(|column| column.epoch);
    let counts =
        epoch.map(|epoch| format!(", in numbers that look like {}", epoch.noun())).unwrap_or_default();
    let remark = match (times.is_empty(), others.is_empty()) {
        (true, _) => "  # no column is a time: which one says when a row became true?".to_owned(),
        (false, true) if epoch.is_none() => String::new(),
        (false, true) => format!("  # when a row became true{counts}"),
        (false, false) => format!("  # when a row became true{counts}; or: {}", others.join(", ")),
    };
    // Of numbers that are not called times, only the likeliest are declared as some.
    let is_declared = |(place, column): &(usize, &&Inferred)| {
        *place == 0 || column.epoch.is_some() && is_called_time(&column.name)
    };
    let declared = times.iter().enumerate().filter(is_declared).map(|(_, column)| column.name.as_str());
    let declared: Vec<&str> = declared.collect();
    let guessed = match format {
        format if format.is_typed() => "",
        _ => "; the types are guessed",
    };
    let (format, dialect) = (format.name(), dialect.to_string());
    let dialect = if dialect.is_empty() { dialect } else { format!(", {dialect}") };
    Ok(format!(
        "# As far as {file} shows{guessed}.\nkind: Source\nname: {}\nbatch: {{format: {format}, path: {}{dialect}}}\n\
         event_timestamp: {}{remark}\n{}",
        name_of(path),
        quoted(path),
        quoted(event_timestamp),
        block(&columns, &declared)
    ))
}

/// Columns that can say when a row became true, the likeliest first.
fn likely_times(columns: &[Inferred]) -> Vec<&Inferred> {
    let is_epoch = |column: &&Inferred| column.epoch.is_some();
    let is_likely = |column: &&Inferred| column.is_time() || is_epoch(column) && is_called_time(&column.name);
    let mut times: Vec<&Inferred> = columns.iter().filter(is_likely).collect();
    if times.is_empty() {
        times = columns.iter().filter(is_epoch).collect();
    }
    // Stable: columns of one rank stay as the file has them.
    times.sort_by_key(|column| {
        let name = column.name.to_lowercase();
        let by_name = EVENT_TIMES.iter().position(|known| *known == name).unwrap_or(EVENT_TIMES.len());
        (KNOWN_TIMES.iter().any(|part| name.contains(part)), by_name)
    });
    times
}

/// Whether a name speaks of time, as far as one can tell: of a column of numbers, these must look like times as well.
fn is_called_time(name: &str) -> bool {
    let name = name.to_lowercase();
    let ends = ["at", "ts", "_on"];
    let parts = ["time", "date", "epoch"];
    ends.iter().any(|end| name.ends_with(end))
        || parts.iter().chain(&KNOWN_TIMES).any(|part| name.contains(part))
}

/// A name for the source: that of the file or folder.
fn name_of(path: &str) -> String {
    let parts = path.split('/').rev().filter(|part| !part.contains(['*', '?', '[']));
    let stem = |part: &str| part.split('.').next().unwrap_or_default().to_owned();
    let name = parts.map(stem).find(|stem| !stem.is_empty()).unwrap_or_else(|| "events".to_owned());
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use expect_test::expect;

    use super::*;

    #[test]
    fn a_csv_file_becomes_a_source_that_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("data")).expect("made");
        let rows = "zip,n,share,ok,day,loaded_at,at,\"a, b\",tags,words,none,on\n\
                    00501,7,1.5,t,2013-01-31,2013-02-01T00:00:00Z,2013-01-31 08:30:00,x,\"[1, 2]\",\"[\"\"x\"\"]\",,1\n\
                    10001,-8,2,f,2013-02-01,2013-02-02,2013-02-01T00:00:00Z,,[],[],,2.5\n";
        fs::write(folder.path().join("data/2013-landings.csv"), rows).expect("written");
        let text = source(folder.path(), "data/2013-landings.csv").expect("inferred");
        expect![[r##"
            # As far as data/2013-landings.csv shows; the types are guessed.
            kind: Source
            name: _2013_landings
            batch: {format: csv, path: "data/2013-landings.csv"}
            event_timestamp: at  # when a row became true; or: day, loaded_at
            columns:
              - {name: zip, type: string}
              - {name: "n", type: int64}
              - {name: share, type: float64}
              - {name: ok, type: bool}
              - {name: day, type: date}
              - {name: loaded_at, type: timestamp}
              - {name: at, type: timestamp}
              - {name: "a, b", type: string}
              - {name: tags, type: list<float64>}
              - {name: words, type: list<string>}
              - {name: none, type: string}
              - {name: "on", type: float64}"##]]
        .assert_eq(&text);
        let file = feature_defs::DefFile::new("s.yaml", text.clone());
        let definitions = feature_defs::parse(&[file]).expect("it is sound");
        assert_eq!(definitions.sources["_2013_landings"].columns.len(), 12);
        // Of a folder the files tell.
        let of_folder = source(folder.path(), "data").expect("inferred");
        assert!(of_folder.contains("name: data\nbatch: {format: csv, path: data}"), "{of_folder}");
        for wrong in ["data/none.csv", "nowhere", "data/*.orc"] {
            let error = source(folder.path(), wrong).expect_err("nothing there").to_string();
            assert!(error.contains(wrong), "{error}");
        }
        // What is there and cannot be read says why.
        fs::create_dir(folder.path().join("cut")).expect("made");
        fs::write(folder.path().join("cut/a.parquet"), "PAR1").expect("written");
        let error = source(folder.path(), "cut").expect_err("no Parquet").to_string();
        assert!(error.contains("cut/a.parquet"), "{error}");
    }

    #[test]
    fn numbers_that_look_like_times_become_times() {
        let folder = tempfile::tempdir().expect("a folder");
        let infer = |rows: &str| {
            fs::write(folder.path().join("a.csv"), rows).expect("written");
            source(folder.path(), "a.csv").unwrap_or_else(|error| error.to_string())
        };
        expect![[r#"
            # As far as a.csv shows; the types are guessed.
            kind: Source
            name: a
            batch: {format: csv, path: a.csv}
            event_timestamp: ts  # when a row became true, in numbers that look like milliseconds; or: createdAt
            columns:
              - {name: id, type: int64}
              - {name: ts, type: timestamp, format: epoch_ms}
              - {name: createdAt, type: timestamp, format: epoch_s}
              - {name: price, type: float64}
              - {name: phone, type: int64}"#]].assert_eq(&infer(
            "id,ts,createdAt,price,phone\n7,1704067200000,1704067201.5,1.5,1704067200\n8,1704067260000,1704067261,2,1704067200\n",
        ));
        expect![[r#"
            # As far as a.csv shows; the types are guessed.
            kind: Source
            name: a
            batch: {format: csv, path: a.csv}
            event_timestamp: when  # when a row became true, in numbers that look like seconds
            columns:
              - {name: k, type: int64}
              - {name: when, type: timestamp, format: epoch_s}"#]]
        .assert_eq(&infer("k,when\n1,1704067200\n2,\n"));
        expect![[r##"
            # As far as a.csv shows; the types are guessed.
            kind: Source
            name: a
            batch: {format: csv, path: a.csv}
            event_timestamp: FILL_IN  # no column is a time: which one says when a row became true?
            columns:
              - {name: k, type: int64}
              - {name: "n", type: int64}"##]]
        .assert_eq(&infer("k,n\n1,20240101\n"));
        expect![[r##"
            # As far as a.csv shows; the types are guessed.
            kind: Source
            name: a
            batch: {format: csv, path: a.csv}
            event_timestamp: at
            columns:
              # "" has no name, as an index that pandas wrote: leave it out, or name it
              # k is there twice: give one of the two another name
              - {name: at, type: timestamp}
              # k is there twice: give one of the two another name"##]]
        .assert_eq(&infer(",k,at,k\n0,1,2024-01-01,2\n"));
        expect![[r##"
            # As far as a.csv shows; the types are guessed.
            kind: Source
            name: a
            batch: {format: csv, path: a.csv, delimiter: ";"}
            event_timestamp: at
            columns:
              - {name: k, type: int64}
              - {name: at, type: timestamp}
              - {name: x, type: string}"##]]
        .assert_eq(&infer("k;at;x\n1;2024-01-01;1,5\n"));
        expect![[r##"
            # As far as a.csv shows; the types are guessed.
            kind: Source
            name: a
            batch: {format: csv, path: a.csv, delimiter: "\t"}
            event_timestamp: at
            columns:
              - {name: k, type: int64}
              - {name: at, type: timestamp}"##]]
        .assert_eq(&infer("k\tat\n1\t2024-01-01\n"));
    }
}
