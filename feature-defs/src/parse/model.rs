//! What does a model's document declare, and do its names refer to something?

use super::declared::{Declaration, Declared, Names};
use super::names::{listed, not_twice, one_of};
use super::read::{
    count, duration_us, expression, governance, identity, is_true, items, names, pairs, share, text, texts,
};
use crate::literal::literal;
use crate::shape::Kind;
use crate::yaml::{Entry, Node, Scalar, Value};
use crate::{
    Action, Artifact, Batching, DefError, Example, Expr, Fallback, FeatureView, Input, Inputs, Instead,
    Isolation, Loc, Model, ModelFile, ModelVersion, Reach, Remote, Route, Server, Step, TrainedOn, suggest,
};

pub(super) fn read(node: &Node) -> Model {
    let (name, loc) = identity(node, "name");
    Model {
        description: text(node, "description"),
        versions: items(node, "versions").map(version).collect(),
        route: node.get("route").map(|node| route(node, &name)),
        fallback: node.get("fallback").map(fallback),
        batching: node.get("batching").map(batching).unwrap_or_default(),
        isolation: isolation(node),
        log_sample: node.get("log").and_then(|log| share(log, "sample")),
        reveals: texts(node, "reveals"),
        governance: governance(node),
        name,
        loc,
    }
}

fn version(node: &Node) -> ModelVersion {
    let (version, loc) = identity(node, "version");
    let artifact = match node.get("steps") {
        None => Artifact::File(model_file(node)),
        Some(steps) => Artifact::Steps {
            steps: steps.items().iter().filter_map(step).collect(),
            outputs: expressions(node, "outputs"),
        },
    };
    let examples = items(node, "examples").map(example).collect();
    let trained_on = node.get("trained_on").map(trained_on);
    ModelVersion { version, artifact, service: text(node, "service"), examples, trained_on, loc }
}

fn trained_on(node: &Node) -> TrainedOn {
    TrainedOn {
        digest: text(node, "digest"),
        rows: count(node, "rows").unwrap_or_default(),
        as_known: is_true(node, "as_known"),
        made_of: pairs(node, "made_of"),
        columns: pairs(node, "columns"),
    }
}

fn example(node: &Node) -> Example {
    let value = |Entry { key, key_loc, value }: &Entry| {
        Some((Expr { sql: key.clone(), loc: key_loc.clone() }, literal(value)?))
    };
    Example { values: node.entries().iter().filter_map(value).collect(), loc: node.loc.clone() }
}

fn step(node: &Node) -> Option<Step> {
    let (name, loc) = identity(node, "name");
    let action = match (node.get("expr"), node.get("remote")) {
        (Some(expr), _) => Action::Compute(expression(expr)?),
        (None, Some(there)) => Action::Ask(remote(there, node)?),
        (None, None) => Action::Run(model_file(node)),
    };
    Some(Step { name, action, loc })
}

/// How long another server may take, unless it is given.
const TIMEOUT_US: i64 = 1_000_000;

fn remote(there: &Node, node: &Node) -> Option<Remote> {
    let ModelFile { inputs, outputs, path: _ } = model_file(node);
    let version = there.get("version").and_then(Node::text).map(str::to_owned);
    Some(Remote {
        server: Server::of_inference(there.get("url")?.text()?).ok()?,
        model: text(there, "model"),
        version,
        timeout_us: duration_us(there, "timeout").unwrap_or(TIMEOUT_US),
        inputs,
        outputs,
    })
}

fn model_file(node: &Node) -> ModelFile {
    let inputs = match node.get("inputs") {
        Some(map) if !map.entries().is_empty() => Inputs::Map(map.entries().iter().map(input).collect()),
        _ => Inputs::Columns(expressions(node, "inputs")),
    };
    ModelFile { path: text(node, "path"), inputs, outputs: expressions(node, "outputs") }
}

fn input(Entry { key, key_loc, value }: &Entry) -> Input {
    let columns = value.get("columns").unwrap_or(value);
    let length = |node: &Node| match node.value {
        Value::Scalar { scalar: Scalar::Int(length), .. } => u32::try_from(length).ok(),
        _ => None,
    };
    let shape = value.get("shape").map(|shape| shape.items().iter().filter_map(length).collect());
    Input { name: key.clone(), columns: names(columns), shape, loc: key_loc.clone() }
}

fn route(node: &Node, model: &str) -> Route {
    let shares = node.get("weights");
    let weights = shares.map(Node::entries).unwrap_or_default();
    let weight = |entry: &Entry| Some((entry.key.clone(), count(shares?, &entry.key)?));
    Route {
        weights: weights.iter().filter_map(weight).collect(),
        sticky: expressions(node, "sticky"),
        salt: node.get("salt").and_then(Node::text).unwrap_or(model).to_owned(),
        shadow: expressions(node, "shadow").into_iter().map(|version| version.sql).collect(),
        loc: node.loc.clone(),
    }
}

fn fallback(node: &Node) -> Fallback {
    Fallback {
        timeout_us: duration_us(node, "timeout"),
        max_age_us: duration_us(node, "max_age"),
        max_missing: share(node, "max_missing"),
        to: items(node, "to").filter_map(instead).collect(),
        loc: node.loc.clone(),
    }
}

fn instead(node: &Node) -> Option<Instead> {
    if let Some(version) = node.get("version") {
        return Some(Instead::Version(version.text()?.to_owned(), version.loc.clone()));
    }
    if let Some(expr) = node.get("expr") {
        return Some(Instead::Expr(expression(expr)?));
    }
    let constant = node.get("constant")?;
    Some(Instead::Constant(literal(constant)?, constant.loc.clone()))
}

