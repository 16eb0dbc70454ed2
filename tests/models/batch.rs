//! Does a whole table get what each of its rows would get alone? Law 2 for predictions, then the ways to a batch.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Float32Type;
use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use quern::wire::BatchCommand;
use quern_kit::{Node, Process, Random, Repository, Server, When, fixture, required, run};

use crate::planes::{self, JANUARY_10_US, repository};

const DEFINITIONS: &str = "kind: Entity\nname: e\njoin_keys: [{name: k, type: string}]\n---\n\
    kind: Source\nname: s\nbatch: {format: parquet, path: data/*.parquet}\nevent_timestamp: ts\n\
    columns: [{name: k, type: string}, {name: ts, type: timestamp}, {name: x, type: float64}]\n---\n\
    kind: FeatureView\nname: v\nentities: [e]\nsource: s\nttl: TTL\nlag: LAG\nat: AT\nfeatures: [x]\n---\n\
    kind: FeatureView\nname: w\nentities: [e]\nsource: s\nat: AT\naggregations: [{name: x_sum, function: sum, of: x, windows: [1h]}]\n---\n\
    kind: FeatureService\nname: svc\nrequest: [{name: r, type: float64}]\nfeatures: [v, w]\n\
    derived: [{name: y, expr: x * r}]\noutputs: [r, y, x_sum_1h]\n---\n\
    kind: Model\nname: m\nversions: [{version: \"1\", path: linear.onnx, service: svc}]\n";

/// Views that see what they may in one of several ways.
pub(crate) fn definitions(random: &mut Random) -> String {
    let (ttl, lag) = (random.pick(&["5m", "1h", "30d"]), random.pick(&["0s", "90s"]));
    let at = random.pick(&["including", "before"]);
    DEFINITIONS.replace("TTL", ttl).replace("LAG", lag).replace("AT", at)
}

/// After every row.
pub(crate) const NOW_US: i64 = 7_200_000_000;

/// Few instants: queries meet rows at their very time.
fn time_us(random: &mut Random) -> i64 {
    random.below(700) as i64 * 10_000_000
}

