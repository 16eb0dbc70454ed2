use arrow::datatypes::{DataType, Field, Fields, Schema};

use super::*;

fn apply(number: u64) -> Apply {
    // The last two are types that the definition language has no word for.
    let schema = Schema::new(vec![
        Field::new("tailnum", DataType::Utf8, true),
        Field::new("at", quern_engine::schema::timestamp(), true),
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
            DefFile { path: "a.yaml".to_owned(), text: "kind: Entity\n".to_owned() },
            DefFile { path: "b/c.yaml".to_owned(), text: "# über\n".to_owned() },
        ],
        source_schemas: SourceSchemas::from([("landings".to_owned(), Arc::new(schema))]),
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
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Registry::open(folder.path()).await.expect("opens");
    assert_eq!(registry.latest().await.expect("reads"), None);
    registry.record(&apply(1)).await.expect("written");
    registry.record(&apply(2)).await.expect("written");
    drop(registry);

    let registry = Registry::open(folder.path()).await.expect("opens again");
    assert_eq!(registry.latest().await.expect("reads"), Some(apply(2)));
    assert_eq!(registry.apply(1).await.expect("reads"), apply(1));
    assert_eq!(registry.history().await.expect("reads").len(), 2);
    let first = registry.first_digest("delay", "1").await.expect("reads");
    assert_eq!(first, Some((1, "digest 1".to_owned())));
    assert!(matches!(registry.apply(3).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn an_apply_on_top_of_what_is_no_longer_live_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Registry::open(folder.path()).await.expect("opens");
    registry.record(&apply(1)).await.expect("written");
    for number in [1, 3] {
        assert!(matches!(registry.record(&apply(number)).await, Err(Error::Refused(_))), "number {number}");
    }
    assert_eq!(registry.latest().await.expect("reads"), Some(apply(1)));
}

#[tokio::test]
async fn an_apply_that_fails_half_way_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Registry::open(folder.path()).await.expect("opens");
    let mut broken = apply(1);
    broken.models.push(broken.models[0].clone());
    assert!(registry.record(&broken).await.is_err());
    assert_eq!(registry.latest().await.expect("reads"), None);
}

#[test]
fn a_damaged_model_file_is_not_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let artifacts = Artifacts::open(folder.path()).expect("opens");
    let digest = artifacts.store(b"a model").expect("stored");
    assert_eq!(artifacts.store(b"a model").expect("stored"), digest);
    assert_eq!(artifacts.load(&digest).expect("loads"), b"a model");

    let path = folder.path().join(format!("{digest}.onnx"));
    std::fs::write(&path, b"b model").expect("written");
    let error = artifacts.load(&digest).expect_err("damaged").to_string();
    assert!(error.contains("damaged"), "{error}");
    // Applying the same file again repairs it.
    artifacts.store(b"a model").expect("stored");
    assert_eq!(artifacts.load(&digest).expect("loads"), b"a model");
}
