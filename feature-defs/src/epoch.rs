//! Which moment does a number say?
//!
//! A number counts something since 1970, UTC. Without a word about it, it counts microseconds; and since seconds and
//! milliseconds taken for microseconds all lie in 1970, and nanoseconds far in the future, a number of such a size is
//! refused rather than believed.

use std::fmt;
use std::ops::Range;

/// What a number counts since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epoch {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// What `format` may be, in the order of [`Epoch::ALL`].
pub(crate) const EPOCH_NAMES: [&str; 4] = ["epoch_s", "epoch_ms", "epoch_us", "epoch_ns"];

/// The least number of seconds that is more likely one of milliseconds: in the year 5138.
const MILLIS_MIN: u64 = 100_000_000_000;
/// The least number that may be one of microseconds: in March 1973. In milliseconds it is the year 5138.
const MICROS_MIN: u64 = 100_000_000_000_000;
/// The least number that is more likely one of nanoseconds: the microseconds up to the year 10,000.
const NANOS_MIN: u64 = 253_402_300_800_000_000;

/// Moments that people keep events of, in seconds: from 1971, since a small number says nothing, to 2199. So narrow
/// that no number says one of them in two units.
const PLAUSIBLE_S: Range<f64> = 31_536_000.0..7_258_118_400.0;

impl Epoch {
    /// Every unit.
    pub const ALL: [Epoch; 4] = [Epoch::Seconds, Epoch::Millis, Epoch::Micros, Epoch::Nanos];

    /// As `format` names it.
    pub fn name(self) -> &'static str {
        EPOCH_NAMES[self as usize]
    }

    /// The unit that `format` names.
    pub fn named(name: &str) -> Option<Epoch> {
        Epoch::ALL.into_iter().find(|epoch| epoch.name() == name)
    }

    /// How many of it make a second.
    pub fn per_second(self) -> i64 {
        match self {
            Epoch::Seconds => 1,
            Epoch::Millis => 1_000,
            Epoch::Micros => 1_000_000,
            Epoch::Nanos => 1_000_000_000,
        }
    }

    /// The moment, µs, that `number` says in this unit; what is finer is dropped towards the past. Nothing where it is
    /// too far away to say.
    pub fn micros(self, number: i64) -> Option<i64> {
        match self {
            Epoch::Seconds | Epoch::Millis => number.checked_mul(1_000_000 / self.per_second()),
            Epoch::Micros => Some(number),
            Epoch::Nanos => Some(number.div_euclid(1_000)),
        }
    }

    /// The moment, µs, that `number` says in this unit: the nearest, since fractions of seconds are hardly ever exact.
    pub fn nearest_micros(self, number: f64) -> Option<i64> {
        // 2^63: the least double beyond the range.
        const END: f64 = 9_223_372_036_854_775_808.0;
        let micros = (number * (1e6 / self.per_second() as f64)).round();
        (-END..END).contains(&micros).then_some(micros as i64)
    }

    /// The unit in which a number of this size says a moment that people speak of.
    pub fn likely(number: i64) -> Epoch {
        match number.unsigned_abs() {
            ..MILLIS_MIN => Epoch::Seconds,
            MILLIS_MIN..MICROS_MIN => Epoch::Millis,
            MICROS_MIN..NANOS_MIN => Epoch::Micros,
            NANOS_MIN.. => Epoch::Nanos,
        }
    }

    /// The one unit in which all of `numbers` say a moment from 1971 to 2199; none where there is no number.
    pub fn of_all(numbers: impl IntoIterator<Item = f64>) -> Option<Epoch> {
        let unit_of = |number: f64| {
            Epoch::ALL.into_iter().find(|unit| PLAUSIBLE_S.contains(&(number / unit.per_second() as f64)))
        };
        let mut units = numbers.into_iter().map(unit_of);
        let first = units.next()??;
        units.all(|unit| unit == Some(first)).then_some(first)
    }

    /// As in "it looks like seconds".
    pub fn noun(self) -> &'static str {
        match self {
            Epoch::Seconds => "seconds",
            Epoch::Millis => "milliseconds",
            Epoch::Micros => "microseconds",
            Epoch::Nanos => "nanoseconds",
        }
    }
}

/// A number that is hardly one of microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// The number.
    pub number: i64,
    /// What it looks like.
    pub looks_like: Epoch,
}

/// The moment, µs, that `number` says where nothing says what it counts: microseconds.
///
/// # Errors
/// It looks like something else.
pub fn micros(number: i64) -> Result<i64, Doubt> {
    match Epoch::likely(number) {
        Epoch::Micros => Ok(number),
        looks_like => Err(Doubt { number, looks_like }),
    }
}

