//! Which events does a topic of Kafka hold, from where we were?
//!
//! Every partition is read from the offset that was noted with its rows, not from what a consumer group says.
//! Partitions that are added later are found within a minute, and so are brokers that lead elsewhere by then.

mod asking;
mod schemas;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feature_defs::{Start, StreamSource};
use quern_engine::json::{Json, micros};
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::metadata::MetadataBroker;
use rdkafka::{Offset, TopicPartitionList};

use rdkafka::error::KafkaError;

use self::asking::{Asking, Context, hear};
use self::schemas::Schemas;
use super::{EVENTS_MAX, LAG_EVERY, LINGER, Reader, addresses, resolved};
use crate::error::{Error, Result};
use quern_server::verbs::push::Position;

const TIMEOUT: Duration = Duration::from_secs(5);
/// How often partitions are looked for that were not there before.
const PARTITIONS_EVERY: Duration = Duration::from_secs(60);

/// The next offset of each partition; none where nothing of it was read yet.
type Offsets = BTreeMap<i32, Option<i64>>;

/// Reads the topic until something fails.
pub(super) async fn read(reader: &Reader, stream: &StreamSource) -> Result<()> {
    let mut schemas = Schemas::of(stream);
    loop {
        let asking = Asking::of(stream).await?;
        let next = begin(reader, stream, &asking).await?;
        read_for_a_while(reader, stream, (&asking, &mut schemas), next).await?;
    }
}

/// Where each partition is read from.
async fn begin(reader: &Reader, stream: &StreamSource, asking: &Asking) -> Result<Offsets> {
    let Topic { partitions, brokers } = topic(asking.clone(), stream.topic.clone()).await?;
    check(&brokers, stream).await?;
    let mut next = Offsets::new();
    for partition in partitions {
        let known = reader.position(&part(stream, partition)).await?;
        next.insert(partition, known.and_then(|bytes| bytes.try_into().ok()).map(i64::from_be_bytes));
    }
    let is_new = next.values().all(Option::is_none);
    let new: Vec<i32> = next.iter().filter(|(_, offset)| offset.is_none()).map(|(it, _)| *it).collect();
    let started = match &stream.start {
        // What comes into a partition that is added later comes after the start.
        Start::Latest if is_new => ends(asking.clone(), stream.topic.clone(), new).await?,
        Start::At(at) if !new.is_empty() => {
            let at = micros(&Json::String(at.as_str().into()), None);
            let at = at.ok_or_else(|| Error::refused("its `start` is no time"))?;
            at_time(asking.clone(), stream.topic.clone(), (new, at.div_euclid(1_000))).await?
        }
        _ => return Ok(next),
    };
    // It is noted before anything is read: who begins again begins there.
    let bytes = |offset: i64| offset.to_be_bytes().to_vec();
    let positions = started.iter().map(|(partition, offset)| Position {
        part: part(stream, *partition),
        from: None,
        to: bytes(*offset),
    });
    reader.take(&[], positions.collect()).await?;
    next.extend(started.into_iter().map(|(partition, offset)| (partition, Some(offset))));
    Ok(next)
}

/// Reads until it is time to look where the topic lies now.
async fn read_for_a_while(
    reader: &Reader,
    stream: &StreamSource,
    (asking, schemas): (&Asking, &mut Schemas),
    mut next: Offsets,
) -> Result<()> {
    let mut assignment = TopicPartitionList::new();
    for (partition, offset) in &next {
        let begin = offset.map_or(Offset::Beginning, Offset::Offset);
        assignment
            .add_partition_offset(&stream.topic, *partition, begin)
            .map_err(|error| asking.failed(error))?;
    }
    let consumer: Arc<StreamConsumer<Context>> = Arc::new(asking.client()?);
    consumer.assign(&assignment).map_err(|error| asking.failed(error))?;
    let mut asked = None::<Instant>;
    let until = Instant::now() + PARTITIONS_EVERY;
    while Instant::now() < until {
        if asked.is_none_or(|at| at.elapsed() >= LAG_EVERY) {
            let waiting = waiting(Arc::clone(&consumer), stream.topic.clone(), next.clone()).await;
            reader.note(|stream| stream.waiting_events = waiting);
            asked = Some(Instant::now());
        }
        let messages = receive(&consumer).await.map_err(|error| asking.failed(error))?;
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
                part: part(stream, *partition),
                from: before[partition].map(bytes),
                to: bytes((*to)?),
            })
        });
        let events = loop {
            match schemas.read(&messages).await {
                Ok(events) => break events,
                Err(error) => reader.rest(&error).await,
            }
        };
        reader.reads_on();
        reader.take(&events, positions.collect()).await?;
    }
    Ok(())
}

