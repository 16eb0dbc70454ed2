//! Why does a value differ from what was served?

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use quern_engine::{Found, Origin, ServicePlan, Status};
use quern_wire::Cause;

use crate::error::Result;
use crate::logged::read::column;
use crate::logged::rows::{Fingerprint, lookup_names};

/// For each look-up, row by row, how its answer of today differs from the logged one.
pub(super) struct Causes<'a> {
    service: &'a ServicePlan,
    lookups: Vec<Vec<Option<Cause>>>,
    is_changed: Vec<bool>,
    /// What is left where definition and rows are the same.
    otherwise: Vec<Cause>,
}

impl<'a> Causes<'a> {
    pub(super) fn new(
        service: &'a ServicePlan,
        now: &Fingerprint,
        rows: &RecordBatch,
        found: &[Found],
    ) -> Result<Causes<'a>> {
        let definitions = column(rows, "definitions")?.as_string::<i32>();
        let mut read: HashMap<&str, Fingerprint> = HashMap::new();
        for row in 0..rows.num_rows() {
            let text = definitions.value(row);
            read.entry(text).or_insert_with(|| serde_json::from_str(text).unwrap_or_default());
        }
        let then = |row: usize| &read[definitions.value(row)];
        let mut lookups = Vec::new();
        for (name, found) in lookup_names(service).iter().zip(found) {
            let logged = Logged::of(rows, name);
            let cause = |row: usize| match then(row).views.get(name) == now.views.get(name) {
                true => {
                    logged.as_ref().map_or(Some(Cause::ChangedDefinition), |logged| logged.cause(found, row))
                }
                false => Some(Cause::ChangedDefinition),
            };
            lookups.push((0..rows.num_rows()).map(cause).collect());
        }
        let is_changed = (0..rows.num_rows()).map(|row| then(row).service != now.service).collect();
        let otherwise = |row: usize| match then(row).functions == now.functions {
            // A look-up that found the same row gave another value of it: it was replaced by one that came later.
            true => Cause::LateData,
            false => Cause::OtherFunctions,
        };
        let otherwise = (0..rows.num_rows()).map(otherwise).collect();
        Ok(Causes { service, lookups, is_changed, otherwise })
    }

    /// Why the value of `output` in `row` differs, given that it does.
    pub(super) fn of(&self, output: usize, row: usize) -> Cause {
        let otherwise = self.otherwise[row];
        match self.service.origins[output] {
            Origin::Feature { lookup, .. } => self.lookups[lookup][row].unwrap_or(otherwise),
            _ if self.is_changed[row] => Cause::ChangedDefinition,
            _ => self.lookups.iter().filter_map(|causes| causes[row]).min().unwrap_or(otherwise),
        }
    }
}

/// What a look-up found then.
struct Logged<'a> {
    states: &'a StringArray,
    times: &'a TimestampMicrosecondArray,
}

impl<'a> Logged<'a> {
    fn of(rows: &'a RecordBatch, name: &str) -> Option<Logged<'a>> {
        let states = rows.column_by_name("view_statuses")?.as_struct().column_by_name(name)?;
        let times = rows.column_by_name("view_event_timestamps")?.as_struct().column_by_name(name)?;
        Some(Logged {
            states: states.as_string_opt()?,
            times: times.as_primitive_opt::<TimestampMicrosecondType>()?,
        })
    }

    fn cause(&self, now: &Found, row: usize) -> Option<Cause> {
        if self.states.value(row) == Status::Unavailable.as_str() {
            return Some(Cause::Unavailable);
        }
        let then_us = self.times.is_valid(row).then(|| self.times.value(row));
        let has_row = now.states[row].has_row();
        let now_us = has_row.then(|| now.event_timestamps.get(row).copied()).flatten();
        match now_us.cmp(&then_us) {
            std::cmp::Ordering::Greater => Some(Cause::LateData),
            std::cmp::Ordering::Less => Some(Cause::NotInHistory),
            std::cmp::Ordering::Equal => None,
        }
    }
}
