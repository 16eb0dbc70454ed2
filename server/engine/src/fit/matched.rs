//! Which columns go into which input? By a map, by their names, or all into the only one.

use feature_defs::{Expr, Input, Inputs, suggest};

use super::beside::paste;
use super::signature::{Port, Signature};
use super::{Feature, Mistakes};

/// One input, and the places of the columns that fill it.
pub(super) struct Want<'a> {
    pub(super) port: &'a Port,
    pub(super) columns: Vec<usize>,
    /// The dimensions of a row, where they are declared.
    pub(super) shape: Option<&'a [u32]>,
}

/// Each input of the model, with its columns.
pub(super) fn matched<'a>(
    features: &[Feature],
    inputs: &'a Inputs,
    signature: &'a Signature,
) -> Result<Vec<Want<'a>>, Mistakes> {
    let mut mistakes = Mistakes::default();
    if signature.inputs.is_empty() {
        mistakes.said.push("the model has no input".to_owned());
        return Err(mistakes);
    }
    let wants = match inputs {
        Inputs::Map(map) => by_map(features, map, signature, &mut mistakes.said),
        Inputs::Columns(names) => {
            let columns = match names.is_empty() {
                true => (0..features.len()).collect(),
                false => places(features, names, &mut mistakes.said),
            };
            by_names(features, &columns, signature, &mut mistakes)
        }
    };
    if mistakes.said.is_empty() { Ok(wants) } else { Err(mistakes) }
}

/// Where the columns called `names` are.
fn places(features: &[Feature], names: &[Expr], said: &mut Vec<String>) -> Vec<usize> {
    let known = || features.iter().map(|feature| feature.name.as_str());
    let mut place = |name: &Expr| {
        let place = known().position(|known| known == name.sql);
        if place.is_none() {
            said.push(format!("there is no column `{}` ({})", name.sql, suggest(&name.sql, known())));
        }
        place
    };
    names.iter().filter_map(&mut place).collect()
}

fn by_map<'a>(
    features: &[Feature],
    map: &'a [Input],
    signature: &'a Signature,
    said: &mut Vec<String>,
) -> Vec<Want<'a>> {
    let ports = || signature.inputs.iter().map(|port| port.name.as_str());
    for Input { name, .. } in map.iter().filter(|input| ports().all(|port| port != input.name)) {
        said.push(format!("the model has no input `{name}` ({})", suggest(name, ports())));
    }
    let mut wants = Vec::new();
    for port in &signature.inputs {
        match map.iter().find(|input| input.name == port.name) {
            Some(input) => wants.push(Want {
                port,
                columns: places(features, &input.columns, said),
                shape: input.shape.as_deref(),
            }),
            None => said.push(format!("`inputs` does not say what fills the model's input `{}`", port.name)),
        }
    }
    wants
}

fn by_names<'a>(
    features: &[Feature],
    columns: &[usize],
    signature: &'a Signature,
    mistakes: &mut Mistakes,
) -> Vec<Want<'a>> {
    let names = || columns.iter().map(|column| features[*column].name.as_str());
    if let [port] = signature.inputs.as_slice()
        && !names().eq([port.name.as_str()])
    {
        return vec![Want { port, columns: columns.to_vec(), shape: None }];
    }
    let ports = || signature.inputs.iter().map(|port| port.name.as_str());
    for name in names().filter(|name| ports().all(|port| port != *name)) {
        mistakes.said.push(format!(
            "no input of the model is named `{name}` ({}); leave it out of the service's `outputs`, or say under `inputs` \
             what it fills",
            suggest(name, ports())
        ));
    }
    let mut wants = Vec::new();
    for port in &signature.inputs {
        match columns.iter().find(|column| features[**column].name == port.name) {
            Some(column) => wants.push(Want { port, columns: vec![*column], shape: None }),
            None => mistakes.said.push(format!(
                "no column is named `{}`, as the model's input is ({})",
                port.name,
                suggest(&port.name, names())
            )),
        }
    }
    if !mistakes.said.is_empty() {
        let columns: Vec<&Feature> = columns.iter().map(|column| &features[*column]).collect();
        mistakes.paste = paste(&columns, signature);
    }
    wants
}
