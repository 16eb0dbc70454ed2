//! Law 5 at every point between two steps: whichever a server is killed at, what it has acknowledged is in history
//! once, and the head says what history says.
//!
//! The points have names (`server/base/src/points.rs`). A [`child`] does the [`workload`] and ends at one of them; the
//! next one goes on with the step that was not acknowledged, as clients do, and then asks whether each row counts once.

mod child;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use futures::{StreamExt, stream};
use quern_kit::{Random, Repository, Store, blocking, required, root};
use tempfile::TempDir;

use self::child::{Said, Task};
use self::workload::STEPS;

/// What a life goes through: enough that each point is passed.
const ROUNDS: usize = 2;
/// A point of those that are passed only after a kill, which is then at this one.
const CATCH_UP: &str = "catch up: ";
const LEFT_BEHIND: [&str; 3] = ["push: in the log#1", "push: in the log#2", "push: in the log#3"];
/// Lives that go on at the same time: they wait for the disk.
const TOGETHER: usize = 8;

/// Where a life goes on.
struct Life {
    task: Task,
    /// Where it was killed.
    ends: Vec<String>,
    _repository: Repository,
    _store: TempDir,
}

impl Life {
    async fn begin(store: Store) -> Life {
        let (repository, folder) = (Repository::new(""), TempDir::new().unwrap());
        let mut settings = store.settings().await;
        if matches!(store, Store::Shared) {
            let at = folder.path().display().to_string();
            settings.extend([("store", at), ("store_shared", "true".to_owned())]);
        }
        let task = Task {
            folder: repository.path().to_owned(),
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            attempt: 0,
            done: 0,
            wanted: ROUNDS * STEPS,
            predicted: Vec::new(),
        };
        Life { task, ends: Vec::new(), _repository: repository, _store: folder }
    }

    /// Goes on until it is done, or ends at a point; whether it was killed.
    fn go_on(&mut self, end_at: Option<&str>) -> (bool, Said) {
        let (status, said, words) = self.task.run(end_at);
        let was_killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(6);
        assert!(was_killed || status.success(), "{:?}, then {end_at:?}: {:?}\n{words}", self.ends, self.task);
        self.ends.extend(end_at.map(str::to_owned));
        (self.task.done, self.task.predicted) = (said.done, said.predicted.clone());
        self.task.attempt += 1;
        (was_killed, said)
    }
}

/// The names that stand in the code.
fn named() -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for file in glob::glob(&format!("{}/server/**/*.rs", root().display())).unwrap() {
        let text = fs::read_to_string(file.unwrap()).unwrap();
        for part in text.split("pass(\"").skip(1) {
            let name = part.split('"').next().unwrap().to_owned();
            assert!(named.insert(name.clone()), "two points are called {name}");
        }
    }
    named
}

/// How often each point is passed in a life that nobody ends, and in one that goes on where a push was cut off.
async fn passes(store: Store) -> BTreeMap<String, u64> {
    let lives = [None, LEFT_BEHIND.last().copied()].into_iter().map(|end_at| async move {
        let mut life = Life::begin(store).await;
        blocking(move || {
            if end_at.is_some() {
                assert!(life.go_on(end_at).0, "{end_at:?} is passed by nobody");
                life.task.wanted = life.task.done.next_multiple_of(STEPS);
            }
            let (was_killed, said) = life.go_on(None);
            assert!(!was_killed && !said.passed.is_empty());
            said.passed
        })
        .await
    });
    let mut passed: BTreeMap<String, u64> = BTreeMap::new();
    for (name, count) in stream::iter(lives).buffered(TOGETHER).collect::<Vec<_>>().await.concat() {
        let known = passed.entry(name).or_default();
        *known = count.max(*known);
    }
    passed
}

/// A life that ends at a point, and goes on.
#[derive(Debug, Clone)]
struct Kill {
    /// Where it ends before, where only a life that was cut off comes to the point.
    before: Option<&'static str>,
    at: String,
}

impl Kill {
    fn draw(passed: &BTreeMap<String, u64>, random: &mut Random) -> Kill {
        let name = random.pick(&passed.keys().collect::<Vec<_>>());
        let before = name.starts_with(CATCH_UP).then(|| random.pick(&LEFT_BEHIND));
        Kill { before, at: format!("{name}#{}", 1 + random.below(passed[name])) }
    }

    /// Whether it came there.
    fn run(&self, life: &mut Life) -> bool {
        if self.before.is_some() {
            life.go_on(self.before);
        }
        let (was_killed, _) = life.go_on(Some(&self.at));
        // To the end of the round that it was in, which is checked.
        life.task.wanted = (life.task.done + 1).next_multiple_of(STEPS).min(ROUNDS * STEPS);
        if life.task.done < life.task.wanted {
            life.go_on(None);
        }
        was_killed
    }
}

/// Kills so many lives, each at a point and a pass that are drawn. Gives the points.
async fn kills(store: Store, count: usize, random: &mut Random) -> BTreeSet<String> {
    let passed = passes(store).await;
    let drawn: Vec<Kill> = (0..count).map(|_| Kill::draw(&passed, random)).collect();
    let lives = drawn.into_iter().map(|kill| async move {
        let mut life = Life::begin(store).await;
        println!("{store:?}: {kill:?}");
        blocking(move || kill.run(&mut life)).await
    });
    let came: Vec<bool> = stream::iter(lives).buffer_unordered(TOGETHER).collect().await;
    let killed = came.iter().filter(|came| **came).count();
    println!("{killed} of {count} lives over {store:?} ended at their point");
    assert!(killed * 2 >= count, "most lives never came to their point");
    passed.into_keys().collect()
}

fn count() -> usize {
    std::env::var("QUERN_KILLS").ok().map_or(8, |kills| kills.parse().expect("QUERN_KILLS is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_at_any_point_keeps_what_it_acknowledged_once() {
    required("ORT_DYLIB_PATH");
    let mut random = Random::new("kills");
    let mut passed = kills(Store::Rocks, count().div_ceil(2), &mut random).await;
    passed.extend(kills(Store::Shared, count() / 2, &mut random).await);
    assert_eq!(passed, named(), "points that the workload never passes, or that nobody knows");
}

/// Builds with debug assertions have points.
#[test]
fn what_users_run_has_no_points() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, shipped) = manifest.split_once("[profile.dist]").unwrap();
    assert!(shipped.contains("inherits = \"release\"") && !shipped.contains("debug-assertions"), "{shipped}");
    assert!(!manifest.contains("[profile.release"), "it has points, where it has debug assertions");
}
