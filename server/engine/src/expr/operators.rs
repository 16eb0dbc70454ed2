//! How are whole numbers reckoned with, and how does one type become another? Where a value has no answer it is null,
//! and [`failing`](super::failing) hears of it.
//!
//! These stand in an expression where SQL has `+` or `CAST`: DataFusion's own wrap around at the type's end, or end the
//! whole batch.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, FixedSizeListArray, GenericListArray,
    Int64Array, OffsetSizeTrait, PrimitiveArray, make_comparator,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{SortOptions, nullif};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::failing::note;
use crate::schema::{convert, narrow, newly_null, type_name};

/// What is computed of one or two arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// Of whole numbers, in 64 bits; null beyond them, and for a division by zero.
    Arithmetic(Operator),
    /// A value as this type, or null where that cannot say it.
    Convert(DataType),
    /// The same, and nothing has failed: `TRY_CAST`.
    TryConvert(DataType),
    /// A float as it is compared: one zero and one NaN, which is positive and so the greatest.
    Compared,
    /// The first argument, or null where the second is equal to it; both are compared as this type.
    NullIf(DataType),
    /// How often, or how far, the second argument's so many bytes or items are repeated: not beyond [`LENGTH_MAX`].
    Length,
    /// Where a series ends that begins at the first argument and goes on by the third: so that it is no longer.
    SeriesEnd,
    /// The same as [`What::Compared`] with both zeros: for `greatest` and `least`, which tell them apart.
    OneNan,
}

/// The longest text or list that a function makes out of nothing: a number beside it would otherwise say how much
/// memory is taken.
const LENGTH_MAX: i64 = 1 << 16;

/// A call of it.
pub(super) fn call(what: What, arguments: Vec<Expr>) -> Expr {
    function(what).call(arguments)
}

/// It as a function of SQL.
pub(super) fn function(what: What) -> ScalarUDF {
    let signature = match what {
        What::Arithmetic(_) | What::Length | What::NullIf(_) => Signature::any(2, Volatility::Immutable),
        What::SeriesEnd => Signature::any(3, Volatility::Immutable),
        _ => Signature::any(1, Volatility::Immutable),
    };
    ScalarUDF::from(Function { what, signature })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    what: What,
    signature: Signature,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        match &self.what {
            What::Arithmetic(Operator::Plus) => "add",
            What::Arithmetic(Operator::Minus) => "subtract",
            What::Arithmetic(Operator::Multiply) => "multiply",
            What::Arithmetic(Operator::Divide) => "divide",
            What::Arithmetic(_) => "remainder",
            What::Convert(_) => "cast",
            What::TryConvert(_) => "try_cast",
            What::Compared => "compared",
            What::NullIf(_) => "nullif",
            What::Length => "length",
            What::SeriesEnd => "series_end",
            What::OneNan => "one_nan",
        }
    }

    /// Without its arguments: DataFusion asks at every level, and whoever nests deep would wait for long names.
    fn schema_name(&self, _: &[Expr]) -> Result<String> {
        Ok(self.name().to_owned())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match &self.what {
            What::Arithmetic(_) | What::Length | What::SeriesEnd => DataType::Int64,
            What::Convert(to) | What::TryConvert(to) => to.clone(),
            What::Compared | What::NullIf(_) | What::OneNan => arguments[0].clone(),
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_columns(&arguments, |columns, constant| {
            let (values, failed) = self.compute(columns)?;
            if constant && failed > 0 {
                return exec_err!("{}", self.fault(&arguments.args));
            }
            note(failed);
            Ok(values)
        })
    }
}

/// What `compute` says of the arguments as columns, and whether they are constants: these are computed once, when the
/// expression is compiled.
pub(super) fn over_columns(
    arguments: &ScalarFunctionArgs,
    compute: impl FnOnce(&[ArrayRef], bool) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { arguments.number_rows };
    let columns = arguments.args.iter().map(|argument| argument.to_array(rows));
    let values = compute(&columns.collect::<Result<Vec<_>>>()?, constant)?;
    Ok(match constant {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?),
        false => ColumnarValue::Array(values),
    })
}

