//! Which rows does a view have, or a source, all of them and in which order?
//!
//! In the order in which they count as arrived: files by name, then what was pushed. So a table that is read in again,
//! as a source of its own, has the same latest rows. It is made batch by batch, by a thread of its own, as it is taken.

mod beside;
mod latest;
mod windows;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef, TimestampMicrosecondType};
use feature_defs::Source;
use quern_base::memory::Lease;
use quern_engine::asof::Address;
use quern_engine::schema::{conform, timestamp};
use quern_engine::{Failed, Stamps, ViewPlan};
use quern_store::history::Scan;
use quern_store::spill::Scratch;

use self::beside::Beside;
use crate::error::{Error, Result, check_strict};
use crate::read::{place_of, places, stamps};
use crate::units::Units;

/// A table on its way out: its batches, and what of each could not be computed.
pub struct Rows {
    /// The columns of all of them.
    pub schema: SchemaRef,
    batches: Beside<(RecordBatch, Failed)>,
}

/// Takes a batch.
type Take<'a> = dyn FnMut(RecordBatch, Failed) -> Result<()> + 'a;

impl Iterator for Rows {
    type Item = Result<(RecordBatch, Failed)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.next()
    }
}

/// A view's rows, and which of its features are wanted.
#[derive(Clone)]
pub struct ViewTable {
    /// The view.
    pub view: Arc<ViewPlan>,
    /// The places of the features among the view's.
    pub features: Vec<usize>,
}

impl ViewTable {
    /// All rows of history whose event timestamp lies within `times_us`.
    ///
    /// # Errors
    /// Where two columns would share a name. Of a view with windows, which has values at moments and no rows.
    pub fn all(self, scan: Scan, times_us: Range<i64>) -> Result<Rows> {
        if self.view.windows.is_some() {
            return Err(Error::broken(format!("feature view `{}` has windows, and no rows", self.view.name)));
        }
        let schema = self.schema()?;
        let columns = Arc::clone(&schema);
        let batches =
            Beside::begin("rows of a view", move |take| self.read_all(&scan, &columns, times_us, take));
        Ok(Rows { schema, batches })
    }

    /// The row of each key that a look-up at `at_us` finds and that counts then, or the values of its windows, of which
    /// the keys are held out of `room`.
    ///
    /// # Errors
    /// Where two columns would share a name.
    pub fn latest(
        self,
        scan: Scan,
        at_us: i64,
        (scratch, room): (Scratch, Option<Arc<Lease>>),
    ) -> Result<Rows> {
        let schema = self.schema()?;
        let columns = Arc::clone(&schema);
        let batches = Beside::begin("latest rows of a view", move |take| match &self.view.windows {
            Some(_) => windows::read(&self, &scan, (&columns, at_us), (room.as_ref(), take)),
            None => latest::read(&self, &scan, (&columns, at_us), (&scratch, take)),
        });
        Ok(Rows { schema, batches })
    }

    fn schema(&self) -> Result<SchemaRef> {
        let mut fields = self.view.stamp_fields();
        if self.view.windows.is_some() {
            // Values of windows are of many rows.
            fields.truncate(self.view.keys.fields().len() + 1);
        }
        for feature in &self.features {
            let field = &self.view.features.fields()[*feature];
            if fields.iter().any(|known| known.name() == field.name()) {
                return Err(Error::refused(format!(
                    "feature view `{}` has a feature `{}`, as the column of the table is called that says when its rows were \
                     created or which key they have; name the other features alone",
                    self.view.name,
                    field.name()
                )));
            }
            fields.push(field.clone());
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    fn read_all(
        &self,
        scan: &Scan,
        schema: &SchemaRef,
        times_us: Range<i64>,
        take: &mut Take<'_>,
    ) -> Result<()> {
        if times_us.is_empty() {
            return Ok(());
        }
        let reading = Reading::new(self, schema);
        for number in Units::within(scan, &self.view, times_us.start..=times_us.end - 1)?.matter {
            let unit = &scan.units[number];
            let first = Address::new(unit.file, unit.first_row);
            scan.read(number, &reading.columns, None, &mut |offset, batch| {
                let first = first.plus(offset);
                let stamps = reading.stamps(scan, &batch, first)?;
                let wanted = |row: &usize| times_us.contains(&stamps.times_us[*row]);
                let rows: Vec<u32> = stamps.kept().filter(wanted).map(|row| row as u32).collect();
                let (batch, failed) = reading.table(&batch, &rows)?;
                check_strict(&failed, &format!("feature view `{}`", self.view.name), |row| {
                    place_of(scan, first.plus(rows[row] as usize))
                })?;
                take(batch, failed)
            })?;
        }
        Ok(())
    }
}

/// How rows of a source become those of a view's table.
struct Reading<'a> {
    view: &'a ViewPlan,
    schema: &'a SchemaRef,
    /// What is read: keys and times, which are the first, and what features are made of.
    columns: Vec<String>,
    row_places: Vec<usize>,
    /// The features that are wanted, and after them those that may refuse a row.
    features: Vec<usize>,
}

impl<'a> Reading<'a> {
    fn new(table: &'a ViewTable, schema: &'a SchemaRef) -> Reading<'a> {
        let view = &*table.view;
        let mut columns = view.stamp_columns().to_vec();
        let row_places = places(&mut columns, view.row_columns());
        let strict = view.every().into_iter().filter(|feature| view.strict[*feature]);
        let strict = strict.filter(|feature| !table.features.contains(feature));
        let features = table.features.iter().copied().chain(strict).collect();
        Reading { view, schema, columns, row_places, features }
    }

