//! What is stored of a key, byte for byte; and that history and the head give the same windows.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Float64Type, Int64Type, Schema};
use arrow::util::display::array_value_to_string;
use expect_test::expect;
use feature_defs::DefFile;
use sha2::{Digest, Sha256};

use super::window::DAY_US;
use super::*;
use crate::Failed;
use crate::time::visible_from;
use crate::{SourceSchemas, ViewPlan};

const KEYS: usize = 3;
const NOW_US: i64 = 40 * DAY_US;

/// Every function, over windows of every size of tiles.
const FUNCTIONS: [&str; 19] = [
    "count",
    "count, of: x",
    "sum, of: x",
    "sum, of: i, where: b",
    "avg, of: x",
    "min, of: x",
    "max, of: s",
    "stddev, of: x",
    "variance, of: i",
    "first, of: s",
    "last, of: i",
    "last_n, of: x, n: 3",
    "top_n_by, of: x, by: i, n: 2",
    "approx_distinct, of: i",
    "approx_percentile, of: x, percentile: 0.5",
    "count_distinct, of: s, limit: 3",
    "any, of: b",
    "histogram, of: s, limit: 3",
    "last, of: i, buckets: s, limit: 2",
];

fn view(functions: &[&str], event_id: &str) -> Arc<ViewPlan> {
    let aggregations = functions.iter().enumerate().map(|(number, function)| {
        let windows = "windows: [1h, 12d, lifetime]";
        format!("- {{name: f{number}, function: {function}, {windows}}}\n- {{name: e{number}, function: {function}, hop: exact, windows: [30m]}}\n")
    });
    let text = format!(
        "kind: Entity\nname: e\njoin_keys: [{{name: k, type: int64}}]\n---\n\
         kind: Source\nname: s\nbatch: {{format: parquet, path: s.parquet}}\nevent_timestamp: at\n\
         created_timestamp: known_at\n{event_id}---\n\
         kind: FeatureView\nname: v\nentities: [e]\nsource: s\naggregations:\n{}",
        aggregations.collect::<String>()
    );
    let definitions = feature_defs::parse(&[DefFile::new("v.yaml", text)]).unwrap();
    let sources = SourceSchemas::from([("s".to_owned(), rows(0).schema())]);
    Arc::clone(&crate::compile(definitions, &sources).unwrap().views["v"])
}

/// Rows that are the same each time, some of them more than once.
fn rows(count: usize) -> RecordBatch {
    let mut state = 7_u64;
    let mut pick = |below: u64| {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)) % below
    };
    let picks: Vec<[u64; 8]> =
        (0..count).map(|_| [KEYS as u64, 3_000, 3, 40, 9, 5, 3, 2].map(&mut pick)).collect();
    let of = |column: usize| picks.iter().map(move |row| row[column]);
    let at = || of(1).map(|n| n as i64 * NOW_US / 3_000);
    let time = |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"));
    let known_at = at().zip(of(2)).map(|(us, late)| us + late as i64 * DAY_US).collect();
    let texts = of(5).map(|n| ["a", "b", "c", "d"].get(n as usize).copied());
    let columns: [(&str, ArrayRef); 8] = [
        ("k", Arc::new(Int64Array::from_iter_values(of(0).map(|n| n as i64)))),
        ("at", time(at().collect())),
        ("known_at", time(known_at)),
        ("n", Arc::new(Int64Array::from_iter_values(of(6).map(|n| n as i64)))),
        ("x", Arc::new(Float64Array::from_iter(of(3).map(|n| (n > 2).then(|| n as f64 / 7.0 - 2.0))))),
        ("i", Arc::new(Int64Array::from_iter(of(4).map(|n| (n > 0).then_some(n as i64))))),
        ("s", Arc::new(StringArray::from_iter(texts))),
        ("b", Arc::new(BooleanArray::from_iter(of(7).map(|n| Some(n > 0))))),
    ];
    let fields = columns.each_ref().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns.map(|(_, column)| column).to_vec())
        .unwrap()
}

