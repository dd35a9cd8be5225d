//! Routes to listeners, where they send, and what takes another place of that.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::sync::Arc;

use super::{Due, Standing, Translator, Update, usual_check};
use crate::object::{Kind, NamespacedName, ObjectKey, Objects};
use crate::translate::backend_tls::Reach;
use crate::translate::claim::Served;
use crate::translate::gateway::Plan as GatewayPlan;
use crate::translate::listener::Plan as ListenerPlan;
use crate::translate::listener_set::Plan as SetPlan;
use crate::translate::look::Judgement;
use crate::translate::note::Source;
use crate::translate::route::{self, Meeting, Parents};
use crate::translate::seat::{Seat, Seats, Turn};
use crate::translate::{Translation, l4_policy};

impl Translator {
    pub(super) fn attach(&mut self, objects: &Objects, due: &mut Due, update: &mut Update) {
        for key in take(&mut due.attachments) {
            let before = self.routes.remove(&key);
            for (seat, turn) in before.iter().flat_map(|b| b.seats().map(|seat| (seat, &b.turn))) {
                self.seats.leave(seat, turn);
            }
            let reached = before.as_ref().map(|before| before.reach.clone()).unwrap_or_default();
            let l4_reached =
                before.as_ref().map(|before| before.l4_reach.clone()).unwrap_or_default();
            let gateway = before.as_ref().and_then(|before| before.gateway().cloned());
            let mut notes = Vec::new();
            let now = route::of(objects, &key).map(|route| {
                let parents = Parents { gateways: &self.gateways, sets: &self.sets };
                let meetings = route::meet(&route, parents, self.read.view(objects), &mut notes);
                let gateways = meetings.iter().filter_map(Meeting::gateway).cloned();
                let gateways: BTreeSet<_> = gateways.collect();
                Standing {
                    turn: route.turn(),
                    meetings,
                    group: route.group_name(),
                    l4_reach: l4_policy::Reach::of(&route, gateways.clone()),
                    reach: Reach::of(&route, gateways),
                    resolved: before.and_then(|before| before.resolved),
                }
            });
            let judgement = Judgement::Attachment(Arc::new(key.clone()));
            self.lookers.set(judgement, self.read.looks.take());
            update.has_notes |= self.translation.notes.set(Source::Judged(key.clone()), notes);
            let reaches = now.as_ref().map(|now| now.reach.clone()).unwrap_or_default();
            due.policies.extend(self.targets.reach(&reached, &reaches));
            let l4_reaches = now.as_ref().map(|now| now.l4_reach.clone()).unwrap_or_default();
            due.l4_policies.extend(self.read.policies.reach(&l4_reached, &l4_reaches));
            if let Some(now) = now {
                now.seats().for_each(|seat| self.seats.take(seat, &now.turn));
                let usual_may_differ = now.gateway() != gateway.as_ref();
                if now.resolved.is_none() || now.meetings.is_empty() || usual_may_differ {
                    due.backends.insert(key.clone());
                }
                self.routes.insert(key.clone(), now);
            } else {
                due.backends.insert(key.clone());
            }
            due.answers.insert(key);
        }
        self.note_moves(due);
    }

    /// Another oldest route is served, and is what the others are told of; another count is the owner's to tell.
    fn note_moves(&mut self, due: &mut Due) {
        for moved in self.seats.moves() {
            if moved.of_oldest {
                due.answers.extend(self.seats.turns(&moved.seat).map(Turn::route));
                due.listeners.insert(moved.seat.clone());
            }
            if moved.of_count {
                due.answers.insert(moved.seat.owner);
            }
        }
    }

    /// Looks up where routes send.
    pub(super) fn resolve(&mut self, objects: &Objects, due: &mut Due) {
        for key in take(&mut due.backends) {
            let standing = self.routes.get_mut(&key).filter(|route| !route.meetings.is_empty());
            let resolved = standing.zip(route::of(objects, &key)).map(|(standing, route)| {
                let view = self.read.view(objects);
                let gateway = standing.gateway();
                gateway.iter().for_each(|gateway| view.sees_usual_check(gateway));
                let gateway = gateway.and_then(|gateway| self.gateways.get(gateway));
                let resolved = route::resolve(&route, gateway.and_then(usual_check), view);
                (standing, resolved)
            });
            self.lookers.set(Judgement::Backends(Arc::new(key.clone())), self.read.looks.take());
            let Some((standing, mut now)) = resolved else {
                if let Some(standing) = self.routes.get_mut(&key) {
                    standing.resolved = None; // not ours
                }
                continue;
            };
            let before = standing.resolved.take();
            match before {
                Some(before) if before.groups == now.groups => now.groups = before.groups,
                _ => {
                    let first = |seat: &&Seat| self.seats.oldest(seat) == Some(&standing.turn);
                    due.listeners.extend(standing.seats().filter(first).cloned());
                }
            }
            standing.resolved = Some(now);
            due.answers.insert(key);
        }
    }

    pub(super) fn claim(&mut self, due: &mut Due, update: &mut Update) {
        for owner in take(&mut due.owners) {
            let Self { gateways, sets, seats, routes, register, .. } = self;
            let served = |listener| served(&owner, listener, seats, routes);
            match listeners_of(&owner, gateways, sets) {
                Some((gateway, set, listeners)) => {
                    let age = set.map(|set| &set.age);
                    register.file(&owner, gateway, age, listeners, served);
                }
                None => register.withdraw(&owner),
            }
            due.listeners.retain(|seat| seat.owner != owner);
            due.answers.insert(owner);
        }
        for seat in take(&mut due.listeners) {
            let Self { gateways, sets, seats, routes, register, .. } = self;
            let served = served(&seat.owner, seat.listener, seats, routes);
            let Some((gateway, set, listeners)) = listeners_of(&seat.owner, gateways, sets) else {
                continue;
            };
            let Some(listener) = listeners.get(seat.listener) else { continue };
            let age = set.map(|set| &set.age);
            register.refile(&seat.owner, gateway, age, (seat.listener, listener), served.as_ref());
            due.answers.insert(seat.owner);
        }
        let Translation { state, l7, .. } = &mut self.translation;
        (update.touched, update.l7_places) = self.register.settle(state, l7, &mut due.answers);
    }
}

/// The listeners of a Gateway, or of a ListenerSet at its Gateway.
fn listeners_of<'p>(
    owner: &ObjectKey,
    gateways: &'p BTreeMap<NamespacedName, GatewayPlan>,
    sets: &'p BTreeMap<NamespacedName, SetPlan>,
) -> Option<(&'p GatewayPlan, Option<&'p SetPlan>, &'p [ListenerPlan])> {
    let name = owner.namespaced();
    if owner.kind == Kind::Gateway {
        let gateway = gateways.get(&name)?;
        return Some((gateway, None, &gateway.listeners));
    }
    let set = sets.get(&name)?;
    Some((gateways.get(&set.gateway)?, Some(set), &set.listeners))
}

/// What serves the VIPs of a listener: the groups of its oldest route.
fn served(
    owner: &ObjectKey,
    listener: usize,
    seats: &Seats,
    routes: &BTreeMap<ObjectKey, Standing>,
) -> Option<Served> {
    let oldest = seats.oldest(&Seat { owner: owner.clone(), listener })?;
    let standing = routes.get(&oldest.route())?;
    let (name, resolved) = (standing.group.clone()?, standing.resolved.as_ref()?);
    Some(Served { name, groups: resolved.groups.clone() })
}
