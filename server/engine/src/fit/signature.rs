//! What goes into a model, and what comes out?

use std::fmt;

/// Type of a tensor's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// `float32`
    Float32,
    /// `float64`
    Float64,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `bool`
    Bool,
    /// `string`, UTF-8
    String,
    /// Anything else, by the model's own name for it: no feature becomes one.
    Other(String),
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Element::Float32 => "float32",
            Element::Float64 => "float64",
            Element::Int32 => "int32",
            Element::Int64 => "int64",
            Element::Bool => "bool",
            Element::String => "string",
            Element::Other(name) => name,
        })
    }
}

/// One input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The model's name for it.
    pub name: String,
    /// Type of the elements.
    pub element: Element,
    /// Length of each dimension, `None` where it is free; empty where the model does not say.
    pub shape: Vec<Option<usize>>,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.name, self.element)?;
        let dims = self.shape.iter().enumerate().map(|(i, dim)| match dim {
            Some(length) => length.to_string(),
            None if i == 0 => "N".to_owned(),
            None => "?".to_owned(),
        });
        if self.shape.is_empty() { Ok(()) } else { write!(f, " [{}]", dims.collect::<Vec<_>>().join(", ")) }
    }
}

/// What goes into a model and what comes out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// Inputs, in the model's order.
    pub inputs: Vec<Port>,
    /// Outputs, in the model's order.
    pub outputs: Vec<Port>,
}
