//! What does a user read who types commands? Alone with a folder, and with a server that has it open.

use std::fs;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use quern_kit::{Node, Process, fixture, required, run};
use tempfile::TempDir;

/// The words of one command line; `'…'` keeps blanks.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut parts = line.split('\'');
    let mut words = Vec::new();
    while let Some(plain) = parts.next() {
        words.extend(plain.split_whitespace().map(str::to_owned));
        words.extend(parts.next().map(str::to_owned));
    }
    words
}

/// What a person sees of a command: its exit code where it is not 0, then what it says.
pub(super) fn say(folder: &Path, line: &str) -> String {
    let printed = run(folder, &words(line));
    let code = printed.code.filter(|code| *code != 0).map_or(String::new(), |code| format!("exit {code}\n"));
    // The folder is a temporary one, with another name each time; so is the process that has it open.
    let canonical = folder.canonicalize().unwrap();
    let said = (code + &printed.stdout + &printed.stderr).replace(&*canonical.to_string_lossy(), "DIR");
    match said.split_once("by process ") {
        Some((before, after)) => {
            format!("{before}by process ID{}", after.trim_start_matches(char::is_numeric))
        }
        None => said,
    }
}

pub(super) fn check(folder: &Path, line: &str, expected: Expect) {
    expected.assert_eq(&say(folder, line));
}

pub(super) fn rows(path: &Path) -> String {
    let file = fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    format!("{}\n", pretty_format_batches(&batches).unwrap())
}

const SPINE: &str = "customer,event_timestamp,basket,bought\n\
    grace,2026-02-15T00:00:00Z,20,true\n\
    ada,2026-01-06T09:30:00Z,10,false\n\
    nobody,2026-01-06T09:30:00Z,5.5,\n";

const MODEL: &str = "kind: FeatureService\nname: small_v1\nrequest: [{name: basket, type: float64}]\nfeatures: [last_order]\n\
    outputs: [basket, last_amount, last_price_per_item]\n---\n\
    kind: Model\nname: next_order\nversions: [{version: \"1\", path: models/linear.onnx, service: small_v1}]\n";

const GET: &str = "get next_order_v1 customer=ada basket=25.0 event_timestamp=2026-04-01T00:00:00Z";
const PREDICT: &str =
    "predict --model next_order customer=ada basket=25.0 event_timestamp=2026-04-01T00:00:00Z";
const TRAIN: &str = "train next_order_v1 --spine spine.csv --out set.parquet --json";

/// The starter, with a spine to train on and a model to ask.
fn starter() -> TempDir {
    let folder = TempDir::new().unwrap();
    run(folder.path(), &["init"]).answer();
    fs::write(folder.path().join("spine.csv"), SPINE).unwrap();
    folder
}

fn add_model(folder: &Path) {
    fs::create_dir(folder.join("models")).unwrap();
    fs::write(folder.join("models/linear.onnx"), fixture("linear.onnx")).unwrap();
    fs::write(folder.join("definitions/model.yaml"), MODEL).unwrap();
}

fn materialize(folder: &Path) -> String {
    let summary = run(folder, &words("materialize --to 2026-04-01 --json")).json();
    let view = &summary["views"][0];
    let counts = ["rows_read", "rows_filtered", "rows_written", "rows_unchanged", "rows_older"];
    counts.map(|name| format!("{name} {}", view[name])).join(", ")
}

