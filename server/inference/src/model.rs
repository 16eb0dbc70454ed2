//! What does a version of a model say? One file, or an ensemble: steps that read the service's columns and one
//! another's.

mod asked;
mod ensemble;
mod stage;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use feature_defs::{
    Action, Artifact, DefError, Expr, Input, Inputs, Loc, ModelFile, ModelVersion, Remote, Step,
};
use quern_base::digest::sha256;
use quern_engine::ServicePlan;
use quern_engine::fit::{Feature, Filled, Signature};

use self::asked::Asked;
use self::ensemble::{Building, Ensemble};
use self::stage::{Does, Stage, batch};
use crate::counts::Work;
use crate::error::{Error, Result};
use crate::fed::{By, Fed, Feed};
use crate::onnx;
use crate::policy::Limits;
use crate::pool::Pressure;
use crate::provider::Provider;
use crate::rules::Rules;
use crate::runtime::Runtime;
use crate::trial::Tried;

/// What makes the predictions of one version, loaded and tried.
#[derive(Debug)]
pub struct Model {
    /// SHA-256 of the file, in hex; of an ensemble, that of its steps.
    pub digest: String,
    /// What it reads and what it gives: of one file, as the file names it, of an ensemble its columns.
    pub signature: Signature,
    /// Its outputs as columns. `[N]` and `[N, 1]` are plain values, `[N, K]` lists, a ZipMap is a map in each row.
    pub outputs: SchemaRef,
    stages: Vec<Stage>,
    /// The places of the outputs among the vector's columns and those of the stages.
    leaves: Vec<usize>,
    /// What models on other servers give, where there are any.
    asked: Option<Asked>,
    is_file: bool,
    rules: Rules,
    /// Why it answers nobody, where it was kept and is not to be had any more.
    lost: Option<String>,
}

/// Of what a version is made.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// As it is declared.
    pub artifact: &'a Artifact,
    /// Where.
    pub loc: &'a Loc,
    /// The files of [`paths`], in that order.
    pub files: &'a [Bytes],
    /// What feeds it.
    pub service: &'a ServicePlan,
    /// Feature vectors of which it must be able to say something.
    pub examples: Option<&'a RecordBatch>,
    /// Whether models on other servers are asked about these.
    pub asks: bool,
}

impl<'a> Made<'a> {
    /// Of what `version` is made.
    pub fn new(
        version: &'a ModelVersion,
        files: &'a [Bytes],
        service: &'a ServicePlan,
        examples: Option<&'a RecordBatch>,
    ) -> Made<'a> {
        Made { artifact: &version.artifact, loc: &version.loc, files, service, examples, asks: true }
    }

    /// The same, of what went live before: models on other servers need not be there when this one starts.
    #[must_use]
    pub fn restored(self) -> Made<'a> {
        Made { asks: false, ..self }
    }
}

/// One file of a version: how it is fed, and how its trial went.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The step that runs it; empty where the version is one file.
    pub step: &'a str,
    /// What fills its inputs.
    pub filled: &'a [Filled],
    /// How its trial went.
    pub tried: &'a Tried,
}

/// What a model said: a row for each feature vector, a column for each output.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// As [`Model::outputs`].
    pub outputs: RecordBatch,
    /// What models on other servers said on the way, as [`Model::asked`]; none where no step asks one.
    pub asked: Option<RecordBatch>,
}

impl From<RecordBatch> for Predictions {
    fn from(outputs: RecordBatch) -> Predictions {
        Predictions { outputs, asked: None }
    }
}

/// The digest of what makes the predictions, given the digests of its files in the order of [`paths`].
pub fn digest(artifact: &Artifact, files: &[String]) -> String {
    let mut files = files.iter().map(String::as_str);
    let mut said = String::new();
    let (steps, outputs) = match artifact {
        Artifact::File(file) => match fed((&file.inputs, &file.outputs), files.next()) {
            (digest, None) => return digest.to_owned(),
            (digest, Some(fed)) => return sha256(format!("{digest}\0{fed}").as_bytes()),
        },
        Artifact::Steps { steps, outputs } => (steps, outputs),
    };
    for Step { name, action, loc: _ } in steps {
        let what = match action {
            Action::Run(ModelFile { inputs, outputs, path: _ }) => {
                let (digest, fed) = fed((inputs, outputs), files.next());
                format!("{digest}\0{}", fed.unwrap_or_default())
            }
            Action::Ask(Remote { server, model, version, inputs, outputs, timeout_us: _ }) => {
                let (digest, fed) = fed((inputs, outputs), files.next());
                format!("{server}\0{model}\0{version:?}\0{digest}\0{}", fed.unwrap_or_default())
            }
            Action::Compute(expr) => expr.sql.clone(),
        };
        said += &format!("{name}\0{what}\0\0");
    }
    said += &names(outputs);
    sha256(said.as_bytes())
}

