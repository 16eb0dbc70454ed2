//! How fast is a look-up of windows in process? Of one entity, 20 features over 10,000 events in 30 days, beside a
//! look-up of 20 features of its latest row.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use criterion::{Criterion, criterion_group, criterion_main};
use quern_benches::{Bench, beside, online};
use quern_kit::{Random, Service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTITIES: u64 = 50;
const EVENTS: u64 = 10_000;
const SPAN_US: u64 = 30 * 86_400_000_000;
const COLUMNS: usize = 20;

fn definitions() -> String {
    let mut text = "kind: Entity\nname: card\njoin_keys: [{name: id, type: int64}]\n---\n\
                    kind: Source\nname: payments\nbatch: {format: parquet, path: payments.parquet}\n\
                    event_timestamp: ts\n---\n\
                    kind: FeatureView\nname: spending\nentities: [card]\nsource: payments\naggregations:\n"
        .to_owned();
    for function in ["count", "sum", "min", "max", "avg"] {
        let _ = writeln!(
            text,
            "  - {{name: {function}, function: {function}, of: c0, windows: [1h, 1d, 7d, 30d]}}"
        );
    }
    let columns: Vec<String> = (0..COLUMNS).map(|column| format!("c{column}")).collect();
    let _ = write!(
        text,
        "---\nkind: FeatureView\nname: latest\nentities: [card]\nsource: payments\nfeatures: [{}]\n\
         ---\nkind: FeatureService\nname: windows\nfeatures: [spending]\n\
         ---\nkind: FeatureService\nname: rows\nfeatures: [latest]\n",
        columns.join(", ")
    );
    text
}

fn events(now_us: i64) -> RecordBatch {
    let (mut random, n) = (Random::seeded(1), ENTITIES * EVENTS);
    let times = (0..n).map(|_| now_us - random.below(SPAN_US) as i64);
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
    let ids = Int64Array::from_iter_values((0..n).map(|event| (event % ENTITIES) as i64));
    let mut columns: Vec<(String, ArrayRef)> =
        vec![("ts".to_owned(), Arc::new(times)), ("id".to_owned(), Arc::new(ids))];
    for column in 0..COLUMNS {
        let cents = (0..n).map(|_| random.below(1_000_000) as f64 / 100.0);
        columns.push((format!("c{column}"), Arc::new(Float64Array::from_iter_values(cents))));
    }
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn windows(criterion: &mut Criterion) {
    let now_us = online::now_us();
    let bench = Bench::new(&definitions(), &[("payments.parquet", events(now_us))]);
    bench.node.materialize(now_us);
    let ask = |service: &Service, random: &mut Random| {
        let ids = Int64Array::from(vec![random.below(ENTITIES) as i64]);
        let vectors = service.look_up(service.inputs(vec![Arc::new(ids)]), vec![now_us]);
        black_box(bench.runtime.block_on(vectors).expect("vectors"));
    };
    let [windows, rows] = ["windows", "rows"].map(|service| bench.node.service(service));
    let (mut ours, mut theirs) = (Random::seeded(7), Random::seeded(7));
    let mut group = criterion.benchmark_group("windows");
    group.bench_function("1 x 20 windows", |bencher| bencher.iter(|| ask(&windows, &mut ours)));
    group.bench_function("1 x 20 features of a row", |bencher| bencher.iter(|| ask(&rows, &mut theirs)));
    beside(
        "20 windows, beside 20 features of a row",
        || ask(&windows, &mut ours),
        || ask(&rows, &mut theirs),
    );
    group.finish();
}

criterion_group!(benches, windows);
criterion_main!(benches);
