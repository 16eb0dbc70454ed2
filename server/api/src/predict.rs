//! `POST /v1/models/{model}[/versions/{version}]:predict`: predictions by entity, in TensorFlow Serving's row form or
//! in its column form.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::Response;
use axum::routing::post;
use quern_wire::{FallbackInfo, RouteRequest, VERSION_HEADER};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::browser::check_type;
use super::error::ApiResult;
use super::http::{Body, count, json_reply, no_such_path};
use super::memory::Held;
use super::models;
use super::path::Path;
use super::terms::Terms;
use super::who::Who;
use crate::error::{Error, Result};
use quern_access::Caller;
use quern_base::clock::now_us;
use quern_decode::json;
use quern_decode::print::{Instant, Value};
use quern_features::Vectors;
use quern_server::Node;
use quern_server::verbs::predict::{Answer, Given, Part, Reason};

const PATH: &str = "/v1/models/{call}";

/// The routes of a model by its name, where callers and administrators ask at one place.
pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new().route(PATH, post(model).get(models::status))
}

/// The same to callers, where administrators ask elsewhere.
pub(super) fn routes_to_callers() -> Router<Arc<Node>> {
    Router::new().route(PATH, post(model_to_callers).get(models::status))
}

/// The same to administrators.
pub(super) fn routes_to_administrators() -> Router<Arc<Node>> {
    Router::new().route(PATH, post(model_to_administrators))
}

/// What is asked of a model: to predict, by whichever version its route says, or to change that route.
async fn model(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    Path(call): Path<String>,
    terms: Terms,
    held: Held,
    headers: HeaderMap,
    Body(body): Body,
) -> ApiResult<Response> {
    match verb(&call)? {
        (model, Verb::Predict) => predict((&node, &who), (model, None), (terms, held), &body).await,
        (model, Verb::Route) => route((&node, who), model, &headers, &body).await,
    }
}

async fn model_to_callers(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    Path(call): Path<String>,
    terms: Terms,
    held: Held,
    Body(body): Body,
) -> ApiResult<Response> {
    match verb(&call)? {
        (model, Verb::Predict) => predict((&node, &who), (model, None), (terms, held), &body).await,
        (model, Verb::Route) => Err(cannot(model, "route").into()),
    }
}

async fn model_to_administrators(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    Path(call): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    Body(body): Body,
) -> ApiResult<Response> {
    match verb(&call) {
        Ok((model, Verb::Route)) => route((&node, who), model, &headers, &body).await,
        _ => Ok(no_such_path(uri).await),
    }
}

