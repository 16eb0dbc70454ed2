//! `POST /push`: rows for history and head, as Feast's feature server takes them; and `POST /write-to-online-store`, to
//! which Feast's own client sends what is pushed to a remote store.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use feature_defs::suggest;
use quern_wire::PushTo;

use super::browser::Told;
use super::error::ApiResult;
use super::http::json_reply;
use super::who::Who;
use crate::error::{Error, Result};
use quern_decode::json::{self, Json};
use quern_server::Node;
use quern_server::verbs::push::PushedBatch;

/// Feast's server takes these, and they say nothing here.
const IGNORED: [&str; 2] = ["allow_registry_cache", "transform_on_write"];

pub(super) async fn push_rows(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    Told(body): Told,
) -> ApiResult<Response> {
    let keys = ["push_source_name", "df", "to", "idempotency_key"];
    let [name, df, to, idempotency_key] = json::body(&body, keys, &IGNORED)?;
    let live = node.live();
    let source = live.seen_by(&who).source(&needed("push_source_name", name.as_ref())?)?;
    let to = match optional("to", to.as_ref())? {
        None => PushTo::default(),
        Some(text) => where_to(&text)?,
    };
    let schema = &live.compiled.source_schemas[&source.name];
    let (rows, rejected) = json::rows(source, schema, &frame(df.as_ref())?)?;
    let idempotency_key = optional("idempotency_key", idempotency_key.as_ref())?.map(Cow::into_owned);
    let pushed = PushedBatch {
        source: source.name.clone(),
        rows,
        rejected,
        to,
        view: None,
        idempotency_key,
        positions: Vec::new(),
    };
    node.take_rows(&who, pushed.rows.num_rows())?;
    Ok(json_reply(&node.push.push(&who, pushed).await?))
}

/// Where `to` says that rows go.
fn where_to(text: &str) -> Result<PushTo> {
    let known = [PushTo::Online, PushTo::Offline, PushTo::OnlineAndOffline];
    let name = |to: &PushTo| match to {
        PushTo::Online => "online",
        PushTo::Offline => "offline",
        PushTo::OnlineAndOffline => "online_and_offline",
    };
    known.into_iter().find(|to| name(to) == text).ok_or_else(|| {
        Error::invalid(format!("`to`: unknown `{text}`; {}", suggest(text, known.iter().map(name))))
    })
}

/// What Feast's client sends for each feature view of a push source: join keys and features of the view, and the times
/// under names of its own.
pub(super) async fn write_to_online_store(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    Told(body): Told,
) -> ApiResult<Response> {
    let [name, df] = json::body(&body, ["feature_view_name", "df"], &IGNORED)?;
    let live = node.live();
    let view = needed("feature_view_name", name.as_ref())?;
    let source = live.seen_by(&who).source_of_view(&view)?;
    let schema = &live.compiled.source_schemas[&source.name];
    let Json::Object(columns) = frame(df.as_ref())? else {
        return Err(Error::invalid("`df`: expected an object of arrays").into());
    };
    let is_unknown = |name: &str| schema.field_with_name(name).is_err();
    let columns = columns.into_iter().filter_map(|(name, mut cells)| match name.as_ref() {
        "event_timestamp" if is_unknown(&name) => Some((source.event_timestamp.clone().into(), cells)),
        "created" if is_unknown(&name) => {
            // pandas' word for no time among times.
            if let Json::Array(cells) = &mut cells {
                cells.iter_mut().filter(|c| **c == Json::String("NaT".into())).for_each(|c| *c = Json::Null);
            }
            source.created_timestamp.clone().map(|name| (name.into(), cells))
        }
        _ => Some((name, cells)),
    });
    let mut columns: Vec<_> = columns.collect();
    let rows =
        columns.first().map_or(0, |(_, cells)| if let Json::Array(cells) = cells { cells.len() } else { 0 });
    // A view need not have all columns of its source.
    for column in source.columns.iter().filter(|column| column.name != source.event_timestamp) {
        if columns.iter().all(|(name, _)| *name != column.name) {
            columns.push((column.name.clone().into(), Json::Array(vec![Json::Null; rows])));
        }
    }
    let (rows, rejected) = json::rows(source, schema, &Json::Object(columns))?;
    let source = source.name.clone();
    let pushed = PushedBatch {
        source,
        rows,
        rejected,
        to: PushTo::Online,
        view: Some(view.into_owned()),
        idempotency_key: None,
        positions: Vec::new(),
    };
    node.take_rows(&who, pushed.rows.num_rows())?;
    Ok(json_reply(&node.push.push(&who, pushed).await?))
}

fn frame<'a>(df: Option<&Json<'a>>) -> Result<Json<'a>> {
    df.cloned().ok_or_else(|| Error::invalid("`df` is missing: an object with an array for each column"))
}

fn needed<'a>(key: &str, json: Option<&Json<'a>>) -> Result<Cow<'a, str>> {
    optional(key, json)?.ok_or_else(|| Error::invalid(format!("`{key}` is missing")))
}

fn optional<'a>(key: &str, json: Option<&Json<'a>>) -> Result<Option<Cow<'a, str>>> {
    match json {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(Error::invalid(format!("`{key}`: expected text, found {other}"))),
    }
}
