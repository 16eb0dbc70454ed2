//! Which tensors does a model get from a feature vector?
//!
//! A model takes either one tensor of shape `[N, F]`, the service's columns side by side in their order, or one
//! named input for each column (`[N]`, `[N, 1]`, or `[N, L]` for a list of fixed length). Both forms are the same
//! plan here: a tensor is filled column by column, and a named input is a tensor of one column.
//!
//! Architecture invariant: [`castable`] alone decides which types become which. It runs when definitions are
//! applied, so that filling a tensor can only fail on a null that nothing stands in for.

mod cut;
mod fill;
mod null;
mod signature;
mod tensor;
#[cfg(test)]
mod tests;
mod trial;

use arrow::datatypes::{DataType, FieldRef};
use feature_defs::{Literal, suggest};

pub use self::cut::as_type;
use self::null::fits;
pub use self::signature::{Element, Port, Signature};
pub use self::tensor::{Tensor, TensorData};
use crate::schema::type_name;
use crate::{Origin, ServicePlan};

/// How columns become the inputs of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    tensors: Vec<TensorPlan>,
}

#[derive(Debug, Clone, PartialEq)]
struct TensorPlan {
    name: String,
    element: Element,
    /// `[N]` rather than `[N, 1]`.
    flat: bool,
    /// Elements in a row.
    width: usize,
    slices: Vec<Slice>,
}

/// The part of a tensor's row that one column fills.
#[derive(Debug, Clone, PartialEq)]
struct Slice {
    column: usize,
    name: String,
    offset: usize,
    width: usize,
    default: Option<Literal>,
}

impl Fit {
    /// Fits `columns`, which people call `of`, to the inputs of a model.
    ///
    /// # Errors
    /// Everything that does not fit, followed by both shapes side by side.
    pub fn new(of: &str, columns: &[Feature], signature: &Signature) -> Result<Fit, String> {
        fit(columns, signature).map_err(|mistakes| {
            let mistakes: String = mistakes.iter().map(|mistake| format!("\n  - {mistake}")).collect();
            format!("the model does not fit {of}:{mistakes}\n{}", side_by_side(of, columns, signature))
        })
    }
}

impl TensorPlan {
    fn tensor(&self, rows: usize, data: TensorData) -> Tensor {
        let shape = if self.flat { vec![rows] } else { vec![rows, self.width] };
        Tensor { name: self.name.clone(), shape, data }
    }
}

/// A column, as a model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: DataType,
    /// What stands in for null.
    pub default: Option<Literal>,
    /// Whether there is any null to stand in for.
    pub null: Null,
}

/// Whether a column may hold null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Null {
    /// It never does.
    Never,
    /// It may.
    Possible,
    /// It may, and the request that brings one is refused.
    Refused,
}

impl Feature {
    /// The outputs of a service.
    pub fn of_service(service: &ServicePlan) -> Vec<Feature> {
        let outputs = service.outputs.fields().iter().zip(&service.origins).zip(&service.defaults);
        let feature = |((field, origin), default): ((&FieldRef, &Origin), &Option<Literal>)| Feature {
            name: field.name().clone(),
            dtype: field.data_type().clone(),
            default: default.clone(),
            null: match origin {
                _ if !field.is_nullable() => Null::Never,
                // A join key cannot declare a default; a null one fails its request, not the apply.
                Origin::Input(i) if *i < service.key_count => Null::Refused,
                _ => Null::Possible,
            },
        };
        outputs.map(feature).collect()
    }
}

fn fit(features: &[Feature], signature: &Signature) -> Result<Fit, Vec<String>> {
    let mut mistakes = Vec::new();
    let all: Vec<usize> = (0..features.len()).collect();
    let tensors = match signature.inputs.as_slice() {
        [] => {
            mistakes.push("the model has no input".to_owned());
            Vec::new()
        }
        [input] if !(features.len() == 1 && features[0].name == input.name) => {
            vec![tensor_plan(input, &all, features, &mut mistakes)]
        }
        inputs => {
            let names = || features.iter().map(|feature| feature.name.as_str());
            for feature in
                features.iter().filter(|feature| inputs.iter().all(|input| input.name != feature.name))
            {
                let known = suggest(&feature.name, inputs.iter().map(|input| input.name.as_str()));
                mistakes.push(format!(
                    "no input of the model is named `{}` ({known}); leave it out of the service's `outputs`, or of the step's `inputs`",
                    feature.name
                ));
            }
            let mut plans = Vec::new();
            for input in inputs {
                match names().position(|name| name == input.name) {
                    Some(column) => plans.push(tensor_plan(input, &[column], features, &mut mistakes)),
                    None => mistakes.push(format!(
                        "no column is named `{}`, as the model's input is ({})",
                        input.name,
                        suggest(&input.name, names())
                    )),
                }
            }
            plans
        }
    };
    if mistakes.is_empty() { Ok(Fit { tensors }) } else { Err(mistakes) }
}

