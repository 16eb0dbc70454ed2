//! Do arrows point down only? Between crates their manifests say so; within a crate nobody does but this.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use expect_test::expect_file;
use quern_kit::root;

use super::{crates, files};

/// What a crate must not know, whatever it is called for.
const MUST_NOT_KNOW: [(&str, &str); 16] = [
    ("feature-defs", "arrow datafusion-expr tokio"),
    ("sdk/wire", "arrow tokio tonic"),
    ("sdk/rust", "datafusion-expr rocksdb quern-engine quern-server"),
    ("server/engine", "axum ort parquet redis rocksdb sqlx tokio tonic"),
    ("server/base", "arrow axum ort parquet redis rocksdb sqlx tonic"),
    ("server/access", "arrow axum ort parquet redis rocksdb sqlx tokio tonic"),
    ("server/store", "axum datafusion-expr ort tonic"),
    ("server/inference", "axum parquet redis rocksdb sqlx tonic"),
    ("server/warehouse", "axum ort parquet quern-store redis rocksdb sqlx tokio tonic"),
    ("server/decode", "axum ort parquet redis rocksdb sqlx tokio tonic"),
    (
        "server/identity",
        "arrow axum ort parquet redis rocksdb sqlx tonic quern-store quern-features quern-server",
    ),
    ("server/features", "axum ort parquet redis rocksdb sqlx tonic"),
    ("server", "adbc_core axum ort parquet redis rocksdb sqlx tonic"),
    ("server/streams", "axum ort parquet rocksdb sqlx tonic"),
    ("server/api", "ort parquet redis rocksdb sqlx"),
    ("server/cli", "datafusion-expr ort redis rocksdb sqlx tonic"),
];

/// A module by its path from the root of its crate.
type Module = Vec<String>;

#[test]
fn modules_have_no_circles() {
    let mut circles = String::new();
    for folder in crates() {
        let modules = modules(&format!("{folder}/src"));
        let arrows = arrows(&modules);
        let parents: BTreeSet<&[String]> =
            modules.keys().filter_map(|module| module.split_last().map(|(_, parent)| parent)).collect();
        for parent in parents {
            for circle in circles_among(parent, &arrows) {
                writeln!(circles, "{folder}: {}: {}", parent.join("::"), circle.join(" ↔ ")).unwrap();
            }
        }
    }
    assert_eq!(circles, "", "modules that need one another; what both share goes down a floor:\n{circles}");
}

#[test]
fn a_verb_knows_no_other() {
    let modules = modules("server/src");
    let verb = |module: &[String]| match module {
        [verbs, verb, ..] if verbs == "verbs" => Some(verb.clone()),
        _ => None,
    };
    let among =
        arrows(&modules).into_iter().flat_map(|(from, to)| to.into_iter().map(move |to| (from.clone(), to)));
    let among =
        among.filter_map(|(from, to)| Some((verb(&from)?, verb(&to)?))).filter(|(from, to)| from != to);
    let among: BTreeSet<(String, String)> = among.collect();
    // Predictions with their labels: it is a reader of both.
    assert_eq!(among, BTreeSet::from([("joined".to_owned(), "labels".to_owned())]));
}

#[test]
fn what_a_request_names_is_found_by_who_asks() {
    let mut found = String::new();
    for (path, text) in files("server/api/src/**/*.rs") {
        // What is live is shown there, as far as it may be.
        if path.ends_with("catalogue.rs") || path.ends_with("tests.rs") {
            continue;
        }
        for kind in ["models", "services", "views", "sources"] {
            for call in ["get(", "contains_key("] {
                let by_name = format!(".{kind}.{call}");
                if text.contains(&by_name) {
                    writeln!(found, "{}: {by_name}", path.display()).unwrap();
                }
            }
        }
    }
    assert_eq!(found, "", "found whoever asks; `seen_by` finds what they may know:\n{found}");
}

