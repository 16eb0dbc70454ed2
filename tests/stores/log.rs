//! Does the head follow the log, whatever becomes of either?

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use quern::wire::PushTo;
use quern_kit::{Node, Push, Random, Repository, blocking};
use tempfile::TempDir;

use crate::network::push::{DEFINITIONS, both, head_counts, rows};

pub(super) fn repository() -> Repository {
    let repository = Repository::new(DEFINITIONS);
    repository.write("logins.csv", "card,at\n");
    repository
}

pub(super) fn at(data: &Path) -> [(&'static str, String); 1] {
    [("data", data.display().to_string())]
}

/// Closes a node whose data is in the folder `data`, and waits until it is closed.
pub(super) async fn close(node: Node, data: &Path) {
    drop(node);
    let lock = fs::File::options().write(true).open(data.join("quern.lock")).unwrap();
    blocking(move || lock.lock().unwrap()).await;
}

/// Pushes a few groups, in which some events come again, with the same content or another.
async fn push_some(node: &Node, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let ids: Vec<i64> = (0..1 + random.below(20)).map(|_| random.below(60) as i64).collect();
        let cards = ids.iter().map(|id| format!("card {}", id % 10));
        let times = ids.iter().map(|id| 1_767_225_600_000_000 + id * 1_000_000);
        let amounts = ids.iter().map(|id| (id + 100 * random.below(2) as i64) as f64);
        let columns: [(&str, ArrayRef); 5] = [
            ("card", Arc::new(StringArray::from_iter_values(cards))),
            ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
            ("amount", Arc::new(Float64Array::from_iter_values(amounts))),
            ("parts", Arc::new(Int64Array::from(vec![1; ids.len()]))),
            ("id", Arc::new(Int64Array::from(ids))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        node.push(Push::new("payments", rows)).await.unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            // What SQLite still clears away may be gone by now.
            false => _ = fs::copy(entry.path(), to.join(entry.file_name())),
        }
    }
}

pub(super) fn replace(folder: &Path, by: Option<&Path>) {
    fs::remove_dir_all(folder).unwrap();
    if let Some(by) = by {
        copy(by, folder);
    }
}

/// A crash between log and head leaves a head of some moment before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_of_any_moment_before_is_brought_up_to_the_log() {
    let mut random = Random::new("heads of moments before");
    for case in 0..4 {
        let (repository, folder) = (repository(), TempDir::new().unwrap());
        let (data, heads) = (folder.path().join("data"), folder.path().join("heads"));
        for moment in 0..4 {
            let node = repository.open_applied_with(&at(&data)).await;
            push_some(&node, &mut random).await;
            close(node, &data).await;
            copy(&data.join("head"), &heads.join(moment.to_string()));
        }
        for moment in [Some(0), Some(1), Some(2), Some(3), None] {
            let head = moment.map(|moment| heads.join(moment.to_string()));
            replace(&data.join("head"), head.as_deref());
            let node = repository.open_with(&at(&data)).await.unwrap();
            let [head, history] = both(&node).await;
            assert_eq!(head, history, "case {case}, the head of moment {moment:?}");
            // What was seen is known still, and what comes goes on from there.
            push_some(&node, &mut random).await;
            let [head, history] = both(&node).await;
            assert_eq!(head, history, "case {case}, moment {moment:?}, and what came afterwards");
            close(node, &data).await;
        }
    }
}

/// What no history has is in the log as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_gone_gets_back_what_was_pushed_to_it_alone() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let data = folder.path().join("data");
    let node = repository.open_applied_with(&at(&data)).await;
    node.push(Push::new("payments", rows(0, 10))).await.unwrap();
    let view = Some("last_payment".to_owned());
    node.push(Push { to: PushTo::Online, view, ..Push::new("payments", rows(50, 10)) }).await.unwrap();
    node.push(Push::new("payments", rows(40, 10))).await.unwrap();
    let expected = both(&node).await;
    let counts = expected.each_ref().map(|cards| cards.values().map(|(count, _)| *count).sum::<i64>());
    // Windows count what history has.
    assert_eq!(counts, [20, 20]);
    assert_eq!([&expected[0]["card 3"].1, &expected[1]["card 3"].1], ["53.0", "43.0"]);
    close(node, &data).await;
    replace(&data.join("head"), None);
    let node = repository.open_with(&at(&data)).await.unwrap();
    assert_eq!(both(&node).await, expected);
    // What look-ups alone had is no repetition for history.
    let reply = node.push(Push::new("payments", rows(50, 10))).await.unwrap();
    assert_eq!((reply.accepted, reply.repeated), (10, 0));
    let [head, history] = both(&node).await;
    assert_eq!(head, history);
}