/// What a partition is called in what was read: another topic begins anew.
fn part(stream: &StreamSource, partition: i32) -> String {
    format!("{}/{partition}", stream.topic)
}

/// Where a topic lies, as the brokers say it.
struct Topic {
    partitions: Vec<i32>,
    /// Host and port of each.
    brokers: Vec<(String, u16)>,
}

async fn topic(asking: Asking, topic: String) -> Result<Topic> {
    blocking("asking Kafka for partitions", asking, move |consumer, asking| {
        let metadata = consumer.fetch_metadata(Some(&topic), TIMEOUT);
        let metadata = metadata.map_err(|error| {
            hear(consumer);
            asking.failed(error)
        })?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found.map(|topic| topic.partitions().iter().map(|p| p.id()).collect::<Vec<_>>());
        let partitions = partitions.filter(|partitions| !partitions.is_empty()).ok_or_else(|| {
            Error::not_found(format!("Kafka has no topic `{topic}`, or does not show it to who asks"))
        })?;
        let broker =
            |it: &MetadataBroker| (it.host().to_owned(), u16::try_from(it.port()).unwrap_or_default());
        Ok(Topic { partitions, brokers: metadata.brokers().iter().map(broker).collect() })
    })
    .await
}

/// Where partitions end now.
async fn ends(asking: Asking, topic: String, partitions: Vec<i32>) -> Result<Vec<(i32, i64)>> {
    blocking("asking Kafka where partitions end", asking, move |consumer, asking| {
        let end = |partition: i32| {
            let (_, end) =
                consumer.fetch_watermarks(&topic, partition, TIMEOUT).map_err(|e| asking.failed(e))?;
            Ok((partition, end))
        };
        partitions.into_iter().map(end).collect()
    })
    .await
}

/// Where the events of a time, in milliseconds, begin; the end where there are none as late.
async fn at_time(
    asking: Asking,
    topic: String,
    (partitions, at): (Vec<i32>, i64),
) -> Result<Vec<(i32, i64)>> {
    let asked = asking.clone();
    let found = blocking("asking Kafka for a time", asking, move |consumer, asking| {
        let mut times = TopicPartitionList::new();
        for partition in partitions {
            times
                .add_partition_offset(&topic, partition, Offset::Offset(at))
                .map_err(|e| asking.failed(e))?;
        }
        let found = consumer.offsets_for_times(times, TIMEOUT).map_err(|error| asking.failed(error))?;
        let offset = |offset: Offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        let found =
            found.elements().iter().map(|it| (it.partition(), offset(it.offset()))).collect::<Vec<_>>();
        Ok((topic, found))
    });
    let (topic, found) = found.await?;
    let none = found.iter().filter(|(_, offset)| offset.is_none()).map(|(it, _)| *it).collect();
    let ends = ends(asked, topic, none).await?;
    Ok(found.into_iter().filter_map(|(it, offset)| Some((it, offset?))).chain(ends).collect())
}

/// Asks by a client of its own, on a thread that may wait.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    asking: Asking,
    ask: impl FnOnce(&BaseConsumer<Context>, &Asking) -> Result<T> + Send + 'static,
) -> Result<T> {
    let asked = tokio::task::spawn_blocking(move || ask(&asking.waiting()?, &asking));
    asked.await.map_err(|error| Error::internal(what, error))?
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
async fn waiting(consumer: Arc<StreamConsumer<Context>>, topic: String, next: Offsets) -> Option<u64> {
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
async fn receive(consumer: &StreamConsumer<Context>) -> std::result::Result<Vec<OwnedMessage>, KafkaError> {
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
