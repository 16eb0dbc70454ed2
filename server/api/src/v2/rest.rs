//! `POST /v2/models/{model}[/versions/{version}]/infer`: JSON, and raw tensors behind it.
//!
//! With `Inference-Header-Content-Length`, so many bytes of the body are JSON, and the cells of each input that says
//! `binary_data_size` follow in their order. A reply is built the same way where outputs are wanted so.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::Request;
use crate::error::{ApiResult, Error, Result};
use crate::http::{Body, json_reply};
use crate::memory::Held;
use crate::models::Named;
use crate::path::Path;
use crate::terms::Terms;
use crate::who::Who;
use quern_decode::json::{self, Json};
use quern_decode::print::Values;
use quern_decode::tensor::{Head, Tensor};
use quern_server::Node;

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

pub(super) async fn infer(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    Path(named): Path<Named>,
    terms: Terms,
    held: Held,
    headers: HeaderMap,
    Body(body): Body,
) -> ApiResult<Response> {
    let target = named.find(&node, &who)?;
    let (json, raw) = split(&headers, &body)?;
    let Asked { id, request, binary } = read(json, raw, (terms, held))?;
    let reply = super::infer((&node, &who), target, request).await?;
    let mut blobs = Vec::new();
    let mut outputs = Vec::with_capacity(reply.outputs.len());
    for tensor in &reply.outputs {
        outputs.push(if binary.wants(&tensor.name) {
            let raw = tensor.raw()?;
            let length = raw.len();
            blobs.extend(raw);
            Output::new(tensor, Some(length))
        } else {
            Output::new(tensor, None)
        });
    }
    let head =
        ReplyHead { model_name: &named.model, model_version: &reply.version, id: id.as_deref(), outputs };
    if !binary.any() {
        return Ok(json_reply(&head));
    }
    let mut body = serde_json::to_vec(&head).map_err(|error| Error::internal("writing the reply", error))?;
    let length = body.len();
    body.extend(blobs);
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(header::CONTENT_TYPE, kind), (JSON_LENGTH, length.into())], body).into_response())
}

/// The JSON of a body, and the raw cells behind it.
fn split<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<(&'a [u8], &'a [u8])> {
    let Some(length) = headers.get(JSON_LENGTH) else { return Ok((body, &[])) };
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    length.and_then(|length| body.split_at_checked(length)).ok_or_else(|| {
        let bytes = body.len();
        Error::invalid(format!(
            "header `Inference-Header-Content-Length`: expected the length of the JSON, at most the body's {bytes} bytes"
        ))
    })
}

/// A request as it came over REST.
struct Asked {
    id: Option<String>,
    request: Request,
    binary: Binary,
}

/// Which outputs go back as raw bytes.
struct Binary {
    /// What is said of all.
    all: bool,
    /// What is said of one.
    named: Vec<(String, bool)>,
}

impl Binary {
    fn wants(&self, name: &str) -> bool {
        self.named.iter().find(|(named, _)| named == name).map_or(self.all, |(_, binary)| *binary)
    }

    /// Whether the reply may have raw bytes, and so says how long its JSON is.
    fn any(&self) -> bool {
        if self.named.is_empty() { self.all } else { self.named.iter().any(|(_, binary)| *binary) }
    }
}

fn read(json: &[u8], mut raw: &[u8], (mut terms, held): (Terms, Held)) -> Result<Asked> {
    let keys = ["inputs", "outputs", "id", "parameters"];
    let [inputs, outputs, id, parameters] = json::body(json, keys, &["model_name", "model_version"])?;
    let id = match id {
        None | Some(Json::Null) => None,
        Some(Json::String(id)) => Some(id.into_owned()),
        Some(other) => return Err(Error::invalid(format!("`id`: expected a string, found {other}"))),
    };
    if let Some(id) = id.as_ref().filter(|id| !id.is_empty()) {
        terms.name_request(id)?;
    }
    let parameters = Parameters::of("parameters", parameters)?;
    parameters.set(&mut terms)?;
    let all = parameters.flag("binary_data_output")?.unwrap_or(false);
    let tensors = list("inputs", inputs)?.into_iter().map(|input| tensor(input, &mut raw));
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    if !raw.is_empty() {
        let left = raw.len();
        return Err(Error::invalid(format!(
            "{left} bytes are left of the body; no input's `binary_data_size` has them"
        )));
    }
    let named = list("outputs", outputs)?.into_iter().map(|wanted| output(wanted, all));
    let named = named.collect::<Result<Vec<_>>>()?;
    let outputs = named.iter().map(|(name, _)| name.clone()).collect();
    Ok(Asked { id, request: Request { tensors, outputs, terms, held }, binary: Binary { all, named } })
}

/// The items of the array that the body calls `what`.
fn list<'a>(what: &str, json: Option<Json<'a>>) -> Result<Vec<Json<'a>>> {
    match json {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(items)) => Ok(items),
        Some(other) => Err(Error::invalid(format!("`{what}`: expected an array of objects, found {other}"))),
    }
}

