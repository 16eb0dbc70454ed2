//! Which calls does a server answer over HTTP?

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use url::Url;

use crate::credentials::is_loopback;
use crate::error::causes;
use crate::tls;
use crate::wire::{
    Catalogue, Code, ErrorReply, LabelsReply, LabelsRequest, OnlineFeatures, OnlineFeaturesRequest,
    PredictRequest, Predictions, REQUEST_ID, RouteRequest, Routed, ServerStatus, predict_path, route_path,
};
use crate::{Credentials, Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a request over a Unix socket calls the server.
const THIS_MACHINE: &str = "http://127.0.0.1";
/// A server asks its stores for a second.
const STATUS_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection to one server; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
    /// What the paths of requests go after.
    base: String,
    http: reqwest::Client,
    pub(crate) channel: Channel,
    /// Who asks, for calls over Flight; those over HTTP say it by themselves.
    pub(crate) authorization: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// Connects to the server at `url`, such as `http://127.0.0.1:7400`, and sees that it lives. Who asks, and whom the
    /// client believes, is found where [`Credentials`] says.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `url` is none or credentials are wrong, [`Error::Unreachable`] where nobody answers.
    pub async fn connect(url: impl Into<String>) -> Result<Client> {
        Client::connect_with(url, Credentials::default()).await
    }

    /// Connects as [`connect`](Client::connect) does, with these credentials; what they leave out is found. Files are
    /// read once.
    ///
    /// # Errors
    /// The same. A token that would go to another machine in the clear is refused before anything is sent.
    pub async fn connect_with(url: impl Into<String>, credentials: Credentials) -> Result<Client> {
        let url = url.into().trim_end_matches('/').to_owned();
        // Not in the message: it has a password.
        if url.contains('@') {
            return Err(Error::Invalid(
                "a URL has no credentials here: they go into `Credentials`".to_owned(),
            ));
        }
        let invalid = |cause| Error::Invalid(format!("`{url}` is not the URL of a server: {cause}"));
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| invalid(causes(&error)))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let parsed = Url::parse(&url).map_err(|error| invalid(error.to_string()))?;
        if !["http", "https"].contains(&parsed.scheme()) {
            return Err(invalid(format!("expected http:// or https://, got {}:", parsed.scheme())));
        }
        let credentials = credentials.find(&parsed)?;
        // A redirect could lead a token elsewhere, and so could a proxy between this machine and itself.
        let mut http = reqwest::Client::builder().redirect(redirect::Policy::none());
        if is_loopback(&parsed) {
            http = http.no_proxy();
        }
        let channel = if parsed.scheme() == "https" {
            let config = tls::config(&credentials)?;
            let channel = tls::channel(&endpoint, &config, &parsed)?;
            http = http.use_preconfigured_tls(config);
            channel
        } else {
            endpoint.connect_lazy()
        };
        let mut authorization = None;
        if let Some(token) = &credentials.token {
            let (header, metadata) = bearer(token)?;
            http = http.default_headers(HeaderMap::from_iter([(AUTHORIZATION, header)]));
            authorization = Some(metadata);
        }
        let base = url.clone();
        Client::begin(http, |http| Client { url, base, http, channel, authorization }).await
    }

    /// Connects to the server on this machine whose Unix socket `socket` is, `quern.sock` in its data folder, and sees
    /// that it lives. It lets in its own user and root.
    ///
    /// # Errors
    /// [`Error::Invalid`] where no path of a socket can be so, [`Error::Unreachable`] where nobody answers.
    pub async fn connect_over_socket(socket: &Path) -> Result<Client> {
        let url = socket.to_str().map(|path| format!("unix:{path}"));
        let url = url.ok_or_else(|| Error::Invalid(format!("{} is not UTF-8", socket.display())))?;
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| Error::Invalid(causes(&error)))?;
        let endpoint = endpoint.origin(Uri::from_static(THIS_MACHINE)).connect_timeout(CONNECT_TIMEOUT);
        let (channel, base) = (endpoint.connect_lazy(), THIS_MACHINE.to_owned());
        let http = reqwest::Client::builder().unix_socket(socket);
        Client::begin(http, |http| Client { url, base, http, channel, authorization: None }).await
    }

    async fn begin(
        http: reqwest::ClientBuilder,
        client: impl FnOnce(reqwest::Client) -> Client,
    ) -> Result<Client> {
        let http = http.connect_timeout(CONNECT_TIMEOUT).build();
        let client = client(http.map_err(|error| Error::Invalid(causes(&error)))?);
        let reply = client.http.get(client.address("/v2/health/live")).timeout(CONNECT_TIMEOUT).send();
        answered(reply.await.map_err(|error| client.unreachable(error))?).await?;
        Ok(client)
    }

    /// Where the server is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Looks feature vectors up. `entities` has one list per column, all of one length: join keys, request columns
    /// and, where it is not now, `event_timestamp`.
    pub async fn get_online_features(
        &self,
        feature_service: &str,
        entities: BTreeMap<String, Vec<Value>>,
    ) -> Result<OnlineFeatures> {
        let request = OnlineFeaturesRequest {
            feature_service: Some(feature_service.to_owned()),
            entities,
            ..OnlineFeaturesRequest::default()
        };
        self.call("/get-online-features", &request).await
    }

    /// Predicts with `model`, by the version that its route says. Each instance is a JSON object of join keys and
    /// request columns.
    pub async fn predict(
        &self,
        model: &str,
        instances: impl IntoIterator<Item = Value>,
    ) -> Result<Predictions> {
        self.predict_with(model, None, &predict_request(instances)?).await
    }

    /// Predicts with `version` of `model`, or with the one that its route says.
    pub async fn predict_with(
        &self,
        model: &str,
        version: Option<&str>,
        request: &PredictRequest,
    ) -> Result<Predictions> {
        self.call(&predict_path(model, version), request).await
    }

    /// Tells what came true of predictions of `model`; when this returns, it is durable.
    pub async fn label(&self, request: &LabelsRequest) -> Result<LabelsReply> {
        self.call("/v1/labels", request).await
    }

    /// Changes which version of `model` answers whom, by weights or by a ramp; an empty request gives back what is
    /// declared.
    pub async fn route(&self, model: &str, request: &RouteRequest) -> Result<Routed> {
        self.call(&route_path(model), request).await
    }

    /// What is live: entities, feature views, feature services, models.
    pub async fn definitions(&self) -> Result<Catalogue> {
        self.get("/v1/definitions").await
    }

    /// How the server is: what is wrong, what its stores hold, how far each feature view is.
    pub async fn status(&self) -> Result<ServerStatus> {
        let reply = self.http.get(self.address("/v1/status")).timeout(STATUS_TIMEOUT).send().await;
        read(answered(reply.map_err(|error| self.unreachable(error))?).await?).await
    }

    /// Gets `path` and reads the reply, for calls that have no method of their own.
    pub async fn get<Reply: DeserializeOwned>(&self, path: &str) -> Result<Reply> {
        let reply = self.http.get(self.address(path)).send().await;
        read(answered(reply.map_err(|error| self.unreachable(error))?).await?).await
    }

    /// Posts `request` as JSON to `path` and reads the reply: for calls that have no method of their own. `path` goes
    /// out as it is: names go into one through [`predict_path`] and [`route_path`].
    pub async fn call<Reply: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Result<Reply> {
        read(self.post(path, request).await?).await
    }

    /// Posts `request` as JSON to `path` and reads the reply as it comes, one JSON document a line.
    pub async fn call_lines<Line: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<BoxStream<'static, Result<Line>>> {
        let reply = self.post(path, request).await?;
        // What is left of the reply: the reply itself, the end of the last chunk, and the lines read before it.
        let rest = (reply, Vec::new(), VecDeque::new());
        let lines = futures::stream::try_unfold(rest, |(mut reply, mut tail, mut lines)| async move {
            loop {
                if let Some(line) = lines.pop_front() {
                    return Ok(Some((line, (reply, tail, lines))));
                }
                match reply.chunk().await {
                    Ok(Some(chunk)) => tail.extend_from_slice(&chunk),
                    Ok(None) if tail.is_empty() => return Ok(None),
                    Ok(None) => tail.push(b'\n'),
                    Err(error) => {
                        return Err(Error::Protocol(format!("the reply broke off: {}", causes(&error))));
                    }
                }
                let end = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
                for line in
                    tail.drain(..end).as_slice().split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
                {
                    lines.push_back(
                        serde_json::from_slice(line).map_err(|error| Error::Protocol(error.to_string()))?,
                    );
                }
            }
        });
        Ok(lines.boxed())
    }

    async fn post(&self, path: &str, request: &impl Serialize) -> Result<reqwest::Response> {
        let reply = self.http.post(self.address(path)).json(request).send().await;
        answered(reply.map_err(|error| self.unreachable(error))?).await
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn unreachable(&self, error: reqwest::Error) -> Error {
        // The URL is told already, and over a Unix socket the request has one that leads nowhere.
        Error::Unreachable { url: self.url.clone(), cause: causes(&error.without_url()) }
    }
}

