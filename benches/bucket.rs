//! What does a training set out of a bucket cost beside the same from disk, and beside DuckDB on the same bucket?
//!
//! The bucket is a small server on this machine that answers ranges, so what is measured is requests, bytes and
//! waiting, and not a network. Each way takes its turn; medians are shown.
//!
//! ```text
//! make bench B="bucket -- [FILES] [ROWS OF EACH] [DELAY OF EACH ANSWER, ms]"
//! ```

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use quern_kit::{Bucket, Node, Random, Repository, blocking, required, root};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SPINE_ROWS: usize = 100_000;
const ENTITIES: u64 = 100_000;
const DAY_US: u64 = 86_400_000_000;
const FEATURES: usize = 10;
const TURNS: usize = 3;

fn definitions(bucket: &Bucket) -> String {
    let view = |name: &str, path: &str| {
        format!(
            "---\nkind: Source\nname: {name}\nbatch: {{format: parquet, path: \"{path}\"}}\nevent_timestamp: ts\n\
             ---\nkind: FeatureView\nname: {name}\nentities: [user]\nsource: {name}\nfeatures: [f0, f1, f2, f3]\n\
             ---\nkind: FeatureService\nname: {name}\nfeatures: [{name}]\n"
        )
    };
    format!(
        "{}---\nkind: Entity\nname: user\njoin_keys: [{{name: id, type: int64}}]\n{}{}",
        bucket.connection(),
        view("here", "rows/*.parquet"),
        view("there", "s3://rows/rows/*.parquet")
    )
}

/// Rows of one day each, of ten features of which four are asked for.
fn rows(random: &mut Random, (first_day, days, count): (u64, u64, usize), features: usize) -> RecordBatch {
    let ids = Int64Array::from_iter_values((0..count).map(|_| random.below(ENTITIES) as i64));
    let at = (0..count).map(|_| (first_day * DAY_US + random.below(days * DAY_US)) as i64);
    let time = if features > 0 { "ts" } else { "event_timestamp" };
    let at = TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC");
    let mut columns: Vec<(String, ArrayRef)> =
        vec![("id".to_owned(), Arc::new(ids)), (time.to_owned(), Arc::new(at))];
    for feature in 0..features {
        let column = Float64Array::from_iter_values((0..count).map(|_| random.unit()));
        columns.push((format!("f{feature}"), Arc::new(column)));
    }
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

async fn train(node: &Node, service: &'static str, spine: &RecordBatch) -> f64 {
    let (node, spine, began) = (node.clone(), spine.clone(), Instant::now());
    let rows = blocking(move || node.service(service).training_set(&spine, false).num_rows()).await;
    assert_eq!(rows, SPINE_ROWS, "the training set has the spine's rows");
    began.elapsed().as_secs_f64()
}

/// Seconds of DuckDB's own `ASOF JOIN` over the files at `path`, or why there are none.
fn duckdb(path: &str, endpoint: &str, spine: &Path) -> Result<f64, String> {
    let script = root().join("benches/peers/bucket.py");
    let mut command = Command::new(required("QUERN_PYTHON"));
    let output = command.arg(script).args([path, endpoint]).arg(spine).output().expect("Python starts");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().parse().expect("seconds")),
        false => Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()),
    }
}

fn median(mut turns: Vec<f64>) -> f64 {
    turns.sort_by(f64::total_cmp);
    turns[turns.len() / 2]
}

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let number = |place: usize, default: usize| numbers.get(place).copied().unwrap_or(default);
    let (files, file_rows, delay_ms) = (number(0, 100), number(1, 100_000), number(2, 0));
    let bucket = Bucket::start().await;
    let repository = Repository::new(&definitions(&bucket));
    let mut random = Random::seeded(1);
    fs::create_dir(bucket.path().join("rows")).expect("a folder");
    let mut bytes = 0;
    for file in 0..files {
        let name = format!("rows/{file:05}.parquet");
        repository.write_parquet(&name, &rows(&mut random, (file as u64, 1, file_rows), FEATURES));
        fs::hard_link(repository.path().join(&name), bucket.path().join(&name)).expect("a link");
        bytes += fs::metadata(bucket.path().join(&name)).expect("a file").len();
    }
    let spine = rows(&mut random, (0, files as u64, SPINE_ROWS), 0);
    repository.write_parquet("spine.parquet", &spine);
    bucket.faults().delay_ms.store(delay_ms as u64, Ordering::Relaxed);
    println!(
        "{files} files of {file_rows} rows, {:.2} GB; a spine of {SPINE_ROWS} rows; each answer takes {delay_ms} ms more",
        bytes as f64 / 1e9
    );

    let cold = [("history_cache_bytes_max", "0".to_owned())];
    let (mut here, mut there, mut duck_here, mut duck_there) = (vec![], vec![], vec![], vec![]);
    let (mut requests, mut sent) = (0, 0);
    for turn in 0..TURNS {
        let node = repository.open_applied_with(&cold).await;
        here.push(train(&node, "here", &spine).await);
        let before = bucket.asked();
        there.push(train(&node, "there", &spine).await);
        (requests, sent) = (bucket.asked().0 - before.0, bucket.asked().1 - before.1);
        drop(node);
        let (disk, spine) =
            (repository.path().join("rows/*.parquet"), repository.path().join("spine.parquet"));
        let before = bucket.asked();
        match duckdb("s3://rows/rows/*.parquet", &bucket.endpoint, &spine) {
            Ok(seconds) => {
                duck_there.push(seconds);
                let (asked, bytes) = bucket.asked();
                if turn == 0 {
                    println!(
                        "DuckDB: {} requests, {:.3} GB",
                        asked - before.0,
                        (bytes - before.1) as f64 / 1e9
                    );
                }
                duck_here.push(duckdb(&disk.display().to_string(), "", &spine).expect("files here"));
            }
            Err(why) => println!("DuckDB reads no bucket here: {why}"),
        }
    }
    println!("Quern: {requests} requests, {:.3} GB", sent as f64 / 1e9);
    let node = repository.open_applied().await;
    train(&node, "there", &spine).await;
    let mut copied = Vec::new();
    for _ in 0..TURNS {
        copied.push(train(&node, "there", &spine).await);
    }
    let copied = median(copied);
    let (here, there) = (median(here), median(there));
    println!(
        "Quern from disk {here:.2} s, out of the bucket {there:.2} s: {:.2} times as long",
        there / here
    );
    println!("Quern out of copies of the bucket {copied:.2} s: {:.2} times as long", copied / here);
    if !duck_there.is_empty() {
        let (duck_here, duck_there) = (median(duck_here), median(duck_there));
        println!("DuckDB from disk {duck_here:.2} s, out of the bucket {duck_there:.2} s");
        println!("Quern takes {:.2} of DuckDB's time out of the bucket", there / duck_there);
    }
}
