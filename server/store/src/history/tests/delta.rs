//! Does a table of Delta Lake have the rows that its log says, whatever was added, deleted, renamed and removed?

use std::path::PathBuf;

use arrow::array::{AsArray, Int32Array, Int64Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use crc::{CRC_32_ISO_HDLC, Crc};
use expect_test::expect;
use feature_defs::Epoch;
use proptest::prelude::*;

use super::*;

/// What is done to a table in one commit.
#[derive(Debug, Clone)]
enum Step {
    /// Files of so many rows each are added.
    Add(Vec<usize>),
    /// Rows of a file are deleted, as far as it has these.
    Delete(usize, Vec<usize>),
    /// A file is removed.
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => proptest::collection::vec(1usize..40, 1..3).prop_map(Step::Add),
        3 => (any::<usize>(), proptest::collection::vec(0usize..40, 1..12)).prop_map(|(file, rows)| Step::Delete(file, rows)),
        1 => any::<usize>().prop_map(Step::Remove),
    ]
}

/// A file of the table, as whoever writes it knows it.
#[derive(Debug, Clone)]
struct Live {
    version: usize,
    path: String,
    region: Option<&'static str>,
    rows: Vec<i64>,
    deleted: Vec<usize>,
    /// Where that stands, as its actions say.
    vector: String,
}

/// How columns are called in files.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mapping {
    None,
    Name,
    Id,
}

struct Writer<'a> {
    repository: &'a Repository,
    mapping: Mapping,
    live: Vec<Live>,
    next: i64,
    commits: usize,
}

