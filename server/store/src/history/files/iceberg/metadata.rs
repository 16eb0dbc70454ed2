//! What does a table of Iceberg say of itself? Its `metadata.json`, as the table's specification lays it down.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field as ArrowField, Fields, TimeUnit};
use serde::Deserialize;
use serde_json::Value;

use super::exactly;

/// The newest version of the format that is read.
const FORMAT_MAX: i64 = 3;
/// The number of the first part of a partition's tuple, where none is written.
const FIRST_PARTITION_FIELD: i64 = 1000;

/// A table, at the commit that wrote this.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Metadata {
    format_version: i64,
    pub(super) location: String,
    #[serde(default)]
    schemas: Vec<Schema>,
    /// Of the first version of the format, which may have only this one.
    schema: Option<Schema>,
    current_schema_id: Option<i64>,
    #[serde(default)]
    partition_specs: Vec<Spec>,
    partition_spec: Option<Vec<Partitioned>>,
    #[serde(default)]
    snapshots: Vec<Snapshot>,
    current_snapshot_id: Option<i64>,
    #[serde(default)]
    refs: BTreeMap<String, Reference>,
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Schema {
    #[serde(default)]
    schema_id: i64,
    pub(super) fields: Vec<Field>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Field {
    pub(super) id: i64,
    pub(super) name: String,
    #[serde(rename = "type")]
    dtype: Value,
    /// What it is in files that are older.
    #[serde(default)]
    initial_default: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Spec {
    spec_id: i64,
    fields: Vec<Partitioned>,
}

/// What a value is made of by which files are told apart.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Partitioned {
    source_id: Option<i64>,
    field_id: Option<i64>,
    transform: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Snapshot {
    pub(super) snapshot_id: i64,
    pub(super) timestamp_ms: i64,
    pub(super) manifest_list: Option<String>,
    /// Of the first version of the format: the manifests themselves.
    pub(super) manifests: Option<Vec<String>>,
    schema_id: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Reference {
    snapshot_id: i64,
    #[serde(rename = "type")]
    kind: String,
}

/// The columns that files without numbers have, by the numbers that the table has for them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mapped {
    field_id: Option<i64>,
    #[serde(default)]
    names: Vec<String>,
}

/// Which state of a table is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum At {
    Latest,
    Snapshot(u64),
    Reference(String),
}

/// A state of the table: its snapshot, none where it never had rows, and its columns.
#[derive(Debug)]
pub(super) struct State<'a> {
    pub(super) snapshot: Option<&'a Snapshot>,
    pub(super) schema: &'a Schema,
}

/// Why something cannot be read, and the way out.
pub(super) type Wrong = (String, String);

