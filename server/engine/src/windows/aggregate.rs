//! What is kept of many events, so that it can be updated, merged, stored and finished?
//!
//! One algebra for training and serving. An intermediate result ([`State`]) never depends on the order of the events
//! or on how they were shared among tiles: sums are exact, sets and sketches commute, and whatever asks for the first
//! or the last goes by a total order. `update` takes in an event, `merge` another result, `finish` gives the value.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::Int64Type;
use datasketches::hll::{HllSketch, HllType, HllUnion};
use num_bigint::BigInt;
use sketches_ddsketch::DDSketch;

use super::bytes::{fixed, number, piece, write_number, write_piece};
use super::events::{Events, Rank};
use super::exact::{Exact, round_big, split};
use super::value::{Cell, Value, unordered};

/// Registers of a HyperLogLog sketch: 2^12, a standard error of 1.6 %.
const HLL_LG_K: u8 = 12;

/// The columns that an aggregate reads, event by event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    /// Values that travel as numbers; empty where they travel as bytes.
    pub(crate) numbers: &'a [i64],
    /// Values that travel as bytes.
    pub(crate) bytes: Option<&'a BinaryArray>,
    /// What orders the values of `top_n_by`.
    pub(crate) by: &'a [i64],
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
            let numbers = array.and_then(|array| array.as_primitive_opt::<Int64Type>());
            numbers.map_or(&[][..], |numbers| numbers.values())
        };
        let bytes = |array: Option<&'a ArrayRef>| array.and_then(|array| array.as_binary_opt::<i32>());
        Input {
            numbers: numbers(value),
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

    fn value(&self, row: usize) -> Value {
        match self.bytes {
            Some(bytes) => Value::Bytes(bytes.value(row).into()),
            None => Value::Number(self.numbers[row]),
        }
    }

    fn place(&self, row: usize) -> Place {
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
pub(crate) struct Overflow(pub(crate) &'static str);

/// An intermediate result.
pub(crate) trait State: Clone + Default {
    /// Whether [`State::take_back`] undoes [`State::update`].
    const TAKES_BACK: bool = false;

    /// Takes in the event in `row`, which counts.
    fn update(&mut self, input: &Input, row: usize, params: &Params);

    /// Undoes an update.
    fn take_back(&mut self, _input: &Input, _row: usize, _params: &Params) {
        unreachable!("asked only where TAKES_BACK says so")
    }

    /// Takes in what another holds.
    fn merge(&mut self, other: &Self, params: &Params);

    /// Appends the bytes that [`State::read`] reads.
    fn write(&self, out: &mut Vec<u8>);

    /// Takes a result off the front of `bytes`; none where they are not one.
    fn read(bytes: &mut &[u8]) -> Option<Self>;

    /// The value.
    fn finish(&self, finish: Finish, params: &Params) -> Result<Cell, Overflow>;
}

/// How many events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count(u64);

impl State for Count {
    const TAKES_BACK: bool = true;

    fn update(&mut self, _: &Input, _: usize, _: &Params) {
        self.0 += 1;
    }

    fn take_back(&mut self, _: &Input, _: usize, _: &Params) {
        self.0 -= 1;
    }

    fn merge(&mut self, other: &Self, _: &Params) {
        self.0 += other.0;
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_number(self.0, out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        number(bytes).map(Count)
    }

    fn finish(&self, _: Finish, _: &Params) -> Result<Cell, Overflow> {
        Ok(Cell::Int(self.0 as i64))
    }
}

/// The exact sum, and how many were not finite.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sum {
    n: u64,
    total: Exact,
    nan: u32,
    plus: u32,
    minus: u32,
}

impl Sum {
    /// Takes in `key`, or takes it back where `sign` is -1; gives the parts of a finite number.
    fn step(&mut self, key: i64, params: &Params, sign: i128) -> Option<(i64, i32)> {
        self.n = self.n.wrapping_add_signed(sign as i64);
        if !params.float {
            self.total.add(sign * i128::from(key), 0);
            return Some((key, 0));
        }
        let x = unordered(key);
        if x.is_finite() {
            let (mantissa, exponent) = split(x);
            self.total.add(sign * i128::from(mantissa), exponent);
            return Some((mantissa, exponent));
        }
        let counter = if x.is_nan() {
            &mut self.nan
        } else if x > 0.0 {
            &mut self.plus
        } else {
            &mut self.minus
        };
        *counter = counter.wrapping_add_signed(sign as i32);
        None
    }

    /// What the numbers that are not finite make of the sum.
    fn not_finite(&self) -> Option<f64> {
        match (self.nan, self.plus, self.minus) {
            (0, 0, 0) => None,
            (0, _, 0) => Some(f64::INFINITY),
            (0, 0, _) => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }
}

impl State for Sum {
    const TAKES_BACK: bool = true;

    fn update(&mut self, input: &Input, row: usize, params: &Params) {
        self.step(input.numbers[row], params, 1);
    }

    fn take_back(&mut self, input: &Input, row: usize, params: &Params) {
        self.step(input.numbers[row], params, -1);
    }

    fn merge(&mut self, other: &Self, _: &Params) {
        self.n += other.n;
        self.total.merge(&other.total);
        self.nan += other.nan;
        self.plus += other.plus;
        self.minus += other.minus;
    }

    fn write(&self, out: &mut Vec<u8>) {
        let odd = self.not_finite().is_some();
        write_number(self.n << 1 | u64::from(odd), out);
        if odd {
            [self.nan, self.plus, self.minus].iter().for_each(|n| write_number((*n).into(), out));
        }
        self.total.write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let n = number(bytes)?;
        let mut odd = [0u32; 3];
        if n & 1 == 1 {
            for counter in &mut odd {
                *counter = u32::try_from(number(bytes)?).ok()?;
            }
        }
        Some(Sum { n: n >> 1, total: Exact::read(bytes)?, nan: odd[0], plus: odd[1], minus: odd[2] })
    }

    fn finish(&self, finish: Finish, params: &Params) -> Result<Cell, Overflow> {
        if self.n == 0 {
            return Ok(Cell::Null);
        }
        if finish == Finish::Sum && !params.float {
            return self.total.whole().map(Cell::Int).ok_or(Overflow("the sum is beyond int64"));
        }
        let sum = self.not_finite().unwrap_or_else(|| self.total.round());
        if sum.is_infinite() && self.not_finite().is_none() {
            return Err(Overflow("the sum is beyond float64"));
        }
        Ok(Cell::Float(if finish == Finish::Avg { sum / self.n as f64 } else { sum }))
    }
}

/// Exact sums of the values and of their squares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moments {
    sum: Sum,
    squares: Exact,
}

impl State for Moments {
    const TAKES_BACK: bool = true;

    fn update(&mut self, input: &Input, row: usize, params: &Params) {
        if let Some((mantissa, exponent)) = self.sum.step(input.numbers[row], params, 1) {
            self.squares.add(i128::from(mantissa) * i128::from(mantissa), 2 * exponent);
        }
    }

    fn take_back(&mut self, input: &Input, row: usize, params: &Params) {
        if let Some((mantissa, exponent)) = self.sum.step(input.numbers[row], params, -1) {
            self.squares.add(-(i128::from(mantissa) * i128::from(mantissa)), 2 * exponent);
        }
    }

    fn merge(&mut self, other: &Self, params: &Params) {
        self.sum.merge(&other.sum, params);
        self.squares.merge(&other.squares);
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.sum.write(out);
        self.squares.write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Moments { sum: Sum::read(bytes)?, squares: Exact::read(bytes)? })
    }

    /// `(n Σx² - (Σx)²) / (n (n - 1))`: the numerator exact and rounded once.
    fn finish(&self, finish: Finish, _: &Params) -> Result<Cell, Overflow> {
        let n = self.sum.n;
        if n < 2 {
            return Ok(Cell::Null);
        }
        if self.sum.not_finite().is_some() {
            return Ok(Cell::Float(f64::NAN));
        }
        let (sum, sum_exponent) = self.sum.total.value();
        let (squares, squares_exponent) = self.squares.value();
        let low = (2 * sum_exponent).min(squares_exponent);
        let numerator = ((squares * BigInt::from(n)) << squares_exponent.abs_diff(low))
            - ((&sum * &sum) << (2 * sum_exponent).abs_diff(low));
        let variance = round_big(&numerator, low) / (n as f64 * (n - 1) as f64);
        if variance.is_infinite() {
            return Err(Overflow("the variance is beyond float64"));
        }
        Ok(Cell::Float(if finish == Finish::Stddev { variance.sqrt() } else { variance }))
    }
}

/// How many are true, and how many false.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truths {
    yes: u64,
    no: u64,
}

impl State for Truths {
    const TAKES_BACK: bool = true;

    fn update(&mut self, input: &Input, row: usize, _: &Params) {
        *(if input.numbers[row] != 0 { &mut self.yes } else { &mut self.no }) += 1;
    }

    fn take_back(&mut self, input: &Input, row: usize, _: &Params) {
        *(if input.numbers[row] != 0 { &mut self.yes } else { &mut self.no }) -= 1;
    }

    fn merge(&mut self, other: &Self, _: &Params) {
        self.yes += other.yes;
        self.no += other.no;
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_number(self.yes, out);
        write_number(self.no, out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Truths { yes: number(bytes)?, no: number(bytes)? })
    }

    fn finish(&self, finish: Finish, _: &Params) -> Result<Cell, Overflow> {
        Ok(match (self.yes, self.no) {
            (0, 0) => Cell::Null,
            (yes, no) => Cell::Int(i64::from(if finish == Finish::Any { yes > 0 } else { no == 0 })),
        })
    }
}

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
        self.0.iter().for_each(|value| write_value(value, out));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Extreme(if number(bytes)? == 0 { None } else { Some(read_value(bytes)?) }))
    }

    fn finish(&self, _: Finish, _: &Params) -> Result<Cell, Overflow> {
        Ok(self.0.clone().map_or(Cell::Null, Cell::Value))
    }
}

