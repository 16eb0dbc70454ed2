//! Whatever happens to servers, database, store and online store: is what was acknowledged there, once, in history and
//! head?
//!
//! Servers run the code that real ones run (`history::copied`, `history::pushed`, `follow`) over stores that are
//! simulated. Each call of a store is one step, and what comes next is drawn: another server goes on, a call is not
//! answered though it has happened, a server ends, its turn is taken from it, the database or the online store comes
//! back older. In the end all faults cease, and everything must be there.
//!
//! `QUERN_SIMULATIONS` says how many seeds are tried, `QUERN_SEED` tries one.

mod baton;
mod server;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

use self::baton::{Driver, Fate, Outcome, Said, pair};
use self::server::{Rim, Server, is_refusal};
use self::world::{Database, Head, KEYS, Op, SOURCES, World};

const SERVERS: usize = 3;
/// How many seeds are tried where nobody says.
const SEEDS: u64 = 10_000;
/// So many steps are enough for whatever was begun.
const PATIENCE: usize = 200;

/// SplitMix64: any seed does.
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    fn once_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What whoever draws knows of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Down,
    Idle,
    /// It waits for the fate of its next call.
    Asking,
}

struct Simulation {
    random: Random,
    world: Arc<Mutex<World>>,
    drivers: Vec<Driver>,
    is: Vec<Is>,
    /// What each has been told to do last.
    told: Vec<Option<Op>>,
    /// Whether anything goes wrong.
    faults: bool,
    next_id: i64,
    next_disk: usize,
    /// Rows that a client pushes until they are taken.
    again: BTreeMap<usize, (String, Vec<i64>)>,
    databases: Vec<Database>,
    heads: Vec<Head>,
    refused: bool,
    /// What a server failed with last.
    failure: Arc<Mutex<String>>,
    shows: bool,
}

impl Simulation {
    /// With one seed alone, shows what is.
    fn show(&self, what: &str) {
        if self.shows {
            let world = self.world.lock();
            println!("{what}: {:?} {:?}", world.database, world.head);
        }
    }

    /// Tells server `i` to do something.
    fn tell(&mut self, i: usize, op: Op) {
        self.show(&format!("{i} is told {op:?}"));
        self.told[i] = Some(op.clone());
        self.drivers[i].told.send(op).unwrap();
        self.hear(i);
    }

    fn hear(&mut self, i: usize) {
        self.is[i] = match self.drivers[i].said.recv().expect("a server that goes on") {
            Said::Asks => Is::Asking,
            Said::Through(outcome) => {
                if let Some(Op::Push { .. }) = &self.told[i]
                    && outcome == Outcome::Well
                {
                    self.again.remove(&i);
                }
                self.refused |= outcome == Outcome::Refused;
                if outcome == Outcome::Ended { Is::Down } else { Is::Idle }
            }
        };
    }

    fn fate(&mut self) -> Fate {
        if !self.faults || !self.random.once_in(25) {
            return Fate::Done;
        }
        match self.random.below(6) {
            0 | 1 => Fate::Away,
            2 | 3 => Fate::Unheard,
            4 => Fate::EndBefore,
            _ => Fate::EndAfter,
        }
    }

    fn go_on(&mut self, i: usize) {
        let fate = self.fate();
        self.drivers[i].fates.send(fate).unwrap();
        self.hear(i);
        self.show(&format!("{i} {fate:?} {:?}", self.is[i]));
    }

    /// Lets server `i` do one step, or something new.
    fn step(&mut self, i: usize) {
        match self.is[i] {
            Is::Asking => self.go_on(i),
            Is::Down => {
                // A pod may come back with an empty disk.
                let disk = if self.random.once_in(4) { self.new_disk() } else { i + 1 };
                self.tell(i, Op::Start { disk });
            }
            Is::Idle => {
                let op = self.draw_op(i);
                self.tell(i, op);
            }
        }
    }

    fn new_disk(&mut self) -> usize {
        self.next_disk += 1;
        self.next_disk
    }

    fn draw_op(&mut self, i: usize) -> Op {
        let source = SOURCES[self.random.below(2) as usize].to_owned();
        match self.random.below(12) {
            0 | 1 => Op::Seal { source },
            2 | 3 => Op::Look,
            4 | 5 => Op::Read { source },
            6 if self.refused => Op::AcceptLoss,
            _ => {
                let count = 1 + self.random.below(3) as i64;
                let known = self.random.below(self.next_id as u64 + 1) as i64;
                let repeats = self.random.once_in(5);
                let (source, ids) = self.again.entry(i).or_insert_with(|| {
                    let first = if repeats { known } else { self.next_id };
                    self.next_id = self.next_id.max(first + count);
                    (source, (first..first + count).collect())
                });
                Op::Push { source: source.clone(), ids: ids.clone() }
            }
        }
    }

