//! ListenerSets: whose Gateway they join, and whether it lets them.

use std::collections::BTreeMap;

use penstock_gateway_types::{GROUP, ListenerSet, Time};

use super::certificate::Certificates;
use super::conflict::{self, Waits};
use super::frontend::Frontend;
use super::gateway::{self, Age, Plan as GatewayPlan};
use super::listener::{Owner, Plan as ListenerPlan};
use super::namespace::AllowedNamespaces;
use super::verdict::Refusal;
use super::{CONTROLLER_NAME, Note};
use crate::object::{Kind, NamespacedName, ObjectKey, Objects};

/// A ListenerSet whose Gateway is ours.
pub(super) struct Plan<'a> {
    pub(super) name: &'a NamespacedName,
    created: Option<&'a Time>,
    pub(super) gateway: &'a NamespacedName,
    /// An error is its `Accepted` condition, and then none of its listeners exists.
    pub(super) allowed: Result<(), Refusal>,
    pub(super) listeners: Vec<ListenerPlan<'a>>,
}

impl<'a> Plan<'a> {
    pub(super) fn age(&self) -> Age<'a> {
        gateway::age(self.created, self.name)
    }
}

/// The ListenerSets of our Gateways, in the order in which they take ports: oldest first. Their listeners
/// are marked where they conflict with what came first.
pub(super) fn join<'a>(
    objects: &'a Objects,
    gateways: &BTreeMap<NamespacedName, GatewayPlan<'a>>,
    certificates: &Certificates<'_>,
    notes: &mut Vec<Note>,
) -> Vec<Plan<'a>> {
    let mut plans = Vec::new();
    for (name, set) in &objects.listener_sets {
        let Some(parent) = gateway_of(name, set) else { continue };
        match gateways.get(&parent) {
            Some(gateway) => plans.push(plan(name, set, gateway, objects, certificates)),
            None if !objects.gateways.contains_key(&parent) => {
                let message = format!(
                    "its Gateway {parent} does not exist, or is refused: write one whose class names \
                     {CONTROLLER_NAME}"
                );
                notes.push(Note { object: ObjectKey::of(Kind::ListenerSet, name), message });
            }
            None => {} // somebody else's
        }
    }
    plans.sort_by(|one, other| one.age().cmp(&other.age()));
    mark_conflicts(&mut plans, gateways);
    plans
}

/// The Gateway that a ListenerSet names; `None` if it names something else.
fn gateway_of(name: &NamespacedName, set: &ListenerSet) -> Option<NamespacedName> {
    let parent = &set.spec.parent_ref;
    let (group, kind) = (parent.group.as_deref(), parent.kind.as_deref());
    let namespace = parent.namespace.as_deref().unwrap_or(&name.namespace);
    (group.unwrap_or(GROUP) == GROUP && kind.unwrap_or("Gateway") == "Gateway")
        .then(|| NamespacedName::new(namespace, &parent.name))
}

fn plan<'a>(
    name: &'a NamespacedName,
    set: &'a ListenerSet,
    gateway: &GatewayPlan<'a>,
    objects: &Objects,
    certificates: &Certificates<'_>,
) -> Plan<'a> {
    let allowed = allow(name, gateway, objects);
    let owner = Owner { kind: Kind::ListenerSet, name };
    let frontend = Frontend::of(gateway.name, gateway.gateway);
    let specs = set.spec.listeners.iter().filter(|_| allowed.is_ok());
    let listeners =
        specs.map(|spec| ListenerPlan::of(spec, owner, &frontend, certificates)).collect();
    let created = set.metadata.creation_timestamp.as_ref();
    Plan { name, created, gateway: gateway.name, allowed, listeners }
}

/// Whether the Gateway takes listeners from the set's namespace, and serves at all.
fn allow(
    name: &NamespacedName,
    gateway: &GatewayPlan<'_>,
    objects: &Objects,
) -> Result<(), Refusal> {
    let allowed = AllowedNamespaces::of_sets(gateway.gateway, &gateway.name.namespace);
    let allowed = allowed.map_err(|refusal| Refusal::new("NotAllowed", refusal.message))?;
    if !allowed.allow(&name.namespace, objects) {
        let message = format!(
            "Gateway {} takes no ListenerSets from namespace {}: let its allowedListeners.namespaces say so",
            gateway.name, name.namespace
        );
        return Err(Refusal::new("NotAllowed", message));
    }
    let refused = gateway.accepted.as_ref().err();
    refused.map_or(Ok(()), |refusal| {
        let message = format!("Gateway {} is not accepted: {}", gateway.name, refusal.message);
        Err(Refusal::new("ParentNotAccepted", message))
    })
}

/// Marks the listeners that give way to what came first: the Gateway's own, older sets', and those above in their
/// own set.
fn mark_conflicts<'a>(
    plans: &mut [Plan<'a>],
    gateways: &BTreeMap<NamespacedName, GatewayPlan<'a>>,
) {
    let mut earlier: BTreeMap<(&NamespacedName, i32), Vec<Waits<'_>>> = BTreeMap::new();
    for gateway in gateways.values() {
        for listener in &gateway.listeners {
            let of_port = earlier.entry((gateway.name, listener.spec.port)).or_default();
            of_port.push(listener.waits.clone());
        }
    }
    for set in plans {
        for listener in &mut set.listeners {
            let before = earlier.entry((set.gateway, listener.spec.port)).or_default();
            listener.conflict = conflict::with_earlier(&listener.waits, before);
            if listener.conflict.is_none() {
                before.push(listener.waits.clone());
            }
        }
    }
}

/// Marks the listeners, of Gateways and of the sets that join them, that end TLS for the same names.
pub(super) fn mark_overlaps<'a>(
    gateways: &mut BTreeMap<NamespacedName, GatewayPlan<'a>>,
    sets: &mut [Plan<'a>],
) {
    let own = gateways.values().map(|gateway| (gateway.name, &gateway.listeners));
    let all: Vec<_> = own.chain(sets.iter().map(|set| (set.gateway, &set.listeners))).collect();
    let mut sharing: BTreeMap<(&NamespacedName, i32), Vec<&ListenerPlan<'_>>> = BTreeMap::new();
    for (gateway, listeners) in &all {
        for listener in *listeners {
            sharing.entry((gateway, listener.spec.port)).or_default().push(listener);
        }
    }
    let overlap = |gateway: &NamespacedName, one: &ListenerPlan<'_>| {
        conflict::overlap(one, sharing.get(&(gateway, one.spec.port)).map_or(&[], Vec::as_slice))
    };
    let found = all.iter().flat_map(|(gateway, listeners)| {
        listeners.iter().map(|one| overlap(gateway, one)).collect::<Vec<_>>()
    });
    let found: Vec<_> = found.collect();
    let own = gateways.values_mut().flat_map(|gateway| &mut gateway.listeners);
    let joined = sets.iter_mut().flat_map(|set| &mut set.listeners);
    for (listener, overlap) in own.chain(joined).zip(found) {
        listener.overlap = overlap;
    }
}
