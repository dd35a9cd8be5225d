//! Whole packets cut into the pieces that a router would make of them.

use crate::wire::{checksum, ipv6};

/// The pieces of an untagged frame without IP options or extension headers: the data behind its IP header in
/// `sizes` bytes each, the last of them being the last piece.
///
/// # Panics
/// If the sizes are not those of a whole.
#[must_use]
pub fn fragmented(frame: &[u8], id: u32, sizes: &[usize]) -> Vec<Vec<u8>> {
    let is_v4 = frame[14] >> 4 == 4;
    let header_len = if is_v4 { 20 } else { 40 };
    let (headers, data) = frame.split_at(14 + header_len);
    assert_eq!(sizes.iter().sum::<usize>(), data.len(), "bytes of the pieces together");
    let mut offset = 0;
    let piece = |size: &usize| {
        let range = offset..offset + size;
        let more = range.end < data.len();
        offset = range.end;
        let mut piece = headers.to_vec();
        let field = range.start as u16 & 0xfff8 | u16::from(more);
        if is_v4 {
            piece[16..18].copy_from_slice(&((header_len + size) as u16).to_be_bytes());
            piece[18..20].copy_from_slice(&(id as u16).to_be_bytes());
            piece[20..22].copy_from_slice(&(field >> 3 | (field & 1) << 13).to_be_bytes());
            piece[24..26].fill(0);
            let sum = !checksum::sum(&piece[14..34]);
            piece[24..26].copy_from_slice(&sum.to_ne_bytes());
        } else {
            let protocol = std::mem::replace(&mut piece[20], ipv6::FRAGMENT);
            piece[18..20].copy_from_slice(&((8 + size) as u16).to_be_bytes());
            piece.extend([protocol, 0]);
            piece.extend(field.to_be_bytes());
            piece.extend(id.to_be_bytes());
        }
        piece.extend(&data[range]);
        piece
    };
    sizes.iter().map(piece).collect()
}