impl Writer<'_> {
    fn physical(&self, name: &str) -> String {
        if self.mapping == Mapping::None { name.to_owned() } else { format!("col-{name}-7") }
    }

    fn begin(&mut self) {
        let field = |(id, name, dtype): (i32, &str, &str)| {
            let physical = self.physical(name);
            let metadata = match self.mapping {
                Mapping::None => String::new(),
                _ => format!(
                    "\"delta.columnMapping.id\":{id},\"delta.columnMapping.physicalName\":\"{physical}\""
                ),
            };
            format!(
                "{{\"name\":\"{name}\",\"type\":\"{dtype}\",\"nullable\":true,\"metadata\":{{{metadata}}}}}"
            )
        };
        let fields = [(1, "at", "timestamp"), (2, "n", "long"), (3, "late", "long"), (4, "region", "string")];
        let schema = format!("{{\"type\":\"struct\",\"fields\":[{}]}}", fields.map(field).join(","));
        let (mode, features) = match self.mapping {
            Mapping::None => ("", "\"deletionVectors\""),
            Mapping::Name => {
                ("\"delta.columnMapping.mode\":\"name\"", "\"deletionVectors\",\"columnMapping\"")
            }
            Mapping::Id => ("\"delta.columnMapping.mode\":\"id\"", "\"deletionVectors\",\"columnMapping\""),
        };
        let schema = schema.replace('"', "\\\"");
        self.commit(&format!(
            "{{\"protocol\":{{\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":[{features}],\
             \"writerFeatures\":[{features}]}}}}\n\
             {{\"metaData\":{{\"id\":\"t\",\"format\":{{\"provider\":\"parquet\",\"options\":{{}}}},\
             \"schemaString\":\"{schema}\",\"partitionColumns\":[\"region\"],\"configuration\":{{{mode}}},\
             \"createdTime\":0}}}}\n"
        ));
    }

    fn commit(&mut self, actions: &str) {
        self.repository.file(&format!("t/_delta_log/{:020}.json", self.commits), actions);
        self.commits += 1;
    }

    fn take(&mut self, step: &Step) {
        let actions = match step {
            Step::Add(files) => {
                let added: Vec<String> = files.iter().map(|count| self.add(*count)).collect();
                added.concat()
            }
            Step::Delete(file, rows) if !self.live.is_empty() => {
                let place = file % self.live.len();
                let mut live = self.live[place].clone();
                let removed = self.action("remove", &live);
                live.deleted.extend(rows.iter().filter(|row| **row < live.rows.len()));
                live.deleted.sort_unstable();
                live.deleted.dedup();
                if live.deleted == self.live[place].deleted {
                    return self.commit("{\"commitInfo\":{}}\n");
                }
                live.vector = self.vector(&live);
                self.live[place] = live.clone();
                removed + &self.action("add", &live)
            }
            Step::Remove(file) if !self.live.is_empty() => {
                let live = self.live.remove(file % self.live.len());
                self.action("remove", &live)
            }
            Step::Delete(..) | Step::Remove(_) => String::new(),
        };
        self.commit(&format!("{{\"commitInfo\":{{}}}}\n{actions}"));
    }

    fn add(&mut self, count: usize) -> String {
        let rows: Vec<i64> = (self.next..self.next + count as i64).collect();
        self.next += count as i64;
        let region = [Some("eu"), Some("a b"), None][self.next as usize % 3];
        let folder = match region {
            Some(region) => format!("region={}", region.replace(' ', "%20")),
            None => "region=__HIVE_DEFAULT_PARTITION__".to_owned(),
        };
        let path = format!("{folder}/part-{}.parquet", self.next);
        let ids = if self.mapping == Mapping::Id { vec!["1", "2", "3"] } else { vec!["9", "9", "9"] };
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("at", Arc::new(TimestampMicrosecondArray::from(rows.clone()).with_timezone("UTC"))),
            // Files may be of before the type was widened: the table's counts.
            (
                "n",
                match self.commits % 2 {
                    0 => Arc::new(Int64Array::from(rows.clone())),
                    _ => Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| *row as i32))),
                },
            ),
        ];
        // Older files lack it.
        if self.commits > 3 {
            columns.push(("late", Arc::new(Int64Array::from(rows.clone()))));
        }
        let field = |(place, (name, column)): (usize, &(&str, ArrayRef))| {
            let id = [("PARQUET:field_id".to_owned(), ids[place].to_owned())];
            // With ids, names say nothing.
            let name =
                if self.mapping == Mapping::Id { format!("anything-{place}") } else { self.physical(name) };
            Field::new(name, column.data_type().clone(), true).with_metadata(id.into())
        };
        let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
        let batch =
            RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, column)| column).collect());
        let here = path.replace("%20", " ");
        self.repository.file(&format!("t/{here}"), "");
        let file = File::create(self.repository.folder.path().join("t").join(here)).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(7)).build();
        let batch = batch.unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let live =
            Live { version: self.commits, path, region, rows, deleted: Vec::new(), vector: String::new() };
        let action = self.action("add", &live);
        self.live.push(live);
        action
    }

    fn action(&self, kind: &str, live: &Live) -> String {
        let region = live.region.map_or("null".to_owned(), |region| format!("\"{region}\""));
        let time = if kind == "add" { "\"modificationTime\":5" } else { "\"deletionTimestamp\":5" };
        // In a log, a path is a URL: what a folder's name has as `%20` is written `%2520` where it is meant so.
        format!(
            "{{\"{kind}\":{{\"path\":\"{}\",\"partitionValues\":{{\"{}\":{region}}},\"size\":1,{time},\
             \"dataChange\":true{}}}}}\n",
            live.path,
            self.physical("region"),
            live.vector
        )
    }

    /// Writes which rows of a file are deleted, and says where.
    fn vector(&self, live: &Live) -> String {
        let mut bitmap = 1_681_511_377u32.to_le_bytes().to_vec();
        bitmap.extend(1u64.to_le_bytes());
        bitmap.extend(0u32.to_le_bytes());
        bitmap.extend(12_346u32.to_le_bytes());
        bitmap.extend(1u32.to_le_bytes());
        bitmap.extend(0u16.to_le_bytes());
        bitmap.extend((live.deleted.len() as u16 - 1).to_le_bytes());
        bitmap.extend(16u32.to_le_bytes());
        live.deleted.iter().for_each(|row| bitmap.extend((*row as u16).to_le_bytes()));
        let mut file = vec![1];
        file.extend((bitmap.len() as u32).to_be_bytes());
        file.extend(&bitmap);
        file.extend(Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&bitmap).to_be_bytes());
        let name = format!("t/dv-{}-{}-{}.bin", self.commits, live.rows[0], live.deleted.len());
        self.repository.file(&name, file);
        let url = url::Url::from_file_path(self.repository.folder.path().join(name)).unwrap();
        format!(
            ",\"deletionVector\":{{\"storageType\":\"p\",\"pathOrInlineDv\":\"{url}\",\"offset\":1,\
             \"sizeInBytes\":{},\"cardinality\":{}}}",
            bitmap.len(),
            live.deleted.len()
        )
    }

    /// What the table must hold, in order of arrival.
    fn rows(&self) -> Vec<(i64, Option<i64>, Option<String>)> {
        let mut files = self.live.clone();
        files.sort_by(|a, b| (a.version, &a.path).cmp(&(b.version, &b.path)));
        let of_file = |file: &Live| {
            let late = file.version > 3;
            let left = file.rows.iter().enumerate().filter(|(place, _)| !file.deleted.contains(place));
            let row = |(_, n): (usize, &i64)| (*n, late.then_some(*n), file.region.map(str::to_owned));
            left.map(row).collect::<Vec<_>>()
        };
        files.iter().flat_map(of_file).collect()
    }
}

