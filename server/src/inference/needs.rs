//! What does an ONNX file need that is not in it? Weights in other files, operators that ONNX Runtime does not have.
//!
//! The messages are those of `onnx.proto` (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>), written by hand and as
//! far as they are read here; what is not here is skipped, the weights above all.

use std::collections::BTreeSet;

use prost::{Enumeration, Message};

/// The domains whose operators ONNX Runtime brings along.
const DOMAINS: [&str; 9] = [
    "",
    "ai.onnx",
    "ai.onnx.ml",
    "ai.onnx.preview",
    "ai.onnx.preview.training",
    "ai.onnx.training",
    "com.microsoft",
    "com.microsoft.experimental",
    "com.microsoft.nchwc",
];
/// So many names are shown.
const SHOWN_MAX: usize = 5;

/// What is wrong with a file whose weights lie in other files: only the one file is kept and known by its digest, and
/// ONNX Runtime would look for the others wherever this process happens to run.
pub(super) fn other_files(onnx: &[u8]) -> Option<String> {
    let mut files = BTreeSet::new();
    let model = Model::decode(onnx).ok()?;
    model.visit(&mut |part| {
        if let Part::Tensor(tensor) = part
            && (tensor.data_location == DataLocation::External as i32 || !tensor.external_data.is_empty())
        {
            let location = tensor.external_data.iter().find(|entry| entry.key == "location");
            files.insert(location.map_or_else(|| tensor.name.clone(), |entry| entry.value.clone()));
        }
    });
    (!files.is_empty()).then(|| {
        format!(
            "the file lacks its weights: they lie in {} beside it (ONNX's external data), and a model is one file here; \
             save it with `mlflow.onnx.save_model(…, save_as_external_data=False)`, or put it together with \
             `onnx.save(onnx.load(PATH), PATH)`",
            list(&files)
        )
    })
}

/// The operators of domains that ONNX Runtime does not know and the file does not define itself.
pub(super) fn other_operators(onnx: &[u8]) -> Option<String> {
    let model = Model::decode(onnx).ok()?;
    let defined: BTreeSet<(&str, &str)> =
        model.functions.iter().map(|function| (function.domain.as_str(), function.name.as_str())).collect();
    let mut operators = BTreeSet::new();
    model.visit(&mut |part| {
        if let Part::Node(node) = part
            && !DOMAINS.contains(&node.domain.as_str())
            && !defined.contains(&(node.domain.as_str(), node.op_type.as_str()))
        {
            operators.insert(format!("{}.{}", node.domain, node.op_type));
        }
    });
    (!operators.is_empty()).then(|| {
        format!(
            "the model needs the custom operators {}, and only those of ONNX and ONNX Runtime itself are there; export it \
             without them",
            list(&operators)
        )
    })
}

fn list(names: &BTreeSet<String>) -> String {
    let mut shown: Vec<String> = names.iter().take(SHOWN_MAX).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN_MAX {
        shown.push(format!("{} more", names.len() - SHOWN_MAX));
    }
    shown.join(", ")
}

/// What a model is made of, wherever in it.
enum Part<'a> {
    Node(&'a Node),
    Tensor(&'a Tensor),
}

impl Model {
    fn visit(&self, see: &mut impl FnMut(Part<'_>)) {
        self.graph.iter().for_each(|graph| graph.visit(see));
        self.functions.iter().flat_map(|function| &function.nodes).for_each(|node| node.visit(see));
    }
}

impl Graph {
    fn visit(&self, see: &mut impl FnMut(Part<'_>)) {
        let sparse = self.sparse_initializers.iter().flat_map(SparseTensor::parts);
        self.initializers.iter().chain(sparse).for_each(|tensor| see(Part::Tensor(tensor)));
        self.nodes.iter().for_each(|node| node.visit(see));
    }
}

impl Node {
    fn visit(&self, see: &mut impl FnMut(Part<'_>)) {
        see(Part::Node(self));
        for attribute in &self.attributes {
            let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
            let tensors = attribute.tensor.iter().chain(&attribute.tensors);
            tensors.chain(sparse.flat_map(SparseTensor::parts)).for_each(|tensor| see(Part::Tensor(tensor)));
            attribute.graph.iter().for_each(|graph| graph.visit(see));
            attribute.graphs.iter().for_each(|graph| graph.visit(see));
        }
    }
}

impl SparseTensor {
    fn parts(&self) -> impl Iterator<Item = &Tensor> {
        self.values.iter().chain(&self.indices)
    }
}

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "7")]
    nodes: Vec<Node>,
    #[prost(string, tag = "10")]
    domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializers: Vec<Tensor>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializers: Vec<SparseTensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
    #[prost(string, tag = "7")]
    domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(message, optional, tag = "5")]
    tensor: Option<Tensor>,
    #[prost(message, optional, boxed, tag = "6")]
    graph: Option<Box<Graph>>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<Graph>,
    #[prost(message, optional, tag = "22")]
    sparse_tensor: Option<SparseTensor>,
    #[prost(message, repeated, tag = "23")]
    sparse_tensors: Vec<SparseTensor>,
}

#[derive(Clone, PartialEq, Message)]
struct SparseTensor {
    #[prost(message, optional, tag = "1")]
    values: Option<Tensor>,
    #[prost(message, optional, tag = "2")]
    indices: Option<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<Entry>,
    #[prost(enumeration = "DataLocation", tag = "14")]
    data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
enum DataLocation {
    Default = 0,
    External = 1,
}
