//! Is anything lost where the definition of a stream is wrong at first?

use quern_kit::{RedisServer, Repository, Server, until};

use super::{Kafka, add, definitions, event, until_counted};

/// Why a stream cannot be read, once it cannot.
async fn trouble(server: &Server) -> String {
    let told = async || Some(server.client.status().await.unwrap()).filter(|told| !told.healthy);
    until("a stream that is held", told).await.troubles.remove(0).cause
}

async fn until_well(server: &Server) {
    let well = async || {
        let told = server.client.status().await.unwrap();
        (told.healthy && told.sources[0].stream.as_ref()?.waiting_events == Some(0)).then_some(())
    };
    until("a stream that is read", well).await;
}

pub(super) async fn rejected(server: &Server) -> u64 {
    server.client.status().await.unwrap().sources[0].pushed.unwrap().rejected
}

/// The same definitions of a source that no other test counts rows of.
pub(super) fn called(name: &str, definitions: &str) -> String {
    let source = definitions.replace("name: payments\nstream", &format!("name: {name}\nstream"));
    source.replace("source: payments", &format!("source: {name}"))
}

/// Applies other definitions.
pub(super) async fn apply(server: &Server, definitions: &str) {
    server.repository.write("definitions.yaml", definitions);
    server.apply().await.unwrap();
}

/// Where the column of the time is misspelt, nothing is passed over, whoever begins again, until it is not.
async fn nothing_is_lost(broker: &str, servers: &str, place: &str, mut send: impl FnMut(Vec<String>)) {
    let good = called(&format!("held_{broker}"), &definitions(broker, servers));
    let misspelt = good
        .replace("event_timestamp: at\n", "event_timestamp: time\n")
        .replace("{name: at,", "{name: time,");
    let repository = Repository::new(&misspelt);
    send((0..300).map(event).collect());
    let node = repository.open_applied().await;
    let mut server = Server::of(repository, node).await;
    for _ in 0..2 {
        let cause = trouble(&server).await;
        let is_held = cause.starts_with("its stream cannot be read, and is tried again: all of the first ");
        let wanted = "column `time`: the event timestamp is null; mend the definition, or ";
        assert!(is_held && cause.contains(place) && cause.contains(wanted), "{cause}");
        assert_eq!(rejected(&server).await, 0);
        server = Server::open(server.stop_and_keep().await).await;
    }
    apply(&server, &good).await;
    until_counted(server.client.url(), 300).await;
    until_well(&server).await;
    // Once any was good, one that is not is left behind.
    send(vec!["no JSON".to_owned(), "[1]".to_owned(), "[2]".to_owned()]);
    until("events that are left behind", async || (rejected(&server).await == 3).then_some(())).await;
    send((300..400).map(event).collect());
    until_counted(server.client.url(), 400).await;
    until_well(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_kafka_wait_for_a_definition_that_is_right() {
    let kafka = Kafka::start();
    nothing_is_lost("kafka", &kafka.servers(), "partition ", |events| kafka.send(&events)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_redis_wait_for_a_definition_that_is_right() {
    let redis = RedisServer::start(&[]);
    let mut connection = redis.connection();
    nothing_is_lost("redis", &redis.url(), "entry ", |events| add(&mut connection, &events)).await;
}

/// What came before the first good event is passed over with it, or by another `start`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_held_are_left_by_another_start_or_a_good_one() {
    let kafka = Kafka::start();
    let all = called("held_start", &definitions("kafka", &kafka.servers()));
    let begun = |start: &str| all.replace("topic: payments}", &format!("topic: payments, start: {start}}}"));
    let bad = |number: u64| format!("{{\"card\": {number}}}");
    kafka.send(&(0..30).map(bad).collect::<Vec<_>>());
    let repository = Repository::new(&begun("1969-12-31T00:00:00Z"));
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    let cause = trouble(&server).await;
    let wanted =
        "offset 0: column `at`: the event timestamp is null; mend the definition, or say `start: latest`";
    assert!(cause.contains(wanted), "{cause}");
    apply(&server, &begun("latest")).await;
    until_well(&server).await;
    assert_eq!(rejected(&server).await, 0);
    kafka.send(&[bad(0)]);
    let cause = trouble(&server).await;
    let wanted = "all of the first 1 events were refused, so none is passed over yet: partition 0, offset 10: column \
                  `at`: the event timestamp is null; mend the definition, or give as `start` a time after them";
    assert!(cause.ends_with(wanted), "{cause}");
    kafka.send(&(0..30).map(event).collect::<Vec<_>>());
    until_counted(server.client.url(), 30).await;
    until_well(&server).await;
    assert_eq!(rejected(&server).await, 1);
}
