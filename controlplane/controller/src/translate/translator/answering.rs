//! The conditions of what was judged anew.

use std::collections::BTreeSet;
use std::mem::take;
use std::sync::Arc;

use super::{Due, Standing, Translator, Update, put};
use crate::object::{Kind, NamespacedName, ObjectKey, Objects};
use crate::translate::answer::{self, Outcome};
use crate::translate::l4_policy::Surroundings;
use crate::translate::look::Judgement;
use crate::translate::note::Source;
use crate::translate::route::{self, Parents};
use crate::translate::seat::Seat;
use crate::translate::{L4PolicyVerdict, ListenerSetVerdict, Truth, own_backend};

impl Translator {
    pub(super) fn answer(&mut self, due: &mut Due, update: &mut Update) {
        // What a Gateway is told depends on what its ListenerSets are.
        let (gateways, others): (BTreeSet<_>, BTreeSet<_>) =
            take(&mut due.answers).into_iter().partition(|key| key.kind == Kind::Gateway);
        due.answers = gateways;
        for key in others {
            let changed = match key.kind {
                Kind::ListenerSet => self.answer_set(&key, due, update),
                _ => {
                    self.note_checks(&key, due, update);
                    self.answer_route(&key)
                }
            };
            if changed {
                update.answers.insert(key);
            }
        }
        for key in take(&mut due.answers) {
            if self.answer_gateway(&key, update) {
                update.answers.insert(key);
            }
        }
    }

    /// Takes note of what came of the health checks of a route's backends; of one that is attached nowhere nothing does.
    fn note_checks(&mut self, key: &ObjectKey, due: &mut Due, update: &mut Update) {
        let standing = self
            .routes
            .get(key)
            .filter(|standing| standing.meetings.iter().any(|meeting| meeting.gateway().is_some()));
        let checks = standing.and_then(|standing| standing.resolved.as_ref());
        let checks = checks.map(|resolved| resolved.checks.clone()).unwrap_or_default();
        let changed = self.translation.checkups.set(key, checks);
        update.has_questions |= changed.has_questions;
        due.l4_policies.extend(changed.policies);
        let backends = changed.objects.iter().filter(|object| object.kind == Kind::Backend);
        due.own_backends.extend(backends.map(ObjectKey::namespaced));
    }

    fn answer_route(&mut self, key: &ObjectKey) -> bool {
        let parents = Parents { gateways: &self.gateways, sets: &self.sets };
        let standing = self.routes.get(key);
        let answers = standing.and_then(|standing| {
            let Standing { turn, meetings, resolved, .. } = standing;
            let references = &resolved.as_ref()?.references;
            Some(route::answer(key.kind, turn, meetings, references, parents, &self.seats))
        });
        put(&mut self.translation.routes, key, answers)
    }

    fn answer_set(&mut self, key: &ObjectKey, due: &mut Due, update: &mut Update) -> bool {
        let name = key.namespaced();
        let plan = self.sets.get(&name);
        let plan = plan.and_then(|plan| Some((plan, self.gateways.get(&plan.gateway)?)));
        let now = plan.map(|(plan, gateway)| {
            answer::listener_set(plan, gateway, self.outcome(key, plan.listeners.len()))
        });
        let notes = plan.map(|_| self.register.notes(key)).unwrap_or_default();
        update.has_notes |= self.translation.notes.set(Source::Served(key.clone()), notes);
        let status = |verdict: &ListenerSetVerdict| verdict.accepted.status;
        let before = self.translation.listener_sets.get(&name).map(status);
        if before != now.as_ref().map(status) {
            // A set that left a Gateway, or came to it, has had that answered anew anyway.
            due.answers
                .extend(plan.map(|(_, gateway)| ObjectKey::of(Kind::Gateway, &gateway.name)));
        }
        put(&mut self.translation.listener_sets, &name, now)
    }

    fn answer_gateway(&mut self, key: &ObjectKey, update: &mut Update) -> bool {
        let name = key.namespaced();
        let plan = self.gateways.get(&name);
        let accepted = |child: &&NamespacedName| {
            let verdict = self.translation.listener_sets.get(*child);
            verdict.is_some_and(|verdict| verdict.accepted.status == Truth::True)
        };
        let joined = self.children.get(&name).into_iter().flatten().filter(accepted).count();
        let now =
            plan.map(|plan| answer::gateway(plan, joined, self.outcome(key, plan.listeners.len())));
        let notes = plan.map(|_| self.register.notes(key)).unwrap_or_default();
        update.has_notes |= self.translation.notes.set(Source::Served(key.clone()), notes);
        put(&mut self.translation.gateways, &name, now)
    }

    fn outcome(&self, owner: &ObjectKey, listeners: usize) -> Outcome {
        let seat = |listener| Seat { owner: owner.clone(), listener };
        let attached = (0..listeners).map(|listener| self.seats.count(&seat(listener)));
        Outcome { serving: self.register.serving(owner), attached: attached.collect() }
    }

    pub(super) fn answer_l4_policies(
        &mut self,
        objects: &Objects,
        policies: BTreeSet<NamespacedName>,
        update: &mut Update,
    ) {
        for name in policies {
            let (view, gateways, sets) = (self.read.view(objects), &self.gateways, &self.sets);
            let around = Surroundings { view, gateways, sets };
            let ancestors = self.read.policies.answer(&name, around);
            let checks = self.translation.checkups.of_policy(&name);
            let answer = ancestors.map(|ancestors| L4PolicyVerdict { ancestors, checks });
            self.lookers.set(Judgement::L4Policy(Arc::new(name.clone())), self.read.looks.take());
            if put(&mut self.translation.l4_policies, &name, answer) {
                update.answers.insert(ObjectKey::of(Kind::L4Policy, &name));
            }
        }
    }

    pub(super) fn answer_backends(
        &mut self,
        objects: &Objects,
        backends: BTreeSet<NamespacedName>,
        update: &mut Update,
    ) {
        for name in backends {
            let key = ObjectKey::of(Kind::Backend, &name);
            let checks = self.translation.checkups.of_object(&key);
            let backend = objects.backends.get(&name);
            let view = self.read.view(objects);
            let answer = backend.map(|backend| own_backend::answer(backend, checks, view));
            self.lookers.set(Judgement::Backend(Arc::new(name.clone())), self.read.looks.take());
            if put(&mut self.translation.backends, &name, answer) {
                update.answers.insert(key);
            }
        }
    }

    pub(super) fn answer_policies(
        &mut self,
        objects: &Objects,
        policies: BTreeSet<NamespacedName>,
        update: &mut Update,
    ) {
        for name in policies {
            let policy = objects.backend_tls_policies.get(&name);
            let (view, certificates) = (self.read.view(objects), self.read.certificates(objects));
            let answer =
                policy.and_then(|policy| self.targets.answer(&name, policy, view, certificates));
            self.lookers.set(Judgement::Policy(Arc::new(name.clone())), self.read.looks.take());
            if put(&mut self.translation.policies, &name, answer) {
                update.answers.insert(ObjectKey::of(Kind::BackendTlsPolicy, &name));
            }
        }
    }
}
