//! What is the value of one expression over columns that are no feature service's? Ensembles and fallbacks ask.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use feature_defs::{DefError, Expr};

use crate::EngineError;
use crate::expr::{Expression, Written};

/// A compiled expression over the columns of one schema.
#[derive(Debug, Clone)]
pub struct Computed {
    expression: Expression,
    sql: String,
}

/// Why an expression does not compile.
#[derive(Debug, Clone)]
pub struct Uncompiled {
    /// The mistake, where it stands.
    pub error: DefError,
    /// The column that it names and that does not exist, where that is the mistake.
    pub unknown: Option<String>,
}

impl Computed {
    /// Compiles `expr` over `schema`; its value is cast to `wanted` where that is given.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn compile(expr: &Expr, schema: &Schema, wanted: Option<&DataType>) -> Result<Computed, Uncompiled> {
        let written = Written::parse(&expr.sql, schema);
        let compiled = written.and_then(|written| written.compile(schema, wanted));
        let expression = compiled.map_err(|mistake| Uncompiled {
            unknown: mistake.unknown.clone(),
            error: mistake.at(&expr.loc),
        })?;
        Ok(Computed { expression, sql: expr.sql.clone() })
    }

    /// The type of its values.
    pub fn dtype(&self) -> &DataType {
        self.expression.dtype()
    }

    /// The columns that it reads, as places in the schema that it was compiled over.
    pub fn reads(&self) -> impl Iterator<Item = usize> {
        self.expression.reads()
    }

    /// Its value for each row of `batch`, which has the schema it was compiled over.
    ///
    /// # Errors
    /// A fault of ours: what cannot be computed is null.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, EngineError> {
        Ok(self.expression.evaluate(batch, &|| format!("`{}`", self.sql))?.values)
    }
}
