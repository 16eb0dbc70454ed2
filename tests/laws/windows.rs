//! Law 1 for windows: the head, history and training sets say the same, and it is what the events say, bit for bit.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quern_kit::{Node, Repository, RowState, Store, runtime};

use super::exported::{Exported, check_latest};
use super::windows_oracle::{Event, Rules, Window, distinct, histogram, rank, sum, variance, window};
use super::{Ground, push_around, remembering};

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;
/// After every event.
const NOW_US: i64 = 90 * DAY_US;
const WINDOWS: [(&str, Option<i64>); 9] = [
    ("5m", Some(5 * MINUTE_US)),
    ("1h", Some(HOUR_US)),
    ("12h", Some(12 * HOUR_US)),
    ("1d", Some(DAY_US)),
    ("7d", Some(7 * DAY_US)),
    ("12d", Some(12 * DAY_US)),
    ("30d", Some(30 * DAY_US)),
    ("70d", Some(70 * DAY_US)),
    ("lifetime", None),
];

/// Events that a view leaves out.
const FILTERS: [(&str, Sees); 3] = [
    ("x > 1", |e| e.x.is_some_and(|x| x > 1.0 || x.is_nan())),
    ("b", |e| e.b == Some(true)),
    ("t = 'a' OR i IS NULL", |e| e.t == Some("a") || e.i.is_none()),
];

type Answer = fn(&[&Event]) -> String;
type Sees = fn(&Event) -> bool;

/// What is asked: name, YAML, and what the events say to it. `~` stands before what is only near.
const ASKED: [(&str, &str, Answer); 28] = [
    ("rows", "function: count", |e| e.len().to_string()),
    ("n", "function: count, of: x", |e| xs(e).len().to_string()),
    ("few", "function: count, where: \"x > 1\"", |e| {
        e.iter().filter(|e| e.x.is_some_and(|x| x > 1.0 || x.is_nan())).count().to_string()
    }),
    ("total", "function: sum, of: x", |e| float(if xs(e).is_empty() { None } else { Some(sum(&xs(e))) })),
    ("whole", "function: sum, of: i", |e| {
        text(if is(e).is_empty() { None } else { Some(is(e).iter().sum::<i64>()) })
    }),
    ("mean", "function: avg, of: x", |e| {
        float(if xs(e).is_empty() { None } else { Some(sum(&xs(e)) / xs(e).len() as f64) })
    }),
    ("mean_i", "function: avg, of: i", |e| {
        let n = is(e).len();
        float(if n == 0 { None } else { Some(is(e).iter().sum::<i64>() as f64 / n as f64) })
    }),
    ("low", "function: min, of: x", |e| float(xs(e).into_iter().min_by_key(|x| rank(*x)))),
    ("high", "function: max, of: x", |e| float(xs(e).into_iter().max_by_key(|x| rank(*x)))),
    ("low_t", "function: min, of: t", |e| text(ts(e).into_iter().min())),
    ("high_i", "function: max, of: i", |e| text(is(e).into_iter().max())),
    ("sd", "function: stddev, of: x", |e| float(variance(&xs(e)).map(f64::sqrt))),
    ("var", "function: variance, of: x", |e| float(variance(&xs(e)))),
    ("first_t", "function: first, of: t", |e| text(ts(e).first())),
    ("last_x", "function: last, of: x", |e| float(xs(e).last().copied())),
    ("last_b", "function: last, of: b", |e| text(e.iter().filter_map(|e| e.b).next_back())),
    ("recent", "function: last_n, of: x, n: 3", |e| list(xs(e).into_iter().rev().take(3))),
    ("recent_t", "function: last_n, of: t, n: 3, default: []", |e| {
        let texts: Vec<&str> = ts(e).into_iter().rev().take(3).collect();
        if texts.is_empty() { "null".to_owned() } else { texts.join(",") }
    }),
    ("best_b", "function: top_n_by, of: b, by: i, n: 2, default: [true]", |e| {
        let mut both: Vec<_> = e.iter().filter_map(|e| Some((e.i?, e.b?))).collect();
        both.reverse();
        both.sort_by_key(|(i, _)| std::cmp::Reverse(*i));
        let truths: Vec<String> = both.into_iter().map(|(_, b)| b.to_string()).take(2).collect();
        if truths.is_empty() { "null".to_owned() } else { truths.join(",") }
    }),
    ("best", "function: top_n_by, of: x, by: i, n: 2", |e| {
        let mut both: Vec<_> = e.iter().filter_map(|e| Some((e.i?, e.x?))).collect();
        both.reverse();
        both.sort_by_key(|(i, _)| std::cmp::Reverse(*i));
        list(both.into_iter().map(|(_, x)| x).take(2))
    }),
    ("kinds", "function: count_distinct, of: t, limit: 3", |e| {
        distinct(ts(e).into_iter()).min(3).to_string()
    }),
    ("about", "function: approx_distinct, of: i", |e| format!("~{}", distinct(is(e).into_iter()))),
    // A sketch tells 17 decades apart: numbers of more would be taken for the least of these.
    (
        "p50",
        "function: approx_percentile, of: \"case when abs(x) < 1e17 then x end\", percentile: 0.5",
        |e| {
            let mut finite: Vec<f64> = xs(e).into_iter().filter(|x| x.abs() < 1e17).collect();
            finite.sort_by(f64::total_cmp);
            match finite.len() {
                0 => "null".to_owned(),
                n => format!("~{}", finite[(n - 1) / 2]),
            }
        },
    ),
    ("any_b", "function: any, of: b", |e| {
        let truths: Vec<bool> = e.iter().filter_map(|e| e.b).collect();
        text(if truths.is_empty() { None } else { Some(truths.contains(&true)) })
    }),
    ("every_b", "function: every, of: b", |e| {
        let truths: Vec<bool> = e.iter().filter_map(|e| e.b).collect();
        text(if truths.is_empty() { None } else { Some(!truths.contains(&false)) })
    }),
    ("hist", "function: histogram, of: t, limit: 3", |e| {
        map(histogram(e, 3).into_iter().map(|(t, n)| (t, n.to_string())))
    }),
    ("each", "function: avg, of: x, buckets: t", |e| {
        let filled: Vec<&Event> = e.iter().filter(|e| e.x.is_some()).copied().collect();
        map(histogram(&filled, 99).into_keys().map(|t| {
            let xs: Vec<f64> = filled.iter().filter(|e| e.t == Some(t)).filter_map(|e| e.x).collect();
            (t, float(Some(sum(&xs) / xs.len() as f64)))
        }))
    }),
    ("each_last", "function: last, of: i, buckets: t, limit: 2", |e| {
        let filled: Vec<&Event> = e.iter().filter(|e| e.i.is_some()).copied().collect();
        map(histogram(&filled, 2)
            .into_keys()
            .map(|t| (t, text(filled.iter().filter(|e| e.t == Some(t)).filter_map(|e| e.i).next_back()))))
    }),
];

