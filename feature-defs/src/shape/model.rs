//! Which keys does a model have?

use super::object::{Key, Object, Shape};
use super::table::{DESCRIPTION, OWNER, TAGS, optional, required};

pub(super) static MODEL: Object = Object {
    noun: "a model",
    doc: "A model and its versions.",
    keys: &[
        required("kind", Shape::Constant("Model"), "Says that this document declares a model."),
        required("name", Shape::ModelName, "Unique among models; part of the URL."),
        DESCRIPTION,
        OWNER,
        TAGS,
        optional(
            "reveals",
            Shape::List(&Shape::FeatureReference),
            "Features, as `view:feature`, that its replies may show as they are, to who may not read them.",
        ),
        required(
            "versions",
            Shape::List(&Shape::Object(&VERSION)),
            "The versions; without `route` the last one answers requests that name none.",
        ),
        optional("route", Shape::Object(&ROUTE), "Which version answers whom: canaries, A/B tests, shadows."),
        optional(
            "fallback",
            Shape::Object(&FALLBACK),
            "What answers where the version that should does not.",
        ),
        optional("log", Shape::Object(&LOG), "What is kept of predictions; nothing where it is absent."),
        optional("batching", Shape::Object(&BATCHING), "How requests share a run, and how many may wait."),
        optional(
            "isolation",
            Shape::OneOf(&["auto", "process", "thread"]),
            "Where its files run: in worker processes, in the server's threads, or, with `auto`, which is so unless \
             given, in worker processes where a file holds what may end a process, run without end, or \
             take memory without end, or is so slow that 10,000 rows may take 10 s.",
        ),
    ],
};

static VERSION: Object = Object {
    noun: "a model version",
    doc: "A model file, or the steps of an ensemble, and the feature service that feeds it.",
    keys: &[
        required("version", Shape::Version, "Unique in the model; a text or a whole number."),
        optional(
            "path",
            Shape::PathOrUrl,
            "The ONNX file, or the folder of an MLflow model that holds one: relative to the repository's root, or in an \
             object store, as in `s3://bucket/key`, to which a [connection](#connection) leads; or a version of a model \
             that MLflow has [registered](models.md#from-mlflows-registry), as in `models:/fraud/3`.",
        ),
        optional("steps", Shape::List(&Shape::Object(&STEP)), "Instead of `path`: the steps of an ensemble."),
        INPUTS,
        optional(
            "outputs",
            Shape::List(&Shape::Text),
            "Those of the file's outputs that are kept, in this order; all unless given. With `steps`: the columns that \
             leave; the last step's unless given.",
        ),
        required(
            "service",
            Shape::Reference,
            "The feature service that feeds it; another project's as `project.name`.",
        ),
        optional(
            "examples",
            Shape::List(&Shape::Map { key: &Shape::Identifier, value: &Shape::Literal }),
            "Feature vectors that it must have an answer for before it goes live; columns that are left out have their \
             `default`, or are null.",
        ),
        optional(
            "trained_on",
            Shape::Object(&TRAINED_ON),
            "The training set that it was trained on, as `quern.training_set` in the metadata of that one says; \
             `quern verify --training` makes it again and says what became of it.",
        ),
    ],
};

static TRAINED_ON: Object = Object {
    noun: "a training set",
    doc: "What a training set was made of, and what came of it: written by `quern.onnx.export`, not by hand.",
    keys: &[
        required("digest", Shape::Text, "Of all below."),
        required("rows", Shape::Whole { max: u32::MAX as i64 }, "How many rows it had."),
        optional(
            "as_known",
            Shape::Bool,
            "Whether rows that became known after the query time were invisible.",
        ),
        required(
            "made_of",
            TEXTS,
            "Feature service, feature views, sources, functions, and the state of each.",
        ),
        required("columns", TEXTS, "Its columns, and the digest of the values of each."),
    ],
};

const TEXTS: Shape = Shape::Map { key: &Shape::Text, value: &Shape::Text };

const INPUTS: Key = optional(
    "inputs",
    Shape::AnyOf(&FED),
    "With `path`: the columns it reads, in this order, or what fills each of the file's [inputs](models.md), by the file's \
     name for it; the service's columns unless given.",
);

static FED: [Shape; 2] =
    [Shape::List(&Shape::Identifier), Shape::Map { key: &Shape::Text, value: &Shape::AnyOf(&FILLED) }];
static FILLED: [Shape; 3] = [Shape::Identifier, Shape::List(&Shape::Identifier), Shape::Object(&INPUT)];
static NAMES: [Shape; 2] = [Shape::Identifier, Shape::List(&Shape::Identifier)];

