//! What do bytes of Avro say? As its specification lays down: a schema says what comes after what, and nothing stands
//! between. <https://avro.apache.org/docs/1.12.0/specification/>
//!
//! Nothing is taken at its word: what a length promises must be there, and no more values are made than that many bytes
//! can hold. Values are those that were written; whoever wants others says so of a column.

mod json;
mod schema;

use std::sync::Arc;

pub(crate) use self::json::{instant, uuid};
use self::schema::Kind;
pub use self::schema::{Field, Schema};

/// Deeper than this nothing lies within another.
const DEPTH_MAX: usize = 64;
/// A value takes a bit at least, in the mean, and a few may take nothing at all.
const VALUES_MAX_OF_BYTE: usize = 8;
const VALUES_MAX_OF_NOTHING: usize = 4_096;
/// More digits than this nobody has.
const DECIMAL_BYTES_MAX: usize = 16;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// None.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number of either width, and what it counts.
    Long(i64, Counts),
    /// A number of either precision.
    Double(f64),
    /// A decimal, without its scale, and that.
    Decimal(i128, u32),
    /// Bytes, of a fixed length or not.
    Bytes(Vec<u8>),
    /// One by which things are told apart.
    Uuid([u8; 16]),
    /// Text, and the symbols of an enumeration.
    Text(String),
    /// Items.
    List(Vec<Value>),
    /// Fields, or the entries of a map.
    Record(Vec<(Arc<Field>, Value)>),
}

/// What a whole number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// What its column says.
    Itself,
    /// Days since 1970.
    Days,
    /// Since 1970, UTC; of times without a zone as well.
    Millis,
    /// The same.
    Micros,
    /// The same.
    Nanos,
}

const SHORT: &str = "it ends in the middle of a value";

/// What is left of some bytes.
#[derive(Debug)]
pub struct Bytes<'a> {
    rest: &'a [u8],
    /// How many values may still be made of them.
    values: usize,
}

impl<'a> Bytes<'a> {
    /// All of them.
    pub fn new(bytes: &'a [u8]) -> Bytes<'a> {
        Bytes { rest: bytes, values: VALUES_MAX_OF_NOTHING + bytes.len().saturating_mul(VALUES_MAX_OF_BYTE) }
    }

    /// Whether none are left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Those that are left.
    pub(crate) fn left(&self) -> &'a [u8] {
        self.rest
    }

    /// So many of them.
    ///
    /// # Errors
    /// Where there are fewer.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().map_err(|_| SHORT)?)
    }

    /// A whole number.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn long(&mut self) -> Result<i64, String> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            // Of the last one a bit is left.
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err("a number in it has too many digits".to_owned())
    }

    /// A length, or a count.
    ///
    /// # Errors
    /// Where it is less than nothing.
    pub fn count(&mut self) -> Result<usize, String> {
        usize::try_from(self.long()?).map_err(|_| "a length in it is less than nothing".to_owned())
    }

    fn text(&mut self) -> Result<String, String> {
        let count = self.count()?;
        let text = str::from_utf8(self.take(count)?);
        Ok(text.map_err(|_| "a text in it is not UTF-8")?.to_owned())
    }
}

