//! What will a message of Arrow IPC take, once it is read?
//!
//! Its header says it, and each compressed buffer begins with the length that it will have. Both may lie. So the
//! message is weighed before anything makes room for it: of a call, it is taken from its lease.

mod fields;

use arrow::ipc::{CompressionType, Message, MessageHeader, RecordBatch};

pub use fields::weight as schema_weight;

/// A compressed buffer begins with its length as an `i64`; -1 says that it is not compressed.
const LENGTH: usize = 8;

/// The bytes that a message becomes, beside those that it has. A buffer that is not compressed counts once more: it is
/// copied where it does not lie as its type must.
pub fn weight(header: &Message<'_>, body: &[u8]) -> usize {
    let batch = match header.header_type() {
        MessageHeader::RecordBatch => header.header_as_record_batch(),
        MessageHeader::Schema => {
            return header.header_as_schema().map_or(0, |schema| fields::weight(&schema));
        }
        MessageHeader::DictionaryBatch => header.header_as_dictionary_batch().and_then(|batch| batch.data()),
        _ => None,
    };
    batch.map_or(0, |batch| of_rows(&batch).saturating_add(of_buffers(&batch, body)))
}

/// A byte for each value of each column, however little it is kept as: columns of nulls have no buffers at all.
fn of_rows(batch: &RecordBatch<'_>) -> usize {
    let lengths = batch.nodes().into_iter().flatten().map(|node| node.length());
    lengths.chain([batch.length()]).fold(0, |sum, length| sum.saturating_add(at_least_0(length)))
}

fn of_buffers(batch: &RecordBatch<'_>, body: &[u8]) -> usize {
    let codec = batch.compression().map(|compression| compression.codec());
    let (mut sum, mut room_max, mut unread) = (0_usize, 0, body.len());
    for buffer in batch.buffers().into_iter().flatten() {
        let bytes = body.get(at_least_0(buffer.offset())..).unwrap_or_default();
        let bytes = &bytes[..at_least_0(buffer.length()).min(bytes.len())];
        // Buffers that lie over one another would be read, and counted, once for each: nobody sends such.
        let Some(left) = unread.checked_sub(bytes.len()) else { return usize::MAX };
        unread = left;
        let (becomes, room) = codec.map_or((bytes.len(), 0), |codec| unpacked(bytes, codec));
        sum = sum.saturating_add(becomes);
        room_max = room_max.max(room);
    }
    sum.saturating_add(room_max)
}

/// What a compressed buffer becomes, and what its reader needs besides.
fn unpacked(bytes: &[u8], codec: CompressionType) -> (usize, usize) {
    // One of nothing has not even a length.
    let Some((promised, frame)) = bytes.split_first_chunk::<LENGTH>() else { return (0, 0) };
    let promised = at_least_0(i64::from_le_bytes(*promised));
    let is_lz4 = codec == CompressionType::LZ4_FRAME && promised > 0;
    let (becomes, room) = if is_lz4 { of_lz4(frame) } else { (0, 0) };
    (promised.max(becomes), room)
}

/// What an LZ4 frame becomes at the most, and what its reader needs besides. It is read to its end, whatever length was
/// promised: so its blocks are counted, by how long they are and how long any may become.
fn of_lz4(frame: &[u8]) -> (usize, usize) {
    const MAGIC: u32 = 0x184d_2204;
    const LEGACY_MAGIC: u32 = 0x184c_2102;
    /// No byte of a block stands for more.
    const TIMES_MAX: usize = 256;
    /// How far back a block may point.
    const WINDOW: usize = 64 << 10;
    let Some((magic, rest)) = frame.split_first_chunk() else { return (0, 0) };
    let (block_max, checksum, mut blocks) = match (u32::from_le_bytes(*magic), rest) {
        (LEGACY_MAGIC, blocks) => (8 << 20, 0, blocks),
        (MAGIC, [flags, size, ..]) => {
            // Flags, the size of blocks and a checksum of them; the length of all and a dictionary, where there are.
            let head = 3 + 8 * usize::from(flags >> 3 & 1) + 4 * usize::from(flags & 1);
            let block_max = 1 << (8 + 2 * (size >> 4 & 7));
            (block_max, 4 * usize::from(flags >> 4 & 1), rest.get(head..).unwrap_or_default())
        }
        _ => return (0, 0),
    };
    let mut becomes = 0_usize;
    while let Some((length, rest)) = blocks.split_first_chunk() {
        // The first bit says that the block is not packed. One of nothing is the last.
        let length = (u32::from_le_bytes(*length) & !(1 << 31)) as usize;
        if length == 0 {
            break;
        }
        becomes = becomes.saturating_add(length.saturating_mul(TIMES_MAX).min(block_max));
        blocks = rest.get(length + checksum..).unwrap_or_default();
    }
    (becomes, 3 * block_max + WINDOW)
}

fn at_least_0(length: i64) -> usize {
    usize::try_from(length).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, NullArray};
    use arrow::ipc::root_as_message;
    use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};

    use super::*;

    /// A message: its header, and its body.
    #[derive(Default)]
    struct Sent {
        header: Vec<u8>,
        body: Vec<u8>,
    }

    fn sent(columns: Vec<(&str, ArrayRef)>, compression: Option<CompressionType>) -> Sent {
        let batch = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let (_, encoded) = IpcDataGenerator::default()
            .encode(&batch, &mut DictionaryTracker::new(false), &options, &mut IpcWriteContext::default())
            .unwrap();
        Sent { header: encoded.ipc_message, body: encoded.arrow_data }
    }

    /// What cannot be read weighs nothing.
    fn weighed(message: &Sent) -> usize {
        root_as_message(&message.header).map_or(0, |header| weight(&header, &message.body))
    }

    #[test]
    fn a_message_weighs_what_it_promises() {
        let numbers = || Arc::new(Int64Array::from(vec![7; 10_000])) as ArrayRef;
        let plain = sent(vec![("n", numbers())], None);
        assert_eq!(weighed(&plain), 20_000 + 80_000, "values and rows, and a copy");
        let packed = sent(vec![("n", numbers())], Some(CompressionType::ZSTD));
        assert!(packed.body.len() < 1_000);
        assert_eq!(weighed(&packed), 20_000 + 80_000);
        // A buffer that lies about its length is believed here, and so refused.
        let place = packed.body.windows(8).position(|eight| eight == 80_000_i64.to_le_bytes()).unwrap();
        let mut body = packed.body.clone();
        body[place..place + 8].copy_from_slice(&(1_i64 << 60).to_le_bytes());
        let lie = Sent { body, ..packed };
        assert_eq!(weighed(&lie), 20_000 + (1 << 60));
        // One that says too little as well: it is unpacked before anybody counts.
        let packed = sent(vec![("n", numbers())], Some(CompressionType::LZ4_FRAME));
        let room = (3 * 256 + 64) << 10;
        assert!((100_000 + room..120_000 + room).contains(&weighed(&packed)));
        let place = packed.body.windows(8).position(|eight| eight == 80_000_i64.to_le_bytes()).unwrap();
        let mut body = packed.body.clone();
        body[place..place + 8].copy_from_slice(&8_i64.to_le_bytes());
        let lie = Sent { body, ..packed };
        assert!((100_000 + room..120_000 + room).contains(&weighed(&lie)));
        let nothing = sent(vec![("n", Arc::new(NullArray::new(1 << 40)) as ArrayRef)], None);
        assert_eq!((nothing.body.len(), weighed(&nothing)), (0, 2 << 40));
        assert_eq!(weighed(&Sent { header: vec![9; 64], ..Sent::default() }), 0);
    }
}
