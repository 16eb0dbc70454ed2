//! Which keys does each kind have?
//!
//! What is not in this table is not in the language.

use super::object::{Key, Object, Shape};
use crate::epoch::EPOCH_NAMES;
use crate::format::{BATCHES, ENCODINGS};

pub(super) const fn required(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, required: true, doc }
}

pub(super) const fn optional(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, required: false, doc }
}

pub(super) const DESCRIPTION: Key = optional("description", Shape::Text, "For people.");
pub(super) const OWNER: Key = optional("owner", Shape::Reference, "The role that answers for it.");
pub(super) const TAGS: Key = optional("tags", Shape::List(&Shape::ModelName), "What grants may name it by.");
pub(super) const SHARE: Key = optional(
    "share",
    Shape::List(&Shape::ProjectOrAll),
    "Other projects that may use it, as `project.name`; `\"*\"`: all there are.",
);

pub(super) static ENTITY: Object = Object {
    noun: "an entity",
    doc: "What features describe: a plane, a route, a customer.",
    keys: &[
        required("kind", Shape::Constant("Entity"), "Says that this document declares an entity."),
        required("name", Shape::Identifier, "Unique among entities."),
        DESCRIPTION,
        OWNER,
        TAGS,
        required(
            "join_keys",
            Shape::List(&Shape::Object(&JOIN_KEY)),
            "The columns that identify one entity, in key order.",
        ),
    ],
};

static JOIN_KEY: Object = Object {
    noun: "a join key",
    doc: "One column of an entity's key.",
    keys: &[
        required("name", Shape::Identifier, "Column name."),
        required("type", Shape::KeyType, "Column type; floats and lists are never keys."),
    ],
};

pub(super) static SOURCE: Object = Object {
    noun: "a source",
    doc: "Where raw rows come from: files or a database, pushes, or both.",
    keys: &[
        required("kind", Shape::Constant("Source"), "Says that this document declares a source."),
        required("name", Shape::Identifier, "Unique among sources; pushes name it."),
        DESCRIPTION,
        OWNER,
        TAGS,
        optional(
            "batch",
            Shape::Object(&BATCH),
            "Files that hold history, or rows of a database. A source needs `batch`, `push: true`, `stream`, or several of them.",
        ),
        optional("push", Shape::Bool, "Whether rows may be pushed; `false` unless given."),
        optional(
            "stream",
            Shape::Object(&STREAM),
            "Events of a broker, which come in as if they were pushed.",
        ),
        required("event_timestamp", Shape::SourceColumn, "The column that says when a row became true."),
        optional("created_timestamp", Shape::SourceColumn, "The column that says when a row became known."),
        optional(
            "event_id",
            Shape::List(&Shape::SourceColumn),
            "The columns that make a row the same row when it comes again.",
        ),
        optional(
            "columns",
            Shape::List(&Shape::Object(&SOURCE_COLUMN)),
            "Columns and their types. CSV, JSON, SQL and push sources must declare all they use; Parquet and Arrow files and tables know theirs.",
        ),
    ],
};

static BATCH: Object = Object {
    noun: "a batch source",
    doc: "Files of one format under one path, or rows of a database.",
    keys: &[
        required(
            "format",
            Shape::OneOf(&BATCHES),
            "File format; CSV files start with a header line, JSON files have an object on each line; Arrow files are those of \
             IPC, and Feather; `delta` and `iceberg` are tables, whose logs say which files count. `sql`: [a \
             database](#rows-of-a-database).",
        ),
        optional(
            "path",
            Shape::Path,
            "Of files, which need it: a path or glob, relative to the repository's root; or the same in an object store, as in \
             `s3://bucket/landings/date=*/*.parquet`, or one file over HTTP, as in `https://host/folder/file.parquet`, to which \
             a [connection](#connection) leads. Of a table, its folder; of Iceberg, also a file of its `metadata`.",
        ),
        optional(
            "version",
            Shape::Whole { max: i64::MAX },
            "Of a table, which state of it: Delta's version, or the id of Iceberg's snapshot; the latest unless given.",
        ),
        optional(
            "ref",
            Shape::Text,
            "Iceberg: the branch or the tag whose snapshot is read, instead of the latest of `main`.",
        ),
        optional("delimiter", Shape::Character, "CSV: what stands between two cells; `,` unless given."),
        optional(
            "quote",
            Shape::Character,
            "CSV: what stands around a cell with delimiters or line ends in it; `\"` unless given.",
        ),
        optional(
            "escape",
            Shape::Character,
            "CSV: within quotes, what stands before a character that is itself, such as Spark's `\\`; a quote before a quote \
             always does.",
        ),
        optional(
            "null_values",
            Shape::List(&Shape::Text),
            "CSV: cells that are null, such as `NA`; the empty one always is.",
        ),
        optional(
            "encoding",
            Shape::OneOf(&ENCODINGS),
            "CSV: how characters are written; `utf-8` unless given.",
        ),
        optional(
            "connection",
            Shape::Reference,
            "SQL, which needs it: the [connection](#connection) to the database; Iceberg: the one to its catalog, instead of `path`.",
        ),
        optional(
            "table",
            Shape::Text,
            "SQL: the table or view, as in `public.orders`; or `query`. Iceberg: the table, as its catalog names it.",
        ),
        optional(
            "query",
            Shape::Text,
            "SQL: a query, of which the rows are those of the source; or `table`.",
        ),
        optional(
            "cursor",
            Shape::SourceColumn,
            "SQL: the column by which new rows are known, a `timestamp` or whole numbers that grow; `created_timestamp` \
             unless given.",
        ),
        optional(
            "overlap",
            Shape::Overlap,
            "SQL: how far below the greatest cursor rows are asked for once more, since they may have been committed late: a \
             duration (`1h` unless given), or a number where the cursor is one (0 unless given).",
        ),
    ],
};

