//! Whom does this server ask who they are, and whose word does it take?

use std::path::{Path, absolute};

use feature_defs::suggest;
use quern_identity::issuer::check_url;
use quern_identity::{Issuer, KeysAt, Registration, Trust};

use super::{Auth, Settings};

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
    /// Where it is not said of which issuer keys are, or at which one people sign in.
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
        Ok(Trust { issuers, audience: self.jwt_audience.clone(), sign_in: self.sign_in()? })
    }

    /// How people sign in by a browser, where they do.
    fn sign_in(&self) -> std::result::Result<Option<Registration>, String> {
        let Settings { oidc_client_id, oidc_client_secret, oidc_issuer, public_url, .. } = self;
        let Some(client_id) = oidc_client_id else {
            let said = [
                ("oidc_client_secret", oidc_client_secret.is_some()),
                ("oidc_issuer", oidc_issuer.is_some()),
            ];
            return match said.into_iter().find(|(_, is_said)| *is_said) {
                Some((setting, _)) => Err(format!(
                    "`{setting}` says nothing without `oidc_client_id`: what the issuer calls this server"
                )),
                None => Ok(None),
            };
        };
        if self.auth() == Auth::None {
            return Err(
                "`oidc_client_id` lets people sign in, and with `auth: none` nobody need: set `auth: \
                        required`, or leave it out"
                    .to_owned(),
            );
        }
        if *client_id == self.jwt_audience {
            return Err(format!(
                "`oidc_client_id` and `jwt_audience` are both `{client_id}`, so what signs a person in by a browser \
                 would do for programs as well: have the issuer call one of the two otherwise, as in `jwt_audience: \
                 {client_id}-api`"
            ));
        }
        let Some(public_url) = public_url else {
            return Err("`oidc_client_id` needs `public_url`: how browsers reach this server, such as \
                        `https://quern.corp`, to which the issuer sends people back"
                .to_owned());
        };
        let issuer = match (oidc_issuer, self.jwt_issuers.as_slice()) {
            (Some(name), issuers) if issuers.contains(name) => name,
            (Some(name), issuers) => {
                let known = suggest(name, issuers.iter().map(String::as_str));
                return Err(format!("`oidc_issuer` is `{name}`, which is none of `jwt_issuers`; {known}"));
            }
            (None, [issuer]) => issuer,
            (None, issuers) => {
                return Err(format!(
                    "`oidc_issuer` does not say at which issuer people sign in, and `jwt_issuers` has {}",
                    issuers.len()
                ));
            }
        };
        Ok(Some(Registration {
            issuer: issuer.clone(),
            client_id: client_id.clone(),
            client_secret: oidc_client_secret.clone(),
            scopes: self.oidc_scopes.clone(),
            redirect_uri: format!("{public_url}/login/callback"),
        }))
    }
}

/// What is asked of an issuer (RFC 6749, 3.3), with commas or spaces between.
pub(super) fn scopes(text: &str) -> std::result::Result<String, String> {
    let scopes: Vec<&str> = text.split([',', ' ']).filter(|scope| !scope.is_empty()).collect();
    let is_scope =
        |scope: &&str| scope.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
    match scopes.iter().find(|scope| !is_scope(scope)) {
        Some(scope) => Err(format!("`{scope}` is no name of a scope, such as `groups`")),
        None if !scopes.contains(&"openid") => Err(format!("`{text}` lacks `openid`, which signs people in")),
        None => Ok(scopes.join(" ")),
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
