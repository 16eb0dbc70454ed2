//! Which formats may files have, and how is CSV written?

use std::fmt;

/// File formats that history is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values with a header line.
    Csv,
    /// A JSON object on each line.
    Json,
    /// Arrow IPC with a footer, which Feather is as well.
    Arrow,
    /// A table of Delta Lake.
    Delta,
    /// A table of Apache Iceberg.
    Iceberg,
}

/// What `format` says of rows that a database has.
pub(crate) const SQL: &str = "sql";
/// What `format` may say, in YAML.
pub(crate) const BATCHES: [&str; 7] = ["parquet", "csv", "json", "arrow", "delta", "iceberg", SQL];

impl Format {
    /// All of them.
    pub const ALL: [Format; 6] =
        [Format::Parquet, Format::Csv, Format::Json, Format::Arrow, Format::Delta, Format::Iceberg];

    /// Its name in YAML.
    pub fn name(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Arrow => "arrow",
            Format::Delta => "delta",
            Format::Iceberg => "iceberg",
        }
    }

    /// Whether a log says which files there are, and what of them counts.
    pub fn is_table(self) -> bool {
        matches!(self, Format::Delta | Format::Iceberg)
    }

    /// Whether what is read says the types of its columns.
    pub fn is_typed(self) -> bool {
        !matches!(self, Format::Csv | Format::Json)
    }
}

/// How the text of CSV files is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// What stands between two cells, in ASCII.
    pub delimiter: u8,
    /// What stands around a cell that has delimiters or line ends in it, in ASCII.
    pub quote: u8,
    /// Within quotes, what says that the next character is itself, besides a quote before a quote; in ASCII.
    pub escape: Option<u8>,
    /// Cells that are null besides the empty one.
    pub null_values: Vec<String>,
    /// Which bytes stand for which characters.
    pub encoding: Encoding,
}

impl Default for Dialect {
    fn default() -> Self {
        Dialect {
            delimiter: b',',
            quote: b'"',
            escape: None,
            null_values: Vec::new(),
            encoding: Encoding::Utf8,
        }
    }
}

/// What is not as in most files, as it is declared; empty where all is.
impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dialect { delimiter, quote, escape, null_values, encoding } = self;
        let usual = Dialect::default();
        let shown = |character: u8| format!("{:?}", char::from(character).to_string());
        let said = [
            (*delimiter != usual.delimiter).then(|| format!("delimiter: {}", shown(*delimiter))),
            (*quote != usual.quote).then(|| format!("quote: {}", shown(*quote))),
            escape.map(|escape| format!("escape: {}", shown(escape))),
            (!null_values.is_empty()).then(|| format!("null_values: {null_values:?}")),
            (*encoding != usual.encoding).then(|| format!("encoding: {}", encoding.name())),
        ];
        f.write_str(&said.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Encodings of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// ISO 8859-1: each byte is the character of its number.
    Latin1,
    /// What Windows writes in Western Europe and America.
    Windows1252,
    /// UTF-16 after a byte order mark.
    Utf16,
}

/// The names of encodings, of which some have two.
pub(crate) const ENCODINGS: [&str; 5] = ["utf-8", "latin1", "iso-8859-1", "windows-1252", "utf-16"];

impl Encoding {
    /// Its name in YAML.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Utf8 => "utf-8",
            Encoding::Latin1 => "latin1",
            Encoding::Windows1252 => "windows-1252",
            Encoding::Utf16 => "utf-16",
        }
    }

    /// The encoding of that name.
    pub(crate) fn named(name: &str) -> Option<Encoding> {
        let all = [Encoding::Utf8, Encoding::Latin1, Encoding::Windows1252, Encoding::Utf16];
        let name = if name == "iso-8859-1" { "latin1" } else { name };
        all.into_iter().find(|encoding| encoding.name() == name)
    }
}
