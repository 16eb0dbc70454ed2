//! Where do raw rows come from?

use super::column::Column;
use super::connection::Connection;
use super::role::Governance;
use crate::epoch::Epoch;
use crate::error::Loc;
use crate::format::{Dialect, Format};
use crate::reach::Server;
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
    /// Whether rows may be pushed; true as well where they come from a stream.
    pub push: bool,
    /// Events that come by themselves.
    pub stream: Option<StreamSource>,
    /// The column that says when a row became true.
    pub event_timestamp: String,
    /// The column that says when a row became known.
    pub created_timestamp: Option<String>,
    /// The columns that make a row the same row.
    pub event_id: Vec<String>,
    /// Declared columns. CSV, JSON and push sources must declare all; for Parquet and Arrow, what is declared is
    /// checked against the files and the rest is read from them.
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
    /// A path or glob, relative to the repository's root, or the URL of objects.
    pub path: String,
    /// Which version of a table, or which snapshot; the latest where nothing is said.
    pub version: Option<u64>,
    /// The branch or the tag of a table of Iceberg.
    pub reference: Option<String>,
    /// What leads there, where it is a URL.
    pub connection: Option<Connection>,
    /// How CSV files are written; of other formats it says nothing.
    pub dialect: Dialect,
    /// Where the path is declared.
    pub loc: Loc,
}

impl BatchSource {
    /// Where its path leads in an object store, as far as no part of it is a glob; none where it is a path of this
    /// machine.
    pub fn objects(&self) -> Option<&str> {
        self.path.contains("://").then(|| BatchSource::plain(&self.path))
    }

    /// The parts of a path before the first that is a glob.
    pub(crate) fn plain(path: &str) -> &str {
        match path.find(['*', '[']) {
            Some(glob) => &path[..path[..glob].rfind('/').map_or(0, |slash| slash + 1)],
            None => path,
        }
    }
}

/// Events of a broker, each a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSource {
    /// Which kind of broker.
    pub broker: Broker,
    /// Its addresses, as its own clients take them. A URL of Redis may hold a password.
    pub servers: String,
    /// The same, one by one, without who asks.
    pub reaches: Vec<Server>,
    /// The topic, or the key of the stream.
    pub topic: String,
    /// Where it is declared.
    pub loc: Loc,
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
    /// Why its columns are known only from its declaration, where they are.
    pub fn must_declare(&self) -> Option<&'static str> {
        let of_files = self.batch.as_ref().and_then(|batch| match batch.format {
            Format::Parquet | Format::Arrow | Format::Delta | Format::Iceberg => None,
            Format::Csv => Some("CSV files do not say the types of their columns"),
            Format::Json => Some("JSON files do not say the types of their columns"),
        });
        of_files.or(self.push.then_some("pushed rows are checked against the declared columns"))
    }
}
