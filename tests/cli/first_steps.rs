//! What does somebody read whose first steps go astray?

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use quern_kit::run;
use tempfile::TempDir;

use super::commands::{check, say, starter, words};

/// What a command says where one file of the starter reads otherwise.
fn with(file: &str, from: &str, to: &str, line: &str, expected: Expect) {
    let folder = starter();
    let path = folder.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(&path, text.replace(from, to)).unwrap();
    check(folder.path(), line, expected);
}

#[test]
fn every_command_finds_the_repository_around_its_folder() {
    let folder = starter();
    let folder = folder.path();
    let within = folder.join("definitions");
    let same = |line: &str| {
        let (there, here) = (say(&within, line), say(folder, line));
        assert_eq!(there, here, "{line}");
        here
    };
    same("check");
    same("plan");
    assert!(say(&within, "apply").ends_with("apply 1 is live\nnext: quern materialize\n"));
    assert!(
        run(&within, &words("materialize --to 2026-04-01 --json")).json()["views"][0]["rows_written"] == 3
    );
    assert!(
        same("get next_order_v1 customer=ada basket=25.0 event_timestamp=2026-04-01").contains("last_amount")
    );
    same("verify");
    same("route none");
    same("predict --model none customer=ada");
    // Files begin where the command is typed.
    run(&within, &words("train next_order_v1 --spine ../spine.csv --out set.parquet")).answer();
    assert!(within.join("set.parquet").exists() && !within.join(".quern").exists());
    // A folder that is named is meant.
    assert!(say(&within, "get . next_order_v1 customer=ada").contains("unknown feature service"));
    // Who only looks leaves no data folder where there was none.
    assert!(!within.join(".quern").exists());
}

