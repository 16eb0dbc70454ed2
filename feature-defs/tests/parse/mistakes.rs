//! What is said about a document that is not shaped as its kind wants it?

use expect_test::expect;

use crate::{check, check_files};

#[test]
fn nothing_is_fine() {
    check_files(&[], expect!["sound: 0 entities, 0 sources, 0 views, 0 services, 0 models"]);
    check("", expect!["sound: 0 entities, 0 sources, 0 views, 0 services, 0 models"]);
    check(
        "---\n---\n# only a comment\n---\n~\n",
        expect!["sound: 0 entities, 0 sources, 0 views, 0 services, 0 models"],
    );
}

#[test]
fn places_count_from_one() {
    check(
        "foo: 1",
        expect![[r#"
            a.yaml:1:1: a document lacks the key `kind`
              help: known kinds: Entity, Connection, Source, FeatureView, FeatureService, Model, Role; a file of another tool goes into `.quernignore`"#]],
    );
    check(
        "\n  kind: Foo",
        expect![[r#"
            a.yaml:2:9: unknown kind `Foo`
              help: known: Connection, Entity, FeatureService, FeatureView, Model, Role, Source; a file of another tool goes into `.quernignore`"#]],
    );
    check(
        "{name: é, kind: [x]}",
        expect![[r#"
            a.yaml:1:17: `kind` must be the name of a kind, found a list
              help: known: Connection, Entity, FeatureService, FeatureView, Model, Role, Source"#]],
    );
    check(
        "\u{feff}kind: Foo",
        expect![[r#"
            a.yaml:1:7: unknown kind `Foo`
              help: known: Connection, Entity, FeatureService, FeatureView, Model, Role, Source; a file of another tool goes into `.quernignore`"#]],
    );
}

#[test]
fn a_document_is_a_mapping_of_a_known_kind() {
    check(
        "- kind: Entity",
        expect!["a.yaml:1:1: a document must be a mapping with `kind` and `name`, found a list"],
    );
    check(
        "kind: FeatureVeiw\nname: x",
        expect![[r#"
            a.yaml:1:7: unknown kind `FeatureVeiw`
              help: did you mean `FeatureView`? known: Connection, Entity, FeatureService, FeatureView, Model, Role, Source; a file of another tool goes into `.quernignore`"#]],
    );
    check(
        "name: x\njoin_keys: []",
        expect![[r#"
            a.yaml:1:1: a document lacks the key `kind`
              help: it has the keys of an entity: `kind: Entity`"#]],
    );
}

#[test]
fn a_syntax_error_leaves_other_files_and_earlier_documents() {
    check_files(
        &[
            ("a.yaml", "kind: Entity\nname: plane\ntll: 1\n---\nkind: [\n---\n"),
            ("b.yaml", "kind: Model\nname: m\nversions: [{version: 1, path: a, service: s, x: 1}]"),
            ("c.yaml", "a: b: c"),
            ("d.yaml", "a: *nowhere"),
            ("e.yaml", "kind: Entity\n\tname: x"),
        ],
        expect![[r#"
            a.yaml:1:1: an entity lacks the key `join_keys`
              help: `join_keys`: The columns that identify one entity, in key order.
            a.yaml:3:1: unknown key `tll` in an entity
              help: known: description, join_keys, kind, name, owner, tags
            a.yaml:6:1: not valid YAML: while parsing a node, did not find expected node content
            b.yaml:3:46: unknown key `x` in a model version
              help: known: examples, inputs, outputs, path, service, steps, trained_on, version
            c.yaml:1:5: not valid YAML: mapping values are not allowed in this context
            d.yaml:1:4: not valid YAML: while parsing node, found unknown anchor
            e.yaml:1:7: not valid YAML: while scanning a plain scalar, found a tab"#]],
    );
}

#[test]
fn a_key_given_twice_is_a_mistake_with_both_places() {
    check(
        "kind: Entity\nname: plane\njoin_keys: [{name: a, type: string, name: b}]\nname: train\n",
        expect![[r#"
            a.yaml:3:37: the key `name` is given twice
              help: it is first given at a.yaml:3:14
            a.yaml:4:1: the key `name` is given twice
              help: it is first given at a.yaml:2:1"#]],
    );
}

#[test]
fn hostile_yaml_is_bounded() {
    let deep = format!("kind: {}", "[".repeat(200));
    check(&deep, expect!["a.yaml:1:38: YAML nested deeper than 32 levels"]);
    let deep = "- ".repeat(100_000);
    check(&deep, expect!["a.yaml:1:65: YAML nested deeper than 32 levels"]);
    let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (outer, inner) in ["b", "c", "d", "e", "f", "g"].iter().zip(["a", "b", "c", "d", "e", "f"]) {
        laughs.push_str(&format!("{outer}: &{outer} [{}]\n", vec![format!("*{inner}"); 10].join(", ")));
    }
    check(&laughs, expect!["a.yaml:5:4: a file holds at most 1000000 YAML nodes"]);
    // Few nodes, and long ones: a text, a list of it and a mapping whose key it is.
    let long = "x".repeat(1 << 20);
    for anchored in [format!("&a \"{long}\""), format!("&a [{long}]"), format!("&a {{? {long} : ''}}")] {
        let repeated = format!("kind: Entity\nname: {anchored}\njoin_keys: [{}]\n", "*a,".repeat(9_000));
        check(
            &repeated,
            expect![[r#"
                a.yaml:3:25: the aliases of a file repeat at most 4194304 bytes of text
                  help: shorten the text that is anchored, or write it where it is needed"#]],
        );
    }
}

#[test]
fn anchors_stand_for_what_they_name() {
    check(
        "kind: Entity\nname: &n route\njoin_keys: [&k {name: a, type: string}, {name: *n, type: int64}]",
        expect!["sound: 1 entities, 0 sources, 0 views, 0 services, 0 models"],
    );
}

#[test]
fn all_mistakes_of_a_document_come_at_once() {
    check(
        r#"
kind: FeatureView
name: plane-history
entities: plane
sorce: landings
where: ""
ttl: 90
lag: -5m
features:
  - {name: last_delay, exp: arr_delay}
  - {expr: arr_delay}
  - {name: embedding, type: list<float32, 128>}
  - {name: speed, type: flaot64, default: [1]}
  - {name: 7, description: 5}
  - [nested]
  -
at: now
"#,
        expect![[r#"
            a.yaml:2:1: a feature view lacks the key `source`
              help: `source`: The source whose rows it reads.
            a.yaml:3:7: `name` must be a name of letters, digits and `_` that does not start with a digit, found `plane-history`
            a.yaml:4:11: `entities` must be a list, found `plane`
            a.yaml:5:1: unknown key `sorce` in a feature view
              help: did you mean `source`? known: aggregations, at, description, entities, features, keys, kind, lag, name, owner, share, source, tags, ttl, where
            a.yaml:6:8: `where` must be a SQL expression, found an empty text
            a.yaml:7:6: `ttl` must be a duration such as `90d` or `1d12h`, found the number `90`
              help: add a unit: w, d, h, m, s, ms or us, as in `90s`
            a.yaml:8:6: `lag`: `-5m` is not a duration: an amount must be a whole number without a sign; units are w, d, h, m, s, ms and us
              help: a duration is written as in `90d`, `1d12h` or `250ms`
            a.yaml:10:24: unknown key `exp` in a feature
              help: did you mean `expr`? known: default, description, expr, name, strict, type
            a.yaml:11:5: a feature lacks the key `name`
              help: `name`: Unique in its view.
            a.yaml:12:29: unknown type `list<float32`
              help: within `{…}` a type with a comma must be quoted: "list<float32, 128>"
            a.yaml:12:43: unknown key `128>` in a feature
              help: a comma within `{…}` ends a value: quote the value before it
            a.yaml:13:25: unknown type `flaot64`
              help: did you mean `float64`? known: bool, bytes, date, float32, float64, int32, int64, list<float32, 128>, list<string>, string, timestamp
            a.yaml:14:12: `name` must be a name of letters, digits and `_` that does not start with a digit, found the number `7`
            a.yaml:14:28: `description` must be a text, found the number `5`
              help: quote it: "5"
            a.yaml:15:5: each of `features` must be a feature (a mapping) or just its `name`, found a list
            a.yaml:16:4: each of `features` must be a name of letters, digits and `_` that does not start with a digit, found nothing
            a.yaml:17:5: `at` must be `including` or `before`, found `now`"#]],
    );
}

#[test]
fn durations_have_limits() {
    check(
        r#"
kind: FeatureView
name: v
entities: []
source: s
ttl: 0s
lag: 1 day
features: []
"#,
        expect![[r#"
            a.yaml:4:11: `entities` must not be empty
            a.yaml:5:9: unknown source `s`
              help: none is declared
            a.yaml:6:6: `ttl` must be longer than nothing
              help: leave it out if rows never expire, which is what 0 means in Feast; with `1us` a row counts for a microsecond
            a.yaml:7:6: `lag`: `1 day` is not a duration: unknown unit `day`; write `1d`
              help: a duration is written as in `90d`, `1d12h` or `250ms`
            a.yaml:8:11: `features` must not be empty"#]],
    );
}

#[test]
fn what_is_not_built_yet_says_so() {
    check(
        r#"
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Source
name: landings
batch: {format: parquet, path: "s3://bucket/landings/*.parquet"}
event_timestamp: at
---
kind: Model
name: m
versions: [{version: 1, path: "https://bucket/m.onnx", service: s}]
"#,
        expect![[r#"
            a.yaml:8:32: no connection of its project leads to `s3://bucket/landings/*.parquet`
              help: where definitions may lead, an administrator says: `{kind: Connection, name: bucket, url: "s3://bucket/landings/"}`
            a.yaml:13:31: `path` is a URL of the unknown scheme `https`
              help: known: abfs, abfss, adl, az, azure, gs, s3, s3a
            a.yaml:13:65: unknown feature service `s`
              help: none is declared"#]],
    );
}

#[test]
fn an_aggregation_has_what_its_function_takes() {
    check(
        r#"
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Source
name: landings
batch: {format: parquet, path: landings.parquet}
event_timestamp: at
---
kind: FeatureView
name: plane_recent
entities: [plane]
source: landings
ttl: 1d
aggregations:
  - {name: legs, function: count, windows: [1d, 1d]}
  - {name: delay, function: avg, windows: [1d]}
  - {name: late, function: average, of: delay, windows: [1d]}
  - {name: delays, function: last_n, of: delay, windows: [1d], buckets: origin}
  - {name: top, function: top_n_by, of: delay, n: 3, windows: [1d], default: 0}
  - {name: high, function: approx_percentile, of: delay, percentile: 90, windows: [1d]}
  - {name: low, function: min, of: delay, n: 2, limit: 5, windows: [1d]}
  - {name: short, function: count, windows: [1m, 30m], hop: 1h}
  - {name: legs_1d, function: count, windows: [0s, forever, lifetime]}
  - {name: text, function: sum, of: delay, windows: [1d], default: none}
  - {name: nothing, function: count, windows: []}
---
kind: FeatureView
name: empty
entities: [plane]
source: landings
---
kind: FeatureView
name: both
entities: [plane]
source: landings
features: [delay]
aggregations: [{name: legs, function: count, windows: [1d]}]
"#,
        expect![[r#"
            a.yaml:15:6: `ttl` says how long the latest row counts, and aggregations have none
              help: leave it out: each window says how long a row counts
            a.yaml:17:49: feature `legs_1d` is given twice
              help: it is first given at a.yaml:17:45
            a.yaml:18:29: `avg` lacks the key `of`
              help: `of`: SQL over the source's columns; only `count` may do without
            a.yaml:19:28: `function` must be `count` or `sum` or `avg` or `min` or `max` or `stddev` or `variance` or `first` or `last` or `last_n` or `top_n_by` or `approx_distinct` or `approx_percentile` or `count_distinct` or `any` or `every` or `histogram`, found `average`
              help: did you mean `avg`?
            a.yaml:20:30: `last_n` lacks the key `n`
              help: as in `n: 5`
            a.yaml:20:73: `last_n` takes no `buckets`: a map holds single values only
              help: take `last` with `buckets`, the latest of each; or one `last_n` for each bucket that matters, with `where: "origin = '…'"`
            a.yaml:21:27: `top_n_by` lacks the key `by`
              help: as in `by: amount`
            a.yaml:22:70: `percentile` must be a number from 0 to 1, found the number `90`
            a.yaml:23:46: `min` takes no `n`
              help: `n` goes with `last_n` and `top_n_by`
            a.yaml:23:56: `min` takes no `limit`
              help: `limit` goes with `count_distinct` and `histogram`, and with `buckets`
            a.yaml:24:46: the window `1m` is shorter than its hop, 1h
              help: with `hop: exact` a window may be as short as `1s`
            a.yaml:24:50: the window `30m` is shorter than its hop, 1h
              help: take a smaller `hop`, or a longer window
            a.yaml:25:48: each of `windows` must be from `1s` to `3650d`, found `0s`
              help: `lifetime` is a window over all time
            a.yaml:25:52: each of `windows`: `forever` is not a duration: an amount must be a whole number without a sign; units are w, d, h, m, s, ms and us
              help: a window is written as in `1h`, `7d` or `lifetime`
            a.yaml:27:47: `windows` must not be empty
            a.yaml:30:7: feature view `empty` has no features
              help: give it `features` (of the latest row) or `aggregations` (over windows of time)
            a.yaml:39:15: a feature view has either `features` or `aggregations`
              help: declare two feature views over the one source"#]],
    );
}

#[test]
fn a_format_says_what_the_numbers_of_a_timestamp_count() {
    let source = |at: &str, n: &str| {
        format!(
            "kind: Source\nname: s\npush: true\nevent_timestamp: at\ncolumns:\n  - {{name: at, type: timestamp{at}}}\n  \
             - {{name: n, type: int64{n}}}\n"
        )
    };
    check(
        &source(", format: epoch_ms", ""),
        expect!["sound: 0 entities, 1 sources, 0 views, 0 services, 0 models"],
    );
    check(
        &source(", format: epoch", ", format: epoch_s"),
        expect![[r#"
            a.yaml:6:41: `format` must be `epoch_s` or `epoch_ms` or `epoch_us` or `epoch_ns`, found `epoch`
              help: did you mean `epoch_s`?
            a.yaml:7:12: `n` has a `format`, but is declared as `int64`
              help: `format` says what the numbers of a `timestamp` count"#]],
    );
    check(
        &source(", format: unix", ""),
        expect![
            "a.yaml:6:41: `format` must be `epoch_s` or `epoch_ms` or `epoch_us` or `epoch_ns`, found `unix`"
        ],
    );
}

#[test]
fn defaults_fit_their_types() {
    check(
        r#"
kind: FeatureService
name: s
request:
  - {name: a, type: int32, default: 1.5}
  - {name: b, type: string, default: 5}
  - {name: c, type: bytes, default: x}
  - {name: d, type: float64, default: .inf}
  - {name: e, type: float64, default: 0}
  - {name: f, type: timestamp, default: yesterday}
  - {name: g, type: bool, default: }
  - {name: h, type: "list<int32, 3>", default: [0, 0]}
  - {name: i, type: list<string>, default: [a, 7]}
  - {name: j, type: list<bool>, default: true}
  - {name: k, type: list<float64>, default: [.nan, ~, [1]]}
  - {name: l, type: list<float64>, default: [1, 2.5]}
features: [v]
"#,
        expect![[r#"
            a.yaml:5:37: `default` of type `int32` must be a whole number of 32 bits; found the number `1.5`
            a.yaml:6:38: `default` of type `string` must be a text (quote it); found the number `5`
            a.yaml:7:37: `default` of type `bytes` must be left out: `bytes` has no default; found `x`
            a.yaml:8:39: `default` must be a finite number, found the number `.inf`
            a.yaml:10:41: `default` of type `timestamp` must be a time such as `2013-01-31T08:30:00Z`, or microseconds since 1970; found `yesterday`
            a.yaml:11:34: `default` must be a number, a text, `true` or `false`, or a list of such, found nothing
            a.yaml:12:48: `default` of type `list<int32, 3>` must be a list of 3 items, and this has 2; found a list
            a.yaml:13:44: `default` of type `list<string>` must be a list of which each item is a text (quote it), and item 2 is 7; found a list
            a.yaml:14:42: `default` of type `list<bool>` must be a list, as in `[]`; found the boolean `true`
            a.yaml:15:46: each of `default` must be a finite number, found the number `.nan`
            a.yaml:15:52: each of `default` must be a number, a text, `true` or `false`, found nothing
            a.yaml:15:55: each of `default` must be a number, a text, `true` or `false`, found a list
            a.yaml:17:12: unknown feature view `v`
              help: none is declared"#]],
    );
}

#[test]
fn join_keys_are_exact() {
    check(
        "kind: Entity\nname: e\njoin_keys: [{name: a, type: float64}, {name: b, type: 'list<int32>'}, {name: c, type: sting}]",
        expect![[r#"
            a.yaml:3:29: a join key cannot have type `float64`
              help: join keys may be bool, int32, int64, string, bytes, timestamp, date
            a.yaml:3:55: a join key cannot have type `list<int32>`
              help: join keys may be bool, int32, int64, string, bytes, timestamp, date
            a.yaml:3:87: unknown type `sting`
              help: did you mean `string`? known: bool, bytes, date, int32, int64, string, timestamp"#]],
    );
}

#[test]
fn versions_are_what_is_written() {
    check(
        r#"
kind: Model
name: a/b
versions:
  - {version: 1.10, path: m.onnx, service: s}
  - {version: -1, path: m.onnx, service: s}
  - {version: true, path: 5, service: s}
  - {version: v1 beta, path: "", service: s}
"#,
        expect![[r#"
            a.yaml:3:7: `name` must be a name of letters, digits, `_`, `-` and `.`, found `a/b`
            a.yaml:5:15: `version` must be a whole number or a name of letters, digits, `_`, `-` and `.`, found the number `1.10`
              help: quote it: "1.10"
            a.yaml:5:44: unknown feature service `s`
              help: none is declared
            a.yaml:6:15: `version` must be a whole number or a name of letters, digits, `_`, `-` and `.`, found the number `-1`
            a.yaml:6:42: unknown feature service `s`
              help: none is declared
            a.yaml:7:15: `version` must be a whole number or a name of letters, digits, `_`, `-` and `.`, found the boolean `true`
            a.yaml:7:27: `path` must be a path or a URL, found the number `5`
            a.yaml:7:39: unknown feature service `s`
              help: none is declared
            a.yaml:8:15: `version` must be a whole number or a name of letters, digits, `_`, `-` and `.`, found `v1 beta`
            a.yaml:8:30: `path` must be a path or a URL, found an empty text
            a.yaml:8:43: unknown feature service `s`
              help: none is declared"#]],
    );
}

#[test]
fn a_source_has_a_format_and_a_boolean() {
    check(
        r#"
kind: Source
name: s
batch: {format: avro, path: [a, b]}
push: yes
event_timestamp: 5
event_id: at
"#,
        expect![[r#"
            a.yaml:4:17: `format` must be `parquet` or `csv` or `json` or `arrow` or `delta` or `iceberg` or `sql`, found `avro`
            a.yaml:4:29: `path` must be a path, found a list
            a.yaml:5:7: `push` must be `true` or `false`, found `yes`
              help: write it without quotes: true; what is in quotes is a text, and so are yes and on
            a.yaml:6:18: `event_timestamp` must be the name of a column, found the number `5`
              help: quote it: "5"
            a.yaml:7:11: `event_id` must be a list, found `at`"#]],
    );
}

#[test]
fn names_are_bounded() {
    let long = "x".repeat(129);
    check(
        &format!("kind: Entity\nname: {long}\njoin_keys: [{{name: 1a, type: string}}]"),
        expect![[r#"
        a.yaml:2:7: `name` is a name longer than 128 characters
        a.yaml:3:20: `name` must be a name of letters, digits and `_` that does not start with a digit, found `1a`"#]],
    );
}

#[test]
fn documents_of_other_tools_are_passed_over() {
    check(
        "kind: Entity\nname: k\njoin_keys: [{name: k, type: int64}]\n---\napiVersion: v1\nkind: Entity\nspec: {}\n",
        expect!["sound: 1 entities, 0 sources, 0 views, 0 services, 0 models"],
    );
    // What nobody else claims is a mistake, so that no slip drops a definition.
    check(
        "kind: Entity\nname: k\njoin_keys: [{name: k, type: int64}]\n---\nservices: {}\n",
        expect![[r#"
            a.yaml:5:1: a document lacks the key `kind`
              help: known kinds: Entity, Connection, Source, FeatureView, FeatureService, Model, Role; a file of another tool goes into `.quernignore`"#]],
    );
    check(
        "Kind: Model\nname: m\nversions: []\n",
        expect![[r#"
        a.yaml:1:1: a document lacks the key `kind`
          help: write `kind` for `Kind`"#]],
    );
    check(
        "kind: View\nname: v\nentities: [e]\nsource: s\nfeatures: [f]\n",
        expect![[r#"
        a.yaml:1:7: unknown kind `View`
          help: it has the keys of a feature view: `kind: FeatureView`"#]],
    );
}

#[test]
fn words_of_other_languages_are_told_ours() {
    check(
        r#"
kind: Source
name: s
batch: {format: Parquet, path: s.parquet}
event_timestamp: at
columns:
  - {name: a, type: int}
  - {name: b, type: double}
  - {name: c, type: text}
  - {name: d, type: datetime}
  - {name: e, type: "array<float>"}
  - {name: f, type: Int64}
---
kind: Entity
name: k
join_keys: [{name: k, type: double}, {name: l, type: integer}]
---
kind: FeatureView
name: v
entities: [k]
source: s
ttl: 0
lag: 5min
aggregations:
  - {name: a, function: mean, of: x, windows: [1 week]}
  - {name: b, function: nunique, of: x, windows: [1M]}
  - {name: c, function: median, of: x, windows: [1d]}
  - {name: d, function: Summ, of: x, windows: [1d]}
  - {name: e, function: histogram, of: x, buckets: y, windows: [1d]}
  - {name: f, function: top_n_by, of: x, by: x, n: 2, buckets: y, windows: [1d]}
"#,
        expect![[r#"
            a.yaml:4:17: `format` must be `parquet` or `csv` or `json` or `arrow` or `delta` or `iceberg` or `sql`, found `Parquet`
              help: did you mean `parquet`?
            a.yaml:7:21: unknown type `int`
              help: did you mean `int64`? known: bool, int32, int64, float32, float64, string, bytes, timestamp, date, list<string>, list<float32, 128>
            a.yaml:8:21: unknown type `double`
              help: did you mean `float64`? known: bool, int32, int64, float32, float64, string, bytes, timestamp, date, list<string>, list<float32, 128>
            a.yaml:9:21: unknown type `text`
              help: did you mean `string`? known: bool, int32, int64, float32, float64, string, bytes, timestamp, date, list<string>, list<float32, 128>
            a.yaml:10:21: unknown type `datetime`
              help: did you mean `timestamp`? known: bool, int32, int64, float32, float64, string, bytes, timestamp, date, list<string>, list<float32, 128>
            a.yaml:11:21: unknown type `array<float>`
              help: did you mean `list<float64>`? known: bool, int32, int64, float32, float64, string, bytes, timestamp, date, list<string>, list<float32, 128>
            a.yaml:12:21: unknown type `Int64`
              help: did you mean `int64`? known: bool, int32, int64, float32, float64, string, bytes, timestamp, date, list<string>, list<float32, 128>
            a.yaml:16:29: unknown type `double`
              help: `float64` is no type of a join key; it may be bool, int32, int64, string, bytes, timestamp, date
            a.yaml:16:54: unknown type `integer`
              help: did you mean `int64`? known: bool, int32, int64, string, bytes, timestamp, date
            a.yaml:22:6: `ttl` must be a duration such as `90d` or `1d12h`, found the number `0`
              help: leave it out if rows never expire, which is what 0 means in Feast; with `1us` a row counts for a microsecond
            a.yaml:22:6: `ttl` says how long the latest row counts, and aggregations have none
              help: leave it out: each window says how long a row counts
            a.yaml:23:6: `lag`: `5min` is not a duration: unknown unit `min`; write `5m`
              help: a duration is written as in `90d`, `1d12h` or `250ms`
            a.yaml:25:25: `function` must be `count` or `sum` or `avg` or `min` or `max` or `stddev` or `variance` or `first` or `last` or `last_n` or `top_n_by` or `approx_distinct` or `approx_percentile` or `count_distinct` or `any` or `every` or `histogram`, found `mean`
              help: did you mean `avg`?
            a.yaml:25:48: each of `windows`: `1 week` is not a duration: unknown unit `week`; write `7d`
              help: a window is written as in `1h`, `7d` or `lifetime`
            a.yaml:26:25: `function` must be `count` or `sum` or `avg` or `min` or `max` or `stddev` or `variance` or `first` or `last` or `last_n` or `top_n_by` or `approx_distinct` or `approx_percentile` or `count_distinct` or `any` or `every` or `histogram`, found `nunique`
              help: did you mean `count_distinct`?
            a.yaml:26:51: each of `windows`: `1M` is not a duration: months and years have no fixed length; count days, as in `30d`; units are w, d, h, m, s, ms and us
              help: a window is written as in `1h`, `7d` or `lifetime`
            a.yaml:27:25: `function` must be `count` or `sum` or `avg` or `min` or `max` or `stddev` or `variance` or `first` or `last` or `last_n` or `top_n_by` or `approx_distinct` or `approx_percentile` or `count_distinct` or `any` or `every` or `histogram`, found `median`
              help: did you mean `approx_percentile` with `percentile: 0.5`?
            a.yaml:28:25: `function` must be `count` or `sum` or `avg` or `min` or `max` or `stddev` or `variance` or `first` or `last` or `last_n` or `top_n_by` or `approx_distinct` or `approx_percentile` or `count_distinct` or `any` or `every` or `histogram`, found `Summ`
              help: did you mean `sum`?
            a.yaml:29:52: `histogram` takes no `buckets`: a map holds single values only
              help: a histogram is itself a map: take `count` with `buckets: y`, how many rows there are of each; or one `histogram` for each bucket that matters, with `where: "y = '…'"`
            a.yaml:30:64: `top_n_by` takes no `buckets`: a map holds single values only
              help: take `max` with `buckets`, the greatest of each; or one `top_n_by` for each bucket that matters, with `where: "y = '…'"`"#]],
    );
    for forever in ["0s", "0", "forever", "Infinite"] {
        let yaml =
            format!("kind: FeatureView\nname: v\nentities: [k]\nsource: s\nttl: {forever}\nfeatures: [x]");
        let mistakes = crate::parse_all(&[("a.yaml", &yaml)]).unwrap_err();
        let ttl =
            mistakes.iter().find(|mistake| mistake.loc.line == 5).and_then(|mistake| mistake.help.as_deref());
        assert!(
            ttl.is_some_and(|help| help.starts_with("leave it out if rows never expire")),
            "{mistakes:?}"
        );
    }
}
