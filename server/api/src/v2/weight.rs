//! What does a `ModelInferRequest` become, once it is read?

use crate::weighed::sum_of_fields;
use quern_oip::messages::{InferInputTensor, InferRequestedOutputTensor};

/// A list that grows has room for twice what is in it.
const GROWN: usize = 2;
/// A parameter in its map, which grows as well.
const PARAMETER: usize = 256;
/// What is made of an input or an output, until somebody sees that there are too many.
const TENSOR: usize = 512;
const INPUT: usize = GROWN * size_of::<InferInputTensor>() + TENSOR;
const OUTPUT: usize = GROWN * size_of::<InferRequestedOutputTensor>() + TENSOR;
/// Bytes that lie in the message.
const SLICE: usize = GROWN * size_of::<bytes::Bytes>();
/// A number of any kind.
const NUMBER: usize = GROWN * size_of::<u64>();

/// The bytes of a request's fields, each by its number in [`super::messages`], and of the texts copied out of them.
pub(super) fn weight(request: &[u8]) -> usize {
    let of_fields = sum_of_fields(request, |number, field| match number {
        4 => PARAMETER,
        5 => INPUT.saturating_add(of_input(field)),
        6 => OUTPUT.saturating_add(sum_of_fields(field, |number, _| if number == 2 { PARAMETER } else { 0 })),
        7 => SLICE,
        _ => 0,
    });
    of_fields.saturating_add(request.len())
}

fn of_input(input: &[u8]) -> usize {
    sum_of_fields(input, |number, field| match number {
        3 => varints(field),
        4 => PARAMETER,
        5 => sum_of_fields(field, |number, field| match number {
            1..=5 => varints(field),
            // Packed, or one by itself.
            6 | 7 => (GROWN * field.len()).max(NUMBER),
            8 => SLICE,
            _ => 0,
        }),
        _ => 0,
    })
}

/// Numbers of as few as one byte, packed; or one by itself.
fn varints(packed: &[u8]) -> usize {
    packed.iter().filter(|byte| **byte < 0x80).count().max(1).saturating_mul(NUMBER)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost::bytes::Bytes;

    use super::*;
    use quern_oip::messages::{InferTensorContents, ModelInferRequest};

    /// What the lists of a request have room for.
    fn room(request: &ModelInferRequest) -> usize {
        let of_contents = |contents: &InferTensorContents| {
            contents.int_contents.capacity() * 4
                + contents.int64_contents.capacity() * 8
                + contents.bool_contents.capacity()
                + contents.fp32_contents.capacity() * 4
                + contents.bytes_contents.capacity() * size_of::<Bytes>()
        };
        let of_input = |input: &InferInputTensor| {
            input.shape.capacity() * 8
                + input.name.capacity()
                + input.contents.as_ref().map_or(0, of_contents)
                + input.parameters.capacity() * 56
        };
        request.inputs.capacity() * size_of::<InferInputTensor>()
            + request.outputs.capacity() * size_of::<InferRequestedOutputTensor>()
            + request.raw_input_contents.capacity() * size_of::<Bytes>()
            + request.parameters.capacity() * 56
            + request.model_name.capacity()
            + request.inputs.iter().map(of_input).sum::<usize>()
    }

    /// A field with bytes in it.
    fn field(number: u8, inside: &[u8]) -> Vec<u8> {
        let mut all = vec![number << 3 | 2];
        prost::encoding::encode_varint(inside.len() as u64, &mut all);
        [all, inside.to_vec()].concat()
    }

    #[test]
    fn odd_messages_weigh_at_least_what_they_become() {
        let many = 100_001;
        let contents = |number, inside: &[u8]| field(5, &field(5, &field(number, inside)));
        let parameters: Vec<u8> =
            (0..many).flat_map(|n: usize| field(4, &field(1, n.to_string().as_bytes()))).collect();
        for (message, at_most) in [
            (field(1, &[b'x'; 100_000]), 100_100),
            ([0x2a, 0].repeat(many), 1_200 * many),
            ([0x32, 0].repeat(many), 1_200 * many),
            ([0x3a, 0].repeat(many), 100 * many),
            // A group of a field that nobody knows, which is skipped.
            ([vec![0x7b, 0x08, 0x01, 0x7c], [0x3a, 0].repeat(many)].concat(), 100 * many),
            (parameters.clone(), 300 * many),
            (field(5, &parameters), 300 * many),
            (field(5, &field(3, &vec![1; many])), 20 * many),
            (field(5, &[0x18, 1].repeat(many)), 20 * many),
            (contents(1, &vec![1; many]), 20 * many),
            (contents(2, &vec![1; many]), 20 * many),
            (contents(3, &vec![1; many]), 20 * many),
            (contents(6, &vec![1; 4 * many]), 20 * many),
            (field(5, &field(5, &[0x42, 0].repeat(many))), 100 * many),
        ] {
            let becomes = room(&ModelInferRequest::decode(message.as_slice()).unwrap());
            let weighs = weight(&message);
            let head = &message[..8];
            assert!(becomes >= many - 1 && weighs >= becomes, "{head:?}: {weighs}, {becomes}");
            assert!(weighs <= at_most + 2_000, "{head:?}: {weighs}");
        }
        // What is cut off weighs what came.
        let cut = [[0x3a, 0].repeat(10), vec![0x3a, 9]].concat();
        assert_eq!(weight(&cut), 10 * SLICE + 22);
    }
}
