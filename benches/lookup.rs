//! How fast is a look-up in process? Of 1 and 100 entities with 60 features each, beside the bare RocksDB multi-get of
//! the same bytes.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quern_benches::bare::Bare;
use quern_benches::{Random, beside, online};
use quern_server::serving::look_up;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn lookup(criterion: &mut Criterion) {
    let repository = online::repository();
    let bare = Bare::new(&repository);
    let live = repository.quern.live();
    let service = &live.catalog.services["all"];
    let mut group = criterion.benchmark_group("lookup");
    for rows in [1, 100] {
        let (mut ours, mut theirs) = (Random(7), Random(7));
        let mut ours = || {
            let ids = Int64Array::from(online::ids(&mut ours, rows));
            let inputs = RecordBatch::try_new(Arc::clone(&service.inputs), vec![Arc::new(ids)]).expect("ids");
            let times = vec![online::now_us(); rows];
            let vectors = look_up(&repository.quern, &live, service, inputs, times);
            black_box(repository.runtime.block_on(vectors).expect("vectors"));
        };
        let bare = || {
            black_box(bare.rows(&online::ids(&mut theirs, rows)));
        };
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(format!("{rows} x 60 features"), |bencher| bencher.iter(&mut ours));
        beside(&format!("look-up of {rows}, beside the multi-get"), ours, bare);
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
