//! How is it? What a server says of itself, of its stores and of what was materialized, to somebody who was woken.

use quern::Client;
use quern::wire::{HeadState, LogStatus, Part, PushedStatus, RunState, ServerStatus, Trouble, ViewStatus};
use quern_kit::{
    Node, Postgres, Process, Push, RedisServer, Repository, Server, Store, command, metric, run, until,
};
use serde_json::Value;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::push::{self, rows};
use crate::planes::{self, JANUARY_10_US};

const FAILED: &str = "quern_materialize_failed{feature_view=\"plane_history\"}";
const SUCCESS: &str = "quern_materialize_last_success_seconds{feature_view=\"plane_history\"}";

async fn status(server: &Server) -> ServerStatus {
    server.client.status().await.unwrap()
}

fn view<'s>(status: &'s ServerStatus, name: &str) -> &'s ViewStatus {
    status.feature_views.iter().find(|view| view.name == name).unwrap()
}

fn state(status: &ServerStatus, view_name: &str) -> Option<RunState> {
    view(status, view_name).last_run.as_ref().map(|run| run.state)
}

/// What is wrong, a line for each.
fn wrong(status: &ServerStatus) -> Vec<String> {
    assert_eq!(status.healthy, status.troubles.is_empty());
    let line = |Trouble { part, name, cause }: &Trouble| {
        format!("{part:?} {}: {cause}", name.as_deref().unwrap_or_default())
    };
    status.troubles.iter().map(line).collect()
}

