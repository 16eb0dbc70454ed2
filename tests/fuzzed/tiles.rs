//! Can any bytes be taken for the stored tiles of a key, and is what they say stored and read as the same?
//!
//! The first byte chooses a function, eight more the query time; the tiles follow.

use std::sync::{Arc, LazyLock};

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema};
use feature_defs::DefFile;
use quern_engine::schema::timestamp;
use quern_engine::windows::{Events, Kept, latest_us};
use quern_engine::{Failed, SourceSchemas, ViewPlan};

use crate::cells::Cells;

/// One for each state that is kept, over windows of every size of tiles.
const FUNCTIONS: [&str; 17] = [
    "count",
    "sum, of: x",
    "sum, of: i",
    "avg, of: x",
    "min, of: x",
    "max, of: s",
    "variance, of: x",
    "first, of: s",
    "last, of: i",
    "last_n, of: x, n: 3",
    "top_n_by, of: x, by: i, n: 2",
    "approx_distinct, of: i",
    "approx_percentile, of: x, percentile: 0.5",
    "count_distinct, of: s, limit: 3",
    "any, of: b",
    "histogram, of: s, limit: 3",
    "sum, of: x, buckets: s, limit: 2",
];

static VIEWS: LazyLock<Vec<Arc<ViewPlan>>> = LazyLock::new(|| FUNCTIONS.iter().map(|of| view(of)).collect());

fn view(function: &str) -> Arc<ViewPlan> {
    let text = format!(
        "kind: Entity\nname: e\njoin_keys: [{{name: k, type: int64}}]\n---\n\
         kind: Source\nname: s\nbatch: {{format: parquet, path: s.parquet}}\nevent_timestamp: at\n---\n\
         kind: FeatureView\nname: v\nentities: [e]\nsource: s\naggregations:\n\
         - {{name: f, function: {function}, windows: [1h, 12d, lifetime]}}\n\
         - {{name: g, function: {function}, hop: exact, windows: [30m]}}\n"
    );
    let definitions = feature_defs::parse(&[DefFile::new("v.yaml", text)]).unwrap();
    let columns = [
        ("k", DataType::Int64),
        ("at", timestamp()),
        ("x", DataType::Float64),
        ("i", DataType::Int64),
        ("s", DataType::Utf8),
        ("b", DataType::Boolean),
    ];
    let columns = columns.map(|(name, dtype)| Field::new(name, dtype, true));
    let sources = SourceSchemas::from([("s".to_owned(), Arc::new(Schema::new(columns.to_vec())))]);
    Arc::clone(&quern_engine::compile(definitions, &sources).unwrap().views["v"])
}

pub(crate) fn ask(bytes: &[u8]) {
    let mut cells = Cells(bytes);
    let view = &VIEWS[usize::from(cells.byte()) % FUNCTIONS.len()];
    let windows = view.windows.as_ref().unwrap();
    let asked_us = i64::from_le_bytes(cells.fixed());
    let (whole, kept) = (cells.0, windows.kept());
    assert_eq!(Kept::read(&Kept::read(whole).write()), Kept::read(whole));
    assert_eq!(Kept::read(&kept.write()), kept);
    let answer = |stored: &[u8], q_us: i64| {
        windows.answer(&[Some(stored), None], &[q_us, q_us], &view.every(), &kept, &mut Failed::default())
    };
    for q_us in [asked_us, latest_us(whole).unwrap_or_default()] {
        if let Ok(columns) = answer(whole, q_us) {
            assert!(columns.iter().all(|column| column.len() == 2));
        }
    }
    // As a push on top of them, and as a run that replaces what came after a day.
    let nothing = Events::default();
    for from_us in [i64::MAX, quern_engine::windows::Windows::cut_us(asked_us)] {
        let store = |stored: &[u8]| windows.store(Some(stored), from_us, &nothing, 0..0, &kept);
        // What is out of order may be taken for what it is not; what was written is in order.
        let Ok(written) = store(whole).and_then(|sorted| store(&sorted)) else { continue };
        let again = store(&written).unwrap();
        assert_eq!(again, written);
    }
}
