//! Which outputs of an ONNX file are kept? Those that are named; of the others nothing is computed.

use feature_defs::suggest;
use prost::Message;

use crate::parts::{Damaged, fields, put};

/// The graph of a model, and the inputs and outputs of a graph.
const GRAPH: usize = 7;
const OUTPUT: usize = 12;

/// What names an input or output.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
}

/// The file with these outputs alone, in this order.
///
/// # Errors
/// A name that no output has.
pub(crate) fn keep(onnx: &[u8], names: &[&str]) -> Result<Vec<u8>, String> {
    let mut file = Vec::with_capacity(onnx.len());
    for field in fields(onnx) {
        match (field.number, field.content) {
            (GRAPH, Some(graph)) => put(&mut file, GRAPH, &of_graph(graph, names)?),
            _ => file.extend_from_slice(field.whole),
        }
    }
    Ok(file)
}

fn of_graph(graph: &[u8], names: &[&str]) -> Result<Vec<u8>, String> {
    let (mut kept, mut outputs) = (Vec::with_capacity(graph.len()), Vec::new());
    for field in fields(graph) {
        match (field.number, field.content) {
            (OUTPUT, Some(output)) => {
                let Value { name } = Value::decode(output).map_err(|_| Damaged)?;
                outputs.push((name, field.whole));
            }
            _ => kept.extend_from_slice(field.whole),
        }
    }
    for name in names {
        let known = || outputs.iter().map(|(name, _)| name.as_str());
        let found = outputs.iter().find(|(known, _)| known == name);
        let (_, whole) = found.ok_or_else(|| {
            format!("`outputs`: the model has no output `{name}` ({})", suggest(name, known()))
        })?;
        kept.extend_from_slice(whole);
    }
    Ok(kept)
}
