//! What was served, was it right, and what came true? `POST /v1/verify`, `POST /v1/labels`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use quern_wire::{LabelsReply, LabelsRequest};

use super::error::ApiResult;
use super::http::Body;
use super::json;
use crate::Quern;
use crate::error::Error;
use crate::verify::{Report, VerifyRequest, verify};

/// The routes of this room.
pub(super) fn routes() -> Router<Arc<Quern>> {
    Router::new().route("/v1/verify", post(verify_logged)).route("/v1/labels", post(label))
}

async fn label(State(quern): State<Arc<Quern>>, Body(body): Body) -> ApiResult<Json<LabelsReply>> {
    let LabelsRequest { model, labels } =
        serde_json::from_slice(&body).map_err(|e| Error::invalid(format!("the request: {e}")))?;
    let accepted = quern.label(model, json::labels(&labels)?).await?;
    Ok(Json(LabelsReply { accepted }))
}

async fn verify_logged(State(quern): State<Arc<Quern>>, body: Bytes) -> ApiResult<Json<Report>> {
    let request: VerifyRequest = match body.as_ref() {
        b"" => VerifyRequest::default(),
        text => serde_json::from_slice(text).map_err(|e| Error::invalid(format!("the request: {e}")))?,
    };
    quern.predictions.flush().await;
    let verifying = tokio::task::spawn_blocking(move || verify(&quern, &quern.live(), &request));
    Ok(Json(verifying.await.map_err(|error| Error::internal("verifying predictions", error))??))
}
