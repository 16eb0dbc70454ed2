//! Which version does MLflow's registry mean, and what becomes of it? A tracking server that asks for a password, with
//! artifacts behind it, on this machine and in a bucket.

use std::path::Path;
use std::process::Command;

use expect_test::{Expect, expect};
use quern::Client;
use quern_kit::{Beside, Process, Repository, free_port, python_of, required, run_in};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::artifacts::{SERVICE, apply, bits, predict};
use crate::s3::S3;

/// Starts the server in the process that `mlflow server` would wait for, so that it ends with it.
const SERVE: &str = "
import os, sys
import mlflow.cli, mlflow.server

def execute(command, extra_env, **_):
    os.execvpe(command[0], command, {**os.environ, **extra_env})

mlflow.server._exec_cmd = execute
mlflow.cli.cli(sys.argv[1:])
";

/// Logs and registers models as a user does: four of `fraud`, which lie in three places, and one that is not in ONNX.
/// Says what each of the four answers alone.
const REGISTER: &str = r#"
import json, sys
import mlflow, mlflow.onnx, mlflow.pyfunc, numpy, onnx, onnxruntime
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

disk, bucket, rows = sys.argv[1], sys.argv[2], numpy.array(json.loads(sys.argv[3]), numpy.float32)
float32 = onnx.TensorProto.FLOAT
tensor = lambda name, width: Schema([TensorSpec(numpy.dtype("float32"), (-1, width), name)])

def network(seed):
    random = numpy.random.default_rng(seed)
    weights = [random.normal(size=size).astype(numpy.float32) for size in [(3, 300), (300, 1)]]
    nodes = [("MatMul", ["input", "w0"], ["h"]), ("Tanh", ["h"], ["a"]), ("MatMul", ["a", "w1"], ["y"])]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(*node) for node in nodes],
        "network",
        [onnx.helper.make_tensor_value_info("input", float32, ["N", 3])],
        [onnx.helper.make_tensor_value_info("y", float32, ["N", 1])],
        [onnx.numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)

alone = []
for seed, (place, external) in enumerate([(None, True), (None, False), (disk, True), (bucket, True)]):
    model = network(seed)
    alone.append(onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"input": rows})[0][:, 0].tolist())
    experiment = mlflow.create_experiment(f"place {seed}", artifact_location=place)
    with mlflow.start_run(experiment_id=experiment):
        mlflow.onnx.log_model(
            model,
            name="model",
            registered_model_name="fraud",
            signature=ModelSignature(tensor("input", 3), tensor("y", 1)),
            pip_requirements=["onnxruntime"],
            save_as_external_data=external,
        )
with mlflow.start_run(experiment_id="0"):
    mlflow.pyfunc.log_model(
        name="model",
        python_model=lambda model_input: model_input,
        registered_model_name="forest",
        pip_requirements=["numpy"],
    )
mlflow.MlflowClient().set_registered_model_alias("fraud", "champion", "2")
print(json.dumps(alone))
"#;

const ROWS: [[f64; 3]; 3] = [[0.5, -1.0, 2.0], [0.0, 0.0, 0.0], [1e-3, 7.0, -3.25]];

/// A tracking server, and who may ask it.
struct MlFlow {
    server: Beside,
    url: String,
    _folder: TempDir,
}

