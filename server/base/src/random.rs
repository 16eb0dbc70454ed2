//! Which number does nobody else have?

use std::hash::{BuildHasher, RandomState};
use std::process;
use std::time::Instant;

/// A number that no process has drawn before, this one included.
pub fn number() -> u64 {
    // Each has keys of its own, drawn at random.
    RandomState::new().hash_one((process::id(), Instant::now()))
}
