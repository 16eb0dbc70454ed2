//! What would the versions of a model have seen then? History, asked about a whole table, once for each feature service
//! whose versions have rows to answer.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use quern_base::tasks::blocking;
use quern_features::past::{Past, Rule};
use quern_features::{Reader, Vectors};
use tokio::sync::OnceCell;

use super::target::Target;
use crate::error::Result;

/// A table, and what history said of it.
pub(super) struct Then {
    reader: Reader,
    /// Columns as [`Target::inputs`].
    inputs: RecordBatch,
    times: ArrayRef,
    /// For each version, at the place of the first that has its service.
    asked: Vec<OnceCell<Arc<Past>>>,
}

impl Then {
    /// Asks history what the versions need whose turn it is. Substitutes ask when they have to answer.
    pub(super) async fn ask(
        target: &Target,
        reader: Reader,
        (inputs, times): (RecordBatch, ArrayRef),
    ) -> Result<Then> {
        let turns = target.turns(&inputs)?;
        let asked = target.model.versions.iter().map(|_| OnceCell::new()).collect();
        let then = Then { reader, inputs, times, asked };
        for place in turns {
            then.past(target, place).await?;
        }
        Ok(then)
    }

    /// The query times, µs.
    pub(super) fn times_us(&self) -> &[i64] {
        self.times.as_primitive::<TimestampMicrosecondType>().values()
    }

    /// The vectors of some rows as the version at `place` gets them: `places` count from `first`.
    pub(super) async fn look_up(
        &self,
        target: &Target,
        place: usize,
        first: usize,
        places: Vec<usize>,
    ) -> Result<(Vec<usize>, Vectors)> {
        let past = Arc::clone(self.past(target, place).await?);
        let found = blocking("batch prediction", move || -> Result<_> {
            let vectors = past.look_up(first, &places)?;
            Ok((places, vectors))
        });
        found.await
    }

    async fn past(&self, target: &Target, place: usize) -> Result<&Arc<Past>> {
        let service = Arc::clone(&target.model.versions[place].service);
        let alike = target.model.versions.iter().position(|version| version.service.name == service.name);
        let asking = async {
            let (reader, live, times) =
                (self.reader.clone(), Arc::clone(&target.live.compiled), Arc::clone(&self.times));
            let inputs = target.inputs_of(place, self.inputs.clone())?;
            // Whether a feature is too old to be used is to be known even of one that has expired.
            let fallback = target.model.fallback.as_ref();
            let expired = fallback.is_some_and(|fallback| fallback.max_age_us.is_some());
            let unseen = target.tells_unseen();
            let room = target.room.clone();
            let ask = move || {
                let rule = Rule { as_known: false, expired, unseen, room: room.as_ref() };
                Past::ask((&reader.history, &live), &service, (inputs, times), rule)
            };
            Ok(Arc::new(blocking("batch prediction", ask).await?))
        };
        self.asked[alike.unwrap_or(place)].get_or_try_init(|| asking).await
    }
}
