//! Is this signed with that key (RFC 7518)? `ring` checks it, which is here for TLS anyway.

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

/// A way to sign that is believed.
pub(crate) struct Algorithm {
    /// As tokens and keys call it.
    pub(crate) name: &'static str,
    /// The keys that it is for.
    pub(crate) kind: Kind,
    check: Check,
}

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

enum Check {
    Rsa(&'static RsaParameters),
    Point(&'static dyn VerificationAlgorithm),
}

/// All that are believed: not `none`, and none with a secret that is shared. RSA keys have 2048 bits or more.
static ALGORITHMS: [Algorithm; 9] = [
    rsa("RS256", &RSA_PKCS1_2048_8192_SHA256),
    rsa("RS384", &RSA_PKCS1_2048_8192_SHA384),
    rsa("RS512", &RSA_PKCS1_2048_8192_SHA512),
    rsa("PS256", &RSA_PSS_2048_8192_SHA256),
    rsa("PS384", &RSA_PSS_2048_8192_SHA384),
    rsa("PS512", &RSA_PSS_2048_8192_SHA512),
    Algorithm { name: "ES256", kind: Kind::P256, check: Check::Point(&ECDSA_P256_SHA256_FIXED) },
    Algorithm { name: "ES384", kind: Kind::P384, check: Check::Point(&ECDSA_P384_SHA384_FIXED) },
    Algorithm { name: "EdDSA", kind: Kind::Ed25519, check: Check::Point(&ED25519) },
];

const fn rsa(name: &'static str, parameters: &'static RsaParameters) -> Algorithm {
    Algorithm { name, kind: Kind::Rsa, check: Check::Rsa(parameters) }
}

impl Algorithm {
    /// The one of this name, to the letter; none where it is not believed.
    pub(crate) fn of(name: &str) -> Option<&'static Algorithm> {
        ALGORITHMS.iter().find(|known| known.name == name)
    }
}

/// The public half of a key.
#[derive(Debug)]
pub(crate) enum PublicKey {
    /// Modulus and exponent, without zeros before them.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point of a curve, as `ring` takes it.
    Point(Kind, Vec<u8>),
}

impl PublicKey {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            PublicKey::Rsa { .. } => Kind::Rsa,
            PublicKey::Point(kind, _) => *kind,
        }
    }

    /// Whether `message` was signed so with its private half.
    pub(crate) fn has_signed(&self, algorithm: &Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&algorithm.check, self) {
            (Check::Rsa(parameters), PublicKey::Rsa { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            (Check::Point(check), PublicKey::Point(kind, point)) if *kind == algorithm.kind => {
                UnparsedPublicKey::new(*check, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}
