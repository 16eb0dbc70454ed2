//! Which tree ensembles read features that their row does not have?
//!
//! ONNX Runtime takes the numbers of features as the file has them, and reads what lies behind the row in memory. So
//! they are compared with the width that the row has here.

use std::collections::BTreeMap;

use quern_engine::fit::Tensor;

use crate::graph::{Graph, Model, Node};

const TREES: [&str; 3] = ["TreeEnsembleRegressor", "TreeEnsembleClassifier", "TreeEnsemble"];
/// Give rows of the width that they get.
const AS_WIDE: [&str; 8] = ["Cast", "Identity", "Scaler", "Imputer", "Normalizer", "Binarizer", "Abs", "Neg"];

/// What a tree ensemble of the file reads that is not there, where `inputs` are those of a run.
pub(crate) fn beyond(onnx: &[u8], inputs: &[Tensor]) -> Option<String> {
    let model = Model::of(onnx)?;
    let width = |tensor: &Tensor| tensor.shape.get(1).copied().unwrap_or(1);
    let widths = inputs.iter().map(|tensor| (tensor.name.clone(), width(tensor))).collect();
    of_graph(model.graph.as_ref()?, &widths)
}

fn of_graph(graph: &Graph, outside: &BTreeMap<String, usize>) -> Option<String> {
    let mut widths = outside.clone();
    for node in &graph.nodes {
        if let Some(beyond) = of_node(node, &widths) {
            return Some(beyond);
        }
        if let Some(beyond) = node.inner().find_map(|graph| of_graph(graph, &widths)) {
            return Some(beyond);
        }
        if let (Some(width), Some(output)) = (width_of(node, &widths), node.outputs.first()) {
            widths.insert(output.clone(), width);
        }
    }
    None
}

fn of_node(node: &Node, widths: &BTreeMap<String, usize>) -> Option<String> {
    if !TREES.contains(&node.op_type.as_str()) {
        return None;
    }
    let width = i64::try_from(*widths.get(node.inputs.first()?)?).ok()?;
    let features = &node.attribute("nodes_featureids")?.numbers;
    let modes = node.attribute("nodes_modes").map(|modes| modes.texts.as_slice()).unwrap_or_default();
    // A leaf reads nothing, and exporters write there what they like.
    let is_leaf = |place: usize| modes.get(place).is_some_and(|mode| mode == b"LEAF");
    let read = features.iter().enumerate().filter(|(place, _)| !is_leaf(*place)).map(|(_, feature)| *feature);
    let beyond = read.filter(|feature| !(0..width).contains(feature)).max()?;
    Some(format!(
        "its trees ({}) split by feature {beyond}, counted from 0, and are given {width}: export the model again from \
         the columns that feed it, or let the feature service give it as many as it was trained on",
        node.op_type
    ))
}

/// How wide a node's first output is, where that is known.
fn width_of(node: &Node, widths: &BTreeMap<String, usize>) -> Option<usize> {
    let known = |input: &String| widths.get(input).copied();
    match node.op_type.as_str() {
        "Concat" if [1, -1].contains(&node.attribute("axis")?.number) => node.inputs.iter().map(known).sum(),
        operator if AS_WIDE.contains(&operator) => known(node.inputs.first()?),
        _ => None,
    }
}
