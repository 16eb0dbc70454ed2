//! What does an aggregate read of an event?

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::Int64Type;

use crate::windows::bytes::{fixed, number, write_number};
use crate::windows::events::{Events, Rank};
use crate::windows::value::Value;

/// The columns that an aggregate reads, event by event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    /// Values that travel as numbers; empty where they travel as bytes.
    pub(crate) numbers: &'a [i64],
    /// Values that travel as bytes.
    pub(crate) bytes: Option<&'a BinaryArray>,
    /// What orders the values of `top_n_by`.
    pub(crate) by: Option<&'a [i64]>,
    /// The bucket of each event.
    pub(crate) bucket: Option<&'a BinaryArray>,
    /// Events whose value is null do not count.
    valid: Option<&'a NullBuffer>,
    visible_us: &'a [i64],
    ranks: Option<&'a [Rank]>,
}

impl<'a> Input<'a> {
    /// The columns of one input of `events`: value, `by`, bucket.
    pub(crate) fn of(events: &'a Events, input: usize, shape: InputShape) -> Input<'a> {
        // Without events there are no columns either.
        let mut rest = events.inputs.get(input).into_iter().flatten();
        let value = rest.next();
        let by = if shape.by { rest.next() } else { None };
        let bucket = if shape.bucket { rest.next() } else { None };
        let numbers = |array: Option<&'a ArrayRef>| {
            array.and_then(|array| array.as_primitive_opt::<Int64Type>()).map(|numbers| &numbers.values()[..])
        };
        let bytes = |array: Option<&'a ArrayRef>| array.and_then(|array| array.as_binary_opt::<i32>());
        Input {
            numbers: numbers(value).unwrap_or_default(),
            bytes: bytes(value),
            by: numbers(by),
            bucket: bytes(bucket),
            valid: value.and_then(|value| value.nulls()),
            visible_us: &events.visible_us,
            ranks: events.ranks.as_deref(),
        }
    }

    /// Whether the event in `row` counts.
    pub(crate) fn counts(&self, row: usize) -> bool {
        self.valid.is_none_or(|valid| valid.is_valid(row))
    }

    pub(super) fn value(&self, row: usize) -> Value {
        match self.bytes {
            Some(bytes) => Value::Bytes(bytes.value(row).into()),
            None => Value::Number(self.numbers[row]),
        }
    }

    /// The value, the same for all that are equal: of floats both zeros are one.
    pub(super) fn equal(&self, row: usize, float: bool) -> Value {
        const MINUS_ZERO: i64 = -1;
        match self.value(row) {
            Value::Number(MINUS_ZERO) if float => Value::Number(0),
            other => other,
        }
    }

    pub(super) fn place(&self, row: usize) -> Place {
        let ranks = self.ranks.expect("whoever goes by the order of events asks for it");
        Place { visible_us: self.visible_us[row], rank: ranks[row] }
    }
}

/// Which columns an input has besides its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InputShape {
    pub(crate) by: bool,
    pub(crate) bucket: bool,
}

/// An event's place in the total order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    visible_us: i64,
    rank: Rank,
}

impl Place {
    /// Of arrival, only that of pushed rows is stored, which keep their numbers: it decides between events of one
    /// instant, and those of files are always aggregated together, and before them.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.visible_us.to_le_bytes());
        out.extend(self.rank.created_us.to_le_bytes());
        write_number(self.rank.pushed().map_or(0, |row| row + 1), out);
    }

    pub(super) fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (visible_us, created_us) = (fixed(bytes)?, fixed(bytes)?);
        let arrival = match number(bytes)? {
            0 => 0,
            pushed => Rank::of_pushed(pushed - 1)?,
        };
        Some(Place { visible_us, rank: Rank { created_us, arrival } })
    }
}
