//! Does what lies in `deploy/` fit the server: the metrics, settings and routes that it names? Do the alerts work?

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use quern_kit::{SETTINGS, cache, root};
use saphyr::{LoadableYamlNode, Yaml};

/// Variables of `compose.yaml` itself, and of the set-up.
const NO_SETTINGS: [&str; 3] = ["QUERN_CACHE", "QUERN_IMAGE", "QUERN_REPOSITORY"];

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below `folder` whose names end so, with their contents.
fn files(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let pattern = root().join(folder).join("**/*").to_string_lossy().into_owned();
    let found = glob::glob(&pattern).unwrap().map(Result::unwrap);
    let found: Vec<_> = found
        .filter(|path| path.is_file() && path.to_string_lossy().ends_with(ending))
        .map(|path| (path.clone(), read(path)))
        .collect();
    assert!(!found.is_empty(), "nothing in {pattern} ends with {ending}");
    found
}

/// The words that begin with `prefix` and go on with `letters`.
fn words<'a>(text: &'a str, prefix: &str, letters: fn(char) -> bool) -> BTreeSet<&'a str> {
    text.split(|c: char| !letters(c))
        .filter(|word| word.len() > prefix.len() && word.starts_with(prefix))
        .collect()
}

fn metrics(text: &str) -> BTreeSet<&str> {
    words(text, "quern_", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn metrics_are_those_of_the_server() {
    let source: String = files("server", ".rs").into_iter().map(|(_, text)| text).collect();
    // Quoted, since crates have such names as well.
    let quoted = |name: &&str| source.contains(&format!("\"{name}\""));
    let known: BTreeSet<&str> = metrics(&source).into_iter().filter(quoted).collect();
    let is_known = |name: &str| {
        let series = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        known.contains(name) || series.is_some_and(|name| known.contains(name))
    };
    let is_log_target = |text: &str, name: &str| text.contains(&format!("{name}=trace"));
    let mut unknown = Vec::new();
    let named = [files("deploy", ".yaml"), files("deploy", ".json"), files("docs", "operations.md")];
    for (path, text) in named.concat() {
        let path = path.strip_prefix(root()).unwrap();
        let lost = metrics(&text).into_iter().filter(|name| !is_known(name) && !is_log_target(&text, name));
        unknown.extend(lost.map(|name| format!("{}: {name}", path.display())));
    }
    assert!(unknown.is_empty(), "the server has no such metrics:\n{}", unknown.join("\n"));
}

#[test]
fn settings_and_routes_are_those_of_the_server() {
    let source: String = files("server/api/src", ".rs").into_iter().map(|(_, text)| text).collect();
    for (path, text) in files("deploy", "") {
        for name in words(&text, "QUERN_", |c| c.is_ascii_uppercase() || c == '_') {
            let setting = name.trim_start_matches("QUERN_").to_lowercase();
            let known = SETTINGS.iter().any(|(key, _)| *key == setting) || NO_SETTINGS.contains(&name);
            assert!(known, "{}: there is no setting {name}", path.display());
        }
        let in_route = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-');
        for route in words(&text, "/v1/", in_route).into_iter().chain(words(&text, "/v2/", in_route)) {
            // What ends with a slash is the beginning of several routes.
            let quoted = if route.ends_with('/') { format!("\"{route}") } else { format!("\"{route}\"") };
            assert!(source.contains(&quoted), "{}: nothing answers at {route}", path.display());
        }
    }
}

#[test]
fn manifests_can_be_read() {
    for (path, text) in files("deploy", ".yaml") {
        let documents =
            Yaml::load_from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!documents.is_empty(), "{} is empty", path.display());
        if path.parent().unwrap().ends_with("kubernetes") {
            for document in &documents {
                let told = |key: &str| document.as_mapping_get(key).is_some();
                assert!(told("apiVersion") && told("kind"), "{}: a document without a kind", path.display());
            }
        }
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
}

#[test]
fn alerts_are_explained_and_tested() {
    let (docs, tests) = (read("docs/operations.md"), read("deploy/prometheus/alerts_test.yaml"));
    let alerts = read("deploy/prometheus/alerts.yaml");
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(!names.is_empty());
    for name in &names {
        assert!(
            docs.lines().any(|line| line == format!("### {name}")),
            "docs/operations.md has no `### {name}`"
        );
        let anchor = format!("runbook: docs/operations.md#{}", name.to_lowercase());
        assert!(alerts.contains(&anchor), "{name} does not lead to its chapter");
        // Once where it must keep silent, once where it must fire.
        let silent = tests.contains(&format!("alertname: {name}, exp_alerts: []"));
        assert!(silent && tests.contains(&format!("alertname: {name}\n")), "{name} is not tested");
    }
    let explained = docs.lines().filter_map(|line| line.strip_prefix("### Quern"));
    for name in explained.map(|name| format!("Quern{name}")) {
        assert!(names.contains(&name.as_str()), "docs/operations.md explains {name}, which is no alert");
    }
}

#[test]
fn alerts_fire_when_they_should() {
    for arguments in [
        ["check", "config", "prometheus.yaml"].as_slice(),
        &["check", "rules", "alerts.yaml"],
        &["test", "rules", "alerts_test.yaml"],
    ] {
        let ran = Command::new(promtool())
            .args(arguments)
            .current_dir(root().join("deploy/prometheus"))
            .output()
            .unwrap_or_else(|error| panic!("promtool is missing ({error}): run ./setup.sh"));
        let said = [ran.stdout, ran.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(ran.status.success(), "promtool {}\n{said}", arguments.join(" "));
    }
}

/// Where `setup.sh` puts it, else in the path.
fn promtool() -> PathBuf {
    Some(cache().join("tools/bin/promtool"))
        .filter(|path| path.is_file())
        .unwrap_or_else(|| "promtool".into())
}
