//! Which Arrow types stand for the types of the language, and how does foreign data become them?

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Field, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow::error::ArrowError;
use feature_defs::{ScalarType, Type};

/// The column that holds the query time in a spine, and in an instance that brings its own.
pub const EVENT_TIMESTAMP: &str = "event_timestamp";

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
        DataType::List(field) => number(field.data_type()).map(|item| Type::List { item, length: None }),
        DataType::FixedSizeList(field, n) => {
            number(field.data_type()).map(|item| Type::List { item, length: u32::try_from(*n).ok() })
        }
        other => ScalarType::ALL.into_iter().find(|t| scalar(*t) == *other).map(Type::Scalar),
    }
}

fn number(dtype: &DataType) -> Option<ScalarType> {
    ScalarType::ALL.into_iter().find(|t| t.is_number() && scalar(*t) == *dtype)
}

/// The name of a type for people: the language's own, else Arrow's.
pub fn type_name(dtype: &DataType) -> String {
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
        DataType::List(f) | DataType::LargeList(f) | DataType::ListView(f) => {
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
        (DataType::Decimal128(_, _) | DataType::Decimal256(_, _), b) => b.is_floating(),
        (DataType::Date32, b) => *b == timestamp(),
        (
            DataType::List(a) | DataType::FixedSizeList(a, _),
            DataType::List(b) | DataType::FixedSizeList(b, _),
        ) => conforms(a.data_type(), b.data_type()),
        _ => false,
    }
}

/// Casts without loss of meaning: what overflows, is no UTF-8 or would lose a fraction is an error.
pub fn conform(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    match (from, to) {
        // Arrow divides towards zero, which moves instants before 1970 into the future; we take the floor.
        (DataType::Timestamp(TimeUnit::Nanosecond, _), to) if *to == timestamp() => {
            let micros = array
                .as_primitive::<TimestampNanosecondType>()
                .unary::<_, TimestampMicrosecondType>(|ns| ns.div_euclid(1_000));
            Ok(Arc::new(micros.with_timezone("UTC")))
        }
        (DataType::Float64, DataType::Int32 | DataType::Int64) => {
            let whole = array.as_primitive::<Float64Type>().try_unary::<_, Int64Type, _>(|x| {
                // Above 2^53 a double names no single whole number.
                if x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0 {
                    Ok(x as i64)
                } else {
                    Err(ArrowError::CastError(format!("{x} is not a whole number")))
                }
            })?;
            conform(&(Arc::new(whole) as ArrayRef), to)
        }
        (DataType::Float32, DataType::Int32 | DataType::Int64) => {
            conform(&conform(array, &DataType::Float64)?, to)
        }
        _ => cast_with_options(array, to, &CastOptions { safe: false, ..Default::default() }),
    }
}
