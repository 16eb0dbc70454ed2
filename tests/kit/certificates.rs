//! Who vouches for whom? Authorities of a test's own, and what they sign.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub certificate: String,
}

/// What an authority has signed.
pub struct Signed {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
    serial: SerialNumber,
}

impl Authority {
    /// Makes one of this name.
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    /// Signs a certificate that holds now, for hosts, addresses and URIs.
    pub fn sign(&self, names: &[&str]) -> Signed {
        self.sign_for(SystemTime::now() - DAY..SystemTime::now() + DAY, names)
    }

    /// Signs one that holds for this time.
    pub fn sign_for(&self, time: Range<SystemTime>, names: &[&str]) -> Signed {
        let (uris, hosts): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        (params.not_before, params.not_after) = (time.start.into(), time.end.into());
        let key = KeyPair::generate().unwrap();
        let mut serial = key.public_key_raw()[1..9].to_vec();
        // A positive number, and its first byte counts.
        serial[0] = serial[0] & 0x7f | 0x40;
        let serial = SerialNumber::from(serial);
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Signed { certificate, key: key.serialize_pem(), serial }
    }

    /// Lists those of its certificates that count no more, PEM.
    pub fn revoke(&self, signed: &[&Signed]) -> String {
        let now = SystemTime::now();
        let revoked = |signed: &&Signed| RevokedCertParams {
            serial_number: signed.serial.clone(),
            revocation_time: (now - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: (now - DAY).into(),
            next_update: (now + DAY).into(),
            crl_number: SerialNumber::from(vec![1]),
            issuing_distribution_point: None,
            revoked_certs: signed.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}
