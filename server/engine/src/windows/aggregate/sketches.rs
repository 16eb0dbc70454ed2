//! How many are distinct, and below which value does a share of them lie? Sets and sketches, which commute.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use datasketches::hll::{HllSketch, HllType, HllUnion};
use sketches_ddsketch::DDSketch;

use super::input::Input;
use super::state::{Finish, Overflow, Params, State};
use crate::expr::{exp, ln};
use crate::windows::bytes::{fixed, number, piece, signed, write_number, write_piece};
use crate::windows::value::{Cell, Value, unordered};

/// Registers of a HyperLogLog sketch: 2^12, a standard error of 1.6 %.
const HLL_LG_K: u8 = 12;

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
        self.insert(input.equal(row, params.float), params.limit);
    }

    fn merge(&mut self, other: &Self, params: &Params) {
        other.0.iter().for_each(|value| self.insert(value.clone(), params.limit));
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_number(self.0.len() as u64, out);
        self.0.iter().for_each(|value| value.write(out));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Distinct((0..number(bytes)?).map(|_| Value::read(bytes)).collect::<Option<_>>()?))
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
    fn update(&mut self, input: &Input, row: usize, params: &Params) {
        match input.equal(row, params.float) {
            Value::Bytes(bytes) => self.0.update_value(&bytes[..]),
            Value::Number(number) => self.0.update_value(number),
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
        let sketch = HllSketch::deserialize(piece(bytes)?).ok()?;
        if sketch.lg_config_k() != HLL_LG_K {
            return None;
        }
        state.0.update(&sketch);
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

/// How wide a bucket of a [`DDSketch`] is, as a factor, and below what a number is 0.
const GAMMA: f64 = 1.01 / 0.99;
const LEAST: f64 = 1e-9;

/// What stands for all numbers of the bucket that `x` lies in, far from the bucket's ends: whichever logarithm the
/// sketch takes on this machine, it finds that bucket, and whatever it says of it comes back to the same number.
fn bucketed(x: f64) -> f64 {
    let size = x.abs();
    if size <= LEAST {
        return 0.0;
    }
    let width = ln(GAMMA);
    let least = exp((ln(size) / width).floor() * width);
    (least * (2.0 * GAMMA / (1.0 + GAMMA))).clamp(LEAST.next_up(), f64::MAX).copysign(x)
}

impl State for Percentile {
    fn update(&mut self, input: &Input, row: usize, params: &Params) {
        let key = input.numbers[row];
        let x = if params.float { unordered(key) } else { key as f64 };
        if x.is_finite() {
            self.0.add(bucketed(x));
        }
    }

    fn merge(&mut self, other: &Self, _: &Params) {
        self.0.merge(&other.0).expect("all sketches have the same settings");
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_piece(&self.0.to_java_bytes(), out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let sketch = piece(bytes)?;
        check_percentile(sketch)?;
        DDSketch::from_java_bytes(sketch).ok().map(Percentile)
    }

    fn finish(&self, _: Finish, params: &Params) -> Result<Cell, Overflow> {
        Ok(self.0.quantile(params.percentile).ok().flatten().map_or(Cell::Null, |x| Cell::Float(bucketed(x))))
    }
}

/// The buckets that finite numbers lie in: of the least that is not 0, and of the greatest.
const BUCKETS: RangeInclusive<i64> = -1_040..=35_500;
const BUCKETS_MAX: u64 = 2_048;

/// None unless `bytes` are a sketch with these settings, whose buckets are in order and those of numbers. The library
/// takes any, and of others some make it panic.
fn check_percentile(mut bytes: &[u8]) -> Option<()> {
    while let Some(flag) = bytes.split_off_first() {
        match *flag {
            // What was least and greatest, and the sum.
            0x88 | 0x8c | 0x84 => _ = fixed(&mut bytes)?,
            // How many numbers there are, and how many zeros.
            0xa0 | 0x04 => check_count(&mut bytes)?,
            0x02 if fixed(&mut bytes)? as u64 == GAMMA.to_bits() && fixed(&mut bytes)? == 0 => {}
            // Positive numbers, and negative ones: buckets, each by how far it is from the one before it, and counts.
            0x05 | 0x07 => {
                let mut last = None;
                for _ in 0..number(&mut bytes).filter(|buckets| *buckets <= BUCKETS_MAX)? {
                    let far = signed(&mut bytes).filter(|far| last.is_none() || *far > 0)?;
                    let bucket = last.unwrap_or(0_i64).checked_add(far)?;
                    last = Some(bucket).filter(|bucket| BUCKETS.contains(bucket));
                    last?;
                    check_count(&mut bytes)?;
                }
            }
            _ => return None,
        }
    }
    Some(())
}

/// Takes a count off the front: seven bits in a byte, eight in the ninth and last one.
fn check_count(bytes: &mut &[u8]) -> Option<()> {
    let end = bytes.iter().take(9).position(|byte| *byte < 0x80).map_or(9, |last| last + 1);
    bytes.split_off(..end).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sketch_of_any_numbers_is_read() {
        let mut sketch = Percentile::default();
        let powers = (-1_074..1_024).map(|exponent| 2_f64.powi(exponent));
        let numbers = powers.chain([0.0, f64::MAX, f64::MIN_POSITIVE, LEAST, LEAST.next_up(), 0.1]);
        for (n, x) in numbers.enumerate() {
            let mut bytes = Vec::new();
            sketch.write(&mut bytes);
            let again = Percentile::read(&mut &bytes[..]).unwrap();
            assert_eq!(again.0.to_java_bytes(), sketch.0.to_java_bytes());
            sketch.0.add(bucketed(x));
            sketch.0.add(bucketed(-x));
            // Counts of all lengths: they double.
            if n % 50 == 0 {
                sketch.merge(&again, &PARAMS);
            }
        }
        let other = DDSketch::new(sketches_ddsketch::Config::new(0.02, 2_048, 1e-9));
        let mut bytes = Vec::new();
        write_piece(&other.to_java_bytes(), &mut bytes);
        assert!(Percentile::read(&mut &bytes[..]).is_none(), "of other settings");
    }

    const PARAMS: Params = Params { float: true, n: 0, limit: 0, percentile: 0.5 };
}
