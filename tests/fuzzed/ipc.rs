//! Can any bytes be taken for messages of Arrow IPC, and do they become no more than they were weighed for?
//!
//! They come as in a stream: each message is four bytes of ones, the length of its header, its header, its body.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, RecordBatch};
use arrow::ipc::root_as_message;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use futures::{FutureExt, TryStreamExt, stream};
use quern_decode::print::Values;
use quern_engine::schema::{canonical, conform};
use quern_engine::weigh::weight;

/// What the messages may weigh together: whatever a request is granted, a little shows as much.
const WEIGHT_MAX: usize = 1 << 20;

thread_local! {
    static IS_READING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is where a panic is caught.
pub fn is_reading() -> bool {
    IS_READING.get()
}

/// The tables that messages become, and what they may take.
pub struct Read {
    /// What could be read.
    pub batches: Vec<RecordBatch>,
    /// The bytes of the messages, and those that they were weighed for.
    pub promised: usize,
}

/// Reads messages as the server does. What is too heavy is not read.
pub fn read(bytes: &[u8]) -> Read {
    let mut read = Read { batches: Vec::new(), promised: bytes.len() };
    let mut messages = Vec::new();
    for message in split(bytes) {
        // What cannot be read weighs nothing.
        let header = root_as_message(&message.data_header);
        let weighs = header.map_or(0, |header| weight(&header, &message.data_body));
        let promised = read.promised.saturating_add(weighs);
        if promised > bytes.len() + WEIGHT_MAX {
            break;
        }
        read.promised = promised;
        messages.push(Ok(message));
    }
    let mut decoder = FlightDataDecoder::new(stream::iter(messages));
    // Hostile bytes make the decoder panic. The server catches that, and reads no further.
    let mut next = || {
        IS_READING.set(true);
        let next = catch_unwind(AssertUnwindSafe(|| decoder.try_next().now_or_never()));
        IS_READING.set(false);
        next.ok().flatten()
    };
    while let Some(Ok(Some(message))) = next() {
        if let DecodedPayload::RecordBatch(batch) = message.payload {
            read.batches.push(batch);
        }
    }
    read
}

fn split(mut bytes: &[u8]) -> Vec<FlightData> {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
        let (header, rest) = rest.split_at(length.min(rest.len()));
        let length =
            root_as_message(header).ok().and_then(|header| usize::try_from(header.bodyLength()).ok());
        let (body, rest) = rest.split_at(length.unwrap_or(0).min(rest.len()));
        messages.push(FlightData {
            data_header: header.to_vec().into(),
            data_body: body.to_vec().into(),
            ..FlightData::default()
        });
        bytes = rest;
    }
    messages
}

pub(crate) fn ask(bytes: &[u8]) {
    for batch in read(bytes).batches {
        for column in batch.columns() {
            assert_eq!(column.len(), batch.num_rows());
            // Whatever has been read can be used: in its own type, and in that which it becomes here.
            let _ = serde_json::to_string(&Values(column.as_ref()));
            if let Ok(ours) = conform(column, &canonical(column.data_type())) {
                assert_eq!(ours.len(), column.len());
                let _ = serde_json::to_string(&Values(ours.as_ref()));
            }
        }
    }
}
