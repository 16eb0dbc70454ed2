//! Does a scrub find whatever is damaged, and nothing where all is whole?

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect;
use quern::wire::Damaged;
use quern_kit::{Process, Push, Random, Server, cases, run, until};
use serde_json::json;
use tempfile::TempDir;

use super::backup::{at, files, repository};
use super::log::close;
use crate::models::predictions;
use crate::network::push::rows;
use crate::planes::JANUARY_10_US;

/// What RocksDB tells people alone, and what it puts aside for later.
fn is_told(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    ["LOG", "OPTIONS", "IDENTITY", "LOCK"].iter().any(|of| name.starts_with(of))
}

fn flip(path: &Path, random: &mut Random) -> Vec<u8> {
    let sound = fs::read(path).unwrap();
    let mut damaged = sound.clone();
    let place = random.below(sound.len() as u64) as usize;
    damaged[place] ^= 1 << random.below(8);
    // In place: the server has it open.
    fs::write(path, damaged).unwrap();
    sound
}

/// Each bit that flips in a segment or in the log of a server that runs is found, and so is each file that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_flips_or_goes_is_found_while_the_server_runs() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let data = folder.path().join("data");
    let mut random = Random::new("scrub");
    let node = repository.open_applied_with(&at(&data)).await;
    for number in 0..3 {
        node.push(Push::new("payments", rows(number * 50, 50))).await.unwrap();
        node.seal("payments");
    }
    node.push(Push::new("payments", rows(500, 50))).await.unwrap();
    close(node, &data).await;
    // What was in the journal lies in table files now.
    let node = repository.open_with(&at(&data)).await.unwrap();
    let mut found = [0, 0];
    for case in 0..cases(60) {
        node.push(Push::new("payments", rows(1_000 + case as i64, 1))).await.unwrap();
        assert_eq!(node.scrub(), []);
        node.push(Push::new("payments", rows(10_000 + case as i64, 1))).await.unwrap();
        let (part, of) = [("log", "log"), ("segments", "store/pushed")][case as usize % 2];
        let mut all: Vec<PathBuf> = files(&data.join(of));
        all.retain(|path| !is_told(path) && path.metadata().unwrap().len() > 0);
        let path = &all[random.below(all.len() as u64) as usize];
        let name = path.file_name().unwrap().to_str().unwrap();
        let sound = match random.below(6) {
            0 if part == "segments" => {
                let sound = fs::read(path).unwrap();
                fs::remove_file(path).unwrap();
                sound
            }
            _ => flip(path, &mut random),
        };
        let damaged = node.scrub();
        let [Damaged { part: of, error, .. }] = &damaged[..] else { panic!("{name}: {damaged:?}") };
        assert!(of == part && error.contains("bring") || error.contains("quern restore"), "{name}: {error}");
        found[case as usize % 2] += 1;
        fs::write(path, sound).unwrap();
    }
    println!("{found:?} found");
    assert_eq!(node.scrub(), []);
}

/// As an operator does: exit code 1, every damage in a line with its way out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_what_is_damaged_and_ends_with_1() {
    let repository = predictions::repository();
    let folder = repository.path();
    let refused = run(folder, &["scrub"]);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("there is no data folder"),
        "{}",
        refused.stderr
    );
    assert!(!folder.join(".quern").exists());
    run(folder, &["apply"]).answer();
    let node = repository.open().await;
    node.materialize_to(JANUARY_10_US);
    node.model("delay")
        .predict("a", predictions::table_of(&["N1"; 3]).columns().to_vec(), vec![JANUARY_10_US; 3])
        .await;
    node.flush_predictions().await;
    drop(node);
    let server = until("a data folder that is free", async || {
        run(folder, &["plan"]).code.filter(|code| *code == 0).map(|_| Process::start(folder))
    })
    .await;
    let clean = run(folder, &["scrub"]).answer();
    assert!(clean.contains("nothing is damaged or missing: read 1 segment, "), "{clean}");
    let backup = folder.join("backup");
    run(folder, &["backup", "backup"]).answer();

    let mut random = Random::new("scrub models");
    let models = files(&folder.join(".quern/models"));
    let segment = files(&folder.join(".quern/store/predictions")).remove(0);
    for round in 0..6 {
        let model = &models[round % models.len()];
        let sound = [flip(model, &mut random), flip(&segment, &mut random)];
        let printed = run(folder, &["scrub", "--rate", "100"]);
        assert_eq!(printed.code, Some(1), "{}", printed.stderr);
        let digest = model.file_stem().unwrap().to_str().unwrap();
        for told in [digest, segment.file_name().unwrap().to_str().unwrap(), "2 things are damaged", "backup"]
        {
            assert!(printed.stdout.contains(told), "{told}: {}", printed.stdout);
        }
        let report = run(folder, &["scrub", "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
        let parts: Vec<_> = shown["damaged"].as_array().unwrap().iter().map(|of| &of["part"]).collect();
        assert_eq!((report.code, parts), (Some(1), vec![&json!("models"), &json!("segments")]));
        // What is damaged is in no backup.
        let refused = run(folder, &["backup", "no"]);
        assert!(refused.code == Some(1) && refused.stderr.contains("damaged"), "{}", refused.stderr);
        assert!(!folder.join("no").exists());
        fs::write(model, &sound[0]).unwrap();
        fs::write(&segment, &sound[1]).unwrap();
    }
    fs::remove_file(&models[0]).unwrap();
    let printed = run(folder, &["scrub"]);
    assert!(printed.code == Some(1) && printed.stdout.contains("is gone; restore it"), "{}", printed.stdout);
    assert_eq!(run(folder, &["scrub", "--rate", "0"]).code, Some(2));
    drop(server);

    // What was backed up before has the model, and what it said.
    run(folder, &["--data", "again", "restore", backup.to_str().unwrap()]).answer();
    let again = repository.open_with(&at(&folder.join("again"))).await.unwrap();
    assert_eq!(again.logged("delay").await.unwrap().num_rows(), 3);
    assert_eq!(again.scrub(), []);
}

/// What was pushed is in segments at once, whoever asks, and only once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealing_says_what_it_has_written() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let node = repository.open_applied_with(&at(&folder.path().join("data"))).await;
    let server = Server::of(repository, node.clone()).await;
    node.push(Push::new("payments", rows(0, 10))).await.unwrap();
    node.push(Push::new("payments", rows(10, 10))).await.unwrap();
    let seal = async |body: &str| {
        let (status, text) = server.ask("POST", "/v1/seal", body.to_owned()).await;
        format!("{status} {text}")
    };
    expect![[r#"404 {"error":"no rows were pushed to a source `payment`; did you mean `payments`? known: payments, tips","code":"not_found"}"#]]
        .assert_eq(seal(r#"{"sources": ["tips", "payment"]}"#).await.split(",\"request_id").next().unwrap());
    assert_eq!(node.tail_rows("payments"), 20);
    expect![[r#"200 {"sources":[{"source":"payments","rows":20,"segments":1,"left":0},{"source":"tips","rows":0,"segments":0,"left":0}]}"#]]
        .assert_eq(&seal("").await);
    assert_eq!((node.tail_rows("payments"), node.sealed_rows("payments")), (0, 20));
    expect![[r#"200 {"sources":[{"source":"payments","rows":0,"segments":0,"left":0}]}"#]]
        .assert_eq(&seal(r#"{"sources": ["payments"]}"#).await);
    drop(node);
    server.stop().await;
}
