//! Laws 1 and 2 over whatever types files, here and in a bucket, and pushes bring: training and serving say of each
//! stored value what [`values`] says, and count what a column's type cannot say. [`arrays`] writes and reads them.

mod arrays;
mod values;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Int64Type};
use quern_kit::{Bucket, Push, Random, Repository, arrow_type, runtime};

use self::arrays::{array, cell};
use self::values::{Value, days, draw, said, targets, types};

/// 2026-01-01.
const START_DAYS: i64 = 20_454;
const DAY_US: i64 = 86_400_000_000;
/// After every row.
const NOW_US: i64 = (START_DAYS + 1_000) * DAY_US;
const KEYS: i64 = 5;
/// How many feature columns there are; of the first of them there are windows too.
const COLUMNS: usize = 16;
const COUNTED: usize = 4;

/// A column: what it is declared as, and how each part of history has it.
struct Column {
    target: &'static str,
    /// Whether its type is left to the files.
    inferred: bool,
    written: Vec<DataType>,
    /// The files that lack it: of files from before there was such a column.
    lacks: Vec<bool>,
}

struct Row {
    key: i64,
    /// Days since 1970, of which each row has one of its own.
    day: i64,
    values: Vec<Option<Value>>,
}

/// A source of several parts: files, of which the last is pushed instead where there are pushes.
struct Case {
    /// Of the files.
    format: &'static str,
    key: Column,
    time: Vec<DataType>,
    columns: Vec<Column>,
    parts: Vec<Vec<Row>>,
    pushed: bool,
}

/// How some value of this type can be written, in another way for each part.
fn written(random: &mut Random, target: &str, parts: usize) -> Vec<DataType> {
    let all: Vec<DataType> = types().into_iter().filter(|dtype| targets(dtype).contains(&target)).collect();
    (0..parts).map(|_| random.pick(&all)).collect()
}

impl Case {
    fn draw(random: &mut Random) -> Case {
        let (parts, pushed) = (1 + random.below(3) as usize, random.below(2) == 0);
        let mut column = || {
            let first = random.pick(&types());
            let target = random.pick(&targets(&first));
            let written = written(random, target, parts);
            let is_its_own = written.iter().all(|dtype| targets(dtype)[0] == target && !dtype.is_decimal());
            let inferred = is_its_own && !pushed && random.below(2) == 0;
            // One file has it, and who pushes says it.
            let files = if pushed && parts > 1 { parts - 1 } else { parts };
            let has = random.below(files as u64) as usize;
            let lacks = (0..parts).map(|part| part < files && part != has && random.below(3) == 0).collect();
            Column { target, inferred, written, lacks }
        };
        let columns: Vec<Column> = (0..COLUMNS).map(|_| column()).collect();
        let target = random.pick(&["int32", "int64", "string", "bytes", "date", "timestamp"]);
        let (written_as, lacks) = (written(random, target, parts), vec![false; parts]);
        let key = Column { target, inferred: false, written: written_as, lacks };
        let time = written(random, "timestamp", parts);
        let mut days: Vec<i64> = (0..parts as i64 * 20).collect();
        let rows = |part: usize| {
            let row = |_| {
                let day = START_DAYS + days.swap_remove(random.below(days.len() as u64) as usize);
                let key = random.below(KEYS as u64) as i64;
                let values = columns
                    .iter()
                    .map(|column| draw(random, &column.written[part]).filter(|_| !column.lacks[part]));
                Row { key, day, values: values.collect() }
            };
            (0..20).map(row).collect()
        };
        let parts = (0..parts).map(rows).collect();
        // Drawn last: what is in the files does not depend on it.
        let format = random.pick(&["parquet", "arrow"]);
        Case { format, key, time, columns, parts, pushed }
    }