/// The digest of a file, and what is said of how columns go in and come out.
fn fed<'a>((inputs, outputs): (&Inputs, &[Expr]), digest: Option<&'a str>) -> (&'a str, Option<String>) {
    let inputs = match inputs {
        Inputs::Columns(columns) => names(columns),
        Inputs::Map(map) => {
            let input =
                |input: &Input| format!("{}\0{}\0{:?}", input.name, names(&input.columns), input.shape);
            map.iter().map(input).collect::<Vec<_>>().join("\0\0")
        }
    };
    let outputs = names(outputs);
    let is_said = !inputs.is_empty() || !outputs.is_empty();
    (digest.unwrap_or_default(), is_said.then(|| format!("{inputs}\0{outputs}")))
}

fn names(names: &[Expr]) -> String {
    names.iter().map(|name| name.sql.as_str()).collect::<Vec<_>>().join(",")
}

/// The files that an artifact is made of: the step, empty where there are none, and the path.
pub fn paths(artifact: &Artifact) -> Vec<(&str, &str)> {
    match artifact {
        Artifact::File(file) => vec![("", &file.path)],
        Artifact::Steps { steps, .. } => steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::Run(file) => Some((step.name.as_str(), file.path.as_str())),
                Action::Ask(remote) => Some((step.name.as_str(), remote.model.as_str())),
                Action::Compute(_) => None,
            })
            .collect(),
    }
}

impl Model {
    /// Loads what `made` is made of, fits it to its feature service and tries it.
    ///
    /// # Errors
    /// Why it cannot go live, and where that stands: no ONNX file, inputs that are not the service's columns (both
    /// shapes side by side), a run on its examples that fails, or outputs that are not one row for each row in.
    pub fn load(runtime: &Runtime, made: &Made<'_>, rules: &Rules) -> std::result::Result<Model, DefError> {
        let Made { artifact, loc, files, service, examples, asks } = *made;
        let rules = rules.clone();
        let digests: Vec<String> = files.iter().map(|file| sha256(file)).collect();
        let digest = digest(artifact, &digests);
        match artifact {
            Artifact::File(declared) => {
                let none = Bytes::new();
                let file = files.first().unwrap_or(&none);
                let of = format!("feature service `{}`", service.name);
                let columns = Feature::of_service(service);
                let feed = Feed { of: &of, columns: &columns, examples };
                let run = onnx::load(runtime, file, (declared, &feed), &rules);
                let run = run.map_err(|cause| DefError::new(loc, cause))?;
                let (signature, outputs) = (run.signature.clone(), Arc::clone(&run.outputs));
                let width = columns.len();
                let leaves = (width..width + outputs.fields().len()).collect();
                let (name, reads, schema) =
                    (String::new(), (0..width).collect(), Arc::clone(&service.outputs));
                let stages = vec![Stage { name, does: Does::Run(run), reads, schema }];
                let (asked, lost) = (None, None);
                Ok(Model { digest, signature, outputs, stages, leaves, asked, is_file: true, rules, lost })
            }
            Artifact::Steps { steps, outputs } => {
                let mut building =
                    Building::new(runtime, service, examples.map(|examples| (examples, asks)), &rules);
                building.add_all(steps, files)?;
                let Ensemble { signature, outputs, stages, leaves, asked } =
                    building.finish(steps, outputs, loc)?;
                let (is_file, lost) = (false, None);
                Ok(Model { digest, signature, outputs, stages, leaves, asked, is_file, rules, lost })
            }
        }
    }

