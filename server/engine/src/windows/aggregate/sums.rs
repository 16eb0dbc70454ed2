//! How many, how much, and how far apart? Exact, so that an event can be taken back.

use num_bigint::BigInt;

use super::input::Input;
use super::state::{Finish, Overflow, Params, Retractable, State};
use crate::windows::bytes::{number, write_number};
use crate::windows::exact::{Exact, round_big, split};
use crate::windows::value::{Cell, unordered};

/// How many events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count(u64);

impl State for Count {
    fn update(&mut self, _: &Input, _: usize, _: &Params) {
        self.0 += 1;
    }

    fn merge(&mut self, other: &Self, _: &Params) {
        // Counts that were stored may be anything.
        self.0 = self.0.saturating_add(other.0);
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

impl Retractable for Count {
    fn take_back(&mut self, _: &Input, _: usize, _: &Params) {
        self.0 -= 1;
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
    fn update(&mut self, input: &Input, row: usize, params: &Params) {
        self.step(input.numbers[row], params, 1);
    }

    fn merge(&mut self, other: &Self, _: &Params) {
        self.n = self.n.saturating_add(other.n);
        self.total.merge(&other.total);
        self.nan = self.nan.saturating_add(other.nan);
        self.plus = self.plus.saturating_add(other.plus);
        self.minus = self.minus.saturating_add(other.minus);
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
            return self.total.whole().map(Cell::Int).ok_or(Overflow);
        }
        let sum = self.not_finite().unwrap_or_else(|| self.total.round());
        if sum.is_infinite() && self.not_finite().is_none() {
            return Err(Overflow);
        }
        Ok(Cell::Float(if finish == Finish::Avg { sum / self.n as f64 } else { sum }))
    }
}

impl Retractable for Sum {
    fn take_back(&mut self, input: &Input, row: usize, params: &Params) {
        self.step(input.numbers[row], params, -1);
    }
}

/// Exact sums of the values and of their squares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moments {
    sum: Sum,
    squares: Exact,
}

impl State for Moments {
    fn update(&mut self, input: &Input, row: usize, params: &Params) {
        if let Some((mantissa, exponent)) = self.sum.step(input.numbers[row], params, 1) {
            self.squares.add(i128::from(mantissa) * i128::from(mantissa), 2 * exponent);
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
            return Err(Overflow);
        }
        Ok(Cell::Float(if finish == Finish::Stddev { variance.sqrt() } else { variance }))
    }
}

impl Retractable for Moments {
    fn take_back(&mut self, input: &Input, row: usize, params: &Params) {
        if let Some((mantissa, exponent)) = self.sum.step(input.numbers[row], params, -1) {
            self.squares.add(-(i128::from(mantissa) * i128::from(mantissa)), 2 * exponent);
        }
    }
}

/// How many are true, and how many false.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truths {
    yes: u64,
    no: u64,
}

impl State for Truths {
    fn update(&mut self, input: &Input, row: usize, _: &Params) {
        *(if input.numbers[row] != 0 { &mut self.yes } else { &mut self.no }) += 1;
    }

    fn merge(&mut self, other: &Self, _: &Params) {
        self.yes = self.yes.saturating_add(other.yes);
        self.no = self.no.saturating_add(other.no);
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

impl Retractable for Truths {
    fn take_back(&mut self, input: &Input, row: usize, _: &Params) {
        *(if input.numbers[row] != 0 { &mut self.yes } else { &mut self.no }) -= 1;
    }
}