    fn definitions(&self) -> String {
        let declared = self.columns.iter().enumerate().filter(|(_, column)| !column.inferred);
        let declared: String =
            declared.map(|(i, column)| format!(", {{name: v{i}, type: \"{}\"}}", column.target)).collect();
        let features: Vec<String> = (0..COLUMNS).map(|i| format!("v{i}")).collect();
        let counts = (0..COUNTED)
            .map(|i| format!("\n  - {{name: c{i}, function: count, of: v{i}, windows: [lifetime]}}"));
        format!(
            "kind: Entity\nname: e\njoin_keys: [{{name: k, type: {key}}}]\n---\n\
             kind: Source\nname: s\nbatch: {{format: {format}, path: \"rows/*.{format}\"}}\npush: {}\nevent_timestamp: at\n\
             columns: [{{name: k, type: {key}}}, {{name: at, type: timestamp}}{declared}]\n---\n\
             kind: FeatureView\nname: latest\nentities: [e]\nsource: s\nfeatures: [{}]\n---\n\
             kind: FeatureView\nname: counts\nentities: [e]\nsource: s\naggregations:{}\n---\n\
             kind: FeatureService\nname: svc\nfeatures: [latest, counts]\n",
            self.pushed,
            features.join(", "),
            counts.collect::<String>(),
            key = self.key.target,
            format = self.format,
        )
    }

