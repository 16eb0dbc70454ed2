//! Does a request fail while three servers are restarted one by one?
//!
//! Three processes over one PostgreSQL and one Redis. The load does what a load balancer does: it asks one server after
//! the other, and where one does not answer at all, the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use quern_kit::{Postgres, Process, RedisServer, blocking, run};
use serde_json::{Value, json};

use crate::planes::{self, JANUARY_10};

const CLIENTS: usize = 4;

/// What the clients saw.
#[derive(Default)]
struct Seen {
    answers: AtomicUsize,
    /// Requests that another server had to answer.
    moved: AtomicUsize,
    slowest_us: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_servers_are_restarted_one_by_one() {
    let (postgres, redis) = (Postgres::start().await, RedisServer::start(&[]));
    let settings = format!("registry: {}\nonline: {}\nonline_timeout: 10s\n", postgres.url(), redis.url());
    let repositories: Vec<_> = (0..3).map(|_| planes::repository()).collect();
    repositories.iter().for_each(|repository| repository.write("quern.yaml", &settings));
    let first = repositories[0].path();
    run(first, &["apply"]).answer();
    run(first, &["materialize", "--to", JANUARY_10]).answer();

    let mut servers: Vec<Process> = repositories.iter().map(|one| Process::start(one.path())).collect();
    let urls = Arc::new(RwLock::new(servers.iter().map(|server| server.url.clone()).collect::<Vec<_>>()));
    let (seen, done) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(ask_on(client, Arc::clone(&urls), Arc::clone(&seen), Arc::clone(&done))))
        .collect();
    let enough = |more: usize| {
        let goal = seen.answers.load(Ordering::Relaxed) + more;
        while seen.answers.load(Ordering::Relaxed) < goal {
            assert!(clients.iter().all(|client| !client.is_finished()), "a request failed");
            std::thread::yield_now();
        }
    };
    for (place, repository) in repositories.iter().enumerate() {
        tokio::task::block_in_place(|| enough(200));
        let server = servers.remove(0);
        assert!(blocking(move || server.terminate()).await.success());
        tokio::task::block_in_place(|| enough(100));
        let folder = repository.path().to_owned();
        let server = blocking(move || Process::start(&folder)).await;
        urls.write()[place] = server.url.clone();
        servers.push(server);
    }
    tokio::task::block_in_place(|| enough(200));
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    println!(
        "{} answers, {} of them by the next server, the slowest after {} ms",
        seen.answers.load(Ordering::Relaxed),
        seen.moved.load(Ordering::Relaxed),
        seen.slowest_us.load(Ordering::Relaxed) / 1_000
    );
}

async fn ask_on(client: usize, urls: Arc<RwLock<Vec<String>>>, seen: Arc<Seen>, done: Arc<AtomicBool>) {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    let entities = json!({"tailnum": ["N1"], "distance": [2000.0], "event_timestamp": [JANUARY_10]});
    let body = json!({"feature_service": "delay_v1", "entities": entities}).to_string();
    let mut turn = client;
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        turn += 1;
        let mut reply = None;
        for next in 0..3 {
            let url = urls.read()[(turn + next) % 3].clone();
            match http.post(format!("{url}/get-online-features")).body(body.clone()).send().await {
                Ok(answer) => {
                    reply = Some(answer);
                    break;
                }
                Err(_) => seen.moved.fetch_add(1, Ordering::Relaxed),
            };
        }
        let reply = reply.expect("a server that answers");
        let (status, text) = (reply.status(), reply.text().await.unwrap());
        assert!(status.is_success(), "{status}: {text}");
        let reply: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(reply["results"][2]["values"][0], json!(7.5), "{text}");
        seen.answers.fetch_add(1, Ordering::Relaxed);
        seen.slowest_us.fetch_max(begun.elapsed().as_micros() as usize, Ordering::Relaxed);
    }
}
