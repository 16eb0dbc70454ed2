//! What does everything else rest on?
//!
//! [`rows`] and [`windows`] hold that serving, history and training say the same, each against an oracle that looks at
//! every row, and [`sources`] that they do so over all types of files; [`expressions`] that a row is a batch of one;
//! [`crash`] that a kill changes nothing. [`cases`] are the rules of time to read, and [`flights`] is a whole example
//! beside a join that is not ours.

mod oracle;
mod rows;
mod sources;

mod windows;
pub(crate) mod windows_oracle;

mod cases;
mod crash;
mod expressions;
mod flights;

use arrow::array::RecordBatch;
use proptest::test_runner::{Config, FailurePersistence, FileFailurePersistence};
use quern_kit::{Node, Push};

/// Tries the cases first that once failed: the `regressions` beside `source`, which must be there.
fn remembering(source: &'static str) -> Config {
    let failures = FileFailurePersistence::WithSource("regressions");
    assert!(!failures.load_persisted_failures2(Some(source)).is_empty(), "none beside {source}");
    Config { failure_persistence: Some(Box::new(failures)), source_file: Some(source), ..Config::default() }
}

/// Pushes the rows to source `s`, so many at a time: half of them, and the others once history up to `to_us` is
/// materialized. None is turned away for another cause than a null key or time.
async fn push_around(node: &Node, rows: &RecordBatch, at_a_time: usize, to_us: i64) {
    let half = rows.num_rows() / 2;
    push(node, &rows.slice(0, half), at_a_time).await;
    node.materialize_to(to_us);
    push(node, &rows.slice(half, rows.num_rows() - half), at_a_time).await;
}

async fn push(node: &Node, rows: &RecordBatch, at_a_time: usize) {
    for start in (0..rows.num_rows()).step_by(at_a_time) {
        let some = rows.slice(start, at_a_time.min(rows.num_rows() - start));
        let rejected = match node.push(Push::new("s", some)).await {
            Ok(reply) => reply.rejected,
            Err(failure) if failure.rejected.is_empty() => panic!("{failure}"),
            Err(failure) => failure.rejected,
        };
        assert!(rejected.iter().all(|row| row.cause.contains("null")), "{rejected:?}");
    }
}
