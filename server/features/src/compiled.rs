//! What must be known of definitions to compute values?

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Fields, Schema, SchemaRef};
use feature_defs::Source;
use quern_engine::{Catalog, SourceSchemas, ViewPlan};
use quern_store::history::{History, Scan};

use crate::error::Result;

/// Definitions, compiled against the schemas that their sources had.
#[derive(Debug, Default)]
pub struct Compiled {
    /// The definitions, compiled.
    pub catalog: Catalog,
    /// The schemas that the sources had when they were applied.
    pub source_schemas: SourceSchemas,
}

impl Compiled {
    /// The source of a view.
    pub fn source(&self, view: &ViewPlan) -> &Source {
        &self.catalog.definitions.sources[&view.source]
    }

    /// The views over a source.
    pub fn views_of(&self, source: &str) -> impl Iterator<Item = &ViewPlan> {
        self.catalog.views.values().map(AsRef::as_ref).filter(move |view| view.source == source)
    }

    /// The columns of a source that views read, of which others in its files keep nobody from reading.
    pub fn used(&self, source: &str) -> SchemaRef {
        let names: BTreeSet<&String> = self
            .views_of(source)
            .flat_map(|view| view.stamp_columns().iter().chain(view.row_columns()))
            .collect();
        let fields = self.source_schemas[source].fields().iter();
        Arc::new(Schema::new(
            fields.filter(|field| names.contains(field.name())).cloned().collect::<Fields>(),
        ))
    }

    /// Opens the files of a view's source, and what was pushed to it up to now, for all views of that source.
    pub fn open(&self, history: &History, view: &ViewPlan) -> Result<Scan> {
        Ok(history.open(self.source(view), &self.used(&view.source))?)
    }
}
