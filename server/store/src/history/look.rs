//! What does one file say of its columns?

use arrow::datatypes::Fields;

/// What one file says of its columns.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Look {
    /// Its columns, of its own types.
    pub(super) fields: Fields,
    /// Its columns that are compressed by a codec that is not built in, each with the codec's name.
    pub(super) foreign_codecs: Vec<(String, &'static str)>,
    /// Whether it has others, of types that nobody knows.
    pub(super) has_others: bool,
}

impl Look {
    /// Of these columns, which anybody reads.
    pub(super) fn of(fields: Fields) -> Look {
        Look { fields, foreign_codecs: Vec::new(), has_others: false }
    }
}
