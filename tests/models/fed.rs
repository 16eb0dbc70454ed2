//! Which models go live as they were exported, whatever their inputs are called and however they are shaped, and on
//! what are they tried?

use expect_test::{Expect, expect};
use quern_kit::{Printed, Repository, Server, fixture, required, run_in};
use serde_json::{Value, json};

/// Wines of a CSV file, and what a request brings of one.
const SERVICE: &str = "\
kind: Entity
name: wine
join_keys: [{name: id, type: int64}]
---
kind: Source
name: wines
batch: {format: csv, path: wines.csv}
event_timestamp: at
columns:
  - {name: id, type: int64}
  - {name: at, type: timestamp}
  - {name: city, type: string}
  - {name: fixed_acidity, type: float64}
  - {name: grape, type: int32}
---
kind: FeatureView
name: v
entities: [wine]
source: wines
features:
  - {name: city, default: Bonn}
  - fixed_acidity
  - {name: grape, default: 1}
---
kind: FeatureService
name: s
features: [v]
---
kind: FeatureService
name: asked
request: [{name: town, type: string, default: \"\"}, {name: year, type: int32, default: 2}]
features: [v]
outputs: [town, year, fixed_acidity]
---
";
const WINES: &str = "\
id,at,city,fixed_acidity,grape
1,2024-01-01T00:00:00Z,Ulm,0.5,3
2,2024-01-02T00:00:00Z,Bonn,7.25,1000
";
const PREDICT: &str = "/v1/models/m:predict";

fn repository(version: &str, onnx: &str) -> Repository {
    let model = format!("kind: Model\nname: m\nversions:\n  - {{version: 1, path: m.onnx, {version}}}\n");
    let repository = Repository::new(&format!("{SERVICE}{model}"));
    repository.write("wines.csv", WINES);
    repository.write("m.onnx", fixture(onnx));
    repository
}

fn check(version: &str, onnx: &str, expected: Expect) {
    required("ORT_DYLIB_PATH");
    let Printed { stdout, stderr, .. } = run_in(repository(version, onnx).path(), &["check"], &[]);
    let counted =
        "the definitions hold: entities 1, sources 1, feature views 1, feature services 2, models 1\n";
    expected.assert_eq(&format!("{}{stderr}", stdout.strip_prefix(counted).unwrap_or(&stdout)));
}

async fn serve(version: &str, onnx: &str) -> Server {
    let server = Server::open(repository(version, onnx)).await;
    server.apply().await.unwrap();
    server
}

async fn materialize(server: &Server) {
    assert_eq!(server.ask("POST", "/v1/materialize", "{}".to_owned()).await.0, 200);
}

async fn ask(server: &Server, instances: Value) -> String {
    let (status, text) = server.ask("POST", PREDICT, json!({ "instances": instances }).to_string()).await;
    let reply: Value = serde_json::from_str(&text).unwrap();
    match status {
        200 => reply["predictions"].to_string(),
        _ => format!("{status} {}", reply["error"].as_str().unwrap()),
    }
}

const GROUPS: &str = "service: s, outputs: [\"dense/out:0\"], \
                      inputs: {\"serving_default_ids:0\": [grape, grape], fixed acidity: fixed_acidity}";

#[test]
fn check_shows_what_fills_each_input() {
    check(
        "service: asked, outputs: [\"dense/out:0\"], \
         inputs: {\"serving_default_ids:0\": [year, year], fixed acidity: {columns: fixed_acidity, shape: [1]}}",
        "groups.onnx",
        expect![[r#"

            model `m`, version `1`: tried on rows of its history
              input                  takes           from
              fixed acidity          float32 [N, 1]  fixed_acidity (float64, rounded, null: NaN)
              serving_default_ids:0  int8 [N, 2]     year, year (int32, what does not fit is refused, null: 2)
        "#]],
    );
    check(
        GROUPS,
        "groups.onnx",
        expect![[r#"
        definitions.yaml:38:15: tried on 2 row(s) of its history, the model fails: instance 1, column `grape`: lies beyond what int8 holds, as the model's input is
          help: mend what it is fed; or, where it is right to refuse some of these, give it `examples:` that it must have an answer for instead
        1 mistake
    "#]],
    );
    check(
        "service: s",
        "groups.onnx",
        expect![[r#"
        definitions.yaml:38:15: the model does not fit feature service `s`:
          - no input of the model is named `city` (known: fixed acidity, serving_default_ids:0); leave it out of the service's `outputs`, or say under `inputs` what it fills
          - no input of the model is named `fixed_acidity` (did you mean `fixed acidity`? known: fixed acidity, serving_default_ids:0); leave it out of the service's `outputs`, or say under `inputs` what it fills
          - no input of the model is named `grape` (known: fixed acidity, serving_default_ids:0); leave it out of the service's `outputs`, or say under `inputs` what it fills
          - no column is named `fixed acidity`, as the model's input is (did you mean `fixed_acidity`? known: city, fixed_acidity, grape)
          - no column is named `serving_default_ids:0`, as the model's input is (known: city, fixed_acidity, grape)
        feature service `s`       |  model
          city  string            |    fixed acidity  float32 [N, 1]
          fixed_acidity  float64  |    serving_default_ids:0  int8 [N, 2]
          grape  int32            |
        1 mistake
    "#]],
    );
    check(
        "service: s, outputs: [dense]",
        "groups.onnx",
        expect![[r#"
        definitions.yaml:38:15: `outputs`: the model has no output `dense` (did you mean `dense/out:0`? known: dense/out:0, wide)
        1 mistake
    "#]],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_columns_go_into_inputs_of_any_name() {
    let version = GROUPS.replace("service: s", "service: asked").replace("grape", "year");
    let server = serve(&version, "groups.onnx").await;
    let instances = json!([{"id": 1, "town": "Ulm", "year": 3}, {"id": 2, "town": "", "year": -128}]);
    assert_eq!(ask(&server, instances).await, "[null,null]");
    materialize(&server).await;
    let instances = json!([{"id": 1, "town": "Ulm", "year": 3}, {"id": 2, "town": "", "year": -128}]);
    assert_eq!(ask(&server, instances).await, "[330.5,-14072.75]");
    // What 8 bits do not hold is nobody else's number.
    let beyond = ask(&server, json!([{"id": 1, "town": "Ulm", "year": 128}])).await;
    assert_eq!(beyond, "400 instance 0, column `year`: lies beyond what int8 holds, as the model's input is");
    // The same after a restart, and to whoever applies the same again.
    let server = Server::open(server.stop_and_keep().await).await;
    let instances = json!([{"id": 1, "town": "Ulm", "year": 3}, {"id": 2, "town": "", "year": -128}]);
    assert_eq!(ask(&server, instances).await, "[330.5,-14072.75]");
    assert_eq!(server.apply().await.unwrap()["changes"], json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_four_rows_at_a_time_answers_any_number() {
    for isolation in ["thread", "process"] {
        let repository = repository("service: s, inputs: [fixed_acidity, grape, grape]", "by_four.onnx");
        let file = repository.path().join("definitions.yaml");
        let definitions = std::fs::read_to_string(&file).unwrap();
        repository.write("definitions.yaml", format!("{definitions}isolation: {isolation}\n"));
        let server = Server::open(repository).await;
        server.apply().await.unwrap();
        materialize(&server).await;
        for rows in [1, 3, 4, 9] {
            let instances: Vec<Value> = (0..rows).map(|row| json!({"id": 1 + row % 2})).collect();
            let right: Vec<f64> =
                (0..rows).map(|row| if row % 2 == 0 { 331.0 } else { 110_007.75 }).collect();
            assert_eq!(ask(&server, json!(instances)).await, json!(right).to_string(), "{isolation} {rows}");
        }
        server.stop().await;
    }
}

#[test]
fn a_model_is_tried_on_what_it_may_know() {
    // Bonn and Ulm are all that it knows, and history has no other.
    check(
        "service: s, inputs: [city]",
        "strict.onnx",
        expect![[r#"

        model `m`, version `1`: tried on rows of its history
          input  takes       from
          city   string [N]  city (string, null: "Bonn")
    "#]],
    );
    // A town that nobody declares a default for, in a request that nobody has made.
    check(
        "service: asked, inputs: {city: town}",
        "strict.onnx",
        expect![[r#"

        model `m`, version `1`: tried on 1 row(s) of defaults, the model fails: Non-zero status code returned while running OneHotEncoder node. Name:'' Status Message: Unknown Category and zeros = 0.; with `examples:` it is tried on rows that it knows
          input  takes       from
          city   string [N]  town (string, null: "")
    "#]],
    );
    check(
        "service: asked, inputs: {city: town}",
        "strict_open.onnx",
        expect![[r#"
            definitions.yaml:38:15: tried on 1 row(s) of defaults, the model fails: Non-zero status code returned while running OneHotEncoder node. Name:'' Status Message: Unknown Category and zeros = 0.; give the version `examples:` that it has an answer for
            1 mistake
        "#]],
    );
    let examples = |rows: &str| format!("service: asked, inputs: {{city: town}}, examples: [{rows}]");
    check(
        &examples("{town: Ulm}, {town: Bonn, year: 1999}"),
        "strict_open.onnx",
        expect![[r#"

            model `m`, version `1`: tried on its examples, it says of the first row: some [0.0, 1.0]
              input  takes       from
              city   string [N]  town (string, null: "")
        "#]],
    );
    check(
        &examples("{town: Ulm}, {town: Oslo}"),
        "strict.onnx",
        expect![[r#"
            definitions.yaml:38:15: tried on example 2, the model fails: Non-zero status code returned while running OneHotEncoder node. Name:'' Status Message: Unknown Category and zeros = 0.
            1 mistake
        "#]],
    );
    check(
        &examples("{town: 3}"),
        "strict.onnx",
        expect![[r#"
        definitions.yaml:38:82: example: `town`, which is string, must be a text (quote it); found 3
        1 mistake
    "#]],
    );
    check(
        &examples("{city: Ulm}"),
        "strict.onnx",
        expect![[r#"
        definitions.yaml:38:82: feature service `asked` has no column `city`
          help: known: fixed_acidity, town, year
        1 mistake
    "#]],
    );
}

#[test]
fn rows_of_history_that_a_model_says_no_to_keep_it_away() {
    required("ORT_DYLIB_PATH");
    let repository = repository("service: s, inputs: [city]", "strict.onnx");
    repository.write("wines.csv", format!("{WINES}3,2024-01-03T00:00:00Z,Oslo,1.5,4\n"));
    let printed = run_in(repository.path(), &["check"], &[]);
    expect![[r#"
        definitions.yaml:38:15: tried on 3 row(s) of its history, the model fails: running the model: Non-zero status code returned while running OneHotEncoder node. Name:''
          help: mend what it is fed; or, where it is right to refuse some of these, give it `examples:` that it must have an answer for instead
        1 mistake
    "#]].assert_eq(&printed.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_encoder_fails_for_whom_it_does_not_know_alone() {
    let server = serve("service: asked, inputs: {city: town}", "strict.onnx").await;
    assert_eq!(ask(&server, json!([{"id": 1, "town": "Ulm", "year": 3}])).await, "[[0.0,1.0]]");
    let unknown = ask(&server, json!([{"id": 1, "town": "Oslo", "year": 3}])).await;
    assert!(unknown.starts_with("500 the server failed"), "{unknown}");
    assert_eq!(ask(&server, json!([{"id": 1, "town": "Bonn", "year": 3}])).await, "[[1.0,0.0]]");
    server.stop().await;
}

/// Whose fault is a value that a model cannot take? Theirs who brought it; one that was looked up is the version's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_was_looked_up_is_no_fault_of_the_caller() {
    let service = "kind: FeatureService\nname: three\nrequest: [{name: year, type: int32, default: 0}]\nfeatures: [v]\n\
         outputs: [fixed_acidity, grape, year]\n---\n";
    let model = |name: &str, more: &str| {
        let fed = "{\"serving_default_ids:0\": [grape, year], fixed acidity: fixed_acidity}";
        format!(
            "kind: Model\nname: {name}\nversions:\n  - {{version: 1, path: m.onnx, service: three, inputs: {fed}, \
             outputs: [\"dense/out:0\"]}}\n{more}"
        )
    };
    let models = format!("{}---\n{}", model("m", ""), model("f", "fallback: {to: [{constant: 7}]}\n"));
    let repository = Repository::new(&format!("{SERVICE}{service}{models}"));
    let known: Vec<&str> = WINES.lines().take(2).collect();
    repository.write("wines.csv", known.join("\n"));
    repository.write("m.onnx", fixture("groups.onnx"));
    let server = Server::open(repository).await;
    server.apply().await.unwrap();
    // Of a kind that 8 bits do not hold.
    server.repository.write("wines.csv", WINES);
    materialize(&server).await;
    let mut said = String::new();
    for (id, year) in [(1, 2), (2, 2), (1, 1_000)] {
        said += &format!("{}\n", ask(&server, json!([{"id": id, "year": year}])).await);
    }
    let body = json!({"instances": [{"id": 2, "year": 2}, {"id": 1, "year": 2}]}).to_string();
    said += &server.ask("POST", "/v1/models/f:predict", body).await.1;
    expect![[r#"
        [230.5]
        500 model `m`, version `1`: instance 0, column `grape`: lies beyond what int8 holds, as the model's input is
        400 instance 0, column `year`: lies beyond what int8 holds, as the model's input is
        {"predictions":[7.0,7.0],"served_by":["constant","constant"],"fallbacks":[{"instances":[0,1],"served_by":"constant","cause":"error","detail":"model `f`, version `1`: instance 0, column `grape`: lies beyond what int8 holds, as the model's input is"}]}"#]].assert_eq(&said);
    server.stop().await;
}
