//! Where does what models said lie, whichever server said it, and what is lost where one ends or a store is away?

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use futures::TryStreamExt;
use quern_kit::{
    Node, Postgres, Process, Random, Repository, Server, fixture, fresh_database, metric, run, run_in, until,
};
use serde_json::Value;
use sqlx::Connection;

use super::labels::command;
use super::predictions::{parquet_files, repository, table_of};
use crate::planes::{self, JANUARY_10_US, instance};
use crate::s3::S3;

/// The setting of a store that several servers have, and of their registry.
async fn shared(folder: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("registry", fresh_database().await),
        ("store", folder.display().to_string()),
        ("store_shared", "true".to_owned()),
    ]
}

/// Who was asked, and by which row.
fn asked(rows: Option<RecordBatch>) -> Vec<String> {
    let Some(rows) = rows else { return Vec::new() };
    let ids = rows.column_by_name("request_id").unwrap().as_string::<i32>();
    let mut ids: Vec<String> = ids.iter().flatten().map(str::to_owned).collect();
    ids.sort();
    ids
}

async fn predict_as(node: &Node, id: &str, rows: usize) {
    let columns = table_of(&vec!["N1"; rows]).columns().to_vec();
    node.model("delay").predict(id, columns, vec![JANUARY_10_US; rows]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_one_store_see_what_all_have_logged_and_one_makes_few_files_of_it() {
    let (store, here, there) = (tempfile::TempDir::new().unwrap(), repository(), repository());
    let settings = shared(store.path()).await;
    let first = here.open_applied_with(&settings).await;
    let second = there.open_with(&settings).await.unwrap();
    assert!(second.segments().shared().holds(), "{}", second.segments().shared());
    first.materialize_to(JANUARY_10_US);
    second.materialize_to(JANUARY_10_US);
    let mut all = Vec::new();
    for round in 0..5 {
        for (node, name) in [(&first, "a"), (&second, "b")] {
            let id = format!("{name}{round}");
            predict_as(node, &id, 2).await;
            node.flush_predictions().await;
            all.extend([id.clone(), id]);
        }
    }
    all.sort();
    assert_eq!(asked(first.logged("delay").await), all);
    assert_eq!(asked(second.logged("delay").await), all);
    assert_eq!(parquet_files(store.path()), 10);
    // Its day is not over.
    let now_us = first.segments().now_us().unwrap();
    assert_eq!(second.merge_predictions(now_us), [0, 0, 0]);
    let (first_one, second_one) = (first.clone(), second.clone());
    // Read from one, merged by the other.
    let later_us = now_us + 2 * 86_400_000_000;
    let reading = tokio::spawn(async move {
        let mut reads = Vec::new();
        for _ in 0..20 {
            reads.push(asked(first_one.logged("delay").await).len());
        }
        reads
    });
    let merged = quern_kit::blocking(move || second_one.merge_predictions(later_us)).await;
    // Midnight may have come in between.
    assert!(merged == [1, 10, 0] || merged[1] >= 9, "{merged:?}");
    assert_eq!(reading.await.unwrap(), [20; 20]);
    assert_eq!(asked(first.logged("delay").await), all);
    assert!(first.verify("delay").await.is_clean());
    // The other one has the turn.
    assert_eq!(first.merge_predictions(later_us), [0, 0, 0]);
    assert_eq!(second.merge_predictions(later_us), [0, 0, 0]);
    let listed = first.segments().sets(quern_kit::segments::Family::Predictions, "").unwrap();
    assert_eq!(listed.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_has_logged_what_was_written_for_all() {
    let s3 = S3::start().await;
    let (here, there) = (repository(), repository());
    let registry = fresh_database().await;
    let file = format!("registry: {registry}\nstore: s3://models/quern\npredictions_every: 100ms\n");
    for repository in [&here, &there] {
        repository.write("quern.yaml", &file);
    }
    let first = Process::start_in(here.path(), &s3.environment());
    let client = quern::Client::connect(&first.url).await.unwrap();
    client.call::<Value>("/v1/apply", &()).await.unwrap();
    client.predict("delay", [instance("N1", 2000.0), instance("N3", 1.0)]).await.unwrap();
    let metrics = async |server: &Process| {
        reqwest::get(format!("{}/metrics", server.url)).await.unwrap().text().await.unwrap()
    };
    // A file that is there and has no name yet is none.
    let written = "quern_prediction_log_written_total{model=\"delay\"}";
    until("predictions in the bucket", async || {
        metric(&metrics(&first).await, written).filter(|rows| *rows == 2.0)
    })
    .await;
    drop(client);
    first.kill();
    let second = Process::start_in(there.path(), &s3.environment());
    let client = quern::Client::connect(&second.url).await.unwrap();
    let read = async || {
        let command =
            quern::wire::PredictionsCommand { predictions: "delay".to_owned(), ..Default::default() };
        let rows = client.predictions(&command).await.map_err(|error| error.to_string())?;
        let rows: Vec<RecordBatch> =
            futures::TryStreamExt::try_collect(rows).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(rows.iter().map(RecordBatch::num_rows).sum::<usize>())
    };
    assert_eq!(read().await.unwrap(), 2);
    // An object that is damaged is refused by name, and nothing else of the server suffers.
    for key in s3.keys("quern/predictions").await {
        let mut bytes = s3.get(&key).await;
        bytes[100] ^= 1;
        s3.put(&key, bytes).await;
    }
    let copies = glob::glob(&format!("{}/.quern/cache/**/*.parquet", there.path().display())).unwrap();
    copies.for_each(|copy| std::fs::remove_file(copy.unwrap()).unwrap());
    let refused = read().await.unwrap_err();
    assert!(
        refused.contains("the segment `predictions/delay/") && refused.contains("is damaged"),
        "{refused}"
    );
    client.predict("delay", [instance("N1", 2000.0)]).await.unwrap();
    assert_eq!(metric(&metrics(&second).await, "quern_segments_damaged"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_kept_for_long_enough_goes() {
    let repository = repository();
    repository.write("quern.yaml", "predictions_keep: 90d\n");
    let node = planes::open(&repository).await;
    predict_as(&node, "a", 3).await;
    assert_eq!(asked(node.logged("delay").await), ["a"; 3]);
    let day_us = 86_400_000_000;
    let now_us = node.segments().now_us().unwrap();
    assert_eq!(node.merge_predictions(now_us + 89 * day_us), [0, 0, 0]);
    assert_eq!(node.merge_predictions(now_us + 90 * day_us), [0, 0, 1]);
    assert!(node.logged("delay").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_build_has_logged_is_read_too() {
    let repository = repository();
    let node = planes::open(&repository).await;
    predict_as(&node, "now", 2).await;
    node.flush_predictions().await;
    // As an earlier build has named the same rows: by day, and by when they were written.
    let files = glob::glob(&format!("{}/.quern/store/**/*.parquet", repository.path().display())).unwrap();
    let file = files.map(Result::unwrap).next().unwrap();
    let folder = file.parent().unwrap().strip_prefix(repository.path().join(".quern/store")).unwrap();
    let before = repository.path().join(".quern").join(folder);
    std::fs::create_dir_all(&before).unwrap();
    std::fs::copy(&file, before.join("00001700000000000000.parquet")).unwrap();
    assert_eq!(asked(node.logged("delay").await), ["now"; 4]);
    assert_eq!(node.verify("delay").await.models[0].rows, 4);
    // One that knew neither who asked nor what answered, but for a version's name.
    let rows = node.logged("delay").await.unwrap();
    let later = ["digest", "served_by", "principal"];
    let places: Vec<usize> = (0..rows.num_columns())
        .filter(|at| !later.contains(&rows.schema().field(*at).name().as_str()))
        .collect();
    let older = before.with_file_name("").with_file_name("delay_v1-older").join(before.file_name().unwrap());
    let file = older.join("00001700000000000000.parquet");
    let file = file.strip_prefix(repository.path()).unwrap().to_str().unwrap().to_owned();
    repository.write_parquet(&file, &rows.project(&places).unwrap());
    assert_eq!(node.verify("delay").await.models[0].rows, 8);
    let server = Server::of(repository, node).await;
    let joined = server.client.predictions(&command(false)).await.unwrap();
    let joined: Vec<RecordBatch> = joined.try_collect().await.unwrap();
    let null = |rows: &RecordBatch, name: &str| rows.column_by_name(name).unwrap().null_count();
    let nulls = |name: &str| joined.iter().map(|rows| null(rows, name)).sum::<usize>();
    assert_eq!(later.map(nulls), [4; 3]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_away_for_a_while_costs_no_prediction() {
    let (store, repository, mut postgres) =
        (tempfile::TempDir::new().unwrap(), repository(), Postgres::start().await);
    let mut settings = shared(store.path()).await;
    settings[0].1 = postgres.url();
    settings.push(("predictions_every", "50ms".to_owned()));
    let node = repository.open_applied_with(&settings).await;
    predict_as(&node, "before", 1).await;
    node.flush_predictions().await;
    postgres.stop();
    for id in ["one", "two"] {
        predict_as(&node, id, 1).await;
        node.flush_predictions().await;
    }
    assert_eq!(
        metric(&node.metrics(), "quern_prediction_log_dropped_total{model=\"delay\"}").unwrap_or(0.0),
        0.0
    );
    postgres.run().await;
    assert_eq!(asked(node.logged("delay").await), ["before", "one", "two"]);
}

/// Whenever a server is killed, what counts is whole, and what does not is swept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_leaves_no_segment_that_cannot_be_read() {
    let repository = repository();
    repository.write("quern.yaml", "predictions_every: 1ms\n");
    run(repository.path(), &["apply"]).answer();
    let mut random = Random::new("kills while predictions are written");
    for _ in 0..quern_kit::cases(6) {
        let server = Process::start(repository.path());
        let client = quern::Client::connect(&server.url).await.unwrap();
        let asking = tokio::spawn(async move {
            let ask = || client.predict("delay", [instance("N1", 2000.0), instance("N3", 1.0)]);
            let mut asked = 0;
            while ask().await.is_ok() {
                asked += 1;
            }
            asked
        });
        // Timing decides where it is killed, and nothing else.
        tokio::time::sleep(random.part_of(Duration::from_millis(400))).await;
        server.kill();
        asking.await.unwrap();
    }
    let node = repository.open().await;
    let (mut looked, mut wrong) = (0, Vec::new());
    let scrubbed = node.segments().scrub(u64::MAX, |segment, damage| {
        looked += 1;
        wrong.extend(damage.map(|damage| format!("{} {damage}", segment.path)));
        ControlFlow::Continue(())
    });
    scrubbed.unwrap();
    assert_eq!(wrong, [""; 0]);
    let swept = node.segments().sweep_older(Duration::ZERO).unwrap();
    println!("{looked} segments, {} files without a name", swept.unnamed);
    assert_eq!(parquet_files(&repository.path().join(".quern/store")), looked);
    assert!(asked(node.logged("delay").await).len().is_multiple_of(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_lie_in_the_store_and_those_of_before_in_the_registry() {
    let s3 = S3::start().await;
    let (here, registry) = (repository(), fresh_database().await);
    let in_table = async || {
        let mut connection = sqlx::PgConnection::connect(&registry).await.unwrap();
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM artifacts").fetch_one(&mut connection).await.unwrap();
        count
    };
    let start = |repository: &Repository, store: &str| {
        repository.write("quern.yaml", format!("registry: {registry}\n{store}"));
        Process::start_in(repository.path(), &s3.environment())
    };
    let predict = async |server: &Process, model: &str| {
        let client = quern::Client::connect(&server.url).await.unwrap();
        client.predict(model, [instance("N1", 2000.0)]).await.map(|reply| reply.predictions)
    };
    let apply = async |server: &Process| {
        let client = quern::Client::connect(&server.url).await.unwrap();
        client.call::<Value>("/v1/apply", &()).await.unwrap()["number"].clone()
    };
    // Without a store that all have, the database has them.
    let first = start(&here, "");
    assert_eq!(apply(&first).await, 1);
    let before = in_table().await;
    assert!(before > 0 && s3.keys("quern").await.is_empty());
    first.terminate();

    let store = "store: s3://models/quern\n";
    let first = start(&here, store);
    let more = "\n---\nkind: Model\nname: more\n\
                versions: [{version: \"1\", path: models/classifier.onnx, service: delay_v1}]\n";
    let definitions = std::fs::read_to_string(here.path().join("definitions.yaml")).unwrap();
    here.write("definitions.yaml", definitions + more);
    here.write("models/classifier.onnx", fixture("classifier.onnx"));
    assert_eq!(apply(&first).await, 2);
    let keys = s3.keys("quern/models").await;
    assert!(!keys.is_empty());
    assert_eq!(in_table().await, before);

    // A server that has neither the files nor a copy.
    let bare = Repository::new("");
    bare.write("landings.csv", planes::LANDINGS);
    let second = start(&bare, store);
    assert_eq!(predict(&second, "more").await.unwrap(), predict(&first, "more").await.unwrap());
    second.terminate();
    for key in &keys {
        let mut bytes = s3.get(key).await;
        bytes[20] ^= 1;
        s3.put(key, bytes).await;
    }
    std::fs::remove_dir_all(bare.path().join(".quern/models")).unwrap();
    let printed = run_in(bare.path(), &["get", "delay_v1", "tailnum=N1", "distance=1"], &s3.environment());
    // One model must not keep a server from starting.
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    assert!(printed.stderr.contains("in the store is damaged: its SHA-256 is"), "{}", printed.stderr);
    // What is live is live.
    assert_eq!(predict(&first, "more").await.unwrap().len(), 1);
}

/// A file system that is small.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(mib: usize) -> Small {
        let folder = tempfile::TempDir::new().unwrap();
        let size = format!("size={mib}m");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        let said = mount.map(|mounted| String::from_utf8_lossy(&mounted.stderr).into_owned());
        assert_eq!(
            said.unwrap_or_else(|error| error.to_string()),
            "",
            "this test mounts a file system, as root"
        );
        Small(folder)
    }

    /// Fills it to its last byte.
    fn fill(&self) -> std::path::PathBuf {
        let ballast = self.0.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&[7; 1 << 12]).is_ok() {}
        ballast
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Of the store alone, and of the registry as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_for_a_while_costs_no_prediction() {
    for (setting, mib) in [("store", 1), ("data", 256)] {
        let (small, repository) = (Small::mount(mib), repository());
        let settings = [(setting, small.0.path().join("kept").display().to_string())];
        let node = repository.open_applied_with(&settings).await;
        predict_as(&node, "before", 1).await;
        node.flush_predictions().await;
        let ballast = small.fill();
        for id in ["one", "two"] {
            predict_as(&node, id, 1).await;
            node.flush_predictions().await;
        }
        assert_eq!(parquet_files(small.0.path()), 1, "{setting}");
        let left = glob::glob(&format!("{}/**/*.part", small.0.path().display())).unwrap();
        assert_eq!(left.count(), 0, "{setting}");
        assert_eq!(asked(node.logged("delay").await), ["before"], "{setting}");
        std::fs::remove_file(&ballast).unwrap();
        assert_eq!(asked(node.logged("delay").await), ["before", "one", "two"], "{setting}");
        let dropped = metric(&node.metrics(), "quern_prediction_log_dropped_total{model=\"delay\"}");
        assert_eq!(dropped.unwrap_or(0.0), 0.0, "{setting}");
    }
}

/// Room for a file, and none for its name in the registry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_on_a_full_disk_names_files_later() {
    let (small, store, repository) = (Small::mount(256), tempfile::TempDir::new().unwrap(), repository());
    let settings = [
        ("data", small.0.path().join("kept").display().to_string()),
        ("store", store.path().display().to_string()),
    ];
    let node = repository.open_applied_with(&settings).await;
    let ballast = small.fill();
    let mut all = Vec::new();
    // What the registry's journal has room for it takes still.
    for number in 10..60 {
        let id = format!("{number}");
        predict_as(&node, &id, 1).await;
        node.flush_predictions().await;
        all.push(id);
    }
    assert!(parquet_files(store.path()) > asked(node.logged("delay").await).len());
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(asked(node.logged("delay").await), all);
}
