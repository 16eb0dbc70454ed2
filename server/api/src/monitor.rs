//! What was served, was it right, and what came true? `POST /v1/verify`, `POST /v1/labels`.

use quern_base::tasks::blocking;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use quern_wire::{LabelsReply, LabelsRequest, Report, VerifyRequest};

use super::browser::Told;
use super::error::ApiResult;
use super::http::{Body, asked, asked_or_default};
use super::who::Who;
use quern_access::Action;
use quern_decode::json;
use quern_server::Node;

/// The routes of this room.
pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new().route("/v1/verify", post(verify_logged)).route("/v1/labels", post(label))
}

async fn label(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    Told(body): Told,
) -> ApiResult<Json<LabelsReply>> {
    let LabelsRequest { model, labels } = asked(&body)?;
    node.live().seen_by(&who).permit_on(Action::Label, &model)?;
    let labels = json::labels(&labels)?;
    node.take_rows(&who, labels.num_rows())?;
    let accepted = node.label(who, model, labels).await?;
    Ok(Json(LabelsReply { accepted }))
}

async fn verify_logged(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    Body(body): Body,
) -> ApiResult<Json<Report>> {
    let request: VerifyRequest = asked_or_default(&body)?;
    node.predictions.flush().await;
    let verifying = move || node.verify.run((&node.live(), &who), &request);
    Ok(Json(blocking("verifying predictions", verifying).await?))
}
