//! Whose rows may one who asks take out as a table?
//!
//! A look-up tells of keys that one knows; a table tells all keys there are, and all that was. So it asks for both: the
//! features must be theirs to read, and a feature service that takes the view theirs to train with. What lies in a
//! source besides features is for administrators.

use feature_defs::Source;
use quern_engine::{ServicePlan, ViewPlan};

use super::*;

impl<'a> Seen<'a> {
    /// The feature view of this name, and the places of its features that are named, or of all, for a table of its
    /// rows.
    ///
    /// # Errors
    /// `Kind::NotFound`, with the nearest names; `Kind::Forbidden`.
    pub fn export(&self, name: &str, features: &[String]) -> Result<(&'a Arc<ViewPlan>, Vec<usize>)> {
        let views = &self.live.compiled.catalog.views;
        let Some(view) = views.get(name).filter(|_| self.rights.see_view(name)) else {
            self.live.audit.note(self.who, format_args!("export {name}"), || None);
            let known = views.keys().map(String::as_str).filter(|name| self.rights.see_view(name));
            return Err(self.unknown("feature view", name, known));
        };
        let all = || view.features.fields().iter().map(|field| field.name().as_str()).collect();
        let wanted: Vec<&str> = match features {
            [] => all(),
            named => named.iter().map(String::as_str).collect(),
        };
        let mut places = Vec::with_capacity(wanted.len());
        for feature in wanted {
            match view.feature(feature).filter(|_| self.may(Question::Feature(name, feature))) {
                Some(place) if places.contains(&place) => {
                    return Err(Error::invalid(format!("feature `{name}:{feature}` is named twice")));
                }
                Some(place) => places.push(place),
                None => self.feature(name, feature)?,
            }
        }
        let trains = self.trains_with(name);
        let allowed = self.rights.is_all() || trains.is_some();
        let question =
            trains.map_or(Question::Apply(None), |service| Question::Do(Action::Train, &service.name));
        let why = || self.live.access.why(self.who, question);
        self.live.audit.note(self.who, format_args!("export {name}"), || why().filter(|_| allowed));
        match allowed {
            true => Ok((view, places)),
            false => Err(Error::forbidden(format!(
                "{} may not export feature view `{name}`; a role with `{{train: […]}}` allows it that names a feature service \
                 which takes the view",
                self.who.name()
            ))),
        }
    }

    /// Refuses who may no longer do that with a view that a table under way is of. What is gone since is there for as
    /// long as that request, for who may do everything.
    ///
    /// # Errors
    /// As [`Seen::export`].
    pub fn export_still(&self, name: &str, features: &[String]) -> Result<()> {
        let view = self.live.compiled.catalog.views.get(name);
        let reads = |feature: &str| self.may(Question::Feature(name, feature));
        let reads_all = match features {
            [] => view.is_some_and(|view| view.features.fields().iter().all(|field| reads(field.name()))),
            named => named.iter().all(|feature| reads(feature)),
        };
        match self.rights.is_all() || (reads_all && self.trains_with(name).is_some()) {
            true => Ok(()),
            false => self.export(name, features).map(drop),
        }
    }

    /// The source of this name, for a table of its rows. It is in the audit before this returns: call it where blocking
    /// is allowed.
    ///
    /// # Errors
    /// `Kind::Forbidden` for who is no administrator; `Kind::NotFound`, with the nearest names.
    pub fn export_source(&self, name: &str) -> Result<&'a Source> {
        self.administer(&format!("export source {name}"))?;
        let sources = &self.live.compiled.catalog.definitions.sources;
        sources.get(name).ok_or_else(|| self.unknown("source", name, sources.keys().map(String::as_str)))
    }

    /// A feature service that takes the view, and that they may train with.
    fn trains_with(&self, view: &str) -> Option<&'a Arc<ServicePlan>> {
        let takes = |service: &&Arc<ServicePlan>| service.lookups.iter().any(|it| it.view.name == view);
        let mut services = self.live.compiled.catalog.services.values().filter(takes);
        services.find(|service| self.may(Question::Do(Action::Train, &service.name)))
    }
}
