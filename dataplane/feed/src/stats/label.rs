//! The text of a row: pairs of key and value, each with its length before it.
//!
//! ```text
//! | key len u8 | key | value len u16, little-endian | value | … next pair
//! ```

/// What fits in a row's label: the keys, the values and 3 bytes a pair.
pub const MAX_LABEL_BYTES: usize = 1024;

/// What of a label does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong {
    pub(super) what: &'static str,
    pub(super) bytes: usize,
    pub(super) most: usize,
}

/// The encoding of `pairs`, at most [`MAX_LABEL_BYTES`] long.
pub(super) fn encode(pairs: &[(&str, &str)]) -> Result<Vec<u8>, TooLong> {
    let bytes = pairs.iter().map(|(key, value)| 3 + key.len() + value.len()).sum();
    if bytes > MAX_LABEL_BYTES {
        return Err(TooLong { what: "label", bytes, most: MAX_LABEL_BYTES });
    }
    let mut encoded = Vec::with_capacity(bytes);
    for (key, value) in pairs {
        let too_long = |_| TooLong { what: "key", bytes: key.len(), most: usize::from(u8::MAX) };
        encoded.push(u8::try_from(key.len()).map_err(too_long)?);
        encoded.extend_from_slice(key.as_bytes());
        encoded.extend_from_slice(&(value.len() as u16).to_le_bytes()); // below MAX_LABEL_BYTES
        encoded.extend_from_slice(value.as_bytes());
    }
    Ok(encoded)
}

/// The pairs in `bytes`, or `None` where they are not an encoding.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    while let Some((&key_len, rest)) = bytes.split_first() {
        let (key, rest) = rest.split_at_checked(usize::from(key_len))?;
        let (value_len, rest) = rest.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*value_len)))?;
        pairs.push((text(key)?, text(value)?));
        bytes = rest;
    }
    Some(pairs)
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}
