//! What does a model say of rows that it is tried on, before anybody asks it?
//!
//! Where it has examples, these are the rows, and one that fails is a mistake. Else rows are made up: of what columns
//! declare as their defaults, of zeros, of ones where these fail, as a division by zero does. A model that says no to
//! each of these rows may be right to: an encoder knows only what it was trained on. Then its file must say what it
//! gives.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use quern_engine::fit::{Fit, Tensor};

use crate::error::Error;
use crate::run::Cost;
use crate::runner::Runner;

/// How many rows a model is tried on, after one.
const ROWS: usize = 32;
/// How often; after this time no more than once.
const ROUNDS: usize = 4;
const TIME: Duration = Duration::from_secs(1);

/// How a trial went.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// On which rows.
    pub on: Rows,
    /// Why it failed, where it did on all that was made up.
    pub failed: Option<String>,
    /// What the model said of the first row, where it has an answer.
    pub said: Option<RecordBatch>,
}

/// Rows that a model is tried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Those that its definition gives.
    Examples,
    /// What columns declare as their defaults, zeros where they declare none.
    Defaults,
    /// Zeros, `false` and empty texts.
    Zeros,
    /// Ones, `true` and empty texts.
    Ones,
    /// On none: a model elsewhere is fitted by what its server tells of it.
    None,
}

impl Rows {
    /// Their name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Rows::Examples => "examples",
            Rows::Defaults => "defaults",
            Rows::Zeros => "zeros",
            Rows::Ones => "ones",
            Rows::None => "nothing",
        }
    }
}

/// With what a model can be tried.
pub(crate) struct Tries<'a> {
    pub(crate) fit: &'a Fit,
    pub(crate) examples: Option<&'a [Tensor]>,
    /// Its outputs as columns, where the file leaves nothing of them open.
    pub(crate) declared: Option<&'a SchemaRef>,
}

/// What a trial shows.
pub(crate) struct Trial {
    pub(crate) tried: Tried,
    pub(crate) cost: Cost,
    /// The outputs as columns.
    pub(crate) outputs: SchemaRef,
    /// Whether a row gets the same bits whatever company it is in.
    pub(crate) alike: bool,
    /// Whether it ended the process that it ran in.
    pub(crate) ended: bool,
}

/// Why a model has no answer for rows that it was tried on.
enum Failed {
    /// It says no to a single row: this is what it says.
    No(String),
    /// It ended the process that it ran in, or did not come to an end.
    Ended(String),
    /// What it gives is not one row for each row in.
    Wrong(String),
}

impl From<Failed> for String {
    fn from((Failed::No(cause) | Failed::Ended(cause) | Failed::Wrong(cause)): Failed) -> String {
        cause
    }
}

