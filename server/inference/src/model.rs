//! What does a version of a model say? One file, or an ensemble: steps that read the service's columns and one
//! another's.

mod ensemble;
mod stage;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use feature_defs::{Action, Artifact, DefError, Expr, Loc, Step};
use quern_base::digest::sha256;
use quern_engine::ServicePlan;
use quern_engine::fit::{Feature, Signature};

use self::ensemble::{Building, Ensemble};
use self::stage::{Does, Stage};
use crate::counts::Work;
use crate::error::{Error, Result};
use crate::onnx::Onnx;
use crate::policy::Limits;
use crate::pool::Pressure;
use crate::provider::Provider;
use crate::rules::Rules;
use crate::runtime::Runtime;

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
    is_file: bool,
    rules: Rules,
    /// Why it answers nobody, where it was kept and is not to be had any more.
    lost: Option<String>,
}

/// What a model said: a row for each feature vector, a column for each output.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// As [`Model::outputs`].
    pub outputs: RecordBatch,
}

/// The digest of what makes the predictions, given the digests of its files in the order of [`paths`].
pub fn digest(artifact: &Artifact, files: &[String]) -> String {
    let Artifact::Steps { steps, outputs } = artifact else { return files.concat() };
    let mut files = files.iter();
    let mut said = String::new();
    let names = |names: &[Expr]| names.iter().map(|name| name.sql.as_str()).collect::<Vec<_>>().join(",");
    for Step { name, action, loc: _ } in steps {
        let what = match action {
            Action::Run { inputs, path: _ } => {
                format!("{}\0{}", files.next().map_or("", String::as_str), names(inputs))
            }
            Action::Compute(expr) => expr.sql.clone(),
        };
        said += &format!("{name}\0{what}\0\0");
    }
    said += &names(outputs);
    sha256(said.as_bytes())
}

/// The files that an artifact is made of: the step, empty where there are none, and the path.
pub fn paths(artifact: &Artifact) -> Vec<(&str, &str)> {
    match artifact {
        Artifact::File(path) => vec![("", path)],
        Artifact::Steps { steps, .. } => steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::Run { path, .. } => Some((step.name.as_str(), path.as_str())),
                Action::Compute(_) => None,
            })
            .collect(),
    }
}

impl Model {
    /// Loads one ONNX file, fits it to `service` and tries it.
    ///
    /// # Errors
    /// Why it cannot go live: no ONNX file, inputs that are not the service's columns (both shapes side by side), a run
    /// that fails, or outputs that are not one row for each row in.
    pub fn of_file(
        runtime: &Runtime,
        onnx: &[u8],
        service: &ServicePlan,
        rules: &Rules,
    ) -> std::result::Result<Model, String> {
        let of = format!("feature service `{}`", service.name);
        let columns = Feature::of_service(service);
        let run = Onnx::load(runtime, onnx, (&of, &columns), rules)?;
        let (signature, outputs) = (run.signature.clone(), Arc::clone(&run.outputs));
        let width = columns.len();
        let leaves = (width..width + outputs.fields().len()).collect();
        let schema = Arc::clone(&service.outputs);
        let stages = vec![Stage { does: Does::Run(run), reads: (0..width).collect(), schema }];
        let digest = sha256(onnx);
        Ok(Model {
            digest,
            signature,
            outputs,
            stages,
            leaves,
            is_file: true,
            rules: rules.clone(),
            lost: None,
        })
    }

    /// Loads what `artifact` is made of: `files` are those of [`paths`], in that order.
    ///
    /// # Errors
    /// Why it cannot go live, and where that stands.
    pub fn load(
        runtime: &Runtime,
        (artifact, loc): (&Artifact, &Loc),
        files: &[impl AsRef<[u8]>],
        service: &ServicePlan,
        rules: &Rules,
    ) -> std::result::Result<Model, DefError> {
        match artifact {
            Artifact::File(_) => {
                let file = files.first().map_or(&[] as &[u8], AsRef::as_ref);
                Model::of_file(runtime, file, service, rules).map_err(|cause| DefError::new(loc, cause))
            }
            Artifact::Steps { steps, outputs } => {
                let mut building = Building::new(runtime, service, rules);
                building.add_all(steps, files)?;
                let digests: Vec<String> = files.iter().map(|file| sha256(file.as_ref())).collect();
                let Ensemble { signature, outputs, stages, leaves } = building.finish(steps, outputs, loc)?;
                let (digest, rules) = (digest(artifact, &digests), rules.clone());
                Ok(Model { digest, signature, outputs, stages, leaves, is_file: false, rules, lost: None })
            }
        }
    }

    /// What stands for a version that was kept and is not to be had any more, for the reason `lost`: it answers nobody,
    /// and would have given `outputs`.
    pub fn lost(digest: String, outputs: SchemaRef, rules: Rules, lost: String) -> Model {
        let signature = Signature { inputs: Vec::new(), outputs: Vec::new() };
        let (stages, leaves) = (Vec::new(), Vec::new());
        Model { digest, signature, outputs, stages, leaves, is_file: false, rules, lost: Some(lost) }
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

    /// Whether any of its files runs in processes of its own.
    pub fn is_isolated(&self) -> bool {
        self.stages.iter().any(|stage| matches!(&stage.does, Does::Run(onnx) if onnx.is_isolated()))
    }

    /// What its files run on, in order; none where it has only expressions.
    pub fn providers(&self) -> Vec<Provider> {
        let runs = self.stages.iter().filter_map(|stage| match &stage.does {
            Does::Run(onnx) => Some(onnx.provider),
            Does::Compute(_) => None,
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
            let batch = stage.batch(&columns, vectors.num_rows())?;
            match &stage.does {
                Does::Run(onnx) => columns.extend(onnx.run_here(&batch)?.columns().iter().cloned()),
                Does::Compute(expression) => columns.push(expression.evaluate(&batch)?),
            }
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

    fn leave(&self, columns: &[ArrayRef], rows: usize) -> Result<Predictions> {
        let columns = self.leaves.iter().map(|place| Arc::clone(&columns[*place])).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(Predictions {
            outputs: RecordBatch::try_new_with_options(Arc::clone(&self.outputs), columns, &options)?,
        })
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
        return Ok(Predictions { outputs: onnx.run(vectors, limits).await? });
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
