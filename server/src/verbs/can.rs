//! May they? The decision about somebody who does not ask themselves, and why it is so.

use std::collections::BTreeMap;
use std::sync::Arc;

use feature_defs::{Definition, Definitions, Operation, suggest};
use quern_access::{Action, Caller, Principal, Question, Rights, Rule};
use quern_engine::ViewPlan;
use quern_wire::{CanReply, CanRequest};

use crate::error::{Error, Result};
use crate::live::{Deployment, Live};

/// What tells a connection from a role.
const CONNECTION: &str = "connection:";
/// What tells a view from one of its features; a feature of a view of this very name is still that.
const VIEW: &str = "view:";

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
        let theirs = Principal::parse(whom).map_err(Error::invalid)?;
        let questions = Known { live: &live, rights: live.access.rights(who) }.questions(request)?;
        let roles = live.access.rights(&theirs).roles().to_vec();
        let (mut rules, mut refused) = (Vec::new(), Vec::new());
        for question in &questions {
            match live.access.why(&theirs, *question) {
                Some(rule) => rules.push(rule),
                None => refused.push(*question),
            }
        }
        let why = match refused.first() {
            None => Rule::of_all(rules).map(|rule| rule.to_string()).unwrap_or_default(),
            // Nothing else that is asked about is for nobody's role to allow.
            Some(Question::Apply(None)) => "administrators alone change connections".to_owned(),
            Some(question) => {
                let not = format!("no role of theirs allows `{}`", grant(*question));
                match rules.is_empty() {
                    true => not,
                    false => format!("{not}: of its features they may not read {}", features(&refused)),
                }
            }
        };
        Ok(CanReply { allowed: refused.is_empty(), why, roles })
    }
}

/// What there is, as far as who asks may know: what the catalogue shows them, and what they may apply.
struct Known<'a> {
    live: &'a Deployment,
    rights: Arc<Rights>,
}

impl<'a> Known<'a> {
    /// What is asked about them: one thing, or each feature of a view. What who asks may not know of is not there.
    fn questions<'r>(&self, request: &'r CanRequest) -> Result<Vec<Question<'r>>>
    where
        'a: 'r,
    {
        let view = request.what.strip_prefix(VIEW).filter(|_| request.action == "read");
        match view.filter(|feature| !self.has_feature(VIEW.trim_end_matches(':'), feature)) {
            Some(view) => self.of_view(view),
            None => Ok(vec![self.question(request)?]),
        }
    }

    fn question<'r>(&self, request: &'r CanRequest) -> Result<Question<'r>> {
        let CanRequest { action, what, who: _ } = request;
        let Definitions { connections, sources, services, models, .. } = self.definitions();
        match action.as_str() {
            "operate" => {
                let operation = Operation::ALL.into_iter().find(|operation| operation.name() == what);
                let known = || suggest(what, Operation::ALL.map(Operation::name));
                operation
                    .map(Question::Operate)
                    .ok_or_else(|| Error::invalid(format!("unknown operation `{what}`; {}", known())))
            }
            "apply" if what.starts_with(CONNECTION) => {
                let known = self.known(connections, |_, _| false);
                self.check_there("connection", &what[CONNECTION.len()..], known)?;
                Ok(Question::Apply(None))
            }
            "apply" => {
                self.check_there("owner", what, self.roles())?;
                Ok(Question::Apply(Some(what)))
            }
            "read" if what.contains(':') => {
                let (view, feature) = what.split_once(':').unwrap_or_default();
                self.check_feature(what, (view, feature))?;
                Ok(Question::Feature(view, feature))
            }
            name => {
                let Some(action) = Action::ALL.into_iter().find(|action| action.name() == name) else {
                    let known = Action::ALL.map(Action::name).into_iter().chain(["operate", "apply"]);
                    return Err(Error::invalid(format!("nobody can `{name}`; {}", suggest(name, known))));
                };
                match action {
                    Action::Train | Action::Read => {
                        self.check_there("feature service", what, self.known(services, Rights::see_service))?;
                    }
                    Action::Push => {
                        self.check_there("source", what, self.known(sources, Rights::see_source))?;
                    }
                    _ => self.check_there("model", what, self.known(models, Rights::see_model))?,
                }
                Ok(Question::Do(action, what))
            }
        }
    }

    fn check_there(&self, kind: &str, what: &str, known: Vec<&str>) -> Result<()> {
        match known.contains(&what) {
            true => Ok(()),
            false => Err(Error::not_found(format!(
                "unknown {kind} `{what}`; {}",
                self.live.instead_of(what, known)
            ))),
        }
    }

    /// All of a view: who may neither apply nor read it whole is not told which features it has.
    fn of_view(&self, view: &str) -> Result<Vec<Question<'a>>> {
        let declared = &self.definitions().views;
        let features = |view: &'a Arc<ViewPlan>| {
            let fields = view.features.fields().iter();
            fields.map(|field| Question::Feature(&view.name, field.name())).collect::<Vec<_>>()
        };
        let is_theirs = declared.get(view).is_some_and(|view| self.apply(view));
        let found = self.live.compiled.catalog.views.get(view).map(features);
        let found = found.filter(|all| is_theirs || all.iter().all(|one| self.rights.allow(*one)));
        found.ok_or_else(|| {
            let known = self.live.instead_of(view, self.known(declared, Rights::see_view));
            Error::not_found(format!("unknown feature view `{view}`; {known}"))
        })
    }

    fn has_feature(&self, view: &str, feature: &str) -> bool {
        let views = &self.live.compiled.catalog.views;
        views.get(view).is_some_and(|view| view.features.index_of(feature).is_ok())
    }

    fn check_feature(&self, what: &str, (view, feature): (&str, &str)) -> Result<()> {
        let is_there = self.has_feature(view, feature);
        let declared = &self.definitions().views;
        let is_theirs = declared.get(view).is_some_and(|view| self.apply(view));
        let is_known = is_theirs || self.rights.allow(Question::Feature(view, feature));
        match is_there && is_known {
            true => Ok(()),
            false => {
                let known = self.live.instead_of(what, self.known(declared, Rights::see_view));
                Err(Error::not_found(format!("unknown feature `{what}`; {known}")))
            }
        }
    }

    fn definitions(&self) -> &'a Definitions {
        &self.live.compiled.catalog.definitions
    }

    /// Whether they may apply it.
    fn apply(&self, it: &dyn Definition) -> bool {
        let owner = it.governance().and_then(|governance| governance.owner.as_deref());
        self.rights.allow(Question::Apply(owner))
    }

    /// Those that they see, or may apply.
    fn known<T: Definition>(
        &self,
        all: &'a BTreeMap<String, T>,
        sees: fn(&Rights, &str) -> bool,
    ) -> Vec<&'a str> {
        let known = all.values().filter(|it| sees(&self.rights, it.name()) || self.apply(*it));
        known.map(Definition::name).collect()
    }

    /// Those that they have, and those that own what they may apply.
    fn roles(&self) -> Vec<&str> {
        let knows = |name: &&str| {
            self.rights.roles().iter().any(|role| role == name)
                || self.rights.allow(Question::Apply(Some(name)))
        };
        self.definitions().roles.keys().map(String::as_str).filter(knows).collect()
    }
}

/// Of these questions about features, which.
fn features(questions: &[Question<'_>]) -> String {
    let name = |question: &Question<'_>| match question {
        Question::Feature(_, feature) => Some(format!("`{feature}`")),
        _ => None,
    };
    questions.iter().filter_map(name).collect::<Vec<_>>().join(", ")
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
