//! Does a declared default stand for a value of its column, whose type may be known only now?

use std::slice;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float64Array, Int64Array, ListArray,
    StringArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use feature_defs::{DefError, Literal, Loc};

use crate::schema::{quern_type, type_name};

/// The default of `name` as a value of `dtype`.
///
/// # Errors
/// What the type wants instead.
pub(crate) fn fitted(
    (name, loc): (&str, &Loc),
    default: Option<&Literal>,
    dtype: &DataType,
) -> Result<Option<Literal>, DefError> {
    let Some(default) = default else { return Ok(None) };
    let fitted = match quern_type(dtype) {
        Some(dtype) => feature_defs::fit(default.clone(), dtype),
        None => Err("left out: a map has no default".to_owned()),
    };
    // What is a value in a definition has to be one here, too: else it would be null when it is needed.
    let fitted = fitted.and_then(|fitted| match constant(&fitted, dtype) {
        Ok(value) if value.null_count() == 0 && items(&value).null_count() == 0 => Ok(fitted),
        _ => Err(format!("another value of {}", type_name(dtype))),
    });
    fitted.map(Some).map_err(|wants| {
        let dtype = type_name(dtype);
        let found = match default {
            Literal::List(_) => "a list".to_owned(),
            value => value.to_string(),
        };
        DefError::new(loc, format!("`default` of `{name}`, which is {dtype}, must be {wants}; found {found}"))
    })
}

/// The values of a column, or the items of its lists.
fn items(column: &ArrayRef) -> &ArrayRef {
    match column.data_type() {
        DataType::List(_) => column.as_list::<i32>().values(),
        DataType::FixedSizeList(..) => column.as_fixed_size_list().values(),
        _ => column,
    }
}

/// A literal as a column of one row.
pub(crate) fn constant(literal: &Literal, dtype: &DataType) -> Result<ArrayRef, ArrowError> {
    let Literal::List(items) = literal else {
        return values(slice::from_ref(literal), dtype);
    };
    Ok(match dtype {
        DataType::List(item) => {
            let offsets = OffsetBuffer::from_lengths([items.len()]);
            Arc::new(ListArray::try_new(Arc::clone(item), offsets, values(items, item.data_type())?, None)?)
        }
        DataType::FixedSizeList(item, length) => {
            let items = values(items, item.data_type())?;
            Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *length, items, None)?)
        }
        other => return Err(ArrowError::CastError(format!("{literal} is no {}", type_name(other)))),
    })
}

