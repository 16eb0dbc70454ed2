//! What do sound definitions say?

use expect_test::{Expect, expect};
use feature_defs::At;

use crate::parse_all;

fn check(yaml: &str, show: impl Fn(&feature_defs::Definitions) -> String, expected: Expect) {
    let definitions = parse_all(&[("a.yaml", yaml)]).expect("sound definitions");
    expected.assert_eq(&show(&definitions));
}

const REPOSITORY: &str = r#"
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Source
name: landings
description: |
  One row for each landing.
batch: {format: csv, path: "data/*.csv"}
push: true
event_timestamp: landed at
event_id: [tail, landed at]
columns:
  - {name: landed at, type: timestamp}
  - {name: tail, type: string}
  - {name: Delay, type: float64}
---
kind: FeatureView
name: history
entities: [plane]
keys: {tailnum: tail}
source: landings
where: NOT cancelled
ttl: 1d12h
lag: 5m
features:
  - Delay
  - {name: speed, expr: "distance / 2", type: "list<float32, 3>"}
  - name: late
    expr: true
    type: float32
    default: 1
---
kind: FeatureService
name: delay
request: [{name: distance, type: int64, default: -1}]
features:
  - {view: history, as: h, keys: {tailnum: plane}}
  - {view: history, features: [late, speed]}
derived:
  - {name: tired, expr: late > 5}
outputs: [h__Delay, distance, tired]
---
kind: Model
name: delay.v-1
versions:
  - {version: 1, path: m.onnx, service: delay}
  - {version: "1.10", path: m.onnx, service: delay}
  - version: blend
    service: delay
    steps:
      - {name: scaled, path: scale, inputs: [distance]}
      - {name: both, expr: "0.5 * scaled + 1"}
    outputs: [both]
route: {weights: {1: 90, "1.10": 10}, sticky: [plane], shadow: [blend]}
fallback:
  timeout: 50ms
  max_age: 7d
  max_missing: 0.5
  to: [{version: 1}, {expr: distance / 10}, {constant: 0}]
batching: {max_rows: 64, max_delay: 2ms, queue_rows: 500, concurrency: 1}
"#;

