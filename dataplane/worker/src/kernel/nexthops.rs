//! Nexthop objects (`ip nexthop`): next hops and groups of them that routes name by number.
//!
//! FRR installs its routes this way. The kernel spells them out inside each route as well while
//! `net.ipv4.nexthop_compat_mode` is 1, its default, but then tells nobody of a route when only the
//! object changed its mind; so we keep the objects and look them up. The packet crate has no type
//! for these messages (`struct nhmsg`, include/uapi/linux/nexthop.h), so they are read here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_core::{NlaBuffer, NlasIterator};

use super::Ifindex;
use super::routes::Hop;

/// Message types of the family, and the group they are sent to.
pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_DELNEXTHOP: u16 = 105;
pub(super) const RTM_GETNEXTHOP: u16 = 106;
pub(super) const RTNLGRP_NEXTHOP: u32 = 32;

/// The body of a request for all of them: an empty `struct nhmsg`.
pub(super) const GET_ALL: [u8; NHMSG_BYTES] = [0; NHMSG_BYTES];

const NHMSG_BYTES: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP: u16 = 8;
const RTNH_F_DEAD: u32 = 1;

/// What a route that names an object does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NextHopObject {
    /// One next hop.
    Hop(Hop),
    /// The packet vanishes.
    Blackhole,
    /// Other objects by number, with their weight.
    Group(Vec<(u32, u32)>),
}

/// All objects, by number.
pub(super) type NextHopObjects = BTreeMap<u32, NextHopObject>;

/// Reads one message's body. The object is `None` if it is of a kind that no route can use.
pub(super) fn decode(body: &[u8]) -> Option<(u32, Option<NextHopObject>)> {
    let header = body.first_chunk::<NHMSG_BYTES>()?;
    let flags = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let (mut id, mut object) = (None, None);
    let mut hop = Hop::by(Ifindex(0));
    hop.dead = flags & RTNH_F_DEAD != 0;
    for attribute in NlasIterator::new(&body[NHMSG_BYTES..]).flatten() {
        match attribute.kind() {
            NHA_ID => id = number(&attribute),
            NHA_GROUP => object = Some(NextHopObject::Group(members(attribute.value()))),
            NHA_BLACKHOLE => object = Some(NextHopObject::Blackhole),
            NHA_OIF => hop.index = Ifindex(number(&attribute)?),
            NHA_GATEWAY => hop.gateway = Some(address(attribute.value())?),
            NHA_ENCAP => hop.encapsulated = true,
            _ => {}
        }
    }
    if object.is_none() && hop.index != Ifindex(0) {
        object = Some(NextHopObject::Hop(hop));
    }
    Some((id?, object))
}

fn number(attribute: &NlaBuffer<&[u8]>) -> Option<u32> {
    attribute.value().first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// `struct nexthop_grp`: number, weight less one, its high byte (since Linux 6.12, else zero).
fn members(value: &[u8]) -> Vec<(u32, u32)> {
    let (entries, _) = value.as_chunks::<8>();
    let entry = |bytes: &[u8; 8]| {
        let id = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        (id, u32::from(u16::from_le_bytes([bytes[4], bytes[5]])) + 1)
    };
    entries.iter().map(entry).collect()
}

/// The next hops behind object `id`, weighted: `None` if it is not known, none at all if the packet
/// is to vanish.
pub(super) fn resolve(objects: &NextHopObjects, id: u32) -> Option<Vec<Hop>> {
    match objects.get(&id)? {
        NextHopObject::Hop(hop) => Some(vec![*hop]),
        NextHopObject::Blackhole => Some(Vec::new()),
        NextHopObject::Group(members) => {
            let hops = members.iter().filter_map(|(id, weight)| match objects.get(id) {
                Some(NextHopObject::Hop(hop)) => Some(Hop { weight: *weight, ..*hop }),
                _ => None, // gone a moment ago, or a black hole, which is a group's only member
            });
            Some(hops.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = 4 + value.len() as u16;
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn objects_are_read_and_nonsense_is_not() {
        let mut hop = Hop::by(Ifindex(7));
        hop.gateway = Some([10, 10, 0, 1].into());
        let id = attribute(NHA_ID, &5u32.to_ne_bytes());
        let oif = attribute(NHA_OIF, &7u32.to_ne_bytes());
        let group = [1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0xff, 1, 0, 0];
        let rows = [
            (
                "a next hop",
                [&id[..], &oif, &attribute(NHA_GATEWAY, &[10, 10, 0, 1])].concat(),
                Some((5, Some(NextHopObject::Hop(hop)))),
            ),
            (
                "a group, with a weight above 256",
                [&id[..], &attribute(NHA_GROUP, &group)].concat(),
                Some((5, Some(NextHopObject::Group(vec![(1, 3), (2, 512)])))),
            ),
            (
                "a black hole",
                [&id[..], &attribute(NHA_BLACKHOLE, &[])].concat(),
                Some((5, Some(NextHopObject::Blackhole))),
            ),
            ("a number alone", id.clone(), Some((5, None))),
            ("a next hop without a number", oif.clone(), None),
            ("a gateway of five bytes", [&id[..], &attribute(NHA_GATEWAY, &[1; 5])].concat(), None),
            ("an interface of one byte", [&id[..], &attribute(NHA_OIF, &[1])].concat(), None),
        ];
        for (what, attributes, expected) in rows {
            let body = [&GET_ALL[..], &attributes].concat();
            assert_eq!(decode(&body), expected, "{what}");
            for len in 0..body.len() {
                let _cut_short = decode(&body[..len]); // anything but a panic
            }
        }
    }
}
