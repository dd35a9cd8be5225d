//! ICMP: errors that quote what the box sent, what was sent to it or neither, whole or cut off, from
//! routers and ends; and echo requests.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use penstock_forward_fuzz::promise::LINK;
use penstock_forward_fuzz::{Life, frames, live};

fuzz_target!(|script: &[u8]| live(script, packets));

fn packets(script: &mut Unstructured, life: &Life) -> Result<Vec<Vec<u8>>> {
    let what: u8 = script.arbitrary()?;
    let frame = match what & 3 {
        0 => frames::segment(script, life)?.carrying(&[what; 40]).bytes(),
        1 => echo(script)?,
        _ => error(script, life)?,
    };
    Ok(vec![frame])
}

fn echo(script: &mut Unstructured) -> Result<Vec<u8>> {
    let family = frames::family(script)?;
    let from = frames::client(script, family)?.ip();
    let to = frames::ours(script, family)?;
    let (protocol, request) = if to.is_ipv4() { (1, 8) } else { (58, 128) };
    let data = script.arbitrary_len::<u8>()?.min(64);
    let message = [&[request, 0, 0, 0, 0, 7, 0, 1], script.bytes(data)?].concat();
    let mut frame = frames::ip(from, to, protocol, &message);
    frames::overwrite(script, &mut frame, LINK)?;
    Ok(frame)
}

/// An error about a packet, to whom sent it.
fn error(script: &mut Unstructured, life: &Life) -> Result<Vec<u8>> {
    let quoted = if life.sent.is_empty() || script.ratio(1, 4)? {
        frames::segment(script, life)?.carrying(&[0x5a; 600]).bytes()
    } else {
        let sent: Vec<_> = life.sent.iter().collect();
        (*script.choose(&sent)?).clone()
    };
    let mut quoted = quoted[LINK..].to_vec();
    quoted.truncate(script.int_in_range(0..=548)?);
    if script.ratio(1, 8)? && !quoted.is_empty() {
        let at = script.int_in_range(0..=quoted.len() - 1)?;
        quoted[at] = script.arbitrary()?;
    }
    let Some((to, from)) = addresses(&quoted) else { return Ok(quoted) };
    let is_v4 = to.is_ipv4();
    let from = if script.arbitrary()? { from } else { router(is_v4) };
    let kinds: &[u8] = if is_v4 { &[3, 11, 12, 4, 5] } else { &[1, 2, 3, 4, 137] };
    let [code, high, low] = script.arbitrary()?;
    let (kind, code) = (*script.choose(kinds)?, code % 16);
    let message = [&[kind, code, 0, 0, 0, 0, high, low], &*quoted].concat();
    let mut frame = frames::ip(from, to, if is_v4 { 1 } else { 58 }, &message);
    frames::overwrite(script, &mut frame, LINK)?;
    Ok(frame)
}

fn router(is_v4: bool) -> IpAddr {
    let router = if is_v4 { "198.51.100.1" } else { "2001:db8:ffff::1" };
    router.parse().expect("an address")
}

/// Source and destination of an IP packet.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    if packet.first()? >> 4 == 4 {
        let at = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
        return Some((at(12)?, at(16)?));
    }
    let at = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<16>()?));
    (packet[0] >> 4 == 6).then_some(())?;
    Some((at(8)?, at(24)?))
}
