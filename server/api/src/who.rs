//! Who asks?

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use quern_access::{Principal, Proof};
use quern_server::Node;

/// Who asks, as whoever let the request in has put it there.
#[derive(Debug, Clone)]
pub(crate) struct Who(pub Arc<Principal>);

impl FromRequestParts<Arc<Node>> for Who {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Node>) -> Result<Self, Infallible> {
        Ok(Who(who(&parts.extensions)))
    }
}

/// Who asks; nobody where none has looked.
pub(crate) fn who(extensions: &Extensions) -> Arc<Principal> {
    match extensions.get::<Who>() {
        Some(Who(who)) => Arc::clone(who),
        None => Arc::new(Principal::new(Proof::Open)),
    }
}
