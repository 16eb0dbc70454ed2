//! How is an ensemble put together? Each step reads the service's columns, and those that other steps give.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use feature_defs::{Action, DefError, Expr, Inputs, Loc, ModelFile, Remote, Step, suggest};
use quern_engine::fit::{Element, Feature, Null, Port, Signature};
use quern_engine::{Computed, ServicePlan};

use super::asked::Asked;
use super::stage::{Does, Stage, batch};
use crate::fed::Feed;
use crate::rules::Rules;
use crate::runtime::Runtime;
use crate::{onnx, remote};

type Result<T> = std::result::Result<T, DefError>;

/// An ensemble that is put together: its steps in an order in which each finds what it reads.
pub(super) struct Ensemble {
    pub(super) signature: Signature,
    pub(super) outputs: SchemaRef,
    pub(super) stages: Vec<Stage>,
    /// The places of the outputs among the vector's columns and those of the stages.
    pub(super) leaves: Vec<usize>,
    /// What models on other servers give, where there are any.
    pub(super) asked: Option<Asked>,
}

/// An ensemble while it is put together.
pub(super) struct Building<'a> {
    runtime: &'a Runtime,
    rules: &'a Rules,
    /// The vector's columns and those of the stages so far.
    columns: Vec<Feature>,
    width: usize,
    stages: Vec<Stage>,
    /// The places of the columns that models on other servers give, for each of these.
    asked: Vec<Range<usize>>,
    /// The same columns of the rows that it is tried on, and how many these are.
    examples: Option<(Vec<ArrayRef>, usize)>,
    /// Whether models on other servers are asked about them.
    asks: bool,
}

/// A step and its columns, or what it waits for.
type Made = std::result::Result<(Stage, Vec<Feature>), Waits>;

/// A step that waits for the column of another.
struct Waits {
    column: String,
    error: DefError,
}

