//! Do files in a bucket say what they say on disk, whatever the bucket does?

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use quern_kit::{Bucket, Node, Random, Repository, blocking, root};

pub(super) const KEYS: u64 = 50;
const FILE_ROWS: usize = 3_000;
pub(super) const END_US: i64 = 1_000_000_000;
const DATES: [&str; 3] = ["2024-01-01", "2024-01-02", "2024-01-03"];

/// The same view of the files here, and of those in the bucket.
fn definitions(bucket: &Bucket) -> String {
    let mut text = format!(
        "{}---\nkind: Entity\nname: user\njoin_keys: [{{name: user, type: int64}}]\n",
        bucket.connection()
    );
    for (name, path) in [("here", "data/date=*/*"), ("there", "s3://rows/data/date=*/*")] {
        text += &format!(
            "---\nkind: Source\nname: {name}\nbatch: {{format: parquet, path: \"{path}.parquet\"}}\n\
             event_timestamp: at\n\
             ---\nkind: Source\nname: {name}_csv\nbatch: {{format: csv, path: \"{path}.csv\"}}\nevent_timestamp: at\n\
             columns: [{{name: at, type: timestamp, format: epoch_us}}, {{name: user, type: int64}}, {{name: x, type: float64}}]\n\
             ---\nkind: FeatureView\nname: {name}\nentities: [user]\nsource: {name}\n\
             features: [{{name: x}}, {{name: note}}, {{name: day, expr: CAST(date AS VARCHAR)}}]\n\
             ---\nkind: FeatureView\nname: {name}_csv\nentities: [user]\nsource: {name}_csv\nfeatures: [{{name: x}}]\n\
             ---\nkind: FeatureView\nname: {name}_counts\nentities: [user]\nsource: {name}\n\
             aggregations: [{{name: n, function: count, windows: [1h, 7d]}}, {{name: s, function: sum, of: x, windows: [1d]}}]\n\
             ---\nkind: FeatureService\nname: {name}\nfeatures: [{name}, {{view: {name}_csv, as: csv}}, {name}_counts]\n"
        );
    }
    text
}

