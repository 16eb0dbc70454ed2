//! How does a column of one type become another, and what of it is lost on the way?
//!
//! [`convert`] gives null for what the other type cannot say; [`narrow`] also for what would lose a fraction or an
//! item; [`conform`] makes an error of either.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float64Array, GenericListArray, ListArray,
    OffsetSizeTrait, PrimitiveArray, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast, cast_with_options, nullif, take};
use arrow::datatypes::{
    ArrowTimestampType, DECIMAL256_MAX_PRECISION, DataType, Date32Type, Date64Type, Decimal32Type,
    Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Field, Float32Type, Float64Type, Int64Type,
    Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, i256,
};
use arrow::error::ArrowError;
use arrow::util::display::{FormatOptions, array_value_to_string};

use super::{timestamp, type_name};

/// Casts without loss of meaning: what overflows, is no UTF-8 or would lose a fraction is an error.
///
/// # Errors
/// The first value that `to` cannot say.
pub fn conform(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let narrowed = narrow(array, to)?;
    if newly_null(array, &narrowed) == 0 {
        return Ok(narrowed);
    }
    let (before, after) = (array.logical_nulls(), narrowed.logical_nulls());
    let is_null = |nulls: &Option<NullBuffer>, row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    let lost =
        (0..array.len()).find(|row| is_null(&after, *row) && !is_null(&before, *row)).unwrap_or_default();
    // Arrow has no text for a time beyond its calendar.
    let value = array_value_to_string(array, lost).ok().filter(|text| !text.starts_with("ERROR"));
    let value = value.unwrap_or_else(|| "the value".to_owned());
    let value_is = |what: String| Err(ArrowError::CastError(format!("{value} {what}")));
    if to.is_nested() {
        return value_is(format!("cannot be cast to {}", type_name(to)));
    }
    match convert(&array.slice(lost, 1), to)?.logical_null_count() {
        0 => value_is("is not a whole number".to_owned()),
        _ => value_is(format!("is beyond {}", type_name(to))),
    }
}

/// The same; none where there is a value that `to` cannot say.
///
/// # Errors
/// Types of which no value goes into the other.
pub fn fitting(array: &ArrayRef, to: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
    let narrowed = narrow(array, to)?;
    Ok((newly_null(array, &narrowed) == 0).then_some(narrowed))
}

/// How many values are null in what a column became.
pub(crate) fn newly_null(before: &ArrayRef, after: &ArrayRef) -> usize {
    after.logical_null_count().saturating_sub(before.logical_null_count())
}

/// The values as `to`, where that can say them without loss of meaning; what it cannot is null, a list as a whole.
///
/// # Errors
/// Types of which no value goes into the other.
pub(crate) fn narrow(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    match (from, to) {
        (DataType::Dictionary(_, value), to) => narrow(&cast(array, value)?, to),
        (DataType::Float16 | DataType::Float32, to) if to.is_integer() => {
            narrow(&cast(array, &DataType::Float64)?, to)
        }
        (DataType::Float64, to) if to.is_integer() => {
            let whole = array.as_primitive::<Float64Type>().unary_opt::<_, Int64Type>(|x| {
                // Above 2^53 a double names no single whole number.
                (x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0).then_some(x as i64)
            });
            narrow(&(Arc::new(whole) as ArrayRef), to)
        }
        (from, to) if from.is_decimal() && to.is_integer() => convert(&whole_decimals(array)?, to),
        (DataType::List(_), DataType::List(field)) => lists(array.as_list::<i32>(), field),
        (DataType::LargeList(_), DataType::LargeList(field)) => lists(array.as_list::<i64>(), field),
        (
            DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item),
            DataType::List(field),
        ) => {
            let list = cast_with_options(array, &DataType::List(Arc::clone(item)), &LOSSY)?;
            lists(list.as_list::<i32>(), field)
        }
        (DataType::FixedSizeList(item, _), DataType::List(_) | DataType::FixedSizeList(..)) => {
            narrow(&cast(array, &DataType::List(Arc::clone(item)))?, to)
        }
        (
            DataType::List(_) | DataType::LargeList(_) | DataType::ListView(_) | DataType::LargeListView(_),
            DataType::FixedSizeList(field, size),
        ) => {
            let list = narrow(array, &DataType::List(Arc::clone(field)))?;
            fixed_size(list.as_list::<i32>(), field, *size)
        }
        _ => convert(array, to),
    }
}

