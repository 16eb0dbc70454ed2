//! Who is asked for a look-up, and whose answer counts?
//!
//! The primary, unless the URL says otherwise. With `replicas=prefer` a replica, and the primary where that fails or is
//! too far behind ([`replicas`](super::replicas)). With `hedge` another copy is asked as well where the first one has
//! not answered by then, and whichever answers first is believed; where there is no other copy, the primary over a
//! second connection. Of a Redis that is slow because it has too much to do, one look-up in ten at most is asked twice.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::future::{Either, select, try_join};
use quern_engine::ViewId;
use quern_engine::windows::Kept;
use redis::RedisResult;
use tokio::time::timeout;

use super::link::Link;
use super::replicas::Replica;
use super::{Connected, Names, Redis, WRITE_PATIENCE};
use crate::error::{Error, Kind, Result};
use crate::metrics::metrics;
use crate::rocks::Wanted;

/// How many look-ups earn a hedge, and how many hedges can be saved up.
const LOOK_UPS_PER_HEDGE: u32 = 10;
const HEDGES_SAVED_MAX: u32 = 10;
/// How long no replica of a cluster is asked after one did not answer in time.
const REPLICAS_REST: Duration = Duration::from_secs(1);

/// What a look-up found.
pub struct Answer {
    /// The stored rows, in the order of what was wanted.
    pub stored: Vec<Option<Vec<u8>>>,
    /// What is kept, for certain, in these rows of the events of each view that was asked about.
    pub kept: Vec<Option<Arc<Kept>>>,
}

/// What a look-up asks for.
struct Asked<'a> {
    keys: Keys,
    /// The views of which it must be known what is kept.
    windows: &'a [ViewId],
}

/// Which connection to the primary, or to the primaries of a cluster.
#[derive(Clone, Copy)]
enum Way {
    First,
    Second,
}

impl Redis {
    /// The stored rows of `wanted`, in its order, in one round for each server asked; and what is kept of the events of
    /// each of `windows`.
    ///
    /// # Errors
    /// `Kind::Unavailable` where there is no answer within the deadline.
    pub async fn look_up(&self, wanted: &Wanted, windows: &[ViewId]) -> Result<Answer> {
        let asked = &Asked { keys: Keys::of(&self.names, wanted), windows };
        self.hedges.earn();
        // What a replica leaves of the time.
        let rest = self.deadline - self.replica_patience();
        if let Some(replica) = self.replicas.as_ref().and_then(|replicas| replicas.choose()) {
            let second = self.ask_primary(asked, Way::First, rest);
            return self.first_of(self.ask_replica(&replica, asked), second, true).await;
        }
        let rested = || *self.replicas_rest_until.read() <= Instant::now();
        if self.address.cluster && self.address.replicas && rested() {
            let second = self.ask_primary(asked, Way::First, rest);
            return self.first_of(self.ask_cluster(asked), second, true).await;
        }
        let second =
            self.ask_primary(asked, Way::Second, self.deadline - self.address.hedge.unwrap_or_default());
        self.first_of(self.ask_primary(asked, Way::First, self.deadline), second, false).await
    }

    /// The answer of `first`; or of `second`, which is asked where `first` is slow, and also where it fails if that
    /// says nothing of the second.
    async fn first_of(
        &self,
        first: impl Future<Output = Result<Answer>>,
        second: impl Future<Output = Result<Answer>>,
        falls_back: bool,
    ) -> Result<Answer> {
        let mut first = pin!(first);
        let count = |what: &str| metrics().online_store_hedges.with_label_values(&[what]).inc();
        let ended = match self.address.hedge {
            None => first.await,
            Some(after) => match timeout(after, &mut first).await {
                Ok(ended) => ended,
                Err(_) if !self.hedges.spend() => {
                    count("denied");
                    first.await
                }
                Err(_) => {
                    return match select(first, pin!(second)).await {
                        Either::Left((Ok(answer), _)) => {
                            count("lost");
                            Ok(answer)
                        }
                        Either::Left((Err(_), second)) => second.await,
                        Either::Right((Ok(answer), _)) => {
                            count("won");
                            Ok(answer)
                        }
                        Either::Right((Err(_), first)) => first.await,
                    };
                }
            },
        };
        match ended {
            Err(error) if falls_back && error.kind() == Kind::Unavailable => second.await,
            ended => ended,
        }
    }

