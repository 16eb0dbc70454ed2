//! What does a table of Iceberg say of itself? Its `metadata.json`, as the table's specification lays it down.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    StringArray, new_null_array,
};
use arrow::datatypes::{DataType, Field as ArrowField, Fields, TimeUnit};
use serde::Deserialize;
use serde_json::Value as Json;

use super::exactly;
use quern_decode::avro::{Counts, Value};

/// The newest version of the format that is read.
const FORMAT_MAX: i64 = 3;
/// The number of the first part of a partition's tuple, where none is written.
const FIRST_PARTITION_FIELD: i64 = 1000;

/// A table, at the commit that wrote this.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Metadata {
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
    refs: Option<BTreeMap<String, Reference>>,
    properties: Option<BTreeMap<String, String>>,
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
    dtype: Json,
    /// What it is in files that are older.
    #[serde(default)]
    initial_default: Json,
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
        if !(1..=FORMAT_MAX).contains(&format_version) {
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
                let Some(found) =
                    self.refs.iter().flatten().find(|(known, _)| *known == name).map(|(_, found)| found)
                else {
                    let known: Vec<String> = self
                        .refs
                        .iter()
                        .flatten()
                        .map(|(name, _)| name)
                        .map(|name| format!("`{name}`"))
                        .collect();
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

    /// When its snapshots were made, by their ids; those that are gone are before all others.
    pub(super) fn made_ms(&self) -> HashMap<i64, i64> {
        self.snapshots.iter().map(|snapshot| (snapshot.snapshot_id, snapshot.timestamp_ms)).collect()
    }

    fn schema(&self, id: Option<i64>) -> Result<&Schema, Wrong> {
        let lacking = |cause: &str| (cause.to_owned(), "is its metadata whole?".to_owned());
        match id {
            Some(id) => {
                let mut all = self.schemas.iter().chain(&self.schema);
                all.find(|schema| schema.schema_id == id)
                    .ok_or_else(|| lacking("it lacks the columns of that state"))
            }
            None => self
                .schema
                .as_ref()
                .or(self.schemas.last())
                .ok_or_else(|| lacking("it does not say its columns")),
        }
    }

    /// Whether files are not told apart where their partitions are made as `spec` says.
    pub(super) fn is_whole(&self, spec: i64) -> bool {
        self.partitioned(spec).iter().all(|field| field.transform == "void")
    }

    fn partitioned(&self, spec: i64) -> &[Partitioned] {
        let found =
            self.partition_specs.iter().find(|known| known.spec_id == spec).map(|spec| &spec.fields[..]);
        found.or(self.partition_spec.as_deref()).unwrap_or_default()
    }

    /// The columns of which all rows of a file have one value, where its partition is made as `spec` says; each by its
    /// number, with the number of the value.
    pub(super) fn constants(&self, spec: i64) -> Vec<(i64, i64)> {
        // The first version of the format did not write these numbers.
        let numbered = (FIRST_PARTITION_FIELD..).zip(self.partitioned(spec));
        let identity = numbered.filter(|(_, field)| field.transform == "identity");
        identity.filter_map(|(nth, field)| Some((field.source_id?, field.field_id.unwrap_or(nth)))).collect()
    }

    /// A column of any of its schemas, the newest first: one that was dropped may still say which rows were deleted.
    pub(super) fn field(&self, id: i64) -> Option<&Field> {
        let all = self.schemas.iter().chain(&self.schema);
        let having = all.filter_map(|schema| {
            Some((schema.schema_id, schema.fields.iter().find(|field| field.id == id)?))
        });
        having.max_by_key(|(schema, _)| *schema).map(|(_, field)| field)
    }

    /// The names of its columns in files that do not number theirs, by their numbers.
    pub(super) fn names(&self) -> Result<BTreeMap<i64, Vec<String>>, Wrong> {
        let Some(mapping) = self.properties.as_ref().and_then(|all| all.get("schema.name-mapping.default"))
        else {
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
            Json::Null => return Ok(None),
            Json::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Arc::new(Int64Array::from(vec![number])),
                None => Arc::new(Float64Array::from(vec![number.as_f64()])),
            },
            Json::String(text) => match self.dtype()? {
                DataType::Binary | DataType::FixedSizeBinary(_) => {
                    let bytes = bytes(text).ok_or_else(|| self.odd("it is no hexadecimal number"))?;
                    Arc::new(BinaryArray::from(vec![&bytes[..]]))
                }
                _ => Arc::new(StringArray::from(vec![text.as_str()])),
            },
            Json::Array(_) | Json::Object(_) => return Err(self.odd("it has parts")),
        };
        exactly(&array, &self.dtype()?).map(Some).map_err(|error| self.odd(&error.to_string()))
    }

    /// A value that a manifest says, as this column has it.
    pub(super) fn said(&self, value: &Value) -> Result<ArrayRef, Wrong> {
        let dtype = self.dtype()?;
        let array: Option<ArrayRef> = match value {
            Value::Null => Some(new_null_array(&dtype, 1)),
            Value::Bool(value) => Some(Arc::new(BooleanArray::from(vec![*value]))),
            Value::Long(value, Counts::Days) => {
                i32::try_from(*value).ok().map(|day| Arc::new(Date32Array::from(vec![day])) as _)
            }
            Value::Long(value, _) => Some(Arc::new(Int64Array::from(vec![*value]))),
            Value::Double(value) => Some(Arc::new(Float64Array::from(vec![*value]))),
            Value::Decimal(value, _) => match &dtype {
                DataType::Decimal128(precision, scale) => {
                    let array =
                        Decimal128Array::from(vec![*value]).with_precision_and_scale(*precision, *scale);
                    array.ok().map(|array| Arc::new(array) as _)
                }
                _ => None,
            },
            Value::Bytes(bytes) => Some(Arc::new(BinaryArray::from(vec![&bytes[..]]))),
            Value::Uuid(bytes) => Some(Arc::new(BinaryArray::from(vec![&bytes[..]]))),
            Value::Text(text) => Some(Arc::new(StringArray::from(vec![text.as_str()]))),
            Value::List(_) | Value::Record(_) => None,
        };
        let array = array.and_then(|array| match (array.data_type(), &dtype) {
            // Days are 32 bits wide; Arrow casts whole numbers to them by way of these.
            (DataType::Int64, DataType::Date32) => {
                exactly(&exactly(&array, &DataType::Int32).ok()?, &dtype).ok()
            }
            _ => exactly(&array, &dtype).ok(),
        });
        array.ok_or_else(|| {
            let cause = format!("a partition says a value of its column `{}` that is none", self.name);
            (cause, "is its metadata whole?".to_owned())
        })
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
fn dtype(found: &Json) -> Result<DataType, String> {
    let field = |name: &str, found: Option<&Json>| {
        Ok::<_, String>(ArrowField::new(name, dtype(found.unwrap_or(&Json::Null))?, true))
    };
    let Some(name) = found.as_str() else {
        return match found.get("type").and_then(Json::as_str) {
            Some("list") => Ok(DataType::List(Arc::new(field("element", found.get("element"))?))),
            Some("struct") => {
                let fields =
                    found.get("fields").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
                let name = |it: &Json| it.get("name").and_then(Json::as_str).unwrap_or_default().to_owned();
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
