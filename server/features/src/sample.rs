//! Which vectors did a service have, for a model to be tried on before it answers anybody?

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array, new_null_array};
use arrow::compute::{concat, take};
use quern_engine::schema::conform;
use quern_engine::{Lookup, ServicePlan};
use quern_store::history::History;

use crate::compiled::Compiled;
use crate::error::Result;
use crate::past::{Past, Rule};
use crate::units::Units;

/// So many vectors at most.
const ROWS_MAX: usize = 32;
/// A history of more bytes is not read for that.
const BYTES_MAX: u64 = 256 << 20;

/// Vectors of entities that are in history, at times when they were.
#[derive(Debug)]
pub struct Sample {
    /// As the service's outputs.
    pub vectors: RecordBatch,
    /// Whether request columns had to be made up for them.
    pub made_up: bool,
}

/// Some vectors of `service`; none where its history is empty, or so large that reading it would take long. Reads
/// files: call it where blocking is allowed.
pub fn sample(history: &History, compiled: &Compiled, service: &Arc<ServicePlan>) -> Result<Option<Sample>> {
    let sources = &compiled.catalog.definitions.sources;
    let names: BTreeSet<&str> = service.lookups.iter().map(|lookup| lookup.view.source.as_str()).collect();
    let bytes: u64 =
        names.iter().filter_map(|name| sources.get(*name)).map(|source| history.size(source).1).sum();
    if bytes > BYTES_MAX {
        return Ok(None);
    }
    let mut seen = Vec::new();
    for lookup in &service.lookups {
        match seen_by(history, compiled, lookup)? {
            Some(rows) => seen.push(rows),
            None => return Ok(None),
        }
    }
    let Some(rows) = seen.iter().map(|seen| seen.times_us.len()).max() else { return Ok(None) };
    let made_up = service.inputs.fields().len() > service.key_count;
    let mut inputs: Vec<ArrayRef> = Vec::new();
    for (place, field) in service.inputs.fields().iter().enumerate() {
        let key = service.lookups.iter().zip(&seen).find_map(|(lookup, seen)| {
            let at = lookup.keys.iter().position(|key| *key == place)?;
            Some((&seen.keys[at], seen))
        });
        inputs.push(match key {
            Some((column, seen)) => {
                let again: UInt32Array = (0..rows).map(|row| (row % seen.times_us.len()) as u32).collect();
                conform(&take(column, &again, None)?, field.data_type())?
            }
            None => new_null_array(field.data_type(), rows),
        });
    }
    // By then all of them are visible.
    let time = |row: usize| seen.iter().map(|seen| seen.times_us[row % seen.times_us.len()]).max();
    let times = TimestampMicrosecondArray::from_iter((0..rows).map(time)).with_timezone("UTC");
    let inputs = RecordBatch::try_new(Arc::clone(&service.inputs), inputs)?;
    let past = Past::ask((history, compiled), service, (inputs, Arc::new(times)), Rule::default())?;
    let (vectors, _) = past.vectors(0..rows)?;
    Ok(Some(Sample { vectors, made_up }))
}

/// Some keys of a view, and when the row of each is visible.
struct Seen {
    keys: Vec<ArrayRef>,
    times_us: Vec<i64>,
}

/// Those of the first rows of the latest unit that has any.
fn seen_by(history: &History, compiled: &Compiled, lookup: &Lookup) -> Result<Option<Seen>> {
    let view = &lookup.view;
    let (Some(source), Some(schema)) =
        (compiled.catalog.definitions.sources.get(&view.source), compiled.source_schemas.get(&view.source))
    else {
        return Ok(None);
    };
    let scan = history.open(source, schema)?;
    for place in Units::within(&scan, view, i64::MIN..=i64::MAX)?.matter.into_iter().rev() {
        let unit = &scan.units[place];
        let first: Vec<u32> = (0..unit.rows.min(ROWS_MAX as u64) as u32).collect();
        let (mut keys, mut times_us) = (vec![Vec::new(); view.keys.fields().len()], Vec::new());
        scan.read(place, view.stamp_columns(), Some(&first), &mut |_, rows| {
            let stamps = view.stamps(&rows)?;
            let kept: Vec<usize> = stamps.kept().collect();
            times_us.extend(kept.iter().map(|row| stamps.times_us[*row] + view.lag_us + 1));
            let kept: UInt32Array = kept.iter().map(|row| *row as u32).collect();
            for (key, column) in keys.iter_mut().zip(rows.columns()) {
                key.push(take(column, &kept, None)?);
            }
            Ok::<_, crate::Error>(())
        })?;
        if times_us.is_empty() {
            continue;
        }
        let whole =
            |parts: Vec<ArrayRef>| concat(&parts.iter().map(|part| part as &dyn Array).collect::<Vec<_>>());
        let keys = keys.into_iter().map(whole).collect::<std::result::Result<_, _>>()?;
        return Ok(Some(Seen { keys, times_us }));
    }
    Ok(None)
}
