//! What does a look-up ask the head for? The keys of its rows, each once: many rows may have the same one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use quern_base::memory::Part;
use quern_engine::key::Keys;
use quern_engine::size::check_together;
use quern_engine::windows::{self, Excluded};
use quern_engine::{Lookup, ServicePlan};
use quern_store::rocks::Wanted;

use crate::error::Result;

/// Of one look-up, where events are left out: for each row the one that does not count.
pub(crate) type AllExcluded = Option<Vec<Option<Excluded>>>;

/// The keys of each look-up, and the time that each row asks for.
pub(crate) struct Asked {
    pub(crate) keys: Vec<Keys>,
    pub(crate) query_times_us: Vec<i64>,
    pub(crate) excluded: Vec<AllExcluded>,
    /// Whether a key of which no event was ever visible must be told from one whose windows are empty.
    pub(crate) unseen: bool,
    /// The keys of all look-ups, each once.
    pub(crate) wanted: Wanted,
    /// For each look-up and row the place of its key among them.
    places: Vec<Vec<u32>>,
    /// What is taken for what is found; none where nobody counts.
    room: Option<Arc<Part>>,
}

impl Asked {
    pub(crate) fn new(
        service: &ServicePlan,
        inputs: &RecordBatch,
        query_times_us: Vec<i64>,
        room: Option<Arc<Part>>,
    ) -> Result<Asked> {
        let (keys, excluded) = (encode_keys(service, inputs)?, excluded(service, inputs)?);
        let mut wanted = Wanted::default();
        let places = service.lookups.iter().zip(&keys).map(|(lookup, keys)| {
            let mut known = HashMap::new();
            let place = |row| match known.entry(keys.get(row)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let place = wanted.len() as u32;
                    wanted.push(lookup.view.id, *new.key());
                    *new.insert(place)
                }
            };
            (0..query_times_us.len()).map(place).collect()
        });
        let places = places.collect();
        Ok(Asked { keys, query_times_us, excluded, unseen: false, wanted, places, room })
    }

    /// What each row finds by its key in a look-up, of what is `stored` at all of them.
    pub(crate) fn found<'s, S: Deref<Target = [u8]>>(
        &self,
        lookup: usize,
        stored: &'s [Option<S>],
    ) -> Vec<Option<&'s [u8]>> {
        self.places[lookup].iter().map(|place| stored[*place as usize].as_deref()).collect()
    }

    /// How many bytes all rows find together, each for itself: so much they become as columns.
    ///
    /// # Errors
    /// More than may be together, or than there is room for.
    pub(crate) fn take_found<S: Deref<Target = [u8]>>(&self, stored: &[Option<S>]) -> Result<()> {
        let found = self.places.iter().flatten().filter_map(|place| stored[*place as usize].as_deref());
        let bytes = found.map(<[u8]>::len).sum();
        check_together(self.query_times_us.len(), bytes)?;
        Ok(self.room.as_ref().map_or(Ok(()), |room| room.hold(bytes))?)
    }
}

/// The encoded keys of each look-up.
pub(crate) fn encode_keys(service: &ServicePlan, inputs: &RecordBatch) -> Result<Vec<Keys>> {
    let encode = |lookup: &Lookup| {
        let columns: Vec<ArrayRef> = lookup.keys.iter().map(|place| inputs.column(*place).clone()).collect();
        Ok(Keys::encode(&lookup.view.keys, &columns)?)
    };
    service.lookups.iter().map(encode).collect()
}

/// The events that each look-up leaves out.
pub(crate) fn excluded(service: &ServicePlan, inputs: &RecordBatch) -> Result<Vec<AllExcluded>> {
    let of = |lookup: &Lookup| {
        let columns = |places: &Vec<usize>| -> Vec<ArrayRef> {
            places.iter().map(|place| inputs.column(*place).clone()).collect()
        };
        Ok(lookup.exclude_event.as_ref().map(|places| windows::excluded(&columns(places))).transpose()?)
    };
    service.lookups.iter().map(of).collect()
}