/// Single values of one type as a column; null is what is of another one than the first.
fn values(literals: &[Literal], dtype: &DataType) -> Result<ArrayRef, ArrowError> {
    fn column<'l, A, T>(literals: &'l [Literal], value: impl Fn(&'l Literal) -> Option<T>) -> ArrayRef
    where
        A: Array + FromIterator<Option<T>> + 'static,
    {
        Arc::new(literals.iter().map(value).collect::<A>())
    }
    let column = match literals.first() {
        Some(Literal::Bool(_)) => column::<BooleanArray, _>(literals, |literal| match literal {
            Literal::Bool(value) => Some(*value),
            _ => None,
        }),
        Some(Literal::Int(_)) => column::<Int64Array, _>(literals, |literal| match literal {
            Literal::Int(value) => Some(*value),
            _ => None,
        }),
        Some(Literal::Float(_)) => column::<Float64Array, _>(literals, |literal| match literal {
            Literal::Float(value) => Some(*value),
            _ => None,
        }),
        Some(Literal::String(_)) => column::<StringArray, _>(literals, |literal| match literal {
            Literal::String(value) => Some(value.as_str()),
            _ => None,
        }),
        Some(Literal::List(_)) | None => new_null_array(dtype, literals.len()),
    };
    cast(&column, dtype)
}

#[cfg(test)]
mod tests {
    use feature_defs::Type;

    use super::*;
    use crate::schema::arrow_type;

    /// Whatever passes is a value: what stands in for one is never null.
    #[test]
    fn what_passes_is_a_value() {
        let loc = Loc::start("a.yaml");
        let texts = ["abc", "7", "true", "", "2013-01-31", "2013-02-30", "0000-01-01", "9999-12-31"];
        let times = [
            "9999-12-31T23:59:59.999999999Z",
            "2013-01-31 08:30:00+01:00",
            "2013-01-31T08:30",
            "1900-02-29T00:00Z",
        ];
        let numbers = [0, 7, -1, i64::from(i32::MAX), i64::from(i32::MAX) + 1, i64::MIN, i64::MAX];
        let fractions = [0.0, 1.5, -0.0, 1e300, f64::NAN, f64::INFINITY, 1e19];
        let literals: Vec<Literal> = (texts.into_iter().chain(times))
            .map(|text| Literal::String(text.to_owned()))
            .chain(numbers.map(Literal::Int))
            .chain(fractions.map(Literal::Float))
            .chain([Literal::Bool(true)])
            .collect();
        let pairs =
            literals.iter().zip(&literals[1..]).map(|(a, b)| Literal::List(vec![a.clone(), b.clone()]));
        let pairs: Vec<Literal> = pairs.chain([Literal::List(Vec::new())]).collect();
        let literals = [literals, pairs].concat();
        let types = [
            "bool",
            "int32",
            "int64",
            "float32",
            "float64",
            "string",
            "bytes",
            "timestamp",
            "date",
            "list<bool>",
            "list<int64>",
            "list<string>",
            "list<float32, 2>",
            "list<string, 2>",
        ];
        let mut passed = Vec::new();
        for name in types {
            let dtype = arrow_type(Type::parse(name).expect("a type"));
            let fits = literals.iter().filter_map(|literal| fitted(("x", &loc), Some(literal), &dtype).ok());
            let fits: Vec<Literal> = fits.flatten().collect();
            for literal in &fits {
                let value = constant(literal, &dtype).expect("a value");
                assert!(
                    value.len() == 1 && value.null_count() == 0 && *value.data_type() == dtype,
                    "{literal} as {name}"
                );
            }
            passed.push(format!(
                "{name}: {}",
                fits.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ));
        }
        expect_test::expect![[r#"
            bool: true
            int32: 0, 7, -1, 2147483647
            int64: 0, 7, -1, 2147483647, 2147483648, -9223372036854775808, 9223372036854775807
            float32: 0.0, 7.0, -1.0, 2147483647.0, 2147483648.0, -9.223372036854776e18, 9.223372036854776e18, 0.0, 1.5, -0.0, 1e19
            float64: 0.0, 7.0, -1.0, 2147483647.0, 2147483648.0, -9.223372036854776e18, 9.223372036854776e18, 0.0, 1.5, -0.0, 1e300, 1e19
            string: "abc", "7", "true", "", "2013-01-31", "2013-02-30", "0000-01-01", "9999-12-31", "9999-12-31T23:59:59.999999999Z", "2013-01-31 08:30:00+01:00", "2013-01-31T08:30", "1900-02-29T00:00Z"
            bytes: 
            timestamp: "2013-01-31", "0000-01-01", "9999-12-31", "9999-12-31T23:59:59.999999999Z", "2013-01-31 08:30:00+01:00"
            date: "2013-01-31", "0000-01-01", "9999-12-31"
            list<bool>: []
            list<int64>: [0, 7], [7, -1], [-1, 2147483647], [2147483647, 2147483648], [2147483648, -9223372036854775808], [-9223372036854775808, 9223372036854775807], []
            list<string>: ["abc", "7"], ["7", "true"], ["true", ""], ["", "2013-01-31"], ["2013-01-31", "2013-02-30"], ["2013-02-30", "0000-01-01"], ["0000-01-01", "9999-12-31"], ["9999-12-31", "9999-12-31T23:59:59.999999999Z"], ["9999-12-31T23:59:59.999999999Z", "2013-01-31 08:30:00+01:00"], ["2013-01-31 08:30:00+01:00", "2013-01-31T08:30"], ["2013-01-31T08:30", "1900-02-29T00:00Z"], []
            list<float32, 2>: [0.0, 7.0], [7.0, -1.0], [-1.0, 2147483647.0], [2147483647.0, 2147483648.0], [2147483648.0, -9.223372036854776e18], [-9.223372036854776e18, 9.223372036854776e18], [9.223372036854776e18, 0.0], [0.0, 1.5], [1.5, -0.0]
            list<string, 2>: ["abc", "7"], ["7", "true"], ["true", ""], ["", "2013-01-31"], ["2013-01-31", "2013-02-30"], ["2013-02-30", "0000-01-01"], ["0000-01-01", "9999-12-31"], ["9999-12-31", "9999-12-31T23:59:59.999999999Z"], ["9999-12-31T23:59:59.999999999Z", "2013-01-31 08:30:00+01:00"], ["2013-01-31 08:30:00+01:00", "2013-01-31T08:30"], ["2013-01-31T08:30", "1900-02-29T00:00Z"]"#]].assert_eq(&passed.join("\n"));
    }
}
