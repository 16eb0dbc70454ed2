//! What does an issuer say of itself (OpenID Connect Discovery 1.0)?

use reqwest::{Client, Url};
use serde_json::Value;

use crate::http::{believed, get};

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// What an issuer says of itself.
pub(crate) struct Discovered {
    said: Value,
    is_tls: bool,
}

/// Asks the issuer of this name.
pub(crate) async fn discover(client: &Client, issuer: &str) -> Result<Discovered, String> {
    let url = believed(&format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')))?;
    let is_tls = url.scheme() == "https";
    let text = get(client, url).await?;
    let said: Value = serde_json::from_slice(&text)
        .map_err(|error| format!("what it says of itself is no JSON: {error}"))?;
    let discovered = Discovered { said, is_tls };
    match discovered.text("issuer") {
        name if name == issuer => Ok(discovered),
        name => Err(format!("it calls itself `{name}`, and the setting `{issuer}`")),
    }
}

impl Discovered {
    /// Where it is to be asked for something.
    pub(crate) fn endpoint(&self, name: &str) -> Result<Url, String> {
        let url = believed(self.text(name)).map_err(|why| format!("its `{name}`: {why}"))?;
        match self.is_tls && url.scheme() != "https" {
            true => Err(format!("its `{name}` is not to be had over TLS, as it is itself")),
            false => Ok(url),
        }
    }

    /// What it lists under this name; none where it lists nothing.
    pub(crate) fn list(&self, name: &str) -> Option<Vec<&str>> {
        let listed = self.said.get(name)?.as_array()?;
        Some(listed.iter().filter_map(Value::as_str).collect())
    }

    /// Whether it says yes to this.
    pub(crate) fn says(&self, name: &str) -> bool {
        self.said.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    fn text(&self, name: &str) -> &str {
        self.said.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}
