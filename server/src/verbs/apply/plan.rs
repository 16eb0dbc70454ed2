//! What would change, what must be materialized anew, and which model in use would break?

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Schema;
use quern_engine::schema::type_name;
use quern_engine::windows::Kept;
use quern_engine::{ViewId, ViewPlan};
use serde::{Deserialize, Serialize};

use crate::live::Deployment;
use crate::live::LiveVersion;
use crate::live::describe::{Keys, Kind, describe};

/// The way from what is live to a candidate. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Number of what is live; 0 before the first apply.
    pub base: u64,
    /// Number of what is live once the plan is applied; the same where it changes nothing.
    pub number: u64,
    /// Whether it has been applied.
    pub applied: bool,
    /// What is added, changed and removed, by kind and name.
    pub changes: Vec<Change>,
    /// Feature views whose rows must be computed anew.
    pub materialize: Vec<ViewToMaterialize>,
    /// Feature views whose stored rows stay good.
    pub keep: Vec<String>,
    /// New windows that stored tiles already reach, as `view.feature`: they answer as soon as they are live.
    pub answer_at_once: Vec<String>,
    /// Models in use that go on, on inputs computed in another way.
    pub affected: Vec<String>,
    /// Models in use that would break: for as long as there are any, the plan is refused.
    pub breaks: Vec<Break>,
}

/// One definition that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What happens to it.
    pub action: Action,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What differs in it, where it is on both sides.
    pub keys: Vec<KeyChange>,
}

/// What happens to a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Add,
    /// It says something else.
    Change,
    /// It is gone.
    Remove,
}

/// One thing that a definition says differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// As in `ttl` or `feature last_delay`.
    pub key: String,
    /// What it says now.
    pub old: Option<String>,
    /// What it would say.
    pub new: Option<String>,
}

/// A feature view whose rows, or some of whose windows, must be computed anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewToMaterialize {
    /// Its name.
    pub view: String,
    /// Why.
    pub reason: Reason,
    /// How many files of its source are read for it.
    pub files: usize,
    /// How many bytes they are.
    pub bytes: u64,
}

/// Why a view must be materialized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is new.
    New,
    /// What shapes its rows changed.
    Changed,
    /// Stored tiles do not reach the windows of these features. Its other features go on answering.
    Windows(Vec<String>),
}

/// A version of a model that is in use and would break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Break {
    /// Name of the model.
    pub model: String,
    /// Name of the version.
    pub version: String,
    /// What would break it.
    pub cause: String,
    /// How to go on.
    pub help: String,
}

impl Plan {
    /// The way from `live` to `candidate`, over stores that tell what they hold.
    pub(super) fn between(live: &Deployment, candidate: &Deployment, stored: &Stored) -> Plan {
        let changes = changes(live, candidate);
        let known: BTreeSet<ViewId> = live.compiled.catalog.views.values().map(|view| view.id).collect();
        let (mut materialize, mut keep, mut answer_at_once) = (Vec::new(), Vec::new(), Vec::new());
        for view in candidate.compiled.catalog.views.values() {
            let old = live.compiled.catalog.views.get(&view.name);
            let reason = match old {
                _ if known.contains(&view.id) => {
                    let (missing, reached) = new_windows(view, old, stored);
                    answer_at_once.extend(reached.iter().map(|feature| format!("{}.{feature}", view.name)));
                    if missing.is_empty() {
                        keep.push(view.name.clone());
                        continue;
                    }
                    Reason::Windows(missing)
                }
                Some(_) => Reason::Changed,
                None => Reason::New,
            };
            let (files, bytes) = (stored.history)(&view.source);
            materialize.push(ViewToMaterialize { view: view.name.clone(), reason, files, bytes });
        }
        let both = live.models.iter().flat_map(|(model, live)| {
            live.versions.iter().filter_map(|old| {
                let new = candidate.version(model, Some(&old.version))?;
                Some((model.as_str(), old, new))
            })
        });
        let (mut affected, mut breaks) = (Vec::new(), Vec::new());
        for (model, old, new) in both {
            match inputs_differ(&old.service.outputs, &new.service.outputs) {
                Some(cause) => breaks.push(Break::inputs(model, new, &cause)),
                None => affected.extend(computed_differently(model, old, new, &changes)),
            }
        }
        Plan {
            base: live.number,
            number: if changes.is_empty() { live.number } else { live.number + 1 },
            applied: false,
            materialize,
            keep,
            answer_at_once,
            changes,
            affected,
            breaks,
        }
    }

    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What the stores hold, as far as a plan asks.
pub(super) struct Stored<'a> {
    /// What the head keeps of a view's events.
    pub(super) kept: &'a (dyn Fn(ViewId) -> Option<Arc<Kept>> + Sync),
    /// Files and bytes of a source.
    pub(super) history: &'a (dyn Fn(&str) -> (usize, u64) + Sync),
}

