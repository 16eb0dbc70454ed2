//! May they? The decision about somebody who does not ask themselves, and why it is so.

use feature_defs::{Member, Operation, suggest};
use quern_access::{Action, Caller, Principal, Question};
use quern_wire::{CanReply, CanRequest};

use crate::error::{Error, Result};
use crate::live::{Deployment, Live};

/// Explains decisions.
pub struct Can {
    pub(crate) live: Live,
}

impl Can {
    /// Whether the one that `request` names may do that, and why, for `who` wants to know.
    ///
    /// # Errors
    /// `Kind::Forbidden` for who may not change definitions; what nobody is, what nobody does, what is not there.
    pub fn ask(&self, who: &Caller, request: &CanRequest) -> Result<CanReply> {
        let live = self.live.now();
        let CanRequest { who: whom, action, what } = request;
        live.seen_by(who).apply_any(format_args!("can {whom} {action} {what}"))?;
        let theirs = Principal::of(Member::parse(&request.who).map_err(Error::invalid)?);
        let question = question(&live, request)?;
        let roles = live.access.rights(&theirs).roles().to_vec();
        let (allowed, why) = match live.access.why(&theirs, question) {
            Some(rule) => (true, rule.to_string()),
            None => (false, format!("no role of theirs allows `{}`", grant(question))),
        };
        Ok(CanReply { allowed, why, roles })
    }
}

/// What is asked about them.
fn question<'a>(live: &Deployment, request: &'a CanRequest) -> Result<Question<'a>> {
    let CanRequest { action, what, who: _ } = request;
    let catalog = &live.compiled.catalog;
    let definitions = &catalog.definitions;
    let there = |kind: &str, is_there: bool, known: Vec<&str>| match is_there {
        true => Ok(()),
        false => Err(Error::not_found(format!("unknown {kind} `{what}`; {}", live.instead_of(what, known)))),
    };
    let model = || there("model", live.models.contains_key(what), names(live.models.keys()));
    let service =
        || there("feature service", catalog.services.contains_key(what), names(catalog.services.keys()));
    match action.as_str() {
        "operate" => {
            let operation = Operation::ALL.into_iter().find(|operation| operation.name() == what);
            let known = || suggest(what, Operation::ALL.map(Operation::name));
            operation
                .map(Question::Operate)
                .ok_or_else(|| Error::invalid(format!("unknown operation `{what}`; {}", known())))
        }
        "apply" => {
            there("role", definitions.roles.contains_key(what), names(definitions.roles.keys()))?;
            Ok(Question::Apply(Some(what)))
        }
        "read" if what.contains(':') => {
            let (view, feature) = what.split_once(':').unwrap_or_default();
            let found = catalog.views.get(view).is_some_and(|view| view.features.index_of(feature).is_ok());
            there("feature", found, names(catalog.views.keys()))?;
            Ok(Question::Feature(view, feature))
        }
        name => {
            let Some(action) = Action::ALL.into_iter().find(|action| action.name() == name) else {
                let known = Action::ALL.map(Action::name).into_iter().chain(["operate", "apply"]);
                return Err(Error::invalid(format!("nobody can `{name}`; {}", suggest(name, known))));
            };
            match action {
                Action::Train | Action::Read => service()?,
                Action::Push => {
                    let sources = &definitions.sources;
                    there("source", sources.contains_key(what), names(sources.keys()))?;
                }
                _ => model()?,
            }
            Ok(Question::Do(action, what))
        }
    }
}

fn names<'a>(keys: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    keys.map(String::as_str).collect()
}

/// What a role would have to say.
fn grant(question: Question<'_>) -> String {
    match question {
        Question::Do(Action::Read, service) => format!("{{read: [{{service: {service}}}]}}"),
        Question::Do(action, name) => format!("{{{}: [{name}]}}", action.name()),
        Question::Feature(view, _) => format!("{{read: [{{view: {view}}}]}}"),
        Question::Operate(operation) => format!("{{operate: [{}]}}", operation.name()),
        Question::Apply(owner) => format!("{{apply: [{{owner: {}}}]}}", owner.unwrap_or("…")),
    }
}
