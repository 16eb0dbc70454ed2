//! How do commands reach the server, or the right server of a cluster?
//!
//! A single server is a cluster of one shard. To a cluster, commands go in one pipeline for each shard. Which shard has
//! which slot is a guess that a server corrects: what was sent to the wrong one is sent again command by command, and
//! the client follows wherever the slots went.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_read_routing::RandomReplicaStrategy;
use redis::cluster_routing::{MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, Pipeline, RedisError, RedisResult,
    ServerErrorKind, TlsCertificates, Value,
};

use super::address::Address;
use super::cluster::{Cluster, slot};
use super::reply::{bytes, sound, unexpected};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Keys of one `MGET`: a server answers nobody else meanwhile.
pub(super) const MGET_KEYS: usize = 1_000;
/// Requests that the client of a cluster tries once more, as when a slot has moved.
const CLUSTER_RETRIES: u32 = 3;

/// A connection that many use at once.
#[derive(Clone)]
pub(super) enum Link {
    /// To a single server.
    One(MultiplexedConnection),
    /// To the servers of a cluster.
    Cluster(Arc<Cluster>),
}

impl Link {
    /// Connects; every reply is awaited for at most `patience`.
    pub(super) async fn connect(address: &Address, patience: Duration) -> RedisResult<Link> {
        let servers = address.connections().map_err(wrong)?;
        if address.cluster {
            return Link::cluster(address, patience, SlotAddr::Master).await;
        }
        let Some(name) = address.watched() else {
            let server = servers.into_iter().next().ok_or_else(|| wrong("names no server".to_owned()))?;
            return Ok(Link::One(one(address, server, patience).await?));
        };
        let mut failed = RedisError::from((ErrorKind::InvalidClientConfig, "no Sentinel is named"));
        for sentinel in servers {
            let asked = async {
                let (host, port) = master(&mut one(address, sentinel, patience).await?, name).await?;
                let server = address.at(&host, port).map_err(wrong)?;
                let mut connection = one(address, server, patience).await?;
                is_master(&mut connection).await?;
                RedisResult::Ok(connection)
            };
            match asked.await {
                Ok(connection) => return Ok(Link::One(connection)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Connects to a cluster, of which a replica is asked for what is stored at keys, if the client is connected to one
    /// of the shard's, else the primary.
    pub(super) async fn connect_to_replicas(address: &Address, patience: Duration) -> RedisResult<Link> {
        Link::cluster(address, patience, SlotAddr::ReplicaOptional).await
    }

    async fn cluster(address: &Address, patience: Duration, member: SlotAddr) -> RedisResult<Link> {
        let servers = address.connections().map_err(wrong)?;
        // What a replica does not answer at once its primary is asked for.
        let asks_replicas = matches!(member, SlotAddr::ReplicaOptional);
        let mut builder = ClusterClient::builder(servers)
            .retries(if asks_replicas { 0 } else { CLUSTER_RETRIES })
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(patience);
        if let Some(certificates) = certificates(address)? {
            builder = builder.certs(certificates);
        }
        if asks_replicas {
            builder = builder.read_routing_strategy(RandomReplicaStrategy);
        }
        Ok(Link::Cluster(Arc::new(Cluster::connect(builder.build()?, member).await?)))
    }

    /// Sends one command to where its keys lie.
    pub(super) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let value = match self {
            Link::One(connection) => connection.clone().send_packed_command(command).await?,
            // The client finds the keys among the arguments.
            Link::Cluster(cluster) => cluster.lane(1).await?.0.req_packed_command(command).await?,
        };
        sound(value)
    }

    /// What is stored at `keys`, in their order.
    pub(super) async fn get(&self, keys: &[&[u8]]) -> RedisResult<Vec<Option<Vec<u8>>>> {
        match self {
            Link::One(connection) => {
                let mut found = Vec::with_capacity(keys.len());
                let mut pipeline = Pipeline::with_capacity(keys.len().div_ceil(MGET_KEYS));
                for some in keys.chunks(MGET_KEYS) {
                    let command = pipeline.cmd("MGET");
                    some.iter().for_each(|key| {
                        command.arg(*key);
                    });
                }
                let mut connection = connection.clone();
                for reply in connection.send_packed_commands(&pipeline, 0, pipeline.len()).await? {
                    let Value::Array(values) = sound(reply)? else { return Err(unexpected()) };
                    for value in values {
                        found.push(bytes(value)?);
                    }
                }
                if found.len() == keys.len() { Ok(found) } else { Err(unexpected()) }
            }
            Link::Cluster(..) => {
                let command = |key: &[u8]| {
                    let mut command = redis::cmd("GET");
                    command.arg(key);
                    command
                };
                let commands = keys.iter().map(|key| (slot(key), command(key))).collect();
                let replies = self.everywhere(commands).await?;
                replies.into_iter().map(bytes).collect()
            }
        }
    }

    /// Sends commands, each to the server of its slot, in one pipeline for each; the replies are in their order. Where
    /// `first` is given, it goes ahead of each pipeline.
    pub(super) async fn send(&self, commands: Vec<(u16, Cmd)>, first: &Cmd) -> RedisResult<Vec<Value>> {
        match self {
            Link::One(connection) => {
                let mut pipeline = Pipeline::with_capacity(commands.len() + 1);
                pipeline.add_command(first.clone());
                commands.into_iter().for_each(|(_, command)| {
                    pipeline.add_command(command);
                });
                let mut connection = connection.clone();
                let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
                let replies = replies.into_iter().map(sound).collect::<RedisResult<Vec<_>>>()?;
                Ok(replies.into_iter().skip(1).collect())
            }
            Link::Cluster(cluster) => {
                // A few hundred bytes to each server: cheaper than keeping track of who has them.
                let route = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let (mut connection, lane) = cluster.lane(self.shards()).await?;
                connection.route_command(first.clone(), route).await?;
                drop(lane);
                self.everywhere(commands).await
            }
        }
    }

    /// Of a cluster: sends each command to its shard.
    async fn everywhere(&self, commands: Vec<(u16, Cmd)>) -> RedisResult<Vec<Value>> {
        let Link::Cluster(cluster) = self else { return Err(unexpected()) };
        let known = Arc::clone(&cluster.shards.read());
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); known.slots.len()];
        for (place, (slot, _)) in commands.iter().enumerate() {
            places[usize::from(known.of_slot[usize::from(*slot)])].push(place);
        }
        let to_shard = async |shard: usize| -> RedisResult<Vec<(usize, Value)>> {
            let places = &places[shard];
            let mut pipeline = Pipeline::with_capacity(places.len());
            places.iter().for_each(|place| {
                pipeline.add_command(commands[*place].1.clone());
            });
            let route = SingleNodeRoutingInfo::SpecificNode(Route::new(known.slots[shard], cluster.member));
            let (mut connection, lane) = cluster.lane(1).await?;
            let replies = connection.route_pipeline(pipeline, 0, places.len(), route).await;
            drop(lane);
            match replies.and_then(|replies| replies.into_iter().map(sound).collect::<RedisResult<Vec<_>>>())
            {
                Ok(replies) => Ok(places.iter().copied().zip(replies).collect()),
                Err(error) if has_moved(&error) => self.one_by_one(places, &commands).await,
                Err(error) => Err(error),
            }
        };
        let asked = (0..places.len()).filter(|shard| !places[*shard].is_empty()).map(to_shard);
        let mut replies: Vec<(usize, Value)> = try_join_all(asked).await?.into_iter().flatten().collect();
        replies.sort_unstable_by_key(|(place, _)| *place);
        if replies.len() != commands.len() {
            return Err(unexpected());
        }
        Ok(replies.into_iter().map(|(_, value)| value).collect())
    }

    /// Slots are on the move: the client follows them for each command.
    async fn one_by_one(
        &self,
        places: &[usize],
        commands: &[(u16, Cmd)],
    ) -> RedisResult<Vec<(usize, Value)>> {
        let each = places.iter().map(async |place| Ok((*place, self.command(&commands[*place].1).await?)));
        let replies = try_join_all(each).await;
        if let Link::Cluster(cluster) = self {
            cluster.look_again().await?;
        }
        replies
    }

    /// Sends the same command to each server that takes writes.
    pub(super) async fn each_master(&self, command: &Cmd) -> RedisResult<Vec<(usize, Value)>> {
        let shards = self.shards();
        let replies =
            (0..shards).map(async |shard| Ok((shard, self.on_master(shard, command.clone()).await?)));
        try_join_all(replies).await
    }

    /// Sends a command to one of the servers that take writes.
    pub(super) async fn on_master(&self, shard: usize, command: Cmd) -> RedisResult<Value> {
        let Link::Cluster(cluster) = self else { return self.command(&command).await };
        let slot = cluster.shards.read().slots.get(shard).copied();
        let route = Route::new(slot.ok_or_else(unexpected)?, SlotAddr::Master);
        let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
        let (mut connection, _lane) = cluster.lane(1).await?;
        sound(connection.route_command(command, route).await?)
    }

    /// How many servers take writes.
    pub(super) fn shards(&self) -> usize {
        match self {
            Link::One(_) => 1,
            Link::Cluster(cluster) => cluster.shards.read().slots.len(),
        }
    }

    /// Whether keys of one script must be of one slot.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Link::Cluster(..))
    }
}

