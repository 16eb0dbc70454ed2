//! What is called otherwise in SQL, pandas, Spark, Polars, Feast or Chronon, and what is it called here?

use crate::dtype::Type;

/// Types by the names that others give them.
const TYPES: [(&str, &[&str]); 9] = [
    ("bool", &["boolean", "bit", "logical"]),
    (
        "int32",
        &["int8", "int16", "uint8", "uint16", "tinyint", "smallint", "mediumint", "short", "byte", "i32"],
    ),
    ("int64", &["int", "integer", "uint32", "uint64", "bigint", "long", "i64", "serial", "bigserial"]),
    ("float32", &["float16", "half", "bfloat16", "real", "single", "float4", "f32"]),
    ("float64", &["float", "double", "doubleprecision", "float8", "f64", "number", "numeric", "decimal"]),
    (
        "string",
        &[
            "str",
            "text",
            "varchar",
            "nvarchar",
            "char",
            "character",
            "utf8",
            "object",
            "category",
            "uuid",
            "json",
        ],
    ),
    ("bytes", &["binary", "varbinary", "blob", "bytea"]),
    ("timestamp", &["datetime", "datetime64", "timestamptz", "unixtimestamp", "instant", "time"]),
    ("date", &["date32", "date64", "day"]),
];

/// What others call a list.
const LISTS: [&str; 7] = ["list", "largelist", "array", "vector", "sequence", "repeated", "embedding"];

/// Functions of aggregations, with what else they take, by the names that others give them.
const FUNCTIONS: [(&str, &str, &[&str]); 18] = [
    ("avg", "", &["mean", "average"]),
    ("stddev", "", &["std", "stdev", "stddevsamp", "stddevpop", "stdpop", "standarddeviation"]),
    ("variance", "", &["var", "varsamp", "varpop"]),
    (
        "count_distinct",
        "",
        &[
            "nunique",
            "unique",
            "uniquecount",
            "boundeduniquecount",
            "distinct",
            "distinctcount",
            "countunique",
        ],
    ),
    ("approx_distinct", "", &["approxcountdistinct", "approxnunique", "approxuniquecount", "hll", "ndv"]),
    ("approx_percentile", " with `percentile: 0.5`", &["median", "approxmedian"]),
    (
        "approx_percentile",
        "",
        &["percentile", "percentilecont", "percentileapprox", "quantile", "approxquantile", "quantilecont"],
    ),
    ("min", "", &["minimum", "least", "lowest"]),
    ("max", "", &["maximum", "greatest", "highest"]),
    ("count", "", &["size", "len", "length", "rows", "cnt", "countrows"]),
    ("sum", "", &["total", "add"]),
    ("first", "", &["earliest", "firstvalue", "oldest"]),
    ("last", "", &["latest", "lastvalue", "newest", "mostrecent", "anyvalue"]),
    ("last_n", " with `n`", &["lastk", "collect", "collectlist", "list", "arrayagg", "tail"]),
    ("top_n_by", " with `n` and `by`", &["topk", "topn", "topkby", "nlargest"]),
    ("any", "", &["some", "boolor", "logicalor", "anytrue"]),
    ("every", "", &["all", "booland", "logicaland", "alltrue"]),
    ("histogram", "", &["valuecounts", "counts", "frequency", "mode"]),
];

/// The type of ours that `text` names in another language.
pub(crate) fn type_meant(text: &str) -> Option<String> {
    let opening = text.find(['<', '(', '[']).unwrap_or(text.len());
    let (name, inside) = text.split_at(opening);
    let name = letters(name);
    let mut inside = inside.trim_matches(['<', '>', '(', ')', '[', ']']).split([',', ';']).map(str::trim);
    let is_list = LISTS.contains(&name.as_str());
    if !is_list && !text.ends_with(']') || text.starts_with("datetime64") || text.starts_with("timestamp") {
        return scalar_meant(&name).map(str::to_owned);
    }
    let item = if is_list {
        inside.clone().find_map(|part| scalar_meant(&letters(part)))
    } else {
        scalar_meant(&name)
    };
    let length: Option<u32> = inside.find_map(|part| part.parse().ok());
    let item = item.unwrap_or("float32");
    let list = length.map_or(format!("list<{item}>"), |length| format!("list<{item}, {length}>"));
    Type::parse(&list).ok().map(|dtype| dtype.to_string())
}

fn scalar_meant(name: &str) -> Option<&'static str> {
    let is = |known: &str, theirs: &[&str]| name == known || theirs.contains(&name);
    let found = TYPES.iter().find(|(known, theirs)| is(known, theirs)).map(|(known, _)| *known);
    // As in `timestamp without time zone`.
    found.or_else(|| name.starts_with("timestamp").then_some("timestamp"))
}

/// The function of an aggregation that `text` names elsewhere, and what goes with it.
pub(crate) fn function_meant(text: &str) -> Option<(&'static str, &'static str)> {
    let text = letters(text);
    let found =
        FUNCTIONS.iter().find(|(known, _, theirs)| letters(known) == text || theirs.contains(&text.as_str()));
    found.map(|(known, with, _)| (*known, *with))
}

/// Without what people write a word differently by: case, blanks, dashes and underscores.
fn letters(word: &str) -> String {
    word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_other_languages() {
        for (theirs, ours) in [
            ("int", "int64"),
            ("Int64", "int64"),
            ("INTEGER", "int64"),
            ("double precision", "float64"),
            ("decimal(10, 2)", "float64"),
            ("varchar(20)", "string"),
            ("datetime64[ns]", "timestamp"),
            ("timestamp[us, tz=UTC]", "timestamp"),
            ("timestamp with time zone", "timestamp"),
            ("real", "float32"),
            ("array<double>", "list<float64>"),
            ("Array(Float32)", "list<float32>"),
            ("List[int]", "list<int64>"),
            ("float[]", "list<float64>"),
            ("real[128]", "list<float32, 128>"),
            ("vector(128)", "list<float32, 128>"),
            ("list", "list<float32>"),
            ("array<string>", "list<string>"),
            ("text[]", "list<string>"),
            ("List(Boolean)", "list<bool>"),
        ] {
            assert_eq!(type_meant(theirs).as_deref(), Some(ours), "{theirs}");
        }
        assert_eq!(type_meant("flaot64"), None);
        assert_eq!(type_meant("struct<a: int>"), None);
    }

    #[test]
    fn what_is_meant_exists() {
        for (ours, _) in TYPES {
            assert!(Type::parse(ours).is_ok(), "{ours}");
        }
        assert_eq!(function_meant("MEAN"), Some(("avg", "")));
        assert_eq!(function_meant("bool_and"), Some(("every", "")));
        assert_eq!(function_meant("skew"), None);
    }
}
