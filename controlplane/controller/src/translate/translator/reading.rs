//! What is read of an object before any is judged, and what looked at it.

use std::collections::BTreeSet;

use super::{Due, Translator, Update, put};
use crate::object::{Kind, NamespacedName, ObjectKey, Objects};
use crate::translate::look::{Judgement, grants_of, policies_of};
use crate::translate::note::Source;
use crate::translate::{backend, own_backend};

impl Translator {
    /// Takes in one object, and finds what looked at it.
    pub(super) fn read(
        &mut self,
        objects: &Objects,
        key: &ObjectKey,
        due: &mut Due,
        update: &mut Update,
    ) {
        let name = key.namespaced();
        match key.kind {
            Kind::GatewayClass => {
                due.classes.insert(key.name.clone());
                self.touch(key, due);
            }
            Kind::Gateway => _ = due.gateways.insert(name),
            Kind::ListenerSet => _ = due.sets.insert(name),
            Kind::TcpRoute
            | Kind::UdpRoute
            | Kind::TlsRoute
            | Kind::HttpRoute
            | Kind::GrpcRoute => {
                due.attachments.insert(key.clone());
                due.backends.insert(key.clone());
                self.touch(key, due);
            }
            Kind::ReferenceGrant => {
                let grant = objects.reference_grants.get(&name);
                self.read.grants.put(&name, grant.map(AsRef::as_ref));
                self.touch(&grants_of(&name.namespace), due);
            }
            Kind::BackendTlsPolicy => {
                let policy = objects.backend_tls_policies.get(&name);
                due.policies.extend(self.targets.put(&name, policy.map(AsRef::as_ref)));
            }
            Kind::EndpointSlice => self.read_slice(objects, key, due, update),
            Kind::Namespace => self.read_namespace(objects, key, due),
            Kind::Service => self.touch(key, due),
            Kind::Secret => {
                self.read.parsed.forget_secret(&name);
                self.touch(key, due);
            }
            Kind::ConfigMap => {
                self.read.parsed.forget_config_map(&name);
                self.touch(key, due);
            }
            Kind::AddressPool => due.addresses = true,
            Kind::Box => {} // who is told, not what
            Kind::GatewayParameters => self.touch(key, due),
            Kind::L4Policy => {
                let policy = objects.l4_policies.get(&name);
                let concerned = self.read.policies.put(&name, policy.map(AsRef::as_ref));
                due.l4_policies.extend(concerned.policies);
                for object in &concerned.objects {
                    self.touch(&policies_of(object), due);
                }
            }
            Kind::Backend => {
                self.read_names(objects, &name, update);
                due.own_backends.insert(name);
                self.touch(key, due);
            }
        }
    }

    /// Takes in which names a Backend has.
    fn read_names(&mut self, objects: &Objects, backend: &NamespacedName, update: &mut Update) {
        let now = objects.backends.get(backend);
        let now: BTreeSet<_> = now.into_iter().flat_map(|it| own_backend::names(it)).collect();
        let before = self.translation.backends.get(backend);
        let before = before.into_iter().flat_map(|verdict| &verdict.names).map(|(name, _)| name);
        for name in before.filter(|name| !now.contains(name)) {
            let Some(having) = self.translation.names.get_mut(name) else { continue };
            having.remove(backend);
            if having.is_empty() {
                self.translation.names.remove(name);
                update.has_questions = true;
            }
        }
        for name in now {
            let having = self.translation.names.entry(name.clone()).or_default();
            update.has_questions |= having.is_empty();
            having.insert(backend.clone());
        }
    }

    fn read_slice(
        &mut self,
        objects: &Objects,
        key: &ObjectKey,
        due: &mut Due,
        update: &mut Update,
    ) {
        let name = key.namespaced();
        let slice = objects.endpoint_slices.get(&name).map(AsRef::as_ref);
        for service in self.read.slices.put(&name, slice) {
            self.touch(&ObjectKey::of(Kind::Service, &service), due);
        }
        let notes = slice.map(|slice| backend::notes(&name, slice)).unwrap_or_default();
        update.has_notes |= self.translation.notes.set(Source::Judged(key.clone()), notes);
    }

    fn read_namespace(&mut self, objects: &Objects, key: &ObjectKey, due: &mut Due) {
        let namespace = objects.namespaces.get(&key.name);
        let labels =
            namespace.map(|namespace| namespace.metadata.labels.clone().unwrap_or_default());
        if put(&mut self.read.labels, &key.name, labels) {
            self.touch(key, due);
        }
    }

    /// What looked at `key` is due.
    pub(super) fn touch(&self, key: &ObjectKey, due: &mut Due) {
        for judgement in self.lookers.of(key) {
            match judgement {
                Judgement::Addresses => due.addresses = true,
                Judgement::Gateway(name) => _ = due.gateways.insert((**name).clone()),
                Judgement::ListenerSet(name) => _ = due.sets.insert((**name).clone()),
                Judgement::Attachment(route) => _ = due.attachments.insert((**route).clone()),
                Judgement::Backends(route) => _ = due.backends.insert((**route).clone()),
                Judgement::Policy(name) => _ = due.policies.insert((**name).clone()),
                Judgement::Class(name) => _ = due.classes.insert((**name).to_owned()),
                Judgement::L4Policy(name) => _ = due.l4_policies.insert((**name).clone()),
                Judgement::Backend(name) => _ = due.own_backends.insert((**name).clone()),
            }
        }
    }
}
