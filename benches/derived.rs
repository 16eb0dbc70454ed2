//! What do derived features cost? Thirty of them over one row and over 10,000, beside DataFusion's physical
//! expressions as its planner makes them. And what do `exp`, `sin` and their like cost beside those of the C library?

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datafusion_common::DFSchema;
use datafusion_physical_expr::PhysicalExpr;
use quern_benches::{Bench, beside};
use quern_engine::expr::planner;
use quern_kit::{Random, timestamp};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As people write them: ratios, guards against null and zero, bands, flags, parts of a time.
const EXPRESSIONS: [&str; 30] = [
    "a + b",
    "a - b * 2",
    "a / nullif(b, 0)",
    "abs(a - b)",
    "coalesce(a, 0) > 1",
    "coalesce(a, b, 0)",
    "CASE WHEN a > 1 THEN 1 ELSE 0 END",
    "CASE WHEN m < 10 THEN 0 WHEN m < 100 THEN 1 ELSE 2 END",
    "ln(abs(a) + 1)",
    "sqrt(abs(b))",
    "a IS NULL",
    "a BETWEEN 0 AND 1",
    "m % 7",
    "m > 3 AND n < 5",
    "NOT (m = 1 OR n = 2)",
    "s = 'red'",
    "s IN ('red', 'green', 'blue')",
    "length(s)",
    "date_part('hour', t)",
    "date_part('dow', t)",
    "date_part('hour', t) >= 22 OR date_part('hour', t) < 6",
    "round(a * 100) / 100",
    "greatest(a, b)",
    "least(m, n)",
    "power(a, 2)",
    "CAST(a AS BIGINT)",
    "(a - 0.5) / 0.25",
    "coalesce(m, 0) * coalesce(n, 0)",
    "a > b",
    "floor(b * 10)",
];

const INPUTS: [(&str, &str); 6] =
    [("a", "float64"), ("b", "float64"), ("m", "int64"), ("n", "int64"), ("s", "string"), ("t", "timestamp")];

fn definitions() -> String {
    let request: Vec<String> =
        INPUTS.iter().map(|(name, dtype)| format!("{{name: {name}, type: {dtype}}}")).collect();
    let derived: String = EXPRESSIONS
        .iter()
        .enumerate()
        .map(|(i, sql)| format!("  - {{name: d{i}, expr: \"{sql}\"}}\n"))
        .collect();
    // A service joins at least one view; what it reads from it does not matter here.
    format!(
        "kind: Entity\nname: user\njoin_keys: [{{name: id, type: int64}}]\n---\n\
         kind: Source\nname: rows\nbatch: {{format: parquet, path: rows.parquet}}\nevent_timestamp: ts\n---\n\
         kind: FeatureView\nname: v\nentities: [user]\nsource: rows\nfeatures: [f]\n---\n\
         kind: FeatureService\nname: thirty\nrequest: [{}]\nfeatures: [v]\nderived:\n{derived}",
        request.join(", ")
    )
}

fn inputs(rows: usize) -> Vec<ArrayRef> {
    let mut random = Random::seeded(3);
    let mut floats = || -> ArrayRef {
        Arc::new(
            (0..rows).map(|_| (random.below(20) > 0).then(|| random.unit() * 4.0)).collect::<Float64Array>(),
        )
    };
    let (a, b) = (floats(), floats());
    let mut whole = || -> ArrayRef {
        Arc::new((0..rows).map(|_| Some(random.below(200) as i64)).collect::<Int64Array>())
    };
    let (m, n) = (whole(), whole());
    let colours = ["red", "green", "blue", "yellow"];
    let s = (0..rows).map(|_| Some(colours[random.below(4) as usize])).collect::<StringArray>();
    let t = TimestampMicrosecondArray::from_iter_values((0..rows).map(|_| random.below(1 << 50) as i64));
    vec![a, b, m, n, Arc::new(s), Arc::new(t.with_timezone("UTC"))]
}

