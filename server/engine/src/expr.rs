//! What does this SQL expression mean, and what is its value for these rows?
//!
//! Names keep their case; functions do not care about theirs. Only immutable functions compile: the same row gives the
//! same value today and next year. An expression is parsed once, over all columns there are ([`Written`]), and compiled
//! once, over those that are read ([`Expression`]).

mod alone;
mod constants;
mod depth;
mod dialect;
mod evaluator;
mod failing;
mod functions;
mod known;
mod limits;
mod operators;
pub mod planner;
mod real;
mod reference;
mod wrapped;

pub use real::fingerprint as functions_fingerprint;
pub(crate) use real::{exp, ln};

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, SchemaError};
use datafusion_expr::expr::Cast;
use datafusion_expr::{Expr, Volatility};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::utils::{collect_columns, split_conjunction};
use feature_defs::{DefError, Loc, nearest, suggest};

use crate::schema::{arrow_type, canonical, narrow, newly_null, quern_type, type_name, with_column};
use crate::{EngineError, in_words};

/// What is wrong with an expression, before it is known where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mistake {
    pub(crate) cause: String,
    pub(crate) help: Option<String>,
    /// The column it names that does not exist, where that is what is wrong.
    pub(crate) unknown: Option<String>,
}

impl Mistake {
    fn new(cause: impl Into<String>) -> Mistake {
        Mistake { cause: cause.into(), help: None, unknown: None }
    }

    fn help(mut self, help: impl Into<String>) -> Mistake {
        self.help = Some(help.into());
        self
    }

    /// The mistake, now that it is known where it stands.
    pub(crate) fn at(self, loc: &Loc) -> DefError {
        let error = DefError::new(loc, self.cause);
        match self.help {
            Some(help) => error.with_help(help),
            None => error,
        }
    }
}

/// An expression that says the same of a row each time, and whose names exist. Its types are looked at when it is
/// compiled.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    sql: &'a str,
    logical: Expr,
    columns: Vec<usize>,
    depth: usize,
}