/// Payments as before, of which a file has some; and tips, which have none.
fn with_a_file() -> Repository {
    let file = "push: true\nbatch: {format: csv, path: payments.csv}\n";
    let tips = "\n---\nkind: Source\nname: tips\npush: true\nevent_timestamp: at\ncolumns: [{name: card, type: string}, \
                {name: at, type: timestamp}, {name: tip, type: float64}]\n---\nkind: FeatureView\nname: tipping\nentities: \
                [card]\nsource: tips\naggregations: [{name: tips, function: count, windows: [lifetime]}]\n";
    let repository = Repository::new(&(DEFINITIONS.replacen("push: true\n", file, 1) + tips));
    repository.write("logins.csv", "card,at\n");
    repository
}

const PAYMENTS: &str = "card,at,id,amount,parts\ncard 1,2026-01-02T00:00:00Z,900,5.0,1\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_read_keeps_no_other_source_from_being_materialized() {
    let (repository, folder) = (with_a_file(), TempDir::new().unwrap());
    repository.write("payments.csv", PAYMENTS);
    let node = repository.open_applied_with(&at(&folder.path().join("data"))).await;
    repository.write("payments.csv", PAYMENTS.replace("5.0", "five"));
    let refused = node.try_materialize_to(1_900_000_000_000_000).unwrap_err();
    for said in ["payments.csv", "one other feature view is materialized"] {
        assert!(refused.text.contains(said), "{refused}");
    }
    assert_eq!(node.head().materialized_until(node.view("tipping")), Some(1_900_000_000_000_000));
    assert_eq!(node.head().materialized_until(node.view("spending")), None);
}

/// Of a file that cannot be read, rows of its own source wait; no other does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_the_head_cannot_take_are_durable_and_come_in_later() {
    let (repository, folder) = (with_a_file(), TempDir::new().unwrap());
    let data = folder.path().join("data");
    repository.write("payments.csv", PAYMENTS);
    let node = repository.open_applied_with(&at(&data)).await;
    node.materialize_to(1_900_000_000_000_000);
    fs::remove_file(repository.path().join("payments.csv")).unwrap();
    // Older than what a file had: their tiles are made anew, from all files.
    for first in [0, 10] {
        let reply = node.push(Push::new("payments", rows(first, 10))).await.unwrap();
        assert_eq!((reply.accepted, reply.repeated, reply.visible), (10, 0, Some(false)));
    }
    let again = node.push(Push::new("payments", rows(0, 10))).await.unwrap();
    assert_eq!((again.accepted, again.repeated, again.visible), (0, 10, None));
    let columns = ["card", "at", "amount"].map(|name| rows(0, 3).column_by_name(name).cloned().unwrap());
    let tips = RecordBatch::try_from_iter(["card", "at", "tip"].into_iter().zip(columns)).unwrap();
    let reply = node.push(Push::new("tips", tips)).await.unwrap();
    assert_eq!((reply.accepted, reply.visible), (3, None));

    repository.write("payments.csv", PAYMENTS);
    let reply = node.push(Push::new("payments", rows(20, 1))).await.unwrap();
    assert_eq!((reply.accepted, reply.visible), (1, None));
    let [head, history] = both(&node).await;
    assert_eq!(head, history);
    assert_eq!(head.values().map(|(count, _)| *count).sum::<i64>(), 22);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lacks_what_the_head_has_is_refused_with_the_way_out() {
    let mut random = Random::seeded(18);
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let (data, old) = (folder.path().join("data"), folder.path().join("old"));
    let node = repository.open_applied_with(&at(&data)).await;
    push_some(&node, &mut random).await;
    close(node, &data).await;
    copy(&data.join("log"), &old);
    let node = repository.open_with(&at(&data)).await.unwrap();
    push_some(&node, &mut random).await;
    close(node, &data).await;
    for log in [Some(old.as_path()), None] {
        replace(&data.join("log"), log);
        let refused = repository.open_with(&at(&data)).await.err().expect("refused").to_string();
        assert!(refused.contains("rows that were acknowledged are missing"), "{refused}");
        assert!(refused.contains("remove `head` beside it and materialize"), "{refused}");
    }
    replace(&data.join("log"), Some(&old));
    replace(&data.join("head"), None);
    let node = repository.open_with(&at(&data)).await.unwrap();
    let [head, history] = both(&node).await;
    assert_eq!(head, history);
}