/// An event's place in the total order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    visible_us: i64,
    rank: Rank,
}

impl Place {
    /// Arrival is not stored: it decides only between events of one instant, and those are always aggregated together.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.visible_us.to_le_bytes());
        out.extend(self.rank.created_us.to_le_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let visible_us = fixed(bytes)?;
        Some(Place { visible_us, rank: Rank { created_us: fixed(bytes)?, arrival: 0 } })
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
            write_value(value, out);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        if number(bytes)? == 0 {
            return Some(Edge(None));
        }
        Some(Edge(Some((Place::read(bytes)?, read_value(bytes)?))))
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
        let rank = input.by.get(row).copied().unwrap_or(0);
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
            write_value(value, out);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let items =
            (0..number(bytes)?).map(|_| Some((fixed(bytes)?, Place::read(bytes)?, read_value(bytes)?)));
        Some(Several(items.collect::<Option<_>>()?))
    }

    fn finish(&self, _: Finish, _: &Params) -> Result<Cell, Overflow> {
        Ok(match self.0.is_empty() {
            true => Cell::Null,
            false => Cell::List(self.0.iter().map(|(_, _, value)| value.clone()).collect()),
        })
    }
}

/// The distinct values; the least `limit` of them, which is all where there are fewer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Distinct(BTreeSet<Value>);