impl<'a> Building<'a> {
    pub(super) fn new(
        runtime: &'a Runtime,
        service: &ServicePlan,
        examples: Option<(&RecordBatch, bool)>,
        rules: &'a Rules,
    ) -> Building<'a> {
        let columns = Feature::of_service(service);
        let asks = examples.is_some_and(|(_, asks)| asks);
        let examples = examples.map(|(examples, _)| (examples.columns().to_vec(), examples.num_rows()));
        let (width, stages, asked) = (columns.len(), Vec::new(), Vec::new());
        Building { runtime, rules, columns, width, stages, asked, examples, asks }
    }

    /// Whatever finds all that it reads among the columns so far is next; what is left at the end names a column that
    /// does not exist, or waits for itself.
    pub(super) fn add_all(&mut self, steps: &[Step], files: &[Bytes]) -> Result<()> {
        let (mut files, none) = (files.iter(), Bytes::new());
        let mut waiting: Vec<(&Step, &Bytes)> = steps
            .iter()
            .map(|step| match step.action {
                Action::Run(_) | Action::Ask(_) => (step, files.next().unwrap_or(&none)),
                Action::Compute(_) => (step, &none),
            })
            .collect();
        while !waiting.is_empty() {
            let (mut still, mut blocked) = (Vec::new(), Vec::new());
            let before = waiting.len();
            for (step, file) in waiting {
                if let Err(waits) = self.add(step, file)? {
                    blocked.push((step.name.as_str(), waits));
                    still.push((step, file));
                }
            }
            if still.len() == before {
                return Err(stuck(blocked));
            }
            waiting = still;
        }
        Ok(())
    }

    fn add(&mut self, step: &Step, file: &Bytes) -> Result<std::result::Result<(), Waits>> {
        let made = match &step.action {
            Action::Compute(expr) => self.computes(step, expr)?,
            Action::Run(ModelFile { inputs, .. }) | Action::Ask(Remote { inputs, .. }) => {
                self.runs(step, inputs, file)?
            }
        };
        let (stage, columns) = match made {
            Ok(made) => made,
            Err(waits) => return Ok(Err(waits)),
        };
        if let Some(taken) =
            columns.iter().find(|column| self.columns.iter().any(|known| known.name == column.name))
        {
            let cause =
                format!("`{}` is a column of the feature service, or of another step, already", taken.name);
            return Err(DefError::new(&step.loc, cause).with_help("give the step another name"));
        }
        if matches!(step.action, Action::Ask(_)) && !self.asks {
            self.examples = None;
        }
        if let Some((examples, rows)) = &mut self.examples {
            let given = stage.run_here(examples, *rows).map_err(|error| {
                DefError::new(
                    &step.loc,
                    format!("tried on its `examples`, step `{}` fails: {error}", step.name),
                )
            })?;
            examples.extend(given);
        }
        let start = self.columns.len();
        self.columns.extend(columns);
        if matches!(step.action, Action::Ask(_)) {
            self.asked.push(start..self.columns.len());
        }
        self.stages.push(stage);
        Ok(Ok(()))
    }

    fn computes(&self, step: &Step, expr: &Expr) -> Result<Made> {
        let schema = Arc::new(schema_of(&self.columns));
        let expression = match Computed::compile(expr, &schema, None) {
            Ok(expression) => expression,
            Err(wrong) => match wrong.unknown {
                Some(column) => return Ok(Err(Waits { column, error: wrong.error })),
                None => return Err(wrong.error),
            },
        };
        let column = column(step.name.clone(), expression.dtype(), Null::Possible);
        let reads = (0..self.columns.len()).collect();
        let stage = Stage { name: step.name.clone(), does: Does::Compute(expression), reads, schema };
        Ok(Ok((stage, vec![column])))
    }

    fn runs(&self, step: &Step, inputs: &Inputs, file: &Bytes) -> Result<Made> {
        let named = inputs.columns();
        let mut reads: Vec<usize> = Vec::new();
        for input in &named {
            match self.place(input) {
                Ok(place) if reads.contains(&place) => {}
                Ok(place) => reads.push(place),
                Err(error) => return Ok(Err(Waits { column: input.sql.clone(), error })),
            }
        }
        if named.is_empty() {
            reads = (0..self.width).collect();
        }
        let columns: Vec<Feature> = reads.iter().map(|place| self.columns[*place].clone()).collect();
        let (of, schema) = (format!("what step `{}` reads", step.name), Arc::new(schema_of(&columns)));
        let examples = self.examples.as_ref().map(|(columns, rows)| batch(&reads, &schema, columns, *rows));
        let failed = |cause: String| DefError::new(&step.loc, cause);
        let examples = examples.transpose().map_err(|error| failed(error.to_string()))?;
        let feed = Feed { of: &of, columns: &columns, examples: examples.as_ref() };
        let run = match &step.action {
            Action::Ask(remote) => remote::fitted(file, (remote, &feed), self.rules),
            Action::Run(declared) => onnx::load(self.runtime, file, (declared, &feed), self.rules),
            Action::Compute(_) => Err("an expression runs no model".to_owned()),
        };
        let run = run.map_err(failed)?;
        let name = |output: &str| match run.outputs.fields().len() {
            1 => step.name.clone(),
            _ => format!("{}__{output}", step.name),
        };
        let outputs = run.outputs.fields().iter();
        let given = outputs.map(|field| column(name(field.name()), field.data_type(), Null::Never)).collect();
        Ok(Ok((Stage { name: step.name.clone(), does: Does::Run(run), reads, schema }, given)))
    }

    fn place(&self, name: &Expr) -> Result<usize> {
        let names = || self.columns.iter().map(|column| column.name.as_str());
        names().position(|known| known == name.sql).ok_or_else(|| {
            DefError::new(&name.loc, format!("there is no column `{}`", name.sql))
                .with_help(suggest(&name.sql, names()))
        })
    }

    /// It, of whose columns `outputs` leave: those of the last step where none are named.
    pub(super) fn finish(self, steps: &[Step], outputs: &[Expr], loc: &Loc) -> Result<Ensemble> {
        let last = steps.last().map(|step| step.name.as_str()).unwrap_or_default();
        let is_last = |column: &Feature| column.name == last || column.name.starts_with(&format!("{last}__"));
        let leaves: Vec<usize> = if outputs.is_empty() {
            (self.width..self.columns.len()).filter(|place| is_last(&self.columns[*place])).collect()
        } else {
            outputs.iter().map(|output| self.place(output)).collect::<Result<_>>()?
        };
        if leaves.is_empty() {
            return Err(DefError::new(loc, "an ensemble has at least one output"));
        }
        let ports = |columns: &[Feature]| columns.iter().map(port).collect();
        let leaving: Vec<Feature> = leaves.iter().map(|place| self.columns[*place].clone()).collect();
        let signature = Signature { inputs: ports(&self.columns[..self.width]), outputs: ports(&leaving) };
        let outputs = Arc::new(schema_of(&leaving));
        let asked = self.asked();
        Ok(Ensemble { signature, outputs, stages: self.stages, leaves, asked })
    }

    fn asked(&self) -> Option<Asked> {
        let places: Vec<usize> = self.asked.iter().cloned().flatten().collect();
        let columns: Vec<Feature> = places.iter().map(|place| self.columns[*place].clone()).collect();
        let mut before = 0;
        let steps = self.asked.iter().map(|given| {
            let first = before;
            before += given.len();
            (given.start, first..before)
        });
        let steps = steps.collect();
        (!places.is_empty()).then(|| Asked { schema: Arc::new(schema_of(&columns)), places, steps })
    }
}