#[test]
fn the_starter_works_as_it_is() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    check(
        folder,
        "init",
        expect![[r#"
        wrote ./quern.yaml
        wrote ./definitions/customers.yaml
        wrote ./data/orders.csv
        wrote ./.gitignore

        next:
          quern apply .
          quern materialize .
          quern get . next_order_v1 customer=ada basket=25.0
          quern serve .
    "#]],
    );
    check(
        folder,
        "init",
        expect![[r#"
        exit 1
        error: ./quern.yaml is there already; nothing was written
    "#]],
    );
    check(
        folder,
        "check",
        expect![[r#"
        the definitions hold: entities 1, sources 1, feature views 1, feature services 1, models 0
    "#]],
    );
    check(
        folder,
        "plan --detailed-exitcode",
        expect![[r#"
            exit 2
            + entity customer
            + source orders
            + feature view last_order
            + feature service next_order_v1

            to materialize:
                last_order: new; reads 1 file, 282 B

            4 to add, 0 to change, 0 to remove
        "#]],
    );
    check(
        folder,
        "apply",
        expect![[r#"
            + entity customer
            + source orders
            + feature view last_order
            + feature service next_order_v1

            to materialize:
                last_order: new; reads 1 file, 282 B

            4 to add, 0 to change, 0 to remove

            apply 1 is live
            next: quern materialize .
        "#]],
    );
    check(
        folder,
        "apply",
        expect![[r#"
        no changes; apply 1 is live
    "#]],
    );
    check(
        folder,
        "plan --detailed-exitcode",
        expect![[r#"
        no changes; apply 1 is live
    "#]],
    );
    expect!["rows_read 6, rows_filtered 1, rows_written 3, rows_unchanged 0, rows_older 0"]
        .assert_eq(&materialize(folder));
    expect!["rows_read 6, rows_filtered 1, rows_written 0, rows_unchanged 0, rows_older 0"]
        .assert_eq(&materialize(folder));
    check(
        folder,
        GET,
        expect![[r#"
        feature              value  status   event timestamp
        customer               ada  PRESENT
        basket                25.0  PRESENT
        last_amount           42.0  PRESENT  2026-03-01T12:00:00Z
        last_price_per_item    7.0  PRESENT  2026-03-01T12:00:00Z
        days_since            30.5  PRESENT
        larger_than_last     false  PRESENT
    "#]],
    );
    fs::write(folder.join("spine.csv"), SPINE).unwrap();
    run(folder, &words(TRAIN)).answer();
    expect![[r#"
        +----------+----------------------+--------+--------+-------------+---------------------+--------------------+------------------+
        | customer | event_timestamp      | basket | bought | last_amount | last_price_per_item | days_since         | larger_than_last |
        +----------+----------------------+--------+--------+-------------+---------------------+--------------------+------------------+
        | grace    | 2026-02-15T00:00:00Z | 20.0   | true   | 80.0        | 20.0                | 40.541666666666664 | false            |
        | ada      | 2026-01-06T09:30:00Z | 10.0   | false  | 12.5        | 6.25                | 1.0                | false            |
        | nobody   | 2026-01-06T09:30:00Z | 5.5    |        |             |                     |                    |                  |
        +----------+----------------------+--------+--------+-------------+---------------------+--------------------+------------------+
    "#]].assert_eq(&rows(&folder.join("set.parquet")));
}

#[test]
fn a_server_answers_the_commands_as_the_folder_does() {
    required("ORT_DYLIB_PATH");
    let folder = starter();
    let folder = folder.path();
    add_model(folder);
    run(folder, &["apply"]).answer();
    run(folder, &words("materialize --to 2026-02-01")).answer();
    let ask = || {
        let lines = ["check", "check --json", "plan", "plan --json", "apply", GET, PREDICT];
        let more = [
            "get nothing",
            "predict --model next_order basket=1",
            "train nothing --spine spine.csv --out x.parquet",
        ];
        let said: Vec<_> = lines.iter().chain(&more).map(|line| say(folder, line)).collect();
        let counts = run(folder, &words(TRAIN)).json();
        (said, counts["rows"].clone(), rows(&folder.join("set.parquet")))
    };
    let alone = ask();
    let server = Process::start(folder);
    assert!(folder.join(".quern/server.json").exists());
    assert_eq!(ask(), alone);

    // What is written through the server is read through it.
    expect!["rows_read 6, rows_filtered 1, rows_written 2, rows_unchanged 0, rows_older 0"]
        .assert_eq(&materialize(folder));
    check(
        folder,
        GET,
        expect![[r#"
        feature              value  status   event timestamp
        customer               ada  PRESENT
        basket                25.0  PRESENT
        last_amount           42.0  PRESENT  2026-03-01T12:00:00Z
        last_price_per_item    7.0  PRESENT  2026-03-01T12:00:00Z
        days_since            30.5  PRESENT
        larger_than_last     false  PRESENT
    "#]],
    );
    check(
        folder,
        PREDICT,
        expect![[r#"
        1145.5
    "#]],
    );
    let with_features = format!("{PREDICT} --with-features");
    check(
        folder,
        &with_features,
        expect![[r#"
        feature              value  status   event timestamp
        basket                25.0  PRESENT
        last_amount           42.0  PRESENT  2026-03-01T12:00:00Z
        last_price_per_item    7.0  PRESENT  2026-03-01T12:00:00Z
        1145.5
    "#]],
    );
    let longer = MODEL.replace("---\n", "derived: [{name: double, expr: basket * 2}]\n---\n");
    fs::write(folder.join("definitions/model.yaml"), longer).unwrap();
    check(
        folder,
        "plan --detailed-exitcode",
        expect![[r#"
        exit 2
        ~ feature service small_v1
            + derived: double
            + derived double: basket * 2
        stays materialized: last_order

        note: model `next_order`, version `1`: its inputs keep their names and types and are computed in another way than those it was trained on (feature service `small_v1`)

        0 to add, 1 to change, 0 to remove
    "#]],
    );
    check(
        folder,
        "apply",
        expect![[r#"
        ~ feature service small_v1
            + derived: double
            + derived double: basket * 2
        stays materialized: last_order

        note: model `next_order`, version `1`: its inputs keep their names and types and are computed in another way than those it was trained on (feature service `small_v1`)

        0 to add, 1 to change, 0 to remove

        apply 2 is live
    "#]],
    );
    check(
        folder,
        "serve --listen 127.0.0.1:0",
        expect![[r#"
        exit 1
        error: the data folder DIR/.quern is in use by process ID; wait until it is done, or stop it
    "#]],
    );

    assert_eq!(server.terminate().code(), Some(0));
    assert!(!folder.join(".quern/server.json").exists());
    check(
        folder,
        "plan",
        expect![[r#"
        no changes; apply 2 is live
    "#]],
    );
}

#[test]
fn what_a_killed_server_left_behind_is_no_server() {
    let folder = starter();
    run(folder.path(), &["apply"]).answer();
    Process::start(folder.path()).kill();
    assert!(folder.path().join(".quern/server.json").exists());
    check(
        folder.path(),
        "plan",
        expect![[r#"
        no changes; apply 1 is live
    "#]],
    );
    assert_eq!(Process::start(folder.path()).terminate().code(), Some(0));
}

#[test]
fn mistakes_in_definitions_are_told_all_at_once() {
    let folder = starter();
    let wrong = "kind: FeatureView\nname: orders\nentities: [customr]\nsource: orders\nttl: soon\nfeatures:\n  - {nam: x}\n---\n\
        kind: FeatureService\nname: svc\nfeatures: [last_ordr]\nderived: [{name: n, expr: now()}]\n";
    fs::write(folder.path().join("definitions/wrong.yaml"), wrong).unwrap();
    check(
        folder.path(),
        "check",
        expect![[r#"
        exit 1
        definitions/wrong.yaml:3:12: unknown entity `customr`
          help: did you mean `customer`? known: customer
        definitions/wrong.yaml:5:6: `ttl`: `soon` is not a duration: an amount must be a whole number without a sign
          help: a duration is written as in `90d`, `1d12h` or `250ms`
        definitions/wrong.yaml:7:5: a feature lacks the key `name`
          help: `name`: Unique in its view.
        definitions/wrong.yaml:7:6: unknown key `nam` in a feature
          help: did you mean `name`? known: default, description, expr, name, type
        definitions/wrong.yaml:11:12: unknown feature view `last_ordr`
          help: did you mean `last_order`? known: last_order, orders
        5 mistakes
    "#]],
    );
    let later = "kind: FeatureService\nname: svc\nfeatures: [last_order]\nderived:\n  - {name: n, expr: now()}\n  \
        - {name: m, expr: last_amout + 1}\n  - {name: o, expr: \"upper(last_amount) + 1\"}\n";
    fs::write(folder.path().join("definitions/wrong.yaml"), later).unwrap();
    check(
        folder.path(),
        "apply",
        expect![[r#"
        exit 1
        definitions/wrong.yaml:5:21: `now()` gives another value each time it is asked, so training and serving would differ
          help: time is an input: use `event_timestamp`, or declare a request column for it
        definitions/wrong.yaml:6:21: `last_amout + 1` names unknown column `last_amout`
          help: did you mean `last_amount`? known: customer, event_timestamp, last_amount, last_ordered_at, last_price_per_item
        definitions/wrong.yaml:7:21: `upper(last_amount) + 1`: Function 'upper' requires String, but received Float64 (DataType: Float64).
        3 mistakes
    "#]],
    );
    let json = run(folder.path(), &words("check --json"));
    let reply: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, reply["code"].as_str()), (Some(1), Some("definitions")));
    expect![[r#"{"file":"definitions/wrong.yaml","line":5,"column":21,"cause":"`now()` gives another value each time it is asked, so training and serving would differ","help":"time is an input: use `event_timestamp`, or declare a request column for it"}"#]].assert_eq(&reply["mistakes"][0].to_string());
}

#[test]
fn mistakes_on_the_command_line_are_told_with_the_way_out() {
    let folder = starter();
    let folder = folder.path();
    run(folder, &["apply"]).answer();
    check(
        folder,
        "get next_order_v1 customer=ada",
        expect![[r#"
        exit 1
        error: column `basket` is missing; feature service `next_order_v1` needs `customer` (string), `basket` (float64)
    "#]],
    );
    check(
        folder,
        "get next_order_v1 customer=ada basket=much",
        expect![[r#"
        exit 1
        error: entity 0: column `basket`: expected float64, found string "much"
    "#]],
    );
    check(
        folder,
        "get next_order customer=ada",
        expect![[r#"
        exit 1
        error: unknown feature service `next_order`; did you mean `next_order_v1`? known: next_order_v1
    "#]],
    );
    check(
        folder,
        "get next_order_v1 customer=ada customer=bob",
        expect![[r#"
        exit 2
        error: `customer` is given twice

        For more information, try '--help'.
    "#]],
    );
    check(
        folder,
        "get . next_order_v1 customer ada",
        expect![[r#"
        exit 2
        error: `customer` is not COLUMN=VALUE

        For more information, try '--help'.
    "#]],
    );
    check(
        folder,
        "predict --model next_order customer=ada",
        expect![[r#"
        exit 1
        error: unknown model `next_order`; none is declared
    "#]],
    );
    check(
        folder,
        "materialize --view last_orders",
        expect![[r#"
        exit 1
        error: unknown feature view `last_orders`; did you mean `last_order`? known: last_order
    "#]],
    );
    check(
        folder,
        "materialize --from 2026-01-02 --to 2026-01-01",
        expect![[r#"
        exit 1
        error: `from` is after `to`
    "#]],
    );
    check(
        folder,
        "materialize --to tomorrow",
        expect![[r#"
        exit 2
        error: invalid value 'tomorrow' for '--to <TIME>': a time is such as 2013-01-31, 2013-01-31T08:30:00 or 2013-01-31T08:30:00-05:00

        For more information, try '--help'.
    "#]],
    );
    check(
        folder,
        "train next_order_v1 --spine spine.txt --out set.parquet",
        expect![[r#"
        exit 1
        error: spine spine.txt: No such file or directory (os error 2)
    "#]],
    );
    check(
        folder,
        "train next_order_v1 --spine lost.csv --out set.parquet",
        expect![[r#"
        exit 1
        error: spine lost.csv: No such file or directory (os error 2)
    "#]],
    );
    check(
        folder,
        "train next_order_v1 --spine data/orders.csv --out set.parquet",
        expect![[r#"
        exit 1
        error: the spine has no column `event_timestamp` (known: amount, cancelled, customer, items, ordered_at); feature service `next_order_v1` needs: event_timestamp timestamp, customer string, basket float64
    "#]],
    );
    check(
        folder,
        "train next_order_v1 --spine spine.csv --out no/set.parquet",
        expect![[r#"
        exit 1
        error: no/set.parquet.part cannot be written: No such file or directory (os error 2)
    "#]],
    );
    check(
        folder,
        "check nowhere",
        expect![[r#"
        exit 1
        error: there is no folder DIR/nowhere; `quern init DIR/nowhere` writes a repository to start from
    "#]],
    );
    check(
        folder,
        "check data",
        expect![[r#"
        exit 1
        error: DIR/data holds no definition files (*.yaml); `quern init DIR/data` writes some to start from
    "#]],
    );
    check(
        folder,
        "serve --listen somewhere",
        expect![[r#"
        exit 1
        error: option --listen: `somewhere` is not an address and a port, such as `127.0.0.1:7400`
    "#]],
    );
    check(
        folder,
        "grind",
        expect![[r#"
        exit 2
        error: unrecognized subcommand 'grind'

          tip: a similar subcommand exists: 'train'

        Usage: quern [OPTIONS] <COMMAND>

        For more information, try '--help'.
    "#]],
    );
    // A mistake leaves nothing behind.
    for path in ["set.parquet", "nowhere", "data/.quern"] {
        assert!(!folder.join(path).exists(), "{path}");
    }
}

#[tokio::test]
async fn a_folder_belongs_to_one_process() {
    let folder = starter();
    let open = Node::open(folder.path(), &[]).await.unwrap();
    check(
        folder.path(),
        "apply",
        expect![[r#"
        exit 1
        error: the data folder DIR/.quern is in use by process ID; wait until it is done, or stop it
    "#]],
    );
    drop(open);
    run(folder.path(), &["apply"]).answer();
}

#[test]
fn schemas_are_printed_for_editors() {
    let folder = TempDir::new().unwrap();
    let schemas = run(folder.path(), &["schema"]).json();
    assert!(schemas.is_object(), "{schemas}");
}
