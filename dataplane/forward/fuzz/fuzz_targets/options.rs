//! Options: of IPv4, of TCP, and IPv6 extension headers, as they should be and as they should not,
//! in packets that begin flows and in those of flows.

#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use penstock_forward::Protocol;
use penstock_forward_fuzz::{Life, frames, live};

fuzz_target!(|script: &[u8]| live(script, packets));

fn packets(script: &mut Unstructured, life: &Life) -> Result<Vec<Vec<u8>>> {
    let mut packet = frames::segment(script, life)?;
    let what: u8 = script.arbitrary()?;
    if packet.source.is_ipv4() {
        let words = usize::from(what >> 2 & 7) + usize::from(what >> 5 & 3);
        packet.ip_options = script.bytes(words * 4)?.to_vec();
    } else {
        for _ in 0..what >> 2 & 3 {
            packet = extended(script, packet)?;
        }
    }
    let tcp_words = if packet.protocol == Protocol::Tcp { usize::from(what & 3) * 3 } else { 0 };
    let options = script.bytes(tcp_words * 4)?;
    packet.payload = [options, &[0x61; 20][..usize::from(what >> 3) % 20]].concat();
    packet.ttl = if what == 0xff { script.arbitrary()? } else { 61 };
    let l4_at = packet.l4_at();
    let mut frame = packet.bytes();
    if packet.protocol == Protocol::Tcp {
        frame[l4_at + 12] = (5 + tcp_words as u8) << 4;
        frames::mend(&mut frame);
    }
    frames::overwrite(script, &mut frame, 14)?;
    if script.ratio(1, 16)? {
        frame.truncate(script.int_in_range(0..=frame.len())?);
    }
    Ok(vec![frame])
}

/// One more extension header, of a length that may be true.
fn extended(
    script: &mut Unstructured,
    packet: penstock_forward::testing::TestPacket,
) -> Result<penstock_forward::testing::TestPacket> {
    let number = *script.choose(&[0, 43, 44, 60, 60, 51, 135, 59])?;
    let units: u8 = script.int_in_range(0..=4)?;
    let mut bytes = script.bytes(8 + usize::from(units) * 8)?.to_vec();
    if script.ratio(7, 8)? {
        bytes[1] = if number == 51 { 2 * units } else { units };
    }
    match number {
        43 if script.ratio(7, 8)? => bytes[3] = 0, // no segment left
        44 => {
            bytes.truncate(8);
            if script.ratio(7, 8)? {
                bytes[2..4].fill(0); // an atomic fragment
            }
        }
        _ => {}
    }
    Ok(packet.extended(number, &bytes))
}
