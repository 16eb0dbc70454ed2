//! Do lists of text and bool come in, stay, and leave as they are, whichever way?

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Int64Type};
use futures::{TryStreamExt, stream};
use quern_kit::{Repository, Server};
use serde_json::{Value, json};

const DEFINITIONS: &str = "kind: Entity\nname: e\njoin_keys: [{name: k, type: string}]\n---\n\
    kind: Source\nname: s\npush: true\nevent_timestamp: at\n\
    columns: [{name: k, type: string}, {name: at, type: timestamp}, {name: tags, type: list<string>}, \
    {name: flags, type: \"list<bool, 2>\"}, {name: word, type: string}]\n---\n\
    kind: FeatureView\nname: latest\nentities: [e]\nsource: s\nfeatures:\n  - {name: tags, default: [none, \"7\"]}\n  \
    - {name: flags, default: [true, false]}\n  - {name: long, expr: array_length(tags)}\n  \
    - {name: pair, expr: \"make_array(tags[1], word)\", type: \"list<string, 2>\"}\n---\n\
    kind: FeatureView\nname: recent\nentities: [e]\nsource: s\naggregations:\n  \
    - {name: words, function: last_n, of: word, n: 2, windows: [lifetime], default: []}\n---\n\
    kind: FeatureService\nname: svc\nrequest: [{name: asked, type: list<string>, default: []}]\n\
    features: [latest, recent]\nderived:\n  - {name: both, expr: \"array_concat(asked, tags)\"}\n  \
    - {name: has, expr: \"array_contains(tags, 'a')\"}\n\
    outputs: [tags, flags, long, pair, words_lifetime, both, has, asked]\n---\n\
    kind: Model\nname: m\nlog: {sample: 1}\nversions:\n  \
    - {version: 1, service: svc, steps: [{name: y, expr: \"array_concat(pair, asked)\"}]}\n\
    fallback: {max_missing: 0.5, to: [{constant: [nobody, knows]}]}\n";

/// What is pushed, and what is asked of it.
fn pushed() -> Value {
    json!({
        "k": ["A", "B", "C"],
        "at": ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"],
        "tags": [["a", null, "é, \"b\""], [], null],
        "flags": [[true, null], [false, false], null],
        "word": ["w", null, "v"],
    })
}

fn asked() -> BTreeMap<String, Vec<Value>> {
    let columns = json!({"k": ["A", "B", "C", "D"], "asked": [["q"], [], null, ["r", null]]});
    serde_json::from_value(columns).unwrap()
}

/// What look-up and training set say, column by column.
fn expected() -> Value {
    json!({
        "tags": [["a", null, "é, \"b\""], [], null, null],
        "flags": [[true, null], [false, false], null, null],
        "long": [3, 0, null, null],
        "pair": [["a", "w"], [null, null], [null, "v"], null],
        "words_lifetime": [["w"], null, ["v"], null],
        "both": [["q", "a", null, "é, \"b\""], [], null, ["r", null]],
        "has": [true, false, null, null],
    })
}

async fn serve() -> Server {
    let repository = Repository::new(DEFINITIONS);
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    let body = json!({"push_source_name": "s", "df": pushed()});
    let reply = ask(&server, "/push", &body).await;
    assert_eq!(reply["accepted"], 3, "{reply}");
    server
}

async fn ask(server: &Server, path: &str, body: &Value) -> Value {
    let request = server.http.post(format!("{}{path}", server.client.url()));
    let request = request.header("content-type", "application/json").body(body.to_string());
    serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap()
}

