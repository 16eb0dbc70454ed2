//! What do definitions reach that nobody should have written? No file that is not theirs, and no end of memory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use expect_test::{Expect, expect};
use quern_kit::{Repository, fixture, run_in};
use tempfile::TempDir;

const ROWS: &str = "k,at,note\n1,2024-01-01,topsecret\n";

/// A source of CSV files at `path`, and whatever follows it.
fn definitions(path: &str, more: &str) -> String {
    format!(
        "kind: Entity\nname: e\njoin_keys: [{{name: k, type: int64}}]\n---\nkind: Source\nname: s\n\
         batch: {{format: csv, path: \"{path}\"}}\nevent_timestamp: at\ncolumns:\n  - {{name: k, type: int64}}\n  \
         - {{name: at, type: timestamp}}\n  - {{name: note, type: string}}\n---\nkind: FeatureView\nname: v\n\
         entities: [e]\nsource: s\nfeatures: [note]\n---\nkind: FeatureService\nname: svc\nfeatures: [v]\n{more}"
    )
}

/// What `quern check` says, with `secret` for the folder outside.
fn said(repository: &Repository, outside: &Path, environment: &[(&str, String)]) -> String {
    let printed = run_in(repository.path(), &["check"], environment);
    let text = format!("{}{}", printed.stdout, printed.stderr);
    assert!(!text.contains("topsecret") && !text.contains("root:"), "{text}");
    let root = repository.path().canonicalize().unwrap();
    text.replace(&outside.display().to_string(), "OUTSIDE").replace(&root.display().to_string(), "ROOT")
}

fn holds(repository: &Repository, outside: &Path, environment: &[(&str, String)]) -> bool {
    said(repository, outside, environment).starts_with("the definitions hold")
}

fn outside() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret.csv"), ROWS).unwrap();
    folder
}

