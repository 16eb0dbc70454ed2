//! Is a table of Iceberg found where its catalog says, whoever asks, whatever the catalog does?

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use quern_kit::{Bucket, Node, Repository, blocking, root};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::buckets::copy;

const KEY: &str = "LENT";

/// A catalog that speaks as much of the protocol as is asked of it.
struct Catalog {
    server: String,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Which token it takes; each is taken so many times.
    token: AtomicU64,
    left: AtomicU64,
    /// How many requests it answers with 503 first.
    fails: AtomicU64,
    asked: Mutex<Vec<String>>,
}

impl Catalog {
    async fn start() -> Catalog {
        let inner = Arc::new(Inner::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Catalog { server, inner }
    }

    fn definitions(&self, bucket: &Bucket, secret: &str) -> String {
        let store = bucket.connection().replace("anonymous: true\n", "");
        format!(
            "kind: Connection\nname: catalog\nurl: \"{}\"\n\
             catalog: {{path: /api/catalog, warehouse: demo, scope: \"PRINCIPAL_ROLE:ALL\"}}\n\
             credentials: {{client_id: {{file: {secret:?}}}, client_secret: {{file: {secret:?}}}}}\n---\n{store}---\n\
             kind: Entity\nname: region\njoin_keys: [{{name: region, type: string}}]\n---\n\
             kind: Source\nname: values\nbatch: {{format: iceberg, connection: catalog, table: sales.eu west.cataloged}}\n\
             event_timestamp: id\ncolumns: [{{name: id, type: timestamp, format: epoch_us}}]\n---\n\
             kind: FeatureView\nname: values\nentities: [region]\nsource: values\nfeatures: [{{name: value}}]\n---\n\
             kind: FeatureView\nname: counts\nentities: [region]\nsource: values\n\
             aggregations: [{{name: n, function: count, windows: [1d]}}]\n---\n\
             kind: FeatureService\nname: values\nfeatures: [values, counts]\n",
            self.server
        )
    }
}

async fn answer(State(catalog): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().to_string();
    catalog.asked.lock().push(path.clone());
    if catalog.fails.load(Ordering::Relaxed) > 0 {
        catalog.fails.fetch_sub(1, Ordering::Relaxed);
        return refused(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", "slow down");
    }
    if path == "/api/catalog/v1/oauth/tokens" {
        let form = axum::body::to_bytes(body, 4_096).await.unwrap();
        let wanted = "grant_type=client_credentials&scope=PRINCIPAL_ROLE%3AALL&client_id=a+secret&client_secret=a+secret";
        if form != wanted {
            let body = json!({"error": "invalid_client", "error_description": "nobody knows you"});
            return (StatusCode::UNAUTHORIZED, body.to_string()).into_response();
        }
        catalog.left.store(3, Ordering::Relaxed);
        let token = format!("token {}", catalog.token.fetch_add(1, Ordering::Relaxed) + 1);
        let body = json!({"access_token": token, "token_type": "bearer", "expires_in": 3600});
        return Body::from(body.to_string()).into_response();
    }
    let token = format!("Bearer token {}", catalog.token.load(Ordering::Relaxed));
    let is_known =
        parts.headers.get("authorization").is_some_and(|found| found.as_bytes() == token.as_bytes());
    if !is_known
        || catalog
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_err()
    {
        return refused(StatusCode::UNAUTHORIZED, "NotAuthorizedException", "the token has ended");
    }
    match path.as_str() {
        "/api/catalog/v1/config?warehouse=demo" => {
            Body::from(json!({"defaults": {}, "overrides": {"prefix": "ws/1"}}).to_string()).into_response()
        }
        "/api/catalog/v1/ws/1/namespaces/sales%1Feu%20west/tables/cataloged" => {
            Body::from(table().to_string()).into_response()
        }
        _ => refused(StatusCode::NOT_FOUND, "NoSuchTableException", "Table does not exist"),
    }
}

fn refused(status: StatusCode, kind: &str, message: &str) -> Response {
    let body = json!({"error": {"message": message, "type": kind, "code": status.as_u16()}});
    (status, body.to_string()).into_response()
}

/// The table, as the catalog has it: its metadata, and a key to its files.
fn table() -> Value {
    let metadata =
        fs::read(root().join("tests/fixtures/iceberg/cataloged/table/metadata/v4.metadata.json")).unwrap();
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    let keys = json!({"s3.access-key-id": KEY, "s3.secret-access-key": "secret", "s3.session-token": "t"});
    let others = json!({"s3.access-key-id": "OTHER", "s3.secret-access-key": "secret"});
    json!({
        "metadata-location": "s3://rows/lake/cataloged/metadata/v4.metadata.json",
        "metadata": metadata,
        "config": others,
        "storage-credentials": [
            {"prefix": "s3://rows/lake/cataloged", "config": keys},
            {"prefix": "s3://rows/", "config": others},
        ],
    })
}

async fn trained(node: &Node) -> RecordBatch {
    let rows: Vec<(&str, i64)> =
        ["eu", "us"].iter().flat_map(|region| (0..40).map(|us| (*region, us))).collect();
    let times =
        TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, us)| *us)).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 2] = [
        ("region", Arc::new(StringArray::from_iter_values(rows.iter().map(|(region, _)| region)))),
        ("event_timestamp", Arc::new(times)),
    ];
    let (spine, service) = (RecordBatch::try_from_iter(columns).unwrap(), node.service("values"));
    blocking(move || service.training_set(&spine, false)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_lies_where_its_catalog_says_and_is_read_with_keys_that_are_lent() {
    let (bucket, catalog) = (Bucket::start().await, Catalog::start().await);
    bucket.only_for(KEY);
    let fixture = root().join("tests/fixtures/iceberg/cataloged/table");
    copy(&fixture, &bucket.path().join("lake/cataloged"));
    let secrets = tempfile::tempdir().unwrap();
    let secret = secrets.path().join("secret");
    fs::write(&secret, "a secret\n").unwrap();
    let definitions = catalog.definitions(&bucket, secret.to_str().unwrap());
    let repository = Repository::new(&definitions);
    let node = repository.open_applied().await;
    let there = trained(&node).await;

    // The same table by its path, here.
    copy(&fixture, &repository.path().join("here"));
    let plain = definitions.replace("connection: catalog, table: sales.eu west.cataloged", "path: here");
    let here = Repository::new(&plain);
    copy(&fixture, &here.path().join("here"));
    let here = trained(&here.open_applied().await).await;
    for (one, other) in there.columns().iter().zip(here.columns()) {
        assert!(one.to_data() == other.to_data());
    }
    assert!(there.column_by_name("value").unwrap().null_count() < 20);
    // Tokens ended in between, and were asked for again.
    let asked = catalog.inner.asked.lock().clone();
    assert!(asked.iter().filter(|path| path.ends_with("/tokens")).count() > 1, "{asked:?}");

    // What cannot be had is said.
    let said = async |change: &dyn Fn(&str) -> String| {
        let repository = Repository::new(&change(&definitions));
        repository.open().await.check().await.err().unwrap().to_string()
    };
    let other = said(&|text| text.replace("eu west.cataloged", "eu west.landings")).await;
    assert!(other.contains("it answers 404: Table does not exist"), "{other}");
    fs::write(&secret, "another\n").unwrap();
    let nobody = said(&str::to_owned).await;
    assert!(nobody.contains("it answers 401: nobody knows you"), "{nobody}");
    assert!(!nobody.contains("another"), "{nobody}");
    fs::write(&secret, "a secret\n").unwrap();
    catalog.inner.fails.store(100, Ordering::Relaxed);
    let down = said(&str::to_owned).await;
    assert!(down.contains("it answers 503: slow down"), "{down}");
}
