//! Do the servers of a store see one another's segments, and does none of them ever read a wrong one? In a folder, in a
//! folder that all have, and in a bucket; with the registry in SQLite and in PostgreSQL.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use quern::wire::Code;
use quern_kit::registry::{Location, Registry};
use quern_kit::segments::{Damage, Family, Prepared, Range, Segment, Segments, Set, Shared, StoreAt, Swept};
use quern_kit::{ObjectLocation, Postgres, Random, blocking, cases, free_port, fresh_database, until};
use tempfile::TempDir;

use crate::s3::{S3, environment};

/// More than any test keeps.
const ROOMY: u64 = 1 << 30;

/// A server, as far as it has a store.
struct Member {
    segments: Arc<Segments>,
    own: TempDir,
}

impl Member {
    async fn open(at: &StoreAt, registry: &Registry) -> Member {
        Member::with_room(at, registry, ROOMY).await
    }

    async fn with_room(at: &StoreAt, registry: &Registry, bytes: u64) -> Member {
        let own = TempDir::new().unwrap();
        let (at, registry, cache) = (at.clone(), registry.clone(), own.path().join("cache"));
        let segments = blocking(move || Segments::open(at, &registry, (cache, bytes)).unwrap()).await;
        Member { segments, own }
    }

    fn write(&self, first: u64, count: u64) -> quern_kit::Result<Segment> {
        Ok(self.segments.write(&events(), range(first, count), |writer| writer.write(&rows(first, count)))?)
    }

    fn prepare(&self, first: u64, count: u64) -> Prepared {
        let rows = rows(first, count);
        self.segments.prepare(&events(), range(first, count), |writer| writer.write(&rows)).unwrap()
    }

    /// The numbers of the rows in a segment, or why it cannot be read.
    fn numbers(&self, segment: &Segment) -> quern_kit::Result<Vec<i64>> {
        let mut numbers = Vec::new();
        for batch in self.segments.read(segment, Some(&["n"]))? {
            numbers.extend(batch?.column(0).as_primitive::<Int64Type>().values());
        }
        Ok(numbers)
    }

    /// The numbers of all rows.
    fn all(&self) -> Vec<i64> {
        let listed = self.segments.list(&events()).unwrap();
        listed.iter().flat_map(|segment| self.numbers(segment).unwrap()).collect()
    }

    fn scrub(&self) -> Vec<(String, Damage)> {
        let mut found = Vec::new();
        let looked = self.segments.scrub(u64::MAX, |segment, damage| {
            found.extend(damage.map(|damage| (segment.path.clone(), damage.clone())));
            ControlFlow::Continue(())
        });
        looked.unwrap();
        found
    }
}

fn events() -> Set {
    Set::of(Family::Pushed, "log", "events")
}

fn range(first: u64, count: u64) -> Range {
    Range { first, end: first + count, from_us: first as i64, to_us: (first + count) as i64 - 1 }
}

