//! Do the aggregations of a view make sense, whatever its source holds?

use super::declared::Declaration;
use super::names::not_twice;
use crate::shape::{NAME_CHARS_MAX, Shape};
use crate::yaml::Node;
use crate::{Aggregation, DefError, FeatureView, format_duration};

/// Keys that only some functions take.
const KEYS: [(&str, &[&str]); 4] = [
    ("n", &["last_n", "top_n_by"]),
    ("by", &["top_n_by"]),
    ("percentile", &["approx_percentile"]),
    ("limit", &["count_distinct", "histogram"]),
];
const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;

/// Checks that the view has features or aggregations, and each aggregation by itself.
pub(super) fn check(view: &Declaration<FeatureView>, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = view;
    match (node.get("features"), node.get("aggregations")) {
        (None, None) => errors
            .push(DefError::new(&def.loc, format!("feature view `{}` has no features", def.name)).with_help(
                "give it `features` (of the latest row) or `aggregations` (over windows of time)",
            )),
        (Some(_), Some(aggregations)) => errors.push(
            DefError::new(&aggregations.loc, "a feature view has either `features` or `aggregations`")
                .with_help("declare two feature views over the one source"),
        ),
        _ => {}
    }
    let Some(aggregations) = node.get("aggregations") else { return };
    if let Some(ttl) = node.get("ttl") {
        errors.push(
            DefError::new(&ttl.loc, "`ttl` says how long the latest row counts, and aggregations have none")
                .with_help("leave it out: each window says how long a row counts"),
        );
    }
    aggregations.items().iter().for_each(|node| check_keys(node, errors));
    for aggregation in &def.aggregations {
        check_windows(aggregation, errors);
    }
    let all =
        def.aggregations.iter().flat_map(|a| a.windows.iter().map(move |w| (a.feature_name(w), &w.loc)));
    let all: Vec<_> = all.collect();
    not_twice("feature", all.iter().map(|(name, loc)| (name.as_str(), *loc)), errors);
    for (name, loc) in &all {
        if !Shape::Identifier.admits_name(name) {
            let cause = format!("the feature name `{name}` is longer than {NAME_CHARS_MAX} characters");
            errors.push(DefError::new(loc, cause).with_help("give the aggregation a shorter name"));
        }
    }
}

fn check_keys(node: &Node, errors: &mut Vec<DefError>) {
    let Some(function) = node.get("function") else { return };
    let Some(name) = function.text() else { return };
    if name != "count" && node.get("of").is_none() {
        errors.push(
            DefError::new(&function.loc, format!("`{name}` lacks the key `of`"))
                .with_help("`of`: SQL over the source's columns; only `count` may do without"),
        );
    }
    for (key, functions) in KEYS {
        let takes = functions.contains(&name) || key == "limit" && node.get("buckets").is_some();
        match node.get(key) {
            Some(value) if !takes => {
                let known: Vec<_> = functions.iter().map(|name| format!("`{name}`")).collect();
                let more = if key == "limit" { ", and with `buckets`" } else { "" };
                errors.push(
                    DefError::new(&value.loc, format!("`{name}` takes no `{key}`"))
                        .with_help(format!("`{key}` goes with {}{more}", known.join(" and "))),
                );
            }
            None if takes && key != "limit" => errors.push(
                DefError::new(&function.loc, format!("`{name}` lacks the key `{key}`"))
                    .with_help(format!("as in `{}`", example(key))),
            ),
            _ => {}
        }
    }
    if let Some(buckets) = node.get("buckets")
        && ["last_n", "top_n_by", "histogram"].contains(&name)
    {
        errors.push(
            DefError::new(
                &buckets.loc,
                format!("`{name}` takes no `buckets`: a map holds single values only"),
            )
            .with_help(instead_of_buckets(name, buckets.text().unwrap_or_default())),
        );
    }
    if let Some(default) = node.get("default")
        && (node.get("buckets").is_some() || name == "histogram")
    {
        errors.push(
            DefError::new(&default.loc, "a map takes no `default`")
                .with_help("take single values out of it with a derived feature"),
        );
    }
}

/// What says about the same as function `name` with `buckets: sql`, which there is not.
fn instead_of_buckets(name: &str, sql: &str) -> String {
    let each = format!("one `{name}` for each bucket that matters, with `where: \"{sql} = '…'\"`");
    match name {
        "last_n" => format!("take `last` with `buckets`, the latest of each; or {each}"),
        "top_n_by" => format!("take `max` with `buckets`, the greatest of each; or {each}"),
        _ => format!(
            "a histogram is itself a map: take `count` with `buckets: {sql}`, how many rows there are of each; or {each}"
        ),
    }
}

fn example(key: &str) -> &'static str {
    match key {
        "n" => "n: 5",
        "by" => "by: amount",
        _ => "percentile: 0.9",
    }
}

fn check_windows(aggregation: &Aggregation, errors: &mut Vec<DefError>) {
    for window in &aggregation.windows {
        let Some(length_us) = window.length_us else { continue };
        // Shorter than a second: said already.
        if window.hop_us == 1 || length_us >= window.hop_us || length_us < SECOND_US {
            continue;
        }
        let help = match length_us < 5 * MINUTE_US {
            true => "with `hop: exact` a window may be as short as `1s`",
            false => "take a smaller `hop`, or a longer window",
        };
        let cause = format!(
            "the window `{}` is shorter than its hop, {}",
            window.name,
            format_duration(window.hop_us)
        );
        errors.push(DefError::new(&window.loc, cause).with_help(help));
    }
}
