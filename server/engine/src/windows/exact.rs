//! What is the sum of these numbers, whatever their order?
//!
//! A double is a whole number times a power of two, and so is a sum of doubles. [`Exact`] keeps that whole number:
//! nothing is rounded until [`Exact::round`]. So sums may be taken in any order, merged in any tiling and taken back,
//! and the same numbers give the same bits. The result is that of Python's `math.fsum` (Shewchuk 1997).

use std::ops::RangeInclusive;

use num_bigint::{BigInt, Sign};

use super::bytes::{piece, signed, write_piece, write_signed};

/// The exponents of sums of doubles, and of their squares: to add a number with one far from them takes all memory.
const EXPONENTS: RangeInclusive<i64> = -2_148..=2_200;

/// A sum of doubles and whole numbers, not rounded yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exact {
    /// The sum is `near * 2^exponent`, plus `far` where 128 bits did not suffice.
    near: i128,
    exponent: i32,
    far: Option<Box<(BigInt, i32)>>,
}

/// A finite double as `(mantissa, exponent)`, the mantissa odd or zero.
pub(crate) fn split(x: f64) -> (i64, i32) {
    let bits = x.to_bits();
    let raw = ((bits >> 52) & 0x7ff) as i32;
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    let (mantissa, exponent) = if raw == 0 { (fraction, -1074) } else { (fraction | 1 << 52, raw - 1075) };
    if mantissa == 0 {
        return (0, 0);
    }
    let zeros = mantissa.trailing_zeros();
    let mantissa = mantissa >> zeros;
    (if x < 0.0 { -mantissa } else { mantissa }, exponent + zeros as i32)
}

fn shifted(value: i128, by: u32) -> Option<i128> {
    (by < 127 && (value << by) >> by == value).then(|| value << by)
}

impl Exact {
    /// Adds `mantissa * 2^exponent`.
    pub(crate) fn add(&mut self, mantissa: i128, exponent: i32) {
        if mantissa == 0 {
            return;
        }
        if self.near == 0 {
            (self.near, self.exponent) = (mantissa, exponent);
            return;
        }
        let sum = if exponent >= self.exponent {
            let shifted = shifted(mantissa, exponent.abs_diff(self.exponent));
            shifted.and_then(|m| m.checked_add(self.near)).map(|sum| (sum, self.exponent))
        } else {
            let shifted = shifted(self.near, exponent.abs_diff(self.exponent));
            shifted.and_then(|near| near.checked_add(mantissa)).map(|sum| (sum, exponent))
        };
        match sum {
            Some(sum) => (self.near, self.exponent) = sum,
            None => {
                self.spill();
                (self.near, self.exponent) = (mantissa, exponent);
            }
        }
    }

    /// Adds what another sum holds.
    pub(crate) fn merge(&mut self, other: &Exact) {
        self.add(other.near, other.exponent);
        if let Some(far) = &other.far {
            self.far = Some(Box::new(match self.far.take() {
                None => (**far).clone(),
                Some(mine) => sum(&mine, far),
            }));
        }
    }

    fn spill(&mut self) {
        let near = (BigInt::from(self.near), self.exponent);
        self.far = Some(Box::new(match self.far.take() {
            None => near,
            Some(far) => sum(&far, &near),
        }));
        (self.near, self.exponent) = (0, 0);
    }

    /// The sum as `(mantissa, exponent)`, the mantissa odd or zero: one form for one value.
    pub(crate) fn value(&self) -> (BigInt, i32) {
        let near = (BigInt::from(self.near), self.exponent);
        let (mantissa, exponent) = match &self.far {
            None => near,
            Some(far) => sum(far, &near),
        };
        match mantissa.trailing_zeros() {
            None => (mantissa, 0),
            Some(zeros) => (mantissa >> zeros, exponent + zeros as i32),
        }
    }

