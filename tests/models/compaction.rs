//! Which labels are kept, and are they found, however often their segments are written anew?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use quern_kit::{Compacted, Node, Random, Server, until};
use serde_json::json;

use super::labels::{command, joined, label};
use super::predictions::{ask, repository};
use crate::planes::{self, instance};

fn rows(ids: &[String], labels: &[f64]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("request_id", Arc::new(StringArray::from_iter_values(ids))),
        ("row", Arc::new(Int64Array::from(vec![0; ids.len()]))),
        ("label", Arc::new(Float64Array::from(labels.to_vec()))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// What labels of requests that nobody logged may take, and how many labels are looked at together.
const ROOM_BYTES: u64 = 32 << 20;
const TOGETHER: usize = 1 << 19;

/// The label of a request's first row; none where it has none.
fn label_of(node: &Node, id: &str) -> Option<f64> {
    let values = node.labels("delay").value("label", id, 0)?;
    Some(values.as_primitive::<Float64Type>().value(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_segments_become_one_and_nothing_is_lost() {
    let repository = repository();
    let node = planes::open(&repository).await;
    for round in 0..150 {
        let ids = [format!("own-{round}"), "shared".to_owned()];
        node.label("delay", &rows(&ids, &[f64::from(round), f64::from(round)]), round.into());
        if round % 10 == 9 {
            node.seal_labels("delay");
        }
    }
    assert_eq!(node.label_segments("delay").len(), 15);
    let before = node.labels("delay");
    let expected = Compacted { parts: 15, wholes: 1, superseded: 149, dropped: 0 };
    assert_eq!(node.compact_labels(ROOM_BYTES, TOGETHER), expected);
    let segments = node.label_segments("delay");
    assert_eq!((segments.len(), segments[0].range.end, segments[0].rows), (1, 300, 151));
    // Nothing has come since.
    assert_eq!(node.compact_labels(ROOM_BYTES, TOGETHER), Compacted::default());
    // Whoever has listed the segments before reads them still.
    assert_eq!(before.value("label", "shared", 0).unwrap().as_primitive::<Float64Type>().value(0), 149.0);
    node.label("delay", &rows(&["own-7".to_owned()], &[-7.0]), 7);
    drop((before, node));
    let node = repository.open().await;
    assert_eq!(node.label_tail_rows("delay"), 1);
    for round in (0..150).filter(|round| *round != 7) {
        assert_eq!(label_of(&node, &format!("own-{round}")), Some(f64::from(round)));
    }
    assert_eq!((label_of(&node, "shared"), label_of(&node, "own-7")), (Some(149.0), Some(-7.0)));
    assert_eq!(label_of(&node, "nobody"), None);
}

/// Two whose labels count for their own predictions alone.
const LABELLERS: &str =
    "kind: Role\nname: labels\nmembers: [{key: a}, {key: b}]\nallow: [{label: [delay]}]\n";

/// All labels of each row of a request, with whom each is by, in the order in which they came.
type Oracle = BTreeMap<(String, i64), Vec<(Option<&'static str>, i64)>>;

/// Whatever comes, by whom it may, and whatever is done with it in between, every label is found that a naive oracle
/// has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_label_is_found_whatever_is_written_compacted_and_opened_again() {
    let mut random = Random::new("labels");
    for _ in 0..quern_kit::cases(2) {
        let repository = repository();
        repository.write("roles.yaml", LABELLERS);
        let mut node = planes::open(&repository).await;
        let mut oracle = Oracle::new();
        for step in 0..60 {
            match random.below(10) {
                0 | 1 => node.seal_labels("delay"),
                2 => drop(node.compact_labels(ROOM_BYTES, 1 + random.below(40) as usize)),
                3 => {
                    drop(node);
                    node = repository.open().await;
                }
                _ => {
                    let count = 1 + random.below(20);
                    let keys: Vec<(String, i64)> = (0..count)
                        .map(|_| (format!("r{}", random.below(40)), random.below(3) as i64))
                        .collect();
                    let values: Vec<i64> = (0..count).map(|_| random.below(1_000) as i64).collect();
                    let rows = typed(&mut random, &keys, &values);
                    let by = [None, Some("a"), Some("b")][random.below(3) as usize];
                    match by {
                        None => node.label("delay", &rows, step),
                        Some(key) => node.label_by(key, "delay", &rows, step),
                    }
                    for (key, value) in keys.into_iter().zip(values) {
                        oracle.entry(key).or_default().push((by, value));
                    }
                }
            }
            if random.below(6) == 0 || step == 59 {
                check_all(&node, &oracle);
            }
        }
    }
}

/// Labels whose columns differ from call to call: whole numbers or others, and a text beside them or none.
fn typed(random: &mut Random, keys: &[(String, i64)], values: &[i64]) -> RecordBatch {
    let label: ArrayRef = match random.below(2) {
        0 => Arc::new(Int64Array::from(values.to_vec())),
        _ => Arc::new(Float64Array::from_iter_values(values.iter().map(|value| *value as f64))),
    };
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("request_id".to_owned(), Arc::new(StringArray::from_iter_values(keys.iter().map(|(id, _)| id)))),
        ("row".to_owned(), Arc::new(Int64Array::from_iter_values(keys.iter().map(|(_, row)| *row)))),
        ("label".to_owned(), label),
    ];
    if random.below(3) == 0 {
        let by = values.iter().map(|value| format!("by {value}"));
        columns.push((format!("by{}", random.below(3)), Arc::new(StringArray::from_iter_values(by))));
    }
    RecordBatch::try_from_iter(columns).unwrap()
}

fn check_all(node: &Node, oracle: &Oracle) {
    let labels = node.labels("delay");
    for id in 0..41 {
        for (row, asked_by) in (0..3).flat_map(|row| [None, Some("a"), Some("b")].map(|by| (row, by))) {
            let key = (format!("r{id}"), row);
            let principal = asked_by.map(|key| format!("key:{key}"));
            let found = labels.value_for("label", &key.0, row, principal.as_deref()).map(|values| {
                let values = arrow::compute::cast(&values, &DataType::Float64).unwrap();
                values.as_primitive::<Float64Type>().value(0)
            });
            let counts = |by: &Option<&str>| by.is_none() || asked_by.is_none() || *by == asked_by;
            let last = oracle.get(&key).and_then(|all| all.iter().rfind(|(by, _)| counts(by)));
            assert_eq!(found, last.map(|(_, value)| *value as f64), "{key:?} of {asked_by:?}");
        }
    }
}

/// While labels come, are sealed and become one, whoever reads finds what was acknowledged before, and each once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_a_compaction_find_each_label_once() {
    let repository = repository();
    let node = planes::open(&repository).await;
    let ids: Vec<String> = (0..20).map(|n| format!("r{n}")).collect();
    node.label("delay", &rows(&ids, &[0.0; 20]), 0);
    let (acknowledged, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (reads, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let compacting = {
        let (node, gone, done) = (node.clone(), Arc::clone(&gone), Arc::clone(&done));
        tokio::task::spawn_blocking(move || {
            while !done.load(Ordering::SeqCst) {
                node.seal_labels("delay");
                gone.fetch_add(node.compact_labels(ROOM_BYTES, 7).superseded, Ordering::SeqCst);
            }
        })
    };
    let reading = {
        let (node, ids, reads) = (node.clone(), ids.clone(), Arc::clone(&reads));
        let (acknowledged, done) = (Arc::clone(&acknowledged), Arc::clone(&done));
        tokio::task::spawn_blocking(move || {
            while !done.load(Ordering::SeqCst) {
                let least = acknowledged.load(Ordering::SeqCst) as f64;
                let known = node.labels("delay");
                for id in &ids {
                    let label = known.value("label", id, 0).unwrap();
                    let label = label.as_primitive::<Float64Type>().value(0);
                    assert!(label >= least, "{id}: {label} after {least}");
                }
                reads.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    // As many rounds as it takes for the others to do something, and an end where they never do.
    for round in 1..100_000 {
        node.label("delay", &rows(&ids, &[round as f64; 20]), round);
        acknowledged.store(round as usize, Ordering::SeqCst);
        let enough = reads.load(Ordering::SeqCst) >= 10 && gone.load(Ordering::SeqCst) >= 100;
        if enough || reading.is_finished() || compacting.is_finished() {
            break;
        }
    }
    done.store(true, Ordering::SeqCst);
    reading.await.unwrap();
    compacting.await.unwrap();
    assert!(gone.load(Ordering::SeqCst) >= 100);
    node.seal_labels("delay");
    node.compact_labels(ROOM_BYTES, 7);
    assert_eq!(node.label_segments("delay").iter().map(|segment| segment.rows).sum::<u64>(), 20);
}

/// Of strangers the newest stay, all of them that have room, and nothing else goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_beyond_the_room_go_oldest_first_and_nobody_else() {
    let repository = repository();
    let node = planes::open(&repository).await;
    let server = Server::of(repository, node.clone()).await;
    for id in ["a", "b"] {
        ask(&server, id, "/v1/models/delay:predict", vec![instance("N1", 2000.0)]).await;
    }
    let mut random = Random::new("strangers");
    let mut ids: Vec<String> = (0..2_000).map(|n| format!("no-{n}-{:016x}", random.draw())).collect();
    ids.insert(0, "a".to_owned());
    ids.insert(500, "b".to_owned());
    node.label("delay", &rows(&ids, &vec![1.0; ids.len()]), 0);
    node.seal_labels("delay");
    let bytes = node.label_segments("delay")[0].bytes;
    // Room for about a quarter.
    let compacted = node.compact_labels(bytes / 4, 100);
    let kept: Vec<bool> = ids.iter().map(|id| label_of(&node, id).is_some()).collect();
    let gone = kept.iter().filter(|kept| !**kept).count();
    assert_eq!(compacted, Compacted { parts: 1, wholes: 1, superseded: 0, dropped: gone });
    assert!((1_490..1_510).contains(&gone), "{gone}");
    assert!(kept[0] && kept[500]);
    let strangers: Vec<bool> = (0..ids.len()).filter(|n| ![0, 500].contains(n)).map(|n| kept[n]).collect();
    assert!(strangers.is_sorted(), "{strangers:?}");
    drop(node);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_29_a_flood_of_labels_leaves_those_of_logged_requests() {
    let repository = repository();
    let node = planes::open(&repository).await;
    let server = Server::of(repository, node.clone()).await;
    ask(&server, "a", "/v1/models/delay:predict", vec![instance("N1", 2000.0)]).await;
    let of_a = json!([{"request_id": "a", "label": 7.5, "note": "ours"}]);
    assert!(label(&server, of_a).await.starts_with("200"));
    let mut random = Random::new("flood");
    // What a store cannot make smaller.
    let mut note = || (0..62).map(|_| format!("{:016x}", random.draw())).collect::<String>();
    for call in 0..12 {
        let rows = (0..10_000)
            .map(|row| format!("{{\"request_id\":\"no-{call}-{row}\",\"note\":\"xxx{}\"}}", note()));
        let rows = rows.collect::<Vec<_>>().join(",");
        let body = format!("{{\"model\":\"delay\",\"labels\":[{rows}]}}");
        let (status, text) = server.ask("POST", "/v1/labels", body).await;
        assert_eq!(status, 200, "{text}");
    }
    // 64 MiB in memory are written into a segment by themselves.
    until("a segment of labels", async || (!node.label_segments("delay").is_empty()).then_some(())).await;
    node.seal_labels("delay");
    assert_eq!(node.label_tail_rows("delay"), 0);
    // 120 MB in hexadecimal came, which are 60 in the store. What has no room goes, and is counted, whether this sees
    // to it or the server has.
    node.compact_labels(ROOM_BYTES, TOGETHER);
    let dropped = server.metric("quern_labels_dropped_total{model=\"delay\"}").await;
    assert!((30_000.0..60_000.0).contains(&dropped), "{dropped}");
    let kept = joined(&server, &command(true)).await;
    assert!(kept.contains("ours") && !kept.contains("xxx"), "{kept}");
    // One that comes before its prediction is among the newest.
    assert!(
        label(&server, json!([{"request_id": "early", "label": 1, "note": "soon"}])).await.starts_with("200")
    );
    node.seal_labels("delay");
    node.compact_labels(ROOM_BYTES, TOGETHER);
    ask(&server, "early", "/v1/models/delay:predict", vec![instance("N3", 1.0)]).await;
    assert!(joined(&server, &command(true)).await.contains("soon"));
    drop(node);
    server.stop().await;
}
