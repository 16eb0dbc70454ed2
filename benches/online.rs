//! Which repository do look-ups and predictions ask? Three views of twenty features, and a model of twenty-nine
//! columns.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use quern_kit::{Random, Repository};

use crate::Bench;

/// How many entities there are.
pub const ENTITIES: u64 = 20_000;
/// Feature views.
pub const VIEWS: usize = 3;
/// Features of each view: the first twelve are float64, the others int64.
pub const FEATURES: usize = 20;
/// Features of each view that are float64.
pub const FLOATS: usize = 12;
/// Columns of the model: features of each view, `PICKED` of them, then the two request columns.
pub const WIDTH: usize = VIEWS * PICKED.len() + 2;
/// The features of each view that the model takes.
pub const PICKED: [usize; 9] = [0, 1, 2, 3, 4, 5, 12, 13, 14];
/// Derived features of the service `derived`, which has a model of its own.
pub const DERIVED: usize = 5;

/// Opens a repository with every entity materialized: the services `all`, `scoring` and `derived`, and for the latter
/// two a model each, of the same names; `worker` is `scoring` in a process of its own.
///
/// # Panics
/// Where `QUERN_PYTHON` is no Python with the packages of the flights example.
pub fn bench() -> Bench {
    bench_with(|_| Vec::new())
}

/// The same with settings, which may name files that they write into the repository.
///
/// # Panics
/// As [`bench`].
pub fn bench_with(settings: impl FnOnce(&Repository) -> Vec<(&'static str, String)>) -> Bench {
    let repository = Repository::new(&(definitions() + &models()));
    repository.write_parquet("rows.parquet", &rows(ENTITIES));
    let python = std::env::var("QUERN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    for (name, width) in [("scoring", WIDTH), ("derived", WIDTH + DERIVED)] {
        let status = Command::new(&python)
            .arg("model.py")
            .arg(repository.path().join(format!("{name}.onnx")))
            .arg(width.to_string())
            .stderr(std::process::Stdio::null())
            .status();
        let made = status.is_ok_and(|status| status.success());
        assert!(made, "{python} does not run benches/model.py; `make setup` brings what it needs");
    }
    let settings = settings(&repository);
    let bench = Bench::open(repository, &settings);
    fill(&bench);
    bench
}

/// The same for so many entities and without models, on the online store that `settings` select; nothing is
/// materialized yet.
pub fn features(entities: u64, settings: &[(&str, String)]) -> Bench {
    let repository = Repository::new(&definitions());
    repository.write_parquet("rows.parquet", &rows(entities));
    Bench::open(repository, settings)
}

/// Materializes every entity.
pub fn fill(bench: &Bench) {
    assert_eq!(bench.node.materialize(now_us()).views.len(), VIEWS);
}

/// The time, µs.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_micros() as i64
}

/// `n` random entities.
pub fn ids(random: &mut Random, n: usize) -> Vec<i64> {
    (0..n).map(|_| random.below(ENTITIES) as i64).collect()
}

fn feature(view: usize, feature: usize) -> String {
    format!("v{view}_{feature}")
}

fn definitions() -> String {
    let mut text = "kind: Entity\nname: user\njoin_keys: [{name: id, type: int64}]\n---\n\
                    kind: Source\nname: rows\nbatch: {format: parquet, path: rows.parquet}\nevent_timestamp: ts\n"
        .to_owned();
    for view in 0..VIEWS {
        let features: Vec<String> = (0..FEATURES).map(|place| feature(view, place)).collect();
        let _ = write!(
            text,
            "---\nkind: FeatureView\nname: v{view}\nentities: [user]\nsource: rows\nttl: 30d\nfeatures: [{}]\n",
            features.join(", ")
        );
    }
    let picked = |view: usize| PICKED.map(|place| feature(view, place)).join(", ");
    let request = "request: [{name: amount, type: float64}, {name: hour, type: int64}]\n";
    let projections: String =
        (0..VIEWS).map(|view| format!("  - {{view: v{view}, features: [{}]}}\n", picked(view))).collect();
    let outputs = (0..VIEWS).map(picked).collect::<Vec<_>>().join(", ");
    let _ = write!(
        text,
        "---\nkind: FeatureService\nname: all\nfeatures: [v0, v1, v2]\n\
         ---\nkind: FeatureService\nname: scoring\n{request}features:\n{projections}outputs: [{outputs}, amount, hour]\n\
         ---\nkind: FeatureService\nname: derived\n{request}features:\n{projections}\
         derived:\n\
         \x20 - {{name: rate, expr: \"v0_0 / nullif(v0_1, 0)\"}}\n\
         \x20 - {{name: night, expr: \"hour < 6 OR hour > 22\"}}\n\
         \x20 - {{name: over, expr: \"amount > 3 * coalesce(v1_0, 0)\"}}\n\
         \x20 - {{name: size, expr: \"ln(amount + 1)\"}}\n\
         \x20 - {{name: band, expr: \"CASE WHEN amount < 10 THEN 0 WHEN amount < 100 THEN 1 ELSE 2 END\"}}\n\
         outputs: [{outputs}, amount, hour, rate, night, over, size, band]\n"
    );
    text
}

fn models() -> String {
    let mut text = String::new();
    for (name, file, isolation) in
        [("scoring", "scoring", "auto"), ("derived", "derived", "auto"), ("worker", "scoring", "process")]
    {
        let _ = write!(
            text,
            "---\nkind: Model\nname: {name}\nversions: [{{version: \"1\", path: {file}.onnx, service: {file}}}]\n\
             isolation: {isolation}\n"
        );
    }
    text
}

fn rows(entities: u64) -> RecordBatch {
    let mut random = Random::seeded(1);
    let ts_us = now_us() - 3_600_000_000;
    let times = TimestampMicrosecondArray::from(vec![ts_us; entities as usize]).with_timezone("UTC");
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("ts".to_owned(), Arc::new(times)),
        ("id".to_owned(), Arc::new(Int64Array::from_iter_values(0..entities as i64))),
    ];
    for view in 0..VIEWS {
        for place in 0..FEATURES {
            let column: ArrayRef = if place < FLOATS {
                Arc::new(Float64Array::from_iter_values((0..entities).map(|_| random.unit() * 4.0 - 2.0)))
            } else {
                Arc::new(Int64Array::from_iter_values((0..entities).map(|_| random.below(10) as i64)))
            };
            columns.push((feature(view, place), column));
        }
    }
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}