    fn stamp_rows(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        Ok(batch.project(&(0..self.view.stamp_columns().len()).collect::<Vec<_>>())?)
    }

    /// Keys, times and filter of rows of which the first lies there.
    fn stamps(&self, scan: &Scan, batch: &RecordBatch, first: Address) -> Result<Stamps> {
        stamps(scan, self.view, &self.stamp_rows(batch)?, first)
    }

    /// Some of the rows as the table has them; what failed is numbered as they are.
    fn table(&self, batch: &RecordBatch, rows: &[u32]) -> Result<(RecordBatch, Failed)> {
        let batch = match rows.len() == batch.num_rows() {
            true => batch.clone(),
            false => take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?,
        };
        let mut failed = Failed::default();
        let features = self.view.features(&batch.project(&self.row_places)?, &self.features, &mut failed)?;
        // Columns that only `where` reads come after those of the stamps.
        let stamps = self.view.stamp_values(&self.stamp_rows(&batch)?)?;
        let columns = stamps.into_iter().chain(features).take(self.schema.fields().len()).collect();
        Ok((RecordBatch::try_new(Arc::clone(self.schema), columns)?, failed))
    }
}

/// All rows of a source's history whose event timestamp lies within `times_us`, in the columns of `scan`. Those without
/// one are among them where that is all of time.
pub fn of_source(scan: Scan, source: &Source, times_us: Range<i64>) -> Rows {
    let schema = Arc::clone(scan.schema());
    let (columns, time) = (Arc::clone(&schema), source.event_timestamp.clone());
    let batches = Beside::begin("rows of a source", move |take| {
        let names: Vec<String> = columns.fields().iter().map(|field| field.name().clone()).collect();
        let is_all = times_us == (i64::MIN..i64::MAX);
        for (number, unit) in scan.units.iter().enumerate() {
            if !is_all && !unit.may_hold(times_us.start, times_us.end.saturating_sub(1)) {
                continue;
            }
            scan.read(number, &names, None, &mut |_, batch| {
                let values = batch.columns().iter().zip(columns.fields());
                let values = values.map(|(column, field)| typed(column, field, || scan.name(unit)));
                let batch = RecordBatch::try_new(Arc::clone(&columns), values.collect::<Result<_>>()?)?;
                let batch = if is_all { batch } else { within(&batch, &time, &times_us)? };
                take(batch, Failed::default())
            })?;
        }
        Ok(())
    });
    Rows { schema, batches }
}

/// A column in its declared type, which need not say all that a file holds.
fn typed<'f>(column: &ArrayRef, field: &FieldRef, file: impl Fn() -> &'f str) -> Result<ArrayRef> {
    conform(column, field.data_type())
        .map_err(|error| Error::invalid(format!("{}, column `{}`: {error}", file(), field.name())))
}

fn within(batch: &RecordBatch, time: &str, times_us: &Range<i64>) -> Result<RecordBatch> {
    let place = batch.schema_ref().index_of(time)?;
    let times = conform(batch.column(place), &timestamp())?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let is_within = |time: Option<i64>| time.is_some_and(|time_us| times_us.contains(&time_us));
    let rows = (0u32..).zip(times).filter(|(_, time)| is_within(*time)).map(|(row, _)| row);
    Ok(take_record_batch(batch, &UInt32Array::from_iter_values(rows))?)
}