/// Rows that do not compress.
fn rows(first: u64, count: u64) -> RecordBatch {
    let numbers = || (first..first + count).map(|number| number as i64);
    let mut random = Random::seeded(first);
    let times = TimestampMicrosecondArray::from_iter_values(numbers()).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("n", Arc::new(Int64Array::from_iter_values(numbers()))),
        ("noise", Arc::new(Int64Array::from_iter_values(numbers().map(|_| random.draw() as i64)))),
        ("at", Arc::new(times)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn folder(path: &Path, shared: bool) -> StoreAt {
    StoreAt::Folder { path: path.to_owned(), shared }
}

fn bucket(url: &str, prefix: &str) -> StoreAt {
    let location = ObjectLocation::parse_folder(&format!("s3://models/{prefix}")).unwrap();
    StoreAt::Bucket(location.told(&environment(url)))
}

async fn shared_registry() -> Registry {
    let own = TempDir::new().unwrap();
    Registry::open(&Location::Postgres(fresh_database().await), own.path()).await.unwrap()
}

/// Runs `check` on a folder with SQLite, and on a shared folder and a bucket with PostgreSQL.
async fn on_all(check: impl AsyncFn(&StoreAt, &Registry)) {
    let own = TempDir::new().unwrap();
    let registry = Registry::open(&Location::Sqlite, own.path()).await.unwrap();
    check(&folder(&own.path().join("store"), false), &registry).await;
    check(&folder(&own.path().join("shared"), true), &shared_registry().await).await;
    let s3 = S3::start().await;
    check(&bucket(&s3.url, "quern"), &shared_registry().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_writes_another_one_reads() {
    on_all(async |at, registry| {
        let (first, second) = (Member::open(at, registry).await, Member::open(at, registry).await);
        let one = first.write(0, 5).unwrap();
        let two = second.write(5, 5).unwrap();
        assert_eq!(first.segments.list(&events()).unwrap(), [one.clone(), two.clone()]);
        for member in [&first, &second] {
            assert_eq!(member.all(), (0..10).collect::<Vec<_>>());
            assert_eq!(member.scrub(), []);
        }
        // Rows of one number count once, whoever comes later.
        let late = second.write(3, 1).unwrap_err();
        assert_eq!(late.code, Code::Refused, "{late}");
        let whole = second.prepare(0, 10);
        let whole = second.segments.replace(&[one.clone(), two], &whole).unwrap();
        assert_eq!(first.segments.list(&events()).unwrap(), [whole]);
        assert_eq!(first.numbers(&one).unwrap(), [0, 1, 2, 3, 4]);
        // What a server leaves that ends between a file and its name.
        second.prepare(10, 1);
        assert_eq!(first.segments.sweep().unwrap(), Swept::default());
        assert_eq!(first.segments.sweep_older(Duration::ZERO).unwrap(), Swept { ended: 2, unnamed: 1 });
        assert_eq!(second.all(), (0..10).collect::<Vec<_>>());
        // One of them has a turn.
        let hour = Duration::from_secs(3_600);
        assert!(first.segments.lease("merge", hour).unwrap());
        assert!(!second.segments.lease("merge", hour).unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_servers_that_write_the_same_rows_one_does() {
    on_all(async |at, registry| {
        let members = Arc::new([Member::open(at, registry).await, Member::open(at, registry).await]);
        for round in 0..8 {
            let writing = [0, 1].map(|member| {
                let members = Arc::clone(&members);
                blocking(move || members[member].write(round * 3, 3))
            });
            let ended = futures::future::join_all(writing).await;
            let refused: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
            assert_eq!(refused.len(), 1, "{refused:?}");
            assert_eq!(refused[0].code, Code::Refused, "{}", refused[0]);
        }
        assert_eq!(members[0].all(), (0..24).collect::<Vec<_>>());
        // Who was too late has left nothing.
        assert_eq!(members[1].segments.sweep_older(Duration::ZERO).unwrap(), Swept::default());
    })
    .await;
}

/// Readers that go on while segments become one see all rows, each once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_every_row_once_while_segments_become_one() {
    on_all(async |at, registry| {
        let (writer, reader) = (Member::open(at, registry).await, Member::open(at, registry).await);
        let done = Arc::new(AtomicBool::new(false));
        let reading = tokio::task::spawn_blocking({
            let done = Arc::clone(&done);
            move || {
                let mut reads = 0;
                while !done.load(Ordering::Relaxed) || reads == 0 {
                    let numbers = reader.all();
                    assert_eq!(numbers, (0..numbers.len() as i64).collect::<Vec<_>>());
                    reads += 1;
                }
                reads
            }
        });
        blocking(move || {
            for round in 0..10 {
                let first = round * 6;
                let parts: Vec<Segment> =
                    (0..3).map(|part| writer.write(first + part * 2, 2).unwrap()).collect();
                let before = writer.segments.list(&events()).unwrap();
                let whole = writer.prepare(0, first + 6);
                assert!(before.ends_with(&parts));
                writer.segments.replace(&before, &whole).unwrap();
            }
            assert_eq!(writer.segments.list(&events()).unwrap().len(), 1);
            assert_eq!(writer.all().len(), 60);
        })
        .await;
        done.store(true, Ordering::Relaxed);
        println!("{} reads", reading.await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_folder_is_shared_is_seen_and_not_believed() {
    let (registry, root) = (shared_registry().await, TempDir::new().unwrap());
    let at = folder(&root.path().join("store"), true);
    let first = Member::open(&at, &registry).await;
    assert_eq!(first.segments.shared(), Shared::Alone);
    let second = Member::open(&at, &registry).await;
    assert_eq!(second.segments.shared(), Shared::Seen);
    first.segments.meet().unwrap();
    assert_eq!(first.segments.shared(), Shared::Seen);
    // A copy of the folder, as two machines have it that only think they share one.
    let copy = root.path().join("copy");
    let copied =
        std::process::Command::new("cp").arg("-r").arg(root.path().join("store")).arg(&copy).status();
    assert!(copied.unwrap().success());
    // Whoever has written since it was copied is not there.
    second.segments.meet().unwrap();
    let third = Member::open(&folder(&copy, true), &registry).await;
    for member in [&third, &second] {
        member.segments.meet().unwrap();
        let said = member.segments.shared();
        assert!(!said.holds() && said.to_string().contains("is not in"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_with_stores_of_their_own_see_their_own() {
    let (registry, root) = (shared_registry().await, TempDir::new().unwrap());
    let own = Member::open(&folder(&root.path().join("a"), false), &registry).await;
    let other = Member::open(&folder(&root.path().join("b"), false), &registry).await;
    own.write(0, 3).unwrap();
    other.write(0, 3).unwrap();
    assert_eq!((own.segments.list(&events()).unwrap().len(), own.segments.shared()), (1, Shared::Own));
    assert!(!own.segments.shared().holds());
    assert_eq!((own.all(), own.scrub()), (vec![0, 1, 2], vec![]));
    // A server that stays tells the others, until it ends.
    let said = Member::open(&folder(&root.path().join("c"), true), &registry).await;
    assert_eq!(said.segments.shared(), Shared::Alone);
    let keeping = own.segments.keep();
    until("word of a server with a store of its own", async || {
        said.segments.meet().unwrap();
        said.segments.shared().to_string().contains("has another store").then_some(())
    })
    .await;
    drop(keeping);
    own.segments.leave().await;
    said.segments.meet().unwrap();
    assert_eq!(said.segments.shared(), Shared::Alone);
    // A store that another registry has begun.
    let at = folder(&root.path().join("a"), true);
    let strange = shared_registry().await;
    let cache = (root.path().join("cache"), ROOMY);
    let refused = blocking(move || Segments::open(at, &strange, cache).unwrap_err()).await;
    assert!(refused.said().contains("belongs to another registry"), "{}", refused.said());
}

/// No flip, cut or removal, of an object or of its copy here, gives a wrong value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damage_in_a_bucket_is_read() {
    let (s3, registry) = (S3::start().await, shared_registry().await);
    let at = bucket(&s3.url, "some/prefix");
    let (member, other) = (Member::open(&at, &registry).await, Member::open(&at, &registry).await);
    let segment = other.write(0, 100).unwrap();
    let key = format!("some/prefix/{}", segment.path);
    let copy = member.own.path().join("cache/segments").join(&segment.path);
    let sound = s3.get(&key).await;
    let right: Vec<i64> = (0..100).collect();
    let mut random = Random::new("damage in a bucket");
    for case in 0..cases(40) {
        let mut damage = || {
            let mut bytes = sound.clone();
            match random.below(3) {
                0 => bytes.truncate(random.below(sound.len() as u64) as usize),
                _ => bytes[random.below(sound.len() as u64) as usize] ^= 1 << random.below(8),
            }
            bytes
        };
        // A wrong copy is fetched again.
        assert_eq!(member.numbers(&segment).unwrap(), right, "case {case}");
        fs::write(&copy, damage()).unwrap();
        assert_eq!(member.numbers(&segment).unwrap(), right, "case {case}");
        // A wrong object does no harm where there is a copy, and is found.
        s3.put(&key, damage()).await;
        assert_eq!(member.numbers(&segment).unwrap(), right, "case {case}");
        let found = member.scrub();
        assert!(matches!(&found[..], [(path, Damage::Differs(_))] if *path == segment.path), "case {case}");
        // Both are wrong.
        fs::write(&copy, damage()).unwrap();
        let refused = member.numbers(&segment).unwrap_err();
        assert!(
            refused.text.contains(&segment.path) && refused.code == Code::Internal,
            "case {case}: {refused}"
        );
        assert!(!copy.exists(), "case {case}");
        s3.put(&key, sound.clone()).await;
    }
    s3.delete(&key).await;
    assert_eq!(member.scrub(), [(segment.path.clone(), Damage::Missing)]);
    let gone = member.numbers(&segment).unwrap_err();
    assert!(gone.text.contains("is missing; bring the file back"), "{gone}");
    s3.put(&key, sound).await;
    assert_eq!(member.numbers(&segment).unwrap(), right);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_take_no_more_room_than_they_may() {
    let (s3, registry) = (S3::start().await, shared_registry().await);
    let at = bucket(&s3.url, "quern");
    let writer = Member::open(&at, &registry).await;
    let segments: Vec<Segment> = (0..6).map(|first| writer.write(first * 1_000, 1_000).unwrap()).collect();
    let bytes = segments.iter().map(|segment| segment.bytes).max().unwrap();
    let reader = Member::with_room(&at, &registry, 2 * bytes).await;
    let fetched = |place: usize| s3.answers(&format!("quern/{}", segments[place].path), 200);
    let held = || {
        let found = glob::glob(&format!("{}/**/*.parquet", reader.own.path().display())).unwrap();
        found.map(|path| fs::metadata(path.unwrap()).unwrap().len()).sum::<u64>()
    };
    for (place, segment) in segments.iter().enumerate() {
        let first = place as i64 * 1_000;
        assert_eq!(reader.numbers(segment).unwrap(), (first..first + 1_000).collect::<Vec<_>>());
        // The first one is used again and again, so it stays.
        reader.numbers(&segments[0]).unwrap();
        assert!(held() <= 2 * bytes, "{} of {}", held(), 2 * bytes);
    }
    // The bucket notes an answer when it has sent it.
    let is =
        |counts| until("what was fetched", async move || ((fetched(0), fetched(1)) == counts).then_some(()));
    is((1, 1)).await;
    reader.numbers(&segments[1]).unwrap();
    is((1, 2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_segment_goes_in_parts() {
    let (s3, registry) = (S3::start().await, shared_registry().await);
    let at = bucket(&s3.url, "");
    let (writer, reader) = (Member::open(&at, &registry).await, Member::open(&at, &registry).await);
    let segment = writer.write(0, 5_000_000).unwrap();
    assert!(segment.bytes > 32 << 20, "{} bytes", segment.bytes);
    let numbers = reader.numbers(&segment).unwrap();
    assert_eq!((numbers.len(), numbers[4_999_999]), (5_000_000, 4_999_999));
    let sent = async || (s3.answered("PUT", &segment.path, 200) > 2).then_some(());
    until("several parts", sent).await;
    // What was sent does not stay here.
    let outbox = fs::read_dir(writer.own.path().join("cache/outbox")).unwrap();
    assert_eq!(outbox.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_away_is_asked_again() {
    let (port, registry) = (free_port(), shared_registry().await);
    let member = Member::open(&bucket(&format!("http://127.0.0.1:{port}"), "quern"), &registry).await;
    let away = member.write(0, 1).unwrap_err();
    assert!(away.code == Code::Unavailable && away.text.contains("cannot be written"), "{away}");
    assert!(!member.segments.shared().holds());
    let mut s3 = S3::start_at(port).await;
    let segment = member.write(0, 1).unwrap();
    assert_eq!((member.numbers(&segment).unwrap(), member.segments.shared()), (vec![0], Shared::Alone));
    s3.server.kill();
    // What was read is here; what was not is not.
    assert_eq!(member.numbers(&segment).unwrap(), [0]);
    let other = Member::open(member.segments.at(), &registry).await;
    let away = other.numbers(&segment).unwrap_err();
    assert!(away.code == Code::Unavailable && away.text.contains("cannot be read"), "{away}");
    let outbox = fs::read_dir(member.own.path().join("cache/outbox")).unwrap();
    assert_eq!(outbox.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_away_names_a_file_later() {
    let mut postgres = Postgres::start().await;
    let root = TempDir::new().unwrap();
    let registry = Registry::open(&Location::Postgres(postgres.url()), root.path()).await.unwrap();
    let member = Member::open(&folder(&root.path().join("store"), true), &registry).await;
    let file = member.prepare(0, 3);
    postgres.stop();
    let away = member.segments.commit(&file).unwrap_err();
    assert!(away.said().contains("the registry does not answer"), "{}", away.said());
    postgres.run().await;
    // It may be said as often as one likes.
    for _ in 0..2 {
        member.segments.commit(&file).unwrap();
        assert_eq!(member.all(), [0, 1, 2]);
    }
}
