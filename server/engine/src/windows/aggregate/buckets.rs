//! What is kept of each bucket of events?

use std::collections::BTreeMap;

use arrow::array::Array;

use super::input::Input;
use super::state::{Finish, Overflow, Params, State};
use crate::windows::bytes::{number, piece, write_number, write_piece};
use crate::windows::value::Cell;

/// A result for each bucket; those of the first `limit` buckets in byte order.
#[derive(Debug, Clone)]
pub(crate) struct Buckets<S>(BTreeMap<Box<[u8]>, S>);

impl<S> Default for Buckets<S> {
    fn default() -> Self {
        Buckets(BTreeMap::new())
    }
}

impl<S: State> Buckets<S> {
    fn bucket(&mut self, name: &[u8], limit: usize) -> Option<&mut S> {
        if !self.0.contains_key(name) {
            if self.0.len() >= limit {
                if self.0.last_key_value().is_some_and(|(last, _)| &**last < name) {
                    return None;
                }
                self.0.pop_last();
            }
            self.0.insert(name.into(), S::default());
        }
        self.0.get_mut(name)
    }
}

impl<S: State> State for Buckets<S> {
    fn update(&mut self, input: &Input, row: usize, params: &Params) {
        let Some(names) = input.bucket.filter(|names| names.is_valid(row)) else { return };
        if let Some(state) = self.bucket(names.value(row), params.limit) {
            state.update(input, row, params);
        }
    }

    fn merge(&mut self, other: &Self, params: &Params) {
        for (name, theirs) in &other.0 {
            if let Some(state) = self.bucket(name, params.limit) {
                state.merge(theirs, params);
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_number(self.0.len() as u64, out);
        for (name, state) in &self.0 {
            write_piece(name, out);
            state.write(out);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let buckets = (0..number(bytes)?).map(|_| Some((piece(bytes)?.into(), S::read(bytes)?)));
        Some(Buckets(buckets.collect::<Option<_>>()?))
    }

    fn finish(&self, finish: Finish, params: &Params) -> Result<Cell, Overflow> {
        let cells = self.0.iter().map(|(name, state)| Ok((name.clone(), state.finish(finish, params)?)));
        Ok(Cell::Map(cells.collect::<Result<_, Overflow>>()?))
    }
}
