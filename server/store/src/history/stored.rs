//! How does a column become what it is declared as, where `from` says that it is stored as something else?

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use feature_defs::{Epoch, Stored};
use quern_engine::schema::{canonical, conform, type_name};

use super::cell::{Cells, example};

/// Of how many bytes a UUID is.
const UUID_BYTES: i32 = 16;

/// Whether a column of a file is stored so.
pub(super) fn is(stored: Stored, dtype: &DataType) -> bool {
    match (stored, dtype) {
        (stored, DataType::Dictionary(_, value)) => is(stored, value),
        (Stored::Decimal(None), dtype) => dtype.is_decimal(),
        (Stored::Decimal(Some(declared)), dtype) => digits(dtype) == Some(declared),
        (Stored::Uuid, dtype) => *dtype == DataType::FixedSizeBinary(UUID_BYTES),
        (Stored::String, dtype) => canonical(dtype) == DataType::Utf8,
        (Stored::Binary, dtype) => canonical(dtype) == DataType::Binary,
    }
}

fn digits(dtype: &DataType) -> Option<(u8, i8)> {
    match dtype {
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => Some((*digits, *scale)),
        _ => None,
    }
}

/// As what a column that is found to be `found` may be declared to be stored, so that it becomes `to`.
pub(super) fn meant(found: &DataType, to: &DataType) -> Option<Stored> {
    let to = quern_engine::schema::quern_type(to)?;
    let all = [Stored::Decimal(None), Stored::String, Stored::Uuid, Stored::Binary];
    all.into_iter().find(|stored| is(*stored, found) && stored.becomes(to))
}

/// The values of a column as `to`; `format` says what the numbers of a time count.
///
/// # Errors
/// The first value that is none of `to`.
pub(super) fn read(
    column: &ArrayRef,
    to: &DataType,
    (stored, format): (Stored, Option<Epoch>),
) -> Result<ArrayRef, ArrowError> {
    match stored {
        Stored::Decimal(_) | Stored::Binary => conform(column, to),
        Stored::Uuid => Ok(Arc::new(uuids(column)?)),
        Stored::String => {
            let texts = conform(column, &DataType::Utf8)?;
            let no_text = || ArrowError::CastError(format!("no text says {}", type_name(to)));
            let mut cells = Cells::new(to, format).ok_or_else(no_text)?;
            for text in texts.as_string::<i32>() {
                let is_none = |text: &str| {
                    let such_as = example(to);
                    ArrowError::CastError(format!("`{text}` is no {}, such as {such_as}", type_name(to)))
                };
                match text {
                    None => cells.push_null(),
                    Some(text) => cells.push(text).ok_or_else(|| is_none(text))?,
                }
            }
            cells.finish()
        }
    }
}

fn uuids(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let bytes = conform(column, &DataType::Binary)?;
    let text = |bytes: &[u8]| {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| digits.get(part).unwrap_or_default()).join("-")
    };
    Ok(bytes.as_binary::<i32>().iter().map(|bytes| bytes.map(text)).collect())
}
