//! What does a schema of Avro say?

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::{Counts, DEPTH_MAX};

/// What values are.
#[derive(Debug, Clone)]
pub struct Schema {
    pub(super) root: Kind,
    /// The types that have names, which may stand within themselves.
    pub(super) named: Vec<Kind>,
}

/// A field of a record.
#[derive(Debug, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The number by which a table of Iceberg knows it.
    pub id: Option<i64>,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool,
    Int(Counts),
    Long(Counts),
    Float,
    Double,
    Bytes,
    Text,
    Uuid,
    Fixed(usize),
    /// Of a fixed length or not; and the scale.
    Decimal(Option<usize>, u32),
    Enum(Arc<[String]>),
    List(Arc<Kind>),
    Map(Arc<Kind>),
    Union(Arc<[Kind]>),
    Record(Arc<[Arc<Field>]>),
    /// One that has a name, by its place.
    Named(usize),
}

impl Schema {
    /// Reads the last of `texts`, which may name types of those before it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(texts: &[&str]) -> Result<Schema, String> {
        let (mut names, mut root) = (Names::default(), Kind::Null);
        for text in texts {
            let read = serde_json::from_str(text);
            // A name alone is a schema, and no JSON where it stands without quotes.
            let json: Json = read.map_err(|error| format!("its schema: {error}"))?;
            root = names.kind(&json, "", 0)?;
        }
        Ok(Schema { root, named: names.kinds })
    }

    /// Texts by texts, as a file's head has them.
    pub fn of_texts() -> Schema {
        Schema { root: Kind::Map(Arc::new(Kind::Bytes)), named: Vec::new() }
    }
}

/// The types that have names.
#[derive(Default)]
struct Names {
    places: HashMap<String, usize>,
    kinds: Vec<Kind>,
}

impl Names {
    /// What `schema` says, where names without a dot are of `space`.
    fn kind(&mut self, schema: &Json, space: &str, depth: usize) -> Result<Kind, String> {
        if depth > DEPTH_MAX {
            return Err("its schema is too deep".to_owned());
        }
        let odd = || {
            let shown: String = schema.to_string().chars().take(80).collect();
            format!("its schema has a type that is none: {shown}")
        };
        if let Some(name) = schema.as_str() {
            return self.by_name(name, space).ok_or_else(odd);
        }
        if let Some(union) = schema.as_array() {
            let kinds = union.iter().map(|schema| self.kind(schema, space, depth + 1));
            return Ok(Kind::Union(kinds.collect::<Result<_, _>>()?));
        }
        let logical = schema["logicalType"].as_str().unwrap_or_default();
        let scale = || u32::try_from(schema["scale"].as_u64().unwrap_or(0)).map_err(|_| odd());
        Ok(match schema["type"].as_str() {
            Some("array") => Kind::List(Arc::new(self.kind(&schema["items"], space, depth + 1)?)),
            Some("map") => Kind::Map(Arc::new(self.kind(&schema["values"], space, depth + 1)?)),
            Some("bytes") if logical == "decimal" => Kind::Decimal(None, scale()?),
            Some("int") if logical == "date" => Kind::Int(Counts::Days),
            Some("long") => Kind::Long(match logical {
                "timestamp-millis" | "local-timestamp-millis" => Counts::Millis,
                "timestamp-micros" | "local-timestamp-micros" => Counts::Micros,
                "timestamp-nanos" | "local-timestamp-nanos" => Counts::Nanos,
                _ => Counts::Itself,
            }),
            Some(what @ ("record" | "error" | "enum" | "fixed")) => {
                let (name, space) =
                    full(schema["name"].as_str().ok_or_else(odd)?, &schema["namespace"], space);
                // It may stand within itself.
                let place = self.kinds.len();
                self.kinds.push(Kind::Null);
                self.places.insert(name, place);
                self.kinds[place] = match what {
                    "enum" => {
                        let symbols = schema["symbols"].as_array().ok_or_else(odd)?.iter();
                        let symbols =
                            symbols.map(|symbol| symbol.as_str().map(str::to_owned).ok_or_else(odd));
                        Kind::Enum(symbols.collect::<Result<Vec<_>, _>>()?.into())
                    }
                    "fixed" => {
                        let size = schema["size"].as_u64().and_then(|size| usize::try_from(size).ok());
                        match (logical, size.ok_or_else(odd)?) {
                            ("decimal", size) => Kind::Decimal(Some(size), scale()?),
                            ("uuid", 16) => Kind::Uuid,
                            (_, size) => Kind::Fixed(size),
                        }
                    }
                    _ => {
                        let fields = schema["fields"].as_array().ok_or_else(odd)?.iter().map(|field| {
                            let name = field["name"].as_str().ok_or_else(odd)?.to_owned();
                            let kind = self.kind(&field["type"], &space, depth + 1)?;
                            Ok(Arc::new(Field { name, id: field["field-id"].as_i64(), kind }))
                        });
                        Kind::Record(fields.collect::<Result<Vec<_>, String>>()?.into())
                    }
                };
                Kind::Named(place)
            }
            // A name, or a type that stands within another pair of braces.
            _ => match &schema["type"] {
                Json::Null => return Err(odd()),
                within => self.kind(within, space, depth + 1)?,
            },
        })
    }

    fn by_name(&self, name: &str, space: &str) -> Option<Kind> {
        Some(match name {
            "null" => Kind::Null,
            "boolean" => Kind::Bool,
            "int" => Kind::Int(Counts::Itself),
            "long" => Kind::Long(Counts::Itself),
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::Text,
            name => {
                let place =
                    self.places.get(&full(name, &Json::Null, space).0).or_else(|| self.places.get(name));
                Kind::Named(*place?)
            }
        })
    }
}

/// The whole name, and the space of names that stand within what has it.
fn full(name: &str, own: &Json, around: &str) -> (String, String) {
    if let Some((space, _)) = name.rsplit_once('.') {
        return (name.to_owned(), space.to_owned());
    }
    match own.as_str().unwrap_or(around) {
        "" => (name.to_owned(), String::new()),
        space => (format!("{space}.{name}"), space.to_owned()),
    }
}
