//! How does a model version remember its training set?

use feature_defs::TrainedOn;
use quern_base::digest::sha256;
use quern_wire::TrainingSetPin;

use crate::error::{Error, Result};

/// What a definition says of a training set.
pub fn declared(trained_on: &TrainedOn) -> TrainingSetPin {
    let TrainedOn { digest, rows, as_known, made_of, columns } = trained_on.clone();
    TrainingSetPin { digest, rows: rows.into(), as_known, made_of, columns }
}

/// The digest of all that a pin says besides.
pub(crate) fn digest(pin: &TrainingSetPin) -> Result<String> {
    let rest = TrainingSetPin { digest: String::new(), ..pin.clone() };
    let told = serde_json::to_vec(&rest).map_err(|error| Error::internal("pinning a training set", error))?;
    Ok(format!("sha256:{}", sha256(&told)))
}