    /// What stands for a version that was kept and is not to be had any more, for the reason `lost`: it answers nobody,
    /// and would have given `outputs`.
    pub fn lost(digest: String, outputs: SchemaRef, rules: Rules, lost: String) -> Model {
        let signature = Signature { inputs: Vec::new(), outputs: Vec::new() };
        let (stages, leaves) = (Vec::new(), Vec::new());
        let (asked, is_file, lost) = (None, false, Some(lost));
        Model { digest, signature, outputs, stages, leaves, asked, is_file, rules, lost }
    }

    /// Its files, in the order in which they run.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.stages.iter().filter_map(|Stage { name, does, .. }| match does {
            Does::Run(Fed { fit, tried, .. }) => Some(Part { step: name, filled: &fit.filled, tried }),
            Does::Compute(_) => None,
        })
    }

    /// Why it answers nobody; none where it does.
    pub fn why_lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Says whether it answers.
    ///
    /// # Errors
    /// `Kind::Unavailable` where it answers nobody.
    pub fn is_there(&self) -> Result<()> {
        let Rules { model, version, .. } = &self.rules;
        match &self.lost {
            None => Ok(()),
            Some(cause) => Err(Error::unavailable(format!(
                "model `{model}`, version `{version}`, is not loaded; `/v1/definitions` says why"
            ))
            .because(cause.clone())),
        }
    }

    /// Whether it is what would be loaded with this digest and these rules.
    pub fn is(&self, digest: &str, rules: &Rules) -> bool {
        self.lost.is_none() && self.digest == digest && self.rules == *rules
    }

    /// How many callers its narrowest step serves at the same time.
    pub fn sessions(&self) -> usize {
        let runs = self.stages.iter().filter_map(|stage| match &stage.does {
            Does::Run(onnx) => Some(onnx.sessions()),
            Does::Compute(_) => None,
        });
        runs.min().unwrap_or(usize::from(self.lost.is_none()))
    }

    /// How much its steps have to do: sessions of the narrowest, the most that are busy, and all rows that wait.
    pub fn pressure(&self) -> Pressure {
        let mut all = Pressure { sessions: self.sessions(), ..Pressure::default() };
        for stage in &self.stages {
            if let Does::Run(onnx) = &stage.does {
                let one = onnx.pressure();
                all.busy = all.busy.max(one.busy);
                all.waiting_rows += one.waiting_rows;
                all.waiting += one.waiting;
            }
        }
        all
    }

    /// What its files have been asked since they were loaded, together.
    pub fn work(&self) -> Work {
        let mut all = Work::default();
        for stage in &self.stages {
            if let Does::Run(onnx) = &stage.does {
                all += onnx.work();
            }
        }
        all
    }

    /// Predicts as [`Model::predict`] does, for nobody who would be counted.
    ///
    /// # Errors
    /// The same.
    pub fn try_on(&self, vectors: &RecordBatch) -> Result<Predictions> {
        let said = self.predict(vectors);
        for stage in &self.stages {
            if let Does::Run(onnx) = &stage.does {
                onnx.forget_work();
            }
        }
        said
    }

    /// Whether any of its files runs in processes of its own.
    pub fn is_isolated(&self) -> bool {
        let is_isolated = |fed: &Fed| matches!(fed.by, By::File { is_isolated: true, .. });
        self.stages.iter().any(|stage| matches!(&stage.does, Does::Run(fed) if is_isolated(fed)))
    }

    /// What its files run on, in order; none where it has only expressions.
    pub fn providers(&self) -> Vec<Provider> {
        let runs = self.stages.iter().filter_map(|stage| match &stage.does {
            Does::Run(Fed { by: By::File { provider, .. }, .. }) => Some(*provider),
            Does::Run(_) | Does::Compute(_) => None,
        });
        runs.collect()
    }

    /// The feature vectors in the tensors that the model's one file takes: `inputs` are in its order, each the cells of
    /// a tensor of `rows` rows.
    ///
    /// # Errors
    /// A tensor of another width, a value that its feature cannot have; an ensemble, which has no tensors of its own.
    pub fn vectors(&self, features: &SchemaRef, inputs: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        self.is_there()?;
        match self.stages.as_slice() {
            [Stage { does: Does::Run(onnx), .. }] if self.is_file => {
                Ok(onnx.fit.vectors(features, inputs, rows)?)
            }
            _ => Err(Error::invalid("an ensemble takes columns, not the tensors of one model")),
        }
    }

    /// Predicts from feature vectors (columns as the feature service's outputs). Runs on this thread and, while all
    /// sessions are taken, waits: on a thread of an async runtime, call [`predict`].
    ///
    /// # Errors
    /// `Kind::InvalidArgument` for a null that the model has no value for.
    pub fn predict(&self, vectors: &RecordBatch) -> Result<Predictions> {
        self.is_there()?;
        let mut columns = vectors.columns().to_vec();
        for stage in &self.stages {
            let given = stage.run_here(&columns, vectors.num_rows())?;
            columns.extend(given);
        }
        self.leave(&columns, vectors.num_rows())
    }

    /// The columns of the vector that the outputs show without a model in between: as they are, or by SQL alone.
    pub fn shows(&self) -> BTreeSet<usize> {
        let width = self.signature.inputs.len();
        let (mut shown, mut waiting) = (BTreeSet::new(), self.leaves.clone());
        // An ensemble's inputs are the vector's columns; one file shows nothing of them.
        while let Some(place) = waiting.pop().filter(|_| !self.is_file) {
            match place.checked_sub(width) {
                None => _ = shown.insert(place),
                Some(given) => waiting.extend(self.read_for(given)),
            }
        }
        shown
    }

    /// What SQL reads to give the column `given` of those that stages give; nothing for what a model gives.
    fn read_for(&self, mut given: usize) -> Vec<usize> {
        for stage in &self.stages {
            let (gives, reads): (usize, Vec<usize>) = match &stage.does {
                Does::Run(onnx) => (onnx.outputs.fields().len(), Vec::new()),
                Does::Compute(expression) => {
                    (1, expression.reads().map(|column| stage.reads[column]).collect())
                }
            };
            match given.checked_sub(gives) {
                Some(rest) => given = rest,
                None => return reads,
            }
        }
        Vec::new()
    }

    /// What models on other servers give on the way; none where no step asks one.
    pub fn asked(&self) -> Option<&SchemaRef> {
        self.asked.as_ref().map(|asked| &asked.schema)
    }

    /// Predicts anew what was predicted when models on other servers said what `asked` has, columns as
    /// [`Model::asked`]: they are not asked again. Runs on this thread.
    ///
    /// # Errors
    /// As [`Model::predict`].
    pub fn replay(&self, vectors: &RecordBatch, asked: &RecordBatch) -> Result<Predictions> {
        self.is_there()?;
        let mut columns = vectors.columns().to_vec();
        for stage in &self.stages {
            let given = match self.asked.as_ref().and_then(|all| all.of(columns.len())) {
                Some(places) => asked.columns()[places].to_vec(),
                None => stage.run_here(&columns, vectors.num_rows())?,
            };
            columns.extend(given);
        }
        self.leave(&columns, vectors.num_rows())
    }

    fn leave(&self, columns: &[ArrayRef], rows: usize) -> Result<Predictions> {
        let outputs = batch(&self.leaves, &self.outputs, columns, rows)?;
        let asked = self.asked.as_ref().map(|asked| batch(&asked.places, &asked.schema, columns, rows));
        Ok(Predictions { outputs, asked: asked.transpose()? })
    }
}

/// Predicts without ever blocking the async runtime.
///
/// # Errors
/// As [`Model::predict`]; `Kind::Overloaded` and `Kind::Late` as
/// `limits` have it.
pub async fn predict(model: &Model, vectors: &RecordBatch, limits: Limits) -> Result<Predictions> {
    // One file reads the vector and gives its outputs as they are: nothing to sort out.
    if let ([Stage { does: Does::Run(onnx), .. }], true) = (model.stages.as_slice(), model.is_file) {
        return Ok(onnx.run(vectors, limits).await?.into());
    }
    model.is_there()?;
    let mut columns = vectors.columns().to_vec();
    for stage in &model.stages {
        let batch = stage.batch(&columns, vectors.num_rows())?;
        match &stage.does {
            Does::Run(onnx) => columns.extend(onnx.run(&batch, limits).await?.columns().iter().cloned()),
            Does::Compute(expression) => columns.push(expression.evaluate(&batch)?),
        }
    }
    model.leave(&columns, vectors.num_rows())
}
