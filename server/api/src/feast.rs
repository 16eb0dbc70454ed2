//! `POST /get-online-features`: look-up by entity, as Feast's feature server speaks it.
//!
//! The reply holds a result for each join key, then for each feature, column-major. As Feast does, it gives the epoch
//! as the event timestamp of what has none; windows, which are of many rows, have null. In its metadata stands up to
//! when each view is materialized, beside what Feast says of views there.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use axum::extract::State;
use axum::response::Response;
use quern_access::{Action, Caller};
use quern_base::clock::now_us;
use quern_engine::schema::type_name;
use quern_engine::{Origin, RowState, ServicePlan, Status};
use serde::Serialize;
use serde::ser::{Error as _, SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::error::ApiResult;
use super::http::{Body, count, json_reply};
use super::memory::Held;
use super::who::Who;
use crate::error::{Error, Result};
use quern_decode::json::{self, Json};
use quern_decode::print::{Instant, Values};
use quern_features::Vectors;
use quern_server::Deployment;
use quern_server::Node;

pub(super) async fn get_online_features(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    held: Held,
    Body(body): Body,
) -> ApiResult<Response> {
    let live = node.live();
    let keys = ["entities", "feature_service", "features", "full_feature_names"];
    // Feast's client asks for this whether it is wanted or not.
    let ignored = ["include_feature_view_version_metadata"];
    let [entities, service, features, full_names] = json::body(&body, keys, &ignored)?;
    let full_names = json::flag(full_names.as_ref(), "full_feature_names")?;
    let service = service_of((&live, &who), service.as_ref(), features.as_ref(), full_names)?;
    let entities = entities
        .ok_or_else(|| Error::invalid("`entities` is missing: an object with an array for each column"))?;
    let asked = json::entities(&service.as_ref().into(), &entities, now_us())?;
    node.take_rows(&who, asked.inputs.num_rows())?;
    held.take_cells(asked.inputs.num_rows(), service.outputs.fields().len())?;
    let inputs = asked.inputs.clone();
    let what = if service.name.is_empty() { "features" } else { &service.name };
    live.note_asked(&who, format_args!("read {what}"), [service.as_ref()].into_iter(), &inputs);
    // Before the look-up: what is said to be in the head is, then.
    let views = views(&node, &service);
    let asked = (asked.inputs, asked.query_times_us);
    let vectors = node.reader.look_up_all(&live.compiled, &service, asked, &held.0).await?;
    held.take_rows([&vectors.vectors])?;
    count(&vectors);
    Ok(json_reply(&Reply {
        keys: inputs.project(&(0..service.key_count).collect::<Vec<_>>())?,
        vectors,
        views,
        full_names,
    }))
}

/// How far a view is, as [`FeatureViewMetadata`](quern_wire::FeatureViewMetadata) is written.
#[derive(Serialize)]
struct View {
    name: String,
    materialized_until: Option<Instant>,
}

/// Each view of the service.
fn views(node: &Node, service: &ServicePlan) -> Vec<View> {
    let mut views: Vec<View> = Vec::with_capacity(service.lookups.len());
    for lookup in &service.lookups {
        if views.iter().all(|known| known.name != lookup.view.name) {
            let materialized_until = node.reader.materialized_until(lookup.view.id).map(Instant);
            views.push(View { name: lookup.view.name.clone(), materialized_until });
        }
    }
    views
}

/// The feature service that the request names, or one made of the features that it lists.
fn service_of(
    (live, who): (&Deployment, &Caller),
    service: Option<&Json<'_>>,
    features: Option<&Json<'_>>,
    full_names: bool,
) -> Result<Arc<ServicePlan>> {
    let seen = live.seen_by(who);
    match (service.filter(|json| **json != Json::Null), features.filter(|json| **json != Json::Null)) {
        (Some(_), Some(_)) => Err(Error::invalid("give either `feature_service` or `features`, not both")),
        (Some(Json::String(name)), None) => Ok(Arc::clone(seen.service(Action::Read, name)?)),
        (Some(other), None) => {
            Err(Error::invalid(format!("`feature_service`: expected a name, found {other}")))
        }
        (None, Some(Json::Array(references))) => {
            let references = references.iter().map(reference).collect::<Result<Vec<_>>>()?;
            if !seen.rights.is_all() {
                references.iter().try_for_each(|(view, feature)| seen.feature(view, feature))?;
            }
            Ok(Arc::new(ServicePlan::adhoc(&live.compiled.catalog.views, &references, full_names)?))
        }
        (None, Some(other)) => {
            Err(Error::invalid(format!("`features`: expected an array of `view:feature`, found {other}")))
        }
        (None, None) => {
            let services = live.compiled.catalog.services.keys().map(String::as_str);
            let known = services.filter(|name| seen.rights.see_service(name)).collect::<Vec<_>>().join(", ");
            Err(Error::invalid(format!(
                "name a `feature_service` (known: {known}) or `features`, an array of `view:feature`"
            )))
        }
    }
}

/// The view and the feature in `view:feature`.
fn reference(json: &Json<'_>) -> Result<(String, String)> {
    let parts = match json {
        Json::String(text) => text.split_once(':'),
        _ => None,
    };
    let (view, feature) =
        parts.ok_or_else(|| Error::invalid(format!("`features`: expected `view:feature`, found {json}")))?;
    Ok((view.to_owned(), feature.to_owned()))
}

/// As [`OnlineMetadata`](quern_wire::OnlineMetadata).
#[derive(Serialize)]
struct Metadata<'a> {
    feature_names: Vec<String>,
    feature_types: Vec<String>,
    feature_view_metadata: &'a [View],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed: BTreeMap<String, u64>,
}

