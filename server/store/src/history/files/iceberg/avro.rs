//! What is in a file of Avro? As its specification lays down: blocks of values, each packed, with a mark after it.
//!
//! A manifest that is read in part names fewer files than there are, or leaves out what was deleted. So a file is whole
//! here, to its last mark, or it is refused. Nothing is taken at its word: what a file says it has must be there.

use std::collections::HashMap;
use std::io::Read;

use crc::{CRC_32_ISO_HDLC, Crc};
use flate2::read::DeflateDecoder;
use quern_decode::avro::{Bytes, Schema, Value};

/// What a file begins with.
const MAGIC: &[u8] = b"Obj\x01";
const MARK_BYTES: usize = 16;
/// More than this no block of a manifest has, unpacked.
const BLOCK_BYTES_MAX: u64 = 1 << 28;
/// More values than this are in no file of a table that is read.
const VALUES_MAX: usize = 2_000_000;

/// A file, read to its end.
pub(super) struct File {
    pub(super) values: Vec<Value>,
    told: HashMap<String, Vec<u8>>,
}

const SHORT: &str = "it ends in the middle of a block";

impl File {
    /// What is in it.
    pub(super) fn read(bytes: &[u8]) -> Result<File, String> {
        let mut rest = Bytes::new(bytes.strip_prefix(MAGIC).ok_or("it is no file of Avro")?);
        let Value::Record(told) = Schema::of_texts().value(&mut rest)? else { return Err(SHORT.to_owned()) };
        let bytes = |value| if let Value::Bytes(bytes) = value { bytes } else { Vec::new() };
        let told: HashMap<_, _> =
            told.into_iter().map(|(field, value)| (field.name.clone(), bytes(value))).collect();
        let schema = told.get("avro.schema").ok_or("it does not say what is in it")?;
        let schema = str::from_utf8(schema).map_err(|error| format!("its schema: {error}"))?;
        let schema = Schema::parse(&[schema])?;
        let codec = told.get("avro.codec").map_or(&b"null"[..], Vec::as_slice);
        let mark = rest.take(MARK_BYTES)?.to_vec();
        let mut values = Vec::new();
        while !rest.is_empty() {
            let (count, size) = (rest.count()?, rest.count()?);
            let block = unpacked(codec, rest.take(size)?)?;
            if values.len() + count > VALUES_MAX {
                return Err(format!("it has more than {VALUES_MAX} values"));
            }
            let mut block = Bytes::new(&block);
            for _ in 0..count {
                values.push(schema.value(&mut block)?);
            }
            if !block.is_empty() || rest.take(MARK_BYTES)? != mark {
                return Err("a block of it is damaged".to_owned());
            }
        }
        Ok(File { values, told })
    }

    /// What is said of all of it.
    pub(super) fn told(&self, key: &str) -> Option<&str> {
        str::from_utf8(self.told.get(key)?).ok()
    }
}

fn unpacked(codec: &[u8], block: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = BLOCK_BYTES_MAX + 1;
    let read = match codec {
        b"null" => return Ok(block.to_vec()),
        b"deflate" => DeflateDecoder::new(block).take(limit).read_to_end(&mut bytes),
        b"zstandard" => zstd::stream::read::Decoder::new(block)
            .and_then(|reader| reader.take(limit).read_to_end(&mut bytes)),
        b"snappy" => {
            let (block, sum) = block.split_last_chunk::<4>().ok_or(SHORT)?;
            let length = snap::raw::decompress_len(block).map_err(|error| error.to_string())?;
            if length as u64 > BLOCK_BYTES_MAX {
                return Err(format!("a block of it has more than {BLOCK_BYTES_MAX} bytes"));
            }
            bytes = snap::raw::Decoder::new().decompress_vec(block).map_err(|error| error.to_string())?;
            if Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&bytes) != u32::from_be_bytes(*sum) {
                return Err("a block of it is damaged".to_owned());
            }
            Ok(bytes.len())
        }
        other => {
            return Err(format!("it is packed by {}, which is not read", String::from_utf8_lossy(other)));
        }
    };
    match read {
        Ok(length) if length as u64 > BLOCK_BYTES_MAX => {
            Err(format!("a block of it has more than {BLOCK_BYTES_MAX} bytes"))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("a block of it cannot be unpacked: {error}")),
    }
}
