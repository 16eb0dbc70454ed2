//! What is live, as far as one who asks may know?
//!
//! Whatever a request names is found here, by what is done with it. What nobody allows looks like what is not there, in
//! suggestions as well; what one may do something else with is forbidden.

mod export;

use std::fmt::Display;
use std::sync::Arc;

use feature_defs::{Definition, Operation, Source};
use quern_access::{Action, Caller, Question, Rights};
use quern_engine::{ServicePlan, ViewPlan};

use super::{Deployment, LiveModel};
use crate::error::{Error, Result};

/// What is done to definitions, and the grant that allows it.
const CHANGE: &str = "change definitions";
const APPLY: &str = "{apply: [{owner: …}]}";

/// A deployment, as one who asks sees it.
pub struct Seen<'a> {
    live: &'a Deployment,
    who: &'a Caller,
    /// What they may do.
    pub rights: Arc<Rights>,
}

/// That who asks may keep the server running in one way, and that it stands in the audit.
#[derive(Debug)]
pub struct Permitted(Operation);

impl Permitted {
    /// Refuses what was not meant.
    pub(crate) fn to(&self, operation: Operation) -> Result<()> {
        match self.0 == operation {
            true => Ok(()),
            false => Err(Error::broken(format!("{} was permitted, not {}", self.0.name(), operation.name()))),
        }
    }
}

impl Deployment {
    /// What `who` sees of it.
    pub fn seen_by<'a>(&'a self, who: &'a Caller) -> Seen<'a> {
        Seen { live: self, who, rights: self.access.rights(who) }
    }

    /// The source of this name, to which rows were pushed by who may.
    ///
    /// # Errors
    /// `Kind::NotFound` where it is gone since; `Kind::Refused` for one that takes none.
    pub(crate) fn pushed_to(&self, name: &str) -> Result<&Source> {
        let source = self.compiled.catalog.definitions.sources.get(name);
        let source = source.ok_or_else(|| Error::not_found(format!("source `{name}` is gone")))?;
        match source.push {
            true => Ok(source),
            false => Err(Error::refused(format!(
                "source `{name}` takes no pushed rows; give it `push: true` ({}:{}) and apply",
                source.loc.file, source.loc.line
            ))),
        }
    }
}

impl<'a> Seen<'a> {
    /// Whether they may do that.
    pub fn may(&self, question: Question<'_>) -> bool {
        self.rights.allow(question)
    }

