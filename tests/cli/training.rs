//! Is the training set of a model version still what it was, and if not, why not?

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use parquet::file::reader::{FileReader, SerializedFileReader};
use quern_kit::{Process, fixture, run};
use serde_json::Value;
use tempfile::TempDir;

use super::commands::{say, starter, words};

const SERVICE: &str = "kind: FeatureService\nname: small_v1\nrequest: [{name: basket, type: float64}]\n\
    features: [last_order]\noutputs: [basket, last_amount, last_price_per_item]\n";
const VERIFY: &str = "verify --training --model next_order --spine";

/// The starter with a model that remembers the training set that `set.parquet` is.
fn trained() -> TempDir {
    let starter = starter();
    let folder = starter.path();
    fs::create_dir(folder.join("models")).unwrap();
    fs::write(folder.join("models/linear.onnx"), fixture("linear.onnx")).unwrap();
    fs::write(folder.join("definitions/small.yaml"), SERVICE).unwrap();
    run(folder, &["apply"]).answer();
    let pin =
        run(folder, &words("train small_v1 --spine spine.csv --out set.parquet --json")).json()["pin"].take();
    assert_eq!(footer(&folder.join("set.parquet")), pin);
    // JSON is YAML.
    let model = format!(
        "kind: Model\nname: next_order\nversions:\n  - version: 1\n    path: models/linear.onnx\n    service: small_v1\n    \
         trained_on: {pin}\n"
    );
    fs::write(folder.join("definitions/model.yaml"), model).unwrap();
    run(folder, &["apply"]).answer();
    starter
}

/// What the metadata of a training set says it was made of.
fn footer(path: &Path) -> Value {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let pairs = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let told = pairs.iter().find(|pair| pair.key == "quern.training_set").unwrap();
    serde_json::from_str(told.value.as_deref().unwrap()).unwrap()
}

fn replace(folder: &Path, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(folder.join(file)).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(folder.join(file), text.replace(from, to)).unwrap();
}

/// What the command says, without digests, which are others on each disk.
fn becomes(folder: &Path, line: &str, expected: Expect) {
    let is_digest = |word: &str| word.len() >= 16 && word.chars().all(|c| c.is_ascii_hexdigit());
    let said = say(folder, line);
    let shown = said.split_inclusive([' ', ')', '\n']).map(|word| {
        let bare = word.trim_end_matches([' ', ')', '\n']);
        if is_digest(bare) { word.replace(bare, "DIGEST") } else { word.to_owned() }
    });
    expected.assert_eq(&shown.collect::<String>());
}

#[test]
fn a_training_set_that_is_made_again_is_the_same() {
    let starter = trained();
    let folder = starter.path();
    let same = "model next_order, version 1: the training set is the same, 3 rows × 6 columns\n";
    assert_eq!(say(folder, &format!("{VERIFY} spine.csv")), same);
    // It has the columns of its spine.
    assert_eq!(say(folder, &format!("{VERIFY} set.parquet")), same);
    let server = Process::start(folder);
    assert_eq!(say(folder, &format!("{VERIFY} spine.csv --version 1")), same);
    drop(server);
}

#[test]
fn what_became_of_a_training_set_is_said() {
    let starter = trained();
    let folder = starter.path();
    // A row that nobody of the spine sees: another state, and the same values.
    let orders = fs::read_to_string(folder.join("data/orders.csv")).unwrap();
    fs::write(folder.join("data/orders.csv"), format!("{orders}eve,2026-01-01T00:00:00Z,1.0,1,false\n"))
        .unwrap();
    becomes(
        folder,
        &format!("{VERIFY} spine.csv"),
        expect![[r#"
            model next_order, version 1: the training set is the same, 3 rows × 6 columns
              source orders: was 1 file of 282 bytes (state DIGEST), 0 rows pushed
                             is  1 file of 319 bytes (state DIGEST), 0 rows pushed
        "#]],
    );
    // A value that one of them saw, and an expression.
    replace(folder, "data/orders.csv", "80.00", "81.00");
    replace(folder, "definitions/customers.yaml", "amount / items", "items / amount");
    run(folder, &["apply"]).answer();
    becomes(
        folder,
        &format!("{VERIFY} spine.csv"),
        expect![[r#"
        exit 2
        model next_order, version 1: the training set is another one
          values differ in: last_amount, last_price_per_item
          feature view last_order: was DIGEST
                                   is  DIGEST
          source orders: was 1 file of 282 bytes (state DIGEST), 0 rows pushed
                         is  1 file of 319 bytes (state DIGEST), 0 rows pushed
    "#]],
    );
    replace(folder, "spine.csv", "nobody,2026-01-06T09:30:00Z,5.5,\n", "");
    becomes(
        folder,
        &format!("{VERIFY} spine.csv"),
        expect![[r#"
        exit 2
        model next_order, version 1: the training set is another one
          it had 3 rows, and has 2: is it the same spine?
          feature view last_order: was DIGEST
                                   is  DIGEST
          source orders: was 1 file of 282 bytes (state DIGEST), 0 rows pushed
                         is  1 file of 319 bytes (state DIGEST), 0 rows pushed
    "#]],
    );
    let said = run(folder, &words(&format!("{VERIFY} spine.csv --json"))).stdout;
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["rows"], serde_json::json!([3, 2]));
}

#[test]
fn what_cannot_be_compared_is_said() {
    let starter = trained();
    let folder = starter.path();
    let said = ["--model none", "--model next_order --version 7"]
        .map(|of| say(folder, &format!("verify --training {of} --spine spine.csv")));
    expect![[r#"
        exit 1
        error: there is no model `none`
        exit 1
        error: model `next_order` has no version `7`
    "#]]
    .assert_eq(&said.concat());
    replace(folder, "definitions/model.yaml", "\"rows\":3", "\"rows\":4");
    becomes(
        folder,
        "check",
        expect![[r#"
        exit 1
        definitions/model.yaml:4:14: `trained_on`: its digest is not that of the rest, so it was changed by hand
          help: take all of it anew, as `quern.training_set` in the metadata of the training set says it
        1 mistake
    "#]],
    );
    replace(folder, "definitions/model.yaml", "trained_on", "# trained_on");
    run(folder, &["apply"]).answer();
    becomes(
        folder,
        &format!("{VERIFY} spine.csv"),
        expect![[r#"
        exit 1
        error: version `1` of model `next_order` does not say on what it was trained, or not to you; say it with `trained_on` in its definition: what `quern.training_set` in the metadata of the training set has
    "#]],
    );
    becomes(
        folder,
        "verify --training",
        expect![[r#"
        exit 2
        error: the following required arguments were not provided:
          --model <MODEL>
          --spine <FILE>

        Usage: quern verify --model <MODEL> --training --spine <FILE> [DIR]

        For more information, try '--help'.
    "#]],
    );
    replace(folder, "definitions/model.yaml", "# trained_on: ", "trained_on: {rows: many} # ");
    becomes(
        folder,
        "check",
        expect![[r#"
        exit 1
        definitions/model.yaml:7:17: a training set lacks the key `columns`
          help: `columns`: Its columns, and the digest of the values of each.
        definitions/model.yaml:7:17: a training set lacks the key `digest`
          help: `digest`: Of all below.
        definitions/model.yaml:7:17: a training set lacks the key `made_of`
          help: `made_of`: Feature service, feature views, sources, functions, and the state of each.
        definitions/model.yaml:7:24: `rows` must be a whole number from 0 to 4294967295, found `many`
        4 mistakes
    "#]],
    );
}
