//! Servers share a log and a store. Is what lies in segments read by all of them, and leaves the database?

use quern_kit::{Node, Postgres, Random};
use tempfile::TempDir;

use super::push::{DEFINITIONS, rows};
use super::shared::{LATER_US, Shared, dumped, go_back, knows_windows, push, total};

/// How many commits the database has.
async fn commits(postgres: &Postgres) -> i64 {
    postgres.number("SELECT COUNT(*) FROM pushed_rows").await
}

async fn all_see(nodes: &[&Node], count: i64) {
    for node in nodes {
        knows_windows(node).await;
        assert_eq!(total(node).await, count);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_in_a_store_that_servers_share_leave_the_database_and_are_read_by_all() {
    let shared = Shared::start(DEFINITIONS).await;
    let store = TempDir::new().unwrap();
    let more = format!("store: {}\nstore_shared: true\n", store.path().display());
    let [here, there, late] = [&more, &more, &more].map(|more| shared.repository_with(more));
    let (one, other) = (here.open().await, there.open().await);
    push(&one, rows(0, 10)).await.unwrap();
    let head = dumped(&shared.redis[0]);
    push(&other, rows(10, 10)).await.unwrap();
    all_see(&[&one, &other], 20).await;

    one.seal("payments");
    assert_eq!(one.sealed_rows("payments"), 20);
    assert_eq!(commits(&shared.postgres).await, 2);
    one.forget_sealed();
    assert_eq!(commits(&shared.postgres).await, 0);
    push(&other, rows(20, 10)).await.unwrap();
    // A server that has nothing, and one that was there all the time.
    let started_later = late.open().await;
    all_see(&[&one, &other, &started_later], 30).await;
    for node in [&other, &started_later] {
        assert_eq!((node.sealed_rows("payments"), node.tail_rows("payments")), (20, 10));
    }
    // Repetitions are known still.
    assert_eq!(push(&started_later, rows(5, 10)).await.unwrap().repeated, 10);

    // A head of before the log forgot: what it lacks is materialize's to bring in, and it says so.
    go_back(&shared.redis[0], &head);
    push(&one, rows(30, 10)).await.unwrap();
    one.materialize_to(LATER_US);
    all_see(&[&one, &other, &started_later], 40).await;
}

/// Whoever seals, forgets, pushes and reads, in any order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_servers_do_in_turn_all_see_each_row_once() {
    let shared = Shared::start(DEFINITIONS).await;
    let store = TempDir::new().unwrap();
    let more = format!("store: {}\nstore_shared: true\n", store.path().display());
    let repositories = [(); 3].map(|()| shared.repository_with(&more));
    let mut nodes = Vec::new();
    for repository in &repositories {
        nodes.push(repository.open().await);
    }
    push(&nodes[0], rows(0, 1)).await.unwrap();
    let (mut random, mut next) = (Random::new("sealed"), 1);
    for _ in 0..40 {
        let node = random.pick(&nodes);
        match random.below(8) {
            0 => node.forget_sealed(),
            1 => node.seal("payments"),
            2 => all_see(&[&node], next).await,
            _ => {
                let count = 1 + random.below(10) as i64;
                push(&node, rows(next, count)).await.unwrap();
                next += count;
            }
        }
    }
    let all: Vec<&Node> = nodes.iter().collect();
    all_see(&all, next).await;
}
