//! How deep may an expression be, and does the stack hold it?
//!
//! `a + b + c + …` nests once for each term. DataFusion's rules of types and its evaluation go down level by level, on
//! whichever thread asks; so what is deep gets a stack of its own, and what is too deep is a mistake.

use std::ops::ControlFlow;

use datafusion_common::Result;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion_expr::Expr;
use datafusion_sql::sqlparser;
use datafusion_sql::sqlparser::ast::{Visit, Visitor};

use super::Mistake;

/// Levels, at the most.
const DEPTH_MAX: usize = 1_000;
/// Functions that are rewritten with an argument in two places, and how deep these may nest: each level doubles what
/// there is to compute.
const DOUBLING: [&str; 6] = ["array_repeat", "coalesce", "ifnull", "nvl", "nvl2", "repeat"];
const DOUBLED_MAX: usize = 12;
/// How long an expression may be as text: longer ones would nest deeper before that can be seen.
const SQL_BYTES_MAX: usize = 256 << 10;
/// Room to compile, which takes up to 100 KiB for a level. Pages that are not touched are not taken.
const STACK_BYTES: usize = 256 << 20;
/// Room to evaluate one level, and how many levels every thread has room for.
const LEVEL_BYTES: usize = 128 << 10;
const DEPTH_ANYWHERE: usize = 8;

/// Does `work` with room for the deepest expression.
pub(super) fn compiling<T>(work: impl FnOnce() -> T) -> T {
    stacker::grow(STACK_BYTES, work)
}

/// Does `work` with room for an expression of so many levels.
pub(super) fn evaluating<T>(depth: usize, work: impl FnOnce() -> T) -> T {
    if depth <= DEPTH_ANYWHERE {
        return work();
    }
    stacker::maybe_grow(depth * LEVEL_BYTES, STACK_BYTES, work)
}

/// Refuses a text that is too long.
pub(super) fn check_length(sql: &str) -> std::result::Result<(), Mistake> {
    if sql.len() <= SQL_BYTES_MAX {
        return Ok(());
    }
    let cause = format!("the expression has {} bytes; at most {SQL_BYTES_MAX} are read", sql.len());
    Err(Mistake::new(cause).help("split it into several features"))
}

/// Refuses what is too deep as it is written, before its types are looked for: of `||` that takes as long as the square
/// of its levels.
pub(super) fn check_written(expression: &sqlparser::ast::Expr) -> std::result::Result<(), Mistake> {
    let mut depth = WrittenDepth::default();
    let _: ControlFlow<()> = expression.visit(&mut depth);
    if depth.most <= DEPTH_MAX { Ok(()) } else { Err(too_deep(depth.most)) }
}

#[derive(Default)]
struct WrittenDepth {
    now: usize,
    most: usize,
}

impl Visitor for WrittenDepth {
    type Break = ();

    fn pre_visit_expr(&mut self, node: &sqlparser::ast::Expr) -> ControlFlow<()> {
        // Parentheses are no level.
        self.now += usize::from(!matches!(node, sqlparser::ast::Expr::Nested(_)));
        self.most = self.most.max(self.now);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, node: &sqlparser::ast::Expr) -> ControlFlow<()> {
        self.now -= usize::from(!matches!(node, sqlparser::ast::Expr::Nested(_)));
        ControlFlow::Continue(())
    }
}

fn too_deep(levels: usize) -> Mistake {
    let cause = format!("the expression nests {levels} levels deep; at most {DEPTH_MAX} are computed");
    Mistake::new(cause).help("split it into several features; each term of a long sum is a level")
}

