//! Which API keys are there? Made, listed, revoked; and what other servers of the registry did with them.
//!
//! Servers that share a registry ask it once a second how much has happened to keys, and read them where that is more
//! than before. While it does not answer, what is known holds: a key that was made still opens, and one that was
//! revoked still does not.

use std::sync::Arc;
use std::time::Duration;

use feature_defs::parse_duration;
use quern_access::Caller;
use quern_base::clock::{now_us, shown};
use quern_base::tasks::{Task, blocking};
use quern_identity::{Identity, KnownKey, api_key};
use quern_store::registry::{ApiKey, NewApiKey, Registry};
use quern_wire::{KeyInfo, KeyList, KeyState, NewKey, NewKeyRequest, RevokeKeysRequest};
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::live::Live;

/// How often the registry is asked what happened to keys.
const POLL: Duration = Duration::from_secs(1);
/// How long it may take to say.
const ANSWER: Duration = Duration::from_secs(5);
const NAME_BYTES_MAX: usize = 100;
/// A year is the longest that most rules let a key live; ten are for those without rules.
const LIFETIME_MAX_US: i64 = 3_660 * 86_400_000_000;
const LAST: usize = 4;

/// Makes and revokes API keys, and knows those that there are.
pub struct Keys {
    registry: Registry,
    identity: Arc<Identity>,
    live: Live,
    /// How much had happened to keys when they were read last. Whoever changes them holds it, too.
    seen: Mutex<i64>,
}

impl Keys {
    /// Reads the keys that there are.
    ///
    /// # Errors
    /// Where the registry does not answer.
    pub(crate) async fn open(registry: &Registry, identity: &Arc<Identity>, live: Live) -> Result<Arc<Keys>> {
        let (registry, identity) = (registry.clone(), Arc::clone(identity));
        // Nothing has this number.
        let keys = Keys { registry, identity, live, seen: Mutex::new(-1) };
        keys.catch_up().await?;
        Ok(Arc::new(keys))
    }

    /// Follows what other servers do with keys while the result lives; none where there can be no others.
    pub fn start(self: &Arc<Self>) -> Option<Task> {
        let keys = Arc::clone(self);
        self.registry.is_shared().then(|| {
            Task::spawn(async move {
                loop {
                    tokio::time::sleep(POLL).await;
                    // A registry that does not answer is told of by whoever follows applies.
                    if let Ok(Err(error)) = tokio::time::timeout(ANSWER, keys.catch_up()).await {
                        tracing::debug!(cause = error.logged(), "the keys that are known hold");
                    }
                }
            })
        })
    }

    async fn catch_up(&self) -> Result<()> {
        let mut seen = self.seen.lock().await;
        // Before the keys: what happens in between is read again.
        let changes = self.registry.key_changes().await?;
        if changes != *seen {
            self.identity.keys.replace(self.registry.keys().await?.into_iter().map(known));
            *seen = changes;
        }
        Ok(())
    }

    /// Whoever makes a key has the roles of its name: that is for administrators, and stands in the audit first.
    async fn administer(&self, who: &Caller, what: String) -> Result<()> {
        let (live, who) = (self.live.now(), who.clone());
        blocking("noting who changes API keys", move || live.seen_by(&who).administer(&what)).await
    }

    /// The same to revoke one: a disk that is full is no reason to believe a key any longer.
    async fn take_away(&self, who: &Caller, what: String) -> Result<()> {
        let (live, who) = (self.live.now(), who.clone());
        blocking("noting who revokes API keys", move || live.seen_by(&who).take_away(&what)).await
    }

    /// Makes a key for `who`, which is taken here when this returns, and by other servers of the registry within
    /// moments.
    ///
    /// # Errors
    /// A name that is none; where there are two valid keys of that name.
    pub async fn make(&self, who: &Caller, request: &NewKeyRequest) -> Result<NewKey> {
        self.administer(who, format!("make API key {}", request.name)).await?;
        check_name(&request.name)?;
        let lifetime_us = request.expires.as_deref().map(lifetime).transpose()?;
        let fresh = api_key::fresh()?;
        let new = NewApiKey {
            id: fresh.id,
            name: request.name.clone(),
            sha256: fresh.sha256,
            last_four: fresh.text[fresh.text.len() - LAST..].to_owned(),
            lifetime_us,
        };
        let _turn = self.seen.lock().await;
        let made = self.registry.make_key(&new).await?;
        self.identity.keys.add([known(made.clone())]);
        Ok(NewKey { key: fresh.text, info: info(made, now_us()) })
    }

    /// All keys that there ever were.
    ///
    /// # Errors
    /// `Kind::Forbidden` for who is no administrator.
    /// Where the registry does not answer.
    pub async fn list(&self, who: &Caller) -> Result<KeyList> {
        self.administer(who, "list API keys".to_owned()).await?;
        let now_us = now_us();
        let keys = self.registry.keys().await?.into_iter().map(|key| info(key, now_us));
        Ok(KeyList { keys: keys.collect() })
    }

    /// Revokes keys: they are not taken here any more when this returns, and by other servers within moments.
    ///
    /// # Errors
    /// `Kind::NotFound` where there is none of that ID or name.
    pub async fn revoke(&self, who: &Caller, request: &RevokeKeysRequest) -> Result<KeyList> {
        // A key itself must stand nowhere, least of all in the audit.
        if request.key.starts_with(api_key::PREFIX) {
            return Err(Error::invalid("name the key by its ID or its name, which `quern key list` shows"));
        }
        self.take_away(who, format!("revoke API key {}", request.key)).await?;
        let now_us = now_us();
        let _turn = self.seen.lock().await;
        let revoked = self.registry.revoke_keys(&request.key).await?;
        self.identity.keys.add(revoked.iter().cloned().map(known));
        Ok(KeyList { keys: revoked.into_iter().map(|key| info(key, now_us)).collect() })
    }
}

fn known(key: ApiKey) -> KnownKey {
    let ApiKey { id, name, sha256, expires_us, revoked_us, .. } = key;
    KnownKey { id, name, sha256, expires_us, is_revoked: revoked_us.is_some() }
}

fn info(key: ApiKey, now_us: i64) -> KeyInfo {
    let state = match (key.revoked_us, key.expires_us) {
        (Some(_), _) => KeyState::Revoked,
        (None, Some(expires_us)) if expires_us <= now_us => KeyState::Expired,
        _ => KeyState::Valid,
    };
    KeyInfo {
        id: key.id,
        name: key.name,
        state,
        last_four: key.last_four,
        created: shown(key.created_us),
        expires: key.expires_us.map(shown),
        revoked: key.revoked_us.map(shown),
    }
}

/// A name stands in logs and beside what its owner did, so it is short and of plain letters.
fn check_name(name: &str) -> Result<()> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@/".contains(&byte);
    match !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_letter) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "`{name}` is no name of a key: expected 1 to {NAME_BYTES_MAX} letters, digits and `-._@/`, as in `checkout`"
        ))),
    }
}

fn lifetime(text: &str) -> Result<i64> {
    let lifetime_us = parse_duration(text).map_err(|cause| Error::invalid(format!("`expires`: {cause}")))?;
    match (1..=LIFETIME_MAX_US).contains(&lifetime_us) {
        true => Ok(lifetime_us),
        false => Err(Error::invalid(format!(
            "`expires`: `{text}` is out of range: must be greater than 0 and at most 3660d"
        ))),
    }
}
