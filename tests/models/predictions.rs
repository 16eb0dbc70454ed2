//! What is kept of predictions, and does verification find what differs, all of it and nothing else?

use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::pretty::pretty_format_batches;
use expect_test::expect;
use quern_kit::{Node, Process, Random, Report, Repository, Server, fixture, metric, required, run, until};
use serde_json::{Value, json};

use super::batch::{self, NOW_US, history, table};
use crate::planes::{self, JANUARY_10_US, instance};

/// The planes, of which one model keeps a log of every request.
pub(crate) fn repository() -> Repository {
    let repository = planes::repository();
    repository.write("definitions.yaml", definitions());
    repository
}

fn definitions() -> String {
    planes::DEFINITIONS.replace("name: delay\nversions", "name: delay\nlog: {sample: 1}\nversions")
}

fn shown(rows: &RecordBatch, columns: &[&str]) -> String {
    let places: Vec<usize> = columns.iter().map(|name| rows.schema().index_of(name).unwrap()).collect();
    format!("{}\n", pretty_format_batches(&[rows.project(&places).unwrap()]).unwrap())
}

pub(crate) async fn ask(server: &Server, id: &str, path: &str, instances: Vec<Value>) {
    let request = server.http.post(server.address(path)).header("x-request-id", id);
    let reply = request.json(&json!({"instances": instances})).send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 200);
    assert_eq!(reply.headers()["x-request-id"], id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_is_logged_with_what_the_model_saw() {
    let repository = repository();
    let node = planes::open(&repository).await;
    let server = Server::of(repository, node.clone()).await;
    ask(&server, "first", "/v1/models/delay:predict", vec![instance("N1", 2000.0), instance("N2", 1.0)])
        .await;
    ask(&server, "second", "/v1/models/delay/versions/1:predict", vec![instance("N4", 1.0)]).await;
    ask(&server, "third", "/v1/models/carrier:predict", vec![instance("N1", 1.0)]).await;
    // What comes out of a batch is a record already.
    let table = table_of(&["N1", "N2"]);
    let command = quern::wire::BatchCommand { model: "delay".to_owned(), ..Default::default() };
    let rows = server.client.predict_batch(&command, table.schema(), futures::stream::iter([table])).await;
    assert_eq!(futures::TryStreamExt::try_collect::<Vec<_>>(rows.unwrap()).await.unwrap().len(), 1);
    let rows = node.logged("delay").await.unwrap();
    expect![[r#"
        +------------+-----+----------------------+---------+--------+
        | request_id | row | event_timestamp      | version | reason |
        +------------+-----+----------------------+---------+--------+
        | first      | 0   | 2013-01-10T00:00:00Z | 1       | route  |
        | first      | 1   | 2013-01-10T00:00:00Z | 1       | route  |
        | second     | 0   | 2013-01-10T00:00:00Z | 1       | pinned |
        +------------+-----+----------------------+---------+--------+
    "#]]
    .assert_eq(&shown(&rows, &["request_id", "row", "event_timestamp", "version", "reason"]));
    expect![[r#"
        +---------------------------------+------------------------------------------------+-------------------------------+
        | inputs                          | features                                       | statuses                      |
        +---------------------------------+------------------------------------------------+-------------------------------+
        | {tailnum: N1, distance: 2000.0} | {distance: 2000.0, last_delay: 7.5, far: true} | {last_delay: PRESENT}         |
        | {tailnum: N2, distance: 1.0}    | {distance: 1.0, last_delay: , far: false}      | {last_delay: OUTSIDE_MAX_AGE} |
        | {tailnum: N4, distance: 1.0}    | {distance: 1.0, last_delay: , far: false}      | {last_delay: NOT_FOUND}       |
        +---------------------------------+------------------------------------------------+-------------------------------+
    "#]].assert_eq(&shown(&rows, &["inputs", "features", "statuses"]));
    expect![[r#"
        +------------------------------------+----------------------------------+---------------------------------------+-------------+
        | event_timestamps                   | view_statuses                    | view_event_timestamps                 | outputs     |
        +------------------------------------+----------------------------------+---------------------------------------+-------------+
        | {last_delay: 2013-01-02T10:00:00Z} | {plane_history: PRESENT}         | {plane_history: 2013-01-02T10:00:00Z} | {y: 2175.5} |
        | {last_delay: 2012-06-01T10:00:00Z} | {plane_history: OUTSIDE_MAX_AGE} | {plane_history: 2012-06-01T10:00:00Z} | {y: NaN}    |
        | {last_delay: }                     | {plane_history: NOT_FOUND}       | {plane_history: }                     | {y: NaN}    |
        +------------------------------------+----------------------------------+---------------------------------------+-------------+
    "#]]
        .assert_eq(&shown(&rows, &["event_timestamps", "view_statuses", "view_event_timestamps", "outputs"]));
    let latency = rows.column_by_name("latency_us").unwrap().as_primitive::<Int64Type>();
    assert!(latency.values().iter().all(|us| (1..60_000_000).contains(us)), "{latency:?}");
    assert!(node.logged("carrier").await.is_none());
    let metrics = server.metrics().await;
    assert!(metrics.contains("quern_prediction_log_written_total{model=\"delay\"}"), "{metrics}");
    drop(node);
    server.stop().await;
}

pub(crate) fn table_of(tails: &[&str]) -> RecordBatch {
    let tails: arrow::array::ArrayRef = Arc::new(arrow::array::StringArray::from(tails.to_vec()));
    let distance: arrow::array::ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![1.0; tails.len()]));
    RecordBatch::try_from_iter([("tailnum", tails), ("distance", distance)]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_logged_whole_or_not_at_all() {
    let repository = repository();
    repository.write("definitions.yaml", definitions().replace("sample: 1}", "sample: 0.25}"));
    let node = planes::open(&repository).await;
    let server = Server::of(repository, node.clone()).await;
    let mut whole = Vec::new();
    for _ in 0..2 {
        for id in 0..60 {
            let instances = vec![instance("N1", 1.0), instance("N2", 1.0), instance("N3", 1.0)];
            ask(&server, &format!("request-{id}"), "/v1/models/delay:predict", instances).await;
        }
        let rows = node.logged("delay").await.unwrap();
        assert!(rows.num_rows().is_multiple_of(3) && rows.num_rows() < 120, "{} rows", rows.num_rows());
        whole.push(rows.num_rows());
    }
    // Which it is, the request's name decides.
    assert_eq!(whole[0] * 2, whole[1]);
    drop(node);
    server.stop().await;
}

pub(super) fn parquet_files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |path: std::path::PathBuf| match path.is_dir() {
        true => parquet_files(&path),
        false => usize::from(path.extension().is_some_and(|extension| extension == "parquet")),
    };
    entries.map(|entry| count(entry.unwrap().path())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_survives_a_kill_and_verifies_alone_and_through_a_server() {
    let repository = repository();
    repository.write("quern.yaml", "predictions_every: 100ms\n");
    let folder = repository.path().to_owned();
    let words = |line: &str| run(&folder, &line.split_whitespace().collect::<Vec<_>>());
    words("apply").answer();
    assert!(words("verify").answer().starts_with("nothing was logged"));
    words("materialize --to 2013-01-10").answer();
    let server = Process::start(&folder);
    let client = quern::Client::connect(&server.url).await.unwrap();
    client.predict("delay", [instance("N1", 2000.0), instance("N3", 1.0)]).await.unwrap();
    // Nobody asks for it: it is written by itself.
    until("a file of predictions", async || {
        (parquet_files(&folder.join(".quern/store/predictions")) > 0).then_some(())
    })
    .await;
    let report = words("verify --model delay --json").json();
    assert_eq!((&report["models"][0]["rows"], &report["models"][0]["rows_differ"]), (&json!(2), &json!(0)));
    server.kill();
    assert_eq!(words("verify --json").json(), report);
    let late = planes::LANDINGS.to_owned() + "N3,2013-01-04T10:00:00Z,2013-01-12T00:00:00Z,9,20,UA\n";
    repository.write("landings.csv", late);
    let found = words("verify --model delay");
    assert_eq!(found.code, Some(2), "{found:?}");
    assert!(found.stdout.starts_with("model delay: 2 predictions compared, 1 differ"), "{}", found.stdout);
    let line = found.stdout.lines().find(|line| line.contains("last_delay")).unwrap_or_default();
    assert!(line.contains("late data 1") && line.ends_with("row 1"), "{}", found.stdout);
    // Then is not now.
    assert_eq!(words("verify --to 2013-01-01 --json").json()["models"][0]["rows"], json!(0));
    let refused = words("verify --model dely");
    assert!(refused.code == Some(1) && refused.stderr.contains("did you mean `delay`?"), "{refused:?}");
    // One that is asked once, without a server, is logged as well.
    words("predict --model delay tailnum=N1 distance=1 event_timestamp=2013-01-09T00:00:00Z").answer();
    assert_eq!(words("verify").stdout.lines().next(), Some("model delay: 3 predictions compared, 1 differ"));
}

fn causes(report: &Report) -> Vec<String> {
    let features =
        report.models.iter().flat_map(|model| &model.features).filter(|feature| feature.differ > 0);
    features.map(|feature| format!("{} {:?}", feature.feature, feature.causes)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_is_told_with_its_cause() {
    let repository = repository();
    let node = planes::open(&repository).await;
    let server = Server::of(repository, node.clone()).await;
    let planes = ["N1", "N2", "N3", "N9"].map(|tail| instance(tail, 2000.0)).to_vec();
    ask(&server, "one", "/v1/models/delay:predict", planes).await;
    let clean = node.verify("delay").await;
    assert!(clean.is_clean() && clean.models[0].rows == 4, "{clean:?}");
    // Later than anybody asked: no difference.
    let later = planes::LANDINGS.to_owned() + "N3,2013-01-20T10:00:00Z,2013-01-20T10:00:00Z,9,20,UA\n";
    server.repository.write("landings.csv", &later);
    assert_eq!(node.verify("delay").await, clean);
    let late = later.clone() + "N9,2013-01-04T10:00:00Z,2013-01-12T00:00:00Z,9,20,UA\n";
    server.repository.write("landings.csv", &late);
    let found = node.verify("delay").await;
    assert_eq!(
        (found.models[0].rows_differ, causes(&found)),
        (1, vec!["last_delay {LateData: 1}".to_owned()])
    );
    let first = found.models[0].features.iter().find_map(|feature| feature.first.clone()).unwrap();
    assert_eq!((first.request_id.as_str(), first.row), ("one", 3));
    // A row with the same times, and another value.
    server.repository.write("landings.csv", later.replace(",7.5,,DL", ",8.5,,DL"));
    assert_eq!(causes(&node.verify("delay").await), ["last_delay {LateData: 1}"]);
    let gone: String = later
        .lines()
        .filter(|line| !line.starts_with("N3,2013-01-03"))
        .map(|line| format!("{line}\n"))
        .collect();
    server.repository.write("landings.csv", gone);
    assert_eq!(causes(&node.verify("delay").await), ["last_delay {NotInHistory: 1}"]);
    server.repository.write("landings.csv", &later);
    server.repository.write("definitions.yaml", definitions().replace("expr: delay}", "expr: delay * 2}"));
    server.apply().await.unwrap();
    let found = node.verify("delay").await;
    assert_eq!(
        (found.models[0].rows_differ, causes(&found)),
        (2, vec!["last_delay {ChangedDefinition: 2}".to_owned()])
    );
    drop(node);
    server.stop().await;
}

/// The vectors of training, row by row, as text: NaN is like NaN there.
fn trained(node: &Node, table: &RecordBatch) -> Vec<String> {
    let set = node.service("svc").training_set(table, false);
    (0..set.num_rows()).map(|row| format!("{:?}", set.slice(row, 1).columns())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_finds_what_late_rows_changed_and_nothing_else() {
    required("ORT_DYLIB_PATH");
    let mut random = Random::new("verification");
    let (mut all, mut changed) = (0, 0);
    for case in 0.. {
        // A row that came late may change nothing; in this many cases none has never been seen.
        if case >= 12 && (changed > 0 || case >= 60) {
            break;
        }
        let definitions = batch::definitions(&mut random);
        let repository = Repository::new(&definitions.replace("name: m\n", "name: m\nlog: {sample: 1}\n"));
        repository.write("linear.onnx", fixture("linear.onnx"));
        repository.write_parquet_in_groups("data/0.parquet", &history(&mut random), 17);
        let node = repository.open_applied().await;
        node.materialize_to(NOW_US);
        let rows = 1 + random.below(60);
        let asked = table(&mut random, rows, (case % 3 == 0).then_some(NOW_US));
        let times = asked.column(2).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        let columns = vec![asked.column(3).clone(), asked.column(1).clone()];
        node.model("m").predict("r", columns, times.values().to_vec()).await;
        let before = trained(&node, &asked);
        let report = node.verify("m").await;
        assert!(report.is_clean() && report.models[0].rows == rows, "case {case}: {report:?}");
        repository.write_parquet_in_groups("data/1.parquet", &history(&mut random).slice(0, 1), 50);
        let after = trained(&node, &asked);
        let report = node.verify("m").await;
        let differ = before.iter().zip(&after).filter(|(before, after)| before != after).count() as u64;
        assert_eq!(report.models[0].rows_differ, differ, "case {case}");
        let causes = report.models[0].features.iter().flat_map(|feature| feature.causes.keys());
        assert!(causes.into_iter().all(|cause| cause.as_str() == "late data"), "case {case}: {report:?}");
        all += rows;
        changed += differ;
    }
    println!("{changed} of {all} vectors changed, and were found");
    assert!(changed > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_logged_is_dropped_and_counted_and_answered() {
    let repository = repository();
    let named = definitions().replace("name: delay\n", "name: dropping\n");
    repository.write("definitions.yaml", named);
    let node = planes::open(&repository).await;
    let dropped = || metric(&node.metrics(), "quern_prediction_log_dropped_total{model=\"dropping\"}");
    let predict = async |rows: usize| {
        let columns = table_of(&vec!["N1"; rows]).columns().to_vec();
        let outputs = node.model("dropping").predict("", columns, vec![JANUARY_10_US; rows]).await;
        assert_eq!(outputs.num_rows(), rows);
    };
    // More than may wait.
    predict(270_000).await;
    assert_eq!(dropped(), Some(270_000.0));
    predict(10).await;
    assert_eq!(node.logged("dropping").await.unwrap().num_rows(), 10);
    // A disk that takes nothing.
    let folder = repository.path().join(".quern/store/predictions/dropping");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    predict(7).await;
    node.flush_predictions().await;
    assert_eq!(dropped(), Some(270_007.0));
}
