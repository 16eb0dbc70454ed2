//! Quern as its users meet it: real files, a real RocksDB and Redis, a real ONNX Runtime, real sockets.
//!
//! [`laws`] holds the properties that everything else rests on, over random data against a naive oracle; the other
//! modules explain, one room each. What some of them need `make test` sets: `ORT_DYLIB_PATH` and `QUERN_PYTHON`. A
//! text that changed on purpose rewrites itself with `UPDATE_EXPECT=1`; the fixtures of old formats never do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api;
mod batch;
mod cases;
mod cli;
mod crash;
mod deploy;
mod expressions;
mod flight;
mod flights;
mod formats;
mod labels;
mod laws;
mod models;
mod oip;
mod oracle;
mod planes;
mod predictions;
mod push;
mod redis;
mod registry;
mod replicas;
mod rolling;
mod routing;
mod servers;
mod shared;
mod streams;
mod traces;
mod windows;
mod windows_oracle;