fn read(repository: &Repository) -> Vec<(i64, Option<i64>, Option<String>)> {
    let rows = all(&repository.open().unwrap()).unwrap();
    let numbers = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
    let (n, late) = (numbers("n"), numbers("late"));
    let region = cast(rows.column_by_name("region").unwrap(), &DataType::Utf8).unwrap();
    let at = cast(rows.column_by_name("at").unwrap(), &DataType::Int64).unwrap();
    assert_eq!(at.as_primitive::<Int64Type>(), &n);
    let late = late.iter().zip(region.as_string::<i32>());
    n.values().iter().zip(late).map(|(n, (late, region))| (*n, late, region.map(str::to_owned))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_has_the_rows_that_its_log_says(
        steps in proptest::collection::vec(step(), 1..14),
        mapping in proptest::sample::select(&[Mapping::None, Mapping::Name, Mapping::Id][..]),
        asked in any::<usize>(),
    ) {
        let mut repository = Repository::new(Format::Delta, "t");
        repository.declare("late", scalar(ScalarType::Int64));
        repository.declare("region", scalar(ScalarType::String));
        repository.declare("at", scalar(ScalarType::Timestamp));
        let mut writer = Writer { repository: &repository, mapping, live: Vec::new(), next: 0, commits: 0 };
        writer.begin();
        let mut versions = vec![Vec::new()];
        for step in &steps {
            writer.take(step);
            versions.push(writer.rows());
        }
        let (last, asked) = (versions.len() - 1, asked % versions.len());
        for (version, wanted) in [(None, &versions[last]), (Some(asked), &versions[asked])] {
            if wanted.is_empty() {
                continue;
            }
            repository.source.batch.as_mut().unwrap().version = version.map(|version| version as u64);
            prop_assert_eq!(&read(&repository), wanted, "{:?}, {:?}: {:?}", version, mapping, steps);
            let scan = repository.open().unwrap();
            let known = check_constants(&scan, &["region"]);
            prop_assert_eq!(known.iter().map(Range::len).sum::<usize>(), scan.units.len());
            check_constants(&scan, &["region", "late"]);
            prop_assert!(check_constants(&scan, &["n"]).is_empty());
        }
    }
}

fn golden(table: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/delta").join(table)
}

/// The rows of a table of Delta Lake's own tests, or of the files that it must read as, sorted.
fn rows_of(folder: PathBuf, format: Format, time: &str) -> Vec<String> {
    let mut repository = Repository::new(format, folder.to_str().unwrap());
    repository.source.event_timestamp = time.to_owned();
    let at = Column { format: Some(Epoch::Seconds), ..column_of(time, scalar(ScalarType::Timestamp)) };
    repository.source.columns.push(at);
    let history = History::new(Roots::anywhere(repository.folder.path()), Pushed::default());
    let schema = history.schema(&repository.source).unwrap_or_else(|mistakes| panic!("{}", lines(&mistakes)));
    let rows = all(&history.open(&repository.source, &schema).unwrap()).unwrap();
    // What lies within structs is nobody's feature, and keeps the names that files have.
    let plain = schema.fields().iter().filter(|field| !field.data_type().is_nested());
    let mut names: Vec<&str> = plain.map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    let columns = names.iter().map(|name| (*name, Arc::clone(rows.column_by_name(name).unwrap())));
    let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)));
    let text = pretty_format_batches(&[rows.unwrap()]).unwrap().to_string();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn column_of(name: &str, dtype: Type) -> Column {
    Column { name: name.to_owned(), dtype, default: None, format: None, from: None, loc: loc(10) }
}

