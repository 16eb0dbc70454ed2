//! What is a database asked?
//!
//! The rows of a table or of a query, as a table called `pulled`: every column is named with it, so that none of the
//! names can be anything else (SQLite takes an unknown name in double quotes for a text). Bounds are written here, of
//! numbers: a text of a time is right for every type that a database has for one, while a parameter would be of the
//! type that its driver likes; and PostgreSQL copies out whole what has no parameters.

use chrono::{NaiveDate, TimeDelta};
use feature_defs::PulledRows;

/// Drivers of databases that quote names as MySQL does.
const BACKTICKS: [&str; 4] = ["bigquery", "databricks", "mysql", "spark"];

/// From which cursor on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// This number.
    Number(i64),
    /// This time, µs.
    Time(i64),
    /// The texts of times from the day of this time on, µs, in whatever zone they are: as far as texts are in the order
    /// of the times that they say, these begin with the day before.
    Text(i64),
}

/// The statement that gives `columns` of the rows, in the order of `cursor`.
pub fn rows(
    driver: &str,
    rows: &PulledRows,
    columns: &[&str],
    (cursor, from): (&str, Option<Bound>),
) -> String {
    let name = |column: &&str| format!("pulled.{}", quoted(driver, column));
    let (cursor, columns): (String, Vec<String>) = (name(&cursor), columns.iter().map(name).collect());
    let bound = match from {
        Some(bound) => format!("{cursor} >= {}", literal(bound)),
        None => format!("{cursor} IS NOT NULL"),
    };
    let (columns, from) = (columns.join(", "), table(driver, rows));
    format!("SELECT {columns} FROM {from} WHERE {bound} ORDER BY {cursor}")
}

/// The statement that counts the rows without `cursor`.
pub fn without(driver: &str, rows: &PulledRows, cursor: &str) -> String {
    let (cursor, from) = (quoted(driver, cursor), table(driver, rows));
    format!("SELECT COUNT(*) FROM {from} WHERE pulled.{cursor} IS NULL")
}

/// What a driver is told before anything else, so that nothing is written: a query may call what writes.
pub(crate) fn read_only(driver: &str) -> Option<&'static str> {
    match driver {
        "postgresql" => Some("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
        "sqlite" => Some("PRAGMA query_only = ON"),
        _ => None,
    }
}

fn table(driver: &str, rows: &PulledRows) -> String {
    match rows {
        PulledRows::Table(name) => {
            let parts: Vec<String> = name.split('.').map(|part| quoted(driver, part)).collect();
            format!("{} AS pulled", parts.join("."))
        }
        // On lines of its own: it may end with a comment.
        PulledRows::Query(query) => {
            format!("(\n{}\n) AS pulled", query.trim().trim_end_matches(';'))
        }
    }
}

fn quoted(driver: &str, name: &str) -> String {
    match BACKTICKS.contains(&driver) {
        true => format!("`{}`", name.replace('`', "``")),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

fn literal(bound: Bound) -> String {
    match bound {
        Bound::Number(number) => number.to_string(),
        Bound::Time(micros) => {
            let (days, of_day) = (micros.div_euclid(DAY_US), micros.rem_euclid(DAY_US));
            let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
            let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
            let seconds = seconds % 60;
            format!("'{} {hours:02}:{minutes:02}:{seconds:02}.{fraction:06}+00:00'", date(days))
        }
        Bound::Text(micros) => format!("'{}'", date(micros.div_euclid(DAY_US) - 1)),
    }
}

const DAY_US: i64 = 86_400_000_000;
/// The date of a day since 1970, within the years of four digits.
fn date(day: i64) -> String {
    let of_years = (NaiveDate::from_ymd_opt(1, 1, 1), NaiveDate::from_ymd_opt(9999, 12, 31));
    let (first, last) = (of_years.0.unwrap_or_default(), of_years.1.unwrap_or_default());
    let since = TimeDelta::try_days(day).and_then(|days| NaiveDate::default().checked_add_signed(days));
    since.unwrap_or(if day < 0 { first } else { last }).clamp(first, last).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_names_each_column_with_its_table() {
        let table = PulledRows::Table("public.odd \"name".to_owned());
        assert_eq!(
            rows("postgresql", &table, &["k", "a\"b"], ("k", Some(Bound::Number(-3)))),
            "SELECT pulled.\"k\", pulled.\"a\"\"b\" FROM \"public\".\"odd \"\"name\" AS pulled WHERE pulled.\"k\" >= -3 \
             ORDER BY pulled.\"k\""
        );
        let query = PulledRows::Query("SELECT 1 AS k -- one;\n;".to_owned());
        assert_eq!(
            rows("bigquery", &query, &["k"], ("k", None)),
            "SELECT pulled.`k` FROM (\nSELECT 1 AS k -- one;\n\n) AS pulled WHERE pulled.`k` IS NOT NULL ORDER BY pulled.`k`"
        );
        assert_eq!(
            without("sqlite", &query, "k"),
            "SELECT COUNT(*) FROM (\nSELECT 1 AS k -- one;\n\n) AS pulled WHERE pulled.\"k\" IS NULL"
        );
    }

    #[test]
    fn bounds_are_texts_of_times() {
        for (micros, time, day) in [
            (0, "'1970-01-01 00:00:00.000000+00:00'", "'1969-12-31'"),
            (-1, "'1969-12-31 23:59:59.999999+00:00'", "'1969-12-30'"),
            (1_709_251_199_000_001, "'2024-02-29 23:59:59.000001+00:00'", "'2024-02-28'"),
            (951_827_696_000_000, "'2000-02-29 12:34:56.000000+00:00'", "'2000-02-28'"),
            (i64::MIN, "'0001-01-01 19:59:05.224192+00:00'", "'0001-01-01'"),
        ] {
            assert_eq!(
                (literal(Bound::Time(micros)).as_str(), literal(Bound::Text(micros)).as_str()),
                (time, day)
            );
        }
    }
}
