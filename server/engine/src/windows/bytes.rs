//! How do numbers and pieces of bytes follow one another in a stored tile?

/// Appends a LEB128 number.
pub(crate) fn write_number(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes a LEB128 number off the front.
#[inline]
pub(crate) fn number(bytes: &mut &[u8]) -> Option<u64> {
    match bytes.split_first()? {
        (byte, rest) if *byte < 0x80 => {
            *bytes = rest;
            Some(u64::from(*byte))
        }
        _ => long_number(bytes),
    }
}

fn long_number(bytes: &mut &[u8]) -> Option<u64> {
    let (mut n, mut shift) = (0u64, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// Appends a number of either sign, small ones short.
pub(crate) fn write_signed(n: i64, out: &mut Vec<u8>) {
    write_number(((n << 1) ^ (n >> 63)) as u64, out);
}

/// Takes what [`write_signed`] wrote off the front.
pub(crate) fn signed(bytes: &mut &[u8]) -> Option<i64> {
    let n = number(bytes)?;
    Some((n >> 1) as i64 ^ -((n & 1) as i64))
}

/// Appends bytes behind their length.
pub(crate) fn write_piece(piece: &[u8], out: &mut Vec<u8>) {
    write_number(piece.len() as u64, out);
    out.extend_from_slice(piece);
}

/// Takes what [`write_piece`] wrote off the front.
pub(crate) fn piece<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(bytes)?).ok()?;
    let (piece, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(piece)
}

/// Takes eight bytes, a little-endian number, off the front.
pub(crate) fn fixed(bytes: &mut &[u8]) -> Option<i64> {
    let (eight, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(i64::from_le_bytes(*eight))
}
