//! Which function was meant by a name that there is not?

use feature_defs::nearest;

use super::known;

/// Parts of times, by the names of the functions that other dialects have for each.
const PARTS: [(&str, &[&str]); 12] = [
    ("year", &["year"]),
    ("quarter", &["quarter"]),
    ("month", &["month"]),
    ("week", &["week", "weekofyear", "week_iso"]),
    ("day", &["day", "dayofmonth"]),
    ("doy", &["doy", "dayofyear"]),
    ("dow", &["dow", "dayofweek", "weekday"]),
    ("hour", &["hour"]),
    ("minute", &["minute"]),
    ("second", &["second"]),
    ("millisecond", &["millisecond"]),
    ("epoch", &["epoch", "unix_timestamp", "to_unix_timestamp", "unix_seconds"]),
];

/// What says the same here, over columns `a`, `b` and `x` (numbers), `s` (text), `t` and `u` (times) and `l` (a list).
const ELSEWHERE: [(&[&str], &str); 29] = [
    (&["if", "iff", "iif"], "CASE WHEN a > b THEN a ELSE b END"),
    (&["isnull", "is_null"], "x IS NULL"),
    (&["notnull", "isnotnull", "is_not_null"], "x IS NOT NULL"),
    (&["nullifzero"], "nullif(x, 0)"),
    (&["zeroifnull"], "coalesce(x, 0)"),
    (&["safe_divide", "try_divide", "div0"], "a / nullif(b, 0)"),
    (&["mod", "fmod", "remainder"], "a % b"),
    (&["log1p"], "ln(1 + x)"),
    (&["expm1"], "exp(x) - 1"),
    (&["square", "sqr"], "x * x"),
    (&["ceiling"], "ceil(x)"),
    (&["truncate"], "trunc(x)"),
    (&["sign", "sgn"], "signum(x)"),
    (&["clip", "clamp"], "least(greatest(x, 0), 1)"),
    (&["float", "double", "to_double", "todouble", "tofloat"], "CAST(x AS DOUBLE)"),
    (&["int", "integer", "bigint", "toint", "to_number"], "CAST(x AS BIGINT)"),
    (&["str", "string", "text", "varchar", "to_string", "tostring", "to_varchar"], "CAST(x AS VARCHAR)"),
    (
        &["datediff", "date_diff", "timestampdiff", "timestamp_diff"],
        "date_part('epoch', t) - date_part('epoch', u)",
    ),
    (&["dateadd", "date_add", "timestampadd", "timestamp_add"], "t + interval '1 day'"),
    (&["datesub", "date_sub", "timestamp_sub"], "t - interval '1 day'"),
    (&["timestamp_trunc", "trunc_date", "floor_date"], "date_trunc('hour', t)"),
    (&["strptime", "str_to_date", "parse_datetime", "parse_timestamp"], "to_timestamp(s, '%Y-%m-%d')"),
    (&["strftime", "format_timestamp", "format_datetime"], "to_char(t, '%Y-%m-%d')"),
    (&["ucase", "toupper"], "upper(s)"),
    (&["lcase", "tolower"], "lower(s)"),
    (&["len", "str_len", "strlen"], "length(s)"),
    (&["regexp_extract", "regexp_substr"], "regexp_match(s, '[0-9]+')"),
    (&["regexp", "rlike", "regexp_matches", "regexp_contains"], "regexp_like(s, '^a')"),
    (&["size", "array_size", "list_size"], "cardinality(l)"),
];

/// Functions that give text which nobody can see through: left out.
const HASHES: [&str; 9] =
    ["md5", "sha1", "sha2", "sha224", "sha256", "sha384", "sha512", "digest", "farm_fingerprint"];

/// The name of the function that DataFusion does not know, where that is what it says.
pub(super) fn unknown(said: &str) -> Option<&str> {
    said.strip_prefix("Invalid function '")?.split('\'').next()
}

