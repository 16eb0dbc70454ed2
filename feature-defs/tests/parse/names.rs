//! What is said about names that are declared twice or refer to nothing?

use expect_test::{Expect, expect};
use feature_defs::{DefFile, parse};

use crate::check_files;

/// A sound repository that each case adds to or refers to.
const BASE: &str = r#"
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Entity
name: airport
join_keys: [{name: airport, type: string}]
---
kind: Entity
name: runway
join_keys: [{name: airport, type: string}, {name: number, type: int32}]
---
kind: Source
name: landings
batch: {format: parquet, path: data/landings.parquet}
event_timestamp: landed_at
---
kind: Source
name: reports
push: true
event_timestamp: at
columns: [{name: at, type: timestamp}, {name: station, type: string}, {name: temp, type: float64}]
---
kind: FeatureView
name: plane_history
entities: [plane]
source: landings
features: [last_delay, last_speed]
---
kind: FeatureView
name: weather
entities: [airport]
keys: {airport: station}
source: reports
features: [temp, {name: wind, expr: temp + 1}]
---
kind: FeatureService
name: delay
features: [plane_history]
"#;

fn check(yaml: &str, expected: Expect) {
    check_files(&[("base.yaml", BASE), ("case.yaml", yaml)], expected);
}

#[test]
fn the_base_is_sound() {
    check("", expect!["sound: 3 entities, 2 sources, 2 views, 1 services, 0 models"]);
}