/// One input; its raw cells are taken off `raw`.
fn tensor(input: Json<'_>, raw: &mut &[u8]) -> Result<Tensor> {
    let keys = ["name", "datatype", "shape", "parameters", "data"];
    let [name, datatype, shape, parameters, data] = json::object(input, "an input", keys, &[])?;
    let name = text("an input's `name`", name)?;
    let datatype = text(&format!("input `{name}`: `datatype`"), datatype)?;
    let shape = list(&format!("input `{name}`: shape"), shape)?;
    let shape = shape.iter().map(|dim| match dim {
        Json::Int(dim) => Ok(*dim),
        other => {
            Err(Error::invalid(format!("input `{name}`: `shape`: expected a whole number, found {other}")))
        }
    });
    let head = Head::new(&name, &datatype, &shape.collect::<Result<Vec<_>>>()?)?;
    let parameters = Parameters::of(&format!("input `{name}`: parameters"), parameters)?;
    parameters.refuse_shared_memory(&name)?;
    match (parameters.number("binary_data_size")?, data) {
        (Some(size), None) => {
            let cut = usize::try_from(size).ok().and_then(|size| raw.split_at_checked(size));
            let (cells, rest) = cut.ok_or_else(|| {
                let left = raw.len();
                Error::invalid(format!(
                    "input `{name}`: `binary_data_size` is {size}, and {left} bytes are left"
                ))
            })?;
            *raw = rest;
            Ok(head.with_raw(cells)?)
        }
        (None, Some(data)) => Ok(head.with_json(&data)?),
        (Some(_), Some(_)) => {
            Err(Error::invalid(format!("input `{name}`: give either `data` or `binary_data_size`, not both")))
        }
        (None, None) => Err(Error::invalid(format!("input `{name}`: `data` is missing"))),
    }
}

/// The name of an output that is wanted, and whether as raw bytes.
fn output(wanted: Json<'_>, all: bool) -> Result<(String, bool)> {
    let [name, parameters] =
        json::object(wanted, "an output", ["name", "parameters"], &["shape", "datatype"])?;
    let name = text("an output's `name`", name)?.into_owned();
    let parameters = Parameters::of(&format!("output `{name}`: parameters"), parameters)?;
    parameters.refuse_shared_memory(&name)?;
    if parameters.number("classification")?.is_some_and(|classes| classes > 0) {
        return Err(Error::invalid(format!(
            "output `{name}`: `classification` is not built; take the output itself"
        )));
    }
    let binary = parameters.flag("binary_data")?.unwrap_or(all);
    Ok((name, binary))
}

fn text<'a>(what: &str, json: Option<Json<'a>>) -> Result<std::borrow::Cow<'a, str>> {
    match json {
        Some(Json::String(text)) => Ok(text),
        Some(other) => Err(Error::invalid(format!("{what}: expected a string, found {other}"))),
        None => Err(Error::invalid(format!("{what} is missing"))),
    }
}

/// Parameters by name. What nobody here knows is left alone, as the protocol has it.
struct Parameters<'a> {
    what: String,
    entries: Vec<(std::borrow::Cow<'a, str>, Json<'a>)>,
}

impl<'a> Parameters<'a> {
    fn of(what: &str, json: Option<Json<'a>>) -> Result<Parameters<'a>> {
        let entries = match json {
            None | Some(Json::Null) => Vec::new(),
            Some(Json::Object(entries)) => entries,
            Some(other) => return Err(Error::invalid(format!("{what}: expected an object, found {other}"))),
        };
        let mut seen = HashSet::new();
        if let Some((twice, _)) = entries.iter().find(|(name, _)| !seen.insert(name.as_ref())) {
            return Err(Error::invalid(format!("{what}: `{twice}` is given twice")));
        }
        Ok(Parameters { what: what.to_owned(), entries })
    }

    fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.entries.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn wrong(&self, name: &str, expected: &str, found: &Json<'_>) -> Error {
        Error::invalid(format!("{}: `{name}`: expected {expected}, found {found}", self.what))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(name, "true or false", other)),
        }
    }

    fn number(&self, name: &str) -> Result<Option<i64>> {
        match self.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Int(number)) => Ok(Some(*number)),
            Some(other) => Err(self.wrong(name, "a whole number", other)),
        }
    }

    fn set(&self, terms: &mut Terms) -> Result<()> {
        if let Some(micros) = self.number("timeout")? {
            terms.wait_for_micros(micros)?;
        }
        match self.get("priority") {
            None | Some(Json::Null) => Ok(()),
            Some(Json::String(name)) => terms.name_priority("parameter `priority`", name),
            Some(Json::Int(number)) if *number >= 0 => {
                terms.rank(number.unsigned_abs());
                Ok(())
            }
            Some(other) => Err(self.wrong("priority", "a number from 1 on, `batch` or `interactive`", other)),
        }
    }

    fn refuse_shared_memory(&self, tensor: &str) -> Result<()> {
        match self.get("shared_memory_region") {
            None => Ok(()),
            Some(_) => Err(no_shared_memory(tensor)),
        }
    }
}

/// Why a tensor in shared memory is refused.
pub(super) fn no_shared_memory(tensor: &str) -> Error {
    Error::invalid(format!(
        "`{tensor}`: no memory is shared with clients; send and take the values themselves"
    ))
}

#[derive(Serialize)]
struct ReplyHead<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Values<'a>>,
}

impl<'a> Output<'a> {
    /// The output, with `length` bytes behind the JSON, or its values in it.
    fn new(tensor: &'a Tensor, length: Option<usize>) -> Output<'a> {
        Output {
            name: &tensor.name,
            datatype: tensor.datatype.name(),
            shape: &tensor.shape,
            parameters: length.map(|length| json!({"binary_data_size": length})),
            data: length.is_none().then(|| Values(tensor.cells.as_ref())),
        }
    }
}