#[test]
fn sources() {
    check(
        REPOSITORY,
        |definitions| format!("{:#?}", definitions.sources["landings"].batch),
        expect![[r#"
            Some(
                BatchSource {
                    format: Csv,
                    path: "data/*.csv",
                    version: None,
                    reference: None,
                    connection: None,
                    catalog: None,
                    dialect: Dialect {
                        delimiter: 44,
                        quote: 34,
                        escape: None,
                        null_values: [],
                        encoding: Utf8,
                    },
                    loc: Loc {
                        project: None,
                        file: "a.yaml",
                        line: 10,
                        column: 28,
                    },
                },
            )"#]],
    );
    check(
        REPOSITORY,
        |definitions| {
            let source = &definitions.sources["landings"];
            format!(
                "{:?} {} {} {:?} {:?}",
                source.description,
                source.push,
                source.event_timestamp,
                source.created_timestamp,
                source.event_id
            )
        },
        expect![[r#""One row for each landing.\n" true landed at None ["tail", "landed at"]"#]],
    );
}

#[test]
fn views() {
    check(
        REPOSITORY,
        |definitions| {
            let view = &definitions.views["history"];
            let mut lines = vec![
                format!("{} {:?} {:?}", view.loc, view.entities, view.keys),
                format!("ttl {:?} lag {}", view.ttl_us, view.lag_us),
            ];
            lines.extend(view.filter.iter().map(|filter| format!("where {} at {}", filter.sql, filter.loc)));
            lines.extend(view.features.iter().map(|feature| {
                let dtype = feature.dtype.map(|dtype| dtype.to_string());
                format!(
                    "{} at {} = {} at {}: {dtype:?} {:?}",
                    feature.name, feature.loc, feature.expr.sql, feature.expr.loc, feature.default
                )
            }));
            lines.join("\n")
        },
        expect![[r#"
            a.yaml:20:7 ["plane"] {"tailnum": "tail"}
            ttl Some(129600000000) lag 300000000
            where NOT cancelled at a.yaml:24:8
            Delay at a.yaml:28:5 = "Delay" at a.yaml:28:5: None None
            speed at a.yaml:29:12 = distance / 2 at a.yaml:29:25: Some("list<float32, 3>") None
            late at a.yaml:30:11 = true at a.yaml:31:11: Some("float32") Some(Float(1.0))"#]],
    );
}

#[test]
fn services() {
    check(
        REPOSITORY,
        |definitions| {
            let service = &definitions.services["delay"];
            let mut lines: Vec<String> = Vec::new();
            lines.extend(service.request.iter().map(|column| {
                format!("request {}: {} {:?} at {}", column.name, column.dtype, column.default, column.loc)
            }));
            lines.extend(service.projections.iter().map(|projection| {
                let names: Vec<_> =
                    projection.features.iter().map(|feature| projection.output_name(feature)).collect();
                format!("{} {:?} {} at {}", projection.view, projection.keys, names.join(" "), projection.loc)
            }));
            lines.extend(service.derived.iter().map(|feature| {
                format!("derived {} = {} at {}", feature.name, feature.expr.sql, feature.expr.loc)
            }));
            let outputs = service.outputs.iter().flatten();
            lines.extend(outputs.map(|output| format!("output {} at {}", output.sql, output.loc)));
            lines.join("\n")
        },
        expect![[r#"
            request distance: int64 Some(Int(-1)) at a.yaml:37:18
            history {"tailnum": "plane"} h__Delay h__speed h__late at a.yaml:39:12
            history {} late speed at a.yaml:40:12
            derived tired = late > 5 at a.yaml:42:25
            output h__Delay at a.yaml:43:11
            output distance at a.yaml:43:21
            output tired at a.yaml:43:31"#]],
    );
}

#[test]
fn models() {
    check(
        REPOSITORY,
        |definitions| {
            let model = &definitions.models["delay.v-1"];
            let versions = model.versions.iter();
            let lines = versions.map(|version| {
                format!("{} {:?} {} at {}\n", version.version, version.artifact, version.service, version.loc)
            });
            lines.collect::<String>()
                + &format!("{:#?}\n{:#?}\n{:?}", model.route, model.fallback, model.batching)
        },
        expect![[r#"
            1 File(ModelFile { path: "m.onnx", inputs: Columns([]), outputs: [] }) delay at a.yaml:48:15
            1.10 File(ModelFile { path: "m.onnx", inputs: Columns([]), outputs: [] }) delay at a.yaml:49:15
            blend Steps { steps: [Step { name: "scaled", action: Run(ModelFile { path: "scale", inputs: Columns([Expr { sql: "distance", loc: Loc { project: None, file: "a.yaml", line: 53, column: 46 } }]), outputs: [] }), loc: Loc { project: None, file: "a.yaml", line: 53, column: 16 } }, Step { name: "both", action: Compute(Expr { sql: "0.5 * scaled + 1", loc: Loc { project: None, file: "a.yaml", line: 54, column: 28 } }), loc: Loc { project: None, file: "a.yaml", line: 54, column: 16 } }], outputs: [Expr { sql: "both", loc: Loc { project: None, file: "a.yaml", line: 55, column: 15 } }] } delay at a.yaml:50:14
            Some(
                Route {
                    weights: [
                        (
                            "1",
                            90,
                        ),
                        (
                            "1.10",
                            10,
                        ),
                    ],
                    sticky: [
                        Expr {
                            sql: "plane",
                            loc: Loc {
                                project: None,
                                file: "a.yaml",
                                line: 56,
                                column: 48,
                            },
                        },
                    ],
                    salt: "delay.v-1",
                    shadow: [
                        "blend",
                    ],
                    loc: Loc {
                        project: None,
                        file: "a.yaml",
                        line: 56,
                        column: 8,
                    },
                },
            )
            Some(
                Fallback {
                    timeout_us: Some(
                        50000,
                    ),
                    max_age_us: Some(
                        604800000000,
                    ),
                    max_missing: Some(
                        0.5,
                    ),
                    to: [
                        Version(
                            "1",
                            Loc {
                                project: None,
                                file: "a.yaml",
                                line: 61,
                                column: 18,
                            },
                        ),
                        Expr(
                            Expr {
                                sql: "distance / 10",
                                loc: Loc {
                                    project: None,
                                    file: "a.yaml",
                                    line: 61,
                                    column: 29,
                                },
                            },
                        ),
                        Constant(
                            Int(
                                0,
                            ),
                            Loc {
                                project: None,
                                file: "a.yaml",
                                line: 61,
                                column: 56,
                            },
                        ),
                    ],
                    loc: Loc {
                        project: None,
                        file: "a.yaml",
                        line: 58,
                        column: 3,
                    },
                },
            )
            Batching { max_rows: 64, max_delay_us: 2000, queue_rows: 500, concurrency: Some(1) }"#]],
    );
}

#[test]
fn the_flights_example_is_sound() {
    let folder = "examples/flights/definitions";
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the example's folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        files.push((name, std::fs::read_to_string(&path).expect("UTF-8")));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mistakes = parse_all(&files).err().unwrap_or_default();
    assert!(mistakes.is_empty(), "{}", mistakes.iter().map(|error| format!("{error}\n")).collect::<String>());
}

#[test]
fn a_view_sees_the_query_time_unless_it_says_before() {
    let view = |at: &str| {
        format!(
            "kind: Entity\nname: e\njoin_keys: [{{name: k, type: int64}}]\n---\n\
             kind: Source\nname: s\nbatch: {{format: parquet, path: s.parquet}}\nevent_timestamp: ts\n---\n\
             kind: FeatureView\nname: v\nentities: [e]\nsource: s\n{at}features: [x]\n"
        )
    };
    let at = |yaml: &str| parse_all(&[("a.yaml", &view(yaml))]).unwrap().views["v"].at;
    let all = ["", "at: including\n", "at: before\n"].map(at);
    assert_eq!(all, [At::Including, At::Including, At::Before]);
}