impl Schema {
    /// The next value.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn value(&self, bytes: &mut Bytes<'_>) -> Result<Value, String> {
        self.read(&self.root, bytes, 0)
    }

    fn read(&self, kind: &Kind, bytes: &mut Bytes<'_>, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err("a value in it is too deep".to_owned());
        }
        bytes.values =
            bytes.values.checked_sub(1).ok_or("it says that it has more values than its bytes can hold")?;
        Ok(match kind {
            Kind::Null => Value::Null,
            Kind::Bool => match bytes.take(1)?[0] {
                byte @ (0 | 1) => Value::Bool(byte == 1),
                _ => return Err("a value in it is neither true nor false".to_owned()),
            },
            Kind::Int(counts) => {
                let number = bytes.long()?;
                i32::try_from(number).map_err(|_| "an `int` in it has more than 32 bits")?;
                Value::Long(number, *counts)
            }
            Kind::Long(counts) => Value::Long(bytes.long()?, *counts),
            Kind::Float => Value::Double(f64::from(f32::from_le_bytes(bytes.array()?))),
            Kind::Double => Value::Double(f64::from_le_bytes(bytes.array()?)),
            Kind::Text => Value::Text(bytes.text()?),
            Kind::Bytes => {
                let count = bytes.count()?;
                Value::Bytes(bytes.take(count)?.to_vec())
            }
            Kind::Fixed(count) => Value::Bytes(bytes.take(*count)?.to_vec()),
            Kind::Uuid => Value::Uuid(bytes.array()?),
            Kind::Decimal(count, scale) => {
                let count = count.map_or_else(|| bytes.count(), Ok)?;
                Value::Decimal(decimal(bytes.take(count)?)?, *scale)
            }
            Kind::Enum(symbols) => {
                let symbol = symbols.get(bytes.count()?);
                Value::Text(symbol.ok_or("a symbol in it is none that its schema has")?.clone())
            }
            Kind::Union(kinds) => {
                let kind = kinds.get(bytes.count()?).ok_or("a value in it is of no type that it has")?;
                self.read(kind, bytes, depth + 1)?
            }
            Kind::Named(place) => self.read(&self.named[*place], bytes, depth + 1)?,
            Kind::Record(fields) => {
                let value =
                    |field: &Arc<Field>| Ok((Arc::clone(field), self.read(&field.kind, bytes, depth + 1)?));
                Value::Record(fields.iter().map(value).collect::<Result<_, String>>()?)
            }
            Kind::List(item) => {
                let mut items = Vec::new();
                blocks(bytes, |bytes| {
                    items.push(self.read(item, bytes, depth + 1)?);
                    Ok(())
                })?;
                Value::List(items)
            }
            Kind::Map(value) => {
                let mut entries = Vec::new();
                blocks(bytes, |bytes| {
                    let field = Arc::new(Field { name: bytes.text()?, id: None, kind: Kind::Null });
                    entries.push((field, self.read(value, bytes, depth + 1)?));
                    Ok(())
                })?;
                Value::Record(entries)
            }
        })
    }
}

fn blocks<'a>(
    bytes: &mut Bytes<'a>,
    mut item: impl FnMut(&mut Bytes<'a>) -> Result<(), String>,
) -> Result<(), String> {
    loop {
        let count = bytes.long()?;
        if count == 0 {
            return Ok(());
        }
        if count < 0 {
            // Its length comes with it.
            bytes.long()?;
        }
        for _ in 0..count.unsigned_abs() {
            item(bytes)?;
        }
    }
}

fn decimal(bytes: &[u8]) -> Result<i128, String> {
    if bytes.len() > DECIMAL_BYTES_MAX {
        return Err("a decimal in it has too many digits".to_owned());
    }
    let start = if bytes.first().is_some_and(|byte| *byte >= 0x80) { -1i128 } else { 0 };
    Ok(bytes.iter().fold(start, |number, byte| number << 8 | i128::from(*byte)))
}

/// What a value has in a field, where it is a record that has it.
impl Value {
    /// That, unless it is null.
    pub fn at(&self, name: &str) -> Option<&Value> {
        let Value::Record(fields) = self else { return None };
        let found = fields.iter().find(|(field, _)| field.name == name).map(|(_, value)| value);
        found.filter(|value| **value != Value::Null)
    }

    /// Its fields that have numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (i64, &Value)> {
        let fields = if let Value::Record(fields) = self { &fields[..] } else { &[] };
        fields.iter().filter_map(|(field, value)| Some((field.id?, value)))
    }

    /// # Errors
    /// Where there is something else.
    pub fn text(&self, name: &str) -> Result<Option<&str>, String> {
        self.at(name)
            .map(|value| match value {
                Value::Text(text) => Ok(text.as_str()),
                _ => Err(format!("`{name}` in it is no text")),
            })
            .transpose()
    }

    /// # Errors
    /// Where there is something else.
    pub fn number(&self, name: &str) -> Result<Option<i64>, String> {
        self.at(name).map(|value| whole(value, name)).transpose()
    }

    /// # Errors
    /// Where there is something else.
    pub fn numbers(&self, name: &str) -> Result<Vec<i64>, String> {
        match self.at(name) {
            None => Ok(Vec::new()),
            Some(Value::List(items)) => items.iter().map(|item| whole(item, name)).collect(),
            Some(_) => Err(format!("`{name}` in it is no list")),
        }
    }
}

fn whole(value: &Value, name: &str) -> Result<i64, String> {
    match value {
        Value::Long(number, _) => Ok(*number),
        _ => Err(format!("`{name}` in it is no whole number")),
    }
}