/// What was seen with rows that were sealed since is lost with such a log; the rows are not, and count once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_log_from_before_its_segments_does_not_know_counts_once() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let (data, old) = (folder.path().join("data"), folder.path().join("old"));
    let node = repository.open_applied_with(&at(&data)).await;
    node.push(Push::new("payments", rows(0, 20))).await.unwrap();
    node.seal("payments");
    node.push(Push::new("payments", rows(20, 10))).await.unwrap();
    close(node, &data).await;
    copy(&data.join("log"), &old);
    let node = repository.open_with(&at(&data)).await.unwrap();
    node.push(Push::new("payments", rows(30, 10))).await.unwrap();
    node.seal("payments");
    close(node, &data).await;

    replace(&data.join("log"), Some(&old));
    replace(&data.join("head"), None);
    let node = repository.open_with(&at(&data)).await.unwrap();
    node.push(Push::new("payments", rows(40, 10))).await.unwrap();
    for first in [30, 40] {
        node.push(Push::new("payments", rows(first, 10))).await.unwrap();
        let [head, history] = both(&node).await;
        assert_eq!(head, history, "rows from {first} on once more");
        assert_eq!(head.values().map(|(count, _)| *count).sum::<i64>(), 50);
    }
}

/// The files of a folder, and how long they are; what RocksDB only tells people is left out.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let told = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        ["LOG", "OPTIONS", "IDENTITY", "LOCK"].iter().any(|of| name.starts_with(of))
    };
    let files = entries.filter(|path| path.is_file() && !told(path));
    files
        .map(|path| (path.clone(), path.metadata().unwrap().len()))
        .filter(|(_, length)| *length > 0)
        .collect()
}

/// A bit that flips, a file that is cut or gone: an error, or nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_log_or_head_is_told_and_never_a_wrong_value() {
    let mut random = Random::new("damage");
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let sound = folder.path().join("sound");
    let node = repository.open_applied_with(&at(&sound)).await;
    for _ in 0..5 {
        push_some(&node, &mut random).await;
    }
    let expected = both(&node).await;
    assert_eq!(expected[0], expected[1]);
    close(node, &sound).await;
    let (mut refused, mut held) = (0, 0);
    for case in 0..60 {
        let data = folder.path().join(format!("damaged {case}"));
        copy(&sound, &data);
        let of = ["log", "head"][case % 2];
        let files = files(&data.join(of));
        let (path, length) = &files[random.below(files.len() as u64) as usize];
        let place = random.below(*length);
        let what = match case % 6 {
            0 => fs::remove_file(path).map(|()| "gone"),
            1 => fs::OpenOptions::new().write(true).open(path).unwrap().set_len(place).map(|()| "cut"),
            _ => {
                let mut bytes = fs::read(path).unwrap();
                bytes[place as usize] ^= 1 << random.below(8);
                fs::write(path, bytes).map(|()| "flipped")
            }
        };
        let what =
            format!("{of}: {} {} at {place} of {length}", path.file_name().unwrap().display(), what.unwrap());
        match repository.open_with(&at(&data)).await {
            Err(error) => {
                let told = error.to_string();
                assert!(told.contains("back") || told.contains("remove"), "{what}: {told}");
                refused += 1;
            }
            Ok(node) => {
                assert_eq!(both(&node).await, expected, "{what}");
                held += 1;
                close(node, &data).await;
            }
        }
        fs::remove_dir_all(&data).unwrap();
    }
    println!("{refused} refused, {held} held");
}