/// What people of other languages write, by what the parser and the rules of types say of it.
const SLIPS: [(&str, &str); 6] = [
    ("Operator DIV is not", "`a / b` of whole numbers is a whole number"),
    ("end of expression, found: if", "write it as in `CASE WHEN a > b THEN a ELSE b END`"),
    ("Cannot coerce arithmetic expression", "cast one side, as in `CAST(s AS DOUBLE)`"),
    ("Date part 'weekday'", "write it as in `date_part('dow', t)`, where Sunday is 0"),
    (
        "Unsupported SQL type",
        "known: BOOLEAN, INT, BIGINT, FLOAT, DOUBLE, VARCHAR, DATE, TIMESTAMP, DECIMAL(p, s)",
    ),
    ("an expression, found: *", "rows are counted without `of`"),
];

/// The way out of another mistake, where one is known.
pub(super) fn otherwise(said: &str) -> Option<String> {
    SLIPS.iter().find(|(theirs, _)| said.contains(theirs)).map(|(_, help)| (*help).to_owned())
}

/// The way out of an unknown function.
pub(super) fn instead_of(name: &str) -> Option<String> {
    let name = name.to_lowercase();
    // As in NumPy, whose `log` is not to base 10.
    let name = match name.rsplit_once('.') {
        Some((_, "log")) => return Some("write it as in `ln(x)`".to_owned()),
        Some((_, name)) => name.to_owned(),
        None => name,
    };
    if HASHES.contains(&name.as_str()) {
        return Some(
            "hash functions are left out; hash before the rows are written, or take the text itself"
                .to_owned(),
        );
    }
    if let Some((part, _)) = PARTS.iter().find(|(_, names)| names.contains(&name.as_str())) {
        return Some(format!("write it as in `date_part('{part}', t)`"));
    }
    if let Some((_, ours)) = ELSEWHERE.iter().find(|(names, _)| names.contains(&name.as_str())) {
        return Some(format!("write it as in `{ours}`"));
    }
    let near = nearest(&name, known::function_names());
    near.map(|near| format!("did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::expr::Written;
    use crate::schema::timestamp;

    fn schema() -> Schema {
        let number = |name: &str| Field::new(name, DataType::Float64, true);
        let time = |name: &str| Field::new(name, timestamp(), true);
        let list = Field::new("l", DataType::new_list(DataType::Float64, true), true);
        let text = Field::new("s", DataType::Utf8, true);
        Schema::new(vec![number("a"), number("b"), number("x"), text, time("t"), time("u"), list])
    }

    #[test]
    fn what_is_suggested_is_known_and_what_is_listed_is_not() {
        let schema = schema();
        let parse = |sql: &str| Written::parse(sql, &schema).map(|_| ()).map_err(|mistake| mistake.cause);
        let ours = ELSEWHERE.iter().map(|(_, ours)| (*ours).to_owned());
        let parts = PARTS.iter().map(|(part, _)| format!("date_part('{part}', t)"));
        for ours in ours.chain(parts) {
            assert_eq!(parse(&ours), Ok(()), "{ours}");
        }
        let theirs = ELSEWHERE.iter().map(|(names, _)| *names).chain(PARTS.iter().map(|(_, names)| *names));
        let known: Vec<&&str> =
            theirs.flatten().filter(|name| parse(&format!("{name}(x)")).is_ok()).collect();
        assert!(known.is_empty(), "{known:?} are known");
    }

    #[test]
    fn a_slip_finds_the_function() {
        let schema = schema();
        let help = |sql: &str| Written::parse(sql, &schema).expect_err("unknown").help;
        for (sql, said) in [
            ("logg(x)", "`log`"),
            ("LOGG(x)", "`log`"),
            ("coalese(x, 0)", "`coalesce`"),
            ("Hour(t)", "date_part('hour', t)"),
            ("iff(a > b, a, b)", "CASE WHEN"),
            ("sha256(s)", "left out"),
        ] {
            assert!(help(sql).is_some_and(|help| help.contains(said)), "{sql}: {:?}", help(sql));
        }
        assert_eq!(help("quiteunheardof(x)"), None);
    }
}