/// Materializes as the route does.
async fn materialize(server: &Server) -> Value {
    let (code, text) = server.ask("POST", "/v1/materialize", "{}").await;
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_is_told_from_never_to_its_last_run() {
    for store in [Store::Rocks, Store::Shared] {
        let repository = planes::repository();
        let node = repository.open_applied_on(store).await;
        let server = Server::of(repository, node.clone()).await;
        let told = status(&server).await;
        let words = "FeatureView plane_history: never materialized, so nothing of it is found; run `quern materialize`";
        assert_eq!(wrong(&told), [words], "{store:?}");
        let never = view(&told, "plane_history");
        assert_eq!(
            (never.head, &never.last_run, never.source.as_str()),
            (HeadState::Never, &None, "landings")
        );
        assert_eq!(told.sources[0].newest_event, None);
        assert!(told.server.ready && told.server.apply == 1 && told.server.applied_at.is_some());

        node.materialize_to(JANUARY_10_US);
        let told = status(&server).await;
        assert_eq!(wrong(&told), [""; 0], "{store:?}");
        let done = view(&told, "plane_history");
        assert_eq!(done.head, HeadState::Materialized);
        assert_eq!(done.materialized_until.as_deref(), Some(planes::JANUARY_10));
        let ran = done.last_run.as_ref().unwrap();
        assert_eq!(
            (ran.state, ran.rows_written, ran.until.as_deref()),
            (RunState::Done, Some(3), Some(planes::JANUARY_10))
        );
        assert_eq!((&ran.instance, &ran.ended), (&told.server.instance, &done.last_success));
        assert!(ran.began <= *ran.ended.as_ref().unwrap() && ran.error.is_none(), "{ran:?}");
        assert_eq!(told.sources[0].newest_event.as_deref(), Some("2013-01-03T10:00:00Z"));
        assert_eq!(server.metric(FAILED).await, 0.0);
        let success = server.metric(SUCCESS).await;

        // A run that fails is told, and when one last succeeded stays.
        std::fs::remove_file(server.repository.path().join("landings.csv")).unwrap();
        let failed = materialize(&server).await;
        assert!(failed["error"].as_str().is_some(), "{failed}");
        let told = status(&server).await;
        assert_eq!(state(&told, "plane_history"), Some(RunState::Failed));
        let [words] = &wrong(&told)[..] else { panic!("{:?}", told.troubles) };
        assert!(words.starts_with("FeatureView plane_history: its last run failed: "), "{words}");
        assert!(words.contains("landings.csv"), "{words}");
        assert_eq!(view(&told, "plane_history").last_success, done.last_success);
        assert_eq!(server.metric(FAILED).await, 1.0);
        assert_eq!(server.metric(SUCCESS).await, success);

        server.repository.write("landings.csv", planes::LANDINGS);
        materialize(&server).await;
        assert_eq!(wrong(&status(&server).await), [""; 0], "{store:?}");
        assert_eq!(server.metric(FAILED).await, 0.0);
        // What its last run was outlives the server.
        let repository = if let Store::Rocks = store {
            drop(node);
            let repository = server.stop_and_keep().await;
            let server = Server::open(repository).await;
            assert_eq!(state(&status(&server).await, "plane_history"), Some(RunState::Done));
            server.stop_and_keep().await
        } else {
            server.repository
        };
        drop(repository);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pushed_is_told_without_being_read() {
    for (store, number, kind) in [(Store::Rocks, 1, "local"), (Store::Shared, 2, "shared")] {
        // Counters are the process's: the source has a name that no other test has.
        let source = format!("told_{number}");
        let repository = Repository::new(
            &push::DEFINITIONS
                .replace("source: payments", &format!("source: {source}"))
                .replace("name: payments\npush", &format!("name: {source}\npush")),
        );
        repository.write("logins.csv", "card,at\n");
        let node = repository.open_applied_on(store).await;
        let server = Server::of(repository, node.clone()).await;
        node.push(Push::new(&source, rows(0, 10))).await.unwrap();
        let body = format!(
            r#"{{"push_source_name": "{source}", "df": {{"card": ["a"], "at": ["no time"], "id": [1], "amount": [1], "parts": [1]}}}}"#
        );
        assert_eq!(server.ask("POST", "/push", body).await.0, 400);
        let told = status(&server).await;
        assert_eq!(wrong(&told), [""; 0], "{store:?}");
        let log = LogStatus { kind: kind.to_owned(), commits_behind: Some(0), behind_seconds: 0 };
        assert_eq!(told.stores.log, log);
        let pushed =
            |told: &ServerStatus| told.sources.iter().find(|known| known.name == source).unwrap().clone();
        let counted = PushedStatus {
            rows: 10,
            tail_rows: 10,
            files: 0,
            bytes: 0,
            commits_behind: Some(0),
            accepted: 10,
            repeated: 0,
            rejected: 1,
        };
        assert_eq!(pushed(&told).pushed, Some(counted));
        assert!(pushed(&told).newest_event.is_some());
        assert_eq!(view(&told, "spending").head, HeadState::Begun);
        assert_eq!(told.sources.iter().filter(|source| source.pushed.is_some()).count(), 1);
        assert_eq!(server.metric("quern_head_lag_commits").await, 0.0);

        let seal = node.clone();
        let name = source.clone();
        quern_kit::blocking(move || seal.seal(&name)).await;
        let sealed = pushed(&status(&server).await).pushed.unwrap();
        assert_eq!((sealed.tail_rows, sealed.files, sealed.rows), (0, 1, 10));
        assert!(sealed.bytes > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_do_not_answer_are_named_and_nobody_waits_for_them() {
    let (postgres, redis) = (Postgres::start().await, RedisServer::start(&[]));
    let repository = planes::repository();
    let settings =
        [("registry", postgres.url()), ("online", redis.url()), ("online_timeout", "1s".to_owned())];
    let node = repository.open_applied_with(&settings).await;
    node.materialize_to(JANUARY_10_US);
    let server = Server::of(repository, node).await;
    assert_eq!(wrong(&status(&server).await), [""; 0]);
    let is_told = |told: &ServerStatus, part: Part, words: &str| {
        let found = told.troubles.iter().find(|trouble| trouble.part == part);
        assert!(found.is_some_and(|trouble| trouble.cause.contains(words)), "{words}: {:?}", told.troubles);
    };

    postgres.hold();
    let told = status(&server).await;
    is_told(&told, Part::Registry, "postgresql does not answer: ");
    is_told(&told, Part::Registry, "(127.0.0.1:");
    assert!(!told.stores.registry.reachable && told.stores.online_store.reachable);
    assert_eq!(told.stores.log.commits_behind, None);
    // What was known before is told still.
    assert_eq!(state(&told, "plane_history"), Some(RunState::Done));
    assert_eq!(view(&told, "plane_history").materialized_until.as_deref(), Some(planes::JANUARY_10));
    assert!(told.server.ready);
    postgres.release();
    let well = async || Some(status(&server).await).filter(|told| told.healthy);
    until("a registry that answers again", well).await;

    redis.signal("STOP");
    let told = status(&server).await;
    assert!(!told.stores.online_store.reachable, "{:?}", told.stores);
    is_told(&told, Part::OnlineStore, "redis does not answer: ");
    let not_ready = async || Some(status(&server).await).filter(|told| !told.server.ready);
    let told = until("a server that is not ready", not_ready).await;
    is_told(&told, Part::Server, "the online store does not answer");
    is_told(&told, Part::OnlineStore, "redis does not answer: ");
    assert_eq!(told.troubles[0].part, Part::Server, "{:?}", told.troubles);
    redis.signal("CONT");
    let told = until("an online store that answers again", well).await;
    // What went wrong last is told for good.
    assert!(told.stores.online_store.last_error.is_some());
}

/// The latest run in the registry of a folder: when it began, and whether it ended.
async fn noted(registry: &std::path::Path) -> Option<(i64, bool)> {
    let options = SqliteConnectOptions::new().filename(registry);
    let mut connection = SqliteConnection::connect_with(&options).await.ok()?;
    let asked = "SELECT begun_us, ended_us IS NOT NULL FROM runs ORDER BY begun_us DESC LIMIT 1";
    sqlx::query_as(asked).fetch_optional(&mut connection).await.ok()?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_killed_has_died() {
    let repository = planes::repository();
    let lines =
        (0..200_000).map(|row| format!("P{row},2013-01-01T10:00:00Z,2013-01-01T10:00:00Z,5,100,UA\n"));
    repository.write("landings.csv", planes::LANDINGS.to_owned() + &lines.collect::<String>());
    let folder = repository.path();
    run(folder, &["apply"]).answer();
    let (registry, mut before) = (folder.join(".quern/registry.sqlite"), None);
    // A run that had ended when it was killed is no such run: once more.
    let begun_us = until("a run that is killed at work", async || {
        let mut process = command(folder, &["materialize", "--look-back", "36500d"]).spawn().unwrap();
        let begun = until("a run that begins", async || {
            let has_ended = process.try_wait().unwrap().is_some();
            noted(&registry).await.filter(|noted| has_ended || (Some(*noted) != before))
        });
        let _ = begun.await;
        let _ = process.kill();
        process.wait().unwrap();
        before = noted(&registry).await;
        before.filter(|(_, has_ended)| !has_ended).map(|(begun_us, _)| begun_us)
    })
    .await;

    let server = Process::start(folder);
    let client = Client::connect(&server.url).await.unwrap();
    let told = client.status().await.unwrap();
    let ran = view(&told, "plane_history").last_run.as_ref().unwrap();
    assert_eq!((ran.state, &ran.ended, ran.rows_written), (RunState::Died, &None, None));
    assert_ne!(ran.instance, told.server.instance);
    let began = chrono::DateTime::parse_from_rfc3339(&ran.began).unwrap().timestamp_micros();
    assert_eq!(began, begun_us);
    let [words] = &wrong(&told)[..] else { panic!("{:?}", told.troubles) };
    assert!(words.starts_with("FeatureView plane_history: its last run died: it began at "), "{words}");
    let metrics = reqwest::get(format!("{}/metrics", server.url)).await.unwrap().text().await.unwrap();
    assert_eq!(metric(&metrics, FAILED), Some(1.0));

    // The command says so, and again that all is well once another run has ended.
    let said = run(folder, &["status"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let first = "1 thing is wrong\n  feature view plane_history\n      its last run died: it began at ";
    assert!(said.stdout.starts_with(first), "{}", said.stdout);
    assert_eq!(run(folder, &["status", "--live"]).answer(), "");
    run(folder, &["materialize"]).answer();
    let said = run(folder, &["status"]).answer();
    assert!(said.starts_with("all is well\n\nserver        quern "), "{said}");
    let told = run(folder, &["status", "--json"]).json();
    assert_eq!((&told["healthy"], &told["troubles"]), (&Value::Bool(true), &Value::Array(Vec::new())));
    assert!(server.terminate().success());

    let said = run(folder, &["status"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert_eq!(run(folder, &["status", "--live"]).code, Some(2));
    assert!(said.stderr.contains("no server has the data folder"), "{}", said.stderr);
    let said = run(folder, &["status", "--json"]);
    assert_eq!(said.code, Some(2));
    assert_eq!(serde_json::from_str::<Value>(&said.stdout).unwrap()["code"], "unavailable");
}

/// Where servers share a head, the one that ran says that it is at it; no more of that for a minute, and it has died.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_another_server_is_at_it_until_it_says_nothing_any_more() {
    let (postgres, redis) = (Postgres::start().await, RedisServer::start(&[]));
    let repository = || {
        let repository = Repository::new(push::DEFINITIONS);
        repository.write("logins.csv", "card,at\n");
        let settings =
            format!("registry: {}\nonline: {}\nonline_timeout: 20s\n", postgres.url(), redis.url());
        repository.write("quern.yaml", settings);
        repository
    };
    let (here, there) = (repository(), repository());
    let node: Node = here.open_applied().await;
    let server = Server::of(here, node).await;
    // Whoever holds the log of a source keeps a run from going on that has begun.
    let mut holder = PgConnection::connect(&postgres.url()).await.unwrap();
    let held = "BEGIN; SELECT pg_advisory_xact_lock(731100582, \
                ('x' || encode(substr(sha256('payments'), 1, 4), 'hex'))::bit(32)::int)";
    sqlx::raw_sql(held).execute(&mut holder).await.unwrap();
    let other = Process::start(there.path());
    let asked = reqwest::Client::new().post(format!("{}/v1/materialize", other.url));
    let asking = tokio::spawn(asked.header("content-type", "application/json").body("{}").send());
    let running = |told: &ServerStatus| {
        told.feature_views.iter().find(|view| view.last_run.is_some()).map(|view| view.name.clone())
    };
    let name = until("a run of the other server", async || running(&status(&server).await)).await;
    let fresh = "UPDATE runs SET seen_us = (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT";
    postgres.execute(fresh).await;
    let told = status(&server).await;
    assert_eq!(state(&told, &name), Some(RunState::Running));
    assert_eq!(wrong(&told), [""; 0]);
    other.kill();
    asking.abort();
    postgres.execute(&format!("{fresh} - 61000000")).await;
    let told = status(&server).await;
    assert_eq!(state(&told, &name), Some(RunState::Died));
    let [words] = &wrong(&told)[..] else { panic!("{:?}", told.troubles) };
    assert!(words.starts_with(&format!("FeatureView {name}: its last run died: it began at ")), "{words}");
    drop(holder);
}

/// Servers that share a registry and have an online store each have runs of their own; without it they run on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_does_without_the_registry_and_is_noted_once_that_is_back() {
    let postgres = Postgres::start().await;
    let settings = [("registry", postgres.url())];
    let (here, there) = (planes::repository(), planes::repository());
    let node = here.open_applied_with(&settings).await;
    let other = there.open_with(&settings).await.unwrap();
    let (server, other) = (Server::of(here, node.clone()).await, Server::of(there, other).await);
    assert_eq!(wrong(&status(&server).await).len(), 1);

    postgres.hold();
    let summary = quern_kit::blocking(move || node.materialize_to(JANUARY_10_US)).await;
    assert_eq!(summary.views[0].rows_written, 3);
    let told = status(&server).await;
    assert!(!told.stores.registry.reachable);
    assert_eq!(state(&told, "plane_history"), Some(RunState::Done));
    assert_eq!(server.metric(FAILED).await, 0.0);
    let known = async || {
        let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
        let ended = "SELECT COUNT(*) FROM runs WHERE ended_us IS NOT NULL";
        sqlx::query_scalar::<_, i64>(ended).fetch_one(&mut connection).await.unwrap()
    };
    postgres.release();
    until("a run that is noted late", async || (known().await == 1).then_some(())).await;
    let told = status(&server).await;
    assert_eq!(state(&told, "plane_history"), Some(RunState::Done));
    assert_eq!(view(&told, "plane_history").last_run.as_ref().unwrap().rows_written, Some(3));
    // The head of the other one is not made yet, and nobody has run on it.
    let told = status(&other).await;
    let others = view(&told, "plane_history");
    assert_eq!((others.head, &others.last_run), (HeadState::Never, &None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_views_are_told_and_a_page_stays_a_page() {
    let mut definitions = planes::DEFINITIONS.split("---\nkind: FeatureService").next().unwrap().to_owned();
    for number in 1..10_000 {
        definitions += &format!(
            "---\nkind: FeatureView\nname: view_{number:04}\nentities: [plane]\nsource: landings\nfeatures: [{{name: seats}}]\n"
        );
    }
    let repository = Repository::new(&definitions);
    repository.write("landings.csv", planes::LANDINGS);
    let folder = repository.path();
    run(folder, &["apply"]).answer();
    let server = Process::start(folder);
    let told = Client::connect(&server.url).await.unwrap().status().await.unwrap();
    assert_eq!((told.feature_views.len(), told.troubles.len()), (10_000, 10_000));
    let said = run(folder, &["status"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stdout.starts_with("10,000 things are wrong\n"), "{}", said.stdout);
    assert!(said.stdout.lines().count() < 150, "{}", said.stdout);

    // A server that hangs is one that does not answer.
    server.hold();
    let said = run(folder, &["status"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert!(said.stderr.contains("has the data folder open and does not answer: "), "{}", said.stderr);
}
