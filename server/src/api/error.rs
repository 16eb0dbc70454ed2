//! Which status does an error have, over HTTP and over gRPC?

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use feature_defs::DefError;
use quern::wire::{Code, ErrorReply, Mistake};

use crate::error::Error;

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
    let (code, mistakes) = match error {
        Error::Invalid(_) => (Code::InvalidArgument, Vec::new()),
        Error::NotFound(_) => (Code::NotFound, Vec::new()),
        Error::Definitions(mistakes) => (Code::Definitions, mistakes.iter().map(mistake).collect()),
        Error::Refused(_) => (Code::Refused, Vec::new()),
        Error::TooLarge(_) => (Code::TooLarge, Vec::new()),
        Error::Unavailable(_) => (Code::Unavailable, Vec::new()),
        Error::Internal(_) => (Code::Internal, Vec::new()),
    };
    ErrorReply { mistakes, ..ErrorReply::new(code, error.to_string()) }
}

fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Definitions => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Refused => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The error as gRPC, and so Arrow Flight, has it.
pub(crate) fn grpc_status(error: &Error) -> tonic::Status {
    let code = match error {
        Error::Invalid(_) | Error::Definitions(_) => tonic::Code::InvalidArgument,
        Error::NotFound(_) => tonic::Code::NotFound,
        Error::Refused(_) => tonic::Code::FailedPrecondition,
        Error::TooLarge(_) => tonic::Code::ResourceExhausted,
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
