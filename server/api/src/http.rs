//! How is the body of a request read, and what does the server say of itself?

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use feature_defs::Operation;
use futures::StreamExt;
use quern_access::Question;
use quern_engine::Origin;
use quern_engine::caught::{Panic, told};
use quern_wire::{Code, Live, Me, Ready};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::broken::Broken;
use super::error::{ApiError, ApiResult, beside, edge};
use super::memory::{lease_of, taken_by_json};
use super::who::Who;
use crate::error::{Error, Result};
use crate::metrics::{FeatureCounts, metrics};
use quern_features::Vectors;
use quern_server::Node;
use quern_server::status::Readiness;

/// The body of a request, whatever type it claims to have, up to the limit of the settings.
pub(super) struct Body(pub Bytes);

impl FromRequest<Arc<Node>> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, node: &Arc<Node>) -> ApiResult<Self> {
        let lease = lease_of(request.extensions())?;
        let max = node.settings.body_bytes_max;
        let too_large =
            || Error::too_large(format!("the body is larger than {max} bytes (`body_bytes_max`)"));
        let body = request.into_body();
        // What is announced need not be sent to be refused.
        let announced = body.size_hint().lower();
        if announced > max as u64 {
            return Err(too_large().into());
        }
        lease.take(announced as usize)?;
        let (mut read, mut taken) = (Vec::with_capacity(announced as usize), announced as usize);
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Broken::of(&error))?;
            let length = read.len() + piece.len();
            if length > max {
                return Err(too_large().into());
            }
            if length > taken {
                // A list that grows is twice as long at times.
                lease.take(2 * length - taken)?;
                taken = 2 * length;
            }
            read.extend_from_slice(&piece);
        }
        // Of raw cells behind the JSON, bytes that look like it are taken for more: that is on the safe side.
        lease.take(taken_by_json(&read))?;
        Ok(Body(read.into()))
    }
}

/// The request in a JSON body.
pub(super) fn asked<Request: DeserializeOwned>(body: &[u8]) -> Result<Request> {
    serde_json::from_slice(body).map_err(|error| Error::invalid(format!("the request: {error}")))
}

/// The same of one that asks for nothing in particular where there is no body, or `null`.
pub(super) fn asked_or_default<Request: DeserializeOwned + Default>(body: &[u8]) -> Result<Request> {
    let request = if body.is_empty() { None } else { asked(body)? };
    Ok(request.unwrap_or_default())
}

/// A success with a JSON body.
pub(super) fn json_reply(reply: &impl Serialize) -> Response {
    let mut body = Vec::with_capacity(1024);
    match serde_json::to_writer(&mut body, reply) {
        Ok(()) => {
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
        }
        Err(error) => ApiError(Error::internal("writing the reply", error)).into_response(),
    }
}

/// Counts the stored values that a request was answered with.
pub(super) fn count(vectors: &Vectors) {
    let mut counts = FeatureCounts::default();
    for (output, origin) in vectors.service.origins.iter().enumerate() {
        if matches!(origin, Origin::Feature { .. }) {
            (0..vectors.vectors.num_rows()).for_each(|row| counts.add(vectors.status(output, row)));
        }
    }
    let name = match vectors.service.name.as_str() {
        "" => "(features)",
        name => name,
    };
    metrics().count_features(name, counts);
}

/// Names a request, in its reply and in the log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static(quern_wire::REQUEST_ID);

/// A longer name is not taken from a header, and refused in a body: it would stand in the log with every row.
pub(super) const REQUEST_ID_BYTES_MAX: usize = 128;

/// Calls the compression of a body as those do who read it; a refusal of one that nobody reads: a compressed body that
/// is taken for a plain one is no JSON at best. What is said of it over gRPC stands in other headers.
pub(super) fn refuse_encoding(headers: &mut HeaderMap) -> Option<Response> {
    let mut given = headers.get_all(header::CONTENT_ENCODING).iter();
    let encoding = given.next()?;
    let known = match encoding.to_str().unwrap_or("?").trim().to_ascii_lowercase().as_str() {
        _ if given.next().is_some() => None,
        "gzip" | "x-gzip" => Some("gzip"),
        "deflate" => Some("deflate"),
        "identity" | "" => Some("identity"),
        _ => None,
    };
    if let Some(known) = known {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(known));
        return None;
    }
    let error = format!(
        "the body is compressed ({encoding:?}); `gzip` and `deflate` are read here, one of them at a time, or the body as it is"
    );
    let mut refusal = edge(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, error);
    refusal.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
    Some(refusal)
}

/// A handler's panic, as a reply.
pub(super) fn panicked(panic: Panic) -> Response {
    let cause = told(&panic).unwrap_or_default();
    tracing::error!(cause, "a request panicked");
    ApiError(Error::broken("the server failed on this request; its log says where")).into_response()
}

pub(super) async fn no_such_path(uri: Uri) -> Response {
    edge(StatusCode::NOT_FOUND, Code::NotFound, format!("nothing answers at `{}`", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Response {
    let error = format!("`{}` does not answer {method}", uri.path());
    edge(StatusCode::METHOD_NOT_ALLOWED, Code::InvalidArgument, error)
}

pub(super) async fn index() -> &'static str {
    concat!(
        "Quern ",
        env!("CARGO_PKG_VERSION"),
        ": a feature store that serves models. What is live: GET /v1/definitions\n"
    )
}

/// Whether the process lives.
pub(super) async fn live() -> Response {
    json_reply(&Live { live: true })
}

/// Whether look-ups are answered here. The body may name what this server does not do meanwhile: what keeps a newer
/// apply from being live, a view that a clock that was ahead has materialized, a store that takes no writes. What is
/// live answers all the same, so that is no reason to send requests elsewhere. Who may not ask how the server is gets
/// the status alone.
pub(super) async fn ready(State(node): State<Arc<Node>>, Who(who): Who) -> Response {
    let Readiness { not_ready, degraded } = node.readiness();
    let may_know = node.live().seen_by(&who).may(Question::Operate(Operation::Status));
    if let Some(error) = not_ready {
        let error = if may_know { error } else { error.veiled("look-ups are not answered here now") };
        return beside(&Ready::default(), error.into());
    }
    json_reply(&Ready { ready: true, degraded: if may_know { degraded } else { Vec::new() } })
}

/// Who asks.
pub(super) async fn me(State(node): State<Arc<Node>>, Who(who): Who) -> Response {
    let roles = node.live().access.rights(&who).roles().to_vec();
    json_reply(&Me { principal: who.name().to_owned(), roles })
}

/// How it is, for who was woken.
pub(super) async fn status(State(node): State<Arc<Node>>, Who(who): Who) -> ApiResult<Response> {
    Ok(json_reply(&node.status(&who).await?))
}

pub(super) async fn show_metrics(State(node): State<Arc<Node>>, Who(who): Who) -> ApiResult<Response> {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, content_type)], node.show_metrics(&who)?).into_response())
}
