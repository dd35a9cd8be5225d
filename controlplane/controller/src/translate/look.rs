//! Looks at objects, and who looked: by that a change finds those whose judgement may be another one now.
//!
//! Whoever judges an object sees others by a [`View`] only, which notes every look. So a judgement can be kept
//! until something that was looked at changes, and nobody has to say by hand what depends on what.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use penstock_gateway_types::{
    AddressPool, Backend, ConfigMap, EndpointSlice, GatewayClass, GatewayParameters, Namespace,
    Secret, Service,
};

use super::backend::Slices;
use super::grant::Grants;
use super::l4_policy::L4Policies;
use super::listener::Owner;
use super::service;
use super::settings::Settings;
use crate::health::{Asked, Check};
use crate::object::{Kind, NamespacedName, ObjectKey, Objects};
use crate::observed::{Named, Observed};

/// The objects, as who judges one of them sees the others.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    objects: &'a Objects,
    grants: &'a Grants,
    slices: &'a Slices,
    policies: &'a L4Policies,
    observed: &'a Observed,
    looks: &'a Looks,
}

impl<'a> View<'a> {
    pub(super) fn of(
        objects: &'a Objects,
        grants: &'a Grants,
        slices: &'a Slices,
        policies: &'a L4Policies,
        observed: &'a Observed,
        looks: &'a Looks,
    ) -> Self {
        Self { objects, grants, slices, policies, observed, looks }
    }

    pub(super) fn parameters(&self, name: &NamespacedName) -> Option<&'a GatewayParameters> {
        self.looks.note(ObjectKey::of(Kind::GatewayParameters, name));
        self.objects.gateway_parameters.get(name).map(AsRef::as_ref)
    }

    pub(super) fn backend(&self, name: &NamespacedName) -> Option<&'a Backend> {
        self.looks.note(ObjectKey::of(Kind::Backend, name));
        self.objects.backends.get(name).map(AsRef::as_ref)
    }

    /// What L4Policies say of a listener of `owner`, or of all of them.
    pub(super) fn settings(&self, owner: &Owner, listener: Option<&str>) -> Settings {
        let object = ObjectKey::of(owner.kind, &owner.name);
        self.looks.note(policies_of(&service::subject(&object)));
        self.looks.note(policies_of(&object));
        self.policies.listener(owner, listener)
    }

    /// The health check of a route, a Service or a Backend, and the L4Policy that asks for it.
    pub(super) fn check(&self, object: &ObjectKey) -> Option<(&'a NamespacedName, &'a Arc<Check>)> {
        self.looks.note(policies_of(object));
        self.policies.check(object)
    }

    /// Notes a look at the health check that the parameters of a Gateway ask for.
    pub(super) fn sees_usual_check(&self, gateway: &NamespacedName) {
        self.looks.note(usual_check_of(gateway));
    }

    /// What a name came to.
    pub(super) fn named(&self, hostname: &str) -> Option<&'a Named> {
        self.looks.note(name_of(hostname));
        self.observed.names.get(hostname)
    }

    pub(super) fn is_unhealthy(&self, asked: &Asked) -> bool {
        self.looks.note(health_of(asked.backend));
        self.observed.unhealthy.contains(asked)
    }

    pub(super) fn class(&self, name: &str) -> Option<&'a GatewayClass> {
        self.looks.note(ObjectKey::cluster(Kind::GatewayClass, name));
        self.objects.gateway_classes.get(name).map(AsRef::as_ref)
    }

    pub(super) fn namespace(&self, name: &str) -> Option<&'a Namespace> {
        self.looks.note(ObjectKey::cluster(Kind::Namespace, name));
        self.objects.namespaces.get(name).map(AsRef::as_ref)
    }

    pub(super) fn service(&self, name: &NamespacedName) -> Option<&'a Service> {
        self.looks.note(ObjectKey::of(Kind::Service, name));
        self.objects.services.get(name).map(AsRef::as_ref)
    }

    /// The EndpointSlices of a Service. A change of one counts as the Service's.
    pub(super) fn slices(
        &self,
        service: &NamespacedName,
    ) -> impl Iterator<Item = &'a EndpointSlice> {
        self.looks.note(ObjectKey::of(Kind::Service, service));
        let (slices, objects) = (self.slices, self.objects);
        slices.of(service).filter_map(|name| objects.endpoint_slices.get(name)).map(AsRef::as_ref)
    }

    pub(super) fn secret(&self, name: &NamespacedName) -> Option<&'a Secret> {
        self.looks.note(ObjectKey::of(Kind::Secret, name));
        self.objects.secrets.get(name).map(AsRef::as_ref)
    }

    pub(super) fn config_map(&self, name: &NamespacedName) -> Option<&'a ConfigMap> {
        self.looks.note(ObjectKey::of(Kind::ConfigMap, name));
        self.objects.config_maps.get(name).map(AsRef::as_ref)
    }

    /// All pools: who looks at them judges anew when any changes, without a note.
    pub(super) fn pools(&self) -> impl Iterator<Item = (&'a str, &'a AddressPool)> {
        self.objects.address_pools.iter().map(|(name, pool)| (name.as_str(), pool.as_ref()))
    }

    /// Whether there is such an object, of ours or not.
    pub(super) fn exists(&self, key: &ObjectKey) -> bool {
        self.looks.note(key.clone());
        self.objects.get(key).is_some()
    }

    /// Whether an object of kind `from` in `namespace` may refer to `name` of kind `to`. Within a namespace it
    /// always may.
    pub(super) fn allows(
        &self,
        from: Kind,
        namespace: &str,
        to: Kind,
        name: &NamespacedName,
    ) -> bool {
        if namespace == name.namespace {
            return true;
        }
        self.looks.note(grants_of(&name.namespace));
        self.grants.allow(from, namespace, to, name)
    }
}

