//! How are API keys made, listed and revoked? `POST /v1/keys`, `GET /v1/keys`, `POST /v1/keys/revoke`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use quern_server::Node;
use quern_wire::{KeyList, NewKeyRequest, RevokeKeysRequest};

use super::browser::Told;
use super::error::ApiResult;
use super::http::asked;
use super::who::Who;

/// The routes of this room.
pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new().route("/v1/keys", post(make).get(list)).route("/v1/keys/revoke", post(revoke))
}

async fn make(State(node): State<Arc<Node>>, Who(who): Who, Told(body): Told) -> ApiResult<Response> {
    let request: NewKeyRequest = asked(&body)?;
    let made = node.keys.make(&who, &request).await?;
    tracing::info!(by = who.name(), name = made.info.name, key = made.info.id, "an API key was made");
    // Shown once: nobody on the way keeps it.
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(made)).into_response())
}

async fn list(State(node): State<Arc<Node>>, Who(who): Who) -> ApiResult<Json<KeyList>> {
    Ok(Json(node.keys.list(&who).await?))
}

async fn revoke(State(node): State<Arc<Node>>, Who(who): Who, Told(body): Told) -> ApiResult<Json<KeyList>> {
    let request: RevokeKeysRequest = asked(&body)?;
    let revoked = node.keys.revoke(&who, &request).await?;
    for key in &revoked.keys {
        tracing::info!(by = who.name(), name = key.name, key = key.id, "an API key is revoked");
    }
    Ok(Json(revoked))
}
