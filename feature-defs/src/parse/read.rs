//! Which noun does a document declare?
//!
//! Reads what is well formed and passes over the rest in silence: [`structure`](super::structure) has reported it. So a
//! document with a slip in one feature still declares its name and its other features, and the name checks
//! find what else is wrong.

use std::collections::BTreeMap;

use crate::duration::parse_duration;
use crate::format::SQL;
use crate::literal::{fit, literal};
use crate::reach::Server;
use crate::yaml::{Node, Scalar, Value};
use crate::{
    Aggregation, At, BatchSource, Broker, Cataloged, Column, Dialect, Encoding, Entity, Epoch, Expr, Feature,
    FeatureService, FeatureView, Format, Function, Governance, Literal, Loc, Projection, PullSource,
    PulledRows, ScalarType, Source, Start, Stored, StreamSource, Type, Window,
};

pub(super) fn entity(node: &Node) -> Entity {
    let (name, loc) = identity(node, "name");
    let (description, join_keys) = (text(node, "description"), columns(node, "join_keys"));
    Entity { name, description, join_keys, governance: governance(node), loc }
}

/// Whose any definition is.
pub(super) fn governance(node: &Node) -> Governance {
    let owner = node.get("owner").and_then(Node::text).map(str::to_owned);
    Governance { owner, tags: texts(node, "tags"), share: texts(node, "share") }
}

pub(super) fn source(node: &Node) -> Source {
    let (name, loc) = identity(node, "name");
    let created = node.get("created_timestamp").and_then(Node::text);
    Source {
        name,
        description: text(node, "description"),
        batch: node.get("batch").and_then(batch),
        pull: pull(node),
        push: is_true(node, "push") || node.get("stream").is_some() || is_of_database(node),
        stream: node.get("stream").and_then(stream),
        event_timestamp: text(node, "event_timestamp"),
        created_timestamp: created.map(str::to_owned),
        event_id: texts(node, "event_id"),
        columns: columns(node, "columns"),
        governance: governance(node),
        loc,
    }
}

pub(super) fn view(node: &Node) -> FeatureView {
    let (name, loc) = identity(node, "name");
    FeatureView {
        name,
        description: text(node, "description"),
        entities: texts(node, "entities"),
        keys: pairs(node, "keys"),
        source: text(node, "source"),
        filter: node.get("where").and_then(expression),
        ttl_us: duration_us(node, "ttl"),
        lag_us: duration_us(node, "lag").unwrap_or(0),
        at: if text(node, "at") == At::Before.name() { At::Before } else { At::Including },
        features: items(node, "features").filter_map(feature).collect(),
        aggregations: items(node, "aggregations").filter_map(aggregation).collect(),
        governance: governance(node),
        loc,
    }
}

pub(super) fn service(node: &Node) -> FeatureService {
    let (name, loc) = identity(node, "name");
    let outputs = node.get("outputs").map(|outputs| outputs.items().iter().filter_map(expression).collect());
    FeatureService {
        name,
        description: text(node, "description"),
        request: columns(node, "request"),
        projections: items(node, "features").map(projection).collect(),
        derived: items(node, "derived").filter_map(feature).collect(),
        outputs,
        governance: governance(node),
        loc,
    }
}

/// How long a row may take from its cursor to its commit where nothing is said.
const OVERLAP_US: i64 = HOUR_US;

/// Where a stream may begin, besides at a time.
pub(super) const EARLIEST: &str = "earliest";
pub(super) const LATEST: &str = "latest";

fn stream(node: &Node) -> Option<StreamSource> {
    let topic = node.get("topic")?;
    let broker = match text(node, "broker").as_str() {
        "kafka" => Broker::Kafka,
        "redis" => Broker::Redis,
        _ => return None,
    };
    let servers = text(node, "servers");
    let reaches = Server::of_stream(broker, &servers).unwrap_or_default();
    Some(StreamSource {
        broker,
        servers,
        reaches,
        topic: topic.text()?.to_owned(),
        start: match text(node, "start").as_str() {
            "" | EARLIEST => Start::Earliest,
            LATEST => Start::Latest,
            at => Start::At(at.to_owned()),
        },
        registry: node.get("schema_registry").and_then(Node::text).map(str::to_owned),
        // What leads there is found once all connections are known.
        connection: None,
        registered: None,
        loc: topic.loc.clone(),
    })
}

