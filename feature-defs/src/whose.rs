//! Whose is a YAML file: does it declare something of ours, or does it belong to another tool?
//!
//! Definitions lie beside code, so beside the YAML of many tools. A file is ours where one of its documents is, or
//! where one nearly is: a slip in `kind` must be a mistake that somebody reads, never a view that is gone.

use crate::Loc;
use crate::shape::Kind;
use crate::yaml::{self, Entry, Node, Value};

/// The key by which Kubernetes and whatever is modelled on it tell their documents apart.
const API_VERSION: &str = "apiVersion";
const KIND: &str = "kind";

/// Who a YAML file belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// It declares something, or is meant to.
    Ours,
    /// It is another tool's, for this reason.
    Others(String),
}

/// Whose a file with this text is.
///
/// A document with `apiVersion` is another tool's, whatever its kind. Of the others those are ours whose kind is one of
/// ours or nearly so, and those that lack nothing but the right kind. A file that is no YAML is ours where a line of it
/// names a kind of ours. A file without documents declares nothing, and is ours.
pub fn whose(text: &str) -> Whose {
    let read = yaml::read(Loc::start(""), text);
    if read.documents.iter().any(is_meant) || !read.complete && says_kind(text) {
        return Whose::Ours;
    }
    let why = match (read.documents.first(), read.errors.first()) {
        (None, Some(error)) => format!("it is no YAML; line {}: {}", error.loc.line, error.cause),
        (None, None) => return Whose::Ours,
        (Some(document), _) if is_anothers(document) => format!("it has `{API_VERSION}`"),
        (Some(document), _) => match document.get(KIND).and_then(Node::text) {
            Some(kind) => format!("its kind `{kind}` is none of Quern's"),
            None => format!("it has no `{KIND}`"),
        },
    };
    Whose::Others(why)
}

/// Whether some line of `text`, which need not be YAML nor even readable, names a kind of ours.
pub fn says_kind(text: &str) -> bool {
    text.split("\n---").any(|document| {
        let lines = || document.lines().map(|line| line.trim_start_matches([' ', '\t', '{', '-', '"', '\'']));
        lines().any(line_says_kind) && !lines().any(|line| line.starts_with(API_VERSION))
    })
}

fn line_says_kind(line: &str) -> bool {
    let Some((key, rest)) = line.split_at_checked(KIND.len()) else { return false };
    let value = rest.trim_start_matches([' ', '\t', ':', '=', '"', '\'']);
    let end = value.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-')).unwrap_or(value.len());
    key.eq_ignore_ascii_case(KIND) && is_near_a_kind(&value[..end])
}

/// Whether `document` says that it is another tool's.
pub(crate) fn is_anothers(document: &Node) -> bool {
    document.get(API_VERSION).is_some()
}

/// The entry of `document` that was to be its `kind`, where a slip gave it another key.
pub(crate) fn misspelt_kind(document: &Node) -> Option<&Entry> {
    document.entries().iter().find(|entry| {
        let is_kind = |text: &str| Kind::ALL.into_iter().any(|kind| letters(kind.name()) == letters(text));
        entry.key != KIND
            && strsim::damerau_levenshtein(&entry.key.to_lowercase(), KIND) <= 2
            && entry.value.text().is_some_and(is_kind)
    })
}

/// The kind of which `document` has all keys that it must have, and no other. A name and a URL are in many documents,
/// so a connection needs more than that.
pub(crate) fn shaped_as(document: &Node) -> Option<Kind> {
    Kind::ALL.into_iter().filter(|kind| *kind != Kind::Connection).find(|kind| {
        let object = kind.object();
        let mut required = object.keys.iter().filter(|key| key.required && key.name != KIND);
        required.all(|key| document.get(key.name).is_some())
            && document.entries().iter().all(|entry| object.key(&entry.key).is_some())
    })
}

