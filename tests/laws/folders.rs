//! A view reads no file of which folders, or a table, say columns by which its `where` leaves out all rows; and has and
//! counts its rows as if it read them all, as it must over one file that has all columns itself.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::Int64Type;
use quern::wire::{ViewCommand, ViewSummary};
use quern_kit::{Node, Random, Repository, Summary, arrow_type, runtime};
use serde_json::{Map, Value, json};

use super::exported::show;

const KINDS: [&str; 5] = ["parquet", "arrow", "csv", "json", "delta"];
/// The columns, their types, and what Delta Lake calls these. Folders may say the last ones.
const COLUMNS: [(&str, &str, &str); 7] = [
    ("k", "int64", "long"),
    ("at", "timestamp", "timestamp"),
    ("x", "int64", "long"),
    ("word", "string", "string"),
    ("region", "string", "string"),
    ("n", "int64", "long"),
    ("day", "date", "date"),
];
/// How many columns are in each file.
const IN_FILES: usize = 4;
const SAID: [[Option<&str>; 3]; 3] = [
    [Some("eu"), Some("us"), None],
    [Some("1"), Some("2"), None],
    [Some("2024-01-01"), Some("2024-01-02"), None],
];
const KEYS: u64 = 4;
/// 2024-01-01.
const START_US: i64 = 1_704_067_200_000_000;
const HOUR_US: i64 = 3_600_000_000;
/// After every row.
const NOW_US: i64 = START_US + 1_000 * HOUR_US;
/// What `where` may ask of folders and files, where that may also fail.
const ASKED: [&str; 21] = [
    "region = 'eu'",
    "region <> 'us'",
    "region IN ('eu', 'us')",
    "region IS NULL",
    "region IS NOT NULL",
    "CAST(region AS BIGINT) > 0",
    "coalesce(region, word) = 'eu'",
    "n = 1",
    "n < 2",
    "n IS NULL",
    "10 / (n - 1) > 0",
    "length(word) = n",
    "day = '2024-01-01'",
    "day >= '2024-01-02'",
    "day IS NOT NULL",
    "CASE WHEN region = 'eu' THEN x > 2 ELSE n = 1 END",
    "x > 2",
    "x IS NULL",
    "10 / x > 1",
    "word = 'eu'",
    "CAST(word AS BIGINT) > 3",
];

/// The text of each column.
type Row = Vec<Option<String>>;

struct File {
    /// What its folders say, or its table, where they say anything.
    folders: [Option<Option<&'static str>>; 3],
    /// Whether it has such a column itself.
    has: [bool; 3],
    rows: Vec<Row>,
}

impl File {
    /// The places of its own columns.
    fn own(&self) -> Vec<usize> {
        let has = (0..self.has.len()).filter(|place| self.has[*place]).map(|place| IN_FILES + place);
        (0..IN_FILES).chain(has).collect()
    }