/// The features whose windows the stored tiles do not reach, and the new ones whose windows they do.
fn new_windows(view: &ViewPlan, old: Option<&Arc<ViewPlan>>, stored: &Stored) -> (Vec<String>, Vec<String>) {
    let Some(windows) = &view.windows else { return Default::default() };
    let Some(kept) = (stored.kept)(view.id) else { return Default::default() };
    let names = view.features.fields().iter().map(|field| field.name().clone()).enumerate();
    let (reached, missing): (Vec<_>, Vec<_>) = names.partition(|(i, _)| windows.is_kept(*i, &kept));
    let is_new = |name: &String| old.is_some_and(|old| old.features.index_of(name).is_err());
    let names = |features: Vec<(usize, String)>| features.into_iter().map(|(_, name)| name);
    (names(missing).collect(), names(reached).filter(is_new).collect())
}

fn changes(live: &Deployment, candidate: &Deployment) -> Vec<Change> {
    let (old, new) = (describe(live), describe(candidate));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let change = |name: &(Kind, String)| {
        let (action, keys) = match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if old == new => return None,
            (Some(old), Some(new)) => (Action::Change, key_changes(old, new)),
            (Some(_), None) => (Action::Remove, Vec::new()),
            (None, _) => (Action::Add, Vec::new()),
        };
        Some(Change { action, kind: name.0, name: name.1.clone(), keys })
    };
    names.into_iter().filter_map(change).collect()
}

fn key_changes(old: &Keys, new: &Keys) -> Vec<KeyChange> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    differ
        .map(|key| KeyChange { key: key.clone(), old: old.get(key).cloned(), new: new.get(key).cloned() })
        .collect()
}

/// How a model's inputs differ in name, type or order, if they do.
fn inputs_differ(old: &Schema, new: &Schema) -> Option<String> {
    let columns = |schema: &Schema| -> Vec<String> {
        let column = schema.fields().iter();
        column.map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect()
    };
    let (old, new) = (columns(old), columns(new));
    if old == new {
        return None;
    }
    let place = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let at =
        |columns: &[String]| columns.get(place).map_or("nothing".to_owned(), |column| format!("`{column}`"));
    Some(format!(
        "input {} of {} is {} and would be {} of {}",
        place + 1,
        old.len(),
        at(&old),
        at(&new),
        new.len()
    ))
}