/// What stands for all ReferenceGrants of a namespace.
pub(super) fn grants_of(namespace: &str) -> ObjectKey {
    ObjectKey::of(Kind::ReferenceGrant, &NamespacedName::new(namespace, ""))
}

/// What stands for all L4Policies about an object.
pub(super) fn policies_of(object: &ObjectKey) -> ObjectKey {
    stands_for(Kind::L4Policy, object)
}

/// What stands for the health check that the parameters of a Gateway ask for.
pub(super) fn usual_check_of(gateway: &NamespacedName) -> ObjectKey {
    stands_for(Kind::GatewayParameters, gateway)
}

/// What stands for the addresses of a name.
pub(super) fn name_of(hostname: &str) -> ObjectKey {
    stands_for(Kind::Backend, &hostname)
}

/// What stands for the health of a backend.
pub(super) fn health_of(backend: SocketAddr) -> ObjectKey {
    stands_for(Kind::Backend, &backend)
}

/// A key that is no object's, since those of these kinds have namespaces.
fn stands_for(kind: Kind, what: &dyn ToString) -> ObjectKey {
    ObjectKey { kind, namespace: String::new(), name: what.to_string() }
}

/// What was looked at while something was judged.
#[derive(Debug, Default)]
pub(super) struct Looks(RefCell<BTreeSet<ObjectKey>>);

impl Looks {
    pub(super) fn note(&self, key: ObjectKey) {
        self.0.borrow_mut().insert(key);
    }

    /// What was noted since this was called last.
    pub(super) fn take(&self) -> BTreeSet<ObjectKey> {
        self.0.take()
    }
}

/// A judgement that may have to be made anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Judgement {
    /// Which addresses Gateways have.
    Addresses,
    /// Of a Gateway by itself.
    Gateway(Arc<NamespacedName>),
    /// Of a ListenerSet at its Gateway.
    ListenerSet(Arc<NamespacedName>),
    /// To which listeners a route is attached.
    Attachment(Arc<ObjectKey>),
    /// Where a route sends.
    Backends(Arc<ObjectKey>),
    /// Of a BackendTLSPolicy.
    Policy(Arc<NamespacedName>),
    /// Of a GatewayClass.
    Class(Arc<str>),
    /// What is said to an L4Policy.
    L4Policy(Arc<NamespacedName>),
    /// What is said to a Backend.
    Backend(Arc<NamespacedName>),
}

/// Which judgements looked at which objects.
#[derive(Debug, Default)]
pub(super) struct Lookers {
    of: BTreeMap<Arc<ObjectKey>, BTreeSet<Judgement>>,
    by: BTreeMap<Judgement, Vec<Arc<ObjectKey>>>,
}

impl Lookers {
    /// Takes note that `judgement` came of `looks`, and of nothing that it looked at before.
    pub(super) fn set(&mut self, judgement: Judgement, looks: BTreeSet<ObjectKey>) {
        let before = self.by.remove(&judgement).unwrap_or_default();
        for key in before.iter().filter(|key| !looks.contains(&***key)) {
            if let Some(lookers) = self.of.get_mut(&**key) {
                lookers.remove(&judgement);
                if lookers.is_empty() {
                    self.of.remove(&**key);
                }
            }
        }
        let mut keys = Vec::with_capacity(looks.len());
        for key in looks {
            let key = match before.iter().find(|before| ***before == key) {
                Some(known) => Arc::clone(known),
                None => self.look(key, &judgement),
            };
            keys.push(key);
        }
        if !keys.is_empty() {
            self.by.insert(judgement, keys);
        }
    }

    fn look(&mut self, key: ObjectKey, judgement: &Judgement) -> Arc<ObjectKey> {
        let known = self.of.get_key_value(&key).map(|(known, _)| Arc::clone(known));
        let key = known.unwrap_or_else(|| Arc::new(key));
        self.of.entry(Arc::clone(&key)).or_default().insert(judgement.clone());
        key
    }

    /// The judgements that came of a look at `key`.
    pub(super) fn of(&self, key: &ObjectKey) -> impl Iterator<Item = &Judgement> {
        self.of.get(key).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judgement_is_found_by_what_it_looked_at_last() {
        let key = |name: &str| ObjectKey::of(Kind::Service, &NamespacedName::new("default", name));
        let policy = |name: &str| Judgement::Policy(Arc::new(NamespacedName::new("default", name)));
        let mut lookers = Lookers::default();
        let found = |lookers: &Lookers, name: &str| -> Vec<Judgement> {
            lookers.of(&key(name)).cloned().collect()
        };
        lookers.set(policy("p"), [key("a"), key("b")].into());
        lookers.set(policy("q"), [key("b")].into());
        assert_eq!(found(&lookers, "a"), [policy("p")]);
        assert_eq!(found(&lookers, "b"), [policy("p"), policy("q")]);
        lookers.set(policy("p"), [key("c")].into());
        assert_eq!(found(&lookers, "a"), []);
        assert_eq!(found(&lookers, "b"), [policy("q")]);
        assert_eq!(found(&lookers, "c"), [policy("p")]);
        lookers.set(policy("p"), BTreeSet::new());
        lookers.set(policy("q"), BTreeSet::new());
        assert!(lookers.of.is_empty() && lookers.by.is_empty(), "nothing is left over");
    }
}
