//! What must be known of definitions to compute values?

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

    /// Opens the files of a view's source, and what was pushed to it up to now.
    pub fn open(&self, history: &History, view: &ViewPlan) -> Result<Scan> {
        Ok(history.open(self.source(view), &self.source_schemas[&view.source])?)
    }
}
