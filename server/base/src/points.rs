//! Where can this process end between two steps that belong together?
//!
//! At named points, which a test has it pass, to end it at one of them as `kill -9` does: nothing is flushed, nothing
//! is given back. `QUERN_END_AT=NAME#3` ends it at the third pass of that point. There are points in builds with debug
//! assertions alone, which are those of the tests; in what users run, `pass` is nothing.
//!
//! Not the crate `fail`: it cannot end a process or count what was passed, and a feature that only tests switch on
//! would have cargo build every crate of ours twice, for `make compile` and for the tests.

#[cfg(debug_assertions)]
use std::collections::BTreeMap;

/// Passes the point of this name. Each name stands at one place.
#[inline]
pub fn pass(name: &'static str) {
    #[cfg(debug_assertions)]
    counted::pass(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// How often each point was passed here.
#[cfg(debug_assertions)]
pub fn passed() -> BTreeMap<&'static str, u64> {
    counted::all()
}

#[cfg(debug_assertions)]
mod counted {
    use std::collections::BTreeMap;
    use std::sync::{LazyLock, Mutex, PoisonError};

    static PASSED: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

    /// Where this process ends; none where it is to live.
    static END_AT: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let end = std::env::var("QUERN_END_AT").ok()?;
        let (name, pass) = end.rsplit_once('#')?;
        Some((name.to_owned(), pass.parse().ok()?))
    });

    pub(super) fn pass(name: &'static str) {
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        let count = passed.entry(name).or_default();
        *count += 1;
        if END_AT.as_ref().is_some_and(|(end, pass)| end == name && pass == count) {
            std::process::abort();
        }
    }

    pub(super) fn all() -> BTreeMap<&'static str, u64> {
        PASSED.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
