//! Which databases are asked, and what of?

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use quern_kit::{Node, Repository, fresh_database, python_of};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

/// 2026-01-01, µs.
pub(crate) const START_US: i64 = 1_767_225_600_000_000;
/// After every row.
pub(crate) const NOW_US: i64 = START_US + 1_000 * 86_400_000_000;

/// A database, which is spoken with past Quern.
pub(crate) enum Database {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Database {
    pub(crate) fn sqlite(repository: &Repository) -> Database {
        Database::Sqlite(repository.path().join("shop.db"))
    }

    pub(crate) async fn postgres() -> Database {
        Database::Postgres(fresh_database().await)
    }

    /// Runs statements.
    pub(crate) async fn execute(&self, statements: &str) {
        let statements = AssertSqlSafe(statements.to_owned());
        match self {
            Database::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&self.address()).await.unwrap();
                sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Database::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Where it is, as the library of the tests has it.
    pub(crate) fn address(&self) -> String {
        match self {
            Database::Sqlite(path) => format!("sqlite://{}?mode=rwc", path.display()),
            Database::Postgres(url) => url.clone(),
        }
    }

    pub(crate) fn driver(&self) -> &'static str {
        match self {
            Database::Sqlite(_) => "sqlite",
            Database::Postgres(_) => "postgresql",
        }
    }

    /// The connection to it, as a definition.
    pub(crate) fn connection(&self) -> String {
        let (url, who) = match self {
            Database::Sqlite(path) => (path.display().to_string(), ""),
            // Who asks is told by a file.
            Database::Postgres(url) => {
                (url.replace("postgres://quern@", "postgresql://"), "credentials: {username: {file: USER}}\n")
            }
        };
        let who = who.replace("USER", &user().display().to_string());
        format!("kind: Connection\nname: shop\nurl: \"{url}\"\ndriver: {}\n{who}---\n", self.driver())
    }
}

/// A file that says who asks.
fn user() -> &'static Path {
    static USER: OnceLock<tempfile::TempPath> = OnceLock::new();
    USER.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "quern\n").unwrap();
        file.into_temp_path()
    })
}

/// Where Python's packages of drivers are installed.
pub(crate) fn drivers() -> String {
    static FOLDER: OnceLock<String> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let script = "import adbc_driver_sqlite as it, pathlib; print(pathlib.Path(it.__file__).parents[1])";
        let asked = std::process::Command::new(python_of("venv")).args(["-c", script]).output().unwrap();
        String::from_utf8(asked.stdout).unwrap().trim().to_owned()
    });
    assert!(!folder.is_empty(), "the drivers are not installed: run ./setup.sh");
    folder.clone()
}

/// Opens a repository with the drivers, and applies its definitions.
pub(crate) async fn open(repository: &Repository) -> Node {
    repository.open_applied_with(&[("adbc_drivers", drivers())]).await
}

/// Payments of cards, of which the latest and their windows are features.
pub(crate) fn payments(batch: &str, columns: &str) -> String {
    format!(
        "kind: Entity\nname: card\njoin_keys: [{{name: card, type: int64}}]\n---\n\
         kind: Source\nname: payments\nbatch: {{{batch}}}\nevent_timestamp: at\ncreated_timestamp: updated_at\n\
         columns: [{{name: card, type: int64}}, {{name: at, type: timestamp}}, {{name: updated_at, type: timestamp}}, {columns}]\n---\n\
         kind: FeatureView\nname: latest\nentities: [card]\nsource: payments\nfeatures: [amount, note]\n---\n\
         kind: FeatureView\nname: sums\nentities: [card]\nsource: payments\naggregations:\n  \
         - {{name: n, function: count, windows: [1d, lifetime]}}\n  - {{name: spent, function: sum, of: amount, windows: [7d, lifetime]}}\n---\n\
         kind: FeatureService\nname: fraud\nfeatures: [latest, sums]\n"
    )
}

/// The columns of payments besides keys and times.
pub(crate) const COLUMNS: &str = "{name: amount, type: float64}, {name: note, type: string}";
