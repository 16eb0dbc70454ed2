//! What is in a file of Avro? As its specification lays down: blocks of values, each packed, with a mark after it.
//!
//! A manifest that is read in part names fewer files than there are, or leaves out what was deleted. So a file is whole
//! here, to its last mark, or it is refused. Nothing is taken at its word: what a file says it has must be there.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use crc::{CRC_32_ISO_HDLC, Crc};
use flate2::read::DeflateDecoder;
use serde_json::Value as Json;

/// What a file begins with.
const MAGIC: &[u8] = b"Obj\x01";
const MARK_BYTES: usize = 16;
/// More than this no block of a manifest has, unpacked.
const BLOCK_BYTES_MAX: u64 = 1 << 28;
/// More values than this are in no file of a table that is read.
const VALUES_MAX: usize = 2_000_000;
/// Deeper than this nothing lies within another.
const DEPTH_MAX: usize = 16;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// A whole number of either width.
    Long(i64),
    /// A number of either precision.
    Double(f64),
    /// Days since 1970.
    Day(i64),
    /// A decimal, without its scale.
    Decimal(i128),
    /// Bytes, of a fixed length or not, and text.
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Record(Vec<(Arc<Field>, Value)>),
}

/// A field of a record.
#[derive(Debug, PartialEq)]
pub(super) struct Field {
    name: String,
    /// The number by which a table knows it.
    id: Option<i64>,
    kind: Kind,
}

/// What values are.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Null,
    Bool,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Day,
    Decimal(Option<usize>),
    List(Arc<Kind>),
    Map(Arc<Kind>),
    Union(Arc<[Kind]>),
    Record(Arc<[Arc<Field>]>),
}

/// A file, read to its end.
pub(super) struct File {
    pub(super) values: Vec<Value>,
    told: HashMap<String, Vec<u8>>,
}

const SHORT: &str = "it ends in the middle of a value";

impl File {
    /// What is in it.
    pub(super) fn read(bytes: &[u8]) -> Result<File, String> {
        let mut rest = Bytes(bytes.strip_prefix(MAGIC).ok_or("it is no file of Avro")?);
        let text = Kind::Map(Arc::new(Kind::Bytes));
        let Value::Record(told) = rest.value(&text, 0)? else { return Err(SHORT.to_owned()) };
        let bytes = |value| if let Value::Bytes(bytes) = value { bytes } else { Vec::new() };
        let told: HashMap<_, _> =
            told.into_iter().map(|(field, value)| (field.name.clone(), bytes(value))).collect();
        let schema = told.get("avro.schema").ok_or("it does not say what is in it")?;
        let schema: Json = serde_json::from_slice(schema).map_err(|error| format!("its schema: {error}"))?;
        let kind = Kind::of(&schema, &mut HashMap::new(), 0)?;
        let codec = told.get("avro.codec").map_or(&b"null"[..], Vec::as_slice);
        let mark = rest.take(MARK_BYTES)?.to_vec();
        let mut values = Vec::new();
        while !rest.0.is_empty() {
            let (count, size) = (rest.count()?, rest.count()?);
            let block = unpacked(codec, rest.take(size)?)?;
            if values.len() + count > VALUES_MAX {
                return Err(format!("it has more than {VALUES_MAX} values"));
            }
            let mut block = Bytes(&block);
            for _ in 0..count {
                values.push(block.value(&kind, 0)?);
            }
            if !block.0.is_empty() || rest.take(MARK_BYTES)? != mark {
                return Err("a block of it is damaged".to_owned());
            }
        }
        Ok(File { values, told })
    }

    /// What is said of all of it.
    pub(super) fn told(&self, key: &str) -> Option<&str> {
        str::from_utf8(self.told.get(key)?).ok()
    }
}

