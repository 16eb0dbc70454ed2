//! Which status does an error have, over HTTP and over gRPC?

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use feature_defs::DefError;
use quern::wire::{Code, ErrorReply, Mistake};

use crate::error::Error;

/// When to try again what there was no room for.
pub(crate) const RETRY_AFTER_SECONDS: u64 = 1;

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

/// What a reply that is no success carries for the log.
#[derive(Debug, Clone)]
pub(super) struct Cause(pub String);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let reply = reply(&self.0);
        let mut response = (status(reply.code), Json(&reply)).into_response();
        if reply.code == Code::Overloaded {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response.extensions_mut().insert(Cause(reply.error));
        response
    }
}

/// An error that only the edge can see: no such route, no such method.
pub(super) fn edge(status: StatusCode, code: Code, error: String) -> Response {
    (status, Json(ErrorReply::new(code, error))).into_response()
}

/// What a client reads of an error.
pub(crate) fn reply(error: &Error) -> ErrorReply {
    let code = match error {
        Error::Invalid(_) | Error::Rejected(_) => Code::InvalidArgument,
        Error::NotFound(_) => Code::NotFound,
        Error::Definitions(_) => Code::Definitions,
        Error::Refused(_) => Code::Refused,
        Error::TooLarge(_) => Code::TooLarge,
        Error::Overloaded(_) => Code::Overloaded,
        Error::Late(_) => Code::Late,
        Error::Unavailable(_) => Code::Unavailable,
        Error::Internal(_) => Code::Internal,
    };
    let mut reply = ErrorReply::new(code, error.to_string());
    match error {
        Error::Definitions(mistakes) => reply.mistakes = mistakes.iter().map(mistake).collect(),
        Error::Rejected(rejected) => reply.rejected = rejected.clone(),
        _ => {}
    }
    reply
}

fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
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
pub(crate) fn grpc_status(error: &Error) -> tonic::Status {
    let code = match error {
        Error::Invalid(_) | Error::Definitions(_) | Error::Rejected(_) => tonic::Code::InvalidArgument,
        Error::NotFound(_) => tonic::Code::NotFound,
        Error::Refused(_) => tonic::Code::FailedPrecondition,
        Error::TooLarge(_) | Error::Overloaded(_) => tonic::Code::ResourceExhausted,
        Error::Late(_) => tonic::Code::DeadlineExceeded,
        Error::Unavailable(_) => tonic::Code::Unavailable,
        Error::Internal(_) => tonic::Code::Internal,
    };
    tonic::Status::new(code, error.to_string())
}

fn mistake(error: &DefError) -> Mistake {
    Mistake {
        file: error.loc.file.to_string(),
        line: error.loc.line,
        column: error.loc.column,
        cause: error.cause.clone(),
        help: error.help.clone(),
    }
}
