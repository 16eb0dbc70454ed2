//! How is one source pulled, from its place to its end?

use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use feature_defs::{Connection, Epoch, PullSource, Source};
use quern_access::Caller;
use quern_engine::schema::{canonical, conform};
use quern_store::history::queried;
use quern_warehouse::{Answers, Drivers, Program, Question, sql};
use quern_wire::{Progress, PullSummary, PushReply, PushTo};
use tokio::runtime::Handle;

use super::known::cursors;
use super::place::{bound, part};
use super::{Form, Known, Place};
use crate::error::{Error, Kind, ReadOn, Result};
use crate::verbs::push::{Position, PushedBatch};
use crate::{Deployment, Node};

/// The most rows that are pushed together.
const ROWS_MAX: usize = 65_536;
/// How long a push waits that found no room, and how often it does.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSES_MAX: usize = 3_000;

/// One source, as it is pulled.
pub(super) struct Pulling<'a> {
    node: &'a Node,
    source: &'a Source,
    schema: &'a SchemaRef,
    pull: &'a PullSource,
    connection: &'a Connection,
    /// What the numbers of a cursor count that is a time.
    format: Option<Epoch>,
    part: String,
    /// How far it is pulled; none where it never was.
    place: Option<Place>,
    /// The same, as it is noted.
    noted: Option<Vec<u8>>,
    /// From which cursor on rows are asked for.
    lower: Option<i64>,
    known: Known,
    last: i64,
    begun: Instant,
    done: PullSummary,
}

impl<'a> Pulling<'a> {
    /// Finds out how far `source` is pulled, and which rows of its overlap history has.
    pub(super) fn new(node: &'a Node, live: &'a Deployment, source: &'a Source, now_us: i64) -> Result<Self> {
        let broken = || Error::broken(format!("source `{}` is of no database", source.name));
        let pull = source.pull.as_ref().ok_or_else(broken)?;
        let connection = pull.connection.as_ref().ok_or_else(broken)?;
        let schema = live.compiled.source_schemas.get(&source.name).ok_or_else(broken)?;
        let (begun, format) = (Instant::now(), source.format(&pull.cursor));
        let is_time = schema.field_with_name(&pull.cursor)?.data_type().is_temporal();
        let part = part(pull, is_time, format);
        // First the place, then history: whatever comes in between moves the place, and is noticed by that.
        let noted = node.push.position(&source.name, &part)?;
        let mut place = noted.as_deref().map(Place::read).transpose()?;
        // A time that is yet to come says nothing of the rows until then.
        let greatest = |place: &Place| if is_time { place.greatest.min(now_us) } else { place.greatest };
        let lower = place.as_ref().map(|place| greatest(place).saturating_sub(pull.overlap));
        let from = place.as_ref().zip(lower).map_or(0, |(place, lower)| place.known_from(lower));
        let read = (from, lower.unwrap_or(i64::MIN));
        let (known, end) = Known::read(&node.reader.history, (source, schema), &pull.cursor, read)?;
        if let (Some(place), Some(lower)) = (&mut place, lower) {
            place.mark(end, lower);
        }
        let done = PullSummary { source: source.name.clone(), ..PullSummary::default() };
        let last = i64::MIN;
        Ok(Pulling {
            node,
            source,
            schema,
            pull,
            connection,
            format,
            part,
            place,
            noted,
            lower,
            known,
            last,
            begun,
            done,
        })
    }