#[test]
fn manifests_say_what_a_crate_may_know() {
    let mut known = String::from(
        "# What each crate may know\n\nIts direct dependencies, as its manifest lists them: `cargo tree --depth 1 --edges normal \
         --package NAME`.\nWritten by a test (`UPDATE_EXPECT=1 cargo test --workspace --test quern house::`).\n",
    );
    for folder in crates() {
        let (name, dependencies) = manifest(&folder);
        for (_, forbidden) in MUST_NOT_KNOW.iter().filter(|(of, _)| *of == folder) {
            let found: Vec<&str> =
                forbidden.split(' ').filter(|name| dependencies.contains(&(*name).to_owned())).collect();
            assert!(found.is_empty(), "{folder} must not know {found:?}");
        }
        let ours = |name: &&String| name.starts_with("quern") || *name == "feature-defs";
        let (own, others): (Vec<&String>, Vec<&String>) = dependencies.iter().partition(ours);
        let list = |names: Vec<&String>| match names.is_empty() {
            true => "nothing".to_owned(),
            false => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        write!(
            known,
            "\n## `{name}` ({folder})\n\n* Of ours: {}\n* Of others: {}\n",
            list(own),
            list(others)
        )
        .unwrap();
    }
    expect_file![root().join("docs/design/crates.md")].assert_eq(&known);
}

/// The name of the crate in `folder`, and the names of what it depends on.
fn manifest(folder: &str) -> (String, Vec<String>) {
    let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let name =
        text.lines().find_map(|line| line.strip_prefix("name = ")).unwrap().trim_matches('"').to_owned();
    let dependencies = text.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let dependencies =
        dependencies.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#'));
    (name, dependencies.filter_map(|line| Some(line.split_once('.')?.0.to_owned())).collect())
}

/// The modules below `folder`, without tests, comments and texts.
fn modules(folder: &str) -> BTreeMap<Module, String> {
    let module = |path: &Path| -> Module {
        let path = path.strip_prefix(folder).unwrap().with_extension("");
        let mut names: Module = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        names.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
        names
    };
    let found = files(&format!("{folder}/**/*.rs")).into_iter();
    let found = found.filter(|(path, _)| !path.iter().any(|name| name == "tests" || name == "tests.rs"));
    found.map(|(path, text)| (module(&path), bare(&text))).collect()
}

/// Code without its tests, comments and texts.
fn bare(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    let mut out = String::new();
    for (number, part) in lines.collect::<Vec<_>>().join("\n").replace("\\\"", "").split('"').enumerate() {
        if number % 2 == 0 {
            out += part;
        }
    }
    out
}

/// For each module those that it names by a path, in `use` lines or anywhere else.
fn arrows(modules: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut arrows = BTreeMap::new();
    for (module, text) in modules {
        let mut named = BTreeSet::new();
        for root in ["crate", "self", "super"] {
            for (at, _) in text.match_indices(&format!("{root}::")) {
                if text[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '$')) {
                    continue;
                }
                let mut base = if root == "crate" { Vec::new() } else { module.clone() };
                let mut rest = &text[at..];
                while let Some(further) = rest.strip_prefix("super::") {
                    base.pop();
                    rest = further;
                }
                let rest = rest.strip_prefix("crate::").or(rest.strip_prefix("self::")).unwrap_or(rest);
                for mut path in paths(base, rest) {
                    while !modules.contains_key(&path) {
                        path.pop();
                    }
                    named.insert(path);
                }
            }
        }
        named.remove(module);
        arrows.insert(module.clone(), named);
    }
    arrows
}

/// The paths that begin with `base` and go on as `text` does, where that may be a tree in braces.
fn paths(base: Module, text: &str) -> Vec<Module> {
    if let Some(tree) = text.strip_prefix('{') {
        let (mut depth, mut start, mut all) = (0, 0, Vec::new());
        for (at, letter) in tree.char_indices() {
            match letter {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    all.extend(paths(base.clone(), tree[start..at].trim()));
                    start = at + 1;
                    if letter == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        return all;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let path = [base, vec![text[..end].to_owned()]].concat();
    match text[end..].strip_prefix("::") {
        Some(rest) if end > 0 => paths(path, rest),
        _ => vec![path],
    }
}

/// The circles among the modules right below `parent`, each standing for all that is below it.
fn circles_among(parent: &[String], arrows: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<String>> {
    let child = |module: &Module| module.strip_prefix(parent).and_then(|rest| rest.first().cloned());
    let mut to: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, targets) in arrows {
        let Some(from) = child(from) else { continue };
        let targets = targets.iter().filter_map(child).filter(|target| *target != from);
        to.entry(from.clone()).or_default().extend(targets);
    }
    let reached = |from: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(next) = open.pop() {
            for target in to.get(&next).into_iter().flatten() {
                if seen.insert(target.clone()) {
                    open.push(target.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = to.keys().map(|from| (from, reached(from))).collect();
    let mut circles = BTreeSet::new();
    for (from, all) in &reached {
        let back = |other: &&String| reached.get(other).is_some_and(|theirs| theirs.contains(*from));
        let circle: Vec<String> = all.iter().filter(back).cloned().collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

#[test]
fn a_circle_is_found() {
    let module = |name: &str, text: &str| (vec![name.to_owned()], text.to_owned());
    let modules = BTreeMap::from([
        (Vec::new(), "mod a; mod b; mod c;".to_owned()),
        module("a", "use crate::b::{self, Of}; fn f() { super::c::g() }"),
        module("b", "use super::{c, d::Nobody};"),
        module("c", "fn g() { let _ = crate::a::f(); }"),
    ]);
    assert_eq!(circles_among(&[], &arrows(&modules)), [["a", "b", "c"]]);
}