/// Plans one input from `columns`, side by side.
fn tensor_plan(
    input: &Port,
    columns: &[usize],
    features: &[Feature],
    mistakes: &mut Vec<String>,
) -> TensorPlan {
    let mut width = 0;
    let mut slices = Vec::with_capacity(columns.len());
    for &column in columns {
        let feature = &features[column];
        let slice = castable(&feature.dtype, &input.element)
            .and_then(|()| stands_in(feature, &input.element))
            .and_then(|default| Ok((default, width_of(&feature.dtype)?)));
        match slice {
            Ok((default, slice_width)) => {
                slices.push(Slice {
                    column,
                    name: feature.name.clone(),
                    offset: width,
                    width: slice_width,
                    default,
                });
                width += slice_width;
            }
            Err(cause) => mistakes.push(format!("`{}`: {cause}", feature.name)),
        }
    }
    // A width that misses a column would only repeat that column's mistake.
    if slices.len() == columns.len() {
        mistakes.extend(shape_mistake(input, width));
    }
    TensorPlan {
        name: input.name.clone(),
        element: input.element.clone(),
        flat: input.shape.len() == 1,
        width,
        slices,
    }
}

/// The one rule of casts: whether values of type `from` may stand in a tensor of `to`, and if not, how to fix it.
fn castable(from: &DataType, to: &Element) -> Result<(), String> {
    use DataType::{Boolean, FixedSizeList, Float32, Float64, Int32, Int64, List, Utf8};
    let no = |help: &str| Err(format!("{} does not become {to}{help}", type_name(from)));
    match (from, to) {
        (_, Element::Other(_)) => {
            no(": a model takes float32, float64, int32, int64, bool or string; export it again")
        }
        (FixedSizeList(item, _) | List(item), to) => castable(item.data_type(), to),
        (Boolean | Int32 | Int64 | Float32 | Float64, Element::Float32 | Element::Float64)
        | (Boolean | Int32 | Int64, Element::Int64)
        | (Boolean | Int32, Element::Int32)
        | (Boolean, Element::Bool)
        | (Utf8, Element::String) => Ok(()),
        (Int64, Element::Int32) => no(", it may be too large: declare the feature's `type: int32`"),
        (Float32 | Float64, Element::Int32 | Element::Int64) => {
            no(", it would lose its fraction: declare the feature's type or round it in a derived feature")
        }
        (DataType::Timestamp(_, _) | DataType::Date32, Element::Float32 | Element::Float64) => {
            no(": derive a number from it, as `date_part('hour', ...)` does")
        }
        (Utf8, _) => no(": derive a number from it, or give the model a string input"),
        _ => no(": derive a feature of the model's type from it"),
    }
}

/// What stands in for null: nothing is needed where NaN does or where null cannot be.
fn stands_in(feature: &Feature, element: &Element) -> Result<Option<Literal>, String> {
    if matches!(element, Element::Float32 | Element::Float64) || feature.null == Null::Never {
        return Ok(None);
    }
    let Some(default) = &feature.default else {
        return match feature.null {
            Null::Possible => {
                Err(format!("may be null, and the model's input is {element}: declare `default:`"))
            }
            Null::Never | Null::Refused => Ok(None),
        };
    };
    if fits(default, element) {
        Ok(Some(default.clone()))
    } else {
        Err(format!("its default {default} is no {element}"))
    }
}

fn width_of(dtype: &DataType) -> Result<usize, String> {
    match dtype {
        DataType::FixedSizeList(_, length) => Ok(usize::try_from(*length).unwrap_or_default()),
        DataType::List(_) => Err(format!(
            "{} may have any length, a model's input has one: declare the length, as in `list<float32, 8>`",
            type_name(dtype)
        )),
        _ => Ok(1),
    }
}

fn shape_mistake(input: &Port, width: usize) -> Option<String> {
    let name = &input.name;
    let columns = match input.shape.as_slice() {
        [] => return None,
        [Some(rows), ..] => {
            return Some(format!(
                "input `{name}` takes exactly {rows} row(s) at a time: export the model with a free first dimension"
            ));
        }
        [None] => 1,
        [None, None] => return None,
        [None, Some(columns)] => *columns,
        _ => {
            return Some(format!(
                "input `{name}` has {} dimensions, at most 2 are filled",
                input.shape.len()
            ));
        }
    };
    (columns != width)
        .then(|| format!("input `{name}` takes {columns} value(s) a row, the columns have {width}"))
}

/// The columns beside the inputs of the model.
fn side_by_side(of: &str, features: &[Feature], signature: &Signature) -> String {
    let left: Vec<String> = std::iter::once(of.to_owned())
        .chain(features.iter().map(|feature| format!("  {}  {}", feature.name, type_name(&feature.dtype))))
        .collect();
    let right: Vec<String> = std::iter::once("model".to_owned())
        .chain(signature.inputs.iter().map(|input| format!("  {input}")))
        .collect();
    let width = left.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let mut lines = String::new();
    for i in 0..left.len().max(right.len()) {
        let (l, r) = (left.get(i).map_or("", String::as_str), right.get(i).map_or("", String::as_str));
        lines.push_str(format!("{l:width$}  |  {r}").trim_end());
        lines.push('\n');
    }
    lines.pop();
    lines
}
