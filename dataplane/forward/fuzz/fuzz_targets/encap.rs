//! Tunnels: packets of all sizes around what fits, of all traffic classes, to the modes that put them
//! into one; and tunnels that nobody of ours began, to the box and through it.

#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use penstock_forward_fuzz::promise::LINK;
use penstock_forward_fuzz::{Life, frames, live};

fuzz_target!(|script: &[u8]| live(script, packets));

fn packets(script: &mut Unstructured, life: &Life) -> Result<Vec<Vec<u8>>> {
    let mut packet = frames::segment(script, life)?;
    let what: u8 = script.arbitrary()?;
    let len = match what & 3 {
        0 => usize::from(what >> 2),
        1 => 1400 + usize::from(what >> 2),
        _ => script.int_in_range(0..=9000)?,
    };
    packet.payload = vec![what; len];
    packet.ttl = script.int_in_range(1..=255)?;
    if what & 0x10 != 0 {
        packet.ip_id_and_fragment = [0x12, 0x34, 0, 0]; // routers may cut it
    }
    let mut frame = packet.bytes();
    // DSCP and ECN, or a flow label.
    frame[LINK + 1] = script.arbitrary()?;
    if script.ratio(1, 8)? {
        // Padding, more than the port takes that it leaves by.
        let padded = frame.len() + usize::from(script.arbitrary::<u8>()?);
        frame.resize(padded, 0xa5);
    } else {
        frames::overwrite(script, &mut frame, LINK)?;
    }
    if script.ratio(1, 4)? {
        frame = tunnelled(script, &frame[LINK..])?;
    }
    Ok(vec![frame])
}

/// A tunnel to the box, of any kind.
fn tunnelled(script: &mut Unstructured, inner: &[u8]) -> Result<Vec<u8>> {
    let family = frames::family(script)?;
    let from = frames::client(script, family)?.ip();
    let to = frames::ours(script, family)?;
    let number = if inner.first().is_some_and(|first| first >> 4 == 6) { 41 } else { 4 };
    let inner = &inner[..inner.len().min(1400)];
    let len = (8 + inner.len() as u16).to_be_bytes();
    let longer = (12 + inner.len() as u16).to_be_bytes();
    let udp = |len: [u8; 2]| [0xc0, 0, 0x17, 0xc0, len[0], len[1], 0, 0];
    Ok(match script.arbitrary::<u8>()? & 3 {
        0 => frames::ip(from, to, 17, &[&udp(len), inner].concat()),
        1 => frames::ip(from, to, 17, &[&udp(longer)[..], &[0, number, 0, 0], inner].concat()),
        _ => frames::ip(from, to, number, inner),
    })
}
