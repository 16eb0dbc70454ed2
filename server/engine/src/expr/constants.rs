//! Does every constant part of an expression have a value?
//!
//! A time zone, a pattern, `1 / 0`: what does not depend on a row fails for all of them, and is a mistake of whoever
//! wrote it. So it is computed when the expression is compiled.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{BinaryExpr, Like};
use datafusion_expr::{Expr, ExprSchemable, Operator, lit};
use datafusion_physical_expr::PhysicalExpr;

use super::evaluator::evaluator;

/// Computes every part of `typed` that names no column.
///
/// # Errors
/// What the first one that fails says.
pub(super) fn check(typed: &Expr, schema: &DFSchema) -> Result<()> {
    typed.apply(|node| {
        if matches!(node, Expr::Literal(..) | Expr::HigherOrderFunction(_) | Expr::Lambda(_)) {
            return Ok(TreeNodeRecursion::Jump);
        }
        if !node.any_column_refs() {
            evaluate(node)?;
            return Ok(TreeNodeRecursion::Jump);
        }
        if let Some(tried) = sample(node, schema)? {
            evaluate(&tried)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn evaluate(constant: &Expr) -> Result<()> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
    evaluator(constant, &DFSchema::empty())?.evaluate(&row)?;
    Ok(())
}

/// Tries `compiled` on a row: some functions take an encoding or a stride from a constant alone, and say so no sooner.
///
/// # Errors
/// What has no value whatever the row holds.
pub(super) fn try_on_a_row(compiled: &dyn PhysicalExpr, schema: &Schema) -> Result<()> {
    let column = |field: &FieldRef| match zero(field.data_type())? {
        Some(value) => value.to_array_of_size(1),
        None => Ok(new_null_array(field.data_type(), 1)),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(schema.clone()), columns, &options)?;
    compiled.evaluate(&row)?;
    Ok(())
}

/// A value that most functions can do something with, where the type has one.
fn zero(dtype: &DataType) -> Result<Option<ScalarValue>> {
    Ok(Some(match dtype {
        DataType::Utf8 => ScalarValue::Utf8(Some(String::new())),
        DataType::Binary => ScalarValue::Binary(Some(Vec::new())),
        other if other.is_temporal() || other.is_numeric() => ScalarValue::new_zero(other)?,
        _ => return Ok(None),
    }))
}

/// Functions of which one argument says what is done with the others.
const DIRECTED: [&str; 10] = [
    "date_bin",
    "date_part",
    "date_trunc",
    "decode",
    "encode",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
];

/// A call with a constant pattern, unit or format, of a value that every such constant can do something with.
fn sample(node: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let tried = |argument: &Expr| -> Result<Option<Expr>> {
        if !argument.any_column_refs() {
            return Ok(Some(argument.clone()));
        }
        Ok(zero(&argument.get_type(schema)?)?.map(lit))
    };
    Ok(match node {
        Expr::ScalarFunction(call) if DIRECTED.contains(&call.name()) => {
            let arguments = call.args.iter().map(tried).collect::<Result<Option<Vec<_>>>>()?;
            // A pattern that is in a column is another one in each row.
            let directed = call.args.iter().any(|argument| !argument.any_column_refs());
            arguments.filter(|_| directed).map(|arguments| call.func.call(arguments))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if matches_pattern(*op) && !right.any_column_refs() =>
        {
            let left = tried(left)?;
            left.map(|left| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), *op, right.clone())))
        }
        Expr::SimilarTo(like) if !like.pattern.any_column_refs() => {
            tried(&like.expr)?.map(|text| Expr::SimilarTo(Like { expr: Box::new(text), ..like.clone() }))
        }
        _ => None,
    })
}

fn matches_pattern(op: Operator) -> bool {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    matches!(op, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch)
}
