//! Which status does an error have, over HTTP and over gRPC?

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use feature_defs::DefError;
use quern_wire::{Code, ErrorReply, Mistake, RETRY_PUSHBACK_MS};
use serde::Serialize;

use super::broken::Broken;
use quern_base::Failure;
pub(crate) use quern_base::Kind;
use quern_server::error::{Mistakes, NoneTaken};

quern_base::error_type! {
    /// Why a request is not answered with a success.
    pub struct Error;
}

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of the floors below, which know their kinds.
macro_rules! from_below {
    ($($below:ty),+) => {
        $(impl From<$below> for Error {
            fn from(error: $below) -> Self {
                Failure::from(error).into()
            }
        })+
    };
}

from_below!(quern_server::Error, quern_features::Error, quern_identity::Error, quern_decode::Error);

impl From<quern_engine::EngineError> for Error {
    fn from(error: quern_engine::EngineError) -> Self {
        quern_server::Error::from(error).into()
    }
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Slow(_) => Error::late(broken),
            Broken::Gone(_) | Broken::Unreadable(_) => Error::invalid(broken),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::broken("computing with Arrow").quoting(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::internal("the network", error)
    }
}

/// An error on its way to an HTTP client.
#[derive(Debug)]
pub(crate) struct ApiError(pub Error);

impl<E: Into<Error>> From<E> for ApiError {
    fn from(error: E) -> Self {
        ApiError(error.into())
    }
}

/// What a handler gives.
pub(crate) type ApiResult<T> = std::result::Result<T, ApiError>;

/// What a reply that is no success carries for the log, and for a command that asked in its own process: the error
/// itself.
#[derive(Debug, Clone)]
pub struct Cause(pub Arc<Error>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let reply = reply(&self.0);
        refused(self.0, &reply)
    }
}

/// The error beside what a protocol says in its place.
pub(super) fn beside(said: &impl Serialize, error: Error) -> Response {
    #[derive(Serialize)]
    struct Both<'a, S> {
        #[serde(flatten)]
        said: &'a S,
        #[serde(flatten)]
        error: ErrorReply,
    }
    let both = Both { said, error: reply(&error) };
    refused(error, &both)
}

fn refused(error: Error, body: &impl Serialize) -> Response {
    let status = match error.facts() {
        None | Some(Broken::Unreadable(_)) => status(error.kind()),
        // Of two who may be late, it is the client here.
        Some(Broken::Slow(_)) => StatusCode::REQUEST_TIMEOUT,
        Some(Broken::Gone(_)) => gone(),
    };
    let mut response = (status, Json(body)).into_response();
    if let Some(time) = error.retry_after() {
        // The header knows whole seconds only.
        let seconds = time.as_millis().div_ceil(1_000) as u64;
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response.extensions_mut().insert(Cause(Arc::new(error)));
    response
}

/// An error that only the edge can see: no such route, no such method.
pub(super) fn edge(status: StatusCode, code: Code, error: String) -> Response {
    (status, Json(ErrorReply::new(code, error))).into_response()
}

/// What a client reads of an error.
pub fn reply(error: &Failure) -> ErrorReply {
    let mistakes = error.facts().map(|Mistakes(mistakes)| mistakes.iter().map(mistake).collect());
    let rejected = error.facts().map(|NoneTaken(rejected)| rejected.clone());
    ErrorReply {
        retry_after_ms: error.retry_after().map(|time| time.as_millis() as u64),
        mistakes: mistakes.unwrap_or_default(),
        rejected: rejected.unwrap_or_default(),
        ..ErrorReply::new(error.kind(), error.said())
    }
}

/// Logs what failed in one of many lines of a reply: the request as a whole has not failed by it.
pub(super) fn log_fault(error: &Failure, id: &str) {
    if error.kind() == Code::Internal {
        tracing::warn!(id, cause = error.logged(), "part of a request failed");
    }
    tracing::debug!(id, cause = error.to_string(), "what failed, with the values it met");
}

/// What a gRPC status carries for the log.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    /// Without the values of rows.
    pub(super) cause: String,
    /// With them.
    pub(super) whole: String,
}

impl Logged {
    pub(super) fn of(error: &Failure) -> Logged {
        Logged { cause: error.logged(), whole: error.to_string() }
    }

    /// What this status carries.
    pub(super) fn in_status(status: &tonic::Status) -> Option<&Logged> {
        std::error::Error::source(status)?.downcast_ref()
    }
}

impl std::fmt::Display for Logged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Logged {}

/// As nginx counts a client that was gone before it had an answer.
pub(super) fn gone() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Definitions => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Refused => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        Code::Late => StatusCode::GATEWAY_TIMEOUT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The error as gRPC, and so Arrow Flight, has it.
pub(crate) fn grpc_status(error: &Failure) -> tonic::Status {
    let code = match error.kind() {
        Code::InvalidArgument | Code::Definitions => tonic::Code::InvalidArgument,
        Code::Unauthenticated => tonic::Code::Unauthenticated,
        Code::Forbidden => tonic::Code::PermissionDenied,
        Code::NotFound => tonic::Code::NotFound,
        Code::Refused => tonic::Code::FailedPrecondition,
        Code::TooLarge | Code::Overloaded => tonic::Code::ResourceExhausted,
        Code::Late => tonic::Code::DeadlineExceeded,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::Internal => tonic::Code::Internal,
    };
    let mut status = tonic::Status::new(code, error.said());
    status.set_source(Arc::new(Logged::of(error)));
    if let Some(time) = error.retry_after() {
        // As gRPC itself names it (proposal A6): the advice of a server that cannot take the call now.
        status.metadata_mut().insert(RETRY_PUSHBACK_MS, (time.as_millis() as u64).into());
    }
    status
}

/// When what ended with this status may be sent again, where it says so.
pub(super) fn retry_after(status: &tonic::Status) -> Option<Duration> {
    let millis = status.metadata().get(RETRY_PUSHBACK_MS)?.to_str().ok()?;
    millis.parse().ok().map(Duration::from_millis)
}

fn mistake(error: &DefError) -> Mistake {
    Mistake {
        project: error.loc.project.as_deref().map(str::to_owned),
        file: error.loc.file.to_string(),
        line: error.loc.line,
        column: error.loc.column,
        cause: error.cause.clone(),
        help: error.help.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_client_or_server_is_late_shows() {
        let status = |error: Error| ApiError(error).into_response().status();
        assert_eq!(status(Error::from(Broken::Slow("nothing came".to_owned()))), 408);
        assert_eq!(status(Error::from(Broken::Gone("the body broke off".to_owned()))), 499);
        assert_eq!(status(Error::late("the model did not answer in time")), 504);
    }
}