#[test]
fn tables_of_delta_lakes_own_tests_read_as_they_must() {
    for (table, time) in [
        ("log-replay-dv-key-cases", "id"),
        ("table-with-columnmapping-mode-id", "LongType"),
        ("table-with-columnmapping-mode-name", "LongType"),
    ] {
        let delta = rows_of(golden(table).join("delta"), Format::Delta, time);
        let expected = rows_of(golden(table).join("expected"), Format::Parquet, time);
        assert_eq!(delta, expected, "{table}");
        assert!(delta.len() > 5, "{table}: {delta:?}");
    }
    let left = rows_of(golden("table-with-dv-small/delta"), Format::Delta, "value");
    assert_eq!(left.iter().filter(|line| line.contains("1970")).count(), 8, "{left:?}");
}

#[test]
fn what_is_no_table_or_has_no_such_version_is_said() {
    let mut repository = Repository::new(Format::Delta, "t");
    expect![[r#"
        events.yaml:3:5: source `events`: there is no folder `t`
          help: name the folder in which `_delta_log` lies
    "#]]
    .assert_eq(&repository.mistakes());
    repository.file("t/x.parquet", "");
    expect![[r#"
        events.yaml:3:5: source `events`: `t` is no table of Delta Lake: there is no log in its `_delta_log`
          help: name the folder in which `_delta_log` lies
    "#]]
    .assert_eq(&repository.mistakes());
    let mut writer =
        Writer { repository: &repository, mapping: Mapping::None, live: Vec::new(), next: 0, commits: 0 };
    writer.begin();
    writer.take(&Step::Add(vec![3]));
    let path = writer.live[0].path.replace("%20", " ");
    repository.source.batch.as_mut().unwrap().version = Some(7);
    expect![[r#"
        events.yaml:3:5: source `events`: `t` has no version 7: its latest is 1
          help: name one of those before, or leave `version` out for the latest
    "#]]
    .assert_eq(&repository.mistakes());
    repository.source.batch.as_mut().unwrap().version = None;
    fs::remove_file(repository.folder.path().join("t").join(&path)).unwrap();
    expect![[r#"
        events.yaml:3:5: source `events`: `t/region=eu/part-3.parquet` is gone, though the log of `t` names it
          help: VACUUM removes files of old versions; leave `version` out, or name a later one
    "#]]
    .assert_eq(&repository.mistakes());
    let log = "t/_delta_log/00000000000000000000.json";
    let text = fs::read_to_string(repository.folder.path().join(log)).unwrap();
    repository.file(log, text.replace("deletionVectors", "secretSauce"));
    expect![[r#"
        events.yaml:3:5: source `events`: `t` cannot be read: Feature 'secretSauce' is not supported
          help: a feature of the table is not known here; write what it holds into another one, or into Parquet files
    "#]].assert_eq(&repository.mistakes());
    repository.file(log, "{\"protocol\"");
    expect![[r#"
        events.yaml:3:5: source `events`: the log of `t` cannot be read: Json error: Truncated record whilst reading colon
          help: is it whole? what is missing in it no reader can make up
    "#]].assert_eq(&repository.mistakes());
}