    /// The model of this name, for that.
    ///
    /// # Errors
    /// `Kind::NotFound`, with the nearest names; `Kind::Forbidden`.
    pub fn model(&self, action: Action, name: &str) -> Result<&'a Arc<LiveModel>> {
        let models = &self.live.models;
        match models.get(name).filter(|_| self.rights.see_model(name)) {
            Some(model) => self.check(action, "model", name).map(|()| model),
            None => {
                self.note(Question::Do(action, name), false);
                let known = models.keys().map(String::as_str).filter(|name| self.rights.see_model(name));
                Err(self.unknown("model", name, known))
            }
        }
    }

    /// Refuses at once who may not do that with the model of this name; who may is asked again when it is done.
    ///
    /// # Errors
    /// As [`Seen::model`].
    pub fn permit_on(&self, action: Action, name: &str) -> Result<()> {
        match self.may(Question::Do(action, name)) && self.live.models.contains_key(name) {
            true => Ok(()),
            false => self.model(action, name).map(|_| ()),
        }
    }

    /// Refuses who may no longer do that with what a request under way has found by this name. What is gone since is
    /// there for as long as that request, for who may do everything.
    ///
    /// # Errors
    /// As [`Seen::model`].
    pub fn permit_still(&self, action: Action, name: &str) -> Result<()> {
        match (self.may(Question::Do(action, name)), action) {
            (true, _) => Ok(()),
            (false, Action::Train | Action::Read) => self.service(action, name).map(drop),
            (false, Action::Push) => self.source(name).map(drop),
            (false, _) => self.model(action, name).map(drop),
        }
    }

    /// Refuses what is asked of a model that may be gone, of which there is still something to read.
    ///
    /// # Errors
    /// As [`Seen::model`].
    pub fn model_that_was(
        &self,
        action: Action,
        name: &str,
        was: impl FnOnce() -> Result<bool>,
    ) -> Result<()> {
        let is_there = self.live.models.contains_key(name);
        match self.rights.is_all() && !is_there && was()? {
            true => {
                self.note(Question::Do(action, name), true);
                Ok(())
            }
            false => self.model(action, name).map(|_| ()),
        }
    }

    /// The feature service of this name, for that.
    ///
    /// # Errors
    /// As [`Seen::model`].
    pub fn service(&self, action: Action, name: &str) -> Result<&'a Arc<ServicePlan>> {
        let services = &self.live.compiled.catalog.services;
        match services.get(name).filter(|_| self.rights.see_service(name)) {
            Some(service) => self.check(action, "feature service", name).map(|()| service),
            None => {
                self.note(Question::Do(action, name), false);
                let known = services.keys().map(String::as_str);
                let known = known.filter(|name| self.rights.see_service(name));
                Err(self.unknown("feature service", name, known))
            }
        }
    }

    /// Refuses a feature of a view that they may not look up.
    ///
    /// # Errors
    /// `Kind::NotFound`, with the nearest that they may.
    pub fn feature(&self, view: &str, feature: &str) -> Result<()> {
        let views = &self.live.compiled.catalog.views;
        let has = views.get(view).is_some_and(|view| view.features.index_of(feature).is_ok());
        let allowed = has && self.may(Question::Feature(view, feature));
        self.note(Question::Feature(view, feature), allowed);
        if allowed {
            return Ok(());
        }
        let names = |view: &'a Arc<ViewPlan>| {
            let features = view.features.fields().iter().map(|field| field.name().as_str());
            features.map(|feature| (view.name.as_str(), feature))
        };
        let known = views
            .values()
            .flat_map(names)
            .filter(|(view, feature)| self.may(Question::Feature(view, feature)));
        let known: Vec<String> = known.map(|(view, feature)| format!("{view}:{feature}")).collect();
        Err(self.unknown("feature", &format!("{view}:{feature}"), known.iter().map(String::as_str)))
    }

    /// The source that takes pushes under this name.
    ///
    /// # Errors
    /// As [`Seen::model`]; `Kind::Refused` for a source that takes none.
    pub fn source(&self, name: &str) -> Result<&'a Source> {
        let sources = &self.live.compiled.catalog.definitions.sources;
        let allowed = self.rights.see_source(name) && sources.contains_key(name);
        self.note(Question::Do(Action::Push, name), allowed);
        if allowed {
            let source = self.live.pushed_to(name)?;
            return match source.is_pushed_to() {
                true => Ok(source),
                false => Err(Error::refused(format!(
                    "the rows of source `{name}` come from a database; where some are pushed beside, give it `push: true` \
                     ({}:{}) and apply",
                    source.loc.file, source.loc.line
                ))),
            };
        }
        let known =
            sources.values().filter(|source| source.is_pushed_to()).map(|source| source.name.as_str());
        Err(self.unknown("source", name, known.filter(|name| self.rights.see_source(name))))
    }

    /// The source behind the view of this name, for who names that to push to it.
    ///
    /// # Errors
    /// As [`Seen::source`].
    pub fn source_of_view(&self, name: &str) -> Result<&'a Source> {
        let views = &self.live.compiled.catalog.views;
        let takes = |view: &&Arc<ViewPlan>| self.rights.see_source(&view.source);
        match views.get(name).filter(takes) {
            Some(view) => self.source(&view.source),
            None => {
                self.note(Question::Do(Action::Push, name), false);
                // Whoever may push to a source may push by any of its views, and need not know what they are called.
                let known = views.values().filter(takes).map(|view| view.name.as_str());
                Err(self.unknown("feature view", name, known.filter(|name| self.rights.see_view(name))))
            }
        }
    }

    /// Refuses who may not keep the server running in this way. What changes something is in the audit before this
    /// returns: call it where blocking is allowed.
    ///
    /// # Errors
    /// `Kind::Forbidden`; `Kind::Unavailable` where the audit cannot be written.
    pub fn operate(&self, operation: Operation) -> Result<Permitted> {
        let (name, question) = (operation.name(), Question::Operate(operation));
        let is_look = matches!(operation, Operation::Metrics | Operation::Status);
        match self.may(question) {
            true if is_look => self.note(question, true),
            true => self.act(question)?,
            false => {
                self.note(question, false);
                return Err(self.forbidden(name, &format!("{{operate: [{name}]}}")));
            }
        }
        Ok(Permitted(operation))
    }

    /// Refuses who is no administrator. What they do is in the audit before this returns: call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// As [`Seen::operate`].
    pub fn administer(&self, what: &str) -> Result<()> {
        self.check_administers(what)?;
        self.live.audit.write(self.who, what, || self.live.access.why(self.who, Question::Apply(None)))
    }

    /// The same for what only takes away: it is done also where the audit cannot be written.
    ///
    /// # Errors
    /// `Kind::Forbidden`.
    pub fn take_away(&self, what: &str) -> Result<()> {
        self.check_administers(what)?;
        let why = || self.live.access.why(self.who, Question::Apply(None));
        self.live.audit.write_or_lose(self.who, what, why);
        Ok(())
    }

    /// Refuses who is an administrator no longer, of what they have begun.
    ///
    /// # Errors
    /// `Kind::Forbidden`.
    pub fn administer_still(&self, what: &str) -> Result<()> {
        self.check_administers(what)
    }

    fn check_administers(&self, what: &str) -> Result<()> {
        if self.rights.is_all() {
            return Ok(());
        }
        self.live.audit.note(self.who, what, || None);
        let who = self.who.name();
        Err(Error::forbidden(format!(
            "{who} may not {what}: administrators may, whom quern.yaml names as `admins`"
        )))
    }

    /// The same of what is done to a model.
    ///
    /// # Errors
    /// As [`Seen::model`] and [`Seen::operate`].
    pub fn act_on(&self, action: Action, model: &str) -> Result<()> {
        self.model(action, model)?;
        self.act(Question::Do(action, model))
    }

    /// Writes down that they do what they may.
    fn act(&self, question: Question<'_>) -> Result<()> {
        self.live.audit.write(self.who, question, || self.live.access.why(self.who, question))
    }

    /// Notes a decision.
    pub(crate) fn note(&self, question: Question<'_>, allowed: bool) {
        let why = || self.live.access.why(self.who, question);
        self.live.audit.note(self.who, question, || why().filter(|_| allowed));
    }

    /// Refuses who may not change any definition of a project, and so not ask `what` is asked of who may.
    ///
    /// # Errors
    /// `Kind::Forbidden`, whether there is such a project or not.
    pub fn apply_in(&self, project: &str, what: impl Display) -> Result<()> {
        let owner = self.rights.owners().find(|owner| self.owns_in(owner, project));
        self.note_applies(owner, what, &format!("{CHANGE} of the project `{project}`"))
    }

    /// Refuses who may not change any definition, and so not ask `what` is asked of who may.
    ///
    /// # Errors
    /// `Kind::Forbidden`.
    pub fn apply_any(&self, what: impl Display) -> Result<()> {
        self.note_applies(self.rights.owners().next(), what, CHANGE)
    }

    /// Notes whether they may do that: as one whose definitions they may change, or everything.
    fn note_applies(&self, owner: Option<&str>, what: impl Display, refused: &str) -> Result<()> {
        let allowed = self.rights.is_all() || owner.is_some();
        let why = || self.live.access.why(self.who, Question::Apply(owner));
        self.live.audit.note(self.who, what, || why().filter(|_| allowed));
        match allowed {
            true => Ok(()),
            false => Err(self.forbidden(refused, APPLY)),
        }
    }

    /// Whether a role is of this project, or owns something in it.
    fn owns_in(&self, role: &str, project: &str) -> bool {
        let definitions = &self.live.compiled.catalog.definitions;
        let is_of = |it: &&dyn Definition| it.loc().project() == project;
        definitions.all().filter(is_of).any(|it| match it.governance() {
            Some(governance) => governance.owner.as_deref() == Some(role),
            None => it.name() == role,
        })
    }

    /// The same where the decision is another one, of which this is a part.
    pub(crate) fn check_applies(&self) -> Result<()> {
        match self.rights.apply_any() {
            true => Ok(()),
            false => Err(self.forbidden(CHANGE, APPLY)),
        }
    }

    fn check(&self, action: Action, kind: &str, name: &str) -> Result<()> {
        let allowed = self.may(Question::Do(action, name));
        // What changes something says so itself, and waits.
        if !(allowed && action == Action::Route) {
            self.note(Question::Do(action, name), allowed);
        }
        match allowed {
            true => Ok(()),
            false => {
                let action = action.name();
                let grant = format!("{{{action}: [{name}]}}");
                Err(self.forbidden(&format!("{action} {kind} `{name}`"), &grant))
            }
        }
    }

    /// Why that is refused, and what would allow it.
    pub fn forbidden(&self, what: &str, grant: &str) -> Error {
        Error::forbidden(format!("{} may not {what}; a role with `{grant}` allows it", self.who.name()))
    }

    fn unknown<'n>(&self, kind: &str, name: &str, known: impl Iterator<Item = &'n str>) -> Error {
        Error::not_found(format!("unknown {kind} `{name}`; {}", self.live.instead_of(name, known)))
    }
}
