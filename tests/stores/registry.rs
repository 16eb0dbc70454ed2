//! What the registry promises, on both of its databases.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use bytes::Bytes;
use feature_defs::DefFile;
use quern::wire::Code;
use quern_engine::SourceSchemas;
use quern_kit::registry::{AppliedModel, Apply, Location, NewApiKey, Registry, RunEnd, RunNote};
use quern_kit::{Failure, Postgres, timestamp, until};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

/// Runs `check` on SQLite and on PostgreSQL, each time with a new folder.
async fn on_both(check: impl AsyncFn(&Location, &Path)) {
    check(&Location::Sqlite, TempDir::new().unwrap().path()).await;
    let postgres = Postgres::start().await;
    check(&Location::Postgres(postgres.url()), TempDir::new().unwrap().path()).await;
}

fn apply(number: u64) -> Apply {
    // The last two are types that the definition language has no word for.
    let schema = Schema::new(vec![
        Field::new("tailnum", DataType::Utf8, true),
        Field::new("at", timestamp(), true),
        Field::new("spent", DataType::Decimal128(38, 2), true),
        Field::new(
            "place",
            DataType::Struct(Fields::from(vec![Field::new("x", DataType::Int8, false)])),
            true,
        ),
    ]);
    Apply {
        number,
        applied_at_us: 1_700_000_000_000_000 + number as i64,
        fingerprint: format!("print {number}"),
        files: vec![
            DefFile::new("a.yaml", "kind: Entity\n".to_owned()),
            DefFile::new("b/c.yaml", "# über\n".to_owned()),
        ],
        source_schemas: SourceSchemas::from([("landings".to_owned(), Arc::new(schema))]),
        weights: [("delay".to_owned(), vec![("1".to_owned(), 90), ("2".to_owned(), 10)])].into(),
        ramps: [("delay".to_owned(), format!("{{\"step\":{number}}}"))].into(),
        models: vec![AppliedModel {
            model: "delay".to_owned(),
            version: "1".to_owned(),
            digest: format!("digest {number}"),
            path: "models/delay.onnx".to_owned(),
            service: "delay_v1".to_owned(),
        }],
    }
}

#[tokio::test]
async fn an_apply_is_read_back_as_it_was_written() {
    on_both(async |location, folder| {
        let registry = Registry::open(location, folder).await.unwrap();
        assert_eq!(registry.latest().await.unwrap(), None);
        registry.record(&apply(1)).await.unwrap();
        registry.record(&apply(2)).await.unwrap();
        drop(registry);

        let registry = Registry::open(location, folder).await.unwrap();
        assert_eq!(registry.latest().await.unwrap(), Some(apply(2)));
        assert_eq!(registry.latest_number().await.unwrap(), 2);
        assert_eq!(registry.apply(1).await.unwrap(), apply(1));
        assert_eq!(registry.history().await.unwrap().len(), 2);
        assert_eq!(Failure::from(registry.apply(3).await.unwrap_err()).code, Code::NotFound);
    })
    .await;
}

#[tokio::test]
async fn an_apply_that_is_not_what_it_was_is_not_read() {
    let change = async |location: &Location, folder: &Path, change: &'static str| {
        let changed = match location {
            Location::Sqlite => {
                let options = SqliteConnectOptions::new().filename(folder.join("registry.sqlite"));
                let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::query(change).execute(&mut connection).await.unwrap().rows_affected()
            }
            Location::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query(change).execute(&mut connection).await.unwrap().rows_affected()
            }
        };
        assert_eq!(changed, 1, "{change}");
    };
    on_both(async |location, folder| {
        let registry = Registry::open(location, folder).await.unwrap();
        registry.record(&apply(1)).await.unwrap();
        for (there, back) in [
            (
                "UPDATE project_files SET content = 'kind: entity' WHERE path = 'a.yaml'",
                "UPDATE project_files SET content = 'kind: Entity\n' WHERE path = 'a.yaml'",
            ),
            (
                "UPDATE weights SET weight = 91 WHERE version = '1'",
                "UPDATE weights SET weight = 90 WHERE version = '1'",
            ),
            (
                "UPDATE model_versions SET service = 'delay_v3'",
                "UPDATE model_versions SET service = 'delay_v1'",
            ),
            (
                "UPDATE applies SET applied_at = applied_at + 1",
                "UPDATE applies SET applied_at = applied_at - 1",
            ),
        ] {
            change(location, folder, there).await;
            let error = registry.apply(1).await.unwrap_err().to_string();
            assert!(error.contains("apply 1 is damaged in the registry"), "{there}: {error}");
            change(location, folder, back).await;
            assert_eq!(registry.apply(1).await.unwrap(), apply(1));
        }
    })
    .await;
}