fn number(random: &mut Random) -> Option<f64> {
    let any = random.below(20_001) as f64 / 7.0 - 1_000.0;
    random.pick(&[Some(any), Some(any), Some(any / 3.0), None, Some(f64::NAN), Some(-0.0), Some(1e300)])
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn times(times: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
}

const KEYS: [Option<&str>; 7] =
    [Some("a"), Some("b"), Some("c"), Some("d"), Some("é"), Some("unknown"), None];

pub(crate) fn history(random: &mut Random) -> RecordBatch {
    let rows = 1 + random.below(120);
    let keys: StringArray = (0..rows).map(|_| random.pick(&KEYS[..5])).collect();
    let ts = (0..rows).map(|_| time_us(random)).collect();
    let x: Float64Array = (0..rows).map(|_| number(random)).collect();
    batch(vec![("k", Arc::new(keys)), ("ts", times(ts)), ("x", Arc::new(x))])
}

/// Rows to predict for, at one time or at any.
pub(crate) fn table(random: &mut Random, rows: u64, at_us: Option<i64>) -> RecordBatch {
    let keys: StringArray = (0..rows).map(|_| random.pick(&KEYS)).collect();
    let r: Float64Array = (0..rows).map(|_| number(random)).collect();
    let at = (0..rows).map(|_| at_us.unwrap_or_else(|| time_us(random))).collect();
    let note: Int64Array = (0..rows as i64).map(Some).collect();
    batch(vec![
        ("note", Arc::new(note)),
        ("r", Arc::new(r)),
        ("event_timestamp", times(at)),
        ("k", Arc::new(keys)),
    ])
}

/// The predictions' bits; no prediction is null.
fn bits(outputs: &RecordBatch) -> Vec<u32> {
    let output = outputs.columns().last().unwrap();
    assert_eq!(output.null_count(), 0);
    output.as_primitive::<Float32Type>().values().iter().map(|value| value.to_bits()).collect()
}

/// The bits of a batch's predictions; its other columns are the table's.
async fn batched(node: &Node, table: &RecordBatch, when: When) -> Vec<u32> {
    let third = table.num_rows().div_ceil(3).max(1);
    let part = |at| table.slice(at, third.min(table.num_rows() - at));
    let parts = (0..table.num_rows()).step_by(third).map(part).collect();
    let (answers, _) = node.model("m").predict_table(&table.schema(), parts, when).await;
    assert_eq!(answers.project(&[0, 1, 2, 3]).unwrap(), *table);
    bits(&answers)
}

/// The bits of predictions one by one.
async fn alone(node: &Node, table: &RecordBatch, step: usize) -> Vec<(usize, u32)> {
    let model = node.model("m");
    let at = table.column(2).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    let mut answers = Vec::new();
    for row in (0..table.num_rows()).step_by(step) {
        let columns = vec![table.column(3).slice(row, 1), table.column(1).slice(row, 1)];
        answers.push((row, bits(&model.predict("", columns, vec![at.value(row)]).await)[0]));
    }
    answers
}

/// The bits of what the model says of the training set.
async fn trained(node: &Node, table: &RecordBatch) -> Vec<u32> {
    let (model, set) = (node.model("m"), node.service("svc").training_set(table, false));
    let outputs = Arc::clone(model.service().outputs());
    let column = |name: &str| Arc::clone(set.column_by_name(name).unwrap());
    let columns = outputs.fields().iter().map(|field| column(field.name())).collect();
    let vectors = RecordBatch::try_new(outputs, columns).unwrap();
    bits(&model.run(&vectors).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_now_and_as_of_single_predictions_and_training_agree_bit_for_bit() {
    required("ORT_DYLIB_PATH");
    let mut random = Random::new("batches");
    let mut compared = 0;
    for case in 0..16 {
        let repository = Repository::new(&definitions(&mut random));
        repository.write("linear.onnx", fixture("linear.onnx"));
        repository.write_parquet_in_groups("data/0.parquet", &history(&mut random), 17);
        repository.write_parquet_in_groups("data/1.parquet", &history(&mut random), 50);
        let node = repository.open_applied().await;
        node.materialize_to(NOW_US);
        // More than the chunks that are under way at a time, once.
        let rows = if case == 0 { 12_000 } else { random.below(60) };
        let now = table(&mut random, rows, Some(NOW_US));
        let past = table(&mut random, rows, None);
        let said = batched(&node, &now, When::At(NOW_US)).await;
        assert_eq!(said, batched(&node, &now, When::AsOf).await, "case {case}: now and as of now");
        assert_eq!(said, trained(&node, &now).await, "case {case}: now and training");
        let said_then = batched(&node, &past, When::AsOf).await;
        assert_eq!(said_then, trained(&node, &past).await, "case {case}: as of then and training");
        let step = if case == 0 { 101 } else { 1 };
        for (table, said) in [(&now, &said), (&past, &said_then)] {
            for (row, alone) in alone(&node, table, step).await {
                assert_eq!(alone, said[row], "case {case}, row {row}: alone and in a batch");
            }
            compared += said.len();
        }
    }
    println!("{compared} predictions, each by every way");
}

fn planes() -> RecordBatch {
    let tails = StringArray::from(vec![Some("N1"), Some("N2"), None, Some("N3"), Some("N1")]);
    let at = [9, 9, 9, 9, 1].map(|day| JANUARY_10_US - (10 - day) * 86_400_000_000 + 43_200_000_000);
    batch(vec![
        ("note", Arc::new(StringArray::from(vec!["a", "b", "c", "d", "e"]))),
        ("tailnum", Arc::new(tails)),
        ("distance", Arc::new(Int64Array::from(vec![2000, 1, 1, 1, 2000]))),
        ("event_timestamp", times(at.to_vec())),
    ])
}

fn command(model: &str, as_of: bool) -> BatchCommand {
    BatchCommand { model: model.to_owned(), version: None, as_of }
}

async fn shown(server: &Server, command: &BatchCommand, table: RecordBatch) -> String {
    let rows = server.client.predict_batch(command, table.schema(), stream::iter([table])).await;
    let rows: quern::Result<Vec<RecordBatch>> = match rows {
        Ok(rows) => rows.try_collect().await,
        Err(error) => Err(error),
    };
    match rows {
        Ok(rows) => format!("{}\n", pretty_format_batches(&rows).unwrap()),
        Err(error) => format!("{:?}: {error}\n", error.code().unwrap()),
    }
}

async fn check(server: &Server, command: &BatchCommand, table: RecordBatch, expected: Expect) {
    expected.assert_eq(&shown(server, command, table).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_comes_back_with_the_models_outputs() {
    let server = planes::serve().await;
    check(
        &server,
        &command("delay", true),
        planes(),
        expect![[r#"
        +------+---------+----------+----------------------+--------+
        | note | tailnum | distance | event_timestamp      | y      |
        +------+---------+----------+----------------------+--------+
        | a    | N1      | 2000     | 2013-01-09T12:00:00Z | 2175.5 |
        | b    | N2      | 1        | 2013-01-09T12:00:00Z | NaN    |
        | c    |         | 1        | 2013-01-09T12:00:00Z | NaN    |
        | d    | N3      | 1        | 2013-01-09T12:00:00Z | -21.0  |
        | e    | N1      | 2000     | 2013-01-01T12:00:00Z | 2150.5 |
        +------+---------+----------+----------------------+--------+
    "#]],
    )
    .await;
    // Several outputs, texts and lists among them; now, all was too long ago.
    check(&server, &command("class", false), planes().slice(0, 1), expect![[r#"
        +------+---------+----------+----------------------+--------------+-------------------------------------+
        | note | tailnum | distance | event_timestamp      | output_label | output_probability                  |
        +------+---------+----------+----------------------+--------------+-------------------------------------+
        | a    | N1      | 2000     | 2013-01-09T12:00:00Z | early        | {early: NaN, late: NaN, never: NaN} |
        +------+---------+----------+----------------------+--------------+-------------------------------------+
    "#]]).await;
    for (command, table) in [
        (command("dely", false), planes()),
        (BatchCommand { version: Some("7".to_owned()), ..command("delay", false) }, planes()),
        (command("delay", false), planes().project(&[1]).unwrap()),
        (command("delay", true), planes().project(&[1, 2]).unwrap()),
        (
            command("delay", false),
            batch(vec![
                ("y", times(vec![])),
                ("tailnum", Arc::new(StringArray::from(Vec::<&str>::new()))),
                ("distance", Arc::new(Float64Array::from(Vec::<f64>::new()))),
            ]),
        ),
    ] {
        let said = shown(&server, &command, table).await;
        println!("{said}");
        assert!(said.starts_with("InvalidArgument") || said.starts_with("NotFound"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_down_while_others_go_up() {
    let server = planes::serve().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let up = tokio_stream::wrappers::ReceiverStream::new(receiver);
    // The first rows lie in the channel already: nothing waits for the last.
    sender.send(planes()).await.unwrap();
    let command = command("delay", false);
    let mut down = server.client.predict_batch(&command, planes().schema(), up).await.unwrap();
    for _ in 0..3 {
        assert_eq!(down.next().await.unwrap().unwrap().num_rows(), 5);
        sender.send(planes()).await.unwrap();
    }
    drop(sender);
    assert_eq!(down.try_fold(0, |sum, rows| async move { Ok(sum + rows.num_rows()) }).await.unwrap(), 5);
}

#[test]
fn a_file_is_predicted_alone_and_through_a_server() {
    let repository = repository();
    let folder = repository.path();
    let run = |line: &str| run(folder, &line.split_whitespace().collect::<Vec<_>>());
    run("apply").answer();
    run("materialize --to 2013-01-10").answer();
    repository.write_parquet_in_groups("planes.parquet", &planes(), 2);
    repository.write(
        "planes.csv",
        "tailnum,distance,event_timestamp\nN1,2000,2013-01-09T12:00:00Z\n,1,2013-01-09T12:00:00Z\n",
    );
    let read = |name: &str| -> Vec<RecordBatch> {
        let file = std::fs::File::open(folder.join(name)).unwrap();
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap).collect()
    };
    let predict = |from: &str, to: &str, more: &str| {
        run(&format!("predict --model delay --entities {from} --out {to} {more}"))
    };
    let summary = predict("planes.parquet", "alone.parquet", "--as-of --json").json();
    assert_eq!((&summary["rows"], &summary["columns"]), (&5.into(), &5.into()));
    let said = predict("planes.csv", "csv.parquet", "--as-of").answer();
    assert!(said.starts_with("2 rows × 4 columns in "), "{said}");
    assert_eq!(pretty_format_batches(&read("csv.parquet")).unwrap().to_string().lines().count(), 6);
    let (alone, _) = (read("alone.parquet"), predict("planes.parquet", "now.parquet", "").answer());
    let server = Process::start(folder);
    predict("planes.parquet", "served.parquet", "--as-of").answer();
    assert_eq!(read("served.parquet"), alone);
    assert_eq!(pretty_format_batches(&alone).unwrap().to_string(), {
        let rows = predict("planes.parquet", "again.parquet", "--as-of --version 1");
        rows.answer();
        pretty_format_batches(&read("again.parquet")).unwrap().to_string()
    });
    for (line, said) in [
        ("predict --model delay --entities planes.parquet", "--out <FILE>"),
        ("predict --model delay --entities planes.parquet --out o.parquet tailnum=N1", "exclude each other"),
        ("predict --model delay --entities planes.txt --out o.parquet", "planes.txt: No such file"),
        ("predict --model dely --entities planes.csv --out o.parquet", "did you mean `delay`?"),
    ] {
        let refused = run(line);
        assert!(refused.code != Some(0) && refused.stderr.contains(said), "{line}: {refused:?}");
    }
    assert!(server.terminate().success());
}