/// Lists of `size` items; null where one has more or fewer. Arrow's own cast panics on some that have.
fn fixed_size(array: &ListArray, field: &Arc<Field>, size: i32) -> Result<ArrayRef, ArrowError> {
    let is_whole = |row: &usize| array.is_valid(*row) && array.value_length(*row) == size;
    let rows = 0..array.len();
    if rows.clone().all(|row| is_whole(&row)) {
        let (first, items) = (array.value_offsets()[0] as usize, array.len() * size as usize);
        let items = array.values().slice(first, items);
        // Of lists without items their length would be unknown.
        let lists =
            FixedSizeListArray::try_new_with_length(Arc::clone(field), size, items, None, array.len())?;
        return Ok(Arc::new(lists));
    }
    let items = rows.clone().flat_map(|row| {
        let first = is_whole(&row).then(|| array.value_offsets()[row] as u32);
        (0..size as u32).map(move |item| first.map(|first| first + item))
    });
    let items = take(array.values(), &items.collect::<UInt32Array>(), None)?;
    let there = NullBuffer::from_iter(rows.map(|row| is_whole(&row)));
    Ok(Arc::new(FixedSizeListArray::try_new(Arc::clone(field), size, items, Some(there))?))
}

/// The batch with other values in a column.
pub(crate) fn with_column(
    batch: &RecordBatch,
    index: usize,
    values: ArrayRef,
) -> Result<RecordBatch, ArrowError> {
    let mut fields = batch.schema().fields().to_vec();
    fields[index] = Arc::new(Field::new(fields[index].name(), values.data_type().clone(), true));
    let mut columns = batch.columns().to_vec();
    columns[index] = values;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

const DAY_US: i64 = 86_400_000_000;
const LOSSY: CastOptions<'static> = CastOptions { safe: true, format_options: FormatOptions::new() };

/// The values as `to`, as `CAST` has it: fractions are cut off towards zero, instants are rounded down to the
/// microsecond; what has no value of that type is null.
///
/// # Errors
/// Types of which no value goes into the other.
pub(crate) fn convert(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    match (from, to) {
        (DataType::Dictionary(_, value), to) if !matches!(to, DataType::Dictionary(..)) => {
            convert(&cast(array, value)?, to)
        }
        // Of another zone or of none, it counts the same. Arrow's cast refuses what lies beyond its calendar, such as
        // the end of time of DuckDB and PostgreSQL.
        (DataType::Timestamp(unit, _), to) if *to == timestamp() => Ok(micros(array, *unit)),
        (DataType::Date32, to) if *to == timestamp() => {
            let micros = array
                .as_primitive::<Date32Type>()
                .unary_opt::<_, TimestampMicrosecondType>(|days| i64::from(days).checked_mul(DAY_US));
            Ok(Arc::new(micros.with_timezone("UTC")))
        }
        // Arrow wraps around where the milliseconds are too many, and rounds days before 1970 up.
        (DataType::Date64, to) if *to == timestamp() => {
            let millis = array.as_primitive::<Date64Type>().reinterpret_cast::<TimestampMillisecondType>();
            Ok(micros(&(Arc::new(millis) as ArrayRef), TimeUnit::Millisecond))
        }
        (DataType::Date64, DataType::Date32) => {
            let days = array
                .as_primitive::<Date64Type>()
                .unary_opt::<_, Date32Type>(|ms| i32::try_from(ms.div_euclid(DAY_US / 1_000)).ok());
            Ok(Arc::new(days))
        }
        // Arrow divides towards zero, which moves instants before 1970 into the future; we take the floor.
        (DataType::Timestamp(TimeUnit::Nanosecond, _), DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
            let micros = array
                .as_primitive::<TimestampNanosecondType>()
                .unary::<_, TimestampMicrosecondType>(|ns| ns.div_euclid(1_000));
            Ok(Arc::new(micros.with_timezone_opt(zone.clone())))
        }
        (DataType::Float64, DataType::Float32) => {
            let narrow = array.as_primitive::<Float64Type>().unary_opt::<_, Float32Type>(|x| {
                let narrow = x as f32;
                (narrow.is_finite() || !x.is_finite()).then_some(narrow)
            });
            Ok(Arc::new(narrow))
        }
        // Equal numbers have one text, and so one bucket.
        (DataType::Float64, DataType::Utf8) => {
            cast(&array.as_primitive::<Float64Type>().unary::<_, Float64Type>(|x| x + 0.0), to)
        }
        (DataType::Float32, DataType::Utf8) => {
            cast(&array.as_primitive::<Float32Type>().unary::<_, Float32Type>(|x| x + 0.0), to)
        }
        // Arrow takes the last 64 of the 256 bits.
        (DataType::Decimal256(_, scale), to) if to.is_integer() => {
            let power = i256::from_i128(10).checked_pow(scale.unsigned_abs().into());
            let whole = array.as_primitive::<Decimal256Type>().unary_opt::<_, Int64Type>(|value| {
                let whole = if *scale < 0 { value.checked_mul(power?) } else { value.checked_div(power?) };
                i64::try_from(whole?.to_i128()?).ok()
            });
            convert(&(Arc::new(whole) as ArrayRef), to)
        }
        (from, DataType::Float64) if from.is_decimal() => Ok(nearest(array)),
        (from, DataType::Float32) if from.is_decimal() => convert(&nearest(array), to),
        _ => cast_with_options(array, to, &LOSSY),
    }
}

/// The float64 that is nearest to each decimal, as of its text. Arrow divides, which rounds twice.
fn nearest(array: &ArrayRef) -> ArrayRef {
    fn of<T: DecimalType>(array: &ArrayRef, small: impl Fn(T::Native) -> Option<i64>) -> ArrayRef {
        let decimals = array.as_primitive::<T>();
        // Of two numbers that floats say exactly the quotient is the nearest.
        let power = u8::try_from(decimals.scale()).ok().filter(|scale| *scale <= 22);
        let power = power.map(|scale| 10_f64.powi(scale.into()));
        let float = |row: usize| match (small(decimals.value(row)), power) {
            _ if decimals.is_null(row) => None,
            (Some(digits), Some(power)) if digits.unsigned_abs() <= 1 << 53 => Some(digits as f64 / power),
            _ => decimals.value_as_string(row).parse().ok(),
        };
        Arc::new((0..decimals.len()).map(float).collect::<Float64Array>())
    }
    match array.data_type() {
        DataType::Decimal32(..) => of::<Decimal32Type>(array, |digits| Some(digits.into())),
        DataType::Decimal64(..) => of::<Decimal64Type>(array, Some),
        DataType::Decimal128(..) => of::<Decimal128Type>(array, |digits| digits.try_into().ok()),
        _ => of::<Decimal256Type>(array, |digits| digits.to_i128()?.try_into().ok()),
    }
}

/// Instants in microseconds, UTC, rounded down; null beyond 64 bits.
fn micros(array: &ArrayRef, unit: TimeUnit) -> ArrayRef {
    fn of<T: ArrowTimestampType>(array: &ArrayRef, step: impl Fn(i64) -> Option<i64>) -> ArrayRef {
        let micros: PrimitiveArray<TimestampMicrosecondType> = array.as_primitive::<T>().unary_opt(step);
        Arc::new(micros.with_timezone("UTC"))
    }
    match unit {
        TimeUnit::Second => of::<TimestampSecondType>(array, |s| s.checked_mul(1_000_000)),
        TimeUnit::Millisecond => of::<TimestampMillisecondType>(array, |ms| ms.checked_mul(1_000)),
        TimeUnit::Microsecond => of::<TimestampMicrosecondType>(array, Some),
        TimeUnit::Nanosecond => of::<TimestampNanosecondType>(array, |ns| Some(ns.div_euclid(1_000))),
    }
}

/// Decimals without those that have a fraction.
fn whole_decimals(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let (DataType::Decimal32(_, scale)
    | DataType::Decimal64(_, scale)
    | DataType::Decimal128(_, scale)
    | DataType::Decimal256(_, scale)) = array.data_type()
    else {
        return Ok(Arc::clone(array));
    };
    let wide = cast_with_options(array, &DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale), &LOSSY)?;
    let Ok(scale) = u32::try_from(*scale) else { return Ok(wide) };
    let one = i256::from_i128(10).wrapping_pow(scale);
    let has_fraction = |value: &i256| value.checked_rem(one).is_none_or(|rest| rest != i256::ZERO);
    let values = wide.as_primitive::<Decimal256Type>().values();
    nullif(&wide, &BooleanArray::from_iter(values.iter().map(|value| Some(has_fraction(value)))))
}

/// Lists of `field`; null where one of the items becomes null.
fn lists<O: OffsetSizeTrait>(
    array: &GenericListArray<O>,
    field: &Arc<Field>,
) -> Result<ArrayRef, ArrowError> {
    let (_, offsets, items, nulls) = array.clone().into_parts();
    let narrowed = narrow(&items, field.data_type())?;
    let mut there: Vec<bool> = (0..array.len()).map(|row| array.is_valid(row)).collect();
    if narrowed.logical_null_count() > items.logical_null_count() {
        for (row, there) in there.iter_mut().enumerate() {
            let items_of = offsets[row].as_usize()..offsets[row + 1].as_usize();
            *there &= !items_of.into_iter().any(|item| narrowed.is_null(item) && !items.is_null(item));
        }
    }
    let nulls = if there.contains(&false) { Some(NullBuffer::from(there)) } else { nulls };
    Ok(Arc::new(GenericListArray::<O>::try_new(Arc::clone(field), offsets, narrowed, nulls)?))
}
