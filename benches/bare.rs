//! What do a look-up and a prediction cost when nothing is general? The sum of the parts, for one set of columns.
//!
//! The same RocksDB with the same keys and the same bytes, read in one round; the same ONNX Runtime with the same
//! options and a pool of sessions. No schema, no time, no TTL, no nulls, no derived features, no metrics.

use ort::session::Session;
use ort::value::Tensor;
use parking_lot::Mutex;
use quern_kit::{ViewId, Wanted, onnx_session};
use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBPinnableSlice, Options};

use crate::Bench;
use crate::online::{ENTITIES, FEATURES, FLOATS, PICKED, VIEWS, WIDTH};

/// Where the first feature lies in a stored row: behind version, times and the null bitmap.
const FIRST_SLOT: usize = 17 + FEATURES.div_ceil(8);

/// The parts.
pub struct Bare {
    db: DB,
    views: [ViewId; VIEWS],
    sessions: Mutex<Vec<Session>>,
}

/// One stored value.
#[derive(Debug, Clone, Copy, serde::Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// A float64.
    Float(f64),
    /// An int64.
    Int(i64),
}

/// Stored rows: for each view those of all entities.
pub type Rows<'a> = Vec<DBPinnableSlice<'a>>;

impl Bare {
    /// Copies the head of `bench` and loads its model `scoring`.
    pub fn new(bench: &Bench) -> Bare {
        let views = std::array::from_fn(|view| bench.node.view(&format!("v{view}")));
        let options = options();
        let default = ColumnFamilyDescriptor::new("default", options.clone());
        let db = DB::open_cf_descriptors(&options, bench.repository.path().join("bare"), [default])
            .expect("a new RocksDB");
        for view in views {
            let mut wanted = Wanted::default();
            (0..ENTITIES as i64).for_each(|id| wanted.push(view, Some(&key(view, id)[8..])));
            let rows = bench.node.head().get_many(&wanted).expect("the head");
            for (id, row) in rows.iter().enumerate() {
                db.put(key(view, id as i64), row.as_ref().expect("every entity is there")).expect("written");
            }
        }
        db.flush().expect("flushed");
        db.compact_range(None::<&[u8]>, None::<&[u8]>);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let model = std::fs::read(bench.repository.path().join("scoring.onnx")).expect("the model");
        let sessions = (0..cores).map(|_| onnx_session(&model)).collect();
        Bare { db, views, sessions: Mutex::new(sessions) }
    }

    /// The rows of `ids`, view after view.
    pub fn rows(&self, ids: &[i64]) -> Rows<'_> {
        let keys: Vec<[u8; 16]> =
            self.views.iter().flat_map(|view| ids.iter().map(|id| key(*view, *id))).collect();
        let default = self.db.cf_handle("default").expect("the default column family");
        let found = self.db.batched_multi_get_cf(default, keys.iter(), false);
        found.into_iter().map(|row| row.expect("readable").expect("every entity is there")).collect()
    }

    /// One feature of one row.
    pub fn cell(row: &[u8], feature: usize) -> Cell {
        let at = FIRST_SLOT + 8 * feature;
        let bytes = row[at..at + 8].try_into().expect("eight bytes");
        if feature < FLOATS {
            Cell::Float(f64::from_le_bytes(bytes))
        } else {
            Cell::Int(i64::from_le_bytes(bytes))
        }
    }

    /// Scores of `ids`, each with the request's `amount` and `hour`.
    pub fn predict(&self, ids: &[i64], request: impl Iterator<Item = (f64, i64)>) -> Vec<f32> {
        let rows = self.rows(ids);
        let mut cells = Vec::with_capacity(ids.len() * WIDTH);
        for (i, (amount, hour)) in request.enumerate() {
            for view in 0..VIEWS {
                let row = &rows[view * ids.len() + i];
                cells.extend(PICKED.map(|feature| match Bare::cell(row, feature) {
                    Cell::Float(value) => value as f32,
                    Cell::Int(value) => value as f32,
                }));
            }
            cells.extend([amount as f32, hour as f32]);
        }
        self.run(cells)
    }

    /// Runs the model on whole rows.
    pub fn run(&self, cells: Vec<f32>) -> Vec<f32> {
        let input = Tensor::from_array(([cells.len() / WIDTH, WIDTH], cells)).expect("a tensor");
        let mut session = self.sessions.lock().pop().expect("as many sessions as threads");
        let scores = {
            let outputs = session.run(ort::inputs![input]).expect("the model runs");
            outputs[0].try_extract_tensor::<f32>().expect("float32").1.to_vec()
        };
        self.sessions.lock().push(session);
        scores
    }
}

/// Where the head has the row of `id`.
pub fn key(view: ViewId, id: i64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&view.0.to_be_bytes());
    key[8..].copy_from_slice(&((id as u64) ^ (1 << 63)).to_be_bytes());
    key
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_hyper_clock_cache(512 << 20, 0));
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options
}