    /// Its rows, with what the folders say of what it has not itself: a line of JSON has what is not null.
    fn resolved(&self, kind: &str) -> Vec<Row> {
        let mut rows = self.rows.clone();
        for row in &mut rows {
            for (place, folder) in self.folders.iter().enumerate() {
                let own = row[IN_FILES + place].take().filter(|_| self.has[place]);
                let is_folders = !self.has[place] || kind == "json" && own.is_none();
                let said = folder.flatten().map(str::to_owned);
                row[IN_FILES + place] = if is_folders { said } else { own };
            }
        }
        rows
    }
}

fn time(us: i64) -> String {
    chrono::DateTime::from_timestamp_micros(us).unwrap().format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Files of rows, each of which has a time of its own. The first one says all columns.
fn draw(random: &mut Random, kind: &str) -> Vec<File> {
    let mut at_us = START_US;
    let count = 2 + random.below(7);
    let mut file = |number: u64| {
        let folders = SAID.map(|said| {
            let said = random.pick(&said);
            (kind == "delta" || number == 0 || random.below(6) > 0).then_some(said)
        });
        let has = SAID.map(|_| kind != "delta" && random.below(5) == 0);
        let count = 1 + random.below(6);
        let mut row = |_| -> Row {
            at_us += HOUR_US;
            let x = (random.below(5) > 0).then(|| (random.below(12) as i64 - 2).to_string());
            let word = random.pick(&[Some("7"), Some("2"), Some("a"), Some("eu"), None]);
            let files = [Some(random.below(KEYS).to_string()), Some(time(at_us)), x, word.map(str::to_owned)];
            let folders = SAID.map(|said| random.pick(&said).map(str::to_owned));
            files.into_iter().chain(folders).collect()
        };
        File { folders, has, rows: (0..count).map(&mut row).collect() }
    };
    (0..count).map(&mut file).collect()
}

fn batch(rows: &[Row], places: &[usize]) -> RecordBatch {
    let column = |place: &usize| {
        let (name, dtype, _) = COLUMNS[*place];
        let texts: StringArray = rows.iter().map(|row| row[*place].as_deref()).collect();
        (name, cast(&texts, &arrow_type(dtype.parse().unwrap())).unwrap(), true)
    };
    RecordBatch::try_from_iter_with_nullable(places.iter().map(column)).unwrap()
}

fn csv(file: &File) -> String {
    let line = |cells: Vec<&str>| cells.join(",") + "\n";
    let own = file.own();
    let header = line(own.iter().map(|place| COLUMNS[*place].0).collect());
    let cells =
        |row: &Row| line(own.iter().map(|place| row[*place].as_deref().unwrap_or_default()).collect());
    header + &file.rows.iter().map(cells).collect::<String>()
}

fn lines_of_json(file: &File) -> String {
    let line = |row: &Row| {
        let entry = |place: &usize| {
            let (text, (name, dtype, _)) = (row[*place].as_deref()?, COLUMNS[*place]);
            let value = if dtype == "int64" { json!(text.parse::<i64>().unwrap()) } else { json!(text) };
            Some((name.to_owned(), value))
        };
        Value::Object(file.own().iter().filter_map(entry).collect::<Map<_, _>>()).to_string() + "\n"
    };
    file.rows.iter().map(line).collect()
}

/// Where a file lies.
fn path(kind: &str, number: usize, file: &File) -> String {
    if kind == "delta" {
        return format!("parts/{number}.parquet");
    }
    let said = file.folders.iter().zip(&COLUMNS[IN_FILES..]);
    let folder = |(said, (name, ..)): (&Option<Option<&str>>, &(&str, &str, &str))| {
        said.map_or(String::new(), |text| format!("{name}={}/", text.unwrap_or("__HIVE_DEFAULT_PARTITION__")))
    };
    format!("parts/{}{number}.{kind}", said.map(folder).collect::<String>())
}

fn write(repository: &Repository, kind: &str, (number, file): (usize, &File), group_rows: usize) {
    let path = path(kind, number, file);
    match kind {
        "csv" => repository.write(path, csv(file)),
        "json" => repository.write(path, lines_of_json(file)),
        "arrow" => repository.write_arrow_in_batches(&path, &batch(&file.rows, &file.own()), group_rows),
        _ => repository.write_parquet_in_groups(&path, &batch(&file.rows, &file.own()), group_rows),
    }
    if kind == "delta" {
        commit(repository, number, file);
    }
}

/// What a table of Delta Lake says of a file, and before the first one of itself.
fn commit(repository: &Repository, number: usize, file: &File) {
    let said = file.folders.iter().zip(&COLUMNS[IN_FILES..]);
    let values: Map<String, Value> =
        said.map(|(said, (name, ..))| ((*name).to_owned(), json!(said.flatten()))).collect();
    let added = json!({"add": {"path": format!("{number}.parquet"), "partitionValues": values, "size": 1,
        "modificationTime": 5, "dataChange": true}});
    let mut actions = format!("{added}\n");
    if number == 0 {
        let field = |(name, _, dtype)| json!({"name": name, "type": dtype, "nullable": true, "metadata": {}});
        let schema = json!({"type": "struct", "fields": COLUMNS.map(field)}).to_string();
        let partitions: Vec<&str> = COLUMNS[IN_FILES..].iter().map(|(name, ..)| *name).collect();
        let protocol = json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}});
        let table = json!({"metaData": {"id": "t", "format": {"provider": "parquet", "options": {}},
            "schemaString": schema, "partitionColumns": partitions, "configuration": {}, "createdTime": 0}});
        actions = format!("{protocol}\n{table}\n{actions}");
    }
    repository.write(format!("parts/_delta_log/{number:020}.json"), actions);
}