impl MlFlow {
    fn start() -> MlFlow {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let who = format!(
            "[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{}\nadmin_username = admin\n\
             admin_password = a long password\n\
             authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
            file("who.sqlite")
        );
        std::fs::write(file("auth.ini"), who).unwrap();
        let python = python_of("mlflow").display().to_string();
        let auth = format!("MLFLOW_AUTH_CONFIG_PATH={}", file("auth.ini"));
        let store = format!("sqlite:///{}", file("mlflow.sqlite"));
        let (port, artifacts) = (free_port().to_string(), file("artifacts"));
        let environment = [
            "env",
            "MLFLOW_FLASK_SERVER_SECRET_KEY=secret",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false",
            &auth,
        ];
        let serve = [&python, "-c", SERVE, "server", "--app-name", "basic-auth", "--host", "127.0.0.1"];
        let places = ["--port", &port, "--workers", "1", "--backend-store-uri", &store];
        let command: Vec<String> =
            [&environment[..], &serve, &places, &["--artifacts-destination", &artifacts]]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect();
        let server = Beside::start(&command, "Uvicorn running on", "./setup.sh installs it");
        MlFlow { server, url: format!("http://127.0.0.1:{port}"), _folder: folder }
    }

    /// As MLflow's own client is told to ask it.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let who = [("MLFLOW_TRACKING_USERNAME", "admin"), ("MLFLOW_TRACKING_PASSWORD", "a long password")];
        let who = who.map(|(name, value)| (name, value.to_owned()));
        [("MLFLOW_TRACKING_URI", self.url.clone())].into_iter().chain(who).collect()
    }

    fn register(&self, disk: &Path, s3: &S3) -> Vec<Vec<Value>> {
        let mut command = Command::new(python_of("mlflow"));
        command.args(["-c", REGISTER]).arg(disk).arg("s3://models/mlflow").arg(json!(ROWS).to_string());
        command.envs(self.environment()).envs(s3.environment()).env("MLFLOW_S3_ENDPOINT_URL", &s3.url);
        let registered = command.output().unwrap();
        assert!(registered.status.success(), "{}", String::from_utf8_lossy(&registered.stderr));
        let said = String::from_utf8(registered.stdout).unwrap();
        serde_json::from_str(said.lines().find(|line| line.starts_with("[[")).unwrap()).unwrap()
    }

    /// Has the alias `champion` of `fraud` lead to this version.
    async fn champion(&self, version: &str) {
        let alias = json!({"name": "fraud", "alias": "champion", "version": version});
        let url = format!("{}/api/2.0/mlflow/registered-models/alias", self.url);
        let asked = reqwest::Client::new().post(url).basic_auth("admin", Some("a long password"));
        let done = asked.json(&alias).send().await.unwrap();
        assert!(done.status().is_success(), "{done:?}");
    }
}

/// A model whose versions `1`, `2`, ... have these paths.
fn definitions(paths: &[&str], connections: &[&str]) -> String {
    let version =
        |(i, path): (usize, &&str)| format!("  - {{version: \"{}\", path: \"{path}\", service: s}}\n", i + 1);
    let versions: String = paths.iter().enumerate().map(version).collect();
    let connection =
        |(i, url): (usize, &&str)| format!("---\nkind: Connection\nname: c{i}\nurl: \"{url}\"\n");
    let connections: String = connections.iter().enumerate().map(connection).collect();
    format!("{SERVICE}kind: Model\nname: m\nversions:\n{versions}{connections}")
}

