//! Do the definitions hold together, and what do they compile to?

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use feature_defs::{DefError, Definitions};

use crate::{ServicePlan, ViewPlan};

/// The canonical schema of each source's rows, by source name.
pub type SourceSchemas = BTreeMap<String, SchemaRef>;

/// Everything that the definitions compile to. Immutable: a new apply makes a new one.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// What was declared.
    pub definitions: Definitions,
    /// Feature views by name.
    pub views: BTreeMap<String, Arc<ViewPlan>>,
    /// Feature services by name.
    pub services: BTreeMap<String, Arc<ServicePlan>>,
}

/// Compiles every view and service, or reports every mistake. A view whose source has no schema here has been
/// reported by whoever looked for it; it and the services that join it are passed over.
pub fn compile(definitions: Definitions, sources: &SourceSchemas) -> Result<Catalog, Vec<DefError>> {
    let mut errors = Vec::new();
    let mut catalog = Catalog { definitions, ..Catalog::default() };
    for view in catalog.definitions.views.values() {
        let Some(schema) = sources.get(&view.source) else { continue };
        match ViewPlan::compile(view, &catalog.definitions, schema) {
            Ok(plan) => {
                catalog.views.insert(view.name.clone(), Arc::new(plan));
            }
            Err(mistakes) => errors.extend(mistakes),
        }
    }
    for service in catalog.definitions.services.values() {
        if service.projections.iter().any(|projection| !catalog.views.contains_key(&projection.view)) {
            continue;
        }
        match ServicePlan::compile(service, &catalog.views) {
            Ok(plan) => {
                catalog.services.insert(service.name.clone(), Arc::new(plan));
            }
            Err(mistakes) => errors.extend(mistakes),
        }
    }
    errors.sort();
    errors.dedup();
    if errors.is_empty() { Ok(catalog) } else { Err(errors) }
}
