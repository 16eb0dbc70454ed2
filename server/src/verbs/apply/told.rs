//! Which bytes stand for a model on another server?
//!
//! What it tells of the model, asked anew each time. What is live stays what it is while that one is away: its end must
//! not keep anybody from changing, or rolling back, everything else.

use bytes::Bytes;
use feature_defs::Remote;
use quern_inference::remote::{Untold, describe};
use quern_store::registry::Artifacts;

use super::model_file::Mistake;

/// What a server tells, or told.
pub(super) struct Told {
    pub(super) bytes: Bytes,
    /// Why it is what it told when it went live.
    pub(super) away: Option<String>,
}

/// What the server of `remote` tells of it now; where that is away, what is `kept` by this digest.
pub(super) async fn told(
    remote: &Remote,
    kept: Option<&str>,
    artifacts: &Artifacts,
) -> Result<Told, Mistake> {
    let Untold { cause, is_away } = match describe(remote).await {
        Ok(bytes) => return Ok(Told { bytes, away: None }),
        Err(untold) => untold,
    };
    if let (Some(digest), true) = (kept, is_away)
        && let Ok(bytes) = artifacts.load(digest).await
    {
        return Ok(Told { bytes, away: Some(cause) });
    }
    let help = "what it takes and gives is asked when definitions are applied: it must answer then";
    Err(Mistake { cause, help: help.to_owned() })
}
