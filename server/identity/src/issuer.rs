//! Whose tokens are believed, and by which keys?
//!
//! An issuer says where its keys are (OpenID Connect Discovery 1.0), or the settings do. Keys are read once and serve:
//! after ten minutes they are read again beside the requests that need them, and a key that nobody knows is asked for
//! at most once a minute. While the issuer does not answer, what it said last serves for a day. One that answers that
//! it has no keys has answered: what was signed with those of before holds no longer.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;
use quern_base::metrics::{IntGaugeVec, gauges};
use reqwest::Client;
use tokio::io::AsyncReadExt;

use crate::discovery::discover;
use crate::http::{believed, get};
use crate::jwks::{Found, Jwks};
use crate::provider::Registration;
use crate::refused::{Result, Why};
use crate::signature::{Algorithm, PublicKey};

const SECOND_US: i64 = 1_000_000;
/// After so long keys are read again, while they serve.
const REFRESH_US: i64 = 600 * SECOND_US;
/// After so long they serve no more.
const STALE_US: i64 = 86_400 * SECOND_US;
/// An issuer that has said something is asked again no sooner ...
const PAUSE_US: i64 = 60 * SECOND_US;
/// ... and one that has not.
const FIRST_PAUSE_US: i64 = 5 * SECOND_US;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Whose tokens are believed, and what for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Who gives them.
    pub issuers: Vec<Issuer>,
    /// What a token must be for.
    pub audience: String,
    /// How people sign in by a browser, where they do.
    pub sign_in: Option<Registration>,
}

/// Who gives tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// What it calls itself in its tokens, to the letter: a URL.
    pub name: String,
    /// Where its keys are.
    pub keys: KeysAt,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysAt {
    /// Where it says so itself, below its own name.
    Discovery,
    /// At a URL.
    Url(String),
    /// In a file.
    File(PathBuf),
}

/// Says whether this names an issuer, or a place of its keys: over TLS, or on this machine.
///
/// # Errors
/// Why not, and what to do.
pub fn check_url(text: &str) -> std::result::Result<(), String> {
    believed(text).map(|_| ())
}

/// The origin that a URL names, as browsers write it, where it names nothing else: over TLS, or on this machine.
///
/// # Errors
/// Why it is none, and what to do.
pub fn origin(text: &str) -> std::result::Result<String, String> {
    let url = believed(text)?;
    match url.path() == "/" && url.query().is_none() && url.fragment().is_none() {
        true => Ok(url.origin().ascii_serialization()),
        false => {
            Err(format!("`{text}` is more than a scheme, a host and a port, such as `https://quern.corp`"))
        }
    }
}

fn up() -> &'static IntGaugeVec {
    static UP: LazyLock<IntGaugeVec> = LazyLock::new(|| {
        gauges("quern_token_issuer_up", "0 while the keys of an issuer of tokens cannot be had", &["issuer"])
    });
    &UP
}

/// An issuer, with what it said last.
pub(crate) struct Asked {
    issuer: Issuer,
    client: Option<Client>,
    state: RwLock<State>,
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    keys: Jwks,
    text: Vec<u8>,
    /// How often its keys have changed.
    changes: u64,
    /// When it was asked last.
    asked_us: Option<i64>,
    /// When it said `keys` last.
    said_us: Option<i64>,
    /// Whether it did not answer when it was asked last.
    is_silent: bool,
}

impl State {
    fn is_since(at_us: Option<i64>, now_us: i64, time_us: i64) -> bool {
        // Of two who ask at once the one that read the clock first may come last; a clock that was set back further
        // makes nothing young.
        at_us.is_some_and(|at_us| (-time_us..time_us).contains(&(now_us - at_us)))
    }

    fn serves(&self, now_us: i64) -> bool {
        State::is_since(self.said_us, now_us, STALE_US)
    }

    fn may_be_asked(&self, now_us: i64) -> bool {
        let pause_us = if self.serves(now_us) { PAUSE_US } else { FIRST_PAUSE_US };
        !State::is_since(self.asked_us, now_us, pause_us)
    }
}

impl Asked {
    pub(crate) fn new(issuer: Issuer, client: Option<Client>) -> Arc<Asked> {
        Arc::new(Asked { issuer, client, state: RwLock::default(), asking: Default::default() })
    }

    pub(crate) fn name(&self) -> &str {
        &self.issuer.name
    }

    /// What tells that the keys are those of before, and serve still; none where they do not.
    pub(crate) fn stands(self: &Arc<Self>, now_us: i64) -> Option<u64> {
        self.keep_fresh(now_us);
        let state = self.state.read();
        state.serves(now_us).then_some(state.changes)
    }

