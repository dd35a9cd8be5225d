//! What the generator sends: the least TCP frame over IPv4 (RFC 9293 §3.1, RFC 791 §3.1), for so many flows.
//!
//! A frame is a template and 16 bytes of its own, with both checksums right. Those of a run lie in the
//! order they are sent, flows at random, so that walking them costs no cache miss.

use std::net::{Ipv4Addr, SocketAddr};

use penstock_forward::testing::TestPacket;
use penstock_forward::wire::checksum;
use penstock_forward::{MacAddr, Protocol};

/// 64 bytes with the FCS.
pub(crate) const LEN: usize = 60;
/// Where clients connect to.
pub(crate) const VIP: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 10), 80);

const IP: std::ops::Range<usize> = 14..34;
const IP_CHECKSUM: usize = 24;
const TUPLE: usize = 26;
const TCP: std::ops::Range<usize> = 34..54;
const TCP_FLAGS: usize = 47;
const TCP_CHECKSUM: usize = 50;

/// Source and destination address, source and destination port, as they stand in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tuple([u8; 12]);

impl Tuple {
    /// That of the `n`th client.
    pub(crate) fn of_client(n: u32) -> Self {
        let client = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + n / 1024;
        let port = 20_000 + (n % 1024) as u16;
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&client.to_be_bytes());
        bytes[4..8].copy_from_slice(&VIP.0.octets());
        bytes[8..10].copy_from_slice(&port.to_be_bytes());
        bytes[10..].copy_from_slice(&VIP.1.to_be_bytes());
        Self(bytes)
    }

    /// That of a whole frame of ours, or of what a forwarder made of it.
    pub(crate) fn of_frame(frame: &[u8]) -> Option<Self> {
        let sound = is_ours(frame)
            && checksum::sum(&frame[IP]) == 0xffff
            && checksum::l4(&frame[TUPLE..TUPLE + 8], 6, &frame[TCP]) == 0;
        sound.then(|| Self(std::array::from_fn(|at| frame[TUPLE + at])))
    }

    /// That of the answer.
    pub(crate) fn turned(self) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.0;
        Self([e, f, g, h, a, b, c, d, k, l, i, j])
    }
}

/// TCP over IPv4 of our length: what the kernel says of its own accord (ARP, say) is not counted.
#[inline]
pub(crate) fn is_ours(frame: &[u8]) -> bool {
    frame.len() == LEN && frame[12..14] == [8, 0] && frame[23] == 6
}

/// Frames with the same flags, in the order they are sent.
#[derive(Clone)]
pub(crate) struct Frames {
    template: [u8; LEN],
    own: Vec<Own>,
}

/// What one frame has for itself.
#[derive(Clone, Copy)]
struct Own {
    tuple: Tuple,
    ip_checksum: [u8; 2],
    tcp_checksum: [u8; 2],
}

impl Frames {
    /// A frame for each tuple.
    pub(crate) fn new(to: MacAddr, flags: u8, tuples: &[Tuple]) -> Self {
        let mut template = [0; LEN];
        let any = SocketAddr::from(VIP);
        let packet = TestPacket::between(any, any, Protocol::Tcp).to_mac(to).padded_to(LEN);
        template.copy_from_slice(&packet.bytes());
        template[TCP_FLAGS] = flags;
        for checksum in [IP_CHECKSUM, TCP_CHECKSUM] {
            template[checksum..checksum + 2].fill(0);
        }
        let mut frame = template;
        let mut own = |tuple: &Tuple| {
            frame[TUPLE..TUPLE + 12].copy_from_slice(&tuple.0);
            Own {
                tuple: *tuple,
                ip_checksum: (!checksum::sum(&frame[IP])).to_ne_bytes(),
                tcp_checksum: checksum::l4(&frame[TUPLE..TUPLE + 8], 6, &frame[TCP]).to_ne_bytes(),
            }
        };
        Self { template, own: tuples.iter().map(&mut own).collect() }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.own.len()
    }

    /// Writes one of them.
    #[inline]
    pub(crate) fn write(&self, at: usize, frame: &mut [u8; LEN]) {
        let Own { tuple, ip_checksum, tcp_checksum } = &self.own[at];
        *frame = self.template;
        frame[IP_CHECKSUM..IP_CHECKSUM + 2].copy_from_slice(ip_checksum);
        frame[TUPLE..TUPLE + 12].copy_from_slice(&tuple.0);
        frame[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(tcp_checksum);
    }
}

/// Puts them into an order that is the same in every run (Fisher-Yates, by xorshift).
pub(crate) fn shuffle(tuples: &mut [Tuple]) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..tuples.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        tuples.swap(at, (random % (at as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_frame_is_sound_and_has_its_tuple() {
        let tuples: Vec<Tuple> = (0..3000).map(Tuple::of_client).collect();
        let frames = Frames::new(MacAddr([2, 0, 0, 0, 0, 1]), 0x10, &tuples);
        for (at, tuple) in tuples.iter().enumerate() {
            let mut frame = [0; LEN];
            frames.write(at, &mut frame);
            assert_eq!(Tuple::of_frame(&frame), Some(*tuple));
            assert_eq!(tuple.turned().turned(), *tuple);
            frame[30] ^= 1;
            assert_eq!(Tuple::of_frame(&frame), None, "a damaged one is not");
        }
    }
}
