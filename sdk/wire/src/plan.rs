//! What would an apply change? Its `Display` is for people.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ModelFit;

/// The body of `POST /v1/check`, `/v1/plan` and `/v1/apply`; it may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectRequest {
    /// The project; the one of the server's own repository unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

/// The way from what is live to a candidate. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Number of what is live; 0 before the first apply.
    pub base: u64,
    /// Number of what is live once the plan is applied; the same where it changes nothing.
    pub number: u64,
    /// Whether it has been applied.
    pub applied: bool,
    /// What is added, changed and removed, by kind and name.
    pub changes: Vec<Change>,
    /// Feature views whose rows must be computed again.
    pub materialize: Vec<ViewToMaterialize>,
    /// Feature views whose stored rows stay good.
    pub keep: Vec<String>,
    /// New windows that stored tiles already reach, as `view.feature`: they answer as soon as they are live.
    pub answer_at_once: Vec<String>,
    /// What roles gain and lose.
    #[serde(default)]
    pub access: Vec<AccessChange>,
    /// How columns go into the versions of models that it adds, and how these were tried.
    #[serde(default)]
    pub fits: Vec<ModelFit>,
    /// Models in use that go on, on inputs computed in another way, and such services of other projects; columns that
    /// some files of a source lack.
    pub affected: Vec<String>,
    /// Models in use that would break: for as long as there are any, the plan is refused.
    pub breaks: Vec<Break>,
    /// What of it is not for who asks to apply, where not all of it is: they would be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forbidden: Option<String>,
}

/// One definition that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What happens to it.
    pub action: Action,
    /// Its kind.
    pub kind: DefinitionKind,
    /// Its name.
    pub name: String,
    /// What differs in it, where it is on both sides.
    pub keys: Vec<KeyChange>,
}

/// What happens to a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyChange {
    /// As in `ttl` or `feature amount`.
    pub key: String,
    /// What it says now.
    pub old: Option<String>,
    /// What it would say.
    pub new: Option<String>,
}

/// What a role would allow and does not, and what it allows and would not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessChange {
    /// The role.
    pub role: String,
    /// As in `predict fraud` or `read card:amount`.
    pub gains: Vec<String>,
    /// The same.
    pub loses: Vec<String>,
}

/// A feature view whose rows, or some of whose windows, must be computed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// Kinds of definition, in the order in which they build on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum DefinitionKind {
    /// An entity.
    Entity,
    /// A connection.
    Connection,
    /// A source.
    Source,
    /// A feature view.
    FeatureView,
    /// A feature service.
    FeatureService,
    /// A model.
    Model,
    /// A role.
    Role,
}

impl fmt::Display for DefinitionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DefinitionKind::Entity => "entity",
            DefinitionKind::Connection => "connection",
            DefinitionKind::Source => "source",
            DefinitionKind::FeatureView => "feature view",
            DefinitionKind::FeatureService => "feature service",
            DefinitionKind::Model => "model",
            DefinitionKind::Role => "role",
        })
    }
}

impl Plan {
    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
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
                match (key.old.as_deref().map(shortened), key.new.as_deref().map(shortened)) {
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
        // Of views that say nothing else, nobody asks.
        let says_else = |view: &&String| {
            let mut changes = self.changes.iter();
            changes.any(|change| change.kind == DefinitionKind::FeatureView && change.name == **view)
        };
        let keep: Vec<&str> = self.keep.iter().filter(says_else).map(String::as_str).collect();
        if !keep.is_empty() {
            writeln!(f, "stays materialized: {}", keep.join(", "))?;
        }
        for AccessChange { role, gains, loses } in &self.access {
            writeln!(f, "\nrole {role}:")?;
            gains.iter().try_for_each(|gained| writeln!(f, "    may {gained}"))?;
            loses.iter().try_for_each(|lost| writeln!(f, "    may no longer {lost}"))?;
        }
        for fit in &self.fits {
            writeln!(f, "\n{fit}")?;
        }
        for affected in &self.affected {
            writeln!(f, "\nnote: {affected}")?;
        }
        for broken in &self.breaks {
            writeln!(f, "\nbreaks {broken}")?;
        }
        if let Some(forbidden) = &self.forbidden {
            writeln!(f, "\n{forbidden}")?;
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
            Reason::Changed => f.write_str("changed, so nothing is found of it until then"),
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

/// How much of a text a line shows.
const CHARS_SHOWN: usize = 160;

/// A text as a line of a plan has room for it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(CHARS_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
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
