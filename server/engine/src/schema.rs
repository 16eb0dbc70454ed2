//! Which Arrow types stand for the types of the language, and how does foreign data become them?

mod convert;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use feature_defs::{ScalarType, Type};

pub use convert::{conform, fitting};
pub(crate) use convert::{convert, narrow, newly_null, with_column};

/// The column that holds the query time in a spine, and in an instance that brings its own.
pub const EVENT_TIMESTAMP: &str = "event_timestamp";

/// The column that says when a row became known, in a table of a view's rows.
pub const CREATED_TIMESTAMP: &str = "created_timestamp";

/// Microseconds since the Unix epoch, UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn item(dtype: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", dtype, true))
}

fn scalar(t: ScalarType) -> DataType {
    match t {
        ScalarType::Bool => DataType::Boolean,
        ScalarType::Int32 => DataType::Int32,
        ScalarType::Int64 => DataType::Int64,
        ScalarType::Float32 => DataType::Float32,
        ScalarType::Float64 => DataType::Float64,
        ScalarType::String => DataType::Utf8,
        ScalarType::Bytes => DataType::Binary,
        ScalarType::Timestamp => timestamp(),
        ScalarType::Date => DataType::Date32,
    }
}

/// The Arrow type of a type of the language.
pub fn arrow_type(t: Type) -> DataType {
    match t {
        Type::Scalar(t) => scalar(t),
        Type::List { item: t, length: None } => DataType::List(item(scalar(t))),
        Type::List { item: t, length: Some(n) } => DataType::FixedSizeList(item(scalar(t)), n as i32),
    }
}

/// The type of the language that an Arrow type stands for, where there is one.
pub fn quern_type(dtype: &DataType) -> Option<Type> {
    match dtype {
        DataType::List(field) => list_item(field.data_type()).map(|item| Type::List { item, length: None }),
        DataType::FixedSizeList(field, n) => {
            list_item(field.data_type()).map(|item| Type::List { item, length: u32::try_from(*n).ok() })
        }
        other => ScalarType::ALL.into_iter().find(|t| scalar(*t) == *other).map(Type::Scalar),
    }
}

fn list_item(dtype: &DataType) -> Option<ScalarType> {
    ScalarType::ALL.into_iter().find(|t| t.is_item() && scalar(*t) == *dtype)
}

/// The name of a type for people: the language's own; of what it does not know, what most call it.
pub fn type_name(dtype: &DataType) -> String {
    use DataType::*;
    if let Some(ours) = quern_type(dtype) {
        return ours.to_string();
    }
    match dtype {
        LargeUtf8 | Utf8View | LargeBinary | BinaryView | FixedSizeBinary(_) | Timestamp(_, _) | Date64 => {
            type_name(&canonical(dtype))
        }
        Dictionary(_, value) => type_name(value),
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) => {
            format!("list<{}>", type_name(item.data_type()))
        }
        FixedSizeList(item, length) => format!("list<{}, {length}>", type_name(item.data_type())),
        Decimal32(digits, scale)
        | Decimal64(digits, scale)
        | Decimal128(digits, scale)
        | Decimal256(digits, scale) => format!("decimal({digits}, {scale})"),
        Struct(_) => "struct".to_owned(),
        Map(entries, _) => match entries.data_type() {
            Struct(both) => {
                let both = both.iter().map(|field| type_name(field.data_type()));
                format!("map<{}>", both.collect::<Vec<_>>().join(", "))
            }
            _ => "map".to_owned(),
        },
        Time32(_) | Time64(_) => "time".to_owned(),
        Null | Int8 | Int16 | UInt8 | UInt16 | UInt32 | UInt64 | Float16 => dtype.to_string().to_lowercase(),
        other => other.to_string(),
    }
}

/// The name of a type in the identity of a view. What is stored is found by it, so unlike [`type_name`] it never
/// changes.
pub(crate) fn identity_name(dtype: &DataType) -> String {
    quern_type(dtype).map_or_else(|| dtype.to_string(), |t| t.to_string())
}

/// What a column of a file or of a spine becomes; a type that the language does not know stays as it is.
pub fn canonical(dtype: &DataType) -> DataType {
    match dtype {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Dictionary(_, value) => canonical(value),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Timestamp(_, _) => timestamp(),
        DataType::Date64 => DataType::Date32,
        DataType::List(f) | DataType::LargeList(f) | DataType::ListView(f) | DataType::LargeListView(f) => {
            DataType::List(item(canonical(f.data_type())))
        }
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(item(canonical(f.data_type())), *n),
        other => other.clone(),
    }
}

/// Whether a column declared as `to` may be fed from one of type `from`: numbers from numbers, times from times,
/// never text from numbers, and no whole number from a fraction.
pub fn conforms(from: &DataType, to: &DataType) -> bool {
    let from = canonical(from);
    match (&from, to) {
        (a, b) if a == b => true,
        (DataType::Null, _) => true,
        (DataType::Int32 | DataType::Int64, b) => b.is_numeric(),
        (DataType::Float32 | DataType::Float64, b) => b.is_floating(),
        // Whole numbers of a warehouse: `NUMBER(38, 0)`. Those beyond the type are found when they are read.
        (
            DataType::Decimal32(_, 0)
            | DataType::Decimal64(_, 0)
            | DataType::Decimal128(_, 0)
            | DataType::Decimal256(_, 0),
            b,
        ) => b.is_numeric(),
        (from, b) if from.is_decimal() => b.is_floating(),
        (DataType::Date32, b) => *b == timestamp(),
        (
            DataType::List(a) | DataType::FixedSizeList(a, _),
            DataType::List(b) | DataType::FixedSizeList(b, _),
        ) => conforms(a.data_type(), b.data_type()),
        _ => false,
    }
}
