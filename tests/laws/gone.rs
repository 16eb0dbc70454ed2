//! Law 1 where history changes: files are added, deleted, rewritten and grow, rows of tables are deleted, others are
//! pushed; after each run the head says what history says, and not what it once said.

mod files;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use datafusion_common::ScalarValue;
use quern::wire::PushTo;
use quern_kit::{Node, Push, Random, Repository, RowState, Store, runtime};

use self::files::{Files, batch, number};
use super::oracle::{Row, Rules, as_of};

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
/// 2026-01-01.
const START_US: i64 = 20_454 * DAY_US;
const KEYS: i64 = 6;
const ROUNDS: i64 = 5;

/// What is drawn of a source and its views.
#[derive(Debug)]
struct Case {
    format: &'static str,
    has_created: bool,
    rules: Rules,
    /// Whether each run looks back to the beginning, or as far as users' do.
    looks_far: bool,
}

impl Case {
    fn draw(random: &mut Random) -> Case {
        Case {
            format: random.pick(&["parquet", "csv", "json", "delta"]),
            has_created: random.below(2) == 0,
            rules: Rules {
                lag_us: random.pick(&[0, HOUR_US]),
                ttl_us: random.pick(&[None, Some(3 * DAY_US)]),
                positive: random.pick(&[None, Some(0)]),
                as_known: false,
                before: false,
            },
            looks_far: random.below(3) == 0,
        }
    }

    fn definitions(&self) -> String {
        let path = match self.format {
            "delta" => "rows".to_owned(),
            format => format!("rows/*.{format}"),
        };
        let (created, column) = match self.has_created {
            true => ("created_timestamp: created\n", ", {name: created, type: timestamp}"),
            false => ("", ""),
        };
        let Rules { lag_us, ttl_us, positive, .. } = self.rules;
        let ttl = ttl_us.map_or(String::new(), |us| format!("ttl: {us}us\n"));
        let filter = positive.map_or("", |_| "where: v > 0\n");
        let head = |name: &str| {
            format!("---\nkind: FeatureView\nname: {name}\nentities: [e]\nsource: s\nlag: {lag_us}us\n")
        };
        format!(
            "kind: Entity\nname: e\njoin_keys: [{{name: k, type: int64}}]\n---\n\
             kind: Source\nname: s\nbatch: {{format: {}, path: \"{path}\"}}\npush: true\nevent_timestamp: at\n{created}\
             columns: [{{name: k, type: int64}}, {{name: at, type: timestamp}}, {{name: v, type: int64}}{column}]\n\
             {}{ttl}{filter}features: [v]\n\
             {}features: [{{name: tenth, expr: \"10 / v\", strict: true}}]\n\
             {}aggregations:\n  - {{name: n, function: count, windows: [1d, 7d, lifetime]}}\n  \
             - {{name: total, function: sum, of: v, windows: [1d, lifetime]}}\n\
             ---\nkind: FeatureService\nname: svc\nfeatures: [rows, events]\n\
             ---\nkind: FeatureService\nname: strict\nfeatures: [tenths]\n",
            self.format,
            head("rows"),
            head("tenths"),
            head("events"),
        )
    }
}

fn row(random: &mut Random, times_us: std::ops::Range<i64>, has_created: bool) -> Row {
    let instant = |random: &mut Random| {
        times_us.start
            + random.below((times_us.end - times_us.start) as u64 / HOUR_US as u64) as i64 * HOUR_US
    };
    let ts_us = instant(random);
    Row {
        key: vec![ScalarValue::Int64(Some(random.below(KEYS as u64) as i64))],
        ts_us: Some(ts_us),
        created_us: (has_created && random.below(4) > 0).then(|| ts_us + random.below(3) as i64),
        values: vec![ScalarValue::Int64((random.below(8) > 0).then(|| random.below(6) as i64 - 1))],
    }
}

fn rows(random: &mut Random, times_us: std::ops::Range<i64>, case: &Case) -> Vec<Row> {
    (0..1 + random.below(7)).map(|_| row(random, times_us.clone(), case.has_created)).collect()
}

