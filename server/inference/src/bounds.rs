//! Which files may end, or never leave, the process that runs them?
//!
//! A whole-number division by zero is a trap of the processor, which ONNX Runtime does not look out for; a loop may run
//! as long as its inputs say. Whatever is not known to be a division of floats counts as one of whole numbers.

use std::collections::BTreeMap;

use crate::graph::{Graph, Model, Node};

/// Run as long as their inputs say.
const ENDLESS: [&str; 2] = ["Loop", "Scan"];
/// Trap where they divide whole numbers.
const DIVIDES: [&str; 2] = ["Div", "Mod"];
/// Their first output is of the type of any of their inputs.
const ALIKE: [&str; 10] = ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "MatMul", "Concat"];
/// Their first output is of the type of their first input.
const FIRST: [&str; 30] = [
    "Abs",
    "Ceil",
    "Clip",
    "Dropout",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "Gemm",
    "Identity",
    "Log",
    "LogSoftmax",
    "Neg",
    "Pow",
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Sqrt",
    "Squeeze",
    "Tanh",
];
/// Float, float16, double and bfloat16, by the numbers of `TensorProto.DataType`.
const FLOATS: [i32; 4] = [1, 10, 11, 16];

/// The types of values by their names, as far as they are known.
type Types<'a> = BTreeMap<&'a str, i32>;

/// The operator that may end the process that runs it, or never leave it, if there is one.
pub(crate) fn out_of_bounds(model: &Model) -> Option<String> {
    // A function may give a known name another meaning, and its values have other types wherever it is used.
    let is_plain = model.functions.is_empty();
    let in_functions = model.functions.iter().flat_map(|function| &function.nodes);
    let in_function = in_functions.filter_map(|node| of_node(node, &Types::new(), false)).next();
    in_function.or_else(|| of_graph(model.graph.as_ref()?, &Types::new(), is_plain))
}

fn of_graph<'a>(graph: &'a Graph, outside: &Types<'a>, is_plain: bool) -> Option<String> {
    let mut types = outside.clone();
    for input in &graph.inputs {
        // What is declared without a type hides the name outside.
        match input.element() {
            Some(element) => types.insert(&input.name, element),
            None => types.remove(input.name.as_str()),
        };
    }
    types.extend(graph.initializers.iter().map(|weights| (weights.name.as_str(), weights.element)));
    for node in &graph.nodes {
        if let Some(operator) = of_node(node, &types, is_plain) {
            return Some(operator);
        }
        for (place, output) in node.outputs.iter().enumerate() {
            match type_of(node, &types).filter(|_| is_plain && place == 0) {
                Some(element) => types.insert(output, element),
                None => types.remove(output.as_str()),
            };
        }
    }
    None
}

fn of_node<'a>(node: &'a Node, types: &Types<'a>, is_plain: bool) -> Option<String> {
    let operator = node.op_type.as_str();
    let is_float = |input: &String| types.get(input.as_str()).is_some_and(|element| FLOATS.contains(element));
    let divides = DIVIDES.contains(&operator) && !node.inputs.iter().any(is_float);
    if divides || ENDLESS.contains(&operator) {
        return Some(operator.to_owned());
    }
    node.inner().find_map(|graph| of_graph(graph, types, is_plain))
}

/// The type of a node's first output, where it is known.
fn type_of(node: &Node, types: &Types<'_>) -> Option<i32> {
    let known = |input: &String| types.get(input.as_str()).copied();
    match node.op_type.as_str() {
        "Cast" => i32::try_from(node.attribute("to")?.number).ok(),
        "Constant" => Some(node.attribute("value")?.tensor.as_ref()?.element),
        operator if ALIKE.contains(&operator) => node.inputs.iter().find_map(known),
        operator if FIRST.contains(&operator) => node.inputs.first().and_then(known),
        _ => None,
    }
}
