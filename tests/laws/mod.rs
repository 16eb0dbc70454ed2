//! What does everything else rest on?
//!
//! [`rows`] and [`windows`] hold that serving, history and training say the same, each against an oracle that looks at
//! every row, and so does what is [`exported`]; [`sources`] that they do so over all types of files, [`alike`] over all
//! kinds of sources, [`folders`] whichever files are read, and [`gone`] where files go and change; [`expressions`] that
//! a row is a batch of one; [`crash`] that a kill changes nothing, and [`kills`] that none does at any point between
//! two steps. [`cases`] are the rules of time to read, and [`flights`] is a whole example beside a join that is not
//! ours.

mod alike;
mod exported;
mod folders;
mod gone;
mod oracle;
mod rows;
mod sources;

mod windows;
pub(crate) mod windows_oracle;

mod cases;
mod crash;
mod expressions;
mod flights;
mod kills;

use std::sync::LazyLock;

use arrow::array::RecordBatch;
use proptest::test_runner::{Config, FailurePersistence, FileFailurePersistence};
use quern_kit::segments::StoreAt;
use quern_kit::{Node, ObjectLocation, Push, Repository, Store, fresh_prefix, runtime};

use crate::s3::{self, S3};

/// The server of the buckets that laws are held over.
static BUCKETS: LazyLock<S3> =
    LazyLock::new(|| std::thread::spawn(|| runtime().block_on(S3::start())).join().unwrap());

/// Where a law is held.
#[derive(Debug, Clone, Copy)]
struct Ground {
    /// Where the head lies.
    store: Store,
    /// Whether rows that were pushed lie in segments in a bucket, some of them before others come.
    has_bucket: bool,
}

impl Ground {
    /// What is pushed stays in the log.
    fn on(store: Store) -> Ground {
        Ground { store, has_bucket: false }
    }

    /// What is pushed is sealed into a bucket.
    fn sealing(store: Store) -> Ground {
        Ground { store, has_bucket: true }
    }

    /// Opens the repository and applies its definitions. Every call names another part of the store.
    async fn open(self, repository: &Repository) -> Node {
        let bucket = self.has_bucket.then(|| {
            let location = ObjectLocation::parse_folder(&format!("s3://models/{}", fresh_prefix())).unwrap();
            StoreAt::Bucket(location.told(&s3::environment(&BUCKETS.url)))
        });
        let settings = self.store.settings().await;
        let node = Node::open_in(repository.path(), &settings, bucket).await.unwrap();
        node.apply().await.unwrap();
        node
    }

    /// Writes what was pushed so far into segments, and has the log forget it.
    fn seal(self, node: &Node) {
        if self.has_bucket {
            node.seal("s");
            node.forget_sealed();
            assert_eq!(node.sealed_rows("s"), node.pushed_rows("s"));
        }
    }
}

/// Tries the cases first that once failed: the `regressions` beside `source`, which must be there.
fn remembering(source: &'static str) -> Config {
    let failures = FileFailurePersistence::WithSource("regressions");
    assert!(!failures.load_persisted_failures2(Some(source)).is_empty(), "none beside {source}");
    Config { failure_persistence: Some(Box::new(failures)), source_file: Some(source), ..Config::default() }
}

/// Pushes the rows to source `s`, so many at a time: half of them, and the others once history up to `to_us` is
/// materialized. None is turned away for another cause than a null key or time.
async fn push_around(node: &Node, ground: Ground, rows: &RecordBatch, (at_a_time, to_us): (usize, i64)) {
    let half = rows.num_rows() / 2;
    push(node, &rows.slice(0, half), at_a_time).await;
    ground.seal(node);
    node.materialize_to(to_us);
    let (left, again) = (rows.num_rows() - half, (rows.num_rows() - half) / 2);
    push(node, &rows.slice(half, again), at_a_time).await;
    ground.seal(node);
    push(node, &rows.slice(half + again, left - again), at_a_time).await;
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
