//! What does each definition say, key by key, whatever its file looks like?
//!
//! The one place where definitions become text that is compared: a plan is the difference of two such texts, and a
//! fingerprint is the digest of one. Every field is taken apart by name, so that a new one cannot be forgotten here.

mod role;

use std::collections::BTreeMap;

use feature_defs::{
    Aggregation, Artifact, At, BatchSource, Batching, Broker, Catalog, Column, Connection, DriverOption,
    Entity, Expr, Fallback, Feature, FeatureService, FeatureView, Function, Governance, Instead, Isolation,
    KafkaOptions, Literal, Model, ModelVersion, OAuth, Projection, PullSource, PulledRows, Route,
    SaslMechanism, ScalarType, SchemaRegistry, Secret, Source, Start, StorageOptions, StreamSource, Type,
    format_duration,
};
use quern_base::digest::sha256;
use quern_engine::schema::type_name;
use quern_wire::DefinitionKind as Kind;

use super::Deployment;
use super::said::Said;

/// How much of a digest a person is shown.
const DIGEST_CHARS: usize = 16;

/// Key → value of one definition.
pub(crate) type Keys = BTreeMap<String, Said>;

/// Every definition of `deployment`.
pub(crate) fn describe(deployment: &Deployment) -> BTreeMap<(Kind, String), Keys> {
    let definitions = &deployment.compiled.catalog.definitions;
    let entities = definitions.entities.values().map(|e| ((Kind::Entity, e.name.clone()), entity(e)));
    let connections =
        definitions.connections.values().map(|c| ((Kind::Connection, c.name.clone()), connection(c)));
    let sources =
        definitions.sources.values().map(|s| ((Kind::Source, s.name.clone()), source(s, deployment)));
    let views = definitions.views.values().map(|v| ((Kind::FeatureView, v.name.clone()), view(v)));
    let services =
        definitions.services.values().map(|s| ((Kind::FeatureService, s.name.clone()), service(s)));
    let models = definitions.models.values().map(|m| ((Kind::Model, m.name.clone()), model(m, deployment)));
    let roles = definitions.roles.values().map(|r| ((Kind::Role, r.name.clone()), role::role(r)));
    let entities = entities.chain(connections);
    entities.chain(sources).chain(views).chain(services).chain(models).chain(roles).collect()
}

/// The kind in the definition language.
pub(crate) fn kind_of(kind: Kind) -> feature_defs::Kind {
    match kind {
        Kind::Entity => feature_defs::Kind::Entity,
        Kind::Connection => feature_defs::Kind::Connection,
        Kind::Source => feature_defs::Kind::Source,
        Kind::FeatureView => feature_defs::Kind::FeatureView,
        Kind::FeatureService => feature_defs::Kind::FeatureService,
        Kind::Model => feature_defs::Kind::Model,
        Kind::Role => feature_defs::Kind::Role,
    }
}

/// Digest of every definition, whatever the files look like.
pub(crate) fn fingerprint(deployment: &Deployment) -> String {
    let texts = |keys: Keys| -> BTreeMap<String, String> {
        keys.into_iter().map(|(key, said)| (key, said.to_string())).collect()
    };
    let described: BTreeMap<_, _> =
        describe(deployment).into_iter().map(|(name, keys)| (name, texts(keys))).collect();
    sha256(format!("{described:?}").as_bytes())
}

/// Digest of a feature service; what it takes from views is theirs.
pub(crate) fn service_digest(deployment: &Deployment, name: &str) -> String {
    let declared = deployment.compiled.catalog.definitions.services.get(name);
    short_digest(&declared.map(service).unwrap_or_default())
}

/// Digest of a feature view and of its source.
pub(crate) fn view_digest(deployment: &Deployment, name: &str) -> String {
    let definitions = &deployment.compiled.catalog.definitions;
    let mut keys = Keys::new();
    if let Some(declared) = definitions.views.get(name) {
        keys.extend(view(declared));
        let source = definitions.sources.get(&declared.source).map(|declared| source(declared, deployment));
        keys.extend(source.into_iter().flatten().map(|(key, value)| (format!("source: {key}"), value)));
    }
    short_digest(&keys)
}

