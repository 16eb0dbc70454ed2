//! What does DataFusion make of this SQL expression?
//!
//! Of DataFusion only what knows expressions is here: its parser, its functions, its rules of types, its evaluation.
//! Its query engine, which reads tables and runs plans, is not: that is half of it, to build and to link.

use std::sync::Arc;

use datafusion_common::{DFSchema, Result};
use datafusion_expr::Expr;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_sql::parser::DFParserBuilder;
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::ExprWithAlias;
use datafusion_sql::sqlparser::parser::ParserError;
use datafusion_sql::sqlparser::tokenizer::Tokenizer;

use super::dialect::Bounded;
use super::evaluator::evaluator;
use super::known::FUNCTIONS;
use super::{constants, dialect, failing, reference};

/// The words of `sql`. Names keep their case.
///
/// # Errors
/// A text that is no expression.
pub fn words(sql: &str) -> Result<ExprWithAlias> {
    let dialect = Bounded::new(sql);
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(ParserError::from)?;
    dialect::check_types(&tokens)?;
    let words = DFParserBuilder::new(tokens)
        .with_dialect(&dialect)
        .with_recursion_limit(FUNCTIONS.options.sql_parser.recursion_limit.get())
        .build()?
        .parse_into_expr();
    if dialect.gave_up() { Err(dialect::too_nested()) } else { words }
}

/// What `words` say over the columns of `schema`.
///
/// # Errors
/// A column or function that does not exist.
pub fn logical(words: ExprWithAlias, schema: &DFSchema) -> Result<Expr> {
    let functions = &*FUNCTIONS;
    let planner = SqlToRel::new_with_options(functions, ParserOptions::from(&functions.options.sql_parser));
    planner.sql_to_expr_with_alias(words, schema, &mut PlannerContext::new())
}

/// What evaluates `logical`, as the reference has it. Types are matched and constants folded once; some functions, such
/// as `coalesce`, do not even run unfolded.
///
/// # Errors
/// Types that do not go together, and constants that have no value.
pub fn physical(logical: Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let simplifier = simplifier(schema);
    let meant = reference::as_written(logical, schema)?;
    let typed = reference::as_typed(simplifier.coerce(meant, schema)?, schema)?;
    // What was folded may have another type than what it was folded from.
    let folded = simplifier.coerce(simplifier.simplify(typed)?, schema)?;
    constants::check(&folded, schema)?;
    let compiled = failing::guarded(evaluator(&folded, schema)?)?;
    constants::try_on_a_row(compiled.as_ref(), schema.as_arrow())?;
    Ok(compiled)
}

/// What evaluates `logical` with its types matched and nothing folded.
///
/// # Errors
/// Types that do not go together.
pub fn as_it_comes(logical: Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    evaluator(&simplifier(schema).coerce(logical, schema)?, schema)
}

fn simplifier(schema: &DFSchema) -> ExprSimplifier {
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(&FUNCTIONS.options))
        .build();
    ExprSimplifier::new(context)
}
