//! Where may a model come from? An S3 bucket, kept by a server that speaks its protocol, and MLflow, which saves it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use expect_test::{Expect, expect};
use quern::Client;
use quern_kit::{
    ObjectLocation, Process, Repository, fixture, free_port, python_of, required, run_in, until,
};
use serde_json::{Value, json};

use crate::s3::{S3, environment};

/// A service that hands its request on, so that nothing need be materialized.
pub(super) const SERVICE: &str = "
kind: Entity
name: e
join_keys: [{name: k, type: string}]
---
kind: Source
name: rows
push: true
event_timestamp: at
columns: [{name: k, type: string}, {name: at, type: timestamp}, {name: x, type: float64}]
---
kind: FeatureView
name: v
entities: [e]
source: rows
features: [{name: x}]
---
kind: FeatureService
name: s
request: [{name: a, type: float64}, {name: b, type: float64}, {name: c, type: float64}]
features: [v]
outputs: [a, b, c]
---
";

/// A model whose versions lie at these paths.
fn definitions(paths: &[&str]) -> String {
    let version =
        |(i, path): (usize, &&str)| format!("  - {{version: \"{}\", path: \"{path}\", service: s}}\n", i + 1);
    let versions: String = paths.iter().enumerate().map(version).collect();
    let connections = (["s3://models/", "s3://model/", "az://models/"].iter().enumerate())
        .map(|(i, url)| format!("---\nkind: Connection\nname: c{i}\nurl: {url}\n"));
    let connections: String = connections.filter(|_| paths.iter().any(|path| path.contains("://"))).collect();
    format!("{SERVICE}kind: Model\nname: m\nversions:\n{versions}{connections}")
}

pub(super) async fn apply(server: &Process) -> Result<Value, String> {
    let client = Client::connect(&server.url).await.unwrap();
    client.call("/v1/apply", &()).await.map_err(|error| error.to_string())
}

