//! What is wrong with a value by itself, in words that follow it in a sentence.

use std::net::{IpAddr, SocketAddr};

/// Why no packet could be sent to one host by `address`.
pub(crate) fn of(address: IpAddr) -> Option<&'static str> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    (address.is_unspecified() || address.is_multicast() || broadcast)
        .then_some("is no unicast address: a packet could not be sent to one host by it")
}

/// Why `address` can be no member of a group.
pub(crate) fn of_member(address: SocketAddr) -> Option<&'static str> {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 || v6.flowinfo() != 0 => {
            Some("has a scope or flow label, which the feed does not carry: leave them zero")
        }
        _ if address.port() == 0 => {
            Some("has port 0: give the L4 port that the backend listens on")
        }
        _ => of(address.ip()),
    }
}
