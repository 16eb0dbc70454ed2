//! Is every input that is kept answered rightly?

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use quern_fuzzed::{QUESTIONS, ask};

#[test]
fn what_is_kept_is_answered() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let known = BTreeSet::from(QUESTIONS.map(|(name, _)| name.to_owned()));
    assert_eq!(names(&fuzz.join("seeds")), known, "each question has its seeds");
    assert!(names(&fuzz.join("fixtures")).is_subset(&known), "a fixture lies in the folder of its question");
    for (name, _) in QUESTIONS {
        for file in [fuzz.join("seeds").join(name), fuzz.join("fixtures").join(name)].iter().flat_map(files) {
            // Where one fails, this line stands above the panic.
            println!("{}", file.display());
            ask(name, &std::fs::read(file).unwrap());
        }
    }
}

/// What lies in a folder; nothing where there is none.
fn files(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let found = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    BTreeSet::from_iter(found).into_iter().collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    files(folder).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}
