//! What Confluent's own clients wrote (tests/fixtures/make_registry.py), and what they never would.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::expect_file;
use serde_json::Value;

use super::*;
use quern_engine::json::micros;

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/registry/registry.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The texts below a schema, from below.
fn below(fixture: &Value, schema: &Value, found: &mut Vec<(String, String)>) {
    for reference in schema["references"].as_array().into_iter().flatten() {
        let version = reference["version"].to_string();
        let id = &fixture["subjects"][reference["subject"].as_str().unwrap()][&version]["id"];
        let other = &fixture["schemas"][&id.to_string()];
        below(fixture, other, found);
        let name = reference["name"].as_str().unwrap().to_owned();
        found.push((name, other["schema"].as_str().unwrap().to_owned()));
    }
}

fn schemas(fixture: &Value) -> BTreeMap<SchemaName, Schema> {
    let mut schemas = BTreeMap::new();
    for (id, said) in fixture["schemas"].as_object().unwrap() {
        let (text, mut others) = (said["schema"].as_str().unwrap(), Vec::new());
        below(fixture, said, &mut others);
        let schema = match said["schemaType"].as_str() {
            None => {
                let texts: Vec<&str> = others.iter().map(|(_, text)| text.as_str()).chain([text]).collect();
                Schema::Avro(avro::Schema::parse(&texts).unwrap())
            }
            Some("PROTOBUF") => Schema::Protobuf(Protobuf::parse(text, &others).unwrap()),
            _ => Schema::Json,
        };
        schemas.insert(SchemaName::Id(id.parse().unwrap()), schema.clone());
        schemas.insert(SchemaName::Guid(said["guid"].as_str().unwrap().to_owned()), schema);
    }
    schemas
}

/// Whether a value says what the fixture, whose JSON has fewer kinds of values, says of it.
fn is_same(found: &Json<'_>, wanted: &Value) -> bool {
    let number = |wanted: &Value| match wanted {
        Value::String(text) => text.replace("Infinity", "inf").parse().ok(),
        wanted => wanted.as_f64(),
    };
    match (found, wanted) {
        (Json::Null, wanted) => wanted.is_null(),
        (Json::Bool(found), wanted) => wanted == found,
        (Json::Int(found), Value::Number(wanted)) => wanted.as_i64() == Some(*found),
        // A time of day, which no column has, as a number.
        (Json::Int(_), wanted) => wanted.as_str().is_some_and(|text| text.contains(':')),
        (Json::Float(found), wanted) => number(wanted).is_some_and(|wanted: f64| {
            wanted.to_bits() == found.to_bits() || wanted.is_nan() && found.is_nan()
        }),
        (Json::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len()
                && found.iter().zip(wanted).all(|(found, wanted)| is_same(found, wanted))
        }
        (Json::Object(entries), Value::String(wanted)) => {
            matches!(entries.as_slice(), [(key, Json::String(found))] if key == "b64" && found == wanted)
        }
        (Json::Object(entries), Value::Object(wanted)) => {
            // A key that is written twice is what it was last.
            let entries: BTreeMap<&str, &Json<'_>> =
                entries.iter().map(|(key, it)| (key.as_ref(), it)).collect();
            entries.len() == wanted.len()
                && entries.iter().all(|(key, found)| wanted.get(*key).is_some_and(|it| is_same(found, it)))
        }
        (Json::String(text), Value::String(wanted)) => {
            let time = || {
                micros(found, None).is_some_and(|it| Some(it) == micros(&Json::String(wanted.into()), None))
            };
            text == wanted || time()
        }
        (Json::Array(_) | Json::Object(_) | Json::String(_), _) => false,
    }
}

#[test]
fn events_say_what_their_writers_meant() {
    let fixture = fixture();
    let schemas = schemas(&fixture);
    let messages = fixture["messages"].as_array().unwrap();
    assert!(messages.len() > 60);
    for message in messages {
        let payload = bytes(message["hex"].as_str().unwrap());
        let header = message["headers"][HEADER].as_str().map(bytes);
        let framed = Framed::read(header.as_deref(), &payload).unwrap();
        let found = schemas[&framed.schema].read(&framed).unwrap_or_else(|why| panic!("{message}: {why}"));
        let mut wanted = message["json"].clone();
        let mut found_rest = found.clone();
        // Instants, to the microsecond.
        for (column, instant) in message["instants"].as_object().into_iter().flatten() {
            let Json::Object(entries) = &mut found_rest else { panic!("{message}") };
            let at = entries.iter().position(|(name, _)| name == column).unwrap();
            let (_, value) = entries.remove(at);
            assert_eq!(micros(&value, None), instant.as_i64(), "{message}: {column}: {value}");
            wanted.as_object_mut().unwrap().remove(column);
        }
        assert!(is_same(&found_rest, &wanted), "{message}: found {found:?}");
    }
}

#[test]
fn what_is_broken_is_refused_in_words() {
    let fixture = fixture();
    let schemas = schemas(&fixture);
    let mut shown = String::new();
    for broken in fixture["broken"].as_array().unwrap() {
        let parts = broken["parts"].as_array().into_iter().flatten();
        let parts =
            parts.map(|part| bytes(part[0].as_str().unwrap()).repeat(part[1].as_u64().unwrap() as usize));
        let payload = broken["hex"].as_str().map_or_else(|| parts.flatten().collect(), bytes);
        let read = Framed::read(None, &payload).and_then(|framed| {
            let schema = schemas.get(&framed.schema).ok_or("there is no such schema")?;
            schema.read(&framed).map(|json| json.to_string())
        });
        let said = match read {
            Ok(json) => format!("read as {json}"),
            Err(why) => why,
        };
        writeln!(
            shown,
            "{}: {}\n    {said}",
            broken["kind"].as_str().unwrap(),
            broken["why"].as_str().unwrap()
        )
        .unwrap();
    }
    expect_file!["broken.txt"].assert_eq(&shown);
}
