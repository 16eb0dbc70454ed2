//! Which events does a topic of Kafka hold, from where we were?
//!
//! Every partition is read from the offset that was noted with its rows, not from what a consumer group says.
//! Partitions that are added later are found within a minute, and so are brokers that lead elsewhere by then. Servers
//! that share a log share the partitions, and note together where all of them begin.

mod asking;
mod references;
mod schemas;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feature_defs::{Start, StreamSource};
use quern_engine::json::{Json, micros};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::metadata::MetadataBroker;
use rdkafka::{Offset, TopicPartitionList};

use rdkafka::error::KafkaError;

use self::asking::{Asking, Client, Context, Questions};
use self::schemas::Schemas;
use super::{EVENTS_MAX, LAG_EVERY, LINGER, Reader, addresses, resolved};
use crate::batch::Batch;
use crate::error::{Error, Result};
use quern_server::streamed::Partitions;
use quern_server::verbs::push::{Position, StreamShare};

const TIMEOUT: Duration = Duration::from_secs(5);
/// How often partitions are looked for that were not there before.
const PARTITIONS_EVERY: Duration = Duration::from_secs(60);
/// Where a partition begins: at its first event, or the first that is still there.
const FIRST: i64 = 0;

/// Where a partition is read from.
#[derive(Clone)]
struct Place {
    /// The next offset.
    offset: i64,
    /// What is noted of it: the offset, and the `start` that led there until events were read.
    noted: Vec<u8>,
}

type Places = BTreeMap<i32, Place>;

impl Place {
    /// Where events before `offset` were read; or, where nothing was yet, which `start` led there.
    fn new(offset: i64, start: &str) -> Place {
        Place { offset, noted: [&offset.to_be_bytes()[..], start.as_bytes()].concat() }
    }

    /// What is noted of it.
    fn read(noted: &[u8]) -> Option<Place> {
        let offset = i64::from_be_bytes(*noted.first_chunk()?);
        Some(Place { offset, noted: noted.to_vec() })
    }

    /// The `start` that led there, empty once events were read.
    fn start(&self) -> &[u8] {
        self.noted.get(size_of::<i64>()..).unwrap_or_default()
    }

    /// Whether events of the partition were taken in.
    fn is_read(&self) -> bool {
        self.start().is_empty()
    }
}

/// Where reading begins.
struct Begun {
    /// Of the partitions that are this server's to read.
    places: Places,
    /// Whether events of any partition were taken in, by whichever server.
    ///
    /// It is as old as the reading. What was read stays read: an old `true` is one still. An old `false` passes nothing
    /// over. It holds back a batch of which no event is good, though another server has taken some in since; then
    /// reading begins anew, and finds that.
    is_read: bool,
}

/// Reads this server's share of the topic until something fails.
pub(super) async fn read(reader: &Reader, stream: &StreamSource, share: StreamShare) -> Result<()> {
    let mut schemas = Schemas::of(reader, stream);
    loop {
        let asking = Asking::of(stream).await?;
        let begun = begin(reader, stream, &asking, share).await?;
        if begun.places.is_empty() {
            // There are more servers than partitions.
            reader.reads_on();
            tokio::time::sleep(PARTITIONS_EVERY).await;
            continue;
        }
        read_for_a_while(reader, stream, (&asking, &mut schemas), begun).await?;
    }
}

/// Where each partition is read from that is this server's to read.
async fn begin(reader: &Reader, stream: &StreamSource, asking: &Asking, share: StreamShare) -> Result<Begun> {
    let questions = asking.questions().await?;
    let Topic { partitions, brokers } = topic(&questions, &stream.topic).await?;
    check(&brokers, stream).await?;
    let noted = reader.positions(partitions.iter().map(|it| part(stream, *it)).collect()).await?;
    let noted = partitions.iter().zip(noted).filter_map(|(it, noted)| Some((*it, noted?)));
    let noted: BTreeMap<i32, Vec<u8>> = noted.collect();
    let mut next: Places = noted.iter().filter_map(|(it, noted)| Some((*it, Place::read(noted)?))).collect();
    let is_read = next.values().any(Place::is_read);
    // Until anything was taken in, another `start` counts.
    let start = word(&stream.start);
    next.retain(|_, place| is_read || place.start() == start.as_bytes());
    let new: Vec<i32> = partitions.into_iter().filter(|it| !next.contains_key(it)).collect();
    if !new.is_empty() {
        let mut positions = Vec::new();
        for (partition, offset) in starts(&questions, stream, new, next.is_empty()).await? {
            let place = Place::new(offset, start);
            let (from, to) = (noted.get(&partition).cloned(), place.noted.clone());
            positions.push(Position { part: part(stream, partition), from, to });
            next.insert(partition, place);
        }
        // It is noted before anything is read, and of other servers' partitions as well: who begins again, or later,
        // begins there, though by then events were taken in and no other `start` counts.
        let place = |_: usize| String::new();
        reader.take(Batch { events: &[], place: &place, positions, way_past: None }).await?;
    }
    let all = next.len();
    let own = next.into_iter().enumerate().filter(|(index, _)| share.has(*index));
    let places: Places = own.map(|(_, partition)| partition).collect();
    let here: Vec<i32> = places.keys().copied().collect();
    reader.note(|known| {
        known.reads = !here.is_empty();
        known.waiting_events = known.waiting_events.filter(|_| known.reads);
        known.partitions = Some(Partitions { here, all });
    });
    Ok(Begun { places, is_read })
}

