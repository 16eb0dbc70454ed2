//! What does an ONNX file reckon, as far as its operators, names and types say?
//!
//! The messages of `onnx.proto` once more, decoded without the weights: unlike [`parts`](crate::parts), this keeps
//! which graph stands in which.

use prost::Message;

/// `AttributeProto` and the rest, by the numbers of `onnx.proto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Model {
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<Graph>,
    #[prost(message, repeated, tag = "25")]
    pub(crate) functions: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Function {
    #[prost(message, repeated, tag = "7")]
    pub(crate) nodes: Vec<Node>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializers: Vec<Weights>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) inputs: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(crate) inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) outputs: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Attribute {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int64, tag = "3")]
    pub(crate) number: i64,
    #[prost(message, optional, tag = "5")]
    pub(crate) tensor: Option<Weights>,
    #[prost(message, optional, boxed, tag = "6")]
    pub(crate) graph: Option<Box<Graph>>,
    #[prost(int64, repeated, tag = "8")]
    pub(crate) numbers: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub(crate) texts: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) graphs: Vec<Graph>,
}

/// A tensor, but for its weights.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Weights {
    #[prost(int32, tag = "2")]
    pub(crate) element: i32,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
}

/// An input of a graph.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Value {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Dims>,
}

#[derive(Clone, PartialEq, Message)]
struct Dims {
    #[prost(message, repeated, tag = "1")]
    dims: Vec<Dim>,
}

/// A length; which one, nobody asks.
#[derive(Clone, PartialEq, Message)]
struct Dim {}

impl Value {
    /// Whether it is a single value, of no dimension at all.
    pub(crate) fn is_scalar(&self) -> bool {
        let tensor = self.kind.as_ref().and_then(|kind| kind.tensor.as_ref());
        tensor.and_then(|tensor| tensor.shape.as_ref()).is_some_and(|shape| shape.dims.is_empty())
    }

    /// Its element type by the number of `TensorProto.DataType`, where it is a tensor.
    pub(crate) fn element(&self) -> Option<i32> {
        Some(self.kind.as_ref()?.tensor.as_ref()?.element)
    }
}

impl Model {
    /// None where the bytes are no such messages.
    pub(crate) fn of(onnx: &[u8]) -> Option<Model> {
        Model::decode(onnx).ok()
    }
}

impl Node {
    /// The graphs in it.
    pub(crate) fn inner(&self) -> impl Iterator<Item = &Graph> {
        let attributes = self.attributes.iter();
        attributes.flat_map(|attribute| attribute.graph.as_deref().into_iter().chain(&attribute.graphs))
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}
