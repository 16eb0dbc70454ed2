//! Which rows does a view have, or a source, for others to keep? Their table goes out, batch by batch.
//!
//! What is computed comes of history, as a training set does; of the latest rows it is what the head holds once all of
//! that is materialized.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use quern_access::Caller;
use quern_base::memory::Lease;
use quern_features::table::{Rows, ViewTable, of_source};
use quern_store::history::History;
use quern_store::spill::Scratch;
use quern_wire::{SourceCommand, ViewCommand};

use crate::error::{Error, Result};
use crate::live::{Deployment, Seen};
use crate::noted_rows::NotedRows;

/// Gives out rows as tables.
#[derive(Clone)]
pub struct Export {
    pub(crate) history: Arc<History>,
    /// Where keys lie meanwhile that memory does not hold.
    pub(crate) scratch: Scratch,
}

/// A table on its way out, batch by batch.
pub struct Exported(Rows);

impl Exported {
    /// Its columns, known before the first batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }
}

impl Iterator for Exported {
    type Item = Result<NotedRows>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.0.next()?;
        Some(batch.map(|(rows, failed)| NotedRows::new(rows, failed)).map_err(Error::from))
    }
}

impl Export {
    /// The rows of a view, or with `latest` what look-ups find at one moment, `now_us` unless the command names one.
    /// Keys that are held are taken from `room`. Opens history: call it where blocking is allowed.
    ///
    /// # Errors
    /// As [`Seen::export`]; `Kind::Refused` for all rows of a view with windows, and for a feature service.
    pub fn view(
        &self,
        (live, who): (&Deployment, &Caller),
        command: &ViewCommand,
        (now_us, room): (i64, Option<&Arc<Lease>>),
    ) -> Result<Exported> {
        let ViewCommand { view, features, from_us, to_us, latest, at_us, received: _ } = command;
        let seen = live.seen_by(who);
        let found = seen.export(view, features);
        let (view, features) = found.map_err(|error| of_service((live, &seen), view).unwrap_or(error))?;
        if *latest && (from_us.is_some() || to_us.is_some()) {
            return Err(Error::invalid(
                "the latest rows are of one moment (`at`), and not of a stretch of time",
            ));
        }
        if !latest && at_us.is_some() {
            return Err(Error::invalid("a moment (`at`) is of the latest rows; ask for these (`latest`)"));
        }
        if !latest && view.windows.is_some() {
            return Err(Error::refused(format!(
                "feature view `{}` has windows, which move on with time: there are no rows that hold its values; ask for \
                 those of one moment (`latest`), for a training set of the moments that matter (`quern train`), or for the \
                 events themselves (source `{}`)",
                view.name, view.source
            )));
        }
        let scan = live.compiled.open(&self.history, view)?;
        let table = ViewTable { view: Arc::clone(view), features };
        Ok(Exported(match latest {
            true => table.latest(scan, at_us.unwrap_or(now_us), (self.scratch.clone(), room.cloned()))?,
            false => table.all(scan, between(*from_us, *to_us)?)?,
        }))
    }

    /// The rows of a source. Opens history: call it where blocking is allowed.
    ///
    /// # Errors
    /// As [`Seen::export_source`].
    pub fn source(&self, (live, who): (&Deployment, &Caller), command: &SourceCommand) -> Result<Exported> {
        let source = live.seen_by(who).export_source(&command.source)?;
        let schema = &live.compiled.source_schemas[&source.name];
        let scan = self.history.open(source, schema)?;
        Ok(Exported(of_source(scan, source, between(command.from_us, command.to_us)?)))
    }
}

/// What there is instead, where the name is no view's but a feature service's.
fn of_service((live, seen): (&Deployment, &Seen<'_>), name: &str) -> Option<Error> {
    let catalog = &live.compiled.catalog;
    let is_service = catalog.services.contains_key(name) && seen.rights.see_service(name);
    (is_service && !catalog.views.contains_key(name)).then(|| {
        Error::refused(format!(
            "`{name}` is a feature service, and a table is of one feature view: its vectors at the times of a spine are a \
             training set (`quern train {name} --spine FILE --out FILE`), those of now are looked up (`quern get {name} \
             COLUMN=VALUE`), and each of its feature views is exported by its own name"
        ))
    })
}

/// The times of rows that are asked for.
fn between(from_us: Option<i64>, to_us: Option<i64>) -> Result<Range<i64>> {
    match (from_us.unwrap_or(i64::MIN), to_us.unwrap_or(i64::MAX)) {
        (from_us, to_us) if from_us > to_us => {
            Err(Error::invalid("the time that rows begin at is after the one that they end before"))
        }
        (from_us, to_us) => Ok(from_us..to_us),
    }
}