/// Changes history by some steps; gives what is to be pushed.
fn change(random: &mut Random, files: &mut Files<'_>, case: &Case, now_us: i64) -> Vec<Row> {
    let recent = now_us - 20 * HOUR_US..now_us + 3 * HOUR_US;
    let any = START_US - 30 * DAY_US..now_us + 3 * HOUR_US;
    let mut pushed = Vec::new();
    for _ in 0..1 + random.below(3) {
        let file = random.below(files.live.len() as u64) as usize;
        match random.below(6) {
            0 => files.add(rows(random, any.clone(), case)),
            1 if files.live.len() > 1 => files.remove(file),
            2 => files.rewrite(file, rows(random, any.clone(), case)),
            3 => files.grow(file, rows(random, any.clone(), case)),
            4 => files.delete(file, random.below(7) as usize),
            _ => pushed.extend(rows(random, recent.clone(), case)),
        }
    }
    // Those that a `strict` feature refuses nobody takes.
    pushed.retain(|row| number(&row.values[0]) != Some(0));
    pushed
}

fn inputs(times_us: &[i64]) -> (ArrayRef, Vec<i64>) {
    let keys = times_us.iter().flat_map(|_| 0..KEYS);
    let times = times_us.iter().flat_map(|us| (0..KEYS).map(move |_| *us));
    (Arc::new(keys.collect::<Int64Array>()), times.collect())
}

