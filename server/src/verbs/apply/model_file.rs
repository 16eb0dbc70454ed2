//! Which bytes does the `path` of a model name?
//!
//! Those of a file in the repository, or of an object; where it is a folder, those of the ONNX file that the MLflow
//! model in it names. Weights that lie in files beside it are put into it. Whatever is read here is kept by its digest
//! when it goes live: nobody asks the repository or the object store for it again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use feature_defs::StorageOptions;
use parking_lot::Mutex;

use crate::mlflow;
use quern_base::digest::sha256;
use quern_inference::weights;
use quern_store::objects::{Content, Location, Unread};
use quern_store::registry::Artifacts;
use quern_store::roots::{OUTSIDE_HELP, Roots};

/// ONNX files are protocol buffers, which end at 2 GiB.
pub(super) const MODEL_BYTES_MAX: u64 = 2 << 30;
/// A file of a few dozen lines.
pub(super) const DESCRIPTION_BYTES_MAX: u64 = 1 << 20;
/// So many objects are known by their tags; whatever is beyond is read again.
const KNOWN_MAX: usize = 10_000;

/// Why there are no bytes, and how to go on.
pub(super) struct Mistake {
    pub(super) cause: String,
    pub(super) help: String,
}

/// The file at `path` in the repository, or the one that an MLflow model there names.
pub(super) fn of_repository(roots: &Roots, path: &str) -> Result<Bytes, Mistake> {
    let mut full = roots.repository().join(path);
    if !roots.admit(&full) {
        let cause =
            format!("model file `{path}` lies outside of the repository, or is a link that leads out of it");
        return Err(Mistake { cause, help: OUTSIDE_HELP.to_owned() });
    }
    if full.is_dir() {
        let data = read(roots, &full.join(mlflow::DESCRIPTION), DESCRIPTION_BYTES_MAX)
            .map_err(|cause| format!("its `{}` {cause}", mlflow::DESCRIPTION))
            .and_then(|description| mlflow::onnx_file(&description));
        let mistake = |cause| Mistake {
            cause: format!("model folder `{path}`: {cause}"),
            help: mlflow::HELP.to_owned(),
        };
        full = full.join(data.map_err(mistake)?);
    }
    let help = "`path` is relative to the repository's root; export the model to ONNX there";
    let onnx = read(roots, &full, MODEL_BYTES_MAX)
        .map_err(|cause| Mistake { cause: format!("model file `{path}` {cause}"), help: help.to_owned() })?;
    let Weights { files, mut left } = Weights::of(&onnx).map_err(|cause| of_weights(path, &cause))?;
    let mut found = BTreeMap::new();
    for file in files {
        let bytes = beside(&full, &file)
            .and_then(|full| read(roots, &full, left))
            .map_err(|cause| of_weights(path, &format!("`{file}` {cause}")))?;
        left -= bytes.len() as u64;
        found.insert(file, bytes);
    }
    put_in(onnx, &found).map_err(|cause| of_weights(path, &cause))
}

/// The weights of a model that lie in files beside it.
pub(super) struct Weights {
    /// By their paths from the folder of the model.
    pub(super) files: BTreeSet<String>,
    /// So many bytes they may have together.
    pub(super) left: u64,
}

impl Weights {
    pub(super) fn of(onnx: &Bytes) -> Result<Weights, String> {
        let files = weights::files(onnx);
        match files.iter().find(|file| !weights::stays_inside(file)) {
            Some(file) => Err(format!("`{file}` lies outside of the model's folder")),
            None => Ok(Weights { files, left: MODEL_BYTES_MAX.saturating_sub(onnx.len() as u64) }),
        }
    }
}

pub(super) fn put_in(onnx: Bytes, files: &BTreeMap<String, Bytes>) -> Result<Bytes, String> {
    match files.is_empty() {
        true => Ok(onnx),
        false => weights::put_in(&onnx, files).map(Bytes::from),
    }
}

pub(super) fn of_weights(path: &str, cause: &str) -> Mistake {
    Mistake {
        cause: format!("the weights of `{path}` lie in other files (ONNX's external data), and {cause}"),
        help: "keep them in the model's folder, as they were exported, or put the model into one file with \
               `onnx.save(onnx.load(PATH), PATH)`; all together it may have 2 GiB"
            .to_owned(),
    }
}

/// Where `file` is, in the folder of `model`: a link must not lead out of it.
fn beside(model: &Path, file: &str) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let folder = model.parent().unwrap_or(model).canonicalize().map_err(failed)?;
    let full = folder.join(file).canonicalize().map_err(failed)?;
    match full.starts_with(&folder) {
        true => Ok(full),
        false => Err("is a link that leads out of the model's folder".to_owned()),
    }
}