/// Why none of the steps can be next: one names a column that none of the others gives, or they wait for one another.
fn stuck(mut blocked: Vec<(&str, Waits)>) -> DefError {
    let awaited = |column: &str| {
        let gives = |step: &str| {
            column == step || column.strip_prefix(step).is_some_and(|rest| rest.starts_with("__"))
        };
        blocked.iter().position(|(step, _)| gives(step))
    };
    let awaited: Vec<Option<usize>> = blocked.iter().map(|(_, waits)| awaited(&waits.column)).collect();
    if let Some(alone) = awaited.iter().position(Option::is_none) {
        return blocked.swap_remove(alone).1.error;
    }
    // Each waits for one of the others, so whoever follows comes back to where they were.
    let mut path: Vec<usize> = vec![0];
    let start = loop {
        let next = awaited[path[path.len() - 1]].unwrap_or_default();
        let seen = path.iter().position(|step| *step == next);
        path.push(next);
        if let Some(start) = seen {
            break start;
        }
    };
    let names: Vec<&str> = path[start..].iter().map(|step| blocked[*step].0).collect();
    let cause = format!("steps wait for one another: {}", names.join(" → "));
    DefError::new(&blocked[path[start]].1.error.loc, cause).with_help("let one of them read other columns")
}

fn schema_of(columns: &[Feature]) -> Schema {
    Schema::new(
        columns.iter().map(|column| Field::new(&column.name, column.dtype.clone(), true)).collect::<Vec<_>>(),
    )
}

fn column(name: String, dtype: &DataType, null: Null) -> Feature {
    Feature { name, dtype: dtype.clone(), default: None, null }
}

/// A column, as a protocol that knows tensors shows it.
fn port(column: &Feature) -> Port {
    let (element, width) = match &column.dtype {
        DataType::FixedSizeList(item, length) => (item.data_type(), usize::try_from(*length).ok().map(Some)),
        DataType::List(item) => (item.data_type(), Some(None)),
        other => (other, None),
    };
    let element = match element {
        DataType::Float32 => Element::Float32,
        DataType::Float64 => Element::Float64,
        DataType::Int32 => Element::Int32,
        DataType::Int64 => Element::Int64,
        DataType::Boolean => Element::Bool,
        DataType::Utf8 => Element::String,
        other => Element::Other(other.to_string()),
    };
    Port { name: column.name.clone(), element, shape: std::iter::once(None).chain(width).collect() }
}