    async fn ask_primary(&self, asked: &Asked<'_>, way: Way, patience: Duration) -> Result<Answer> {
        let got = async |connected: Arc<Connected>| {
            // No more than so many at once hold buffers; the others hold a place in the line.
            let _permit = self.in_flight.acquire().await;
            let link = match (way, &connected.spare) {
                (Way::Second, Some(spare)) => spare,
                _ => &connected.reads,
            };
            asked.keys.get(link).await
        };
        self.with_kept(asked.windows, self.ask(patience, got)).await
    }

    /// Rows as `stored` reads them, and what is kept in them as this server knows it.
    async fn with_kept(
        &self,
        windows: &[ViewId],
        stored: impl Future<Output = Result<Vec<Option<Vec<u8>>>>>,
    ) -> Result<Answer> {
        let until = if windows.is_empty() { None } else { Some(self.freshen_kept().await?) };
        // Before the tiles: what is said to be kept is in them, then.
        let kept = windows.iter().map(|view| self.kept(*view)).collect();
        let stored = stored.await?;
        if until.is_some_and(|until| Instant::now() > until) {
            return Err(Error::unavailable("the online store took too long; other tiles may be kept by now"));
        }
        Ok(Answer { stored, kept })
    }

    /// Everything from one replica, as of one moment there.
    async fn ask_replica(&self, replica: &Replica, asked: &Asked<'_>) -> Result<Answer> {
        let count = |what: &str| metrics().online_store_replica_reads.with_label_values(&[what]).inc();
        let read = async {
            let _permit = self.in_flight.acquire().await;
            replica.read(&self.names, asked.windows, &asked.keys.somebodys()).await
        };
        let read = timeout(self.replica_patience(), read).await;
        let failure = match read {
            Ok(Ok(read)) if self.replicas.as_ref().is_some_and(|all| all.is_recent(read.beat)) => {
                count("answered");
                return Ok(Answer { stored: asked.keys.placed(read.stored), kept: read.kept });
            }
            Ok(Ok(_)) => {
                count("behind");
                "is too far behind the primary".to_owned()
            }
            Ok(Err(error)) => {
                count("failed");
                format!("cannot be asked: {error}")
            }
            Err(_) => {
                count("failed");
                format!("did not answer within {} ms", self.replica_patience().as_millis())
            }
        };
        replica.set_aside();
        Err(Error::unavailable(format!("the replica {} of the online store {failure}", replica.name)))
    }

    /// Of a cluster: rows from replicas, and tiles from primaries, since what is kept of events is noted on another
    /// shard than most tiles, of which a replica may be further behind.
    async fn ask_cluster(&self, asked: &Asked<'_>) -> Result<Answer> {
        let connected = self.connected()?;
        let stored = async {
            let _permit = self.in_flight.acquire().await;
            match timeout(self.replica_patience(), self.spread(&connected, asked)).await {
                Ok(stored) => stored.map_err(|error| self.explain(&error)),
                Err(_) => {
                    *self.replicas_rest_until.write() = Instant::now() + REPLICAS_REST;
                    Err(self.slow(self.replica_patience()))
                }
            }
        };
        let answer = self.with_kept(asked.windows, stored).await;
        let result = if answer.is_ok() { "answered" } else { "failed" };
        metrics().online_store_replica_reads.with_label_values(&[result]).inc();
        answer
    }