/// The events of the view's rows, by key: those of the last batch first, as another thread may have read them.
fn events(view: &ViewPlan, rows: &RecordBatch, as_known: bool) -> (Events, Vec<Range<usize>>) {
    let windows = view.windows.as_ref().unwrap();
    let wanted = windows.inputs_of(&view.every());
    let chunk = |start: usize| {
        let rows = rows.slice(start, 100.min(rows.num_rows() - start));
        let project = |names: &[String]| {
            let places: Vec<usize> = names.iter().map(|name| rows.schema().index_of(name).unwrap()).collect();
            rows.project(&places).unwrap()
        };
        let stamps = view.stamps(&project(view.stamp_columns())).unwrap();
        let inputs = project(view.row_columns());
        let rank = |(created_us, arrival): (&i64, u64)| Rank { created_us: *created_us, arrival };
        let ranks = || stamps.created_us.iter().zip(start as u64..).map(rank).collect();
        let identities = windows.identities(&inputs).unwrap();
        let key = |row: usize| stamps.keys.get(row).unwrap()[7].into();
        Chunk {
            keys: (0..rows.num_rows()).map(key).collect(),
            visible_us: stamps.times_us.iter().map(|us| visible_from(*us, view.lag_us)).collect(),
            first: start as u64,
            order: windows.needs_order(as_known).then(|| Order { ranks: ranks(), identities }),
            inputs: windows.prepare(&inputs, &wanted, &mut Failed::default()).unwrap(),
        }
    };
    let chunks = (0..rows.num_rows()).step_by(100).rev().map(chunk).collect();
    Events::sort(chunks, KEYS, as_known).unwrap()
}

/// All events count.
fn asked<'a>(groups: &'a [Group], times_us: &'a [i64]) -> Asked<'a> {
    Asked { groups, times_us, excluded: None }
}

