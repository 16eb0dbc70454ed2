//! What does a certificate say: whose is it, and until when?

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::{self, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const SPIFFE: &str = "spiffe://";
/// As the standard has it (SPIFFE-ID, 2.3).
const SPIFFE_BYTES_MAX: usize = 2_048;

/// What a certificate says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Whose it is: its SPIFFE ID, and then its DNS names.
    pub(super) names: Vec<String>,
    /// Its last second, since the Unix epoch.
    pub(super) not_after_s: u64,
}

/// Reads a certificate.
///
/// # Errors
/// What is no X.509.
pub(super) fn said(certificate: &CertificateDer<'_>) -> Result<Said, der::Error> {
    let certificate = Certificate::from_der(certificate)?;
    let said = certificate.tbs_certificate();
    let not_after_s = said.validity().not_after.to_unix_duration().as_secs();
    let names = said.get_extension::<SubjectAltName>()?.map(|(_, SubjectAltName(names))| names);
    Ok(Said { names: believed(&names.unwrap_or_default()), not_after_s })
}

/// Those of `names` that name somebody. A certificate of one SPIFFE ID has no other URI (X509-SVID, 2): with more, none
/// of them counts. A wildcard names many.
fn believed(names: &[GeneralName]) -> Vec<String> {
    let uri = |name: &GeneralName| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
        _ => None,
    };
    let uris: Vec<String> = names.iter().filter_map(uri).collect();
    let spiffe = match uris.as_slice() {
        [one] if is_spiffe(one) => Some(one.clone()),
        _ => None,
    };
    let host = |name: &GeneralName| match name {
        GeneralName::DnsName(name) if is_host(name.as_str()) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    };
    spiffe.into_iter().chain(names.iter().filter_map(host)).collect()
}

/// Whether it names a workload: a trust domain and a path, without anything that could be read in two ways.
fn is_spiffe(uri: &str) -> bool {
    let Some((domain, path)) = uri.strip_prefix(SPIFFE).and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let is_of = |text: &str, more: fn(u8) -> bool| {
        !text.is_empty() && text.bytes().all(|byte| more(byte) || b"-._".contains(&byte))
    };
    uri.len() <= SPIFFE_BYTES_MAX
        && is_of(domain, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && path.split('/').all(|part| is_of(part, |byte| byte.is_ascii_alphanumeric()))
        && !path.split('/').any(|part| part == "." || part == "..")
}

fn is_host(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use x509_cert::der::asn1::Ia5String;

    use super::*;

    fn check(uris: &[&str], hosts: &[&str]) -> Vec<String> {
        let text = |text: &&str| Ia5String::new(*text).unwrap();
        let uris = uris.iter().map(|uri| GeneralName::UniformResourceIdentifier(text(uri)));
        let hosts = hosts.iter().map(|host| GeneralName::DnsName(text(host)));
        believed(&hosts.chain(uris).collect::<Vec<_>>())
    }

    #[test]
    fn one_spiffe_id_names_a_workload() {
        let id = "spiffe://corp.example/ns/shop/sa/checkout";
        assert_eq!(check(&[id], &[]), [id]);
        assert_eq!(check(&[id], &["Node-7.corp"]), [id, "node-7.corp"]);
        // More than one, even the same twice, is no SPIFFE ID.
        assert_eq!(check(&[id, "spiffe://corp.example/other"], &["node-7.corp"]), ["node-7.corp"]);
        assert!(check(&[id, "https://corp.example"], &[]).is_empty() && check(&[id, id], &[]).is_empty());
    }

    #[test]
    fn what_could_be_read_in_two_ways_names_nobody() {
        let long = format!("spiffe://corp/{}", "a".repeat(2_048));
        for uri in [
            "spiffe://corp",
            "spiffe://corp/",
            "spiffe:///a",
            "spiffe://corp/a/",
            "spiffe://corp//a",
            "spiffe://corp/../a",
            "spiffe://corp/a/.",
            "spiffe://Corp/a",
            "SPIFFE://corp/a",
            "spiffe://corp:8/a",
            "spiffe://u@corp/a",
            "spiffe://corp/a?b",
            "spiffe://corp/a#b",
            "spiffe://corp/%61",
            "spiffe://corp/a b",
            "spiffe://corp/a\nb",
            "https://corp/a",
            "",
            &long,
        ] {
            assert!(check(&[uri], &[]).is_empty(), "{uri:?}");
        }
        assert!(check(&[], &["*.corp", "", "a b", "a\0", "a\n"]).is_empty());
    }
}
