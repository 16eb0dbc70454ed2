//! May the owner of a model know what goes into it, and do its replies show what they may?
//!
//! Whoever may ask a model gets its outputs, and need not be able to read a feature. So who answers for it must be able
//! to, and a feature that SQL shows as it is, without a model in between, is one that the model says it `reveals`. What
//! a model computes is its owner's word.

use std::collections::BTreeSet;

use feature_defs::{DefError, Model as Declared};
use quern_access::{Access, Action, Question};
use quern_engine::ServicePlan;

use crate::live::model::Substitute;
use crate::live::{LiveModel, LiveVersion};

/// Every feature behind a model, as view and feature.
type Features<'a> = BTreeSet<(&'a str, &'a str)>;

/// What is wrong with a model, where there are roles: without them, who may ask may read.
pub(super) fn check(declared: &Declared, live: &LiveModel, access: &Access) -> Vec<DefError> {
    let mut mistakes = Vec::new();
    if !access.has_roles() {
        return mistakes;
    }
    if let Some(owner) = &declared.governance.owner {
        let rights = access.of_role(owner);
        for version in &live.versions {
            let service = &version.service;
            if rights.allow(Question::Do(Action::Read, &service.name)) {
                continue;
            }
            let unread: Features<'_> = all(service)
                .into_iter()
                .filter(|(view, feature)| !rights.allow(Question::Feature(view, feature)))
                .collect();
            let cause = format!(
                "role `{owner}` answers for model `{}` and may not read {}, which goes into version `{}`",
                declared.name,
                named(&unread),
                version.version
            );
            let help = format!(
                "let it `{{read: [{{service: {}}}]}}`, or let another role own the model",
                service.name
            );
            mistakes.push(DefError::new(&declared.loc, cause).with_help(help));
        }
    }
    let revealed: BTreeSet<&str> = declared.reveals.iter().map(String::as_str).collect();
    for (place, version) in live.versions.iter().enumerate() {
        let mut shown = shown(version, live, place);
        shown.retain(|(view, feature)| !revealed.contains(format!("{view}:{feature}").as_str()));
        if !shown.is_empty() {
            let cause = format!(
                "replies of model `{}`, version `{}`, show {} by SQL, without a model in between, to who may not read it",
                declared.name,
                version.version,
                named(&shown)
            );
            let list: Vec<String> =
                shown.iter().map(|(view, feature)| format!("\"{view}:{feature}\"")).collect();
            let help = format!(
                "say so with `reveals: [{}]`, or let it out of steps, outputs and fallbacks",
                list.join(", ")
            );
            mistakes.push(DefError::new(&declared.loc, cause).with_help(help));
        }
    }
    mistakes
}

/// The features that replies of a version, or what stands in for it, show by SQL alone.
fn shown<'a>(version: &'a LiveVersion, live: &LiveModel, place: usize) -> Features<'a> {
    let mut columns = version.model.shows();
    for substitute in live.fallback.iter().flat_map(|fallback| &fallback.to) {
        if let Substitute::Expr(expressions) = substitute {
            columns.extend(expressions[place].reads());
        }
    }
    columns.into_iter().flat_map(|column| version.service.features_behind(column)).collect()
}

fn all(service: &ServicePlan) -> Features<'_> {
    let taken = |lookup: &quern_engine::Lookup| lookup.features.clone();
    let lookups = service.lookups.iter();
    lookups
        .flat_map(|lookup| {
            let name = |feature: usize| lookup.view.features.field(feature).name().as_str();
            taken(lookup).into_iter().map(move |feature| (lookup.view.name.as_str(), name(feature)))
        })
        .collect()
}

fn named(features: &Features<'_>) -> String {
    let named: Vec<String> = features.iter().map(|(view, feature)| format!("`{view}:{feature}`")).collect();
    named.join(", ")
}
