//! What will a message of gRPC take, once it is read?
//!
//! Two bytes of a message may be a whole tensor without a name, and a few KiB of zip millions of them. So each message
//! is walked before prost reads it, and what its repeated fields become is taken from the lease of its request: until
//! the next message, or the end of the reply.

use std::sync::Arc;

use axum::http::Extensions;
use bytes::Buf;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use quern_base::memory::Lease;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::error::grpc_status;
use crate::memory::lease_of;

/// What a message becomes, beside its own length and the texts that are copied out of it.
pub(super) type Weight = fn(&[u8]) -> usize;

/// Reads and writes as prost does, once what is read has been weighed.
pub(super) struct Weighed<T, U> {
    prost: ProstCodec<T, U>,
    lease: Option<Arc<Lease>>,
    weight: Weight,
}

impl<T, U> Weighed<T, U> {
    /// For the messages of the request with these extensions.
    pub(super) fn of(extensions: &Extensions, weight: Weight) -> Weighed<T, U> {
        Weighed { prost: ProstCodec::new(), lease: lease_of(extensions).ok(), weight }
    }
}

impl<T, U> Codec for Weighed<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = WeighedDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        self.prost.encoder()
    }

    fn decoder(&mut self) -> WeighedDecoder<U> {
        let (lease, weight) = (self.lease.clone(), self.weight);
        WeighedDecoder { prost: self.prost.decoder(), lease, weight, held: 0 }
    }
}

pub(super) struct WeighedDecoder<U> {
    prost: ProstDecoder<U>,
    lease: Option<Arc<Lease>>,
    weight: Weight,
    /// What the message before took. The last one's stays: its request is answered when this has gone.
    held: usize,
}

impl<U: Message + Default> Decoder for WeighedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let lease =
            self.lease.as_ref().ok_or_else(|| Status::internal("a request has no lease of memory"))?;
        lease.give_back(std::mem::take(&mut self.held));
        // Its bytes are all in one piece.
        let becomes = (self.weight)(message.chunk());
        lease.take(becomes).map_err(|error| grpc_status(&error))?;
        self.held = becomes;
        // A message that is none is its client's fault, whatever the library calls it.
        self.prost.decode(message).map_err(|status| Status::invalid_argument(status.message()))
    }
}

/// Adds up what `weight` says of each field of a message, by its number and what is in it: nothing for a number. It
/// ends where the message cannot be read, as prost does. What is in a group counts as if it were not: prost skips it.
pub(super) fn sum_of_fields(mut message: &[u8], weight: impl Fn(u32, &[u8]) -> usize) -> usize {
    let mut sum = 0_usize;
    while let Ok((number, kind)) = decode_key(&mut message) {
        let length = match kind {
            WireType::Varint => decode_varint(&mut message).map(|_| 0),
            WireType::SixtyFourBit => Ok(8),
            WireType::ThirtyTwoBit => Ok(4),
            WireType::LengthDelimited => decode_varint(&mut message),
            WireType::StartGroup | WireType::EndGroup => continue,
        };
        let length = length.ok().and_then(|length| usize::try_from(length).ok());
        let Some((inside, rest)) = length.and_then(|length| message.split_at_checked(length)) else { break };
        sum = sum.saturating_add(weight(number, inside));
        message = rest;
    }
    sum
}