/// Rows of so many cards an hour ago: their events are such as are remembered.
fn recent(count: i64) -> RecordBatch {
    let hour_ago = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64 - 3_600_000_000;
    let at =
        TimestampMicrosecondArray::from_iter_values((0..count).map(|id| hour_ago + id)).with_timezone("UTC");
    let rows = rows(0, count);
    let place = rows.schema().index_of("at").unwrap();
    let mut columns = rows.columns().to_vec();
    columns[place] = Arc::new(at);
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

/// What came before events were noted may be pushed again, and counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_before_anything_was_noted_count_once() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let data = folder.path().join("data");
    repository.write("definitions.yaml", DEFINITIONS.replace("event_id: [id]\n", ""));
    let events = recent(10);
    let node = repository.open_applied_with(&at(&data)).await;
    node.push(Push::new("payments", events.clone())).await.unwrap();
    // The source gets an `event_id` only now.
    repository.write("definitions.yaml", DEFINITIONS);
    node.apply().await.unwrap();
    node.materialize_to(1_900_000_000_000_000);
    let counts = async |node: &Node| {
        both(node).await.map(|cards| cards.values().map(|(count, _)| *count).sum::<i64>())
    };
    for repeated in [0, 10, 10] {
        let reply = node.push(Push::new("payments", events.clone())).await.unwrap();
        assert_eq!((reply.accepted, reply.repeated), (10 - repeated, repeated));
        assert_eq!(counts(&node).await, [10, 10]);
    }
    // So it is where the log was lost, and the way out was taken.
    node.seal("payments");
    close(node, &data).await;
    replace(&data.join("log"), None);
    replace(&data.join("head"), None);
    let node = repository.open_with(&at(&data)).await.unwrap();
    node.materialize_to(1_900_000_000_000_000);
    // What lay in segments is there.
    assert_eq!(counts(&node).await, [10, 10]);
    for repeated in [0, 10] {
        let reply = node.push(Push::new("payments", events.clone())).await.unwrap();
        assert_eq!((reply.accepted, reply.repeated), (10 - repeated, repeated));
        assert_eq!(counts(&node).await, [10, 10]);
    }
}

/// The only file below a folder.
fn only_file(folder: &Path) -> PathBuf {
    let entry = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    if entry.is_dir() { only_file(&entry) } else { entry }
}

/// History says so; look-ups and pushes go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_is_gone_or_damaged_is_missed_and_named() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let data = folder.path().join("data");
    let node = repository.open_applied_with(&at(&data)).await;
    node.push(Push::new("payments", rows(0, 100))).await.unwrap();
    node.seal("payments");
    let expected = both(&node).await;
    close(node, &data).await;
    let sealed = only_file(&data.join("store/pushed"));
    let bytes = fs::read(&sealed).unwrap();
    let mut random = Random::new("a damaged segment");
    for round in 0..40 {
        let mut damaged = bytes.clone();
        match round % 4 {
            0 => fs::remove_file(&sealed).unwrap(),
            1 => fs::write(&sealed, &bytes[..random.below(bytes.len() as u64) as usize]).unwrap(),
            _ => {
                let bit = random.below(8 * bytes.len() as u64) as usize;
                damaged[bit / 8] ^= 1 << (bit % 8);
                fs::write(&sealed, &damaged).unwrap();
            }
        }
        let node = repository.open_with(&at(&data)).await.unwrap();
        let refused =
            node.try_materialize_to(1_900_000_000_000_000).expect_err("damage that is found").to_string();
        assert!(refused.contains("the segment `pushed/") && refused.contains("backup"), "{refused}");
        assert_eq!(head_counts(&node).await, expected[0]);
        close(node, &data).await;
        fs::write(&sealed, &bytes).unwrap();
    }
    let node = repository.open_with(&at(&data)).await.unwrap();
    assert_eq!(both(&node).await, expected);
    node.push(Push::new("payments", rows(100, 10))).await.unwrap();
    close(node, &data).await;
    // What names the segments is as good as they are.
    for file in ["registry.sqlite", "registry.sqlite-wal", "registry.sqlite-shm"] {
        let _ = fs::remove_file(data.join(file));
    }
    let refused = repository.open_with(&at(&data)).await.err().expect("refused").to_string();
    assert!(refused.contains("belongs to another registry"), "{refused}");
}

/// Rows are in the log as they were pushed, whatever their columns are by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_another_type_are_brought_in_as_history_reads_them() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let data = folder.path().join("data");
    let typed = |dtype: &str| {
        DEFINITIONS.replace("{name: parts, type: int64}", &format!("{{name: parts, type: {dtype}}}"))
    };
    repository.write("definitions.yaml", typed("float64"));
    let node = repository.open_applied_with(&at(&data)).await;
    let mut columns = rows(0, 10).columns().to_vec();
    columns[4] = Arc::new(Float64Array::from_iter_values((0..10).map(|row| f64::from(row) + 0.5)));
    let names = ["card", "at", "id", "amount", "parts"];
    let halves = RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap();
    node.push(Push::new("payments", halves)).await.unwrap();
    repository.write("definitions.yaml", typed("int64"));
    node.apply().await.unwrap();
    close(node, &data).await;
    replace(&data.join("head"), None);
    let node = repository.open_with(&at(&data)).await.unwrap();
    let reply = node.push(Push::new("payments", rows(10, 10))).await.unwrap();
    assert_eq!(reply.visible, None);
    let [head, history] = both(&node).await;
    assert_eq!(head, history);
}