    /// Pulls what is new. Gives what was done, and warnings.
    pub(super) fn run(mut self, progress: &(dyn Fn(Progress) + Sync)) -> Result<(PullSummary, Vec<String>)> {
        let mut form = self.place.as_ref().map(|place| place.form);
        let (mut answers, mut is_first) = (self.ask(form)?, true);
        while let Some(rows) = answers.rows()? {
            if rows.num_rows() == 0 {
                continue;
            }
            if std::mem::take(&mut is_first) {
                let found = self.form(&rows)?;
                // Its column is of another type by now, and the bound was not one of that.
                if form.replace(found).is_some_and(|form| form != found) {
                    (answers, is_first) = (self.ask(form)?, true);
                    continue;
                }
            }
            self.take(&rows, form.unwrap_or(Form::Time))?;
            let (view, rows) = (format!("{} (pulled)", self.source.name), self.done.rows);
            progress(Progress { view, done_rows: rows, total_rows: rows });
        }
        let without = count(&mut answers)?;
        let mut warnings = Vec::new();
        let (name, cursor) = (&self.source.name, &self.pull.cursor);
        if without > 0 {
            warnings.push(format!("source `{name}`: rows without `{cursor}` are not pulled: {without}"));
        }
        if self.done.rejected > 0 {
            let rejected = self.done.rejected;
            warnings.push(format!(
                "source `{name}`: rows that were pulled and are no good are left out: {rejected}; a log at `debug` says why"
            ));
        }
        self.done.rejected += without;
        self.done.seconds = self.begun.elapsed().as_secs_f64();
        Ok((self.done, warnings))
    }

    /// Asks for the rows from where it was pulled to, of a cursor that is `form`; and how many rows have none.
    fn ask(&self, form: Option<Form>) -> Result<Answers> {
        let driver = self.connection.database.as_ref().map_or("", |database| database.driver.as_str());
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let from = self.lower.zip(form).map(|(lower, form)| bound(lower, form, self.format));
        let (rows, cursor) = (&self.pull.rows, self.pull.cursor.as_str());
        let statements =
            vec![sql::rows(driver, rows, &columns, (cursor, from)), sql::without(driver, rows, cursor)];
        let settings = &self.node.settings;
        let question = Question::new(self.connection, &Drivers(settings.adbc_drivers.clone()), statements)?;
        let worker = &settings.worker;
        let here = || Error::broken(format!("source `{}` is of no project", self.source.name));
        let folder = settings.roots().at(&self.source.loc).map_err(|_| here())?.repository().to_owned();
        let program = Program { path: worker.path.clone(), arguments: worker.arguments.clone(), folder };
        Ok(Answers::of(&program, &question, &self.connection.name)?)
    }

    /// As what the database has the cursor.
    fn form(&self, rows: &RecordBatch) -> Result<Form> {
        let Some(column) = rows.column_by_name(&self.pull.cursor) else { return Ok(Form::Time) };
        Ok(match canonical(column.data_type()) {
            DataType::Utf8 => {
                let first = conform(&column.slice(0, 1), &DataType::Utf8)?;
                let first = arrow::array::AsArray::as_string::<i32>(&first);
                // As texts are in order only where they begin with the year.
                if first.is_valid(0) && first.value(0).as_bytes().get(4) != Some(&b'-') {
                    return Err(self.disordered("holds texts that do not begin as 2024-12-31 does"));
                }
                Form::Text
            }
            found if found.is_numeric() => Form::Number,
            _ => Form::Time,
        })
    }

    fn disordered(&self, why: &str) -> Error {
        let (source, cursor) = (&self.source.name, &self.pull.cursor);
        Error::invalid(format!(
            "source `{source}`: its cursor `{cursor}` {why}, so that the database cannot tell which rows are new: make it a \
             time in a `query`, or name another `cursor`"
        ))
    }

