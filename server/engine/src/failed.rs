//! How many values of each feature are null because they could not be computed, and which rows does that refuse?

use std::collections::BTreeMap;

/// What failed in some rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failed {
    /// By feature; features without a failure are not named.
    counts: BTreeMap<String, u64>,
    /// Rows (of the batch that was computed) of which a `strict` feature failed, and that feature.
    refused: BTreeMap<u32, String>,
}

impl Failed {
    /// Adds `rows` to what is known of the feature.
    pub fn note(&mut self, feature: &str, rows: usize) {
        if rows > 0 {
            *self.counts.entry(feature.to_owned()).or_default() += rows as u64;
        }
    }

    /// Notes that the feature failed in `rows`, which refuses them where it is `strict`.
    pub(crate) fn note_rows(&mut self, feature: &str, rows: &[u32], strict: bool) {
        self.note(feature, rows.len());
        if strict {
            rows.iter().for_each(|row| _ = self.refused.entry(*row).or_insert_with(|| feature.to_owned()));
        }
    }

    /// Adds the counts of other rows.
    pub fn add(&mut self, other: &Failed) {
        other.counts.iter().for_each(|(feature, rows)| self.note(feature, *rows as usize));
    }

    /// Whether nothing failed.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Each feature that failed, and for how many rows.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(feature, rows)| (feature.as_str(), *rows))
    }

    /// Whether a `strict` feature of the row failed.
    pub fn refuses(&self, row: usize) -> bool {
        self.refused.contains_key(&(row as u32))
    }

    /// The first row of which a `strict` feature failed, and that feature.
    pub fn first_refused(&self) -> Option<(usize, &str)> {
        self.refused.first_key_value().map(|(row, feature)| (*row as usize, feature.as_str()))
    }
}

impl From<Failed> for BTreeMap<String, u64> {
    fn from(failed: Failed) -> Self {
        failed.counts
    }
}
