//! With which inputs is a model tried?

use super::signature::Element;
use super::tensor::{Tensor, TensorData};
use super::{Fit, TensorPlan};

impl Fit {
    /// Inputs of `rows` rows that hold zeros, `false` and empty strings, to try a model with.
    pub fn zeros(&self, rows: usize) -> Vec<Tensor> {
        self.made_up(rows, &mut |_| 0)
    }

    /// Inputs of `rows` rows that hold nothing that is zero but empty strings: ones, `true`, and fractions of one.
    pub fn ones(&self, rows: usize) -> Vec<Tensor> {
        self.made_up(rows, &mut |_| 1)
    }

    /// Inputs of `rows` rows that hold numbers of all sizes, the same ones each time.
    pub fn noise(&self, rows: usize) -> Vec<Tensor> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        self.made_up(rows, &mut |most| {
            // SplitMix64 (Steele, Lea and Flood, 2014).
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((mixed ^ (mixed >> 27)) % (2 * most + 1)) as i64 - most as i64
        })
    }

    /// `number` makes up a whole number from minus what it is told up to that.
    fn made_up(&self, rows: usize, number: &mut dyn FnMut(u64) -> i64) -> Vec<Tensor> {
        let mut of = |plan: &TensorPlan| {
            let cells = 0..rows * plan.width;
            match plan.element {
                Element::Float32 => {
                    TensorData::Float32(cells.map(|_| number(1 << 20) as f32 / 1024.0).collect())
                }
                Element::Float64 => {
                    TensorData::Float64(cells.map(|_| number(1 << 20) as f64 / 1024.0).collect())
                }
                Element::Int32 => TensorData::Int32(cells.map(|_| number(3) as i32).collect()),
                Element::Int64 => TensorData::Int64(cells.map(|_| number(3)).collect()),
                Element::Bool => TensorData::Bool(cells.map(|_| number(1) > 0).collect()),
                Element::String | Element::Other(_) => TensorData::String(vec![String::new(); cells.len()]),
            }
        };
        self.tensors.iter().map(|plan| plan.tensor(rows, of(plan))).collect()
    }
}
