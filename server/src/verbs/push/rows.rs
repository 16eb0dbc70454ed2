//! Which of the rows that were pushed may come in?
//!
//! Those that history can keep and that every view over the source can read. A batch is tried whole; where it fails it
//! is halved until the rows at fault are found, so that one bad row costs its own place and no other's.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{nullif, take_record_batch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use feature_defs::{Source, suggest};
use quern_engine::schema::{canonical, conform, conforms, timestamp, type_name};
use quern_engine::{Failed, ViewPlan, in_words, instant};
use quern_features::strict_text;
use quern_features::write::project;
use quern_wire::{PushTo, Rejected};

use super::PushedBatch;
use crate::error::{Error, Result};
use crate::live::Deployment;

/// The push with its good rows only, in the columns of the source, and with every rejected row.
pub(super) fn check(live: &Deployment, push: PushedBatch) -> Result<PushedBatch> {
    let source = live.pushed_to(&push.source)?;
    check_windows(live, &push)?;
    let schema = &live.compiled.source_schemas[&source.name];
    let mut faults = Faults::default();
    push.rejected.into_iter().for_each(|rejected| faults.note(rejected));
    let rows = RecordBatch::try_new(Arc::clone(schema), columns(source, schema, &push.rows, &mut faults)?)?;
    if let Some(times) = rows.column_by_name(&source.event_timestamp) {
        (0..rows.num_rows()).filter(|row| times.is_null(*row)).for_each(|row| {
            faults.add(row, Some(&source.event_timestamp), "the event timestamp is null".to_owned());
        });
    }
    let views: Vec<&ViewPlan> = live.compiled.views_of(&source.name).collect();
    let good = faults.good(rows.num_rows());
    let tried = some_of(&rows, good.clone())?;
    let mut fault = |row: usize, cause| faults.add(good[row] as usize, None, cause);
    for view in &views {
        let attempt = |part: Range<usize>| read(view, &tried.slice(part.start, part.len()));
        find(0..tried.num_rows(), &attempt, &mut fault);
    }
    nobodys(&views, &tried, &mut fault)?;
    let rows = some_of(&rows, faults.good(rows.num_rows()))?;
    Ok(PushedBatch { rows, rejected: faults.0.into_values().collect(), ..push })
}

/// Refuses rows for look-ups alone where windows would have to count them: those count what history has.
fn check_windows(live: &Deployment, push: &PushedBatch) -> Result<()> {
    let is_meant = |view: &&ViewPlan| push.view.as_ref().is_none_or(|name| *name == view.name);
    let mut views = live.compiled.views_of(&push.source).filter(is_meant);
    match views.find(|view| push.to == PushTo::Online && view.windows.is_some()) {
        None => Ok(()),
        Some(view) => Err(Error::refused(format!(
            "windows of feature view `{}` count what lies in history, where rows that are pushed `to: online` are not; \
             push them `to: online_and_offline`",
            view.name
        ))),
    }
}

/// The rows at these places, which ascend; as a rule, all of them.
fn some_of(rows: &RecordBatch, places: Vec<u32>) -> Result<RecordBatch> {
    match places.len() == rows.num_rows() {
        true => Ok(rows.clone()),
        false => Ok(take_record_batch(rows, &UInt32Array::from(places))?),
    }
}

/// Rejected rows by their place, each with the first fault that was found.
#[derive(Default)]
struct Faults(BTreeMap<usize, Rejected>);

impl Faults {
    fn note(&mut self, rejected: Rejected) {
        self.0.entry(rejected.index).or_insert(rejected);
    }

    fn add(&mut self, index: usize, column: Option<&str>, cause: String) {
        self.note(Rejected { index, column: column.map(str::to_owned), cause });
    }

    /// The rows without a fault, of so many.
    fn good(&self, rows: usize) -> Vec<u32> {
        (0..rows as u32).filter(|row| !self.0.contains_key(&(*row as usize))).collect()
    }
}