impl Metadata {
    pub(super) fn parse(text: &[u8]) -> Result<Metadata, Wrong> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Version {
            format_version: i64,
        }
        let unread = |error: serde_json::Error| (error.to_string(), "is it whole?".to_owned());
        let Version { format_version } = serde_json::from_slice(text).map_err(unread)?;
        if format_version > FORMAT_MAX {
            let cause = format!(
                "it is of version {format_version} of Iceberg's format, and up to {FORMAT_MAX} is read"
            );
            return Err((
                cause,
                "have its writer write an older version, or a newer build of Quern".to_owned(),
            ));
        }
        serde_json::from_slice(text).map_err(unread)
    }

    /// Whether rows of it have numbers that say which commit they are of.
    pub(super) fn is_numbered(&self) -> bool {
        self.format_version > 1
    }

    /// What it was like then.
    pub(super) fn at(&self, at: &At) -> Result<State<'_>, Wrong> {
        let current = self.schema(self.current_schema_id)?;
        let (id, schema) = match at {
            At::Latest => match self.current_snapshot_id.filter(|id| *id >= 0) {
                Some(id) => (id, current),
                None => return Ok(State { snapshot: None, schema: current }),
            },
            At::Snapshot(id) => {
                let id = *id as i64;
                (id, self.schema(self.snapshot(id)?.schema_id.or(self.current_schema_id))?)
            }
            At::Reference(name) => {
                let Some(found) = self.refs.get(name) else {
                    let known: Vec<String> = self.refs.keys().map(|name| format!("`{name}`")).collect();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    return Err((format!("it has no branch and no tag `{name}`"), format!("it has {known}")));
                };
                // A branch goes on with the table; a tag stays as it was.
                let schema = match found.kind.as_str() {
                    "branch" => current,
                    _ => {
                        self.schema(self.snapshot(found.snapshot_id)?.schema_id.or(self.current_schema_id))?
                    }
                };
                (found.snapshot_id, schema)
            }
        };
        Ok(State { snapshot: Some(self.snapshot(id)?), schema })
    }

    fn snapshot(&self, id: i64) -> Result<&Snapshot, Wrong> {
        self.snapshots.iter().find(|snapshot| snapshot.snapshot_id == id).ok_or_else(|| {
            let known = self.snapshots.iter().rev().take(5).map(|snapshot| snapshot.snapshot_id.to_string());
            let known: Vec<String> = known.collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            (format!("it has no snapshot {id}, or no longer"), format!("its latest are: {known}"))
        })
    }

    /// When a snapshot was made; before all others where it is gone.
    pub(super) fn made_ms(&self, snapshot: Option<i64>) -> i64 {
        let found = self.snapshots.iter().find(|known| Some(known.snapshot_id) == snapshot);
        found.map_or(i64::MIN, |snapshot| snapshot.timestamp_ms)
    }

    fn schema(&self, id: Option<i64>) -> Result<&Schema, Wrong> {
        let found = self.schemas.iter().find(|schema| Some(schema.schema_id) == id);
        let lacking = || ("it does not say its columns".to_owned(), "is it whole?".to_owned());
        found.or(self.schema.as_ref()).or(self.schemas.last()).ok_or_else(lacking)
    }

    /// The columns of which all rows of a file have one value, where its partition is made as `spec` says; each by its
    /// number, with the number of the value.
    pub(super) fn constants(&self, spec: i64) -> Vec<(i64, i64)> {
        let found =
            self.partition_specs.iter().find(|known| known.spec_id == spec).map(|spec| &spec.fields[..]);
        let fields = found.or(self.partition_spec.as_deref()).unwrap_or_default();
        // The first version of the format did not write these numbers.
        let numbered = (FIRST_PARTITION_FIELD..).zip(fields);
        let identity = numbered.filter(|(_, field)| field.transform == "identity");
        identity.filter_map(|(nth, field)| Some((field.source_id?, field.field_id.unwrap_or(nth)))).collect()
    }

    /// A column of any of its schemas, the newest first: one that was dropped may still say which rows were deleted.
    pub(super) fn field(&self, id: i64) -> Option<&Field> {
        let all = self.schemas.iter().rev().chain(&self.schema);
        all.flat_map(|schema| &schema.fields).find(|field| field.id == id)
    }

    /// The names of its columns in files that do not number theirs, by their numbers.
    pub(super) fn names(&self) -> Result<BTreeMap<i64, Vec<String>>, Wrong> {
        let Some(mapping) = self.properties.get("schema.name-mapping.default") else {
            return Ok(BTreeMap::new());
        };
        let mapped: Vec<Mapped> = serde_json::from_str(mapping)
            .map_err(|error| (format!("its `schema.name-mapping.default`: {error}"), "mend it".to_owned()))?;
        Ok(mapped.into_iter().filter_map(|mapped| Some((mapped.field_id?, mapped.names))).collect())
    }
}

impl Field {
    /// What its values are here.
    pub(super) fn dtype(&self) -> Result<DataType, Wrong> {
        dtype(&self.dtype).map_err(|found| {
            (format!("its column `{}` is of type {found}", self.name), "is it whole?".to_owned())
        })
    }

