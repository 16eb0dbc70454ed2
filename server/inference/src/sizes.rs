//! Which files may take any memory? Those with an operator that makes a tensor as large as values of a row say.
//!
//! What the shape of the inputs says is bounded by the rows of a request, and what the file says was there when it was
//! tried.

use std::collections::BTreeSet;

use crate::graph::{Graph, Model, Node};

/// Operators whose outputs are as large as some of their inputs say, and the places of these inputs.
const SIZED: [(&str, &[usize]); 16] = [
    ("AffineGrid", &[1]),
    ("BlackmanWindow", &[0]),
    ("CenterCropPad", &[1]),
    ("Col2Im", &[1, 2]),
    ("ConstantOfShape", &[0]),
    ("DFT", &[1]),
    ("Expand", &[1]),
    ("HammingWindow", &[0]),
    ("HannWindow", &[0]),
    ("MaxUnpool", &[2]),
    ("MelWeightMatrix", &[0, 1]),
    ("OneHot", &[1]),
    ("Pad", &[1]),
    ("Range", &[0, 1, 2]),
    ("Resize", &[2, 3]),
    ("Tile", &[1]),
];
/// Say how large a tensor is, and nothing of what is in it.
const SHAPES: [&str; 2] = ["Shape", "Size"];

/// The names of what depends on the values of rows.
type OfRows<'a> = BTreeSet<&'a str>;

/// The operator that makes such a tensor, if there is one.
pub(crate) fn by_values(model: &Model) -> Option<String> {
    // Who calls a function hands it anything.
    let in_functions = model.functions.iter().find_map(|function| {
        let outputs = function.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str);
        let own: OfRows<'_> = outputs.collect();
        let inputs = function.nodes.iter().flat_map(|node| &node.inputs).map(String::as_str);
        of_nodes(&function.nodes, inputs.filter(|name| !own.contains(name)).collect())
    });
    in_functions.or_else(|| of_graph(model.graph.as_ref()?, &OfRows::new()))
}

fn of_graph<'a>(graph: &'a Graph, outside: &OfRows<'a>) -> Option<String> {
    let mut of_rows = outside.clone();
    of_rows.extend(graph.inputs.iter().map(|input| input.name.as_str()));
    // Files of old list their weights among the inputs.
    graph.initializers.iter().for_each(|weights| _ = of_rows.remove(weights.name.as_str()));
    of_nodes(&graph.nodes, of_rows)
}

fn of_nodes<'a>(nodes: &'a [Node], mut of_rows: OfRows<'a>) -> Option<String> {
    for node in nodes {
        let is_of_rows =
            |place: &usize| node.inputs.get(*place).is_some_and(|name| of_rows.contains(&**name));
        let sized = SIZED.iter().find(|(operator, _)| *operator == node.op_type);
        if sized.is_some_and(|(_, places)| places.iter().any(is_of_rows)) {
            return Some(node.op_type.clone());
        }
        if let Some(found) = node.inner().find_map(|graph| of_graph(graph, &of_rows)) {
            return Some(found);
        }
        // What is in a graph within may read anything outside of it.
        let depends = node.inner().next().is_some() || (0..node.inputs.len()).any(|place| is_of_rows(&place));
        for output in &node.outputs {
            match depends && !SHAPES.contains(&&*node.op_type) {
                true => of_rows.insert(output),
                false => of_rows.remove(&**output),
            };
        }
    }
    None
}
