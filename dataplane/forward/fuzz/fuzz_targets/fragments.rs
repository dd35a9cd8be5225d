//! Pieces of datagrams, from both ends, in any order, some lost, repeated, overlapping or of another
//! datagram with the same id.

#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use penstock_forward::testing::fragmented;
use penstock_forward_fuzz::{Life, frames, live};

fuzz_target!(|script: &[u8]| live(script, pieces));

fn pieces(script: &mut Unstructured, life: &Life) -> Result<Vec<Vec<u8>>> {
    let mut packet = frames::segment(script, life)?;
    if script.ratio(1, 8)? {
        let (offset, more) = (script.int_in_range(0..=8191)?, script.arbitrary()?);
        let mut piece = packet.piece(offset, more).bytes();
        frames::overwrite(script, &mut piece, 14)?;
        return Ok(vec![piece]);
    }
    let len: usize = script.int_in_range(0..=3000)?;
    packet.payload = vec![script.arbitrary()?; len];
    let (frame, id) = (packet.bytes(), script.int_in_range(1..=3)?);
    let mut pieces = cut(script, &frame, id)?;
    if script.ratio(1, 4)? {
        pieces.extend(cut(script, &frame, id)?); // other cuts of the same
    }
    let mut order = Vec::new();
    for _ in 0..script.int_in_range(0..=pieces.len() + 1)? {
        order.push(script.choose(&pieces)?.clone());
    }
    if script.ratio(1, 8)? {
        if let Some(piece) = order.last_mut() {
            frames::overwrite(script, piece, 14)?;
        }
    }
    // All of them in order, in the other one, or some in any.
    Ok(match script.arbitrary::<u8>()? & 3 {
        0 => pieces,
        1 => pieces.into_iter().rev().collect(),
        _ => order,
    })
}

/// Pieces of whole multiples of 8 bytes, none longer than a frame.
fn cut(script: &mut Unstructured, frame: &[u8], id: u32) -> Result<Vec<Vec<u8>>> {
    let header_len = if frame[14] >> 4 == 4 { 20 } else { 40 };
    let (mut left, mut sizes) = (frame.len() - 14 - header_len, Vec::new());
    while left > 0 {
        let size = (1 + script.int_in_range(0..=180_usize)?) * 8;
        sizes.push(size.min(left));
        left -= size.min(left);
    }
    Ok(fragmented(frame, id, &sizes))
}
