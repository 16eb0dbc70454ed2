//! Which bytes does a version have that MLflow's registry names?
//!
//! What is live under an alias stays what it is: of where the alias leads by now, a plan tells.

use std::collections::BTreeMap;

use bytes::Bytes;
use feature_defs::RegisteredModel;
use quern_inference::weights::stays_inside;
use quern_store::objects::Unread;
use quern_store::registry::Artifacts;
use quern_store::roots::Roots;
use quern_store::tracking::{Folder, ModelVersion, Tracking};

use super::model_file::{
    DESCRIPTION_BYTES_MAX, Fetched, Leads, MODEL_BYTES_MAX, Mistake, Weights, of_repository, of_weights,
    put_in,
};
use crate::mlflow;

/// What is live under an alias.
pub(super) struct Kept<'a> {
    pub(super) number: u64,
    pub(super) digest: &'a str,
}

/// What was read.
pub(super) struct Version {
    pub(super) bytes: Bytes,
    /// Its number.
    pub(super) number: u64,
    /// The one that the path means now.
    pub(super) meant: u64,
}

/// Reads versions of registered models.
pub(super) struct Registry<'a> {
    pub(super) fetched: &'a Fetched,
    pub(super) artifacts: &'a Artifacts,
    pub(super) roots: &'a Roots,
    /// Whether a connection leads there.
    pub(super) leads: &'a Leads<'a>,
}

impl Registry<'_> {
    /// The version that `model` means, unless another one is `kept`.
    pub(super) async fn read(
        &self,
        model: &RegisteredModel,
        kept: Option<Kept<'_>>,
    ) -> Result<Version, Mistake> {
        let tracking = Tracking::from_env()?;
        let server = tracking.server().to_string();
        self.check_leads(&server, "the tracking server of MLflow")?;
        let now = tracking.version(model).await?;
        let meant = now.number;
        let version = match kept {
            Some(Kept { number, digest }) => {
                if let Ok(bytes) = self.artifacts.load(digest).await {
                    return Ok(Version { bytes, number, meant });
                }
                tracking.version(&model.at(number)).await?
            }
            None => now,
        };
        let bytes = self.bytes(&tracking, model, &version).await?;
        Ok(Version { bytes, number: version.number, meant })
    }

    fn check_leads(&self, url: &str, what: &str) -> Result<(), Mistake> {
        match (self.leads)(url) {
            Some(_) => Ok(()),
            None => Err(Mistake {
                cause: format!("no connection of its project leads to `{url}`, {what}"),
                help: format!(
                    "where definitions may lead, an administrator says: `{{kind: Connection, name: mlflow, url: \
                     \"{url}/\"}}`"
                ),
            }),
        }
    }

    async fn bytes(
        &self,
        tracking: &Tracking,
        model: &RegisteredModel,
        version: &ModelVersion,
    ) -> Result<Bytes, Mistake> {
        let what = model.at(version.number).to_string();
        let read = match tracking.folder(model, version.number).await? {
            Folder::Objects(url) => {
                self.check_leads(&url, &format!("where the files of `{what}` are"))?;
                self.fetched.read(&url, self.artifacts, self.leads).await
            }
            Folder::Disk(path) => of_repository(self.roots, &path),
            Folder::Proxied(path) => {
                let place = format!("{} {path}", tracking.server());
                if let Some(bytes) = self.fetched.unchanged(&place, &version.created, self.artifacts).await {
                    return Ok(bytes);
                }
                let bytes = proxied(tracking, &what, &path).await?;
                self.fetched.note(place, version.created.clone(), &bytes);
                return Ok(bytes);
            }
        };
        read.map_err(|Mistake { cause, help }| Mistake { cause: format!("`{what}`: {cause}"), help })
    }
}

/// The model in the folder at `path` behind the tracking server, with the weights that lie beside it.
async fn proxied(tracking: &Tracking, what: &str, path: &str) -> Result<Bytes, Mistake> {
    let mistake = |cause| Mistake { cause: format!("`{what}`: {cause}"), help: mlflow::LOG_HELP.to_owned() };
    if !stays_inside(path) {
        return Err(mistake(format!("it lies at `{path}`, outside of all artifacts")));
    }
    let description =
        tracking.artifact(&format!("{path}/{}", mlflow::DESCRIPTION), DESCRIPTION_BYTES_MAX).await;
    let description = description.map_err(|unread| match unread {
        Unread { cause, perhaps_a_folder: true, .. } => mistake(format!("it is no model: {cause}")),
        unread => unread.into(),
    })?;
    let data = mlflow::onnx_file(&description).map_err(mistake)?;
    let onnx = tracking.artifact(&format!("{path}/{data}"), MODEL_BYTES_MAX).await?;
    let Weights { files, mut left } = Weights::of(&onnx).map_err(|cause| of_weights(what, &cause))?;
    let folder =
        data.rsplit_once('/').map_or_else(|| path.to_owned(), |(folder, _)| format!("{path}/{folder}"));
    let mut found = BTreeMap::new();
    for file in files {
        let read = tracking.artifact(&format!("{folder}/{file}"), left).await;
        let bytes = read.map_err(|unread| of_weights(what, &unread.cause))?;
        left -= bytes.len() as u64;
        found.insert(file, bytes);
    }
    put_in(onnx, &found).map_err(|cause| of_weights(what, &cause))
}
