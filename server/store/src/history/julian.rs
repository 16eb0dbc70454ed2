//! Does a Parquet file have days of before 1582-10-15 as the Julian calendar counts them?
//!
//! Spark had that calendar up to version 3, and later ones write so where `datetimeRebaseModeInWrite` is `LEGACY`;
//! their files say it. Such a day is up to twelve others from the one of its name in the calendar of everybody else.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ArrowReaderMetadata;
use ::parquet::basic::Type as PhysicalType;
use ::parquet::file::metadata::FileMetaData;
use arrow::array::{Array, ArrayRef, AsArray, make_array};
use arrow::compute::{cast, min};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::error::ArrowError;

/// 1582-10-15, the first day that both calendars call the same.
const FIRST_DAY: i64 = -141_427;
const DAY_S: i64 = 86_400;

/// Which of its columns may have such days.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Julian {
    /// Dates and times.
    times: bool,
    /// Times of 96 bits.
    int96: bool,
}

impl Julian {
    /// What a file says of itself, as Spark reads it.
    pub(super) fn of(metadata: &FileMetaData) -> Julian {
        let said = |key: &str| {
            let mut all = metadata.key_value_metadata().into_iter().flatten();
            all.find(|entry| entry.key == key).map(|entry| entry.value.as_deref().unwrap_or_default())
        };
        let version = said("org.apache.spark.version").and_then(|version| {
            let (major, rest) = version.split_once('.')?;
            Some((major.parse::<u32>().ok()?, rest.split('.').next()?.parse::<u32>().ok()?))
        });
        let is_before = |end: (u32, u32)| version.is_some_and(|version| version < end);
        Julian {
            times: is_before((3, 0)) || said("org.apache.spark.legacyDateTime").is_some(),
            int96: is_before((3, 1)) || said("org.apache.spark.legacyINT96").is_some(),
        }
    }

    /// Whether a column, which is that at `root` of the file, has one of these days.
    pub(super) fn has_some(
        self,
        metadata: &ArrowReaderMetadata,
        root: usize,
        column: &ArrayRef,
    ) -> Result<bool, ArrowError> {
        let Julian { times, int96 } = self;
        if !times && !int96 {
            return Ok(false);
        }
        let stored = &metadata.parquet_schema().root_schema().get_fields()[root];
        let is_int96 = stored.is_primitive() && stored.get_physical_type() == PhysicalType::INT96;
        // Of what lies in lists and structs nothing says which kind of time it is.
        let may_be = if is_int96 { int96 } else { times || !stored.is_primitive() };
        Ok(may_be && has_some(column)?)
    }
}

/// Whether one of these days is in a column, or in what lies in it.
fn has_some(column: &ArrayRef) -> Result<bool, ArrowError> {
    let first = match column.data_type() {
        DataType::Date32 => Some(FIRST_DAY),
        DataType::Timestamp(unit, _) => (FIRST_DAY * DAY_S).checked_mul(match unit {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000,
        }),
        _ => {
            for child in column.to_data().child_data() {
                if has_some(&make_array(child.clone()))? {
                    return Ok(true);
                }
            }
            None
        }
    };
    let Some(first) = first else { return Ok(false) };
    // Days are 32 bits wide; Arrow casts them to 64 by way of their number.
    let is_days = *column.data_type() == DataType::Date32;
    let numbers = if is_days { cast(column, &DataType::Int32)? } else { Arc::clone(column) };
    let numbers = cast(&numbers, &DataType::Int64)?;
    Ok(min(numbers.as_primitive::<Int64Type>()).is_some_and(|least| least < first))
}

/// Why a column is not read that has them.
pub(super) fn why(column: &str) -> String {
    format!(
        "its column `{column}` has days of before 1582-10-15 in the Julian calendar, as old versions of Spark write them; \
         write it anew with `spark.sql.parquet.datetimeRebaseModeInWrite` (of 96-bit times `int96RebaseModeInWrite`) \
         set to `CORRECTED`"
    )
}
