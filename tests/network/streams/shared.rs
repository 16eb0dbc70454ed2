//! Do servers that share a log share the partitions of a topic, and does each event count once, whoever comes and goes?

use std::collections::BTreeSet;
use std::fs::{self, File};

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use quern::Client;
use quern::wire::{Part, PartitionsStatus, StreamStatus};
use quern_kit::{Process, Repository, Server, blocking, metric, until};

use super::held::{apply, called, rejected};
use super::{Kafka, definitions, event, until_counted};
use crate::network::shared::{LATER_US, Shared};

/// Lets no server know of another that reads a stream: its time is over when it says so.
const ALONE: &str = "CREATE FUNCTION is_over() RETURNS trigger LANGUAGE plpgsql AS \
                     $$ BEGIN NEW.until := now() - interval '1 second'; RETURN NEW; END $$; \
                     CREATE TRIGGER is_over BEFORE INSERT OR UPDATE ON stream_readers \
                     FOR EACH ROW EXECUTE FUNCTION is_over()";

/// Events that are sent one after the other.
struct Sending<'k> {
    kafka: &'k Kafka,
    sent: u64,
}

impl Sending<'_> {
    /// Sends so many more, and gives how many there are by now.
    fn more(&mut self, count: u64) -> i64 {
        self.kafka.send(&(self.sent..self.sent + count).map(event).collect::<Vec<_>>());
        self.sent += count;
        self.sent as i64
    }
}

/// How the stream is at the server that this client asks.
async fn stream(client: &Client) -> StreamStatus {
    client.status().await.unwrap().sources.remove(0).stream.unwrap()
}

/// The partitions that each of these servers reads, once each is one's and they are spread evenly.
async fn until_shared(clients: &[&Client], partitions: i32) -> Vec<Vec<i32>> {
    let all: Vec<i32> = (0..partitions).collect();
    until("partitions that are shared", async || {
        let mut here = Vec::new();
        for client in clients {
            here.push(stream(client).await.partitions?.here);
        }
        let mut read = here.concat();
        read.sort_unstable();
        let counts = || here.iter().map(Vec::len);
        (read == all && counts().max()? - counts().min()? < 2).then_some(here)
    })
    .await
}

/// Two servers of this process.
async fn two_servers(shared: &Shared) -> [Server; 2] {
    let (here, there) = (shared.repository(), shared.repository());
    let (one, other) = (here.open().await, there.open().await);
    [Server::of(here, one).await, Server::of(there, other).await]
}