fn read(roots: &Roots, path: &Path, bytes_max: u64) -> Result<Bytes, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let file = roots.open(path)?;
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
    /// `artifacts`, if it went live. Nothing is read but where a connection `leads`.
    pub(super) async fn read(
        &self,
        url: &str,
        artifacts: &Artifacts,
        leads: &Leads<'_>,
    ) -> Result<Bytes, Mistake> {
        let help = "a URL is written as in `s3://bucket/key`, `gs://bucket/key` or `az://container/key`";
        let location = Location::parse(url).map_err(|cause| Mistake { cause, help: help.to_owned() })?;
        // What is asked for is what was compared, however its URL was read.
        let location = led(location, leads).map_err(|cause| Mistake { cause, help: help.to_owned() })?;
        let file = match self.object(&location, artifacts).await {
            // A store with real folders shows one as an object without content.
            Ok(bytes) if !bytes.is_empty() => return whole(&location, bytes, leads).await,
            Err(unread) if !unread.perhaps_a_folder => return Err(unread.into()),
            file => file,
        };
        match location.join(mlflow::DESCRIPTION).read(DESCRIPTION_BYTES_MAX, None).await {
            Ok(description) => {
                let mistake =
                    |cause| Mistake { cause: format!("`{url}`: {cause}"), help: mlflow::HELP.to_owned() };
                let data = mlflow::onnx_file(&description.bytes).map_err(mistake)?;
                let location = location.join(&data);
                let onnx = self.object(&location, artifacts).await?;
                whole(&location, onnx, leads).await
            }
            Err(unread) if unread.perhaps_a_folder => Ok(file?),
            Err(unread) => Err(unread.into()),
        }
    }

    async fn object(&self, location: &Location, artifacts: &Artifacts) -> Result<Bytes, Unread> {
        let url = location.to_string();
        let known = self.known(&url, artifacts).await;
        let Content { bytes, e_tag } = location.read(MODEL_BYTES_MAX, known).await?;
        if let Some(e_tag) = e_tag {
            self.note(url, e_tag, &bytes);
        }
        Ok(bytes)
    }

    /// What was read at `url`, if that still is what its tag says.
    pub(super) async fn unchanged(&self, url: &str, e_tag: &str, artifacts: &Artifacts) -> Option<Bytes> {
        let known = self.known(url, artifacts).await?;
        (known.e_tag.as_deref() == Some(e_tag)).then_some(known.bytes)
    }

    async fn known(&self, url: &str, artifacts: &Artifacts) -> Option<Content> {
        let Known { e_tag, digest } = self.0.lock().get(url).cloned()?;
        let bytes = artifacts.load(&digest).await.ok()?;
        Some(Content { bytes, e_tag: Some(e_tag) })
    }

    /// Notes what was read at `url`.
    pub(super) fn note(&self, url: String, e_tag: String, bytes: &Bytes) {
        let mut known = self.0.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(url, Known { e_tag, digest: sha256(bytes) });
    }
}

impl From<Unread> for Mistake {
    fn from(Unread { cause, help, .. }: Unread) -> Mistake {
        Mistake { cause, help }
    }
}

/// How what is at a URL is asked for, where a connection leads there.
pub(super) type Leads<'a> = dyn Fn(&str) -> Option<StorageOptions> + Sync + 'a;

fn led(location: Location, leads: &Leads<'_>) -> Result<Location, String> {
    let url = location.to_string();
    let storage = leads(&url).ok_or_else(|| format!("no connection of its project leads to `{url}`"))?;
    Ok(location.through(storage))
}

/// The model at `location`, with the weights that lie beside it.
async fn whole(location: &Location, onnx: Bytes, leads: &Leads<'_>) -> Result<Bytes, Mistake> {
    let path = location.to_string();
    let Weights { files, mut left } = Weights::of(&onnx).map_err(|cause| of_weights(&path, &cause))?;
    let mut found = BTreeMap::new();
    for file in files {
        // A connection may lead to the model alone.
        let beside = led(location.beside(&file), leads).map_err(|cause| of_weights(&path, &cause))?;
        let read = beside.read(left, None).await;
        let Content { bytes, .. } = read.map_err(|unread| of_weights(&path, &unread.cause))?;
        left -= bytes.len() as u64;
        found.insert(file, bytes);
    }
    put_in(onnx, &found).map_err(|cause| of_weights(&path, &cause))
}
