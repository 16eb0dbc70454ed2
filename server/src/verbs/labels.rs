//! What came true? Labels of predictions, each under the request and row that it belongs to, kept for good.
//!
//! They come when they come, often days later, and come again: of several with one request and row the last counts, by
//! the order of the log. A label counts for predictions that its sender asked for, or for all where they may read the
//! model's log. They lie in the log, as pushed rows do, and then in segments, so every server that shares the
//! log has them at once. What they are is in [`columns`]; [`known`] finds them again. Anybody may label a request that
//! was never made, or is not of the log's sample: [`compact`] drops what counts no more and what there is no room for.

mod columns;
pub mod compact;
mod counting;
mod known;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parking_lot::Mutex;
use quern_access::{Action, Caller, Question};
use quern_base::points::pass;
use quern_engine::size::row_bytes;
use quern_store::history::History;
use quern_store::log::{Log, Logged, labels_of};
use quern_store::segments::{Family, Segment, Segments, Set};
use quern_store::turns::Turns;

use self::columns::{not_too_many, sound, unified, widened};
pub use self::known::{Found, Known};
use crate::error::{Error, Result};
use crate::live::{Deployment, Live};
use crate::logged::PredictionLog;
use crate::seal::Tail;

/// Labels that one call may bring, in bytes.
const PUT_BYTES_MAX: usize = 64 << 20;
/// Labels of a model that are in no segment yet may take this much memory; then more are turned away.
const TAIL_BYTES_MAX: usize = 1 << 30;
/// Where builds before the log had labels, in the data folder.
const FOLDER_BEFORE: &str = "labels";

/// The labels of all models.
pub struct Labels {
    pub(crate) live: Live,
    pub(crate) history: Arc<History>,
    pub(crate) log: Log,
    pub(crate) turns: Arc<Turns>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) predictions: Arc<PredictionLog>,
    /// Up to which number each model's labels were there when it was looked last which of them count.
    pub(crate) looked: Mutex<BTreeMap<String, u64>>,
}

impl Labels {
    /// Keeps labels of `model` that `who` gives; they are durable when this returns. Waits for the log: call it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// An unknown model; no `request_id`; a column that was of another type before; more columns than a model may have,
    /// or text that is too long. Where there is no log that could have them.
    pub fn put(
        &self,
        (live, who): (&Deployment, &Caller),
        model: &str,
        rows: &RecordBatch,
        now_us: i64,
    ) -> Result<usize> {
        let seen = live.seen_by(who);
        seen.model(Action::Label, model)?;
        self.log.check()?;
        // Whoever may read what others asked for may say what came true of it.
        let is_for_all = seen.may(Question::Do(Action::ReadLog, model));
        let rows = sound(rows, (!is_for_all).then(|| who.name()), now_us)?;
        let bytes = row_bytes(&rows);
        if bytes > PUT_BYTES_MAX {
            return Err(Error::too_large(format!(
                "these labels hold {} MiB, and at most {} MiB are taken at a time: send them in parts",
                bytes >> 20,
                PUT_BYTES_MAX >> 20
            )));
        }
        if self.history.pushed.of(&labels_of(model)).tail_size().1 > TAIL_BYTES_MAX {
            return Err(Error::overloaded(format!(
                "labels of model `{model}` come faster than they are written into files"
            )));
        }
        if rows.num_rows() > 0 {
            self.commit(model, &rows)?;
        }
        Ok(rows.num_rows())
    }

