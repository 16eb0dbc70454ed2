//! How fast is the point-in-time join? A spine of 200,000 rows, a view of a million, both as Parquet would hold them.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quern_benches::Bench;
use quern_kit::Random;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SPINE_ROWS: usize = 200_000;
const VIEW_ROWS: usize = 1_000_000;
const ENTITIES: u64 = 100_000;
const SPAN_US: u64 = 90 * 86_400_000_000;
const FEATURES: usize = 10;
const DEFINITIONS: &str = "
kind: Entity
name: user
join_keys: [{name: id, type: int64}]
---
kind: Source
name: rows
batch: {format: parquet, path: rows.parquet}
event_timestamp: event_timestamp
---
kind: FeatureView
name: v
entities: [user]
source: rows
ttl: 30d
features: [f0, f1, f2, f3, f4, f5, f6, f7, f8, f9]
---
kind: FeatureService
name: all
features: [v]
";

fn rows(random: &mut Random, rows: usize, features: usize) -> RecordBatch {
    let ids = Int64Array::from_iter_values((0..rows).map(|_| random.below(ENTITIES) as i64));
    let times = TimestampMicrosecondArray::from_iter_values((0..rows).map(|_| random.below(SPAN_US) as i64));
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("id".to_owned(), Arc::new(ids)),
        ("event_timestamp".to_owned(), Arc::new(times.with_timezone("UTC"))),
    ];
    for feature in 0..features {
        let column = Float64Array::from_iter_values((0..rows).map(|_| random.unit()));
        columns.push((format!("f{feature}"), Arc::new(column)));
    }
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn asof(criterion: &mut Criterion) {
    let mut random = Random::seeded(1);
    let files = [("rows.parquet", rows(&mut random, VIEW_ROWS, FEATURES))];
    let bench = Bench::new(DEFINITIONS, &files);
    let spine = rows(&mut random, SPINE_ROWS, 0);
    let service = bench.node.service("all");
    let mut group = criterion.benchmark_group("asof");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(SPINE_ROWS as u64));
    group.bench_function("spine 200k, view 1M rows of 10 features", |bencher| {
        bencher.iter(|| {
            let set = service.training_batches(&spine, false);
            let rows: usize = set.map(|batch| black_box(batch).num_rows()).sum();
            assert_eq!(rows, SPINE_ROWS);
        });
    });
    group.finish();
}

criterion_group!(benches, asof);
criterion_main!(benches);