/// The asked columns and a time after all rows, as a spine.
fn spine() -> RecordBatch {
    let keys = StringArray::from(vec!["A", "B", "C", "D"]);
    let lists = [Some(vec![Some("q")]), Some(vec![]), None, Some(vec![Some("r"), None])];
    let mut asked = ListBuilder::new(StringBuilder::new());
    lists.into_iter().for_each(|list| asked.append_option(list));
    let times = TimestampMicrosecondArray::from(vec![1_800_000_000_000_000; 4]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] =
        [("k", Arc::new(keys)), ("asked", Arc::new(asked.finish())), ("event_timestamp", Arc::new(times))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_and_training_sets_say_what_was_pushed() {
    let server = serve().await;
    let found = server.client.get_online_features("svc", asked()).await.unwrap();
    let columns = found.metadata.feature_names.iter().zip(&found.results);
    let said: BTreeMap<&String, Value> = columns.map(|(name, found)| (name, json!(found.values))).collect();
    for (name, expected) in expected().as_object().unwrap() {
        assert_eq!(said[name], *expected, "{name} looked up");
    }
    let spine = spine();
    let set = server.client.training_set("svc", spine.schema(), stream::iter([spine]), false).await.unwrap();
    let set: Vec<RecordBatch> = set.try_collect().await.unwrap();
    for (name, expected) in expected().as_object().unwrap() {
        let column = set[0].column_by_name(name).unwrap();
        assert_eq!(values(column), *expected, "{name} trained");
    }
}

fn values(column: &ArrayRef) -> Value {
    let value = |row: usize| match column.data_type() {
        _ if column.is_null(row) => Value::Null,
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::List(_) => values(&column.as_list::<i32>().value(row)),
        DataType::FixedSizeList(..) => values(&column.as_fixed_size_list().value(row)),
        other => panic!("{other} is not asked for"),
    };
    (0..column.len()).map(value).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_such_list_is_refused_by_column_and_item() {
    let server = serve().await;
    let refused = async |column: &str, value: Value| {
        let mut rows = json!({"k": ["Z"], "at": ["2026-01-01T00:00:00Z"], "tags": [null], "flags": [null], "word": [null]});
        rows[column] = json!([value]);
        let reply = ask(&server, "/push", &json!({"push_source_name": "s", "df": rows})).await;
        reply["rejected"][0]["cause"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(refused("tags", json!(["a", 5])).await, "expected string items, found number 5 in the list");
    assert_eq!(refused("tags", json!("a")).await, "expected list<string>, found string \"a\"");
    assert_eq!(refused("flags", json!([true])).await, "expected list<bool, 2>, found an array of 1");
    assert_eq!(refused("flags", json!([true, 1])).await, "expected bool items, found number 1 in the list");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_give_lists_of_text_which_are_logged_and_verified() {
    let server = serve().await;
    let instances = json!([{"k": "A", "asked": ["q"]}, {"k": "B", "asked": []}, {"k": "D", "asked": ["r"]}]);
    let reply = ask(&server, "/v1/models/m:predict", &json!({"instances": instances})).await;
    assert_eq!(reply["predictions"], json!([["a", "w", "q"], [null, null], ["nobody", "knows"]]), "{reply}");
    // Open Inference Protocol: lists of one length are a tensor, others are none.
    let tensor = |name: &str, shape: &[usize], data: Value| json!({"name": name, "datatype": "BYTES", "shape": shape, "data": data});
    let infer = async |keys: Value, lists: [usize; 2], asked: Value| {
        let inputs = [tensor("k", &[lists[0]], keys), tensor("asked", &lists, asked)];
        ask(&server, "/v2/models/m/infer", &json!({"inputs": inputs})).await
    };
    let reply = infer(json!(["A", "C"]), [2, 1], json!([["q"], ["r"]])).await;
    assert_eq!(reply["outputs"][0]["shape"], json!([2, 3]), "{reply}");
    assert_eq!(reply["outputs"][0]["data"], json!(["a", "w", "q", null, "v", "r"]));
    let reply = infer(json!(["A", "D"]), [2, 1], json!([["q"], ["r"]])).await;
    let error = reply["error"].as_str().unwrap_or_default();
    assert!(error.contains("one of its lists has 3 items and another 2, which no tensor holds"), "{reply}");
    let report: Value = server.client.call("/v1/verify", &json!({"model": "m"})).await.unwrap();
    let model = &report["models"][0];
    assert_eq!((&model["rows"], &model["rows_differ"]), (&json!(7), &json!(0)), "{report}");
}
