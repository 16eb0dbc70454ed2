//! Which events does a stream of Redis hold, from where we were? The field `json` of an entry is the event.

use feature_defs::StreamSource;
use redis::AsyncCommands;
use redis::streams::{StreamReadOptions, StreamReadReply};

use super::{EVENTS_MAX, Reader};
use crate::error::{Error, Result};
use quern_server::verbs::push::Position;

/// How long an empty stream is waited for, ms.
const BLOCK_MS: usize = 1_000;
/// The one part of a stream.
const PART: &str = "stream";
const FIELD: &str = "json";

/// Reads the stream until something fails.
pub(super) async fn read(reader: &Reader, stream: &StreamSource) -> Result<()> {
    let failed = |error: redis::RedisError| Error::unavailable("Redis").because(error);
    let client = redis::Client::open(stream.servers.as_str()).map_err(failed)?;
    // Waiting for entries is no failure.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection =
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)?;
    let options = StreamReadOptions::default().count(EVENTS_MAX).block(BLOCK_MS);
    let mut from = reader.position(PART).await?;
    loop {
        let id = from.as_deref().map_or("0", |id| std::str::from_utf8(id).unwrap_or("0")).to_owned();
        let reply: Option<StreamReadReply> =
            connection.xread_options(&[&stream.topic], &[id], &options).await.map_err(failed)?;
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        let entries: Vec<_> = entries.collect();
        let Some(last) = entries.last() else { continue };
        let to = last.id.as_bytes().to_vec();
        let events: Vec<Vec<u8>> = entries.iter().map(|entry| entry.get(FIELD).unwrap_or_default()).collect();
        let position = Position { part: PART.to_owned(), from: from.take(), to: to.clone() };
        reader.take(&events, vec![position]).await?;
        from = Some(to);
    }
}
