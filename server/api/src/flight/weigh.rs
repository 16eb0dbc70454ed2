//! What will a message of Arrow IPC take, once it is read?
//!
//! Its header says it, and each compressed buffer begins with the length that it will have. Both may lie. So the
//! message is weighed before anything makes room for it, and taken from the lease of the call.

use arrow::ipc::{MessageHeader, RecordBatch, root_as_message};
use arrow_flight::FlightData;

/// A compressed buffer begins with its length as an `i64`; -1 says that it is not compressed.
const LENGTH: usize = 8;

/// The bytes that `message` becomes, beside those that it has. What cannot be read weighs nothing: its reader says why.
pub(super) fn weight(message: &FlightData) -> usize {
    let Ok(header) = root_as_message(&message.data_header) else { return 0 };
    let batch = match header.header_type() {
        MessageHeader::RecordBatch => header.header_as_record_batch(),
        MessageHeader::DictionaryBatch => header.header_as_dictionary_batch().and_then(|batch| batch.data()),
        _ => None,
    };
    batch.map_or(0, |batch| of_rows(&batch).saturating_add(unpacked(&batch, &message.data_body)))
}

/// A byte for each value of each column, however little it is kept as: columns of nulls have no buffers at all.
fn of_rows(batch: &RecordBatch<'_>) -> usize {
    let lengths = batch.nodes().into_iter().flatten().map(|node| node.length());
    lengths.chain([batch.length()]).fold(0, |sum, length| sum.saturating_add(at_least_0(length)))
}

fn unpacked(batch: &RecordBatch<'_>, body: &[u8]) -> usize {
    if batch.compression().is_none() {
        return 0;
    }
    let buffers = batch.buffers().into_iter().flatten();
    buffers.fold(0, |sum, buffer| {
        let start = at_least_0(buffer.offset());
        // One of nothing has not even that.
        let is_there = at_least_0(buffer.length()) >= LENGTH;
        let end = start.checked_add(LENGTH).filter(|_| is_there);
        let prefix = end.and_then(|end| body.get(start..end));
        let promised = prefix.and_then(|prefix| prefix.try_into().ok()).map_or(0, i64::from_le_bytes);
        sum.saturating_add(at_least_0(promised))
    })
}

fn at_least_0(length: i64) -> usize {
    usize::try_from(length).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, NullArray};
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};

    use super::*;

    fn sent(columns: Vec<(&str, ArrayRef)>, compression: Option<CompressionType>) -> FlightData {
        let batch = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let (_, encoded) = IpcDataGenerator::default()
            .encode(&batch, &mut DictionaryTracker::new(false), &options, &mut IpcWriteContext::default())
            .unwrap();
        FlightData::from(encoded)
    }

    #[test]
    fn a_message_weighs_what_it_promises() {
        let numbers = || Arc::new(Int64Array::from(vec![7; 10_000])) as ArrayRef;
        let plain = sent(vec![("n", numbers())], None);
        assert_eq!(weight(&plain), 20_000, "values and rows");
        let packed = sent(vec![("n", numbers())], Some(CompressionType::ZSTD));
        assert!(packed.data_body.len() < 1_000);
        assert_eq!(weight(&packed), 20_000 + 80_000);
        // A buffer that lies about its length is believed here, and so refused.
        let place = packed.data_body.windows(8).position(|eight| eight == 80_000_i64.to_le_bytes()).unwrap();
        let mut body = packed.data_body.to_vec();
        body[place..place + 8].copy_from_slice(&(1_i64 << 60).to_le_bytes());
        let lie = FlightData { data_body: body.into(), ..packed };
        assert_eq!(weight(&lie), 20_000 + (1 << 60));
        let nothing = sent(vec![("n", Arc::new(NullArray::new(1 << 40)) as ArrayRef)], None);
        assert_eq!((nothing.data_body.len(), weight(&nothing)), (0, 2 << 40));
        assert_eq!(weight(&FlightData { data_header: vec![9; 64].into(), ..FlightData::default() }), 0);
    }
}