static STREAM: Object = Object {
    noun: "a stream",
    doc: "Events of a broker: each is a row, as a JSON object or as a registry's schema says.",
    keys: &[
        required("broker", Shape::OneOf(&["kafka", "redis"]), "Kind of broker."),
        required(
            "servers",
            Shape::Text,
            "Kafka: `host:port` of one or more brokers, with commas between; Redis: a URL. A \
             [connection](#connection) leads to each.",
        ),
        required("topic", Shape::Text, "Kafka: the topic; Redis: the key of the stream."),
        optional(
            "start",
            Shape::Text,
            "Kafka: where reading begins that was never begun: `earliest`, which is so unless given, `latest`, or a time as in \
             `2026-01-31T08:30:00Z`.",
        ),
        optional(
            "schema_registry",
            Shape::Reference,
            "Kafka: the [connection](#connection) to the registry whose schemas say what is in an event: Avro, Protobuf or \
             JSON. Without it each is a JSON object.",
        ),
    ],
};

static SOURCE_COLUMN: Object = Object {
    noun: "a column",
    doc: "A column of a source.",
    keys: &[
        required("name", Shape::SourceColumn, "Column name, as the files or pushes have it."),
        required("type", Shape::Type, "Column type."),
        optional(
            "format",
            Shape::OneOf(&EPOCH_NAMES),
            "Of a `timestamp`: what its numbers count since 1970, UTC. Text is read as ever.",
        ),
        optional(
            "from",
            Shape::Stored,
            "Of Parquet and Arrow files and of databases: what they hold in place of `type`.",
        ),
    ],
};

pub(super) static FEATURE_VIEW: Object = Object {
    noun: "a feature view",
    doc: "Features of one entity, or a combination of entities, from one source: of its latest row, or over windows.",
    keys: &[
        required("kind", Shape::Constant("FeatureView"), "Says that this document declares a feature view."),
        required("name", Shape::Identifier, "Unique among feature views."),
        DESCRIPTION,
        OWNER,
        TAGS,
        SHARE,
        required(
            "entities",
            Shape::List(&Shape::Reference),
            "The entities that make up the key, in key order; several make a composite key.",
        ),
        optional(
            "keys",
            Shape::Map { key: &Shape::Identifier, value: &Shape::SourceColumn },
            "Join key → source column, where the two have different names.",
        ),
        required("source", Shape::Reference, "The source whose rows it reads."),
        optional(
            "where",
            Shape::Expression,
            "SQL condition over source columns; rows for which it is not true do not exist for this view.",
        ),
        optional(
            "ttl",
            Shape::Duration { zero: false },
            "How long a row counts after it became visible; forever unless given.",
        ),
        optional(
            "lag",
            Shape::Duration { zero: true },
            "How long after its event timestamp a row becomes visible; `0s` unless given.",
        ),
        optional(
            "at",
            Shape::OneOf(&["including", "before"]),
            "Whether a row that becomes visible at the very query time counts: `before` leaves it out; `including` \
             unless given.",
        ),
        optional(
            "features",
            Shape::List(&Shape::Short { key: "name", object: &FEATURE }),
            "Features of the latest row; a bare name stands for the source column of that name.",
        ),
        optional(
            "aggregations",
            Shape::List(&Shape::Object(&AGGREGATION)),
            "Aggregates over windows of time. A view has either `features` or `aggregations`.",
        ),
    ],
};

