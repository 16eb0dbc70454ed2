//! Which bytes does the `path` of a model name?
//!
//! Those of a file in the repository, or of an object; where it is a folder, those of the ONNX file that the MLflow model
//! in it names. Whatever is read here is kept by its digest when it goes live: nobody asks the repository or the object
//! store for it again.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use parking_lot::Mutex;

use super::mlflow;
use crate::store::objects::{Content, Location, Unread};
use crate::store::registry::{Artifacts, digest};

/// ONNX files are protocol buffers, which end at 2 GiB.
const MODEL_BYTES_MAX: u64 = 2 << 30;
/// A file of a few dozen lines.
const DESCRIPTION_BYTES_MAX: u64 = 1 << 20;
/// So many objects are known by their tags; whatever is beyond is read anew.
const KNOWN_MAX: usize = 10_000;

/// Why there are no bytes, and how to go on.
pub(super) struct Mistake {
    pub(super) cause: String,
    pub(super) help: String,
}

/// The file at `path` in the repository, or the one that an MLflow model there names.
pub(super) fn of_repository(root: &Path, path: &str) -> Result<Bytes, Mistake> {
    let mut full = root.join(path);
    if full.is_dir() {
        let data = read(&full.join(mlflow::DESCRIPTION), DESCRIPTION_BYTES_MAX)
            .map_err(|cause| format!("its `{}` {cause}", mlflow::DESCRIPTION))
            .and_then(|description| mlflow::onnx_file(&description));
        let mistake = |cause| Mistake {
            cause: format!("model folder `{path}`: {cause}"),
            help: mlflow::HELP.to_owned(),
        };
        full = full.join(data.map_err(mistake)?);
    }
    let help = "`path` is relative to the repository's root; export the model to ONNX there";
    read(&full, MODEL_BYTES_MAX)
        .map_err(|cause| Mistake { cause: format!("model file `{path}` {cause}"), help: help.to_owned() })
}

fn read(path: &Path, bytes_max: u64) -> Result<Bytes, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let file = fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(format!("is larger than {bytes_max} bytes")),
        false => Ok(bytes.into()),
    }
}

/// What was read of object stores, so that an object which did not change is not read twice.
#[derive(Debug, Default)]
pub(crate) struct Fetched(Mutex<HashMap<String, Known>>);

#[derive(Debug, Clone)]
struct Known {
    e_tag: String,
    digest: String,
}

impl Fetched {
    /// The object at `url`, or the one that an MLflow model below it names. What did not change is taken from
    /// `artifacts`, if it went live.
    pub(super) async fn read(&self, url: &str, artifacts: &Artifacts) -> Result<Bytes, Mistake> {
        let help = "a URL is written as in `s3://bucket/key`, `gs://bucket/key` or `az://container/key`";
        let location = Location::parse(url).map_err(|cause| Mistake { cause, help: help.to_owned() })?;
        let file = match self.object(&location, artifacts).await {
            // A store with real folders shows one as an object without content.
            Ok(bytes) if !bytes.is_empty() => return Ok(bytes),
            Err(unread) if !unread.perhaps_a_folder => return Err(unread.into()),
            file => file,
        };
        match location.join(mlflow::DESCRIPTION).read(DESCRIPTION_BYTES_MAX, None).await {
            Ok(description) => {
                let mistake =
                    |cause| Mistake { cause: format!("`{url}`: {cause}"), help: mlflow::HELP.to_owned() };
                let data = mlflow::onnx_file(&description.bytes).map_err(mistake)?;
                Ok(self.object(&location.join(&data), artifacts).await?)
            }
            Err(unread) if unread.perhaps_a_folder => Ok(file?),
            Err(unread) => Err(unread.into()),
        }
    }

    async fn object(&self, location: &Location, artifacts: &Artifacts) -> Result<Bytes, Unread> {
        let url = location.to_string();
        let known = self.0.lock().get(&url).cloned();
        let known = match known {
            Some(Known { e_tag, digest }) => artifacts.load(&digest).await.ok().map(|bytes| (e_tag, bytes)),
            None => None,
        };
        let known = known.map(|(e_tag, bytes)| Content { bytes, e_tag: Some(e_tag) });
        let Content { bytes, e_tag } = location.read(MODEL_BYTES_MAX, known).await?;
        if let Some(e_tag) = e_tag {
            let mut known = self.0.lock();
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(url, Known { e_tag, digest: digest(&bytes) });
        }
        Ok(bytes)
    }
}

impl From<Unread> for Mistake {
    fn from(Unread { cause, help, perhaps_a_folder: _ }: Unread) -> Mistake {
        Mistake { cause, help }
    }
}
