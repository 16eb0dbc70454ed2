//! Which weights of an ONNX file lie in other files, and what is it with them in it?
//!
//! ONNX calls that external data (<https://onnx.ai/onnx/repo-docs/ExternalData.html>), and exporters make use of it for
//! anything that is not small. A model is one file here, known by its digest, so the weights are put into it when it is
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use bytes::Bytes;
use prost::Message;

use crate::parts::{Damaged, Entry, Kind, Tensor, fields, put, visit};

/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;
/// The fields of a tensor that say where its weights are, and the one that holds them.
const EXTERNAL_DATA: usize = 13;
const DATA_LOCATION: usize = 14;
const RAW_DATA: usize = 9;

/// The files, by their paths below the folder of the ONNX file, in which tensors of `onnx` have their weights.
pub fn files(onnx: &[u8]) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let see = &mut |kind, message: &[u8]| -> Result<_, Damaged> {
        if let Some(place) = Place::of(kind, message)? {
            files.insert(place.file);
        }
        Ok(None)
    };
    // What is no ONNX file at all is said by ONNX Runtime, in its words.
    match visit(onnx, see) {
        Ok(_) => files,
        Err(Damaged) => BTreeSet::new(),
    }
}

/// Whether a path stays below the folder that it begins in, as far as its words say.
pub fn stays_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// The ONNX file with the weights in it that lie in `files`.
///
/// # Errors
/// A file that is not there or ends too early.
pub fn put_in(onnx: &[u8], files: &BTreeMap<String, Bytes>) -> Result<Vec<u8>, String> {
    let see = &mut |kind, message: &[u8]| match Place::of(kind, message)? {
        None => Ok(None),
        Some(place) => {
            let mut tensor = Vec::new();
            let kept = fields(message)
                .filter(|field| ![EXTERNAL_DATA, DATA_LOCATION, RAW_DATA].contains(&field.number));
            kept.for_each(|field| tensor.extend_from_slice(field.whole));
            put(&mut tensor, RAW_DATA, place.weights(files)?);
            Ok::<_, String>(Some(tensor))
        }
    };
    Ok(visit(onnx, see)?.unwrap_or_else(|| onnx.to_vec()))
}

impl From<Damaged> for String {
    fn from(Damaged: Damaged) -> String {
        "the file is damaged".to_owned()
    }
}

/// Where the weights of a tensor are.
struct Place {
    tensor: String,
    file: String,
    offset: usize,
    length: Option<usize>,
}

impl Place {
    /// None where they are in the tensor itself, or it is none.
    fn of(kind: Kind, message: &[u8]) -> Result<Option<Place>, Damaged> {
        if kind != Kind::Tensor {
            return Ok(None);
        }
        let Tensor { name, external_data, data_location } = Tensor::decode(message).map_err(|_| Damaged)?;
        if data_location != EXTERNAL {
            return Ok(None);
        }
        let value =
            |key: &str| external_data.iter().find(|entry| entry.key == key).map(|Entry { value, .. }| value);
        let number = |key| value(key).map(|text| text.parse().map_err(|_| Damaged)).transpose();
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        let file = value("location").ok_or(Damaged)?.clone();
        Ok(Some(Place { tensor: name, file, offset, length }))
    }

    fn weights<'a>(&self, files: &'a BTreeMap<String, Bytes>) -> Result<&'a [u8], String> {
        let Place { tensor, file, offset, length } = self;
        let bytes = files.get(file).ok_or_else(|| format!("`{file}` is not there"))?;
        let end = length.map_or(Some(bytes.len()), |length| offset.checked_add(length));
        end.and_then(|end| bytes.get(*offset..end)).ok_or_else(|| {
            format!(
                "`{file}` has {} bytes, and the weights of `{tensor}` would be {} of them from byte {offset} on",
                bytes.len(),
                length.map_or("the rest".to_owned(), |length| length.to_string()),
            )
        })
    }
}
