//! How do inference servers talk over gRPC? The messages of the Open Inference Protocol, which this server answers and
//! Triton, KServe and MLServer do, and a client of theirs.
//!
//! 1. [`messages`]: what goes over the wire.
//! 2. [`client`]: who asks another server.
//! 3. [`cells`]: the cells of its answers as Arrow arrays.

pub mod cells;
pub mod client;
pub mod messages;
