//! What does a server do that is killed at it? All that changes what is kept, step by step, round by round; every step
//! may be done once more.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, Int64Type};
use quern::wire::PushTo;
use quern_kit::{Node, Push, fixture};

use crate::network::push::{DEFINITIONS, both, rows};
use crate::planes::{self, JANUARY_10_US};

/// Events of a round, and how many of them come again with another content.
const EVENTS: i64 = 20;
const OTHERS: i64 = 5;
/// Rows that are pushed to the head alone, in a round.
const PINGS: usize = 5;
/// After every event, µs.
const LATER_US: i64 = 1_800_000_000_000_000;
const DAY_US: i64 = 86_400_000_000;

const MORE: &str = r#"
kind: Source
name: pings
push: true
event_timestamp: at
columns: [{name: card, type: string}, {name: at, type: timestamp}, {name: ping, type: int64}]
---
kind: FeatureView
name: pinging
entities: [card]
source: pings
features: [ping]
---
kind: FeatureView
name: landing
entities: [plane]
source: landings
aggregations: [{name: landings, function: count, windows: [WINDOWS]}]
---
kind: FeatureService
name: pinged
features: [pinging]
---
kind: FeatureService
name: landed_ROUND
features: [landing, plane_history]
"#;

/// What is applied in a round: every one renames a service, and keeps more or less of a view.
fn definitions(round: i64) -> String {
    let windows = ["1d, 7d, lifetime", "1d"][round as usize % 2];
    let more = MORE.replace("ROUND", &round.to_string()).replace("WINDOWS", windows);
    let planes =
        planes::DEFINITIONS.replace("name: delay\nversions", "name: delay\nlog: {sample: 1}\nversions");
    [DEFINITIONS, planes.trim_start(), more.trim_start()].join("---\n")
}

/// The steps of a round.
pub(super) const STEPS: usize = 11;
/// The one that asks a model.
pub(super) const PREDICTS: usize = 5;

/// One server's repository and what it has acknowledged.
pub(super) struct Work<'a> {
    /// The repository.
    pub(super) folder: &'a Path,
    /// Its settings.
    pub(super) settings: &'a [(&'a str, String)],
    /// Whether its data folder has all that is kept.
    pub(super) is_alone: bool,
    /// Tells the requests of this process from those of others.
    pub(super) attempt: i64,
}

impl Work<'_> {
    /// Opens the repository, as it is when round `round` begins.
    pub(super) async fn open(&self) -> Node {
        Node::open(self.folder, self.settings).await.unwrap()
    }

    /// What lies in the repository before anything is done.
    pub(super) fn begin(&self) {
        fs::create_dir_all(self.folder.join("models")).unwrap();
        for name in ["linear", "named", "classifier_text"] {
            fs::write(self.folder.join(format!("models/{name}.onnx")), fixture(&format!("{name}.onnx")))
                .unwrap();
        }
        fs::write(self.folder.join("logins.csv"), "card,at\n").unwrap();
        fs::write(self.folder.join("landings.csv"), planes::LANDINGS).unwrap();
        fs::write(self.folder.join("definitions.yaml"), definitions(0)).unwrap();
    }

    /// Does one step; it is acknowledged when this returns.
    pub(super) async fn step(&self, node: &Node, round: i64, step: usize) {
        let first = round * EVENTS;
        match step {
            0 => {
                fs::write(self.folder.join("definitions.yaml"), definitions(round)).unwrap();
                node.apply().await.unwrap();
            }
            1 => self.push(node, rows(first, EVENTS)).await,
            2 => self.push(node, rows(first, EVENTS / 2)).await,
            3 => self.push(node, others(first)).await,
            4 => {
                let (rows, key) = (pings(round), Some(format!("pings {round}")));
                let (source, to) = ("pings".to_owned(), PushTo::Online);
                let reply =
                    node.push(Push { source, rows, to, view: None, idempotency_key: key }).await.unwrap();
                assert_eq!(reply.accepted + reply.repeated, PINGS);
            }
            PREDICTS => {
                let columns: Vec<ArrayRef> =
                    vec![Arc::new(StringArray::from(vec!["N1"])), Arc::new(Float64Array::from(vec![7.0]))];
                node.model("delay").predict(&self.request(round), columns, vec![JANUARY_10_US]).await;
                node.flush_predictions().await;
            }
            6 => {
                node.label("delay", &labels(&[&self.request(round), "shared"], round), round);
                node.seal_labels("delay");
            }
            7 => {
                node.seal("payments");
                node.seal("pings");
                node.forget_sealed();
            }
            8 => {
                node.compact_labels(1 << 20, 1 << 10);
                node.merge_predictions(chrono::Utc::now().timestamp_micros() + 2 * DAY_US);
            }
            9 => {
                fs::write(self.folder.join("landings.csv"), landings(round)).unwrap();
                node.materialize_to(LATER_US);
            }
            _ => self.back_up(node, round).await,
        }
    }

    async fn push(&self, node: &Node, rows: RecordBatch) {
        let given = rows.num_rows();
        let reply = node.push(Push::new("payments", rows)).await.unwrap();
        assert_eq!(reply.accepted + reply.repeated, given);
    }

    /// What the model is asked under in a round.
    pub(super) fn request(&self, round: i64) -> String {
        format!("q {round} {}", self.attempt)
    }

    /// Takes a backup, and restores it beside; where the backup was not whole, it is taken anew.
    async fn back_up(&self, node: &Node, round: i64) {
        if !self.is_alone || round % 3 != 0 {
            return;
        }
        let (to, data) = (self.folder.join("backup"), self.folder.join("restored"));
        if !to.join("backup.json").exists() {
            let _ = fs::remove_dir_all(&to);
            node.backup(&to).unwrap();
        }
        let at = [("data", data.display().to_string())];
        // One that was killed may have been done.
        let restored = quern_kit::restore(self.folder, &at, &to).await;
        assert!(
            restored.as_ref().err().is_none_or(|error| error.text.contains("is not empty")),
            "{restored:?}"
        );
        let restored = Node::open(self.folder, &at).await.unwrap();
        // The head is made anew.
        restored.materialize_to(LATER_US);
        check_payments(&restored, round).await;
        check_labels(&restored, round);
        drop(restored);
        fs::remove_dir_all(&data).unwrap();
        fs::remove_dir_all(&to).unwrap();
    }
}

