//! What goes into a model, and what comes out?

use std::fmt;

/// Type of a tensor's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// `float16`
    Float16,
    /// `bfloat16`
    BFloat16,
    /// `float32`
    Float32,
    /// `float64`
    Float64,
    /// `int8`
    Int8,
    /// `int16`
    Int16,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `uint8`
    UInt8,
    /// `uint16`
    UInt16,
    /// `uint32`
    UInt32,
    /// `uint64`
    UInt64,
    /// `bool`
    Bool,
    /// `string`, UTF-8
    String,
    /// Anything else, by the model's own name for it: no feature becomes one.
    Other(String),
}

impl Element {
    /// Those that features become, with their names.
    const NAMED: [(Element, &str); 14] = [
        (Element::Float16, "float16"),
        (Element::BFloat16, "bfloat16"),
        (Element::Float32, "float32"),
        (Element::Float64, "float64"),
        (Element::Int8, "int8"),
        (Element::Int16, "int16"),
        (Element::Int32, "int32"),
        (Element::Int64, "int64"),
        (Element::UInt8, "uint8"),
        (Element::UInt16, "uint16"),
        (Element::UInt32, "uint32"),
        (Element::UInt64, "uint64"),
        (Element::Bool, "bool"),
        (Element::String, "string"),
    ];

    /// The one of this name, as [`Element`] shows it.
    pub fn named(name: &str) -> Element {
        let known = Self::NAMED.into_iter().find(|(_, known)| *known == name);
        known.map_or_else(|| Element::Other(name.to_owned()), |(element, _)| element)
    }

    /// Whether it has NaN, which stands for null.
    pub fn is_float(&self) -> bool {
        matches!(self, Element::Float16 | Element::BFloat16 | Element::Float32 | Element::Float64)
    }

    /// The least and the greatest of whole numbers that it holds, as far as `i64` reaches; none of what is no whole
    /// number.
    pub fn whole(&self) -> Option<(i64, i64)> {
        Some(match self {
            Element::Int8 => (i8::MIN.into(), i8::MAX.into()),
            Element::Int16 => (i16::MIN.into(), i16::MAX.into()),
            Element::Int32 => (i32::MIN.into(), i32::MAX.into()),
            Element::Int64 => (i64::MIN, i64::MAX),
            Element::UInt8 => (0, u8::MAX.into()),
            Element::UInt16 => (0, u16::MAX.into()),
            Element::UInt32 => (0, u32::MAX.into()),
            Element::UInt64 => (0, i64::MAX),
            _ => return None,
        })
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::NAMED.iter().find(|(known, _)| known == self).map(|(_, name)| *name);
        f.write_str(match (self, known) {
            (Element::Other(name), _) => name,
            (_, known) => known.unwrap_or_default(),
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

impl Port {
    /// Its shape, for people: `[N, 3]`; empty where the model does not say.
    pub fn shown_shape(&self) -> String {
        let dims = self.shape.iter().enumerate().map(|(i, dim)| match dim {
            Some(length) => length.to_string(),
            None if i == 0 => "N".to_owned(),
            None => "?".to_owned(),
        });
        if self.shape.is_empty() {
            return String::new();
        }
        format!("[{}]", dims.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Port { name, element, .. } = self;
        f.write_str(format!("{name}  {element} {}", self.shown_shape()).trim_end())
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

impl Signature {
    /// How many rows a run takes, where the first dimension of an input is fixed; those of other inputs where several
    /// are, and they differ.
    ///
    /// # Errors
    /// Two inputs that are fixed at different numbers.
    pub fn rows(&self) -> Result<Option<usize>, [&Port; 2]> {
        let mut fixed = self.inputs.iter().filter(|port| matches!(port.shape.first(), Some(Some(_))));
        let Some(first) = fixed.next() else { return Ok(None) };
        match fixed.find(|port| port.shape[0] != first.shape[0]) {
            Some(other) => Err([first, other]),
            None => Ok(first.shape[0]),
        }
    }
}
