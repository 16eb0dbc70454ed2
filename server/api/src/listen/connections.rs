//! Which connections are there?

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quern_base::metrics::{IntCounterVec, IntGauge, counters, gauge};
use quern_server::settings::Settings;
use tokio::sync::watch;

use super::end::End;
use super::sweep::{Limits, Standing, Verdict, is_stuck, verdict};

/// As many descriptors, or a quarter of them where that is more, are not for connections: files of the stores, models,
/// what is asked of other servers.
const DESCRIPTORS_KEPT: usize = 256;

struct Metrics {
    open: IntGauge,
    let_go: IntCounterVec,
}

fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
        open: gauge("quern_connections", "Connections that are open"),
        let_go: counters(
            "quern_connections_let_go_total",
            "Connections that were not let in or were closed by the server: `full` (no place for it), `place` (another \
             took it), `head`, `idle`, `age`, `reader` (a reply was not read)",
            &["why"],
        ),
    });
    &METRICS
}

fn let_go(why: &str) {
    metrics().let_go.with_label_values(&[why]).inc();
}

/// All connections of a server.
#[derive(Debug)]
pub(in super::super) struct Connections {
    pub(super) limits: Limits,
    pub(super) max: usize,
    pub(super) per_address_max: usize,
    trusted: Vec<IpAddr>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: HashMap<u64, Arc<Connection>>,
    by_address: HashMap<IpAddr, usize>,
}

impl Connections {
    pub(in super::super) fn new(settings: &Settings) -> Arc<Connections> {
        Arc::new(Connections::of(settings))
    }

    pub(super) fn of(settings: &Settings) -> Connections {
        let descriptors = descriptors();
        Connections {
            limits: Limits::of(settings),
            max: settings.connections_max.min(descriptors),
            per_address_max: settings.connections_per_address_max.min(descriptors / 2),
            trusted: settings.trusted_proxies.clone(),
            open: Mutex::default(),
        }
    }

    /// Lets a client in, in the place of one that does nothing where there is no other; none where all are at work. Who
    /// comes over the Unix socket has no address, and is counted with all.
    pub(super) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Admitted> {
        let mut open = self.open.lock();
        let is_crowd = address.is_some_and(|address| {
            let of_address = open.by_address.get(&address).copied().unwrap_or_default();
            of_address >= self.per_address_max && !self.trusted.contains(&address)
        });
        if is_crowd || open.all.len() >= self.max {
            let idlest = open
                .all
                .values()
                .filter(|connection| !is_crowd || connection.address == address)
                .filter_map(|connection| Some((connection.does_nothing()?, Reverse(connection.number))))
                .max();
            let Some((_, Reverse(number))) = idlest else {
                let_go("full");
                return None;
            };
            let_go("place");
            if let Some(connection) = open.remove(number) {
                connection.sentence(Verdict::Cut);
            }
        }
        let number = open.next;
        open.next += 1;
        let connection = Arc::new(Connection::new(number, address, self.limits));
        open.all.insert(number, Arc::clone(&connection));
        if let Some(address) = address {
            *open.by_address.entry(address).or_default() += 1;
        }
        metrics().open.set(open.all.len() as i64);
        Some(Admitted { connection, of: Arc::clone(self) })
    }

    /// Lets those go that only hold on. `is_full` says that memory for requests is used up.
    pub(super) fn sweep(&self, is_full: bool) {
        let all: Vec<Arc<Connection>> = self.open.lock().all.values().cloned().collect();
        all.iter().for_each(|connection| connection.judge(is_full));
    }

    /// Closes all that answer nothing, and the others when they have.
    pub(super) fn close_all(&self) {
        for connection in self.open.lock().all.values() {
            connection.sentence(Verdict::Close);
        }
    }
}

impl Open {
    fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        let connection = self.all.remove(&number)?;
        if let Some(address) = connection.address
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
        metrics().open.set(self.all.len() as i64);
        Some(connection)
    }
}

/// How many descriptors there are for connections.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let all = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    // Where there is no limit, or none that can be read, the settings are the limit.
    let all = all.and_then(|all| all.parse::<usize>().ok());
    all.map_or(usize::MAX, |all| all.saturating_sub(DESCRIPTORS_KEPT.max(all / 4)).max(1))
}

/// A connection that was let in, until it ends.
pub(super) struct Admitted {
    pub(super) connection: Arc<Connection>,
    of: Arc<Connections>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.of.open.lock().remove(self.connection.number);
    }
}

/// One connection. Times are milliseconds since it was opened; 0 where something is not so.
#[derive(Debug)]
pub(super) struct Connection {
    address: Option<IpAddr>,
    number: u64,
    limits: Limits,
    opened: Instant,
    /// Since when there is a part of a head.
    head: AtomicU64,
    /// Since when no request is under way.
    idle: AtomicU64,
    requests: AtomicUsize,
    has_asked: AtomicBool,
    replies: Mutex<Vec<Arc<Waits>>>,
    verdict: watch::Sender<Verdict>,
}

