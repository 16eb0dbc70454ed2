//! A Redis, and a cluster of three, for as long as a test needs them.

use std::net::TcpListener;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, Value};
use tempfile::TempDir;

use crate::beside::Beside;

/// How long a server has to get ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a name that no other test of this process uses.
pub fn fresh_prefix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A server on a port of its own. It keeps nothing on disk unless it is told to.
pub struct RedisServer {
    beside: Beside,
    port: u16,
    options: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    /// One for all tests that do not stop it.
    pub fn shared() -> &'static RedisServer {
        static SHARED: OnceLock<RedisServer> = OnceLock::new();
        SHARED.get_or_init(|| RedisServer::start(&[]))
    }

    /// Starts one, with further options as on its command line.
    pub fn start(options: &[&str]) -> RedisServer {
        let port = free_port();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let folder = TempDir::new().unwrap();
        let beside = launch(port, &options, folder.path());
        RedisServer { beside, port, options, folder }
    }

    /// Starts a Sentinel that watches `master` under the name `m`, and calls it down after half a second.
    pub fn sentinel_of(master: &RedisServer) -> RedisServer {
        let (port, folder) = (free_port(), TempDir::new().unwrap());
        let configuration = folder.path().join("sentinel.conf");
        let rules = format!(
            "bind 127.0.0.1\nport {port}\nsentinel monitor m 127.0.0.1 {} 1\nsentinel down-after-milliseconds m 500\n\
             sentinel failover-timeout m 5000\n",
            master.port
        );
        std::fs::write(&configuration, rules).unwrap();
        let command = vec![configuration.to_string_lossy().into_owned(), "--sentinel".to_owned()];
        let beside = run(&command, "+monitor master");
        RedisServer { beside, port, options: Vec::new(), folder }
    }

    /// Returns the port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its URL, as the setting `online` takes it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Connects to it past Quern.
    pub fn connection(&self) -> Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Asks one command, its words separated by spaces.
    pub fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut asked = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            asked.arg(word);
        });
        asked.query(&mut self.connection()).unwrap()
    }

    /// Tells a member of a cluster where another one is.
    fn meet(&self, other: &RedisServer, bus: &str) {
        let () = self.ask(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", other.port));
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        self.beside.kill();
    }

    /// Starts it again, where and with what it was.
    pub fn restart(&mut self) {
        self.beside = launch(self.port, &self.options, self.folder.path());
    }

    /// Sends it a signal, such as `STOP` and `CONT`.
    pub fn signal(&self, signal: &str) {
        self.beside.signal(signal);
    }
}

/// Starts a server and waits until it says that it is ready.
fn launch(port: u16, options: &[String], folder: &Path) -> Beside {
    let (port, folder) = (port.to_string(), folder.to_string_lossy());
    let mut arguments: Vec<String> =
        ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir", &folder].map(str::to_owned).to_vec();
    arguments.extend_from_slice(options);
    run(&arguments, "Ready to accept connections")
}

fn run(arguments: &[String], says: &str) -> Beside {
    // Valkey, for one.
    let program = std::env::var("QUERN_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    Beside::start(&[&[program], arguments].concat(), says, "`make setup` installs it")
}

/// Finds a port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Three servers, a third of the slots each.
pub struct RedisCluster {
    /// Its members.
    pub servers: Vec<RedisServer>,
    /// The ports that they talk to each other on.
    buses: Vec<String>,
}

impl RedisCluster {
    /// One for all tests that do not stop it.
    pub fn shared() -> &'static RedisCluster {
        static SHARED: OnceLock<RedisCluster> = OnceLock::new();
        SHARED.get_or_init(|| RedisCluster::start(&[]))
    }

    /// Starts one, each server with further options.
    pub fn start(options: &[&str]) -> RedisCluster {
        let (servers, buses): (Vec<RedisServer>, Vec<String>) = (0..3).map(|_| member(options)).unzip();
        for (server, slots) in servers.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
            let () = server.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        }
        for (other, bus) in servers.iter().zip(&buses).skip(1) {
            servers[0].meet(other, bus);
        }
        let is_whole = |server: &RedisServer| {
            let info: String = server.ask("CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains("cluster_size:3")
        };
        wait("the cluster does not get ready", || servers.iter().all(is_whole));
        RedisCluster { servers, buses }
    }

    /// Starts a replica of each server; all members list them when this returns.
    pub fn add_replicas(&self) -> Vec<RedisServer> {
        let replica = |server: &RedisServer| {
            let (replica, _) = member(&[]);
            replica.meet(&self.servers[0], &self.buses[0]);
            let id: String = server.ask("CLUSTER MYID");
            let knows = || replica.ask::<String>("CLUSTER NODES").contains(&id);
            wait("a replica does not find its primary", knows);
            let () = replica.ask(&format!("CLUSTER REPLICATE {id}"));
            replica
        };
        let replicas: Vec<RedisServer> = self.servers.iter().map(replica).collect();
        // Not before they have what their primary has.
        let lists_all = |server: &RedisServer| {
            let Value::Array(ranges) = server.ask("CLUSTER SLOTS") else { return false };
            ranges.iter().all(|range| matches!(range, Value::Array(parts) if parts.len() == 4))
        };
        let members = || replicas.iter().chain(&self.servers);
        wait("the replicas do not get ready", || members().all(lists_all));
        replicas
    }

    /// Returns its URL, as the setting `online` takes it.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("redis://{}?cluster=true", hosts.join(","))
    }
}

/// A server that can be a member of a cluster, and the port that members talk to it on.
fn member(options: &[&str]) -> (RedisServer, String) {
    // The port would else be out of range.
    let bus = free_port().to_string();
    let member = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
    (RedisServer::start(&[&member, options].concat()), bus)
}

fn wait(failure: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{failure}");
        std::thread::yield_now();
    }
}
