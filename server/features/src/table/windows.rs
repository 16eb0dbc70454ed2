//! What had happened to each key within its windows, at a moment?
//!
//! The keys are found first, and held; then some of them at a time are asked about, as a training set would.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{concat, take as taken};
use arrow::datatypes::SchemaRef;
use quern_base::memory::{Lease, Part};
use quern_engine::asof::{Address, KeyTable};
use quern_engine::key::Keys;
use quern_engine::size::column_bytes;
use quern_engine::time::{last_us, visible_from};
use quern_store::history::Scan;

use super::{Take, ViewTable};
use crate::as_of::{Question, ask_source};
use crate::error::Result;
use crate::read::stamps;
use crate::units::Units;

/// Keys that are asked about together: history is read once for each such lot.
const KEYS: usize = 1 << 20;
/// Rows of a batch: of lists a row may be large.
const ROWS: usize = 4_096;
/// What a value of a window takes until it is in a batch.
const VALUE_BYTES: usize = 8;

pub(super) fn read(
    table: &ViewTable,
    scan: &Scan,
    (schema, at_us): (&SchemaRef, i64),
    (room, take): (Option<&Arc<Lease>>, &mut Take<'_>),
) -> Result<()> {
    let view = &*table.view;
    let held = room.map(|room| room.part(0)).transpose()?;
    for keys in keys(table, scan, at_us, held.as_ref())? {
        let (encoded, count) = (Keys::encode(&view.keys, &keys)?, keys[0].len());
        let bytes = count * table.features.len() * VALUE_BYTES;
        let _values = room.map(|room| room.part(bytes)).transpose()?;
        let question = Question {
            view,
            keys: &encoded,
            query_times_us: &vec![at_us; count],
            excluded: None,
            features: &table.features,
            as_known: false,
            expired: false,
            unseen: false,
            room: None,
        };
        let answers = ask_source(scan, [&question].into_iter())?;
        for answer in &answers {
            for start in (0..count).step_by(ROWS) {
                let rows = ROWS.min(count - start);
                let found = answer.found(start..start + rows)?;
                let at: ArrayRef =
                    Arc::new(TimestampMicrosecondArray::from_value(at_us, rows).with_timezone("UTC"));
                let keys = keys.iter().map(|column| column.slice(start, rows));
                let columns = keys.chain([at]).chain(found.columns).collect();
                let mut failed = found.failed;
                if start == 0 {
                    failed.add(&answer.failed.elsewhere());
                }
                take(RecordBatch::try_new(Arc::clone(schema), columns)?, failed)?;
            }
        }
    }
    Ok(())
}

/// The columns of all keys of which an event was visible at that moment, in lots, each once, as they were met.
fn keys(table: &ViewTable, scan: &Scan, at_us: i64, held: Option<&Part>) -> Result<Vec<Vec<ArrayRef>>> {
    let view = &*table.view;
    let (last_us, columns) = (last_us(at_us, view.at), view.keys.fields().len());
    let mut known = KeyTable::default();
    let (mut lots, mut parts, mut count): (Vec<Vec<ArrayRef>>, Vec<Vec<ArrayRef>>, usize) =
        Default::default();
    let times_us = i64::MIN..=last_us.saturating_sub(view.lag_us);
    for number in Units::within(scan, view, times_us)?.matter {
        let unit = &scan.units[number];
        let first = Address::new(unit.file, unit.first_row);
        scan.read(number, view.stamp_columns(), None, &mut |offset, batch| -> Result<()> {
            let stamps = stamps(scan, view, &batch, first.plus(offset))?;
            let visible =
                stamps.kept().filter(|row| visible_from(stamps.times_us[*row], view.lag_us) <= last_us);
            let mut new = Vec::new();
            for row in visible {
                let Some(key) = stamps.keys.get(row) else { continue };
                let before = known.len();
                known.intern(key);
                if known.len() > before {
                    new.push(row as u32);
                }
            }
            if !new.is_empty() {
                count += new.len();
                let new = UInt32Array::from(new);
                let values = view.stamp_values(&batch)?;
                let values = values.iter().take(columns).map(|column| taken(column, &new, None));
                let part: Vec<ArrayRef> = values.collect::<std::result::Result<_, _>>()?;
                // Once as columns, and once as what tells it from others.
                held.map_or(Ok(()), |held| held.grow(2 * part.iter().map(column_bytes).sum::<usize>()))?;
                parts.push(part);
            }
            if count >= KEYS {
                lots.push(together(&std::mem::take(&mut parts), columns)?);
                count = 0;
            }
            Ok(())
        })?;
    }
    if !parts.is_empty() {
        lots.push(together(&parts, columns)?);
    }
    Ok(lots)
}

fn together(parts: &[Vec<ArrayRef>], columns: usize) -> Result<Vec<ArrayRef>> {
    let column = |place: usize| {
        let pieces: Vec<&dyn Array> = parts.iter().map(|part| &*part[place] as &dyn Array).collect();
        Ok(concat(&pieces)?)
    };
    (0..columns).map(column).collect()
}