fn batch(node: &Node) -> Option<BatchSource> {
    let by = node.get("connection").and_then(Node::text);
    let path = node.get("path").or(by.and_then(|_| node.get("table")))?;
    let format = text(node, "format");
    let format = Format::ALL.into_iter().find(|known| known.name() == format)?;
    let (path, loc) = (path.text()?.to_owned(), path.loc.clone());
    // What leads there is found once all connections are known.
    let version = count_from_0(node, "version");
    let reference = node.get("ref").and_then(Node::text).map(str::to_owned);
    let catalog = |by: &str| Cataloged { by: by.to_owned(), connection: None, storage: Vec::new() };
    let (dialect, catalog) = (dialect(node), by.map(catalog));
    Some(BatchSource { format, path, version, reference, dialect, connection: None, catalog, loc })
}

/// Whether a source's rows are a database's.
pub(super) fn is_of_database(node: &Node) -> bool {
    node.get("batch").is_some_and(|batch| text(batch, "format") == SQL)
}

fn pull(node: &Node) -> Option<PullSource> {
    let batch = node.get("batch").filter(|_| is_of_database(node))?;
    let said = |key: &str| batch.get(key).and_then(Node::text).map(str::to_owned);
    let query = said("query").map(PulledRows::Query);
    let rows = query.or_else(|| said("table").map(PulledRows::Table))?;
    let cursor = said("cursor").unwrap_or_else(|| text(node, "created_timestamp"));
    let is_time =
        |column: &Column| column.name != cursor || column.dtype == Type::Scalar(ScalarType::Timestamp);
    let usual = if columns(node, "columns").iter().all(is_time) { OVERLAP_US } else { 0 };
    let counted = || count_from_0(batch, "overlap").and_then(|number| i64::try_from(number).ok());
    Some(PullSource {
        rows,
        overlap: duration_us(batch, "overlap").or_else(counted).unwrap_or(usual),
        cursor,
        is_pushed_to: is_true(node, "push") || node.get("stream").is_some(),
        by: text(batch, "connection"),
        // It is found once all are known.
        connection: None,
        loc: batch.loc.clone(),
    })
}

fn dialect(node: &Node) -> Dialect {
    let character = |key: &str| node.get(key).and_then(Node::text).and_then(|text| text.bytes().next());
    let usual = Dialect::default();
    Dialect {
        delimiter: character("delimiter").unwrap_or(usual.delimiter),
        quote: character("quote").unwrap_or(usual.quote),
        escape: character("escape"),
        null_values: texts(node, "null_values"),
        encoding: Encoding::named(&text(node, "encoding")).unwrap_or(usual.encoding),
    }
}

fn columns(node: &Node, key: &str) -> Vec<Column> {
    let column = |node: &Node| {
        let (name, loc) = identity(node, "name");
        let dtype = dtype(node)?;
        let format = node.get("format").and_then(Node::text).and_then(Epoch::named);
        let from = node.get("from").and_then(Node::text).and_then(Stored::parse);
        Some(Column { name, dtype, default: default(node, Some(dtype)), format, from, loc })
    };
    items(node, key).filter_map(column).collect()
}

fn feature(node: &Node) -> Option<Feature> {
    let (name, loc) = identity(node, "name");
    if name.is_empty() {
        return None;
    }
    let expr = match node.get("expr") {
        Some(expr) => expression(expr)?,
        None => Expr { sql: quoted(&name), loc: loc.clone() },
    };
    let dtype = dtype(node);
    Some(Feature {
        name,
        description: text(node, "description"),
        expr,
        dtype,
        default: default(node, dtype),
        strict: is_true(node, "strict"),
        loc,
    })
}

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;
const LIMIT_DEFAULT: u32 = 1_000;

fn aggregation(node: &Node) -> Option<Aggregation> {
    let (name, loc) = identity(node, "name");
    let hop_us = node.get("hop").and_then(Node::text).and_then(|hop| match hop {
        "exact" => Some(1),
        hop => parse_duration(hop).ok(),
    });
    let windows = items(node, "windows").filter_map(|node| {
        let name = node.text()?.to_owned();
        let length_us = if name == "lifetime" { None } else { Some(parse_duration(&name).ok()?) };
        let hop_us = hop_us.unwrap_or(match length_us {
            Some(..43_200_000_000) => 5 * MINUTE_US,
            Some(..1_036_800_000_000) => HOUR_US,
            _ => DAY_US,
        });
        Some(Window { name, length_us, hop_us, loc: node.loc.clone() })
    });
    Some(Aggregation {
        function: function(node)?,
        of: node.get("of").and_then(expression),
        filter: node.get("where").and_then(expression),
        buckets: node.get("buckets").and_then(expression),
        limit: count(node, "limit").unwrap_or(LIMIT_DEFAULT),
        windows: windows.collect(),
        default: default(node, None),
        strict: is_true(node, "strict"),
        description: text(node, "description"),
        name,
        loc,
    })
}

