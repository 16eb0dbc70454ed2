//! Where do rows, definitions and models lie?
//!
//! [`history`] is ground truth: the files of the sources, read only, and the rows that were pushed. [`online`] is the
//! head: the latest row of each key, derived from history and rebuilt from it at any time, in [`rocks`] or in [`redis`].
//! [`registry`] keeps every apply. [`log`] has what was pushed at any of several servers. [`objects`] reads files out of
//! object stores.

pub mod history;
pub mod log;
pub mod objects;
pub mod online;
pub mod redis;
pub mod registry;
pub mod rocks;
