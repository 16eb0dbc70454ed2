//! What becomes of values that cannot be computed? They are null and counted; of a `strict` feature they are an error.

use std::fs::{self, File};
use std::path::Path;

use expect_test::{Expect, expect};
use parquet::file::reader::{FileReader, SerializedFileReader};
use quern_kit::run;
use tempfile::TempDir;

use super::commands::{rows, say, words};

const DEFINITIONS: &str = "kind: Entity\nname: e\njoin_keys: [{name: k, type: int64}]\n---\n\
    kind: Source\nname: s\nbatch: {format: csv, path: rows.csv}\nevent_timestamp: at\n\
    columns: [{name: k, type: int64}, {name: at, type: timestamp}, {name: n, type: int64}, {name: t, type: string}]\n---\n\
    kind: FeatureView\nname: latest\nentities: [e]\nsource: s\nwhere: \"CAST(t AS BIGINT) < 1000\"\nfeatures:\n  \
    - n\n  - {name: share, expr: 100 / n, type: int32}\n---\n\
    kind: FeatureView\nname: sums\nentities: [e]\nsource: s\naggregations:\n  \
    - {name: total, function: sum, of: n, windows: [lifetime]}\n  \
    - {name: shares, function: sum, of: 100 / n, windows: [lifetime]}\n---\n\
    kind: FeatureService\nname: svc\nfeatures: [latest, sums]\nderived: [{name: more, expr: n + 9223372036854775800}]\n";

/// Of key 1 all is well, of 2 a divisor is 0, of 3 a sum is beyond int64, of 4 a text is no number.
const ROWS: &str = "k,at,n,t\n\
    1,2026-01-01T00:00:00Z,5,1\n\
    2,2026-01-01T00:00:00Z,0,2\n\
    3,2026-01-01T00:00:00Z,9223372036854775807,3\n\
    3,2026-01-02T00:00:00Z,9223372036854775807,3\n\
    4,2026-01-01T00:00:00Z,5,many\n";

const SPINE: &str = "k,event_timestamp\n1,2026-02-01\n2,2026-02-01\n3,2026-02-01\n4,2026-02-01\n";

fn folder(definitions: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("quern.yaml", "");
    write("definitions.yaml", definitions);
    write("rows.csv", ROWS);
    write("spine.csv", SPINE);
    run(folder.path(), &["apply"]).answer();
    folder
}

/// What materialize counts of each view.
pub(super) fn materialized(folder: &Path) -> String {
    let summary = run(folder, &words("materialize --to 2026-03-01 --json"));
    let views: serde_json::Value = serde_json::from_str(&summary.stdout).unwrap();
    let view = |view: &serde_json::Value| {
        let first = view.get("failed_first").map(|first| format!(" first {first}")).unwrap_or_default();
        format!(
            "{} written {} failed {} refused {}{first}\n",
            view["view"], view["rows_written"], view["failed"], view["refused"]
        )
    };
    let mut lines: String = views["views"].as_array().unwrap().iter().map(view).collect();
    for warning in views["warnings"].as_array().into_iter().flatten() {
        lines += &format!("{}\n", warning.as_str().unwrap());
    }
    let code = summary.code.filter(|code| *code != 0);
    code.map_or(lines.clone(), |code| format!("{lines}exit {code}\n"))
}

pub(super) fn check(said: &str, expected: Expect) {
    expected.assert_eq(said);
}

