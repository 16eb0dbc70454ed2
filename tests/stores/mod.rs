//! What do the stores promise, whatever freezes, dies or lags?
//!
//! [`redis`] and [`replicas`] show what only a store that is shared can show, over a single Redis and a cluster;
//! [`registry`] runs over both of its databases; [`formats`] are the bytes of older builds.

mod redis;
mod replicas;

mod registry;

mod formats;
