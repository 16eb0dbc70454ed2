//! Quern as its users meet it: real files, a real RocksDB and Redis, a real ONNX Runtime, real sockets.
//!
//! Seven rooms, in reading order:
//!
//! - [`laws`]: the properties that everything else rests on, over random data against naive oracles, and cases to read.
//! - [`stores`]: what each online store and registry promises, whatever freezes, dies or lags.
//! - [`warehouses`]: whether the rows of a database are those of a source, once each, whatever fails in between.
//! - [`network`]: what clients read over sockets, and whether several servers say the same.
//! - [`models`]: where models come from, who answers for them, and what is kept of their predictions.
//! - [`cli`]: what a user of the commands reads, and what an operator finds in `deploy/`.
//! - [`house`]: whether modules know only what lies below them, and whether a function fits a screen.
//!
//! They speak to `tests/kit`, which alone knows the server's names. What some of them need `make test` sets:
//! `ORT_DYLIB_PATH` and `QUERN_PYTHON`. A text that changed on purpose rewrites itself with `UPDATE_EXPECT=1`; the
//! fixtures of old formats never do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod planes;
mod s3;

mod laws;
mod stores;
mod warehouses;

mod network;

mod models;

mod cli;

mod house;