#[tokio::test]
async fn an_apply_on_top_of_what_is_no_longer_live_is_refused() {
    on_both(async |location, folder| {
        let registry = Registry::open(location, folder).await.unwrap();
        registry.record(&apply(1)).await.unwrap();
        for number in [1, 3] {
            let refused = Failure::from(registry.record(&apply(number)).await.unwrap_err());
            assert_eq!(refused.code, Code::Refused, "number {number}: {refused}");
        }
        assert_eq!(registry.latest().await.unwrap(), Some(apply(1)));
    })
    .await;
}

/// Whatever the statements' order: eight at a time, through as many connections as there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_applies_at_once_one_is_written() {
    on_both(async |location, folder| {
        let registry = Registry::open(location, folder).await.unwrap();
        for number in 1..=5 {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    let registry = registry.clone();
                    tokio::spawn(async move { registry.record(&apply(number)).await })
                })
                .collect();
            let mut written = 0;
            for racer in racers {
                match racer.await.unwrap() {
                    Ok(()) => written += 1,
                    Err(error) => {
                        let refused = Failure::from(error);
                        assert_eq!(refused.code, Code::Refused, "{refused}");
                    }
                }
            }
            assert_eq!(written, 1, "of apply {number}");
            assert_eq!(registry.latest().await.unwrap(), Some(apply(number)));
        }
    })
    .await;
}

