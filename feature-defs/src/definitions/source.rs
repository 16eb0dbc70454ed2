//! Where do raw rows come from?

use super::column::Column;
use super::connection::Connection;
use super::role::Governance;
use crate::epoch::Epoch;
use crate::error::Loc;
use crate::format::{Dialect, Format};
use crate::reach::{HTTP, Reach, Server};
use crate::stored::Stored;

/// Where raw rows come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Files that hold history; absent for a source that is only pushed to.
    pub batch: Option<BatchSource>,
    /// Rows of a database, which are taken in as if they were pushed.
    pub pull: Option<PullSource>,
    /// Whether rows may be pushed; true as well where they come from a stream or a database.
    pub push: bool,
    /// Events that come by themselves.
    pub stream: Option<StreamSource>,
    /// The column that says when a row became true.
    pub event_timestamp: String,
    /// The column that says when a row became known.
    pub created_timestamp: Option<String>,
    /// The columns that make a row the same row.
    pub event_id: Vec<String>,
    /// Declared columns. CSV, JSON, push sources and those of a database must declare all; for Parquet and Arrow, what
    /// is declared is checked against the files and the rest is read from them.
    pub columns: Vec<Column>,
    /// Whose it is.
    pub governance: Governance,
    /// Where it is declared.
    pub loc: Loc,
}

impl Source {
    /// What numbers in the column called `name` count, where it is declared.
    pub fn format(&self, name: &str) -> Option<Epoch> {
        self.columns.iter().find(|column| column.name == name)?.format
    }

    /// What files hold in place of the type of the column called `name`, where that is declared.
    pub fn stored(&self, name: &str) -> Option<Stored> {
        self.columns.iter().find(|column| column.name == name)?.from
    }
}

/// Files of one format under one path.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchSource {
    /// File format.
    pub format: Format,
    /// A path or glob, relative to the repository's root, or the URL of objects, or of a file over HTTP; of a table
    /// that a catalog knows, its name.
    pub path: String,
    /// Which version of a table, or which snapshot; the latest where nothing is said.
    pub version: Option<u64>,
    /// The branch or the tag of a table of Iceberg.
    pub reference: Option<String>,
    /// What leads there, where it is a URL.
    pub connection: Option<Connection>,
    /// Who says where the table is, where it is not its path that does.
    pub catalog: Option<Cataloged>,
    /// How CSV files are written; of other formats it says nothing.
    pub dialect: Dialect,
    /// Where the path is declared.
    pub loc: Loc,
}

impl BatchSource {
    /// Where its path leads over the network, as far as no part of it is a glob; none where it is a path of this
    /// machine.
    pub fn objects(&self) -> Option<&str> {
        self.path.contains("://").then(|| BatchSource::plain(&self.path))
    }

    /// Whether its path is the URL of a file that a server gives over HTTP, in which nothing is a glob.
    pub fn is_over_http(&self) -> bool {
        is_over_http(&self.path)
    }

    /// Whether a path names the metadata of a table of Iceberg, and not the table's folder.
    pub fn is_metadata(path: &str) -> bool {
        [".metadata.json", ".metadata.json.gz", ".gz.metadata.json"].iter().any(|end| path.ends_with(end))
    }

    /// What its rows are, whatever state of it is meant: of a table of Iceberg that is told by its metadata, where that
    /// lies.
    pub fn place(&self) -> &str {
        match self.path.rfind('/') {
            Some(slash) if self.format == Format::Iceberg && BatchSource::is_metadata(&self.path) => {
                &self.path[..slash]
            }
            _ => &self.path,
        }
    }

    /// The parts of a path before the first that is a glob.
    pub(crate) fn plain(path: &str) -> &str {
        match path.find(['*', '[']).filter(|_| !is_over_http(path)) {
            Some(glob) => &path[..path[..glob].rfind('/').map_or(0, |slash| slash + 1)],
            None => path,
        }
    }
}

fn is_over_http(path: &str) -> bool {
    path.split_once("://").is_some_and(|(scheme, _)| HTTP.contains(&scheme))
}