/// Says who asks, over HTTP and over gRPC, in a way that no log shows.
fn bearer(token: &str) -> Result<(HeaderValue, MetadataValue<Ascii>)> {
    let text = format!("Bearer {token}");
    // Not the text itself: it has the token.
    let mut header = HeaderValue::from_str(&text).map_err(|error| Error::Invalid(error.to_string()))?;
    let mut metadata = MetadataValue::try_from(text).map_err(|error| Error::Invalid(error.to_string()))?;
    header.set_sensitive(true);
    metadata.set_sensitive(true);
    Ok((header, metadata))
}

fn predict_request(instances: impl IntoIterator<Item = Value>) -> Result<PredictRequest> {
    let instances = instances.into_iter().map(|instance| match instance {
        Value::Object(columns) => Ok(columns),
        other => Err(Error::Invalid(format!("an instance is an object of columns, not {other}"))),
    });
    Ok(PredictRequest { instances: instances.collect::<Result<_>>()?, with_features: false })
}

async fn answered(reply: reqwest::Response) -> Result<reqwest::Response> {
    let status = reply.status();
    if status.is_success() {
        return Ok(reply);
    }
    let header =
        |name: &str| reply.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (request_id, told_ms) = (header(REQUEST_ID), header(RETRY_AFTER.as_str()));
    let told_ms = told_ms.as_deref().and_then(retry_after_ms);
    let body = reply.text().await.unwrap_or_default();
    Err(match serde_json::from_str::<ErrorReply>(&body) {
        Ok(reply) => {
            let retry_after_ms = reply.retry_after_ms.or(told_ms);
            Error::Server(Box::new(ErrorReply { retry_after_ms, request_id, ..reply }))
        }
        Err(_) => foreign(status, &body, told_ms),
    })
}

