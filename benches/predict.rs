//! How fast is a prediction in process? Look-up and model for 1 and 100 rows, 100 trees on 29 columns, beside the bare
//! sum of the parts: a multi-get, a copy into a tensor, a run.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quern_benches::bare::Bare;
use quern_benches::{Random, beside, online};
use quern_server::inference::{self, Limits};
use quern_server::serving::look_up;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn predict(criterion: &mut Criterion) {
    let repository = online::repository();
    let bare = Bare::new(&repository);
    let live = repository.quern.live();
    let mut group = criterion.benchmark_group("predict");
    for (model, rows) in [("scoring", 1), ("scoring", 100), ("derived", 1)] {
        let version = live.version(model, None).expect("the model is live");
        let (mut ours, mut theirs) = (Random(7), Random(7));
        let amounts: ArrayRef = Arc::new(Float64Array::from(vec![12.5; rows]));
        let hours: ArrayRef = Arc::new(Int64Array::from(vec![17; rows]));
        let mut ours = || {
            let ids = Arc::new(Int64Array::from(online::ids(&mut ours, rows)));
            let columns = vec![ids as ArrayRef, Arc::clone(&amounts), Arc::clone(&hours)];
            let inputs = RecordBatch::try_new(Arc::clone(&version.service.inputs), columns).expect("inputs");
            let times = vec![online::now_us(); rows];
            let scores = async {
                let vectors = look_up(&repository.quern, &live, &version.service, inputs, times).await?;
                inference::predict(&version.model, &vectors.vectors, Limits::default()).await
            };
            black_box(repository.runtime.block_on(scores).expect("scores"));
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
