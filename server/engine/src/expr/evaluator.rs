//! What evaluates an expression whose types are matched?

use std::sync::Arc;

use datafusion_common::{DFSchema, Result};
use datafusion_expr::Expr;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};

/// DataFusion's evaluation of it, which ends with an error where a value fails.
pub(super) fn evaluator(typed: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    create_physical_expr(typed, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
}
