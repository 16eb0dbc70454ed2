//! Can any text be taken for an expression, and does it say of a row alone what it says in a batch?

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Float64Type, Schema};
use feature_defs::DefFile;
use quern_engine::schema::{arrow_type, timestamp};
use quern_engine::{EngineError, Failed, Found, RowState, ServicePlan, SourceSchemas};

/// Columns of each kind: those of the request, and a list, which the view brings.
const SERVICE: &str = "\
kind: Entity
name: e
join_keys: [{name: k, type: int64}]
---
kind: Source
name: s
batch: {format: parquet, path: s.parquet}
event_timestamp: at
---
kind: FeatureView
name: v
entities: [e]
source: s
features: [l]
---
kind: FeatureService
name: f
features: [v]
request:
  - {name: i, type: int64}
  - {name: j, type: int32}
  - {name: x, type: float64}
  - {name: f, type: float32}
  - {name: s, type: string}
  - {name: b, type: bool}
  - {name: at, type: timestamp}
  - {name: day, type: date}
outputs: [it]
";

static SOURCES: LazyLock<SourceSchemas> = LazyLock::new(|| {
    let columns = [("k", "int64"), ("at", "timestamp"), ("l", "list<float64>")];
    let field = |(name, dtype): (&str, &str)| Field::new(name, arrow_type(dtype.parse().unwrap()), true);
    SourceSchemas::from([("s".to_owned(), Arc::new(Schema::new(columns.map(field).to_vec())))])
});

/// A text may be longer; the mistakes of long ones are those of short ones.
const SQL_BYTES_MAX: usize = 2_048;

/// The list, the key, then the columns of the request: ordinary values, those at the ends of their types, and none.
static ROWS: LazyLock<Vec<ArrayRef>> = LazyLock::new(|| {
    let times =
        [Some(1_700_000_000_123_456), Some(-62_135_596_800_000_000), Some(253_402_300_799_999_999), None];
    let lists = [Some(vec![Some(0.5), None]), Some(vec![]), Some(vec![Some(-1e300)]), None];
    vec![
        Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists)),
        Arc::new(Int64Array::from(vec![1; 4])),
        Arc::new(Int64Array::from(vec![Some(3), Some(i64::MAX), Some(i64::MIN), None])),
        Arc::new(Int32Array::from(vec![Some(-2), Some(i32::MAX), Some(0), None])),
        Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::MAX), Some(f64::NAN), None])),
        Arc::new(Float32Array::from(vec![Some(-1.25), Some(f32::INFINITY), Some(-0.0), None])),
        Arc::new(StringArray::from(vec![Some("12"), Some("é a longer text\0"), Some(""), None])),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), Some(true), None])),
        Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC")),
        Arc::new(Date32Array::from(vec![Some(19_675), Some(-719_162), Some(2_932_896), None])),
    ]
});

pub(crate) fn ask(bytes: &[u8]) {
    let Ok(sql) = std::str::from_utf8(bytes) else { return };
    if sql.len() > SQL_BYTES_MAX {
        return;
    }
    let expr = serde_json::Value::from(sql);
    let text = format!("{SERVICE}derived: [{{name: it, expr: {expr}}}]\n");
    let file = DefFile::new("f.yaml", text);
    let Ok(definitions) = feature_defs::parse(&[file]) else { return };
    let Ok(catalog) = quern_engine::compile(definitions, &SOURCES) else { return };
    let service = &catalog.services["f"];
    let rows = ROWS[0].len();
    let Ok((whole, failed)) = values(service, 0, rows) else { return };
    assert_eq!(whole.data_type(), service.outputs.field(0).data_type());
    let mut failed_alone = 0;
    for row in 0..rows {
        let (alone, lost) = values(service, row, 1).unwrap();
        assert_eq!(alone.to_data(), whole.slice(row, 1).to_data(), "row {row}");
        failed_alone += lost;
    }
    assert_eq!(failed_alone, failed);
}

/// What the expression says of some of the rows, and how many of them failed.
fn values(service: &ServicePlan, start: usize, rows: usize) -> Result<(ArrayRef, u64), EngineError> {
    let mut columns: Vec<ArrayRef> = ROWS.iter().map(|column| column.slice(start, rows)).collect();
    let found = Found {
        columns: vec![columns.remove(0)],
        states: vec![RowState::Present; rows],
        event_timestamps: vec![0; rows],
        absent: Vec::new(),
        failed: Failed::default(),
    };
    let inputs = RecordBatch::try_new(Arc::clone(&service.inputs), columns).unwrap();
    let times = (start..start + rows).map(|row| row as i64 * 1_500_000);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
    assert_eq!(*times.data_type(), timestamp());
    let mut failed = Failed::default();
    let vectors = service.finish(&inputs, &times, &[found], &mut failed)?;
    Ok((Arc::clone(vectors.column(0)), failed.iter().map(|(_, rows)| rows).sum()))
}
