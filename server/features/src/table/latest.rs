//! Which row of each key does the head hold at a moment?
//!
//! The same passes as those that bring rows into the head ([`LatestRows`]), so that they are the same rows.

use arrow::datatypes::SchemaRef;
use quern_engine::RowState;
use quern_engine::asof::{Address, KeyTable};
use quern_engine::time::{last_us, state_at};
use quern_store::history::Scan;
use quern_store::spill::Scratch;

use super::{Reading, Take, ViewTable};
use crate::error::Result;
use crate::read::read_selected;
use crate::write::LatestRows;

pub(super) fn read(
    table: &ViewTable,
    scan: &Scan,
    (schema, at_us): (&SchemaRef, i64),
    (scratch, take): (&Scratch, &mut Take<'_>),
) -> Result<()> {
    let view = &*table.view;
    let visible_us = i64::MIN..=last_us(at_us, view.at);
    let found = LatestRows::find(scan, view, visible_us, (scratch, &|_, _| ()))?;
    let reading = Reading::new(table, schema);
    let refused = fetch(&reading, scan, (&found, at_us), take)?;
    if !refused.is_empty() {
        // In their place stands the latest row that no `strict` feature refuses.
        let sound = found.sound(scan, view, &refused)?;
        fetch(&reading, scan, (&sound, at_us), take)?;
    }
    Ok(())
}

/// Takes those of the rows that count, and gives the keys of those that are refused.
fn fetch(
    reading: &Reading<'_>,
    scan: &Scan,
    (found, at_us): (&LatestRows, i64),
    take: &mut Take<'_>,
) -> Result<KeyTable> {
    let view = reading.view;
    let mut refused = KeyTable::default();
    for unit in found.winners.units() {
        let selection = found.winners.of(unit);
        let first = Address::new(scan.units[unit].file, scan.units[unit].first_row);
        read_selected(scan, &selection, &reading.columns, &mut |_, batch| {
            let stamps = reading.stamps(scan, &batch, first)?;
            let all: Vec<u32> = (0..batch.num_rows() as u32).collect();
            let (_, failed) = reading.table(&batch, &all)?;
            let mut rows = Vec::with_capacity(all.len());
            for row in all {
                let place = row as usize;
                let Some(key) = stamps.keys.get(place) else { continue };
                if failed.refused(place).is_some() {
                    refused.intern(key);
                } else if state_at(at_us, stamps.times_us[place], view.lag_us, view.ttl_us)
                    == RowState::Present
                {
                    rows.push(row);
                }
            }
            let (batch, failed) = reading.table(&batch, &rows)?;
            take(batch, failed)
        })?;
    }
    Ok(refused)
}