/// What somebody between us and the server said, who has no codes of ours.
fn foreign(status: StatusCode, body: &str, retry_after_ms: Option<u64>) -> Error {
    let code = match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::Forbidden,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::TOO_MANY_REQUESTS => Code::Overloaded,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => Code::Late,
        StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        _ => return Error::Protocol(format!("{status}: {body}")),
    };
    let reply = ErrorReply::new(code, format!("{status}: {body}"));
    Error::Server(Box::new(ErrorReply { retry_after_ms, ..reply }))
}

/// `Retry-After` in whole seconds; a date is of a clock that may not be ours.
fn retry_after_ms(header: &str) -> Option<u64> {
    header.trim().parse::<u64>().ok()?.checked_mul(1_000)
}

async fn read<Reply: DeserializeOwned>(reply: reqwest::Response) -> Result<Reply> {
    let body = reply.bytes().await.map_err(|error| Error::Protocol(causes(&error)))?;
    serde_json::from_slice(&body).map_err(|error| Error::Protocol(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_again_is_a_header_and_never_a_sentence() {
        let told = |status, header: Option<&str>| {
            let error = foreign(status, "come again in 7 seconds", header.and_then(retry_after_ms));
            (error.code(), error.retry_after())
        };
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(told(busy, Some("2")), (Some(Code::Unavailable), Some(Duration::from_secs(2))));
        assert_eq!(told(busy, None), (Some(Code::Unavailable), None));
        assert_eq!(told(busy, Some("Wed, 21 Oct 2026 07:28:00 GMT")), (Some(Code::Unavailable), None));
        let many = StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(told(many, Some("1")), (Some(Code::Overloaded), Some(Duration::from_secs(1))));
        assert_eq!(told(StatusCode::BAD_GATEWAY, Some("1")), (None, None));
    }
}