impl<'a> Written<'a> {
    /// Parses `sql`, which may name any column of `schema`.
    pub(crate) fn parse(sql: &'a str, schema: &Schema) -> Result<Written<'a>, Mistake> {
        depth::check_length(sql)?;
        depth::compiling(|| Written::parse_deep(sql, schema))
    }

    fn parse_deep(sql: &'a str, schema: &Schema) -> Result<Written<'a>, Mistake> {
        let df_schema = DFSchema::try_from(schema.clone()).map_err(|e| Mistake::new(e.to_string()))?;
        let words = planner::words(sql).map_err(|e| explain(&e, sql, schema))?;
        depth::check_written(&words.expr)?;
        let logical = planner::logical(words, &df_schema).map_err(|e| explain(&e, sql, schema))?.unalias();
        let depth = depth::check_depth(&logical)?;
        only_immutable(&logical)?;
        let named = logical.column_refs();
        let columns = named.into_iter().filter_map(|column| schema.index_of(&column.name).ok()).collect();
        Ok(Written { sql, logical, columns, depth })
    }

    /// The columns that it names, as indices in the schema it was parsed over, in no order.
    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Compiles it over `schema`, which has the columns that it names; its value is cast to `wanted` if that is given.
    pub(crate) fn compile(self, schema: &Schema, wanted: Option<&DataType>) -> Result<Expression, Mistake> {
        depth::compiling(|| self.compile_deep(schema, wanted))
    }

    fn compile_deep(self, schema: &Schema, wanted: Option<&DataType>) -> Result<Expression, Mistake> {
        let Written { sql, logical, depth, .. } = self;
        let df_schema = DFSchema::try_from(schema.clone()).map_err(|e| Mistake::new(e.to_string()))?;
        let calls_real = real::is_called_in(&logical);
        let physical = planner::physical(logical, &df_schema).map_err(|e| explain(&e, sql, schema))?;
        let found = physical.data_type(schema).map_err(|e| explain(&e, sql, schema))?;
        let dtype = match wanted {
            Some(wanted) if castable(&found, wanted) => wanted.clone(),
            Some(wanted) => {
                let cause =
                    format!("declared type {}, but `{sql}` is {}", type_name(wanted), type_name(&found));
                return Err(Mistake::new(cause).help("change `type`, or cast in the expression"));
            }
            None => canonical(&found),
        };
        if quern_type(&dtype).is_none() {
            let cause = format!("`{sql}` has type {}, which the language does not have", type_name(&dtype));
            let help = match dtype {
                _ if dtype.is_decimal() => {
                    "say what it becomes: `type: float64`, or `type: int64` where it has no fraction"
                }
                DataType::Duration(_) | DataType::Interval(_) => {
                    "take seconds: `date_part('epoch', a) - date_part('epoch', b)`"
                }
                _ => "make it a number, text or time within the expression",
            };
            return Err(Mistake::new(cause).help(help));
        }
        let reads = reads(&physical, schema);
        Ok(Expression { physical, reads, dtype, depth, calls_real })
    }

    /// Compiles what names a bucket or a category: the text of any single value.
    pub(crate) fn compile_text(self, schema: &Schema) -> Result<Expression, Mistake> {
        let Written { sql, logical, columns, depth } = self;
        let as_it_is = Written { sql, logical: logical.clone(), columns: Vec::new(), depth };
        let as_it_is = as_it_is.compile(schema, None)?;
        if as_it_is.dtype.is_nested() {
            let cause =
                format!("a bucket must be a single value, but `{sql}` is {}", type_name(&as_it_is.dtype));
            return Err(Mistake::new(cause).help("take one of its items, or its length"));
        }
        let text = Expr::Cast(Cast::new(Box::new(logical), DataType::Utf8));
        Written { sql, logical: text, columns, depth }.compile(schema, Some(&DataType::Utf8))
    }

    /// Compiles a filter: true, false or null for each row.
    pub(crate) fn compile_filter(self, schema: &Schema) -> Result<Expression, Mistake> {
        let sql = self.sql;
        let filter = self.compile(schema, None)?;
        if filter.dtype != DataType::Boolean {
            let cause = format!("a filter must be bool, but `{sql}` is {}", type_name(&filter.dtype));
            return Err(Mistake::new(cause).help("compare something: `column > 0`, `column is not null`"));
        }
        Ok(filter)
    }
}

/// The columns that some expressions name, out of all that there are.
#[derive(Debug, Clone)]
pub(crate) struct Reads {
    /// Indices among all columns, ascending.
    pub(crate) columns: Vec<usize>,
    /// Just these columns.
    pub(crate) schema: SchemaRef,
}

impl Reads {
    /// The columns of `schema` that are `named`, in any order and more than once.
    pub(crate) fn new(mut named: Vec<usize>, schema: &Schema) -> Reads {
        named.sort_unstable();
        named.dedup();
        let narrow = schema.project(&named).expect("names were found in the schema");
        Reads { columns: named, schema: Arc::new(narrow) }
    }

    /// The same; `fallback` where none is named, since rows without a column cannot be read.
    pub(crate) fn at_least_one(mut named: Vec<usize>, schema: &Schema, fallback: &str) -> Reads {
        if named.is_empty() {
            named.extend(schema.index_of(fallback));
        }
        Reads::new(named, schema)
    }

    /// The names of the columns, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.schema.fields().iter().map(|field| field.name().as_str())
    }
}

/// A checked, compiled expression over one schema.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    /// The columns that it reads, and their types.
    reads: Vec<(usize, DataType)>,
    dtype: DataType,
    depth: usize,
    calls_real: bool,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.physical.as_ref() == other.physical.as_ref() && self.dtype == other.dtype
    }
}

