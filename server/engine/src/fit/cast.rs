//! Which types become which elements of a tensor?

use arrow::datatypes::DataType;
use feature_defs::Literal;

use super::null::fits;
use super::signature::Element;
use super::{Feature, Null};
use crate::schema::type_name;

/// The one rule of casts: whether values of type `from` may stand in a tensor of `to`, and if not, how to fix it.
///
/// Nothing is lost unsaid: a whole number that its element does not hold, and a float that would become infinite in 16
/// bits, fail their request; floats are rounded to the nearest.
pub(super) fn castable(from: &DataType, to: &Element) -> Result<(), String> {
    use DataType::{Boolean, FixedSizeList, Float32, Float64, Int32, Int64, List, Utf8};
    let no = |help: &str| Err(format!("{} does not become {to}{help}", type_name(from)));
    match (from, to) {
        (_, Element::Other(_)) => {
            no(": a model takes tensors of numbers, bool or string; export it again with such inputs")
        }
        (FixedSizeList(item, _) | List(item), to) => castable(item.data_type(), to),
        (Boolean | Int32 | Int64 | Float32 | Float64, to) if to.is_float() => Ok(()),
        (Boolean | Int32 | Int64, to) if to.whole().is_some() => Ok(()),
        (Boolean, Element::Bool) | (Utf8, Element::String) => Ok(()),
        (Float32 | Float64, to) if to.whole().is_some() => {
            no(", it would lose its fraction: declare the feature's type or round it in a derived feature")
        }
        (DataType::Timestamp(_, _) | DataType::Date32, to) if to.is_float() => {
            no(": derive a number from it, as `date_part('hour', ...)` does")
        }
        (Utf8, _) => no(": derive a number from it, or give the model a string input"),
        _ => no(": derive a feature of the model's type from it"),
    }
}

/// What happens to values of type `from` on their way into `to`, for people; nothing where they stay as they are.
pub(super) fn said(from: &DataType, to: &Element) -> Option<&'static str> {
    use DataType::{Boolean, FixedSizeList, Float32, Float64, Int32, Int64, List};
    match (from, to) {
        (FixedSizeList(item, _) | List(item), to) => said(item.data_type(), to),
        (Float64, Element::Float32) | (Int64, Element::Float32 | Element::Float64) => Some("rounded"),
        (Int32, Element::Float32) => Some("rounded"),
        (Float32 | Float64 | Int32 | Int64, Element::Float16 | Element::BFloat16) => {
            Some("rounded; what is too large is refused")
        }
        (Boolean, Element::Bool) => None,
        (Boolean, to) if to.is_float() || to.whole().is_some() => Some("as 0 and 1"),
        (Int32, to) => narrows((i32::MIN.into(), i32::MAX.into()), to),
        (Int64, to) => narrows((i64::MIN, i64::MAX), to),
        _ => None,
    }
}

fn narrows((least, most): (i64, i64), to: &Element) -> Option<&'static str> {
    let (to_least, to_most) = to.whole()?;
    (to_least > least || to_most < most).then_some("what does not fit is refused")
}

/// The default of a column, which stands in for null unless NaN does; none where none is needed.
pub(super) fn stands_in(feature: &Feature, element: &Element) -> Result<Option<Literal>, String> {
    let is_needed = !element.is_float() && feature.null == Null::Possible;
    match &feature.default {
        Some(default) if fits(default, element) => Ok(Some(default.clone())),
        Some(default) if is_needed => Err(format!("its default {default} is no {element}")),
        None if is_needed => {
            Err(format!("may be null, and the model's input is {element}: declare `default:`"))
        }
        _ => Ok(None),
    }
}
