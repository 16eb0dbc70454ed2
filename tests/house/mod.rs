//! Does the house hold? What manifests and visibility cannot keep.

mod floors;
mod tidy;

use std::path::PathBuf;

use quern_kit::root;

/// Where the crates are whose code is shipped: the members of the workspace, but for those that test and measure.
fn crates() -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.lines().skip_while(|line| *line != "members = [").skip(1);
    let members = members.take_while(|line| *line != "]").map(|line| line.trim().trim_matches(['"', ',']));
    let shipped: Vec<String> = members
        .filter(|folder| !folder.starts_with("tests/") && *folder != "benches")
        .map(str::to_owned)
        .collect();
    assert!(shipped.len() > 5, "the members of the workspace are no longer a list of lines");
    shipped
}

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
