//! Is what the server says of its routes what it has?

use std::collections::BTreeSet;

use serde_json::Value;

use super::access::{HTTP, routes, without_query};
use crate::planes;

/// Whether the path of a request is one that a description has, whose names stand in braces.
fn fits(described: &str, asked: &str) -> bool {
    let (wanted, given): (Vec<&str>, Vec<&str>) =
        (described.split('/').collect(), asked.split('/').collect());
    let part = |(wanted, given): (&&str, &&str)| match wanted.split_once('}') {
        Some((_, verb)) => given.len() > verb.len() && given.ends_with(verb),
        None => wanted == given,
    };
    wanted.len() == given.len() && wanted.iter().zip(&given).all(part)
}

/// Every `$ref` below.
fn references<'a>(json: &'a Value, found: &mut BTreeSet<&'a str>) {
    match json {
        Value::Object(entries) => entries.iter().for_each(|(key, value)| match (key.as_str(), value) {
            ("$ref", Value::String(to)) => drop(found.insert(to)),
            _ => references(value, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_route_stands_in_the_description_and_no_other() {
    let server = planes::serve().await;
    let (status, text) = server.ask("GET", "/openapi.json", "").await;
    assert_eq!(status, 200, "{text}");
    let described: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(described["openapi"], "3.1.0");
    let paths = described["paths"].as_object().unwrap();
    let operations: Vec<(String, &str)> = paths
        .iter()
        .flat_map(|(path, of)| of.as_object().unwrap().keys().map(|method| (method.to_uppercase(), &**path)))
        .collect();
    for (method, path, ..) in HTTP {
        let stands =
            operations.iter().any(|(described, of)| described == method && fits(of, without_query(path)));
        assert!(stands, "{method} {path} is no operation of /openapi.json");
    }
    for (method, path) in &operations {
        let is_asked = HTTP.iter().any(|(asked, of, ..)| asked == method && fits(path, without_query(of)));
        assert!(is_asked, "{method} {path} stands in /openapi.json, and no test of access asks it");
    }
    for (file, route) in routes().into_iter().filter(|(_, route)| !route.contains("Service")) {
        // What is posted to is a part of a name there: `{call}` is `{model}:predict`.
        let stands = paths.keys().any(|path| fits(&route, path));
        assert!(stands, "{file}: /openapi.json lacks {route}");
    }

    let mut found = BTreeSet::new();
    references(&described, &mut found);
    assert!(found.len() > 50, "{found:?}");
    for reference in found {
        let place = reference.strip_prefix('#').unwrap();
        assert!(described.pointer(place).is_some(), "{reference} leads nowhere");
    }
    let names = paths.values().flat_map(|of| of.as_object().unwrap().values()).map(|of| &of["operationId"]);
    let names: Vec<&Value> = names.collect();
    let different: BTreeSet<&str> = names.iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(different.len(), names.len(), "an operation's ID is given twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_must_be_known_is_said() {
    let described = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let open = planes::serve().await.ask("GET", "/openapi.json", "").await.1;
    assert_eq!(described(&open)["security"][0], serde_json::json!({}));
    let asked = super::access::Asked::open().await;
    let (status, text) = asked.say("GET", "/openapi.json", "", Some(&asked.keys["stranger"])).await;
    let (closed, health) = (described(&text), "/v2/health/live");
    assert_eq!((status, &closed["security"][0]["bearer"]), (200, &serde_json::json!([])), "{text}");
    assert_eq!(closed["paths"][health]["get"]["security"], serde_json::json!([{}]));
}