/// Compares what is served of every key with what history says, and both with the oracle.
async fn check(node: &Node, case: &Case, history: &[Row], times_us: &[i64], what: &str) {
    let ((keys, times), service) = (inputs(times_us), node.service("svc"));
    let served = service.look_up(service.inputs(vec![Arc::clone(&keys)]), times.clone()).await.unwrap();
    let at = TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC");
    let spine: [(&str, ArrayRef); 2] = [("k", Arc::clone(&keys)), ("event_timestamp", Arc::new(at))];
    let trained = service.training_set(&RecordBatch::try_from_iter(spine).unwrap(), false);
    for (field, column) in served.vectors.schema().fields().iter().zip(served.vectors.columns()) {
        let trained = trained.column_by_name(field.name()).unwrap();
        for (row, at_us) in times.iter().enumerate() {
            let [trained, served] =
                [trained, column].map(|column| ScalarValue::try_from_array(column, row).unwrap());
            assert_eq!(trained, served, "{what}: {} of key {} at {at_us}", field.name(), row as i64 % KEYS);
        }
    }
    let value = |rules: Rules, row: usize, rows: &[Row]| {
        let key = vec![ScalarValue::Int64(Some(keys.as_primitive::<Int64Type>().value(row)))];
        let (state, found) = as_of(rows, rules, &key, times[row]);
        (state, found.filter(|_| state == RowState::Present).and_then(|row| number(&row.values[0])))
    };
    let number_at = |column: &ArrayRef, row: usize| {
        let column = column.as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    for row in 0..times.len() {
        let found = (served.found[0].states[row], number_at(served.vectors.column(0), row));
        assert_eq!(found, value(case.rules, row, history), "{what}: row {row}");
    }
    // Of a row that is refused nothing is served; one before it is.
    let sound: Vec<Row> = history.iter().filter(|row| number(&row.values[0]) != Some(0)).cloned().collect();
    let service = node.service("strict");
    let last = times.len() - KEYS as usize;
    let tenths = service.inputs(vec![keys.slice(last, KEYS as usize)]);
    let served = match service.look_up(tenths, times[last..].to_vec()).await {
        // Where a row is yet to come, history is asked, which refuses.
        Err(failure) if history.iter().any(|row| row.ts_us.unwrap() + case.rules.lag_us > times[last]) => {
            assert!(failure.text.contains("`strict`"), "{what}: {failure}");
            return;
        }
        served => served.unwrap(),
    };
    let rules = Rules { ttl_us: None, positive: None, ..case.rules };
    for row in 0..KEYS as usize {
        let (state, v) = value(rules, last + row, &sound);
        let found = (served.found[0].states[row], number_at(served.vectors.column(0), row));
        assert_eq!(found, (state, v.map(|v| 10 / v)), "{what}: strict, key {row}");
    }
}

async fn hold(random: &mut Random, store: Store) {
    let case = Case::draw(random);
    let repository = Repository::new(&case.definitions());
    let mut files = Files::of(&repository, case.format, case.has_created);
    for _ in 0..1 + random.below(3) {
        files.add(rows(random, START_US - 30 * DAY_US..START_US, &case));
    }
    let node = repository.open_applied_on(store).await;
    let mut pushed: Vec<Row> = Vec::new();
    for round in 0..ROUNDS {
        let now_us = START_US + round * (DAY_US / 2);
        if round > 0 {
            let fresh = change(random, &mut files, &case, now_us);
            if store.takes_pushes() && !fresh.is_empty() {
                node.push(Push::new("s", batch(&fresh, case.has_created))).await.unwrap();
                pushed.extend(fresh);
            }
        }
        let summary = if case.looks_far { node.materialize_to(now_us) } else { node.materialize(now_us) };
        let history = [files.rows(), pushed.clone()].concat();
        let what = format!("{store:?} in round {round}, {case:?}, {:?} of {history:?}", summary.warnings);
        check(&node, &case, &history, &[now_us - 2 * DAY_US, now_us - 36 * HOUR_US, now_us], &what).await;
    }
}

fn holds(store: Store, cases: u32) {
    let mut random = Random::new("gone");
    for _ in 0..quern_kit::cases(cases) {
        runtime().block_on(hold(&mut random, store));
    }
}

#[test]
fn what_goes_from_history_goes_from_the_head() {
    holds(Store::Rocks, 12);
}

#[test]
fn what_goes_from_history_goes_from_redis() {
    holds(Store::Redis, 2);
    holds(Store::Cluster, 1);
    holds(Store::Shared, 2);
}

/// A case in which nothing but the rows is special.
fn plain(format: &'static str) -> Case {
    let rules = Rules { lag_us: 0, ttl_us: None, positive: None, as_known: false, before: false };
    Case { format, has_created: false, rules, looks_far: false }
}

fn at(key: i64, ts_us: i64, v: i64) -> Row {
    let [key, v] = [key, v].map(|number| ScalarValue::Int64(Some(number)));
    Row { key: vec![key], ts_us: Some(ts_us), created_us: None, values: vec![v] }
}

/// How many rows went out of the head of each view, and what was said of it.
fn removed(node: &Node, now_us: i64) -> (Vec<u64>, usize) {
    let summary = node.materialize(now_us);
    (summary.views.iter().map(|view| view.rows_removed).collect(), summary.warnings.len())
}

#[test]
fn a_row_whose_file_went_gives_way_to_the_one_before_however_old() {
    for format in ["parquet", "csv", "json", "delta"] {
        let case = plain(format);
        let repository = Repository::new(&case.definitions());
        let mut files = Files::of(&repository, format, false);
        files.add(vec![at(1, START_US - 20 * DAY_US, 1), at(2, START_US - 20 * DAY_US, 2)]);
        files.add(vec![at(1, START_US - 10 * DAY_US, 3), at(3, START_US - 10 * DAY_US, 4)]);
        runtime().block_on(async {
            let node = repository.open_applied().await;
            assert_eq!(removed(&node, START_US), (vec![0; 3], 0), "{format}: nothing was there");
            files.grow(0, vec![at(4, START_US, 5)]);
            assert_eq!(removed(&node, START_US + DAY_US), (vec![0; 3], 0), "{format}: rows came");
            files.remove(1);
            // Of events a key goes; of rows one more gives way.
            assert_eq!(removed(&node, START_US + 2 * DAY_US), (vec![1, 2, 2], 3), "{format}: rows went");
            check(&node, &case, &files.rows(), &[START_US + 2 * DAY_US], format).await;
            assert_eq!(removed(&node, START_US + 3 * DAY_US), (vec![0; 3], 0), "{format}: that is done");
            drop(node);
            // Another process finds it out as well.
            files.rewrite(0, vec![at(1, START_US - 20 * DAY_US, 6)]);
            let node = repository.open().await;
            assert_eq!(removed(&node, START_US + 4 * DAY_US).1, 3, "{format}: another file");
            check(&node, &case, &files.rows(), &[START_US + 4 * DAY_US], format).await;
        });
    }
}

#[test]
fn rows_for_the_head_alone_stay_while_the_log_has_them() {
    let case = plain("parquet");
    // Windows count what lies in history.
    let definitions = case.definitions().replace("[rows, events]", "[rows]");
    let is_of_rows = |part: &&str| !part.contains("name: events");
    let definitions: Vec<&str> = definitions.split("---\n").filter(is_of_rows).collect();
    let repository = Repository::new(&definitions.join("---\n"));
    let mut files = Files::of(&repository, case.format, false);
    files.add(vec![at(1, START_US - DAY_US, 1)]);
    files.add(vec![at(2, START_US, 2), at(3, START_US, 3)]);
    runtime().block_on(async {
        let node = repository.open_applied().await;
        node.materialize(START_US);
        // The last of them stands back behind a row of a file.
        let rows = batch(&[at(1, START_US, 4), at(5, START_US, 5), at(2, START_US - 1, 6)], false);
        let alone = Push { to: PushTo::Online, ..Push::new("s", rows) };
        node.push(alone).await.unwrap();
        files.remove(1);
        assert_eq!(removed(&node, START_US + HOUR_US), (vec![2, 2], 2));
        let service = node.service("svc");
        let keys: ArrayRef = Arc::new((1..6).collect::<Int64Array>());
        let served = service.look_up(service.inputs(vec![keys]), vec![START_US + HOUR_US; 5]).await.unwrap();
        let v: Vec<_> = served.vectors.column(0).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(v, [Some(4), Some(6), None, None, Some(5)]);
    });
}

/// Pushes to some keys until it is told to end: earlier rows than those of the file that goes, and later ones, also to
/// keys that no file has.
async fn push_on(node: Node, ends: Arc<AtomicBool>, first: i64) -> Vec<Row> {
    let mut pushed = Vec::new();
    for n in 0.. {
        if ends.load(Ordering::Relaxed) && n > 2 {
            break;
        }
        let key = |i: i64| (first + n * 7 + i * 131) % MANY;
        let rows: Vec<Row> =
            (0..40).map(|i| at(key(i), START_US + (n + i % 2) * 1_000 - i % 3 * DAY_US, n + 1)).collect();
        node.push(Push::new("s", batch(&rows, false))).await.unwrap();
        pushed.extend(rows);
    }
    pushed
}

/// How many keys there are beside those of the file that stays.
const MANY: i64 = 600;

async fn mend_while_rows_are_pushed(store: Store) {
    let case = plain("parquet");
    let repository = Repository::new(&case.definitions());
    let mut files = Files::of(&repository, case.format, false);
    files.add((0..MANY / 2).map(|key| at(key, START_US - 3 * DAY_US, 1)).collect());
    let node = repository.open_applied_on(store).await;
    let mut pushed = Vec::new();
    for round in 1..3 {
        // Later than all that is pushed.
        files.add((0..MANY).step_by(2).map(|key| at(key, START_US + HOUR_US, 2)).collect());
        node.materialize(START_US + round * DAY_US);
        files.remove(1);
        let ends = Arc::new(AtomicBool::new(false));
        let pushing = [0, 1].map(|n| tokio::spawn(Box::pin(push_on(node.clone(), Arc::clone(&ends), n * 3))));
        node.materialize(START_US + round * DAY_US + HOUR_US);
        ends.store(true, Ordering::Relaxed);
        for pushing in pushing {
            pushed.extend(pushing.await.unwrap());
        }
        let (service, q_us) = (node.service("svc"), START_US + round * DAY_US + HOUR_US);
        let keys: ArrayRef = Arc::new((0..MANY).collect::<Int64Array>());
        let times: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from(vec![q_us; MANY as usize]).with_timezone("UTC"));
        let served =
            service.look_up(service.inputs(vec![Arc::clone(&keys)]), vec![q_us; MANY as usize]).await;
        let spine = RecordBatch::try_from_iter([("k", keys), ("event_timestamp", times)]).unwrap();
        let (served, trained) = (served.unwrap().vectors, service.training_set(&spine, false));
        for (field, column) in served.schema().fields().iter().zip(served.columns()) {
            assert_eq!(trained.column_by_name(field.name()).unwrap(), column, "{store:?}: {}", field.name());
        }
    }
    assert_eq!(node.pushed_rows("s"), pushed.len() as u64);
}

#[test]
fn rows_that_are_pushed_while_others_go_stay() {
    runtime().block_on(Box::pin(mend_while_rows_are_pushed(Store::Rocks)));
    runtime().block_on(Box::pin(mend_while_rows_are_pushed(Store::Shared)));
}
