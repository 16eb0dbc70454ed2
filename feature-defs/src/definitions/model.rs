//! What does a model declare? Its versions, which of them answers whom, and what answers where none does.

use std::collections::BTreeMap;

use super::column::{Expr, Literal};
use super::role::Governance;
use crate::error::Loc;
use crate::reach::Server;

/// A model and its versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Versions as listed; without a route the last one answers requests that name none.
    pub versions: Vec<ModelVersion>,
    /// Which version answers whom.
    pub route: Option<Route>,
    /// What answers where the version does not.
    pub fallback: Option<Fallback>,
    /// How requests share a run.
    pub batching: Batching,
    /// Which process its files run in.
    pub isolation: Isolation,
    /// The share of requests that are logged, from 0 to 1; absent where nothing is.
    pub log_sample: Option<f64>,
    /// The features, as `view:feature`, that its replies may show as they are.
    pub reveals: Vec<String>,
    /// Whose it is.
    pub governance: Governance,
    /// Where it is declared.
    pub loc: Loc,
}

/// What makes the predictions, and the feature service that feeds it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelVersion {
    /// Unique within the model.
    pub version: String,
    /// One ONNX file, or steps.
    pub artifact: Artifact,
    /// Name of the feature service.
    pub service: String,
    /// Feature vectors of which it must be able to say something before it goes live.
    pub examples: Vec<Example>,
    /// The training set that it was trained on.
    pub trained_on: Option<TrainedOn>,
    /// Where it is declared.
    pub loc: Loc,
}

/// What a training set was made of, and what came of it, as the metadata of the training set says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainedOn {
    /// Of all below.
    pub digest: String,
    /// How many rows it had.
    pub rows: u32,
    /// Whether rows that became known after the query time were invisible.
    pub as_known: bool,
    /// Feature service, feature views, sources and functions, and the state in which each was.
    pub made_of: BTreeMap<String, String>,
    /// Its columns, and the digest of the values of each.
    pub columns: BTreeMap<String, String>,
}

/// A feature vector that a version is tried on.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Columns of the feature service and their values; the others have their defaults, or none.
    pub values: Vec<(Expr, Literal)>,
    /// Where it is declared.
    pub loc: Loc,
}

/// What makes the predictions.
#[derive(Debug, Clone, PartialEq)]
pub enum Artifact {
    /// One file.
    File(ModelFile),
    /// An ensemble: steps that read the service's columns and one another's.
    Steps {
        /// In any order that leaves no step waiting for itself.
        steps: Vec<Step>,
        /// The columns that leave, in order; the last step's unless given.
        outputs: Vec<Expr>,
    },
}

/// A model file, and how columns go into it and come out.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// An ONNX file or an MLflow model's folder: relative to the repository's root, or by the URL of an object.
    pub path: String,
    /// What fills its inputs.
    pub inputs: Inputs,
    /// Those of its outputs that become columns, in order; all unless given.
    pub outputs: Vec<Expr>,
}

/// A model on another server that speaks the Open Inference Protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    /// The server.
    pub server: Server,
    /// Its name for the model.
    pub model: String,
    /// Its name for the version; the one that it has unless given.
    pub version: Option<String>,
    /// How long an answer may take, in microseconds.
    pub timeout_us: i64,
    /// What fills the inputs of the model.
    pub inputs: Inputs,
    /// Those of its outputs that become columns, in order; all unless given.
    pub outputs: Vec<Expr>,
}

/// What fills the inputs of a model file.
#[derive(Debug, Clone, PartialEq)]
pub enum Inputs {
    /// These columns, by the names of the inputs, or side by side where there is one input; the service's where none
    /// are named.
    Columns(Vec<Expr>),
    /// Each input by its name.
    Map(Vec<Input>),
}

/// What fills one input of a model file.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The file's name for it.
    pub name: String,
    /// The columns side by side.
    pub columns: Vec<Expr>,
    /// The lengths of a row's dimensions; as the file says unless given.
    pub shape: Option<Vec<u32>>,
    /// Where it is declared.
    pub loc: Loc,
}

impl Inputs {
    /// The columns that it names, in order and more than once where they are named more than once.
    pub fn columns(&self) -> Vec<&Expr> {
        match self {
            Inputs::Columns(columns) => columns.iter().collect(),
            Inputs::Map(inputs) => inputs.iter().flat_map(|input| &input.columns).collect(),
        }
    }
}

/// One step of an ensemble. Its columns are called as the step where there is one, else `step__output`.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Unique among the version's columns.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Where it is declared.
    pub loc: Loc,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Runs a model.
    Run(ModelFile),
    /// Asks another server.
    Ask(Remote),
    /// Computes SQL over the service's columns and those of other steps.
    Compute(Expr),
}

/// Which version answers whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Versions and their weights, in the order of the versions.
    pub weights: Vec<(String, u32)>,
    /// The columns whose values decide: equal ones always get the same version. The join keys unless given.
    pub sticky: Vec<Expr>,
    /// Stirred into the decision, so that another experiment divides entities in another way. The model's name unless
    /// given.
    pub salt: String,
    /// Versions that get the same requests, and whose answers nobody waits for.
    pub shadow: Vec<String>,
    /// Where it is declared.
    pub loc: Loc,
}

/// What answers where the version that should does not.
#[derive(Debug, Clone, PartialEq)]
pub struct Fallback {
    /// How long the version may take, in microseconds.
    pub timeout_us: Option<i64>,
    /// An instance with a feature older than this, in microseconds, is not left to the version.
    pub max_age_us: Option<i64>,
    /// Nor one that misses a larger share of its features.
    pub max_missing: Option<f64>,
    /// What answers instead: the first that can.
    pub to: Vec<Instead>,
    /// Where it is declared.
    pub loc: Loc,
}

/// What answers instead of a version.
#[derive(Debug, Clone, PartialEq)]
pub enum Instead {
    /// Another version of the model.
    Version(String, Loc),
    /// SQL over the columns of the feature service.
    Expr(Expr),
    /// Always the same.
    Constant(Literal, Loc),
}

/// How requests share a run, and how many may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// At most so many rows of several requests go into one run.
    pub max_rows: u32,
    /// How long a run waits for more requests, in microseconds.
    pub max_delay_us: i64,
    /// At most so many rows wait; what comes then is turned away.
    pub queue_rows: u32,
    /// So many runs at the same time; as many as there are cores unless given.
    pub concurrency: Option<u32>,
}

/// Which process the files of a model run in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// The server's, but for files that may end it or never end: these have worker processes.
    #[default]
    Auto,
    /// Worker processes.
    Process,
    /// The server's.
    Thread,
}

impl Default for Batching {
    fn default() -> Batching {
        Batching { max_rows: 256, max_delay_us: 0, queue_rows: 100_000, concurrency: None }
    }
}