fn is_meant(document: &Node) -> bool {
    if is_anothers(document) {
        return false;
    }
    if let Value::List(items) = &document.value {
        return items.iter().any(is_meant);
    }
    document.get(KIND).and_then(Node::text).is_some_and(is_near_a_kind)
        || misspelt_kind(document).is_some()
        || shaped_as(document).is_some()
}

/// Whether `kind` is a word of other tools that only looks like a slip in one of ours: a collection is no connection.
pub(crate) fn is_of_others(kind: &str) -> bool {
    ["collection", "collections"].contains(&letters(kind).as_str())
}

/// Whether `text` is the name of a kind, or of several, or a slip away from one.
fn is_near_a_kind(text: &str) -> bool {
    if is_of_others(text) {
        return false;
    }
    let mut text = letters(text);
    if let Some(stem) = text.strip_suffix("ies") {
        text = format!("{stem}y");
    }
    Kind::ALL.into_iter().any(|kind| {
        let kind = letters(kind.name());
        strsim::damerau_levenshtein(&kind, &text) <= (kind.len() + 2) / 4
    })
}

/// Without what people write a name differently by: case, blanks and dashes.
fn letters(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let said = match whose(text) {
            Whose::Ours => "ours".to_owned(),
            Whose::Others(why) => why,
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn other_tools_keep_their_files() {
        check("services:\n  db:\n    image: postgres\n", expect!["it has no `kind`"]);
        check(
            "name: ml\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n",
            expect!["it has no `kind`"],
        );
        check("name: x\ndescription: y\ninputs: {}\noutputs: {}\nruns: {}\n", expect!["it has no `kind`"]);
        check("- repo: local\n  hooks: [{id: a, name: b}]\n", expect!["it has no `kind`"]);
        check(
            "kind: pipeline\ntype: docker\nname: default\nsteps: []\n",
            expect!["its kind `pipeline` is none of Quern's"],
        );
        check("kind: Collection\nname: x\n", expect!["its kind `Collection` is none of Quern's"]);
        check("apiVersion: v1\nkind: Service\nmetadata: {name: web}\n", expect!["it has `apiVersion`"]);
        // Whatever its kind.
        check(
            "apiVersion: x/v1\nkind: FeatureView\nname: v\nentities: [e]\nsource: s\n",
            expect!["it has `apiVersion`"],
        );
        check(
            "apiVersion: {{ .Values.v }}\n{{- if .x }}\nkind: Deployment\n{{- end }}\n",
            expect!["it is no YAML; line 1: a key must be a name, found a mapping"],
        );
        check(
            "a: [1, 2\n",
            expect![
                "it is no YAML; line 2: not valid YAML: while parsing a flow sequence, expected ',' or ']'"
            ],
        );
        check(
            "# kind: Entity\na: [1, 2\n",
            expect![
                "it is no YAML; line 3: not valid YAML: while parsing a flow sequence, expected ',' or ']'"
            ],
        );
    }

    #[test]
    fn a_slip_drops_nothing() {
        for text in [
            "kind: Entity",
            "kind: FeatureVeiw\nname: x",
            "kind: feature_view",
            "kind: 'Feature Service'",
            "kind: entities",
            "Kind: Model\nname: m",
            "knid: Source",
            "- kind: Entity",
            "a: 1\n---\nkind: Entity",
            "apiVersion: v1\nkind: Pod\n---\nkind: Entity",
            // The kind is missing, or another one altogether.
            "name: x\njoin_keys: [{name: x, type: string}]",
            "kind: View\nname: v\nentities: [e]\nsource: s\nfeatures: [f]",
            // No YAML, and still ours.
            "kind: Entity\n\tname: x",
            "kind FeatureView\nname: x\nfeatures: [",
            "{\"kind\": \"FeatureView\", name",
            "a: 1\n---\nkind: Source\nname: [\n",
            // Nothing.
            "",
            "# only a comment\n---\n",
        ] {
            assert_eq!(whose(text), Whose::Ours, "{text}");
        }
    }
}
