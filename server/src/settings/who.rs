//! Whom does this server ask who they are, and whose word does it take?

use std::path::{Path, absolute};

use feature_defs::suggest;
use quern_identity::issuer::check_url;
use quern_identity::{Issuer, KeysAt, Trust};

use super::Settings;

/// Where the keys of an issuer are that does not say so itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysOf {
    /// Which issuer; none where there is only one.
    pub issuer: Option<String>,
    /// Where its keys are.
    pub at: KeysAt,
}

impl Settings {
    /// Whose tokens are believed.
    ///
    /// # Errors
    /// Where it is not said of which issuer keys are.
    pub fn trust(&self) -> std::result::Result<Trust, String> {
        let issuers = &self.jwt_issuers;
        for keys in &self.jwt_keys {
            match &keys.issuer {
                Some(name) if issuers.contains(name) => {}
                Some(name) => {
                    let known = suggest(name, issuers.iter().map(String::as_str));
                    return Err(format!(
                        "`jwt_keys` are of `{name}`, which is none of `jwt_issuers`; {known}"
                    ));
                }
                None if issuers.len() == 1 => {}
                None => {
                    return Err(format!(
                        "`jwt_keys` do not say whose they are, and `jwt_issuers` has {}: write `ISSUER=FILE`",
                        issuers.len()
                    ));
                }
            }
        }
        let issuer = |name: &String| {
            let mut keys =
                self.jwt_keys.iter().filter(|keys| keys.issuer.as_ref().is_none_or(|of| of == name));
            match (keys.next(), keys.next()) {
                (_, Some(_)) => Err(format!("`jwt_keys` names two places of the keys of `{name}`")),
                (Some(keys), None) => Ok(Issuer { name: name.clone(), keys: keys.at.clone() }),
                (None, None) => Ok(Issuer { name: name.clone(), keys: KeysAt::Discovery }),
            }
        };
        let issuers = issuers.iter().map(issuer).collect::<std::result::Result<_, _>>()?;
        Ok(Trust { issuers, audience: self.jwt_audience.clone() })
    }
}

/// URLs, with commas between.
pub(super) fn issuers(text: &str) -> std::result::Result<Vec<String>, String> {
    let issuer = |name: &str| check_url(name.trim()).map(|()| name.trim().to_owned());
    text.split(',').map(issuer).collect()
}

/// Files or URLs, with commas between, each behind its issuer and `=` or alone.
pub(super) fn keys(text: &str, base: &Path) -> std::result::Result<Vec<KeysOf>, String> {
    let keys = |text: &str| {
        let (issuer, place) = match text.split_once('=') {
            // The question of a URL has an `=` of its own.
            Some((issuer, place)) if issuer.contains("://") && !issuer.contains('?') => {
                (Some(issuer.trim()), place.trim())
            }
            _ => (None, text.trim()),
        };
        let at = match place.contains("://") {
            true => check_url(place).map(|()| KeysAt::Url(place.to_owned()))?,
            false => KeysAt::File(
                absolute(base.join(place)).map_err(|error| format!("`{place}` is not a path: {error}"))?,
            ),
        };
        Ok(KeysOf { issuer: issuer.map(str::to_owned), at })
    };
    text.split(',').map(keys).collect()
}