/// What changes nothing of a value.
const BESIDE: [&str; 4] = ["description", "owner", "tags", "share"];

/// A digest that does not hear of what is written for people, nor of whose it is.
fn short_digest(keys: &Keys) -> String {
    let is_beside = |key: &str| BESIDE.contains(&key.strip_prefix("source: ").unwrap_or(key));
    let said = keys.iter().filter(|(key, _)| !is_beside(key));
    let said: Vec<(&String, String)> = said.map(|(key, said)| (key, said.to_string())).collect();
    let mut digest = sha256(format!("{said:?}").as_bytes());
    digest.truncate(DIGEST_CHARS);
    digest
}

fn entity(entity: &Entity) -> Keys {
    let Entity { name: _, description, join_keys, governance, loc: _ } = entity;
    let mut keys = Keys::new();
    put(&mut keys, "description", description);
    put(&mut keys, "join keys", join_keys.iter().map(column).collect::<Said>());
    put_governance(&mut keys, governance);
    keys
}

fn connection(connection: &Connection) -> Keys {
    let Connection {
        name: _,
        description,
        url,
        reach: _,
        storage,
        database,
        catalog,
        schema_registry,
        kafka,
        governance,
        loc: _,
    } = connection;
    let StorageOptions { endpoint, region, anonymous, credentials } = storage;
    let mut keys = Keys::new();
    put(&mut keys, "description", description);
    put(&mut keys, "url", url);
    put(&mut keys, "endpoint", endpoint.as_deref().unwrap_or_default());
    put(&mut keys, "region", region.as_deref().unwrap_or_default());
    put(&mut keys, "anonymous", if *anonymous { "true" } else { "" });
    if let Some(Catalog { path, warehouse, oauth }) = catalog {
        put(&mut keys, "catalog", path);
        put(&mut keys, "warehouse", warehouse.as_deref().unwrap_or_default());
        put_oauth(&mut keys, oauth);
    }
    if let Some(SchemaRegistry { path, oauth }) = schema_registry {
        put(&mut keys, "schema registry", if path.is_empty() { "/" } else { path });
        put_oauth(&mut keys, oauth);
    }
    if *kafka != KafkaOptions::default() {
        let KafkaOptions { is_secured: _, mechanism, ca, oauth } = kafka;
        put(&mut keys, "security protocol", kafka.security_protocol());
        put(&mut keys, "sasl mechanism", mechanism.map_or("", SaslMechanism::name));
        put(&mut keys, "ssl ca", ca.as_ref().map_or(String::new(), told));
        put_oauth(&mut keys, oauth);
    }
    put(&mut keys, "driver", database.as_ref().map_or("", |database| database.driver.as_str()));
    put(
        &mut keys,
        "credentials",
        credentials.iter().map(|(key, secret)| format!("{key} ({})", told(secret))).collect::<Said>(),
    );
    for (name, option) in database.iter().flat_map(|database| &database.options) {
        let said = match option {
            DriverOption::Plain(text) => text.clone(),
            DriverOption::Secret(secret) => told(secret),
        };
        put(&mut keys, &format!("option {name}"), said);
    }
    put_governance(&mut keys, governance);
    keys
}

fn told(secret: &Secret) -> String {
    match secret {
        Secret::Env(name) => format!("env {name}"),
        Secret::File(path) => format!("file {path}"),
    }
}

fn put_oauth(keys: &mut Keys, OAuth { token_url, scope }: &OAuth) {
    put(keys, "token url", token_url.as_deref().unwrap_or_default());
    put(keys, "scope", scope.as_deref().unwrap_or_default());
}

