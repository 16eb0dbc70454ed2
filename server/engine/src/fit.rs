//! Which tensors does a model get from a feature vector?
//!
//! A model takes one tensor of shape `[N, F]`, the columns side by side in their order; or one named input for each
//! column (`[N]`, `[N, 1]`, or `[N, L]` for a list of fixed length); or what a map says. All are the same plan here: a
//! tensor is filled column by column, row-major, and a named input is a tensor of one column.
//!
//! Architecture invariant: [`cast`] alone decides which types become which. It runs when definitions are applied, so
//! that filling a tensor can only fail on a null that nothing stands in for, and on a number that its type does not
//! hold.

mod beside;
mod cast;
mod cut;
mod fill;
mod matched;
mod null;
mod plan;
mod signature;
mod tensor;
#[cfg(test)]
mod tests;
mod trial;

use arrow::datatypes::{DataType, FieldRef};
use feature_defs::{Inputs, Literal};
pub use half::{bf16, f16};

use self::beside::side_by_side;
pub use self::beside::{Filled, Filling};
pub use self::cut::as_type;
use self::matched::matched;
use self::plan::tensor_plan;
pub use self::signature::{Element, Port, Signature};
pub use self::tensor::{Tensor, TensorData};
use crate::{Origin, ServicePlan};

/// How columns become the inputs of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    tensors: Vec<TensorPlan>,
    /// How the inputs are filled, for people.
    pub filled: Vec<Filled>,
}

#[derive(Debug, Clone, PartialEq)]
struct TensorPlan {
    name: String,
    element: Element,
    /// The dimensions of a row; none for `[N]`.
    dims: Vec<usize>,
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
    /// Fits `columns`, which people call `of`, to the inputs of a model, as `inputs` say.
    ///
    /// # Errors
    /// Everything that does not fit, followed by both shapes side by side, and by a map to paste where one is near.
    pub fn new(of: &str, columns: &[Feature], inputs: &Inputs, signature: &Signature) -> Result<Fit, String> {
        fit(columns, inputs, signature).map_err(|mistakes| {
            let said: String = mistakes.said.iter().map(|mistake| format!("\n  - {mistake}")).collect();
            let beside = side_by_side(of, columns, signature);
            let paste = mistakes.paste.unwrap_or_default();
            format!("the model does not fit {of}:{said}\n{beside}{paste}")
        })
    }
}

/// Why columns do not fit.
#[derive(Debug, Default)]
struct Mistakes {
    said: Vec<String>,
    /// A map of inputs that would fit, to be pasted.
    paste: Option<String>,
}

impl TensorPlan {
    fn tensor(&self, rows: usize, data: TensorData) -> Tensor {
        let shape = std::iter::once(rows).chain(self.dims.iter().copied()).collect();
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

fn fit(features: &[Feature], inputs: &Inputs, signature: &Signature) -> Result<Fit, Mistakes> {
    let wants = matched(features, inputs, signature)?;
    let mut said = Vec::new();
    if let Ok(Some(0)) = signature.rows() {
        said.push("the model takes no row at all: its first dimension is 0".to_owned());
    }
    if let Err([one, other]) = signature.rows() {
        said.push(format!(
            "input `{}` is {} and input `{}` is {}: the first dimension is the row, and all inputs have as many",
            one.name,
            one.shown_shape(),
            other.name,
            other.shown_shape()
        ));
    }
    let plans = wants.iter().map(|want| tensor_plan(want, features, &mut said));
    let tensors: Vec<TensorPlan> = plans.collect::<Vec<_>>().into_iter().flatten().collect();
    if !said.is_empty() {
        return Err(Mistakes { said, paste: None });
    }
    let filled = wants.iter().zip(&tensors).map(|(want, plan)| Filled::new(want.port, plan, features));
    let filled = filled.collect();
    Ok(Fit { tensors, filled })
}
