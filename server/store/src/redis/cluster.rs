//! Which server of a cluster has which slot, and how much is asked of them at once?

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::try_join_all;
use parking_lot::RwLock;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{ErrorKind, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::reply::{sound, unexpected};

const SLOTS: usize = 16_384;
/// Clients of a cluster, and requests that each has on its way. While a client asks who has which slots, it moves no
/// request on; one that was given what the client shares, as it is once the task has used up what tokio lets it do in
/// one go (128 such steps, of which a request takes up to five), keeps it from asking, for good.
const LANES: usize = 4;
const LANE_REQUESTS: u32 = 20;

/// What is known of a cluster.
pub(super) struct Cluster {
    lanes: Vec<(ClusterConnection, Semaphore)>,
    next_lane: AtomicUsize,
    pub(super) shards: RwLock<Arc<Shards>>,
    /// Whom of a shard commands go to that are sent together.
    pub(super) member: SlotAddr,
}

/// Which shard has which slot.
pub(super) struct Shards {
    pub(super) of_slot: Vec<u16>,
    /// A slot of each shard.
    pub(super) slots: Vec<u16>,
}

impl Cluster {
    /// What a client knows that is built by `client`.
    pub(super) async fn connect(client: ClusterClient, member: SlotAddr) -> RedisResult<Cluster> {
        let connections = try_join_all((0..LANES).map(|_| client.get_async_connection())).await?;
        let shards = shards(&mut connections[0].clone()).await?;
        let lane = |connection| (connection, Semaphore::new(LANE_REQUESTS as usize));
        Ok(Cluster {
            lanes: connections.into_iter().map(lane).collect(),
            next_lane: AtomicUsize::new(0),
            shards: RwLock::new(Arc::new(shards)),
            member,
        })
    }

    /// Asks who has which slots now.
    pub(super) async fn look_again(&self) -> RedisResult<()> {
        let (mut connection, _lane) = self.lane(1).await?;
        let shards = shards(&mut connection).await?;
        *self.shards.write() = Arc::new(shards);
        Ok(())
    }

    /// A client that may be sent `requests` more, for as long as the permit is held.
    pub(super) async fn lane(
        &self,
        requests: usize,
    ) -> RedisResult<(ClusterConnection, SemaphorePermit<'_>)> {
        let (connection, free) = &self.lanes[self.next_lane.fetch_add(1, Ordering::Relaxed) % LANES];
        let requests = (requests as u32).min(LANE_REQUESTS);
        let lane = free.acquire_many(requests).await.map_err(|_| unexpected())?;
        Ok((connection.clone(), lane))
    }
}

/// The slot of a key that is hashed as a whole: CRC-16/XMODEM, as the cluster's specification has it.
pub(super) fn slot(key: &[u8]) -> u16 {
    let crc = key.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS as u16
}

/// Asks a server of the cluster who has which slots.
async fn shards(connection: &mut ClusterConnection) -> RedisResult<Shards> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let Value::Array(ranges) = sound(connection.route_command(command, route).await?)? else {
        return Err(unexpected());
    };
    let (mut of_slot, mut slots, mut masters) = (vec![0; SLOTS], Vec::new(), Vec::new());
    for range in ranges {
        let Value::Array(parts) = range else { return Err(unexpected()) };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &parts[..] else {
            return Err(unexpected());
        };
        let (first, last) = match (u16::try_from(*first), usize::try_from(*last)) {
            (Ok(first), Ok(last)) if usize::from(first) <= last && last < SLOTS => (first, last),
            _ => return Err(unexpected()),
        };
        // Host and port; what follows is not the same in every reply.
        let master = master.iter().take(2).cloned().collect::<Vec<_>>();
        let shard = masters.iter().position(|known| *known == master).unwrap_or_else(|| {
            masters.push(master);
            slots.push(first);
            masters.len() - 1
        });
        of_slot[usize::from(first)..=last].fill(shard as u16);
    }
    if slots.is_empty() {
        return Err(
            (ErrorKind::Server(ServerErrorKind::ClusterDown), "no server of the cluster has a slot").into()
        );
    }
    Ok(Shards { of_slot, slots })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b""), 0);
    }
}
