//! With which inputs is a model tried, where nobody gives examples?

use feature_defs::Literal;
use half::{bf16, f16};

use super::fill::Cell;
use super::null::items;
use super::signature::Element;
use super::tensor::{Tensor, TensorData};
use super::{Fit, TensorPlan};
use crate::each_number_kind;

/// Makes up a whole number from minus what it is told up to that.
type Numbers<'a> = &'a mut dyn FnMut(u64) -> i64;

impl Fit {
    /// Inputs of `rows` rows that hold what columns declare as their defaults, and zeros where they declare none; none
    /// where no column declares one.
    pub fn defaults(&self, rows: usize) -> Option<Vec<Tensor>> {
        let declares = |plan: &TensorPlan| plan.slices.iter().any(|slice| slice.default.is_some());
        self.tensors.iter().any(declares).then(|| self.made_up(rows, true, &mut |_| 0))
    }

    /// Inputs of `rows` rows that hold zeros, `false` and empty strings, to try a model with.
    pub fn zeros(&self, rows: usize) -> Vec<Tensor> {
        self.made_up(rows, false, &mut |_| 0)
    }

    /// Inputs of `rows` rows that hold nothing that is zero but empty strings: ones, `true`, and fractions of one.
    pub fn ones(&self, rows: usize) -> Vec<Tensor> {
        self.made_up(rows, false, &mut |_| 1)
    }

    /// Inputs of `rows` rows that hold numbers of all sizes, the same ones each time.
    pub fn noise(&self, rows: usize) -> Vec<Tensor> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        self.made_up(rows, false, &mut |most| {
            // SplitMix64 (Steele, Lea and Flood, 2014).
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((mixed ^ (mixed >> 27)) % (2 * most + 1)) as i64 - most as i64
        })
    }

    fn made_up(&self, rows: usize, with_defaults: bool, numbers: Numbers<'_>) -> Vec<Tensor> {
        let mut of = |plan: &TensorPlan| {
            macro_rules! made_up {
                ($($kind:ident: $cell:ty),*) => {
                    match plan.element {
                        $(Element::$kind => TensorData::$kind(plan.made_up(rows, with_defaults, numbers)),)*
                        Element::String | Element::Other(_) => {
                            TensorData::String(plan.made_up(rows, with_defaults, numbers))
                        }
                    }
                };
            }
            each_number_kind!(made_up)
        };
        self.tensors.iter().map(|plan| plan.tensor(rows, of(plan))).collect()
    }
}

impl TensorPlan {
    fn made_up<T: MadeUp>(&self, rows: usize, with_defaults: bool, numbers: Numbers<'_>) -> Vec<T> {
        let mut declared: Vec<Option<T>> = vec![None; self.width];
        for slice in self.slices.iter().filter(|_| with_defaults) {
            let default = slice.default.as_ref().map(items).unwrap_or_default();
            let cells = declared[slice.offset..].iter_mut().zip(default);
            cells.for_each(|(cell, default)| *cell = T::declared(default));
        }
        let cell = |i: usize| declared[i % self.width].clone();
        (0..rows * self.width).map(|i| cell(i).unwrap_or_else(|| T::made_up(numbers))).collect()
    }
}

trait MadeUp: Cell {
    fn made_up(numbers: Numbers<'_>) -> Self;

    /// `literal` as an element, whether null becomes it or not.
    fn declared(literal: &Literal) -> Option<Self> {
        Self::literal(literal)
    }
}

macro_rules! floats {
    ($($cell:ty),*) => {$(
        impl MadeUp for $cell {
            fn made_up(numbers: Numbers<'_>) -> Self {
                // As large as 16 bits hold.
                Self::of_float32(numbers(1 << 20) as f32 / 1024.0).unwrap_or_default()
            }

            fn declared(literal: &Literal) -> Option<Self> {
                match literal {
                    Literal::Int(n) => Self::of_int64(*n),
                    Literal::Float(x) => Self::of_float64(*x),
                    Literal::Bool(b) => Self::of_bool(*b),
                    Literal::String(_) | Literal::List(_) => None,
                }
            }
        }
    )*};
}
floats!(f16, bf16, f32, f64);

macro_rules! whole {
    ($($cell:ty),*) => {$(
        impl MadeUp for $cell {
            fn made_up(numbers: Numbers<'_>) -> Self {
                let number = numbers(3);
                Self::of_int64(number).or(Self::of_int64(-number)).unwrap_or_default()
            }
        }
    )*};
}
whole!(i8, i16, i32, i64, u8, u16, u32, u64);

impl MadeUp for bool {
    fn made_up(numbers: Numbers<'_>) -> Self {
        numbers(1) > 0
    }
}

impl MadeUp for String {
    fn made_up(_: Numbers<'_>) -> Self {
        String::new()
    }
}
