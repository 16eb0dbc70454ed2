//! Which tokens were verified already? Remembered by their SHA-256, so that the next request with one costs a hash.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use quern_access::Principal;

/// By SHA-256.
pub(crate) type Digest = [u8; 32];

const TOKENS_MAX: usize = 4_096;
/// Of all of them, as they are written; what is made of them is a few times as much.
const BYTES_MAX: usize = 8 << 20;

/// Tokens that hold.
#[derive(Default)]
pub(crate) struct Remembered(RwLock<State>);

#[derive(Default)]
struct State {
    tokens: HashMap<Digest, Verified>,
    bytes: usize,
}

/// A token that holds.
#[derive(Clone)]
pub(crate) struct Verified {
    /// Whose it is.
    pub(crate) principal: Arc<Principal>,
    /// Which of the issuers gave it.
    pub(crate) issuer: usize,
    /// How often that one's keys had changed when it was verified: with others it may not hold.
    pub(crate) changes: u64,
    /// Until when it holds (µs since the Unix epoch).
    pub(crate) until_us: i64,
    /// How long it is.
    pub(crate) bytes: usize,
}

impl Remembered {
    pub(crate) fn get(&self, digest: &Digest) -> Option<Verified> {
        self.0.read().tokens.get(digest).cloned()
    }

    pub(crate) fn put(&self, digest: Digest, verified: Verified, now_us: i64) {
        let mut state = self.0.write();
        let is_full =
            |state: &State| state.tokens.len() >= TOKENS_MAX || state.bytes + verified.bytes > BYTES_MAX;
        if is_full(&state) {
            state.tokens.retain(|_, known| known.until_us > now_us);
            state.bytes = state.tokens.values().map(|known| known.bytes).sum();
            // All are in use: each is verified once more, which is what they cost without this.
            if is_full(&state) {
                *state = State::default();
            }
        }
        state.bytes += verified.bytes;
        if let Some(before) = state.tokens.insert(digest, verified) {
            state.bytes -= before.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use quern_access::Proof;

    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let remembered = Remembered::default();
        let principal = Arc::new(Principal::new(Proof::Open));
        let put = |number: usize, bytes: usize, until_us: i64, now_us: i64| {
            let mut digest = Digest::default();
            digest[..8].copy_from_slice(&number.to_le_bytes());
            let principal = Arc::clone(&principal);
            let verified = Verified { principal, issuer: 0, changes: 1, until_us, bytes };
            remembered.put(digest, verified, now_us);
            let state = remembered.0.read();
            assert_eq!(state.bytes, state.tokens.values().map(|known| known.bytes).sum::<usize>());
            (state.tokens.len(), state.bytes)
        };
        // One of two expires at 5, the other at 50.
        for number in 0..TOKENS_MAX {
            put(number, 100, if number % 2 == 0 { 5 } else { 50 }, 0);
        }
        assert_eq!(put(0, 200, 5, 0), (1, 200), "all were in use");
        for number in 0..TOKENS_MAX {
            put(number, 100, if number % 2 == 0 { 5 } else { 50 }, 0);
        }
        let (count, _) = put(TOKENS_MAX, 100, 50, 5);
        assert_eq!(count, TOKENS_MAX / 2 + 1);
        assert_eq!(put(0, BYTES_MAX, 50, 5), (1, BYTES_MAX));
    }
}