static REMOTE: Object = Object {
    noun: "a remote model",
    doc: "A model on another server.",
    keys: &[
        required("url", Shape::Url, "The server, as in `grpc://triton:8001`, or `grpcs://...` over TLS."),
        required("model", Shape::Text, "The server's name for the model."),
        optional(
            "version",
            Shape::Version,
            "The server's name for the version; where it has several, it is needed.",
        ),
        optional(
            "timeout",
            Shape::Duration { zero: false },
            "How long an answer may take; `1s` unless given.",
        ),
    ],
};

static INPUT: Object = Object {
    noun: "an input",
    doc: "What fills an input of a model.",
    keys: &[
        required("columns", Shape::AnyOf(&NAMES), "The column, or those that stand side by side."),
        optional(
            "shape",
            Shape::List(&Shape::Count { max: 65_536 }),
            "The lengths of a row's dimensions, as in `[28, 28, 1]`; those of the file unless given.",
        ),
    ],
};

static STEP: Object = Object {
    noun: "a step",
    doc: "A model, or an expression, that reads the service's columns and those of other steps.",
    keys: &[
        required(
            "name",
            Shape::Identifier,
            "Names its column; a model with several outputs has a column `name__output` for each.",
        ),
        optional("path", Shape::PathOrUrl, "The ONNX file, or the folder of an MLflow model, as above."),
        optional(
            "remote",
            Shape::Object(&REMOTE),
            "Instead of `path`: a model on another server that speaks the Open Inference Protocol over gRPC (Triton, \
             KServe, MLServer, Quern), to which a [connection](#connection) leads.",
        ),
        INPUTS,
        optional(
            "outputs",
            Shape::List(&Shape::Text),
            "With `path` or `remote`: those of the file's outputs that become columns; all unless given.",
        ),
        optional(
            "expr",
            Shape::Expression,
            "Instead of `path`: SQL over the service's and the steps' columns.",
        ),
    ],
};

static ROUTE: Object = Object {
    noun: "a route",
    doc: "Which version answers whom.",
    keys: &[
        required(
            "weights",
            Shape::Map { key: &Shape::Version, value: &Shape::Whole { max: 1_000_000 } },
            "Version → its share of the entities, in whole numbers of any sum; `quern route` changes it in flight.",
        ),
        optional(
            "sticky",
            Shape::List(&Shape::Identifier),
            "The join keys and request columns whose values decide; all join keys unless given.",
        ),
        optional(
            "salt",
            Shape::Text,
            "Another one divides entities in another way; the model's name unless given.",
        ),
        optional(
            "shadow",
            Shape::List(&Shape::Version),
            "Versions that get the same vectors and whose answers nobody waits for.",
        ),
    ],
};

static FALLBACK: Object = Object {
    noun: "a fallback",
    doc: "What answers where the version that should fails, is late or overloaded, or lacks features.",
    keys: &[
        optional("timeout", Shape::Duration { zero: false }, "How long the version may take."),
        optional(
            "max_age",
            Shape::Duration { zero: false },
            "Instances with a feature older than this are not left to the version.",
        ),
        optional(
            "max_missing",
            Shape::Share,
            "Nor are those that miss a larger share of their looked-up features.",
        ),
        required(
            "to",
            Shape::List(&Shape::Object(&INSTEAD)),
            "What answers instead, in order: the first that can.",
        ),
    ],
};

static INSTEAD: Object = Object {
    noun: "a substitute",
    doc: "What answers instead: exactly one of the three.",
    keys: &[
        optional("version", Shape::Version, "Another version of the model."),
        optional("expr", Shape::Expression, "SQL over the columns of the feature service."),
        optional("constant", Shape::Literal, "Always the same."),
    ],
};

static LOG: Object = Object {
    noun: "a prediction log",
    doc: "What is kept of predictions.",
    keys: &[required(
        "sample",
        Shape::Share,
        "The share of requests that are logged, from 0 to 1; a request is logged whole or not at all.",
    )],
};

static BATCHING: Object = Object {
    noun: "a batching rule",
    doc: "How requests share a run, and how many may wait.",
    keys: &[
        optional("max_rows", Shape::Count { max: 65_536 }, "Rows in one shared run; 256 unless given."),
        optional(
            "max_delay",
            Shape::Duration { zero: true },
            "How long a run waits for company; `0s` unless given: then only what waits anyway is shared.",
        ),
        optional("queue_rows", Shape::Count { max: 1_000_000 }, "Rows that may wait; 100000 unless given."),
        optional(
            "concurrency",
            Shape::Count { max: 256 },
            "Runs at the same time; as many as there are cores unless given.",
        ),
    ],
};