    /// The sum as a whole number, where it is one of 64 bits.
    pub(crate) fn whole(&self) -> Option<i64> {
        if self.far.is_none() && (self.exponent == 0 || self.near == 0) {
            return i64::try_from(self.near).ok();
        }
        let (mantissa, exponent) = self.value();
        let by = u32::try_from(exponent).ok().filter(|by| *by < 64)?;
        i64::try_from(mantissa << by).ok()
    }

    /// The nearest double, ties to even; infinite where it is beyond all doubles. Zero is +0.
    pub(crate) fn round(&self) -> f64 {
        match &self.far {
            None => round(self.near, self.exponent),
            Some(_) => {
                let (mantissa, exponent) = self.value();
                round_big(&mantissa, exponent)
            }
        }
    }

    /// Writes the one form of the value.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if self.far.is_none() {
            let zeros = if self.near == 0 { 0 } else { self.near.trailing_zeros() };
            let exponent = if self.near == 0 { 0 } else { self.exponent + zeros as i32 };
            write_parts(exponent, trimmed(&(self.near >> zeros).to_le_bytes()), out);
        } else {
            let (mantissa, exponent) = self.value();
            write_parts(exponent, trimmed(&mantissa.to_signed_bytes_le()), out);
        }
    }

    /// Reads what [`Exact::write`] wrote.
    #[inline]
    pub(crate) fn read(bytes: &mut &[u8]) -> Option<Exact> {
        let exponent = signed(bytes).filter(|exponent| EXPONENTS.contains(exponent))? as i32;
        let mantissa = piece(bytes)?;
        let near = match mantissa.len() {
            0 => 0,
            // The bytes go to the top; the shift brings them down, the sign behind them.
            length @ 1..=16 => {
                let mut sixteen = [0; 16];
                sixteen[16 - length..].copy_from_slice(mantissa);
                i128::from_le_bytes(sixteen) >> (128 - 8 * length)
            }
            _ => {
                let far = Some(Box::new((BigInt::from_signed_bytes_le(mantissa), exponent)));
                return Some(Exact { near: 0, exponent: 0, far });
            }
        };
        Some(Exact { near, exponent, far: None })
    }
}

fn write_parts(exponent: i32, mantissa: &[u8], out: &mut Vec<u8>) {
    write_signed(i64::from(exponent), out);
    write_piece(mantissa, out);
}

/// Two's complement without the bytes that only repeat the sign.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let mut end = bytes.len();
    while end > 0 {
        let before = if end > 1 { bytes[end - 2] } else { 0 };
        match bytes[end - 1] {
            0 if before & 0x80 == 0 => end -= 1,
            0xff if end > 1 && before & 0x80 != 0 => end -= 1,
            _ => break,
        }
    }
    &bytes[..end]
}

fn sum(a: &(BigInt, i32), b: &(BigInt, i32)) -> (BigInt, i32) {
    let (low, high) = if a.1 <= b.1 { (a, b) } else { (b, a) };
    (&low.0 + (&high.0 << high.1.abs_diff(low.1)), low.1)
}

/// The double nearest to `mantissa * 2^exponent`.
pub(crate) fn round_big(mantissa: &BigInt, exponent: i32) -> f64 {
    let bits = mantissa.bits();
    if bits <= 126 {
        return round(i128::try_from(mantissa).unwrap_or(0), exponent);
    }
    // The top hundred bits, and whether anything lies below them: that decides every tie.
    let drop = bits - 100;
    let magnitude = mantissa.magnitude();
    let top = magnitude >> drop;
    let sticky = magnitude.trailing_zeros().is_some_and(|zeros| zeros < drop);
    let top = i128::try_from(BigInt::from(top)).unwrap_or(0) | i128::from(sticky);
    round(if mantissa.sign() == Sign::Minus { -top } else { top }, exponent + drop as i32)
}

