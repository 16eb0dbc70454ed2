//! Which names stand in the path of a request?

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path as Parts};
use axum::http::request;
use quern_server::Node;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::error::Error;

/// The names in a path, decoded. What cannot be, as `%ff`, is refused like any other mistake of a request.
pub(super) struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Node>> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, node: &Arc<Node>) -> Result<Self, ApiError> {
        let names = Parts::<T>::from_request_parts(parts, node).await;
        let names = names.map_err(|rejection| {
            Error::invalid(format!(
                "the path names nothing: {}; names in it are UTF-8",
                rejection.body_text()
            ))
        })?;
        Ok(Path(names.0))
    }
}
