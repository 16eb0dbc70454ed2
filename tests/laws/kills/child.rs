//! Which part of the workload does the process do that is to be killed, and whom does it tell?
//!
//! This test binary once more, with one test of it: what it has acknowledged it writes into a file of the repository.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use quern_kit::points;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection, SqliteConnection};

use super::workload::{STEPS, Work, check, check_planes};

/// Says to this test what it is to do.
const TOLD: &str = "QUERN_KILLED_CHILD";
const SAID: &str = "said.txt";

/// What a process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Task {
    /// The repository.
    pub(super) folder: PathBuf,
    /// Its settings.
    pub(super) settings: Vec<(String, String)>,
    /// Which process of the repository it is.
    pub(super) attempt: i64,
    /// How many steps are acknowledged.
    pub(super) done: usize,
    /// How many are to be.
    pub(super) wanted: usize,
    /// The requests whose predictions were written.
    pub(super) predicted: Vec<String>,
}

/// What it has said before it ended.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// How many steps are acknowledged.
    pub(super) done: usize,
    /// The requests whose predictions were written.
    pub(super) predicted: Vec<String>,
    /// How often it has passed each point; nothing where it was killed.
    pub(super) passed: Vec<(String, u64)>,
}

impl Task {
    /// Does it in a process of its own, which ends at the point of this name and pass.
    pub(super) fn run(&self, end_at: Option<&str>) -> (ExitStatus, Said, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "laws::kills::child::does_what_it_is_told", "--ignored", "--nocapture"]);
        command.env(TOLD, serde_json::to_string(self).unwrap());
        command.env("QUERN_LOG", "warn").env_remove("QUERN_END_AT");
        if let Some(end_at) = end_at {
            command.env("QUERN_END_AT", end_at);
        }
        let _ = fs::remove_file(self.folder.join(SAID));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let words = [output.stdout, output.stderr].concat();
        (output.status, self.heard(), String::from_utf8_lossy(&words).into_owned())
    }

    fn heard(&self) -> Said {
        let mut said = Said { done: self.done, predicted: self.predicted.clone(), passed: Vec::new() };
        for line in fs::read_to_string(self.folder.join(SAID)).unwrap_or_default().lines() {
            match line.split('\t').collect::<Vec<_>>()[..] {
                ["done"] => said.done += 1,
                ["predicted", id] => said.predicted.push(id.to_owned()),
                ["passed", name, count] => said.passed.push((name.to_owned(), count.parse().unwrap())),
                _ => panic!("{line}"),
            }
        }
        said
    }

    /// A process that is gone has the turn still, and nobody waits here until it ends.
    async fn end_leases(&self) {
        let registry = self.settings.iter().find(|(name, _)| name == "registry");
        let ended = "DELETE FROM leases";
        match registry {
            Some((_, url)) => {
                _ = sqlx::query(ended).execute(&mut PgConnection::connect(url).await.unwrap()).await;
            }
            None => {
                let file = self.folder.join("data/registry.sqlite");
                if file.exists() {
                    let mut database =
                        SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
                    _ = sqlx::query(ended).execute(&mut database).await;
                    database.close().await.unwrap();
                }
            }
        }
    }
}

fn say(folder: &Path, line: &str) {
    let mut file = File::options().create(true).append(true).open(folder.join(SAID)).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[ignore = "another test starts it, as a process that it kills"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn does_what_it_is_told() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let task: Task = serde_json::from_str(&told).unwrap();
    let settings: Vec<(&str, String)> =
        task.settings.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let is_alone = !task.settings.iter().any(|(name, _)| name == "registry");
    let work = Work { folder: &task.folder, settings: &settings, is_alone, attempt: task.attempt };
    if task.done == 0 {
        work.begin();
    }
    task.end_leases().await;
    let node = work.open().await;
    let mut predicted = task.predicted.clone();
    for step in task.done..task.wanted {
        let round = (step / STEPS) as i64;
        work.step(&node, round, step % STEPS).await;
        if step % STEPS == super::workload::PREDICTS {
            predicted.push(work.request(round));
            say(&task.folder, &format!("predicted\t{}", work.request(round)));
        }
        say(&task.folder, "done");
        if (step + 1) % STEPS == 0 {
            check(&node, round).await;
            check_planes(&node, round, &predicted).await;
        }
    }
    for (name, count) in points::passed() {
        say(&task.folder, &format!("passed\t{name}\t{count}"));
    }
}
