//! What does an upload hold while it is read?
//!
//! What a message becomes is taken from the lease of the call before it is read, and given back with the next one:
//! whoever keeps rows takes them anew. Its schema and its dictionaries the decoder keeps for the messages to come, and
//! so they stay taken until others stand in their place.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::ipc::{MessageHeader, root_as_message};
use arrow_flight::decode::FlightDataDecoder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{StreamExt, TryStreamExt, stream};
use quern_base::Failure;
use quern_base::memory::{Lease, Part};
use tonic::{Request, Status, Streaming};

use super::refuse;
use crate::error::Error;
use crate::memory::lease_of;
use crate::weighed::sum_of_fields;

/// The most that a command may be.
pub(super) const COMMAND_BYTES_MAX: usize = 1 << 20;
/// The most names that a descriptor may have; ours have none.
const PATH_MAX: usize = 16;
/// What a name in a descriptor becomes without its text, in a list that has grown.
const NAME: usize = 2 * size_of::<String>() + 16;
/// What the decoder holds beside the values of a dictionary.
const DICTIONARY: usize = 1 << 10;

/// The descriptor of an upload, and the rows that follow it.
pub(super) async fn opened(
    request: Request<Streaming<FlightData>>,
) -> Result<(Option<FlightDescriptor>, FlightDataDecoder), Status> {
    let lease = lease_of(request.extensions()).map_err(|e| refuse(&e))?;
    let mut messages = request.into_inner();
    let first = messages.message().await?.ok_or_else(|| Status::invalid_argument("the rows are missing"))?;
    let descriptor = first.flight_descriptor.clone();
    descriptor.as_ref().map_or(Ok(()), check).map_err(|error| refuse(&error))?;
    // pyarrow sends the descriptor in a message of its own, other clients together with the schema.
    let first = (!first.data_header.is_empty()).then_some(Ok(first));
    let all = stream::iter(first).chain(messages.map_err(FlightError::from));
    let mut kept = Kept::new(lease);
    let weighed = all.map(move |message| {
        let message = message?;
        kept.take(&message).map_err(|error| FlightError::from(refuse(&error)))?;
        Ok(message)
    });
    Ok((descriptor, FlightDataDecoder::new(weighed)))
}

/// What the descriptor in a message becomes, if there is one.
pub(super) fn weight_of_descriptor(message: &[u8]) -> usize {
    sum_of_fields(message, |number, field| match number {
        1 => field.len().saturating_add(sum_of_fields(field, |number, _| if number == 3 { NAME } else { 0 })),
        _ => 0,
    })
}

fn check(descriptor: &FlightDescriptor) -> Result<(), Error> {
    let (bytes, names) = (descriptor.cmd.len(), descriptor.path.len());
    if bytes > COMMAND_BYTES_MAX {
        return Err(Error::too_large(format!(
            "the flight descriptor's command is {bytes} bytes long, at most {COMMAND_BYTES_MAX} are read; rows go \
             into the messages after it"
        )));
    }
    if names > PATH_MAX {
        return Err(Error::too_large(format!(
            "the flight descriptor's path has {names} names, at most {PATH_MAX} are read; give a command instead"
        )));
    }
    Ok(())
}

/// What the decoder of an upload holds.
struct Kept {
    lease: Arc<Lease>,
    /// Of the message that came last.
    last: Option<Part>,
    schema: Option<Part>,
    /// Each dictionary by its number, and how much it is.
    dictionaries: HashMap<i64, (Part, usize)>,
}

impl Kept {
    fn new(lease: Arc<Lease>) -> Kept {
        Kept { lease, last: None, schema: None, dictionaries: HashMap::new() }
    }

