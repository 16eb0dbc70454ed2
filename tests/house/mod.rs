//! Does the house hold? What manifests and visibility cannot keep.

mod floors;
mod tidy;

use std::path::PathBuf;

use quern_kit::root;

/// Where the crates are whose code is shipped.
const CRATES: [&str; 13] = [
    "feature-defs",
    "sdk/wire",
    "sdk/rust",
    "server/engine",
    "server/base",
    "server/store",
    "server/inference",
    "server/decode",
    "server/features",
    "server",
    "server/streams",
    "server/api",
    "server/cli",
];

/// The files that match `pattern`, by their paths from the root, with what is in them.
fn files(pattern: &str) -> Vec<(PathBuf, String)> {
    let found = glob::glob(&root().join(pattern).to_string_lossy()).unwrap().map(Result::unwrap);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root()).unwrap().to_owned(), text)
    };
    let found: Vec<_> = found.filter(|path| path.is_file()).map(read).collect();
    assert!(!found.is_empty(), "nothing is {pattern}");
    found
}
