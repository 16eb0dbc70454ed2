//! Which features is a column of the vector made of?

use std::collections::BTreeSet;

use super::{Origin, ServicePlan};

impl ServicePlan {
    /// The features behind `output`, as view and feature: itself, or those that its expression reads, through other
    /// expressions as well. None behind what the caller brings.
    pub fn features_behind(&self, output: usize) -> BTreeSet<(&str, &str)> {
        let mut behind = BTreeSet::new();
        let mut waiting = vec![self.picks[output]];
        while let Some(column) = waiting.pop() {
            match self.column(column) {
                Origin::Input(_) => {}
                Origin::Feature { lookup, feature } => {
                    let lookup = &self.lookups[lookup];
                    let name = lookup.view.features.field(lookup.features[feature]).name();
                    behind.insert((lookup.view.name.as_str(), name.as_str()));
                }
                // An expression reads columns before its own.
                Origin::Derived => waiting.extend(self.read_by(column)),
            }
        }
        behind
    }

    /// Where a column comes from: inputs come first, then the event timestamp, features by look-up, and derived ones.
    fn column(&self, mut column: usize) -> Origin {
        let inputs = self.inputs.fields().len();
        if column <= inputs {
            return Origin::Input(column);
        }
        column -= inputs + 1;
        for (lookup, taken) in self.lookups.iter().enumerate() {
            match column.checked_sub(taken.features.len()) {
                Some(rest) => column = rest,
                None => return Origin::Feature { lookup, feature: column },
            }
        }
        Origin::Derived
    }

    /// The columns that a derived one reads.
    fn read_by(&self, column: usize) -> Vec<usize> {
        let features: usize = self.lookups.iter().map(|lookup| lookup.features.len()).sum();
        let mut place = column - (self.inputs.fields().len() + 1 + features);
        for level in &self.derived.levels {
            match place.checked_sub(level.expressions.len()) {
                Some(rest) => place = rest,
                None => {
                    let reads = level.expressions[place].expression.reads();
                    return reads.map(|narrow| level.reads.columns[narrow]).collect();
                }
            }
        }
        Vec::new()
    }
}