/// The moment, µs, that `infinity` and `-infinity` stand for, as PostgreSQL and DuckDB write them: before and after all
/// others. DuckDB keeps them as these numbers.
pub fn end_of_time(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(i64::MAX),
        "-infinity" => Some(-i64::MAX),
        _ => None,
    }
}

/// As in "found number 1704067200, which …".
impl Doubt {
    /// The number in microseconds, where it is far enough from 1970 for what it looks like.
    fn meant(&self) -> Option<i64> {
        self.looks_like.micros(self.number).filter(|micros| micros.unsigned_abs() >= MICROS_MIN)
    }

    /// The same in words that do not tell the number.
    pub fn kind(&self) -> String {
        match self.meant() {
            Some(_) => format!("looks like {}", self.looks_like.noun()),
            None => "is too near to 1970 to be taken for microseconds: write it as RFC 3339".to_owned(),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind())?;
        self.meant().map_or(Ok(()), |micros| write!(f, " (in microseconds it is {micros})"))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_number_is_microseconds_or_refused_with_what_it_looks_like() {
        // New Year 2024 in each unit; the ends of the ranges; nothing; the year 9999; before 1970.
        let numbers = [
            1_704_067_200,
            1_704_067_200_000,
            1_704_067_200_000_000,
            1_704_067_200_000_000_000,
            0,
            20_240_101,
            99_999_999_999_999,
            100_000_000_000_000,
            253_402_300_799_999_999,
            i64::MAX,
            i64::MIN,
            -1_704_067_200,
            -1_704_067_200_000_000,
        ];
        let shown = numbers.map(|number| match micros(number) {
            Ok(micros) => format!("{micros}\n"),
            Err(doubt) => format!("{number} {doubt}\n"),
        });
        expect![[r#"
            1704067200 looks like seconds (in microseconds it is 1704067200000000)
            1704067200000 looks like milliseconds (in microseconds it is 1704067200000000)
            1704067200000000
            1704067200000000000 looks like nanoseconds (in microseconds it is 1704067200000000)
            0 is too near to 1970 to be taken for microseconds: write it as RFC 3339
            20240101 is too near to 1970 to be taken for microseconds: write it as RFC 3339
            99999999999999 looks like milliseconds (in microseconds it is 99999999999999000)
            100000000000000
            253402300799999999
            9223372036854775807 looks like nanoseconds (in microseconds it is 9223372036854775)
            -9223372036854775808 looks like nanoseconds (in microseconds it is -9223372036854776)
            -1704067200 looks like seconds (in microseconds it is -1704067200000000)
            -1704067200000000
        "#]]
        .assert_eq(&shown.concat());
    }

    #[test]
    fn a_column_of_numbers_has_the_unit_of_all_of_them() {
        for epoch in Epoch::ALL {
            let year_2024 = 1_704_067_200.0 * epoch.per_second() as f64;
            assert_eq!(Epoch::of_all([year_2024, year_2024 + 1.0, year_2024 * 2.0]), Some(epoch));
            assert_eq!(Epoch::of_all([year_2024, 0.0]), None);
        }
        assert_eq!(Epoch::of_all([]), None);
        // The day when somebody was born.
        assert_eq!(Epoch::of_all([-300_000_000.0]), None);
        assert_eq!(Epoch::of_all([31_535_999.0]), None, "1970 in seconds, and in milliseconds as well");
    }

    #[test]
    fn a_declared_unit_is_believed() {
        for epoch in Epoch::ALL {
            assert_eq!(Epoch::named(epoch.name()), Some(epoch));
            assert_eq!(epoch.micros(0), Some(0));
            assert_eq!(epoch.micros(1_704_067_200 * epoch.per_second()), Some(1_704_067_200_000_000));
        }
        assert_eq!(Epoch::Nanos.micros(-1), Some(-1), "towards the past");
        assert_eq!(Epoch::Seconds.micros(i64::MAX / 1_000), None);
        assert_eq!(Epoch::Seconds.nearest_micros(1_704_067_200.123_456), Some(1_704_067_200_123_456));
        assert_eq!(Epoch::Millis.nearest_micros(1_704_067_200_123.5), Some(1_704_067_200_123_500));
        assert_eq!(Epoch::Seconds.nearest_micros(f64::NAN), None);
        assert_eq!(Epoch::Micros.nearest_micros(9.3e18), None);
    }
}