impl Function {
    /// The values, and how many are null because they failed.
    fn compute(&self, columns: &[ArrayRef]) -> Result<(ArrayRef, usize)> {
        let first = &columns[0];
        Ok(match &self.what {
            What::Arithmetic(operator) => {
                let (left, lost) = whole(first)?;
                let (right, lost_too) = whole(&columns[1])?;
                let (values, failed) = arithmetic(*operator, &left, &right);
                (values, failed + lost + lost_too)
            }
            What::Convert(to) => lossy(first, to)?,
            What::TryConvert(to) => (lossy(first, to)?.0, 0),
            What::NullIf(common) => {
                let compared = |column| floats(&convert(column, common)?, &one_zero);
                (nullif(first, &equal(&compared(first)?, &compared(&columns[1])?)?)?, 0)
            }
            What::Length => bounded(columns, 0, |of| of[0].checked_mul(of[1]))?,
            What::SeriesEnd => {
                bounded(columns, 1, |of| of[1].checked_sub(of[0])?.checked_div(of[2])?.checked_abs())?
            }
            What::Compared => (floats(first, &one_zero)?, 0),
            What::OneNan => (floats(first, &one_nan)?, 0),
        })
    }

    /// What is wrong with these constants.
    fn fault(&self, arguments: &[ColumnarValue]) -> String {
        let said = arguments.iter().map(|argument| match argument {
            // Without the exponent a large one is a line of digits.
            ColumnarValue::Scalar(ScalarValue::Float64(Some(x))) => format!("{x:?}"),
            ColumnarValue::Scalar(value) => value.to_string(),
            ColumnarValue::Array(_) => String::new(),
        });
        let said: Vec<String> = said.collect();
        match (&self.what, said.as_slice()) {
            (What::Arithmetic(operator @ (Operator::Divide | Operator::Modulo)), [left, right])
                if right == "0" =>
            {
                format!("{left} {operator} {right} divides by zero")
            }
            (What::Arithmetic(operator), [left, right]) => {
                format!("{left} {operator} {right} is beyond int64")
            }
            (What::Convert(to), [value, ..]) => {
                format!("`{value}` cannot be cast to {}", type_name(to))
            }
            (What::Length | What::SeriesEnd, _) => {
                format!("a text or list of more than {LENGTH_MAX} is not made")
            }
            (_, said) => format!("no answer for {}", said.join(", ")),
        }
    }
}

/// Whole numbers in 64 bits, and how many of them have more.
fn whole(column: &ArrayRef) -> Result<(Int64Array, usize)> {
    let (numbers, lost) = lossy(column, &DataType::Int64)?;
    Ok((numbers.as_primitive::<Int64Type>().clone(), lost))
}

/// The column as another type, and how many of its values that cannot say.
fn lossy(column: &ArrayRef, to: &DataType) -> Result<(ArrayRef, usize)> {
    let converted = convert(column, to)?;
    let failed = newly_null(column, &converted);
    Ok((converted, failed))
}

/// The results, and how many are null because they have none.
fn arithmetic(operator: Operator, left: &Int64Array, right: &Int64Array) -> (ArrayRef, usize) {
    match operator {
        Operator::Plus => pairwise(left, right, i64::checked_add),
        Operator::Minus => pairwise(left, right, i64::checked_sub),
        Operator::Multiply => pairwise(left, right, i64::checked_mul),
        Operator::Divide => pairwise(left, right, i64::checked_div),
        // Of the least number by -1 the processor has no remainder; it is 0 all the same.
        _ => pairwise(left, right, |a, b| if b == -1 { Some(0) } else { a.checked_rem(b) }),
    }
}

/// The column at `place`, null where `length` of the row's numbers is too long, and how many are.
fn bounded(
    columns: &[ArrayRef],
    place: usize,
    length: impl Fn(&[i64]) -> Option<i64>,
) -> Result<(ArrayRef, usize)> {
    let numbers = columns.iter().map(|column| Ok(whole(column)?.0)).collect::<Result<Vec<_>>>()?;
    let mut of_row = vec![0; numbers.len()];
    let mut failed = 0;
    let kept = (0..numbers[0].len()).map(|row| {
        of_row.iter_mut().zip(&numbers).for_each(|(of_row, column)| *of_row = column.value(row));
        let is_null = numbers.iter().any(|column| column.is_null(row));
        let fits = is_null || length(&of_row).is_some_and(|length| length <= LENGTH_MAX);
        failed += usize::from(!fits);
        (fits && numbers[place].is_valid(row)).then(|| numbers[place].value(row))
    });
    let kept: Int64Array = kept.collect();
    Ok((Arc::new(kept), failed))
}

