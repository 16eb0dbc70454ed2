//! Which columns does a caller bring?

use crate::ServicePlan;
use arrow::datatypes::SchemaRef;

/// The columns that a request or a table brings for each row, besides `event_timestamp`.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What wants them: `feature service` or `model`.
    pub kind: &'a str,
    /// Its name; empty where a request lists features itself.
    pub of: &'a str,
    /// Names and types: join keys, then request columns.
    pub schema: &'a SchemaRef,
}

impl<'a> From<&'a ServicePlan> for Inputs<'a> {
    fn from(service: &'a ServicePlan) -> Self {
        Inputs { kind: "feature service", of: &service.name, schema: &service.inputs }
    }
}
