//! How is an object store asked, and who asks?
//!
//! What a connection says counts before what the environment of this process does. Who asks comes wholly from one of
//! the two: a token of the one beside a key of the other would be nobody's.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use quern_http::told;

use super::{ANSWER_TIMEOUT, Cloud, Location, web};

/// How long one request may take to its last byte, as the client's options are written.
const REQUEST_TIMEOUT: &str = "15min";
/// A request that fails for a cause that may pass is tried so many times more.
const RETRIES_MAX: usize = 3;
/// The same where thousands of requests belong together.
pub(super) const RETRIES_OF_MANY: usize = 8;
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// What the environment says of a store where a connection says who asks.
const OF_STORES: [&str; 6] = [
    "aws_region",
    "aws_default_region",
    "aws_endpoint_url",
    "aws_endpoint_url_s3",
    "aws_virtual_hosted_style_request",
    "aws_allow_http",
];

impl Location {
    pub(super) fn store(&self) -> object_store::Result<Arc<dyn ObjectStore>> {
        self.store_retrying(RETRIES_MAX)
    }

    /// The store, asked so many times more where a request fails for a cause that may pass.
    pub(super) fn store_retrying(&self, retries: usize) -> object_store::Result<Arc<dyn ObjectStore>> {
        let said = self.said()?;
        let (url, retry, timeout) = (self.url.as_str(), retrying(retries), ClientConfigKey::Timeout);
        // Whoever names an endpoint in the clear means it; AWS's own tools ask for nothing more either.
        let in_the_clear = |endpoint: Option<String>| endpoint.is_some_and(|url| url.starts_with("http://"));
        let http = (ClientConfigKey::AllowHttp, "true");
        Ok(match &self.cloud {
            Cloud::Web(server) => Arc::new(web::store(self, server, retry)?),
            Cloud::Amazon => {
                let builder = match self.says_who() {
                    true => AmazonS3Builder::new(),
                    false => AmazonS3Builder::from_env(),
                };
                let config = said.iter().filter_map(|(key, value)| Some((key.parse().ok()?, value)));
                let builder = config.fold(builder, |builder, (key, value)| builder.with_config(key, value));
                let endpoints = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint];
                let is_open = endpoints.iter().any(|key| in_the_clear(builder.get_config_value(key)));
                let builder = if is_open {
                    builder.with_config(AmazonS3ConfigKey::Client(http.0), http.1)
                } else {
                    builder
                };
                let builder = builder.with_url(url).with_retry(retry);
                Arc::new(builder.with_config(AmazonS3ConfigKey::Client(timeout), REQUEST_TIMEOUT).build()?)
            }
            Cloud::Google => {
                let builder = match self.says_who() {
                    true => GoogleCloudStorageBuilder::new(),
                    false => GoogleCloudStorageBuilder::from_env(),
                };
                let config = said.iter().filter_map(|(key, value)| Some((key.parse().ok()?, value)));
                let builder = config.fold(builder, |builder, (key, value)| builder.with_config(key, value));
                let is_open = in_the_clear(builder.get_config_value(&GoogleConfigKey::BaseUrl));
                let builder = if is_open {
                    builder.with_config(GoogleConfigKey::Client(http.0), http.1)
                } else {
                    builder
                };
                let builder = builder.with_url(url).with_retry(retry);
                Arc::new(builder.with_config(GoogleConfigKey::Client(timeout), REQUEST_TIMEOUT).build()?)
            }
            Cloud::Azure => {
                let builder = match self.says_who() {
                    true => MicrosoftAzureBuilder::new(),
                    false => MicrosoftAzureBuilder::from_env(),
                };
                let config = said.iter().filter_map(|(key, value)| Some((key.parse().ok()?, value)));
                let builder = config.fold(builder, |builder, (key, value)| builder.with_config(key, value));
                let is_open = in_the_clear(builder.get_config_value(&AzureConfigKey::Endpoint));
                let builder = if is_open {
                    builder.with_config(AzureConfigKey::Client(http.0), http.1)
                } else {
                    builder
                };
                let builder = builder.with_url(url).with_retry(retry);
                Arc::new(builder.with_config(AzureConfigKey::Client(timeout), REQUEST_TIMEOUT).build()?)
            }
        })
    }

    /// Whether its connection says who asks.
    pub(super) fn says_who(&self) -> bool {
        self.storage.anonymous || !self.storage.credentials.is_empty() || !self.lent.is_empty()
    }

    /// What is said besides the environment, by the names that `object_store` has for it.
    fn said(&self) -> object_store::Result<Vec<(String, String)>> {
        let mut said = self.told.clone();
        if self.says_who() {
            let of_store =
                |name: &&str| std::env::var(name.to_uppercase()).ok().map(|it| ((*name).to_owned(), it));
            said.extend(OF_STORES.iter().filter_map(of_store));
        }
        let endpoint = match &self.cloud {
            Cloud::Google => "base_url",
            Cloud::Amazon | Cloud::Azure | Cloud::Web(_) => "endpoint",
        };
        let plain = [(endpoint, &self.storage.endpoint), ("region", &self.storage.region)];
        said.extend(plain.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))));
        if self.storage.anonymous {
            said.push(("skip_signature".to_owned(), "true".to_owned()));
        }
        for (key, secret) in &self.storage.credentials {
            let not_told = |why: String| object_store::Error::Generic {
                store: "connection",
                source: format!("its connection {why}").into(),
            };
            said.push((key.clone(), told(key, secret).map_err(not_told)?));
        }
        if !self.storage.anonymous && self.storage.credentials.is_empty() {
            said.extend(self.lent.0.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        }
        Ok(said)
    }
}

fn retrying(times: usize) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { max_backoff: BACKOFF_MAX, ..BackoffConfig::default() },
        max_retries: times,
        retry_timeout: ANSWER_TIMEOUT,
    }
}
