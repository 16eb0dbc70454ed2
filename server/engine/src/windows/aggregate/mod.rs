//! What is kept of many events, so that it can be updated, merged, stored and finished?
//!
//! One algebra for training and serving. An intermediate result ([`State`]) never depends on the order of the events
//! or on how they were shared among tiles: sums are exact, sets and sketches commute, and whatever asks for the first
//! or the last goes by a total order. `update` takes in an event, `merge` another result, `finish` gives the value.

mod buckets;
mod extremes;
mod input;
mod kind;
mod sketches;
mod state;
mod sums;

pub(super) use buckets::Buckets;
pub(super) use extremes::{Edge, Extreme, Several};
pub(super) use input::{Input, InputShape};
pub(super) use kind::{Kind, dispatch};
pub(super) use sketches::{Distinct, Hll, Percentile};
pub(super) use state::{Finish, Params, Retractable, State};
pub(super) use sums::{Count, Moments, Sum, Truths};
