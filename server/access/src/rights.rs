//! What may one who asks do?

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use feature_defs::{ADMIN, Limits, Operation};

/// What is done with one thing of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Ask a model.
    Predict,
    /// Tell what came true of a model's predictions.
    Label,
    /// Read what a model was asked and answered.
    ReadLog,
    /// Say which version of a model answers whom.
    Route,
    /// Pull training sets of a feature service.
    Train,
    /// Look up a feature service.
    Read,
    /// Push rows to a source.
    Push,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 7] = [
        Action::Predict,
        Action::Label,
        Action::ReadLog,
        Action::Route,
        Action::Train,
        Action::Read,
        Action::Push,
    ];
    /// Those that are done with models.
    pub const OF_MODELS: [Action; 4] = [Action::Predict, Action::Label, Action::ReadLog, Action::Route];

    /// As it is written in a role.
    pub fn name(self) -> &'static str {
        match self {
            Action::Predict => "predict",
            Action::Label => "label",
            Action::ReadLog => "read_log",
            Action::Route => "route",
            Action::Train => "train",
            Action::Read => "read",
            Action::Push => "push",
        }
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    /// An action on the thing of a name.
    Do(Action, &'a str),
    /// Look up a feature of a view.
    Feature(&'a str, &'a str),
    /// Keep the server running.
    Operate(Operation),
    /// Change a definition that this role owns; or that nobody does.
    Apply(Option<&'a str>),
}

/// As it is asked on the command line.
impl fmt::Display for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Question::Do(action, name) => write!(f, "{} {name}", action.name()),
            Question::Feature(view, feature) => write!(f, "read {view}:{feature}"),
            Question::Operate(operation) => write!(f, "operate {}", operation.name()),
            Question::Apply(Some(owner)) => write!(f, "apply {owner}"),
            Question::Apply(None) => f.write_str("apply what nobody owns"),
        }
    }
}

/// What one who asks may do: a request pays a look into one of these sets.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    pub(crate) is_all: bool,
    /// The roles that they have.
    pub(crate) roles: Vec<String>,
    pub(crate) things: HashMap<Action, HashSet<String>>,
    /// Features by view.
    pub(crate) features: HashMap<String, HashSet<String>>,
    pub(crate) operations: BTreeSet<Operation>,
    /// Whose definitions they may change.
    pub(crate) owners: BTreeSet<String>,
    /// Of each role that has some.
    pub(crate) limits: Vec<Limits>,
}

impl Rights {
    /// Those of who may do everything.
    pub fn all() -> Rights {
        Rights { is_all: true, roles: vec![ADMIN.to_owned()], ..Rights::default() }
    }

    /// Whether they may do everything.
    pub fn is_all(&self) -> bool {
        self.is_all
    }

    /// The roles that give them.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// How much they may ask for, by each role that says so.
    pub fn limits(&self) -> &[Limits] {
        &self.limits
    }

    /// Whether they may do that.
    pub fn allow(&self, question: Question<'_>) -> bool {
        self.is_all
            || match question {
                Question::Do(action, name) => {
                    self.things.get(&action).is_some_and(|names| names.contains(name))
                }
                Question::Feature(view, feature) => {
                    self.features.get(view).is_some_and(|features| features.contains(feature))
                }
                Question::Operate(operation) => self.operations.contains(&operation),
                Question::Apply(owner) => owner.is_some_and(|owner| self.owners.contains(owner)),
            }
    }

    /// Whose definitions they may change.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.owners.iter().map(String::as_str)
    }

    /// Whether they may change any definition.
    pub fn apply_any(&self) -> bool {
        self.is_all || !self.owners.is_empty()
    }

    /// Whether they may know that there is a model of this name: they may do something with it.
    pub fn see_model(&self, name: &str) -> bool {
        Action::OF_MODELS.into_iter().any(|action| self.allow(Question::Do(action, name)))
    }

    /// The same of a feature service.
    pub fn see_service(&self, name: &str) -> bool {
        [Action::Train, Action::Read].into_iter().any(|action| self.allow(Question::Do(action, name)))
    }

    /// The same of a feature view.
    pub fn see_view(&self, name: &str) -> bool {
        self.is_all || self.features.contains_key(name)
    }

    /// The same of a source.
    pub fn see_source(&self, name: &str) -> bool {
        self.allow(Question::Do(Action::Push, name))
    }

    /// What both allow.
    pub(crate) fn add(&mut self, other: &Rights) {
        self.is_all |= other.is_all;
        self.roles.extend(other.roles.iter().cloned());
        for (action, names) in &other.things {
            self.things.entry(*action).or_default().extend(names.iter().cloned());
        }
        for (view, features) in &other.features {
            self.features.entry(view.clone()).or_default().extend(features.iter().cloned());
        }
        self.operations.extend(&other.operations);
        self.owners.extend(other.owners.iter().cloned());
        self.limits.extend(&other.limits);
    }
}
