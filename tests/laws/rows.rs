//! Law 1: the head and history say the same. Law 2: serving and training say the same. Law 4: order and repetition of
//! writes change nothing. Each against the oracle, bit for bit, over random rows, keys, types and rules.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::ScalarValue;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quern::wire::ViewCommand;
use quern_kit::{Node, Repository, RowState, Store, arrow_type, runtime, timestamp};

use super::exported::{Exported, check_latest, show};
use super::oracle::{Row, Rules, as_of};
use super::{Ground, push_around, remembering};

/// The feature columns: every type of the language.
const TYPES: [&str; 15] = [
    "bool",
    "int32",
    "int64",
    "float32",
    "float64",
    "string",
    "bytes",
    "timestamp",
    "date",
    "list<int64>",
    "list<float32>",
    "list<float64, 3>",
    "list<string>",
    "list<bool>",
    "list<string, 2>",
];
const INT64: usize = 2;
const TEXTS: usize = 12;
/// What may be declared of lists; it says nothing in a vector.
const DEFAULTS: [(&str, &str); 4] = [
    ("list<int64>", "[]"),
    ("list<float64, 3>", "[0, 1.5, -1]"),
    ("list<string>", "[none, \"7\"]"),
    ("list<bool>", "[true]"),
];
/// After every row.
const NOW_US: i64 = 2_000_000_000;
/// Join keys: each alternative is one entity with these columns.
const KEYS: [&[&str]; 6] = [
    &["string"],
    &["int64"],
    &["string", "string"],
    &["int32", "date"],
    &["bool", "bytes"],
    &["timestamp", "string"],
];

fn arrow(name: &str) -> DataType {
    arrow_type(name.parse().unwrap())
}

#[derive(Debug, Clone)]
struct Case {
    keys: &'static [&'static str],
    rules: Rules,
    has_created: bool,
    /// Files by name; rows in arrival order.
    files: Vec<Vec<Row>>,
    queries: Vec<(Vec<ScalarValue>, i64)>,
    group_rows: usize,
    /// Whether lists have the defaults that they may have.
    defaulted: bool,
    /// Up to where the head is made before the last file comes.
    first_to_us: i64,
    /// The rows of the last file are pushed instead, so many at a time.
    pushed: Option<usize>,
}

/// Few instants, so that ties and edges are common; some lie before 1970.
fn instant() -> impl Strategy<Value = i64> {
    (-6i64..18, prop_oneof![4 => Just(0i64), 1 => -1i64..=1]).prop_map(|(tick, off)| tick * 60_000_000 + off)
}

fn value(name: &'static str) -> BoxedStrategy<ScalarValue> {
    let dtype = arrow(name);
    let null = ScalarValue::try_new_null(&dtype).unwrap();
    let float = || prop_oneof![3 => -1e3..1e3f64, 1 => prop::sample::select(vec![0.0, -0.0, f64::NAN, f64::INFINITY])];
    let text = prop::sample::select(vec!["", "1", "23", "12", "3", "é\0x", "a long piece of text"]);
    let list = |length: std::ops::Range<usize>, item: DataType| {
        let items = vec(option::weighted(0.9, float()), length);
        items.prop_map(move |items| {
            let items: Vec<_> = items
                .into_iter()
                .map(|x| {
                    ScalarValue::Float64(x.map(f64::trunc).filter(|x| x.is_finite())).cast_to(&item).unwrap()
                })
                .collect();
            ScalarValue::new_list(&items, &item, true)
        })
    };
    let other_list = |length: std::ops::Range<usize>, item: BoxedStrategy<ScalarValue>, dtype: DataType| {
        let null = ScalarValue::try_new_null(&dtype).unwrap();
        let items = vec(prop_oneof![9 => item, 1 => Just(null)], length);
        items.prop_map(move |items| ScalarValue::new_list(&items, &dtype, true))
    };
    let texts = text.clone().prop_map(ScalarValue::from).boxed();
    let truths = any::<bool>().prop_map(ScalarValue::from).boxed();
    let some = match name {
        "bool" => any::<bool>().prop_map(ScalarValue::from).boxed(),
        "int32" => any::<i32>().prop_map(ScalarValue::from).boxed(),
        "int64" => (-3i64..4).prop_map(ScalarValue::from).boxed(),
        "float32" => float().prop_map(|x| ScalarValue::from(x as f32)).boxed(),
        "float64" => float().prop_map(ScalarValue::from).boxed(),
        "string" => text.prop_map(ScalarValue::from).boxed(),
        "bytes" => vec(any::<u8>(), 0..4).prop_map(|bytes| ScalarValue::Binary(Some(bytes))).boxed(),
        "timestamp" => {
            instant().prop_map(|us| ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))).boxed()
        }
        "date" => (-400i32..400).prop_map(|days| ScalarValue::Date32(Some(days))).boxed(),
        "list<int64>" => list(0..4, DataType::Int64).prop_map(ScalarValue::List).boxed(),
        "list<float32>" => list(0..4, DataType::Float32).prop_map(ScalarValue::List).boxed(),
        "list<string>" => other_list(0..4, texts, DataType::Utf8).prop_map(ScalarValue::List).boxed(),
        "list<bool>" => other_list(0..4, truths, DataType::Boolean).prop_map(ScalarValue::List).boxed(),
        "list<string, 2>" => {
            let fixed =
                move |list: Arc<arrow::array::ListArray>| ScalarValue::List(list).cast_to(&dtype).unwrap();
            other_list(2..3, texts, DataType::Utf8).prop_map(fixed).boxed()
        }
        _ => {
            let fixed =
                move |list: Arc<arrow::array::ListArray>| ScalarValue::List(list).cast_to(&dtype).unwrap();
            list(3..4, DataType::Float64).prop_map(fixed).boxed()
        }
    };
    prop_oneof![6 => some, 1 => Just(null)].boxed()
}

