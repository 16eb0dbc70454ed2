//! Is everything in a backup that was acknowledged before it began, whatever goes on meanwhile, and nothing twice after
//! it was restored? And is what is damaged, or broke off, never taken for a backup?

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use quern::wire::Code;
use quern_kit::{Node, Push, Random, Repository, cases, restore};
use tempfile::TempDir;

use super::log::close;
use crate::network::push::{DEFINITIONS, both, rows};

const LATER_US: i64 = 1_900_000_000_000_000;

/// Payments, whose events have ids; and tips, whose pushes have keys alone.
pub(super) fn repository() -> Repository {
    let tips = "\n---\nkind: Source\nname: tips\npush: true\nevent_timestamp: at\ncolumns: [{name: card, type: string}, \
                {name: at, type: timestamp}]\n---\nkind: FeatureView\nname: tipping\nentities: [card]\nsource: tips\n\
                aggregations: [{name: tips, function: count, windows: [lifetime]}]\n---\nkind: FeatureService\n\
                name: thanks\nfeatures: [tipping]\n";
    let repository = Repository::new(&(DEFINITIONS.to_owned() + tips));
    repository.write("logins.csv", "card,at\n");
    repository
}

pub(super) fn at(data: &Path) -> [(&'static str, String); 1] {
    [("data", data.display().to_string())]
}

/// Ten tips of one card, pushed under a key of their number.
async fn tip(node: &Node, number: i64) -> (usize, usize) {
    let at = TimestampMicrosecondArray::from_iter_values((0..10).map(|row| 1_767_225_600_000_000 + row));
    let columns: [(&str, ArrayRef); 2] = [
        ("card", Arc::new(StringArray::from(vec!["card 1"; 10]))),
        ("at", Arc::new(at.with_timezone("UTC"))),
    ];
    let key = Some(format!("tips {number}"));
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let reply = node.push(Push { idempotency_key: key, ..Push::new("tips", rows) }).await.unwrap();
    (reply.accepted, reply.repeated)
}

async fn pay(node: &Node, number: i64) -> (usize, usize) {
    let reply = node.push(Push::new("payments", rows(number * 10, 10))).await.unwrap();
    (reply.accepted, reply.repeated)
}

/// Payments by the head, which history says as well, and tips.
async fn totals(node: &Node) -> [i64; 2] {
    let [head, history] = both(node).await;
    assert_eq!(head, history);
    let service = node.service("thanks");
    let card: ArrayRef = Arc::new(StringArray::from(vec!["card 1"]));
    let found =
        service.look_up(service.inputs(vec![Arc::clone(&card)]), vec![LATER_US]).await.unwrap().vectors;
    let times = TimestampMicrosecondArray::from(vec![LATER_US]).with_timezone("UTC");
    let spine: [(&str, ArrayRef); 2] = [("card", card), ("event_timestamp", Arc::new(times))];
    let trained = service.training_set(&RecordBatch::try_from_iter(spine).unwrap(), false);
    let tips = |batch: &RecordBatch| {
        let column = batch.column_by_name("tips_lifetime").unwrap();
        arrow::util::display::array_value_to_string(column, 0).unwrap()
    };
    assert_eq!(tips(&found), tips(&trained));
    [head.values().map(|(count, _)| *count).sum(), tips(&found).parse().unwrap()]
}

/// How far pushers are: each number below these was acknowledged.
#[derive(Default)]
struct Acknowledged([AtomicI64; 2]);

impl Acknowledged {
    fn now(&self) -> [i64; 2] {
        self.0.each_ref().map(|next| next.load(Ordering::SeqCst))
    }
}

/// Pushes to both sources and seals them until it is told to stop.
fn load(node: &Node, done: &Arc<AtomicBool>, pushed: &Arc<Acknowledged>) -> Vec<tokio::task::JoinHandle<()>> {
    let pushers = [0, 1].map(|source| {
        let (node, done, pushed) = (node.clone(), Arc::clone(done), Arc::clone(pushed));
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                let number = pushed.0[source].load(Ordering::SeqCst);
                match source {
                    0 => pay(&node, number).await,
                    _ => tip(&node, number).await,
                };
                pushed.0[source].fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    let (node, done) = (node.clone(), Arc::clone(done));
    let sealing = tokio::spawn(async move {
        while !done.load(Ordering::SeqCst) {
            // Whoever materializes has the turn.
            ["payments", "tips"].into_iter().for_each(|source| node.seal(source));
            tokio::task::yield_now().await;
        }
    });
    pushers.into_iter().chain([sealing]).collect()
}

/// Backups under load, each restored elsewhere: whoever pushes again what came after it finds each row once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_before_a_backup_is_in_it_and_what_comes_again_counts_once() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let node = repository.open_applied_with(&at(&folder.path().join("data"))).await;
    let (done, pushed) = (Arc::new(AtomicBool::new(false)), Arc::new(Acknowledged::default()));
    let load = load(&node, &done, &pushed);
    let (mut backups, mut sealed) = (Vec::new(), 0);
    for number in 0..cases(4) {
        // Some seals, and some pushes, in between.
        let enough = pushed.now().map(|next| next + 5);
        quern_kit::until("pushes", async || {
            pushed.now().iter().zip(enough).all(|(now, enough)| *now >= enough).then_some(())
        })
        .await;
        let to = folder.path().join(format!("backup {number}"));
        let before = pushed.now();
        let summary = node.backup(&to).unwrap();
        assert!(summary.positions.len() == 2, "{summary:?}");
        sealed += summary.segments;
        backups.push((to, before, pushed.now()));
        assert_eq!(node.scrub(), []);
    }
    done.store(true, Ordering::SeqCst);
    for task in load {
        task.await.unwrap();
    }
    assert!(sealed > 0, "some was sealed meanwhile");
    let last = pushed.now();
    println!("{last:?} pushes");
    for (number, (from, before, after)) in backups.into_iter().enumerate() {
        let data = folder.path().join(format!("restored {number}"));
        restore(repository.path(), &at(&data), &from).await.unwrap();
        let restored = repository.open_with(&at(&data)).await.unwrap();
        restored.materialize_to(LATER_US);
        for (place, total) in totals(&restored).await.into_iter().enumerate() {
            // A push that is under way may be in it.
            let expected = before[place] * 10..=(after[place] + 1) * 10;
            assert!(expected.contains(&total), "backup {number}: {total} is not in {expected:?}");
        }
        for number in 0..last[0].max(last[1]) {
            for (place, next) in last.into_iter().enumerate().filter(|(_, next)| number < *next) {
                let counted =
                    if place == 0 { pay(&restored, number).await } else { tip(&restored, number).await };
                assert!(number >= before[place] || counted == (0, 10), "{number} of {next}: {counted:?}");
                assert!(counted.0 + counted.1 == 10, "{number} of {next}: {counted:?}");
            }
        }
        assert_eq!(totals(&restored).await, last.map(|next| next * 10), "backup {number}");
        assert_eq!(restored.scrub(), []);
    }
}

/// A backup of a few sealed and unsealed pushes.
async fn small(repository: &Repository, folder: &Path) -> (Node, PathBuf) {
    let node = repository.open_applied_with(&at(&folder.join("data"))).await;
    for number in 0..4 {
        pay(&node, number).await;
        tip(&node, number).await;
        if number < 3 {
            ["payments", "tips"].into_iter().for_each(|source| node.seal(source));
        }
    }
    let to = folder.join("backup");
    node.backup(&to).unwrap();
    (node, to)
}

/// All files below a folder.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A bit that flips, a file that is cut, longer, a folder or gone: refused, with its name, and nothing is touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_backup_is_refused_and_says_which_file() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let (_node, backup) = small(&repository, folder.path()).await;
    let data = folder.path().join("restored");
    let mut random = Random::new("damaged backups");
    let all = files(&backup);
    for case in 0..cases(200) as usize {
        let path = &all[case % all.len()];
        let sound = fs::read(path).unwrap();
        let place = random.below(sound.len().max(1) as u64) as usize;
        let mut damaged = sound.clone();
        let kind = random.below(6);
        match kind {
            0 => fs::remove_file(path).unwrap(),
            1 => {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }
            2 => damaged.push(random.below(256) as u8),
            3 if !sound.is_empty() => damaged.truncate(place),
            _ if !sound.is_empty() => damaged[place] ^= 1 << random.below(8),
            _ => damaged.push(0),
        }
        if kind > 1 {
            fs::write(path, damaged).unwrap();
        }
        let refused = restore(repository.path(), &at(&data), &backup).await.unwrap_err();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(refused.text.contains(name) && refused.code == Code::Refused, "{name}, {kind}: {refused}");
        assert!(!data.exists(), "{name}, {kind}");
        if kind == 1 {
            fs::remove_dir(path).unwrap();
        }
        fs::write(path, sound).unwrap();
    }
    restore(repository.path(), &at(&data), &backup).await.unwrap();
}

/// Every file of a folder, and how long it is; SQLite clears some away when it pleases.
fn content(folder: &Path) -> BTreeSet<(PathBuf, u64)> {
    let mut all = files(folder);
    all.retain(|path| !path.to_string_lossy().contains("registry.sqlite"));
    all.into_iter().map(|path| (path.clone(), path.metadata().unwrap().len())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_backed_up_or_restored_over_what_is_there() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let (node, backup) = small(&repository, folder.path()).await;
    let data = folder.path().join("data");
    let is_refused = |refused: quern_kit::Result<()>, why: &str| {
        let refused = refused.unwrap_err();
        assert!(refused.text.contains(why), "{refused}");
    };
    is_refused(node.backup(&backup).map(drop), "is not empty");
    is_refused(node.backup(Path::new("relative")).map(drop), "by its whole path");
    is_refused(node.backup(&folder.path().join("none/to")).map(drop), "cannot be written");
    for inside in ["new", "store/new", "log/new"] {
        is_refused(node.backup(&data.join(inside)).map(drop), "lies in the data folder");
        assert!(!data.join(inside).exists());
    }
    is_refused(restore(repository.path(), &at(&data), &backup).await, "is not empty");
    close(node, &data).await;
    let before = content(folder.path());
    is_refused(restore(repository.path(), &at(&data), &backup).await, "is not empty");
    is_refused(restore(repository.path(), &at(&folder.path().join("no")), &data).await, "is no backup");
    // A store that is another one's, or somebody's.
    let other =
        [at(&folder.path().join("no"))[0].clone(), ("store", backup.join("data").display().to_string())];
    is_refused(restore(repository.path(), &other, &backup).await, "is not the store of the backup");
    let redis = [at(&folder.path().join("no"))[0].clone(), ("online", "redis://127.0.0.1:1".to_owned())];
    is_refused(restore(repository.path(), &redis, &backup).await, "set `online: rocksdb`");
    assert_eq!(content(folder.path()), before);
    // An empty folder is as good as none.
    fs::create_dir(folder.path().join("empty")).unwrap();
    restore(repository.path(), &at(&folder.path().join("empty")), &backup).await.unwrap();
}

/// The store survived, and the data folder did not: what is there stays, what is damaged or gone comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_still_there_is_filled_up() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let store = folder.path().join("store");
    let settings =
        |data: &str| [at(&folder.path().join(data))[0].clone(), ("store", store.display().to_string())];
    let node = repository.open_applied_with(&settings("data")).await;
    for number in 0..4 {
        pay(&node, number).await;
        node.seal("payments");
    }
    node.backup(&folder.path().join("backup")).unwrap();
    drop(node);
    let segments: Vec<PathBuf> =
        files(&store).into_iter().filter(|path| path.extension().is_some_and(|of| of == "parquet")).collect();
    assert_eq!(segments.len(), 4);
    fs::remove_file(&segments[0]).unwrap();
    let mut damaged = fs::read(&segments[1]).unwrap();
    damaged[7] ^= 1;
    fs::write(&segments[1], damaged).unwrap();
    // What an interrupted attempt has left.
    fs::write(segments[0].with_extension("parquet.part"), "half").unwrap();
    restore(repository.path(), &settings("again"), &folder.path().join("backup")).await.unwrap();
    let node = repository.open_with(&settings("again")).await.unwrap();
    node.materialize_to(LATER_US);
    assert_eq!((totals(&node).await[0], node.scrub()), (40, vec![]));
}