    /// The key for a token that names the key `id`, and what [`Asked::stands`] said then.
    pub(crate) async fn key(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: &Algorithm,
        now_us: i64,
    ) -> Result<(Arc<PublicKey>, u64)> {
        if let Some(found) = self.known(id, algorithm, now_us)? {
            self.keep_fresh(now_us);
            return Ok(found);
        }
        if self.state.read().may_be_asked(now_us) {
            // In a task of its own: a caller who leaves must not cut off the others' answer.
            let _ = tokio::spawn(Arc::clone(self).ask(now_us)).await;
        } else {
            // Somebody else may be asking just now.
            drop(self.asking.lock().await);
        }
        match self.known(id, algorithm, now_us)? {
            Some(found) => Ok(found),
            None if self.state.read().serves(now_us) => {
                Err(Why::UnknownKey.because(format!("{} has no such key", self.name())))
            }
            None => Err(Why::UnknownKey.because(format!("the keys of {} cannot be had", self.name()))),
        }
    }

    fn known(
        &self,
        id: Option<&str>,
        algorithm: &Algorithm,
        now_us: i64,
    ) -> Result<Option<(Arc<PublicKey>, u64)>> {
        let state = self.state.read();
        if !state.serves(now_us) {
            return Ok(None);
        }
        match state.keys.find(id, algorithm) {
            Found::Key(key) => Ok(Some((key, state.changes))),
            Found::Nothing => Ok(None),
            Found::OfAnotherKind => {
                Err(Why::Algorithm.because(format!("the key that it names is not for {}", algorithm.name)))
            }
        }
    }

    /// Has old keys read again, beside the request: what is known serves meanwhile.
    fn keep_fresh(self: &Arc<Self>, now_us: i64) {
        let is_due = {
            let state = self.state.read();
            state.serves(now_us)
                && !State::is_since(state.said_us, now_us, REFRESH_US)
                && state.may_be_asked(now_us)
        };
        if is_due {
            tokio::spawn(Arc::clone(self).ask(now_us));
        }
    }

    /// Asks it, unless somebody has in the meantime.
    async fn ask(self: Arc<Self>, now_us: i64) {
        let _turn = self.asking.lock().await;
        {
            let mut state = self.state.write();
            if !state.may_be_asked(now_us) {
                return;
            }
            state.asked_us = Some(now_us);
        }
        let said = match self.fetch().await {
            Ok(text) => Jwks::parse(&text).map(|keys| (keys, text)),
            Err(why) => Err(why),
        };
        up().with_label_values(&[self.name()]).set(said.is_ok().into());
        let mut state = self.state.write();
        match said {
            Ok((keys, text)) => {
                if text != state.text {
                    if keys.is_empty() {
                        let issuer = &self.issuer.name;
                        tracing::warn!(
                            issuer,
                            "an issuer shows no key that is believed, so no token of its holds"
                        );
                    }
                    (state.keys, state.text) = (keys, text);
                    state.changes += 1;
                }
                if std::mem::replace(&mut state.is_silent, false) {
                    tracing::info!(issuer = self.issuer.name, "the keys of an issuer can be had again");
                }
                state.said_us = Some(now_us);
            }
            Err(cause) => {
                if !std::mem::replace(&mut state.is_silent, true) {
                    let issuer = &self.issuer.name;
                    tracing::warn!(
                        issuer,
                        cause,
                        "the keys of an issuer cannot be had; known ones serve for a day"
                    );
                }
            }
        }
    }

    async fn fetch(&self) -> std::result::Result<Vec<u8>, String> {
        match (&self.issuer.keys, &self.client) {
            (KeysAt::File(path), _) => {
                let failed = |error: std::io::Error| format!("{}: {error}", path.display());
                let file = tokio::fs::File::open(path).await.map_err(failed)?;
                let mut text = Vec::new();
                file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).await.map_err(failed)?;
                match text.len() as u64 > FILE_BYTES_MAX {
                    true => Err(format!("{} holds more than {FILE_BYTES_MAX} bytes", path.display())),
                    false => Ok(text),
                }
            }
            (_, None) => Err("nobody can be asked over the network".to_owned()),
            (KeysAt::Url(url), Some(client)) => get(client, believed(url)?).await,
            (KeysAt::Discovery, Some(client)) => {
                let keys_at = discover(client, self.name()).await?.endpoint("jwks_uri")?;
                get(client, keys_at).await
            }
        }
    }
}
