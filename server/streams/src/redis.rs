//! Which events does a stream of Redis hold, from where we were? The field `json` of an entry is the event.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use feature_defs::{Server, StreamSource};
use futures::FutureExt;
use redis::io::AsyncDNSResolver;
use redis::streams::{StreamInfoStreamReply, StreamRangeReply, StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, RedisFuture};

use super::{EVENTS_MAX, LAG_EVERY, Reader, addresses};
use crate::batch::Batch;
use crate::error::{Error, Result};
use quern_decode::json::event;
use quern_server::streamed::Stream;
use quern_server::verbs::push::{Position, StreamShare};

/// How long an empty stream is waited for, ms.
const BLOCK_MS: usize = 1_000;
const FIELD: &str = "json";
/// How reading begins after entries of which none is any good.
const WAY_PAST: &str = "take them out of the stream (`XTRIM`)";

/// Reads the stream until something fails. It is one part, which one server reads; the others wait.
pub(super) async fn read(reader: &Reader, stream: &StreamSource, share: StreamShare) -> Result<()> {
    if !share.has(0) {
        reader.note(|known| *known = Stream::default());
        return std::future::pending().await;
    }
    reader.note(|known| known.reads = true);
    let failed = |error: redis::RedisError| Error::unavailable("Redis").because(error);
    let client = redis::Client::open(stream.servers.as_str()).map_err(failed)?;
    // Waiting for entries is no failure.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let config = config.set_dns_resolver(Resolver(stream.reaches.clone()));
    let mut connection =
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)?;
    let options = StreamReadOptions::default().count(EVENTS_MAX).block(BLOCK_MS);
    let mut from = reader.positions(vec![stream.topic.clone()]).await?.pop().flatten();
    let mut asked: Option<Instant> = None;
    loop {
        if asked.is_none_or(|at| at.elapsed() >= LAG_EVERY) {
            let last: StreamRangeReply =
                connection.xrevrange_count(&stream.topic, "+", "-", 1).await.map_err(failed)?;
            let last = last.ids.first().map(|last| last.id.as_str());
            let read = from.as_deref().and_then(|id| std::str::from_utf8(id).ok());
            // Entries may be deleted, and yet no later one has a smaller id than these had.
            if let Some((read, _)) = read.zip(last).filter(|(read, last)| id(last) < id(read)) {
                let told: StreamInfoStreamReply =
                    connection.xinfo_stream(&stream.topic).await.map_err(failed)?;
                if id(&told.last_generated_id) < id(read) {
                    return Err(Error::refused(format!(
                        "it was made anew: its entries end at {}, and were read up to {read}; call it otherwise, there and as \
                         `topic`, to have it read from its beginning",
                        told.last_generated_id
                    )));
                }
            }
            let behind = behind(read, last);
            reader.note(|stream| {
                stream.behind = behind;
                stream.waiting_events =
                    behind.filter(|_| last.map(str::as_bytes) == from.as_deref()).map(|_| 0);
            });
            asked = Some(Instant::now());
        }
        let after = from.as_deref().map_or("0", |id| std::str::from_utf8(id).unwrap_or("0")).to_owned();
        let reply: Option<StreamReadReply> =
            connection.xread_options(&[&stream.topic], &[after], &options).await.map_err(failed)?;
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        let entries: Vec<_> = entries.collect();
        let Some(last) = entries.last() else {
            reader.reads_on();
            continue;
        };
        let to = last.id.as_bytes().to_vec();
        let events: Vec<Option<Vec<u8>>> = entries.iter().map(|entry| entry.get(FIELD)).collect();
        let lacking = || Err(format!("the entry has no field `{FIELD}`"));
        let events: Vec<_> =
            events.iter().map(|text| text.as_ref().map_or_else(lacking, |text| event(text))).collect();
        let place = |index: usize| format!("entry {}", entries[index].id);
        // Where nothing is noted, nothing was ever taken in.
        let way_past = from.is_none().then_some(WAY_PAST);
        let positions = vec![Position { part: stream.topic.clone(), from: from.take(), to: to.clone() }];
        reader.take(Batch { events: &events, place: &place, positions, way_past }).await?;
        from = Some(to);
    }
}

/// Leads to the server that a connection names, whatever else the stream's URL could be read as.
struct Resolver(Vec<Server>);

impl AsyncDNSResolver for Resolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _host: &'b str,
        _port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        let resolving = addresses(&self.0).map(|found| Ok(Box::new(found?.into_iter()) as Box<_>));
        resolving.boxed()
    }
}

/// The two numbers of an id, by which entries are in order.
fn id(text: &str) -> Option<(u64, u64)> {
    let (ms, sequence) = text.split_once('-')?;
    Some((ms.parse().ok()?, sequence.parse().ok()?))
}

/// How far the entry that was read last lies behind the stream's last one: an id begins with its time in milliseconds,
/// unless who added it chose another. None where nothing was read yet of what there is.
fn behind(read: Option<&str>, last: Option<&str>) -> Option<Duration> {
    match last {
        None => Some(Duration::ZERO),
        Some(last) => Some(Duration::from_millis(id(last)?.0.saturating_sub(id(read?)?.0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_how_far_reading_is_behind() {
        let ms = |read, last| behind(read, last).map(|behind| behind.as_millis());
        assert_eq!(ms(None, None), Some(0));
        assert_eq!(ms(None, Some("5-0")), None);
        assert_eq!(ms(Some("1700000000000-3"), Some("1700000001500-0")), Some(1_500));
        assert_eq!(ms(Some("1700000000000-3"), Some("1700000000000-9")), Some(0));
    }
}