fn xs(events: &[&Event]) -> Vec<f64> {
    events.iter().filter_map(|event| event.x).collect()
}

fn is(events: &[&Event]) -> Vec<i64> {
    events.iter().filter_map(|event| event.i).collect()
}

fn ts(events: &[&Event]) -> Vec<&'static str> {
    events.iter().filter_map(|event| event.t).collect()
}

/// A double by its bits; all NaN are one.
fn float(x: Option<f64>) -> String {
    x.map_or("null".to_owned(), |x| {
        if x.is_nan() { "NaN".to_owned() } else { format!("{x:?} {:x}", x.to_bits()) }
    })
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or("null".to_owned(), |value| value.to_string())
}

fn list(values: impl Iterator<Item = f64>) -> String {
    let values: Vec<String> = values.map(|x| float(Some(x))).collect();
    if values.is_empty() { "null".to_owned() } else { values.join(",") }
}

fn map<'a>(entries: impl Iterator<Item = (&'a str, String)>) -> String {
    entries.map(|(key, value)| format!("{key}={value};")).collect()
}

fn show(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    match column.data_type() {
        DataType::Float64 => float(Some(column.as_primitive::<Float64Type>().value(row))),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            (0..items.len()).map(|i| show(&items, i)).collect::<Vec<_>>().join(",")
        }
        DataType::Map(_, _) => {
            let entries = column.as_map().value(row);
            let keys = entries.column(0).as_string::<i32>();
            map((0..entries.len()).map(|i| (keys.value(i), show(entries.column(1), i))))
        }
        other => panic!("{other} is not asked for"),
    }
}

