//! May another artifact take the name of a version? As soon as nothing names the version that is live under it.
//!
//! A route, a fallback or a shadow says who answers, so what it names stays what it is. What a request names in flight
//! is answered by the deployment that it has, whole; the next one that names the version gets what is live by then.

use feature_defs::{Instead, Loc};
use quern_wire::Break;

use crate::live::ramp::Ramp;
use crate::live::{Deployment, LiveModel, LiveVersion};

/// What names the version of `model` that is live under the name of `new`, which is made of other files; none where
/// the name is free, or no version changes.
pub(super) fn still_named(live: &Deployment, model: &str, new: &LiveVersion) -> Option<Break> {
    let old = live.models.get(model)?;
    let place = old.place(&new.version)?;
    if is_same(&old.versions[place], new) {
        return None;
    }
    let names = names(live, old, place);
    let is_routed = live.compiled.catalog.definitions.models.get(model).is_some_and(|it| it.route.is_some());
    let free = match is_routed {
        true => format!(
            "take it out of all that (`quern route {model} {}=0` takes its weight, and ends a ramp)",
            new.version
        ),
        false => "list another version last".to_owned(),
    };
    (!names.is_empty()).then(|| Break {
        model: model.to_owned(),
        version: new.version.clone(),
        cause: format!(
            "its files, and what goes in and comes out, are not those of the live one, which is still named by {}",
            names.join(", by ")
        ),
        help: format!("add it as a new version; or free the name first, in an apply before this one: {free}"),
    })
}

/// Whether both are made of the same files.
pub(super) fn is_same(old: &LiveVersion, new: &LiveVersion) -> bool {
    old.model.digest == new.model.digest
}

/// Who names the version at `place`.
fn names(live: &Deployment, model: &LiveModel, place: usize) -> Vec<String> {
    let version = &model.versions[place].version;
    let Some(declared) = live.compiled.catalog.definitions.models.get(&model.name) else { return Vec::new() };
    let at = |loc: &Loc| format!("{}:{}", loc.file, loc.line);
    let mut names = Vec::new();
    match (&declared.route, model.route.weight(place)) {
        (_, 0) => {}
        (None, _) => names.push("whoever names no version, as the last of `versions`".to_owned()),
        (Some(_), weight) if live.weights.contains_key(&model.name) => {
            names.push(format!("`quern route`, with the weight {weight}"));
        }
        (Some(route), weight) => {
            names.push(format!("the route, with the weight {weight} ({})", at(&route.loc)))
        }
    }
    let ramp = live.ramps.get(&model.name).filter(|ramp| ramp.is_running());
    let gives_back = |ramp: &&Ramp| ramp.before.get(version).is_some_and(|weight| *weight > 0);
    if let Some(ramp) = ramp.filter(gives_back).filter(|_| names.is_empty()) {
        names.push(format!("{ramp}, which gives its share back where it stops"));
    }
    if let Some(route) = declared.route.as_ref().filter(|route| route.shadow.contains(version)) {
        names.push(format!("`shadow` ({})", at(&route.loc)));
    }
    let substitutes = declared.fallback.iter().flat_map(|fallback| &fallback.to);
    names.extend(substitutes.filter_map(|instead| match instead {
        Instead::Version(name, loc) if name == version => Some(format!("`fallback` ({})", at(loc))),
        _ => None,
    }));
    names
}
