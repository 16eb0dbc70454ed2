//! Quern as its users meet it: real files, a real RocksDB, a real ONNX Runtime, real sockets.
//!
//! [`laws`] holds the properties that everything else rests on, over random data against a naive oracle; the other
//! modules explain, one room each.

mod binary;
mod crash;
mod laws;
mod oracle;
mod support;
