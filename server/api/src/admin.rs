//! How are definitions checked, planned, applied and materialized over HTTP?
//!
//! The command line uses the same routes, in its own process or in the server that has the data folder open.

use feature_defs::Operation;
use quern_access::Caller;
use quern_base::clock::now_us;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use quern_wire::{CanReply, Checked, ErrorReply, MaterializeLine, MaterializeRequest, Plan, ProjectRequest};

use super::browser::Told;
use super::error::{ApiResult, log_fault, reply};
use super::http::{Body, REQUEST_ID, asked, asked_or_default};
use super::lines::{by_line, permitted};
use super::terms::Terms;
use super::who::Who;
use crate::error::Result;
use quern_server::Node;
use quern_server::verbs::apply::Candidate;

/// The routes of this room.
pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/check", post(check))
        .route("/v1/plan", post(plan))
        .route("/v1/apply", post(apply))
        .route("/v1/materialize", post(materialize_lines))
        .route("/v1/can", post(can))
}

async fn check(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    terms: Terms,
    Body(body): Body,
) -> ApiResult<Json<Checked>> {
    let candidate = terms.within(candidate(&node, who, &body)).await?;
    Ok(Json(candidate.counts()))
}

async fn plan(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    terms: Terms,
    Body(body): Body,
) -> ApiResult<Json<Plan>> {
    let candidate = terms.within(candidate(&node, who, &body)).await?;
    Ok(Json(node.apply.plan(&candidate)?))
}

async fn apply(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    terms: Terms,
    Told(body): Told,
) -> ApiResult<Json<Plan>> {
    // Once it begins to go live, it does.
    let candidate = terms.within(candidate(&node, who, &body)).await?;
    Ok(Json(node.apply.apply(candidate).await?))
}

async fn can(State(node): State<Arc<Node>>, Who(who): Who, Body(body): Body) -> ApiResult<Json<CanReply>> {
    Ok(Json(node.can.ask(&who, &asked(&body)?)?))
}

/// The repository of a project as it lies on disk now.
async fn candidate(node: &Arc<Node>, who: Caller, body: &[u8]) -> Result<Candidate> {
    let ProjectRequest { project } = asked_or_default(body)?;
    Ok(node.apply.check(who, project.unwrap_or_else(|| node.settings.applies.clone())).await?)
}

async fn materialize_lines(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    headers: HeaderMap,
    Told(body): Told,
) -> ApiResult<Response> {
    let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let request: MaterializeRequest = asked_or_default(&body)?;
    let permitted = permitted(&node, &who, Operation::Materialize).await?;
    // It goes on where the reader goes away: what it has done is done, and the next run begins there.
    Ok(by_line(move |lines| {
        let (live, now_us) = (node.live(), now_us());
        let progress = |progress| {
            let _ = lines.try_send(MaterializeLine::Progress(progress));
        };
        let last = match node.bring_up_to_date((&live, &permitted), &request, now_us, &progress) {
            Ok(summary) => {
                summary.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                MaterializeLine::Summary(summary)
            }
            Err(error) => {
                log_fault(&error, request_id.as_deref().unwrap_or_default());
                MaterializeLine::Error(ErrorReply { request_id, ..reply(&error) })
            }
        };
        let _ = lines.blocking_send(last);
    }))
}
