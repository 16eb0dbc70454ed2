//! Is what a connection says of brokers of Kafka whole?

use super::http::check_token_url;
use super::{check_no_store, check_told, check_ways};
use crate::parse::declared::Declaration;
use crate::parse::read::text;
use crate::shape::{SECURITY_PROTOCOLS, Who};
use crate::yaml::Node;
use crate::{Connection, DefError, KafkaOptions, SaslMechanism};

const CERTIFICATE: [&str; 3] = ["certificate", "private_key", "private_key_password"];

/// Checks that it is said how who asks is proved, and who that is.
pub(super) fn check(connection: &Declaration<Connection>, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = connection;
    check_no_store(node, "`url` leads to Kafka", "leave it out", errors);
    let options = &def.kafka;
    if let Some(node) = node.get("kafka") {
        let protocol = text(node, "security_protocol");
        let is_unread = node.get("sasl_mechanism").is_some() && options.mechanism.is_none();
        // Of words that are none, which were reported, nothing else follows.
        if is_unread || !SECURITY_PROTOCOLS.contains(&protocol.as_str()) {
            return;
        }
        check_options(options, node, errors);
        // Nor of such as do not go together.
        if options.security_protocol() != protocol {
            return;
        }
    }
    let Some(credentials) = node.get("credentials") else {
        if options.mechanism.is_some() {
            let cause = "`sasl_mechanism` says how who asks is proved, and nothing says who does";
            errors.push(
                DefError::new(&node.loc, cause).with_help(format!("give `credentials` of {}", user(options))),
            );
        }
        return;
    };
    let more: &'static [&'static str] = if options.is_secured { &CERTIFICATE } else { &[] };
    let ways: &[Who] = match options.mechanism {
        Some(SaslMechanism::OAuthBearer) => &[Who { all: &["client_id", "client_secret"], more }],
        Some(_) => &[Who { all: &["username", "password"], more }],
        None if options.is_secured => {
            &[Who { all: &["certificate", "private_key"], more: &["private_key_password"] }]
        }
        None => {
            let cause = "`credentials` say who asks, and `kafka` does not say that brokers are told";
            let help = "as in `kafka: {security_protocol: SASL_SSL, sasl_mechanism: SCRAM-SHA-512}`";
            errors.push(DefError::new(&credentials.loc, cause).with_help(help));
            return;
        }
    };
    check_ways(credentials, &format!("`{}`", options.security_protocol()), ways, errors);
    let said = |key: &str| credentials.get(key).is_some();
    let is_odd =
        said("certificate") != said("private_key") || said("private_key_password") && !said("private_key");
    // Without SASL that was reported.
    if options.is_secured && options.mechanism.is_some() && is_odd {
        let cause =
            "a `certificate` and its `private_key` belong together, and `private_key_password` to them";
        errors.push(DefError::new(&credentials.loc, cause).with_help("give both, or neither"));
    }
}

fn check_options(options: &KafkaOptions, node: &Node, errors: &mut Vec<DefError>) {
    check_told(node, errors);
    let protocol = text(node, "security_protocol");
    let of_sasl = protocol.starts_with("SASL");
    if of_sasl && node.get("sasl_mechanism").is_none() {
        let cause = format!("`{protocol}` needs a `sasl_mechanism`");
        errors.push(DefError::new(&node.loc, cause).with_help("as in `sasl_mechanism: SCRAM-SHA-512`"));
    }
    for (key, is_in_place, of) in [
        ("sasl_mechanism", of_sasl, "of `SASL_SSL` and `SASL_PLAINTEXT`"),
        ("ssl_ca", protocol.ends_with("SSL"), "of `SSL` and `SASL_SSL`"),
        ("token_url", options.mechanism == Some(SaslMechanism::OAuthBearer), "of `OAUTHBEARER`"),
        ("scope", options.mechanism == Some(SaslMechanism::OAuthBearer), "of `OAUTHBEARER`"),
    ] {
        if let Some(node) = node.get(key).filter(|_| !is_in_place) {
            errors.push(DefError::new(&node.loc, format!("`{key}` is {of}")).with_help("leave it out"));
        }
    }
    if options.mechanism == Some(SaslMechanism::OAuthBearer) && options.oauth.token_url.is_none() {
        let cause = "`OAUTHBEARER` needs a `token_url`, where tokens are asked for";
        errors.push(DefError::new(&node.loc, cause).with_help("as in `token_url: https://idp/oauth/token`"));
    }
    check_token_url(node, errors);
}

fn user(options: &KafkaOptions) -> &'static str {
    match options.mechanism {
        Some(SaslMechanism::OAuthBearer) => "`client_id` and `client_secret`",
        _ => "`username` and `password`",
    }
}
