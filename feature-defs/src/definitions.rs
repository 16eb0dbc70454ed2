//! Which nouns does the language have?
//!
//! Everything here has passed the checks of [`parse`](crate::parse()): names resolve, durations are numbers, no
//! name is declared twice. Each noun keeps the place it was declared at, so that a later check can point there.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Loc, Model};

/// Every definition of a repository, by kind and name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definitions {
    /// Entities by name.
    pub entities: BTreeMap<String, Entity>,
    /// Sources by name.
    pub sources: BTreeMap<String, Source>,
    /// Feature views by name.
    pub views: BTreeMap<String, FeatureView>,
    /// Feature services by name.
    pub services: BTreeMap<String, FeatureService>,
    /// Models by name.
    pub models: BTreeMap<String, Model>,
}

/// What features describe: a plane, a route, a customer.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// The columns that identify one entity, in key order.
    pub join_keys: Vec<Column>,
    /// Where it is declared.
    pub loc: Loc,
}

/// A named, typed column: a join key, a request column or a column of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Column name.
    pub name: String,
    /// Column type.
    pub dtype: Type,
    /// Stands in for null in a model input that has no NaN. Only request columns have one.
    pub default: Option<Literal>,
    /// Where it is declared.
    pub loc: Loc,
}

/// Where raw rows come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Files that hold history; absent for a source that is only pushed to.
    pub batch: Option<BatchSource>,
    /// Whether rows may be pushed; true as well where they come from a stream.
    pub push: bool,
    /// Events that come by themselves.
    pub stream: Option<StreamSource>,
    /// The column that says when a row became true.
    pub event_timestamp: String,
    /// The column that says when a row became known.
    pub created_timestamp: Option<String>,
    /// The columns that make a row the same row.
    pub event_id: Vec<String>,
    /// Declared columns. CSV and push sources must declare all; for Parquet, what is declared is checked
    /// against the files and the rest is read from them.
    pub columns: Vec<Column>,
    /// Where it is declared.
    pub loc: Loc,
}

/// Files of one format under one path.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchSource {
    /// File format.
    pub format: Format,
    /// A path or glob, relative to the repository's root.
    pub path: String,
    /// Where the path is declared.
    pub loc: Loc,
}

/// Events of a broker, each a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSource {
    /// Which kind of broker.
    pub broker: Broker,
    /// Its addresses, as its own clients take them.
    pub servers: String,
    /// The topic, or the key of the stream.
    pub topic: String,
    /// Where it is declared.
    pub loc: Loc,
}

/// Brokers that events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// Apache Kafka, or what speaks its protocol.
    Kafka,
    /// A stream of Redis or Valkey.
    Redis,
}

/// File formats that history is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values with a header line.
    Csv,
}

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
    /// The features of a view of rows, in order; empty where there are aggregations.
    pub features: Vec<Feature>,
    /// Aggregates over windows of time, in order; empty where there are features.
    pub aggregations: Vec<Aggregation>,
    /// Where it is declared.
    pub loc: Loc,
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

/// A SQL expression and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// SQL text.
    pub sql: String,
    /// Where it is declared.
    pub loc: Loc,
}

/// One feature: of a view (over source columns) or derived (over the columns of a feature service).
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Name, unique in its view or service.
    pub name: String,
    /// For people.
    pub description: String,
    /// SQL; a view's feature without one is the source column of the same name.
    pub expr: Expr,
    /// Declared type: the expression is cast to it. Absent: the expression's own type.
    pub dtype: Option<Type>,
    /// Stands in for null in a model input that has no NaN.
    pub default: Option<Literal>,
    /// Where it is declared.
    pub loc: Loc,
}

/// The features that one model (version) is trained on and served with.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureService {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Columns that the request brings.
    pub request: Vec<Column>,
    /// Views joined, in order.
    pub projections: Vec<Projection>,
    /// Expressions over join keys, `event_timestamp`, request columns, features and other derived features.
    pub derived: Vec<Feature>,
    /// What leaves, in order, each the bare name of a column; absent: every feature as listed, then every
    /// derived one.
    pub outputs: Option<Vec<Expr>>,
    /// Where it is declared.
    pub loc: Loc,
}

/// One view as a feature service joins it.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// Name of the view.
    pub view: String,
    /// Prefixes the output columns (`alias__feature`), so that a view can be joined twice.
    pub alias: Option<String>,
    /// Join key of the view → column of the spine or request, where the two differ.
    pub keys: BTreeMap<String, String>,
    /// The features taken, in order; all are named here even where the YAML names none.
    pub features: Vec<String>,
    /// Where it is declared.
    pub loc: Loc,
}

impl Projection {
    /// The name under which `feature` leaves the service.
    pub fn output_name(&self, feature: &str) -> String {
        match &self.alias {
            Some(alias) => format!("{alias}__{feature}"),
            None => feature.to_owned(),
        }
    }
}

/// A constant of the language.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
}

/// Type of a column or feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// One value.
    Scalar(ScalarType),
    /// `list<item>` or `list<item, length>`: numbers, of one length where it is given (an embedding).
    List {
        /// Type of the items; always a number.
        item: ScalarType,
        /// Fixed length; absent: any.
        length: Option<u32>,
    },
}

/// Type of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarType {
    /// `bool`
    Bool,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `float32`
    Float32,
    /// `float64`
    Float64,
    /// `string`, UTF-8
    String,
    /// `bytes`
    Bytes,
    /// `timestamp`: microseconds since the Unix epoch, UTC
    Timestamp,
    /// `date`: days since the Unix epoch
    Date,
}

impl ScalarType {
    /// Every scalar type, in the order the docs list them.
    pub const ALL: [ScalarType; 9] = [
        ScalarType::Bool,
        ScalarType::Int32,
        ScalarType::Int64,
        ScalarType::Float32,
        ScalarType::Float64,
        ScalarType::String,
        ScalarType::Bytes,
        ScalarType::Timestamp,
        ScalarType::Date,
    ];

    /// The name in YAML.
    pub fn name(self) -> &'static str {
        match self {
            ScalarType::Bool => "bool",
            ScalarType::Int32 => "int32",
            ScalarType::Int64 => "int64",
            ScalarType::Float32 => "float32",
            ScalarType::Float64 => "float64",
            ScalarType::String => "string",
            ScalarType::Bytes => "bytes",
            ScalarType::Timestamp => "timestamp",
            ScalarType::Date => "date",
        }
    }

    /// Whether a list may hold it.
    pub fn is_number(self) -> bool {
        matches!(self, ScalarType::Int32 | ScalarType::Int64 | ScalarType::Float32 | ScalarType::Float64)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Scalar(scalar) => f.write_str(scalar.name()),
            Type::List { item, length: None } => write!(f, "list<{}>", item.name()),
            Type::List { item, length: Some(length) } => write!(f, "list<{}, {length}>", item.name()),
        }
    }
}
