//! How does a client speak Arrow Flight, and what do its errors say?

use std::error::Error as _;

use arrow_flight::FlightClient;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use tonic::Code as GrpcCode;

use crate::error::causes;
use crate::wire::{Code, ErrorReply, REQUEST_ID, RETRY_PUSHBACK_MS};
use crate::{Client, Error};

/// A server sends messages of about 2 MiB; one row may be larger than that.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

impl Client {
    pub(crate) fn flight(&self) -> FlightClient {
        let mut client = FlightClient::new_from_inner(
            FlightServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
        );
        if let Some(authorization) = &self.authorization {
            client.metadata_mut().insert("authorization", authorization.clone());
        }
        client
    }

    /// Why a call did not come about.
    pub(crate) fn flight_error(&self, error: FlightError) -> Error {
        match error {
            // A status that has a cause was made here; a server's own has none.
            FlightError::Tonic(status) if is_unreachable(&status) => {
                Error::Unreachable { url: self.url().to_owned(), cause: causes(status.as_ref()) }
            }
            other => flight_error(other),
        }
    }
}

fn is_unreachable(status: &tonic::Status) -> bool {
    status.code() == GrpcCode::Unavailable && status.source().is_some()
}

/// Why a call that was under way failed.
pub(crate) fn flight_error(error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => {
            let retry_after_ms = retry_after_ms(&status);
            let reply = ErrorReply::new(code(&status), status.message());
            let request_id = status.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok());
            let request_id = request_id.map(str::to_owned);
            Error::Server(Box::new(ErrorReply { retry_after_ms, request_id, ..reply }))
        }
        // Of a stream of the caller's.
        FlightError::ExternalError(error) => Error::Invalid(error.to_string()),
        other => Error::Protocol(other.to_string()),
    }
}

/// When an overloaded server wants the same call again.
fn retry_after_ms(status: &tonic::Status) -> Option<u64> {
    status.metadata().get(RETRY_PUSHBACK_MS)?.to_str().ok()?.parse().ok()
}

fn code(status: &tonic::Status) -> Code {
    match status.code() {
        GrpcCode::InvalidArgument | GrpcCode::OutOfRange => Code::InvalidArgument,
        GrpcCode::Unauthenticated => Code::Unauthenticated,
        GrpcCode::PermissionDenied => Code::Forbidden,
        GrpcCode::NotFound => Code::NotFound,
        GrpcCode::FailedPrecondition | GrpcCode::Aborted | GrpcCode::AlreadyExists => Code::Refused,
        // gRPC has one word for "too much at once" and for "not now"; only the latter says when.
        GrpcCode::ResourceExhausted if retry_after_ms(status).is_some() => Code::Overloaded,
        GrpcCode::ResourceExhausted => Code::TooLarge,
        GrpcCode::DeadlineExceeded => Code::Late,
        GrpcCode::Unavailable => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_busy_is_not_one_that_is_gone() {
        let mut busy = tonic::Status::unavailable("another server pushed in between; wait for an hour");
        assert!(!is_unreachable(&busy));
        let told = |status: &tonic::Status| flight_error(FlightError::Tonic(Box::new(status.clone())));
        assert_eq!((told(&busy).code(), told(&busy).retry_after()), (Some(Code::Unavailable), None));
        busy.metadata_mut().insert(RETRY_PUSHBACK_MS, 250.into());
        assert_eq!(told(&busy).retry_after(), Some(std::time::Duration::from_millis(250)));
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let mut gone = tonic::Status::unavailable("tcp connect error");
        gone.set_source(std::sync::Arc::new(refused));
        assert!(is_unreachable(&gone));
    }
}
