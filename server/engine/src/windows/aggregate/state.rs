//! What can be done with an intermediate result?

use super::input::Input;
use crate::windows::value::Cell;

/// An intermediate result.
pub(crate) trait State: Clone + Default {
    /// Takes in the event in `row`, which counts.
    fn update(&mut self, input: &Input, row: usize, params: &Params);

    /// Takes in what another holds.
    fn merge(&mut self, other: &Self, params: &Params);

    /// Appends the bytes that [`State::read`] reads.
    fn write(&self, out: &mut Vec<u8>);

    /// Takes a result off the front of `bytes`; none where they are not one.
    fn read(bytes: &mut &[u8]) -> Option<Self>;

    /// The value.
    fn finish(&self, finish: Finish, params: &Params) -> Result<Cell, Overflow>;
}

/// An intermediate result that is exact, so that an event leaves no trace once it is taken back.
pub(crate) trait Retractable: State {
    /// Undoes [`State::update`].
    fn take_back(&mut self, input: &Input, row: usize, params: &Params);
}

/// What an aggregate knows besides its events.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Params {
    /// Whether the values are floats.
    pub(crate) float: bool,
    /// How many values `last_n` and `top_n_by` keep.
    pub(crate) n: usize,
    /// How many values or categories are kept apart.
    pub(crate) limit: usize,
    /// The percentile, from 0 to 1.
    pub(crate) percentile: f64,
}

/// What is asked of an intermediate result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    Itself,
    Sum,
    Avg,
    Stddev,
    Variance,
    Any,
    Every,
}

/// A result that no number of its type can hold.
#[derive(Debug)]
pub(crate) struct Overflow;
