//! What is in an event whose schema a registry has?
//!
//! Such an event names its schema and says nothing else of it: by a number or a GUID before its bytes, as Confluent's
//! clients write it, or in a header.
//! <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/>

use quern_engine::json::Json;

use crate::avro;
use crate::json::event;
use crate::protobuf::Protobuf;

/// The header that may name a schema.
pub const HEADER: &str = "__value_schema_id";
/// What comes before a number, and before a GUID.
const NUMBER: u8 = 0;
const GUID: u8 = 1;

/// A schema of a registry.
#[derive(Debug, Clone)]
pub enum Schema {
    /// Of Avro.
    Avro(avro::Schema),
    /// Of Protobuf.
    Protobuf(Protobuf),
    /// Of JSON, which says for itself what it is.
    Json,
}

/// What names a schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchemaName {
    /// Its number in a registry.
    Id(u32),
    /// Its GUID.
    Guid(String),
}

/// As the path of a registry has it, after `/schemas`.
impl std::fmt::Display for SchemaName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SchemaName::Id(id) => write!(f, "ids/{id}"),
            SchemaName::Guid(guid) => write!(f, "guids/{guid}"),
        }
    }
}

/// An event, and what names its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framed<'a> {
    /// That.
    pub schema: SchemaName,
    /// Which message of the schema it is, of Protobuf, where a header says it.
    index: Option<&'a [u8]>,
    /// The event itself.
    body: &'a [u8],
}

impl<'a> Framed<'a> {
    /// Reads an event of which `header` may name the schema.
    ///
    /// # Errors
    /// Where nothing does.
    pub fn read(header: Option<&'a [u8]>, payload: &'a [u8]) -> Result<Framed<'a>, String> {
        let (named, is_beside) = header.map_or((payload, false), |header| (header, true));
        let (schema, rest) = match named.split_first() {
            Some((&NUMBER, rest)) => rest.split_first_chunk().map(|(id, rest)| (number(*id), rest)),
            Some((&GUID, rest)) => rest.split_first_chunk().map(|(guid, rest)| (self::guid(guid), rest)),
            _ => None,
        }
        .ok_or("the event names no schema: it does not begin with 0 and a number, as those of a schema registry do")?;
        let (index, body) = if is_beside { (Some(rest), payload) } else { (None, rest) };
        Ok(Framed { schema, index, body })
    }
}

fn number(id: [u8; 4]) -> SchemaName {
    SchemaName::Id(u32::from_be_bytes(id))
}

fn guid(bytes: &[u8; 16]) -> SchemaName {
    SchemaName::Guid(avro::uuid(bytes))
}

impl Schema {
    /// What an event says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read<'a>(&self, event_of: &Framed<'a>) -> Result<Json<'a>, String> {
        let Framed { schema, index, body } = event_of;
        let read = match self {
            Schema::Avro(avro) => avro.json(body),
            Schema::Protobuf(protobuf) => protobuf.json(*index, body),
            Schema::Json => return event(body),
        };
        read.map_err(|why| format!("the event is not as its schema `{schema}` says: {why}"))
    }
}

#[cfg(test)]
mod tests;
