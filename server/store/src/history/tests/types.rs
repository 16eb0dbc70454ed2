//! Which types do other tools write, and what becomes of each?
//!
//! `docs/definitions.md` answers with two tables, which these tests write (run them with `UPDATE_EXPECT=1`): they read
//! files made by the tools themselves, or in the layout that they document (`tests/fixtures/make_types.py`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use feature_defs::{DefFile, parse};
use quern_engine::SourceSchemas;
use quern_engine::schema::type_name;

use super::*;

/// Who writes, and the files.
const WRITERS: [(&str, &[&str]); 6] = [
    ("pandas", &["pandas"]),
    ("Spark", &["spark", "spark_int96"]),
    ("Polars", &["polars"]),
    ("DuckDB", &["duckdb"]),
    ("Snowflake", &["snowflake"]),
    ("BigQuery", &["bigquery"]),
];

/// What a type of the language may be made of by a cast, where a column's own type is none.
const CASTS: [&str; 4] = ["int64", "float64", "string", "timestamp"];

/// The columns of the CSV files behind key and time, in order.
const TEXTS: [ScalarType; 7] = [
    ScalarType::Bool,
    ScalarType::Int64,
    ScalarType::Float64,
    ScalarType::String,
    ScalarType::Timestamp,
    ScalarType::Timestamp,
    ScalarType::Date,
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/types").join(name)
}

/// A repository with one file of the fixtures.
fn repository(format: Format, name: &str) -> Repository {
    let mut repository = Repository::new(format, "data");
    repository.source.event_timestamp = "seen".to_owned();
    repository.file(&format!("data/{name}"), fs::read(fixture(name)).unwrap());
    repository
}

/// The type of a feature that is the column as it stands, or that is cast to `cast`; nothing where it is refused.
fn feature(schema: &SchemaRef, column: &str, cast: Option<&str>) -> Option<String> {
    let column = format!("\"{}\"", column.replace('"', "\"\""));
    let cast = cast.map_or_else(String::new, |cast| format!(", type: {cast}"));
    let text = format!(
        "kind: Entity\nname: e\njoin_keys: [{{name: k, type: int64}}]\n---\nkind: Source\nname: events\nbatch: {{format: \
         parquet, path: data}}\nevent_timestamp: seen\n---\nkind: FeatureView\nname: v\nentities: [e]\nsource: events\n\
         features: [{{name: x, expr: '{column}'{cast}}}]\n"
    );
    let definitions = parse(&[DefFile::new("a.yaml", text)]).unwrap();
    let schemas = SourceSchemas::from([("events".to_owned(), Arc::clone(schema))]);
    let catalog = quern_engine::compile(definitions, &schemas).ok()?;
    Some(type_name(catalog.views["v"].features.field(0).data_type()))
}

fn outcome(schema: &SchemaRef, column: &str) -> String {
    if let Some(dtype) = feature(schema, column, None) {
        return format!("`{dtype}`");
    }
    let casts = CASTS.into_iter().filter(|cast| feature(schema, column, Some(cast)).is_some());
    let casts: Vec<String> = casts.map(|cast| format!("`{cast}`")).collect();
    match casts.as_slice() {
        [] => "none".to_owned(),
        casts => format!("none; with `type`: {}", casts.join(", ")),
    }
}

#[test]
fn the_types_of_parquet_files_are_documented() {
    // What it is here, and for each writer its types.
    let mut table: BTreeMap<String, [Vec<String>; 6]> = BTreeMap::new();
    for (place, (_, files)) in WRITERS.iter().enumerate() {
        for file in *files {
            let repository = repository(Format::Parquet, &format!("{file}.parquet"));
            let schema = repository.schema();
            let rows = all(&repository.open().unwrap()).unwrap();
            assert_eq!(rows.num_rows(), 2, "{file}");
            for field in
                schema.fields().iter().filter(|field| !["k", "seen"].contains(&field.name().as_str()))
            {
                let dtypes = &mut table.entry(outcome(&schema, field.name())).or_default()[place];
                let name = format!("`{}`", field.name().trim_start_matches("object: "));
                if !dtypes.contains(&name) {
                    dtypes.push(name);
                }
            }
        }
    }
    let order = |outcome: &str| {
        let known = ScalarType::ALL.into_iter().position(|dtype| outcome == format!("`{}`", dtype.name()));
        (outcome.starts_with("none"), known.unwrap_or(usize::MAX))
    };
    let mut outcomes: Vec<&String> = table.keys().collect();
    outcomes.sort_by_key(|outcome| (order(outcome), outcome.len()));
    let names: Vec<&str> = WRITERS.iter().map(|(name, _)| *name).collect();
    let mut text = format!("| here | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for outcome in outcomes {
        let cells: Vec<String> = table[outcome].iter().map(|dtypes| dtypes.join(", ")).collect();
        text += &format!("| {outcome} | {} |\n", cells.join(" | "));
    }
    documented("types of Parquet", &text);
}

#[test]
fn the_texts_of_csv_files_are_documented() {
    let names: Vec<&str> = WRITERS.iter().map(|(name, _)| *name).collect();
    let mut text = format!("| type | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (place, dtype) in TEXTS.into_iter().enumerate() {
        let cells = WRITERS.map(|(_, files)| cell(files[0], 1, place, dtype));
        text += &format!("| `{}` | {} |\n", dtype.name(), cells.join(" | "));
    }
    let nulls = WRITERS.map(|(_, files)| {
        let cells = TEXTS.into_iter().enumerate().map(|(place, dtype)| cell(files[0], 2, place, dtype));
        let distinct: BTreeSet<String> = cells.filter(|cell| !cell.is_empty()).collect();
        distinct.into_iter().collect::<Vec<_>>().join(", ")
    });
    text += &format!("| null | {} |\n", nulls.join(" | "));
    documented("texts of CSV", &text);
}

/// The text that stands in a file, and what is made of it: the first line has values, the second nulls.
fn cell(file: &str, line: usize, place: usize, dtype: ScalarType) -> String {
    let name = format!("{file}.csv");
    let mut repository = repository(Format::Csv, &name);
    let text = fs::read_to_string(fixture(&name)).unwrap();
    let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let records: Vec<_> = reader.records().map(|record| record.unwrap()).collect();
    let [column, value, said] = [0, 1, line].map(|line| &records[line][place + 2]);
    if line == 2 && said == value {
        // A type without nulls.
        return String::new();
    }
    repository.declare("seen", scalar(ScalarType::Timestamp));
    repository.declare(column, scalar(dtype));
    let said = if said.is_empty() { "(empty)".to_owned() } else { format!("`{said}`") };
    match read(&repository.open().unwrap(), 0, &[column], Some(&[line as u32 - 1])) {
        Ok(rows) if rows.column(0).is_null(0) == (line == 2) => said,
        Ok(_) => format!("{said}: a text where it is a `{}`", dtype.name()),
        Err(_) => format!("{said}: refused"),
    }
}

/// Compares a table with the one of that name in `docs/definitions.md`.
fn documented(name: &str, table: &str) {
    let reference = expect_file!["../../../../../docs/definitions.md"];
    let text = reference.data();
    let start = format!("<!-- {name} -->\n");
    let (before, after) = text.split_once(&start).expect("a place for the table");
    let (_, after) = after.split_once("<!-- end -->").expect("an end of the table");
    reference.assert_eq(&format!("{before}{start}\n{table}\n<!-- end -->{after}"));
}