/// Of key 1 all is well, whatever becomes of the others.
fn check_key_1(folder: &Path) {
    check(
        &say(folder, "get svc k=1 event_timestamp=2026-03-02T00:00:00Z"),
        expect![[r#"
        feature                        value  status   event timestamp
        k                                  1  PRESENT
        n                                  5  PRESENT  2026-01-01T00:00:00Z
        share                             20  PRESENT  2026-01-01T00:00:00Z
        total_lifetime                     5  PRESENT
        shares_lifetime                   20  PRESENT
        more             9223372036854775805  PRESENT
    "#]],
    );
}

#[test]
fn what_cannot_be_computed_is_null_and_counted_and_the_rest_goes_on() {
    let folder = folder(DEFINITIONS);
    let folder = folder.path();
    check(
        &materialized(folder),
        expect![[r#"
            "latest" written 3 failed {"share":1,"where":1} refused 0 first {"share":"rows.csv, row 2"}
            "sums" written 4 failed {"shares_lifetime":1,"total_lifetime":1} refused 0
        "#]],
    );
    check_key_1(folder);
    for key in 2..=4 {
        let line = format!("get svc k={key} event_timestamp=2026-03-02T00:00:00Z");
        let expected = match key {
            2 => expect![[r#"
                feature                        value  status      event timestamp
                k                                  2  PRESENT
                n                                  0  PRESENT     2026-01-01T00:00:00Z
                share                           null  NULL_VALUE  2026-01-01T00:00:00Z
                total_lifetime                     0  PRESENT
                shares_lifetime                 null  NULL_VALUE
                more             9223372036854775800  PRESENT
            "#]],
            3 => expect![[r#"
                feature                        value  status      event timestamp
                k                                  3  PRESENT
                n                9223372036854775807  PRESENT     2026-01-02T00:00:00Z
                share                              0  PRESENT     2026-01-02T00:00:00Z
                total_lifetime                  null  NULL_VALUE
                shares_lifetime                    0  PRESENT
                more                            null  NULL_VALUE
                warning: 1 value of `more` could not be computed
                warning: 1 value of `total_lifetime` could not be computed
            "#]],
            _ => expect![[r#"
                feature          value  status      event timestamp
                k                    4  PRESENT
                n                 null  NOT_FOUND
                share             null  NOT_FOUND
                total_lifetime       5  PRESENT
                shares_lifetime     20  PRESENT
                more              null  NULL_VALUE
            "#]],
        };
        check(&say(folder, &line), expected);
    }
    let trained = run(folder, &words("train svc --spine spine.csv --out set.parquet"));
    check(
        &trained.stderr,
        expect![[r#"
            warning: 1 value of `more` could not be computed
            warning: 1 value of `share` could not be computed
            warning: 1 value of `shares_lifetime` could not be computed
            warning: 1 value of `total_lifetime` could not be computed
        "#]],
    );
    let file = SerializedFileReader::new(File::open(folder.join("set.parquet")).unwrap()).unwrap();
    let said = file.metadata().file_metadata().key_value_metadata().unwrap();
    let said = said.iter().find(|entry| entry.key == "quern.failed").unwrap();
    check(
        said.value.as_deref().unwrap(),
        expect![[r#"{"more":1,"share":1,"shares_lifetime":1,"total_lifetime":1}"#]],
    );
    check(
        &rows(&folder.join("set.parquet")),
        expect![[r#"
        +---+----------------------+---------------------+-------+----------------+-----------------+---------------------+
        | k | event_timestamp      | n                   | share | total_lifetime | shares_lifetime | more                |
        +---+----------------------+---------------------+-------+----------------+-----------------+---------------------+
        | 1 | 2026-02-01T00:00:00Z | 5                   | 20    | 5              | 20              | 9223372036854775805 |
        | 2 | 2026-02-01T00:00:00Z | 0                   |       | 0              |                 | 9223372036854775800 |
        | 3 | 2026-02-01T00:00:00Z | 9223372036854775807 | 0     |                | 0               |                     |
        | 4 | 2026-02-01T00:00:00Z |                     |       | 5              | 20              |                     |
        +---+----------------------+---------------------+-------+----------------+-----------------+---------------------+
    "#]],
    );
}

#[test]
fn what_a_strict_feature_cannot_say_is_an_error_and_the_rest_goes_on() {
    let strict = DEFINITIONS.replace("type: int32}", "type: int32, strict: true}");
    let folder = folder(&strict);
    let folder = folder.path();
    check(
        &materialized(folder),
        expect![[r#"
            "latest" written 2 failed {"share":1,"where":1} refused 1 first {"share":"rows.csv, row 2"}
            "sums" written 4 failed {"shares_lifetime":1,"total_lifetime":1} refused 0
            rows.csv, row 2: `share` of feature view `latest` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
            exit 1
        "#]],
    );
    check_key_1(folder);
    // Its row was left out.
    check(
        &say(folder, "get svc k=2 event_timestamp=2026-03-02T00:00:00Z"),
        expect![[r#"
        feature          value  status      event timestamp
        k                    2  PRESENT
        n                 null  NOT_FOUND
        share             null  NOT_FOUND
        total_lifetime       0  PRESENT
        shares_lifetime   null  NULL_VALUE
        more              null  NULL_VALUE
    "#]],
    );
    check(
        &say(folder, "train svc --spine spine.csv --out set.parquet"),
        expect![[r#"
        exit 1
        error: rows.csv, row 2: `share` of feature view `latest` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
    "#]],
    );
}

/// What the head has of key 1 in a view of rows and one of windows.
fn shown(folder: &Path) -> String {
    say(folder, "get svc k=1 event_timestamp=2026-03-02T00:00:00Z")
}

#[test]
fn a_refused_row_leaves_the_one_before_and_each_run_comes_back_to_it() {
    let strict = DEFINITIONS
        .replace("type: int32}", "type: int32, strict: true}")
        .replace("of: 100 / n, windows: [lifetime]}", "of: 100 / n, windows: [lifetime], strict: true}");
    let plain = "---\nkind: FeatureService\nname: plain\nfeatures: [{view: latest, features: [n]}]\n";
    let folder = folder(&(strict + plain));
    let folder = folder.path();
    let bad = "1,2026-01-02T00:00:00Z,5,1\n1,2026-01-05T00:00:00Z,0,1\n1,2026-01-06T00:00:00Z,0,1\n";
    let rows = ROWS.replace("2,2026-01-01T00:00:00Z,0,2\n", bad);
    fs::write(folder.join("rows.csv"), &rows).unwrap();
    check(
        &materialized(folder),
        expect![[r#"
            "latest" written 2 failed {"share":1,"where":1} refused 1 first {"share":"rows.csv, row 4"}
            "sums" written 3 failed {"shares_lifetime":2,"total_lifetime":1} refused 2
            rows.csv, row 4: `share` of feature view `latest` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
            rows.csv, row 3: `shares_lifetime` of feature view `sums` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
            exit 1
        "#]],
    );
    check(
        &shown(folder),
        expect![[r#"
        feature                        value  status   event timestamp
        k                                  1  PRESENT
        n                                  5  PRESENT  2026-01-02T00:00:00Z
        share                             20  PRESENT  2026-01-02T00:00:00Z
        total_lifetime                    10  PRESENT
        shares_lifetime                   40  PRESENT
        more             9223372036854775805  PRESENT
    "#]],
    );
    check(
        &materialized(folder),
        expect![[r#"
            "latest" written 0 failed {"share":1,"where":1} refused 1 first {"share":"rows.csv, row 4"}
            "sums" written 0 failed {"shares_lifetime":2} refused 2
            rows.csv, row 4: `share` of feature view `latest` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
            rows.csv, row 3: `shares_lifetime` of feature view `sums` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
            exit 1
        "#]],
    );
    // Whoever trains without that feature would see the row that nobody is served.
    let trained = run(folder, &words("train plain --spine spine.csv --out set.parquet"));
    check(
        &trained.stderr,
        expect![[r#"
        error: rows.csv, row 4: `share` of feature view `latest` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
    "#]],
    );
    fs::write(folder.join("rows.csv"), rows.replace(",0,1\n", ",4,1\n")).unwrap();
    run(folder, &words("materialize --to 2026-03-01")).answer();
    check(
        &shown(folder),
        expect![[r#"
        feature                        value  status   event timestamp
        k                                  1  PRESENT
        n                                  4  PRESENT  2026-01-06T00:00:00Z
        share                             25  PRESENT  2026-01-06T00:00:00Z
        total_lifetime                    18  PRESENT
        shares_lifetime                   90  PRESENT
        more             9223372036854775804  PRESENT
    "#]],
    );
}

#[test]
fn strict_derived_features_and_windows_fail_who_asks_for_them() {
    let strict = DEFINITIONS
        .replace("expr: n + 9223372036854775800}", "expr: n + 9223372036854775800, strict: true}")
        .replace("of: n, windows: [lifetime]}", "of: n, windows: [lifetime], strict: true}");
    let folder = folder(&strict);
    let folder = folder.path();
    check(
        &materialized(folder),
        expect![[r#"
            "latest" written 3 failed {"share":1,"where":1} refused 0 first {"share":"rows.csv, row 2"}
            "sums" written 4 failed {"shares_lifetime":1,"total_lifetime":1} refused 1
            exit 1
        "#]],
    );
    check_key_1(folder);
    check(
        &say(folder, "get svc k=3 event_timestamp=2026-03-02T00:00:00Z"),
        expect![[r#"
        exit 1
        error: instance 0: `total_lifetime` of feature view `sums` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
    "#]],
    );
    check(
        &say(folder, "train svc --spine spine.csv --out set.parquet"),
        expect![[r#"
        exit 1
        error: row 2 of what was asked: `total_lifetime` of feature view `sums` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
    "#]],
    );
}

/// A mistake that every row would show is found before any is read.
#[test]
fn constants_that_fail_are_found_by_check() {
    let folder = TempDir::new().unwrap();
    let wrong =
        DEFINITIONS.replace("100 / n, type: int32}", "100 / 0}").replace("CAST(t AS BIGINT) < 1000", "t > 5");
    fs::write(folder.path().join("quern.yaml"), "").unwrap();
    fs::write(folder.path().join("definitions.yaml"), wrong).unwrap();
    fs::write(folder.path().join("rows.csv"), ROWS).unwrap();
    check(
        &say(folder.path(), "check"),
        expect![[r#"
        exit 1
        definitions.yaml:15:8: `t > 5`: `t` is text, and is compared with a number; write `CAST(t AS DOUBLE)`, or compare it with text
        definitions.yaml:18:25: `100 / 0`: 100 / 0 divides by zero
        2 mistakes
    "#]],
    );
}
