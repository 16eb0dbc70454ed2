//! Which API keys are there, and whose is this one?

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use quern_access::{Principal, Proof};
use subtle::ConstantTimeEq;

use crate::api_key;
use crate::refused::{Result, Why};

/// An API key, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// Its name among keys.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// SHA-256 of its secret, in hexadecimal.
    pub sha256: String,
    /// When it expires (µs since the Unix epoch); never where there is none.
    pub expires_us: Option<i64>,
    /// Whether it was revoked.
    pub is_revoked: bool,
}

/// The API keys that there are.
#[derive(Default)]
pub struct Keys(RwLock<HashMap<String, Known>>);

struct Known {
    sha256: String,
    expires_us: Option<i64>,
    is_revoked: bool,
    principal: Arc<Principal>,
}

impl Keys {
    /// From now on there are these keys and no others. One that was revoked stays so, whatever is said of it now.
    pub fn replace(&self, keys: impl IntoIterator<Item = KnownKey>) {
        let mut known = self.0.write();
        let before = std::mem::take(&mut *known);
        known.extend(keys.into_iter().map(|key| entry(key, &before)));
    }

    /// From now on there are these keys as well.
    pub fn add(&self, keys: impl IntoIterator<Item = KnownKey>) {
        let mut known = self.0.write();
        for key in keys {
            let (id, key) = entry(key, &known);
            known.insert(id, key);
        }
    }

    /// Whose key this is.
    pub(crate) fn who(&self, text: &str, now_us: i64) -> Result<Arc<Principal>> {
        let Some((id, sha256)) = api_key::read(text) else {
            return Err(Why::Key.because("it is not written as a key is"));
        };
        let known = self.0.read();
        let Some(key) = known.get(id) else {
            return Err(Why::Key.because(format!("there is no key {id}")));
        };
        // How long this takes tells nothing of what is kept.
        if !bool::from(key.sha256.as_bytes().ct_eq(sha256.as_bytes())) {
            return Err(Why::Key.because(format!("its secret is not that of key {id}")));
        }
        if key.is_revoked {
            return Err(Why::KeyRevoked.because(format!("key {id} was revoked")));
        }
        if key.expires_us.is_some_and(|expires_us| expires_us <= now_us) {
            return Err(Why::KeyExpired.because(format!("key {id} has expired")));
        }
        Ok(Arc::clone(&key.principal))
    }
}

fn entry(key: KnownKey, before: &HashMap<String, Known>) -> (String, Known) {
    let KnownKey { id, name, sha256, expires_us, is_revoked } = key;
    let is_revoked = is_revoked || before.get(&id).is_some_and(|before| before.is_revoked);
    let principal = Arc::new(Principal::new(Proof::Key(name)));
    (id, Known { sha256, expires_us, is_revoked, principal })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(fresh: &api_key::Fresh) -> KnownKey {
        KnownKey {
            id: fresh.id.clone(),
            name: "ann".to_owned(),
            sha256: fresh.sha256.clone(),
            expires_us: None,
            is_revoked: false,
        }
    }

    #[test]
    fn what_was_revoked_stays_so() {
        let (keys, fresh) = (Keys::default(), api_key::fresh().unwrap());
        let why = |now_us| keys.who(&fresh.text, now_us).map_err(|error| *error.facts::<Why>().unwrap());
        assert_eq!(why(0), Err(Why::Key));
        keys.add([key(&fresh)]);
        assert_eq!(why(0).unwrap().name(), "key:ann");
        keys.replace([KnownKey { expires_us: Some(7), ..key(&fresh) }]);
        assert!(why(6).is_ok());
        assert_eq!(why(7), Err(Why::KeyExpired));
        keys.add([KnownKey { is_revoked: true, ..key(&fresh) }]);
        assert_eq!(why(0), Err(Why::KeyRevoked));
        keys.replace([key(&fresh)]);
        assert_eq!(why(0), Err(Why::KeyRevoked));
        keys.replace([]);
        assert_eq!(why(0), Err(Why::Key));
    }

    proptest! {
        #[test]
        fn a_key_with_another_character_is_no_key(place in 0..66_usize, other in any::<char>()) {
            let (keys, fresh) = (Keys::default(), api_key::fresh().unwrap());
            keys.add([key(&fresh)]);
            let mut letters: Vec<char> = fresh.text.chars().collect();
            prop_assume!(letters[place] != other);
            letters[place] = other;
            prop_assert!(keys.who(&letters.iter().collect::<String>(), 0).is_err());
            prop_assert!(keys.who(&fresh.text, 0).is_ok());
        }
    }
}
