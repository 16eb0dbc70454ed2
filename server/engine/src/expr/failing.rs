//! Which rows of an expression cannot be computed?
//!
//! What fails is null. Operators of ours give null and say so here ([`note`]); around DataFusion's own, which end with
//! an error for all rows, stands a [`Guard`] that finds the rows at fault. A row counts as failed where its value is
//! null and something failed while it was computed *by itself*: so what `CASE`, `AND` or `coalesce` shield does not
//! count, and neither do its neighbours.

use std::cell::Cell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat, take_record_batch};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::error::ArrowError;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::expressions::{BinaryExpr, CastExpr, LikeExpr, NegativeExpr};
use datafusion_physical_expr::utils::collect_columns;
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use crate::caught::caught;

thread_local! {
    /// Operations that failed since [`counted`] began. An evaluation runs on one thread, and DataFusion hands nothing
    /// through it in which this could be kept.
    static FAILED: Cell<u64> = const { Cell::new(0) };
}

/// Says that so many operations failed.
pub(super) fn note(failed: usize) {
    FAILED.set(FAILED.get() + failed as u64);
}

/// What `evaluate` gives, and whether an operation failed meanwhile.
fn counted<T>(evaluate: impl FnOnce() -> Result<T>) -> Result<(T, bool)> {
    FAILED.set(0);
    let value = evaluate()?;
    Ok((value, FAILED.get() > 0))
}

/// The values of an expression, which `evaluate` computes, and the rows that failed, ascending.
pub(super) fn with_failed(
    batch: &RecordBatch,
    evaluate: &dyn Fn(&RecordBatch) -> Result<ArrayRef>,
) -> Result<(ArrayRef, Vec<u32>)> {
    let (values, any) = counted(|| evaluate(batch))?;
    let mut failed = Vec::new();
    if any && values.null_count() > 0 {
        let nulls = (0..values.len() as u32).filter(|row| values.is_null(*row as usize));
        find(batch, &nulls.collect::<Vec<_>>(), evaluate, &mut failed)?;
    }
    Ok((values, failed))
}

/// Finds those of `rows` that fail alone.
fn find(
    batch: &RecordBatch,
    rows: &[u32],
    evaluate: &dyn Fn(&RecordBatch) -> Result<ArrayRef>,
    failed: &mut Vec<u32>,
) -> Result<()> {
    let part = take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?;
    let (_, any) = counted(|| evaluate(&part))?;
    match rows {
        _ if !any => {}
        [row] => failed.push(*row),
        _ => {
            let (first, second) = rows.split_at(rows.len() / 2);
            find(batch, first, evaluate, failed)?;
            find(batch, second, evaluate, failed)?;
        }
    }
    Ok(())
}

/// `expression`, with a guard around everything that can fail on a value.
pub(super) fn guarded(expression: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let guard = |node: Arc<dyn PhysicalExpr>| {
        if can_fail(node.as_ref()) {
            Transformed::yes(Arc::new(Guard(node)) as Arc<dyn PhysicalExpr>)
        } else {
            Transformed::no(node)
        }
    };
    Ok(expression.transform_up(|node| Ok(guard(node)))?.data)
}

fn can_fail(node: &dyn PhysicalExpr) -> bool {
    if let Some(binary) = node.downcast_ref::<BinaryExpr>() {
        // These two decide which rows are computed at all; whatever fails lies below them.
        return !matches!(binary.op(), Operator::And | Operator::Or);
    }
    node.is::<ScalarFunctionExpr>()
        || node.is::<CastExpr>()
        || node.is::<LikeExpr>()
        || node.is::<NegativeExpr>()
}

/// An expression that is null where it fails.
///
/// A batch that fails is halved, down to the rows that fail alone.
#[derive(Debug, Eq)]
struct Guard(Arc<dyn PhysicalExpr>);

// Derived, equality would move out of the pointer.
impl PartialEq for Guard {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Hash for Guard {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for Guard {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.0.data_type(schema)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        Ok(Arc::new(self.0.return_field(schema)?.as_ref().clone().with_nullable(true)))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        // Whether a `CASE` may be null DataFusion finds out by evaluating parts of it without columns, and takes an
        // error for an answer. No row has failed there.
        if batch.num_columns() == 0 && !collect_columns(&self.0).is_empty() {
            return self.0.evaluate(batch);
        }
        // Some functions panic where they should refuse, as `lpad` of a negative length.
        match caught(|| self.0.evaluate(batch)) {
            Err(_) => {}
            // Half of the rows may fit where all do not; but then all of them do not fit into what is made of both.
            Ok(Err(error)) if is_of_values(&error) && (rows < 2 || !is_overflow(&error)) => {}
            Ok(other) => return other,
        }
        if rows < 2 {
            note(rows);
            let null = ScalarValue::try_from(&self.0.data_type(batch.schema_ref())?)?;
            return Ok(ColumnarValue::Scalar(null));
        }
        // Copied, since the bytes of a slice are still all of them, and some kernels look at all.
        let half = |places: Range<usize>| {
            let taken = UInt32Array::from_iter_values(places.clone().map(|row| row as u32));
            self.evaluate(&take_record_batch(batch, &taken)?)?.into_array(places.len())
        };
        let (first, second) = (half(0..rows / 2)?, half(rows / 2..rows)?);
        Ok(ColumnarValue::Array(concat(&[&first, &second])?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Guard(Arc::clone(&children[0]))))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

/// Whether the values of so many rows do not fit into one column, which counts their bytes in 31 bits.
pub(super) fn is_overflow(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => matches!(error.as_ref(), ArrowError::OffsetOverflowError(_)),
        _ => false,
    }
}

/// Whether other values might do, and not that nothing of these types ever will. Some functions call a mistake in a
/// plan what is one in a value, such as the name of an encoding that a column brings.
fn is_of_values(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::Execution(_)
        | DataFusionError::External(_)
        | DataFusionError::Internal(_)
        | DataFusionError::Plan(_) => true,
        DataFusionError::ArrowError(error, _) => {
            !matches!(error.as_ref(), ArrowError::NotYetImplemented(_) | ArrowError::SchemaError(_))
        }
        _ => false,
    }
}