    async fn spread(&self, connected: &Connected, asked: &Asked<'_>) -> RedisResult<Vec<Option<Vec<u8>>>> {
        let keys = asked.keys.somebodys();
        let has_tiles =
            |key: &[u8]| self.names.view_of(key).is_some_and(|view| asked.windows.contains(&view));
        let (tiles, rows): (Vec<usize>, Vec<usize>) =
            (0..keys.len()).partition(|place| has_tiles(keys[*place]));
        let pick = |places: &[usize]| places.iter().map(|place| keys[*place]).collect::<Vec<_>>();
        let replicas = connected.replicas.as_ref().unwrap_or(&connected.reads);
        let (found_tiles, found_rows) =
            try_join(get(&connected.reads, &pick(&tiles)), get(replicas, &pick(&rows))).await?;
        let mut stored = vec![None; keys.len()];
        let places = tiles.into_iter().chain(rows.iter().copied());
        places
            .zip(found_tiles.into_iter().chain(found_rows))
            .for_each(|(place, found)| stored[place] = found);
        // While a slot moves, a replica lacks what its primary says where to find.
        let lacking: Vec<usize> = rows.into_iter().filter(|place| stored[*place].is_none()).collect();
        let found = get(&connected.reads, &pick(&lacking)).await?;
        lacking.into_iter().zip(found).for_each(|(place, found)| stored[place] = found);
        Ok(asked.keys.placed(stored))
    }

    /// How long a replica has; the rest of the deadline is the primary's.
    fn replica_patience(&self) -> Duration {
        self.deadline / 2
    }

    /// What is stored, for those who write, and have more patience.
    pub fn get_many(&self, wanted: &Wanted) -> Result<Vec<Option<Vec<u8>>>> {
        let keys = Keys::of(&self.names, wanted);
        let asked = async |connected: Arc<Connected>| keys.get(&connected.writes).await;
        self.wait(self.ask(WRITE_PATIENCE, asked))
    }
}

async fn get(link: &Link, keys: &[&[u8]]) -> RedisResult<Vec<Option<Vec<u8>>>> {
    if keys.is_empty() { Ok(Vec::new()) } else { link.get(keys).await }
}

/// Keys as they lie in Redis. A row without one is nobody's: its key is empty.
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    fn of(names: &Names, wanted: &Wanted) -> Keys {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(wanted.len());
        for key in wanted.iter() {
            if !key.is_empty() {
                bytes.extend_from_slice(&names.rows);
                bytes.extend_from_slice(key);
            }
            ends.push(bytes.len());
        }
        Keys { bytes, ends }
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    fn somebodys(&self) -> Vec<&[u8]> {
        self.iter().filter(|key| !key.is_empty()).collect()
    }

    /// What was found at somebody's keys, each at the place of its key.
    fn placed(&self, found: Vec<Option<Vec<u8>>>) -> Vec<Option<Vec<u8>>> {
        let mut found = found.into_iter();
        self.iter().map(|key| if key.is_empty() { None } else { found.next().flatten() }).collect()
    }

    async fn get(&self, link: &Link) -> RedisResult<Vec<Option<Vec<u8>>>> {
        Ok(self.placed(get(link, &self.somebodys()).await?))
    }
}

/// Look-ups that were asked once and have not been made up for, up to a limit: what hedges are paid with.
#[derive(Default)]
pub(super) struct Budget(AtomicU32);

impl Budget {
    fn earn(&self) {
        let more = |saved| (saved < LOOK_UPS_PER_HEDGE * HEDGES_SAVED_MAX).then_some(saved + 1);
        // What is full stays full.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether there is enough for one more.
    fn spend(&self) -> bool {
        let less = |saved: u32| saved.checked_sub(LOOK_UPS_PER_HEDGE);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_up_in_ten_is_asked_twice() {
        let budget = Budget::default();
        let hedged = (0..1_000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert_eq!(hedged.count(), 100);
        (0..1_000).for_each(|_| budget.earn());
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 10);
    }
}
