//! Which events does a topic of Kafka hold, from where we were?
//!
//! Every partition is read from the offset that was noted with its rows, not from what a consumer group says.
//! Partitions that are added later are found within a minute, and so are brokers that lead elsewhere by then.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feature_defs::StreamSource;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::metadata::MetadataBroker;
use rdkafka::{Offset, TopicPartitionList};

use super::{EVENTS_MAX, LAG_EVERY, LINGER, Reader, addresses, resolved};
use crate::error::{Error, Result};
use quern_server::verbs::push::Position;

const TIMEOUT: Duration = Duration::from_secs(5);
/// How often partitions are looked for that were not there before.
const PARTITIONS_EVERY: Duration = Duration::from_secs(60);

impl From<KafkaError> for Error {
    fn from(error: KafkaError) -> Self {
        Error::unavailable("Kafka").because(error)
    }
}

/// Reads the topic until something fails.
pub(super) async fn read(reader: &Reader, stream: &StreamSource) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("group.id", "quern").set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
    loop {
        // By address: the client would ask again what a name means.
        let found = addresses(&stream.reaches).await.map_err(refused)?;
        let found: Vec<String> = found.iter().map(SocketAddr::to_string).collect();
        config.set("bootstrap.servers", found.join(","));
        let Topic { partitions, brokers } = topic(config.clone(), stream.topic.clone()).await?;
        check(&brokers, stream).await?;
        let mut next: BTreeMap<i32, Option<i64>> = BTreeMap::new();
        let mut assignment = TopicPartitionList::new();
        for partition in partitions {
            let known = reader.position(&partition.to_string()).await?;
            let offset = known.and_then(|bytes| bytes.try_into().ok()).map(i64::from_be_bytes);
            let begin = offset.map_or(Offset::Beginning, Offset::Offset);
            assignment.add_partition_offset(&stream.topic, partition, begin)?;
            next.insert(partition, offset);
        }
        let consumer: StreamConsumer = config.create()?;
        consumer.assign(&assignment)?;
        let (consumer, mut asked) = (Arc::new(consumer), None::<Instant>);
        let until = Instant::now() + PARTITIONS_EVERY;
        while Instant::now() < until {
            if asked.is_none_or(|at| at.elapsed() >= LAG_EVERY) {
                let waiting = waiting(Arc::clone(&consumer), stream.topic.clone(), next.clone()).await;
                reader.note(|stream| stream.waiting_events = waiting);
                asked = Some(Instant::now());
            }
            let messages = receive(&consumer).await?;
            reader.reads_on();
            if messages.is_empty() {
                continue;
            }
            let before = next.clone();
            for message in &messages {
                next.insert(message.partition(), Some(message.offset() + 1));
            }
            let moved = next.iter().filter(|(partition, to)| before[*partition] != **to);
            let positions = moved.filter_map(|(partition, to)| {
                let bytes = |offset: i64| offset.to_be_bytes().to_vec();
                Some(Position {
                    part: partition.to_string(),
                    from: before[partition].map(bytes),
                    to: bytes((*to)?),
                })
            });
            let events: Vec<&[u8]> = messages.iter().map(|m| m.payload().unwrap_or_default()).collect();
            reader.take(&events, positions.collect()).await?;
        }
    }
}

/// Where a topic lies, as the brokers say it.
struct Topic {
    partitions: Vec<i32>,
    /// Host and port of each.
    brokers: Vec<(String, u16)>,
}

async fn topic(config: ClientConfig, topic: String) -> Result<Topic> {
    let asking = tokio::task::spawn_blocking(move || -> Result<Topic> {
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(Some(&topic), TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found.map(|topic| topic.partitions().iter().map(|p| p.id()).collect::<Vec<_>>());
        let partitions = partitions
            .filter(|partitions| !partitions.is_empty())
            .ok_or_else(|| Error::not_found(format!("Kafka has no topic `{topic}`")))?;
        let broker =
            |it: &MetadataBroker| (it.host().to_owned(), u16::try_from(it.port()).unwrap_or_default());
        Ok(Topic { partitions, brokers: metadata.brokers().iter().map(broker).collect() })
    });
    asking.await.map_err(|error| Error::internal("asking Kafka for partitions", error))?
}

/// Refuses brokers that lead where no connection does. The client then asks once more which brokers there are, and what
/// their names mean: it has no hook that could be asked, so who answers otherwise then is followed for a minute.
async fn check(brokers: &[(String, u16)], stream: &StreamSource) -> Result<()> {
    let hosts = brokers.iter().map(|(host, port)| (host.as_str(), *port));
    resolved(hosts, &stream.reaches).await.map(drop).map_err(refused)
}

fn refused(error: std::io::Error) -> Error {
    Error::unavailable("Kafka").because(error)
}

/// How many messages there are from `next` on; none where Kafka does not say.
async fn waiting(
    consumer: Arc<StreamConsumer>,
    topic: String,
    next: BTreeMap<i32, Option<i64>>,
) -> Option<u64> {
    let asking = tokio::task::spawn_blocking(move || {
        let of_partition = |(partition, next): (i32, Option<i64>)| {
            let (first, end) = consumer.fetch_watermarks(&topic, partition, TIMEOUT).ok()?;
            Some(u64::try_from(end - next.unwrap_or(first).max(first)).unwrap_or(0))
        };
        next.into_iter().map(of_partition).sum()
    });
    asking.await.ok()?
}

/// The messages that come until there are many, or none for a moment.
async fn receive(consumer: &StreamConsumer) -> Result<Vec<OwnedMessage>> {
    let mut messages = Vec::new();
    while messages.len() < EVENTS_MAX {
        let patience = if messages.is_empty() { TIMEOUT } else { LINGER };
        match tokio::time::timeout(patience, consumer.recv()).await {
            Ok(message) => messages.push(message?.detach()),
            Err(_) => break,
        }
    }
    Ok(messages)
}
