//! Is each type that pandas, pyarrow, Polars, DuckDB, Spark, deltalake and PyIceberg write read as what it says, or
//! refused in words?
//!
//! `fixtures/writers/expected.json` says of each file, column and type (a *cell*) what is true, as the writer was told
//! it; Quern had no part in it. The cells of a file are read each by a source of its own, so that none hides another.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use quern_kit::{Repository, fixture, root, runtime};
use serde_json::Value as Json;

use super::buckets::copy;

/// A file, as `expected.json` has it.
struct File<'a>(&'a Json);

/// A column of it, declared as some type.
struct Cell<'a>(&'a Json);

fn text<'a>(json: &'a Json, key: &str) -> Option<&'a str> {
    json[key].as_str()
}

fn numbers(json: &Json) -> Vec<i64> {
    json.as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).collect()
}

impl File<'_> {
    fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        self.0["cells"].as_array().unwrap().iter().map(Cell)
    }

    /// A service over these cells, of which each has a source and a view of its own.
    fn definitions(&self, cells: &[Cell<'_>]) -> String {
        let mut batch = self.0["options"].clone();
        batch["path"] = self.0["path"].clone();
        let with_name = |name: &str, declared: &Json| {
            let mut declared = declared.clone();
            declared["name"] = name.into();
            declared
        };
        let key = text(&self.0["id"], "type").unwrap();
        let mut all = format!("kind: Entity\nname: e\njoin_keys: [{{name: id, type: {key}}}]\n");
        for (place, Cell(cell)) in cells.iter().enumerate() {
            let mut columns = vec![with_name("id", &self.0["id"]), with_name("at", &self.0["at"])];
            let column = text(cell, "column").unwrap();
            if cell["undeclared"] != true {
                let of = ["type", "from", "format"].into_iter().filter(|key| !cell[key].is_null());
                let declared = of.map(|key| (key.to_owned(), cell[key].clone())).collect();
                columns.push(with_name(column, &Json::Object(declared)));
            }
            let sql = text(cell, "expr").map_or_else(|| format!("\"{column}\""), str::to_owned);
            let feature = serde_json::json!({"name": format!("f{place}"), "expr": sql, "type": cell["type"]});
            all += &format!(
                "---\nkind: Source\nname: s{place}\nbatch: {batch}\nevent_timestamp: at\ncolumns: {}\n---\n\
                 kind: FeatureView\nname: v{place}\nentities: [e]\nsource: s{place}\nfeatures: [{feature}]\n",
                Json::from(columns),
            );
        }
        let views: Vec<String> = (0..cells.len()).map(|place| format!("v{place}")).collect();
        all + &format!("---\nkind: FeatureService\nname: svc\nfeatures: [{}]\n", views.join(", "))
    }

    /// What cells have for each row of the file, and how many values of each failed; or why they cannot be read.
    async fn read(&self, cells: &[Cell<'_>]) -> Result<(RecordBatch, Vec<u64>), String> {
        let repository = Repository::new(&self.definitions(cells));
        let writer = text(self.0, "writer").unwrap();
        copy(&folder().join(writer), &repository.path().join(writer));
        let node = repository.open().await;
        node.apply().await.map_err(|error| error.to_string())?;
        let (ids, times) = (numbers(&self.0["ids"]), numbers(&self.0["at_us"]));
        let at = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        let spine: [(&str, ArrayRef); 2] =
            [("id", Arc::new(Int64Array::from(ids))), ("event_timestamp", Arc::new(at))];
        let spine = RecordBatch::try_from_iter(spine).unwrap();
        let (set, notes) = node.service("svc").try_training_set(&spine).map_err(|error| error.to_string())?;
        let failed = (0..cells.len()).map(|place| notes.failed.get(&format!("f{place}")).copied());
        Ok((set, failed.map(Option::unwrap_or_default).collect()))
    }
}

fn folder() -> PathBuf {
    root().join("tests/fixtures/writers")
}

/// Whether a value is the one expected, bit for bit; one NaN is like the other.
fn agrees(values: &ArrayRef, row: usize, expected: &Json) -> bool {
    let is_float = |value: f64, narrow: fn(f64) -> f64| {
        let expected = expected.as_str().and_then(|text| text.parse::<f64>().ok()).map(narrow);
        expected.is_some_and(|it| it.to_bits() == value.to_bits() || it.is_nan() && value.is_nan())
    };
    let is_list = |items: &ArrayRef| {
        let expected = expected.as_array().filter(|expected| expected.len() == items.len());
        expected.is_some_and(|all| all.iter().enumerate().all(|(place, item)| agrees(items, place, item)))
    };
    if values.is_null(row) {
        return expected.is_null();
    }
    match values.data_type() {
        DataType::Boolean => expected.as_bool() == Some(values.as_boolean().value(row)),
        DataType::Int32 => expected.as_i64() == Some(values.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => expected.as_i64() == Some(values.as_primitive::<Int64Type>().value(row)),
        DataType::Date32 => expected.as_i64() == Some(values.as_primitive::<Date32Type>().value(row).into()),
        DataType::Timestamp(..) => {
            expected.as_i64() == Some(values.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Float32 => {
            is_float(values.as_primitive::<Float32Type>().value(row).into(), |it| f64::from(it as f32))
        }
        DataType::Float64 => is_float(values.as_primitive::<Float64Type>().value(row), |it| it),
        DataType::Utf8 => expected.as_str() == Some(values.as_string::<i32>().value(row)),
        DataType::Binary => {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            expected.as_str() == Some(&hex(values.as_binary::<i32>().value(row)))
        }
        DataType::List(_) => is_list(&values.as_list::<i32>().value(row)),
        DataType::FixedSizeList(..) => is_list(&values.as_fixed_size_list().value(row)),
        other => panic!("a feature is {other}"),
    }
}

/// What is wrong with the cells of a file, of which there are so many.
async fn wrong(file: &File<'_>) -> (usize, Vec<String>) {
    let (refused, right): (Vec<Cell<'_>>, Vec<Cell<'_>>) =
        file.cells().partition(|Cell(cell)| cell["expected"] == "refused");
    let name = |Cell(cell): &Cell<'_>| format!("{}, {}", text(file.0, "path").unwrap(), cell["cell"]);
    let mut wrong = Vec::new();
    match file.read(&right).await {
        Err(_) if right.is_empty() => (),
        Err(error) => wrong.push(format!("{}: {error}", file.0["path"])),
        Ok((set, failed)) => {
            for (place, cell) in right.iter().enumerate() {
                let values = set.column_by_name(&format!("f{place}")).unwrap();
                let expected = cell.0["expected"].as_array().unwrap();
                let rows = (0..values.len()).filter(|row| !agrees(values, *row, &expected[*row]));
                let rows: Vec<usize> = rows.collect();
                let lost = cell.0["failed"].as_array().map_or(0, Vec::len) as u64;
                if !rows.is_empty() || failed[place] != lost {
                    let failed = failed[place];
                    wrong.push(format!(
                        "{}: rows {rows:?} of {values:?}; {failed} failed, and {lost} should",
                        name(cell)
                    ));
                }
            }
        }
    }
    for cell in &refused {
        let says: Vec<&str> = cell.0["says"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
        match file.read(&[Cell(cell.0)]).await {
            Ok((set, _)) => wrong.push(format!("{}: read as {:?}", name(cell), set.columns().last())),
            Err(error) if says.iter().all(|part| error.contains(part)) => (),
            Err(error) => wrong.push(format!("{}: {error}", name(cell))),
        }
    }
    (refused.len() + right.len(), wrong)
}

/// Reads what one of them wrote.
fn check(writer: &str) {
    let all: Json = serde_json::from_slice(&fixture("writers/expected.json")).unwrap();
    let files = all["files"].as_array().unwrap().iter().filter(|file| file["writer"] == writer);
    let (mut count, mut all_wrong) = (0, Vec::new());
    for file in files {
        let (cells, wrong) = runtime().block_on(wrong(&File(file)));
        count += cells;
        all_wrong.extend(wrong);
    }
    assert!(count > 0, "no file of {writer}");
    assert!(all_wrong.is_empty(), "{} of {count} cells:\n{}", all_wrong.len(), all_wrong.join("\n"));
}

#[test]
fn what_pandas_writes() {
    check("pandas");
}

#[test]
fn what_pyarrow_writes() {
    check("pyarrow");
}

#[test]
fn what_polars_writes() {
    check("polars");
}

#[test]
fn what_duckdb_writes() {
    check("duckdb");
}

#[test]
fn what_spark_writes() {
    check("pyspark");
}

#[test]
fn what_deltalake_writes() {
    check("deltalake");
}

#[test]
fn what_pyiceberg_writes() {
    check("pyiceberg");
}
