//! Classes, Gateways and ListenerSets by themselves, the addresses of all, and which listeners cannot be told apart.

use std::mem::take;
use std::net::IpAddr;
use std::sync::Arc;

use penstock_gateway_types::Gateway;

use super::{Due, Translator, Update, put, usual_check};
use crate::object::{Kind, NamespacedName, ObjectKey, Objects};
use crate::translate::gateway::{Accepted, Plan as GatewayPlan};
use crate::translate::listener::Plan as ListenerPlan;
use crate::translate::listener_set::{self, Plan as SetPlan};
use crate::translate::look::{Judgement, usual_check_of};
use crate::translate::note::Source;
use crate::translate::parameters::Parameters;
use crate::translate::verdict::Refusal;
use crate::translate::{CONTROLLER_NAME, Note, address, class, infrastructure};

impl Translator {
    pub(super) fn judge_classes(&mut self, objects: &Objects, due: &mut Due, update: &mut Update) {
        for name in take(&mut due.classes) {
            let class = objects.gateway_classes.get(&name);
            let ours = class.and_then(|class| class::ours(class, self.read.view(objects)));
            let judgement = Judgement::Class(name.as_str().into());
            self.lookers.set(judgement, self.read.looks.take());
            let installed = self.bundle_version.as_deref();
            let conditions = ours.map(|accepted| class::conditions(&accepted, installed));
            if put(&mut self.translation.classes, &name, conditions) {
                update.answers.insert(ObjectKey::cluster(Kind::GatewayClass, &name));
            }
        }
    }

    pub(super) fn judge_gateways(&mut self, objects: &Objects, due: &mut Due, update: &mut Update) {
        for name in take(&mut due.gateways) {
            let key = ObjectKey::of(Kind::Gateway, &name);
            let before = self.gateways.remove(&name);
            let mut notes = Vec::new();
            let gateway = objects.gateways.get(&name);
            self.note_class(&name, gateway.map(|gateway| &gateway.spec.gateway_class_name));
            let mut now =
                gateway.and_then(|gateway| self.judge(&name, gateway, objects, &mut notes));
            self.lookers.set(Judgement::Gateway(Arc::new(name.clone())), self.read.looks.take());
            update.has_notes |= self.translation.notes.set(Source::Judged(key.clone()), notes);
            match (&before, &mut now) {
                (Some(before), Some(now)) if asks(before) == asks(now) => {
                    now.given.clone_from(&before.given);
                }
                _ => due.addresses = true,
            }
            let admits = match (&before, &now) {
                (Some(before), Some(now)) => admits_as(&before.listeners, &now.listeners),
                _ => false,
            };
            if !admits {
                self.touch(&key, due);
            }
            let accepted = now.as_ref().and_then(|plan| Some((plan, plan.accepted()?)));
            let wanted = accepted.map(|(plan, accepted)| {
                let parameters = &accepted.parameters.infrastructure;
                infrastructure::of(&plan.name, &plan.gateway, parameters)
            });
            if put(&mut self.translation.infrastructure, &name, wanted) {
                update.infrastructure.insert(name.clone());
            }
            if before.as_ref().and_then(usual_check) != now.as_ref().and_then(usual_check) {
                self.touch(&usual_check_of(&name), due);
            }
            due.sets.extend(self.children.get(&name).into_iter().flatten().cloned());
            self.gateways.extend(now.map(|plan| (name.clone(), plan)));
            due.families.insert(name);
        }
    }

    fn note_class(&mut self, name: &NamespacedName, class: Option<&String>) {
        if self.class_of.get(name) == class {
            return;
        }
        if let Some(before) = self.class_of.remove(name)
            && let Some(gateways) = self.classes.get_mut(&before)
        {
            *gateways -= 1;
            if *gateways == 0 {
                self.classes.remove(&before);
            }
        }
        if let Some(class) = class {
            self.class_of.insert(name.clone(), class.clone());
            *self.classes.entry(class.clone()).or_default() += 1;
        }
    }

    /// Judges a Gateway by itself; `None` if its class is not ours.
    fn judge(
        &self,
        name: &NamespacedName,
        gateway: &Arc<Gateway>,
        objects: &Objects,
        notes: &mut Vec<Note>,
    ) -> Option<GatewayPlan> {
        let object = || ObjectKey::of(Kind::Gateway, name);
        let class = gateway.spec.gateway_class_name.as_str();
        let Some(found) = self.read.view(objects).class(class) else {
            let message = format!(
                "GatewayClass {class} does not exist: write one with controllerName {CONTROLLER_NAME}"
            );
            notes.push(Note { object: object(), message });
            return None;
        };
        let view = self.read.view(objects);
        let accepted = class::ours(found, view)?.map_err(|refusal| Refusal {
            message: format!("GatewayClass {class}: {}", refusal.message),
            ..refusal
        });
        let plan = GatewayPlan::of(name, gateway, accepted, view, self.read.certificates(objects));
        if plan.accepted.is_ok() {
            notes.extend(plan.listeners.iter().flat_map(ListenerPlan::in_vain));
        }
        Some(plan)
    }