fn shown(columns: &[ArrayRef]) -> String {
    let show = |column: &ArrayRef| {
        let values = (0..column.len()).map(|row| match column.is_null(row) {
            true => "null".to_owned(),
            false => array_value_to_string(column, row).unwrap(),
        });
        values.collect::<Vec<_>>().join(" | ")
    };
    columns.iter().map(show).collect::<Vec<_>>().join("\n")
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of each key: all at once, and the last ten days on top of what was stored before them.
fn stored(view: &ViewPlan, events: &Events, ranges: &[Range<usize>]) -> Vec<Vec<u8>> {
    let windows = view.windows.as_ref().unwrap();
    let kept = windows.kept();
    let store = |range: &Range<usize>| {
        let whole = windows.store(None, i64::MIN, events, range.clone(), &kept).unwrap();
        let cut_us = Windows::cut_us(NOW_US - 10 * DAY_US);
        let cut = range.start + events.visible_us[range.clone()].partition_point(|us| *us < cut_us);
        let first = windows.store(None, i64::MIN, events, range.start..cut, &kept).unwrap();
        let again = windows.store(Some(&first), cut_us, events, cut..range.end, &kept).unwrap();
        assert_eq!(digest(&again), digest(&whole), "in two runs as in one");
        whole
    };
    ranges.iter().map(store).collect()
}

/// What training and serving say of each key now, which is the same; as a digest, with what is stored.
fn check(functions: &[&str], event_id: &str) -> String {
    let view = view(functions, event_id);
    let windows = view.windows.as_ref().unwrap();
    let every = view.every();
    let (events, ranges) = events(&view, &rows(1_000), false);
    let stored = stored(&view, &events, &ranges);
    let groups: Vec<Group> =
        ranges.into_iter().enumerate().map(|(id, events)| Group { events, times: id..id + 1 }).collect();
    let asked = asked(&groups, &[NOW_US; KEYS]);
    let swept = windows.sweep(&events, asked, &every, &mut Failed::default()).unwrap();
    let bytes: Vec<Option<&[u8]>> = stored.iter().map(|bytes| Some(&bytes[..])).collect();
    let answered =
        windows.answer(&bytes, &[NOW_US; KEYS], &every, &windows.kept(), &mut Failed::default()).unwrap();
    assert_eq!(shown(&swept), shown(&answered), "training as serving");
    format!(
        "id {:016x}, stored {}, says {}",
        view.id.0,
        digest(&stored.concat()),
        digest(shown(&swept).as_bytes())
    )
}

/// Whoever changes these digests changes what is stored: then the version of tiles must change as well.
#[test]
fn what_is_stored_stays_the_same() {
    expect!["id c651b973a9ddce81, stored e47ba40f9c51954b, says 313c4088c4289470"]
        .assert_eq(&check(&FUNCTIONS, ""));
    expect!["id e84d8cd5c2fe7e51, stored 604aaabbdee6b029, says c9317804babea444"]
        .assert_eq(&check(&FUNCTIONS, "event_id: [n]\n"));
    expect!["id c86e09c33521faa3, stored 33378c66022ba7cf, says bca5937beb463224"]
        .assert_eq(&check(&["count", "sum, of: x", "any, of: b"], ""));
}

#[test]
fn many_query_times_in_one_sweep() {
    let sweep = |functions: &[&str], event_id: &str, as_known: bool| {
        let view = view(functions, event_id);
        let windows = view.windows.as_ref().unwrap();
        let (events, ranges) = events(&view, &rows(1_000), as_known);
        let times_us: Vec<i64> = (0..50).map(|day| day * NOW_US / 45).collect();
        let times = times_us.repeat(KEYS);
        let groups: Vec<Group> = ranges
            .into_iter()
            .enumerate()
            .map(|(id, events)| Group { events, times: id * 50..(id + 1) * 50 })
            .collect();
        let asked = asked(&groups, &times);
        let columns = windows.sweep(&events, asked, &view.every(), &mut Failed::default()).unwrap();
        format!("{} events, {}", events.len(), digest(shown(&columns).as_bytes()))
    };
    expect!["1000 events, d6d738650c6f219d"].assert_eq(&sweep(&FUNCTIONS, "", false));
    expect!["1000 events, e08451848875d899"].assert_eq(&sweep(&FUNCTIONS, "", true));
    expect!["984 events, be25b6db79b846b7"].assert_eq(&sweep(&FUNCTIONS, "event_id: [n]\n", false));
    expect!["1000 events, abad12da214d1a07"].assert_eq(&sweep(&FUNCTIONS, "event_id: [n]\n", true));
    expect!["1000 events, c617136e835a6bdb"].assert_eq(&sweep(&["count", "sum, of: x"], "", false));
    expect!["1000 events, 29670ae4c57e22d0"].assert_eq(&sweep(&["count", "sum, of: x"], "", true));
}

/// Events of one key at these times, each known so much later, µs.
fn one_key(at_us: impl Iterator<Item = i64>, late_us: i64) -> RecordBatch {
    let at_us: Vec<i64> = at_us.collect();
    let time = |us: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(us).with_timezone("UTC")) as ArrayRef;
    let numbers = || Int64Array::from_iter_values(0..at_us.len() as i64);
    let columns: [(&str, ArrayRef); 5] = [
        ("k", Arc::new(Int64Array::from(vec![0; at_us.len()]))),
        ("known_at", time(at_us.iter().map(|us| us + late_us).collect())),
        ("n", Arc::new(numbers())),
        ("x", Arc::new(Float64Array::from_iter_values(numbers().values().iter().map(|n| *n as f64)))),
        ("at", time(at_us)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Longer than what is asked here takes in any build, and far shorter than with each event beside each other.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn events_of_one_instant_are_told_apart_in_no_time() {
    const EVENTS: usize = 100_000;
    let (view, rows) = (view(&["count"], "event_id: [n]\n"), one_key(std::iter::repeat_n(DAY_US, EVENTS), 0));
    let start = Instant::now();
    for as_known in [false, true] {
        let (events, ranges) = events(&view, &rows, as_known);
        assert_eq!((events.len(), &ranges[0]), (EVENTS, &(0..EVENTS)));
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn events_that_are_known_late_are_swept_in_no_time() {
    const EVENTS: i64 = 40_000;
    let (view, second_us) = (view(&["count", "max, of: x"], ""), 1_000_000);
    let rows = one_key((0..EVENTS).map(|n| n * second_us), second_us / 2);
    let (events, ranges) = events(&view, &rows, true);
    let windows = view.windows.as_ref().unwrap();
    // Half a second after each event it was known; a tenth before that it was not.
    let times_us: Vec<i64> =
        (0..EVENTS).flat_map(|n| [n * second_us + 400_000, n * second_us + 500_000]).collect();
    let groups = [Group { events: ranges[0].clone(), times: 0..times_us.len() }];
    let (start, lifetime) =
        (Instant::now(), ["f0_lifetime", "f1_lifetime"].map(|name| view.feature(name).unwrap()));
    let columns =
        windows.sweep(&events, asked(&groups, &times_us), &lifetime, &mut Failed::default()).unwrap();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let counts: Vec<i64> = (0..EVENTS).flat_map(|n| [n, n + 1]).collect();
    assert_eq!(&columns[0].as_primitive::<Int64Type>().values()[..], counts);
    let greatest = (0..EVENTS).flat_map(|n| [(n > 0).then_some(n as f64 - 1.0), Some(n as f64)]);
    assert!(columns[1].as_primitive::<Float64Type>().iter().eq(greatest));
}