#[test]
fn a_source_lies_below_the_repository_or_a_root_of_the_settings() {
    let folder = outside();
    let outside = folder.path().canonicalize().unwrap();
    let secret = outside.join("secret.csv").display().to_string();
    let repository = Repository::new(&definitions(&secret, ""));
    let check = |expected: Expect| expected.assert_eq(&said(&repository, &outside, &[]));
    check(expect![[r#"
        definitions.yaml:7:28: source `s`: `OUTSIDE/secret.csv` lies outside of the repository, or is a link that leads out of it
          help: files are read below the repository and below the folders that its setting `roots` names, wherever links lead; move the file there, or add its folder to `roots` in quern.yaml, which a server reads when it starts
        1 mistake
    "#]]);
    let roots = [("QUERN_ROOTS", outside.display().to_string())];
    assert!(holds(&repository, &outside, &roots), "a variable names the root");
    repository.write("quern.yaml", format!("roots: [/nowhere, \"{}\"]\n", outside.display()));
    assert!(holds(&repository, &outside, &[]), "the file of settings does");
    fs::remove_file(repository.path().join("quern.yaml")).unwrap();

    // Whether there is such a file outside, nobody learns.
    let up = "../".repeat(32);
    for path in ["/etc/passwd", "/etc/none", "/dev/zero", "/proc/self/environ", "../*", "data/*/../../../*"] {
        for path in [path.to_owned(), format!("{up}{path}")] {
            repository.write("definitions.yaml", definitions(&path, ""));
            let said = said(&repository, &outside, &[]);
            assert!(said.contains(&format!("`{path}` lies outside of the repository")), "{path}: {said}");
        }
    }
}

#[test]
fn a_link_leads_nowhere_else_and_a_pipe_is_no_file() {
    let folder = outside();
    let outside = folder.path().canonicalize().unwrap();
    let repository = Repository::new(&definitions("data", ""));
    repository.write("data/a.csv", ROWS.replace("topsecret", "x"));
    assert!(holds(&repository, &outside, &[]));
    symlink("a.csv", repository.path().join("data/b.csv")).unwrap();
    assert!(holds(&repository, &outside, &[]), "a link within the repository");
    let check = |expected: Expect| expected.assert_eq(&said(&repository, &outside, &[]));
    symlink(outside.join("secret.csv"), repository.path().join("data/c.csv")).unwrap();
    check(expect![[r#"
        definitions.yaml:7:28: source `s`: `data/c.csv` lies outside of the repository, or is a link that leads out of it
          help: files are read below the repository and below the folders that its setting `roots` names, wherever links lead; move the file there, or add its folder to `roots` in quern.yaml, which a server reads when it starts
        1 mistake
    "#]]);
    repository.write("definitions.yaml", definitions("data/*.csv", ""));
    check(expect![[r#"
        definitions.yaml:7:28: source `s`: `data/c.csv` lies outside of the repository, or is a link that leads out of it
          help: files are read below the repository and below the folders that its setting `roots` names, wherever links lead; move the file there, or add its folder to `roots` in quern.yaml, which a server reads when it starts
        1 mistake
    "#]]);
    fs::remove_file(repository.path().join("data/c.csv")).unwrap();
    symlink(&outside, repository.path().join("data/d")).unwrap();
    repository.write("definitions.yaml", definitions("data", ""));
    check(expect![[r#"
        definitions.yaml:7:28: source `s`: `data` cannot be listed: the folder ROOT/data/d is a link that leads out of the repository
        1 mistake
    "#]]);
    fs::remove_file(repository.path().join("data/d")).unwrap();
    let pipe = repository.path().join("data/e.csv");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    check(expect![[r#"
        definitions.yaml:7:28: source `s`: `data/e.csv` is no regular file
        1 mistake
    "#]]);
    fs::remove_file(pipe).unwrap();
    fs::write(outside.join("more.yaml"), "kind: Entity\nname: topsecret\n").unwrap();
    symlink(outside.join("more.yaml"), repository.path().join("more.yaml")).unwrap();
    check(expect![[r#"
        error: more.yaml lies outside of the repository, or is a link that leads out of it; what is another tool's, `.quernignore` passes over
    "#]]);
}

#[test]
fn a_model_lies_below_the_repository_too() {
    let folder = outside();
    let outside = folder.path().canonicalize().unwrap();
    fs::write(outside.join("m.onnx"), fixture("linear.onnx")).unwrap();
    let repository = Repository::new("");
    repository.write("data/a.csv", ROWS.replace("topsecret", "x"));
    symlink(outside.join("m.onnx"), repository.path().join("link.onnx")).unwrap();
    symlink(&outside, repository.path().join("folder")).unwrap();
    let there = outside.join("m.onnx").display().to_string();
    for path in ["/etc/passwd", "/dev/zero", "../none.onnx", "link.onnx", "folder/m.onnx", "folder", &there] {
        let model = format!(
            "---\nkind: Model\nname: m\nversions: [{{version: \"1\", path: \"{path}\", service: svc}}]\n"
        );
        repository.write("definitions.yaml", definitions("data", &model));
        let said = said(&repository, &outside, &[]);
        assert!(said.contains("lies outside of the repository"), "{path}: {said}");
    }
}

#[test]
fn fault_27_bombs_of_yaml_and_sql_are_mistakes_with_a_place() {
    let laughs = ["a: &a [x, x, x, x, x, x, x, x, x]".to_owned()].into_iter().chain(
        ('b'..='k')
            .zip('a'..='j')
            .map(|(name, before)| format!("{name}: &{name} [{}]", vec![format!("*{before}"); 9].join(", "))),
    );
    let laughs = laughs.collect::<Vec<_>>().join("\n");
    let derived = |expr: String| {
        let more = format!("derived: [{{name: d, expr: \"{expr}\"}}]\n");
        definitions("data", &more)
    };
    let bombs = [
        ("aliases of aliases", format!("kind: Entity\n{laughs}\n")),
        ("an alias of itself", "kind: Entity\na: &a [*a]\n".to_owned()),
        ("brackets", format!("kind: Entity\nname: {}\n", "[".repeat(100_000))),
        ("dashes", format!("kind: Entity\nname:\n  {}x\n", "- ".repeat(100_000))),
        ("braces", format!("kind: Entity\nname: {}\n", "{".repeat(100_000))),
        ("a tag", "kind: Entity\nname: !!python/object/apply:os.system [id]\n".to_owned()),
        (
            "a long name",
            format!("kind: Entity\nname: {}\njoin_keys: [{{name: k, type: int64}}]\n", "a b".repeat(1 << 20)),
        ),
        ("parentheses", derived(format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000)))),
        ("a long sum", derived(vec!["1"; 20_000].join("+"))),
        ("NOT", derived(format!("{}true", "NOT ".repeat(20_000)))),
        ("a cycle", definitions("data", "derived: [{name: p, expr: q + 1}, {name: q, expr: p + 1}]\n")),
    ];
    let repository = Repository::new("");
    repository.write("data/a.csv", ROWS.replace("topsecret", "x"));
    for (what, text) in bombs {
        repository.write("definitions.yaml", text);
        let printed = run_in(repository.path(), &["check"], &[]);
        let said = format!("{}{}", printed.stdout, printed.stderr);
        let shown: String = said.chars().take(400).collect();
        assert_eq!(printed.code, Some(1), "{what}: {shown}");
        assert!(said.contains("definitions.yaml:"), "{what}: {shown}");
        assert!(said.len() < 1 << 16, "{what}: {} bytes", said.len());
    }
}
