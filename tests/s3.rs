//! What speaks S3, and keeps objects in memory? moto's server, with one bucket.

use std::fs;
use std::path::Path;

use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use quern_kit::{Beside, python_of};

/// The server, and its bucket `models`.
pub(crate) struct S3 {
    pub(crate) server: Beside,
    pub(crate) url: String,
    bucket: AmazonS3,
}

impl S3 {
    pub(crate) async fn start() -> S3 {
        S3::start_at(0).await
    }

    /// Starts it on this port.
    pub(crate) async fn start_at(port: u16) -> S3 {
        let python = python_of("mlflow").to_string_lossy().into_owned();
        let port = port.to_string();
        let command =
            [python.as_str(), "-m", "moto.server", "-H", "127.0.0.1", "-p", &port].map(str::to_owned);
        let server = Beside::start(&command, "Running on", "./setup.sh installs it");
        let url =
            server.log().iter().find_map(|line| Some(line.split_once("Running on ")?.1.to_owned())).unwrap();
        let made = reqwest::Client::new().put(format!("{url}/models")).send().await.unwrap();
        assert!(made.status().is_success(), "{made:?}");
        let bucket = AmazonS3Builder::new()
            .with_endpoint(&url)
            .with_allow_http(true)
            .with_bucket_name("models")
            .with_access_key_id("quern")
            .with_secret_access_key("quern");
        S3 { server, url, bucket: bucket.build().unwrap() }
    }

    pub(crate) async fn put(&self, key: &str, content: impl Into<PutPayload>) {
        self.bucket.put(&key.into(), content.into()).await.unwrap();
    }

    pub(crate) async fn put_folder(&self, folder: &str, from: &Path) {
        for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let name = file.file_name().into_string().unwrap();
            self.put(&format!("{folder}/{name}"), fs::read(file.path()).unwrap()).await;
        }
    }

    pub(crate) async fn get(&self, key: &str) -> Vec<u8> {
        self.bucket.get(&key.into()).await.unwrap().bytes().await.unwrap().into()
    }

    pub(crate) async fn delete(&self, key: &str) {
        self.bucket.delete(&key.into()).await.unwrap();
    }

    /// The keys of all objects that begin so, in order.
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let found: Vec<_> = self.bucket.list(Some(&prefix.into())).try_collect().await.unwrap();
        let mut keys: Vec<String> = found.into_iter().map(|object| object.location.to_string()).collect();
        keys.sort();
        keys
    }

    /// How often it answered a request for this object with this status.
    pub(crate) fn answers(&self, key: &str, status: u16) -> usize {
        self.answered("GET", key, status)
    }

    /// The same, of requests of any kind.
    pub(crate) fn answered(&self, method: &str, key: &str, status: u16) -> usize {
        let (request, status) = (format!("{method} /models/{key}"), format!(" {status} "));
        let is_it = |line: &&String| {
            line.split_once(&request)
                .is_some_and(|(_, rest)| rest.starts_with([' ', '?']) && rest.contains(&status))
        };
        self.server.log().iter().filter(is_it).count()
    }

    /// As AWS's own tools are told to ask it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        environment(&self.url)
    }
}

pub(crate) fn environment(url: &str) -> Vec<(&'static str, String)> {
    let variables = [
        ("AWS_ENDPOINT_URL", url),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "quern"),
        ("AWS_SECRET_ACCESS_KEY", "quern"),
    ];
    variables.map(|(name, value)| (name, value.to_owned())).into()
}