    pub(super) fn give_addresses(&mut self, objects: &Objects, due: &mut Due, update: &mut Update) {
        if !take(&mut due.addresses) {
            return;
        }
        let remembered = &self.translation.addresses;
        let held = |plan: &GatewayPlan| {
            let remembered = remembered.get(&plan.name).into_iter().flatten();
            said(plan).into_iter().chain(remembered.copied()).collect()
        };
        let mut notes = Vec::new();
        let view = self.read.view(objects);
        let mut given = address::assign(&self.gateways, &held, view, &mut notes);
        self.lookers.set(Judgement::Addresses, self.read.looks.take());
        update.has_notes |= self.translation.notes.set(Source::Pools, notes);
        self.translation.addresses.clear();
        for (name, plan) in &mut self.gateways {
            let given = given.remove(name).unwrap_or_default();
            if plan.given != given {
                due.families.insert(name.clone());
                plan.given = given;
            }
            if !plan.given.addresses.is_empty() {
                self.translation.addresses.insert(name.clone(), plan.given.addresses.clone());
            }
        }
    }

    pub(super) fn judge_sets(&mut self, objects: &Objects, due: &mut Due, update: &mut Update) {
        for name in take(&mut due.sets) {
            let key = ObjectKey::of(Kind::ListenerSet, &name);
            let before = self.sets.remove(&name);
            let set = objects.listener_sets.get(&name);
            let parent = set.and_then(|set| listener_set::gateway_of(&name, set));
            self.adopt(&name, parent.as_ref());
            let mut notes = Vec::new();
            let now = set.zip(parent.as_ref()).and_then(|(set, parent)| {
                let view = self.read.view(objects);
                let Some(gateway) = self.gateways.get(parent) else {
                    if !view.exists(&ObjectKey::of(Kind::Gateway, parent)) {
                        notes.push(listener_set::without_gateway(&name, parent));
                    }
                    return None; // nobody's, or somebody else's
                };
                let certificates = self.read.certificates(objects);
                let plan = SetPlan::of(&name, set, gateway, view, certificates);
                notes.extend(plan.listeners.iter().flat_map(ListenerPlan::in_vain));
                Some(plan)
            });
            let judgement = Judgement::ListenerSet(Arc::new(name.clone()));
            self.lookers.set(judgement, self.read.looks.take());
            update.has_notes |= self.translation.notes.set(Source::Judged(key.clone()), notes);
            let admits = match (&before, &now) {
                (Some(before), Some(now)) => {
                    (&before.gateway, &before.allowed) == (&now.gateway, &now.allowed)
                        && admits_as(&before.listeners, &now.listeners)
                }
                _ => false,
            };
            if !admits {
                self.touch(&key, due);
            }
            due.families.extend(before.map(|plan| plan.gateway));
            due.families.extend(now.as_ref().map(|plan| plan.gateway.clone()));
            due.owners.insert(key);
            self.sets.extend(now.map(|plan| (name, plan)));
        }
    }

    /// Takes note of which Gateway a ListenerSet names.
    fn adopt(&mut self, name: &NamespacedName, parent: Option<&NamespacedName>) {
        if self.parents.get(name) == parent {
            return;
        }
        if let Some(before) = self.parents.remove(name)
            && let Some(children) = self.children.get_mut(&before)
        {
            children.remove(name);
            if children.is_empty() {
                self.children.remove(&before);
            }
        }
        if let Some(parent) = parent {
            self.parents.insert(name.clone(), parent.clone());
            self.children.entry(parent.clone()).or_default().insert(name.clone());
        }
    }

    /// Compares the listeners of a Gateway with those of the ListenerSets that join it.
    pub(super) fn compare_families(&mut self, due: &mut Due) {
        for name in take(&mut due.families) {
            due.owners.insert(ObjectKey::of(Kind::Gateway, &name));
            let children = self.children.get(&name).into_iter().flatten();
            let joined = children.filter_map(|child| self.sets.remove(child));
            let mut joined: Vec<SetPlan> = joined.collect();
            joined.sort_by(|one, other| one.age.cmp(&other.age));
            if let Some(gateway) = self.gateways.get_mut(&name) {
                listener_set::mark_conflicts(gateway, &mut joined);
                listener_set::mark_overlaps(gateway, &mut joined);
            }
            for plan in joined {
                due.owners.insert(ObjectKey::of(Kind::ListenerSet, &plan.name));
                self.sets.insert(plan.name.clone(), plan);
            }
        }
    }
}

/// What of a Gateway decides which addresses it and others have, beside what it had.
fn asks(plan: &GatewayPlan) -> Option<impl PartialEq> {
    plan.accepted().map(|accepted| {
        let Accepted { asked, parameters } = accepted;
        let Parameters { pools, sharing, .. } = parameters;
        (&plan.age, asked.as_slice(), pools.as_slice(), sharing.as_ref(), said(plan))
    })
}

/// The addresses that a Gateway has by its status, which every controller reads alike.
fn said(plan: &GatewayPlan) -> Vec<IpAddr> {
    let said = plan.gateway.status.iter().flat_map(|status| &status.addresses);
    said.filter_map(|address| address.value.parse().ok()).collect()
}

/// Whether the same routes attach to both, each to the listener at the same place.
fn admits_as(one: &[ListenerPlan], other: &[ListenerPlan]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.admits_as(other))
}