fn key(columns: &'static [&'static str]) -> impl Strategy<Value = Vec<ScalarValue>> {
    // A few values for each type, so that keys meet, and texts that are alike when they are put together.
    let text = || prop::sample::select(vec!["1", "12", "23", "3"]).prop_map(ScalarValue::from);
    let part = |name: &&'static str| match *name {
        "string" => prop_oneof![3 => text(), 1 => value("string")].boxed(),
        "int64" => (0i64..3).prop_map(ScalarValue::from).boxed(),
        "int32" => (-1i32..2).prop_map(ScalarValue::from).boxed(),
        "date" => (-1i32..2).prop_map(|days| ScalarValue::Date32(Some(days))).boxed(),
        "timestamp" => {
            (-1i64..2).prop_map(|us| ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))).boxed()
        }
        "bytes" => vec(0u8..2, 0..2).prop_map(|bytes| ScalarValue::Binary(Some(bytes))).boxed(),
        other => value(other),
    };
    columns.iter().map(part).collect::<Vec<_>>()
}

fn case() -> impl Strategy<Value = Case> {
    let rules = (
        prop_oneof![Just(0i64), Just(60_000_000), Just(90_000_001)],
        option::of(prop_oneof![Just(60_000_000i64), Just(300_000_000)]),
        option::of(Just(INT64)),
        any::<[bool; 2]>(),
    );
    let first_to_us = prop::sample::select(vec![400_000_000, NOW_US]);
    let parts = (1usize..9, first_to_us, option::of(1usize..12), any::<bool>());
    (prop::sample::select(KEYS.to_vec()), rules, any::<bool>(), parts).prop_flat_map(
        |(
            keys,
            (lag_us, ttl_us, positive, [as_known, before]),
            has_created,
            (group_rows, first_to_us, pushed, defaulted),
        )| {
            let values = TYPES.iter().map(|name| value(name)).collect::<Vec<_>>();
            let created =
                if has_created { option::weighted(0.8, instant()).boxed() } else { Just(None).boxed() };
            let row = (key(keys), option::weighted(0.95, instant()), created, values)
                .prop_map(|(key, ts_us, created_us, values)| Row { key, ts_us, created_us, values });
            let files = vec(vec(row, 0..25), 1..4);
            let queries = vec((key(keys), instant()), 0..40);
            let rules = Rules { lag_us, ttl_us, positive, as_known, before };
            (files, queries).prop_map(move |(files, queries)| Case {
                keys,
                rules,
                has_created,
                files,
                queries,
                group_rows,
                first_to_us,
                pushed,
                defaulted,
            })
        },
    )
}

