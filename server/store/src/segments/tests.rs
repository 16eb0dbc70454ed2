//! Is a segment read as it was written, or not at all?

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use tempfile::TempDir;

use super::*;
use crate::error::Kind;
use crate::registry::Location;

/// A store in a folder, and its registry.
struct Fixture {
    folder: TempDir,
    registry: Registry,
    segments: Arc<Segments>,
}

impl Fixture {
    async fn new() -> Fixture {
        let folder = TempDir::new().unwrap();
        let registry = Registry::open(&Location::Sqlite, folder.path()).await.unwrap();
        let segments = open(folder.path(), &registry).unwrap();
        Fixture { folder, registry, segments }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn at(&self, segment: &Segment) -> PathBuf {
        self.root().join(&segment.path)
    }

    /// All files of segments, those too that are not finished.
    fn files(&self) -> Vec<String> {
        let mut files: Vec<String> =
            self.segments.place.list().unwrap().into_iter().map(|file| file.path).collect();
        files.retain(|path| path.contains('/'));
        files.sort();
        files
    }

    fn write(&self, first: u64, count: u64) -> Result<Segment> {
        write(&self.segments, &events(), first, count)
    }
}

fn open(folder: &Path, registry: &Registry) -> Result<Arc<Segments>> {
    let at = StoreAt::Folder { path: folder.join("store"), shared: false };
    Segments::open(at, registry, (folder.join("scratch"), 1 << 30))
}

fn events() -> Set {
    Set::of(Family::Pushed, "abc", "events")
}

fn rows(first: u64, count: u64) -> RecordBatch {
    let numbers = || (first..first + count).map(|number| number as i64);
    let times = TimestampMicrosecondArray::from_iter_values(numbers()).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("n", Arc::new(Int64Array::from_iter_values(numbers()))),
        ("text", Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("row {n}"))))),
        ("at", Arc::new(times)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn range(first: u64, count: u64) -> Range {
    Range { first, end: first + count, from_us: first as i64, to_us: (first + count) as i64 - 1 }
}

fn write(segments: &Segments, set: &Set, first: u64, count: u64) -> Result<Segment> {
    segments.write(set, range(first, count), |writer| writer.write(&rows(first, count)))
}

fn decode(file: File) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(std::result::Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_listed_and_read() {
    let fixture = Fixture::new().await;
    let (second, first) = (fixture.write(200_000, 5).unwrap(), fixture.write(0, 200_000).unwrap());
    assert_eq!(fixture.segments.list(&events()).unwrap(), [first.clone(), second.clone()]);
    assert_eq!(fixture.segments.sets(Family::Pushed, "abc").unwrap(), [events()]);
    assert_eq!(fixture.segments.sets(Family::Pushed, "").unwrap(), []);
    assert!(first.path.starts_with("pushed/abc/events/00000000000000000000-00000000000000200000-"));
    assert_eq!((first.rows, first.bytes), (200_000, fs::metadata(fixture.at(&first)).unwrap().len()));
    assert_eq!(first.sha256, quern_base::digest::sha256(&fs::read(fixture.at(&first)).unwrap()));
    assert_eq!(decode(fixture.segments.local(&second).unwrap()), rows(200_000, 5));
    let read = ParquetRecordBatchReaderBuilder::try_new(fixture.segments.local(&first).unwrap()).unwrap();
    assert_eq!(read.metadata().num_row_groups(), 2);
    // Another process finds the same.
    let again = open(fixture.folder.path(), &fixture.registry).unwrap();
    assert_eq!(again.list(&events()).unwrap(), [first, second]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_and_names_say_what_is_wanted() {
    let fixture = Fixture::new().await;
    let day_us = 86_400_000_000;
    for (name, day) in [("a/s", 0), ("a/s", 1), ("ab/s", 0), ("a_/s", 0)] {
        let set = Set::of(Family::Predictions, "", name);
        let range = Range { first: 0, end: 1, from_us: day * day_us, to_us: day * day_us + 9 };
        fixture.segments.write(&set, range, |writer| writer.write(&rows(0, 1))).unwrap();
    }
    let find = |name_begins: &str, from_us: Option<i64>, to_us: Option<i64>| {
        let wanted = Wanted { family: Family::Predictions, log: "", name_begins, from_us, to_us };
        let found = fixture.segments.find(wanted).unwrap();
        found
            .into_iter()
            .map(|segment| segment.path.rsplit_once('/').unwrap().0.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        find("a/", None, None),
        ["predictions/a/s/date=1970-01-01", "predictions/a/s/date=1970-01-02"]
    );
    assert_eq!(find("a/", Some(9), Some(day_us)), ["predictions/a/s/date=1970-01-01"]);
    assert_eq!(find("a/", Some(10), Some(day_us)), [""; 0]);
    assert_eq!(find("a/", Some(10), Some(day_us + 1)), ["predictions/a/s/date=1970-01-02"]);
    assert_eq!(find("a", None, None).len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_with_one_number_count_once() {
    let fixture = Fixture::new().await;
    let first = fixture.write(10, 10).unwrap();
    for (from, count) in [(10, 10), (5, 6), (19, 1), (12, 2), (0, 100)] {
        let refused = fixture.write(from, count).unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused, "{from} {count}: {refused}");
    }
    // What is refused leaves no file.
    assert_eq!(fixture.files(), [first.path.as_str()]);
    let (before, after) = (fixture.write(0, 10).unwrap(), fixture.write(20, 1).unwrap());
    // Said twice, it counts once.
    assert_eq!(fixture.segments.commit(&before).unwrap(), before);
    assert_eq!(fixture.segments.list(&events()).unwrap(), [before, first, after]);
    // Another log has the same numbers, and predictions have none.
    write(&fixture.segments, &Set::of(Family::Pushed, "abd", "events"), 0, 5).unwrap();
    let said = Set::of(Family::Predictions, "", "m/s");
    write(&fixture.segments, &said, 0, 5).unwrap();
    write(&fixture.segments, &said, 0, 5).unwrap();
    assert_eq!(fixture.segments.list(&said).unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_leaves_nothing() {
    let fixture = Fixture::new().await;
    let none = fixture.segments.write(&events(), range(0, 0), |_| Ok(())).unwrap_err();
    assert!(none.to_string().contains("without rows"), "{none}");
    let broken = fixture.segments.write(&events(), range(0, 3), |writer| {
        writer.write(&rows(0, 3))?;
        Err(crate::Error::busy("no more rows"))
    });
    assert_eq!(broken.unwrap_err().kind(), Kind::Unavailable);
    let few = fixture.segments.write(&events(), range(0, 3), |writer| writer.write(&rows(0, 2))).unwrap_err();
    assert!(few.to_string().contains("rows 0 to 3 of a segment are 2 rows"), "{few}");
    let other = fixture.segments.write(&events(), range(0, 3), |writer| {
        writer.write(&rows(0, 1))?;
        writer.write(&rows(1, 2).project(&[0]).unwrap())
    });
    other.unwrap_err();
    assert_eq!(fixture.files(), [""; 0]);
    assert_eq!(fixture.segments.list(&events()).unwrap(), []);
    let up = Set::of(Family::Pushed, "", "../../up");
    assert!(write(&fixture.segments, &up, 0, 1).unwrap_err().to_string().contains("cannot be the path"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_become_one_and_those_who_read_them_go_on() {
    let fixture = Fixture::new().await;
    let old = [fixture.write(0, 3).unwrap(), fixture.write(3, 3).unwrap()];
    let last = fixture.write(6, 1).unwrap();
    let whole = fixture.segments.prepare(&events(), range(0, 6), |writer| writer.write(&rows(0, 6))).unwrap();
    assert_eq!(fixture.segments.list(&events()).unwrap().len(), 3);
    let whole = fixture.segments.replace(&old, &whole).unwrap();
    assert_eq!(fixture.segments.list(&events()).unwrap(), [whole.clone(), last]);
    // Who has listed them before reads them still, for a day.
    assert_eq!(fixture.segments.sweep().unwrap(), Swept::default());
    assert_eq!(decode(fixture.segments.local(&old[1]).unwrap()), rows(3, 3));
    // Nobody replaces them again, in whole or in part, and what was made for it is nothing.
    let again = fixture.segments.prepare(&events(), range(0, 7), |writer| writer.write(&rows(0, 7))).unwrap();
    let both = [whole.clone(), old[0].clone()];
    let refused = fixture.segments.replace(&both, &again).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert_eq!((fixture.segments.list(&events()).unwrap().len(), fixture.files().len()), (2, 4));
    let swept = fixture.segments.sweep_older(Duration::ZERO).unwrap();
    assert_eq!(swept, Swept { ended: 2, unnamed: 0 });
    assert_eq!(fixture.files().len(), 2);
    let gone = fixture.segments.local(&old[1]).unwrap_err();
    assert!(gone.said().contains("of the store is missing; bring the file back"), "{}", gone.said());
    fixture.segments.remove(&[whole]).unwrap();
    assert_eq!(fixture.segments.list(&events()).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_that_count_no_more_leave_their_numbers_behind_and_pushed_rows_never() {
    let fixture = Fixture::new().await;
    let segments = &fixture.segments;
    let labels = Set::of(Family::Labels, "abc", "delay");
    let old = [write(segments, &labels, 0, 3).unwrap(), write(segments, &labels, 3, 3).unwrap()];
    let few = |set: &Set, wanted| segments.prepare(set, wanted, |writer| writer.write(&rows(5, 1)));
    let whole = segments.replace(&old, &few(&labels, range(0, 6)).unwrap()).unwrap();
    assert_eq!((whole.rows, whole.range.first, whole.range.end), (1, 0, 6));
    write(segments, &labels, 6, 1).unwrap();
    // Nothing else has their numbers, and no row is without one.
    assert_eq!(write(segments, &labels, 2, 1).unwrap_err().kind(), Kind::Refused);
    assert!(segments.prepare(&labels, range(7, 1), |writer| writer.write(&rows(0, 2))).is_err());
    assert!(few(&events(), range(0, 6)).is_err());
    // What would have numbers of another one takes nobody's place.
    let refused =
        segments.replace(std::slice::from_ref(&whole), &few(&labels, range(0, 7)).unwrap()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
    let left = segments.list(&labels).unwrap();
    assert_eq!((left.len(), &left[0]), (2, &whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_names_goes_and_everything_else_stays() {
    let fixture = Fixture::new().await;
    let named = fixture.write(0, 1).unwrap();
    // A crash between the file and its name, and one while the file was written.
    fixture.segments.prepare(&events(), range(1, 1), |writer| writer.write(&rows(1, 1))).unwrap();
    let half = fixture.root().join("pushed/abc/events/x.parquet.part");
    fs::write(&half, "half").unwrap();
    for foreign in ["README", "pushed/README", "backup/a.parquet"] {
        let path = fixture.root().join(foreign);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "somebody's").unwrap();
    }
    assert_eq!(fixture.segments.sweep().unwrap(), Swept::default());
    File::options().write(true).open(&half).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(fixture.segments.sweep().unwrap(), Swept { ended: 0, unnamed: 1 });
    assert_eq!(fixture.segments.sweep_older(Duration::ZERO).unwrap(), Swept { ended: 0, unnamed: 1 });
    assert_eq!(fixture.files(), ["backup/a.parquet", "pushed/README", named.path.as_str()]);
}

/// No flip, cut or removal in a segment gives a wrong value: what is read is what was written, or refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damage_is_read() {
    let fixture = Fixture::new().await;
    let segment = fixture.write(0, 500).unwrap();
    let path = fixture.at(&segment);
    let sound = fs::read(&path).unwrap();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(random::number).max(1);
    println!("SEED={seed}");
    let mut state = seed;
    let mut below = move |end: usize| {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % end as u64) as usize
    };
    for case in 0..300 {
        let mut damaged = sound.clone();
        match below(4) {
            0 => damaged.truncate(below(sound.len())),
            1 => damaged.extend([0; 3]),
            _ => damaged[below(sound.len())] ^= 1 << below(8),
        }
        // In place, as a disk damages it; beside it, as a person brings a wrong file back.
        if below(2) == 0 {
            let beside = path.with_extension("new");
            fs::write(&beside, &damaged).unwrap();
            fs::rename(&beside, &path).unwrap();
        } else {
            fs::write(&path, &damaged).unwrap();
        }
        let refused = fixture.segments.local(&segment).unwrap_err();
        assert!(refused.said().contains(&segment.path), "case {case}: {}", refused.said());
        assert_eq!(refused.kind(), Kind::Internal, "case {case}");
        assert_eq!(fixture.segments.damaged(), [segment.path.as_str()], "case {case}");
        fs::write(&path, &sound).unwrap();
        let read = decode(fixture.segments.local(&segment).unwrap());
        assert_eq!(read.column(0).as_primitive::<Int64Type>().values()[499], 499, "case {case}");
    }
    fs::remove_file(&path).unwrap();
    let gone = fixture.segments.local(&segment).unwrap_err();
    assert!(gone.said().contains("is missing"), "{}", gone.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrub_names_what_nobody_has_read() {
    let fixture = Fixture::new().await;
    let all: Vec<Segment> = (0..5).map(|first| fixture.write(first, 1).unwrap()).collect();
    let scrub = || {
        let mut found = Vec::new();
        let looked = fixture.segments.scrub(u64::MAX, |segment, damage| {
            found.push((segment.path.clone(), damage.cloned()));
            ControlFlow::Continue(())
        });
        looked.unwrap();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found.into_iter().map(|(_, damage)| damage).collect::<Vec<_>>()
    };
    assert_eq!(scrub(), vec![None; 5]);
    let sound = fs::read(fixture.at(&all[1])).unwrap();
    fs::write(fixture.at(&all[1]), &sound[1..]).unwrap();
    fs::remove_file(fixture.at(&all[3])).unwrap();
    let found = scrub();
    assert!(matches!(found[1], Some(Damage::Differs(_))), "{found:?}");
    assert_eq!((&found[0], &found[3]), (&None, &Some(Damage::Missing)));
    assert_eq!(fixture.segments.damaged(), [all[1].path.clone(), all[3].path.clone()]);
    // What is brought back is whole, and what counts no more need not be there.
    fs::write(fixture.at(&all[1]), &sound).unwrap();
    fixture.segments.remove(&all[3..4]).unwrap();
    fixture.segments.look_at_damaged().unwrap();
    assert_eq!(fixture.segments.damaged(), [""; 0]);
    assert_eq!(scrub(), vec![None; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_belongs_to_one_registry() {
    let fixture = Fixture::new().await;
    fixture.write(0, 1).unwrap();
    let other = TempDir::new().unwrap();
    let registry = Registry::open(&Location::Sqlite, other.path()).await.unwrap();
    let refused = open(fixture.folder.path(), &registry).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(refused.said().contains("belongs to another registry"), "{}", refused.said());
    // Before its next sweep a server sees that its store became another one's.
    fs::write(fixture.root().join("store.json"), "{}").unwrap();
    let refused = fixture.segments.sweep_older(Duration::ZERO).unwrap_err();
    assert!(refused.said().contains("does not say which store it is"), "{}", refused.said());
    assert_eq!(fixture.files().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_has_one_holder() {
    let fixture = Fixture::new().await;
    let other = open(fixture.folder.path(), &fixture.registry).unwrap();
    let hour = Duration::from_secs(3_600);
    assert!(fixture.segments.lease("merge", hour).unwrap());
    assert!(!other.lease("merge", hour).unwrap());
    assert!(other.lease("sweep", hour).unwrap());
    // Who has it may have it for longer, or give it back.
    assert!(fixture.segments.lease("merge", Duration::ZERO).unwrap());
    assert!(other.lease("merge", hour).unwrap());
    assert!(fixture.segments.is_due("scrub", hour).unwrap());
    assert!(!fixture.segments.is_due("scrub", hour).unwrap() && !other.is_due("scrub", hour).unwrap());
}

/// A file system that is too small.
struct Small(TempDir);

impl Small {
    fn mount(bytes: u64) -> Small {
        let folder = TempDir::new().unwrap();
        let options = format!("size={bytes}");
        let mut mount = std::process::Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path());
        let mounted = mount.output().map(|mounted| String::from_utf8_lossy(&mounted.stderr).into_owned());
        assert_eq!(
            mounted.unwrap_or_else(|error| error.to_string()),
            "",
            "this test mounts a file system, as root"
        );
        Small(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_takes_nothing_and_loses_nothing() {
    let small = Small::mount(1 << 20);
    let own = TempDir::new().unwrap();
    let registry = Registry::open(&Location::Sqlite, own.path()).await.unwrap();
    let segments = open(small.0.path(), &registry).unwrap();
    let first = write(&segments, &events(), 0, 1_000).unwrap();
    let refused = write(&segments, &events(), 1_000, 1_000_000).unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable, "{refused}");
    assert!(refused.said().contains("the disk takes no writes"), "{}", refused.said());
    // The half that was written does not keep the rest from having room.
    write(&segments, &events(), 1_000, 1_000).unwrap();
    assert_eq!(decode(segments.local(&first).unwrap()), rows(0, 1_000));
    assert_eq!(segments.list(&events()).unwrap().len(), 2);
}