impl Expression {
    /// The type of its values.
    pub(crate) fn dtype(&self) -> &DataType {
        &self.dtype
    }

    /// The columns that it reads, as places in the schema that it was compiled over.
    pub(crate) fn reads(&self) -> impl Iterator<Item = usize> {
        self.reads.iter().map(|(column, _)| *column)
    }

    /// The conditions that a filter joins by `AND`, compiled over the same `schema`; itself where it joins none.
    pub(crate) fn conditions(&self, schema: &Schema) -> Vec<Expression> {
        depth::compiling(|| {
            let parts = split_conjunction(&self.physical).into_iter();
            // A bare null is of no type, and says the same of each row.
            let parts = parts.filter(|part| matches!(part.data_type(schema), Ok(DataType::Boolean)));
            let part = |part: &Arc<dyn PhysicalExpr>| Expression {
                physical: Arc::clone(part),
                reads: reads(part, schema),
                ..self.clone()
            };
            parts.map(part).collect()
        })
    }

    /// Whether the bits of its values hang on what [`functions_fingerprint`] says.
    pub(crate) fn calls_real(&self) -> bool {
        self.calls_real
    }

    /// Its value for each row of `batch`, which has the schema it was compiled over. A column may have another type
    /// that becomes the schema's: where that cannot say its value it is null here, and has failed.
    pub(crate) fn evaluate(
        &self,
        batch: &RecordBatch,
        what: &dyn Fn() -> String,
    ) -> Result<Evaluated, EngineError> {
        let values = |batch: &RecordBatch| {
            let batch = self.narrowed(batch)?;
            let values = self.physical.evaluate(&batch)?.into_array(batch.num_rows())?;
            limits::not_too_long(operators::declared(&values, &self.dtype)?)
        };
        let (values, failed) = depth::evaluating(self.depth, || failing::with_failed(batch, &values))
            .map_err(|error| match failing::is_overflow(&error) {
                true => EngineError::TooLarge { rows: batch.num_rows() },
                false => EngineError::Value { what: what(), cause: say(&error) },
            })?;
        Ok(Evaluated { values, failed })
    }

    /// `batch` with the columns that are read in the types of the schema.
    fn narrowed<'a>(&self, batch: &'a RecordBatch) -> Result<Cow<'a, RecordBatch>, ArrowError> {
        let mut narrowed = Cow::Borrowed(batch);
        for (index, dtype) in &self.reads {
            let column = batch.column(*index);
            if column.data_type() != dtype {
                let values = narrow(column, dtype)?;
                failing::note(newly_null(column, &values));
                narrowed = Cow::Owned(with_column(&narrowed, *index, values)?);
            }
        }
        Ok(narrowed)
    }

    /// Which rows of `batch` a filter keeps: those for which it is true, not null.
    pub(crate) fn keeps(&self, batch: &RecordBatch, what: &dyn Fn() -> String) -> Result<Kept, EngineError> {
        let Evaluated { values, failed } = self.evaluate(batch, what)?;
        let mask = values.as_boolean();
        let mask = if mask.null_count() == 0 { mask.clone() } else { prep_null_mask_filter(mask) };
        Ok(Kept { mask, failed })
    }
}

