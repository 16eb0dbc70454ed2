//! What stands in for null in a tensor?

use feature_defs::Literal;

use super::signature::Element;

/// A type of tensor elements, as far as null goes.
pub(super) trait StandIn: Sized {
    /// What null becomes where no default is declared.
    const NAN: Option<Self> = None;

    /// What null becomes where `literal` is the default; none where it is no such element.
    fn literal(literal: &Literal) -> Option<Self>;
}

/// Whether `literal` may stand in a tensor of `element`.
pub(super) fn fits(literal: &Literal, element: &Element) -> bool {
    match element {
        Element::Int32 => i32::literal(literal).is_some(),
        Element::Int64 => i64::literal(literal).is_some(),
        Element::Bool => bool::literal(literal).is_some(),
        Element::String => String::literal(literal).is_some(),
        Element::Float32 | Element::Float64 | Element::Other(_) => true,
    }
}

// Null is NaN in a float tensor whatever the default says, so that a model sees what it was trained on.
impl StandIn for f32 {
    const NAN: Option<Self> = Some(f32::NAN);

    fn literal(_: &Literal) -> Option<Self> {
        None
    }
}

impl StandIn for f64 {
    const NAN: Option<Self> = Some(f64::NAN);

    fn literal(_: &Literal) -> Option<Self> {
        None
    }
}

impl StandIn for i32 {
    fn literal(literal: &Literal) -> Option<Self> {
        i64::literal(literal).and_then(|n| i32::try_from(n).ok())
    }
}

impl StandIn for i64 {
    fn literal(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::Int(n) => Some(*n),
            Literal::Bool(b) => Some(i64::from(*b)),
            Literal::Float(_) | Literal::String(_) | Literal::List(_) => None,
        }
    }
}

impl StandIn for bool {
    fn literal(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::Bool(b) => Some(*b),
            _ => None,
        }
    }
}

impl StandIn for String {
    fn literal(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::String(text) => Some(text.clone()),
            _ => None,
        }
    }
}
