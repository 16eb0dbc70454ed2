//! What is asked of a model, and what does it answer?

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use feature_defs::suggest;
use quern_access::{Action, Caller, Question};
use quern_base::memory::Lease;
use quern_engine::{Failed, Inputs};
use quern_features::Vectors;
pub use quern_inference::Priority;

use crate::error::{Error, Kind, Result};
use crate::live::{Deployment, LiveModel, LiveVersion, Seen};
pub use crate::logged::Given;

/// A model, as one request sees it.
#[derive(Debug)]
pub struct Target {
    pub(super) live: Arc<Deployment>,
    pub(super) model: Arc<LiveModel>,
    /// Who asks.
    pub(super) who: Caller,
    /// The place of the version that the caller names.
    pub(super) pinned: Option<usize>,
    /// What it may hold while it is answered; none for what holds little, and for who owns the process.
    pub(super) room: Option<Arc<Lease>>,
    /// Whether the answer shows the vectors.
    pub(super) shows: bool,
    /// Whether who asks may know what goes into it; else outputs are all that they get.
    pub(super) sees: bool,
}

/// What a request asks of a model.
#[derive(Debug)]
pub struct Ask {
    /// What is known of each instance: columns as [`Target::inputs`] or [`Target::features`].
    pub given: Given,
    /// Names the request, in the reply and in the prediction log.
    pub request_id: String,
    /// When nobody waits for the answer any more.
    pub deadline: Option<Instant>,
    /// Who goes first where not all can.
    pub priority: Priority,
}

/// What the model says.
pub struct Answer {
    /// A row for each instance, a column for each output of the model.
    pub outputs: RecordBatch,
    /// Who said it: every instance is in one part.
    pub parts: Vec<Part>,
    /// Whether who asks may not know what went into it.
    pub(super) veiled: bool,
}

impl Answer {
    /// The same for who may not know what went into it.
    pub(super) fn without_why(mut self) -> Answer {
        self.veiled = true;
        self.parts.iter_mut().for_each(|part| part.reason = None);
        self
    }

    /// Which values could not be computed, of what the versions saw; none for who may not know.
    pub fn failed(&self) -> Failed {
        let mut failed = Failed::default();
        if self.veiled {
            return failed;
        }
        let vectors = self.parts.iter().filter_map(|part| part.vectors.as_ref());
        vectors.for_each(|vectors| failed.add(&vectors.failed));
        failed
    }
}

/// Instances that were answered alike.
pub struct Part {
    /// Their places in the request, ascending.
    pub rows: Vec<usize>,
    /// The version that answered them, or that would have where an expression or a constant did.
    pub version: Arc<LiveVersion>,
    /// What answered: the name of a version, `expr` or `constant`.
    pub served_by: String,
    /// Why that one, where it was not the version's turn.
    pub reason: Option<Reason>,
    /// What it saw, row by row; none where the caller brought the vectors, or nothing could be looked up.
    pub vectors: Option<Vectors>,
    /// What it said, row by row.
    pub outputs: RecordBatch,
    /// What models on other servers said on the way, where it asks any.
    pub asked: Option<RecordBatch>,
}

/// Why something else than the version answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The kind of cause.
    pub cause: Cause,
    /// The cause, for people.
    pub detail: String,
}

/// Kinds of causes to leave an instance to a substitute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The model failed.
    Error,
    /// The model did not answer in time.
    Timeout,
    /// Too many wait for the model.
    Overload,
    /// The online store did not answer.
    Unavailable,
    /// A feature is older than `max_age`.
    Stale,
    /// More features are missing than `max_missing`.
    Missing,
}

impl Cause {
    /// As it stands in replies and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Error => "error",
            Cause::Timeout => "timeout",
            Cause::Overload => "overload",
            Cause::Unavailable => "unavailable",
            Cause::Stale => "stale",
            Cause::Missing => "missing",
        }
    }

    pub(super) fn of(error: &Error) -> Option<Cause> {
        match error.kind() {
            Kind::Internal => Some(Cause::Error),
            Kind::Late => Some(Cause::Timeout),
            Kind::Overloaded => Some(Cause::Overload),
            Kind::Unavailable => Some(Cause::Unavailable),
            Kind::InvalidArgument
            | Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::Definitions
            | Kind::Refused
            | Kind::TooLarge => None,
        }
    }
}

impl Target {
    /// The model called `model`, or one version of it, for `who` wants predictions.
    ///
    /// # Errors
    /// `Kind::NotFound`, with the nearest names; `Kind::Forbidden`.
    pub fn find(live: Arc<Deployment>, who: &Caller, model: &str, version: Option<&str>) -> Result<Target> {
        let seen = live.seen_by(who);
        let found = Arc::clone(seen.model(Action::Predict, model)?);
        let sees = reads_all(&seen, &found);
        let pinned = version.map(|name| {
            found.place(name).ok_or_else(|| {
                let known = suggest(name, found.versions.iter().map(|live| live.version.as_str()));
                Error::not_found(format!("model `{model}` has no version `{name}`; {known}"))
            })
        });
        let pinned = pinned.transpose()?;
        drop(seen);
        Ok(Target { pinned, live, model: found, who: who.clone(), room: None, shows: false, sees })
    }