fn unpacked(codec: &[u8], block: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = BLOCK_BYTES_MAX + 1;
    let read = match codec {
        b"null" => return Ok(block.to_vec()),
        b"deflate" => DeflateDecoder::new(block).take(limit).read_to_end(&mut bytes),
        b"zstandard" => zstd::stream::read::Decoder::new(block)
            .and_then(|reader| reader.take(limit).read_to_end(&mut bytes)),
        b"snappy" => {
            let (block, sum) = block.split_last_chunk::<4>().ok_or(SHORT)?;
            let length = snap::raw::decompress_len(block).map_err(|error| error.to_string())?;
            if length as u64 > BLOCK_BYTES_MAX {
                return Err(format!("a block of it has more than {BLOCK_BYTES_MAX} bytes"));
            }
            bytes = snap::raw::Decoder::new().decompress_vec(block).map_err(|error| error.to_string())?;
            if Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&bytes) != u32::from_be_bytes(*sum) {
                return Err("a block of it is damaged".to_owned());
            }
            Ok(bytes.len())
        }
        other => {
            return Err(format!("it is packed by {}, which is not read", String::from_utf8_lossy(other)));
        }
    };
    match read {
        Ok(length) if length as u64 > BLOCK_BYTES_MAX => {
            Err(format!("a block of it has more than {BLOCK_BYTES_MAX} bytes"))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("a block of it cannot be unpacked: {error}")),
    }
}

impl Kind {
    /// Of a schema; `named` are the types that have names, which may be used again.
    fn of(schema: &Json, named: &mut HashMap<String, Kind>, depth: usize) -> Result<Kind, String> {
        if depth > DEPTH_MAX {
            return Err("its schema is too deep".to_owned());
        }
        let odd = || {
            format!(
                "its schema has a type that is none: {}",
                schema.to_string().chars().take(80).collect::<String>()
            )
        };
        if let Some(name) = schema.as_str() {
            return Ok(match name {
                "null" => Kind::Null,
                "boolean" => Kind::Bool,
                "int" | "long" => Kind::Long,
                "float" => Kind::Float,
                "double" => Kind::Double,
                "bytes" => Kind::Bytes,
                "string" => Kind::Text,
                name => return named.get(name).cloned().ok_or_else(odd),
            });
        }
        if let Some(union) = schema.as_array() {
            let kinds = union.iter().map(|schema| Kind::of(schema, named, depth + 1));
            return Ok(Kind::Union(kinds.collect::<Result<_, _>>()?));
        }
        let is_decimal = schema["logicalType"] == "decimal";
        let kind = match schema["type"].as_str().ok_or_else(odd)? {
            "array" => Kind::List(Arc::new(Kind::of(&schema["items"], named, depth + 1)?)),
            "map" => Kind::Map(Arc::new(Kind::of(&schema["values"], named, depth + 1)?)),
            "fixed" => {
                let size =
                    schema["size"].as_u64().and_then(|size| usize::try_from(size).ok()).ok_or_else(odd)?;
                if is_decimal { Kind::Decimal(Some(size)) } else { Kind::Fixed(size) }
            }
            "bytes" if is_decimal => Kind::Decimal(None),
            "int" if schema["logicalType"] == "date" => Kind::Day,
            "record" => {
                let fields = schema["fields"].as_array().ok_or_else(odd)?.iter().map(|field| {
                    let name = field["name"].as_str().ok_or_else(odd)?.to_owned();
                    let kind = Kind::of(&field["type"], named, depth + 1)?;
                    Ok(Arc::new(Field { name, id: field["field-id"].as_i64(), kind }))
                });
                Kind::Record(fields.collect::<Result<Vec<_>, String>>()?.into())
            }
            _ => Kind::of(&schema["type"], named, depth + 1)?,
        };
        if let Some(name) = schema["name"].as_str() {
            named.insert(name.to_owned(), kind.clone());
        }
        Ok(kind)
    }
}

