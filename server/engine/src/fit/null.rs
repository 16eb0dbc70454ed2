//! What stands in for null in a tensor?

use feature_defs::Literal;
use half::{bf16, f16};

use super::signature::Element;

/// A type of tensor elements, as far as null goes.
pub(super) trait StandIn: Sized {
    /// What null becomes where no default is declared.
    const NAN: Option<Self> = None;

    /// What null becomes where `literal` is the default; none where it is no such element.
    fn literal(literal: &Literal) -> Option<Self>;
}

/// Whether `literal`, or each item of a list, may stand in a tensor of `element`.
pub(super) fn fits(literal: &Literal, element: &Element) -> bool {
    match (literal, element) {
        (Literal::List(items), element) => items.iter().all(|item| fits(item, element)),
        (literal, Element::Bool) => bool::literal(literal).is_some(),
        (literal, Element::String) => String::literal(literal).is_some(),
        (literal, element) => match element.whole() {
            Some((least, most)) => i64::literal(literal).is_some_and(|n| (least..=most).contains(&n)),
            None => true,
        },
    }
}

/// The items of a list, or the one value.
pub(super) fn items(literal: &Literal) -> &[Literal] {
    match literal {
        Literal::List(items) => items,
        value => std::slice::from_ref(value),
    }
}

// Null is NaN in a float tensor whatever the default says, so that a model sees what it was trained on.
macro_rules! floats {
    ($($cell:ty),*) => {$(
        impl StandIn for $cell {
            const NAN: Option<Self> = Some(<$cell>::NAN);

            fn literal(_: &Literal) -> Option<Self> {
                None
            }
        }
    )*};
}
floats!(f16, bf16, f32, f64);

macro_rules! whole {
    ($($cell:ty),*) => {$(
        impl StandIn for $cell {
            fn literal(literal: &Literal) -> Option<Self> {
                match literal {
                    Literal::Int(n) => <$cell>::try_from(*n).ok(),
                    Literal::Bool(b) => Some(<$cell>::from(*b)),
                    _ => None,
                }
            }
        }
    )*};
}
whole!(i8, i16, i32, i64, u8, u16, u32, u64);

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