#[test]
fn the_first_rows_are_read_when_definitions_are_checked() {
    with(
        "data/orders.csv",
        "80.00",
        "much",
        "check",
        expect![[r#"
            exit 1
            definitions/customers.yaml:9:28: source `orders`: `data/orders.csv`, line 3, column `amount`: its cell is not of type float64, such as -1.5e3
              help: mend the file, or declare the column as what it holds
            1 mistake
        "#]],
    );
    with(
        "definitions/customers.yaml",
        "amount, type: float64",
        "amount, type: int64",
        "check",
        expect![[r#"
            exit 1
            definitions/customers.yaml:9:28: source `orders`: `data/orders.csv`, line 2, column `amount`: its cell is not of type int64, such as -7
              help: mend the file, or declare the column as what it holds
            1 mistake
        "#]],
    );
}

/// A source whose times are these numbers, in this unit.
fn epochs(folder: &Path, format: &str, numbers: &[i64]) -> String {
    let source = format!(
        "kind: Source\nname: s\nbatch: {{format: csv, path: s.csv}}\nevent_timestamp: at\n\
         columns: [{{name: at, type: timestamp, format: {format}}}]\n"
    );
    fs::write(folder.join("definitions.yaml"), source).unwrap();
    let numbers: String = numbers.iter().map(|number| format!("{number}\n")).collect();
    fs::write(folder.join("s.csv"), format!("at\n{numbers}")).unwrap();
    say(folder, "check")
}

#[test]
fn numbers_of_another_unit_than_is_declared_are_refused() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    expect![[r#"
        exit 1
        definitions.yaml:5:18: source `s`: the numbers of column `at` in `s.csv` are no seconds since 1970: none of them lies in the years from 1971 to 2199
          help: they look like milliseconds: write `format: epoch_ms`; moments that are that far away are written as timestamps, not as numbers
        1 mistake
    "#]].assert_eq(&epochs(folder, "epoch_s", &[1_704_067_200_000, 1_704_067_260_000]));
    expect![[r#"
        exit 1
        definitions.yaml:5:18: source `s`: the numbers of column `at` in `s.csv` are no milliseconds since 1970: none of them lies in the years from 1971 to 2199
          help: they look like seconds: write `format: epoch_s`; moments that are that far away are written as timestamps, not as numbers
        1 mistake
    "#]].assert_eq(&epochs(folder, "epoch_ms", &[1_704_067_200]));
    for (format, sound) in [
        ("epoch_s", [1_704_067_200, 0]),
        ("epoch_s", [-300_000_000, 86_400]),
        ("epoch_ms", [1_704_067_200_000, 253_402_214_400_000]),
    ] {
        assert!(epochs(folder, format, &sound).starts_with("the definitions hold"), "{format} {sound:?}");
    }
}

#[test]
fn a_name_is_suggested_only_where_one_is_near() {
    let file = "definitions/customers.yaml";
    with(
        file,
        "event_timestamp: ordered_at",
        "event_timestamp: paid",
        "check",
        expect![[r#"
        exit 1
        definitions/customers.yaml:10:18: `paid` is not among the declared columns of source `orders`
          help: known: amount, cancelled, customer, items, ordered_at
        1 mistake
    "#]],
    );
    with(
        file,
        "event_timestamp: ordered_at",
        "event_timestamp: orderd_at",
        "check",
        expect![[r#"
        exit 1
        definitions/customers.yaml:10:18: `orderd_at` is not among the declared columns of source `orders`
          help: did you mean `ordered_at`? known: amount, cancelled, customer, items, ordered_at
        1 mistake
    "#]],
    );
    with(
        file,
        "kind: Source\n",
        "kind: Source\npush: \"true\"\n",
        "check",
        expect![[r#"
        exit 1
        definitions/customers.yaml:8:7: `push` must be `true` or `false`, found `true`
          help: write it without quotes: true; what is in quotes is a text, and so are yes and on
        1 mistake
    "#]],
    );
}

#[test]
fn a_spine_is_read_as_it_is_written() {
    let folder = starter();
    let folder = folder.path();
    run(folder, &["apply"]).answer();
    let spine = |text: &str| {
        fs::write(folder.join("spine.csv"), text).unwrap();
        say(folder, "train next_order_v1 --spine spine.csv --out set.csv")
    };
    expect![[r#"
        exit 1
        error: spine spine.csv: its header `customer;event_timestamp;basket` has semicolons between the columns, and a CSV file has commas; rewrite it, with pandas as in read_csv(path, sep=";").to_csv(path, index=False)
    "#]].assert_eq(&spine("customer;event_timestamp;basket\nada;2026-02-15;20\n"));
    expect![[r#"
        exit 1
        error: spine spine.csv: line 3 has 4 cells and the header 3
    "#]]
    .assert_eq(&spine("customer,event_timestamp,basket\n\nada,2026-02-15,20,5\n"));
    expect![[r#"
        exit 1
        error: spine spine.csv: line 2, column `basket`: `much` is not of type float64
    "#]]
    .assert_eq(&spine("customer,event_timestamp,basket\nada,2026-02-15,much\n"));
    // Digits that follow a zero or a plus are no number; those of other columns are.
    let sound = "customer,event_timestamp,basket,zip,phone,n\nada,2026-02-15,020,0123,+4912,7\nada,2026-02-15,1,9,-01,8\n";
    assert!(spine(sound).starts_with("2 rows"));
    let set = fs::read_to_string(folder.join("set.csv")).unwrap();
    let carried: Vec<&str> = set.lines().map(|line| line.rsplit(",2026").next().unwrap()).collect();
    expect![[r#"
        customer,event_timestamp,zip,phone,n,basket,last_amount,last_price_per_item,days_since,larger_than_last
        -02-15T00:00:00Z,0123,+4912,7,20.0,30.0,10.0,25.21875,false
        -02-15T00:00:00Z,9,-01,8,1.0,30.0,10.0,25.21875,false"#]].assert_eq(&carried.join("\n"));
}

#[test]
fn help_fits_a_window_and_shows_what_stands_where() {
    let folder = TempDir::new().unwrap();
    let help = |command: &str| run(folder.path(), &words(&format!("{command} --help"))).answer();
    expect![[r#"
        Show or change which version of a model answers whom

        Usage: quern route [OPTIONS] [DIR] <MODEL> [VERSION=SHARE]...

        Arguments:
          [DIR]               The repository (default: the nearest folder upwards with a quern.yaml)
          <MODEL>             The model
          [VERSION=SHARE]...  Versions and their new shares; without any, the weights are shown. `2=50`
                              sets a weight, and the other versions keep theirs; `2=10%` sets a part of
                              all, and the others are scaled into the rest

        Options:
              --reset                      Go back to the weights that are declared, and forget the model's
                                           ramp
              --ramp <VERSION> <SHARE>...  Have the share of a version go through these steps by itself, as
                                           in `--ramp 2 10% 50% 100%`. It stops and goes back by itself;
                                           `quern status` shows how far it is, other shares or --reset end
                                           it
              --every <DURATION>           How long each step lasts at least, as in `10m`; it also waits for
                                           100 requests of the version
              --stop-if <CONDITION>        What stops it and gives back the weights from before: `error_rate
                                           > 0.01`, `fallback_rate > 5%`, `p99 > 50ms` (p95, p50), also with
                                           `or` between, or given several times [default: error_rate > 0.01]
              --json                       Print JSON
          -h, --help                       Print help

        Settings, which override quern.yaml and the environment:
              --data <FOLDER>            The folder of history, head and registry
              --online <STORE>           The online store: `rocksdb`, or the URL of a Redis
              --registry <REGISTRY>      The registry of definitions: `sqlite`, or the URL of a PostgreSQL
                                         database
              --store <STORE>            Where segments are kept: a folder, or a URL as `s3://bucket/prefix`
              --onnxruntime <FILE>       ONNX Runtime's shared library
              --log-format <LOG_FORMAT>  How log lines look. QUERN_LOG sets the level, as in `debug` or
                                         `quern_store=trace` [default: text] [possible values: text, json]
    "#]]
    .assert_eq(&help("route"));
    let commands = "init infer check plan apply materialize serve get train route predict verify schema";
    for command in [""].into_iter().chain(commands.split(' ')) {
        let said = help(command);
        let wide = said.lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None, "{command}");
    }
}
