//! How are numbers of tensors sent elsewhere? As bytes, little-endian.

use half::{bf16, f16};

/// A number as bytes, little-endian.
pub(crate) trait Number: Sized {
    fn put(self, bytes: &mut Vec<u8>);
    fn all(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Number for $number {
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn all(bytes: &[u8]) -> Vec<Self> {
                bytes.as_chunks().0.iter().map(|chunk| Self::from_le_bytes(*chunk)).collect()
            }
        }
    )*};
}
numbers!(f16, bf16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64);

impl Number for bool {
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.push(self.into());
    }
    fn all(bytes: &[u8]) -> Vec<Self> {
        bytes.iter().map(|byte| *byte != 0).collect()
    }
}
