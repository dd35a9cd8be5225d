//! The Toeplitz hash of RSS (Microsoft, *RSS Hashing Types*; DPDK's `rte_thash`).
//!
//! Each bit of the input that is set adds, by exclusive or, the 32 bits of the key that begin at its place. So
//! the hash of two inputs' exclusive or is the exclusive or of their hashes, and four bits at a time can be
//! looked up: 24 loads for a tuple of IPv4, 72 for one of IPv6, in 4.5 KiB.

use crate::flow::{FlowKey, V6};

/// Bytes of a tuple of IPv6: two addresses, two L4 ports.
const LONGEST_INPUT: usize = 36;
/// Bytes of key that such an input meets: its own length, and 32 bits on.
pub const KEY_LEN: usize = LONGEST_INPUT + 4;

/// Which L4 port of a tuple: so many bytes behind the addresses.
pub(super) const SOURCE: usize = 0;
pub(super) const DESTINATION: usize = 2;

/// What every value of the upper and the lower half of each byte of input adds.
#[derive(Clone, Debug)]
pub(super) struct Toeplitz(Box<[[[u32; 16]; 2]; LONGEST_INPUT]>);

impl Toeplitz {
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Self {
        let mut table = Box::new([[[0; 16]; 2]; LONGEST_INPUT]);
        for (byte, halves) in table.iter_mut().enumerate() {
            for (half, sums) in halves.iter_mut().enumerate() {
                for (value, sum) in sums.iter_mut().enumerate() {
                    let set = (0..4).filter(|bit| value >> (3 - bit) & 1 == 1);
                    *sum = set.fold(0, |sum, bit| sum ^ window(key, byte * 8 + half * 4 + bit));
                }
            }
        }
        Self(table)
    }

    /// The hash of addresses and L4 ports.
    #[inline]
    pub(super) fn hash(&self, key: &FlowKey) -> u32 {
        let ports = key.ports.to_ne_bytes();
        if key.family == V6 {
            self.sum(0, &key.wide) ^ self.sum(32, &ports)
        } else {
            self.sum(0, &key.addresses.to_ne_bytes()) ^ self.sum(8, &ports)
        }
    }

    /// What each bit of an L4 port adds, the lowest bit first; addresses of `address_len` bytes are before it.
    pub(super) fn port_columns(&self, address_len: usize, port_at: usize) -> [u32; 16] {
        let at = 2 * address_len + port_at;
        std::array::from_fn(|bit| self.sum(at, &(1_u16 << bit).to_be_bytes()))
    }

    /// What the bytes of input from `at` on add.
    #[inline]
    fn sum(&self, at: usize, bytes: &[u8]) -> u32 {
        let tables = self.0.get(at..).unwrap_or_default();
        let add = |sum, (byte, [upper, lower]): (&u8, &[[u32; 16]; 2])| {
            sum ^ upper[usize::from(byte >> 4)] ^ lower[usize::from(byte & 15)]
        };
        bytes.iter().zip(tables).fold(0, add)
    }
}

/// The 32 bits of the key from a bit on.
fn window(key: &[u8; KEY_LEN], bit: usize) -> u32 {
    let (byte, shift) = (bit / 8, bit % 8);
    let five = key[byte..byte + 5].iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (five >> (8 - shift)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    /// The key, tuples and hashes with which Microsoft lets drivers verify theirs (*Verifying the RSS Hash
    /// Calculation*).
    #[test]
    fn the_hash_is_that_of_microsofts_examples() {
        let key =
            b"\x6d\x5a\x56\xda\x25\x5b\x0e\xc2\x41\x67\x25\x3d\x43\xa3\x8f\xb0\xd0\xca\x2b\xcb\
            \xae\x7b\x30\xb4\x77\xcb\x2d\xa3\x80\x30\xf2\x0c\x6a\x42\xb7\x3b\xbe\xac\x01\xfa";
        let toeplitz = Toeplitz::new(key);
        let rows = [
            // source, destination, hash of addresses and ports
            ("66.9.149.187:2794", "161.142.100.80:1766", 0x51cc_c178),
            ("199.92.111.2:14230", "65.69.140.83:4739", 0xc626_b0ea),
            ("24.19.198.95:12898", "12.22.207.184:38024", 0x5c2b_394a),
            ("38.27.205.30:48228", "209.142.163.6:2217", 0xafc7_327f),
            ("153.39.163.191:44251", "202.188.127.2:1303", 0x10e8_28a2),
            ("[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x4020_7d3d),
            ("[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0xdde5_1bbf),
            (
                "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
                "[fe80::200:f8ff:fe21:67cf]:38024",
                0x02d1_feef,
            ),
        ];
        for (source, destination, expected) in rows {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let key = FlowKey::new(source, destination, protocol).unwrap();
                assert_eq!(toeplitz.hash(&key), expected, "{source} to {destination}");
            }
        }
    }
}