impl Distinct {
    fn insert(&mut self, value: Value, limit: usize) {
        self.0.insert(value);
        if self.0.len() > limit {
            self.0.pop_last();
        }
    }
}

impl State for Distinct {
    fn update(&mut self, input: &Input, row: usize, params: &Params) {
        self.insert(input.value(row), params.limit);
    }

    fn merge(&mut self, other: &Self, params: &Params) {
        other.0.iter().for_each(|value| self.insert(value.clone(), params.limit));
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_number(self.0.len() as u64, out);
        self.0.iter().for_each(|value| write_value(value, out));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Distinct((0..number(bytes)?).map(|_| read_value(bytes)).collect::<Option<_>>()?))
    }

    fn finish(&self, _: Finish, _: &Params) -> Result<Cell, Overflow> {
        Ok(Cell::Int(self.0.len() as i64))
    }
}

/// A HyperLogLog sketch (Flajolet et al. 2007), by Apache DataSketches. Its composite estimate goes by the registers
/// alone, so it is the same in whatever order they were filled.
#[derive(Debug, Clone)]
pub(crate) struct Hll(HllUnion);

impl Default for Hll {
    fn default() -> Self {
        Hll(HllUnion::new(HLL_LG_K).expect("the size is one that the sketch takes"))
    }
}

impl State for Hll {
    fn update(&mut self, input: &Input, row: usize, _: &Params) {
        match input.bytes {
            Some(bytes) => self.0.update_value(bytes.value(row)),
            None => self.0.update_value(input.numbers[row]),
        }
    }

    fn merge(&mut self, other: &Self, _: &Params) {
        self.0.update(&other.0.to_sketch(HllType::Hll8));
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_piece(&self.0.to_sketch(HllType::Hll8).serialize(), out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut state = Hll::default();
        state.0.update(&HllSketch::deserialize(piece(bytes)?).ok()?);
        Some(state)
    }

    fn finish(&self, _: Finish, _: &Params) -> Result<Cell, Overflow> {
        Ok(Cell::Int(self.0.composite_estimate().round() as i64))
    }
}

/// A DDSketch (Masson et al. 2019): counts in buckets of one per cent. Numbers that are not finite are left out.
#[derive(Clone)]
pub(crate) struct Percentile(DDSketch);

impl Default for Percentile {
    fn default() -> Self {
        // Through its bytes, so that a sketch that was stored and one that was not have equal settings.
        Percentile(DDSketch::from_java_bytes(&DDSketch::default().to_java_bytes()).unwrap_or_default())
    }
}

impl State for Percentile {
    fn update(&mut self, input: &Input, row: usize, params: &Params) {
        let key = input.numbers[row];
        let x = if params.float { unordered(key) } else { key as f64 };
        if x.is_finite() {
            self.0.add(x);
        }
    }

    fn merge(&mut self, other: &Self, _: &Params) {
        self.0.merge(&other.0).expect("all sketches have the same settings");
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_piece(&self.0.to_java_bytes(), out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        DDSketch::from_java_bytes(piece(bytes)?).ok().map(Percentile)
    }

    fn finish(&self, _: Finish, params: &Params) -> Result<Cell, Overflow> {
        // Of 0 and -0 either may be kept as the least or greatest; here they are one.
        Ok(self.0.quantile(params.percentile).ok().flatten().map_or(Cell::Null, |x| Cell::Float(x + 0.0)))
    }
}

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

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Number(n) => {
            out.push(0);
            out.extend(n.to_le_bytes());
        }
        Value::Bytes(bytes) => {
            out.push(1);
            write_piece(bytes, out);
        }
    }
}

fn read_value(bytes: &mut &[u8]) -> Option<Value> {
    Some(match number(bytes)? {
        0 => Value::Number(fixed(bytes)?),
        _ => Value::Bytes(piece(bytes)?.into()),
    })
}