/// Where partitions begin of which nothing is noted that counts, as there is of none where they are `all`.
async fn starts(
    questions: &Questions,
    stream: &StreamSource,
    new: Vec<i32>,
    are_all: bool,
) -> Result<Vec<(i32, i64)>> {
    let first = |new: Vec<i32>| -> Result<Vec<(i32, i64)>> {
        Ok(new.into_iter().map(|partition| (partition, FIRST)).collect())
    };
    match &stream.start {
        Start::Latest if are_all => ends(questions, &stream.topic, new).await,
        // What comes into a partition that is added later comes after the start.
        Start::Earliest | Start::Latest => first(new),
        Start::At(at) => {
            let at = micros(&Json::String(at.as_str().into()), None);
            match at.ok_or_else(|| Error::refused("its `start` is no time"))? {
                // To Kafka, what is below zero is no time.
                ..=0 => first(new),
                at => at_time(questions, &stream.topic, (new, at.div_euclid(1_000))).await,
            }
        }
    }
}

/// What a start is called where it led somewhere.
fn word(start: &Start) -> &str {
    match start {
        Start::Earliest => "earliest",
        Start::Latest => "latest",
        Start::At(at) => at,
    }
}

/// Reads until it is time to look where the topic lies now.
async fn read_for_a_while(
    reader: &Reader,
    stream: &StreamSource,
    (asking, schemas): (&Asking, &mut Schemas),
    Begun { places: mut next, mut is_read }: Begun,
) -> Result<()> {
    let mut assignment = TopicPartitionList::new();
    for (partition, Place { offset, .. }) in &next {
        let begin = if *offset == FIRST { Offset::Beginning } else { Offset::Offset(*offset) };
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
            reader.note(|known| known.waiting_events = waiting);
            asked = Some(Instant::now());
        }
        let messages = receive(&consumer).await.map_err(|error| asking.failed(error))?;
        if messages.is_empty() {
            reader.reads_on();
            continue;
        }
        let events = loop {
            match schemas.read(&messages).await {
                Ok(events) => break events,
                Err(error) => reader.rest(&error).await,
            }
        };
        let place = |index: usize| {
            let message = &messages[index];
            format!("partition {}, offset {}", message.partition(), message.offset())
        };
        let ends = messages.iter().map(|message| (message.partition(), message.offset() + 1));
        let read = ends.map(|(partition, end)| (partition, Place::new(end, ""))).collect::<Places>();
        let positions = read.iter().map(|(partition, place)| Position {
            part: part(stream, *partition),
            from: next.get(partition).map(|before| before.noted.clone()),
            to: place.noted.clone(),
        });
        let positions = positions.collect();
        let way_past = (!is_read).then(|| way_past(&stream.start));
        reader.take(Batch { events: &events, place: &place, positions, way_past }).await?;
        is_read = true;
        next.extend(read);
    }
    Ok(())
}

/// How reading begins after events of which none is any good.
fn way_past(start: &Start) -> &'static str {
    match start {
        Start::Latest => "give as `start` a time after them",
        Start::Earliest | Start::At(_) => "say `start: latest` to begin after them",
    }
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

async fn topic(questions: &Questions, topic: &str) -> Result<Topic> {
    let name = topic.to_owned();
    let asked = questions.ask("asking Kafka for partitions", move |client: &Client| {
        let metadata = client.fetch_metadata(Some(&name), TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == name);
        let partitions = found.map(|topic| topic.partitions().iter().map(|p| p.id()).collect::<Vec<_>>());
        let broker =
            |it: &MetadataBroker| (it.host().to_owned(), u16::try_from(it.port()).unwrap_or_default());
        let brokers = metadata.brokers().iter().map(broker).collect();
        Ok(Topic { partitions: partitions.unwrap_or_default(), brokers })
    });
    let found = asked.await?;
    match found.partitions.is_empty() {
        false => Ok(found),
        true => {
            Err(Error::not_found(format!("Kafka has no topic `{topic}`, or does not show it to who asks")))
        }
    }
}

/// Where partitions end now.
async fn ends(questions: &Questions, topic: &str, partitions: Vec<i32>) -> Result<Vec<(i32, i64)>> {
    let topic = topic.to_owned();
    let asked = questions.ask("asking Kafka where partitions end", move |client: &Client| {
        let end = |partition: i32| {
            client.fetch_watermarks(&topic, partition, TIMEOUT).map(|(_, end)| (partition, end))
        };
        partitions.into_iter().map(end).collect()
    });
    asked.await
}

/// Where the events of a time, in milliseconds, begin; the end where there are none as late.
async fn at_time(
    questions: &Questions,
    topic: &str,
    (partitions, at): (Vec<i32>, i64),
) -> Result<Vec<(i32, i64)>> {
    let name = topic.to_owned();
    let found = questions.ask("asking Kafka for a time", move |client: &Client| {
        let mut times = TopicPartitionList::new();
        for partition in partitions {
            times.add_partition_offset(&name, partition, Offset::Offset(at))?;
        }
        let found = client.offsets_for_times(times, TIMEOUT)?;
        let offset = |offset: Offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        Ok(found.elements().iter().map(|it| (it.partition(), offset(it.offset()))).collect::<Vec<_>>())
    });
    let found = found.await?;
    let none = found.iter().filter(|(_, offset)| offset.is_none()).map(|(it, _)| *it).collect();
    let ends = ends(questions, topic, none).await?;
    Ok(found.into_iter().filter_map(|(it, offset)| Some((it, offset?))).chain(ends).collect())
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
async fn waiting(consumer: Arc<StreamConsumer<Context>>, topic: String, next: Places) -> Option<u64> {
    let asking = tokio::task::spawn_blocking(move || {
        let of_partition = |(partition, next): (i32, Place)| {
            let (first, end) = consumer.fetch_watermarks(&topic, partition, TIMEOUT).ok()?;
            Some(u64::try_from(end - next.offset.max(first)).unwrap_or(0))
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
