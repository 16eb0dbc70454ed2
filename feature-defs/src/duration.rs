//! How long is `1d12h`, and how is a length of time written?

/// Units from the smallest to the largest, with their microseconds.
const UNITS: [(&str, i64); 7] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
    ("w", 604_800_000_000),
];

/// What [`parse_duration`] accepts, as a regular expression for JSON Schema; the empty text matches it too.
pub(crate) const DURATION_PATTERN: &str =
    "^([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?([0-9]+us)?$";

/// Reads a duration such as `90d`, `250ms` or `1d12h` and returns its microseconds.
///
/// Units are `w d h m s ms us`; amounts are whole numbers. Each unit stands at most once, from large to small,
/// so that a slip like `1m30m` is a mistake and not a length of time.
///
/// # Errors
/// Says what is wrong with `text` in words that can follow the name of a key.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let wrong = |why: &str| {
        let way_out = match meant(text) {
            Some(meant) => format!("write `{meant}`"),
            None => "units are w, d, h, m, s, ms and us".to_owned(),
        };
        Err(format!("`{text}` is not a duration: {why}; {way_out}"))
    };
    let mut total: i64 = 0;
    let mut units_left = UNITS.len();
    let mut rest = text;
    if rest.is_empty() {
        return wrong("it is empty");
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 {
            return wrong("an amount must be a whole number without a sign");
        }
        let (amount, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        rest = after;
        let Some(index) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return wrong(&match unit {
                "" => format!("`{amount}` has no unit"),
                "." | "," => "an amount must be a whole number".to_owned(),
                _ if has_no_length(unit) => {
                    "months and years have no fixed length; count days, as in `30d`".to_owned()
                }
                _ => format!("unknown unit `{}`", unit.trim()),
            });
        };
        if index >= units_left {
            return wrong("units must go from large to small, each at most once");
        }
        units_left = index;
        let amount = amount.parse::<i64>().ok().and_then(|amount| amount.checked_mul(UNITS[index].1));
        match amount.and_then(|amount| total.checked_add(amount)) {
            Some(sum) => total = sum,
            None => return Err(format!("`{text}` is not a duration: it is longer than 292,000 years")),
        }
    }
    Ok(total)
}

/// What others call our units.
const NAMES: [(&str, &[&str]); 7] = [
    ("us", &["µs", "μs", "usec", "usecs", "micros", "microsecond", "microseconds"]),
    ("ms", &["msec", "msecs", "millis", "millisecond", "milliseconds"]),
    ("s", &["sec", "secs", "second", "seconds"]),
    ("m", &["min", "mins", "minute", "minutes"]),
    ("h", &["hr", "hrs", "hour", "hours"]),
    ("d", &["day", "days"]),
    ("w", &["wk", "wks", "week", "weeks"]),
];

/// Whether `unit` is a length of time that depends on the calendar.
fn has_no_length(unit: &str) -> bool {
    let names =
        ["mo", "mon", "month", "months", "q", "quarter", "quarters", "y", "yr", "yrs", "year", "years"];
    unit.trim() == "M" || names.contains(&unit.trim().to_lowercase().as_str())
}

/// What `text` would be here, where it is a length of time as others write it: `5 min`, `1.5h`, `PT30M`, `1 day`.
fn meant(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let iso = plain.strip_prefix('P').map(|rest| rest.replacen('T', "", 1).to_lowercase());
    let mut rest = iso.as_deref().unwrap_or(&plain);
    let (mut total, mut seen) = (0i64, Vec::new());
    while !rest.is_empty() {
        let is_amount = |c: char| c.is_ascii_digit() || c == '.';
        let (amount, after) = rest.split_at(rest.find(|c| !is_amount(c))?);
        let (word, after) = after.split_at(after.find(is_amount).unwrap_or(after.len()));
        rest = after;
        if has_no_length(word) {
            return None;
        }
        let word = word.to_lowercase();
        let (unit, _) = NAMES.iter().find(|(unit, names)| *unit == word || names.contains(&word.as_str()))?;
        let unit_us = UNITS.iter().find(|(name, _)| name == unit)?.1;
        // A unit given twice is rather a slip for another one.
        if seen.contains(unit) {
            return None;
        }
        seen.push(unit);
        let us = amount.parse::<f64>().ok()? * unit_us as f64;
        // Beyond 2^53 a double names no single whole number.
        if us.fract() != 0.0 || us > 9_007_199_254_740_992.0 {
            return None;
        }
        total = total.checked_add(us as i64)?;
    }
    (!seen.is_empty()).then(|| format_duration(total))
}

/// Writes `us` microseconds in the shortest exact form that [`parse_duration`] reads back: `36h`, not `1d12h`.
///
/// Of two forms equally short the one with smaller units wins: `7d`, not `1w`. A negative length, which the
/// language cannot express, is written with a leading `-`.
pub fn format_duration(us: i64) -> String {
    if us == 0 {
        return "0s".to_owned();
    }
    let sign = if us < 0 { "-" } else { "" };
    // Seven units have 127 subsets: trying them all is simpler than being clever.
    let shortest = (1u32..1 << UNITS.len())
        .filter_map(|subset| spell(us.unsigned_abs(), subset))
        .min_by_key(String::len)
        .unwrap_or_default();
    format!("{sign}{shortest}")
}