    fn batch(&self, part: usize) -> RecordBatch {
        let rows = &self.parts[part];
        let keys = rows.iter().map(|row| Some(key(row.key, &self.key.written[part])));
        let times = rows.iter().map(|row| Some(days(row.day, &self.time[part])));
        let mut columns = vec![
            ("k".to_owned(), array(&self.key.written[part], &keys.collect::<Vec<_>>()), true),
            ("at".to_owned(), array(&self.time[part], &times.collect::<Vec<_>>()), true),
        ];
        for (i, column) in self.columns.iter().enumerate().filter(|(_, column)| !column.lacks[part]) {
            let values: Vec<_> = rows.iter().map(|row| row.values[i].clone()).collect();
            columns.push((format!("v{i}"), array(&column.written[part], &values), true));
        }
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    /// What its column should be of a stored value; none where that cannot say it.
    fn said(&self, part: usize, row: &Row, column: usize) -> Option<Value> {
        let Column { target, written, .. } = &self.columns[column];
        said(&written[part], row.values[column].as_ref()?, &arrow_type(target.parse().unwrap()))
    }

    /// Whether a value of the row is there, and cannot be said.
    fn is_lost(&self, part: usize, row: &Row, column: usize) -> bool {
        row.values[column].is_some() && self.said(part, row, column).is_none()
    }

    /// Whether the part is pushed, which refuses rows with a value that cannot be said.
    fn is_pushed(&self, part: usize) -> bool {
        self.pushed && part > 0 && part + 1 == self.parts.len()
    }

    /// The rows of history that a key sees at a time, with their parts.
    fn seen(&self, of: i64, at_us: i64) -> impl Iterator<Item = (usize, &Row)> {
        let rows = self.parts.iter().enumerate();
        let rows = rows.flat_map(|(part, rows)| rows.iter().map(move |row| (part, row)));
        rows.filter(move |(part, row)| {
            let refused = || (0..COLUMNS).any(|column| self.is_lost(*part, row, column));
            row.key == of && row.day * DAY_US <= at_us && !(self.is_pushed(*part) && refused())
        })
    }

    fn latest(&self, of: i64, at_us: i64) -> Option<(usize, &Row)> {
        self.seen(of, at_us).max_by_key(|(_, row)| row.day)
    }
}

/// A key in a type of a file.
fn key(number: i64, dtype: &DataType) -> Value {
    match dtype {
        DataType::Dictionary(_, value) => key(number, value),
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => days(number, dtype),
        dtype if dtype.is_numeric() => Value::Whole(number.into()),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Value::Text(format!("k{number}")),
        _ => Value::Bytes(format!("k_{number}").into_bytes()),
    }
}

/// What is asked: keys and times, the last of which see everything.
fn questions(random: &mut Random) -> Vec<(i64, i64)> {
    let any = (0..40).map(|_| {
        let at_us = (START_DAYS + random.below(70) as i64) * DAY_US - random.below(2) as i64;
        (random.below(KEYS as u64 + 1) as i64, at_us)
    });
    any.collect::<Vec<_>>().into_iter().chain((0..KEYS).map(|key| (key, NOW_US))).collect()
}

fn check_values(case: &Case, questions: &[(i64, i64)], found: &RecordBatch, what: &str) {
    for (i, column) in case.columns.iter().enumerate() {
        let values = found.column_by_name(&format!("v{i}")).unwrap();
        for (row, (key, at_us)) in questions.iter().enumerate() {
            let latest = case.latest(*key, *at_us);
            let expected = latest.and_then(|(part, stored)| case.said(part, stored, i));
            let stored = latest.map(|(part, stored)| (&column.written[part], &stored.values[i]));
            let target = column.target;
            assert_eq!(cell(values, row), expected, "{what}, row {row}: {stored:?} as {target}");
        }
    }
    for i in 0..COUNTED {
        let counts = found.column_by_name(&format!("c{i}_lifetime")).unwrap();
        for (row, (key, at_us)) in questions.iter().enumerate() {
            let said = case.seen(*key, *at_us).filter(|(part, stored)| case.said(*part, stored, i).is_some());
            let count = counts.as_primitive::<Int64Type>().value(row);
            assert_eq!(count, said.count() as i64, "{what}, row {row}: count of v{i}");
        }
    }
}

async fn check(random: &mut Random) {
    let case = Case::draw(random);
    let repository = Repository::new(&case.definitions());
    for part in (0..case.parts.len()).filter(|part| !case.is_pushed(*part)) {
        let group_rows = 1 + random.below(20) as usize;
        let (name, rows) = (format!("rows/{part}.{}", case.format), case.batch(part));
        match case.format {
            "arrow" => repository.write_arrow_in_batches(&name, &rows, group_rows),
            _ => repository.write_parquet_in_groups(&name, &rows, group_rows),
        }
    }
    let bucket = Bucket::start().await;
    if random.below(3) == 0 {
        let rows = repository.path().join("rows");
        if rows.exists() {
            fs::rename(rows, bucket.path().join("rows")).unwrap();
        }
        let definitions = case.definitions().replace("rows/*", "s3://rows/rows/*");
        repository.write("definitions.yaml", format!("{}---\n{definitions}", bucket.connection()));
        bucket.faults().fails.store(5, Ordering::Relaxed);
    }
    let node = repository.open_applied().await;
    for part in (0..case.parts.len()).filter(|part| case.is_pushed(*part)) {
        let rejected = match node.push(Push::new("s", case.batch(part))).await {
            Ok(reply) => reply.rejected,
            Err(failure) => failure.rejected,
        };
        for (index, row) in case.parts[part].iter().enumerate() {
            let cause = rejected.iter().find(|rejected| rejected.index == index);
            let lost = (0..COLUMNS).filter(|i| case.is_lost(part, row, *i));
            let shown = |i: usize| (&case.columns[i].written[part], &row.values[i], case.columns[i].target);
            let lost: Vec<_> = lost.map(shown).collect();
            assert_eq!(cause.is_some(), !lost.is_empty(), "{cause:?}, and lost are {lost:?}");
        }
    }
    node.materialize_to(NOW_US);

    let questions = questions(random);
    let keys: Vec<_> = questions.iter().map(|(number, _)| *number).collect();
    let dtype = arrow_type(case.key.target.parse().unwrap());
    let keys = array(&dtype, &keys.iter().map(|number| Some(key(*number, &dtype))).collect::<Vec<_>>());
    let times: Vec<i64> = questions.iter().map(|(_, at_us)| *at_us).collect();
    let at = TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC");
    let row = Int64Array::from_iter_values(0..questions.len() as i64);
    let spine: [(&str, ArrayRef); 3] =
        [("row", Arc::new(row)), ("k", Arc::clone(&keys)), ("event_timestamp", Arc::new(at))];
    let service = node.service("svc");

    let (set, notes) = service.training_set_and_notes(&RecordBatch::try_from_iter(spine).unwrap(), false);
    check_values(&case, &questions, &set, "training");
    let mut failed = BTreeMap::<String, u64>::new();
    for (part, stored) in questions.iter().filter_map(|(key, at_us)| case.latest(*key, *at_us)) {
        for i in (0..COLUMNS).filter(|i| case.is_lost(part, stored, *i)) {
            *failed.entry(format!("v{i}")).or_default() += 1;
        }
    }
    let of_rows = notes.failed.into_iter().filter(|(feature, _)| feature.starts_with('v'));
    assert_eq!(of_rows.collect::<BTreeMap<_, _>>(), failed);

    let served = service.look_up(service.inputs(vec![keys]), times).await.unwrap();
    check_values(&case, &questions, &served.vectors, "serving");
}

#[test]
fn what_files_and_pushes_bring_in_any_type_is_trained_and_served_alike() {
    let mut random = Random::new("sources");
    for _ in 0..quern_kit::cases(24) {
        runtime().block_on(check(&mut random));
    }
}
