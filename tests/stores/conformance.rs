//! What does every online store promise? One suite, which RocksDB, Redis and a Redis Cluster pass.
//!
//! What only one of them can show stands in [`redis`](super::redis) and [`replicas`](super::replicas).

use quern_kit::{Head, Kept, Level, Random, Replaced, Rows, Store, Upserted, ViewId, Wanted, runtime};

use super::{row, rows};

/// Makes each check a test on each store.
macro_rules! suite {
    ($($check:ident)+) => {
        mod rocks {
            $(#[test] fn $check() { super::on(quern_kit::Store::Rocks, super::$check); })+
        }
        mod redis {
            $(#[test] fn $check() { super::on(quern_kit::Store::Redis, super::$check); })+
        }
        mod cluster {
            $(#[test] fn $check() { super::on(quern_kit::Store::Cluster, super::$check); })+
        }
    };
}

suite! {
    rows_come_back_as_they_were_asked_for
    a_row_never_replaces_a_later_one
    whoever_writes_when_the_latest_row_is_left
    a_load_ends_as_other_writes_do
    what_was_made_from_something_else_is_a_conflict
    what_is_no_more_what_was_seen_is_not_removed
    instants_move_forward_only
    what_is_kept_is_what_was_noted_last
    the_turn_comes_again
    rows_of_views_that_are_gone_are_dropped_and_no_others
    all_of_it_is_there_when_it_is_opened_again
}

const VIEW: ViewId = ViewId(0x7b7d_2a00_5c5b_0001);
const DAY_US: i64 = 86_400_000_000;

/// Runs a check on a store that nobody else uses.
fn on<F: Future<Output = ()>>(store: Store, check: impl FnOnce(Head) -> F) {
    runtime().block_on(async { check(store.open_head().await).await });
}

/// A place in the total order of time: event and created timestamp.
type Place = (i64, i64);

fn get_many(head: &Head, view: ViewId, keys: &[impl AsRef<[u8]>]) -> Vec<Option<Vec<u8>>> {
    let mut wanted = Wanted::default();
    keys.iter().for_each(|key| wanted.push(view, Some(key.as_ref())));
    let found = head.get_many(&wanted).unwrap();
    found.into_iter().map(|row| row.map(|row| row.to_vec())).collect()
}

fn get(head: &Head, view: ViewId, key: &[u8]) -> Option<Vec<u8>> {
    get_many(head, view, &[key]).remove(0)
}

fn numbered(count: u32) -> Vec<[u8; 4]> {
    (0..count).map(u32::to_be_bytes).collect()
}

/// The same row under each key.
fn alike(view: ViewId, keys: &[[u8; 4]], value: &[u8]) -> Rows {
    rows(view, &keys.iter().map(|key| (&key[..], value.to_vec())).collect::<Vec<_>>())
}

async fn rows_come_back_as_they_were_asked_for(head: Head) {
    let other = ViewId(VIEW.0 + 1);
    let long = [7; 100_000];
    let keys: [&[u8]; 7] = [b"a", b"ab", b"\0", b"\xff\xff", b"{}", b"\r\n* [1]", &[9; 300]];
    let value = |key: &[u8], view: ViewId| [&row(1, 1, view.0 as u8)[..], key, &long].concat();
    for view in [VIEW, other] {
        let values: Vec<(&[u8], Vec<u8>)> = keys.iter().map(|key| (*key, value(key, view))).collect();
        assert_eq!(head.upsert(&rows(view, &values)).unwrap().written, keys.len() as u64);
    }
    assert_eq!(head.get_many(&Wanted::default()).unwrap().len(), 0);
    assert_eq!(get(&head, VIEW, b"unknown"), None);
    // In the order of the question, as often as it asks, with a gap where there is no row or no key.
    let mut wanted = Wanted::default();
    let mut expected = Vec::new();
    for key in keys.iter().rev().chain(&keys) {
        for view in [other, VIEW] {
            wanted.push(view, Some(*key));
            expected.push(Some(value(key, view)));
        }
        wanted.push(VIEW, None);
        wanted.push(ViewId(VIEW.0 + 2), Some(*key));
        expected.extend([None, None]);
    }
    let found = head.get_many(&wanted).unwrap();
    assert!(found.iter().map(|row| row.as_deref()).eq(expected.iter().map(Option::as_deref)));
    let mut nobodys = Wanted::default();
    nobodys.push(VIEW, None);
    assert!(matches!(head.get_many(&nobodys).unwrap()[..], [None]));
}

async fn a_row_never_replaces_a_later_one(head: Head) {
    // Every pair of these, in both orders: signs, carries from byte to byte, and the second time where the first is
    // equal.
    let times = [i64::MIN, -0x0100_0001, -256, -255, -1, 0, 1, 127, 128, 255, 256, 0x0100_0000, i64::MAX];
    let places: Vec<Place> = times
        .iter()
        .flat_map(|ts_us| [i64::MIN, -1, 5, 300].map(|created_us| (*ts_us, created_us)))
        .collect();
    let both: Vec<_> = places.iter().flat_map(|a| places.iter().map(move |b| [*a, *b])).collect();
    let keys = numbered(both.len() as u32);
    let of = |place: &dyn Fn(&[Place; 2]) -> Place, payload: u8| {
        let values: Vec<(&[u8], Vec<u8>)> = keys
            .iter()
            .zip(&both)
            .map(|(key, pair)| (&key[..], row(place(pair).0, place(pair).1, payload)))
            .collect();
        rows(VIEW, &values)
    };
    let n = both.len() as u64;
    let first = head.upsert(&of(&|pair| pair[0], 1)).unwrap();
    assert_eq!(first, Upserted { written: n, unchanged: 0, older: 0 });
    let second = head.upsert(&of(&|pair| pair[1], 2)).unwrap();
    let older = both.iter().filter(|[stored, row]| stored > row).count() as u64;
    assert_eq!(second, Upserted { written: n - older, unchanged: 0, older });
    assert_eq!(
        head.upsert(&of(&|pair| pair[0].max(pair[1]), 9)).unwrap().older,
        0,
        "of equal times the last to arrive wins"
    );
    for ((found, [a, b]), key) in get_many(&head, VIEW, &keys).into_iter().zip(&both).zip(&keys) {
        let (ts_us, created_us) = *a.max(b);
        assert_eq!(found, Some(row(ts_us, created_us, 9)), "{a:?} then {b:?}, key {key:?}");
    }
    let again = head.upsert(&of(&|pair| pair[0].max(pair[1]), 9)).unwrap();
    assert_eq!(again, Upserted { written: 0, unchanged: n, older: 0 });
    // A row that this build cannot read is an error, and stays.
    let of_later = [&[2][..], &[0; 20]].concat();
    head.replace_if(&rows(VIEW, &[(b"later", of_later.clone())]), &[None]).unwrap();
    let error = head.upsert(&rows(VIEW, &[(b"later", row(1, 1, 1))])).unwrap_err().to_string();
    let says = match head.store() {
        Store::Rocks => "version 2, and this build reads version 1",
        _ => "a stored row is of no version that this build knows",
    };
    assert!(error.contains(says), "{error}");
    assert_eq!(get(&head, VIEW, b"later"), Some(of_later));
}

async fn whoever_writes_when_the_latest_row_is_left(head: Head) {
    let mut random = Random::new("writers at once");
    let keys = numbered(50);
    // Each writer's own moments, so that no two rows have one.
    let mut writes: Vec<Vec<i64>> = (0..4).map(|writer| (0..15).map(|i| i * 4 + writer).collect()).collect();
    for moments in &mut writes {
        (1..moments.len()).rev().for_each(|i| moments.swap(i, random.below(i as u64 + 1) as usize));
    }
    std::thread::scope(|scope| {
        for moments in &writes {
            let (head, keys) = (&head, &keys);
            scope.spawn(move || {
                for moment in moments {
                    let done = head.upsert(&alike(VIEW, keys, &row(*moment, 0, *moment as u8))).unwrap();
                    assert_eq!(done.written + done.older, 50, "at {moment}: {done:?}");
                }
            });
        }
    });
    let latest = Some(row(59, 0, 59));
    assert!(get_many(&head, VIEW, &keys).iter().all(|row| *row == latest));
}

async fn a_load_ends_as_other_writes_do(head: Head) {
    // So many that RocksDB makes a file of them.
    const N: usize = 10_000;
    let keys = numbered(2 * N as u32);
    let (some, others) = keys.split_at(N);
    let loading = head.load(VIEW).unwrap();
    let first = loading.upsert(&alike(VIEW, some, &row(5, 5, 1))).unwrap();
    assert_eq!(first, Upserted { written: N as u64, unchanged: 0, older: 0 });
    assert!(head.bytes().unwrap() > 0, "rows take bytes");
    // Somebody pushes meanwhile: later rows, and earlier ones.
    head.upsert(&alike(VIEW, &others[..10], &row(9, 9, 2))).unwrap();
    head.upsert(&alike(VIEW, &others[10..20], &row(1, 1, 2))).unwrap();
    // Two threads, a half of the rest each.
    let halves = others.split_at(N / 2);
    let done = std::thread::scope(|scope| {
        [halves.0, halves.1]
            .map(|half| scope.spawn(|| loading.upsert(&alike(VIEW, half, &row(5, 5, 1))).unwrap()))
            .map(|thread| thread.join().unwrap())
    });
    assert_eq!(done[0], Upserted { written: N as u64 / 2 - 10, unchanged: 0, older: 10 });
    assert_eq!(done[1], Upserted { written: N as u64 / 2, unchanged: 0, older: 0 });
    let again = head.load(VIEW).unwrap().upsert(&alike(VIEW, &keys, &row(5, 5, 1))).unwrap();
    assert_eq!(again, Upserted { written: 0, unchanged: 2 * N as u64 - 10, older: 10 });
    let found = get_many(&head, VIEW, &keys);
    let count = |value: Vec<u8>| found.iter().filter(|row| row.as_ref() == Some(&value)).count();
    assert_eq!((count(row(5, 5, 1)), count(row(9, 9, 2))), (2 * N - 10, 10));
}

async fn what_was_made_from_something_else_is_a_conflict(head: Head) {
    let values = |values: [&str; 3]| {
        let keyed = [b"a", b"b", b"c"].iter().zip(values).map(|(key, value)| (&key[..], value.into()));
        rows(VIEW, &keyed.collect::<Vec<_>>())
    };
    let replace = |new: [&str; 3], expected: [Option<&str>; 3]| {
        let Replaced { done, conflicts } =
            head.replace_if(&values(new), &expected.map(|value| value.map(str::as_bytes))).unwrap();
        (done, conflicts)
    };
    assert_eq!(replace(["1", "1", "1"], [None, None, Some("0")]), (2, vec![2]));
    assert_eq!(replace(["2", "2", "2"], [Some("1"), Some("0"), None]), (2, vec![1]));
    // What is there already needs no writing, whatever it was made from.
    assert_eq!(replace(["2", "1", "2"], [None, None, None]), (3, vec![]));
    assert_eq!(get_many(&head, VIEW, &[b"a", b"b", b"c"]), ["2", "1", "2"].map(|value| Some(value.into())));
    assert_eq!(replace(["3", "3", "3"], [None, None, None]), (0, vec![0, 1, 2]));
    assert_eq!(get(&head, VIEW, b"b"), Some(b"1".to_vec()));
}

async fn what_is_no_more_what_was_seen_is_not_removed(head: Head) {
    // The second view begins with the bytes of the first, as a pattern could misread them.
    let (view, others) = (
        ViewId(u64::from_be_bytes(*b"a*b?[c]\\")),
        [ViewId(u64::from_be_bytes(*b"aab?[c]\\")), ViewId(u64::MAX)],
    );
    let keys = numbered(10_000);
    let all = alike(view, &keys, &row(1, 1, 1));
    head.upsert(&all).unwrap();
    others.iter().for_each(|view| {
        head.upsert(&alike(*view, &keys[..5], &row(1, 1, 1))).unwrap();
    });
    let walk = |view: ViewId| {
        let mut seen = Vec::new();
        head.walk(view, &mut |rows| -> quern_kit::Result<()> {
            seen.extend(rows.iter().map(|(key, row)| (key.to_vec(), row.to_vec())));
            Ok(())
        })
        .unwrap();
        seen.sort();
        seen.dedup();
        seen
    };
    let stored = |(key, value): (&[u8], &[u8])| (key.to_vec(), value.to_vec());
    assert_eq!(walk(view), all.iter().map(stored).collect::<Vec<_>>());
    assert_eq!(walk(ViewId(view.0 + 1)), []);
    // A later row comes for some.
    head.upsert(&alike(view, &keys[..100], &row(2, 2, 2))).unwrap();
    assert_eq!(head.remove_if(&all).unwrap(), 9_900);
    assert_eq!(head.remove_if(&all).unwrap(), 0);
    assert_eq!(walk(view), alike(view, &keys[..100], &row(2, 2, 2)).iter().map(stored).collect::<Vec<_>>());
    assert_eq!(others.map(|view| walk(view).len()), [5, 5]);
    assert_eq!(head.remove_if(&Rows::default()).unwrap(), 0);
}

async fn instants_move_forward_only(head: Head) {
    assert_eq!((head.watermark(VIEW).unwrap(), head.files_until(VIEW).unwrap()), (None, None));
    for (to_us, stands_at) in
        [(i64::MIN, i64::MIN), (-5, -5), (-300, -5), (0, 0), (-1, 0), (0, 0), (256, 256), (255, 256)]
    {
        head.set_watermark(VIEW, to_us).unwrap();
        assert_eq!(head.watermark(VIEW).unwrap(), Some(stands_at), "after {to_us}");
        head.set_files_until(VIEW, to_us.saturating_add(1)).unwrap();
        assert_eq!(head.files_until(VIEW).unwrap(), Some(stands_at.saturating_add(1)), "after {to_us}");
    }
    head.begin(VIEW).unwrap();
    assert_eq!(head.watermark(VIEW).unwrap(), Some(256));
    assert_eq!(head.materialized_until(VIEW), Some(256));
    // Unless it is forgotten.
    head.forget_watermark(VIEW).unwrap();
    assert_eq!((head.watermark(VIEW).unwrap(), head.materialized_until(VIEW)), (Some(i64::MIN), None));
    head.set_watermark(VIEW, 7).unwrap();
    assert_eq!((head.watermark(VIEW).unwrap(), head.materialized_until(VIEW)), (Some(7), Some(7)));
    // A view that has only begun is at no time yet.
    let begun = ViewId(VIEW.0 + 1);
    head.begin(begun).unwrap();
    assert_eq!((head.watermark(begun).unwrap(), head.files_until(begun).unwrap()), (Some(i64::MIN), None));
}

fn kept(days: i64, lifetime: bool) -> Kept {
    Kept { levels: vec![Level { span_us: DAY_US, reach_us: days * DAY_US }], lifetime }
}

async fn what_is_kept_is_what_was_noted_last(head: Head) {
    let other = ViewId(VIEW.0 + 1);
    assert_eq!(head.kept(VIEW), None);
    for noted in [Kept::default(), kept(3, false), kept(9, true), kept(3, true)] {
        head.set_kept(VIEW, noted.clone()).unwrap();
        assert_eq!(head.kept(VIEW).as_deref(), Some(&noted));
        head.reread_kept().unwrap();
        assert_eq!(head.kept(VIEW).as_deref(), Some(&noted));
        assert_eq!(head.kept(other), None);
    }
}

async fn the_turn_comes_again(head: Head) {
    for _ in 0..2 {
        let turn = head.turn().unwrap();
        head.check_turn().unwrap();
        head.set_watermark(VIEW, 1).unwrap();
        drop(turn);
    }
}

async fn rows_of_views_that_are_gone_are_dropped_and_no_others(head: Head) {
    let other = head.store().open_head().await;
    // The second has every sign that a pattern could misread.
    let views = [VIEW, ViewId(u64::from_be_bytes(*b"a*b?[c]\\")), ViewId(3), ViewId(u64::MAX - 1)];
    let mut keys = numbered(3_000);
    keys.push([0xff; 4]);
    let n = keys.len();
    for view in views {
        for head in [&head, &other] {
            head.begin(view).unwrap();
            assert_eq!(head.upsert(&alike(view, &keys, &row(1, 1, 1))).unwrap().written, n as u64);
            head.set_files_until(view, 4).unwrap();
            head.set_kept(view, Kept::default()).unwrap();
        }
    }
    head.set_watermark(views[1], 5).unwrap();
    head.retain(&[views[1]]).unwrap();
    let there = |head: &Head, view: ViewId| get_many(head, view, &keys).iter().flatten().count();
    assert_eq!(views.map(|view| head.watermark(view).unwrap()), [None, Some(5), None, None]);
    assert_eq!(views.map(|view| head.files_until(view).unwrap()), [None, Some(4), None, None]);
    assert_eq!(views.map(|view| head.kept(view).is_some()), [false, true, false, false]);
    assert_eq!(views.map(|view| there(&head, view)), [0, n, 0, 0]);
    assert_eq!(views.map(|view| there(&other, view)), [n; 4], "another prefix or folder is another store");
    head.retain(&[]).unwrap();
    other.retain(&[]).unwrap();
    assert_eq!(views.map(|view| there(&head, view) + there(&other, view)), [0; 4]);
}

async fn all_of_it_is_there_when_it_is_opened_again(head: Head) {
    let keys = numbered(100);
    head.begin(VIEW).unwrap();
    head.upsert(&alike(VIEW, &keys, &row(7, 8, 9))).unwrap();
    head.set_files_until(VIEW, 6).unwrap();
    head.set_kept(VIEW, kept(3, true)).unwrap();
    head.set_watermark(VIEW, 5).unwrap();
    let head = head.reopen().await;
    assert!(get_many(&head, VIEW, &keys).iter().all(|found| *found == Some(row(7, 8, 9))));
    assert_eq!((head.watermark(VIEW).unwrap(), head.files_until(VIEW).unwrap()), (Some(5), Some(6)));
    head.reread_kept().unwrap();
    assert_eq!(head.kept(VIEW).as_deref(), Some(&kept(3, true)));
    let older = head.upsert(&alike(VIEW, &keys, &row(7, 7, 9))).unwrap();
    assert_eq!(older, Upserted { written: 0, unchanged: 0, older: 100 });
    head.retain(&[]).unwrap();
}
