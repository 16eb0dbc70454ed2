//! How fast is a prediction in process? Look-up and model for 1 and 100 rows, 100 trees on 29 columns, beside the bare
//! sum of the parts: a multi-get, a copy into a tensor, a run.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quern_benches::bare::Bare;
use quern_benches::{beside, online};
use quern_kit::Random;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn predict(criterion: &mut Criterion) {
    let bench = online::bench();
    let bare = Bare::new(&bench);
    let mut group = criterion.benchmark_group("predict");
    for (model, rows) in [("scoring", 1), ("scoring", 100), ("derived", 1)] {
        let version = bench.node.model(model);
        let service = version.service();
        let (mut ours, mut theirs) = (Random::seeded(7), Random::seeded(7));
        let amounts: ArrayRef = Arc::new(Float64Array::from(vec![12.5; rows]));
        let hours: ArrayRef = Arc::new(Int64Array::from(vec![17; rows]));
        let mut ours = || {
            let ids = Arc::new(Int64Array::from(online::ids(&mut ours, rows)));
            let columns = vec![ids as ArrayRef, Arc::clone(&amounts), Arc::clone(&hours)];
            let times = vec![online::now_us(); rows];
            let scores = async {
                let vectors = service.look_up(service.inputs(columns), times).await?;
                version.run(&vectors.vectors).await
            };
            black_box(bench.runtime.block_on(scores).expect("scores"));
        };
        let bare = || {
            let ids = online::ids(&mut theirs, rows);
            black_box(bare.predict(&ids, std::iter::repeat_n((12.5, 17), rows)));
        };
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(format!("{model} x {rows}"), |bencher| bencher.iter(&mut ours));
        beside(&format!("model `{model}`, {rows} row(s), beside `scoring` bare"), ours, bare);
    }
    group.finish();
}

criterion_group!(benches, predict);
criterion_main!(benches);
