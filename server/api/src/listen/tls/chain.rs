//! Does a client's certificate still hold?

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::files::Trust;
use crate::listen::certificate::{Said, said};

/// A client's certificate and those between it and its authority, as they were shown in a handshake.
#[derive(Debug)]
pub(in crate::listen) struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    said: Said,
    checked: Mutex<Checked>,
}

/// What was found last, and by whose word.
#[derive(Debug)]
struct Checked {
    by: Arc<Trust>,
    holds: bool,
}

impl Chain {
    /// What a client has shown in a handshake in which `trust` was what counted: it holds by that. None where nobody
    /// can tell what it says.
    pub(super) fn shown(certificates: &[CertificateDer<'_>], trust: Arc<Trust>) -> Option<Chain> {
        let said = match said(certificates.first()?) {
            Ok(said) => said,
            Err(error) => {
                tracing::debug!(cause = error.to_string(), "a client's certificate cannot be read");
                return None;
            }
        };
        let certificates = certificates.iter().map(|shown| shown.clone().into_owned()).collect();
        Some(Chain { certificates, said, checked: Mutex::new(Checked { by: trust, holds: true }) })
    }

    /// Whose it is.
    pub(in crate::listen) fn names(&self) -> &[String] {
        &self.said.names
    }

    /// Whether it holds at `now` by the word of `trust`. It is verified again where that is another than the last time,
    /// so that what was revoked meanwhile, or whose authority was removed, counts no more.
    pub(in crate::listen) fn holds(&self, trust: &Arc<Trust>, now: UnixTime) -> bool {
        if now.as_secs() > self.said.not_after_s {
            return false;
        }
        let mut checked = self.checked.lock();
        if !Arc::ptr_eq(&checked.by, trust) {
            let verified = self.verified(trust, now);
            if let Err(why) = &verified
                && checked.holds
            {
                tracing::info!(
                    names = self.said.names.join(", "),
                    why,
                    "a client's certificate counts no more"
                );
            }
            *checked = Checked { by: Arc::clone(trust), holds: verified.is_ok() };
        }
        checked.holds
    }

    fn verified(&self, trust: &Trust, now: UnixTime) -> Result<(), String> {
        let (Some(verifier), [first, rest @ ..]) = (&trust.verifier, self.certificates.as_slice()) else {
            return Err("nobody's certificates count any more".to_owned());
        };
        verifier.verify_client_cert(first, rest, now).map(drop).map_err(|error| error.to_string())
    }
}