/// Whether `found` is what the oracle says, or as near as the sketch promises.
fn agrees(found: &str, expected: &str) -> bool {
    let Some(near) = expected.strip_prefix('~') else { return found == expected };
    let (near, found): (f64, f64) = match (near.parse(), found.split(' ').next().unwrap_or("").parse()) {
        (Ok(near), Ok(found)) => (near, found),
        _ => return false,
    };
    (found - near).abs() <= near.abs() * 0.0101 + 0.02
}

#[derive(Debug, Clone)]
struct Case {
    rules: Rules,
    has_created: bool,
    hop: Option<(&'static str, i64)>,
    /// Views of windows over the one source.
    views: Vec<View>,
    files: Vec<Vec<Event>>,
    queries: Vec<Query>,
    group_rows: usize,
    first_to_us: i64,
    /// The rows of the last file are pushed instead, so many at a time.
    pushed: Option<usize>,
}

#[derive(Debug, Clone)]
struct View {
    /// The source's column that is its key.
    by: Column,
    /// Which of [`FILTERS`] it has.
    filter: Option<usize>,
    lag_us: i64,
    /// Whether it leaves out what became visible at the very query time.
    before: bool,
    /// Whether it leaves out the event that a query names, if events have names.
    excludes: bool,
    windows: Vec<(&'static str, Option<i64>)>,
    asked: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Column {
    K,
    I,
}

#[derive(Debug, Clone, Copy)]
struct Query {
    k: Option<i64>,
    i: Option<i64>,
    /// The event that it asks about.
    id: Option<i64>,
    us: i64,
}

impl Query {
    fn key(&self, by: Column) -> Option<i64> {
        if by == Column::K { self.k } else { self.i }
    }
}

/// Instants near the edges of tiles and windows; some lie before 1970.
fn instant() -> impl Strategy<Value = i64> {
    let tick = prop_oneof![
        (-24i64..48).prop_map(|n| n * 5 * MINUTE_US),
        (-30i64..60).prop_map(|n| n * HOUR_US),
        (-40i64..80).prop_map(|n| n * DAY_US),
        (-80i64..160).prop_map(|n| n * DAY_US / 2 + 7 * MINUTE_US),
    ];
    (tick, prop_oneof![2 => Just(0i64), 1 => -1i64..=1]).prop_map(|(tick, off)| tick + off)
}

fn event(has_created: bool) -> impl Strategy<Value = Event> {
    let x = prop_oneof![
        6 => -1e3..1e3f64,
        2 => prop::sample::select(vec![0.0, -0.0, 0.1, 0.2, 0.3, 1e16, 1.0, -1e16, 5e-324, 1e-308, 1e150]),
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
    ];
    let created = if has_created { option::weighted(0.8, instant()).boxed() } else { Just(None).boxed() };
    let text = prop::sample::select(vec!["", "a", "b", "é", "long text"]);
    (
        (option::weighted(0.95, 0i64..3), option::weighted(0.95, instant()), created, option::of(0i64..2)),
        (option::weighted(0.9, x), option::weighted(0.9, -5i64..5), option::weighted(0.9, text)),
        option::of(any::<bool>()),
    )
        .prop_map(|((key, ts_us, created_us, id), (x, i, t), b)| Event {
            key,
            ts_us,
            created_us,
            id,
            x,
            i,
            t,
            b,
        })
}

/// A view that asks much of all events.
fn main_view() -> impl Strategy<Value = View> {
    let windows = prop::sample::subsequence(WINDOWS.to_vec(), 1..=5);
    let asked = prop::sample::subsequence((0..ASKED.len()).collect::<Vec<_>>(), 4..=16);
    (prop_oneof![Just(0i64), Just(90_000_001)], any::<[bool; 2]>(), windows, asked).prop_map(
        |(lag_us, [before, excludes], windows, asked)| View {
            by: Column::K,
            filter: None,
            lag_us,
            before,
            excludes,
            windows,
            asked,
        },
    )
}

/// A view that sees the events in its own way.
fn other_view() -> impl Strategy<Value = View> {
    let windows = prop::sample::subsequence(WINDOWS.to_vec(), 1..=2);
    let asked = prop::sample::subsequence((0..ASKED.len()).collect::<Vec<_>>(), 1..=5);
    let by = prop::sample::select(vec![Column::K, Column::I]);
    let lag_us = prop::sample::select(vec![0, 90_000_001, DAY_US]);
    (by, option::weighted(0.8, 0..FILTERS.len()), (lag_us, any::<[bool; 2]>()), windows, asked).prop_map(
        |(by, filter, (lag_us, [before, excludes]), windows, asked)| View {
            by,
            filter,
            lag_us,
            before,
            excludes,
            windows,
            asked,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let hop = option::weighted(0.3, prop::sample::select(vec![("exact", 1), ("5m", 5 * MINUTE_US)]));
    let views = (main_view(), vec(other_view(), 1..=2));
    let first_to_us = prop::sample::select(vec![0, 20 * DAY_US, NOW_US]);
    let parts = (1usize..30, first_to_us, option::of(1usize..30));
    (any::<[bool; 3]>(), hop, views, parts).prop_flat_map(
        |([has_id, as_known, has_created], hop, (main, mut views), (group_rows, first_to_us, pushed))| {
            views.insert(0, main);
            let files = vec(vec(event(has_created), 0..40), 1..4);
            let id = option::of(0i64..3);
            let query = (option::weighted(0.97, 0i64..4), option::weighted(0.97, -5i64..6), id, instant());
            let queries = vec(query.prop_map(|(k, i, id, us)| Query { k, i, id, us }), 60..100);
            (files, queries).prop_map(move |(files, queries)| Case {
                rules: Rules { lag_us: 0, has_id, as_known, before: false, excluded: None },
                has_created,
                hop,
                views: views.clone(),
                files,
                queries,
                group_rows,
                first_to_us,
                pushed,
            })
        },
    )
}

fn default_hop(length_us: Option<i64>) -> i64 {
    match length_us {
        Some(us) if us < 12 * HOUR_US => 5 * MINUTE_US,
        Some(us) if us < 12 * DAY_US => HOUR_US,
        _ => DAY_US,
    }
}

const HEAD: &str = "kind: Entity\nname: e\njoin_keys: [{name: k, type: int64}]\n---\n\
    kind: Entity\nname: f\njoin_keys: [{name: j, type: int64}]\n---\n\
    kind: Source\nname: s\nbatch: {format: parquet, path: data/*.parquet}\npush: true\nevent_timestamp: ts\n\
    columns:\n  - {name: ts, type: timestamp}\n  - {name: k, type: int64}\n  - {name: i, type: int64}\n";
/// The other columns of the source.
const COLUMNS: &str = "  - {name: id, type: int64}\n  - {name: x, type: float64}\n  - {name: t, type: string}\n  \
    - {name: b, type: bool}\n";

impl Case {
    fn definitions(&self) -> String {
        let mut text = format!("{HEAD}{COLUMNS}");
        if self.has_created {
            text += "  - {name: created, type: timestamp}\ncreated_timestamp: created\n";
        }
        if self.rules.has_id {
            text += "event_id: [id]\n";
        }
        let hop = self.hop.map_or(String::new(), |(name, _)| format!(", hop: {name}"));
        let mut joined = String::new();
        for (number, view) in self.views.iter().enumerate() {
            let windows: Vec<&str> = view.windows.iter().map(|(name, _)| *name).collect();
            let entity = if view.by == Column::K { "entities: [e]" } else { "entities: [f]\nkeys: {j: i}" };
            let filter = view.filter.map_or(String::new(), |i| format!("where: \"{}\"\n", FILTERS[i].0));
            let at = if view.before { "before" } else { "including" };
            write!(
                text,
                "---\nkind: FeatureView\nname: v{number}\n{entity}\nsource: s\n{filter}lag: {}us\nat: {at}\naggregations:\n",
                view.lag_us
            )
            .unwrap();
            for asked in &view.asked {
                let (name, yaml, _) = ASKED[*asked];
                writeln!(text, "  - {{name: {name}, {yaml}, windows: [{}]{hop}}}", windows.join(", "))
                    .unwrap();
            }
            let exclude = if self.excludes(view) { ", exclude_event: id" } else { "" };
            write!(joined, "{{view: v{number}, as: v{number}{exclude}}}, ").unwrap();
        }
        // A view of rows reads beside them.
        text += "---\nkind: FeatureView\nname: row\nentities: [f]\nkeys: {j: i}\nsource: s\nwhere: \"b\"\n\
                 features: [{name: last, expr: x}]\n";
        text + &format!(
            "---\nkind: FeatureService\nname: svc\nrequest: [{{name: id, type: int64}}]\nfeatures: [{joined}{{view: row}}]\n"
        )
    }

    fn write(&self, repository: &Repository, file: usize) {
        repository.write_parquet_in_groups(
            &format!("data/{file}.parquet"),
            &self.batch(file),
            self.group_rows,
        );
    }

    /// The last file's rows are pushed: an event that is pushed again as it was the last time changes nothing.
    fn events(&self) -> Vec<Event> {
        let last = self.files.len() - 1;
        let (files, pushed) =
            self.files.split_at(if self.pushed.is_some() && last > 0 { last } else { last + 1 });
        let mut events = files.concat();
        let mut known = HashMap::new();
        for event in pushed.concat() {
            // There is a view of each of the two keys.
            let is_taken = (event.key.is_some() || event.i.is_some()) && event.ts_us.is_some();
            let content = format!("{event:?}");
            if !self.rules.has_id || is_taken && known.get(&(event.ts_us, event.id)) != Some(&content) {
                known.insert((event.ts_us, event.id), content);
                events.push(event);
            }
        }
        events
    }

    fn batch(&self, file: usize) -> RecordBatch {
        let rows = &self.files[file];
        let times = |time: fn(&Event) -> Option<i64>| -> ArrayRef {
            Arc::new(rows.iter().map(time).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        };
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("ts", times(|row| row.ts_us)),
            ("k", Arc::new(rows.iter().map(|row| row.key).collect::<Int64Array>())),
            ("id", Arc::new(rows.iter().map(|row| row.id).collect::<Int64Array>())),
            ("x", Arc::new(rows.iter().map(|row| row.x).collect::<Float64Array>())),
            ("i", Arc::new(rows.iter().map(|row| row.i).collect::<Int64Array>())),
            ("t", Arc::new(rows.iter().map(|row| row.t).collect::<StringArray>())),
            ("b", Arc::new(rows.iter().map(|row| row.b).collect::<BooleanArray>())),
        ];
        if self.has_created {
            columns.push(("created", times(|row| row.created_us)));
        }
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
    }

    /// What the events say to each feature, in the service's order.
    fn expected(&self, events: &[Event], rules: Rules, query: &Query, q_us: i64) -> Vec<String> {
        let mut expected = Vec::new();
        for view in &self.views {
            let events = view.seen(events);
            let rules = Rules {
                lag_us: view.lag_us,
                before: view.before,
                excluded: query.id.filter(|_| self.excludes(view)),
                ..rules
            };
            for asked in &view.asked {
                for (_, length) in &view.windows {
                    let hop = self.hop.map_or(default_hop(*length), |(_, hop_us)| hop_us);
                    let asks: Window = (*length, hop);
                    let answer = |key: i64| (ASKED[*asked].2)(&window(&events, rules, key, q_us, asks));
                    expected.push(query.key(view.by).map_or("null".to_owned(), answer));
                }
            }
        }
        // The latest row is the last event of all time, repetitions among them.
        let row = View {
            by: Column::I,
            filter: Some(1),
            lag_us: 0,
            before: false,
            excludes: false,
            windows: Vec::new(),
            asked: Vec::new(),
        };
        let (events, rules) = (row.seen(events), Rules { has_id: false, ..rules });
        let latest = |key: i64| window(&events, rules, key, q_us, (None, 1)).last().and_then(|event| event.x);
        expected.push(float(query.i.and_then(latest)));
        expected
    }

    /// Whether the view leaves out the event that a query names.
    fn excludes(&self, view: &View) -> bool {
        self.rules.has_id && view.excludes
    }

    /// How many queries see an event of their very time; none where events are left out.
    fn coinciding(&self, events: &[Event], rules: Rules, view: &View) -> u64 {
        if self.excludes(view) {
            return 0;
        }
        let (events, before) = (view.seen(events), view.before);
        let rules = Rules { lag_us: view.lag_us, before, ..rules };
        let coincides = |query: &&Query| {
            let last = query.key(view.by).and_then(|key| {
                window(&events, rules, key, query.us, (None, 1)).last().and_then(|event| event.ts_us)
            });
            last.is_some_and(|ts_us| ts_us + view.lag_us == query.us)
        };
        self.queries.iter().filter(coincides).count() as u64
    }

    fn inputs(&self) -> RecordBatch {
        let keys = |by| -> ArrayRef {
            Arc::new(self.queries.iter().map(|query| query.key(by)).collect::<Int64Array>())
        };
        let ids: Int64Array = self.queries.iter().map(|query| query.id).collect();
        let columns = [
            ("k", keys(Column::K), true),
            ("j", keys(Column::I), true),
            ("id", Arc::new(ids) as ArrayRef, true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }
}

impl View {
    /// The events as rows of this view.
    fn seen(&self, events: &[Event]) -> Vec<Event> {
        let kept = events.iter().filter(|event| self.filter.is_none_or(|i| FILTERS[i].1(event)));
        let keyed = |event: &Event| Event {
            key: if self.by == Column::K { event.key } else { event.i },
            ..event.clone()
        };
        kept.map(keyed).collect()
    }
}

fn compare(
    case: &Case,
    found: &RecordBatch,
    expected: impl Fn(usize) -> Vec<String>,
    what: &str,
) -> Result<u64, TestCaseError> {
    let mut compared = 0;
    for row in 0..found.num_rows() {
        let expected = expected(row);
        let first = found.num_columns() - expected.len();
        for (i, expected) in expected.iter().enumerate() {
            let shown = show(found.column(first + i), row);
            let schema = found.schema();
            let name = schema.field(first + i).name();
            prop_assert!(
                agrees(&shown, expected),
                "{} {}, query {:?}: found {}, expected {}",
                what,
                name,
                case.queries[row],
                shown,
                expected
            );
            compared += 1;
        }
    }
    Ok(compared)
}

/// Returns how many values were compared.
async fn check(mut case: Case, ground: Ground) -> Result<u64, TestCaseError> {
    if !ground.store.takes_pushes() {
        case.pushed = None;
    }
    let repository = Repository::new(&case.definitions());
    let last = case.files.len() - 1;
    (0..last.max(1)).for_each(|file| case.write(&repository, file));
    let node = ground.open(&repository).await;
    let service = node.service("svc");
    let mut compared = 0;

    // History comes in two parts; the head is made twice from the first and twice from both.
    node.materialize_to(case.first_to_us);
    node.materialize_to(case.first_to_us);
    match case.pushed.filter(|_| last > 0) {
        Some(at_a_time) => push_around(&node, ground, &case.batch(last), (at_a_time, NOW_US)).await,
        None => {
            case.write(&repository, last);
            node.materialize_to(NOW_US);
            node.materialize_to(NOW_US);
        }
    }
    let events = case.events();
    let times: Vec<i64> = case.queries.iter().map(|query| query.us).collect();

    let spine_times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC"));
    let keys = case.inputs();
    let key =
        |place: usize| (keys.schema_ref().field(place).name().as_str(), keys.column(place).clone(), true);
    let spine = RecordBatch::try_from_iter_with_nullable([
        key(0),
        key(1),
        key(2),
        ("event_timestamp", spine_times, true),
    ])
    .unwrap();
    let mut said = Vec::new();
    for as_known in [false, case.rules.as_known] {
        let (set, notes) = service.training_set_and_notes(&spine, as_known);
        let rules = Rules { as_known, ..case.rules };
        for (number, view) in case.views.iter().enumerate() {
            let coinciding = notes.coinciding.get(&format!("v{number}")).copied().unwrap_or(0);
            prop_assert_eq!(coinciding, case.coinciding(&events, rules, view), "of v{}", number);
        }
        let expected = |row: usize| case.expected(&events, rules, &case.queries[row], times[row]);
        compared +=
            compare(&case, &set, expected, if as_known { "training, as known," } else { "training," })?;
        if !as_known {
            said.push(set);
        }
    }
    let rules = Rules { as_known: false, ..case.rules };
    for asked in [times.clone(), vec![NOW_US; times.len()]] {
        let found = service.look_up(case.inputs(), asked.clone()).await.unwrap();
        for (view, found) in case.views.iter().zip(&found.found) {
            let (seen, rules) =
                (view.seen(&events), Rules { lag_us: view.lag_us, before: view.before, ..rules });
            for ((query, state), q_us) in case.queries.iter().zip(&found.states).zip(&asked) {
                let ever = |key: i64| !window(&seen, rules, key, *q_us, (None, 1)).is_empty();
                prop_assert_eq!(
                    *state,
                    match query.key(view.by).map(ever) {
                        None => RowState::NotFound,
                        Some(false) => RowState::Unseen,
                        Some(true) => RowState::Present,
                    },
                    "of {:?} at {}",
                    query,
                    q_us
                );
            }
        }
        let expected = |row: usize| case.expected(&events, rules, &case.queries[row], asked[row]);
        compared += compare(&case, &found.vectors, expected, "look-up,")?;
        // Sketches too: bit for bit what training says.
        if asked == times {
            let first = said[0].num_columns() - found.vectors.num_columns();
            for column in 0..found.vectors.num_columns() {
                for row in 0..times.len() {
                    prop_assert_eq!(
                        show(found.vectors.column(column), row),
                        show(said[0].column(first + column), row)
                    );
                }
            }
        }
    }
    check_exports(&case, &node).await?;
    Ok(compared)
}

/// What is exported of the views: all keys that there are, and no others.
async fn check_exports(case: &Case, node: &Node) -> Result<(), TestCaseError> {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(-6..8));
    let ids = Arc::new(Int64Array::from(vec![None; keys.len()]));
    let inputs = node.service("svc").inputs(vec![Arc::clone(&keys), keys, ids]);
    let mut first = 0;
    for (place, view) in case.views.iter().enumerate() {
        let (name, by) = (format!("v{place}"), usize::from(view.by == Column::I));
        let of = Exported { service: "svc", view: &name, place, first, keys: vec![by] };
        check_latest(node, of, &inputs, [case.first_to_us, NOW_US]).await?;
        first += view.asked.len() * view.windows.len();
    }
    Ok(())
}

/// The law on one online store, for so many random cases; at least so many values are compared.
fn windows_agree(ground: Ground, cases: u32, least: u64, name: &'static str) {
    let cases = quern_kit::cases(cases);
    let config =
        ProptestConfig { cases, max_shrink_iters: 300, test_name: Some(name), ..remembering(file!()) };
    let compared = AtomicU64::new(0);
    let count = |values: u64| {
        compared.fetch_add(values, Ordering::Relaxed);
    };
    proptest::test_runner::TestRunner::new(config)
        .run(&case(), |case| runtime().block_on(check(case, ground)).map(count))
        .unwrap_or_else(|e| panic!("{e}"));
    let compared = compared.into_inner();
    assert!(compared >= least, "only {compared} values were compared");
}

#[test]
fn windows_agree_in_head_history_and_training() {
    windows_agree(Ground::on(Store::Rocks), 24, 180_000, "windows_agree_in_head_history_and_training");
}

#[test]
fn windows_agree_in_redis() {
    windows_agree(Ground::on(Store::Redis), 6, 35_000, "windows_agree_in_redis");
}

#[test]
fn windows_agree_in_a_cluster() {
    windows_agree(Ground::on(Store::Cluster), 6, 35_000, "windows_agree_in_a_cluster");
}

#[test]
fn windows_agree_in_redis_with_pushes() {
    windows_agree(Ground::on(Store::Shared), 3, 12_000, "windows_agree_in_redis_with_pushes");
}

/// What was pushed lies in segments in a bucket, as far as it was there when they were written.
#[test]
fn windows_agree_over_a_bucket() {
    windows_agree(Ground::sealing(Store::Rocks), 3, 12_000, "windows_agree_over_a_bucket");
    windows_agree(Ground::sealing(Store::Shared), 2, 6_000, "windows_agree_over_a_bucket_with_redis");
    windows_agree(
        Ground::sealing(Store::SharedCluster),
        2,
        6_000,
        "windows_agree_over_a_bucket_with_a_cluster",
    );
}

#[test]
fn a_sum_beyond_its_type_is_null_and_counted_and_other_keys_go_on() {
    let view = "---\nkind: FeatureView\nname: v\nentities: [e]\nsource: s\naggregations:\n  \
        - {name: whole, function: sum, of: i, windows: [1d]}\n---\nkind: FeatureService\nname: svc\nfeatures: [v]\n";
    let repository = Repository::new(&format!("{HEAD}{view}"));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 1, 1]).with_timezone("UTC"));
    let rows = RecordBatch::try_from_iter([
        ("ts", times),
        ("k", Arc::new(Int64Array::from(vec![1, 1, 2])) as ArrayRef),
        ("i", Arc::new(Int64Array::from(vec![i64::MAX, 1, 7]))),
    ]);
    repository.write_parquet_in_groups("data/0.parquet", &rows.unwrap(), 10);
    runtime().block_on(async {
        let node = repository.open_applied().await;
        let view = &node.materialize_to(DAY_US).views[0];
        assert_eq!((view.rows_written, view.failed["whole_1d"]), (2, 1));
    });
}
