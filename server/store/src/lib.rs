//! Where do rows, definitions and models lie?
//!
//! [`history`] is ground truth: the files of the sources, read only, and the rows that were pushed. [`online`] is the
//! head: the latest row of each key, derived from history and rebuilt from it at any time, in [`rocks`] or in
//! [`redis`]. [`registry`] keeps every apply. [`log`] has what was pushed, at any of several servers, and the head
//! has to [`follow`] it; [`made_of`] says of which files it is. [`segments`] keeps files for good, in the store, which
//! is a folder or a bucket ([`place`]). [`objects`] reads and writes object stores, of which [`cache`] keeps what was
//! read, [`tracking`] asks MLflow for models, [`roots`] says which files of this machine are read and [`walk`] finds
//! them, [`spill`] keeps on disk what memory does not hold. [`turns`] has all locks, in the order in which they are
//! taken.
//!
//! Architecture invariant: a store knows bytes, rows and times; how a value is computed it does not know.

mod cache;
mod error;
mod metrics;

pub mod follow;
pub mod history;
pub mod log;
pub mod made_of;
pub mod objects;
pub mod online;
pub mod place;
mod position;
pub mod redis;
pub mod registry;
pub mod rocks;
pub mod roots;
pub mod segments;
pub mod spill;
pub mod tracking;
pub mod turns;
mod walk;

pub use self::error::{Error, Result};
pub use self::metrics::metrics;