    /// Adds labels to the log, in the columns of all that came before and their own.
    fn commit(&self, model: &str, rows: &RecordBatch) -> Result<()> {
        let name = labels_of(model);
        let turn = self.turns.labelling(&name)?;
        // What others have added may have brought columns, too.
        self.history.refresh_to(&turn.lasts)?;
        let pushed = self.history.pushed.of(&name);
        let newest = pushed.tail_from(pushed.end().saturating_sub(1)).pop();
        let files = if newest.is_some() { Vec::new() } else { self.files(model)? };
        let before = self.columns(newest.as_ref(), &files)?;
        let schema = unified([Arc::clone(&before), rows.schema()].iter())?;
        not_too_many(&before, &schema)?;
        let last = turn.lasts.get(&name).copied().unwrap_or_default();
        let logged = vec![Logged {
            position: last.next(),
            first: self.history.end_at(&name, last)?,
            source: name,
            history: widened(rows, &schema)?,
            in_head: 0,
            online: None,
        }];
        pass("labels: before the log");
        self.log.commit(&turn.lasts, &logged, &[])?;
        pass("labels: in the log");
        Ok(self.history.committed(&turn.lasts, logged)?)
    }

    /// The columns of the labels that came last, in the tail or else in a file, which are those of all.
    fn columns(&self, newest: Option<&RecordBatch>, files: &[Segment]) -> Result<SchemaRef> {
        Ok(match (newest, files.last()) {
            (Some(rows), _) => rows.schema(),
            (None, Some(file)) => self.segments.read(file, None)?.schema(),
            (None, None) => Arc::new(Schema::empty()),
        })
    }

    /// All labels of `model`, as of now, at any server.
    ///
    /// # Errors
    /// Where the log or the registry does not answer; where labels are missing that were acknowledged.
    pub fn of(&self, model: &str) -> Result<Known> {
        self.history.refresh_labels(model)?;
        // The tail first: what leaves it now is named by the manifest already.
        let pushed = self.history.pushed.of(&labels_of(model));
        let files = self.files(model)?;
        let mut end = 0;
        for file in &files {
            if file.range.first != end {
                break;
            }
            end = file.range.end;
        }
        if end < pushed.sealed() || files.last().is_some_and(|file| file.range.end != end) {
            return Err(Error::refused(format!(
                "labels {end} to {} of model `{model}` are missing; bring the registry back, which names the segments",
                pushed.sealed()
            )));
        }
        let tail = pushed.tail_from(end);
        let columns = self.columns(tail.last(), &files)?;
        Ok(Known { segments: Arc::clone(&self.segments), files, tail, columns })
    }

    /// The segments that labels of `model` lie in, in the order of the log.
    ///
    /// # Errors
    /// Where the registry does not answer.
    pub fn files(&self, model: &str) -> Result<Vec<Segment>> {
        Ok(self.segments.list(&self.set(model))?)
    }

    fn set(&self, model: &str) -> Set {
        Set::of(Family::Labels, self.log.id(), model)
    }

    fn tail(&self) -> Tail<'_> {
        Tail { history: &self.history, log: &self.log, turns: &self.turns, live: self.live.now() }
    }

    /// Writes the labels of `model` that are in no segment yet into one; whether that was done.
    ///
    /// # Errors
    /// Where store or registry take nothing.
    pub fn seal(&self, model: &str) -> Result<bool> {
        self.tail().seal(&labels_of(model))
    }

    /// The same where they are many. What fails is tried again with the next ones.
    pub(crate) fn seal_large(&self, model: &str) {
        let name = labels_of(model);
        let tail = self.tail();
        if tail.is_large(&name)
            && let Err(error) = tail.seal(&name)
        {
            tracing::warn!(
                model,
                cause = error.logged(),
                "labels could not be written into a segment; they stay in the log"
            );
        }
    }
}

/// Says how to bring in what an earlier build has kept in the folder `data`.
pub(crate) fn look_for_older(data: &Path) {
    let folder = data.join(FOLDER_BEFORE);
    if holds_files(folder.clone()) {
        tracing::warn!(
            folder = %folder.display(),
            "labels of an earlier build lie in the data folder, and are read no more: post them again, model by model, as \
             in `client.label(MODEL, pyarrow.parquet.read_table(\"FOLDER/MODEL\").drop_columns([\"labelled_at\"]))`, and \
             remove the folder"
        );
    }
}

fn holds_files(folder: PathBuf) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| path.is_file() || path.is_dir() && holds_files(path))
}