impl Case {
    fn definitions(&self) -> String {
        let created = if self.has_created { "created_timestamp: created" } else { "" };
        let default = |name: &str| DEFAULTS.iter().find(|(of, _)| self.defaulted && *of == name);
        let feature = |(i, name): (usize, &&str)| match default(name) {
            Some((_, default)) => format!("  - {{name: f{i}, default: {default}}}\n"),
            None => format!("  - f{i}\n"),
        };
        let features: String = TYPES.iter().enumerate().map(feature).collect();
        let times = ["ts"].into_iter().chain(self.has_created.then_some("created"));
        let times = times.map(|name| (name.to_owned(), "timestamp"));
        let keys = self.keys.iter().enumerate().map(|(i, t)| (format!("k{i}"), *t));
        let values = TYPES.iter().enumerate().map(|(i, t)| (format!("f{i}"), *t));
        let columns: String = times
            .chain(keys)
            .chain(values)
            .map(|(name, dtype)| format!("  - {{name: {name}, type: \"{dtype}\"}}\n"))
            .collect();
        let join_keys: String =
            self.keys.iter().enumerate().map(|(i, t)| format!("{{name: k{i}, type: {t}}}, ")).collect();
        let mut text = format!(
            "kind: Entity\nname: e\njoin_keys: [{join_keys}]\n---\n\
             kind: Source\nname: s\nbatch: {{format: parquet, path: data/*.parquet}}\npush: true\nevent_timestamp: ts\n{created}\ncolumns:\n{columns}"
        );
        for (name, rules) in self.views() {
            let filter = rules.positive.map_or(String::new(), |_| format!("where: f{INT64} > 0"));
            let ttl = rules.ttl_us.map_or(String::new(), |us| format!("ttl: {us}us"));
            let lag = rules.lag_us;
            let at = if rules.before { "at: before" } else { "" };
            text += &format!(
                "---\nkind: FeatureView\nname: {name}\nentities: [e]\nsource: s\n{filter}\n{ttl}\nlag: {lag}us\n{at}\nfeatures:\n{features}\n---\n\
                 kind: FeatureService\nname: {name}\nrequest: [{{name: r, type: int64}}]\nfeatures: [{name}]\n\
                 derived:\n  - {{name: sum, expr: \"coalesce(f1, 0) + r\"}}\n  - {{name: twice, expr: \"sum * 2.5\"}}\n\
                 \x20 - {{name: first, expr: \"f{TEXTS}[1]\"}}\n  - {{name: pair, expr: \"make_array(f5, f{TEXTS}[2])\"}}\n"
            );
        }
        text
    }