fn pairwise(
    left: &Int64Array,
    right: &Int64Array,
    step: impl Fn(i64, i64) -> Option<i64>,
) -> (ArrayRef, usize) {
    let there = NullBuffer::union(left.nulls(), right.nulls());
    let mut numbers = Vec::with_capacity(left.len());
    let mut failed = Vec::new();
    for (row, (a, b)) in left.values().iter().zip(right.values()).enumerate() {
        let number = step(*a, *b);
        if number.is_none() && there.as_ref().is_none_or(|there| there.is_valid(row)) {
            failed.push(row);
        }
        numbers.push(number.unwrap_or_default());
    }
    let there = if failed.is_empty() { there } else { Some(without(there, &failed, numbers.len())) };
    (Arc::new(Int64Array::new(numbers.into(), there)), failed.len())
}

/// What is there, without some rows.
fn without(there: Option<NullBuffer>, rows: &[usize], len: usize) -> NullBuffer {
    let mut there: Vec<bool> = match there {
        None => vec![true; len],
        Some(there) => there.iter().collect(),
    };
    rows.iter().for_each(|row| there[*row] = false);
    NullBuffer::new(BooleanBuffer::from(there))
}

/// Where two columns of one type are equal; null where one of them is.
fn equal(left: &ArrayRef, right: &ArrayRef) -> Result<BooleanArray> {
    if !left.data_type().is_nested() {
        return Ok(eq(left, right)?);
    }
    let order = make_comparator(left, right, SortOptions::default())?;
    let both = |row: &usize| left.is_valid(*row) && right.is_valid(*row);
    Ok((0..left.len()).map(|row| both(&row).then(|| order(row, row).is_eq())).collect())
}

fn one_zero(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { one_nan(x) }
}

fn one_nan(x: f64) -> f64 {
    if x.is_nan() { f64::NAN } else { x }
}

/// The values of an expression as the type that it is declared to have; what that cannot say has failed.
pub(super) fn declared(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let narrowed = with_one_nan(narrow(values, to)?)?;
    note(newly_null(values, &narrowed));
    Ok(narrowed)
}

/// The values with one NaN: which bits a sum of two has depends on how many rows are added at a time.
fn with_one_nan(column: ArrayRef) -> Result<ArrayRef> {
    fn any(column: &ArrayRef) -> bool {
        match column.data_type() {
            DataType::Float64 => column.as_primitive::<Float64Type>().values().iter().any(|x| x.is_nan()),
            DataType::Float32 => column.as_primitive::<Float32Type>().values().iter().any(|x| x.is_nan()),
            DataType::List(_) => any(column.as_list::<i32>().values()),
            DataType::FixedSizeList(..) => any(column.as_fixed_size_list().values()),
            _ => false,
        }
    }
    if any(&column) { floats(&column, &one_nan) } else { Ok(column) }
}

/// Each float, also those within lists; other values stay as they are.
fn floats(column: &ArrayRef, step: &dyn Fn(f64) -> f64) -> Result<ArrayRef> {
    fn each<T: ArrowPrimitiveType>(column: &ArrayRef, step: impl Fn(T::Native) -> T::Native) -> ArrayRef {
        let stepped: PrimitiveArray<T> = column.as_primitive::<T>().unary(step);
        Arc::new(stepped)
    }
    fn items<O: OffsetSizeTrait>(column: &ArrayRef, step: &dyn Fn(f64) -> f64) -> Result<ArrayRef> {
        let (field, offsets, items, nulls) = column.as_list::<O>().clone().into_parts();
        let items = floats(&items, step)?;
        Ok(Arc::new(GenericListArray::<O>::try_new(field, offsets, items, nulls)?))
    }
    Ok(match column.data_type() {
        DataType::Float64 => each::<Float64Type>(column, step),
        // Of one operation the nearest float32 of the float64 result is the float32 result.
        DataType::Float32 => each::<Float32Type>(column, |x| step(x.into()) as f32),
        DataType::List(_) => items::<i32>(column, step)?,
        DataType::LargeList(_) => items::<i64>(column, step)?,
        DataType::FixedSizeList(..) => {
            let (field, length, items, nulls) = column.as_fixed_size_list().clone().into_parts();
            Arc::new(FixedSizeListArray::try_new(field, length, floats(&items, step)?, nulls)?)
        }
        _ => Arc::clone(column),
    })
}