async fn notes(server: &Process) -> Vec<String> {
    let client = Client::connect(&server.url).await.unwrap();
    let plan: Value = client.call("/v1/plan", &()).await.unwrap();
    plan["affected"].as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute of MLflow: `make test-all`"]
async fn a_registered_model_goes_live_and_stays_what_it_is() {
    required("ORT_DYLIB_PATH");
    let s3 = S3::start().await;
    let mut mlflow = MlFlow::start();
    let paths = ["models:/fraud/1", "models:/fraud@champion", "models:/fraud/3", "models:/fraud/4"];
    let connections = [&mlflow.url, "s3://models/mlflow/"];
    let repository = Repository::new(&definitions(&paths, &connections));
    let alone = mlflow.register(&repository.path().join("mlruns"), &s3);
    let environment = [mlflow.environment(), s3.environment()].concat();
    let said = async |server: &Process, version: &str| bits(&predict(server, Some(version), &ROWS).await);

    let server = Process::start_in(repository.path(), &environment);
    apply(&server).await.unwrap();
    for (version, alone) in ["1", "2", "3", "4"].into_iter().zip(&alone) {
        assert_eq!(said(&server, version).await, bits(alone), "version {version}");
    }
    assert_eq!(notes(&server).await, [""; 0]);

    // What an alias led to was written down, and a server that starts knows it.
    server.terminate();
    mlflow.champion("1").await;
    let server = Process::start_in(repository.path(), &environment);
    expect![[r#"
        definitions.yaml:28:15: model `m`, version `2`: `models:/fraud@champion` is version 1 now, and version 2 is live and stays
          help: declare a version of another name to take it"#]]
    .assert_eq(&notes(&server).await.join("\n"));
    assert_eq!(apply(&server).await.unwrap()["applied"], false);

    // Other things are applied meanwhile, and a version of another name takes what the alias means.
    let more = [&paths[..], &["models:/fraud@champion"]].concat();
    repository.write("definitions.yaml", definitions(&more, &connections));
    assert_eq!(apply(&server).await.unwrap()["number"], 2);
    assert_eq!(said(&server, "2").await, bits(&alone[1]));
    assert_eq!(said(&server, "5").await, bits(&alone[0]));
    assert_eq!(notes(&server).await.len(), 1);

    check_refusals(&mlflow);
    mlflow.server.kill();
    let gone = apply(&server).await.unwrap_err();
    assert!(gone.contains("`models:/fraud/1` cannot be read from http://127.0.0.1:"), "{gone}");
    assert_eq!(said(&server, "2").await, bits(&alone[1]));
    server.terminate();
    let server = Process::start_in(repository.path(), &[]);
    assert_eq!(said(&server, "5").await, bits(&alone[0]));
}

/// What `quern check` says of a model at `path`, where this connection leads.
fn check(path: &str, connection: &str, environment: &[(&str, String)], expected: Expect) {
    let repository = Repository::new(&definitions(&[path], &[connection]));
    let printed = run_in(repository.path(), &["check"], environment);
    let said = format!("{}{}", printed.stdout, printed.stderr);
    // A port is another one each time.
    let url =
        environment.iter().find(|(name, _)| *name == "MLFLOW_TRACKING_URI").map(|(_, url)| url.as_str());
    expected.assert_eq(&said.replace(url.unwrap_or("nowhere"), "http://HOST"));
}

/// What this server does not give is said where it is named.
fn check_refusals(mlflow: &MlFlow) {
    let known = mlflow.environment();
    let (url, asked) =
        (mlflow.url.as_str(), |path: &str, expected| check(path, &mlflow.url, &known, expected));
    asked(
        "models:/fraud/9",
        expect![[r#"
        definitions.yaml:27:15: `models:/fraud/9`: http://HOST says: Model Version (name=fraud, version=9) not found
          help: mend the path: `models:/NAME/VERSION` or `models:/NAME@ALIAS`, as the tracking server lists them
        1 mistake
    "#]],
    );
    asked(
        "models:/nope/1",
        expect![[r#"
        definitions.yaml:27:15: `models:/nope/1`: http://HOST says: Model Version (name=nope, version=1) not found
          help: mend the path: `models:/NAME/VERSION` or `models:/NAME@ALIAS`, as the tracking server lists them
        1 mistake
    "#]],
    );
    asked(
        "models:/fraud@nobody",
        expect![[r#"
        definitions.yaml:27:15: `models:/fraud@nobody`: http://HOST says: Registered model alias nobody not found.
          help: mend the path: `models:/NAME/VERSION` or `models:/NAME@ALIAS`, as the tracking server lists them
        1 mistake
    "#]],
    );
    asked(
        "models:/forest/1",
        expect![[r#"
        definitions.yaml:27:15: `models:/forest/1`: `MLmodel` lists no flavour `onnx`
          help: log the model in ONNX: `mlflow.onnx.log_model(onnx_model, name=..., registered_model_name=...)`
        1 mistake
    "#]],
    );
    let outside = |path: &str, cause: &str| {
        let repository = Repository::new(&definitions(&[path], &[url]));
        let said = run_in(repository.path(), &["check"], &known).stderr;
        assert!(said.contains(cause), "{said}");
    };
    outside("models:/fraud/3", "model file `/");
    outside("models:/fraud/3", "lies outside of the repository");
    // Its last part is another one each time.
    outside("models:/fraud/4", "no connection of its project leads to `s3://models/mlflow/models/m-");
    check(
        "models:/fraud/1",
        "https://elsewhere",
        &known,
        expect![[r#"
        definitions.yaml:27:15: no connection of its project leads to `http://HOST`, the tracking server of MLflow
          help: where definitions may lead, an administrator says: `{kind: Connection, name: mlflow, url: "http://HOST/"}`
        1 mistake
    "#]],
    );
    check(
        "models:/fraud/1",
        url,
        &known[..1],
        expect![[r#"
        definitions.yaml:27:15: `models:/fraud/1`: http://HOST refuses access (401)
          help: who asks is told by the environment of the process that applies: `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or `MLFLOW_TRACKING_TOKEN`
        1 mistake
    "#]],
    );
}

#[test]
fn a_path_in_the_registry_needs_a_server_and_a_connection() {
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let named = |url: &str| vec![("MLFLOW_TRACKING_URI", url.to_owned())];
    check(
        "models:/fraud/1",
        &nowhere,
        &named(&nowhere),
        expect![[r#"
        definitions.yaml:27:15: `models:/fraud/1` cannot be read from http://HOST: Connection refused (os error 111)
          help: the tracking server is the one that `MLFLOW_TRACKING_URI` names, in the environment of the process that applies: is it running, and can it be reached from there?
        1 mistake
    "#]],
    );
    check(
        "models:/fraud/1",
        &nowhere,
        &[],
        expect![[r#"
        definitions.yaml:27:15: `MLFLOW_TRACKING_URI` names no tracking server of MLflow
          help: set `MLFLOW_TRACKING_URI` in the environment of the process that applies to the tracking server's URL, as in `https://mlflow.corp:5000`
        1 mistake
    "#]],
    );
    check(
        "models:/fraud/1",
        "http://h",
        &named("http://me:secret@h"),
        expect![[r#"
        definitions.yaml:27:15: `MLFLOW_TRACKING_URI` must hold no user and no password, and one host
          help: set `MLFLOW_TRACKING_URI` in the environment of the process that applies to the tracking server's URL, as in `https://mlflow.corp:5000`
        1 mistake
    "#]],
    );
    check(
        "models:/fraud/1",
        "s3://models/",
        &named(&nowhere),
        expect![[r#"
        definitions.yaml:27:26: no connection of its project leads to a tracking server of MLflow
          help: where definitions may lead, an administrator says: `{kind: Connection, name: mlflow, url: "https://HOST:PORT/"}`
        1 mistake
    "#]],
    );
    check(
        "models:/fraud/latest",
        "https://h",
        &named(&nowhere),
        expect![[r#"
        definitions.yaml:27:26: `path`: `models:/fraud/latest` names no version of a registered model
          help: a version is named by its number or its alias, as in `models:/fraud/3` or `models:/fraud@champion`
        1 mistake
    "#]],
    );
    // A name that leads to this machine is not its address.
    check(
        "models:/fraud/1",
        "http://127.1:1",
        &named("http://127.1:1"),
        expect![[r#"
        definitions.yaml:27:15: `MLFLOW_TRACKING_URI` must be a URL as `https://host:5000` or `https://host/prefix`
          help: set `MLFLOW_TRACKING_URI` in the environment of the process that applies to the tracking server's URL, as in `https://mlflow.corp:5000`
        1 mistake
    "#]],
    );
}
