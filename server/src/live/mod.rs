//! What is live?
//!
//! A [`Deployment`] is everything that one apply made live: definitions, compiled, and models, loaded. It never
//! changes; the next apply puts another one in its place ([`Live`]). Whoever answers a request takes one and keeps it
//! to the end, so that a request is answered wholly from the old definitions or wholly from the new ones.
//!
//! [`model`] is what is known of a model before anybody asks, [`route`] which version answers whom, [`ramp`] how that
//! changes by itself. [`loader`] makes a
//! deployment of an apply; [`seen`] is what one who asks may know of it. [`following`] is what was heard of applies at
//! other servers. [`describe`] says a deployment as text that can be compared.

pub mod describe;
pub mod following;
pub mod loader;
pub mod model;
mod named;
pub mod ramp;
pub mod route;
pub(crate) mod said;
pub mod seen;
pub mod version;

use std::collections::BTreeMap;
use std::sync::Arc;

use feature_defs::{DefFile, suggest};
use parking_lot::RwLock;
use quern_access::Access;
use quern_features::Compiled;
use tokio::sync::{Mutex, MutexGuard};

use self::following::Following;
pub use self::loader::Loader;
pub use self::model::LiveModel;
use self::ramp::Ramps;
use self::ramp::tally::{Tallies, tallies};
pub use self::route::Route;
pub use self::seen::{Permitted, Seen};
pub use self::version::{LiveFile, LiveVersion};
use crate::audit::Audit;

/// The weights of versions, by model.
pub type Weights = BTreeMap<String, Vec<(String, u32)>>;

/// What one apply made live.
#[derive(Debug, Default)]
pub struct Deployment {
    /// Number of the apply; 0 before the first one.
    pub number: u64,
    /// When that was made, in microseconds since the Unix epoch.
    pub applied_at_us: i64,
    /// The definition files, as they were applied.
    pub files: Vec<DefFile>,
    /// The definitions, compiled.
    pub compiled: Arc<Compiled>,
    /// The models by name.
    pub models: BTreeMap<String, Arc<LiveModel>>,
    /// The weights of versions, by model, where they were set since the model's route was declared.
    pub weights: Weights,
    /// The ramps of versions, by model: those that go on, and how the last ones ended.
    pub ramps: Ramps,
    /// What is counted for those that go on.
    pub(crate) tallies: Tallies,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Where that is written down.
    pub audit: Audit,
}

impl Deployment {
    /// One version of a model; the newest where none is named.
    pub fn version(&self, model: &str, version: Option<&str>) -> Option<&Arc<LiveVersion>> {
        let LiveModel { versions, .. } = self.models.get(model)?.as_ref();
        match version {
            Some(version) => versions.iter().find(|live| live.version == version),
            None => versions.last(),
        }
    }

    /// The way out for who named something that is not live, though these are.
    pub fn instead_of<'a>(&self, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
        match self.number {
            0 => "nothing has been applied yet; run `quern apply`".to_owned(),
            _ => suggest(name, known),
        }
    }
}

/// The deployment that answers requests, for all who ask.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    deployment: RwLock<Arc<Deployment>>,
    /// Held while an apply is under way, one of ours or one of another server: they come one after the other.
    turn: Mutex<()>,
    following: Following,
}

impl Live {
    /// With this, before anything is applied.
    pub(crate) fn beginning(deployment: Deployment) -> Live {
        let live = Live::default();
        *live.0.deployment.write() = Arc::new(deployment);
        live
    }

    /// What is live now.
    pub fn now(&self) -> Arc<Deployment> {
        Arc::clone(&self.0.deployment.read())
    }

    /// Puts `deployment` in the place of what is live, unless that is newer: it never goes back. Requests under way
    /// end with what they began with.
    pub(crate) fn replace(&self, mut deployment: Deployment) {
        let mut live = self.0.deployment.write();
        if deployment.number > live.number {
            deployment.tallies = tallies(&live.tallies, &deployment.ramps);
            *live = Arc::new(deployment);
        }
    }

    /// Waits for the turn to replace what is live.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    /// What was heard of applies at other servers.
    pub fn following(&self) -> &Following {
        &self.0.following
    }
}
