//! Who gets which VIP, protocol and port, and the feed's state that follows.
//!
//! Gateways claim oldest first, so that a new one never takes what an old one serves. Within the feed's
//! limits, for the same reason: what does not fit is of the youngest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use penstock_feed::model::{Group, Listener, Mode, Name, PortRange, Protocol, State, limits};

use super::gateway::Plan as GatewayPlan;
use super::listener::{Plan as ListenerPlan, Serves};
use super::policy;
use super::route::Groups;
use super::{Note, Serving};
use crate::object::{Kind, NamespacedName, ObjectKey};

/// What each listener of each Gateway got, in the order of its spec.
pub(super) type Claims = BTreeMap<NamespacedName, Vec<Serving>>;

/// Grants the claims of `gateways`, which come oldest first.
pub(super) fn claim(
    gateways: &[&GatewayPlan<'_>],
    groups: &Groups,
    notes: &mut Vec<Note>,
) -> (State, Claims) {
    let (owners, state) = (BTreeMap::new(), State::default());
    let mut register = Register { groups, notes, owners, members: 0, state };
    let mut claims = Claims::new();
    for gateway in gateways {
        register.note_policies(gateway);
        let served = gateway.listeners.iter().map(|listener| register.serve(gateway, listener));
        claims.insert(gateway.name.clone(), served.collect());
    }
    (register.state, claims)
}

struct Register<'a> {
    groups: &'a Groups,
    notes: &'a mut Vec<Note>,
    owners: BTreeMap<(IpAddr, Protocol, PortRange), Name>,
    members: usize,
    state: State,
}

impl Register<'_> {
    fn serve(&mut self, gateway: &GatewayPlan<'_>, listener: &ListenerPlan<'_>) -> Serving {
        let mut serving = Serving::default();
        let (Ok(accepted), Ok(serves), None) =
            (&gateway.accepted, &listener.serves, &listener.conflict)
        else {
            return serving; // refused, which is answered elsewhere
        };
        for (index, address) in accepted.addresses.iter().enumerate() {
            let plain = format!("{}/{}", gateway.name, listener.spec.name);
            // The first address keeps the plain name, so that adding a second renames nothing.
            let text = if index == 0 { plain } else { format!("{plain}@{address}") };
            let name = Name::new(&text).map_err(|fault| fault.to_string());
            let free = name.and_then(|name| self.free(*address, *serves).map(|()| name));
            match free.and_then(|name| self.put(name, gateway, listener, *address, *serves)) {
                Ok(name) => serving.places.push((*address, name)),
                Err(obstacle) => serving.obstacles.push(obstacle),
            }
        }
        serving
    }

    fn free(&self, address: IpAddr, serves: Serves) -> Result<(), String> {
        let Some(owner) = self.owners.get(&(address, serves.protocol, serves.ports)) else {
            return Ok(());
        };
        let (ports, protocol) = (serves.ports, serves.protocol);
        let owner = owner.as_str().split('@').next().unwrap_or_default();
        Err(format!(
            "{address} port {ports}/{protocol} is served by listener {owner}, whose Gateway came first: \
             choose another port or address"
        ))
    }

    fn put(
        &mut self,
        name: Name,
        gateway: &GatewayPlan<'_>,
        listener: &ListenerPlan<'_>,
        address: IpAddr,
        serves: Serves,
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
        self.owners.insert((address, protocol, ports), name.clone());
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
        let route = listener.routes.first().zip(listener.kinds.first());
        match route.and_then(|(route, kind)| self.groups.get(&(*kind, route.clone()))) {
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
            None => {
                let name =
                    Name::new(&format!("gateway/{}/{}", gateway.name, listener.spec.name)).ok()?;
                Some((name, Arc::default()))
            }
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