/// The expressions as DataFusion plans them, over all columns: typed, not simplified.
fn plain(schema: &Schema) -> Vec<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(schema.clone()).expect("a schema");
    let plan = |sql: &&str| {
        let logical =
            planner::words(sql).and_then(|words| planner::logical(words, &schema)).expect("sound SQL");
        planner::as_it_comes(logical, &schema).expect("an expression")
    };
    EXPRESSIONS.iter().map(plan).collect()
}

fn derived(criterion: &mut Criterion) {
    let stored: [(&str, ArrayRef); 3] = [
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC"))),
        ("id", Arc::new(Int64Array::from(vec![0]))),
        ("f", Arc::new(Float64Array::from(vec![0.0]))),
    ];
    let stored = RecordBatch::try_from_iter(stored).expect("one row");
    let bench = Bench::new(&definitions(), &[("rows.parquet", stored)]);
    let service = bench.node.service("thirty");
    let mut group = criterion.benchmark_group("derived");
    for rows in [1, 10_000] {
        let given = inputs(rows);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![0; rows]))];
        columns.extend(given.iter().cloned());
        let batch = service.inputs(columns);
        let times: ArrayRef = arrow::array::new_null_array(&timestamp(), rows);
        let found = quern_engine::Found {
            columns: vec![arrow::array::new_null_array(&DataType::Float64, rows)],
            states: vec![quern_engine::RowState::NotFound; rows],
            event_timestamps: vec![0; rows],
            absent: Vec::new(),
            failed: quern_engine::Failed::default(),
        };
        let ours = || {
            black_box(
                service
                    .plan()
                    .finish(
                        &batch,
                        &times,
                        std::slice::from_ref(&found),
                        &mut quern_engine::Failed::default(),
                    )
                    .expect("vectors"),
            );
        };
        let fields: Vec<Field> = INPUTS
            .iter()
            .zip(&given)
            .map(|((name, _), column)| Field::new(*name, column.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let plain = plain(&schema);
        let given = RecordBatch::try_new(schema, given).expect("the same columns");
        let theirs = || {
            for expression in &plain {
                let value = expression.evaluate(&given).and_then(|value| value.into_array(rows));
                black_box(value.ok());
            }
        };
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(format!("30 over {rows}"), |bencher| bencher.iter(ours));
        beside(&format!("30 derived over {rows}, beside DataFusion's own"), ours, theirs);
    }
    group.finish();
}

/// The functions that have the same bits on every processor, beside the ones that the C library has for this one.
fn functions(_: &mut Criterion) {
    type Function = fn(f64) -> f64;
    let pairs: [(&str, Function, Function); 10] = [
        ("atan", pxfm::f_atan, f64::atan),
        ("cbrt", pxfm::f_cbrt, f64::cbrt),
        ("cos", pxfm::f_cos, f64::cos),
        ("exp", pxfm::f_exp, f64::exp),
        ("ln", pxfm::f_log, f64::ln),
        ("log10", pxfm::f_log10, f64::log10),
        ("log2", pxfm::f_log2, f64::log2),
        ("power 1.7", |x| pxfm::f_pow(x, 1.7), |x| x.powf(1.7)),
        ("sin", pxfm::f_sin, f64::sin),
        ("tanh", pxfm::f_tanh, f64::tanh),
    ];
    let mut random = Random::seeded(3);
    let numbers: Vec<f64> = (0..10_000).map(|_| random.unit() * 20.0).collect();
    let all = |function: Function| numbers.iter().map(|x| function(*x)).sum::<f64>();
    for (name, ours, theirs) in pairs {
        beside(
            &format!("{name} of 10,000, beside the C library's"),
            || _ = black_box(all(ours)),
            || _ = black_box(all(theirs)),
        );
    }
}

criterion_group!(benches, derived, functions);
criterion_main!(benches);
