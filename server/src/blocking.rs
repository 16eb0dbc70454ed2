//! Where does work go that may take long? To a thread that may block: the async runtime is for those who wait.

use crate::error::{Error, Result};

/// Runs `job`; `what` names it where it panics.
///
/// # Errors
/// Those of `job`.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(job).await.map_err(|error| Error::internal(what, error))?
}