pub(super) static AGGREGATION: Object = Object {
    noun: "an aggregation",
    doc: "An aggregate of the view's rows over windows of time; a feature for each window.",
    keys: &[
        required("name", Shape::Identifier, "First part of its features' names, as in `delay_avg_7d`."),
        required("function", Shape::OneOf(&FUNCTIONS), "How rows are aggregated."),
        optional(
            "of",
            Shape::Expression,
            "SQL over the source's columns: what is aggregated. Only `count` may do without: it then counts rows.",
        ),
        optional("where", Shape::Expression, "SQL condition; only rows for which it is true count."),
        required(
            "windows",
            Shape::List(&Shape::Window),
            "How far back: durations such as `1h` or `30d`, or `lifetime`.",
        ),
        optional(
            "hop",
            Shape::OneOf(&["exact", "5m", "1h", "1d"]),
            "The left end of a window moves in such steps; by its length unless given.",
        ),
        optional("n", Shape::Count { max: 1_000 }, "How many values `last_n` and `top_n_by` give."),
        optional("by", Shape::Expression, "SQL: what orders the values of `top_n_by`."),
        optional("percentile", Shape::Share, "Which percentile, from 0 to 1, of `approx_percentile`."),
        optional(
            "buckets",
            Shape::Expression,
            "SQL: the result is a map with an aggregate for each of its values.",
        ),
        optional(
            "limit",
            Shape::Count { max: 65_536 },
            "How many buckets, categories or distinct values are kept apart; 1000 unless given.",
        ),
        optional("default", Shape::Literal, "Stands in for null in a model input that has no NaN."),
        optional(
            "strict",
            Shape::Bool,
            "Whether a value that cannot be computed is an error; it is null unless given.",
        ),
        DESCRIPTION,
    ],
};

const FUNCTIONS: [&str; 17] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "stddev",
    "variance",
    "first",
    "last",
    "last_n",
    "top_n_by",
    "approx_distinct",
    "approx_percentile",
    "count_distinct",
    "any",
    "every",
    "histogram",
];

static FEATURE: Object = Object {
    noun: "a feature",
    doc: "A named value, computed from one row of the source.",
    keys: &[
        required("name", Shape::Identifier, "Unique in its view."),
        optional(
            "expr",
            Shape::Expression,
            "SQL over the source's columns; the column of the feature's own name unless given.",
        ),
        optional(
            "type",
            Shape::Type,
            "The expression is cast to it; the expression's own type unless given.",
        ),
        optional("default", Shape::Literal, "Stands in for null in a model input that has no NaN."),
        optional(
            "strict",
            Shape::Bool,
            "Whether a value that cannot be computed is an error; it is null unless given.",
        ),
        DESCRIPTION,
    ],
};

pub(super) static FEATURE_SERVICE: Object = Object {
    noun: "a feature service",
    doc: "The features that one model is trained on and served with.",
    keys: &[
        required(
            "kind",
            Shape::Constant("FeatureService"),
            "Says that this document declares a feature service.",
        ),
        required("name", Shape::Identifier, "Unique among feature services."),
        DESCRIPTION,
        OWNER,
        TAGS,
        SHARE,
        optional(
            "request",
            Shape::List(&Shape::Object(&REQUEST_COLUMN)),
            "Columns that each request brings, and that a spine must have.",
        ),
        required(
            "features",
            Shape::List(&Shape::Short { key: "view", object: &PROJECTION }),
            "The views joined, in order; a bare name takes all features of that view.",
        ),
        optional(
            "derived",
            Shape::List(&Shape::Object(&DERIVED)),
            "Features computed from the others at request time and in training alike.",
        ),
        optional(
            "outputs",
            Shape::List(&Shape::Identifier),
            "The columns that leave, in this order; every feature, then every derived one, unless given.",
        ),
    ],
};

static REQUEST_COLUMN: Object = Object {
    noun: "a request column",
    doc: "A value that the caller knows and no store holds.",
    keys: &[
        required("name", Shape::Identifier, "Column name."),
        required("type", Shape::Type, "Column type."),
        optional("default", Shape::Literal, "Stands in for null in a model input that has no NaN."),
    ],
};

static PROJECTION: Object = Object {
    noun: "a joined view",
    doc: "One view as a feature service joins it.",
    keys: &[
        required("view", Shape::Reference, "The feature view; another project's as `project.name`."),
        optional(
            "as",
            Shape::Identifier,
            "Prefixes the output columns (`alias__feature`), so that a view can be joined twice.",
        ),
        optional(
            "keys",
            Shape::Map { key: &Shape::Identifier, value: &Shape::Identifier },
            "Join key of the view → column of the spine or request, where the two have different names.",
        ),
        optional(
            "exclude_event",
            Shape::AnyOf(&[Shape::Identifier, Shape::List(&Shape::Identifier)]),
            "Of a view with windows: the request columns that hold the `event_id` of an event that does not count, in \
             the order of the source's `event_id`.",
        ),
        optional(
            "features",
            Shape::List(&Shape::Identifier),
            "The features taken, in this order; all of the view's unless given.",
        ),
    ],
};

static DERIVED: Object = Object {
    noun: "a derived feature",
    doc: "A feature computed from the columns of its feature service.",
    keys: &[
        required("name", Shape::Identifier, "Unique among the service's columns."),
        required(
            "expr",
            Shape::Expression,
            "SQL over join keys, `event_timestamp`, request columns, features and other derived features.",
        ),
        optional(
            "type",
            Shape::Type,
            "The expression is cast to it; the expression's own type unless given.",
        ),
        optional("default", Shape::Literal, "Stands in for null in a model input that has no NaN."),
        optional(
            "strict",
            Shape::Bool,
            "Whether a value that cannot be computed is an error; it is null unless given.",
        ),
        DESCRIPTION,
    ],
};
