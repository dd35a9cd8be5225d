//! Who gets which VIP, protocol and port, and the feed's state and the L7 tier's work that follow.
//!
//! Gateways claim oldest first, so that a new one never takes what an old one serves; a Gateway's ListenerSets
//! come after its own listeners, oldest first. Within the feed's limits, for the same reason: what does not fit
//! is of the youngest. L7 listeners of one Gateway share a port; to everyone else it is taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use penstock_feed::model::{Group, Listener, Mode, Name, PortRange, Protocol, State, limits};

use super::gateway::Plan as GatewayPlan;
use super::l7::{L7, L7Listener};
use super::listener::{Plan as ListenerPlan, Serves};
use super::listener_set::Plan as SetPlan;
use super::policy;
use super::route::Groups;
use super::{Note, Serving};
use crate::object::{Kind, NamespacedName, ObjectKey};

/// What each listener of each Gateway and ListenerSet got, in the order of its spec.
pub(super) type Claims = BTreeMap<(Kind, NamespacedName), Vec<Serving>>;

/// What all claims come to.
pub(super) struct Claimed {
    pub(super) state: State,
    pub(super) l7: L7,
    pub(super) claims: Claims,
}

/// Grants the claims of `gateways` and of the `sets` that join them, both oldest first.
pub(super) fn claim(
    gateways: &[&GatewayPlan<'_>],
    sets: &[SetPlan<'_>],
    groups: &Groups,
    notes: &mut Vec<Note>,
) -> Claimed {
    let mut joined: BTreeMap<&NamespacedName, Vec<&SetPlan<'_>>> = BTreeMap::new();
    for set in sets {
        joined.entry(set.gateway).or_default().push(set);
    }
    let (owners, state, l7) = (BTreeMap::new(), State::default(), L7::default());
    let mut register = Register { groups, notes, owners, members: 0, state, l7, l7_listeners: 0 };
    let mut claims = Claims::new();
    for gateway in gateways {
        register.note_policies(gateway);
        let served = gateway.listeners.iter().map(|listener| register.serve(gateway, listener));
        claims.insert((Kind::Gateway, gateway.name.clone()), served.collect());
        for set in joined.get(gateway.name).into_iter().flatten() {
            let served = set.listeners.iter().map(|listener| register.serve(gateway, listener));
            claims.insert((Kind::ListenerSet, set.name.clone()), served.collect());
        }
    }
    Claimed { state: register.state, l7: register.l7, claims }
}

/// How many listeners the L7 tier takes, at all places together.
const L7_LISTENERS: usize = limits::L7_LISTENERS;

/// Who has a port: a listener of a Gateway, and whether others of that Gateway may join it.
struct Owner {
    gateway: NamespacedName,
    listener: Name,
    l7: bool,
}

struct Register<'a> {
    groups: &'a Groups,
    notes: &'a mut Vec<Note>,
    owners: BTreeMap<(IpAddr, Protocol, PortRange), Owner>,
    members: usize,
    state: State,
    l7: L7,
    l7_listeners: usize,
}

impl Register<'_> {
    fn serve(&mut self, gateway: &GatewayPlan<'_>, listener: &ListenerPlan<'_>) -> Serving {
        let mut serving = Serving::default();
        let (Ok(accepted), Ok(serves), None) =
            (&gateway.accepted, &listener.serves, &listener.conflict)
        else {
            return serving; // refused, which is answered elsewhere
        };
        if let Some(fault) = &listener.blocked {
            serving.obstacles.push(fault.clone());
            return serving;
        }
        for (index, address) in accepted.addresses.iter().enumerate() {
            let plain = listener.owner.place(&listener.spec.name);
            // The first address keeps the plain name, so that adding a second renames nothing.
            let text = if index == 0 { plain } else { format!("{plain}@{address}") };
            let name = Name::new(&text).map_err(|fault| fault.to_string());
            let free = name.and_then(|name| self.free(gateway, *address, serves).map(|()| name));
            let put = free.and_then(|name| match &serves.l7 {
                None => {
                    let name = self.put(name, gateway, listener, *address, serves)?;
                    serving.places.push((*address, name));
                    Ok(())
                }
                Some(l7) => {
                    let place = SocketAddr::new(*address, serves.ports.first());
                    self.put_l7(name.clone(), gateway, place, serves, l7)?;
                    serving.l7.push((place, name));
                    Ok(())
                }
            });
            serving.obstacles.extend(put.err());
        }
        serving
    }

    fn free(
        &self,
        gateway: &GatewayPlan<'_>,
        address: IpAddr,
        serves: &Serves,
    ) -> Result<(), String> {
        let Some(owner) = self.owners.get(&(address, serves.protocol, serves.ports)) else {
            return Ok(());
        };
        if owner.gateway == *gateway.name && owner.l7 && serves.l7.is_some() {
            return Ok(()); // told apart by host name, or they would be in conflict
        }
        let (ports, protocol) = (serves.ports, serves.protocol);
        let owner = owner.listener.as_str().split('@').next().unwrap_or_default();
        Err(format!(
            "{address} port {ports}/{protocol} is served by listener {owner}, whose Gateway came first: \
             choose another port or address"
        ))
    }

    fn put_l7(
        &mut self,
        name: Name,
        gateway: &GatewayPlan<'_>,
        place: SocketAddr,
        serves: &Serves,
        listener: &L7Listener,
    ) -> Result<(), String> {
        if self.l7_listeners >= L7_LISTENERS {
            return Err(format!("the L7 tier holds {L7_LISTENERS} listeners, and all are taken"));
        }
        self.l7_listeners += 1;
        let key = (place.ip(), serves.protocol, serves.ports);
        let owner = || Owner { gateway: gateway.name.clone(), listener: name.clone(), l7: true };
        self.owners.entry(key).or_insert_with(owner);
        self.l7.places.entry(place).or_default().insert(name, listener.clone());
        Ok(())
    }

    fn put(
        &mut self,
        name: Name,
        gateway: &GatewayPlan<'_>,
        listener: &ListenerPlan<'_>,
        address: IpAddr,
        serves: &Serves,
    ) -> Result<Name, String> {
        let accepted = gateway.accepted.as_ref().map_err(|refusal| refusal.message.clone())?;
        let (mode, affinity) = (accepted.mode, accepted.affinity.of(address));
        let (group_name, group) =
            self.group(gateway, listener, address, mode).ok_or("its name is too long")?;
        self.note_unused_ports(gateway, listener, mode, serves.ports, &group);
        if self.state.listeners.size() >= limits::LISTENERS {
            return Err(format!(
                "the data plane holds {} listeners, and all are taken",
                limits::LISTENERS
            ));
        }
        self.put_group(&group_name, group)?;
        let (vip, protocol, ports) = (address, serves.protocol, serves.ports);
        let group = group_name;
        let (policies, snat_pool) = (accepted.policies, None);
        let record = Listener { vip, protocol, ports, mode, affinity, policies, group, snat_pool };
        self.state.listeners.insert_mut(name.clone(), record);
        let owner = Owner { gateway: gateway.name.clone(), listener: name.clone(), l7: false };
        self.owners.insert((address, protocol, ports), owner);
        Ok(name)
    }

    /// The group of the oldest route for an address; without a route, one of the listener's own that
    /// refuses. That for IPv4 has the plain name. Where endpoints of the address's family are none, a
    /// tunnel reaches those of the other.
    fn group(
        &mut self,
        gateway: &GatewayPlan<'_>,
        listener: &ListenerPlan<'_>,
        address: IpAddr,
        mode: Mode,
    ) -> Option<(Name, Arc<Group>)> {
        match listener.routes.first().and_then(|route| self.groups.get(route)) {
            Some((name, [v4, v6])) => {
                let (own, other) = if address.is_ipv4() { (v4, v6) } else { (v6, v4) };
                let none_of_its_family = own.members.is_empty() && !other.members.is_empty();
                if none_of_its_family && !mode.is_tunnel() {
                    self.note_other_family(gateway, listener, address);
                }
                let crosses = none_of_its_family && mode.is_tunnel();
                let name = match address.is_ipv4() != crosses {
                    true => name.clone(),
                    false => Name::new(&format!("{name}@ipv6")).ok()?,
                };
                Some((name, Arc::clone(if crosses { other } else { own })))
            }
            None => Some((listener.owner.group(&listener.spec.name)?, Arc::default())),
        }
    }

    fn note_policies(&mut self, gateway: &GatewayPlan<'_>) {
        let Ok(accepted) = &gateway.accepted else { return };
        let object = || ObjectKey::of(Kind::Gateway, gateway.name);
        let notes = policy::notes(accepted.policies, accepted.mode);
        self.notes.extend(notes.map(|message| Note { object: object(), message }));
    }

    /// With DSR the backend gets what the client sent, L4 port and all.
    fn note_unused_ports(
        &mut self,
        gateway: &GatewayPlan<'_>,
        listener: &ListenerPlan<'_>,
        mode: Mode,
        ports: PortRange,
        group: &Group,
    ) {
        let mut addresses = group.members.keys();
        let other = addresses.find(|at| !(ports.first()..=ports.last()).contains(&at.port()));
        if let Some(endpoint) = other.filter(|_| mode.is_dsr()) {
            let message = format!(
                "listener {}: mode {mode} keeps the L4 port, so port {} of endpoint {} is not used; let the \
                 endpoint serve port {} on the Gateway's address",
                listener.spec.name,
                endpoint.port(),
                endpoint.ip(),
                ports.first()
            );
            self.notes.push(Note { object: ObjectKey::of(Kind::Gateway, gateway.name), message });
        }
    }

    fn note_other_family(
        &mut self,
        gateway: &GatewayPlan<'_>,
        listener: &ListenerPlan<'_>,
        address: IpAddr,
    ) {
        let (ours, theirs) = if address.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        let message = format!(
            "listener {}: {address} is {ours} and every endpoint of its route is {theirs}: its flows are \
             refused; give the Services {ours} endpoints",
            listener.spec.name
        );
        self.notes.push(Note { object: ObjectKey::of(Kind::Gateway, gateway.name), message });
    }

    fn put_group(&mut self, name: &Name, group: Arc<Group>) -> Result<(), String> {
        if self.state.groups.contains_key(name) {
            return Ok(());
        }
        let members = self.members + group.members.len();
        if self.state.groups.size() >= limits::GROUPS || members > limits::MEMBERS {
            return Err(format!(
                "the data plane holds {} groups and {} backends, and group {name} with {} does not fit",
                limits::GROUPS,
                limits::MEMBERS,
                group.members.len()
            ));
        }
        self.members = members;
        self.state.groups.insert_mut(name.clone(), group);
        Ok(())
    }
}