async fn route(
    (node, who): (&Arc<Node>, Caller),
    model: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> ApiResult<Response> {
    check_type(headers)?;
    let request = if body.is_empty() { Ok(RouteRequest::default()) } else { serde_json::from_slice(body) };
    let request = request.map_err(|error| {
        Error::invalid(format!("the body is neither {{\"weights\": {{\"version\": 90 or \"10%\", …}}}} nor {{\"ramp\": {{\"version\": …, \"steps\": \
             [\"10%\", …], \"every\": \"10m\"}}}}: {error}"))
    })?;
    Ok(json_reply(&node.apply.route(who, model, request).await?))
}

/// Predictions by one version of a model.
pub(super) async fn version(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    Path((model, call)): Path<(String, String)>,
    terms: Terms,
    held: Held,
    Body(body): Body,
) -> ApiResult<Response> {
    match verb(&call)? {
        (version, Verb::Predict) => {
            predict((&node, &who), (&model, Some(version)), (terms, held), &body).await
        }
        (_, Verb::Route) => {
            Err(Error::not_found(format!("a version has no route; POST to `{model}:route`")).into())
        }
    }
}

enum Verb {
    Predict,
    Route,
}

/// The name in `name:predict`, and what is asked of it.
fn verb(call: &str) -> Result<(&str, Verb)> {
    match call.rsplit_once(':') {
        Some((name, "predict")) => Ok((name, Verb::Predict)),
        Some((name, "route")) => Ok((name, Verb::Route)),
        Some((name, verb)) => Err(cannot(name, verb)),
        None => Err(Error::not_found(format!("POST to `{call}:predict` to predict"))),
    }
}

fn cannot(model: &str, verb: &str) -> Error {
    Error::not_found(format!("a model cannot `{verb}`; POST to `{model}:predict` to predict"))
}

async fn predict(
    (node, who): (&Arc<Node>, &Caller),
    (model, version): (&str, Option<&str>),
    (terms, held): (Terms, Held),
    body: &[u8],
) -> ApiResult<Response> {
    let target = node.predict.target(who, model, version.or(terms.version.as_deref()))?.within(&held.0);
    let keys = ["instances", "inputs", "with_features", "signature_name"];
    let [instances, inputs, with_features, signature] = json::body(body, keys, &[])?;
    models::check_signature(signature.as_ref())?;
    let with_features = json::flag(with_features.as_ref(), "with_features")?;
    let target = target.showing(with_features)?;
    let (asked, form) = match (instances, inputs) {
        (Some(instances), None) => (json::instances(&target.inputs(), &instances, now_us())?, Form::Rows),
        (None, Some(inputs)) => (models::inputs(&target.inputs(), inputs)?, Form::Columns),
        (Some(_), Some(_)) => {
            return Err(Error::invalid("give either `instances` or `inputs`, not both").into());
        }
        (None, None) => {
            let cause = "`instances` is missing: an array of objects; or `inputs`, an object of arrays";
            return Err(Error::invalid(cause).into());
        }
    };
    node.take_rows(who, asked.inputs.num_rows())?;
    held.take_cells(asked.inputs.num_rows(), target.version().service.outputs.fields().len())?;
    let given =
        Given::Entities { inputs: asked.inputs, query_times_us: asked.query_times_us, timed: asked.timed };
    let answer = target.predict(&node.predict, terms.ask(given)).await?;
    held.take_rows([&answer.outputs])?;
    if with_features {
        let vectors = answer.parts.iter().filter_map(|part| part.vectors.as_ref());
        held.take_rows(vectors.map(|vectors| &vectors.vectors))?;
    }
    answer.parts.iter().filter_map(|part| part.vectors.as_ref()).for_each(count);
    let mut reply = json_reply(&Reply { answer: &answer, form, says_who: target.says_who(), with_features });
    if let Some(versions) = who_answered(&answer.parts) {
        reply.headers_mut().insert(VERSION, versions);
    }
    Ok(reply)
}

const VERSION: HeaderName = HeaderName::from_static(VERSION_HEADER);

/// What answered, each once. A reply says it for every request, `served_by` only where it may be one or another.
fn who_answered(parts: &[Part]) -> Option<HeaderValue> {
    let mut names: Vec<&str> = parts.iter().map(|part| part.served_by.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(",")).ok())?
}

/// How TensorFlow Serving lays out a request and its reply.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// `instances`, `predictions`
    Rows,
    /// `inputs`, `outputs`
    Columns,
}

struct Reply<'a> {
    answer: &'a Answer,
    form: Form,
    says_who: bool,
    with_features: bool,
}

