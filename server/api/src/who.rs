//! Who asks?

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use quern_access::{Caller, Principal, Proof};
use quern_server::Node;
use quern_wire::REQUEST_ID;

/// Who asks, as whoever let the request in has put it there.
#[derive(Debug, Clone)]
pub(crate) struct Who(pub Caller);

impl FromRequestParts<Arc<Node>> for Who {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Node>) -> Result<Self, Infallible> {
        Ok(Who(caller(&parts.extensions, &parts.headers)))
    }
}

/// Who makes this call over gRPC.
pub(crate) fn who<T>(request: &tonic::Request<T>) -> Caller {
    caller(request.extensions(), request.metadata().as_ref())
}

fn caller(extensions: &Extensions, headers: &HeaderMap) -> Caller {
    let principal = match extensions.get::<Arc<Principal>>() {
        Some(principal) => Arc::clone(principal),
        None => Arc::new(Principal::new(Proof::Open)),
    };
    let id = headers.get(REQUEST_ID).map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    Caller { principal, request_id: id.unwrap_or_default() }
}