fn source(source: &Source, deployment: &Deployment) -> Keys {
    let Source {
        name,
        description,
        batch,
        pull,
        push: _,
        stream,
        event_timestamp,
        created_timestamp,
        event_id,
        columns,
        governance,
        loc: _,
    } = source;
    let mut keys = Keys::new();
    put(&mut keys, "description", description);
    put_governance(&mut keys, governance);
    if let Some(BatchSource { format, path, version, reference, dialect, catalog, connection: _, loc: _ }) =
        batch
    {
        let version = version.map_or(String::new(), |version| format!(" version {version}"));
        let reference = reference.as_ref().map_or(String::new(), |reference| format!(" ref {reference}"));
        put(&mut keys, "batch", format!("{} {path}{version}{reference}", format.name()));
        put(&mut keys, "catalog", catalog.as_ref().map_or("", |catalog| catalog.by.as_str()));
        put(&mut keys, "csv", dialect.to_string());
    }
    if let Some(PullSource { rows, cursor, overlap, by, is_pushed_to: _, connection: _, loc: _ }) = pull {
        let rows = match rows {
            PulledRows::Table(table) => format!("table {table}"),
            PulledRows::Query(query) => query.clone(),
        };
        put(&mut keys, "batch", format!("sql of {by}: {rows}"));
        let is_time =
            columns.iter().any(|it| it.name == *cursor && it.dtype == Type::Scalar(ScalarType::Timestamp));
        let overlap = if is_time { format_duration(*overlap) } else { overlap.to_string() };
        put(&mut keys, "cursor", format!("{cursor}, overlap {overlap}"));
    }
    if let Some(stream) = stream {
        let StreamSource {
            broker,
            servers,
            reaches: _,
            connection: _,
            topic,
            start,
            registry,
            registered: _,
            loc: _,
        } = stream;
        let broker = match broker {
            Broker::Kafka => "kafka",
            Broker::Redis => "redis",
        };
        put(&mut keys, "stream", format!("{broker} {servers} {topic}"));
        put(&mut keys, "schema registry", registry.as_deref().unwrap_or_default());
        match start {
            Start::Earliest => {}
            Start::Latest => put(&mut keys, "start", "latest"),
            Start::At(at) => put(&mut keys, "start", at),
        }
    }
    put(&mut keys, "push", if source.is_pushed_to() { "true" } else { "" });
    put(&mut keys, "event timestamp", event_timestamp);
    put(&mut keys, "created timestamp", created_timestamp.as_deref().unwrap_or(""));
    put(&mut keys, "event id", event_id.iter().collect::<Said>());
    put(&mut keys, "declared columns", columns.iter().map(column).collect::<Said>());
    // Not declared, found in the files: another type there changes what the features are.
    for field in deployment.compiled.source_schemas.get(name).iter().flat_map(|schema| schema.fields().iter())
    {
        put(&mut keys, &format!("column {}", field.name()), type_name(field.data_type()));
    }
    keys
}

pub(crate) fn view(view: &FeatureView) -> Keys {
    let FeatureView {
        name: _,
        description,
        entities,
        keys: renamed,
        source,
        filter,
        ttl_us,
        lag_us,
        at,
        features,
        aggregations,
        governance,
        loc: _,
    } = view;
    let mut keys = Keys::new();
    put(&mut keys, "description", description);
    put_governance(&mut keys, governance);
    put(&mut keys, "entities", entities.iter().collect::<Said>());
    put(&mut keys, "keys", pairs(renamed));
    put(&mut keys, "source", source);
    put(&mut keys, "where", filter.as_ref().map_or("", |filter| filter.sql.as_str()));
    put(&mut keys, "ttl", ttl_us.map_or(String::new(), format_duration));
    put(&mut keys, "lag", if *lag_us == 0 { String::new() } else { format_duration(*lag_us) });
    put(&mut keys, "at", if *at == At::Before { "before" } else { "" });
    put(&mut keys, "features", features.iter().map(|feature| &feature.name).collect::<Said>());
    for feature in features {
        put(&mut keys, &format!("feature {}", feature.name), expression(feature));
    }
    for it in aggregations {
        put(&mut keys, &format!("aggregation {}", it.name), aggregation(it));
    }
    keys
}

