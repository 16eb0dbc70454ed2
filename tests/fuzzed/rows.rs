//! Can any JSON that is pushed or predicted for be read, and does what a reply shows of it say the same once more?

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Field, Schema, SchemaRef};
use feature_defs::{DefFile, Source};
use quern_decode::json::{self, Json};
use quern_engine::Inputs;
use quern_engine::schema::arrow_type;
use serde_json::json;

use crate::shown::shown;

const ARRIVAL_US: i64 = 1_700_000_000_000_000;

/// A source with a column of each type, and of each that numbers can be told to be times of.
const DEFINITIONS: &str = "\
kind: Source
name: s
push: true
event_timestamp: at
columns:
  - {name: at, type: timestamp}
  - {name: seconds, type: timestamp, format: epoch_s}
  - {name: nanos, type: timestamp, format: epoch_ns}
  - {name: day, type: date}
  - {name: truth, type: bool}
  - {name: short, type: int32}
  - {name: long, type: int64}
  - {name: single, type: float32}
  - {name: double, type: float64}
  - {name: text, type: string}
  - {name: bytes, type: bytes}
  - {name: list, type: list<float32>}
  - {name: pair, type: 'list<int64, 2>'}
  - {name: texts, type: list<string>}
  - {name: truths, type: 'list<bool, 2>'}
";

static SOURCE: LazyLock<(Source, SchemaRef)> = LazyLock::new(|| {
    let file = DefFile::new("s.yaml", DEFINITIONS.to_owned());
    let source = feature_defs::parse(&[file]).unwrap().sources["s"].clone();
    let field = |column: &feature_defs::Column| Field::new(&column.name, arrow_type(column.dtype), true);
    let schema = Schema::new(source.columns.iter().map(field).collect::<Vec<_>>());
    (source, Arc::new(schema))
});

pub(crate) fn ask(bytes: &[u8]) {
    let (source, schema) = &*SOURCE;
    let (events, rejected) = json::events(source, schema, &[json::event(bytes)]).unwrap();
    assert_eq!(events.num_rows(), 1);
    assert!(rejected.iter().all(|row| row.index == 0));
    if let Ok(serde_json::Value::Array(labels)) = serde_json::from_slice(bytes) {
        let labels: Option<Vec<_>> =
            labels.into_iter().map(|label| Some(label.as_object()?.clone())).collect();
        let read = labels.as_ref().and_then(|labels| json::labels(labels).ok());
        assert!(read.is_none_or(|read| Some(read.num_rows()) == labels.map(|labels| labels.len())));
    }
    let Ok([df, instances, inputs]) = json::body(bytes, ["df", "instances", "inputs"], &[]) else { return };
    df.iter().for_each(pushed);
    let wanted = Inputs { kind: "feature service", of: "s", schema };
    let asked = [
        instances.and_then(|given| json::instances(&wanted, &given, ARRIVAL_US).ok()),
        inputs.and_then(|given| json::columns(&wanted, "inputs", &given, ARRIVAL_US).ok()),
    ];
    for asked in asked.into_iter().flatten() {
        assert_eq!(asked.inputs.num_rows(), asked.query_times_us.len());
        let text = shown(&asked.inputs).to_string();
        let again: Json<'_> = serde_json::from_str(&text).unwrap();
        let again = json::columns(&wanted, "inputs", &again, ARRIVAL_US).unwrap();
        assert_eq!(shown(&again.inputs).to_string(), text);
    }
}

fn pushed(df: &Json<'_>) {
    let (source, schema) = &*SOURCE;
    let Ok((rows, rejected)) = json::rows(source, schema, df) else { return };
    assert!(rejected.iter().all(|row| row.index < rows.num_rows()));
    let text = json!({"df": shown(&rows)}).to_string();
    let [df] = json::body(text.as_bytes(), ["df"], &[]).unwrap();
    let (again, rejected) = json::rows(source, schema, &df.unwrap()).unwrap();
    assert!(rejected.is_empty(), "{rejected:?} of {text}");
    assert_eq!(json!({"df": shown(&again)}).to_string(), text);
}