/// The same events with another content.
fn others(first: i64) -> RecordBatch {
    let rows = rows(first + EVENTS / 2, OTHERS);
    let amounts = rows.column_by_name("amount").unwrap().as_primitive::<Float64Type>();
    let amounts: ArrayRef = Arc::new(amounts.unary::<_, Float64Type>(|amount| amount + 0.5));
    let columns = rows.schema_ref().fields().iter().zip(rows.columns()).map(|(field, column)| {
        let is_amount = field.name() == "amount";
        (field.name().clone(), if is_amount { Arc::clone(&amounts) } else { Arc::clone(column) })
    });
    RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).unwrap()
}

fn pings(round: i64) -> RecordBatch {
    let at = vec![JANUARY_10_US + round; PINGS];
    let columns: [(&str, ArrayRef); 3] = [
        ("card", Arc::new(StringArray::from(vec![format!("ping {round}"); PINGS]))),
        ("ping", Arc::new(Int64Array::from(vec![round; PINGS]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(at).with_timezone("UTC"))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn labels(ids: &[&str], value: i64) -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] = [
        ("request_id", Arc::new(StringArray::from_iter_values(ids))),
        ("label", Arc::new(Int64Array::from(vec![value; ids.len()]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn landings(round: i64) -> String {
    let line = |n: i64| format!("R{},2013-01-04T10:00:00Z,2013-01-04T10:00:0{}Z,{n},1,UA\n", n % 7, n % 10);
    // Every other time a plane is gone again, and the last landing of another one.
    let more = "R5,2013-01-04T10:00:00Z,2013-01-04T10:00:09Z,50,1,UA\n\
                R0,2013-01-04T10:00:00Z,2013-01-04T10:00:08Z,51,1,UA\n";
    let more = if round % 2 == 0 { more } else { "" };
    planes::LANDINGS.to_owned() + more + &(0..=round).map(line).collect::<String>()
}

/// Asks `node`, of which all steps of `round` are acknowledged, whether each row counts once.
pub(super) async fn check(node: &Node, round: i64) {
    check_payments(node, round).await;
    check_pings(node, round).await;
    check_labels(node, round);
}

async fn check_payments(node: &Node, round: i64) {
    let [head, history] = both(node).await;
    assert_eq!(head, history, "head and history in round {round}");
    let counted: i64 = head.values().map(|(count, _)| *count).sum();
    assert_eq!(counted, EVENTS * (round + 1), "events of {} rounds", round + 1);
    let kept = node.pushed_rows("payments") as i64;
    assert_eq!(kept, (EVENTS + OTHERS) * (round + 1), "rows of history in round {round}");
}

/// What no history has.
async fn check_pings(node: &Node, round: i64) {
    let pinged = node.service("pinged");
    let cards: Vec<String> = (0..=round).map(|round| format!("ping {round}")).collect();
    let keys: ArrayRef = Arc::new(StringArray::from(cards.clone()));
    let found = pinged.look_up(pinged.inputs(vec![keys]), vec![LATER_US; cards.len()]).await.unwrap().vectors;
    let pings = found.column(0).as_primitive::<Int64Type>();
    assert_eq!(pings.values()[..], (0..=round).collect::<Vec<_>>()[..], "rows for the head alone");
}

fn check_labels(node: &Node, round: i64) {
    let shared = node.labels("delay").value("label", "shared", 0).unwrap();
    assert_eq!(shared.as_primitive::<Int64Type>().value(0), round, "the last label");
}

/// Asks whether what was materialized is what history says, and whether each prediction is there once.
pub(super) async fn check_planes(node: &Node, round: i64, predicted: &[String]) {
    let service = node.service(&format!("landed_{round}"));
    let planes: Vec<String> = (0..7).map(|plane| format!("R{plane}")).chain(["N1".to_owned()]).collect();
    let keys: ArrayRef = Arc::new(StringArray::from(planes));
    let times: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from(vec![JANUARY_10_US; 8]).with_timezone("UTC"));
    let head =
        service.look_up(service.inputs(vec![Arc::clone(&keys)]), vec![JANUARY_10_US; 8]).await.unwrap();
    let spine = RecordBatch::try_from_iter([("tailnum", keys), ("event_timestamp", times)]).unwrap();
    let history = service.training_set(&spine, false);
    for (field, column) in head.vectors.schema().fields().iter().zip(head.vectors.columns()) {
        let trained = history.column_by_name(field.name()).unwrap();
        assert_eq!(trained.to_data(), column.to_data(), "{} in round {round}", field.name());
    }
    let mut logged: BTreeMap<String, usize> = BTreeMap::new();
    if let Some(rows) = node.logged("delay").await {
        let ids = rows.column_by_name("request_id").unwrap().as_string::<i32>();
        ids.iter().flatten().for_each(|id| *logged.entry(id.to_owned()).or_default() += 1);
    }
    assert!(logged.values().all(|count| *count == 1), "predictions that are there twice: {logged:?}");
    let missing: Vec<&String> = predicted.iter().filter(|id| !logged.contains_key(*id)).collect();
    assert!(missing.is_empty(), "predictions that were written are gone: {missing:?}");
}