fn rows(random: &mut Random) -> RecordBatch {
    let draws: Vec<[u64; 4]> = (0..FILE_ROWS).map(|_| std::array::from_fn(|_| random.draw())).collect();
    let at = draws.iter().map(|draw| (draw[0] % END_US as u64) as i64);
    let notes = draws.iter().map(|draw| (draw[3] % 5 > 0).then(|| format!("note {}", draw[3] % 1_000)));
    let columns: [(&str, ArrayRef); 4] = [
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC"))),
        ("user", Arc::new(Int64Array::from_iter_values(draws.iter().map(|draw| (draw[1] % KEYS) as i64)))),
        ("x", Arc::new(Float64Array::from_iter_values(draws.iter().map(|draw| draw[2] as f64 * 1e-9)))),
        ("note", Arc::new(StringArray::from_iter(notes))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// Files in folders by date, here and in the bucket.
fn write_files(repository: &Repository, bucket: &Bucket) {
    let mut random = Random::new("rows in a bucket");
    for (place, date) in DATES.iter().enumerate() {
        let folder = format!("data/date={date}");
        for file in 0..=place {
            let name = format!("{folder}/part {file}");
            repository.write_parquet_in_groups(&format!("{name}.parquet"), &rows(&mut random), 1_000);
            let lines: String = (0..200)
                .map(|_| {
                    format!(
                        "{},{},{}\n",
                        random.below(END_US as u64),
                        random.below(KEYS),
                        random.below(1_000)
                    )
                })
                .collect();
            repository.write(format!("{name}.csv"), format!("at,user,x\n{lines}"));
        }
        repository.write(format!("{folder}/_SUCCESS"), "");
    }
    copy(&repository.path().join("data"), &bucket.path().join("data"));
}

pub(super) fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

pub(super) fn spine() -> RecordBatch {
    let mut random = Random::seeded(1);
    let users = Int64Array::from_iter_values((0..2_000).map(|_| random.below(KEYS + 5) as i64));
    let at = (0..2_000).map(|_| random.below(END_US as u64) as i64);
    let at = TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 2] = [("user", Arc::new(users)), ("event_timestamp", Arc::new(at))];
    RecordBatch::try_from_iter(columns).unwrap()
}

pub(super) async fn trained(node: &Node, service: &'static str) -> RecordBatch {
    let node = node.clone();
    blocking(move || node.service(service).training_set(&spine(), false)).await
}

pub(super) fn same(one: &RecordBatch, other: &RecordBatch) {
    for (field, (one, other)) in one.schema().fields().iter().zip(one.columns().iter().zip(other.columns())) {
        assert!(one.to_data() == other.to_data(), "`{}` differs", field.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_in_a_bucket_that_fails_are_those_on_disk() {
    let bucket = Bucket::start().await;
    bucket.faults().fails.store(7, Ordering::Relaxed);
    bucket.faults().cuts.store(5, Ordering::Relaxed);
    bucket.faults().delay_ms.store(2, Ordering::Relaxed);
    let repository = Repository::new(&definitions(&bucket));
    write_files(&repository, &bucket);
    let node = repository.open_applied().await;
    let (here, there) = (trained(&node, "here").await, trained(&node, "there").await);
    same(&here, &there);
    assert!(here.column_by_name("x").unwrap().null_count() < 1_000);

    // What was read once lies here, and is read again for other rows.
    let (asked, sent) = bucket.asked();
    same(&trained(&node, "there").await, &there);
    let (again, sent_again) = bucket.asked();
    assert!(sent_again == sent, "{sent} bytes, then {sent_again}");
    println!("{asked} requests for {sent} bytes, then {} more to list", again - asked);

    // In the head as in history.
    let materialized = node.clone();
    blocking(move || materialized.materialize_to(END_US)).await;
    let look_up = async |service: &str| {
        let service = node.service(service);
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..KEYS as i64));
        service.look_up(service.inputs(vec![keys]), vec![END_US; KEYS as usize]).await.unwrap().vectors
    };
    same(&look_up("here").await, &look_up("there").await);

    // A copy that is not what was fetched is fetched again.
    let copies =
        glob::glob(&format!("{}/.quern/cache/history/*/*.range", repository.path().display())).unwrap();
    let mut damaged = 0;
    for copy in copies.map(Result::unwrap) {
        let mut bytes = fs::read(&copy).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(copy, bytes).unwrap();
        damaged += 1;
    }
    assert!(damaged > 20, "{damaged} copies");
    same(&trained(&node, "there").await, &there);
    assert!(bucket.asked().1 > sent_again);
}

/// A file that is written over between its footer and its rows is refused, and not read as if it were the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_while_it_is_read_is_refused() {
    let bucket = Bucket::start().await;
    let repository = Repository::new(&definitions(&bucket));
    write_files(&repository, &bucket);
    let node = repository.open_applied_with(&[("history_cache_bytes_max", "0".to_owned())]).await;
    let name = "data/date=2024-01-01/part 0.parquet";
    let (path, reads) = (bucket.path().join(name), AtomicU64::new(0));
    let other = bucket.path().join("data/date=2024-01-02/part 1.parquet");
    let before = fs::read(&path).unwrap();
    bucket.before_reads(move |key| {
        if key == name && reads.fetch_add(1, Ordering::Relaxed) == 0 {
            fs::copy(&other, &path).unwrap();
        }
    });
    let service = node.service("there");
    let refused = blocking(move || service.try_training_set(&spine())).await.unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains("`s3://rows/data/date=2024-01-01/part 0.parquet` changed while it was being read"),
        "{said}"
    );
    fs::write(bucket.path().join(name), before).unwrap();
    same(&trained(&node, "here").await, &trained(&node, "there").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_is_said_by_the_connection_and_told_nobody() {
    let bucket = Bucket::start().await;
    bucket.only_for("the-id-of-the-key");
    let definitions = |secret: &str| {
        let credentials = format!(
            "credentials: {{access_key_id: {{file: {secret:?}}}, secret_access_key: {{env: PATH}}}}\n"
        );
        definitions(&bucket).replace("anonymous: true\n", &credentials)
    };
    let repository = Repository::new("");
    let file = |name: &str| repository.path().join(name).display().to_string();
    repository.write(".id", "the-id-of-the-key\n");
    repository.write(".other", "the-id-of-another\n");
    write_files(&repository, &bucket);
    let node = repository.open().await;
    let apply = async |secret: &str| {
        repository.write("definitions.yaml", definitions(&file(secret)));
        node.apply().await.map(drop).map_err(|error| error.to_string())
    };
    let refused = apply(".none").await.unwrap_err();
    assert!(refused.contains("its connection has `access_key_id` told by the file"), "{refused}");
    let refused = apply(".other").await.unwrap_err();
    assert!(refused.contains("access is refused; the store says: AccessDenied"), "{refused}");
    assert!(!refused.contains("the-id-of-another"), "{refused}");
    apply(".id").await.unwrap();
    same(&trained(&node, "here").await, &trained(&node, "there").await);
    let kept = format!("{:?}", node.live().files);
    assert!(!kept.contains("the-id-of-the-key"), "{kept}");

    // A key that is replaced counts at once.
    bucket.only_for("the-id-of-another");
    repository.write(".id", "the-id-of-another");
    trained(&node, "there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_in_a_bucket_is_named() {
    let bucket = Bucket::start().await;
    let repository = Repository::new("");
    write_files(&repository, &bucket);
    let node = repository.open().await;
    let refused = async |from: &str, to: &str| {
        repository.write("definitions.yaml", definitions(&bucket).replace(from, to));
        node.apply().await.unwrap_err().to_string()
    };
    for (from, to, words) in [
        ("s3://rows/data/date=*/*.csv", "s3://rows/dato/*.csv", "no object matches `s3://rows/dato/*.csv`"),
        (
            "s3://rows/data/date=*/*.csv",
            "s3://others/data/*.csv",
            "no connection of its project leads to `s3://others/data/*.csv`",
        ),
        ("url: \"s3://rows/\"", "url: \"s3://rows/other\"", "no connection of its project leads to"),
        ("s3://rows/data/date=*/*.csv", "s3://rows/data/?.csv", "has `?` or `#`"),
    ] {
        let said = refused(from, to).await;
        assert!(said.contains(words), "{said}");
    }
    // A table is not the sum of its files.
    fs::create_dir_all(bucket.path().join("data/_delta_log")).unwrap();
    fs::write(bucket.path().join("data/_delta_log/00000000000000000000.json"), "{}").unwrap();
    let said = refused("there", "there").await;
    assert!(said.contains("`data` is a Delta table"), "{said}");
}

/// A table of Delta Lake with names and numbers of its own for columns, here and there.
fn tables(bucket: &Bucket) -> String {
    let table = |name: &str, path: &str| {
        format!(
            "---\nkind: Source\nname: {name}\nbatch: {{format: delta, path: \"{path}\"}}\nevent_timestamp: TimestampType\n\
             ---\nkind: FeatureView\nname: {name}\nentities: [user]\nsource: {name}\nkeys: {{user: IntegerType}}\n\
             features: [{{name: x, expr: '\"DoubleType\"'}}, {{name: text, expr: '\"StringType\"'}}]\n\
             ---\nkind: FeatureService\nname: {name}\nfeatures: [{name}]\n"
        )
    };
    let entity = "---\nkind: Entity\nname: user\njoin_keys: [{name: user, type: int32}]\n";
    let (here, there) = (table("here", "t"), table("there", "s3://rows/lake/t"));
    format!("{}{entity}{here}{there}", bucket.connection())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_in_a_bucket_is_the_one_on_disk() {
    let bucket = Bucket::start().await;
    bucket.faults().fails.store(5, Ordering::Relaxed);
    let repository = Repository::new(&tables(&bucket));
    let table = root().join("tests/fixtures/delta/table-with-columnmapping-mode-id/delta");
    copy(&table, &repository.path().join("t"));
    copy(&table, &bucket.path().join("lake/t"));
    let node = repository.open_applied().await;
    let users = Int32Array::from_iter_values(0..10);
    let at = TimestampMicrosecondArray::from(vec![4_000_000_000_000_000; 10]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 2] = [("user", Arc::new(users)), ("event_timestamp", Arc::new(at))];
    let spine = RecordBatch::try_from_iter(columns).unwrap();
    let trained = async |service: &'static str| {
        let (node, spine) = (node.clone(), spine.clone());
        blocking(move || node.service(service).training_set(&spine, false)).await
    };
    let (here, there) = (trained("here").await, trained("there").await);
    same(&here, &there);
    assert!(here.column_by_name("x").unwrap().null_count() < 10, "{here:?}");

    // Its log leads nowhere that its connection does not.
    let log = bucket.path().join("lake/t/_delta_log/00000000000000000000.json");
    let text = fs::read_to_string(&log).unwrap();
    let path = text.split("\"path\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    fs::write(&log, text.replacen(&path, "s3://others/t/x.parquet", 1)).unwrap();
    let refused = node.apply().await.unwrap_err().to_string();
    assert!(refused.contains("its log names `s3://others/t/x.parquet`, which leads out of it"), "{refused}");
    fs::remove_file(bucket.path().join("lake/t").join(&path)).unwrap();
    fs::write(&log, text).unwrap();
    let refused = node.apply().await.unwrap_err().to_string();
    assert!(refused.contains("is gone, though the log of `s3://rows/lake/t` names it"), "{refused}");
}

/// Tables of Iceberg: paths with `%2F`, blanks and letters of all kinds, and rows that were deleted in three ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_in_a_bucket_are_those_on_disk() {
    let bucket = Bucket::start().await;
    bucket.faults().fails.store(7, Ordering::Relaxed);
    let mut text = format!(
        "{}---\nkind: Entity\nname: region\njoin_keys: [{{name: region, type: string}}]\n",
        bucket.connection()
    );
    let tables = ["partitioned", "position_deletes_v2", "equality_deletes_v2", "hive_constants"];
    let paths = |table: &str| {
        let metadata = root().join("tests/fixtures/iceberg").join(table).join("table/metadata");
        let names =
            fs::read_dir(metadata).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: Vec<String> = names.collect();
        let last = names.iter().filter(|name| name.ends_with(".metadata.json")).max().unwrap();
        let is_counted = names.iter().any(|name| name == "version-hint.text");
        let path = if is_counted { String::new() } else { format!("/metadata/{last}") };
        [("here", format!("tables/{table}{path}")), ("there", format!("s3://rows/tables/{table}{path}"))]
    };
    for (table, (name, path)) in tables.iter().flat_map(|table| paths(table).map(|path| (table, path))) {
        text += &format!(
            "---\nkind: Source\nname: {name}_{table}\nbatch: {{format: iceberg, path: \"{path}\"}}\n\
             event_timestamp: id\ncolumns: [{{name: id, type: timestamp, format: epoch_us}}]\n\
             ---\nkind: FeatureView\nname: {name}_{table}\nentities: [region]\nsource: {name}_{table}\n\
             features: [{{name: at, expr: CAST(id AS VARCHAR)}}]\n\
             ---\nkind: FeatureView\nname: {name}_{table}_n\nentities: [region]\nsource: {name}_{table}\n\
             aggregations: [{{name: n, function: count, windows: [1d]}}]\n"
        );
    }
    for name in ["here", "there"] {
        let views: Vec<String> = tables
            .iter()
            .map(|table| {
                format!("{{view: {name}_{table}, as: {table}}}, {{view: {name}_{table}_n, as: {table}_n}}")
            })
            .collect();
        text += &format!("---\nkind: FeatureService\nname: {name}\nfeatures: [{}]\n", views.join(", "));
    }
    let repository = Repository::new(&text);
    for table in tables {
        let from = root().join("tests/fixtures/iceberg").join(table).join("table");
        copy(&from, &repository.path().join("tables").join(table));
        copy(&from, &bucket.path().join("tables").join(table));
    }
    let node = repository.open_applied().await;
    let regions = ["eu", "us", "eu west/1", "日本", "", "eu west"];
    let rows: Vec<(&str, i64)> = regions.iter().flat_map(|region| (0..40).map(|us| (*region, us))).collect();
    let columns: [(&str, ArrayRef); 2] = [
        ("region", Arc::new(StringArray::from_iter_values(rows.iter().map(|(region, _)| region)))),
        (
            "event_timestamp",
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, us)| *us))
                    .with_timezone("UTC"),
            ),
        ),
    ];
    let spine = RecordBatch::try_from_iter(columns).unwrap();
    let trained = async |service: &'static str| {
        let (node, spine) = (node.clone(), spine.clone());
        blocking(move || node.service(service).training_set(&spine, false)).await
    };
    let (here, there) = (trained("here").await, trained("there").await);
    same(&here, &there);
    let found: usize = here.columns().iter().map(|column| column.len() - column.null_count()).sum();
    assert!(found > 600, "{found}");
}
