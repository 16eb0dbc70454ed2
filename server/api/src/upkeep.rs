//! How is what is kept sealed, read whole, and copied? `POST /v1/seal`, `/v1/scrub`, `/v1/backup`.
//!
//! A scrub and a backup end where whoever asked has gone.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use feature_defs::Operation;
use quern_base::tasks::long;
use quern_wire::{
    BackupLine, BackupRequest, Damaged, ErrorReply, ScrubLine, ScrubProgress, ScrubRequest, SealRequest,
    Sealed,
};
use tokio::sync::mpsc::Sender;

use super::browser::Told;
use super::error::{ApiResult, log_fault, reply};
use super::http::{REQUEST_ID, asked, asked_or_default};
use super::lines::{by_line, permitted};
use super::who::Who;
use quern_server::Node;
use quern_server::verbs::scrub::Watch;

/// The routes of this room.
pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/seal", post(seal))
        .route("/v1/scrub", post(scrub))
        .route("/v1/backup", post(backup))
}

async fn seal(State(node): State<Arc<Node>>, Who(who): Who, Told(body): Told) -> ApiResult<Json<Sealed>> {
    let request: SealRequest = asked_or_default(&body)?;
    Ok(Json(long("sealing pushed rows", move || node.upkeep.seal.run(&who, &request)).await?))
}

async fn scrub(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    headers: HeaderMap,
    Told(body): Told,
) -> ApiResult<Response> {
    let (request, asker): (ScrubRequest, _) = (asked_or_default(&body)?, Asked::by(&headers));
    let permitted = permitted(&node, &who, Operation::Scrub).await?;
    Ok(by_line(move |lines| {
        let last = match node.upkeep.scrub.run(&permitted, &request, &mut Watching(lines)) {
            Ok(summary) => ScrubLine::Summary(summary),
            Err(error) => ScrubLine::Error(asker.failed(&error)),
        };
        let _ = lines.blocking_send(last);
    }))
}

/// Says by line what a scrub finds.
struct Watching<'l>(&'l Sender<ScrubLine>);

impl Watch for Watching<'_> {
    fn progress(&mut self, progress: ScrubProgress) {
        let _ = self.0.try_send(ScrubLine::Progress(progress));
    }

    fn damaged(&mut self, damaged: Damaged) {
        let _ = self.0.blocking_send(ScrubLine::Damaged(damaged));
    }

    fn goes_on(&self) -> bool {
        !self.0.is_closed()
    }
}

async fn backup(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    headers: HeaderMap,
    Told(body): Told,
) -> ApiResult<Response> {
    let asker = Asked::by(&headers);
    let request: BackupRequest = asked(&body)?;
    let permitted = permitted(&node, &who, Operation::Backup).await?;
    // What was said is kept as far as it is written.
    node.predictions.flush().await;
    Ok(by_line(move |lines| {
        let mut see = |copied| {
            let _ = lines.try_send(BackupLine::Progress(copied));
            if lines.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let last = match node.upkeep.backup.run(&permitted, &PathBuf::from(request.to), &mut see) {
            Ok(summary) => BackupLine::Summary(summary),
            Err(error) => BackupLine::Error(asker.failed(&error)),
        };
        let _ = lines.blocking_send(last);
    }))
}

/// Whose request it is that fails while it is answered.
struct Asked(Option<String>);

impl Asked {
    fn by(headers: &HeaderMap) -> Asked {
        Asked(headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned))
    }

    fn failed(self, error: &quern_server::Error) -> ErrorReply {
        log_fault(error, self.0.as_deref().unwrap_or_default());
        ErrorReply { request_id: self.0, ..reply(error) }
    }
}
