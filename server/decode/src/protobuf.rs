//! What do bytes of Protobuf say? As a schema of a registry has it, which is the text of a `.proto` file.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::DateTime;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Syntax,
    Value,
};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use quern_engine::json::{Json, bytes};

use crate::avro::{Bytes, instant};

/// The messages of one file.
#[derive(Debug, Clone)]
pub struct Protobuf {
    pool: DescriptorPool,
    file: String,
}

/// What a file is called that a registry knows by a number alone.
const FILE: &str = "schema.proto";
/// What the messages are called that stand for a value which may be missing.
const WRAPPERS: [&str; 9] = [
    "google.protobuf.BoolValue",
    "google.protobuf.BytesValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.FloatValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.StringValue",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
];
const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// Files that may be imported, by their names.
struct Texts(HashMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let text = self.0.get(name).ok_or_else(|| protox::Error::file_not_found(name))?;
        File::from_source(name, text)
    }
}

impl Protobuf {
    /// Reads a file that may import `others`, by their names.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(text: &str, others: &[(String, String)]) -> Result<Protobuf, String> {
        let mut texts: HashMap<String, String> = others.iter().cloned().collect();
        let mut file = FILE.to_owned();
        while texts.contains_key(&file) {
            file.insert(0, '_');
        }
        texts.insert(file.clone(), text.to_owned());
        let mut files = ChainFileResolver::new();
        files.add(Texts(texts));
        files.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(files);
        compiler.open_file(&file).map_err(|error| format!("its schema: {error}"))?;
        Ok(Protobuf { pool: compiler.descriptor_pool(), file })
    }

    /// What a message says. `index` says which one it is, or the bytes before it do.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn json(&self, index: Option<&[u8]>, body: &[u8]) -> Result<Json<'static>, String> {
        let mut rest = Bytes::new(index.unwrap_or(body));
        let message = self.message(&mut rest)?;
        let body = if index.is_some() { body } else { rest.left() };
        let message = DynamicMessage::decode(message, body).map_err(|error| error.to_string())?;
        Ok(object(&message))
    }

    /// The message that an index means: the place of each within what is around it, outermost first.
    fn message(&self, index: &mut Bytes<'_>) -> Result<MessageDescriptor, String> {
        let unknown = || "it is of a message that its schema does not have".to_owned();
        let file = self.pool.get_file_by_name(&self.file).ok_or_else(unknown)?;
        let count = index.count()?;
        let first = if count == 0 { 0 } else { index.count()? };
        let mut message = file.messages().nth(first).ok_or_else(unknown)?;
        for _ in 1..count {
            let place = index.count()?;
            let within = message.child_messages().nth(place);
            message = within.ok_or_else(unknown)?;
        }
        if message.is_map_entry() { Err(unknown()) } else { Ok(message) }
    }
}

fn object(message: &DynamicMessage) -> Json<'static> {
    let entry = |field: FieldDescriptor| (Cow::Owned(field.name().to_owned()), field_of(message, &field));
    Json::Object(message.descriptor().fields().map(entry).collect())
}

/// What a message has in a field. Where it can tell that there is nothing: null, or what the schema says stands for it.
fn field_of(message: &DynamicMessage, field: &FieldDescriptor) -> Json<'static> {
    let is_said = message.has_field(field);
    let has_default = field.field_descriptor_proto().default_value.is_some();
    if !is_said && field.supports_presence() && !has_default {
        return Json::Null;
    }
    let value = message.get_field(field);
    // A symbol that a closed enumeration does not have is as none.
    if let (Kind::Enum(symbols), Value::EnumNumber(number)) = (field.kind(), &*value)
        && symbols.get_value(*number).is_none()
        && symbols.parent_file().syntax() == Syntax::Proto2
    {
        return if has_default {
            of(&Value::default_value_for_field(field), &field.kind())
        } else {
            Json::Null
        };
    }
    of(&value, &field.kind())
}

/// A value; `kind` is that of the field, of the items of a list, or of the entries of a map.
fn of(value: &Value, kind: &Kind) -> Json<'static> {
    match value {
        Value::Bool(value) => Json::Bool(*value),
        Value::I32(value) => Json::Int(i64::from(*value)),
        Value::I64(value) => Json::Int(*value),
        Value::U32(value) => Json::Int(i64::from(*value)),
        Value::U64(value) => i64::try_from(*value).map_or(Json::Float(*value as f64), Json::Int),
        Value::F32(value) => Json::Float(f64::from(*value)),
        Value::F64(value) => Json::Float(*value),
        Value::String(text) => Json::String(Cow::Owned(text.clone())),
        Value::Bytes(value) => bytes(value),
        Value::EnumNumber(number) => {
            let symbol = if let Kind::Enum(symbols) = kind { symbols.get_value(*number) } else { None };
            symbol.map_or(Json::Int(i64::from(*number)), |symbol| {
                Json::String(Cow::Owned(symbol.name().to_owned()))
            })
        }
        Value::Message(message) => within(message),
        Value::List(items) => Json::Array(items.iter().map(|item| of(item, kind)).collect()),
        Value::Map(entries) => {
            let kind = if let Kind::Message(entry) = kind {
                entry.map_entry_value_field().kind()
            } else {
                kind.clone()
            };
            let mut entries: Vec<(Cow<'static, str>, Json<'static>)> =
                entries.iter().map(|(key, value)| (Cow::Owned(name(key)), of(value, &kind))).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Json::Object(entries)
        }
    }
}

/// A message within another.
fn within(message: &DynamicMessage) -> Json<'static> {
    let said = |name: &str| message.get_field_by_name(name);
    let kind = message.descriptor();
    if kind.full_name() == TIMESTAMP {
        let number =
            |name: &str| said(name).and_then(|value| value.as_i64().or(value.as_i32().map(i64::from)));
        let nanos = number("nanos").and_then(|nanos| u32::try_from(nanos).ok());
        let time = number("seconds")
            .zip(nanos)
            .and_then(|(seconds, nanos)| DateTime::from_timestamp(seconds, nanos));
        return time.map_or_else(|| object(message), instant);
    }
    if WRAPPERS.contains(&kind.full_name())
        && let Some(field) = kind.get_field_by_name("value")
    {
        return of(&message.get_field(&field), &field.kind());
    }
    object(message)
}

fn name(key: &MapKey) -> String {
    match key {
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(value) => value.to_string(),
        MapKey::I64(value) => value.to_string(),
        MapKey::U32(value) => value.to_string(),
        MapKey::U64(value) => value.to_string(),
        MapKey::String(text) => text.clone(),
    }
}
