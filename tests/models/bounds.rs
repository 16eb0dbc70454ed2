//! Does a model stay within bounds, whatever its file holds? One that ends or hangs a process ends its own, and one
//! that is damaged keeps no other from answering.

use std::fs;
use std::path::Path;

use quern_kit::{Random, Repository, Server, fixture};
use serde_json::Value;

/// A service that hands its request on, as these types.
pub(super) fn service(types: [&str; 3]) -> String {
    let columns = ["a", "b", "c"].iter().zip(types);
    let columns: Vec<_> =
        columns.map(|(name, dtype)| format!("{{name: {name}, type: {dtype}, default: 0}}")).collect();
    format!(
        "
kind: Entity
name: e
join_keys: [{{name: k, type: string}}]
---
kind: Source
name: rows
push: true
event_timestamp: at
columns: [{{name: k, type: string}}, {{name: at, type: timestamp}}, {{name: x, type: float64}}]
---
kind: FeatureView
name: v
entities: [e]
source: rows
features: [{{name: x}}]
---
kind: FeatureService
name: s
request: [{}]
features: [v]
outputs: [a, b, c]
---
",
        columns.join(", ")
    )
}

/// A model of the file `m.onnx`, and what else is said of it.
pub(super) fn model(types: [&str; 3], rest: &str) -> String {
    format!(
        "{}kind: Model\nname: m\nversions:\n  - {{version: \"1\", path: m.onnx, service: s}}\n{rest}",
        service(types)
    )
}

pub(super) async fn serve(definitions: &str, files: &[(&str, &[u8])]) -> Server {
    let repository = Repository::new(definitions);
    files.iter().for_each(|(name, bytes)| repository.write(name, bytes));
    Server::open(repository).await
}

/// What the model says of one row: the predictions, or status and code.
pub(super) async fn ask(server: &Server, path: &str, [a, b, c]: [i64; 3]) -> String {
    let body = format!(r#"{{"instances": [{{"k": "e1", "a": {a}, "b": {b}, "c": {c}}}]}}"#);
    let (status, text) = server.ask("POST", path, body).await;
    let reply: Value = serde_json::from_str(&text).unwrap();
    match status {
        200 => reply["predictions"].to_string(),
        _ => format!("{status} {}", reply["code"].as_str().unwrap()),
    }
}

pub(super) const PREDICT: &str = "/v1/models/m:predict";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_07_a_warm_up_that_never_ends_is_given_up() {
    let definitions = model(["float64"; 3], "");
    let server = serve(&definitions, &[("m.onnx", &fixture("linear.onnx"))]).await;
    server.apply().await.unwrap();
    let twice = definitions.replace(
        "path: m.onnx, service: s}\n",
        "path: m.onnx, service: s}\n  - {version: \"2\", path: n.onnx, service: s}\n",
    );
    server.repository.write("definitions.yaml", twice);
    server.repository.write("n.onnx", fixture("endless.onnx"));
    let refused = server.apply().await.unwrap_err();
    assert!(refused.contains("the worker process of the model was still busy after 3 s"), "{refused}");
    // What was live is.
    assert_eq!(ask(&server, PREDICT, [1, 2, 3]).await, "[321.5]");
    server.stop().await;
}

/// The model files that the registry keeps.
fn stored(data: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(data.join("models")).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "onnx"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_03_a_flipped_bit_in_a_stored_model_costs_that_version_alone() {
    // Two versions, each half of the entities; and a model beside them that falls back.
    let definitions = service(["float64"; 3])
        + "kind: Model
name: m
versions:
  - {version: \"1\", path: m.onnx, service: s}
  - {version: \"2\", path: n.onnx, service: s}
---
kind: Model
name: safe
versions:
  - {version: \"1\", path: m.onnx, service: s}
  - {version: \"2\", path: n.onnx, service: s}
route: {weights: {\"2\": 1}}
fallback: {to: [{version: \"1\"}]}
";
    let (linear, fragile) = (fixture("linear.onnx"), fixture("fragile.onnx"));
    let server = serve(&definitions, &[("m.onnx", &linear), ("n.onnx", &fragile)]).await;
    server.apply().await.unwrap();
    assert_eq!(ask(&server, PREDICT, [1, 2, 3]).await, "[321.5]");
    let repository = server.stop_and_keep().await;
    let files = stored(&repository.path().join(".quern"));
    let damaged = files.iter().find(|path| fs::read(path).unwrap() == fragile).unwrap();
    let mut bytes = fragile.clone();
    bytes[fragile.len() / 2] ^= 1;
    fs::write(damaged, bytes).unwrap();

    let server = Server::open(repository).await;
    assert_eq!(ask(&server, PREDICT, [1, 2, 3]).await, "503 unavailable");
    assert_eq!(ask(&server, "/v1/models/m/versions/1:predict", [1, 2, 3]).await, "[321.5]");
    let (_, status) = server.ask("GET", "/v1/models/m", "").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    let states: Vec<_> = status["model_version_status"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["AVAILABLE", "END"]);
    assert!(status.to_string().contains("damaged"), "{status}");
    assert_eq!(server.ask("GET", "/v2/models/m/versions/1/ready", "").await.0, 200);
    assert_eq!(server.ask("GET", "/v2/models/m/versions/2/ready", "").await.0, 503);
    let (_, safe) = server
        .ask("POST", "/v1/models/safe:predict", r#"{"instances": [{"k": "e1", "a": 1, "b": 2, "c": 3}]}"#)
        .await;
    assert!(safe.contains("321.5") && safe.contains("unavailable"), "{safe}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_04_mutated_onnx_is_judged_in_a_child_in_bounded_time() {
    let definitions = model(["float64"; 3], "");
    let mut random = Random::seeded(4);
    let (mut live, mut refused, rounds) = (0, 0, quern_kit::cases(12));
    for name in ["linear.onnx", "slow.onnx"] {
        let sound = fixture(name);
        for round in 0..rounds {
            let mut onnx = sound.clone();
            let place = random.below(onnx.len() as u64) as usize;
            match round % 3 {
                0 => onnx.truncate(place),
                1 => onnx[place] ^= 1 << random.below(8),
                _ => onnx[place..].iter_mut().take(8).for_each(|byte| *byte = random.below(256) as u8),
            }
            let server = serve(&definitions, &[("m.onnx", &onnx)]).await;
            match server.apply().await {
                Ok(_) => live += 1,
                Err(told) => {
                    assert!(told.starts_with("422 "), "{told}");
                    refused += 1;
                }
            }
            server.stop().await;
        }
    }
    assert_eq!(live + refused, 2 * rounds);
    assert!(live > 0 && refused > rounds / 2, "{live} live, {refused} refused");
}
