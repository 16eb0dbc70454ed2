//! Which version of a registered model does MLflow mean, where are its files, and what is in them?
//!
//! Asked of the tracking server that `MLFLOW_TRACKING_URI` names, over its REST API, as MLflow's own client does and
//! with the same variables. <https://mlflow.org/docs/latest/api_reference/rest-api.html>

use std::env;

use bytes::Bytes;
use feature_defs::{Reach, Registered, RegisteredModel, Server};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;

use crate::objects::Unread;
use quern_http::{causes, client, on_one_line, server_at};

const URI: &str = "MLFLOW_TRACKING_URI";
const USERNAME: &str = "MLFLOW_TRACKING_USERNAME";
const PASSWORD: &str = "MLFLOW_TRACKING_PASSWORD";
const TOKEN: &str = "MLFLOW_TRACKING_TOKEN";

const API: &str = "api/2.0/mlflow";
const ARTIFACTS: &str = "api/2.0/mlflow-artifacts/artifacts";
/// What a server says of a version is a few hundred bytes.
const REPLY_BYTES_MAX: u64 = 1 << 20;

/// A tracking server of MLflow, and who asks it.
#[derive(Debug)]
pub struct Tracking {
    server: Server,
    base: Url,
    client: Client,
    who: Who,
}

/// Who asks, as MLflow's own client is told.
enum Who {
    Nobody,
    User { name: String, password: Option<String> },
    Token(String),
}

/// Neither passwords nor tokens end up in logs.
impl std::fmt::Debug for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Who::Nobody => "Nobody",
            Who::User { .. } => "User",
            Who::Token(_) => "Token",
        })
    }
}

/// A version of a registered model, as its server has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelVersion {
    /// Its number.
    pub number: u64,
    /// When it was made, which is another time where somebody began to count anew.
    pub created: String,
}

/// Where the files of a version are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folder {
    /// Behind the tracking server, which hands them out.
    Proxied(String),
    /// In an object store, by its URL.
    Objects(String),
    /// On the disk of whoever saved it.
    Disk(String),
}

impl Tracking {
    /// The server that the environment names.
    ///
    /// # Errors
    /// Where it names none, or one that has no sound URL.
    pub fn from_env() -> Result<Tracking, Unread> {
        let help = format!(
            "set `{URI}` in the environment of the process that applies to the tracking server's URL, as in \
             `https://mlflow.corp:5000`"
        );
        let wrong = |cause: String| unread(cause, help.clone());
        let told = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let uri = told(URI).ok_or_else(|| wrong(format!("`{URI}` names no tracking server of MLflow")))?;
        // The URI is not repeated: it may hold a password.
        let (server, base) = server_at(&uri).map_err(|cause| wrong(format!("`{URI}` {cause}")))?;
        let client = client(&server).map_err(|error| wrong(format!("no client can be set up: {error}")))?;
        let who = match (told(USERNAME), told(TOKEN)) {
            (Some(name), _) => Who::User { name, password: told(PASSWORD) },
            (None, Some(token)) => Who::Token(token),
            (None, None) => Who::Nobody,
        };
        Ok(Tracking { server, base, client, who })
    }

    /// As a connection names it.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The version that is meant now.
    ///
    /// # Errors
    /// Where there is none, or the server does not say.
    pub async fn version(&self, model: &RegisteredModel) -> Result<ModelVersion, Unread> {
        let what = model.to_string();
        let (path, which, value) = match &model.which {
            Registered::Version(number) => ("model-versions/get", "version", number.to_string()),
            Registered::Alias(alias) => ("registered-models/alias", "alias", alias.clone()),
        };
        let said = self.said(&what, path, &[("name", &model.name), (which, &value)]).await?;
        let said = &said["model_version"];
        let number = said["version"].as_str().and_then(|number| number.parse().ok());
        let created = said["creation_timestamp"].to_string();
        let is_it = |number: &u64| !matches!(model.which, Registered::Version(asked) if asked != *number);
        number
            .filter(is_it)
            .map(|number| ModelVersion { number, created })
            .ok_or_else(|| self.no_mlflow(&what))
    }

    /// Where the files of version `number` are.
    ///
    /// # Errors
    /// Where the server does not say, or names a place that we cannot read.
    pub async fn folder(&self, model: &RegisteredModel, number: u64) -> Result<Folder, Unread> {
        let what = model.at(number).to_string();
        let query = [("name", model.name.as_str()), ("version", &number.to_string())];
        let said = self.said(&what, "model-versions/get-download-uri", &query).await?;
        let uri = said["artifact_uri"].as_str().ok_or_else(|| self.no_mlflow(&what))?;
        self.folder_at(uri).ok_or_else(|| {
            let help = "what is read lies behind the tracking server's own artifact proxy (`mlflow-artifacts:`), in \
                        S3, Google Cloud Storage or Azure (`s3:`, `gs:`, `abfss:`), or in a folder of this machine";
            // Some name keys in it.
            let place = Url::parse(uri).ok().and_then(|url| Some(format!("{}://{}", url.scheme(), url.host_str()?)));
            let place = place.unwrap_or_else(|| "a place of another kind".to_owned());
            unread(format!("`{what}` lies at `{place}`, which is not read"), help.to_owned())
        })
    }