/// What is left of some bytes.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn long(&mut self) -> Result<i64, String> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err("a number in it has too many digits".to_owned())
    }

    /// A length, or a count of what takes a byte each at least, or nothing.
    fn count(&mut self) -> Result<usize, String> {
        let count = self.long()?;
        usize::try_from(count).map_err(|_| "a length in it is less than nothing".to_owned())
    }

    fn value(&mut self, kind: &Kind, depth: usize) -> Result<Value, String> {
        Ok(match kind {
            Kind::Null => Value::Null,
            Kind::Bool => Value::Bool(self.take(1)?[0] != 0),
            Kind::Long => Value::Long(self.long()?),
            Kind::Day => Value::Day(self.long()?),
            Kind::Float => {
                let bytes = self.take(4)?.try_into().map_err(|_| SHORT)?;
                Value::Double(f64::from(f32::from_le_bytes(bytes)))
            }
            Kind::Double => Value::Double(f64::from_le_bytes(self.take(8)?.try_into().map_err(|_| SHORT)?)),
            Kind::Bytes | Kind::Text => {
                let count = self.count()?;
                Value::Bytes(self.take(count)?.to_vec())
            }
            Kind::Fixed(count) => Value::Bytes(self.take(*count)?.to_vec()),
            Kind::Decimal(count) => {
                let count = count.map_or_else(|| self.count(), Ok)?;
                let bytes = self.take(count)?;
                let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
                if bytes.len() > 16 {
                    return Err("a decimal in it has too many digits".to_owned());
                }
                let start = if negative { -1i128 } else { 0 };
                Value::Decimal(bytes.iter().fold(start, |number, byte| number << 8 | i128::from(*byte)))
            }
            Kind::Union(kinds) => {
                let kind = kinds.get(self.count()?).ok_or("a value in it is of no type that it has")?;
                self.value(kind, depth)?
            }
            Kind::Record(fields) => {
                if depth > DEPTH_MAX {
                    return Err("a value in it is too deep".to_owned());
                }
                let value = |field: &Arc<Field>| Ok((Arc::clone(field), self.value(&field.kind, depth + 1)?));
                Value::Record(fields.iter().map(value).collect::<Result<_, String>>()?)
            }
            Kind::List(item) => {
                let mut items = Vec::new();
                self.blocks(&mut items, &mut |bytes| bytes.value(item, depth + 1))?;
                Value::List(items)
            }
            Kind::Map(value) => {
                let mut entries = Vec::new();
                self.blocks(&mut entries, &mut |bytes| {
                    let count = bytes.count()?;
                    let name = String::from_utf8_lossy(bytes.take(count)?).into_owned();
                    let field = Field { name, id: None, kind: Kind::Null };
                    Ok((Arc::new(field), bytes.value(value, depth + 1)?))
                })?;
                Value::Record(entries)
            }
        })
    }

    fn blocks<T>(
        &mut self,
        items: &mut Vec<T>,
        item: &mut dyn FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<(), String> {
        loop {
            let count = match self.long()? {
                0 => return Ok(()),
                // Its length comes with it.
                count if count < 0 => {
                    self.long()?;
                    count.unsigned_abs()
                }
                count => count.unsigned_abs(),
            };
            if count > VALUES_MAX as u64 || items.len() as u64 + count > VALUES_MAX as u64 {
                return Err(format!("a value in it has more than {VALUES_MAX} parts"));
            }
            for _ in 0..count {
                items.push(item(self)?);
            }
        }
    }
}

/// What a value has in a field, where it is a record that has it.
impl Value {
    pub(super) fn at(&self, name: &str) -> Option<&Value> {
        let Value::Record(fields) = self else { return None };
        let found = fields.iter().find(|(field, _)| field.name == name).map(|(_, value)| value);
        found.filter(|value| **value != Value::Null)
    }

    /// Its fields that have numbers.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (i64, &Value)> {
        let fields = if let Value::Record(fields) = self { &fields[..] } else { &[] };
        fields.iter().filter_map(|(field, value)| Some((field.id?, value)))
    }

    /// # Errors
    /// Where there is something else.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, String> {
        let odd = || format!("`{name}` in it is no text");
        self.at(name)
            .map(|value| match value {
                Value::Bytes(bytes) => str::from_utf8(bytes).map_err(|_| odd()),
                _ => Err(odd()),
            })
            .transpose()
    }

    /// # Errors
    /// Where there is something else.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, String> {
        self.at(name).map(|value| whole(value, name)).transpose()
    }

    /// # Errors
    /// Where there is something else.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<i64>, String> {
        match self.at(name) {
            None => Ok(Vec::new()),
            Some(Value::List(items)) => items.iter().map(|item| whole(item, name)).collect(),
            Some(_) => Err(format!("`{name}` in it is no list")),
        }
    }
}

fn whole(value: &Value, name: &str) -> Result<i64, String> {
    match value {
        Value::Long(number) => Ok(*number),
        _ => Err(format!("`{name}` in it is no whole number")),
    }
}