/// `us` in exactly the units of `subset` (a bit for each of [`UNITS`]); none where a unit would count zero or
/// something would be left over.
fn spell(us: u64, subset: u32) -> Option<String> {
    let mut rest = us;
    let mut text = String::new();
    for (bit, (name, unit_us)) in UNITS.iter().enumerate().rev() {
        if subset & (1 << bit) == 0 {
            continue;
        }
        let amount = rest / unit_us.unsigned_abs();
        if amount == 0 {
            return None;
        }
        rest %= unit_us.unsigned_abs();
        text.push_str(&format!("{amount}{name}"));
    }
    (rest == 0).then_some(text)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let shown = match parse_duration(text) {
            Ok(us) => format!("{us} = {}", format_duration(us)),
            Err(error) => error,
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn reads_every_unit() {
        check("90d", expect!["7776000000000 = 90d"]);
        check("6h", expect!["21600000000 = 6h"]);
        check("5m", expect!["300000000 = 5m"]);
        check("30s", expect!["30000000 = 30s"]);
        check("250ms", expect!["250000 = 250ms"]);
        check("2w", expect!["1209600000000 = 2w"]);
        check("7us", expect!["7 = 7us"]);
        check("0s", expect!["0 = 0s"]);
    }

    #[test]
    fn reads_sums_and_writes_the_shortest() {
        check("1d12h", expect!["129600000000 = 36h"]);
        check("1h1s", expect!["3601000000 = 1h1s"]);
        check("1d90m", expect!["91800000000 = 1530m"]);
        check("1w", expect!["604800000000 = 7d"]);
        check("1w1d1h1m1s1ms1us", expect!["694861001001 = 694861s1001us"]);
    }

    #[test]
    fn says_what_is_wrong() {
        check("", expect!["`` is not a duration: it is empty; units are w, d, h, m, s, ms and us"]);
        check("90", expect!["`90` is not a duration: `90` has no unit; units are w, d, h, m, s, ms and us"]);
        check(
            "d",
            expect![
                "`d` is not a duration: an amount must be a whole number without a sign; units are w, d, h, m, s, ms and us"
            ],
        );
        check(
            "-5m",
            expect![
                "`-5m` is not a duration: an amount must be a whole number without a sign; units are w, d, h, m, s, ms and us"
            ],
        );
        check("1.5h", expect!["`1.5h` is not a duration: an amount must be a whole number; write `90m`"]);
        check(
            "12h1d",
            expect![
                "`12h1d` is not a duration: units must go from large to small, each at most once; write `36h`"
            ],
        );
        check(
            "1m1m",
            expect![
                "`1m1m` is not a duration: units must go from large to small, each at most once; units are w, d, h, m, s, ms and us"
            ],
        );
        check("99999999w", expect!["`99999999w` is not a duration: it is longer than 292,000 years"]);
        check(
            "99999999999999999999s",
            expect!["`99999999999999999999s` is not a duration: it is longer than 292,000 years"],
        );
    }

    #[test]
    fn knows_how_others_write_them() {
        check("5 m", expect!["`5 m` is not a duration: unknown unit `m`; write `5m`"]);
        check("5min", expect!["`5min` is not a duration: unknown unit `min`; write `5m`"]);
        check("1 day", expect!["`1 day` is not a duration: unknown unit `day`; write `1d`"]);
        check("7D", expect!["`7D` is not a duration: unknown unit `D`; write `7d`"]);
        check(
            "PT1H30M",
            expect![
                "`PT1H30M` is not a duration: an amount must be a whole number without a sign; write `90m`"
            ],
        );
        check(
            "2 weeks, 1 day",
            expect![
                "`2 weeks, 1 day` is not a duration: unknown unit `weeks,`; units are w, d, h, m, s, ms and us"
            ],
        );
        check(
            "1mo",
            expect![
                "`1mo` is not a duration: months and years have no fixed length; count days, as in `30d`; units are w, d, h, m, s, ms and us"
            ],
        );
        check(
            "6M",
            expect![
                "`6M` is not a duration: months and years have no fixed length; count days, as in `30d`; units are w, d, h, m, s, ms and us"
            ],
        );
        check(
            "1year",
            expect![
                "`1year` is not a duration: months and years have no fixed length; count days, as in `30d`; units are w, d, h, m, s, ms and us"
            ],
        );
        check(
            "3fortnights",
            expect![
                "`3fortnights` is not a duration: unknown unit `fortnights`; units are w, d, h, m, s, ms and us"
            ],
        );
        check(
            "0.0000001s",
            expect![
                "`0.0000001s` is not a duration: an amount must be a whole number; units are w, d, h, m, s, ms and us"
            ],
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        // A multiplicative walk visits all magnitudes; the offsets break divisibility.
        let mut us: i64 = 1;
        while let Some(next) = us.checked_mul(3) {
            for offset in [0, 1, 999, 60_000_000] {
                let us = us + offset;
                assert_eq!(parse_duration(&format_duration(us)), Ok(us));
            }
            us = next;
        }
        assert_eq!(parse_duration(&format_duration(i64::MAX)), Ok(i64::MAX));
    }
}
