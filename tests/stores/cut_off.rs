//! What is left of a backup or a restore that is killed, or that finds no room? And where the store is a bucket, or the
//! registry a PostgreSQL?

use std::path::{Path, PathBuf};
use std::process::Stdio;

use quern::wire::{BackupSummary, Code, PushReply, Sealed};
use quern_kit::{Process, Store, blocking, command, fresh_database, load_dump, restore, run, run_in, until};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::backup::{at, files, repository};
use crate::network::push::{DEFINITIONS, columns, rows};
use crate::network::shared::{LATER_US, Shared, push, total};
use crate::s3::S3;

/// Pushes and seals so often: each makes a segment.
async fn push_sealed(client: &quern::Client, segments: i64) {
    for number in 0..segments {
        let body = json!({"push_source_name": "payments", "df": columns(&rows(number, 1))});
        let reply: PushReply = client.call("/push", &body).await.unwrap();
        assert_eq!(reply.accepted, 1);
        let sealed: Sealed = client.call("/v1/seal", &json!({"sources": ["payments"]})).await.unwrap();
        let of = &sealed.sources[0];
        assert_eq!((of.rows, of.segments, of.left), (1, 1, 0));
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

const SEGMENTS: i64 = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_killed_is_none() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    run(repository.path(), &["apply"]).answer();
    let mut server = Process::start(repository.path());
    let client = quern::Client::connect(server.url.as_str()).await.unwrap();
    push_sealed(&client, SEGMENTS).await;
    let (mut cut, mut whole) = (0, 0);
    for round in 0..8 {
        let to = folder.path().join(round.to_string());
        let mut backing = command(repository.path(), &["backup", &text(&to)]);
        let mut backing = backing.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The first ones with a little in it, others with more.
        let begun = to.join("data/registry.sqlite");
        let segments = to.join("store/pushed");
        until("a backup that begins", async || {
            let is_far = begun.exists() && (round % 2 == 0 || segments.exists());
            (is_far || to.join("backup.json").exists()).then_some(())
        })
        .await;
        match round % 4 {
            // The server itself ...
            0 | 1 => {
                server.kill();
                backing.wait().unwrap();
                server = Process::start(repository.path());
            }
            // ... or who asked it: then nothing is left, unless it was done.
            _ => {
                backing.kill().unwrap();
                backing.wait().unwrap();
                until("a backup that ends", async || {
                    (!to.exists() || to.join("backup.json").exists()).then_some(())
                })
                .await;
            }
        }
        let restored = folder.path().join(format!("restored {round}"));
        let printed = run(repository.path(), &["--data", &text(&restored), "restore", &text(&to)]);
        match to.join("backup.json").exists() {
            true => {
                printed.answer();
                whole += 1;
            }
            false => {
                assert_eq!(printed.code, Some(1));
                assert!(printed.stderr.contains("is no backup"), "{}", printed.stderr);
                assert!(!restored.exists());
                cut += 1;
            }
        }
    }
    println!("{cut} were cut off, {whole} were done");
    assert!(cut > 0);
    // What a killed one has left is in nobody's way.
    let to = text(&folder.path().join("last"));
    let summary = run(repository.path(), &["backup", &to, "--json"]).json();
    let summary: BackupSummary = serde_json::from_value(summary).unwrap();
    assert_eq!((summary.segments, summary.positions["payments"]), (SEGMENTS as u64, SEGMENTS));
    assert!(!repository.path().join(".quern/cache/backup").exists());
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_is_opened_by_nobody_and_can_begin_again() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    run(repository.path(), &["apply"]).answer();
    let server = Process::start(repository.path());
    push_sealed(&quern::Client::connect(server.url.as_str()).await.unwrap(), SEGMENTS).await;
    let backup = text(&folder.path().join("backup"));
    run(repository.path(), &["backup", &backup]).answer();
    let mut cut = 0;
    for round in 0..5 {
        let data = folder.path().join(round.to_string());
        let arguments = ["--data", &text(&data), "restore", &backup];
        let mut restoring = command(repository.path(), &arguments);
        let mut restoring = restoring.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let half = data.join("restore.part");
        until("a restore that begins", async || {
            (half.exists() || restoring.try_wait().unwrap().is_some()).then_some(())
        })
        .await;
        restoring.kill().unwrap();
        restoring.wait().unwrap();
        if half.exists() {
            cut += 1;
            let refused = run(repository.path(), &["--data", &text(&data), "materialize"]);
            assert!(refused.code == Some(1) && refused.stderr.contains("broke off"), "{}", refused.stderr);
            run(repository.path(), &arguments).answer();
        }
        assert!(!half.exists());
        run(repository.path(), &["--data", &text(&data), "materialize", "--json"]).json();
        let scrub = run(repository.path(), &["--data", &text(&data), "scrub", "--json"]).json();
        assert_eq!(scrub["summary"]["segments"], SEGMENTS);
    }
    println!("{cut} were cut off");
    assert!(cut > 0);
}

/// A file system that is too small.
struct Small(TempDir);

impl Small {
    fn mount(bytes: u64) -> Small {
        let folder = TempDir::new().unwrap();
        let mut mount = std::process::Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(folder.path());
        let mounted = mount.output().map(|mounted| String::from_utf8_lossy(&mounted.stderr).into_owned());
        let said = mounted.unwrap_or_else(|error| error.to_string());
        assert_eq!(said, "", "this test mounts a file system, as root");
        Small(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_leaves_nothing_that_looks_whole() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let node = repository.open_applied_with(&at(&folder.path().join("data"))).await;
    for number in 0..20 {
        push(&node, rows(number * 100, 100)).await.unwrap();
        node.seal("payments");
    }
    let backup = folder.path().join("backup");
    let bytes = node.backup(&backup).unwrap().bytes;
    // Wherever it ends: at the registry, in the log, among the segments.
    for part in 1..10 {
        let small = Small::mount(part * bytes / 10);
        for to in [small.0.path().join("new"), small.0.path().to_owned()] {
            let full = node.backup(&to).unwrap_err();
            assert_eq!(full.code, Code::Unavailable, "{part}: {full}");
            assert!(full.text.contains("make room"), "{part}: {full}");
            assert_eq!(files(small.0.path()), Vec::<PathBuf>::new());
            let none = restore(repository.path(), &at(&folder.path().join("none")), &to).await.unwrap_err();
            assert!(none.text.contains("is no backup"), "{none}");
        }
        for data in [small.0.path().join("new"), small.0.path().to_owned()] {
            let full = restore(repository.path(), &at(&data), &backup).await.unwrap_err();
            assert_eq!(full.code, Code::Unavailable, "{part}: {full}");
            let left: Vec<PathBuf> = files(small.0.path());
            assert!(left.iter().all(|path| path.ends_with("quern.lock")), "{left:?}");
        }
    }
    // Where there is room, a file system of its own is as good as a folder.
    let roomy = Small::mount(64 << 20);
    restore(repository.path(), &at(roomy.0.path()), &backup).await.unwrap();
    let restored = repository.open_with(&at(roomy.0.path())).await.unwrap();
    restored.materialize_to(LATER_US);
    assert_eq!(total(&restored).await, 2_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_a_bucket_is_backed_up_and_filled_up() {
    let (s3, repository, folder) = (S3::start().await, repository(), TempDir::new().unwrap());
    let environment = s3.environment();
    let backup = text(&folder.path().join("backup"));
    let quern = |data: &str, store: &str, words: &[&str]| {
        let data = text(&folder.path().join(data));
        let store = format!("s3://models/{store}");
        let options = ["--data", &data, "--store", &store];
        run_in(repository.path(), &[&options[..], words].concat(), &environment)
    };
    quern("data", "before", &["apply"]).answer();
    let environment_of_server: Vec<(&str, String)> = environment
        .iter()
        .cloned()
        .chain([
            ("QUERN_DATA", text(&folder.path().join("data"))),
            ("QUERN_STORE", "s3://models/before".to_owned()),
        ])
        .collect();
    let server = Process::start_in(repository.path(), &environment_of_server);
    push_sealed(&quern::Client::connect(server.url.as_str()).await.unwrap(), 5).await;
    server.terminate();
    quern("data", "before", &["backup", &backup]).answer();
    // Into an empty prefix, and into the one that it was, of which something is gone.
    let keys = s3.keys("before/pushed").await;
    assert_eq!(keys.len(), 5);
    s3.delete(&keys[2]).await;
    for (data, store) in [("one", "after"), ("two", "before")] {
        quern(data, store, &["restore", &backup]).answer();
        quern(data, store, &["materialize"]).answer();
        let scrub: Value = quern(data, store, &["scrub", "--json"]).json();
        assert_eq!((&scrub["summary"]["segments"], &scrub["damaged"]), (&json!(5), &json!([])));
        assert_eq!(s3.keys(&format!("{store}/pushed")).await.len(), 5);
    }
    s3.put("other/mine", "somebody's".as_bytes().to_vec()).await;
    let refused = quern("three", "other", &["restore", &backup]);
    assert!(refused.stderr.contains("is not the store of the backup"), "{}", refused.stderr);
}

/// The database is dumped first, and the store copied after it: what the dump names is there, whatever came since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_and_the_store_of_after_it_make_one_again() {
    let (shared, folder) = (Shared::start(DEFINITIONS).await, TempDir::new().unwrap());
    let store = |name: &str| text(&folder.path().join(name));
    let here = shared.repository_with(&format!("store: {}\nstore_shared: true\n", store("store")));
    let node = here.open().await;
    push(&node, rows(0, 10)).await.unwrap();
    node.seal("payments");
    push(&node, rows(10, 10)).await.unwrap();
    let dump = shared.postgres.dump();
    push(&node, rows(20, 10)).await.unwrap();
    node.seal("payments");
    // What the dump names counts no more, and stays for a day.
    let all = node.segments().named_in(&node.registry(), false).unwrap();
    node.segments().remove(&all[..1]).unwrap();
    let backup = folder.path().join("backup");
    let summary = node.backup(&backup).unwrap();
    assert_eq!((summary.segments, summary.positions.len(), summary.notes.len()), (2, 0, 1));

    let url = fresh_database().await;
    let settings = [
        ("registry", url.clone()),
        ("online", Store::Redis.url().unwrap()),
        ("online_timeout", "20s".to_owned()),
        ("store", store("restored")),
        ("data", store("data")),
    ];
    blocking(move || load_dump(&url, &dump)).await;
    let there = repository();
    there.write("definitions.yaml", DEFINITIONS);
    restore(there.path(), &settings, &backup).await.unwrap();
    let settings = [&settings[..], &[("store_shared", "true".to_owned())]].concat();
    let restored = there.open_with(&settings).await.unwrap();
    restored.accept_loss(LATER_US).unwrap();
    assert_eq!(total(&restored).await, 20);
    push(&restored, rows(20, 10)).await.unwrap();
    assert_eq!(total(&restored).await, 30);

    // A log here and a registry there have no moment in common.
    let own = [("registry", fresh_database().await), ("data", store("own"))];
    let own = there.open_applied_with(&own).await;
    let refused = own.backup(&folder.path().join("no")).unwrap_err();
    assert!(refused.text.contains("Stop the server, dump the database"), "{refused}");
}
