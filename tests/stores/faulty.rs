//! What does a server do whose disk fails now and then? What it acknowledges is durable, what it answers is true, it
//! says what is wrong, and goes on once the disk does.

use std::collections::BTreeMap;

use quern::wire::PushReply;
use quern_kit::{FAILS, FULL, Faults, Process, Repository, run, until};
use serde_json::{Value, json};

use crate::network::push::{DEFINITIONS, both, columns, rows};

/// A server whose disk may fail, and what it has acknowledged.
struct Faulty {
    repository: Repository,
    faults: Faults,
    /// None while it is started anew.
    server: Option<Process>,
    next: i64,
}

impl Faulty {
    fn start() -> Faulty {
        let repository = Repository::new(DEFINITIONS);
        repository.write("logins.csv", "card,at\n");
        run(repository.path(), &["apply"]).answer();
        let faults = Faults::new(repository.path());
        let server = Some(Process::start_in(repository.path(), &faults.environment()));
        Faulty { repository, faults, server, next: 0 }
    }

    fn restart(&mut self) {
        drop(self.server.take());
        self.server = Some(Process::start_in(self.repository.path(), &self.faults.environment()));
    }

    fn server(&self) -> &Process {
        self.server.as_ref().unwrap()
    }

    fn begin(&self, calls: &str, error: u32) {
        self.faults.begin(self.server().id(), calls, error);
    }

    fn end(&self, calls: &str) {
        self.faults.end(self.server().id(), calls);
    }

    /// Pushes the next ten rows; status and words where they are not acknowledged.
    async fn push(&mut self) -> Result<(), (u16, String)> {
        let body = json!({"push_source_name": "payments", "df": columns(&rows(self.next, 10))});
        let asked = reqwest::Client::new().post(format!("{}/push", self.server().url)).json(&body);
        let reply = asked.send().await.unwrap();
        let (status, text) = (reply.status().as_u16(), reply.text().await.unwrap());
        if status != 200 {
            return Err((status, text));
        }
        let reply: PushReply = serde_json::from_str(&text).unwrap();
        assert_eq!(reply.accepted + reply.repeated, 10);
        self.next += 10;
        Ok(())
    }

    async fn push_until_taken(&mut self) {
        until("a push that is taken", async || self.push().await.ok()).await;
    }

    /// What readiness says; nothing where all is well.
    async fn ready(&self) -> String {
        let reply = reqwest::get(format!("{}/v2/health/ready", self.server().url)).await.unwrap();
        assert_eq!(reply.status().as_u16(), 200, "look-ups go on");
        reply.text().await.unwrap()
    }

    /// How many payments each card has, by look-up; none where that is refused.
    async fn counts(&self) -> Option<BTreeMap<String, i64>> {
        let cards: Vec<String> = (0..10).map(|card| format!("card {card}")).collect();
        let body = json!({"features": ["spending:payments_lifetime"], "entities": {"card": cards}});
        let url = format!("{}/get-online-features", self.server().url);
        let reply = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        if reply.status().as_u16() != 200 {
            return None;
        }
        let found: Value = reply.json().await.unwrap();
        let names = found["metadata"]["feature_names"].as_array().unwrap();
        let values = |name: &str| {
            let place = names.iter().position(|other| other == name).unwrap();
            found["results"][place]["values"].as_array().unwrap().clone()
        };
        let counts = values("payments_lifetime").into_iter().map(|count| count.as_i64().unwrap_or(0));
        Some(cards.into_iter().zip(counts).collect())
    }

    /// Whether the head says what was acknowledged, or what was not beside it.
    async fn says_what_is_acknowledged(&self) {
        if let Some(counts) = self.counts().await {
            let each = self.next / 10;
            assert!(
                counts.values().all(|count| (each..=each + 1).contains(count)),
                "{each} each, not {counts:?}"
            );
        }
    }

    /// Closes it; what was acknowledged is in history once, and the head says the same.
    async fn end_whole(mut self) {
        drop(self.server.take());
        let node = self.repository.open().await;
        let [head, history] = both(&node).await;
        assert_eq!(head, history);
        assert!(head.values().all(|(count, _)| *count == self.next / 10), "{} rows: {head:?}", self.next);
        assert_eq!(node.pushed_rows("payments") as i64, self.next);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_synced_acknowledges_nothing_and_heals() {
    let mut faulty = Faulty::start();
    for (calls, error, said) in [
        ("sync/*", FAILS, "the disk fails"),
        ("sync/fdatasync", FULL, "needs room"),
        ("sync/*", FULL, "needs room"),
    ] {
        faulty.push_until_taken().await;
        faulty.begin(calls, error);
        // What is written already when the disk begins to fail is not refused.
        let (status, words) = until("a push that is refused", async || faulty.push().await.err()).await;
        assert_eq!(status, 503, "{words}");
        assert!(words.contains(said) && words.contains("push it again"), "{words}");
        assert_eq!(faulty.push().await.unwrap_err().0, 503);
        let ready = faulty.ready().await;
        assert!(ready.contains("\"part\":\"push\""), "{ready}");
        faulty.says_what_is_acknowledged().await;
        faulty.end(calls);
        faulty.push_until_taken().await;
        assert_eq!(faulty.ready().await, r#"{"ready":true}"#);
        faulty.says_what_is_acknowledged().await;
    }
    faulty.end_whole().await;
}

/// What failed is in the log or not: who pushes it again has it once, and whoever restarts the server does too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_at_random_loses_and_doubles_nothing() {
    let mut faulty = Faulty::start();
    for _ in 0..4 {
        for calls in ["sync/*", "rw/pwrite", "rw/pread"] {
            let id = faulty.server().id();
            faulty.faults.begin_at_random(id, calls, 0.3);
            for _ in 0..5 {
                let _ = faulty.push().await;
                faulty.says_what_is_acknowledged().await;
            }
            faulty.end(calls);
        }
        // The head's own journal may have failed, which takes nothing more until it is opened anew.
        faulty.restart();
        faulty.push_until_taken().await;
        faulty.says_what_is_acknowledged().await;
    }
    faulty.end_whole().await;
}