/// The same views of the files, and of one that has all columns and rows.
fn definitions(kind: &str, filters: &[String]) -> String {
    let declared = COLUMNS.map(|(name, dtype, _)| format!("{{name: {name}, type: {dtype}}}")).join(", ");
    let mut text = "kind: Entity\nname: e\njoin_keys: [{name: k, type: int64}]\n".to_owned();
    for (source, format) in [("parts", kind), ("whole", "parquet")] {
        text += &format!(
            "---\nkind: Source\nname: {source}\nbatch: {{format: {format}, path: {source}}}\nevent_timestamp: at\n\
             columns: [{declared}]\n"
        );
        for (number, filter) in filters.iter().enumerate() {
            text += &format!(
                "---\nkind: FeatureView\nname: {source}_rows{number}\nentities: [e]\nsource: {source}\nwhere: \"{filter}\"\n\
                 features: [x, word, region, n, day]\n\
                 ---\nkind: FeatureView\nname: {source}_events{number}\nentities: [e]\nsource: {source}\nwhere: \"{filter}\"\n\
                 aggregations:\n  - {{name: events, function: count, windows: [1d, lifetime]}}\n  \
                 - {{name: sum, function: sum, of: x, windows: [lifetime]}}\n\
                 ---\nkind: FeatureService\nname: {source}{number}\nfeatures: [{source}_rows{number}, {source}_events{number}]\n"
            );
        }
    }
    text
}

/// Writes the files, and one of all their rows.
fn repository(kind: &str, files: &[File], filters: &[String], group_rows: usize) -> Repository {
    let repository = Repository::new(&definitions(kind, filters));
    for file in files.iter().enumerate() {
        write(&repository, kind, file, group_rows);
    }
    let rows: Vec<Row> = files.iter().flat_map(|file| file.resolved(kind)).collect();
    repository.write_parquet("whole/all.parquet", &batch(&rows, &(0..COLUMNS.len()).collect::<Vec<_>>()));
    repository
}

fn shown(rows: &RecordBatch) -> Vec<String> {
    (0..rows.num_rows()).map(|row| show(rows.columns().iter(), row)).collect()
}

/// All rows of a view, or those of each key that count last, in no order.
fn exported(node: &Node, view: String, latest: bool) -> Vec<String> {
    let at_us = latest.then_some(NOW_US);
    let mut rows =
        shown(&node.export(&ViewCommand { view, latest, at_us, ..ViewCommand::default() }).unwrap());
    rows.sort();
    rows
}

fn spine(asked: &[(i64, i64)]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(asked.iter().map(|(key, _)| *key)));
    let at = TimestampMicrosecondArray::from_iter_values(asked.iter().map(|(_, at_us)| *at_us));
    let spine: [(&str, ArrayRef); 2] = [("k", keys), ("event_timestamp", Arc::new(at.with_timezone("UTC")))];
    RecordBatch::try_from_iter(spine).unwrap()
}

fn of_view<'a>(summary: &'a Summary, view: &str) -> &'a ViewSummary {
    summary.views.iter().find(|of| of.view == view).unwrap()
}

