//! What do the files of TLS say, and have they changed?
//!
//! By their content: a copy with an older time counts, as does the link that Kubernetes points at a new folder.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use quern_base::digest::sha256;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

use super::{metrics, provider};
use crate::error::{Error, Result};
use crate::listen::certificate::said;

/// The server's certificate and key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) key: CertifiedKey,
    /// The certificate's last second, since the Unix epoch.
    pub(super) not_after_s: u64,
}

/// Whose certificates count; nobody's where there is no verifier.
#[derive(Debug, Default)]
pub(in crate::listen) struct Trust {
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// Files that say something together.
#[derive(Debug)]
pub(super) struct Part<T> {
    /// As it is counted.
    name: &'static str,
    files: Vec<Named>,
    read: fn(&[Found<'_>]) -> Result<T>,
    /// The digest of what was seen last, whether it could be used or not.
    seen: Mutex<String>,
}

/// A file, and the setting that names it.
#[derive(Debug)]
struct Named {
    setting: &'static str,
    path: PathBuf,
}

/// What lies there.
struct Found<'f> {
    file: &'f Named,
    bytes: io::Result<Vec<u8>>,
}

impl Part<Identity> {
    pub(super) fn of_identity(certificate: &Path, key: &Path) -> Part<Identity> {
        Part::new("certificate", identity, [("tls_certificate", certificate), ("tls_key", key)])
    }
}

impl Part<Trust> {
    pub(super) fn of_trust(ca: &Path, revoked: Option<&PathBuf>) -> Part<Trust> {
        let revoked = revoked.map(|revoked| ("tls_revoked", revoked.as_path()));
        Part::new("client_ca", trust, [("tls_client_ca", ca)].into_iter().chain(revoked))
    }
}

impl<T: Debug> Part<T> {
    fn new<'p>(
        name: &'static str,
        read: fn(&[Found<'_>]) -> Result<T>,
        files: impl IntoIterator<Item = (&'static str, &'p Path)>,
    ) -> Part<T> {
        let named = |(setting, path): (&'static str, &Path)| Named { setting, path: path.to_owned() };
        Part { name, files: files.into_iter().map(named).collect(), read, seen: Mutex::default() }
    }

    /// What they say when the server starts.
    ///
    /// # Errors
    /// What cannot be read or used.
    pub(super) fn first(&self) -> Result<T> {
        let found = self.find();
        *self.seen.lock() = digest(&found);
        (self.read)(&found)
    }

    /// What they say since they have changed; none where they have not, or say nothing that can be used. That is warned
    /// of and counted once.
    pub(super) fn changed(&self) -> Option<T> {
        let found = self.find();
        let digest = digest(&found);
        let mut seen = self.seen.lock();
        if *seen == digest {
            return None;
        }
        *seen = digest;
        let read = (self.read)(&found);
        let outcome = if read.is_ok() { "taken" } else { "refused" };
        metrics().reloads.with_label_values(&[self.name, outcome]).inc();
        match read {
            Ok(read) => {
                tracing::info!(part = self.name, "new files of TLS are in use");
                Some(read)
            }
            Err(error) => {
                let cause = error.to_string();
                tracing::warn!(
                    part = self.name,
                    cause,
                    "new files of TLS cannot be used; those before stay in use"
                );
                None
            }
        }
    }

    fn find(&self) -> Vec<Found<'_>> {
        self.files.iter().map(|file| Found { file, bytes: std::fs::read(&file.path) }).collect()
    }
}

fn digest(found: &[Found<'_>]) -> String {
    let each = found.iter().map(|found| match &found.bytes {
        Ok(bytes) => sha256(bytes),
        Err(error) => error.to_string(),
    });
    each.collect::<Vec<_>>().join(" ")
}

impl Found<'_> {
    fn bytes(&self, what: &str) -> Result<&[u8]> {
        self.bytes.as_deref().map_err(|error| self.wrong(&format!("cannot be read: {error}"), what))
    }

    /// All of a kind that are in it, at least one.
    fn all<T: PemObject>(&self, what: &str) -> Result<Vec<T>> {
        let all: std::result::Result<Vec<T>, pem::Error> = T::pem_slice_iter(self.bytes(what)?).collect();
        match all {
            Ok(all) if all.is_empty() => Err(self.wrong("holds none", what)),
            Ok(all) => Ok(all),
            Err(error) => Err(self.wrong(&format!("is no PEM: {error}"), what)),
        }
    }

    /// What is wrong with it, and what should be there instead.
    fn wrong(&self, why: &str, what: &str) -> Error {
        let Named { setting, path } = self.file;
        Error::invalid(format!("`{setting}`: {} {why}; wanted there, in PEM: {what}", path.display()))
    }
}

fn identity(found: &[Found<'_>]) -> Result<Identity> {
    let [certificate, key] = found else {
        return Err(Error::broken("a certificate and a key are two files"));
    };
    let wanted = "the server's certificate, and after it those between it and its authority";
    let chain: Vec<CertificateDer<'static>> = certificate.all(wanted)?;
    let first = chain.first().ok_or_else(|| certificate.wrong("holds none", wanted))?;
    let said = said(first).map_err(|error| certificate.wrong(&format!("is no X.509: {error}"), wanted))?;
    let key_wanted = format!("the private key of {}, without a password", certificate.file.path.display());
    let secret = PrivateKeyDer::from_pem_slice(key.bytes(&key_wanted)?);
    // What a parser says of a key is not quoted: it might quote the key.
    let secret = secret.map_err(|_| key.wrong("holds no private key that can be read", &key_wanted))?;
    let certified = CertifiedKey::from_der(chain, secret, &provider());
    let certified = certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => key.wrong("holds the key of another certificate", &key_wanted),
        error => key.wrong(&format!("does not fit: {error}"), &key_wanted),
    })?;
    Ok(Identity { key: certified, not_after_s: said.not_after_s })
}

fn trust(found: &[Found<'_>]) -> Result<Trust> {
    let [authorities, revoked @ ..] = found else { return Err(Error::broken("authorities are a file")) };
    let wanted = "certificates of the authorities that sign those of clients";
    let mut roots = RootCertStore::empty();
    for certificate in authorities.all::<CertificateDer<'static>>(wanted)? {
        roots
            .add(certificate)
            .map_err(|error| authorities.wrong(&format!("cannot be used: {error}"), wanted))?;
    }
    let mut lists = Vec::new();
    let lists_wanted = "revocation lists (CRLs) of the authorities in `tls_client_ca`";
    for revoked in revoked {
        lists.extend(revoked.all::<CertificateRevocationListDer<'static>>(lists_wanted)?);
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .with_crls(lists)
        .allow_unauthenticated()
        // An authority of which there is no list has revoked nothing.
        .allow_unknown_revocation_status()
        .build();
    let verifier = verifier.map_err(|error| match revoked.first() {
        Some(revoked) => revoked.wrong(&format!("cannot be used: {error}"), lists_wanted),
        None => authorities.wrong(&format!("cannot be used: {error}"), wanted),
    })?;
    Ok(Trust { verifier: Some(verifier) })
}