/// A server in a process of its own, and who asks it.
async fn start(repository: &Repository) -> (Process, Client) {
    let folder = repository.path().to_owned();
    let server = blocking(move || Process::start(&folder)).await;
    let client = Client::connect(server.url.clone()).await.unwrap();
    (server, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_partitions_and_one_that_dies_takes_no_event_with_it() {
    let kafka = Kafka::with_partitions(4);
    let shared = Shared::start(&definitions("kafka", &kafka.servers())).await;
    let mut sending = Sending { kafka: &kafka, sent: 0 };
    let repositories = [shared.repository(), shared.repository(), shared.repository()];
    let (first, first_client) = start(&repositories[0]).await;
    let (second, second_client) = start(&repositories[1]).await;
    until_shared(&[&first_client, &second_client], 4).await;
    let sent = sending.more(400);
    for client in [&first_client, &second_client] {
        until_counted(client.url(), sent).await;
    }

    let (_third, third_client) = start(&repositories[2]).await;
    until_shared(&[&first_client, &second_client, &third_client], 4).await;
    // Whoever dies came before the others, each of which has another place then.
    (0..20).for_each(|_| _ = sending.more(100));
    first.kill();
    let sent = sending.more(400);
    for client in [&second_client, &third_client] {
        until_counted(client.url(), sent).await;
    }
    until_shared(&[&second_client, &third_client], 4).await;

    // Nobody waits for one that has said that it ends.
    assert!(blocking(move || second.terminate()).await.success());
    let readers = "SELECT COUNT(*) FROM stream_readers WHERE until > now()";
    assert_eq!(shared.postgres.number(readers).await, 1);
    until_shared(&[&third_client], 4).await;
    let sent = sending.more(100);
    until_counted(third_client.url(), sent).await;

    let node = shared.repository().open().await;
    node.materialize_to(LATER_US);
    assert_eq!(node.pushed_rows("payments") as i64, sent);
    let rows = node.history("payments");
    let times = rows.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>();
    let times: BTreeSet<&i64> = times.values().iter().collect();
    assert_eq!((rows.num_rows() as i64, times.len() as i64), (sent, sent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_do_not_know_of_one_another_count_each_event_once_and_complain_of_nothing() {
    let kafka = Kafka::with_partitions(4);
    let shared = Shared::start(&definitions("kafka", &kafka.servers())).await;
    shared.postgres.execute(ALONE).await;
    let repositories = [shared.repository(), shared.repository()];
    let log_of = |repository: &Repository| repository.path().join("server.log");
    let mut servers = Vec::new();
    for repository in &repositories {
        let environment = [("QUERN_LOG", "warn,quern_streams=debug".to_owned())];
        let (folder, log) = (repository.path().to_owned(), File::create(log_of(repository)).unwrap());
        servers.push(blocking(move || Process::start_logged(&folder, &environment, log)).await);
    }
    let logs = || repositories.each_ref().map(|repository| fs::read_to_string(log_of(repository)).unwrap());
    let mut sending = Sending { kafka: &kafka, sent: 0 };
    for server in &servers {
        let client = Client::connect(server.url.clone()).await.unwrap();
        until_shared(&[&client], 4).await;
    }
    let was_late = |log: &String| log.contains("was read on already");
    until("a server that another one is faster than", async || {
        sending.more(20);
        logs().iter().any(was_late).then_some(())
    })
    .await;
    let sent = sending.more(100);
    for server in &servers {
        until_counted(&server.url, sent).await;
        let client = Client::connect(server.url.clone()).await.unwrap();
        assert_eq!(stream(&client).await.cause, None);
        let metrics = reqwest::get(format!("{}/metrics", server.url)).await.unwrap().text().await.unwrap();
        assert_eq!(metric(&metrics, "quern_stream_errors_total{source=\"payments\"}"), None);
    }
    for log in logs() {
        let is_told = |line: &&str| line.contains(" ERROR quern") || line.contains(" WARN quern_streams");
        assert_eq!(log.lines().find(is_told), None, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_partition_waits_until_there_is_one() {
    let kafka = Kafka::with_partitions(1);
    let shared = Shared::start(&definitions("kafka", &kafka.servers())).await;
    let mut sending = Sending { kafka: &kafka, sent: 0 };
    let servers = two_servers(&shared).await;
    let here = until_shared(&[&servers[0].client, &servers[1].client], 1).await;
    let [reads, waits] = match here[0].is_empty() {
        true => {
            let [waits, reads] = servers;
            [reads, waits]
        }
        false => servers,
    };
    let stream_there = stream(&waits.client).await;
    assert_eq!((stream_there.reads, stream_there.waiting_events, stream_there.cause), (false, None, None));
    assert_eq!(stream_there.partitions, Some(PartitionsStatus { here: Vec::new(), all: 1 }));
    let status = waits.client.status().await.unwrap();
    assert!(status.troubles.iter().all(|trouble| trouble.part != Part::Source), "{:?}", status.troubles);
    let sent = sending.more(100);
    until_counted(waits.client.url(), sent).await;
    reads.stop().await;
    until_shared(&[&waits.client], 1).await;
    let sent = sending.more(100);
    until_counted(waits.client.url(), sent).await;
}

/// That nothing is passed over until an event was good holds for the stream, whichever server reads which partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_events_wait_for_a_good_one_at_whichever_server() {
    let kafka = Kafka::with_partitions(2);
    let good = called("held_shared", &definitions("kafka", &kafka.servers()));
    let misspelt = good
        .replace("event_timestamp: at\n", "event_timestamp: time\n")
        .replace("{name: at,", "{name: time,");
    let shared = Shared::start(&misspelt).await;
    // Those of one partition will be good, those of the other never.
    let events = (0..100).map(|number| if number % 2 == 0 { event(number) } else { "no JSON".to_owned() });
    kafka.send(&events.collect::<Vec<_>>());
    let servers = two_servers(&shared).await;
    let here = until_shared(&[&servers[0].client, &servers[1].client], 2).await;
    for (server, here) in servers.iter().zip(here) {
        let held = format!("so none is passed over yet: partition {}, offset 0: ", here[0]);
        let is_held = async || stream(&server.client).await.cause.filter(|cause| cause.contains(&held));
        until("events that are held", is_held).await;
    }
    assert_eq!(rejected(&servers[0]).await, 0);

    apply(&servers[0], &good).await;
    for server in &servers {
        until_counted(server.client.url(), 50).await;
        let is_well = async || stream(&server.client).await.cause.is_none().then_some(());
        until("a stream that is read", is_well).await;
    }
    // Both servers are of this process, and count together.
    until("events left behind", async || (rejected(&servers[0]).await == 50).then_some(())).await;
}
