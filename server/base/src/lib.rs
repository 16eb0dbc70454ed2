//! What does every floor of the server stand on?
//!
//! In reading order: [`failure`], why something could not be done; [`metrics`], what is counted and how it is shown;
//! [`trace`], where a request spent its time; [`tasks`], work that blocks or goes on beside others; [`memory`], what
//! requests may hold; [`addresses`], where a name leads; [`clock`]; [`random`], numbers that nobody else has;
//! [`digest`], the name of content; [`quotes`], whether a CSV file says what it looks like; [`points`], where a test
//! ends the process.
//!
//! Architecture invariant: this crate knows neither Arrow nor a feature, a store or a route.

pub mod addresses;
pub mod clock;
pub mod digest;
pub mod failure;
pub mod memory;
pub mod metrics;
pub mod points;
pub mod quotes;
pub mod random;
pub mod secret;
pub mod tasks;
pub mod trace;

pub use failure::{Cause, Failure, Kind};
