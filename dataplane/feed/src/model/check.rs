//! What only the whole of a state can show to be wrong.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::{Listener, Name, ObjectError, ObjectId, ObjectKind, Protocol, State};

pub(super) fn check(state: &State) -> Vec<ObjectError> {
    let mut errors = Vec::new();
    references(state, &mut errors);
    overlaps(state, &mut errors);
    addresses(state, &mut errors);
    errors
}

fn refuse(errors: &mut Vec<ObjectError>, kind: ObjectKind, name: &Name, message: String) {
    errors.push(ObjectError { object: ObjectId { kind, name: name.clone() }, message });
}

fn references(state: &State, errors: &mut Vec<ObjectError>) {
    for (name, listener) in &state.listeners {
        if !state.groups.contains_key(&listener.group) {
            let message =
                format!("its group {} does not exist: send the group with it", listener.group);
            refuse(errors, ObjectKind::Listener, name, message);
        }
        if let Some(pool) =
            listener.snat_pool.as_ref().filter(|pool| !state.snat_pools.contains_key(*pool))
        {
            let message = format!("its SNAT pool {pool} does not exist: send the pool with it");
            refuse(errors, ObjectKind::Listener, name, message);
        }
    }
}

/// Two listeners may share a VIP and protocol but no L4 port: neither would know its packets.
fn overlaps(state: &State, errors: &mut Vec<ObjectError>) {
    let mut places: BTreeMap<(IpAddr, Protocol), Vec<(&Name, &Listener)>> = BTreeMap::new();
    for (name, listener) in &state.listeners {
        places.entry((listener.vip, listener.protocol)).or_default().push((name, listener));
    }
    for ((vip, protocol), mut listeners) in places {
        listeners.sort_by_key(|(_, listener)| listener.ports);
        let mut widest: Option<(&Name, &Listener)> = None; // the one that reaches furthest so far
        for (name, listener) in listeners {
            match widest {
                Some((other, before)) if before.ports.last() >= listener.ports.first() => {
                    let message = format!(
                        "{vip} {protocol} ports {} overlap ports {} of listener {other}: keep one of the two",
                        listener.ports, before.ports
                    );
                    refuse(errors, ObjectKind::Listener, name, message);
                }
                _ => {}
            }
            if widest.is_none_or(|(_, before)| before.ports.last() < listener.ports.last()) {
                widest = Some((name, listener));
            }
        }
    }
}

fn addresses(state: &State, errors: &mut Vec<ObjectError>) {
    for (name, listener) in &state.listeners {
        if let Some(fault) = not_unicast(listener.vip) {
            refuse(errors, ObjectKind::Listener, name, format!("its VIP {} {fault}", listener.vip));
        }
    }
    for (name, group) in &state.groups {
        for address in group.members.keys() {
            if let Some(fault) = bad_member(*address) {
                refuse(errors, ObjectKind::Group, name, format!("its member {address} {fault}"));
            }
        }
    }
    for (name, pool) in &state.snat_pools {
        for address in &pool.addresses {
            if let Some(fault) = not_unicast(*address) {
                refuse(
                    errors,
                    ObjectKind::SnatPool,
                    name,
                    format!("its address {address} {fault}"),
                );
            }
        }
    }
    for (address, next_hop) in &state.next_hops {
        let fault = not_unicast(next_hop.via).or_else(|| not_unicast(*address));
        if let (Some(fault), Ok(name)) = (fault, Name::new(&address.to_string())) {
            refuse(
                errors,
                ObjectKind::NextHop,
                &name,
                format!("{address} via {} {fault}", next_hop.via),
            );
        }
    }
}

fn not_unicast(address: IpAddr) -> Option<&'static str> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    (address.is_unspecified() || address.is_multicast() || broadcast)
        .then_some("is no unicast address: a packet could not be sent to one host by it")
}

fn bad_member(address: SocketAddr) -> Option<&'static str> {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 || v6.flowinfo() != 0 => {
            Some("has a scope or flow label, which the feed does not carry: leave them zero")
        }
        _ if address.port() == 0 => {
            Some("has port 0: give the L4 port that the backend listens on")
        }
        _ => not_unicast(address.ip()),
    }
}