/// The columns of the source. What its files alone have, a push may leave out.
fn columns(
    source: &Source,
    schema: &SchemaRef,
    rows: &RecordBatch,
    faults: &mut Faults,
) -> Result<Vec<ArrayRef>> {
    let wrong = |what: String| Error::invalid(format!("source `{}`: {what}", source.name));
    for field in rows.schema_ref().fields() {
        if schema.field_with_name(field.name()).is_err() {
            let help = suggest(field.name(), schema.fields().iter().map(|field| field.name().as_str()));
            return Err(wrong(format!("unknown column `{}`; {help}", field.name())));
        }
    }
    let mut column = |field: &Arc<Field>| {
        let name = field.name();
        let Some(given) = rows.column_by_name(name) else {
            if !source.columns.iter().any(|column| column.name == *name) {
                return Ok(new_null_array(field.data_type(), rows.num_rows()));
            }
            let needed = source.columns.iter().map(|c| format!("`{}` ({})", c.name, c.dtype));
            let needed = needed.collect::<Vec<_>>().join(", ");
            return Err(wrong(format!("column `{name}` is missing; rows have {needed}")));
        };
        let (wanted, found) = (field.data_type(), given.data_type());
        // Looked at one by one are whole numbers that pandas keeps as floats, and times that are text.
        let is_text_time = is_text(found) && is_time(wanted);
        let format = source.format(name).filter(|_| instant::is_number(found));
        let is_whole = found.is_floating() && wanted.is_integer();
        if !(conforms(found, wanted) || is_whole || is_text_time || format.is_some()) {
            let is_uncounted = *wanted == timestamp() && instant::is_number(found);
            let help = if is_uncounted { "; its `format` says what numbers count" } else { "" };
            let (wanted, found) = (type_name(wanted), type_name(found));
            return Err(wrong(format!("column `{name}` is {found}, and must be {wanted}{help}")));
        }
        let conform = |given: &ArrayRef| match format {
            Some(format) => instant::of_numbers(given, format),
            None => conform(given, wanted),
        };
        if let Ok(column) = conform(given) {
            return Ok(column);
        }
        let mut bad = vec![false; given.len()];
        let attempt = |part: Range<usize>| {
            let cells = given.slice(part.start, part.len());
            conform(&cells).map(drop).map_err(|error| misfit(&cells, wanted, is_text_time, &error))
        };
        find(0..given.len(), &attempt, &mut |row, cause| {
            bad[row] = true;
            faults.add(row, Some(name), cause);
        });
        Ok(conform(&nullif(given, &BooleanArray::from(bad))?)?)
    };
    schema.fields().iter().map(&mut column).collect()
}

fn is_text(dtype: &DataType) -> bool {
    matches!(canonical(dtype), DataType::Utf8)
}

fn is_time(dtype: &DataType) -> bool {
    matches!(dtype, DataType::Timestamp(_, _) | DataType::Date32)
}

/// Why `cells`, of which there is one, cannot be read as `wanted`: of a text that is no time in the words of a push in
/// JSON.
fn misfit(cells: &ArrayRef, wanted: &DataType, is_text_time: bool, error: &ArrowError) -> String {
    match arrow::util::display::array_value_to_string(cells, 0) {
        Ok(text) if is_text_time => {
            format!("expected {} (RFC 3339), found string {text:?}", type_name(wanted))
        }
        _ => in_words(error),
    }
}

/// Finds the rows that `attempt` fails on.
fn find(
    rows: Range<usize>,
    attempt: &dyn Fn(Range<usize>) -> std::result::Result<(), String>,
    found: &mut dyn FnMut(usize, String),
) {
    if rows.is_empty() {
        return;
    }
    let Err(cause) = attempt(rows.clone()) else { return };
    if rows.len() == 1 {
        return found(rows.start, cause);
    }
    let middle = rows.start + rows.len() / 2;
    find(rows.start..middle, attempt, found);
    find(middle..rows.end, attempt, found);
}

/// Computes what the view makes of the rows that it takes.
fn read(view: &ViewPlan, rows: &RecordBatch) -> std::result::Result<(), String> {
    let computed = || -> Result<Failed> {
        let stamps = view.stamps(&project(rows, view.stamp_columns())?)?;
        let kept: Vec<u32> = stamps.kept().map(|row| row as u32).collect();
        let inputs = some_of(&project(rows, view.row_columns())?, kept)?;
        let (every, mut failed) = (view.every(), Failed::default());
        match &view.windows {
            Some(windows) => windows.prepare(&inputs, &windows.inputs_of(&every), &mut failed).map(drop)?,
            None => view.features(&inputs, &every, &mut failed).map(drop)?,
        }
        Ok(failed)
    };
    let failed = computed().map_err(|error| error.to_string())?;
    match failed.first_refused() {
        None => {
            quern_features::metrics().note_failed(&view.name, &failed);
            Ok(())
        }
        Some((_, feature)) => Err(strict_text(feature, &format!("feature view `{}`", view.name))),
    }
}

/// Finds the rows whose join key is null in every view.
fn nobodys(views: &[&ViewPlan], rows: &RecordBatch, found: &mut dyn FnMut(usize, String)) -> Result<()> {
    let mut is_somebodys = vec![views.is_empty(); rows.num_rows()];
    for view in views {
        let keys = project(rows, &view.stamp_columns()[..view.keys.fields().len()])?;
        for (row, is) in is_somebodys.iter_mut().enumerate() {
            *is |= keys.columns().iter().all(|column| column.is_valid(row));
        }
    }
    let names: Vec<String> = views.iter().map(|view| format!("`{}`", view.name)).collect();
    for (row, _) in is_somebodys.iter().enumerate().filter(|(_, is)| !**is) {
        found(row, format!("the join key of feature view {} is null", names.join(" and of ")));
    }
    Ok(())
}