fn computed_differently(
    model: &str,
    old: &LiveVersion,
    new: &LiveVersion,
    changes: &[Change],
) -> Option<String> {
    let service = &new.service.name;
    let service_differs = old.service.name != *service
        || old.service.defaults != new.service.defaults
        || changes.iter().any(|change| {
            change.kind == Kind::FeatureService
                && change.name == *service
                && change.keys.iter().any(|key| key.key != "description")
        });
    let ids =
        |live: &LiveVersion| live.service.lookups.iter().map(|lookup| lookup.view.id).collect::<Vec<_>>();
    let known = ids(old);
    let views =
        new.service.lookups.iter().map(|lookup| &lookup.view).filter(|view| !known.contains(&view.id));
    let mut causes: Vec<String> = views.map(|view| format!("feature view `{}`", view.name)).collect();
    causes.dedup();
    if service_differs {
        causes.insert(0, format!("feature service `{service}`"));
    }
    (!causes.is_empty()).then(|| {
        format!(
            "model `{model}`, version `{}`: its inputs keep their names and types and are computed in another way than \
             those it was trained on ({})",
            new.version,
            causes.join(", ")
        )
    })
}

impl Break {
    fn inputs(model: &str, live: &LiveVersion, cause: &str) -> Break {
        Break {
            model: model.to_owned(),
            version: live.version.clone(),
            cause: format!("feature service `{}` would hand it other inputs: {cause}", live.service.name),
            help: "leave the service as it is, add a new service and a new model version beside them, and remove the \
                   old ones once nobody asks for them"
                .to_owned(),
        }
    }

    /// The file of a version is not the one that was applied as number `number`.
    pub(super) fn content(model: &str, version: &str, number: u64) -> Break {
        Break {
            model: model.to_owned(),
            version: version.to_owned(),
            cause: format!("its file is not the one that went live with apply {number}"),
            help: "a version never changes: add the new file as a new version, and remove the old one once nobody asks \
                   for it"
                .to_owned(),
        }
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model `{}`, version `{}`: {}\n  help: {}", self.model, self.version, self.cause, self.help)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() && self.breaks.is_empty() {
            return match self.base {
                0 => f.write_str("no changes; nothing has been applied yet"),
                number => write!(f, "no changes; apply {number} is live"),
            };
        }
        for change in &self.changes {
            writeln!(f, "{} {} {}", change.action.sign(), change.kind, change.name)?;
            for key in &change.keys {
                match (&key.old, &key.new) {
                    (Some(old), Some(new)) => writeln!(f, "    ~ {}: {old} → {new}", key.key)?,
                    (None, Some(new)) => writeln!(f, "    + {}: {new}", key.key)?,
                    (Some(old), None) => writeln!(f, "    - {}: {old}", key.key)?,
                    (None, None) => {}
                }
            }
        }
        if !self.materialize.is_empty() {
            writeln!(f, "\nto materialize:")?;
            for view in &self.materialize {
                writeln!(f, "    {view}")?;
            }
        }
        if !self.answer_at_once.is_empty() {
            writeln!(f, "answers at once, from stored tiles: {}", self.answer_at_once.join(", "))?;
        }
        if !self.keep.is_empty() {
            writeln!(f, "stays materialized: {}", self.keep.join(", "))?;
        }
        for affected in &self.affected {
            writeln!(f, "\nnote: {affected}")?;
        }
        for broken in &self.breaks {
            writeln!(f, "\nbreaks {broken}")?;
        }
        let count = |action| self.changes.iter().filter(|change| change.action == action).count();
        let (added, changed, removed) = (count(Action::Add), count(Action::Change), count(Action::Remove));
        write!(f, "\n{added} to add, {changed} to change, {removed} to remove")
    }
}

impl fmt::Display for ViewToMaterialize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = if self.files == 1 { "file" } else { "files" };
        let size = human_bytes(self.bytes);
        write!(f, "{}: {}; reads {} {files}, {size}", self.view, self.reason, self.files)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::New => f.write_str("new"),
            Reason::Changed => f.write_str("changed"),
            Reason::Windows(features) => {
                write!(f, "no tiles reach {} yet, the rest goes on answering", features.join(", "))
            }
        }
    }
}

impl Action {
    fn sign(self) -> char {
        match self {
            Action::Add => '+',
            Action::Change => '~',
            Action::Remove => '-',
        }
    }
}

/// So many bytes, as people write them.
fn human_bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.2} {unit}") }
}
