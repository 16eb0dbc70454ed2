//! What of a view could not be computed while it came into the head?

use std::collections::BTreeMap;

use parking_lot::Mutex;
use quern_engine::asof::Address;
use quern_engine::{Failed, ViewPlan};
use quern_store::history::Scan;

use crate::error::strict_text;
use crate::read::place_of;

/// How many values of each feature, and the earliest row that a `strict` one refuses.
#[derive(Default)]
pub struct Failures {
    failed: Mutex<Failed>,
    /// The first row of history in which each feature failed, as far as rows are known.
    first: Mutex<BTreeMap<String, Address>>,
    refused: Mutex<Option<Refused>>,
}

/// A row that a `strict` feature refuses.
struct Refused {
    /// When it became visible, µs.
    visible_us: i64,
    address: Address,
    /// Which one it is, and why.
    said: String,
}

impl Failures {
    /// Counts what failed of some rows.
    pub fn add(&self, failed: &Failed) {
        self.failed.lock().add(failed);
    }

    /// Counts what failed of the rows that lie at these addresses.
    pub(crate) fn add_at(&self, failed: &Failed, address: impl Fn(usize) -> Address) {
        self.add(failed);
        let mut first = self.first.lock();
        for (feature, row) in failed.first_rows() {
            let found = address(row);
            let known = first.entry(feature.to_owned()).or_insert(found);
            *known = found.min(*known);
        }
    }

    /// The first row of history in which each feature failed, as people call it.
    pub fn first(&self, scan: &Scan) -> BTreeMap<String, String> {
        let first = self.first.lock();
        first.iter().map(|(feature, address)| (feature.clone(), place_of(scan, *address))).collect()
    }

    /// Notes a row that `feature` refuses: when it became visible, and where it is.
    pub(crate) fn refuse(
        &self,
        scan: &Scan,
        view: &ViewPlan,
        (visible_us, address): (i64, Address),
        feature: &str,
    ) {
        let mut refused = self.refused.lock();
        if refused.as_ref().is_none_or(|other| (visible_us, address) < (other.visible_us, other.address)) {
            let text = strict_text(feature, &format!("feature view `{}`", view.name));
            let said = format!("{}: {text}", place_of(scan, address));
            *refused = Some(Refused { visible_us, address, said });
        }
    }

    /// Up to when the view is materialized that was to be up to `to_us`: a row that was refused is looked at again, by
    /// each run until it is mended.
    pub fn until(&self, to_us: i64) -> i64 {
        let refused = self.refused.lock();
        refused.as_ref().map_or(to_us, |refused| to_us.min(refused.visible_us.saturating_sub(1)))
    }

    /// All that failed.
    pub fn failed(&self) -> Failed {
        self.failed.lock().clone()
    }

    /// Which row was refused, of several the earliest, and why.
    pub fn refused(&self) -> Option<String> {
        self.refused.lock().as_ref().map(|refused| refused.said.clone())
    }
}
