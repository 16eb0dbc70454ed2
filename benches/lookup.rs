//! How fast is a look-up in process? Of 1 and 100 entities with 60 features each, beside the bare RocksDB multi-get of
//! the same bytes.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::Int64Array;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quern_benches::bare::Bare;
use quern_benches::{beside, online};
use quern_kit::Random;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn lookup(criterion: &mut Criterion) {
    let bench = online::bench();
    let bare = Bare::new(&bench);
    let service = bench.node.service("all");
    let mut group = criterion.benchmark_group("lookup");
    for rows in [1, 100] {
        let (mut ours, mut theirs) = (Random::seeded(7), Random::seeded(7));
        let mut ours = || {
            let ids = Int64Array::from(online::ids(&mut ours, rows));
            let vectors = service.look_up(service.inputs(vec![Arc::new(ids)]), vec![online::now_us(); rows]);
            black_box(bench.runtime.block_on(vectors).expect("vectors"));
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