#[test]
fn a_name_is_declared_once() {
    check(
        r#"
kind: Entity
name: plane
join_keys: [{name: id, type: string}, {name: id, type: int64}, {name: event_timestamp, type: timestamp}]
---
kind: Source
name: plane
batch: {format: parquet, path: x}
event_timestamp: at
event_id: [a, a]
columns: [{name: a, type: string}, {name: a, type: string}, {name: at, type: int64}]
---
kind: FeatureView
name: weather
entities: [plane, plane]
source: landings
features: [a, b, {name: a}, event_timestamp]
---
kind: Model
name: m
versions: [{version: 1, path: a, service: delay}, {version: "1", path: b, service: delay}]
"#,
        expect![[r#"
            case.yaml:3:7: entity `plane` is given twice
              help: it is first given at base.yaml:3:7
            case.yaml:4:46: join key `id` is given twice
              help: it is first given at case.yaml:4:20
            case.yaml:4:71: `event_timestamp` is a reserved name
              help: it is the query time that every spine and every request carries
            case.yaml:10:15: `event_id` column `a` is given twice
              help: it is first given at case.yaml:10:12
            case.yaml:11:43: column `a` is given twice
              help: it is first given at case.yaml:11:18
            case.yaml:11:68: `at` is the source's time, but declared as `int64`
              help: declare it as `timestamp`
            case.yaml:14:7: feature view `weather` is given twice
              help: it is first given at base.yaml:32:7
            case.yaml:15:19: entity `plane` is given twice
              help: it is first given at case.yaml:15:12
            case.yaml:17:25: feature `a` is given twice
              help: it is first given at case.yaml:17:12
            case.yaml:17:29: `event_timestamp` is a reserved name
              help: it is the query time that every spine and every request carries
            case.yaml:21:61: version `1` is given twice
              help: it is first given at case.yaml:21:22"#]],
    );
}

#[test]
fn a_reference_finds_its_name() {
    check(
        r#"
kind: FeatureView
name: v
entities: [plain, quay]
source: landing
features: [a]
---
kind: FeatureService
name: s
features:
  - plane_histroy
  - {view: weather, keys: {aiport: origin}, features: [temp, win]}
---
kind: Model
name: m
versions: [{version: 1, path: a, service: dely}]
"#,
        expect![[r#"
            case.yaml:4:12: unknown entity `plain`
              help: known: airport, plane, runway
            case.yaml:4:19: unknown entity `quay`
              help: known: airport, plane, runway
            case.yaml:5:9: unknown source `landing`
              help: did you mean `landings`? known: landings, reports
            case.yaml:11:5: unknown feature view `plane_histroy`
              help: did you mean `plane_history`? known: plane_history, v, weather
            case.yaml:12:28: `aiport` is no join key of feature view `weather`
              help: did you mean `airport`? known: airport
            case.yaml:12:62: `win` is no feature of feature view `weather`
              help: did you mean `wind`? known: temp, wind
            case.yaml:16:43: unknown feature service `dely`
              help: did you mean `delay`? known: delay, s"#]],
    );
}

#[test]
fn nothing_is_unknown_while_something_is_unread() {
    check(
        "kind: Entity\nname: quay\njoin_keys: [\n",
        expect!["case.yaml:4:1: not valid YAML: while parsing a node, did not find expected node content"],
    );
    check(
        "kind: FeatureView\nname: v\nentities: [quay]\nsource: landings\nfeatures: [a]\n---\nkind: Entty\nname: quay",
        expect![[r#"
            case.yaml:7:7: unknown kind `Entty`
              help: did you mean `Entity`? known: Connection, Entity, FeatureService, FeatureView, Model, Role, Source; a file of another tool goes into `.quernignore`"#]],
    );
    check(
        "kind: FeatureService\nname: s\nfeatures: [v]\noutputs: [a, b]\n---\nkind: FeatureView\nname: v\nentities: [plane]\nsource: landings\nfeatures: [a, 5]\n",
        expect![
            "case.yaml:10:15: each of `features` must be a name of letters, digits and `_` that does not start with a digit, found the number `5`"
        ],
    );
}

#[test]
fn a_source_has_rows_and_knows_its_columns() {
    check(
        r#"
kind: Source
name: a
event_timestamp: at
push: false
---
kind: Source
name: b
batch: {format: csv, path: x.csv}
event_timestamp: at
---
kind: Source
name: c
push: true
event_timestamp: at
created_timestamp: loaded
event_id: [id, ta]
columns: [{name: id, type: string}, {name: at, type: timestamp}]
---
kind: FeatureView
name: v
entities: [plane]
source: reports
features: [temp, wind, {name: x, expr: anything}]
---
kind: FeatureView
name: w
entities: [airport]
keys: {airport: statoin, plane: at}
source: reports
features: [temp]
"#,
        expect![[r#"
            case.yaml:3:7: source `a` has neither files nor pushes
              help: give it `batch`, `push: true`, `stream`, or several of them
            case.yaml:16:20: `loaded` is not among the declared columns of source `c`
              help: known: at, id
            case.yaml:17:16: `ta` is not among the declared columns of source `c`
              help: known: at, id
            case.yaml:22:11: `tailnum` is not among the declared columns of source `reports`
              help: known: at, station, temp
            case.yaml:24:18: `wind` is not among the declared columns of source `reports`
              help: known: at, station, temp
            case.yaml:29:17: `statoin` is not among the declared columns of source `reports`
              help: did you mean `station`? known: at, station, temp
            case.yaml:29:26: `plane` is no join key of feature view `w`
              help: known: airport"#]],
    );
}

#[test]
fn entities_of_a_view_share_no_join_key() {
    check(
        "kind: FeatureView\nname: v\nentities: [airport, runway]\nsource: landings\nfeatures: [a]\n",
        expect![[r#"
            case.yaml:3:21: entities `airport` and `runway` share the join key `airport`
              help: rename it in one of the two entities, and map it to its column with `keys`"#]],
    );
}

#[test]
fn a_service_has_one_name_space() {
    check(
        r#"
kind: FeatureService
name: s
request:
  - {name: tailnum, type: string}
  - {name: temp, type: float64}
  - {name: event_timestamp, type: timestamp}
  - {name: x, type: float64}
  - {name: x, type: float64}
features:
  - plane_history
  - weather
  - {view: weather, as: origin, keys: {airport: orig}}
  - {view: weather, as: origin, keys: {airport: event_timestamp}, features: [wind, wind]}
derived:
  - {name: last_delay, expr: "1"}
  - {name: x, expr: "1"}
  - {name: orig, expr: "1"}
  - {name: y, expr: "1"}
  - {name: y, expr: "2"}
  - {name: event_timestamp, expr: "2"}
outputs: [tailnum, orig, temp, origin__temp, y, x, y, origin_temp, event_timestamp]
"#,
        expect![[r#"
            case.yaml:5:12: request column `tailnum` is a join-key column too
              help: leave it out: every request brings the join keys
            case.yaml:7:12: `event_timestamp` is a reserved name
              help: it is the query time that every spine and every request carries
            case.yaml:9:12: request column `x` is given twice
              help: it is first given at case.yaml:8:12
            case.yaml:12:5: columns of `weather` collide: `temp` is a request column already
              help: set its columns apart by `as:`, as in `{view: weather, as: other}`, which gives `other__temp`
            case.yaml:14:25: columns of `weather` collide: `origin__wind` is a feature of `weather` already
              help: choose another name after `as:`
            case.yaml:14:49: `event_timestamp` is a reserved name
              help: it is the query time that every spine and every request carries
            case.yaml:14:84: feature `wind` is given twice
              help: it is first given at case.yaml:14:78
            case.yaml:16:12: derived feature `last_delay` is a feature of `plane_history` already
              help: give it another name
            case.yaml:17:12: derived feature `x` is a request column already
              help: give it another name
            case.yaml:18:12: derived feature `orig` is a join-key column already
              help: give it another name
            case.yaml:20:12: derived feature `y` is given twice
              help: it is first given at case.yaml:19:12
            case.yaml:21:12: `event_timestamp` is a reserved name
              help: it is the query time that every spine and every request carries
            case.yaml:21:12: derived feature `event_timestamp` is a request column already
              help: give it another name
            case.yaml:22:52: output `y` is given twice
              help: it is first given at case.yaml:22:46
            case.yaml:22:55: output `origin_temp` is no column of this feature service
              help: did you mean `origin__temp`? known: airport, event_timestamp, last_delay, last_speed, orig, origin__temp, origin__wind, tailnum, temp, wind, x, y"#]],
    );
}

#[test]
fn outputs_name_columns_of_the_service() {
    check(
        r#"
kind: FeatureService
name: s
request: [{name: distance, type: float64}]
features: [plane_history]
outputs: [last_dela, distance, tailnum, event_timestamp]
"#,
        expect![[r#"
            case.yaml:6:11: output `last_dela` is no column of this feature service
              help: did you mean `last_delay`? known: distance, last_delay, last_speed, tailnum
            case.yaml:6:41: output `event_timestamp` is no column of this feature service
              help: known: distance, last_delay, last_speed, tailnum"#]],
    );
}

#[test]
fn a_column_of_the_spine_has_one_type() {
    check(
        r#"
kind: Entity
name: gate
join_keys: [{name: gate, type: int64}]
---
kind: FeatureView
name: gates
entities: [gate]
source: landings
features: [open]
---
kind: FeatureService
name: s
features:
  - weather
  - {view: gates, keys: {gate: airport}}
"#,
        expect![[r#"
            case.yaml:16:32: column `airport` has type `string` for feature view `weather` and type `int64` for `gates`
              help: map one of the two join keys to another column with `keys`, or give both one type"#]],
    );
}

const MODEL: &str = "kind: Entity
name: e
join_keys: [{name: k, type: string}]
---
kind: Source
name: src
push: true
event_timestamp: t
columns: [{name: t, type: timestamp}, {name: k, type: string}, {name: x, type: float64}]
---
{kind: FeatureView, name: v, entities: [e], source: src, features: [x]}
---
{kind: FeatureService, name: s, features: [v]}
---
kind: Model
name: m
";

#[test]
fn a_model_names_its_own_versions_and_says_each_thing_once() {
    let check = |rest: &str, expected| check(&format!("{MODEL}{rest}"), expected);
    check(
        "versions:
  - {version: 1, service: s}
  - {version: 2, path: a, steps: [{name: x, expr: x}], service: s}
  - {version: 3, path: a, outputs: [x], service: s}
  - version: 4
    service: s
    steps: [{name: x, expr: x, path: a}, {name: x, expr: x, inputs: [x]}, {name: y}]
route: {weights: {1: 0, 5: 0}, shadow: [6, 1, 1]}
fallback: {to: [{version: 7}, {version: 1, constant: 0}, {}]}
",
        expect![[r#"
            case.yaml:18:5: a model version lacks `path` or `steps`
            case.yaml:19:5: a model version has `path` and `steps`
              help: keep one of them
            case.yaml:23:13: step `x` has `path` and `expr`
              help: keep one of them
            case.yaml:23:49: step `x` is given twice
              help: it is first given at case.yaml:23:20
            case.yaml:23:69: `inputs` belongs to a step that runs a model; an expression names the columns it reads, and gives one
              help: leave it out
            case.yaml:23:75: step `y` lacks `path` or `remote` or `expr`
            case.yaml:24:8: every weight is 0, so no version would answer
              help: give one version a weight
            case.yaml:24:25: model `m` has no version `5`
              help: known: 1, 2, 3, 4
            case.yaml:24:41: model `m` has no version `6`
              help: known: 1, 2, 3, 4
            case.yaml:24:47: shadow `1` is given twice
              help: it is first given at case.yaml:24:44
            case.yaml:25:27: model `m` has no version `7`
              help: known: 1, 2, 3, 4
            case.yaml:25:31: a substitute has `version` and `constant`
              help: keep one of them
            case.yaml:25:58: a substitute lacks `version` or `expr` or `constant`"#]],
    );
    check(
        "versions: [{version: 1, path: a, service: s}]
route: {weights: {1: -1, a b: 1}}
fallback: {max_missing: 2, timeout: 0s, to: []}
batching: {max_rows: 0, max_delay: 5}
",
        expect![[r#"
            case.yaml:18:22: each of `weights` must be a whole number from 0 to 1000000, found the number `-1`
            case.yaml:18:26: `weights` must be a whole number or a name of letters, digits, `_`, `-` and `.`, found `a b`
            case.yaml:18:26: model `m` has no version `a b`
              help: known: 1
            case.yaml:19:25: `max_missing` must be a number from 0 to 1, found the number `2`
            case.yaml:19:37: `timeout` must be longer than nothing
              help: leave it out for no limit
            case.yaml:19:45: `to` must not be empty
            case.yaml:20:22: `max_rows` must be a whole number from 1 to 65536, found the number `0`
            case.yaml:20:36: `max_delay` must be a duration such as `90d` or `1d12h`, found the number `5`
              help: add a unit: w, d, h, m, s, ms or us, as in `5s`"#]],
    );
}

#[test]
fn what_is_said_of_csv_files_is_of_csv_files() {
    let source = |batch: &str| {
        let text = format!(
            "kind: Source\nname: s\nbatch: {batch}\nevent_timestamp: at\ncolumns: [{{name: at, type: timestamp}}]\n"
        );
        parse(&[DefFile::new("a.yaml", text)])
    };
    let sound = r#"{format: csv, path: x.csv, delimiter: "\t", quote: "'", null_values: [NA, "-9"], encoding: iso-8859-1}"#;
    let definitions = source(sound).expect("it is sound");
    let dialect = &definitions.sources["s"].batch.as_ref().expect("files").dialect;
    assert_eq!(
        dialect.to_string(),
        r#"delimiter: "\t", quote: "'", null_values: ["NA", "-9"], encoding: latin1"#
    );
    let mut said = String::new();
    for wrong in [
        "{format: parquet, path: x, delimiter: \";\", encoding: utf-8}",
        "{format: csv, path: x, delimiter: '\\t'}",
        "{format: csv, path: x, delimiter: ü, quote: ''}",
        "{format: csv, path: x, delimiter: ';', quote: ;}",
        "{format: csv, path: x, delimiter: '\"'}",
        "{format: csv, path: x, delimiter: 1}",
        "{format: csv, path: x, null_values: [NULL, -9]}",
        "{format: csv, path: x, null_values: []}",
        "{format: csv, path: x, encoding: utf8}",
        "{format: csv, path: x, delimeter: ;}",
    ] {
        let mistakes = source(wrong).expect_err("a mistake");
        said.extend(mistakes.iter().map(|mistake| format!("{mistake}\n")));
    }
    expect![[r#"
        a.yaml:3:35: `delimiter` is of CSV files, and these are parquet
          help: leave it out
        a.yaml:3:51: `encoding` is of CSV files, and these are parquet
          help: leave it out
        a.yaml:3:42: `delimiter` must be one character of ASCII, such as `";"`, found `\t`
          help: in double quotes it is a tab: "\t"
        a.yaml:3:42: `delimiter` must be one character of ASCII, such as `";"`, found `ü`
        a.yaml:3:52: `quote` must be one character of ASCII, such as `";"`, found an empty text
        a.yaml:3:54: `;` cannot stand both between cells and around them
          help: give another `quote` or `delimiter`
        a.yaml:3:42: `"` cannot stand both between cells and around them
          help: give another `quote` or `delimiter`
        a.yaml:3:42: `delimiter` must be one character of ASCII, such as `";"`, found the number `1`
          help: quote it: "1"
        a.yaml:3:45: each of `null_values` must be a text, found nothing
          help: quote it: "NULL"
        a.yaml:3:51: each of `null_values` must be a text, found the number `-9`
          help: quote it: "-9"
        a.yaml:3:44: `null_values` must not be empty
        a.yaml:3:41: `encoding` must be `utf-8` or `latin1` or `iso-8859-1` or `windows-1252` or `utf-16`, found `utf8`
          help: did you mean `utf-8`?
        a.yaml:3:31: unknown key `delimeter` in a batch source
          help: did you mean `delimiter`? known: connection, cursor, delimiter, encoding, escape, format, null_values, overlap, path, query, quote, ref, table, version
    "#]].assert_eq(&said);
}

#[test]
fn what_is_stored_becomes_what_it_can() {
    let source = |batch: &str, column: &str| {
        let text = format!(
            "kind: Source\nname: s\n{batch}\nevent_timestamp: at\ncolumns: [{{name: at, type: timestamp}}, {column}]\n"
        );
        parse(&[DefFile::new("a.yaml", text)])
    };
    let parquet = "batch: {format: parquet, path: x}";
    let mut said = String::new();
    for (batch, column) in [
        (parquet, "{name: a, type: int64, from: \"decimal(38,0)\"}"),
        (parquet, "{name: a, type: string, from: uuid}"),
        (parquet, "{name: a, type: string, from: string}"),
        (parquet, "{name: a, type: int64, from: uuid}"),
        (parquet, "{name: a, type: int64, from: decimal(x)}"),
        (parquet, "{name: a, type: int64, from: text}"),
        ("batch: {format: csv, path: x}", "{name: a, type: int64, from: string}"),
        ("push: true", "{name: a, type: int64, from: string}"),
    ] {
        said += &match source(batch, column) {
            Ok(definitions) => format!("{}\n", definitions.sources["s"].columns[1].from.expect("some")),
            Err(mistakes) => mistakes.iter().map(|mistake| format!("{mistake}\n")).collect(),
        };
    }
    expect![[r#"
        decimal(38, 0)
        uuid
        a.yaml:5:47: `a` is stored as string, which does not become string
          help: text becomes any other type, a decimal a number or text, `binary` and `uuid` become text
        a.yaml:5:47: `a` is stored as uuid, which does not become int64
          help: text becomes any other type, a decimal a number or text, `binary` and `uuid` become text
        a.yaml:5:69: `from` must be `string`, `binary`, `uuid`, `decimal`, or `decimal(38, 0)` for one of them, found `decimal(x)`
        a.yaml:5:69: `from` must be `string`, `binary`, `uuid`, `decimal`, or `decimal(38, 0)` for one of them, found `text`
        a.yaml:5:47: `a` has a `from`, which is of Parquet and Arrow files
          help: leave it out: what is text, or pushed, is read as the type
        a.yaml:5:47: `a` has a `from`, which is of Parquet and Arrow files
          help: leave it out: what is text, or pushed, is read as the type
    "#]].assert_eq(&said);
}