#[tokio::test]
async fn an_apply_that_fails_half_way_leaves_nothing() {
    on_both(async |location, folder| {
        let registry = Registry::open(location, folder).await.unwrap();
        let mut broken = apply(1);
        broken.models.push(broken.models[0].clone());
        assert!(registry.record(&broken).await.is_err());
        assert_eq!(registry.latest().await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_damaged_model_file_is_not_loaded() {
    let folder = TempDir::new().unwrap();
    let artifacts = Registry::open(&Location::Sqlite, folder.path()).await.unwrap().artifacts;
    let model = Bytes::from_static(b"a model");
    let digest = artifacts.store(model.clone()).await.unwrap();
    assert_eq!(artifacts.store(model.clone()).await.unwrap(), digest);
    assert_eq!(artifacts.load(&digest).await.unwrap(), model);

    std::fs::write(folder.path().join(format!("models/{digest}.onnx")), b"b model").unwrap();
    let error = artifacts.load(&digest).await.unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
    // Applying the same file again repairs it.
    artifacts.store(model.clone()).await.unwrap();
    assert_eq!(artifacts.load(&digest).await.unwrap(), model);
}

#[tokio::test]
async fn a_shared_model_file_is_read_wherever_it_was_stored() {
    let postgres = Postgres::start().await;
    let location = Location::Postgres(postgres.url());
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let stored = Registry::open(&location, here.path()).await.unwrap().artifacts;
    let read = Registry::open(&location, there.path()).await.unwrap().artifacts;
    // Of three parts, the last one short.
    let model: Bytes = (0..10_000_000u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    let digest = stored.store(model.clone()).await.unwrap();
    assert!(read.load(&digest).await.unwrap() == model);

    // What is damaged in the folder is read from the database again ...
    let copy = there.path().join(format!("models/{digest}.onnx"));
    assert!(std::fs::read(&copy).unwrap() == model);
    std::fs::write(&copy, b"rubbish").unwrap();
    assert!(read.load(&digest).await.unwrap() == model);
    assert!(std::fs::read(&copy).unwrap() == model);

    // ... and what is damaged there as well is not loaded, until it is stored again.
    std::fs::remove_file(&copy).unwrap();
    postgres.execute("UPDATE artifacts SET content = 'rubbish' WHERE part = 1").await;
    let error = read.load(&digest).await.unwrap_err().to_string();
    assert!(error.contains("in the registry is damaged"), "{error}");
    stored.store(model.clone()).await.unwrap();
    assert!(read.load(&digest).await.unwrap() == model);
    let error = read.load("no digest").await.unwrap_err().to_string();
    assert!(error.contains("gone from the registry"), "{error}");
}

#[tokio::test]
async fn a_database_that_is_away_or_of_a_later_version_is_told_apart() {
    let (mut postgres, folder) = (Postgres::start().await, TempDir::new().unwrap());
    let location = Location::Postgres(postgres.url());
    // Many servers may begin at once, on an empty database too.
    let opened = futures::future::join_all((0..4).map(|_| Registry::open(&location, folder.path()))).await;
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    postgres.execute("INSERT INTO _sqlx_migrations VALUES (99, 'later', now(), true, '', 0)").await;
    let error = Failure::from(Registry::open(&location, folder.path()).await.unwrap_err());
    assert!(error.code == Code::Internal && error.text.contains("later version of Quern"), "{error}");
    postgres.stop();
    let error = Failure::from(Registry::open(&location, folder.path()).await.unwrap_err());
    assert!(error.code == Code::Unavailable && error.text.contains("127.0.0.1"), "{error}");
}

fn note(view: &str, begun_ago_us: i64, ended: Option<(i64, Option<&str>)>) -> RunNote {
    let ended = ended.map(|(ago_us, error)| RunEnd {
        ago_us,
        rows_written: 7,
        until_us: error.is_none().then_some(5),
        newest_us: Some(begun_ago_us),
        error: error.map(str::to_owned),
    });
    RunNote { view: view.to_owned(), begun_ago_us, ended }
}

#[tokio::test]
async fn of_each_view_the_latest_run_is_known_and_when_one_last_succeeded() {
    on_both(async |location, folder| {
        let registry = Registry::open(location, folder).await.unwrap();
        // Ages are far apart, so that none hangs on how long this takes.
        let hour = 3_600_000_000;
        assert_eq!(registry.runs("head").await.unwrap().runs, []);
        let both = [note("a", 9 * hour, None), note("b", 8 * hour, Some((7 * hour, None)))];
        registry.note_runs("head", "one", &both).await.unwrap();
        let known = registry.runs("head").await.unwrap();
        assert_eq!(known.runs.len(), 2);
        let [a, b] = &known.runs[..] else { unreachable!() };
        assert_eq!((a.view.as_str(), a.ended_us, a.rows_written, a.success_us), ("a", None, None, None));
        assert_eq!((b.rows_written, b.until_us, b.newest_us), (Some(7), Some(5), Some(8 * hour)));
        assert_eq!(b.success_us, b.ended_us);
        let (a_begun, b_success) = (a.begun_us, b.success_us);
        assert!(known.now_us - a_begun >= 9 * hour && a.seen_us >= a_begun + 9 * hour);

        // It is told again that it goes on; of what has ended nothing is told.
        registry.beat_runs("head", "one").await.unwrap();
        registry.beat_runs("head", "two").await.unwrap();
        let beaten = registry.runs("head").await.unwrap();
        assert!(beaten.runs[0].seen_us >= a.seen_us);
        assert_eq!(beaten.runs[1], *b);

        // One that failed keeps when one last succeeded, and the newest event of all.
        registry.note_runs("head", "two", &[note("b", 2 * hour, Some((hour, Some("no"))))]).await.unwrap();
        let failed = registry.runs("head").await.unwrap().runs.remove(1);
        assert_eq!((failed.error.as_deref(), failed.success_us), (Some("no"), b_success));
        assert_eq!((failed.newest_us, failed.instance.as_str()), (Some(8 * hour), "two"));

        // What comes late of a run before is not told any more; of one's own, it is.
        registry.note_runs("head", "one", &[note("b", 8 * hour, Some((6 * hour, None)))]).await.unwrap();
        assert_eq!(registry.runs("head").await.unwrap().runs[1], failed);
        registry.note_runs("head", "one", &[note("a", 9 * hour, Some((hour, None)))]).await.unwrap();
        let ended = registry.runs("head").await.unwrap().runs.remove(0);
        assert!(ended.ended_us.is_some() && ended.error.is_none());

        // Heads are told apart, and views that are gone are forgotten.
        registry.note_runs("other", "one", &[note("a", hour, None)]).await.unwrap();
        let live = BTreeSet::from(["b".to_owned()]);
        registry.forget_runs("head", &live).await.unwrap();
        let left = registry.runs("head").await.unwrap().runs;
        assert_eq!(left, [failed]);
        assert_eq!(registry.runs("other").await.unwrap().runs.len(), 1);
        assert_eq!(registry.runs("other").await.unwrap().commits.is_some(), registry.is_shared());
    })
    .await;
}

fn key(id: &str, name: &str) -> NewApiKey {
    NewApiKey {
        id: id.to_owned(),
        name: name.to_owned(),
        sha256: format!("sha256 of {id}"),
        last_four: "last".to_owned(),
        lifetime_us: None,
    }
}

#[tokio::test]
async fn keys_are_kept_until_they_are_revoked() {
    on_both(async |location, folder| {
        let registry = Registry::open(location, folder).await.unwrap();
        assert_eq!((registry.keys().await.unwrap(), registry.key_changes().await.unwrap()), (Vec::new(), 0));
        let first = registry.make_key(&key("1", "ann")).await.unwrap();
        assert_eq!((&*first.sha256, first.expires_us, first.revoked_us), ("sha256 of 1", None, None));
        let now_us = registry.now_us().await.unwrap();
        assert!((now_us - 60_000_000..=now_us + 1_000_000).contains(&first.created_us));
        let brief = NewApiKey { lifetime_us: Some(1), ..key("2", "ann") };
        let brief = registry.make_key(&brief).await.unwrap();
        assert_eq!(brief.expires_us, Some(brief.created_us + 1));
        // One that has expired takes no place; a clock may tell milliseconds only.
        let expired = async || (registry.now_us().await.unwrap() > brief.created_us + 1).then_some(());
        until("a key that has expired", expired).await;
        registry.make_key(&key("3", "ann")).await.unwrap();
        let refused = Failure::from(registry.make_key(&key("4", "ann")).await.unwrap_err());
        assert!(refused.code == Code::Refused && refused.text.contains("2 valid keys of `ann`"), "{refused}");
        registry.make_key(&key("5", "bob")).await.unwrap();
        assert_eq!(registry.key_changes().await.unwrap(), 4);

        let revoked = registry.revoke_keys("1").await.unwrap();
        assert_eq!((revoked.len(), &*revoked[0].id), (1, "1"));
        let when = revoked[0].revoked_us.unwrap();
        registry.make_key(&key("6", "ann")).await.unwrap();
        let revoked = registry.revoke_keys("ann").await.unwrap();
        assert_eq!(revoked.len(), 4);
        assert!(revoked.iter().all(|key| key.revoked_us.is_some()));
        assert_eq!(revoked[0].revoked_us, Some(when), "it stays revoked when it was");
        let missing = Failure::from(registry.revoke_keys("nobody").await.unwrap_err());
        assert_eq!(missing.code, Code::NotFound);
        assert_eq!(registry.key_changes().await.unwrap(), 7);
        drop(registry);
        let registry = Registry::open(location, folder).await.unwrap();
        let names: Vec<_> =
            registry.keys().await.unwrap().into_iter().map(|key| (key.name, key.id)).collect();
        assert_eq!(names.iter().filter(|(name, _)| name == "ann").count(), 4);
        assert_eq!(names.last(), Some(&("bob".to_owned(), "5".to_owned())));
    })
    .await;
}

#[tokio::test]
async fn of_many_who_make_a_key_of_one_name_two_do() {
    on_both(async |location, folder| {
        let registry = Registry::open(location, folder).await.unwrap();
        let keys: Vec<NewApiKey> = (0..8).map(|number| key(&number.to_string(), "ann")).collect();
        let made = futures::future::join_all(keys.iter().map(|key| registry.make_key(key))).await;
        assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 2, "{made:?}");
        assert_eq!(registry.key_changes().await.unwrap(), 2);
    })
    .await;
}