    /// Takes what a message becomes.
    fn take(&mut self, message: &FlightData) -> Result<(), Failure> {
        self.last = None;
        // What cannot be read takes nothing: its reader says why.
        let Ok(header) = root_as_message(&message.data_header) else { return Ok(()) };
        let becomes = quern_engine::weigh::weight(&header, &message.data_body);
        if let Some(dictionary) = header.header_as_dictionary_batch() {
            // Its values may lie in the message itself, which then stays with them.
            let own =
                becomes.saturating_add(message.data_header.len() + message.data_body.len() + DICTIONARY);
            let mut bytes = own;
            if dictionary.isDelta() {
                // Both are there until they have been put together.
                self.last = Some(self.lease.part(own)?);
                let before = self.dictionaries.get(&dictionary.id()).map_or(0, |(_, bytes)| *bytes);
                bytes = bytes.saturating_add(before);
            }
            self.dictionaries.insert(dictionary.id(), (self.lease.part(bytes)?, bytes));
            return Ok(());
        }
        let part = Some(self.lease.part(becomes)?);
        if header.header_type() == MessageHeader::Schema {
            self.dictionaries.clear();
            self.schema = part;
        } else {
            self.last = part;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, DictionaryArray, RecordBatch};
    use arrow::datatypes::Int32Type;
    use arrow::ipc::writer::{
        DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions,
    };
    use prost::Message;
    use quern_base::memory::Budget;

    use super::*;

    /// The messages of a batch with this many dictionaries of 100 kB.
    fn messages(columns: usize) -> Vec<FlightData> {
        let text = "x".repeat(100_000);
        let words: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::from_iter([text.as_str()]));
        let columns = (0..columns).map(|n| (format!("d{n}"), Arc::clone(&words)));
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let (generator, options) = (IpcDataGenerator::default(), IpcWriteOptions::default());
        let mut tracker = DictionaryTracker::new(false);
        let schema: EncodedData =
            generator.schema_to_bytes_with_dictionary_tracker(&batch.schema(), &mut tracker, &options);
        let mut context = IpcWriteContext::default();
        let (dictionaries, rows) = generator.encode(&batch, &mut tracker, &options, &mut context).unwrap();
        [schema].into_iter().chain(dictionaries).chain([rows]).map(FlightData::from).collect()
    }

    #[test]
    fn a_descriptor_weighs_its_names() {
        let named = |names: usize| {
            let path = vec![String::new(); names];
            let descriptor = FlightDescriptor { path, ..FlightDescriptor::new_cmd("{}") };
            FlightData::new().with_descriptor(descriptor).with_data_body("rows")
        };
        let read = FlightData::decode(named(100_001).encode_to_vec().as_slice()).unwrap();
        let becomes = read.flight_descriptor.unwrap().path.capacity() * size_of::<String>();
        let weighs = weight_of_descriptor(&named(100_001).encode_to_vec());
        assert!((becomes..3 * becomes).contains(&weighs), "{weighs}, {becomes}");
        assert!(weight_of_descriptor(&named(0).encode_to_vec()) < 10);
        assert_eq!(weight_of_descriptor(&FlightData::new().with_data_body("rows").encode_to_vec()), 0);
        assert!(check(&named(16).flight_descriptor.unwrap()).is_ok());
        let refused = check(&named(17).flight_descriptor.unwrap()).unwrap_err();
        assert_eq!(refused.kind(), quern_base::Kind::TooLarge);
    }

    #[test]
    fn dictionaries_stay_taken_until_others_stand_in_their_place() {
        let budget = Budget::new(64 << 20);
        let mut kept = Kept::new(Arc::new(budget.lease()));
        let messages = messages(8);
        assert_eq!(messages.len(), 1 + 8 + 1);
        messages.iter().for_each(|message| kept.take(message).unwrap());
        let used = budget.used();
        assert!((1_600_000..1_700_000).contains(&used), "bytes, and a copy: {used}");
        // Again the same: they are others in the place of those.
        messages[1..].iter().for_each(|message| kept.take(message).unwrap());
        assert_eq!(budget.used(), used);
        kept.take(&messages[0]).unwrap();
        assert!(budget.used() < 100_000, "a new schema has no dictionaries: {}", budget.used());
        drop(kept);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn more_dictionaries_than_there_is_room_for_are_refused() {
        let budget = Budget::new(4 << 20);
        let mut kept = Kept::new(Arc::new(budget.lease()));
        let refused = messages(60).iter().find_map(|message| kept.take(message).err());
        assert_eq!(refused.unwrap().kind(), quern_base::Kind::TooLarge);
        assert!(budget.used() <= 3 << 20);
    }
}