fn round(mantissa: i128, exponent: i32) -> f64 {
    if mantissa == 0 {
        return 0.0;
    }
    let magnitude = mantissa.unsigned_abs();
    let top = 127 - magnitude.leading_zeros() as i32 + exponent;
    if top > 1023 {
        return if mantissa < 0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let lowest = (top - 52).max(-1074);
    let drop = lowest - exponent;
    let kept = match drop {
        ..=0 => (magnitude << -drop) as u64,
        1..=127 => {
            let (kept, rest, half) =
                ((magnitude >> drop) as u64, magnitude & ((1 << drop) - 1), 1 << (drop - 1));
            kept + u64::from(rest > half || rest == half && kept & 1 == 1)
        }
        // Less than half of the smallest double.
        _ => 0,
    };
    // Both factors are exact, and so is their product: `kept` has at most 53 bits, or is 2^53.
    let value = kept as f64 * power_of_two(lowest);
    if mantissa < 0 { -value } else { value }
}

/// `2^exponent`, for -1074 to 1023.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    match exponent {
        ..-1022 => f64::from_bits(1 << (exponent + 1074)),
        _ => f64::from_bits(((exponent + 1023) as u64) << 52),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(numbers: &[f64]) -> Exact {
        let mut sum = Exact::default();
        for x in numbers {
            let (mantissa, exponent) = split(*x);
            sum.add(mantissa.into(), exponent);
        }
        sum
    }

    /// Shewchuk's expansions, as `math.fsum` has them.
    fn fsum(numbers: &[f64]) -> f64 {
        let mut partials: Vec<f64> = Vec::new();
        for x in numbers {
            let mut x = *x;
            let mut kept = 0;
            for j in 0..partials.len() {
                let mut y = partials[j];
                if x.abs() < y.abs() {
                    std::mem::swap(&mut x, &mut y);
                }
                let high = x + y;
                let low = y - (high - x);
                if low != 0.0 {
                    partials[kept] = low;
                    kept += 1;
                }
                x = high;
            }
            partials.truncate(kept);
            partials.push(x);
        }
        let Some(mut high) = partials.pop() else { return 0.0 };
        let mut low = 0.0;
        while let Some(y) = partials.pop() {
            let x = high;
            high = x + y;
            low = y - (high - x);
            if low != 0.0 {
                break;
            }
        }
        if let Some(next) = partials.last()
            && ((low < 0.0 && *next < 0.0) || (low > 0.0 && *next > 0.0))
        {
            let y = low * 2.0;
            let x = high + y;
            if y == x - high {
                high = x;
            }
        }
        high + 0.0
    }

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            -1e3..1e3f64,
            (any::<i64>(), -1070i32..900).prop_map(|(m, e)| (m >> 12) as f64 * power_of_two(e.max(-1074))),
            prop::sample::select(vec![0.0, -0.0, 5e-324, 1e16, 1.0, -1.0, 1e300, -1e300, 0.1, 1e-308]),
        ]
    }

    proptest! {
        #[test]
        fn sums_are_those_of_fsum_in_any_order_and_tiling(
            numbers in prop::collection::vec(number(), 0..60), cut in 0usize..60, turn in 0usize..60,
        ) {
            let expected = fsum(&numbers);
            let whole = exact(&numbers);
            prop_assert_eq!(whole.round().to_bits(), expected.to_bits());
            let mut turned = numbers.clone();
            turned.rotate_left(turn.min(numbers.len()));
            let (left, right) = turned.split_at(cut.min(numbers.len()));
            let mut merged = exact(left);
            merged.merge(&exact(right));
            let (mut a, mut b) = (Vec::new(), Vec::new());
            whole.write(&mut a);
            merged.write(&mut b);
            prop_assert_eq!(&a, &b);
            let read = Exact::read(&mut &a[..]).unwrap();
            prop_assert_eq!(read.round().to_bits(), expected.to_bits());
            // What was added can be taken back.
            for x in right {
                let (mantissa, exponent) = split(*x);
                merged.add(-i128::from(mantissa), exponent);
            }
            prop_assert_eq!(merged.round().to_bits(), fsum(left).to_bits());
        }
    }
}
