//! May one who asks apply this? The difference counts, not the repository.
//!
//! Administrators may apply anything. Others change what the roles own that they may apply for, and read with it
//! nothing that they may not read: a view reads all of its source, and a service's features go wherever the service
//! does.

use std::collections::BTreeSet;

use feature_defs::{Definitions, FeatureService, FeatureView, Governance};
use quern_access::{Caller, Question, Rule};
use quern_wire::{Change, DefinitionKind as Kind};

use crate::error::{Error, Result};
use crate::live::describe::kind_of;
use crate::live::{Deployment, Seen};

/// What only administrators change, of whatever kind.
const KEPT: [&str; 3] = ["owner", "reveals", "share"];

/// Refuses what of `changes` is not for `who`, on the way from `live` to `candidate`.
///
/// # Errors
/// `Kind::Forbidden`, with all of it.
pub(super) fn judge(
    who: &Caller,
    (live, candidate): (&Deployment, &Deployment),
    changes: &[Change],
) -> Result<()> {
    // Rights are those of what is live: nobody gives them to themselves.
    let seen = live.seen_by(who);
    seen.check_applies()?;
    if seen.rights.is_all() {
        return Ok(());
    }
    let judging = Judging { who, live, seen, new: &candidate.compiled.catalog.definitions };
    let causes: Vec<String> = changes
        .iter()
        .filter_map(|change| Some(format!("{} `{}`: {}", change.kind, change.name, judging.cause(change)?)))
        .collect();
    if causes.is_empty() {
        return Ok(());
    }
    Err(Error::forbidden(format!("{} may not apply all of this:\n{}", who.name(), causes.join("\n"))))
}

/// Why `who` may apply these changes: by the grant for each owner of what changes, before and after.
pub(super) fn rule(
    who: &Caller,
    (live, candidate): (&Deployment, &Deployment),
    changes: &[Change],
) -> Option<Rule> {
    let both = [live, candidate].map(|it| &it.compiled.catalog.definitions);
    let governed = changes
        .iter()
        .flat_map(|change| both.into_iter().filter_map(move |definitions| governance(definitions, change)));
    let mut owners: BTreeSet<Option<&str>> = governed.map(|governance| governance.owner.as_deref()).collect();
    if owners.is_empty() {
        // Roles have no owners.
        owners.insert(None);
    }
    let rules = owners.into_iter().map(|owner| live.access.why(who, Question::Apply(owner)));
    Rule::of_all(rules.collect::<Option<_>>()?)
}

struct Judging<'a> {
    who: &'a Caller,
    live: &'a Deployment,
    seen: Seen<'a>,
    new: &'a Definitions,
}

impl Judging<'_> {
    /// Why a change is not theirs, if it is not.
    fn cause(&self, change: &Change) -> Option<String> {
        if let Kind::Role | Kind::Connection = change.kind {
            return Some(format!("administrators alone change {}s", change.kind));
        }
        let old = governance(&self.live.compiled.catalog.definitions, change);
        let new = governance(self.new, change);
        for owner in [old, new].into_iter().flatten().map(|governance| governance.owner.as_deref()) {
            if !self.seen.may(Question::Apply(owner)) {
                return Some(match owner {
                    Some(owner) => format!("no role of theirs allows `{{apply: [{{owner: {owner}}}]}}`"),
                    None => "nobody owns it, so it is for administrators: it has no `owner`".to_owned(),
                });
            }
        }
        if let Some(key) = change.keys.iter().map(|change| change.key.as_str()).find(|key| KEPT.contains(key))
        {
            return Some(format!("administrators alone change `{key}`"));
        }
        if old.is_none() && new.is_some_and(|new| !new.share.is_empty()) {
            return Some("administrators alone `share` what is new".to_owned());
        }
        match change.kind {
            Kind::FeatureView => self.view(self.new.views.get(&change.name)?),
            Kind::FeatureService => self.service(self.new.services.get(&change.name)?),
            Kind::Model => self.model(&change.name),
            Kind::Entity | Kind::Connection | Kind::Source | Kind::Role => None,
        }
    }

    fn view(&self, view: &FeatureView) -> Option<String> {
        let source = self.new.sources.get(&view.source)?;
        let owner = source.governance.owner.as_deref();
        let is_theirs = self.seen.may(Question::Apply(owner));
        (!is_theirs).then(|| format!("it would read source `{}`, which is not theirs", source.name))
    }

    /// What another project shares, it shares: without that, the definitions would not hold.
    fn service(&self, service: &FeatureService) -> Option<String> {
        service.projections.iter().find_map(|projection| {
            let view = self.new.views.get(&projection.view)?;
            let is_theirs = self.seen.may(Question::Apply(view.governance.owner.as_deref()))
                || view.loc.project() != service.loc.project();
            let may =
                |feature: &&String| !is_theirs && !self.seen.may(Question::Feature(&view.name, feature));
            let feature = projection.features.iter().find(may)?;
            Some(format!("it would take `{}:{feature}`, which they may not read", view.name))
        })
    }

    fn model(&self, name: &str) -> Option<String> {
        let model = self.new.models.get(name)?;
        if !model.reveals.is_empty() && !self.live.models.contains_key(name) {
            return Some("administrators alone say what it `reveals`".to_owned());
        }
        let owner = model.governance.owner.as_deref()?;
        let is_one = self.live.access.has_role(self.who, owner);
        (!is_one).then(|| format!("they have not the role `{owner}`, which answers for it"))
    }
}

fn governance<'a>(definitions: &'a Definitions, change: &Change) -> Option<&'a Governance> {
    definitions.get(kind_of(change.kind), &change.name)?.governance()
}
