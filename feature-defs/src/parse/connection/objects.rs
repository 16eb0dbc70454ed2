//! Is what a connection says of an object store whole, and of one?

use super::{check_told, check_ways};
use crate::parse::declared::Declaration;
use crate::reach::Reach;
use crate::shape::CREDENTIALS_OF;
use crate::{Connection, DefError};

/// Checks that what it says of an object store is whole, and is of one.
pub(super) fn check(connection: &Declaration<Connection>, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = connection;
    if def.database.is_some() {
        return;
    }
    let keys = ["endpoint", "region", "anonymous", "credentials"];
    let said = || keys.iter().filter_map(|key| Some((*key, node.get(key)?)));
    let Reach::Objects { bucket, .. } = &def.reach else {
        errors.extend(said().map(|(key, node)| {
            DefError::new(&node.loc, format!("`{key}` is of an object store, and `url` leads to none"))
                .with_help("leave it out, or give a `url` as in `s3://bucket/folder/`")
        }));
        return;
    };
    if let Some(endpoint) = node.get("endpoint") {
        let is_plain = endpoint.text().is_some_and(|url| {
            let host = url.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme));
            host.is_some_and(|(_, rest)| !rest.is_empty() && !rest.contains(['@', '?', '#']))
        });
        if !is_plain {
            errors.push(
                DefError::new(
                    &endpoint.loc,
                    "`endpoint` must be a URL of `http` or `https`, without a user or a password",
                )
                .with_help("as in `https://minio:9000`; who asks is said by `credentials`"),
            );
        }
    }
    let Some(credentials) = node.get("credentials") else { return };
    if def.storage.anonymous {
        errors.push(
            DefError::new(
                &credentials.loc,
                "`credentials` say who asks, and `anonymous` that nobody is named",
            )
            .with_help("leave one of them out"),
        );
    }
    let scheme = bucket.split("://").next().unwrap_or_default();
    match CREDENTIALS_OF.iter().find(|(schemes, _)| schemes.contains(&scheme)) {
        Some((_, ways)) => check_ways(credentials, &format!("`{scheme}://`"), ways, errors),
        None => check_told(credentials, errors),
    }
}