impl Tries<'_> {
    pub(crate) fn of(&self, runner: &mut Runner) -> Result<Trial, String> {
        if let Some(examples) = self.examples {
            return self.on(Rows::Examples, runner).map_err(|failed| match which(examples, runner) {
                Some((place, cause)) => format!("tried on example {place}, the model fails: {cause}"),
                None => failed.into(),
            });
        }
        let (mut no, mut ended) = (None, None);
        for rows in [Rows::Defaults, Rows::Zeros, Rows::Ones] {
            if rows == Rows::Defaults && self.fit.defaults(1).is_none() {
                continue;
            }
            match self.on(rows, runner) {
                Ok(trial) => return Ok(Trial { ended: ended.is_some(), ..trial }),
                Err(Failed::No(cause)) => _ = no.get_or_insert((rows, cause)),
                Err(Failed::Ended(cause)) => _ = ended.get_or_insert(cause),
                Err(Failed::Wrong(cause)) => return Err(cause),
            }
        }
        if let Some(cause) = ended {
            return Err(cause);
        }
        let (on, cause) = no.ok_or("the model was not tried")?;
        let Some(outputs) = self.declared else {
            return Err(format!("{cause}; give the version `examples:` that it has an answer for"));
        };
        // Nobody knows yet what a run costs: that is learnt from those that come.
        let cost = Cost { micros: 0.0, micros_per_row: 0.0 };
        let tried = Tried { on, failed: Some(cause), said: None };
        Ok(Trial { tried, cost, outputs: outputs.clone(), alike: false, ended: false })
    }

    fn rows(&self, of: Rows, rows: usize) -> Vec<Tensor> {
        match (of, self.examples) {
            (Rows::Examples, Some(examples)) => {
                examples.iter().map(|tensor| repeated(tensor, rows)).collect()
            }
            (Rows::Defaults, _) => self.fit.defaults(rows).unwrap_or_else(|| self.fit.zeros(rows)),
            (Rows::Ones, _) => self.fit.ones(rows),
            _ => self.fit.zeros(rows),
        }
    }

    fn on(&self, of: Rows, runner: &mut Runner) -> Result<Trial, Failed> {
        let mut micros = [f64::INFINITY; 2];
        let mut outputs: Option<RecordBatch> = None;
        let begun = Instant::now();
        // Several rows show an output that is not one row for each row in; the fastest of several runs is the one that
        // nothing else on the machine got in the way of.
        for round in 0..ROUNDS {
            if round > 0 && begun.elapsed() > TIME {
                break;
            }
            for (rows, micros) in [1, self.most()].into_iter().zip(&mut micros) {
                let inputs = self.rows(of, rows);
                let start = Instant::now();
                let ran = match runner.run(inputs, rows, None) {
                    Ok(ran) => ran,
                    Err(error) => {
                        let said = told(&error);
                        let cause =
                            format!("tried on {rows} row(s) of {}, the model fails: {said}", of.name());
                        return Err(match error.quotes() {
                            _ if !runner.is_up() => Failed::Ended(cause),
                            Some(_) if rows == 1 => Failed::No(cause),
                            _ => Failed::Wrong(cause),
                        });
                    }
                };
                *micros = micros.min(start.elapsed().as_secs_f64() * 1e6);
                outputs.get_or_insert(ran);
            }
        }
        let [first, all] = micros;
        let cost = Cost { micros: first, micros_per_row: (all - first).max(0.0) / (self.most() - 1) as f64 };
        let said = outputs.ok_or_else(|| Failed::Wrong("the model was not tried".to_owned()))?;
        let (outputs, alike) = (said.schema(), self.alike_in_company(runner));
        let tried = Tried { on: of, failed: None, said: Some(said) };
        Ok(Trial { tried, cost, outputs, alike, ended: false })
    }

    /// So many rows at once: all examples, where these are more.
    fn most(&self) -> usize {
        self.examples.and_then(<[Tensor]>::first).map_or(ROWS, |tensor| tensor.shape[0].max(ROWS))
    }

    /// Whether a row gets the same bits alone and among others. Some kernels take another way for one row than for
    /// many; then requests must not share a run, or an answer would depend on who asked at the same time.
    fn alike_in_company(&self, runner: &mut Runner) -> bool {
        let noise = self.fit.noise(ROWS);
        if let Ok(together) = runner.run(noise.clone(), ROWS, None) {
            return alike(runner, &noise, &together);
        }
        // What is made up says nothing to it.
        let Some(examples) = self.examples else { return false };
        let examples: Vec<Tensor> = examples.iter().map(|tensor| repeated(tensor, ROWS)).collect();
        let together = runner.run(examples.clone(), ROWS, None);
        together.is_ok_and(|together| alike(runner, &examples, &together))
    }
}

/// The first example that a model fails on alone, counted from 1, and what it says.
fn which(examples: &[Tensor], runner: &mut Runner) -> Option<(usize, String)> {
    let rows = examples.first()?.shape[0];
    (0..rows).find_map(|row| {
        let one = examples.iter().map(|tensor| tensor.slice(row, 1)).collect();
        runner.run(one, 1, None).err().map(|error| (row + 1, told(&error)))
    })
}

/// What the run itself says, it says of values, and quotes them.
fn told(error: &Error) -> String {
    error.quotes().map_or_else(|| error.to_string(), str::to_owned)
}

/// Whether parts of `all` get the same as in all.
fn alike(runner: &mut Runner, all: &[Tensor], together: &RecordBatch) -> bool {
    // Three parts of other sizes: one row, a few, and the rest.
    let parts = [(0, 1), (1, 5), (6, ROWS - 6)];
    parts.into_iter().all(|(start, rows)| {
        let part = all.iter().map(|tensor| tensor.slice(start, rows)).collect();
        runner.run(part, rows, None).is_ok_and(|alone| same_bits(&alone, &together.slice(start, rows)))
    })
}

/// The rows of a tensor again and again, up to so many.
fn repeated(tensor: &Tensor, rows: usize) -> Tensor {
    let mut repeated = tensor.slice(0, rows.min(tensor.shape[0]));
    while repeated.shape[0] < rows {
        let more = (rows - repeated.shape[0]).min(tensor.shape[0]);
        repeated.append(tensor.slice(0, more));
    }
    repeated
}

/// Arrow compares the bytes of numbers: NaN is NaN, and -0 is not 0.
fn same_bits(a: &RecordBatch, b: &RecordBatch) -> bool {
    a.columns().iter().zip(b.columns()).all(|(a, b)| a.to_data() == b.to_data())
}
