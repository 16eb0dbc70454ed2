//! Servers share a log, and it comes back older: restored from a backup, or from a copy that lacked the last commits.
//! Is anything lost without a word?

use quern::wire::Code;
use quern_kit::{Node, Postgres};

use super::push::{DEFINITIONS, rows};
use super::shared::{LATER_US, Shared, counts, dumped, go_back, knows_windows, push, total};

/// What the log is now, to come back later.
async fn keep(postgres: &Postgres) {
    let kept = ["pushed_rows", "push_sources", "push_seen"].map(|table| {
        format!("DROP TABLE IF EXISTS kept_{table}; CREATE TABLE kept_{table} AS TABLE {table};")
    });
    postgres.execute(&kept.concat()).await;
}

async fn come_back(postgres: &Postgres) {
    let back = ["pushed_rows", "push_sources", "push_seen"]
        .map(|table| format!("TRUNCATE {table}; INSERT INTO {table} SELECT * FROM kept_{table};"));
    postgres.execute(&format!("BEGIN; {} COMMIT", back.concat())).await;
}

async fn is_refused(node: &Node, first: i64) {
    let refused = push(node, rows(first, 10)).await.unwrap_err();
    assert_eq!(refused.code, Code::Refused, "{refused}");
    for said in
        ["source `payments`", "is from before what was acknowledged", "quern materialize --accept-loss"]
    {
        assert!(refused.text.contains(said), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_comes_back_older_is_not_gone_on_from_until_its_loss_is_accepted() {
    let shared = Shared::start(DEFINITIONS).await;
    let (here, there, late) = (shared.repository(), shared.repository(), shared.repository());
    let (one, other) = (here.open().await, there.open().await);
    push(&one, rows(0, 10)).await.unwrap();
    push(&other, rows(10, 10)).await.unwrap();
    knows_windows(&other).await;
    keep(&shared.postgres).await;
    push(&one, rows(20, 10)).await.unwrap();
    assert_eq!(total(&other).await, 30);

    come_back(&shared.postgres).await;
    // Look-ups go on; history is what the log has; nobody pushes, and a materialize takes nothing away by accident.
    for node in [&one, &other] {
        is_refused(node, 30).await;
        assert_eq!(counts(node).await, [30, 20]);
    }
    let started_later = late.open().await;
    knows_windows(&started_later).await;
    is_refused(&started_later, 30).await;
    let refused = one.try_materialize_to(LATER_US).unwrap_err();
    assert!(refused.text.contains("quern materialize --accept-loss"), "{refused}");
    assert_eq!(counts(&one).await, [30, 20]);
    is_refused(&one, 30).await;

    other.accept_loss(LATER_US).unwrap();
    for node in [&one, &started_later] {
        knows_windows(node).await;
    }
    for node in [&one, &other, &started_later] {
        assert_eq!(total(node).await, 20);
    }
    // What was lost may be pushed again: nobody takes it for seen.
    assert_eq!(push(&one, rows(20, 10)).await.unwrap().accepted, 10);
    assert_eq!(push(&other, rows(30, 10)).await.unwrap().accepted, 10);
    for node in [&one, &other, &started_later] {
        assert_eq!(total(node).await, 40);
    }
    // There is nothing to accept.
    one.accept_loss(LATER_US).unwrap();
    assert_eq!(total(&other).await, 40);
}

/// The numbers alone say nothing then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_went_on_from_where_it_came_back_is_no_log_of_this_head() {
    let shared = Shared::start(DEFINITIONS).await;
    let (here, there) = (shared.repository(), shared.repository());
    let (one, other) = (here.open().await, there.open().await);
    push(&one, rows(0, 10)).await.unwrap();
    knows_windows(&other).await;
    assert_eq!(total(&other).await, 10);
    keep(&shared.postgres).await;
    let head = dumped(&shared.redis[0]);
    push(&one, rows(10, 10)).await.unwrap();
    let ahead = dumped(&shared.redis[0]);

    // Both are older, and go on together: nothing contradicts anything, but for what the first server has read.
    come_back(&shared.postgres).await;
    go_back(&shared.redis[0], &head);
    push(&other, rows(20, 10)).await.unwrap();
    for node in [&one, &other] {
        assert_eq!(total(node).await, 20);
    }
    // A head of as many commits, of which the last is another.
    go_back(&shared.redis[0], &ahead);
    is_refused(&one, 30).await;
    one.accept_loss(LATER_US).unwrap();
    push(&one, rows(30, 10)).await.unwrap();
    knows_windows(&other).await;
    for node in [&one, &other] {
        assert_eq!(total(node).await, 30);
    }
}

/// Each asks for itself; they do not wait for one another, nor does anybody wait for long who comes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_that_does_not_answer_keeps_nobody_in_line() {
    let shared = Shared::start(DEFINITIONS).await;
    let repository = shared.repository();
    let node = repository.open().await;
    push(&node, rows(0, 10)).await.unwrap();
    shared.postgres.hold();
    let asking: Vec<_> = (0..60)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move { node.refresh("payments").unwrap_err() })
        })
        .collect();
    for asked in asking {
        let refused = asked.await.unwrap();
        assert_eq!(refused.code, Code::Unavailable, "{refused}");
    }
    assert_eq!(counts_of_head(&node).await, 10);
    shared.postgres.release();
    quern_kit::until("a database that answers", async || node.refresh("payments").ok()).await;
    push(&node, rows(10, 10)).await.unwrap();
    assert_eq!(total(&node).await, 20);
}

/// Look-ups ask no database.
async fn counts_of_head(node: &Node) -> i64 {
    super::push::head_counts(node).await.values().map(|(count, _)| *count).sum()
}
