//! What is a training set made of, and is it still the same when it is made again?

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a training set was made of, and what came of it: in the metadata of a training set that is whole, as JSON, and
/// in the definition of a model version that was trained on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingSetPin {
    /// SHA-256 of all below: of two training sets with one digest, every value is the same.
    pub digest: String,
    /// How many rows it has.
    pub rows: u64,
    /// Whether rows that became known after the query time were invisible.
    #[serde(default)]
    pub as_known: bool,
    /// Feature service, feature views, sources and functions → the state in which each was.
    pub made_of: BTreeMap<String, String>,
    /// Column, of the spine or of the service → the digest of its values.
    pub columns: BTreeMap<String, String>,
}

/// What became of a training set that was made again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingReport {
    /// The model ...
    pub model: String,
    /// ... and its version.
    pub version: String,
    /// How many rows it had, and has.
    pub rows: (u64, u64),
    /// The columns of which values differ, or that are there no longer.
    pub differ: BTreeSet<String>,
    /// What it is made of that is in another state: what was, and what is; empty where there is none.
    pub changed: BTreeMap<String, (String, String)>,
}

impl TrainingSetPin {
    /// What became of it, where `now` is what it is when it is made again. A column more is no difference.
    pub fn compare(&self, now: &TrainingSetPin) -> TrainingReport {
        let differs = |(column, digest): &(&String, &String)| now.columns.get(*column) != Some(*digest);
        let parts: BTreeSet<&String> = self.made_of.keys().chain(now.made_of.keys()).collect();
        let states = parts.into_iter().map(|part| {
            let of = |pin: &TrainingSetPin| pin.made_of.get(part).cloned().unwrap_or_default();
            (part.clone(), (of(self), of(now)))
        });
        TrainingReport {
            rows: (self.rows, now.rows),
            differ: self.columns.iter().filter(differs).map(|(column, _)| column.clone()).collect(),
            changed: states.filter(|(_, (was, is))| was != is).collect(),
            ..TrainingReport::default()
        }
    }
}

impl TrainingReport {
    /// Whether it is the same, value for value.
    pub fn is_same(&self) -> bool {
        self.differ.is_empty() && self.rows.0 == self.rows.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(columns: &[(&str, &str)], made_of: &[(&str, &str)]) -> TrainingSetPin {
        let texts =
            |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        TrainingSetPin {
            columns: texts(columns),
            made_of: texts(made_of),
            rows: 2,
            ..TrainingSetPin::default()
        }
    }

    #[test]
    fn says_which_columns_differ_and_what_changed() {
        let was = pin(&[("a", "1"), ("b", "2"), ("c", "3")], &[("view v", "x"), ("source s", "1 file")]);
        assert!(was.compare(&was).is_same());
        let now = pin(&[("a", "1"), ("b", "9"), ("d", "3")], &[("view w", "x"), ("source s", "2 files")]);
        let report = was.compare(&now);
        assert_eq!(report.differ, ["b", "c"].map(String::from).into());
        let state = |was: &str, is: &str| (was.to_owned(), is.to_owned());
        let changed = [
            ("source s".to_owned(), state("1 file", "2 files")),
            ("view v".to_owned(), state("x", "")),
            ("view w".to_owned(), state("", "x")),
        ];
        assert_eq!(report.changed, changed.into());
        assert!(!report.is_same());
        assert!(!was.compare(&TrainingSetPin { rows: 3, ..was.clone() }).is_same());
    }
}