    /// Refuses who may by now no longer ask the model, or know less of what goes into it than when it was found: a
    /// table may take hours.
    ///
    /// # Errors
    /// As [`Target::find`].
    pub fn permit_still(&self, live: &Deployment, who: &Caller) -> Result<()> {
        let seen = live.seen_by(who);
        seen.permit_still(Action::Predict, &self.model.name)?;
        match self.sees && !reads_all(&seen, &self.model) {
            true => Err(unseen(&self.model.name, "go on with what was asked by who may")),
            false => Ok(()),
        }
    }

    /// The same, which takes what it holds from `lease`.
    pub fn within(self, lease: &Arc<Lease>) -> Target {
        Target { room: Some(Arc::clone(lease)), ..self }
    }

    /// The same, whose answer is asked for the vectors as well, or is not.
    ///
    /// # Errors
    /// `Kind::Forbidden` for who may not read them.
    pub fn showing(self, shows: bool) -> Result<Target> {
        if shows {
            self.check_sees("ask for the features that it saw")?;
        }
        Ok(Target { shows, ..self })
    }

    /// Whether who asks may know what goes into the model.
    pub fn sees(&self) -> bool {
        self.sees
    }

    /// Refuses who may not know what goes into the model, and notes that decision.
    pub(super) fn check_sees(&self, what: &str) -> Result<()> {
        let seen = self.live.seen_by(&self.who);
        let is_unread =
            |version: &&Arc<LiveVersion>| !seen.may(Question::Do(Action::Read, &version.service.name));
        let version = self.model.versions.iter().find(is_unread).unwrap_or_else(|| self.version());
        seen.note(Question::Do(Action::Read, &version.service.name), self.sees);
        match self.sees {
            true => Ok(()),
            false => Err(unseen(&self.model.name, what)),
        }
    }

    /// The model.
    pub fn model(&self) -> &LiveModel {
        &self.model
    }

    /// What is live for this request.
    pub fn live(&self) -> &Arc<Deployment> {
        &self.live
    }

    /// The version that the caller names, or the one that answers most.
    pub fn version(&self) -> &Arc<LiveVersion> {
        &self.model.versions[self.place()]
    }

    /// Says whether the version answers.
    ///
    /// # Errors
    /// `Kind::Unavailable` where it is lost.
    pub fn is_ready(&self) -> Result<()> {
        Ok(self.version().model.is_there()?)
    }

    /// Whether an answer should tell who gave it: it may have been one or another.
    pub fn says_who(&self) -> bool {
        self.pinned.is_none() && self.model.says_who
    }

    pub(super) fn place(&self) -> usize {
        self.pinned.unwrap_or_else(|| self.model.route.heaviest())
    }

    /// The places of the versions whose turn it is for some of `inputs`, columns as [`Target::inputs`].
    pub(super) fn turns(&self, inputs: &RecordBatch) -> Result<Vec<usize>> {
        match self.pinned.or_else(|| self.model.route.only()) {
            Some(place) => Ok(vec![place]),
            None => Ok(self.model.route.assign(inputs)?.into_iter().map(|(place, _)| place).collect()),
        }
    }

    /// Whether it matters which keys no window has ever seen.
    pub(super) fn tells_unseen(&self) -> bool {
        let fallback = self.model.fallback.as_ref().filter(|_| self.pinned.is_none());
        fallback.is_some_and(|fallback| fallback.max_missing.is_some())
    }

    /// What an instance brings.
    pub fn inputs(&self) -> Inputs<'_> {
        let of_model = |schema| Inputs { kind: "model", of: &self.model.name, schema };
        match self.pinned {
            None if self.model.says_who => of_model(&self.model.inputs),
            _ if !self.sees => of_model(&self.version().service.inputs),
            _ => Inputs::from(self.version().service.as_ref()),
        }
    }

    /// The feature vectors in the tensors that the model's one file takes: `inputs` are in its order, each the cells of
    /// a tensor of `rows` rows.
    ///
    /// # Errors
    /// A tensor of another width, a value that its feature cannot have; an ensemble, which has no tensors of its own.
    pub fn vectors(&self, inputs: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        Ok(self.version().model.vectors(self.features(), inputs, rows)?)
    }

    /// The columns of a whole feature vector, for who brings that instead.
    pub fn features(&self) -> &SchemaRef {
        &self.version().service.outputs
    }
}

/// Whether they may read what goes into each version of the model.
fn reads_all(seen: &Seen<'_>, model: &LiveModel) -> bool {
    let reads = |version: &Arc<LiveVersion>| seen.may(Question::Do(Action::Read, &version.service.name));
    model.versions.iter().all(reads)
}

fn unseen(model: &str, what: &str) -> Error {
    Error::forbidden(format!(
        "who may ask model `{model}` for predictions, and not read what goes into it, may not {what}"
    ))
}