    fn folder_at(&self, uri: &str) -> Option<Folder> {
        let below = |rest: &str| Some(Folder::Proxied(rest.trim_matches('/').to_owned()));
        if let Some(rest) = uri.strip_prefix("mlflow-artifacts:") {
            let Some(named) = rest.strip_prefix("//") else { return below(rest) };
            let (authority, path) = named.split_once('/')?;
            // Another server than the one that a connection was asked about is not asked.
            return if authority.is_empty() || authority == self.server.address() {
                below(path)
            } else {
                None
            };
        }
        if let Some(path) = uri.strip_prefix(&format!("{}{ARTIFACTS}/", self.base)) {
            return below(path);
        }
        let disk = uri.strip_prefix("file://").map(|rest| rest.strip_prefix("localhost").unwrap_or(rest));
        match disk.unwrap_or(uri) {
            path if path.starts_with('/') => Some(Folder::Disk(path.to_owned())),
            _ => matches!(Reach::parse(uri), Ok(Reach::Objects { .. }))
                .then(|| Folder::Objects(uri.to_owned())),
        }
    }

    /// The file at `path` behind the server.
    ///
    /// # Errors
    /// Where it is not there, is larger than `bytes_max`, or does not come.
    pub async fn artifact(&self, path: &str, bytes_max: u64) -> Result<Bytes, Unread> {
        let what = format!("mlflow-artifacts:/{path}");
        let reply = self.ask(&what, &format!("{ARTIFACTS}/{path}"), &[]).await?;
        self.body(&what, reply, bytes_max).await
    }

    /// What the API says of `what`.
    async fn said(&self, what: &str, path: &str, query: &[(&str, &str)]) -> Result<Value, Unread> {
        let reply = self.ask(what, &format!("{API}/{path}"), query).await?;
        let body = self.body(what, reply, REPLY_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|_| self.no_mlflow(what))
    }

    async fn ask(&self, what: &str, path: &str, query: &[(&str, &str)]) -> Result<Response, Unread> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        let request = self.client.get(url).query(query);
        let request = match &self.who {
            Who::Nobody => request,
            Who::User { name, password } => request.basic_auth(name, password.as_ref()),
            Who::Token(token) => request.bearer_auth(token),
        };
        let reply = request.send().await.map_err(|error| self.failed(what, &causes(&error)))?;
        match reply.status() {
            StatusCode::OK => Ok(reply),
            status => {
                let body = self.body(what, reply, REPLY_BYTES_MAX).await.unwrap_or_default();
                Err(self.refused(what, status, &body))
            }
        }
    }

    async fn body(&self, what: &str, mut reply: Response, bytes_max: u64) -> Result<Bytes, Unread> {
        let mut bytes = Vec::new();
        loop {
            match reply.chunk().await {
                Ok(Some(chunk)) if (bytes.len() + chunk.len()) as u64 > bytes_max => {
                    let cause = format!("`{what}` is larger than {bytes_max} bytes");
                    return Err(unread(cause, "log a smaller file".to_owned()));
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok(bytes.into()),
                Err(error) => return Err(self.failed(what, &causes(&error))),
            }
        }
    }

    fn refused(&self, what: &str, status: StatusCode, body: &[u8]) -> Unread {
        let server = &self.server;
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        let code = said["error_code"].as_str().unwrap_or_default();
        let message = on_one_line(said["message"].as_str().unwrap_or_default());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => unread(
                format!("`{what}`: {server} refuses access ({})", status.as_u16()),
                format!(
                    "who asks is told by the environment of the process that applies: `{USERNAME}` and `{PASSWORD}`, or \
                     `{TOKEN}`"
                ),
            ),
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST if !code.is_empty() => Unread {
                perhaps_a_folder: status == StatusCode::NOT_FOUND,
                again: false,
                ..unread(
                    format!("`{what}`: {server} says: {message}"),
                    "mend the path: `models:/NAME/VERSION` or `models:/NAME@ALIAS`, as the tracking server lists them"
                        .to_owned(),
                )
            },
            _ if message.is_empty() => self.failed(what, &format!("it answers {}", status.as_u16())),
            _ => self.failed(what, &format!("it answers {}: {message}", status.as_u16())),
        }
    }

    fn no_mlflow(&self, what: &str) -> Unread {
        self.failed(what, "it does not answer as MLflow's REST API does")
    }

    fn failed(&self, what: &str, said: &str) -> Unread {
        unread(
            format!("`{what}` cannot be read from {}: {said}", self.server),
            format!(
                "the tracking server is the one that `{URI}` names, in the environment of the process that applies: is it \
                 running, and can it be reached from there?"
            ),
        )
    }
}

fn unread(cause: String, help: String) -> Unread {
    Unread { cause, help, perhaps_a_folder: false, again: false }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn files_lie_where_somebody_may_have_been_asked() {
        let (server, base) = server_at("http://mlflow:5000/ml").unwrap();
        let tracking = Tracking { server, base, client: Client::new(), who: Who::Nobody };
        let shown = [
            "mlflow-artifacts:/0/models/m-1/artifacts",
            "mlflow-artifacts://mlflow:5000/0/a",
            "mlflow-artifacts://elsewhere/0/a",
            "http://mlflow:5000/ml/api/2.0/mlflow-artifacts/artifacts/0/a",
            "http://elsewhere/0/a",
            "s3://bucket/mlflow/0/a",
            "wasbs://c@acc.blob.core.windows.net/a",
            "/mlruns/0/a",
            "file:///mlruns/0/a",
            "mlruns/0/a",
        ]
        .map(|uri| format!("{:?}", tracking.folder_at(uri)));
        expect![[r#"
            Some(Proxied("0/models/m-1/artifacts"))
            Some(Proxied("0/a"))
            None
            Some(Proxied("0/a"))
            None
            Some(Objects("s3://bucket/mlflow/0/a"))
            None
            Some(Disk("/mlruns/0/a"))
            Some(Disk("/mlruns/0/a"))
            None"#]]
        .assert_eq(&shown.join("\n"));
    }
}
