//! A PostgreSQL of one test: in a temporary folder, on a free port, ended when the test is.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// `nobody`, as which PostgreSQL runs where the tests run as root: it refuses to be root.
const NOBODY: u32 = 65534;

/// A server on a port of its own.
pub struct Postgres {
    folder: TempDir,
    port: u16,
    options: &'static [&'static str],
    process: Option<Child>,
}

/// One for all tests that want a database of their own and do not stop it. A shell waits for this process to end,
/// however it ends, and then ends the server and removes its folder.
struct SharedPostgres {
    postgres: Postgres,
    _shell: Child,
}

/// Makes a fresh database, and returns its URL.
pub async fn fresh_database() -> String {
    static SHARED: OnceCell<SharedPostgres> = OnceCell::const_new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let shared = SHARED.get_or_init(async || {
        let postgres = Postgres::start().await;
        let process = postgres.process.as_ref().unwrap().id().to_string();
        let script = "read -r _; kill -INT $1; while kill -0 $1 2>/dev/null; do sleep 0.1; done; rm -rf $2";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", &process]).arg(postgres.folder.path()).stdin(Stdio::piped());
        SharedPostgres { postgres, _shell: shell.spawn().unwrap() }
    });
    let postgres = &shared.await.postgres;
    let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
    postgres.execute(&format!("CREATE DATABASE {name}")).await;
    postgres.url().replace("/postgres?", &format!("/{name}?"))
}

/// Brings a dump into the fresh database at `url`, as an operator does.
pub fn load_dump(url: &str, dump: &[u8]) {
    let mut command = Command::new(binary("psql"));
    command.args(["--quiet", "--set=ON_ERROR_STOP=1", url]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut psql = command.spawn().unwrap();
    psql.stdin.take().unwrap().write_all(dump).unwrap();
    assert!(psql.wait().unwrap().success());
}

impl Postgres {
    /// One of which nothing must outlive the machine.
    pub async fn start() -> Postgres {
        Postgres::start_with(&["-c", "fsync=off"]).await
    }

    /// Starts one, with further options as on its command line.
    pub async fn start_with(options: &'static [&'static str]) -> Postgres {
        let folder = TempDir::new().unwrap();
        if is_root(folder.path()) {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut postgres = Postgres { folder, port: 0, options, process: None };
        let arguments = ["--username=quern", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"];
        let made = postgres.command("initdb").args(arguments).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.run().await;
        postgres
    }

    /// Starts it, or starts it again, where it was.
    pub async fn run(&mut self) {
        loop {
            if self.port == 0 {
                self.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            }
            let log = File::options().create(true).append(true).open(self.log()).unwrap();
            let mut command = self.command("postgres");
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
            command.args(["-c", "max_connections=300", "-p", &self.port.to_string()]).args(self.options);
            self.process = Some(command.stderr(log).spawn().unwrap());
            if self.answers().await {
                return;
            }
            let log = fs::read_to_string(self.log()).unwrap();
            assert!(log.contains("could not bind"), "{log}");
            // Someone else was quicker to take the port.
            self.port = 0;
        }
    }

    /// Whether it takes connections; not where it ended before it did.
    async fn answers(&mut self) -> bool {
        loop {
            if self.options().connect().await.is_ok() {
                return true;
            }
            if self.process.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it as an operator does: connections are cut, what was written is kept.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Holds all of it still: connections stay open, and nobody answers. That is what a network does that swallows
    /// packets.
    pub fn hold(&self) {
        self.signal_all("STOP");
    }

    /// Lets it go on.
    pub fn release(&self) {
        self.signal_all("CONT");
    }

    fn end(&mut self, signal: &str) {
        if let Some(mut process) = self.process.take() {
            kill(&format!("-{signal} {}", process.id()));
            process.wait().unwrap();
        }
    }

    fn signal_all(&self, signal: &str) {
        if let Some(process) = &self.process {
            let id = process.id();
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
            kill(&format!("-{signal} {id} {children}"));
        }
    }

    /// Returns its URL, as the setting `registry` takes it.
    pub fn url(&self) -> String {
        format!("postgres://quern@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// Dumps its database, as `pg_dump` does.
    pub fn dump(&self) -> Vec<u8> {
        let dumped = Command::new(binary("pg_dump")).arg("--no-owner").arg(self.url()).output().unwrap();
        assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
        dumped.stdout
    }

    fn options(&self) -> PgConnectOptions {
        self.url().parse().unwrap()
    }

    /// Asks past Quern for a number.
    pub async fn number(&self, statement: &str) -> i64 {
        let mut connection: PgConnection = self.options().connect().await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_one(&mut connection).await.unwrap()
    }

    /// Runs statements past Quern.
    pub async fn execute(&self, statements: &str) {
        let mut connection: PgConnection = self.options().connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command.env("PGDATA", self.folder.path().join("data")).env_remove("PGPORT");
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        if is_root(Path::new("/proc/self")) {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.release();
        self.end("QUIT");
    }
}

fn kill(arguments: &str) {
    // A child may have ended by itself.
    let _ = Command::new("sh").args(["-c", &format!("kill {arguments}")]).stderr(Stdio::null()).status();
}

/// Whose what we make is, we are.
fn is_root(ours: &Path) -> bool {
    fs::metadata(ours).unwrap().uid() == 0
}

/// Debian keeps PostgreSQL's programs out of the path, in a folder for each version.
fn binary(name: &str) -> PathBuf {
    let found = glob::glob(&format!("/usr/lib/postgresql/*/bin/{name}")).unwrap().filter_map(Result::ok);
    let version = |path: &PathBuf| -> u32 {
        path.components().nth(4).and_then(|part| part.as_os_str().to_str()?.parse().ok()).unwrap_or(0)
    };
    found.max_by_key(version).unwrap_or_else(|| name.into())
}