    /// What it is in files that are older than it, where that is not null.
    pub(super) fn default(&self) -> Result<Option<ArrayRef>, Wrong> {
        let array: ArrayRef = match &self.initial_default {
            Value::Null => return Ok(None),
            Value::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
            Value::Number(number) => match number.as_i64() {
                Some(number) => Arc::new(Int64Array::from(vec![number])),
                None => Arc::new(Float64Array::from(vec![number.as_f64()])),
            },
            Value::String(text) => match self.dtype()? {
                DataType::Binary | DataType::FixedSizeBinary(_) => {
                    let bytes = bytes(text).ok_or_else(|| self.odd("it is no hexadecimal number"))?;
                    Arc::new(BinaryArray::from(vec![&bytes[..]]))
                }
                _ => Arc::new(StringArray::from(vec![text.as_str()])),
            },
            Value::Array(_) | Value::Object(_) => return Err(self.odd("it has parts")),
        };
        exactly(&array, &self.dtype()?).map(Some).map_err(|error| self.odd(&error.to_string()))
    }

    fn odd(&self, why: &str) -> Wrong {
        let cause = format!("the `initial-default` of its column `{}` is not read: {why}", self.name);
        (cause, "leave the column out of the table, or rewrite the files that lack it".to_owned())
    }
}

/// The bytes of a fixed or a UUID, as JSON has them.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<char> = text.chars().filter(|digit| *digit != '-').collect();
    let pair = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok();
    if digits.len().is_multiple_of(2) { digits.chunks(2).map(pair).collect() } else { None }
}

/// What values of a type are here; the type where there is none such.
fn dtype(found: &Value) -> Result<DataType, String> {
    let field = |name: &str, found: Option<&Value>| {
        Ok::<_, String>(ArrowField::new(name, dtype(found.unwrap_or(&Value::Null))?, true))
    };
    let Some(name) = found.as_str() else {
        return match found.get("type").and_then(Value::as_str) {
            Some("list") => Ok(DataType::List(Arc::new(field("element", found.get("element"))?))),
            Some("struct") => {
                let fields =
                    found.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let name = |it: &Value| it.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                let fields = fields.iter().map(|it| field(&name(it), it.get("type")));
                Ok(DataType::Struct(fields.collect::<Result<Fields, _>>()?))
            }
            Some("map") => {
                let entries = [field("key", found.get("key"))?, field("value", found.get("value"))?];
                let entries =
                    ArrowField::new("entries", DataType::Struct(Fields::from(entries.to_vec())), false);
                Ok(DataType::Map(Arc::new(entries), false))
            }
            _ => Err(found.to_string()),
        };
    };
    let utc = || Some("UTC".into());
    Ok(match name {
        "boolean" => DataType::Boolean,
        "int" => DataType::Int32,
        "long" => DataType::Int64,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "date" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, utc()),
        "timestamp_ns" => DataType::Timestamp(TimeUnit::Nanosecond, None),
        "timestamptz_ns" => DataType::Timestamp(TimeUnit::Nanosecond, utc()),
        "string" => DataType::Utf8,
        "uuid" => DataType::FixedSizeBinary(16),
        "binary" => DataType::Binary,
        // Every row of it is null.
        "unknown" => DataType::Null,
        // Of these nothing is known here but that they are no value of a feature.
        "variant" => DataType::Struct(Fields::empty()),
        name if name.starts_with("geometry") || name.starts_with("geography") => {
            DataType::Struct(Fields::empty())
        }
        name => sized(name).ok_or_else(|| name.to_owned())?,
    })
}

/// `fixed[16]` or `decimal(9,2)`.
fn sized(name: &str) -> Option<DataType> {
    if let Some(length) = name.strip_prefix("fixed[").and_then(|rest| rest.strip_suffix(']')) {
        return Some(DataType::FixedSizeBinary(length.trim().parse().ok().filter(|length| *length >= 0)?));
    }
    let (precision, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    (1..=38).contains(&precision).then_some(DataType::Decimal128(precision, scale))
}
