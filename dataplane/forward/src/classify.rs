//! Whose packet it is, for those that belong to no flow.
//!
//! In this order: to a VIP, protocol and L4 port, that listener; to a SNAT address, a reply whose flow is gone; to a
//! listener that has gone, its owner, who may know the flow; from a backend of a DNAT group, a reply; to an address of
//! the box (a VIP on a port without listener included, and a VIP of the L7 tier), the kernel; and the rest is for nobody.

use std::net::IpAddr;

use crate::exit::ShortExit;
use crate::flow::FlowKey;
use crate::journey::{Headers, Kind};
use crate::parse::{group_class, own_class};
use crate::snapshot::{Listener, Snapshot};
use crate::{DropReason, Protocol, PuntClass};

/// What a packet without a flow is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Class<'s> {
    /// A client's, for this listener.
    Listener(&'s Listener),
    /// TCP or UDP to a SNAT address: its owner knows the flow, or nobody does.
    FullNatReply,
    /// To a listener that has gone: its owner may know the flow. If it does not, this is its exit.
    Departed(ShortExit),
    /// From a backend of a DNAT group: its owner may know the flow. If it does not, this is its exit.
    DnatReply(ShortExit),
    /// None of these.
    Leave(ShortExit),
}

/// The class of one packet.
pub(crate) fn classify<'s>(headers: &Headers, key: &FlowKey, snapshot: &'s Snapshot) -> Class<'s> {
    let destination = key.destination();
    let protocol = key.protocol().filter(|_| headers.kind == Kind::Tuple);
    // No VIP is a SNAT address, so listeners may be asked first: of strangers, most want one.
    if let Some(listener) = protocol.and_then(|it| snapshot.listener_of(destination, it)) {
        return Class::Listener(listener);
    }
    if snapshot.is_snat(destination.ip()) {
        return match protocol {
            Some(_) => Class::FullNatReply,
            None => Class::Leave(ShortExit::punt(PuntClass::Other)),
        };
    }
    let Some(protocol) = protocol else { return Class::Leave(outside_flows(key, snapshot)) };
    if snapshot.is_departed(destination, protocol) {
        return Class::Departed(outside_flows(key, snapshot));
    }
    if snapshot.is_dnat_backend(key.source(), protocol) {
        return Class::DnatReply(outside_flows(key, snapshot));
    }
    Class::Leave(outside_flows(key, snapshot))
}

/// For the kernel, or for nobody.
pub(crate) fn outside_flows(key: &FlowKey, snapshot: &Snapshot) -> ShortExit {
    let (source, destination) = (key.source(), key.destination());
    let address = destination.ip();
    let to_many = match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    };
    ShortExit::punt(if to_many {
        group_class(key.protocol, address)
    } else if snapshot.is_own(address) {
        own_class(key.protocol, source.port(), destination.port())
    } else if key.protocol == Protocol::Tcp.number() && snapshot.is_kept(address) {
        PuntClass::L7
    } else if snapshot.is_local(address) {
        PuntClass::Other // a VIP's or a SNAT address's: anyone may send there
    } else {
        return DropReason::NotRouted.into();
    })
}
