//! Which values are the least, the greatest, the first, the last?

use super::input::{Input, Place};
use super::state::{Finish, Overflow, Params, State};
use crate::windows::bytes::{fixed, number, write_number};
use crate::windows::value::{Cell, Value};

/// The least value, or the greatest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extreme<const GREATEST: bool>(Option<Value>);

impl<const GREATEST: bool> Extreme<GREATEST> {
    fn beats(&self, value: &Value) -> bool {
        self.0.as_ref().is_some_and(|mine| if GREATEST { mine >= value } else { mine <= value })
    }
}

impl<const GREATEST: bool> State for Extreme<GREATEST> {
    fn update(&mut self, input: &Input, row: usize, _: &Params) {
        let value = input.value(row);
        if !self.beats(&value) {
            self.0 = Some(value);
        }
    }

    fn merge(&mut self, other: &Self, _: &Params) {
        if let Some(value) = &other.0
            && !self.beats(value)
        {
            self.0 = Some(value.clone());
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.0.is_some()));
        self.0.iter().for_each(|value| value.write(out));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Extreme(if number(bytes)? == 0 { None } else { Some(Value::read(bytes)?) }))
    }

    fn finish(&self, _: Finish, _: &Params) -> Result<Cell, Overflow> {
        Ok(self.0.clone().map_or(Cell::Null, Cell::Value))
    }
}

/// The value of the first event, or of the last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edge<const LAST: bool>(Option<(Place, Value)>);

impl<const LAST: bool> State for Edge<LAST> {
    fn update(&mut self, input: &Input, row: usize, _: &Params) {
        let place = input.place(row);
        let beats = |(mine, _): &(Place, Value)| if LAST { *mine > place } else { *mine < place };
        if !self.0.as_ref().is_some_and(beats) {
            self.0 = Some((place, input.value(row)));
        }
    }

    fn merge(&mut self, other: &Self, _: &Params) {
        if let Some((place, value)) = &other.0 {
            let beats = |(mine, _): &(Place, Value)| if LAST { mine > place } else { mine < place };
            if !self.0.as_ref().is_some_and(beats) {
                self.0 = Some((*place, value.clone()));
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.0.is_some()));
        if let Some((place, value)) = &self.0 {
            place.write(out);
            value.write(out);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        if number(bytes)? == 0 {
            return Some(Edge(None));
        }
        Some(Edge(Some((Place::read(bytes)?, Value::read(bytes)?))))
    }

    fn finish(&self, _: Finish, _: &Params) -> Result<Cell, Overflow> {
        Ok(self.0.clone().map_or(Cell::Null, |(_, value)| Cell::Value(value)))
    }
}

/// The greatest by rank, then by the order of events; at most `n`, the greatest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Several(Vec<(i64, Place, Value)>);

impl Several {
    /// Behind its equals: such events come from one tile, whose order is theirs.
    fn insert(&mut self, item: (i64, Place, Value), n: usize) {
        let at = self.0.partition_point(|mine| (mine.0, mine.1) >= (item.0, item.1));
        if at < n {
            self.0.insert(at, item);
            self.0.truncate(n);
        }
    }
}

impl State for Several {
    fn update(&mut self, input: &Input, row: usize, params: &Params) {
        let rank = input.by.map_or(0, |by| by[row]);
        self.insert((rank, input.place(row), input.value(row)), params.n);
    }

    fn merge(&mut self, other: &Self, params: &Params) {
        other.0.iter().for_each(|item| self.insert(item.clone(), params.n));
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_number(self.0.len() as u64, out);
        for (rank, place, value) in &self.0 {
            out.extend(rank.to_le_bytes());
            place.write(out);
            value.write(out);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let items =
            (0..number(bytes)?).map(|_| Some((fixed(bytes)?, Place::read(bytes)?, Value::read(bytes)?)));
        Some(Several(items.collect::<Option<_>>()?))
    }

    fn finish(&self, _: Finish, _: &Params) -> Result<Cell, Overflow> {
        Ok(match self.0.is_empty() {
            true => Cell::Null,
            false => Cell::List(self.0.iter().map(|(_, _, value)| value.clone()).collect()),
        })
    }
}