    /// The view at stake, one before it that sees other rows, and one after it that sees the same.
    fn views(&self) -> [(&'static str, Rules); 3] {
        let positive = if self.rules.positive.is_some() { None } else { Some(INT64) };
        let (lag_us, before) = (self.rules.lag_us / 2, !self.rules.before);
        let other = Rules { positive, lag_us, before, ..self.rules };
        [("other", other), ("view", self.rules), ("view_again", self.rules)]
    }

    fn write(&self, repository: &Repository, file: usize) {
        repository.write_parquet_in_groups(
            &format!("data/{file}.parquet"),
            &self.batch(file),
            self.group_rows,
        );
    }

    fn batch(&self, file: usize) -> RecordBatch {
        let rows = &self.files[file];
        let times = |time: fn(&Row) -> Option<i64>| -> ArrayRef {
            Arc::new(rows.iter().map(time).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        };
        let mut columns = vec![("ts".to_owned(), times(|row| row.ts_us))];
        if self.has_created {
            columns.push(("created".to_owned(), times(|row| row.created_us)));
        }
        for (i, name) in self.keys.iter().enumerate() {
            columns.push((format!("k{i}"), array(rows.iter().map(|row| row.key[i].clone()), &arrow(name))));
        }
        for (i, name) in TYPES.iter().enumerate() {
            columns
                .push((format!("f{i}"), array(rows.iter().map(|row| row.values[i].clone()), &arrow(name))));
        }
        let fields: Vec<_> =
            columns.iter().map(|(name, c)| Field::new(name, c.data_type().clone(), true)).collect();
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn rows(&self) -> Vec<Row> {
        self.files.concat()
    }

    /// Join keys and the request column of the queries.
    fn inputs(&self) -> RecordBatch {
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for (i, name) in self.keys.iter().enumerate() {
            fields.push(Field::new(format!("k{i}"), arrow(name), true));
            columns.push(array(self.queries.iter().map(|(key, _)| key[i].clone()), &arrow(name)));
        }
        fields.push(Field::new("r", DataType::Int64, true));
        columns.push(array((0..self.queries.len()).map(|i| ScalarValue::from(i as i64)), &DataType::Int64));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }
}

fn array(values: impl Iterator<Item = ScalarValue>, dtype: &DataType) -> ArrayRef {
    let values: Vec<_> = values.collect();
    if values.is_empty() {
        return arrow::array::new_empty_array(dtype);
    }
    ScalarValue::iter_to_array(values).unwrap()
}

/// The vector that the oracle has for query `i`: the view's features, then the derived ones.
fn expected(row: Option<&Row>, i: usize) -> Vec<ScalarValue> {
    let null = |name: &&str| ScalarValue::try_new_null(&arrow(name)).unwrap();
    let mut values = row.map_or_else(|| TYPES.iter().map(null).collect(), |row| row.values.clone());
    let base = match values[1] {
        ScalarValue::Int32(Some(x)) => i64::from(x),
        _ => 0,
    };
    let sum = base + i as i64;
    let text = |at: usize| match &values[TEXTS] {
        ScalarValue::List(texts) if texts.is_valid(0) && at < texts.value(0).len() => {
            ScalarValue::try_from_array(&texts.value(0), at).unwrap()
        }
        _ => ScalarValue::Utf8(None),
    };
    let (first, second) = (text(0), text(1));
    let pair = ScalarValue::new_list(&[values[5].clone(), second], &DataType::Utf8, true);
    values.extend([ScalarValue::from(sum), ScalarValue::from(sum as f64 * 2.5)]);
    values.extend([first, ScalarValue::List(pair)]);
    values
}

fn vector(batch: &RecordBatch, names: &[String], row: usize) -> Vec<ScalarValue> {
    let value =
        |name: &String| ScalarValue::try_from_array(batch.column_by_name(name).unwrap(), row).unwrap();
    names.iter().map(value).collect()
}

async fn check(mut case: Case, ground: Ground) -> Result<(), TestCaseError> {
    if !ground.store.takes_pushes() {
        case.pushed = None;
    }
    let repository = Repository::new(&case.definitions());
    if case.queries.len() % 2 == 1 {
        // No key is held for longer than its batch: what is found of them goes by way of the disk.
        repository.write("quern.yaml", "materialize_bytes_max: 1\n");
    }
    let last = case.files.len() - 1;
    (0..last.max(1)).for_each(|file| case.write(&repository, file));
    let node = ground.open(&repository).await;
    let services = case.views().map(|(name, rules)| (node.service(name), rules));

    // History comes in two parts; the head is made twice from the first and once from both.
    node.materialize_to(case.first_to_us);
    node.materialize_to(case.first_to_us);
    match case.pushed.filter(|_| last > 0) {
        Some(at_a_time) => push_around(&node, ground, &case.batch(last), (at_a_time, NOW_US)).await,
        None => {
            case.write(&repository, last);
            node.materialize_to(NOW_US);
        }
    }
    let (rows, inputs) = (case.rows(), case.inputs());
    let times: Vec<i64> = case.queries.iter().map(|(_, q_us)| *q_us).collect();
    let outputs = services[0].0.outputs().fields();
    let names: Vec<String> = outputs.iter().map(|field| field.name().clone()).collect();

    // Training, as the oracle has it.
    let mut fields = inputs.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("event_timestamp", timestamp(), true)));
    let mut columns = inputs.columns().to_vec();
    columns.push(Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC")));
    let spine = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    for as_known in [false, case.rules.as_known] {
        let (set, notes) = node.service("view").training_set_and_notes(&spine, as_known);
        prop_assert_eq!(set.num_rows(), times.len());
        let rules = Rules { as_known, ..case.rules };
        let is_own = |row: &Row, q_us: i64| row.ts_us.is_some_and(|ts_us| ts_us + rules.lag_us == q_us);
        let coincides = |(key, q_us): &&(Vec<ScalarValue>, i64)| {
            as_of(&rows, rules, key, *q_us).1.is_some_and(|row| is_own(row, *q_us))
        };
        let coinciding = case.queries.iter().filter(coincides).count() as u64;
        prop_assert_eq!(notes.coinciding.get("view").copied().unwrap_or(0), coinciding);
        for (i, (key, q_us)) in case.queries.iter().enumerate() {
            let (state, row) = as_of(&rows, rules, key, *q_us);
            let row = row.filter(|_| state == RowState::Present);
            prop_assert_eq!(vector(&set, &names, i), expected(row, i), "training, query {} at {}", i, q_us);
        }
    }

    // Serving, now and then: the head and, where the head is too new, history.
    for (service, rules) in &services {
        let rules = Rules { as_known: false, ..*rules };
        for times in [times.clone(), vec![NOW_US; times.len()]] {
            let vectors = service.look_up(inputs.clone(), times.clone()).await.unwrap();
            for (i, (key, _)) in case.queries.iter().enumerate() {
                let (state, row) = as_of(&rows, rules, key, times[i]);
                let (found, of) = (&vectors.found[0], &service.plan().name);
                prop_assert_eq!(found.states[i], state, "{}: state of query {} at {}", of, i, times[i]);
                if let Some(row) = row {
                    prop_assert_eq!(Some(found.event_timestamps[i]), row.ts_us);
                }
                let row = row.filter(|_| state == RowState::Present);
                let served = vector(&vectors.vectors, &names, i);
                prop_assert_eq!(served, expected(row, i), "{}: query {} at {}", of, i, times[i]);
            }
            // A row is a batch of one.
            for i in (0..times.len()).step_by(7) {
                let one = service.look_up(inputs.slice(i, 1), vec![times[i]]).await.unwrap();
                prop_assert_eq!(vector(&one.vectors, &names, 0), vector(&vectors.vectors, &names, i));
            }
        }
    }
    check_exports(&case, &node).await
}

/// What is exported: the rows that there are, in their order, and the latest of them.
async fn check_exports(case: &Case, node: &Node) -> Result<(), TestCaseError> {
    let rows = case.rows();
    for (view, rules) in case.views() {
        for (from_us, to_us) in [(None, None), (Some(0), Some(300_000_000))] {
            let command = ViewCommand { view: view.to_owned(), from_us, to_us, ..ViewCommand::default() };
            let exported = node.export(&command).unwrap();
            let told = (0..exported.num_rows()).map(|row| show(exported.columns().iter(), row));
            let wanted = rows.iter().filter(|row| {
                let within = |ts_us: i64| {
                    from_us.is_none_or(|from_us| from_us <= ts_us) && to_us.is_none_or(|to_us| ts_us < to_us)
                };
                let passes = rules.positive.is_none_or(|column| match row.values[column] {
                    ScalarValue::Int64(value) => value.is_some_and(|value| value > 0),
                    _ => false,
                });
                row.ts_us.is_some_and(within) && passes && row.key.iter().all(|part| !part.is_null())
            });
            let moment = |us| ScalarValue::TimestampMicrosecond(us, Some("UTC".into()));
            let expected = wanted.map(|row| {
                let created = case.has_created.then(|| moment(row.created_us));
                let times = [moment(row.ts_us)].into_iter().chain(created);
                let values = row.key.iter().cloned().chain(times).chain(row.values.clone());
                format!("{:?}", values.collect::<Vec<_>>())
            });
            prop_assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "rows of {}", view);
        }
        let known = rows.iter().map(|row| &row.key).filter(|key| key.iter().all(|part| !part.is_null()));
        let mut keys: Vec<&Vec<ScalarValue>> = Vec::new();
        known.for_each(|key| {
            if !keys.contains(&key) {
                keys.push(key)
            }
        });
        let part = |i: usize| array(keys.iter().map(|key| key[i].clone()), &arrow(case.keys[i]));
        let mut inputs: Vec<ArrayRef> = (0..case.keys.len()).map(part).collect();
        inputs.push(array(keys.iter().map(|_| ScalarValue::Int64(None)), &DataType::Int64));
        let inputs = node.service(view).inputs(inputs);
        let of = Exported { service: view, view, place: 0, first: 0, keys: (0..case.keys.len()).collect() };
        check_latest(node, of, &inputs, [400_000_000, NOW_US]).await?;
    }
    Ok(())
}

/// The law on one online store, for so many random cases.
fn head_and_history_agree(ground: Ground, cases: u32, name: &'static str) {
    let cases = quern_kit::cases(cases);
    let config =
        ProptestConfig { cases, max_shrink_iters: 200, test_name: Some(name), ..remembering(file!()) };
    proptest::test_runner::TestRunner::new(config)
        .run(&case(), |case| runtime().block_on(check(case, ground)))
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn head_and_history_serving_and_training_agree() {
    head_and_history_agree(Ground::on(Store::Rocks), 24, "head_and_history_serving_and_training_agree");
}

#[test]
fn head_and_history_agree_in_redis() {
    head_and_history_agree(Ground::on(Store::Redis), 10, "head_and_history_agree_in_redis");
}

#[test]
fn head_and_history_agree_in_a_cluster() {
    head_and_history_agree(Ground::on(Store::Cluster), 6, "head_and_history_agree_in_a_cluster");
}

#[test]
fn head_and_history_agree_in_redis_with_pushes() {
    head_and_history_agree(Ground::on(Store::Shared), 5, "head_and_history_agree_in_redis_with_pushes");
}

/// What was pushed lies in segments in a bucket, as far as it was there when they were written.
#[test]
fn head_and_history_agree_over_a_bucket() {
    head_and_history_agree(Ground::sealing(Store::Rocks), 3, "over_a_bucket");
    head_and_history_agree(Ground::sealing(Store::Shared), 3, "over_a_bucket_with_redis");
    head_and_history_agree(Ground::sealing(Store::SharedCluster), 3, "over_a_bucket_with_a_cluster");
}
