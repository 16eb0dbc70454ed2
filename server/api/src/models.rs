//! What does TensorFlow Serving say of a model? `GET /v1/models/{model}[/versions/{version}][/metadata]`.

use quern_base::clock::now_us;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::response::Response;
use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use super::error::{ApiError, ApiResult};
use super::http::{json_reply, no_such_method};
use super::path::Path;
use super::who::Who;
use crate::error::{Error, Result};
use quern_access::Caller;
use quern_decode::json::{Asked, Json, columns};
use quern_decode::print::Values;
use quern_engine::Inputs;
use quern_server::Node;
use quern_server::live::LiveVersion;
use quern_server::verbs::predict::Target;

/// Ends a path that is posted to.
const PREDICT: &str = ":predict";
/// The one signature of each model.
const SIGNATURE: &str = "serving_default";

/// The model in a path, and perhaps its version.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub model: String,
    pub version: Option<String>,
}

/// The same, found among what is live and what who asks may know.
pub(super) struct Found {
    pub named: Named,
    pub target: Target,
}

impl FromRequestParts<Arc<Node>> for Found {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<Node>) -> ApiResult<Found> {
        let Who(who) = Who::from_request_parts(parts, node).await?;
        let Path(named) = Path::<Named>::from_request_parts(parts, node).await?;
        let target = named.find(node, &who)?;
        Ok(Found { named, target })
    }
}

impl Named {
    pub(super) fn find(&self, node: &Node, who: &Caller) -> Result<Target> {
        Ok(node.predict.target(who, &self.model, self.version.as_deref())?)
    }
}

/// Every version of a model; all of them answer, but for those whose files are lost.
pub(super) async fn status(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    Path(model): Path<String>,
    uri: Uri,
) -> ApiResult<Response> {
    if model.ends_with(PREDICT) {
        return Ok(no_such_method(Method::GET, uri).await);
    }
    let target = node.predict.target(&who, &model, None)?;
    Ok(statuses(&target, target.model().versions.iter()))
}

/// One version of a model.
pub(super) async fn version_status(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    Path((model, version)): Path<(String, String)>,
    uri: Uri,
) -> ApiResult<Response> {
    if version.ends_with(PREDICT) {
        return Ok(no_such_method(Method::GET, uri).await);
    }
    let target = node.predict.target(&who, &model, Some(&version))?;
    Ok(statuses(&target, [target.version()].into_iter()))
}

fn statuses<'a>(target: &Target, versions: impl Iterator<Item = &'a Arc<LiveVersion>>) -> Response {
    let status = |version: &Arc<LiveVersion>| {
        let (state, code) = match version.model.why_lost() {
            None => ("AVAILABLE", "OK"),
            Some(_) => ("END", "DATA_LOSS"),
        };
        let why = version.model.why_lost().filter(|_| target.sees()).unwrap_or_default();
        let status = json!({"error_code": code, "error_message": why});
        json!({"version": version.version, "state": state, "status": status})
    };
    json_reply(&json!({"model_version_status": versions.map(status).collect::<Vec<_>>()}))
}

/// What a model takes and gives.
pub(super) async fn metadata(Found { named, target }: Found) -> Response {
    let signature = json!({
        "inputs": tensors(target.inputs().schema),
        "outputs": tensors(&target.version().model.outputs),
        "method_name": "tensorflow/serving/predict",
    });
    json_reply(&json!({
        "model_spec": {"name": named.model, "signature_name": "", "version": target.version().version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }))
}

fn tensors(schema: &Schema) -> Map<String, Value> {
    let tensor = |field: &arrow::datatypes::FieldRef| {
        let mut dims = vec![-1];
        let mut dtype = field.data_type();
        while let DataType::FixedSizeList(item, length) = dtype {
            dims.push(*length);
            dtype = item.data_type();
        }
        if let DataType::List(item) = dtype {
            dims.push(-1);
            dtype = item.data_type();
        }
        let dims: Vec<_> = dims.iter().map(|size| json!({"size": size.to_string(), "name": ""})).collect();
        let shape = json!({"dim": dims, "unknown_rank": false});
        let name = field.name();
        (name.clone(), json!({"dtype": tf_type(dtype), "tensor_shape": shape, "name": name}))
    };
    schema.fields().iter().map(tensor).collect()
}

/// TensorFlow's name of a type; what it has none for goes as text.
fn tf_type(dtype: &DataType) -> &'static str {
    match dtype {
        DataType::Boolean => "DT_BOOL",
        DataType::Int32 => "DT_INT32",
        DataType::Int64 => "DT_INT64",
        DataType::UInt64 => "DT_UINT64",
        DataType::Float32 => "DT_FLOAT",
        DataType::Float64 => "DT_DOUBLE",
        _ => "DT_STRING",
    }
}

/// Refuses a `signature_name` that no model has.
pub(super) fn check_signature(name: Option<&Json<'_>>) -> Result<()> {
    match name {
        None | Some(Json::Null) => Ok(()),
        Some(Json::String(name)) if name.is_empty() || name == SIGNATURE => Ok(()),
        Some(Json::String(name)) => Err(Error::invalid(format!(
            "`signature_name`: unknown signature `{name}`; a model has one, `{SIGNATURE}`"
        ))),
        Some(other) => Err(Error::invalid(format!("`signature_name`: expected text, found {other}"))),
    }
}

/// Reads `inputs`, TensorFlow Serving's column form: an object of arrays, or one bare array where one column is wanted.
pub(super) fn inputs(wanted: &Inputs<'_>, inputs: Json<'_>) -> Result<Asked> {
    let inputs = match (inputs, wanted.schema.fields().as_ref()) {
        (Json::Array(values), [only]) => {
            Json::Object(vec![(only.name().as_str().into(), Json::Array(values))])
        }
        (Json::Array(_), fields) => {
            let names = fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join("`, `");
            return Err(Error::invalid(format!(
                "`inputs`: a bare array says which column only where there is one; give an object with `{names}`"
            )));
        }
        (inputs, _) => inputs,
    };
    Ok(columns(wanted, "inputs", &inputs, now_us())?)
}

/// Predictions in TensorFlow Serving's column form: the column of the only output, or an object of columns by name.
pub(super) struct Columns<'a>(pub &'a RecordBatch);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0.columns() {
            [only] => Values(only.as_ref()).serialize(serializer),
            columns => {
                let mut map = serializer.serialize_map(Some(columns.len()))?;
                for (field, values) in self.0.schema_ref().fields().iter().zip(columns) {
                    map.serialize_entry(field.name(), &Values(values.as_ref()))?;
                }
                map.end()
            }
        }
    }
}
