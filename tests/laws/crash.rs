//! Law 5: whatever moment the process is killed at, the head ends right, and the registry is the old one or the new
//! one.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use quern_kit::{Node, Random, Repository, Vectors, command, run};

const KILLS: usize = 8;
const FILES: usize = 6;
const FILE_ROWS: usize = 100_000;
const KEYS: u64 = 200_000;
const SPAN_S: u64 = 1_000_000;

const DEFINITIONS: &str = "
kind: Entity
name: user
join_keys: [{name: user, type: int64}]
---
kind: Source
name: events
batch: {format: parquet, path: data/*.parquet}
event_timestamp: at
---
kind: FeatureView
name: spending
entities: [user]
source: events
features:
  - {name: amount}
  - {name: per_item, expr: amount / items}
  - {name: items}
  - {name: note}
---
kind: FeatureView
name: gifts
entities: [user]
source: events
where: items % 3 = 0
features: [{name: gift, expr: note}]
---
kind: FeatureService
name: svc
features: [spending, gifts]
";

fn write_events(repository: &Repository, random: &mut Random, file_rows: usize) {
    for file in 0..FILES {
        let draws: Vec<[u64; 4]> = (0..file_rows).map(|_| std::array::from_fn(|_| random.draw())).collect();
        let at = draws.iter().map(|d| (d[0] % SPAN_S * 1_000_000) as i64);
        let columns: [(&str, ArrayRef); 5] = [
            ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC"))),
            ("user", Arc::new(Int64Array::from_iter_values(draws.iter().map(|d| (d[1] % KEYS) as i64)))),
            ("amount", Arc::new(Float64Array::from_iter_values(draws.iter().map(|d| d[2] as f64 * 1e-17)))),
            ("items", Arc::new(Int64Array::from_iter_values(draws.iter().map(|d| (1 + d[3] % 9) as i64)))),
            (
                "note",
                Arc::new(StringArray::from_iter(
                    draws.iter().map(|d| (d[3] % 5 > 0).then(|| d[2].to_string())),
                )),
            ),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, true)),
        );
        repository.write_parquet_in_groups(&format!("data/{file}.parquet"), &batch.unwrap(), 30_000);
    }
}

/// Starts `arguments` in `folder` and kills the process after `delay`; whether it was still at work.
fn kill_after(folder: &Path, arguments: &[&str], delay: Duration) -> bool {
    let mut quiet = command(folder, arguments);
    let mut process = quiet.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(delay);
    // Fails where it has ended; a process that nobody waited for keeps its id.
    let _ = process.kill();
    !process.wait().unwrap().success()
}

/// Everything that a head of 200,000 keys says at one time.
async fn answers(node: &Node, q_us: i64) -> (Vectors, Vec<Option<Vec<u8>>>) {
    let service = node.service("svc");
    let users: ArrayRef = Arc::new(Int64Array::from_iter_values(0..KEYS as i64));
    let stored = service.stored(std::slice::from_ref(&users));
    let vectors = service.look_up(service.inputs(vec![users]), vec![q_us; KEYS as usize]).await.unwrap();
    (vectors, stored)
}

fn trained(node: &Node, q_us: i64) -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] = [
        ("user", Arc::new(Int64Array::from_iter_values(0..KEYS as i64))),
        (
            "event_timestamp",
            Arc::new(TimestampMicrosecondArray::from(vec![q_us; KEYS as usize]).with_timezone("UTC")),
        ),
    ];
    node.service("svc").training_set(&RecordBatch::try_from_iter(columns).unwrap(), false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_materialize_killed_again_and_again_ends_in_the_same_head() {
    let mut random = Random::new("crash");
    let repository = Repository::new(DEFINITIONS);
    write_events(&repository, &mut random, FILE_ROWS);
    let folder = repository.path();
    for data in ["whole", "killed"] {
        run(folder, &["apply", "--data", data]).answer();
    }
    let begun = Instant::now();
    run(folder, &["materialize", "--data", "whole", "--to", "2000-01-01"]).answer();
    let whole = begun.elapsed();

    // Each run brings in more than the one before, so that none finds its work done.
    let mut at_work = 0;
    for kill in 0..KILLS {
        let to = (KILLS + kill) as u64 * SPAN_S / (2 * KILLS as u64);
        let to = chrono::DateTime::from_timestamp_secs(to as i64).unwrap().to_rfc3339();
        let run = ["materialize", "--data", "killed", "--look-back", "36500d", "--to", &to];
        at_work += usize::from(kill_after(folder, &run, random.part_of(whole)));
    }
    println!("{at_work} of {KILLS} runs were killed at work; a whole one takes {whole:?}");
    assert!(at_work >= 2, "a run ended before most kills: the data is too small for this machine");

    let last = ["materialize", "--data", "killed", "--look-back", "36500d", "--to", "2000-01-01"];
    run(folder, &last).answer();
    let q_us = 946_684_800_000_000;
    let open = async |data: &str| {
        let data = folder.join(data).to_string_lossy().into_owned();
        repository.open_with(&[("data", data)]).await.unwrap()
    };
    let (killed, whole) = (open("killed").await, open("whole").await);
    let ((got, got_bytes), (wanted, wanted_bytes)) =
        (answers(&killed, q_us).await, answers(&whole, q_us).await);
    assert!(got_bytes == wanted_bytes, "stored rows differ");
    assert!(got_bytes.iter().flatten().count() > 250_000, "the heads are empty");
    assert_eq!(got.vectors, wanted.vectors);
    for (got, wanted) in got.found.iter().zip(&wanted.found) {
        assert_eq!((&got.states, &got.event_timestamps), (&wanted.states, &wanted.event_timestamps));
    }
    let trained = trained(&killed, q_us);
    for (name, column) in got.vectors.schema().fields().iter().map(|f| f.name()).zip(got.vectors.columns()) {
        assert_eq!(trained.column_by_name(name).unwrap().to_data(), column.to_data(), "{name} in training");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_killed_is_the_old_registry_or_the_new_one() {
    // Every apply renames what the one before it defined, so that a mixture shows.
    let definitions = |number: u64| DEFINITIONS.replace("name: svc", &format!("name: svc{number}"));
    let mut random = Random::new("apply");
    let repository = Repository::new(&definitions(0));
    write_events(&repository, &mut random, 10);
    let begun = Instant::now();
    run(repository.path(), &["apply"]).answer();
    let whole = begun.elapsed();
    let mut before = 1;
    for kill in 1..=8 {
        let old = repository.open().await.live().files;
        repository.write("definitions.yaml", definitions(kill));
        let new = repository.files();
        kill_after(repository.path(), &["apply"], random.part_of(whole));

        let live = repository.open().await.live();
        let is_old = (live.number, &live.files) == (before, &old);
        let is_new = (live.number, &live.files) == (before + 1, &new);
        let service = &live.services[0];
        let fits = live.files[0].text.contains(&format!("name: {service}\n"));
        assert!((is_old || is_new) && fits, "after kill {kill}: apply {} has {service}", live.number);
        before = live.number;
    }
    repository.write("definitions.yaml", definitions(9));
    run(repository.path(), &["apply"]).answer();
    assert_eq!(repository.open().await.live().number, before + 1);
}
