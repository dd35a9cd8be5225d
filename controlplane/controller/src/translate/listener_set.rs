//! ListenerSets: whose Gateway they join, and whether it lets them.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_gateway_types::{GROUP, ListenerSet};

use super::certificate::Certificates;
use super::conflict::{self, Waits};
use super::frontend::Frontend;
use super::gateway::{Age, Plan as GatewayPlan};
use super::listener::{Owner, Plan as ListenerPlan, Spec};
use super::look::View;
use super::namespace::AllowedNamespaces;
use super::verdict::Refusal;
use super::{CONTROLLER_NAME, Note};
use crate::object::{Kind, NamespacedName, ObjectKey};

/// A ListenerSet whose Gateway is ours.
pub(super) struct Plan {
    pub(super) name: NamespacedName,
    pub(super) age: Age,
    pub(super) gateway: NamespacedName,
    /// An error is its `Accepted` condition, and then none of its listeners exists.
    pub(super) allowed: Result<(), Refusal>,
    pub(super) listeners: Vec<ListenerPlan>,
}

impl Plan {
    /// Judges a ListenerSet that joins `gateway`.
    pub(super) fn of(
        name: &NamespacedName,
        set: &Arc<ListenerSet>,
        gateway: &GatewayPlan,
        view: View<'_>,
        certificates: Certificates<'_>,
    ) -> Self {
        let allowed = allow(name, gateway, view);
        let owner = Arc::new(Owner { kind: Kind::ListenerSet, name: name.clone() });
        let frontend = Frontend::of(&gateway.name, &gateway.gateway);
        let specs = (0..set.spec.listeners.len()).filter(|_| allowed.is_ok());
        let specs = specs.map(|index| Spec::OfListenerSet(Arc::clone(set), index));
        let mut listeners: Vec<_> =
            specs.map(|spec| ListenerPlan::of(spec, &owner, &frontend, certificates)).collect();
        for listener in &mut listeners {
            let own = view.settings(&owner, Some(&listener.spec.name));
            listener.settle(own.or(gateway.usual.clone()));
        }
        let age = Age::of(set.metadata.creation_timestamp.as_ref(), name);
        Self { name: name.clone(), age, gateway: gateway.name.clone(), allowed, listeners }
    }
}

/// What its author should know whose Gateway is nobody's.
pub(super) fn without_gateway(name: &NamespacedName, gateway: &NamespacedName) -> Note {
    let message = format!(
        "its Gateway {gateway} does not exist, or is refused: write one whose class names {CONTROLLER_NAME}"
    );
    Note { object: ObjectKey::of(Kind::ListenerSet, name), message }
}

/// The Gateway that a ListenerSet names; `None` if it names something else.
pub(crate) fn gateway_of(name: &NamespacedName, set: &ListenerSet) -> Option<NamespacedName> {
    let parent = &set.spec.parent_ref;
    let (group, kind) = (parent.group.as_deref(), parent.kind.as_deref());
    let namespace = parent.namespace.as_deref().unwrap_or(&name.namespace);
    (group.unwrap_or(GROUP) == GROUP && kind.unwrap_or("Gateway") == "Gateway")
        .then(|| NamespacedName::new(namespace, &parent.name))
}

/// Whether the Gateway takes listeners from the set's namespace, and serves at all.
fn allow(name: &NamespacedName, gateway: &GatewayPlan, view: View<'_>) -> Result<(), Refusal> {
    let allowed = AllowedNamespaces::of_sets(&gateway.gateway, &gateway.name.namespace);
    let allowed = allowed.map_err(|refusal| Refusal::new("NotAllowed", refusal.message))?;
    if !allowed.allow(&name.namespace, view) {
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

/// Marks the listeners of the sets of one Gateway, oldest first, that give way to what came first: the Gateway's
/// own, older sets', and those above in their own set.
pub(super) fn mark_conflicts(gateway: &GatewayPlan, sets: &mut [Plan]) {
    let mut earlier: BTreeMap<i32, Vec<Waits>> = BTreeMap::new();
    for listener in &gateway.listeners {
        earlier.entry(listener.spec.port).or_default().push(listener.waits.clone());
    }
    for listener in sets.iter_mut().flat_map(|set| &mut set.listeners) {
        let before = earlier.entry(listener.spec.port).or_default();
        listener.conflict = conflict::with_earlier(&listener.waits, before);
        if listener.conflict.is_none() {
            before.push(listener.waits.clone());
        }
    }
}

/// Marks the listeners, of a Gateway and of the sets that join it, that end TLS for the same names.
pub(super) fn mark_overlaps(gateway: &mut GatewayPlan, sets: &mut [Plan]) {
    let own = gateway.listeners.iter();
    let all: Vec<_> = own.chain(sets.iter().flat_map(|set| &set.listeners)).collect();
    let mut sharing: BTreeMap<i32, Vec<&ListenerPlan>> = BTreeMap::new();
    for listener in &all {
        sharing.entry(listener.spec.port).or_default().push(listener);
    }
    let overlap = |one: &&ListenerPlan| {
        conflict::overlap(one, sharing.get(&one.spec.port).map_or(&[], Vec::as_slice))
    };
    let found: Vec<_> = all.iter().map(overlap).collect();
    let own = gateway.listeners.iter_mut();
    let joined = sets.iter_mut().flat_map(|set| &mut set.listeners);
    for (listener, overlap) in own.chain(joined).zip(found) {
        listener.overlap = overlap;
    }
}
