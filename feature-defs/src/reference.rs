//! Does `docs/definitions.md` tell the whole language, and only what is true?
//!
//! The tables of keys in it are written by this test (run it with `UPDATE_EXPECT=1`); its examples are parsed.

use std::fmt::Write as _;

use expect_test::{ExpectFile, expect_file};

use crate::shape::{Kind, Object, Shape};
use crate::{DefFile, parse};

fn reference() -> ExpectFile {
    expect_file!["../../docs/definitions.md"]
}

#[test]
fn every_key_is_in_the_reference() {
    let mut text = reference().data();
    for kind in Kind::ALL {
        let (start, end) = (format!("<!-- keys: {} -->\n", kind.name()), "<!-- end -->");
        let (before, after) = text.split_once(&start).expect("a table for each kind");
        let (_, after) = after.split_once(end).expect("an end for each table");
        text = format!("{before}{start}\n{}\n{end}{after}", table(kind.object()));
    }
    reference().assert_eq(&text);
}

#[test]
fn every_example_is_sound() {
    let text = reference().data();
    let examples = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let documents: Vec<&str> = examples.map(|(example, _)| example).collect();
    let file = DefFile::new("definitions.md", documents.join("---\n"));
    let definitions = parse(&[file]).expect("sound examples");
    assert_eq!(definitions.services["arrival_delay_v1"].projections.len(), 3);
    assert_eq!(definitions.models.len(), 1);
}

fn table(object: &Object) -> String {
    let mut table = "| key | value | required | meaning |\n|---|---|---|---|\n".to_owned();
    rows(object, "", &mut table);
    table
}

fn rows(object: &Object, path: &str, table: &mut String) {
    for key in object.keys {
        let required = if key.required { "yes" } else { "" };
        let value = value(&key.shape).replace('|', "\\|");
        writeln!(table, "| `{path}{}` | {value} | {required} | {} |", key.name, key.doc)
            .expect("a text grows");
        if let Some((object, place)) = within(&key.shape) {
            rows(object, &format!("{path}{}{place}.", key.name), table);
        }
    }
}

/// The object that stands in `shape`, and how its place is written.
fn within(shape: &Shape) -> Option<(&'static Object, &'static str)> {
    match shape {
        Shape::Object(object) | Shape::Short { object, .. } => Some((object, "")),
        Shape::List(item) => within(item).map(|(object, _)| (object, "[]")),
        Shape::Map { value, .. } => within(value).map(|(object, _)| (object, ".*")),
        Shape::AnyOf(shapes) => shapes.iter().find_map(within),
        _ => None,
    }
}

fn value(shape: &Shape) -> String {
    match shape {
        Shape::Constant(_)
        | Shape::OneOf(_)
        | Shape::Bool
        | Shape::Count { .. }
        | Shape::Whole { .. }
        | Shape::Share => shape.expected(),
        Shape::Overlap => "[duration](#durations) or whole number".to_owned(),
        Shape::Window => "[duration](#durations) or `lifetime`".to_owned(),
        Shape::Text => "text".to_owned(),
        Shape::Character => "character".to_owned(),
        Shape::Identifier | Shape::ModelName => "name".to_owned(),
        Shape::Reference => "name".to_owned(),
        Shape::ReferenceOrAll => "name or `\"*\"`".to_owned(),
        Shape::FeatureReference => "`view:feature`".to_owned(),
        Shape::ProjectOrAll => "project or `\"*\"`".to_owned(),
        Shape::Rate => "rate".to_owned(),
        Shape::Version => "name or whole number".to_owned(),
        Shape::SourceColumn => "column".to_owned(),
        Shape::Path => "path or URL, perhaps a glob".to_owned(),
        Shape::PathOrUrl => "path or URL".to_owned(),
        Shape::Url | Shape::Leads => "URL".to_owned(),
        Shape::Expression => "SQL".to_owned(),
        Shape::Stored => "[stored type](#stored-as-something-else)".to_owned(),
        Shape::Type | Shape::KeyType => "[type](#types)".to_owned(),
        Shape::Duration { .. } => "[duration](#durations)".to_owned(),
        Shape::Literal | Shape::Value => "constant".to_owned(),
        Shape::AnyOf(shapes) => shapes.iter().map(value).collect::<Vec<_>>().join(" or "),
        Shape::List(Shape::Count { .. }) => "list of whole numbers".to_owned(),
        Shape::List(Shape::Map { .. }) => "list of mappings".to_owned(),
        Shape::List(Shape::Short { .. }) => "list of mappings or names".to_owned(),
        Shape::List(Shape::OneOf(texts)) => format!("list of `{}`", texts.join("`, `")),
        Shape::List(item) => format!("list of {}s", value(item)),
        Shape::Map { value: Shape::Whole { .. }, .. } => "mapping of versions to whole numbers".to_owned(),
        Shape::Map { value: Shape::AnyOf([_, Shape::Secret(_)]), .. } => {
            "mapping of names to texts or secrets".to_owned()
        }
        Shape::Map { value: Shape::Text, .. } => "mapping of names to texts".to_owned(),
        Shape::Map { key: Shape::Text, .. } => "mapping of inputs to columns".to_owned(),
        Shape::Map { .. } => "mapping of names to columns".to_owned(),
        Shape::Object(_) => "mapping".to_owned(),
        Shape::Secret(_) => "`{env: NAME}` or `{file: PATH}`".to_owned(),
        Shape::Short { .. } => "mapping or name".to_owned(),
    }
}
