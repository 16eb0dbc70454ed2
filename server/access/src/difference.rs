//! Who gains and loses what?

use std::collections::BTreeSet;

use crate::rights::{Question, Rights};
use crate::table::Access;

/// What a role would allow and does not, and what it allows and would not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The role.
    pub role: String,
    /// As in `predict fraud` or `read card:amount`.
    pub gains: Vec<String>,
    /// The same.
    pub loses: Vec<String>,
}

impl Access {
    /// What each role gains and loses on the way to `new`, whatever makes the difference: a grant, a tag, a feature
    /// that is new in a view that it may read.
    pub fn differences(&self, new: &Access) -> Vec<Difference> {
        let names: BTreeSet<&str> = self.role_names().chain(new.role_names()).collect();
        let difference = |role: &str| {
            let (before, after) = (said(&self.of_role(role)), said(&new.of_role(role)));
            let without = |some: &BTreeSet<String>, others: &BTreeSet<String>| {
                some.difference(others).cloned().collect::<Vec<String>>()
            };
            let (gains, loses) = (without(&after, &before), without(&before, &after));
            Difference { role: role.to_owned(), gains, loses }
        };
        let mut differences: Vec<Difference> = names.into_iter().map(difference).collect();
        differences.retain(|it| !it.gains.is_empty() || !it.loses.is_empty());
        differences
    }
}

/// All that is allowed, in words.
fn said(rights: &Rights) -> BTreeSet<String> {
    let things = rights
        .things
        .iter()
        .flat_map(|(action, names)| names.iter().map(|name| Question::Do(*action, name).to_string()));
    let features = rights.features.iter().flat_map(|(view, features)| {
        features.iter().map(|feature| Question::Feature(view, feature).to_string())
    });
    let operations = rights.operations.iter().map(|operation| Question::Operate(*operation).to_string());
    let owners = rights.owners.iter().map(|owner| Question::Apply(Some(owner)).to_string());
    things.chain(features).chain(operations).chain(owners).collect()
}

#[cfg(test)]
mod tests {
    use feature_defs::{DefFile, parse};

    use super::*;

    const BEFORE: &str = "kind: Entity
name: card
join_keys: [{name: card, type: string}]
---
kind: Source
name: payments
push: true
event_timestamp: at
columns: [{name: card, type: string}, {name: at, type: timestamp}, {name: amount, type: float64}]
---
kind: FeatureView
name: card
entities: [card]
source: payments
features: [amount]
---
kind: Role
name: clerk
members: [{key: clerk}]
allow: [{read: [{view: {tag: open}}], operate: [status]}]
";

    #[test]
    fn a_tag_gives_what_its_grants_say() {
        let access =
            |text: String| Access::new(&parse(&[DefFile::new("a.yaml", text)]).expect("sound"), Vec::new());
        let before = access(BEFORE.to_owned());
        let after = BEFORE.replace("entities: [card]", "entities: [card]\ntags: [open]");
        let after = access(after.replace("[status]", "[metrics]"));
        let role = "clerk".to_owned();
        let gains = vec!["operate metrics".to_owned(), "read card:amount".to_owned()];
        let expected = Difference { role, gains, loses: vec!["operate status".to_owned()] };
        assert_eq!(before.differences(&after), [expected]);
        assert_eq!(before.differences(&before), []);
    }
}
