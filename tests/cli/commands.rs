//! What does a user read who types commands? Alone with a folder, and with a server that has it open.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use quern_kit::{Node, Process, command, fixture, required, run};
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
    // So has each request another one.
    let said = match said.split_once("request ID: ") {
        Some((before, _)) => format!("{before}request ID: ID\n"),
        None => said,
    };
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
pub(super) fn starter() -> TempDir {
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
            next: quern materialize
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
        | customer | event_timestamp      | bought | basket | last_amount | last_price_per_item | days_since         | larger_than_last |
        +----------+----------------------+--------+--------+-------------+---------------------+--------------------+------------------+
        | grace    | 2026-02-15T00:00:00Z | true   | 20.0   | 80.0        | 20.0                | 40.541666666666664 | false            |
        | ada      | 2026-01-06T09:30:00Z | false  | 10.0   | 12.5        | 6.25                | 1.0                | false            |
        | nobody   | 2026-01-06T09:30:00Z |        | 5.5    |             |                     |                    |                  |
        +----------+----------------------+--------+--------+-------------+---------------------+--------------------+------------------+
    "#]].assert_eq(&rows(&folder.join("set.parquet")));
}

/// The orders themselves as a spine: each row sees its own order, unless the view looks before it.
#[test]
fn train_warns_of_rows_that_see_a_row_of_their_own_time() {
    let folder = starter();
    let folder = folder.path();
    let spine = "customer,event_timestamp,basket\nada,2026-03-01T12:00:00Z,42\nada,2026-03-01T12:00:01Z,42\n";
    fs::write(folder.join("spine.csv"), spine).unwrap();
    run(folder, &["apply"]).answer();
    let warned = || {
        let printed = run(folder, &words(TRAIN));
        let counts: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
        format!("{}{}\n{}", printed.stderr, counts["coinciding"], rows(&folder.join("set.parquet")))
    };
    let alone = warned();
    expect![[r#"
        warning: rows of the spine see a row that became visible at their very `event_timestamp`, in feature views
          last_order: 1 of 2 rows
          where it is the event that they stand for, give the view `at: before`, or the service `exclude_event`
        {"last_order":1}
        +----------+----------------------+--------+-------------+---------------------+-------------------------+------------------+
        | customer | event_timestamp      | basket | last_amount | last_price_per_item | days_since              | larger_than_last |
        +----------+----------------------+--------+-------------+---------------------+-------------------------+------------------+
        | ada      | 2026-03-01T12:00:00Z | 42.0   | 42.0        | 7.0                 | 0.0                     | false            |
        | ada      | 2026-03-01T12:00:01Z | 42.0   | 42.0        | 7.0                 | 0.000011574074074074073 | false            |
        +----------+----------------------+--------+-------------+---------------------+-------------------------+------------------+
    "#]].assert_eq(&alone);
    let server = Process::start(folder);
    assert_eq!(warned(), alone, "through a server");
    let definitions = folder.join("definitions/customers.yaml");
    let text = fs::read_to_string(&definitions).unwrap();
    fs::write(&definitions, text.replace("source: orders\n", "source: orders\nat: before\n")).unwrap();
    check(
        folder,
        "plan",
        expect![[r#"
        ~ feature view last_order
            + at: before
        stays materialized: last_order

        0 to add, 1 to change, 0 to remove
    "#]],
    );
    run(folder, &["apply"]).answer();
    expect![[r#"
        {}
        +----------+----------------------+--------+-------------+---------------------+-------------------------+------------------+
        | customer | event_timestamp      | basket | last_amount | last_price_per_item | days_since              | larger_than_last |
        +----------+----------------------+--------+-------------+---------------------+-------------------------+------------------+
        | ada      | 2026-03-01T12:00:00Z | 42.0   | 30.0        | 10.0                | 39.71875                | true             |
        | ada      | 2026-03-01T12:00:01Z | 42.0   | 42.0        | 7.0                 | 0.000011574074074074073 | false            |
        +----------+----------------------+--------+-------------+---------------------+-------------------------+------------------+
    "#]].assert_eq(&warned());
    server.terminate();
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
    let (mut said, counts, rows_said) = ask();
    // What a server refuses it has noted somewhere.
    let named: Vec<bool> = said.iter().map(|said| said.ends_with("request ID: ID\n")).collect();
    assert_eq!(named, said.iter().map(|said| said.starts_with("exit ")).collect::<Vec<_>>(), "{said:?}");
    said.iter_mut().for_each(|said| *said = said.replace("request ID: ID\n", ""));
    assert_eq!((said, counts, rows_said), alone);

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
    // A name is no path: this one would have applied what was just written.
    check(
        folder,
        "predict --model ../apply? customer=ada",
        expect![[r#"
            exit 1
            error: unknown model `../apply?`; known: next_order
            request ID: ID
        "#]],
    );
    check(
        folder,
        "route ../apply? 1=1",
        expect![[r#"
            exit 1
            error: unknown model `../apply?`; known: next_order
            request ID: ID
        "#]],
    );
    check(
        folder,
        "plan --detailed-exitcode",
        expect![[r#"
            exit 2
            ~ feature service small_v1
                + derived double: basket * 2

            0 to add, 1 to change, 0 to remove
        "#]],
    );
    check(
        folder,
        "apply",
        expect![[r#"
            ~ feature service small_v1
                + derived double: basket * 2

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
fn materialize_says_what_it_cannot_do() {
    let folder = starter();
    let folder = folder.path();
    check(
        folder,
        "materialize",
        expect![[r#"
        exit 1
        error: nothing is live, so there is nothing to materialize; `quern apply` first
    "#]],
    );
    run(folder, &["apply"]).answer();
    for line in ["materialize --to 2999-01-01", "materialize --from 2999-01-01T08:30:00Z"] {
        let said = run(folder, &words(line));
        assert_eq!(said.code, Some(1));
        let (before, after) = said.stderr.split_once("clock says ").unwrap();
        let (_, rest) = after.split_once(": what").unwrap();
        let name = if line.contains("--to") {
            "to` is 2999-01-01T00:00:00Z"
        } else {
            "from` is 2999-01-01T08:30:00Z"
        };
        assert_eq!(before, format!("error: `{name}, and this machine's "));
        assert!(rest.starts_with(" is yet to come cannot be materialized"), "{rest}");
    }
    let server = Process::start(folder);
    let said = run(folder, &words("materialize --to 2999-01-01"));
    assert!(said.stderr.contains("is yet to come") && said.stderr.contains("request ID: "), "{said:?}");
    let said = run(folder, &words("materialize --to 2999-01-01 --json"));
    let reply: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(reply["code"], "invalid_argument");
    assert!(reply["request_id"].is_string(), "{reply}");
    drop(server);
}

#[test]
fn a_training_set_is_written_as_its_name_says_or_not_at_all() {
    let folder = starter();
    let folder = folder.path();
    run(folder, &["apply"]).answer();
    run(folder, &words("train next_order_v1 --spine spine.csv --out set.csv")).answer();
    expect![[r#"
        customer,event_timestamp,bought,basket,last_amount,last_price_per_item,days_since,larger_than_last
        grace,2026-02-15T00:00:00Z,true,20.0,80.0,20.0,40.541666666666664,false
        ada,2026-01-06T09:30:00Z,false,10.0,12.5,6.25,1.0,false
        nobody,2026-01-06T09:30:00Z,,5.5,,,,
    "#]]
    .assert_eq(&fs::read_to_string(folder.join("set.csv")).unwrap());
    // It is read as what it was written as: the request column at its place among the outputs, and no column twice.
    run(folder, &words(TRAIN)).answer();
    let head = rows(&folder.join("set.parquet")).lines().nth(1).unwrap().replace(['|', ' '], ",");
    let names: Vec<&str> = head.split(',').filter(|name| !name.is_empty()).collect();
    assert!(
        fs::read_to_string(folder.join("set.csv")).unwrap().starts_with(&format!("{}\n", names.join(",")))
    );
    check(
        folder,
        "train next_order_v1 --spine spine.csv --out set.json",
        expect![[r#"
            exit 1
            error: set.json: its name must end in .parquet or .csv; a table of Delta Lake is a folder (`--format delta`)
        "#]],
    );
    check(
        folder,
        "train next_order_v1 --spine spine.csv --out set",
        expect![[r#"
            exit 1
            error: set: its name must end in .parquet or .csv; a table of Delta Lake is a folder (`--format delta`)
        "#]],
    );

    // A server finds what is wrong with a row when the columns are on their way.
    let server = Process::start(folder);
    fs::write(folder.join("late.csv"), format!("{SPINE}ada,,1,\n")).unwrap();
    check(
        folder,
        "train next_order_v1 --spine late.csv --out late.parquet",
        expect![[r#"
        exit 1
        error: row 3 of the spine has no `event_timestamp`; every row needs a query time
        request ID: ID
    "#]],
    );
    drop(server);
    let left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let is_left = |name: &std::ffi::OsString| name.to_string_lossy().contains(".part");
    assert!(!left.iter().any(is_left) && !folder.join("late.parquet").exists(), "{left:?}");
}

#[test]
fn a_list_has_no_form_in_a_cell() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let definitions = "kind: Entity\nname: e\njoin_keys: [{name: k, type: int64}]\n---\n\
        kind: Source\nname: s\nbatch: {format: csv, path: s.csv}\nevent_timestamp: at\n\
        columns: [{name: k, type: int64}, {name: at, type: timestamp}, {name: l, type: list<float32>}]\n---\n\
        kind: FeatureView\nname: v\nentities: [e]\nsource: s\nfeatures: [l]\n---\n\
        kind: FeatureService\nname: svc\nfeatures: [v]\n";
    fs::write(folder.join("definitions.yaml"), definitions).unwrap();
    fs::write(folder.join("s.csv"), "k,at,l\n1,2024-01-01,\"[1.5, 2]\"\n").unwrap();
    fs::write(folder.join("spine.csv"), "k,event_timestamp\n1,2024-01-02T00:00:00Z\n").unwrap();
    run(folder, &["apply"]).answer();
    check(
        folder,
        "train svc --spine spine.csv --out set.csv",
        expect![[r#"
        exit 1
        error: set.csv: column `l` is list<float32>, which is not written as CSV; name a file that ends in .parquet
    "#]],
    );
    run(folder, &words("train svc --spine spine.csv --out set.parquet")).answer();
    let left = |name: &str| name.starts_with("set.csv") || name.ends_with(".part");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| left(name)).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_route_is_shown_before_and_after() {
    required("ORT_DYLIB_PATH");
    let folder = starter();
    let folder = folder.path();
    add_model(folder);
    let routed = MODEL.replace(
        "versions: [{version: \"1\", path: models/linear.onnx, service: small_v1}]",
        "versions:\n  - {version: 1, path: models/linear.onnx, service: small_v1}\n  - {version: 2, path: models/linear.onnx, \
         service: small_v1}\nroute: {weights: {1: 90, 2: 10}}",
    );
    fs::write(folder.join("definitions/model.yaml"), routed).unwrap();
    run(folder, &["apply"]).answer();
    let mut text = String::new();
    for shares in ["", "2=50", "2=10%", "2=0.05%", "1=60% 2=60%", "2=x", "2=1.5", "3=1", "--reset", "1=0 2=0"]
    {
        text += &format!("> {shares}\n{}", say(folder, &format!("route next_order {shares}")));
    }
    expect![[r#"
        > 
        version 1: 90 (90.0 %)
        version 2: 10 (10.0 %)
        live with apply 1
        > 2=50
        version 1: 90 (90.0 % → 64.3 %)
        version 2: 50 (10.0 % → 35.7 %)
        live with apply 2
        > 2=10%
        version 1: 90 (64.3 % → 90.0 %)
        version 2: 10 (35.7 % → 10.0 %)
        live with apply 3
        > 2=0.05%
        version 1: 9995 (90.0 % → 99.95 %)
        version 2: 5 (10.0 % → 0.05 %)
        live with apply 4
        > 1=60% 2=60%
        exit 1
        error: the percentages add up to 120 %, and all there is are 100 %
        > 2=x
        exit 2
        error: version `2`: `x` is no share: give a weight, a whole number such as `10`, or a percentage such as `10%`

        For more information, try '--help'.
        > 2=1.5
        exit 2
        error: version `2`: `1.5` is no share: give a weight, a whole number such as `10`, or a percentage such as `10%`

        For more information, try '--help'.
        > 3=1
        exit 1
        error: model `next_order` has no version `3`; known: 1, 2
        > --reset
        version 1: 90 (99.95 % → 90.0 %)
        version 2: 10 (0.05 % → 10.0 %)
        live with apply 5
        > 1=0 2=0
        exit 1
        error: every weight is 0, so no version would answer; give one a weight
    "#]].assert_eq(&text);
    let mut text = String::new();
    for ramp in [
        "--ramp 2 10% 50% 100% --every 10m --stop-if p99>50ms",
        "--ramp 2 10% 50 --every 10m",
        "--ramp 2 10%",
        "2=5 --ramp 2 10% --every 10m",
        "--ramp 2 10% 50% 100% --every 10m",
        "--reset",
    ] {
        text += &format!("> {ramp}\n{}", say(folder, &format!("route next_order {ramp}")));
    }
    expect![[r#"
        > --ramp 2 10% 50% 100% --every 10m --stop-if p99>50ms
        exit 1
        error: `stop_if`, item 1: `p99>50ms` is no condition: give conditions such as `error_rate > 0.01`, `fallback_rate > 5%` or `p99 > 50ms`, with `or` between
        > --ramp 2 10% 50 --every 10m
        exit 2
        error: --ramp 2: `50` is no percentage: give one with its sign, as in `12.5%`

        For more information, try '--help'.
        > --ramp 2 10%
        exit 2
        error: the following required arguments were not provided:
          --every <DURATION>

        Usage: quern route [OPTIONS] [DIR] <MODEL> [VERSION=SHARE]...

        For more information, try '--help'.
        > 2=5 --ramp 2 10% --every 10m
        exit 2
        error: give shares or --ramp, not both: a ramp sets the weights itself

        For more information, try '--help'.
        > --ramp 2 10% 50% 100% --every 10m
        version 1: 90 (90.0 %)
        version 2: 10 (10.0 %)
        version 2 goes on by itself: 10%, 50%, 100%, each for 10m and 100 requests at least; stops if error_rate > 0.01
        live with apply 6
        > --reset
        version 1: 90 (90.0 %)
        version 2: 10 (10.0 %)
        this ends the ramp of version `2` (step 1 of 3, 10%)
        live with apply 7
    "#]].assert_eq(&text);
    let json = run(folder, &words("route next_order 2=90 --json")).json();
    expect![[r#"{"number":8,"weights":{"1":90,"2":90},"percent":{"1":50.0,"2":50.0},"percent_before":{"1":90.0,"2":10.0}}"#]].assert_eq(&json.to_string());
    let entities =
        "customer,basket,event_timestamp\nada,1,2026-04-01T00:00:00Z\nbob,2,2026-04-01T00:00:00Z\n";
    fs::write(folder.join("entities.csv"), entities).unwrap();
    let line = "predict --model next_order --entities entities.csv --out said.csv --as-of --json";
    let said = run(folder, &words(line)).json();
    assert_eq!(said["served_by"].as_object().unwrap().values().filter_map(|n| n.as_u64()).sum::<u64>(), 2);
    let csv = fs::read_to_string(folder.join("said.csv")).unwrap();
    assert!(csv.starts_with("customer,basket,event_timestamp,y,served_by\n"), "{csv}");
}

#[test]
fn a_log_in_json_names_requests_as_their_callers_do() {
    let folder = starter();
    run(folder.path(), &["apply"]).answer();
    let mut serve = command(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    serve.env("QUERN_LOG", "quern_api=debug").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = serve.spawn().unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let mut stream = TcpStream::connect(line.trim().strip_prefix("listening on http://").unwrap()).unwrap();
    let request =
        "GET /v1/nothing HTTP/1.1\r\nhost: localhost\r\nx-request-id: order 7\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    server.kill().unwrap();
    let log = String::from_utf8(server.wait_with_output().unwrap().stderr).unwrap();
    let line = log.lines().find(|line| line.contains("order 7")).unwrap_or_else(|| panic!("{log}"));
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["fields"]["id"], &line["fields"]["path"]), (&"order 7".into(), &"/v1/nothing".into()));
}

/// What `plan` says where all was applied already, and only there.
fn check_that_nothing_changes(folder: &Path) {
    check(
        folder,
        "plan",
        expect![[r#"
        no changes; apply 1 is live
    "#]],
    );
}

#[test]
fn what_a_killed_server_left_behind_is_no_server() {
    let folder = starter();
    run(folder.path(), &["apply"]).answer();
    Process::start(folder.path()).kill();
    assert!(folder.path().join(".quern/server.json").exists());
    check_that_nothing_changes(folder.path());
    assert_eq!(Process::start(folder.path()).terminate().code(), Some(0));
}

/// A server of another folder that has taken its place.
#[test]
fn what_a_killed_server_left_behind_leads_to_no_other() {
    let (folder, other) = (starter(), starter());
    run(folder.path(), &["apply"]).answer();
    let killed = Process::start(folder.path());
    let url = killed.url.clone();
    killed.kill();
    let others = Process::start(other.path());
    let left = folder.path().join(".quern/server.json");
    fs::write(&left, fs::read_to_string(&left).unwrap().replace(&url, &others.url)).unwrap();
    // Nothing was ever applied at the other one.
    check_that_nothing_changes(folder.path());
    assert_eq!(others.terminate().code(), Some(0));
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
            definitions/wrong.yaml:5:6: `ttl`: `soon` is not a duration: an amount must be a whole number without a sign; units are w, d, h, m, s, ms and us
              help: a duration is written as in `90d`, `1d12h` or `250ms`
            definitions/wrong.yaml:7:5: a feature lacks the key `name`
              help: `name`: Unique in its view.
            definitions/wrong.yaml:7:6: unknown key `nam` in a feature
              help: did you mean `name`? known: default, description, expr, name, strict, type
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
            definitions/wrong.yaml:7:21: `upper(last_amount) + 1`: Function 'upper' requires String, but received float64 (DataType: float64).. No function matches the given name and argument types 'upper(float64)'. You might need to add explicit type casts.; 	Candidate functions:; 	upper(String)
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
        error: no/set.parquet cannot be written: No such file or directory (os error 2)
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
fn a_server_that_does_not_answer_is_named() {
    let folder = starter();
    let server = Process::start(folder.path());
    server.hold();
    let said = say(folder.path(), "plan").replace(&server.url, "URL");
    expect![[r#"
        exit 1
        error: the server at URL has the data folder open and does not answer: no Quern server answers at unix:DIR/.quern/quern.sock: error sending request: operation timed out; try again, or look into its log
    "#]]
    .assert_eq(&said);
}

#[test]
fn schemas_are_printed_for_editors() {
    let folder = TempDir::new().unwrap();
    let schemas = run(folder.path(), &["schema"]).json();
    assert!(schemas.is_object(), "{schemas}");
}

#[test]
fn other_tools_keep_their_files() {
    let folder = starter();
    let folder = folder.path();
    fs::write(folder.join("docker-compose.yaml"), "services: {db: {image: postgres}}\n").unwrap();
    fs::write(folder.join("k8s.yaml"), "apiVersion: v1\nkind: Model\nmetadata: {name: web}\n").unwrap();
    fs::create_dir(folder.join("node_modules")).unwrap();
    check(
        folder,
        "check --verbose",
        expect![[r#"
        the definitions hold: entities 1, sources 1, feature views 1, feature services 1, models 0
        left alone: docker-compose.yaml: it has no `kind`
        left alone: k8s.yaml: it has `apiVersion`
        left alone: node_modules/: packages of JavaScript
    "#]],
    );
    // A repository in a folder of this one is another one.
    fs::create_dir(folder.join("around")).unwrap();
    let inner = folder.join("around/inner");
    fs::create_dir(&inner).unwrap();
    run(&inner, &["init"]).answer();
    check(
        folder,
        "check around",
        expect![[r#"
        exit 1
        error: DIR/around holds no definition files; DIR/around/inner/ is a repository of its own: name that folder
    "#]],
    );
    check(
        folder,
        "apply --verbose --json",
        expect![[r#"
            {
              "base": 0,
              "number": 1,
              "applied": true,
              "changes": [
                {
                  "action": "add",
                  "kind": "Entity",
                  "name": "customer",
                  "keys": []
                },
                {
                  "action": "add",
                  "kind": "Source",
                  "name": "orders",
                  "keys": []
                },
                {
                  "action": "add",
                  "kind": "FeatureView",
                  "name": "last_order",
                  "keys": []
                },
                {
                  "action": "add",
                  "kind": "FeatureService",
                  "name": "next_order_v1",
                  "keys": []
                }
              ],
              "materialize": [
                {
                  "view": "last_order",
                  "reason": "new",
                  "files": 1,
                  "bytes": 282
                }
              ],
              "keep": [],
              "answer_at_once": [],
              "access": [],
              "fits": [],
              "affected": [],
              "breaks": []
            }
            left alone: around/inner/: a repository of its own
            left alone: docker-compose.yaml: it has no `kind`
            left alone: k8s.yaml: it has `apiVersion`
            left alone: node_modules/: packages of JavaScript
        "#]],
    );
    // What may be a slip is a mistake.
    fs::write(folder.join("more.yaml"), "kind: FeatureVeiw\nname: v\n").unwrap();
    check(
        folder,
        "check",
        expect![[r#"
            exit 1
            more.yaml:1:7: unknown kind `FeatureVeiw`
              help: did you mean `FeatureView`? known: Connection, Entity, FeatureService, FeatureView, Model, Role, Source; a file of another tool goes into `.quernignore`
            1 mistake
        "#]],
    );
    fs::write(folder.join(".quernignore"), "more.yaml\n").unwrap();
    check(
        folder,
        "check",
        expect![[r#"
        the definitions hold: entities 1, sources 1, feature views 1, feature services 1, models 0
    "#]],
    );
}

#[test]
fn a_file_becomes_a_source() {
    let folder = starter();
    let folder = folder.path();
    check(
        folder,
        "infer data/orders.csv",
        expect![[r#"
        # As far as data/orders.csv shows; the types are guessed.
        kind: Source
        name: orders
        batch: {format: csv, path: data/orders.csv}
        event_timestamp: ordered_at
        columns:
          - {name: customer, type: string}
          - {name: ordered_at, type: timestamp}
          - {name: amount, type: float64}
          - {name: items, type: int64}
          - {name: cancelled, type: bool}
    "#]],
    );
    // From where the file lies it is the same source, with the same path.
    assert_eq!(say(&folder.join("data"), "infer orders.csv"), say(folder, "infer data/orders.csv"));
    let beside = folder.join("definitions");
    assert_eq!(say(&beside, "infer ../data/orders.csv"), say(folder, "infer data/orders.csv"));
    check(
        folder,
        "infer data/none.csv",
        expect![[r#"
            exit 1
            error: no file matches `data/none.csv`; looked in `DIR/data`, which holds orders.csv; a path is relative to the repository's root, and a folder stands for every .csv or .csv.gz or .csv.zst file in it
        "#]],
    );
    check(
        folder,
        "infer spine.txt",
        expect![[r#"
            exit 1
            error: `spine.txt` names no file that ends in .parquet or .csv or .json or .arrow
        "#]],
    );
    // What it writes holds as it is.
    let source =
        run(folder, &words("infer data/orders.csv")).answer().replace("name: orders", "name: pasted");
    fs::write(folder.join("definitions/pasted.yaml"), source).unwrap();
    check(
        folder,
        "check",
        expect![[r#"
        the definitions hold: entities 1, sources 2, feature views 1, feature services 1, models 0
    "#]],
    );
}

#[test]
fn a_plan_says_which_models_get_other_inputs_and_why() {
    required("ORT_DYLIB_PATH");
    let folder = starter();
    let folder = folder.path();
    add_model(folder);
    let constant = "fallback: {to: [{constant: 0}]}\n";
    fs::write(folder.join("definitions/model.yaml"), format!("{MODEL}{constant}")).unwrap();
    run(folder, &["apply"]).answer();
    let customers = fs::read_to_string(folder.join("definitions/customers.yaml")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(customers.contains(from), "{from}");
        fs::write(folder.join("definitions/customers.yaml"), customers.replacen(from, to, 1)).unwrap();
        say(folder, "plan")
    };
    expect![[r#"
        ~ feature view last_order
            + ttl: 1h
        stays materialized: last_order

        note: model `next_order`, version `1`: its inputs keep their names and types and are computed in another way than those it was trained on (`ttl` of feature view `last_order`: none → 1h)

        0 to add, 1 to change, 0 to remove
    "#]].assert_eq(&with("features:", "ttl: 1h\nfeatures:"));
    // Nobody reads it.
    expect![[r#"
        ~ feature view last_order
            + feature last_items: items
        ~ feature service next_order_v1
            + features of last_order: last_items
        ~ feature service small_v1
            + features of last_order: last_items

        to materialize:
            last_order: changed, so nothing is found of it until then; reads 1 file, 282 B

        0 to add, 3 to change, 0 to remove
    "#]]
    .assert_eq(&with("features:", "features:\n  - {name: last_items, expr: items}"));
    expect![[r#"
        ~ feature view last_order
            ~ feature last_price_per_item: amount / items → amount / (items + 0)

        to materialize:
            last_order: changed, so nothing is found of it until then; reads 1 file, 282 B

        note: model `next_order`, version `1`: its inputs keep their names and types and are computed in another way than those it was trained on (`last_price_per_item` of feature view `last_order`: amount / items → amount / (items + 0))

        0 to add, 1 to change, 0 to remove
    "#]].assert_eq(&with("amount / items", "amount / (items + 0)"));
    fs::write(folder.join("definitions/customers.yaml"), &customers).unwrap();
    let other = MODEL.replace("outputs: [", "derived: [{name: twice, expr: basket * 2}]\noutputs: [");
    fs::write(folder.join("definitions/model.yaml"), format!("{other}{}", constant.replace('0', "1.5")))
        .unwrap();
    check(
        folder,
        "plan",
        expect![[r#"
            ~ feature service small_v1
                + derived twice: basket * 2
            ~ model next_order
                ~ fallback: 0 → 1.5

            0 to add, 2 to change, 0 to remove
        "#]],
    );
}
