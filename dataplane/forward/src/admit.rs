//! Which clients a listener lets in: those whose address is in one of its source ranges, or all if it has no list.
//!
//! Asked of packets that have no flow, where they are pinned, and so of each packet that goes to a backend without state:
//! with DSR, when the table is full. A flow is not asked again: who is shut out later keeps what he has, unless his
//! listener ends what nobody serves ([`removal`](crate::removal)). Pieces of datagrams and ICMP errors follow their flow;
//! those that have none are asked by the 5-tuple they are about. A client outside gets no answer, whatever the listener's
//! policies say: so a scanner learns nothing, and who forges a source makes us send nothing.

use std::net::IpAddr;

use crate::DropReason;
use crate::fib::Prefix;
use crate::flow::FlowKey;
use crate::pin::is_nobodys;
use crate::snapshot::{Listener, Snapshot};

/// The addresses of networks, by family, as spans in order, none of which touches another: found by halving, in eight
/// steps for 256 networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRanges {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl SourceRanges {
    /// Those of `prefixes`, in any order, overlapping or not. Of none, nobody is let in.
    #[must_use]
    pub fn new(prefixes: &[Prefix]) -> Self {
        let of_family = |v4: bool| {
            let family = prefixes.iter().filter(|prefix| prefix.address.is_ipv4() == v4);
            joined(family.map(|prefix| prefix.span()).collect())
        };
        let narrow = |(first, last): (u128, u128)| (first as u32, last as u32); // of IPv4: 32 bits
        let v4 = of_family(true).into_iter().map(narrow).collect();
        Self { v4, v6: of_family(false).into() }
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn have(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => within(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => within(&self.v6, v6.to_bits()),
        }
    }
}

/// Spans that touch or overlap are one.
fn joined(mut spans: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    spans.sort_unstable();
    spans.dedup_by(|(first, last), (_, kept)| {
        let touches = *first <= kept.saturating_add(1);
        *kept = if touches { (*kept).max(*last) } else { *kept };
        touches
    });
    spans
}

fn within<A: Ord + Copy>(spans: &[(A, A)], address: A) -> bool {
    let after = spans.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).and_then(|at| spans.get(at)).is_some_and(|(_, last)| address <= *last)
}

impl Listener {
    /// Whether a client's packet may begin a flow. Of a listener without a list: one look at a pointer beside what is
    /// read next.
    #[inline]
    pub(crate) fn admits(&self, client: &FlowKey) -> bool {
        self.source_ranges.as_ref().is_none_or(|ranges| ranges.have(client.source().ip()))
    }

    /// Why a client's packet without a flow is not let in; nothing if it is.
    #[inline]
    pub(crate) fn shuts_out(&self, client: &FlowKey, snapshot: &Snapshot) -> Option<DropReason> {
        (!self.admits(client)).then(|| {
            let forged = is_nobodys(client, snapshot);
            if forged { DropReason::Martian } else { DropReason::SourceRange }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str) -> SourceRanges {
        let prefix = |word: &str| {
            let (address, len) = word.split_once('/').unwrap();
            Prefix { address: address.parse().unwrap(), len: len.parse().unwrap() }
        };
        SourceRanges::new(&text.split_whitespace().map(prefix).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_is_in_a_network_or_not() {
        for (networks, inside, outside) in [
            ("", "", "192.0.2.1 2001:db8::1 0.0.0.0 ::"),
            ("0.0.0.0/0", "0.0.0.0 255.255.255.255 192.0.2.1", ":: 2001:db8::1 ::ffff:192.0.2.1"),
            ("::/0", ":: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "0.0.0.0 192.0.2.1"),
            ("192.0.2.1/32", "192.0.2.1", "192.0.2.0 192.0.2.2"),
            ("192.0.2.0/25", "192.0.2.0 192.0.2.127", "192.0.1.255 192.0.2.128"),
            (
                "10.2.0.0/16 10.0.0.0/16 10.1.0.0/16",
                "10.0.0.0 10.1.9.9 10.2.255.255",
                "9.255.255.255 10.3.0.0",
            ),
            ("10.0.0.0/8 10.1.0.0/16 12.0.0.0/8", "10.0.0.1 10.200.0.1 12.0.0.0", "11.0.0.0"),
            ("255.255.255.255/32 255.255.255.254/32", "255.255.255.254", "255.255.255.253 ::"),
            (
                "2001:db8:0:1::/64 2001:db8::/127",
                "2001:db8:0:1:ffff:ffff:ffff:ffff 2001:db8::1",
                "2001:db8:0:2:: 2001:db8::2 192.0.2.1",
            ),
        ] {
            let ranges = ranges(networks);
            let all = |text: &str, expected: bool| {
                for address in text.split_whitespace() {
                    assert_eq!(
                        ranges.have(address.parse().unwrap()),
                        expected,
                        "{address} of {networks}"
                    );
                }
            };
            all(inside, true);
            all(outside, false);
        }
    }

    #[test]
    fn networks_side_by_side_are_one_span() {
        assert_eq!(ranges("10.0.0.0/9 10.128.0.0/9"), ranges("10.0.0.0/8"));
        assert_eq!(ranges("::/1 8000::/1 2001:db8::/32"), ranges("::/0"));
        assert_ne!(ranges("10.0.0.0/9"), ranges("10.0.0.0/8"));
    }
}