fn service(service: &FeatureService) -> Keys {
    let FeatureService { name: _, description, request, projections, derived, outputs, governance, loc: _ } =
        service;
    let mut keys = Keys::new();
    put(&mut keys, "description", description);
    put_governance(&mut keys, governance);
    put(&mut keys, "request", request.iter().map(column).collect::<Said>());
    put(&mut keys, "features", projections.iter().map(projection).collect::<Said>());
    put(&mut keys, "derived", derived.iter().map(|feature| &feature.name).collect::<Said>());
    for feature in derived {
        put(&mut keys, &format!("derived {}", feature.name), expression(feature));
    }
    if let Some(outputs) = outputs {
        put(&mut keys, "outputs", outputs.iter().map(|output| &output.sql).collect::<Said>());
    }
    keys
}

fn model(model: &Model, deployment: &Deployment) -> Keys {
    let Model { name, description, versions, route, fallback, batching, isolation, .. } = model;
    let Model { log_sample, reveals, governance, .. } = model;
    let mut keys = Keys::new();
    put(&mut keys, "description", description);
    put_governance(&mut keys, governance);
    put(&mut keys, "reveals", reveals.iter().collect::<Said>());
    put(&mut keys, "versions", versions.iter().map(|version| &version.version).collect::<Said>());
    for ModelVersion { version, artifact, service, examples: _, trained_on, loc: _ } in versions {
        let digest = deployment.version(name, Some(version)).map_or("", |live| &live.model.digest);
        let digest = digest.get(..DIGEST_CHARS).unwrap_or(digest);
        let what = match artifact {
            Artifact::File(file) => file.path.clone(),
            Artifact::Steps { steps, .. } => list(steps.iter().map(|step| step.name.clone())),
        };
        put(
            &mut keys,
            &format!("version {version}"),
            format!("{what} (SHA-256 {digest}…), fed by {service}"),
        );
        let trained_on = trained_on.as_ref().map_or("", |set| set.digest.as_str());
        put(&mut keys, &format!("version {version} was trained on"), trained_on);
    }
    if let Some(Route { weights, sticky, salt, shadow, loc: _ }) = route {
        put(
            &mut keys,
            "weights",
            weights.iter().map(|(version, weight)| format!("{version}: {weight}")).collect::<Said>(),
        );
        put(&mut keys, "sticky", sticky.iter().map(|column| &column.sql).collect::<Said>());
        put(&mut keys, "salt", salt);
        put(&mut keys, "shadow", shadow.iter().collect::<Said>());
    }
    if let Some(Fallback { timeout_us, max_age_us, max_missing, to, loc: _ }) = fallback {
        let to = to.iter().map(|instead| match instead {
            Instead::Version(version, _) => format!("version {version}"),
            Instead::Expr(expr) => expr.sql.clone(),
            Instead::Constant(constant, _) => constant.to_string(),
        });
        put(&mut keys, "fallback", to.collect::<Said>());
        put(&mut keys, "timeout", timeout_us.map(format_duration).unwrap_or_default());
        put(&mut keys, "max_age", max_age_us.map(format_duration).unwrap_or_default());
        put(&mut keys, "max_missing", max_missing.map(|share| share.to_string()).unwrap_or_default());
    }
    if *batching != Batching::default() {
        let Batching { max_rows, max_delay_us, queue_rows, concurrency } = batching;
        let concurrency = concurrency.map_or_else(|| "as many as cores".to_owned(), |runs| runs.to_string());
        let delay = format_duration(*max_delay_us);
        let rule = format!("{max_rows} rows, {delay} delay, {queue_rows} rows waiting, {concurrency} runs");
        put(&mut keys, "batching", rule);
    }
    let isolation = match isolation {
        Isolation::Auto => "",
        Isolation::Process => "process",
        Isolation::Thread => "thread",
    };
    put(&mut keys, "isolation", isolation);
    if let Some(sample) = log_sample {
        put(&mut keys, "log", format!("{sample} of the requests"));
    }
    keys
}

