//! Which definitions are read from these files, and which mistakes?
//!
//! Cases are YAML, answers rewrite themselves with `UPDATE_EXPECT=1`.

mod connections;
mod databases;
mod mistakes;
mod names;
mod projects;
mod reads;
mod roles;

use expect_test::Expect;
use feature_defs::{DefError, DefFile, Definitions, parse};

/// Parses files given as name and text.
fn parse_all(files: &[(&str, &str)]) -> Result<Definitions, Vec<DefError>> {
    let file = |(path, text): &(&str, &str)| DefFile::new((*path).to_owned(), (*text).to_owned());
    parse(&files.iter().map(file).collect::<Vec<_>>())
}

/// The answer of `files`: their mistakes, or how many definitions of each kind they hold.
fn check_files(files: &[(&str, &str)], expected: Expect) {
    let shown = match parse_all(files) {
        Ok(definitions) => format!(
            "sound: {} entities, {} sources, {} views, {} services, {} models",
            definitions.entities.len(),
            definitions.sources.len(),
            definitions.views.len(),
            definitions.services.len(),
            definitions.models.len(),
        ),
        Err(errors) => errors.iter().map(DefError::to_string).collect::<Vec<_>>().join("\n"),
    };
    expected.assert_eq(&shown);
}

/// The answer of one file.
fn check(yaml: &str, expected: Expect) {
    check_files(&[("a.yaml", yaml)], expected);
}
