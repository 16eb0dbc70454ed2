//! The flights example, whole: is its training set, value for value, what DuckDB's own join says?

use quern_kit::{required, root, run};
use std::fs;
use std::path::Path;
use std::process::Command;

fn python(script: &Path, arguments: &[&Path]) {
    let mut command = Command::new(required("QUERN_PYTHON"));
    let output = command.arg(script).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}:\n{}{}",
        script.display(),
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[test]
fn the_training_set_of_all_flights_equals_an_independent_join() {
    let example = root().join("feature-defs/examples/flights");
    let folder = tempfile::tempdir().unwrap();
    let (root, data) = (folder.path(), folder.path().join("data"));
    fs::copy(example.join("quern.yaml"), root.join("quern.yaml")).unwrap();
    fs::create_dir(root.join("definitions")).unwrap();
    for file in fs::read_dir(example.join("definitions")).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, root.join("definitions").join(path.file_name().unwrap())).unwrap();
    }
    python(&example.join("prepare.py"), &[Path::new("--data"), &data]);

    run(root, &["apply"]).answer();
    let train =
        ["train", "arrival_delay_v1", "--spine", "data/spine.parquet", "--out", "set.parquet", "--json"];
    assert_eq!(run(root, &train).json()["rows"], 336_776);
    python(&example.join("check_asof.py"), &[&root.join("set.parquet"), Path::new("--data"), &data]);
}
