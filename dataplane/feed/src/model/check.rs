//! What only the whole of a state can show to be wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Listener, Name, ObjectError, ObjectId, ObjectKind, Protocol, State, faults};

pub(super) fn check(state: &State) -> Vec<ObjectError> {
    let mut errors = Vec::new();
    references(state, &mut errors);
    overlaps(state, &mut errors);
    addresses(state, &mut errors);
    vips(state, &mut errors);
    errors.extend(super::l7::check(&state.l7));
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
        if let Some(fault) = faults::of(listener.vip) {
            refuse(errors, ObjectKind::Listener, name, format!("its VIP {} {fault}", listener.vip));
        }
        let ranges = listener.source_ranges.as_ref();
        if let Some(foreign) = ranges.and_then(|ranges| ranges.foreign_to(listener.vip)) {
            let vip = listener.vip;
            let message = format!(
                "its source range {foreign} is not of the family of its VIP {vip}: leave it out, no client of it comes"
            );
            refuse(errors, ObjectKind::Listener, name, message);
        }
    }
    for (name, group) in &state.groups {
        for address in group.members.keys() {
            if let Some(fault) = faults::of_member(*address) {
                refuse(errors, ObjectKind::Group, name, format!("its member {address} {fault}"));
            }
        }
    }
    for (name, pool) in &state.snat_pools {
        for address in &pool.addresses {
            if let Some(fault) = faults::of(*address) {
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
        let fault = faults::of(next_hop.via).or_else(|| faults::of(*address));
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

fn vips(state: &State, errors: &mut Vec<ObjectError>) {
    for address in state.vips.keys() {
        if let (Some(fault), Ok(name)) = (faults::of(*address), Name::new(&address.to_string())) {
            refuse(errors, ObjectKind::Vip, &name, format!("{address} {fault}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{
        Affinity, Group, Map, Member, Mode, NextHop, Policies, PortRange, Prefix, SnatPool,
        SourceRanges,
    };
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn listen(state: &mut State, at: &str, protocol: Protocol, first: u16, last: u16) {
        let listener = Listener {
            vip: [192, 0, 2, 1].into(),
            protocol,
            ports: PortRange::new(first, last).unwrap(),
            mode: Mode::Dnat,
            group: name("g"),
            affinity: Affinity::Tuple,
            policies: Policies::default(),
            source_ranges: None,
            snat_pool: None,
        };
        state.listeners.insert_mut(name(at), listener);
    }

    fn ranges(address: impl Into<IpAddr>) -> SourceRanges {
        SourceRanges::new(Prefix::new(address.into(), 8)).unwrap()
    }

    fn member(state: &mut State, address: &str) {
        let group = Arc::make_mut(state.groups.get_mut("g").unwrap());
        group.members.insert(address.parse().unwrap(), Member { weight: 1, draining: false });
    }

    /// What a whole state may not be, a row each, with who is told and in which words.
    #[test]
    fn a_fault_is_told_at_the_object_that_can_be_refused_for_it() {
        type Spoil = fn(&mut State);
        let rows: &[(&str, Spoil, &str)] = &[
            ("nothing wrong", |_| {}, ""),
            ("UDP beside TCP", |s| listen(s, "b", Protocol::Udp, 80, 90), ""),
            ("the port after", |s| listen(s, "b", Protocol::Tcp, 91, 95), ""),
            (
                "a shared port",
                |s| listen(s, "b", Protocol::Tcp, 90, 95),
                "listener b: 192.0.2.1 tcp ports 90-95 overlap ports 80-90 of listener a: keep one of the two",
            ),
            (
                "a port inside a range that is not the one before",
                |s| {
                    listen(s, "a", Protocol::Tcp, 80, 100);
                    listen(s, "b", Protocol::Tcp, 101, 102);
                    listen(s, "c", Protocol::Tcp, 85, 85);
                    listen(s, "d", Protocol::Tcp, 99, 99);
                },
                "listener c: 192.0.2.1 tcp ports 85 overlap ports 80-100 of listener a: keep one of the two\n\
                 listener d: 192.0.2.1 tcp ports 99 overlap ports 80-100 of listener a: keep one of the two",
            ),
            (
                "a group that is gone",
                |s| s.groups = Map::default(),
                "listener a: its group g does not exist: send the group with it",
            ),
            (
                "a pool that is gone",
                |s| s.listeners.get_mut("a").unwrap().snat_pool = Some(name("p")),
                "listener a: its SNAT pool p does not exist: send the pool with it",
            ),
            (
                "a multicast VIP",
                |s| s.listeners.get_mut("a").unwrap().vip = [224, 0, 0, 1].into(),
                "listener a: its VIP 224.0.0.1 is no unicast address: a packet could not be sent to one host by it",
            ),
            (
                "source ranges of its family",
                |s| s.listeners.get_mut("a").unwrap().source_ranges = Some(ranges([10, 0, 0, 0])),
                "",
            ),
            (
                "source ranges of the other family",
                |s| {
                    let ranges = Some(ranges([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0]));
                    s.listeners.get_mut("a").unwrap().source_ranges = ranges;
                },
                "listener a: its source range 2000::/8 is not of the family of its VIP 192.0.2.1: leave it out, no client of it comes",
            ),
            (
                "a member without a port",
                |s| member(s, "10.0.0.1:0"),
                "group g: its member 10.0.0.1:0 has port 0: give the L4 port that the backend listens on",
            ),
            (
                "a member with a scope",
                |s| member(s, "[fe80::1%3]:80"),
                "group g: its member [fe80::1%3]:80 has a scope or flow label, which the feed does not carry: leave them zero",
            ),
            (
                "a pool of broadcast",
                |s| {
                    let addresses = [[255, 255, 255, 255].into()].into();
                    s.snat_pools.insert_mut(name("p"), SnatPool { addresses });
                },
                "SNAT pool p: its address 255.255.255.255 is no unicast address: a packet could not be sent to one host by it",
            ),
            (
                "a gateway that is none",
                |s| {
                    let via = NextHop { via: [0, 0, 0, 0].into() };
                    s.next_hops.insert_mut([10, 0, 0, 1].into(), via);
                },
                "next hop 10.0.0.1: 10.0.0.1 via 0.0.0.0 is no unicast address: a packet could not be sent to one host by it",
            ),
        ];
        for (promise, spoil, expected) in rows {
            let mut state = State::default();
            state.groups.insert_mut(name("g"), Arc::new(Group::default()));
            listen(&mut state, "a", Protocol::Tcp, 80, 90);
            spoil(&mut state);
            let told: Vec<_> = state.check().iter().map(ToString::to_string).collect();
            assert_eq!(told.join("\n"), *expected, "{promise}");
        }
    }
}