fn put_governance(keys: &mut Keys, Governance { owner, tags, share }: &Governance) {
    put(keys, "owner", owner.as_deref().unwrap_or(""));
    put(keys, "tags", tags.iter().collect::<Said>());
    put(keys, "share", share.iter().collect::<Said>());
}

fn column(column: &Column) -> String {
    let Column { name, dtype, default, format, from, loc: _ } = column;
    let format = format.map_or(String::new(), |epoch| format!(" ({})", epoch.name()));
    let from = from.map_or(String::new(), |stored| format!(" from {stored}"));
    format!("{name} {dtype}{format}{from}{}", default_of(default.as_ref()))
}

fn strict_of(strict: bool) -> &'static str {
    if strict { " strict" } else { "" }
}

fn expression(feature: &Feature) -> String {
    let Feature { name: _, description, expr, dtype, default, strict, loc: _ } = feature;
    let dtype = dtype.map_or(String::new(), |dtype| format!(" as {dtype}"));
    let description = if description.is_empty() { String::new() } else { format!(" -- {description}") };
    format!("{}{dtype}{}{}{description}", expr.sql, default_of(default.as_ref()), strict_of(*strict))
}

/// What an aggregation says, with its windows as a list.
pub(crate) fn aggregation(aggregation: &Aggregation) -> Said {
    let Aggregation { name: _, description, function, of, filter, buckets, limit, windows, .. } = aggregation;
    let Aggregation { default, strict, loc: _, .. } = aggregation;
    let of = of.as_ref().map_or("*", |of| &of.sql);
    let call = match function {
        Function::LastN { n } => format!("last_n({of}, {n})"),
        Function::TopNBy { n, by } => format!("top_n_by({of}, {n}, {})", by.sql),
        Function::ApproxPercentile { percentile } => format!("approx_percentile({of}, {percentile})"),
        function => format!("{}({of})", function.name()),
    };
    let part = |word: &str, expr: &Option<Expr>| {
        expr.as_ref().map_or(String::new(), |expr| format!(" {word} {}", expr.sql))
    };
    let hop = |hop_us: i64| if hop_us == 1 { "exact".to_owned() } else { format_duration(hop_us) };
    let windows = windows.iter().map(|window| format!("{} by {}", window.name, hop(window.hop_us)));
    let limit = if buckets.is_some() || matches!(function, Function::CountDistinct | Function::Histogram) {
        format!(" limit {limit}")
    } else {
        String::new()
    };
    let description = if description.is_empty() { String::new() } else { format!(" -- {description}") };
    Said {
        text: format!("{call}{}{}{limit} over ", part("where", filter), part("buckets", buckets)),
        items: windows.map(Said::from).collect(),
        end: format!("{}{}{description}", default_of(default.as_ref()), strict_of(*strict)),
    }
}

fn projection(projection: &Projection) -> Said {
    let Projection { view, alias, keys, exclude_event, features, loc: _ } = projection;
    let alias = alias.as_ref().map_or(String::new(), |alias| format!(" as {alias}"));
    let keys = if keys.is_empty() { String::new() } else { format!(" on {}", pairs(keys)) };
    let without: Vec<&str> = exclude_event.iter().map(|column| column.sql.as_str()).collect();
    let without =
        if without.is_empty() { String::new() } else { format!(" without event {}", without.join(", ")) };
    let items = features.iter().map(Said::from).collect();
    Said { text: format!("{view}{alias}{keys}{without} ("), items, end: ")".to_owned() }
}

fn default_of(default: Option<&Literal>) -> String {
    default.map_or(String::new(), |default| format!(" default {default}"))
}

fn pairs(pairs: &BTreeMap<String, String>) -> String {
    list(pairs.iter().map(|(from, to)| format!("{from}: {to}")))
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// A key that says nothing is left out: what is not declared and what is declared empty are the same.
fn put(keys: &mut Keys, key: &str, value: impl Into<Said>) {
    let value = value.into();
    if value != Said::default() {
        keys.insert(key.to_owned(), value);
    }
}
