use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use expect_test::{Expect, expect};
use feature_defs::DefFile;
use quern_engine::SourceSchemas;

use super::*;
use crate::live::{Deployment, describe};
use quern_features::Compiled;

const BEFORE: &str = r#"
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Source
name: landings
batch: {format: parquet, path: "landings/*.parquet"}
event_timestamp: landed_at
---
kind: FeatureView
name: history
entities: [plane]
source: landings
ttl: 90d
features:
  - {name: last_delay, expr: arr_delay}
---
kind: FeatureView
name: speeds
entities: [plane]
source: landings
features:
  - {name: speed}
---
kind: FeatureService
name: delay_v1
features: [{view: history}]
"#;

fn deployment(number: u64, files: &[&str]) -> Deployment {
    let named = files.iter().enumerate();
    let files: Vec<DefFile> =
        named.map(|(i, text)| DefFile::new(format!("{i}.yaml"), (*text).to_owned())).collect();
    let schema = Schema::new(vec![
        Field::new("tailnum", DataType::Utf8, true),
        Field::new("landed_at", quern_engine::schema::timestamp(), true),
        Field::new("arr_delay", DataType::Float64, true),
        Field::new("speed", DataType::Float64, true),
    ]);
    let source_schemas = SourceSchemas::from([("landings".to_owned(), Arc::new(schema))]);
    let definitions = feature_defs::parse(&files).expect("sound");
    let catalog = quern_engine::compile(definitions, &source_schemas).expect("compiles");
    let compiled = Arc::new(Compiled { catalog, source_schemas });
    Deployment { number, files, compiled, ..Deployment::default() }
}

/// Over a head without windows, and sources of two files.
fn between(live: &Deployment, candidate: &Deployment) -> Plan {
    super::plan::between(live, candidate, &Stored { kept: &|_| None, history: &|_| (2, 1 << 20) })
}

fn check(before: &[&str], after: &[&str], expected: Expect) {
    let plan = between(&deployment(3, before), &deployment(4, after));
    expected.assert_eq(&plan.to_string());
}

#[test]
fn the_same_definitions_in_other_files_change_nothing() {
    let (first, rest) = BEFORE.split_once("---").expect("two documents");
    let rest = format!(
        "# Moved.\n{}",
        rest.replace("{name: last_delay, expr: arr_delay}", "{expr: arr_delay, name: last_delay}")
    );
    check(&[BEFORE], &[&rest, first], expect!["no changes; apply 3 is live"]);
    let fingerprint = |files: &[&str]| describe::fingerprint(&deployment(1, files));
    assert_eq!(fingerprint(&[BEFORE]), fingerprint(&[&rest, first]));
}

#[test]
fn a_change_is_shown_key_by_key() {
    let after = BEFORE
        .replace("ttl: 90d", "ttl: 30d\ndescription: of one plane")
        .replace("expr: arr_delay", "expr: arr_delay / 60")
        .replace("name: speeds", "name: velocities");
    check(
        &[BEFORE],
        &[&after],
        expect![[r#"
            ~ feature view history
                + description: of one plane
                ~ feature last_delay: arr_delay → arr_delay / 60
                ~ ttl: 90d → 30d
            - feature view speeds
            + feature view velocities

            to materialize:
                history: changed, so nothing is found of it until then; reads 2 files, 1.00 MiB
                velocities: new; reads 2 files, 1.00 MiB

            1 to add, 1 to change, 1 to remove"#]],
    );
}

#[test]
fn everything_is_new_at_first() {
    let plan = between(&Deployment::default(), &deployment(1, &[BEFORE]));
    expect![[r#"
        + entity plane
        + source landings
        + feature view history
        + feature view speeds
        + feature service delay_v1

        to materialize:
            history: new; reads 2 files, 1.00 MiB
            speeds: new; reads 2 files, 1.00 MiB

        5 to add, 0 to change, 0 to remove"#]]
    .assert_eq(&plan.to_string());
}

#[test]
fn a_window_answers_at_once_where_stored_tiles_reach_it() {
    let view = |windows: &str| {
        let head = BEFORE.split("---\nkind: FeatureView").next().expect("an entity and a source");
        format!(
            "{head}---\nkind: FeatureView\nname: recent\nentities: [plane]\nsource: landings\naggregations:\n  \
             - {{name: delay, function: avg, of: arr_delay, windows: [{windows}]}}\n"
        )
    };
    let (before, after) = (deployment(3, &[&view("7d")]), deployment(4, &[&view("1d, 7d, 8d, 30d")]));
    let windows = before.compiled.catalog.views["recent"].windows.clone().expect("windows");
    let stored = Stored { kept: &|_| Some(Arc::new(windows.kept())), history: &|_| (2, 1 << 20) };
    expect![[r#"
        ~ feature view recent
            + windows of delay: 1d by 1h, 8d by 1h, 30d by 1d

        to materialize:
            recent: no tiles reach delay_8d, delay_30d yet, the rest goes on answering; reads 2 files, 1.00 MiB
        answers at once, from stored tiles: recent.delay_1d

        0 to add, 1 to change, 0 to remove"#]].assert_eq(&super::plan::between(&before, &after, &stored).to_string());
    // Fewer windows need nothing.
    expect![[r#"
        ~ feature view recent
            - windows of delay: 1d by 1h, 8d by 1h, 30d by 1d
        stays materialized: recent

        0 to add, 1 to change, 0 to remove"#]]
    .assert_eq(&super::plan::between(&after, &before, &stored).to_string());
}

#[test]
fn a_list_is_told_by_what_came_and_what_went() {
    let before = BEFORE
        .replace(
            "event_timestamp: landed_at\n",
            "event_timestamp: landed_at\ncolumns: [{name: speed, type: float64}]\n",
        )
        .replace(
            "features: [{view: history}]",
            "features: [{view: history}, {view: speeds}]\noutputs: [speed, last_delay]",
        );
    let after = before
        .replace("columns: [", "columns: [{name: arr_delay, type: float64}, ")
        .replace("{name: speed}\n", "{name: speed}\n  - {name: fast, expr: speed > 500}\n")
        .replace("outputs: [speed, last_delay]", "outputs: [last_delay, speed, fast]");
    check(
        &[&before],
        &[&after],
        expect![[r#"
            ~ source landings
                + declared columns: arr_delay float64
            ~ feature view speeds
                + feature fast: speed > 500
            ~ feature service delay_v1
                + features of speeds: fast
                + outputs: fast
                ~ order of outputs: speed, last_delay → last_delay, speed

            to materialize:
                speeds: changed, so nothing is found of it until then; reads 2 files, 1.00 MiB

            0 to add, 3 to change, 0 to remove"#]],
    );
}