/// A table of which a catalog says where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Cataloged {
    /// The name of the connection to the catalog.
    pub by: String,
    /// The connection itself.
    pub connection: Option<Connection>,
    /// The connections of the table's project to where tables may lie.
    pub storage: Vec<Connection>,
}

/// Rows of a database, which are asked for again and again: those that are new by a column that only grows.
#[derive(Debug, Clone, PartialEq)]
pub struct PullSource {
    /// Which rows.
    pub rows: PulledRows,
    /// The column that grows.
    pub cursor: String,
    /// How far below its greatest value rows are asked for once more: µs, or whole numbers where it holds such.
    pub overlap: i64,
    /// Whether people may push rows beside.
    pub is_pushed_to: bool,
    /// The name of the connection.
    pub by: String,
    /// The connection itself.
    pub connection: Option<Connection>,
    /// Where the rows are declared.
    pub loc: Loc,
}

/// Rows that a database has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PulledRows {
    /// All of a table, as in `public.orders`.
    Table(String),
    /// Those of a query.
    Query(String),
}

impl Cataloged {
    /// The connection that leads to objects at `url`.
    pub fn to(&self, url: &str) -> Option<&Connection> {
        let reach = Reach::parse(url).ok()?;
        self.storage.iter().filter(|it| it.reach.covers(&reach)).max_by_key(|it| it.reach.depth())
    }
}

impl PulledRows {
    /// The name of the table, or the query.
    pub fn text(&self) -> &str {
        match self {
            PulledRows::Table(text) | PulledRows::Query(text) => text,
        }
    }
}

/// Events of a broker, each a row.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamSource {
    /// Which kind of broker.
    pub broker: Broker,
    /// Its addresses, as its own clients take them. A URL of Redis may hold a password.
    pub servers: String,
    /// The same, one by one, without who asks.
    pub reaches: Vec<Server>,
    /// What leads there.
    pub connection: Option<Connection>,
    /// The topic, or the key of the stream.
    pub topic: String,
    /// Where reading begins that was never begun.
    pub start: Start,
    /// The registry whose schemas say what is in an event, by the name of its connection; without one it is JSON.
    pub registry: Option<String>,
    /// The connection itself.
    pub registered: Option<Connection>,
    /// Where it is declared.
    pub loc: Loc,
}

/// Where a stream begins that was never read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the first event that is still there.
    Earliest,
    /// After the last one.
    Latest,
    /// At the first one that its broker took at this time or later.
    At(String),
}

/// Brokers that events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// Apache Kafka, or what speaks its protocol.
    Kafka,
    /// A stream of Redis or Valkey.
    Redis,
}

impl Source {
    /// Whether people may push rows to it: not where they come from a database alone.
    pub fn is_pushed_to(&self) -> bool {
        self.push && self.pull.as_ref().is_none_or(|pull| pull.is_pushed_to)
    }

    /// Why nothing says which of two rows with the same key and event timestamp came last, where nothing does.
    pub fn untold_ties(&self) -> Option<&'static str> {
        if self.created_timestamp.is_some() {
            return None;
        }
        let of_table =
            self.batch.as_ref().filter(|batch| batch.format.is_table()).map(
                |_| "whoever compacts the table writes its rows anew, and may put them in another order",
            );
        let of_pull = self.pull.as_ref().map(|_| "a database gives rows with the same `cursor` in any order");
        of_table.or(of_pull)
    }

    /// Why its columns are known only from its declaration, where they are.
    pub fn must_declare(&self) -> Option<&'static str> {
        let of_files = self.batch.as_ref().and_then(|batch| match batch.format {
            Format::Parquet | Format::Arrow | Format::Delta | Format::Iceberg => None,
            Format::Csv => Some("CSV files do not say the types of their columns"),
            Format::Json => Some("JSON files do not say the types of their columns"),
        });
        let of_rows = self.pull.as_ref().map(|_| "what a database answers is held to the declared columns");
        of_files.or(of_rows).or(self.push.then_some("pushed rows are checked against the declared columns"))
    }
}
