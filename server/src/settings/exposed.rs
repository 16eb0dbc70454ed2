//! What stands open to others than this machine?

use std::net::{IpAddr, SocketAddr};

use http::Uri;

use super::{Auth, Settings};
use crate::error::{Error, Result};

impl Settings {
    /// Whether whoever asks must say who they are. Where nothing is said, they must as soon as others than this machine
    /// can ask, unless the server may stand open.
    pub fn auth(&self) -> Auth {
        let default = match self.exposed().is_empty() || self.insecure {
            true => Auth::None,
            false => Auth::Required,
        };
        self.auth.unwrap_or(default)
    }

    /// What a server that listens there is called, in lower case and without a port; anything where there is none.
    pub fn hosts_at(&self, listen: SocketAddr) -> Vec<String> {
        let mut hosts = match self.hosts.is_empty() && listen.ip().is_loopback() {
            true => vec!["localhost".to_owned()],
            false => self.hosts.clone(),
        };
        if let Some(public) = self.public_host().filter(|public| !hosts.is_empty() && !hosts.contains(public))
        {
            hosts.push(public);
        }
        hosts
    }

    /// What browsers call the server, where that is a name and no address.
    fn public_host(&self) -> Option<String> {
        let uri: Uri = self.public_url.as_ref()?.parse().ok()?;
        let host = uri.host()?.to_ascii_lowercase();
        host.trim_matches(['[', ']']).parse::<IpAddr>().is_err().then_some(host)
    }

    /// Where others than this machine reach the server, each by its setting.
    fn exposed(&self) -> Vec<String> {
        let all = [("listen", Some(self.listen)), ("listen_admin", self.listen_admin)];
        let others = all.into_iter().filter_map(|(setting, listen)| Some((setting, listen?)));
        let others = others.filter(|(_, listen)| !listen.ip().is_loopback());
        others.map(|(setting, listen)| format!("`{setting}: {listen}`")).collect()
    }

    /// What stands open to whoever reaches a server with these settings, to warn of; nothing where that is this machine
    /// alone, or where they are known and nobody listens in.
    ///
    /// # Errors
    /// Where it stands open by accident, with the ways out.
    pub fn stands_open(&self) -> Result<Option<String>> {
        let exposed = self.exposed().join(" and ");
        let mut open = Vec::new();
        if self.tls_certificate.is_none() {
            open.push("what is said there can be read and changed on its way (no `tls_certificate`)");
        }
        if self.auth() == Auth::None {
            open.push("whoever gets there may ask anything, and change what is served (`auth: none`)");
        }
        let open = open.join("; ");
        match (exposed.is_empty() || open.is_empty(), self.insecure) {
            (true, _) => Ok(None),
            (false, true) => Ok(Some(format!("{exposed} stands open to other machines: {open}"))),
            (false, false) => Err(Error::invalid(format!(
                "{exposed} would stand open to other machines: {open}. Listen on this machine alone, as in `listen: \
                 127.0.0.1:7400`; or set `tls_certificate` and `tls_key`, and `auth: required`; or say that it is to \
                 stand open: `--insecure`, `insecure: true` or QUERN_INSECURE=true"
            ))),
        }
    }

    /// Refuses files that say nothing without others.
    pub(super) fn check_tls(&self) -> Result<()> {
        let Settings { tls_certificate, tls_key, tls_client_ca, tls_revoked, .. } = self;
        for (setting, given, needs, needed, what) in [
            ("tls_certificate", tls_certificate, "tls_key", tls_key, "its private key"),
            ("tls_key", tls_key, "tls_certificate", tls_certificate, "the certificate that it belongs to"),
            (
                "tls_client_ca",
                tls_client_ca,
                "tls_certificate",
                tls_certificate,
                "the server's own certificate",
            ),
            (
                "tls_revoked",
                tls_revoked,
                "tls_client_ca",
                tls_client_ca,
                "the authorities whose lists they are",
            ),
        ] {
            if let (Some(path), None) = (given, needed) {
                return Err(Error::invalid(format!(
                    "`{setting}` names {}, and `{needs}` is not set: name the PEM file of {what} there",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}
