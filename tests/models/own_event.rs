//! A payment is pushed and asked about at once: does the model see what was there before it, as in training?

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::util::pretty::pretty_format_batches;
use expect_test::expect;
use quern_kit::{Push, Repository, fixture, required};

const DEFINITIONS: &str = "kind: Entity\nname: card\njoin_keys: [{name: card, type: string}]\n---\n\
    kind: Source\nname: payments\npush: true\nevent_timestamp: at\nevent_id: [shop, number]\ncolumns:\n  \
    - {name: card, type: string}\n  - {name: at, type: timestamp}\n  - {name: shop, type: string}\n  \
    - {name: number, type: int64}\n  - {name: amount, type: float64}\n---\n\
    kind: FeatureView\nname: last\nentities: [card]\nsource: payments\nat: before\n\
    features: [{name: last_amount, expr: amount}]\n---\n\
    kind: FeatureView\nname: recent\nentities: [card]\nsource: payments\nat: before\n\
    aggregations: [{name: spent, function: sum, of: amount, windows: [1h]}]\n---\n\
    kind: FeatureView\nname: all\nentities: [card]\nsource: payments\n\
    aggregations: [{name: greatest, function: max, of: amount, windows: [30d]}]\n---\n\
    kind: FeatureService\nname: risk\nrequest: [{name: shop, type: string}, {name: number, type: int64}]\n\
    features: [last, recent, {view: all, exclude_event: [shop, number]}]\n\
    outputs: [last_amount, spent_1h, greatest_30d]\n---\n\
    kind: Model\nname: risk\nlog: {sample: 1}\nversions: [{version: 1, path: linear.onnx, service: risk}]\n";

/// 2026-01-01T10:00:00Z.
const TEN_US: i64 = 1_767_261_600_000_000;

/// Shop, number, minutes after ten, amount.
type Payment = (Option<&'static str>, Option<i64>, i64, f64);

fn columns(payments: &[Payment]) -> [(&'static str, ArrayRef); 5] {
    let at = payments.iter().map(|payment| TEN_US + payment.2 * 60_000_000);
    let at = TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC");
    [
        ("card", Arc::new(StringArray::from(vec!["c"; payments.len()]))),
        ("shop", Arc::new(payments.iter().map(|payment| payment.0).collect::<StringArray>())),
        ("number", Arc::new(payments.iter().map(|payment| payment.1).collect::<Int64Array>())),
        ("at", Arc::new(at)),
        ("amount", Arc::new(Float64Array::from_iter_values(payments.iter().map(|payment| payment.3)))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_was_just_pushed_is_not_among_those_before_it() {
    required("ORT_DYLIB_PATH");
    let repository = Repository::new(DEFINITIONS);
    repository.write("linear.onnx", fixture("linear.onnx"));
    let node = repository.open_applied().await;
    // Numbers are a shop's own: both columns tell payments apart.
    let pushed: [Payment; 3] =
        [(Some("a"), Some(1), 0, 5.0), (Some("a"), Some(2), 30, 7.0), (Some("b"), Some(1), 40, 2.0)];
    let ask = async |payment: Payment| {
        let inputs = columns(&[payment])[..3].iter().map(|(_, column)| Arc::clone(column)).collect();
        let at_us = TEN_US + payment.2 * 60_000_000;
        node.model("risk").predict("r", inputs, vec![at_us]).await;
    };
    for payment in pushed {
        let rows = columns(&[payment]).map(|(name, column)| (name, column, true));
        let rows = RecordBatch::try_from_iter_with_nullable(rows).unwrap();
        node.push(Push::new("payments", rows)).await.unwrap();
        ask(payment).await;
    }
    // Half an hour later: without the second one, and with all of them.
    let later: [Payment; 2] = [(Some("a"), Some(2), 60, 0.0), (None, Some(2), 60, 0.0)];
    for payment in later {
        ask(payment).await;
    }

    let asked = [&pushed[..], &later[..]].concat();
    let [card, shop, number, at, _] = columns(&asked).map(|(name, column)| (name, column, true));
    let spine = [card, shop, number, ("event_timestamp", at.1, true)];
    let spine = RecordBatch::try_from_iter_with_nullable(spine).unwrap();
    let (set, notes) = node.service("risk").training_set_and_notes(&spine, false);
    expect![[r#"
        +------+--------+----------------------+-------------+----------+--------------+
        | shop | number | event_timestamp      | last_amount | spent_1h | greatest_30d |
        +------+--------+----------------------+-------------+----------+--------------+
        | a    | 1      | 2026-01-01T10:00:00Z |             |          |              |
        | a    | 2      | 2026-01-01T10:30:00Z | 5.0         | 5.0      | 5.0          |
        | b    | 1      | 2026-01-01T10:40:00Z | 7.0         | 12.0     | 7.0          |
        | a    | 2      | 2026-01-01T11:00:00Z | 2.0         | 14.0     | 5.0          |
        |      | 2      | 2026-01-01T11:00:00Z | 2.0         | 14.0     | 7.0          |
        +------+--------+----------------------+-------------+----------+--------------+
    "#]]
    .assert_eq(&format!(
        "{}\n",
        pretty_format_batches(&[set.project(&[1, 2, 3, 4, 5, 6]).unwrap()]).unwrap()
    ));
    assert!(notes.coinciding.is_empty(), "{notes:?}");
    let report = node.verify("risk").await;
    assert!(report.is_clean() && report.models[0].rows == asked.len() as u64, "{report:?}");
}
