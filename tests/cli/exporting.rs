//! What comes out with `quern export`, and do others, Quern among them, read it as it was?

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, FixedSizeListArray, Float32Array, Float64Array,
    Int32Array, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int64Type};
use expect_test::expect;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use quern_kit::{Process, Repository, fixture, run, run_in};

use super::commands::{check, rows, say, starter, words};
use crate::s3::S3;

/// What a command says, without how long it took.
fn said(folder: &Path, line: &str) -> String {
    let said = say(folder, line);
    let Some((before, after)) = said.split_once(" in ") else { return said };
    let to = after.split_once(": ").map_or(after, |(_, to)| to);
    format!("{before}: {to}")
}

fn batch(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let schema = Arc::clone(reader.schema());
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// Files of a folder that are not whole.
fn unfinished(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".part")).collect()
}

#[test]
fn the_rows_of_a_view_come_out() {
    let starter = starter();
    let folder = starter.path();
    run(folder, &["apply"]).answer();
    assert_eq!(said(folder, "export last_order --out all.parquet"), "5 rows × 5 columns: all.parquet\n");
    expect![[r#"
        +----------+----------------------+----------------------+-------------+---------------------+
        | customer | event_timestamp      | last_ordered_at      | last_amount | last_price_per_item |
        +----------+----------------------+----------------------+-------------+---------------------+
        | ada      | 2026-01-05T09:30:00Z | 2026-01-05T09:30:00Z | 12.5        | 6.25                |
        | grace    | 2026-01-05T11:00:00Z | 2026-01-05T11:00:00Z | 80.0        | 20.0                |
        | ada      | 2026-01-20T18:45:00Z | 2026-01-20T18:45:00Z | 30.0        | 10.0                |
        | edsger   | 2026-02-02T08:15:00Z | 2026-02-02T08:15:00Z | 7.25        | 7.25                |
        | ada      | 2026-03-01T12:00:00Z | 2026-03-01T12:00:00Z | 42.0        | 7.0                 |
        +----------+----------------------+----------------------+-------------+---------------------+
    "#]]
    .assert_eq(&rows(&folder.join("all.parquet")));
    // With a server that holds the folder the same comes out.
    let server = Process::start(folder);
    run(folder, &words("export last_order --out there.parquet")).answer();
    assert_eq!(batch(&folder.join("there.parquet")), batch(&folder.join("all.parquet")));
    let line = "export last_order --latest --at 2026-02-15 --features last_amount --out latest.parquet";
    run(folder, &words(line)).answer();
    drop(server);
    expect![[r#"
        +----------+----------------------+-------------+
        | customer | event_timestamp      | last_amount |
        +----------+----------------------+-------------+
        | grace    | 2026-01-05T11:00:00Z | 80.0        |
        | ada      | 2026-01-20T18:45:00Z | 30.0        |
        | edsger   | 2026-02-02T08:15:00Z | 7.25        |
        +----------+----------------------+-------------+
    "#]]
    .assert_eq(&rows(&folder.join("latest.parquet")));
    run(folder, &words("export . --source orders --from 2026-02-01 --to 2026-03-01 --out raw.csv")).answer();
    expect![[r#"
        customer,ordered_at,amount,items,cancelled
        edsger,2026-02-02T08:15:00Z,7.25,1,false
        grace,2026-02-10T16:20:00Z,15.0,1,true
    "#]]
    .assert_eq(&fs::read_to_string(folder.join("raw.csv")).unwrap());
}

#[test]
fn what_cannot_come_out_says_why_and_how_to_go_on() {
    let starter = starter();
    let folder = starter.path();
    let windows = "kind: FeatureView\nname: spent\nentities: [customer]\nsource: orders\naggregations:\n  \
                   - {name: spent, function: sum, of: amount, windows: [30d]}\n";
    fs::write(folder.join("definitions/spent.yaml"), windows).unwrap();
    run(folder, &["apply"]).answer();
    fs::write(folder.join("there.parquet"), "").unwrap();
    check(
        folder,
        "export last_oder --out x.parquet",
        expect![[r#"
        exit 1
        error: unknown feature view `last_oder`; did you mean `last_order`? known: last_order, spent
    "#]],
    );
    check(
        folder,
        "export last_order --features last_amont --out x.parquet",
        expect![[r#"
        exit 1
        error: unknown feature `last_order:last_amont`; did you mean `last_order:last_amount`? known: last_order:last_amount, last_order:last_ordered_at, last_order:last_price_per_item, spent:spent_30d
    "#]],
    );
    check(
        folder,
        "export --source order --out x.parquet",
        expect![[r#"
        exit 1
        error: unknown source `order`; did you mean `orders`? known: orders
    "#]],
    );
    check(
        folder,
        "export spent --out x.parquet",
        expect![[r#"
        exit 1
        error: feature view `spent` has windows, which move on with time: there are no rows that hold its values; ask for those of one moment (`latest`), for a training set of the moments that matter (`quern train`), or for the events themselves (source `orders`)
    "#]],
    );
    check(
        folder,
        "export last_order --out there.parquet",
        expect![[r#"
        exit 1
        error: there.parquet is there already; write another file, or add `--mode overwrite`
    "#]],
    );
    check(
        folder,
        "export last_order --out there.parquet --mode append",
        expect![[r#"
        exit 2
        error: there.parquet: nothing is appended to a file; write another one, or a table (`--format delta`)

        For more information, try '--help'.
    "#]],
    );
    check(
        folder,
        "export last_order --out lake",
        expect![[r#"
        exit 1
        error: lake: its name must end in .parquet or .csv; a table of Delta Lake is a folder (`--format delta`)
    "#]],
    );
    check(
        folder,
        "export last_order --out lake --format parquet",
        expect![[r#"
        exit 1
        error: lake: its name must end in .parquet; a table of Delta Lake is a folder (`--format delta`)
    "#]],
    );
    check(
        folder,
        "export last_order --out s3://lake/orders/x.parquet",
        expect![[r#"
        exit 1
        error: no connection of its project leads to `s3://lake/orders/x.parquet`; where definitions may lead, an administrator says: `{kind: Connection, name: lake, url: "s3://lake/orders/"}`
    "#]],
    );
    check(
        folder,
        "export last_order --out s4://lake/x.parquet",
        expect![[r#"
        exit 1
        error: `s4://lake/x.parquet` is a URL of an unknown scheme
    "#]],
    );
    check(
        folder,
        "export --predictions next_order --out x.parquet",
        expect![[r#"
        exit 1
        error: unknown model `next_order`; none is declared
    "#]],
    );
    check(
        folder,
        "export next_order_v1 --out x.parquet",
        expect![[r#"
        exit 1
        error: `next_order_v1` is a feature service, and a table is of one feature view: its vectors at the times of a spine are a training set (`quern train next_order_v1 --spine FILE --out FILE`), those of now are looked up (`quern get next_order_v1 COLUMN=VALUE`), and each of its feature views is exported by its own name
    "#]],
    );
    assert!(!folder.join("x.parquet").exists() && unfinished(folder).is_empty());
    run(folder, &words("export spent --latest --at 2026-02-15 --out spent.parquet")).answer();
    expect![[r#"
        +----------+----------------------+-----------+
        | customer | event_timestamp      | spent_30d |
        +----------+----------------------+-----------+
        | ada      | 2026-02-15T00:00:00Z | 30.0      |
        | grace    | 2026-02-15T00:00:00Z | 15.0      |
        | edsger   | 2026-02-15T00:00:00Z | 7.25      |
        +----------+----------------------+-----------+
    "#]]
    .assert_eq(&rows(&folder.join("spent.parquet")));
}

#[test]
fn where_nothing_is_live_the_way_out_is_told() {
    let starter = starter();
    let folder = starter.path();
    let nothing = |command: &str, such: &str| {
        let told = "nothing is live in DIR; `quern apply DIR` makes the definitions of a repository live, and where the \
                    repository is another folder, name it first, as in";
        assert_eq!(say(folder, command), format!("exit 1\nerror: {told} `{such}`\n"));
    };
    nothing("export last_order --out x.parquet", "quern export DIR VIEW");
    nothing("train next_order_v1 --spine spine.csv --out x.parquet", "quern train DIR SERVICE");
}

/// Each command writes beside its file under a name of its own, and takes nobody's.
#[test]
fn exports_at_once_are_each_whole() {
    let starter = starter();
    let folder = starter.path();
    run(folder, &["apply"]).answer();
    fs::write(folder.join("all.parquet.part"), "mine").unwrap();
    let server = Process::start(folder);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let line = "export last_order --out all.parquet --mode overwrite";
            scope.spawn(move || run(folder, &words(line)).answer());
        }
    });
    drop(server);
    assert_eq!(batch(&folder.join("all.parquet")).num_rows(), 5);
    assert_eq!(fs::read_to_string(folder.join("all.parquet.part")).unwrap(), "mine");
    assert_eq!(unfinished(folder), ["all.parquet.part"]);
}

#[test]
fn a_table_goes_into_no_folder_of_others() {
    let starter = starter();
    let folder = starter.path();
    let settings = fs::read_to_string(folder.join("quern.yaml")).unwrap();
    fs::write(folder.join("quern.yaml"), format!("{settings}definitions: definitions\n")).unwrap();
    run(folder, &["apply"]).answer();
    check(
        folder,
        "export last_order --out .quern/lake --format delta",
        expect![[r#"
            exit 1
            error: .quern/lake is in the data folder, DIR/.quern; name another folder
        "#]],
    );
    check(
        folder,
        "export last_order --out definitions/lake --format delta",
        expect![[r#"
            exit 1
            error: definitions/lake is in the folder of definitions, DIR/definitions; name another folder
        "#]],
    );
    check(
        folder,
        "export last_order --out data --format delta --mode append",
        expect![[r#"
        exit 1
        error: `DIR/data` is no table of Delta Lake, and holds `orders.csv`; name a folder that is empty, or not there yet
    "#]],
    );
    check(
        folder,
        "export last_order --out spine.csv --format delta",
        expect![[r#"
        exit 1
        error: `DIR/spine.csv` is a file, and a table of Delta Lake is a folder; name another one
    "#]],
    );
}

#[test]
fn what_is_cut_short_leaves_nothing() {
    let starter = starter();
    let folder = starter.path();
    let strict = "kind: FeatureView\nname: odd\nentities: [customer]\nsource: orders\n\
                  features: [{name: odd, expr: 7 / (items - 1), strict: true}]\n";
    fs::write(folder.join("definitions/odd.yaml"), strict).unwrap();
    run(folder, &["apply"]).answer();
    let refused = "exit 1\nerror: data/orders.csv, row 4: `odd` of feature view `odd` cannot be computed, and it is \
                   `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`\n";
    assert_eq!(say(folder, "export odd --out odd.parquet"), refused);
    assert_eq!(say(folder, "export odd --out lake --format delta"), refused);
    let server = Process::start(folder);
    let there = say(folder, "export odd --out odd.parquet");
    assert!(there.contains("`odd` of feature view `odd` cannot be computed"), "{there}");
    drop(server);
    // Neither a folder that was made for it; one that was there stays.
    assert!(!folder.join("odd.parquet").exists() && !folder.join("lake").exists());
    fs::create_dir(folder.join("lake")).unwrap();
    assert_eq!(say(folder, "export odd --out lake/a/b --format delta"), refused);
    assert_eq!(fs::read_dir(folder.join("lake")).unwrap().count(), 0);
    assert!(unfinished(folder).is_empty(), "{:?}", unfinished(folder));
    // Of those whose latest row is refused stands the one before, as in the head.
    run(folder, &words("export odd --latest --out latest.parquet")).answer();
    expect![[r#"
        +----------+----------------------+-----+
        | customer | event_timestamp      | odd |
        +----------+----------------------+-----+
        | ada      | 2026-03-01T12:00:00Z | 1   |
        | grace    | 2026-01-05T11:00:00Z | 2   |
        +----------+----------------------+-----+
    "#]]
    .assert_eq(&rows(&folder.join("latest.parquet")));
}

#[test]
fn what_a_model_said_comes_out() {
    let starter = starter();
    let folder = starter.path();
    fs::create_dir(folder.join("models")).unwrap();
    fs::write(folder.join("models/linear.onnx"), fixture("linear.onnx")).unwrap();
    let model = "kind: FeatureService\nname: small_v1\nrequest: [{name: basket, type: float64}]\nfeatures: [last_order]\n\
                 outputs: [basket, last_amount, last_price_per_item]\n---\n\
                 kind: Model\nname: next_order\nlog: {sample: 1}\n\
                 versions: [{version: \"1\", path: models/linear.onnx, service: small_v1}]\n";
    fs::write(folder.join("definitions/small.yaml"), model).unwrap();
    run(folder, &["apply"]).answer();
    check(
        folder,
        "export --predictions next_order --out said.parquet",
        expect![[r#"
        exit 1
        error: nothing is logged of model `next_order` in that time; a model keeps a log with `log: {sample: 1}`
    "#]],
    );
    let server = Process::start(folder);
    let ask = "predict --model next_order customer=ada basket=25.0 event_timestamp=2026-04-01T00:00:00Z";
    run(folder, &words(ask)).answer();
    let written = said(folder, "export --predictions next_order --out said.parquet");
    assert_eq!(written, "1 row × 15 columns: said.parquet\n");
    drop(server);
    let again = "export . --predictions next_order --out said.parquet --mode overwrite --json";
    assert_eq!(run(folder, &words(again)).json()["rows"], 1);
    assert_eq!(
        run(folder, &words("export . --predictions next_order --out said --format delta --json")).json()["rows"],
        1
    );
    let said = batch(&folder.join("said.parquet"));
    let names: Vec<_> = said.schema().fields().iter().map(|field| field.name().clone()).collect();
    expect!["request_id row arrived_at event_timestamp version digest reason served_by latency_us principal customer basket last_amount last_price_per_item prediction.y"].assert_eq(&names.join(" "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_go_into_a_bucket_through_a_connection() {
    let (s3, starter) = (S3::start().await, starter());
    let folder = starter.path();
    let connection = format!(
        "kind: Connection\nname: lake\nurl: \"s3://models/lake/\"\nendpoint: {:?}\nregion: here\n\
         credentials: {{access_key_id: {{env: LAKE_ID}}, secret_access_key: {{env: LAKE_SECRET}}}}\n---\n\
         kind: Source\nname: back\nbatch: {{format: delta, path: \"s3://models/lake/orders\"}}\n\
         event_timestamp: event_timestamp\n---\n\
         kind: FeatureView\nname: back\nentities: [customer]\nsource: back\nfeatures: [last_amount]\n",
        s3.url
    );
    let secrets = ["LAKE_ID", "LAKE_SECRET"].map(|name| (name, "quern".to_owned()));
    let answer = |line: &str| run_in(folder, &words(line), &secrets);
    // The source comes once there is a table.
    let (alone, _) = connection.split_once("---").unwrap();
    fs::write(folder.join("lake.yaml"), alone).unwrap();
    answer("apply").answer();
    answer("export last_order --out local.parquet").answer();
    answer("export last_order --out s3://models/lake/x.parquet").answer();
    assert_eq!(s3.get("lake/x.parquet").await, fs::read(folder.join("local.parquet")).unwrap());
    let again = answer("export last_order --out s3://models/lake/x.parquet");
    assert!(again.stderr.contains("s3://models/lake/x.parquet is there already"), "{}", again.stderr);
    answer("export last_order --out s3://models/lake/x.parquet --mode overwrite").answer();
    answer("train next_order_v1 --spine spine.csv --out s3://models/lake/set.parquet").answer();
    assert!(s3.get("lake/set.parquet").await.starts_with(b"PAR1"));
    let table = "export last_order --out s3://models/lake/orders --format delta --json";
    assert_eq!(answer(table).json()["version"], 0);
    assert!(answer(table).stdout.contains("there is a table of Delta Lake"));
    assert_eq!(answer(&format!("{table} --mode append --again")).json()["version"], 1);
    assert_eq!(answer(&format!("{table} --mode overwrite --to 2026-01-10")).json()["version"], 2);
    fs::write(folder.join("lake.yaml"), &connection).unwrap();
    answer("apply").answer();
    assert_eq!(answer("export back --out back.parquet --json").json()["rows"], 2);
    // It leads to a part of the bucket alone.
    let outside = answer("export last_order --out s3://models/x.parquet");
    assert!(outside.stderr.contains("no connection of its project leads to"), "{}", outside.stderr);
    let keyless = run(folder, &words("export last_order --out s3://models/lake/y.parquet"));
    assert!(keyless.stderr.contains("LAKE_ID"), "{}", keyless.stderr);
}

#[test]
fn a_table_gets_versions() {
    let starter = starter();
    let folder = starter.path();
    run(folder, &["apply"]).answer();
    let version = |line: &str| run(folder, &words(&format!("{line} --json"))).json()["version"].clone();
    let export = "export last_order --out lake/orders --format delta";
    assert_eq!(version(export), 0);
    check(
        folder,
        export,
        expect![[r#"
        exit 1
        error: there is a table of Delta Lake in `DIR/lake/orders`; add to it with `--mode append`, or let its rows make room with `--mode overwrite` (earlier versions keep them)
    "#]],
    );
    assert_eq!(version(&format!("{export} --to 2026-01-10 --mode append --again")), 1);
    // A training set goes there as well.
    assert_eq!(version("train next_order_v1 --spine spine.csv --out lake/sets --format delta"), 0);
    check(
        folder,
        &format!("{export} --features last_amount --mode append"),
        expect![[r#"
            exit 1
            error: the table `DIR/lake/orders` has a column `last_ordered_at`, which there is not here; write what there is here into another table
        "#]],
    );
    let reader = Repository::new(&format!(
        "kind: Entity\nname: customer\njoin_keys: [{{name: customer, type: string}}]\n---\n\
         kind: Source\nname: orders\nbatch: {{format: delta, path: {}/lake/orders}}\nevent_timestamp: event_timestamp\n---\n\
         kind: FeatureView\nname: back\nentities: [customer]\nsource: orders\nfeatures: [last_amount]\n",
        folder.display()
    ));
    reader.write("quern.yaml", format!("roots: [{}]\n", folder.display()));
    let count = || {
        run(reader.path(), &["apply"]).answer();
        run(reader.path(), &words("export back --out back.parquet --mode overwrite --json")).json()["rows"]
            .clone()
    };
    assert_eq!(count(), 7);
    assert_eq!(version(&format!("{export} --to 2026-01-10 --mode overwrite")), 2);
    assert_eq!(count(), 2);
}

#[test]
fn a_night_is_appended_once() {
    let starter = starter();
    let folder = starter.path();
    run(folder, &["apply"]).answer();
    let export = "export last_order --out lake/nightly --format delta";
    let append = |stretch: &str| {
        let line = format!("{export} --mode append {stretch} --json");
        let answer = run(folder, &words(&line));
        let reply: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
        (reply["rows"].clone(), reply["version"].clone())
    };
    // The first one makes it.
    assert_eq!(append("--to 2026-01-10"), (2.into(), 0.into()));
    assert_eq!(append("--from 2026-01-10 --to 2026-02-01"), (1.into(), 1.into()));
    check(
        folder,
        &format!("{export} --mode append --from 2026-01-10 --to 2026-02-01"),
        expect![[r#"
        exit 1
        error: the table lake/nightly has the rows of `view/last_order` up to 2026-02-01T00:00:00Z, and would have some of them twice if these begin at 2026-01-10T00:00:00Z: leave `--from` out to go on where it ends, or say `--again` if that is meant
    "#]],
    );
    check(
        folder,
        &format!("{export} --mode append --from 2026-02-03 --to 2026-03-02"),
        expect![[r#"
        exit 1
        error: the table lake/nightly has the rows of `view/last_order` up to 2026-02-01T00:00:00Z, and would never have those in between if these begin at 2026-02-03T00:00:00Z: leave `--from` out to go on where it ends, or say `--again` if that is meant
    "#]],
    );
    check(
        folder,
        &format!("{export} --mode append --from 2026-02-03 --to 2026-02-02"),
        expect![[r#"
        exit 2
        error: `--from` is after `--to`: no row is between them

        For more information, try '--help'.
    "#]],
    );
    // The same night once more, which has nothing new.
    assert_eq!(append("--to 2026-02-01"), (0.into(), 2.into()));
    // Once more, and what follows is still what comes after all of it.
    assert_eq!(append("--from 2026-01-10 --to 2026-01-21 --again"), (1.into(), 3.into()));
    assert_eq!(append("--to 2026-03-02"), (2.into(), 4.into()));
    // A view is one thing, its latest rows at one moment are another.
    assert_eq!(append("--latest --at 2026-02-15"), (3.into(), 5.into()));
    // With its rows goes what is known of them.
    let overwritten = format!("{export} --mode overwrite --to 2026-01-10 --json");
    assert_eq!(run(folder, &words(&overwritten)).json()["version"], 6);
    assert_eq!(append("--to 2026-02-01"), (1.into(), 7.into()));
    let latest = format!("{export} --mode overwrite --latest --at 2026-02-15 --json");
    assert_eq!(run(folder, &words(&latest)).json()["version"], 8);
    assert_eq!(append("--from 2026-02-15 --to 2026-03-02"), (1.into(), 9.into()));
}

/// Every type, with values that are lost easily.
fn every_type() -> RecordBatch {
    let at = |us: [i64; 3]| {
        Arc::new(TimestampMicrosecondArray::from(us.to_vec()).with_timezone("UTC")) as ArrayRef
    };
    let odd = [f64::NAN, -0.0, f64::from_bits(1)];
    let list =
        |items: [Option<Vec<Option<i64>>>; 3]| ListArray::from_iter_primitive::<Int64Type, _, _>(items);
    let triple = [Some([Some(0.5), None, Some(-0.0)]), None, Some([Some(f64::INFINITY); 3])];
    let triple = FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(triple, 3);
    let columns: [(&str, ArrayRef); 14] = [
        ("k", Arc::new(StringArray::from(vec!["a", "é\0", ""]))),
        ("ts", at([-1, 0, 1_700_000_000_000_001])),
        ("created", at([5, 0, -7])),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("i", Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)]))),
        ("l", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)]))),
        ("f", Arc::new(Float32Array::from(vec![f32::NAN, -0.0, f32::from_bits(1)]))),
        ("d", Arc::new(Float64Array::from(odd.to_vec()))),
        ("s", Arc::new(StringArray::from(vec![Some(""), None, Some("\u{1F980}")]))),
        ("y", Arc::new(BinaryArray::from(vec![Some(&[0u8, 255][..]), None, Some(&[])]))),
        ("t", at([i64::from(i32::MIN), 0, 253_402_300_799_999_999])),
        ("day", Arc::new(Date32Array::from(vec![Some(-400), None, Some(20_000)]))),
        ("list", Arc::new(list([Some(vec![Some(1), None]), None, Some(vec![])]))),
        ("triple", Arc::new(triple)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

#[test]
fn every_type_comes_back_out_of_a_table_with_the_same_bits() {
    let definitions = |batch: &str, times: [&str; 2]| {
        format!(
            "kind: Entity\nname: e\njoin_keys: [{{name: k, type: string}}]\n---\n\
             kind: Source\nname: s\nbatch: {batch}\nevent_timestamp: {}\ncreated_timestamp: {}\n\
             columns: [{{name: triple, type: \"list<float64, 3>\"}}]\n---\n\
             kind: FeatureView\nname: v\nentities: [e]\nsource: s\n\
             features: [b, i, l, f, d, s, y, t, day, list, triple]\n",
            times[0], times[1]
        )
    };
    let first = Repository::new(&definitions("{format: parquet, path: rows.parquet}", ["ts", "created"]));
    first.write_parquet("rows.parquet", &every_type());
    run(first.path(), &["apply"]).answer();
    run(first.path(), &words("export v --out v.parquet")).answer();
    run(first.path(), &words("export v --out lake --format delta")).answer();
    let lake = first.path().join("lake");
    let batch_of = format!("{{format: delta, path: {}}}", lake.display());
    let second = Repository::new(&definitions(&batch_of, ["event_timestamp", "created_timestamp"]));
    second.write("quern.yaml", format!("roots: [{}]\n", first.path().display()));
    run(second.path(), &["apply"]).answer();
    run(second.path(), &words("export v --out v.parquet")).answer();
    let (before, after) = (batch(&first.path().join("v.parquet")), batch(&second.path().join("v.parquet")));
    assert_eq!(before.num_rows(), 3);
    for (field, (one, other)) in
        before.schema().fields().iter().zip(before.columns().iter().zip(after.columns()))
    {
        assert!(one.to_data() == other.to_data(), "{field}: {one:?} {other:?}");
        // Equal arrays need not have equal bits.
        assert_eq!(format!("{one:?}"), format!("{other:?}"), "{field}");
    }
}