struct Reply {
    keys: RecordBatch,
    vectors: Vectors,
    views: Vec<View>,
    full_names: bool,
}

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let Reply { keys, vectors, .. } = self;
        let (keys, outputs) = (keys.columns().iter(), vectors.vectors.columns().iter());
        let rows = vectors.vectors.num_rows();
        // A look-up takes all its features from one row: its event timestamps are written once.
        let epochs = raw::<S>(&vec![Instant(0); rows])?;
        let times = vectors.service.lookups.iter().zip(&vectors.found).map(|(lookup, found)| {
            if lookup.view.windows.is_some() {
                return raw::<S>(&vec![None::<Instant>; rows]);
            }
            let at = |(state, ts_us): (&RowState, &i64)| Instant(if state.has_row() { *ts_us } else { 0 });
            raw::<S>(&found.states.iter().zip(&found.event_timestamps).map(at).collect::<Vec<_>>())
        });
        let times = times.collect::<std::result::Result<Vec<_>, _>>()?;
        let given = |column| Column { values: column, status: None, times: &epochs };
        let outputs =
            outputs.zip(&vectors.service.origins).enumerate().map(
                |(output, (column, origin))| match origin {
                    Origin::Feature { lookup, .. } => {
                        Column { values: column, status: Some((vectors, output)), times: &times[*lookup] }
                    }
                    Origin::Input(_) | Origin::Derived => given(column),
                },
            );
        let mut map = serializer.serialize_map(Some(2))?;
        let failed = vectors.failed.clone().into();
        let metadata = Metadata {
            feature_names: self.names(),
            feature_types: self.types(),
            feature_view_metadata: &self.views,
            failed,
        };
        map.serialize_entry("metadata", &metadata)?;
        map.serialize_entry("results", &keys.map(given).chain(outputs).collect::<Vec<_>>())?;
        map.end()
    }
}

impl Reply {
    fn names(&self) -> Vec<String> {
        let service = &self.vectors.service;
        let outputs =
            service.outputs.fields().iter().zip(&service.origins).map(|(field, origin)| match origin {
                Origin::Feature { lookup, feature } if self.full_names => {
                    let lookup = &service.lookups[*lookup];
                    let (view, feature) = (&lookup.view, lookup.features[*feature]);
                    let plain = view.features.field(feature).name();
                    // Another name than the feature's own holds an alias already, or the view.
                    if field.name() == plain {
                        format!("{}__{plain}", view.name)
                    } else {
                        field.name().clone()
                    }
                }
                _ => field.name().clone(),
            });
        self.keys.schema_ref().fields().iter().map(|field| field.name().clone()).chain(outputs).collect()
    }

    fn types(&self) -> Vec<String> {
        let outputs = self.vectors.service.outputs.fields().iter();
        let fields = self.keys.schema_ref().fields().iter().chain(outputs);
        fields.map(|field| type_name(field.data_type())).collect()
    }
}

fn raw<S: Serializer>(value: &impl Serialize) -> std::result::Result<Box<RawValue>, S::Error> {
    to_raw_value(value).map_err(S::Error::custom)
}

struct Column<'a> {
    values: &'a ArrayRef,
    /// Whose status tells how each value is to be understood, and which output that is; for a feature.
    status: Option<(&'a Vectors, usize)>,
    times: &'a RawValue,
}

impl Serialize for Column<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let statuses = (0..self.values.len()).map(|row| {
            let status = match self.status {
                Some((vectors, output)) => vectors.status(output, row),
                None => Status::of(RowState::Present, self.values.is_null(row)),
            };
            status.as_str()
        });
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("values", &Values(self.values))?;
        map.serialize_entry("statuses", &statuses.collect::<Vec<_>>())?;
        map.serialize_entry("event_timestamps", self.times)?;
        map.end()
    }
}