/// Since when a reply waits for its client, and what ends it.
#[derive(Debug, Default)]
struct Waits {
    client: AtomicU64,
    end: OnceLock<End>,
}

impl Connection {
    fn new(number: u64, address: Option<IpAddr>, limits: Limits) -> Connection {
        Connection {
            address,
            number,
            limits,
            opened: Instant::now(),
            head: AtomicU64::new(0),
            idle: AtomicU64::new(1),
            requests: AtomicUsize::new(0),
            has_asked: AtomicBool::new(false),
            replies: Mutex::default(),
            verdict: watch::Sender::new(Verdict::Keep),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn verdicts(&self) -> watch::Receiver<Verdict> {
        self.verdict.subscribe()
    }

    fn now(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64 + 1
    }

    /// How long it has been so since then, which is 0 where it is not.
    fn since(&self, then: u64) -> Option<Duration> {
        (then > 0).then(|| Duration::from_millis(self.now().saturating_sub(then)))
    }

    /// Notes that a part of a request's head came, or of what follows a head.
    pub(super) fn has_read(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 {
            // The first byte of a head counts, and not what comes after it.
            let _ = self.head.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Notes that a handshake begins. One that does not end is let go as half a head is.
    pub(super) fn begins_handshake(&self) {
        self.head.store(self.now(), Ordering::Relaxed);
    }

    /// Notes that the handshake is over: nothing of a request has come yet.
    pub(super) fn has_shaken_hands(&self) {
        self.head.store(0, Ordering::Relaxed);
        self.idle.store(self.now(), Ordering::Relaxed);
    }

    /// Notes that a request has come, which ends with its [`Exchange`].
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.has_asked.store(true, Ordering::Relaxed);
        self.head.store(0, Ordering::Relaxed);
        let waits = Arc::new(Waits::default());
        self.replies.lock().push(Arc::clone(&waits));
        Exchange { connection: Arc::clone(self), waits }
    }

    /// Whether half a head is all there is of it, whether it has never asked anything, and for how long it has done
    /// nothing: the greatest is missed least. None where it is at work.
    fn does_nothing(&self) -> Option<(bool, bool, Duration)> {
        let Standing { requests, idle, head, .. } = self.standing();
        let has_asked = self.has_asked.load(Ordering::Relaxed);
        (requests == 0).then_some((head.is_some(), !has_asked, idle))
    }

    fn standing(&self) -> Standing {
        let requests = self.requests.load(Ordering::Relaxed);
        let idle = self.since(self.idle.load(Ordering::Relaxed)).unwrap_or_default();
        let head = self.since(self.head.load(Ordering::Relaxed));
        Standing { age: self.opened.elapsed(), requests, idle, head }
    }

    fn judge(&self, is_full: bool) {
        let standing = self.standing();
        let replies: Vec<Arc<Waits>> = self.replies.lock().clone();
        for reply in replies {
            let unread = self.since(reply.client.load(Ordering::Relaxed)).unwrap_or_default();
            if is_stuck(unread, &self.limits, is_full) {
                match reply.end.get() {
                    Some(end) => end.tell(),
                    None => _ = self.sentence(Verdict::Cut),
                }
                let_go("reader");
            }
        }
        let judged = verdict(&standing, &self.limits);
        let why = match (judged, standing.requests, standing.head) {
            (Verdict::Keep, ..) => return,
            (_, 0, Some(_)) => "head",
            (_, 0, None) if standing.idle > self.limits.idle => "idle",
            _ => "age",
        };
        if self.sentence(judged) {
            let_go(why);
        }
    }

    /// Whether this is news to it.
    fn sentence(&self, verdict: Verdict) -> bool {
        self.verdict.send_if_modified(|before| {
            let is_news = *before != verdict && *before != Verdict::Cut;
            if is_news {
                *before = verdict;
            }
            is_news
        })
    }
}

/// A request and its reply, until both are over.
#[derive(Debug)]
pub(super) struct Exchange {
    connection: Arc<Connection>,
    waits: Arc<Waits>,
}

impl Exchange {
    /// There is more of the reply than its client has taken.
    pub(super) fn waits_for_client(&self) {
        self.waits.client.store(self.connection.now(), Ordering::Relaxed);
    }

    /// The client has taken all that there is.
    pub(super) fn waits_for_us(&self) {
        self.waits.client.store(0, Ordering::Relaxed);
    }

    /// What ends its stream.
    pub(super) fn ends_by(&self, end: &End) {
        if self.waits.end.get().is_none() {
            let _ = self.waits.end.set(end.clone());
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut replies = self.connection.replies.lock();
        if let Some(place) = replies.iter().position(|other| Arc::ptr_eq(other, &self.waits)) {
            replies.swap_remove(place);
        }
        drop(replies);
        self.connection.idle.store(self.connection.now(), Ordering::Relaxed);
        self.connection.requests.fetch_sub(1, Ordering::Relaxed);
    }
}