/// The columns that a compiled expression reads, and their types.
fn reads(physical: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Vec<(usize, DataType)> {
    let columns = collect_columns(physical).into_iter().map(|column| column.index());
    columns.map(|index| (index, schema.field(index).data_type().clone())).collect()
}

/// What an expression says of some rows.
pub(crate) struct Evaluated {
    pub(crate) values: ArrayRef,
    /// The rows that are null because they failed, ascending.
    pub(crate) failed: Vec<u32>,
}

/// What a filter says of some rows.
pub(crate) struct Kept {
    /// True or false for each.
    pub(crate) mask: BooleanArray,
    /// The rows that are left out because they failed, ascending.
    pub(crate) failed: Vec<u32>,
}

/// Declared types may narrow numbers: the cast is the declaration's wish, and is checked value by value.
fn castable(found: &DataType, wanted: &DataType) -> bool {
    let found = canonical(found);
    let same_family = (found.is_numeric() && wanted.is_numeric())
        || (found == DataType::Date32 && *wanted == crate::schema::timestamp());
    let lists = match (&found, wanted) {
        (
            DataType::List(a) | DataType::FixedSizeList(a, _),
            DataType::List(b) | DataType::FixedSizeList(b, _),
        ) => a.data_type().is_numeric() && b.data_type().is_numeric(),
        _ => false,
    };
    found == *wanted
        || found == DataType::Null
        || same_family
        || lists
        || crate::schema::conforms(&found, wanted)
}

fn only_immutable(expr: &Expr) -> Result<(), Mistake> {
    let mut mistake = None;
    let walked = expr.apply(|node| {
        mistake = match node {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                let name = call.func.name();
                Some(
                    Mistake::new(format!(
                        "`{name}()` gives another value each time it is asked, so training and serving would differ"
                    ))
                    .help("time is an input: use `event_timestamp`, or declare a request column for it"),
                )
            }
            Expr::AggregateFunction(call) => Some(
                Mistake::new(format!("`{}` aggregates over rows; an expression sees one row", call.func.name()))
                    .help("aggregates over windows of time stand under `aggregations` of a feature view"),
            ),
            Expr::WindowFunction(_) => {
                Some(Mistake::new("window functions look at other rows; an expression sees one row"))
            }
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                Some(Mistake::new("subqueries are not allowed; an expression sees one row"))
            }
            _ => None,
        };
        Ok(if mistake.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    debug_assert!(walked.is_ok(), "the walk itself cannot fail");
    mistake.map_or(Ok(()), Err)
}

/// DataFusion's error without its wrapping.
fn say(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    // What DataFusion adds is for its own developers, and the names it suggests are far off.
    let noise = ["\nThis issue was likely caused by a bug", "\nDid you mean"];
    let end = noise.iter().filter_map(|noise| text.find(noise)).min().unwrap_or(text.len());
    let mut text = text[..end].trim();
    while let Some((head, tail)) = text.split_once(": ") {
        let is_wrapping = head.ends_with(" error")
            || ["type_coercion", "Error during planning", "SQL error", "This feature is not implemented"]
                .contains(&head);
        if !is_wrapping {
            break;
        }
        text = tail;
    }
    if text.contains("RecursionLimitExceeded") {
        return "parentheses, functions, `NOT` and `CASE` nest too deep; some 50 levels are read".to_owned();
    }
    // A regular expression's mistake is drawn on several lines, of which the last one says what it is.
    if text.contains("regex parse error")
        && let Some((_, cause)) = text.rsplit_once("error: ")
    {
        return format!("the pattern does not parse: {}", cause.lines().next().unwrap_or_default());
    }
    let inner = text.strip_prefix("ParserError(\"").or_else(|| text.strip_prefix("TokenizerError(\""));
    let inner = inner.and_then(|inner| inner.strip_suffix("\")")).unwrap_or(text);
    in_words(&inner.replace("\n", "; "))
}

/// As much of an expression as a mistake repeats.
const SQL_CHARS_SHOWN: usize = 500;

fn explain(error: &DataFusionError, sql: &str, schema: &Schema) -> Mistake {
    // Where it stands is said besides: of a long one the beginning is enough.
    let sql = match sql.char_indices().nth(SQL_CHARS_SHOWN) {
        Some((end, _)) => &format!("{}…", &sql[..end]),
        None => sql,
    };
    if let DataFusionError::SchemaError(schema_error, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, .. } = schema_error.as_ref()
    {
        let names = schema.fields().iter().map(|f| f.name().as_str());
        let mut help = suggest(&field.name, names.clone());
        if nearest(&field.name, names).is_none() {
            help += "; text stands in single quotes: 'text'";
        }
        return Mistake {
            cause: format!("`{sql}` names unknown column `{}`", field.name),
            help: Some(help),
            unknown: Some(field.name.clone()),
        };
    }
    let said = say(error);
    let mistake = Mistake::new(format!("`{sql}`: {said}"));
    match functions::unknown(&said).and_then(functions::instead_of).or_else(|| functions::otherwise(&said)) {
        Some(help) => mistake.help(help),
        None => mistake,
    }
}

/// The Arrow type that a declaration wishes for.
pub(crate) fn wish(declared: Option<feature_defs::Type>) -> Option<DataType> {
    declared.map(arrow_type)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use expect_test::{Expect, expect};

    use super::*;

    fn check(sql: &str, expected: Expect) {
        let schema = Schema::new(vec![
            Field::new("delay", DataType::Int64, true),
            Field::new("Carrier", DataType::Utf8, true),
            Field::new("departs_at", crate::schema::timestamp(), true),
        ]);
        let said = match Written::parse(sql, &schema).and_then(|written| written.compile(&schema, None)) {
            Ok(expression) => type_name(expression.dtype()),
            Err(mistake) => match mistake.help {
                Some(help) => format!("{}\n  help: {help}", mistake.cause),
                None => mistake.cause,
            },
        };
        expected.assert_eq(&said);
    }

    /// Law 3: only immutable expressions compile.
    #[test]
    fn what_may_change_between_training_and_serving_is_refused() {
        check(
            "now() - departs_at",
            expect![[r#"
            `now()` gives another value each time it is asked, so training and serving would differ
              help: time is an input: use `event_timestamp`, or declare a request column for it"#]],
        );
        check(
            "delay + random()",
            expect![[r#"
            `random()` gives another value each time it is asked, so training and serving would differ
              help: time is an input: use `event_timestamp`, or declare a request column for it"#]],
        );
        check(
            "coalesce(delay, 0) > 1 AND current_date() > '2020-01-01'",
            expect![[r#"
            `current_date()` gives another value each time it is asked, so training and serving would differ
              help: time is an input: use `event_timestamp`, or declare a request column for it"#]],
        );
        check(
            "avg(delay)",
            expect![[r#"
            `avg` aggregates over rows; an expression sees one row
              help: aggregates over windows of time stand under `aggregations` of a feature view"#]],
        );
        check(
            "row_number() OVER (ORDER BY delay)",
            expect!["window functions look at other rows; an expression sees one row"],
        );
        check("(SELECT 1)", expect!["subqueries are not allowed; an expression sees one row"]);
    }

    #[test]
    fn names_types_and_syntax() {
        check("delay * 2", expect!["int64"]);
        check("COALESCE(Carrier, 'none')", expect!["string"]);
        check("date_part('hour', departs_at)", expect!["int32"]);
        check(
            "carrier",
            expect![[r#"
            `carrier` names unknown column `carrier`
              help: did you mean `Carrier`? known: Carrier, delay, departs_at"#]],
        );
        check(
            "dealy / 60",
            expect![[r#"
            `dealy / 60` names unknown column `dealy`
              help: did you mean `delay`? known: Carrier, delay, departs_at"#]],
        );
        check(
            "delay + Carrier",
            expect![[r#"
                `delay + Carrier`: Cannot coerce arithmetic expression int64 + string to valid types
                  help: cast one side, as in `CAST(s AS DOUBLE)`"#]],
        );
        check(
            "departs_at - departs_at",
            expect![[r#"
                `departs_at - departs_at` has type Duration(µs), which the language does not have
                  help: take seconds: `date_part('epoch', a) - date_part('epoch', b)`"#]],
        );
        check("delay +", expect!["`delay +`: Expected: an expression, found: EOF"]);
        check("sha257(Carrier)", expect!["`sha257(Carrier)`: Invalid function 'sha257'."]);
    }
}