/// The levels of an expression, where they are not too many.
pub(super) fn check_depth(expression: &Expr) -> std::result::Result<usize, Mistake> {
    let mut depth = Depth::default();
    let walked = expression.visit(&mut depth);
    debug_assert!(walked.is_ok(), "the walk itself cannot fail");
    if depth.most_doubled > DOUBLED_MAX {
        let cause = format!(
            "`coalesce` and its like nest {} levels deep; at most {DOUBLED_MAX} are computed",
            depth.most_doubled
        );
        return Err(Mistake::new(cause).help("give all arguments to one: `coalesce(a, b, c)`"));
    }
    if depth.most <= DEPTH_MAX {
        return Ok(depth.most);
    }
    Err(too_deep(depth.most))
}

#[derive(Default)]
struct Depth {
    now: usize,
    most: usize,
    doubled: usize,
    most_doubled: usize,
}

fn doubles(node: &Expr) -> usize {
    matches!(node, Expr::ScalarFunction(call) if DOUBLING.contains(&call.name())).into()
}

impl TreeNodeVisitor<'_> for Depth {
    type Node = Expr;

    fn f_down(&mut self, node: &Expr) -> Result<TreeNodeRecursion> {
        self.doubled += doubles(node);
        self.most_doubled = self.most_doubled.max(self.doubled);
        self.now += 1;
        self.most = self.most.max(self.now);
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, node: &Expr) -> Result<TreeNodeRecursion> {
        self.doubled -= doubles(node);
        self.now -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::expr::{Expression, Written};

    fn compiled(sql: &str, rows: &RecordBatch) -> std::result::Result<Expression, Mistake> {
        Written::parse(sql, &rows.schema()).and_then(|written| written.compile(&rows.schema(), None))
    }

    /// On a thread whose stack would not hold it.
    #[test]
    fn what_is_deep_has_a_value_and_what_is_too_deep_is_a_mistake() {
        let work = || {
            let column = Arc::new(Int64Array::from(vec![Some(3), None])) as _;
            let rows = RecordBatch::try_from_iter_with_nullable([("i", column, true)]).unwrap();
            let sum = compiled(&vec!["i"; 900].join(" + "), &rows).unwrap();
            let values = sum.evaluate(&rows, &String::new).unwrap().values;
            assert_eq!((values.as_primitive::<Int64Type>().value(0), values.is_null(1)), (2_700, true));
            let said = |sql: &str| compiled(sql, &rows).unwrap_err().cause;
            let deep = said(&vec!["i"; 5_000].join(" + "));
            assert_eq!(deep, "the expression nests 5000 levels deep; at most 1000 are computed");
            // Whose types are asked for at each level.
            let deep = said(&vec!["i"; 10_000].join(" || "));
            assert_eq!(deep, "the expression nests 10000 levels deep; at most 1000 are computed");
            assert!(said(&vec!["i"; 100_000].join(" + ")).ends_with("at most 262144 are read"));
            for (open, close) in
                [("abs(", ")"), ("CASE WHEN i > 1 THEN 3 ELSE ", " END"), ("CAST(", " AS BIGINT)")]
            {
                let nested = compiled(&format!("{}i{}", open.repeat(40), close.repeat(40)), &rows).unwrap();
                let values = nested.evaluate(&rows, &String::new).unwrap().values;
                assert_eq!(values.as_primitive::<Int64Type>().value(0), 3);
            }
            let nested = |levels: usize| format!("{}i{}", "coalesce(".repeat(levels), ", 0)".repeat(levels));
            let wrong = said(&format!("{}i i{}", "CAST(".repeat(24), " AS BIGINT)".repeat(24)));
            assert!(wrong.contains("nest too deep to tell what is wrong with them; look for"), "{wrong}");
            assert!(compiled(&nested(8), &rows).is_ok());
            assert!(said(&nested(40)).ends_with("nest 40 levels deep; at most 12 are computed"));
            // Whatever is said of them, they end nothing.
            let _ = compiled(&nested(3_000), &rows);
            let _ = compiled(&format!("{}i{}", "(".repeat(9_000), ")".repeat(9_000)), &rows);
        };
        std::thread::Builder::new().stack_size(512 << 10).spawn(work).unwrap().join().unwrap();
    }
}