fn function(node: &Node) -> Option<Function> {
    Some(match text(node, "function").as_str() {
        "count" => Function::Count,
        "sum" => Function::Sum,
        "avg" => Function::Avg,
        "min" => Function::Min,
        "max" => Function::Max,
        "stddev" => Function::Stddev,
        "variance" => Function::Variance,
        "first" => Function::First,
        "last" => Function::Last,
        "last_n" => Function::LastN { n: count(node, "n")? },
        "top_n_by" => Function::TopNBy { n: count(node, "n")?, by: expression(node.get("by")?)? },
        "approx_distinct" => Function::ApproxDistinct,
        "approx_percentile" => Function::ApproxPercentile { percentile: share(node, "percentile")? },
        "count_distinct" => Function::CountDistinct,
        "any" => Function::Any,
        "every" => Function::Every,
        "histogram" => Function::Histogram,
        _ => return None,
    })
}

pub(super) fn count(node: &Node, key: &str) -> Option<u32> {
    match node.get(key).map(|node| &node.value) {
        Some(Value::Scalar { scalar: Scalar::Int(n), .. }) => u32::try_from(*n).ok(),
        _ => None,
    }
}

fn count_from_0(node: &Node, key: &str) -> Option<u64> {
    match node.get(key).map(|node| &node.value) {
        Some(Value::Scalar { scalar: Scalar::Int(n), .. }) => u64::try_from(*n).ok(),
        _ => None,
    }
}

/// There is one for each item of the list, so that the two can be walked together.
fn projection(node: &Node) -> Projection {
    let (view, loc) = identity(node, "view");
    let alias = node.get("as").and_then(Node::text).map(str::to_owned);
    let exclude_event = node.get("exclude_event").map(names).unwrap_or_default();
    let (keys, features) = (pairs(node, "keys"), texts(node, "features"));
    Projection { view, alias, keys, exclude_event, features, loc }
}

/// `name` as a SQL identifier that keeps its case.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What `key` says and where; a node that is bare text says it itself.
pub(super) fn identity(node: &Node, key: &str) -> (String, Loc) {
    let named = match node.value {
        Value::Scalar { .. } => Some(node),
        Value::List(_) | Value::Map(_) => node.get(key),
    };
    let loc = named.map_or(&node.loc, |named| &named.loc).clone();
    (named.and_then(Node::text).unwrap_or_default().to_owned(), loc)
}

pub(super) fn items<'a>(node: &'a Node, key: &str) -> impl Iterator<Item = &'a Node> {
    node.get(key).map(Node::items).unwrap_or_default().iter()
}

pub(super) fn text(node: &Node, key: &str) -> String {
    node.get(key).and_then(Node::text).unwrap_or_default().to_owned()
}

pub(super) fn texts(node: &Node, key: &str) -> Vec<String> {
    items(node, key).filter_map(Node::text).map(str::to_owned).collect()
}

pub(super) fn pairs(node: &Node, key: &str) -> BTreeMap<String, String> {
    let entries = node.get(key).map(Node::entries).unwrap_or_default();
    entries.iter().filter_map(|entry| Some((entry.key.clone(), entry.value.text()?.to_owned()))).collect()
}

pub(super) fn share(node: &Node, key: &str) -> Option<f64> {
    match &node.get(key)?.value {
        Value::Scalar { scalar: Scalar::Float(share), .. } => Some(*share),
        Value::Scalar { scalar: Scalar::Int(share), .. } => Some(*share as f64),
        _ => None,
    }
}

pub(super) fn is_true(node: &Node, key: &str) -> bool {
    matches!(node.get(key).map(|node| &node.value), Some(Value::Scalar { scalar: Scalar::Bool(true), .. }))
}

/// One name, or a list of them.
pub(super) fn names(node: &Node) -> Vec<Expr> {
    match node.items() {
        [] => expression(node).into_iter().collect(),
        items => items.iter().filter_map(expression).collect(),
    }
}

pub(super) fn expression(node: &Node) -> Option<Expr> {
    Some(Expr { sql: node.text()?.to_owned(), loc: node.loc.clone() })
}

pub(super) fn duration_us(node: &Node, key: &str) -> Option<i64> {
    parse_duration(node.get(key)?.text()?).ok()
}

fn dtype(node: &Node) -> Option<Type> {
    Type::parse(node.get("type")?.text()?).ok()
}

fn default(node: &Node, dtype: Option<Type>) -> Option<Literal> {
    let literal = literal(node.get("default")?)?;
    match dtype {
        Some(dtype) => fit(literal, dtype).ok(),
        None => Some(literal),
    }
}
