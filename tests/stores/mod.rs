//! What do the stores promise, whatever freezes, dies or lags?
//!
//! [`conformance`] is the suite that every online store passes; [`redis`] and [`replicas`] show what only one that is
//! shared can show. [`registry`] runs over both of its databases, [`formats`] are the bytes of older builds,
//! [`data_folder`] all that one left, and [`clock`] is what a wrong time does. [`log`] is what the head follows, or is
//! [`behind`] of, [`segments`] what is kept for good, [`backup`] a copy of both ([`cut_off`]: one that fails),
//! [`scrub`] what finds damage, [`faulty`] a disk that fails while all of it goes on, [`buckets`] where files of
//! sources lie in a bucket that does, [`webs`] where a server gives them over HTTP, and [`writers`] what other programs
//! write.

mod clock;
mod conformance;
mod redis;
mod replicas;

mod registry;

mod backup;
mod behind;
mod buckets;
mod catalogs;
mod cut_off;
mod data_folder;
mod faulty;
mod formats;
mod log;
mod scrub;
mod segments;
mod webs;
mod writers;

use quern_kit::{Rows, ViewId};

/// A stored row of version 1.
fn row(ts_us: i64, created_us: i64, payload: u8) -> Vec<u8> {
    [&[1][..], &ts_us.to_le_bytes(), &created_us.to_le_bytes(), &[payload]].concat()
}

fn rows(view: ViewId, values: &[(&[u8], Vec<u8>)]) -> Rows {
    let mut rows = Rows::default();
    values.iter().for_each(|(key, value)| rows.push(view, key, |out| out.extend_from_slice(value)));
    rows
}
