//! Which features do entities have?

use std::collections::BTreeMap;

use super::column::{Expr, Feature, Literal};
use super::role::Governance;
use crate::error::Loc;

/// Features of one entity (or a combination of entities), computed row by row from one source.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureView {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Names of the entities that make up the key, in key order.
    pub entities: Vec<String>,
    /// Join key → source column, where the two differ.
    pub keys: BTreeMap<String, String>,
    /// Name of the source.
    pub source: String,
    /// SQL filter over source columns; rows for which it is not true do not exist for this view.
    pub filter: Option<Expr>,
    /// How long a row counts after it became visible, in microseconds.
    pub ttl_us: Option<i64>,
    /// How long after its event timestamp a row becomes visible, in microseconds.
    pub lag_us: i64,
    /// Whether a row that becomes visible at the very query time counts.
    pub at: At,
    /// The features of a view of rows, in order; empty where there are aggregations.
    pub features: Vec<Feature>,
    /// Aggregates over windows of time, in order; empty where there are features.
    pub aggregations: Vec<Aggregation>,
    /// Whose it is.
    pub governance: Governance,
    /// Where it is declared.
    pub loc: Loc,
}

/// What a view sees at a query time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum At {
    /// The rows that have become visible up to the query time, and at it.
    #[default]
    Including,
    /// Those that had become visible before it.
    Before,
}

impl At {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            At::Including => "including",
            At::Before => "before",
        }
    }
}

impl FeatureView {
    /// The names of all its features, in order.
    pub fn feature_names(&self) -> Vec<String> {
        let of_rows = self.features.iter().map(|feature| feature.name.clone());
        let of_windows = self.aggregations.iter().flat_map(|a| a.windows.iter().map(|w| a.feature_name(w)));
        of_rows.chain(of_windows).collect()
    }
}

/// One aggregate of a view's rows, over one or more windows of time: a feature for each.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregation {
    /// First part of its features' names.
    pub name: String,
    /// For people.
    pub description: String,
    /// How rows are aggregated.
    pub function: Function,
    /// What is aggregated; a `count` without one counts rows.
    pub of: Option<Expr>,
    /// SQL filter: only rows for which it is true count.
    pub filter: Option<Expr>,
    /// A result for each value of this expression.
    pub buckets: Option<Expr>,
    /// How many buckets, categories or distinct values are kept apart.
    pub limit: u32,
    /// The windows, in order.
    pub windows: Vec<Window>,
    /// Stands in for null in a model input that has no NaN.
    pub default: Option<Literal>,
    /// Whether a value that cannot be computed is an error; else it is null.
    pub strict: bool,
    /// Where it is declared.
    pub loc: Loc,
}

impl Aggregation {
    /// The name of the feature that it is over `window`.
    pub fn feature_name(&self, window: &Window) -> String {
        format!("{}_{}", self.name, window.name)
    }
}

/// How far back an aggregate reaches.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// As it is written: `7d`, `1w`, `lifetime`.
    pub name: String,
    /// In microseconds; none over all time.
    pub length_us: Option<i64>,
    /// The left end moves in steps of so many microseconds; 1 for `exact`.
    pub hop_us: i64,
    /// Where it is declared.
    pub loc: Loc,
}

/// How rows are aggregated. Nulls are left out by all.
#[derive(Debug, Clone, PartialEq)]
pub enum Function {
    /// Rows, or values.
    Count,
    /// The sum.
    Sum,
    /// The mean.
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The standard deviation of a sample.
    Stddev,
    /// The variance of a sample.
    Variance,
    /// The earliest value.
    First,
    /// The latest value.
    Last,
    /// The latest values, the latest first.
    LastN {
        /// At most so many.
        n: u32,
    },
    /// The values of the rows with the greatest `by`, the greatest first.
    TopNBy {
        /// At most so many.
        n: u32,
        /// What orders them.
        by: Expr,
    },
    /// About how many distinct values.
    ApproxDistinct,
    /// About the value below which a share of the values lies.
    ApproxPercentile {
        /// The share, from 0 to 1.
        percentile: f64,
    },
    /// How many distinct values, up to the limit.
    CountDistinct,
    /// Whether any is true.
    Any,
    /// Whether all are true.
    Every,
    /// How many rows of each category.
    Histogram,
}

impl Function {
    /// The name in YAML.
    pub fn name(&self) -> &'static str {
        match self {
            Function::Count => "count",
            Function::Sum => "sum",
            Function::Avg => "avg",
            Function::Min => "min",
            Function::Max => "max",
            Function::Stddev => "stddev",
            Function::Variance => "variance",
            Function::First => "first",
            Function::Last => "last",
            Function::LastN { .. } => "last_n",
            Function::TopNBy { .. } => "top_n_by",
            Function::ApproxDistinct => "approx_distinct",
            Function::ApproxPercentile { .. } => "approx_percentile",
            Function::CountDistinct => "count_distinct",
            Function::Any => "any",
            Function::Every => "every",
            Function::Histogram => "histogram",
        }
    }
}