impl Serialize for Reply<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let Answer { outputs, parts, .. } = self.answer;
        let mut map = serializer.serialize_map(None)?;
        match self.form {
            Form::Rows => map.serialize_entry("predictions", &Rows(outputs))?,
            Form::Columns => map.serialize_entry("outputs", &models::Columns(outputs))?,
        }
        if self.says_who {
            let mut served_by = vec![""; outputs.num_rows()];
            for part in parts {
                part.rows.iter().for_each(|row| served_by[*row] = &part.served_by);
            }
            map.serialize_entry("served_by", &served_by)?;
            let fallbacks = parts.iter().filter_map(|part| {
                let Reason { cause, detail } = part.reason.as_ref()?;
                Some(FallbackInfo {
                    instances: part.rows.clone(),
                    served_by: part.served_by.clone(),
                    cause: cause.as_str().to_owned(),
                    detail: detail.clone(),
                })
            });
            let fallbacks: Vec<FallbackInfo> = fallbacks.collect();
            if !fallbacks.is_empty() {
                map.serialize_entry("fallbacks", &fallbacks)?;
            }
        }
        let failed = self.answer.failed();
        if !failed.is_empty() {
            map.serialize_entry("failed", &BTreeMap::from(failed))?;
        }
        match (self.with_features, parts.as_slice()) {
            (false, _) | (true, []) => {}
            (true, [Part { version, vectors: Some(vectors), .. }]) => {
                map.serialize_entry("model_version", &version.version)?;
                map.serialize_entry("feature_service", &vectors.service.name)?;
                map.serialize_entry("features", &Features { vectors })?;
            }
            (true, parts) => {
                map.serialize_entry("parts", &parts.iter().map(PartReply::of).collect::<Vec<_>>())?;
            }
        }
        map.end()
    }
}

/// What one version saw, where several answered: a `quern_wire::PredictPart`.
#[derive(Serialize)]
struct PartReply<'a> {
    instances: &'a [usize],
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<Features<'a>>,
}

impl PartReply<'_> {
    fn of(part: &Part) -> PartReply<'_> {
        PartReply {
            instances: &part.rows,
            model_version: &part.version.version,
            feature_service: part.vectors.as_ref().map(|vectors| vectors.service.name.as_str()),
            features: part.vectors.as_ref().map(|vectors| Features { vectors }),
        }
    }
}

/// A prediction for each row: the value of the only output, or an object of the outputs by name.
pub(crate) struct Rows<'a>(pub &'a RecordBatch);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let rows = 0..self.0.num_rows();
        match self.0.columns() {
            [output] => serializer.collect_seq(rows.map(|row| Value(output, row))),
            _ => serializer.collect_seq(rows.map(|row| Row(self.0, row))),
        }
    }
}

struct Row<'a>(&'a RecordBatch, usize);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let columns = self.0.schema_ref().fields().iter().zip(self.0.columns());
        serializer.collect_map(columns.map(|(field, column)| (field.name(), Value(column, self.1))))
    }
}

/// The vectors that the model saw, row by row.
struct Features<'a> {
    vectors: &'a Vectors,
}

impl Serialize for Features<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let batch = &self.vectors.vectors;
        let names: Vec<&str> =
            batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("names", &names)?;
        map.serialize_entry("values", &self.cells(|output, row| Value(batch.column(output), row)))?;
        map.serialize_entry(
            "statuses",
            &self.cells(|output, row| self.vectors.status(output, row).as_str()),
        )?;
        let times = self.cells(|output, row| self.vectors.event_timestamp(output, row).map(Instant));
        map.serialize_entry("event_timestamps", &times)?;
        map.end()
    }
}

impl Features<'_> {
    fn cells<T: Serialize, F: Fn(usize, usize) -> T>(&self, cell: F) -> Cells<F> {
        Cells { rows: self.vectors.vectors.num_rows(), outputs: self.vectors.vectors.num_columns(), cell }
    }
}

/// A list for each row, of a cell for each output.
struct Cells<F> {
    rows: usize,
    outputs: usize,
    cell: F,
}

impl<T: Serialize, F: Fn(usize, usize) -> T> Serialize for Cells<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        struct Line<'a, F>(&'a Cells<F>, usize);

        impl<T: Serialize, F: Fn(usize, usize) -> T> Serialize for Line<'_, F> {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_seq((0..self.0.outputs).map(|output| (self.0.cell)(output, self.1)))
            }
        }

        serializer.collect_seq((0..self.rows).map(|row| Line(self, row)))
    }
}
