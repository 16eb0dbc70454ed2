//! Quern: a feature store that serves models.
//!
//! A [`Node`] is one data folder, open. The three ways of the data, and where to read them:
//!
//! ```text
//! write   source rows ─► history ─► head                      verbs/materialize, verbs/push
//! train   spine ─► as-of(history) ─► derived ─► table          verbs/train
//! serve   keys ─► look-up(head) ─► derived ─► ONNX ─► reply    verbs/predict
//! ```
//!
//! In reading order: [`settings`] and [`repository`], what a node is told; [`live`], what answers; [`logged`], what
//! models said; [`verbs`], what a node can do; [`node`], which puts them together; [`status`], how all of it is.
//!
//! Architecture invariant: arrows point down only, `node → verbs → logged → live → features | inference → store`.

pub mod audit;
mod backup;
mod catching_up;
mod data_folder;
pub mod degraded;
pub mod destination;
pub mod error;
pub mod infer;
mod lag;
pub mod live;
pub mod logged;
pub mod metrics;
mod mlflow;
pub mod node;
pub mod noted_rows;
pub mod pin;
pub mod pull;
pub mod quotas;
pub mod repository;
mod restore;
mod runs;
mod seal;
pub mod settings;
pub mod status;
pub mod streamed;
pub mod verbs;

pub use audit::Pseudonyms;
pub use data_folder::{INSTANCE, InUse, SOCKET_FILE, holder};
pub use error::{Error, Result};
pub use live::Deployment;
pub use node::Node;
pub use noted_rows::NotedRows;
pub use quern_inference::Program;
pub use restore::{Restored, restore};
pub use settings::Settings;

/// Answers the server that started this process, until it is gone: runs a model, or asks a database.
///
/// # Errors
/// Where no server did.
pub fn worker() -> std::io::Result<()> {
    match quern_warehouse::is_wanted() {
        true => quern_warehouse::serve(),
        false => quern_inference::serve(),
    }
}