    /// What happens to the stores by themselves.
    fn disturb(&mut self) {
        let mut world = self.world.lock();
        if self.random.once_in(10) {
            self.databases.push(world.database.clone());
            self.heads.push(world.head.clone());
        }
        if self.random.once_in(40) {
            // Its transaction has ended without its knowing.
            let turns: Vec<String> = world.turns.keys().cloned().collect();
            if let Some(source) = turns.first() {
                world.turns.remove(source);
            }
        }
        if self.random.once_in(150) && !self.heads.is_empty() {
            let older = self.random.below(self.heads.len() as u64) as usize;
            world.head = self.heads[older].clone();
            world.failovers += 1;
            if self.shows {
                println!("the head came back older");
            }
        }
        if self.random.once_in(300) && !self.databases.is_empty() {
            let older = self.random.below(self.databases.len() as u64) as usize;
            // What came after it is gone for good.
            self.databases.truncate(older + 1);
            world.database = self.databases[older].clone();
            // Who restores it restarts what hangs on it; what it lacks is lost.
            world.restores += 1;
            if self.shows {
                println!("the database came back older");
            }
            let World { database, acknowledged, .. } = &mut *world;
            acknowledged.retain(|(source, id)| database.history(source).contains(id));
        }
    }

    /// All faults cease; gives what is wrong then.
    fn rest(&mut self) {
        self.faults = false;
        // Who waits for the turn of another needs that one to go on.
        for _ in 0..PATIENCE {
            (0..SERVERS)
                .filter(|i| self.is[*i] != Is::Idle)
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|i| self.step(i));
        }
        assert_eq!(self.is, [Is::Idle; SERVERS], "a server is stuck: {:?}, {:?}", self.told, self.failure);
        for _ in 0..3 {
            (0..SERVERS).for_each(|i| self.whole(i, Op::Look));
        }
        self.whole(0, Op::AcceptLoss);
        for source in SOURCES {
            if self.world.lock().head.anew.contains(source) {
                self.whole(1, Op::Materialize { source: source.to_owned() });
            }
        }
        let id = self.next_id + 1;
        for (n, source) in (0..).zip(SOURCES) {
            self.whole(n, Op::Push { source: source.to_owned(), ids: vec![id] });
        }
        for source in SOURCES {
            (0..SERVERS).for_each(|i| self.whole(i, Op::Read { source: source.to_owned() }));
        }
        let world = self.world.lock();
        for source in SOURCES {
            let history = world.database.history(source);
            for (of, id) in &world.acknowledged {
                assert!(
                    of != source || history.contains(id),
                    "{source} {id} was acknowledged and is gone: {history:?}"
                );
            }
            for key in 0..KEYS {
                let count = history.iter().filter(|id| *id % KEYS == key).count() as i64;
                assert_eq!(
                    world.head.count(source, key),
                    count,
                    "head and history of {source} {key}: {history:?}"
                );
            }
        }
    }

    /// Has a server do something to its end.
    fn whole(&mut self, i: usize, op: Op) {
        self.tell(i, op);
        while self.is[i] == Is::Asking {
            self.go_on(i);
        }
    }
}

fn simulate(seed: u64) {
    let mut random = Random(seed);
    let (is_shared, world) = (random.once_in(2), Arc::new(Mutex::new(World::default())));
    let (mut drivers, failure) = (Vec::new(), Arc::<Mutex<String>>::default());
    let mut threads = Vec::new();
    for i in 0..SERVERS {
        let (driver, baton, ops) = pair();
        let (world, failed) = (Arc::clone(&world), Arc::clone(&failure));
        drivers.push(driver);
        threads.push(thread::spawn(move || {
            let says = baton.says.clone();
            let rim = Arc::new(Rim { world, baton: Mutex::new(baton), disk: Mutex::new(i + 1), is_shared });
            let mut server = None;
            while let Ok(op) = ops.recv() {
                if let Op::Start { disk } = op {
                    rim.baton.lock().begin();
                    *rim.disk.lock() = disk;
                    server = None;
                }
                let done = match &mut server {
                    Some(server) => Server::run(server, &op),
                    None => Server::start(&rim).map(|started| server = Some(started)),
                };
                if let Err(error) = &done {
                    *failed.lock() = error.logged();
                }
                let outcome = match done {
                    _ if rim.baton.lock().has_ended() => Outcome::Ended,
                    Ok(()) => Outcome::Well,
                    Err(_) if server.is_none() => Outcome::Ended,
                    Err(error) if is_refusal(&error) => Outcome::Refused,
                    Err(_) => Outcome::Failed,
                };
                if outcome == Outcome::Ended {
                    server = None;
                }
                if says.send(Said::Through(outcome)).is_err() {
                    return;
                }
            }
        }));
    }
    let mut simulation = Simulation {
        random,
        world,
        drivers,
        is: vec![Is::Down; SERVERS],
        told: vec![None; SERVERS],

        faults: true,
        next_id: 0,
        next_disk: SERVERS,
        again: BTreeMap::new(),
        databases: Vec::new(),
        heads: Vec::new(),
        refused: false,
        failure,
        shows: std::env::var_os("QUERN_SEED").is_some(),
    };
    for _ in 0..200 {
        let i = simulation.random.below(SERVERS as u64) as usize;
        simulation.step(i);
        simulation.disturb();
    }
    simulation.rest();
    drop(simulation);
    threads.into_iter().for_each(|thread| thread.join().expect("a server that goes on"));
}

#[test]
fn what_was_acknowledged_is_there_once_whatever_happens() {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    if let Some(seed) = number("QUERN_SEED") {
        return simulate(seed);
    }
    let (seeds, next) = (number("QUERN_SIMULATIONS").unwrap_or(SEEDS), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    if std::panic::catch_unwind(|| simulate(seed)).is_err() {
                        next.store(seeds, Ordering::Relaxed);
                        panic!("QUERN_SEED={seed} shows it");
                    }
                }
            });
        }
    });
}
