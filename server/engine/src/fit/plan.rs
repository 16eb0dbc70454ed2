//! Which columns fill one input, and which shape does it have then?

use arrow::datatypes::DataType;

use super::cast::{castable, stands_in};
use super::matched::Want;
use super::{Feature, Slice, TensorPlan};
use crate::schema::type_name;

/// More values in a row are no feature vector, and a trial of 32 rows would fill the memory.
const WIDTH_MAX: usize = 1 << 22;

/// Plans one input from its columns, side by side. None, and mistakes, where they do not fit.
pub(super) fn tensor_plan(
    want: &Want<'_>,
    features: &[Feature],
    mistakes: &mut Vec<String>,
) -> Option<TensorPlan> {
    let element = &want.port.element;
    let (mut width, mut slices, before) = (0, Vec::with_capacity(want.columns.len()), mistakes.len());
    for &column in &want.columns {
        let feature = &features[column];
        let slice = castable(&feature.dtype, element)
            .and_then(|()| stands_in(feature, element))
            .and_then(|default| Ok((default, width_of(&feature.dtype)?)));
        match slice {
            Ok((default, slice_width)) => {
                let name = feature.name.clone();
                slices.push(Slice { column, name, offset: width, width: slice_width, default });
                width = width.saturating_add(slice_width);
            }
            Err(cause) => mistakes.push(format!("`{}`: {cause}", feature.name)),
        }
    }
    // A width that misses a column would only repeat that column's mistake.
    if mistakes.len() > before {
        return None;
    }
    if width > WIDTH_MAX {
        mistakes
            .push(format!("input `{}`: the columns have more than {WIDTH_MAX} values a row", want.port.name));
        return None;
    }
    match dims(want, features, width) {
        Ok(dims) => {
            let (name, element) = (want.port.name.clone(), element.clone());
            Some(TensorPlan { name, element, dims, width, slices })
        }
        Err(mistake) => {
            mistakes.push(mistake);
            None
        }
    }
}

/// How many cells a row of a column has.
fn width_of(dtype: &DataType) -> Result<usize, String> {
    match dtype {
        DataType::FixedSizeList(item, length) => {
            Ok(usize::try_from(*length).unwrap_or_default().saturating_mul(width_of(item.data_type())?))
        }
        DataType::List(_) => Err(format!(
            "{} may have any length, a model's input has one: declare the length, as in `list<float32, 8>`",
            type_name(dtype)
        )),
        _ => Ok(1),
    }
}

/// The lengths of lists within lists.
fn lengths(dtype: &DataType) -> Vec<usize> {
    let (mut lengths, mut rest) = (Vec::new(), dtype);
    while let DataType::FixedSizeList(item, length) = rest {
        lengths.push(usize::try_from(*length).unwrap_or_default());
        rest = item.data_type();
    }
    lengths
}

/// The dimensions of a row of `width` cells: what is declared, what the one column has, or what the model says, in
/// which one length may be free.
fn dims(want: &Want<'_>, features: &[Feature], width: usize) -> Result<Vec<usize>, String> {
    let port = want.port;
    let says = port.shape.get(1..);
    let known = says.unwrap_or_default();
    let name = &port.name;
    let alike = |dims: &[usize]| {
        port.shape.is_empty()
            || dims.len() == known.len()
                && dims.iter().zip(known).all(|(dim, known)| known.is_none_or(|known| known == *dim))
    };
    if let Some(declared) = want.shape {
        let dims: Vec<usize> = declared.iter().map(|length| *length as usize).collect();
        return match (alike(&dims), product(&dims) == width) {
            (true, true) => Ok(dims),
            (false, _) => Err(format!("input `{name}` is {}, not [N, {}]", port.shown_shape(), list(&dims))),
            (true, false) => Err(format!(
                "input `{name}`: its `shape` [{}] takes {} value(s) a row, the columns have {width}",
                list(&dims),
                product(&dims)
            )),
        };
    }
    if let [column] = want.columns.as_slice()
        && let lengths = lengths(&features[*column].dtype)
        && lengths.len() > 1
        && alike(&lengths)
    {
        return Ok(lengths);
    }
    if says.is_none() {
        // Nothing is said: the columns side by side.
        return Ok(vec![width]);
    }
    let free = known.iter().filter(|dim| dim.is_none()).count();
    let rest = product(&known.iter().flatten().copied().collect::<Vec<_>>());
    if free > 1 {
        let example = known.iter().map(|dim| dim.map_or("?".to_owned(), |dim| dim.to_string()));
        let example = example.collect::<Vec<_>>().join(", ");
        return Err(format!(
            "input `{name}` is {}, and its {width} value(s) a row go into that in several ways: say which under `inputs`, \
             as in `{{columns: ..., shape: [{example}]}}`",
            port.shown_shape()
        ));
    }
    if rest == 0 || !width.is_multiple_of(rest) || free == 0 && rest != width {
        let (takes, shape) = (if free == 0 { "" } else { "a multiple of " }, port.shown_shape());
        let shape = if known.len() > 1 { format!(" ({shape})") } else { String::new() };
        return Err(format!(
            "input `{name}`{shape} takes {takes}{rest} value(s) a row, the columns have {width}"
        ));
    }
    Ok(known.iter().map(|dim| dim.unwrap_or(width / rest)).collect())
}

/// How many cells that are; more than there can be where that is beyond counting.
fn product(dims: &[usize]) -> usize {
    dims.iter().fold(1, |cells: usize, dim| cells.saturating_mul(*dim))
}

fn list(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
