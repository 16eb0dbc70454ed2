//! How many values of each feature are null because they could not be computed, and which rows does that refuse?

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What failed in some rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failed {
    /// By feature; features without a failure are not named.
    features: BTreeMap<String, Lost>,
    /// Rows of which a `strict` feature failed, and that feature.
    refused: BTreeMap<u32, String>,
}

/// What failed of one feature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Lost {
    /// The rows of the batch that was computed.
    rows: BTreeSet<u32>,
    /// How many others, of which no row of the batch is known: events of a window, other batches.
    others: u64,
}

impl Lost {
    fn count(&self) -> u64 {
        self.rows.len() as u64 + self.others
    }
}

impl Failed {
    /// Adds `rows` to what is known of the feature.
    pub fn note(&mut self, feature: &str, rows: usize) {
        if rows > 0 {
            self.lost(feature).others += rows as u64;
        }
    }

    /// Notes that the feature failed in `rows`, which refuses them where it is `strict`.
    pub(crate) fn note_rows(&mut self, feature: &str, rows: &[u32], strict: bool) {
        if !rows.is_empty() {
            self.lost(feature).rows.extend(rows);
        }
        if strict {
            rows.iter().for_each(|row| _ = self.refused.entry(*row).or_insert_with(|| feature.to_owned()));
        }
    }

    fn lost(&mut self, feature: &str) -> &mut Lost {
        self.features.entry(feature.to_owned()).or_default()
    }

    /// Adds the counts of other rows.
    pub fn add(&mut self, other: &Failed) {
        other.iter().for_each(|(feature, rows)| self.note(feature, rows as usize));
    }

    /// Adds what else failed in the same rows.
    pub fn join(&mut self, other: &Failed) {
        for (feature, Lost { rows, others }) in &other.features {
            let lost = self.lost(feature);
            lost.rows.extend(rows);
            lost.others += others;
        }
    }

    /// What failed in some of the rows, numbered as they are picked. Of what has no row nothing is known of these.
    pub fn pick(&self, picked: &[u32]) -> Failed {
        self.rows(|rows| {
            (0..).zip(picked).filter(|(_, row)| rows.contains(row)).map(|(place, _)| place).collect()
        })
    }

    /// What failed in this stretch of the rows, the first of which becomes row 0.
    pub fn slice(&self, stretch: Range<usize>) -> Failed {
        let (start, end) = (stretch.start as u32, stretch.end as u32);
        self.rows(|rows| rows.range(start..end).map(|row| row - start).collect())
    }

    /// The same of other rows: those that `places` gives for each of these.
    pub fn placed<P: IntoIterator<Item = u32>>(&self, places: impl Fn(u32) -> P) -> Failed {
        self.rows(|rows| rows.iter().flat_map(|row| places(*row)).collect())
    }

    /// Each feature with other rows.
    fn rows(&self, others: impl Fn(&BTreeSet<u32>) -> Vec<u32>) -> Failed {
        let mut failed = Failed::default();
        for (feature, lost) in &self.features {
            failed.note_rows(feature, &others(&lost.rows), false);
        }
        failed
    }

    /// The first row in which each feature failed, where one is known.
    pub fn first_rows(&self) -> impl Iterator<Item = (&str, usize)> {
        let features = self.features.iter();
        features.filter_map(|(feature, lost)| Some((feature.as_str(), *lost.rows.first()? as usize)))
    }

    /// What failed, but in no row that is known.
    pub fn elsewhere(&self) -> Failed {
        let mut elsewhere = Failed::default();
        self.features.iter().for_each(|(feature, lost)| elsewhere.note(feature, lost.others as usize));
        elsewhere
    }

    /// Takes that out, and leaves the rows.
    pub fn take_elsewhere(&mut self) -> Failed {
        let elsewhere = self.elsewhere();
        self.features.values_mut().for_each(|lost| lost.others = 0);
        self.features.retain(|_, lost| !lost.rows.is_empty());
        elsewhere
    }

    /// The same under other names; without those that have none.
    pub fn named<'a>(&self, name: impl Fn(&str) -> Option<&'a str>) -> Failed {
        let mut named = Failed::default();
        for (feature, Lost { rows, others }) in &self.features {
            if let Some(name) = name(feature) {
                let lost = named.lost(name);
                lost.rows.extend(rows);
                lost.others += others;
            }
        }
        named
    }

    /// Whether nothing failed.
    pub fn is_empty(&self) -> bool {
        self.features.is_empty()
    }

    /// Each feature that failed, and for how many rows.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.features.iter().map(|(feature, lost)| (feature.as_str(), lost.count()))
    }

    /// Whether a `strict` feature of the row failed.
    pub fn refuses(&self, row: usize) -> bool {
        self.refused(row).is_some()
    }

    /// The `strict` feature of the row that failed.
    pub fn refused(&self, row: usize) -> Option<&str> {
        self.refused.get(&(row as u32)).map(String::as_str)
    }

    /// The first row of which a `strict` feature failed, and that feature.
    pub fn first_refused(&self) -> Option<(usize, &str)> {
        self.all_refused().next()
    }

    /// The rows of which a `strict` feature failed, ascending, each with that feature.
    pub fn all_refused(&self) -> impl Iterator<Item = (usize, &str)> {
        self.refused.iter().map(|(row, feature)| (*row as usize, feature.as_str()))
    }
}

impl From<Failed> for BTreeMap<String, u64> {
    fn from(failed: Failed) -> Self {
        failed.iter().map(|(feature, rows)| (feature.to_owned(), rows)).collect()
    }
}