fn batching(node: &Node) -> Batching {
    let unsaid = Batching::default();
    Batching {
        max_rows: count(node, "max_rows").unwrap_or(unsaid.max_rows),
        max_delay_us: duration_us(node, "max_delay").unwrap_or(unsaid.max_delay_us),
        queue_rows: count(node, "queue_rows").unwrap_or(unsaid.queue_rows),
        concurrency: count(node, "concurrency"),
    }
}

fn isolation(node: &Node) -> Isolation {
    match text(node, "isolation").as_str() {
        "process" => Isolation::Process,
        "thread" => Isolation::Thread,
        _ => Isolation::Auto,
    }
}

fn expressions(node: &Node, key: &str) -> Vec<Expr> {
    items(node, key).filter_map(expression).collect()
}

/// Checks the names in `model`, and that each of its parts says one thing.
pub(super) fn check(model: &Declaration<Model>, declared: &Declared, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = model;
    let Declared { services, views, .. } = declared;
    for (revealed, loc) in listed(node, "reveals") {
        check_revealed(revealed, loc, views, errors);
    }
    not_twice("version", def.versions.iter().map(|version| (version.version.as_str(), &version.loc)), errors);
    for version in items(node, "versions") {
        if let Some(service) = version.get("service") {
            let name = service.text().unwrap_or_default();
            services.resolve(Kind::FeatureService, name, &service.loc, errors);
        }
        check_version(version, errors);
    }
    if let Some(route) = node.get("route") {
        let weights = route.get("weights");
        let entries = weights.map(Node::entries).unwrap_or_default();
        for Entry { key, key_loc, .. } in entries {
            known(def, key, key_loc, errors);
        }
        let is_zero = |Entry { key, .. }: &Entry| weights.and_then(|weights| count(weights, key)) == Some(0);
        if !entries.is_empty() && entries.iter().all(is_zero) {
            let cause = "every weight is 0, so no version would answer";
            errors.push(DefError::new(&route.loc, cause).with_help("give one version a weight"));
        }
        not_twice("shadow", listed(route, "shadow"), errors);
        for (shadow, loc) in listed(route, "shadow") {
            known(def, shadow, loc, errors);
        }
    }
    for instead in node.get("fallback").map(|fallback| items(fallback, "to")).into_iter().flatten() {
        one_of(instead, "a substitute", &["version", "expr", "constant"], errors);
        if let Some(version) = instead.get("version") {
            known(def, version.text().unwrap_or_default(), &version.loc, errors);
        }
    }
}

/// A feature is named as in look-ups.
fn check_revealed(revealed: &str, loc: &Loc, views: &Names<FeatureView>, errors: &mut Vec<DefError>) {
    let Some((view, feature)) = revealed.split_once(':') else {
        let cause = format!("each of `reveals` must be a feature as `view:feature`, found `{revealed}`");
        errors.push(DefError::new(loc, cause));
        return;
    };
    let Some(view) = views.resolve(Kind::FeatureView, view, loc, errors).filter(|view| view.whole) else {
        return;
    };
    let names = view.def.feature_names();
    if names.iter().all(|name| name != feature) {
        let cause = format!("`{feature}` is no feature of feature view `{}`", view.def.name);
        let help = suggest(feature, names.iter().map(String::as_str));
        errors.push(DefError::new(loc, cause).with_help(help));
    }
}

fn check_version(version: &Node, errors: &mut Vec<DefError>) {
    one_of(version, "a model version", &["path", "steps"], errors);
    if let (Some(inputs), Some(_)) = (version.get("inputs"), version.get("steps")) {
        let cause = "`inputs` belongs to a model file, and the version has `steps`";
        errors.push(DefError::new(&inputs.loc, cause).with_help("give it to the step that reads them"));
    }
    let names: Vec<(&str, &Loc)> = items(version, "steps")
        .map(|step| {
            step.get("name").map_or(("", &step.loc), |name| (name.text().unwrap_or_default(), &name.loc))
        })
        .collect();
    not_twice("step", names.iter().copied(), errors);
    for (step, (name, _)) in items(version, "steps").zip(names) {
        let what = format!("step `{name}`");
        one_of(step, &what, &["path", "remote", "expr"], errors);
        if let Some(url) = step.get("remote").and_then(|there| there.get("url"))
            && let Some(Err(cause)) =
                url.text().filter(|url| Reach::parse(url).is_ok()).map(Server::of_inference)
        {
            errors.push(DefError::new(&url.loc, format!("`url` {cause}")));
        }
        for key in ["inputs", "outputs"] {
            if let (Some(of_file), Some(_)) = (step.get(key), step.get("expr")) {
                let cause = format!(
                    "`{key}` belongs to a step that runs a model; an expression names the columns it reads, and gives one"
                );
                errors.push(DefError::new(&of_file.loc, cause).with_help("leave it out"));
            }
        }
        not_twice("output", listed(step, "outputs"), errors);
    }
    not_twice("output", listed(version, "outputs"), errors);
}

fn known(model: &Model, version: &str, loc: &Loc, errors: &mut Vec<DefError>) {
    let names = || model.versions.iter().map(|known| known.version.as_str());
    if !version.is_empty() && names().all(|name| name != version) {
        let cause = format!("model `{}` has no version `{version}`", model.name);
        errors.push(DefError::new(loc, cause).with_help(suggest(version, names())));
    }
}