pub(super) async fn predict(server: &Process, version: Option<&str>, rows: &[[f64; 3]]) -> Vec<Value> {
    let client = Client::connect(&server.url).await.unwrap();
    let instances =
        rows.iter().map(|[a, b, c]| json!({"k": "e1", "a": a, "b": b, "c": c}).as_object().unwrap().clone());
    let request = quern::wire::PredictRequest { instances: instances.collect(), with_features: false };
    client.predict_with("m", version, &request).await.unwrap().predictions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_in_a_bucket_goes_live_and_outlives_it() {
    required("ORT_DYLIB_PATH");
    let mut s3 = S3::start().await;
    s3.put("delay/1.onnx", fixture("linear.onnx")).await;
    let (first, second) = ("s3://models/delay/1.onnx", "s3://models/delay/2.onnx");
    let repository = Repository::new(&definitions(&[first]));
    let server = Process::start_in(repository.path(), &s3.environment());
    let answer = async |server: &Process| predict(server, None, &[[1.0, 2.0, 3.0]]).await;

    assert_eq!(apply(&server).await.unwrap()["number"], 1);
    assert_eq!(answer(&server).await, [json!(321.5)]);
    // What did not change is not sent again. The bucket notes an answer when it has sent it.
    assert_eq!(apply(&server).await.unwrap()["applied"], false);
    let counts = || (s3.answers("delay/1.onnx", 200), s3.answers("delay/1.onnx", 304));
    until("what was sent", async || (counts() == (1, 1)).then_some(())).await;

    // What is no model, and what is another one under the old name, is refused; what was live stays live.
    repository.write("definitions.yaml", definitions(&[first, second]));
    s3.put("delay/2.onnx", fixture("linear.onnx")[..100].to_vec()).await;
    let broken = apply(&server).await.unwrap_err();
    assert!(broken.contains("definitions.yaml:28:15: ONNX Runtime does not load the file"), "{broken}");
    s3.put("delay/1.onnx", fixture("total.onnx")).await;
    s3.put("delay/2.onnx", fixture("linear.onnx")).await;
    let other = apply(&server).await.unwrap_err();
    assert!(other.contains("the model's output `sum`: it has the shape []"), "{other}");
    assert_eq!(answer(&server).await, [json!(321.5)]);

    // Both versions are sound again, and the second goes live.
    s3.put("delay/1.onnx", fixture("linear.onnx")).await;
    assert_eq!(apply(&server).await.unwrap()["number"], 2);

    s3.server.kill();
    let gone = apply(&server).await.unwrap_err();
    assert!(gone.contains("`s3://models/delay/1.onnx` cannot be read"), "{gone}");
    assert_eq!(answer(&server).await, [json!(321.5)]);
    server.terminate();
    let server = Process::start_in(repository.path(), &s3.environment());
    assert_eq!(answer(&server).await, [json!(321.5)]);
    assert_eq!(predict(&server, Some("1"), &[[1.0, 2.0, 3.0]]).await, [json!(321.5)]);
}

/// What `quern check` says of a model at `path`.
fn said(path: &str, environment: &[(&str, String)]) -> String {
    let repository = Repository::new(&definitions(&[path]));
    let printed = run_in(repository.path(), &["check"], environment);
    // A port is another one each time.
    let url = &environment[0].1;
    format!("{}{}", printed.stdout, printed.stderr).replace(url.trim_start_matches("http://"), "HOST")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_said_where_it_is_named() {
    required("ORT_DYLIB_PATH");
    let s3 = S3::start().await;
    s3.put("linear.onnx", fixture("linear.onnx")).await;
    s3.put("external.onnx", fixture("external.onnx")).await;
    s3.put("forest/MLmodel", "flavors: {sklearn: {}}").await;
    s3.put("gone/MLmodel", "flavors: {onnx: {data: model.onnx}}").await;
    let check = |path: &str, expected: Expect| expected.assert_eq(&said(path, &s3.environment()));
    check(
        "s3://models/linear.onnx",
        expect![[r#"
            the definitions hold: entities 1, sources 1, feature views 1, feature services 1, models 1, connections 3

            model `m`, version `1`: tried on zeros, it says of the first row: y 0.5
              input  takes           from
              input  float32 [N, 3]  a, b, c (float64, rounded, null: NaN)
        "#]],
    );
    check(
        "s3://models/linaer.onnx",
        expect![[r#"
        definitions.yaml:27:15: `s3://models/linaer.onnx`: there is no such object
          help: mend the URL; it names an object, or what the names of others begin with, as a folder does
        1 mistake
    "#]],
    );
    check(
        "s3://model/linear.onnx",
        expect![[r#"
            definitions.yaml:27:15: `s3://model/linear.onnx`: there is no such bucket
              help: mend the URL; the store and who asks are said by its connection (`endpoint`, `region`, `credentials`) or, as here, by the environment of this process: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and, for another store than Amazon's, `AWS_ENDPOINT_URL`
            1 mistake
        "#]],
    );
    check(
        "s3://models/forest",
        expect![[r#"
        definitions.yaml:27:15: `s3://models/forest`: `MLmodel` lists no flavour `onnx`
          help: name an ONNX file, or the folder of a model that was saved with `mlflow.onnx.save_model`
        1 mistake
    "#]],
    );
    check(
        "s3://models/gone/",
        expect![[r#"
        definitions.yaml:27:15: `s3://models/gone/model.onnx`: there is no such object
          help: mend the URL; it names an object, or what the names of others begin with, as a folder does
        1 mistake
    "#]],
    );
    check(
        "s3://models/external.onnx",
        expect![[r#"
            definitions.yaml:27:15: the weights of `s3://models/external.onnx` lie in other files (ONNX's external data), and `s3://models/weights.data`: there is no such object
              help: keep them in the model's folder, as they were exported, or put the model into one file with `onnx.save(onnx.load(PATH), PATH)`; all together it may have 2 GiB
            1 mistake
        "#]],
    );
    check(
        "s3://models",
        expect![[r#"
        definitions.yaml:27:15: `s3://models` names no object in its bucket
          help: a URL is written as in `s3://bucket/key`, `gs://bucket/key` or `az://container/key`
        1 mistake
    "#]],
    );
    check(
        "s3://me:secret@models/linear.onnx",
        expect![[r#"
            definitions.yaml:27:26: `path` must hold neither a user nor a password: a stream says them in its own `servers`, and for an object store the environment of the server does
              help: a URL is written as in `s3://bucket/key`, `gs://bucket/key` or `az://container/key`
            1 mistake
        "#]],
    );
    check(
        "s3://models/linear.onnx?versionId=1",
        expect![[r#"
            definitions.yaml:27:26: `path` has `?` or `#`; in a key they are written `%3F` and `%23`
              help: a URL is written as in `s3://bucket/key`, `gs://bucket/key` or `az://container/key`
            1 mistake
        "#]],
    );
    check(
        "https://models.s3.amazonaws.com/linear.onnx",
        expect![[r#"
        definitions.yaml:27:26: `path` is a URL of the unknown scheme `https`
          help: known: abfs, abfss, adl, az, azure, gs, s3, s3a
        1 mistake
    "#]],
    );
    check(
        "az://models/linear.onnx",
        expect![[r#"
            definitions.yaml:27:15: `az://models/linear.onnx` cannot be read: Account must be specified
              help: the store and who asks are said by its connection (`endpoint`, `region`, `credentials`) or, as here, by the environment of this process: `AZURE_STORAGE_ACCOUNT_NAME` and `AZURE_STORAGE_ACCOUNT_KEY`
            1 mistake
        "#]],
    );

    let mut nobody = s3.environment();
    nobody.push(("AWS_SKIP_SIGNATURE", "true".to_owned()));
    expect![[r#"
        definitions.yaml:27:15: `s3://models/linear.onnx`: access is refused; the store says: Server returned non-2xx status code: 403 Forbidden
          help: an object that is missing may look like this too; the store and who asks are said by its connection (`endpoint`, `region`, `credentials`) or, as here, by the environment of this process: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and, for another store than Amazon's, `AWS_ENDPOINT_URL`
        1 mistake
    "#]].assert_eq(&said("s3://models/linear.onnx", &nobody));
    let nowhere = environment(&format!("http://127.0.0.1:{}", free_port()));
    expect![[r#"
        definitions.yaml:27:15: `s3://models/linear.onnx` cannot be read: Connection refused (os error 111)
          help: the store and who asks are said by its connection (`endpoint`, `region`, `credentials`) or, as here, by the environment of this process: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and, for another store than Amazon's, `AWS_ENDPOINT_URL`
        1 mistake
    "#]].assert_eq(&said("s3://models/linear.onnx", &nowhere));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_lie_where_a_connection_leads() {
    required("ORT_DYLIB_PATH");
    let s3 = S3::start().await;
    s3.put("external.onnx", fixture("external.onnx")).await;
    let url = "s3://models/external.onnx";
    let text = definitions(&[url]).replace("url: s3://models/\n", &format!("url: {url}\n"));
    let repository = Repository::new(&text);
    let printed = run_in(repository.path(), &["check"], &s3.environment());
    let cause = "and no connection of its project leads to `s3://models/weights.data`";
    assert!(printed.stderr.contains(cause), "{}", printed.stderr);
}

/// Saves a model as a user of MLflow does, and says what it answers alone, in ONNX Runtime's own binding.
const SAVE: &str = r#"
import json, sys
import mlflow.onnx, numpy, onnx, onnxruntime
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

kind, folder, rows = sys.argv[1], sys.argv[2], numpy.array(json.loads(sys.argv[3]), numpy.float32)
random = numpy.random.default_rng(7)
weights = [random.normal(size=size).astype(numpy.float32) for size in [(3, 300), (300, 1)]]
float32 = onnx.TensorProto.FLOAT
graph = onnx.helper.make_graph(
    [
        onnx.helper.make_node("MatMul", ["input", "w0"], ["hidden"]),
        onnx.helper.make_node("Tanh", ["hidden"], ["active"]),
        onnx.helper.make_node("MatMul", ["active", "w1"], ["y"]),
    ],
    "network",
    [onnx.helper.make_tensor_value_info("input", float32, ["N", 3])],
    [onnx.helper.make_tensor_value_info("y", float32, ["N", 1])],
    [onnx.numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
)
model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
alone = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"input": rows})[0]
tensor = lambda name, width: Schema([TensorSpec(numpy.dtype("float32"), (-1, width), name)])
mlflow.onnx.save_model(
    model,
    folder,
    signature=ModelSignature(tensor("input", 3), tensor("y", 1)),
    pip_requirements=["onnxruntime"],
    save_as_external_data=kind == "external",
)
print(json.dumps(alone[:, 0].tolist()))
"#;

fn save(kind: &str, folder: &Path, rows: &[[f64; 3]]) -> Vec<Value> {
    let mut command = Command::new(python_of("mlflow"));
    command.args(["-c", SAVE, kind]).arg(folder).arg(json!(rows).to_string());
    let saved = command.output().unwrap();
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    serde_json::from_slice(&saved.stdout).unwrap()
}

pub(super) fn bits(scores: &[Value]) -> Vec<u32> {
    scores.iter().map(|score| (score.as_f64().unwrap() as f32).to_bits()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mlflow_saved_answers_as_the_model_does_alone() {
    required("ORT_DYLIB_PATH");
    let rows = [[0.5, -1.0, 2.0], [0.0, 0.0, 0.0], [1e-3, 7.0, -3.25]];
    let s3 = S3::start().await;
    let repository = Repository::new(&definitions(&["models/whole", "s3://models/whole"]));
    let alone = save("whole", &repository.path().join("models/whole"), &rows);
    s3.put_folder("whole", &repository.path().join("models/whole")).await;
    let server = Process::start_in(repository.path(), &s3.environment());
    apply(&server).await.unwrap();
    for version in ["1", "2"] {
        assert_eq!(bits(&predict(&server, Some(version), &rows).await), bits(&alone), "version {version}");
    }

    // As MLflow saves where nobody tells it otherwise: the weights go into a file of another name each time.
    let folder = repository.path().join("models/parts");
    let alone = save("external", &folder, &rows);
    s3.put_folder("parts", &folder).await;
    let names = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let weights = names.into_iter().find(|name| name.ends_with(".data")).unwrap();
    let parts = ["models/whole", "s3://models/whole", "models/parts", "s3://models/parts"];
    repository.write("definitions.yaml", definitions(&parts));
    apply(&server).await.unwrap();
    // Whoever has the model does not need the file again.
    fs::remove_file(folder.join(&weights)).unwrap();
    for version in ["3", "4"] {
        assert_eq!(bits(&predict(&server, Some(version), &rows).await), bits(&alone), "version {version}");
    }
}

#[test]
fn weights_lie_in_the_folder_of_their_model() {
    required("ORT_DYLIB_PATH");
    let repository = Repository::new(&definitions(&["models/external.onnx"]));
    repository.write("models/external.onnx", fixture("external.onnx"));
    let check = |expected: Expect| {
        let printed = run_in(repository.path(), &["check"], &[]);
        expected.assert_eq(&format!("{}{}", printed.stdout, printed.stderr));
    };
    check(expect![[r#"
        definitions.yaml:27:15: the weights of `models/external.onnx` lie in other files (ONNX's external data), and `weights.data` cannot be read: No such file or directory (os error 2)
          help: keep them in the model's folder, as they were exported, or put the model into one file with `onnx.save(onnx.load(PATH), PATH)`; all together it may have 2 GiB
        1 mistake
    "#]]);
    let weights = repository.path().join("models/weights.data");
    let numbers: Vec<u8> = [1.0_f32, 10.0, 100.0].iter().flat_map(|number| number.to_le_bytes()).collect();
    fs::write(&weights, &numbers[..8]).unwrap();
    let printed = run_in(repository.path(), &["check"], &[]);
    let said = format!("{}{}", printed.stdout, printed.stderr);
    assert!(said.contains("'w': raw_data size (8 bytes)"), "{said}");
    fs::write(&weights, &numbers).unwrap();
    check(expect![[r#"
        the definitions hold: entities 1, sources 1, feature views 1, feature services 1, models 1

        model `m`, version `1`: tried on zeros, it says of the first row: y 0.5
          input  takes           from
          input  float32 [N, 3]  a, b, c (float64, rounded, null: NaN)
    "#]]);
    fs::remove_file(&weights).unwrap();
    fs::write(repository.path().join("secret"), &numbers).unwrap();
    symlink("../secret", &weights).unwrap();
    check(expect![[r#"
        definitions.yaml:27:15: the weights of `models/external.onnx` lie in other files (ONNX's external data), and `weights.data` is a link that leads out of the model's folder
          help: keep them in the model's folder, as they were exported, or put the model into one file with `onnx.save(onnx.load(PATH), PATH)`; all together it may have 2 GiB
        1 mistake
    "#]]);
}

#[test]
fn a_url_names_an_object_of_a_cloud() {
    let shown = |text: &str| match ObjectLocation::parse(text) {
        Ok(location) => format!("{location} → {}", location.join("data/model.onnx")),
        Err(cause) => cause,
    };
    let urls = [
        "s3://bucket/a/b.onnx",
        "s3a://bucket/a%20b/",
        "gs://bucket/folder",
        "az://container/folder",
        "abfss://container@account.dfs.core.windows.net/folder",
        "gs://bucket/",
        "s3:///key",
        "file:///etc/passwd",
        "s3://bucket/key#part",
        "s3://[bucket/key",
    ];
    expect![[r#"
        s3://bucket/a/b.onnx → s3://bucket/a/b.onnx/data/model.onnx
        s3a://bucket/a%20b/ → s3a://bucket/a%20b/data/model.onnx
        gs://bucket/folder → gs://bucket/folder/data/model.onnx
        az://container/folder → az://container/folder/data/model.onnx
        abfss://container@account.dfs.core.windows.net/folder → abfss://container@account.dfs.core.windows.net/folder/data/model.onnx
        `gs://bucket/` names no object in its bucket
        `s3:///key` is not the URL of an object, as in `s3://bucket/key`
        `file:///etc/passwd` is not the URL of an object, as in `s3://bucket/key`
        a URL of an object has no `?` or `#`; in a key they are written `%3F` and `%23`
        `s3://[bucket/key` is not a URL: invalid IPv6 address"#]].assert_eq(&urls.map(shown).join("\n"));
}
