//! What did the set-up bring? Models and old formats that are checked in, paths, Pythons.

use std::path::{Path, PathBuf};

/// Returns the root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// Returns how many random cases a law is held against that is held against `usual` of them in `make test`.
pub fn cases(usual: u32) -> u32 {
    let times = std::env::var("QUERN_CASES_TIMES").ok();
    usual * times.map_or(1, |times| times.parse().expect("QUERN_CASES_TIMES is a whole number"))
}

/// Reads a file of `tests/fixtures`.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = root().join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns a path that the set-up knows and a test cannot do without.
pub fn required(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    value.unwrap_or_else(|| panic!("{variable} is not set; `make test` sets it")).into()
}

/// Returns the folder that the set-up fills with tools.
pub fn cache() -> PathBuf {
    let cache = std::env::var_os("QUERN_CACHE").filter(|folder| !folder.is_empty());
    cache.map_or_else(|| required("HOME").join(".cache/quern"), PathBuf::from)
}

/// Returns the Python of the environment `name`, which the set-up makes.
pub fn python_of(name: &str) -> PathBuf {
    let python = cache().join(name).join("bin/python");
    assert!(python.exists(), "{} is missing: run ./setup.sh", python.display());
    python
}