    /// Takes in those of the rows that are new.
    fn take(&mut self, rows: &RecordBatch, form: Form) -> Result<()> {
        let rows = queried(self.source, self.schema, rows)?;
        let found = rows.column_by_name(&self.pull.cursor).map(cursors).transpose()?.unwrap_or_default();
        let found: Vec<i64> = found.into_iter().flatten().collect();
        if found.len() < rows.num_rows() {
            return Err(Error::invalid(format!(
                "source `{}`: its cursor `{}` has values that are none of its type",
                self.source.name, self.pull.cursor
            )));
        }
        if !found.is_sorted() || found.first().is_some_and(|first| *first < self.last) {
            return Err(self.disordered("does not come in the order of what it says"));
        }
        self.last = found.last().copied().unwrap_or(self.last);
        // What a coarse bound lets through is not looked for in history either.
        let late = self.lower.map_or(0, |lower| found.partition_point(|cursor| *cursor < lower));
        let (rows, found) = (rows.slice(late, rows.num_rows() - late), &found[late..]);
        let Some(first) = found.first() else { return Ok(()) };
        self.known.forget_before(*first);
        let is_new = self.known.take(&rows, found)?;
        self.done.known += (rows.num_rows() - is_new.true_count()) as u64;
        let cursors: Vec<i64> =
            found.iter().zip(&is_new).filter_map(|(it, new)| (new == Some(true)).then_some(*it)).collect();
        let rows = filter_record_batch(&rows, &is_new)?;
        let most = ROWS_MAX.min(self.node.settings.push_queue_rows);
        for start in (0..rows.num_rows()).step_by(most) {
            let some = rows.slice(start, most.min(rows.num_rows() - start));
            self.push(&some, cursors[(start + most).min(cursors.len()) - 1], form)?;
        }
        Ok(())
    }

    /// Pushes rows, of which the last has cursor `reached`, and notes how far that is.
    fn push(&mut self, rows: &RecordBatch, reached: i64, form: Form) -> Result<()> {
        let given = rows.num_rows();
        let first = Place { pushes: 0, greatest: reached, form, marks: Vec::new() };
        let known = self.place.as_ref().unwrap_or(&first);
        let (pushes, greatest) = (known.pushes + 1, known.greatest.max(reached));
        let place = Place { pushes, greatest, form, marks: known.marks.clone() };
        let position = Position { part: self.part.clone(), from: self.noted.take(), to: place.bytes()? };
        let reply = self.pushed(rows, &position)?;
        if let Some(first) = reply.rejected.first() {
            let (source, rows) = (&self.source.name, reply.rejected.len());
            // The cause quotes the row.
            tracing::debug!(
                source,
                rows,
                cause = first.cause,
                "the first of the pulled rows that were left behind"
            );
        }
        self.done.rows += reply.accepted as u64;
        self.done.rejected += reply.rejected.len() as u64;
        self.done.known += (given - reply.accepted - reply.rejected.len()) as u64;
        (self.place, self.noted) = (Some(place), Some(position.to));
        Ok(())
    }

    fn pushed(&self, rows: &RecordBatch, position: &Position) -> Result<PushReply> {
        let batch = || PushedBatch {
            source: self.source.name.clone(),
            rows: rows.clone(),
            rejected: Vec::new(),
            // The head at once: a row may come later than materialize looks for late ones.
            to: PushTo::OnlineAndOffline,
            view: None,
            idempotency_key: None,
            positions: vec![position.clone()],
        };
        let runtime = Handle::current();
        for _ in 0..PAUSES_MAX {
            match runtime.block_on(self.node.push.push(&Caller::owner(), batch())) {
                Err(error) if error.kind() == Kind::Overloaded => thread::sleep(PAUSE),
                Err(error) if error.facts::<ReadOn>().is_some() => {
                    let source = &self.source.name;
                    return Err(Error::busy(format!("source `{source}` is being pulled by another server")));
                }
                ended => return ended,
            }
        }
        Err(Error::overloaded(format!("rows pulled for source `{}` find no room", self.source.name)))
    }
}

/// The one number that a statement answers with.
fn count(answers: &mut Answers) -> Result<u64> {
    let mut all = 0;
    while let Some(rows) = answers.rows()? {
        for column in rows.columns() {
            let counted = conform(column, &DataType::Int64)?;
            all += cursors(&counted)?.into_iter().flatten().sum::<i64>();
        }
    }
    Ok(u64::try_from(all).unwrap_or_default())
}
