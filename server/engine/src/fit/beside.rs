//! How are columns and inputs told to people?

use feature_defs::Literal;

use super::cast::{castable, said};
use super::signature::{Element, Port, Signature};
use super::{Feature, Null, TensorPlan};
use crate::schema::type_name;

/// How an input of a model is filled.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    /// The model's name for it.
    pub input: String,
    /// Type of its elements.
    pub element: Element,
    /// Its shape, as in `[N, 3]`.
    pub shape: String,
    /// By what, side by side.
    pub columns: Vec<Filling>,
}

/// How a column goes into an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Filling {
    /// The column.
    pub column: String,
    /// Its type.
    pub dtype: String,
    /// What happens to its values; empty where they stay as they are.
    pub cast: String,
    /// What null becomes; empty where there is none.
    pub null: String,
}

impl Filled {
    pub(super) fn new(port: &Port, plan: &TensorPlan, features: &[Feature]) -> Filled {
        let first = port.shape.first().copied().flatten().map_or("N".to_owned(), |rows| rows.to_string());
        let dims = std::iter::once(first).chain(plan.dims.iter().map(ToString::to_string));
        let shape = format!("[{}]", dims.collect::<Vec<_>>().join(", "));
        let columns = plan.slices.iter().map(|slice| {
            let Feature { name, dtype, null, .. } = &features[slice.column];
            Filling {
                column: name.clone(),
                dtype: type_name(dtype),
                cast: said(dtype, &plan.element).unwrap_or_default().to_owned(),
                null: of_null(*null, &plan.element, slice.default.as_ref()),
            }
        });
        let columns = columns.collect();
        Filled { input: port.name.clone(), element: plan.element.clone(), shape, columns }
    }
}

fn of_null(null: Null, element: &Element, default: Option<&Literal>) -> String {
    match (null, default) {
        (Null::Never, _) => String::new(),
        _ if element.is_float() => "NaN".to_owned(),
        (_, Some(default)) => default.to_string(),
        (_, None) => "refused".to_owned(),
    }
}

/// The columns beside the inputs of the model.
pub(super) fn side_by_side(of: &str, features: &[Feature], signature: &Signature) -> String {
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

/// A map of inputs to paste, where names are nearly right, or where types and numbers leave one way; none where some
/// input or column would be left over.
pub(super) fn paste(columns: &[&Feature], signature: &Signature) -> Option<String> {
    let mut free: Vec<&Feature> = columns.to_vec();
    let mut filled: Vec<Vec<&Feature>> = vec![Vec::new(); signature.inputs.len()];
    for (port, filled) in signature.inputs.iter().zip(&mut filled) {
        let known = free.iter().position(|column| plain(&column.name) == plain(&port.name));
        filled.extend(known.map(|place| free.remove(place)));
    }
    for (port, filled) in signature.inputs.iter().zip(&mut filled).filter(|(_, filled)| filled.is_empty()) {
        let most = match port.shape.get(1..) {
            None => usize::MAX,
            Some(dims) => dims.iter().map(|dim| dim.unwrap_or(usize::MAX)).fold(1, usize::saturating_mul),
        };
        free.retain(|column| {
            let takes = filled.len() < most && castable(&column.dtype, &port.element).is_ok();
            if takes {
                filled.push(column);
            }
            !takes
        });
    }
    if !free.is_empty() || filled.iter().any(Vec::is_empty) {
        return None;
    }
    let line = |(port, columns): (&Port, &Vec<&Feature>)| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let value = if let [name] = names[..] { name.to_owned() } else { format!("[{}]", names.join(", ")) };
        format!("\n    {}: {value}", key(&port.name))
    };
    let lines: String = signature.inputs.iter().zip(&filled).map(line).collect();
    Some(format!("\nif these belong together, in this order, write beside `path`:\n  inputs:{lines}"))
}

/// A name without what frameworks add to it.
fn plain(name: &str) -> String {
    let name = name.strip_prefix("serving_default_").unwrap_or(name);
    let name = match name.rsplit_once(':') {
        Some((name, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    };
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// A name as a key of YAML.
fn key(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().any(|c| c.is_ascii_alphabetic());
    if is_plain { name.to_owned() } else { format!("{name:?}") }
}