async fn check(random: &mut Random, kind: &str) {
    let files = draw(random, kind);
    let filters: Vec<String> = (0..4).map(|_| filter(random, 3)).collect();
    let repository = repository(kind, &files, &filters, 1 + random.below(4) as usize);
    let node = repository.open_applied().await;
    let asked: Vec<(i64, i64)> = (0..30)
        .map(|_| (random.below(KEYS + 1) as i64, START_US + random.below(50) as i64 * HOUR_US))
        .collect();
    let spine = spine(&asked);
    for (number, filter) in filters.iter().enumerate() {
        let [parts, whole] = ["parts", "whole"].map(|source| {
            [
                exported(&node, format!("{source}_rows{number}"), false),
                exported(&node, format!("{source}_rows{number}"), true),
                exported(&node, format!("{source}_events{number}"), true),
                shown(&node.service(&format!("{source}{number}")).training_set(&spine, false)),
            ]
        });
        assert_eq!(parts, whole, "{kind}, where {filter}");
    }
    let summary = node.materialize_to(NOW_US);
    for (number, filter) in filters.iter().enumerate() {
        for what in ["rows", "events"] {
            let [parts, whole] =
                ["parts", "whole"].map(|source| of_view(&summary, &format!("{source}_{what}{number}")));
            let counts = |of: &ViewSummary| {
                (of.rows_written, of.rows_filtered, of.failed.clone(), of.rejected.clone())
            };
            assert_eq!(counts(parts), counts(whole), "{kind}, {what} where {filter}");
            assert!(parts.rows_read <= whole.rows_read, "{kind}, {what} where {filter}");
        }
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..=KEYS as i64));
        let mut served = Vec::new();
        for source in ["parts", "whole"] {
            let service = node.service(&format!("{source}{number}"));
            let inputs = service.inputs(vec![Arc::clone(&keys)]);
            let found = service.look_up(inputs, vec![NOW_US; keys.len()]).await.unwrap();
            served.push(shown(&found.vectors));
        }
        assert_eq!(served[0], served[1], "{kind}, where {filter}");
    }
}

fn filter(random: &mut Random, depth: u32) -> String {
    if depth == 0 || random.below(4) == 0 {
        return random.pick(&ASKED).to_owned();
    }
    match random.below(6) {
        0 => format!("NOT ({})", filter(random, depth - 1)),
        1 => format!("({}) OR ({})", filter(random, depth - 1), filter(random, depth - 1)),
        _ => format!("({}) AND ({})", filter(random, depth - 1), filter(random, depth - 1)),
    }
}

#[test]
fn a_view_has_the_rows_of_all_files_whichever_it_reads() {
    let mut random = Random::new("folders");
    for _ in 0..quern_kit::cases(1) {
        for kind in KINDS {
            runtime().block_on(check(&mut random, kind));
        }
    }
}

/// A file of a region, of one row for each of two keys.
fn of_region(region: &'static str, first_us: i64, x: i64) -> File {
    let row = |key: i64| -> Row {
        let at = time(first_us + key * HOUR_US);
        vec![Some(key.to_string()), Some(at), Some((x + key).to_string()), None, None, None, None]
    };
    let folders = [Some(Some(region)), Some(Some("1")), Some(None)];
    File { folders, has: [false; 3], rows: vec![row(0), row(1)] }
}

/// Makes what a Parquet file holds unreadable, but not what it says of itself.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let end = bytes.len() - 8;
    let footer = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) as usize;
    bytes[4..end - footer].fill(0xff);
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_where_leaves_out_whole_is_not_read() {
    let filters = ["region = 'eu' AND x > 5", "x > 5"].map(str::to_owned);
    for kind in ["parquet", "delta"] {
        let files = [of_region("eu", START_US, 5), of_region("us", START_US + 9 * HOUR_US, 7)];
        let repository = repository(kind, &files, &filters, 1);
        let node = repository.open_applied().await;
        let summary = node.materialize_to(NOW_US);
        for (view, read, left_out) in
            [("parts_rows0", 2, 3), ("parts_events0", 2, 3), ("parts_rows1", 4, 1), ("whole_rows0", 4, 3)]
        {
            let of = of_view(&summary, view);
            assert_eq!((of.rows_read, of.rows_filtered), (read, left_out), "{kind}: {view}");
        }
        damage(&repository.path().join(path(kind, 1, &files[1])));
        let spine = spine(&[(0, NOW_US), (1, NOW_US)]);
        let trained = node.service("parts0").training_set(&spine, false);
        let numbers = |name: &str| {
            let numbers = trained.column_by_name(name).unwrap().as_primitive::<Int64Type>();
            numbers.iter().collect::<Vec<_>>()
        };
        assert_eq!(numbers("x"), [None, Some(6)], "{kind}");
        assert_eq!(numbers("events_lifetime"), [Some(0), Some(1)], "{kind}");
        assert_eq!(exported(&node, "parts_rows0".to_owned(), false).len(), 1, "{kind}");
        let error = node.service("parts1").try_training_set(&spine).unwrap_err();
        assert!(error.text.contains("1.parquet` cannot be read"), "{kind}: {error}");
    }
}