/// Connects to one server; every reply is awaited for at most `patience`.
pub(super) async fn one(
    address: &Address,
    server: ConnectionInfo,
    patience: Duration,
) -> RedisResult<MultiplexedConnection> {
    let client = match certificates(address)? {
        Some(certificates) => Client::build_with_tls(server, certificates)?,
        None => Client::open(server)?,
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(patience));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// What vouches for a server, where that is not left to the system.
fn certificates(address: &Address) -> RedisResult<Option<TlsCertificates>> {
    let Some(path) = &address.ca else { return Ok(None) };
    let root = std::fs::read(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(root) }))
}

/// What the URL says cannot be used.
pub(super) fn wrong(cause: String) -> RedisError {
    (ErrorKind::InvalidClientConfig, "address", cause).into()
}

/// Asks a Sentinel where the master called `name` is.
async fn master(sentinel: &mut MultiplexedConnection, name: &str) -> RedisResult<(String, u16)> {
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let found: Option<(String, u16)> = command.query_async(sentinel).await?;
    found.ok_or_else(|| {
        let cause = format!("it watches no master `{name}`");
        (ErrorKind::InvalidClientConfig, "the Sentinel does not know", cause).into()
    })
}

/// A Sentinel may not have heard yet that a master is one no more; what it would answer is old.
async fn is_master(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let Value::Array(role) = sound(connection.send_packed_command(&redis::cmd("ROLE")).await?)? else {
        return Err(unexpected());
    };
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(()),
        _ => Err((ErrorKind::Server(ServerErrorKind::ReadOnly), "the server is no master any more").into()),
    }
}

/// Whether a server says that a key lies elsewhere, or will in a moment.
fn has_moved(error: &RedisError) -> bool {
    let moved = [ServerErrorKind::Moved, ServerErrorKind::Ask, ServerErrorKind::TryAgain];
    matches!(error.kind(), ErrorKind::Server(kind) if moved.contains(&kind))
}
