//! Does a declared default stand for a value of its column, whose type may be known only now?

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
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
        Ok(value) if value.null_count() == 0 => Ok(fitted),
        _ => Err(format!("another value of {}", type_name(dtype))),
    });
    fitted.map(Some).map_err(|wants| {
        let dtype = type_name(dtype);
        DefError::new(
            loc,
            format!("`default` of `{name}`, which is {dtype}, must be {wants}; found {default}"),
        )
    })
}

/// A literal as a column of one row.
pub(crate) fn constant(literal: &Literal, dtype: &DataType) -> Result<ArrayRef, ArrowError> {
    let value: ArrayRef = match literal {
        Literal::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
        Literal::Int(value) => Arc::new(Int64Array::from(vec![*value])),
        Literal::Float(value) => Arc::new(Float64Array::from(vec![*value])),
        Literal::String(value) => Arc::new(StringArray::from(vec![value.as_str()])),
    };
    cast(&value, dtype)
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
            "list<int64>",
            "list<float32, 2>",
        ];
        let mut passed = Vec::new();
        for name in types {
            let dtype = arrow_type(Type::parse(name).expect("a type"));
            let fits = literals.iter().filter_map(|literal| fitted(("x", &loc), Some(literal), &dtype).ok());
            let fits: Vec<Literal> = fits.flatten().collect();
            for literal in &fits {
                let value = constant(literal, &dtype).expect("a value");
                assert!(value.is_valid(0) && *value.data_type() == dtype, "{literal} as {name}");
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
            list<int64>: 
            list<float32, 2>: "#]].assert_eq(&passed.join("\n"));
    }
}
