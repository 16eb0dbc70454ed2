//! How does an editor know the language?

use serde_json::{Map, Value, json};

use crate::dtype::{LIST_LENGTH_MAX, LIST_PATTERN};
use crate::duration::DURATION_PATTERN;
use crate::reach::{HTTP, SERVER_SCHEMES};
use crate::shape::{Kind, NAME_CHARS_MAX, OBJECT_SCHEMES, Object, Shape};
use crate::stored::STORED_PATTERN;
use crate::{ScalarType, Type};

/// The JSON Schema (2020-12) of one document of a definition file: `$defs` holds a schema for each kind, and
/// `kind` says which of them a document answers to.
///
/// It is read from the same table as the checks of [`parse`](crate::parse()), so what an editor accepts is well
/// formed; whether names resolve only `parse` knows.
pub fn schemas() -> Value {
    let references: Vec<Value> =
        Kind::ALL.iter().map(|kind| json!({"$ref": format!("#/$defs/{}", kind.name())})).collect();
    let definitions: Map<String, Value> =
        Kind::ALL.iter().map(|kind| (kind.name().to_owned(), object_schema(kind.object()))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Quern definition",
        "description": "One document of a definition file.",
        "oneOf": references,
        "$defs": definitions,
    })
}

fn object_schema(object: &Object) -> Value {
    let mut properties = Map::new();
    for key in object.keys {
        let mut schema = shape_schema(&key.shape);
        // The key's own line says more than the line of the object under it.
        schema["description"] = json!(key.doc);
        properties.insert(key.name.to_owned(), schema);
    }
    let required: Vec<&str> = object.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    json!({
        "type": "object",
        "description": object.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn shape_schema(shape: &Shape) -> Value {
    match shape {
        Shape::Constant(text) => json!({"const": text}),
        Shape::OneOf(texts) => json!({"enum": texts}),
        Shape::Text => json!({"type": "string"}),
        Shape::Character => json!({"type": "string", "pattern": "^[\\x01-\\x09\\x0b\\x0c\\x0e-\\x7f]$"}),
        Shape::Identifier
        | Shape::ModelName
        | Shape::Reference
        | Shape::ReferenceOrAll
        | Shape::ProjectOrAll => name_schema(shape),
        Shape::FeatureReference => json!({"type": "string", "pattern": "^[^:]+:[^:]+$"}),
        Shape::Rate => json!({"type": "string", "pattern": "^[0-9]{1,10}/[smh]$"}),
        Shape::Version => json!({"anyOf": [name_schema(shape), {"type": "integer", "minimum": 0}]}),
        Shape::SourceColumn => json!({"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX}),
        Shape::Path => json!({"type": "string", "minLength": 1, "anyOf": [
            {"not": {"pattern": "://"}}, {"pattern": format!("^({})://[^/]", OBJECT_SCHEMES.join("|"))},
            {"pattern": format!("^({})://[^/?#]+/[^?#*\\[]*[^/?#*\\[]$", HTTP.join("|"))},
        ]}),
        Shape::PathOrUrl => json!({"type": "string", "minLength": 1, "anyOf": [
            {"not": {"pattern": "://|^models:"}},
            {"pattern": "^models:/[^/:]+(/[0-9]+|@[^/:@]+)$"},
            {"pattern": format!("^({})://[^/]+/.", OBJECT_SCHEMES.join("|"))},
        ]}),
        Shape::Url => {
            let schemes = OBJECT_SCHEMES.into_iter().chain(SERVER_SCHEMES.map(|(scheme, _)| scheme));
            let schemes = schemes.collect::<Vec<_>>().join("|");
            json!({"type": "string", "pattern": format!("^({schemes})://.")})
        }
        // What it may be beside a driver only that one says.
        Shape::Leads => json!({"type": "string", "minLength": 1}),
        // A number or a boolean is SQL as it stands.
        Shape::Expression => json!({"type": ["string", "number", "boolean"], "minLength": 1}),
        Shape::Type => {
            json!({"type": "string", "anyOf": [{"enum": scalar_names(false)}, {"pattern": LIST_PATTERN}]})
        }
        Shape::Stored => json!({"type": "string", "pattern": STORED_PATTERN}),
        Shape::KeyType => json!({"enum": scalar_names(true)}),
        Shape::Duration { .. } => json!({"type": "string", "minLength": 2, "pattern": DURATION_PATTERN}),
        Shape::Overlap => json!({"anyOf": [
            {"type": "integer", "minimum": 0}, shape_schema(&Shape::Duration { zero: true }),
        ]}),
        Shape::Window => json!({"type": "string", "anyOf": [
            {"const": "lifetime"}, {"minLength": 2, "pattern": DURATION_PATTERN},
        ]}),
        Shape::Count { max } => json!({"type": "integer", "minimum": 1, "maximum": max}),
        Shape::Whole { max } => json!({"type": "integer", "minimum": 0, "maximum": max}),
        Shape::Share => json!({"type": "number", "minimum": 0, "maximum": 1}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Literal => json!({"anyOf": [shape_schema(&Shape::Value), {
            "type": "array", "maxItems": LIST_LENGTH_MAX, "items": shape_schema(&Shape::Value),
        }]}),
        Shape::Value => json!({"type": ["boolean", "number", "string"]}),
        Shape::AnyOf(shapes) => json!({"anyOf": shapes.iter().map(shape_schema).collect::<Vec<_>>()}),
        Shape::List(item) => json!({"type": "array", "minItems": 1, "items": shape_schema(item)}),
        Shape::Map { key, value } => json!({
            "type": "object",
            "propertyNames": name_schema(key),
            "additionalProperties": shape_schema(value),
        }),
        Shape::Object(object) | Shape::Secret(object) => object_schema(object),
        Shape::Short { key, object } => {
            let name = object.key(key).map(|key| shape_schema(&key.shape));
            json!({"anyOf": [name, object_schema(object)]})
        }
    }
}

fn name_schema(shape: &Shape) -> Value {
    json!({"type": "string", "maxLength": NAME_CHARS_MAX, "pattern": shape.name_pattern()})
}

fn scalar_names(keys_only: bool) -> Vec<&'static str> {
    let scalars = ScalarType::ALL.into_iter();
    scalars.filter(|scalar| !keys_only || Type::Scalar(*scalar).is_key()).map(ScalarType::name).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_kind_reads_like_its_table() {
        let mut schema = schemas()["$defs"]["Entity"].take();
        let properties = schema["properties"].as_object_mut().expect("an object");
        // Those of every kind.
        ["owner", "tags"].iter().for_each(|key| assert!(properties.remove(*key).is_some()));
        expect![[r#"
            {
              "type": "object",
              "description": "What features describe: a plane, a route, a customer.",
              "properties": {
                "kind": {
                  "const": "Entity",
                  "description": "Says that this document declares an entity."
                },
                "name": {
                  "type": "string",
                  "maxLength": 128,
                  "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
                  "description": "Unique among entities."
                },
                "description": {
                  "type": "string",
                  "description": "For people."
                },
                "join_keys": {
                  "type": "array",
                  "minItems": 1,
                  "items": {
                    "type": "object",
                    "description": "One column of an entity's key.",
                    "properties": {
                      "name": {
                        "type": "string",
                        "maxLength": 128,
                        "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
                        "description": "Column name."
                      },
                      "type": {
                        "enum": [
                          "bool",
                          "int32",
                          "int64",
                          "string",
                          "bytes",
                          "timestamp",
                          "date"
                        ],
                        "description": "Column type; floats and lists are never keys."
                      }
                    },
                    "required": [
                      "name",
                      "type"
                    ],
                    "additionalProperties": false
                  },
                  "description": "The columns that identify one entity, in key order."
                }
              },
              "required": [
                "kind",
                "name",
                "join_keys"
              ],
              "additionalProperties": false
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&schema).expect("a schema is JSON"));
    }

    #[test]
    fn every_kind_has_a_schema_told_apart_by_kind() {
        let schemas = schemas();
        for (kind, reference) in Kind::ALL.iter().zip(schemas["oneOf"].as_array().expect("a list")) {
            assert_eq!(reference["$ref"], format!("#/$defs/{}", kind.name()));
            let schema = &schemas["$defs"][kind.name()];
            assert_eq!(schema["properties"]["kind"]["const"], kind.name());
            assert_eq!(schema["additionalProperties"], false);
        }
    }

    #[test]
    fn everything_is_described() {
        fn visit(path: &str, schema: &Value) {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                assert!(property["description"].as_str().is_some_and(|doc| doc.ends_with('.')), "{path}");
                for nested in [property, &property["items"]] {
                    visit(&path, nested);
                    nested["anyOf"].as_array().into_iter().flatten().for_each(|schema| visit(&path, schema));
                }
            }
        }
        for kind in Kind::ALL {
            visit(kind.name(), &schemas()["$defs"][kind.name()]);
        }
    }
}
