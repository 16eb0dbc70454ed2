//! What is live, as far as who asks may know? `GET /v1/definitions`.

use std::sync::Arc;

use arrow::datatypes::Schema;
use axum::extract::State;
use axum::response::Response;
use feature_defs::{Column, Connection, Entity, Governance};
use quern_access::{Action, Question, Rights};
use quern_engine::expr::functions_fingerprint;
use quern_engine::schema::type_name;
use quern_engine::{ServicePlan, ViewPlan};
use quern_wire::{
    Catalogue, ColumnInfo, ConnectionInfo, EntityInfo, FeatureServiceInfo, FeatureViewInfo, ModelInfo,
    ModelVersionInfo,
};

use super::http::json_reply;
use super::who::Who;
use quern_server::live::{LiveModel, LiveVersion};
use quern_server::{Deployment, Node};

pub(super) async fn definitions(State(node): State<Arc<Node>>, Who(who): Who) -> Response {
    let live = node.live();
    json_reply(&catalogue(&live, &live.access.rights(&who)))
}

/// What is not allowed in any way is not there; of a view, no feature that may not be read.
fn catalogue(live: &Deployment, rights: &Rights) -> Catalogue {
    let catalog = &live.compiled.catalog;
    let views = catalog.views.values().filter(|view| rights.see_view(&view.name));
    // Where definitions may lead is for who writes them.
    let may_apply = |it: &&Connection| rights.allow(Question::Apply(it.governance.owner.as_deref()));
    let connections = catalog.definitions.connections.values().filter(may_apply);
    let services = catalog.services.values().filter(|service| rights.see_service(&service.name));
    let services: Vec<_> = services.map(|service| feature_service(live, service)).collect();
    let models = live.models.values().filter(|model| rights.see_model(&model.name));
    Catalogue {
        number: live.number,
        entities: seen_entities(live, rights).map(entity).collect(),
        connections: connections.map(connection).collect(),
        feature_views: views.map(|view| feature_view(live, view, rights)).collect(),
        feature_services: services,
        models: models.map(|of| model(live, of, rights)).collect(),
        functions: functions_fingerprint().to_owned(),
    }
}

/// Those that a view or a service has that may be seen.
fn seen_entities<'a>(live: &'a Deployment, rights: &Rights) -> impl Iterator<Item = &'a Entity> {
    let definitions = &live.compiled.catalog.definitions;
    let of_services = definitions.services.values().filter(|service| rights.see_service(&service.name));
    let joined = of_services.flat_map(|service| service.projections.iter().map(|of| of.view.as_str()));
    let views = definitions.views.keys().map(String::as_str).filter(|view| rights.see_view(view));
    let views = joined.chain(views).filter_map(|view| definitions.views.get(view));
    let seen: std::collections::BTreeSet<&str> =
        views.flat_map(|view| view.entities.iter().map(String::as_str)).collect();
    let is_all = rights.is_all();
    definitions.entities.values().filter(move |entity| is_all || seen.contains(entity.name.as_str()))
}

fn entity(entity: &Entity) -> EntityInfo {
    let column = |column: &Column| ColumnInfo { name: column.name.clone(), dtype: column.dtype.to_string() };
    EntityInfo {
        name: entity.name.clone(),
        description: entity.description.clone(),
        join_keys: entity.join_keys.iter().map(column).collect(),
    }
}

fn connection(connection: &Connection) -> ConnectionInfo {
    let Connection { name, description, url, .. } = connection;
    ConnectionInfo { name: name.clone(), description: description.clone(), url: url.clone() }
}

fn feature_view(live: &Deployment, view: &ViewPlan, rights: &Rights) -> FeatureViewInfo {
    let mut features = columns(&view.features);
    features.retain(|feature| rights.allow(Question::Feature(&view.name, &feature.name)));
    let definitions = &live.compiled.catalog.definitions;
    let declared = definitions.views.get(&view.name);
    // Whoever reads the features need not know where they come from.
    let owners = [
        declared.map(|view| &view.governance),
        definitions.sources.get(&view.source).map(|source| &source.governance),
    ];
    let may_apply = |governance: &Governance| rights.allow(Question::Apply(governance.owner.as_deref()));
    let knows = rights.see_source(&view.source) || owners.into_iter().flatten().any(may_apply);
    FeatureViewInfo {
        name: view.name.clone(),
        description: declared.map(|view| view.description.clone()).unwrap_or_default(),
        entities: declared.map(|view| view.entities.clone()).unwrap_or_default(),
        source: if knows { view.source.clone() } else { String::new() },
        ttl_us: view.ttl_us,
        lag_us: view.lag_us,
        at: view.at.name().to_owned(),
        features,
    }
}

fn feature_service(live: &Deployment, service: &ServicePlan) -> FeatureServiceInfo {
    let declared = live.compiled.catalog.definitions.services.get(&service.name);
    FeatureServiceInfo {
        name: service.name.clone(),
        description: declared.map(|service| service.description.clone()).unwrap_or_default(),
        inputs: columns(&service.inputs),
        join_keys: service.key_count,
        outputs: columns(&service.outputs),
    }
}

fn columns(schema: &Schema) -> Vec<ColumnInfo> {
    let column = |field: &arrow::datatypes::FieldRef| ColumnInfo {
        name: field.name().clone(),
        dtype: type_name(field.data_type()),
    };
    schema.fields().iter().map(column).collect()
}

fn model(live: &Deployment, of: &LiveModel, rights: &Rights) -> ModelInfo {
    let sees = |version: &LiveVersion| rights.see_service(&version.service.name);
    let service = |version: &LiveVersion| match sees(version) {
        true => version.service.name.clone(),
        false => String::new(),
    };
    let lost = |version: &LiveVersion, why: &str| match sees(version) {
        true => why.to_owned(),
        false => "it is not loaded".to_owned(),
    };
    let declared = live.compiled.catalog.definitions.models.get(&of.name);
    let trained_on = |version: &LiveVersion| {
        let versions = declared.map(|model| &model.versions[..]).unwrap_or_default();
        let declared = versions.iter().find(|declared| declared.version == version.version)?;
        let may = rights.allow(Question::Do(Action::Train, &version.service.name));
        declared.trained_on.as_ref().filter(|_| may).map(quern_server::pin::declared)
    };
    let version = |(place, version): (usize, &Arc<LiveVersion>)| ModelVersionInfo {
        version: version.version.clone(),
        feature_service: service(version),
        digest: version.model.digest.clone(),
        execution_providers: version.model.providers().iter().map(ToString::to_string).collect(),
        lost: version.model.why_lost().map(|why| lost(version, why)),
        trained_on: trained_on(version),
        weight: of.route.weight(place),
    };
    ModelInfo {
        name: of.name.clone(),
        description: declared.map(|model| model.description.clone()).unwrap_or_default(),
        versions: of.versions.iter().enumerate().map(version).collect(),
    }
}
