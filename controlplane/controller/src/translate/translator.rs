//! The translation, kept and changed by what changed.
//!
//! Every judgement is kept with what was looked at for it ([`look`](super::look)). A change makes due what looked
//! at it, and what comes of that the next: [`Due`] holds what each step leaves to the later ones, and steps go one
//! way, so that an update is one pass. From nothing it is the same pass with everything due; there is no other
//! body of rules.
//!
//! ```text
//!  read      indexes: grants, EndpointSlices by Service, labels, parsed certificates
//!  judge     Gateways by themselves, the addresses of all if one asks for others, ListenerSets, their conflicts
//!  attach    routes to listeners (seat), and where they send
//!  claim     what of that takes another place, or other groups
//!  answer    the conditions of what any of this was about
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use penstock_feed::model::{Name, Touched};
use penstock_gateway_types::Gateway;

use super::answer::{self, Outcome};
use super::backend::{self, Slices};
use super::backend_tls::{Reach, Targets};
use super::certificate::{Certificates, Parsed};
use super::claim::{Register, Served};
use super::gateway::{Accepted, Plan as GatewayPlan};
use super::grant::Grants;
use super::holding::Sizes;
use super::l4_policy::{self, L4Policies, Surroundings};
use super::listener::Plan as ListenerPlan;
use super::listener_set::{self, Plan as SetPlan};
use super::look::{
    Judgement, Lookers, Looks, View, grants_of, health_of, name_of, policies_of, usual_check_of,
};
use super::note::Source;
use super::route::{self, Meeting, Parents, Resolved};
use super::seat::{Seat, Seats, Turn};
use super::verdict::Refusal;
use super::{
    CONTROLLER_NAME, Known, L4PolicyVerdict, ListenerSetVerdict, Note, Translation, Truth, address,
    class, infrastructure, own_backend,
};
use crate::health::Check;
use crate::object::{Kind, NamespacedName, ObjectKey, Objects};
use crate::observed::Observed;

/// Translates what changes, and remembers the rest.
///
/// Whatever the order of changes, what it comes to is what [`super::translate_with`] makes of the objects from
/// nothing, with the addresses that Gateways had before the last change. An update costs what it reaches: a change
/// of endpoints the routes that send there, a change of a route its listeners, a change of a Gateway that Gateway
/// with its ListenerSets and routes. All Gateways are looked at only where their addresses may move: when one asks
/// for others, comes or goes, and when a pool changes.
pub struct Translator {
    bundle_version: Option<String>,
    read: Read,
    lookers: Lookers,
    gateways: BTreeMap<NamespacedName, GatewayPlan>,
    sets: BTreeMap<NamespacedName, SetPlan>,
    /// The ListenerSets that name each Gateway, and the Gateway that each names.
    children: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    parents: BTreeMap<NamespacedName, NamespacedName>,
    /// The class of each Gateway, ours or not, and how many have each.
    class_of: BTreeMap<NamespacedName, String>,
    classes: BTreeMap<String, usize>,
    routes: BTreeMap<ObjectKey, Standing>,
    seats: Seats,
    register: Register,
    targets: Targets,
    translation: Translation,
    has_begun: bool,
    /// What stands for what was found out since the last update.
    found_out: BTreeSet<ObjectKey>,
}

/// What an update changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// The objects whose answers are others now, or are there for the first time or no more.
    pub answers: BTreeSet<ObjectKey>,
    /// What is touched of [`Translation::state`].
    pub touched: Touched,
    /// The places that are touched of [`Translation::l7`].
    pub l7_places: BTreeSet<SocketAddr>,
    /// The Gateways for which [`Translation::infrastructure`] changed.
    pub infrastructure: BTreeSet<NamespacedName>,
    /// Whether [`Translation::notes`] changed.
    pub has_notes: bool,
    /// Whether others are to be asked: by [`Translation::checkups`], or by [`Translation::names`].
    pub has_questions: bool,
}

/// What is read of objects before any is judged.
#[derive(Default)]
struct Read {
    grants: Grants,
    slices: Slices,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    parsed: Parsed,
    policies: L4Policies,
    observed: Arc<Observed>,
    looks: Looks,
}

impl Read {
    fn view<'a>(&'a self, objects: &'a Objects) -> View<'a> {
        View::of(objects, &self.grants, &self.slices, &self.policies, &self.observed, &self.looks)
    }

    fn certificates<'a>(&'a self, objects: &'a Objects) -> Certificates<'a> {
        Certificates::of(self.view(objects), &self.parsed)
    }
}

/// A route, where it is attached and where it sends.
struct Standing {
    turn: Turn,
    meetings: Vec<Meeting>,
    /// The name of its group, if the data plane forwards it.
    group: Option<Name>,
    reach: Reach,
    l4_reach: l4_policy::Reach,
    /// None until it is known, and of a route that is not ours.
    resolved: Option<Resolved>,
}

impl Standing {
    /// The Gateway whose parameters say what is usual for it.
    fn gateway(&self) -> Option<&NamespacedName> {
        self.meetings.first().map(Meeting::of)
    }

    fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.meetings.iter().flat_map(Meeting::seats)
    }
}

/// What has to be done yet.
#[derive(Default)]
struct Due {
    /// To be judged: whether addresses, which Gateways and ListenerSets.
    addresses: bool,
    gateways: BTreeSet<NamespacedName>,
    sets: BTreeSet<NamespacedName>,
    /// Gateways whose listeners, with those of their ListenerSets, are to be compared and to claim anew.
    families: BTreeSet<NamespacedName>,
    /// Routes that are to be attached, and those whose backends are to be looked up.
    attachments: BTreeSet<ObjectKey>,
    backends: BTreeSet<ObjectKey>,
    /// Owners of listeners that are to claim anew, and single listeners.
    owners: BTreeSet<ObjectKey>,
    listeners: BTreeSet<Seat>,
    /// What is to be answered.
    answers: BTreeSet<ObjectKey>,
    policies: BTreeSet<NamespacedName>,
    classes: BTreeSet<String>,
    l4_policies: BTreeSet<NamespacedName>,
    own_backends: BTreeSet<NamespacedName>,
}

impl Translator {
    /// One that knows no object.
    #[must_use]
    pub fn new(known: Known<'_>) -> Self {
        let addresses = known.held.cloned().unwrap_or_default();
        let mut register = Register::new(known.most.unwrap_or(Sizes::LIMITS));
        register.serve_only(known.only.cloned());
        Self {
            bundle_version: known.bundle_version.map(str::to_owned),
            read: Read { observed: known.observed.cloned().unwrap_or_default(), ..Read::default() },
            lookers: Lookers::default(),
            gateways: BTreeMap::new(),
            sets: BTreeMap::new(),
            children: BTreeMap::new(),
            class_of: BTreeMap::new(),
            classes: BTreeMap::new(),
            parents: BTreeMap::new(),
            routes: BTreeMap::new(),
            seats: Seats::default(),
            register,
            targets: Targets::default(),
            translation: Translation { addresses, ..Translation::default() },
            has_begun: false,
            found_out: BTreeSet::new(),
        }
    }

    /// Takes in what the box found out by itself. It counts from the next update on, which has to follow even if no
    /// object changed. Costs what is found out, not what it means.
    pub fn observe(&mut self, observed: &Arc<Observed>) {
        let before = std::mem::replace(&mut self.read.observed, Arc::clone(observed));
        let unhealthy = before.unhealthy.symmetric_difference(&observed.unhealthy);
        self.found_out.extend(unhealthy.map(|asked| health_of(asked.backend)));
        let names = before.names.keys().chain(observed.names.keys());
        let others = names.filter(|name| before.names.get(*name) != observed.names.get(*name));
        self.found_out.extend(others.map(|name| name_of(name)));
    }

    /// What the objects of the last update mean.
    #[must_use]
    pub fn translation(&self) -> &Translation {
        &self.translation
    }

    /// The same, and nothing more.
    #[must_use]
    pub fn into_translation(self) -> Translation {
        self.translation
    }

    /// Takes in of which release the installed CRDs are. It counts from the next update on that is told of the
    /// GatewayClasses.
    pub fn know_bundle(&mut self, version: Option<&str>) {
        self.bundle_version = version.map(str::to_owned);
    }

    /// Serves only these listeners from the next update on; see [`Known::only`].
    pub fn serve_only(&mut self, only: Option<Arc<BTreeSet<String>>>) {
        self.register.serve_only(only);
    }

    /// The classes that Gateways use, ours or not.
    pub fn classes_in_use(&self) -> impl Iterator<Item = &str> {
        self.classes.keys().map(String::as_str)
    }

    /// Takes in that `objects` are now as they are, and that since the last update none but those `changed` came,
    /// changed or went. One that did not change may be among them.
    pub fn update(&mut self, objects: &Objects, changed: &BTreeSet<ObjectKey>) -> Update {
        let mut due = Due { addresses: !self.has_begun, ..Due::default() };
        let mut update = Update::default();
        self.has_begun = true;
        for key in changed {
            self.read(objects, key, &mut due, &mut update);
        }
        for key in take(&mut self.found_out) {
            self.touch(&key, &mut due);
        }
        self.judge_classes(objects, &mut due, &mut update);
        self.judge_gateways(objects, &mut due, &mut update);
        self.give_addresses(objects, &mut due, &mut update);
        self.judge_sets(objects, &mut due, &mut update);
        self.compare_families(&mut due);
        self.attach(objects, &mut due, &mut update);
        self.resolve(objects, &mut due);
        self.claim(&mut due, &mut update);
        self.answer(&mut due, &mut update);
        self.answer_policies(objects, take(&mut due.policies), &mut update);
        self.answer_l4_policies(objects, due.l4_policies, &mut update);
        self.answer_backends(objects, due.own_backends, &mut update);
        update
    }

    /// Takes in one object, and finds what looked at it.
    fn read(&mut self, objects: &Objects, key: &ObjectKey, due: &mut Due, update: &mut Update) {
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

    fn judge_classes(&mut self, objects: &Objects, due: &mut Due, update: &mut Update) {
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
    fn touch(&self, key: &ObjectKey, due: &mut Due) {
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

    fn judge_gateways(&mut self, objects: &Objects, due: &mut Due, update: &mut Update) {
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

    fn give_addresses(&mut self, objects: &Objects, due: &mut Due, update: &mut Update) {
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

    fn judge_sets(&mut self, objects: &Objects, due: &mut Due, update: &mut Update) {
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
    fn compare_families(&mut self, due: &mut Due) {
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

    fn attach(&mut self, objects: &Objects, due: &mut Due, update: &mut Update) {
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
    fn resolve(&mut self, objects: &Objects, due: &mut Due) {
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

    fn claim(&mut self, due: &mut Due, update: &mut Update) {
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

    fn answer(&mut self, due: &mut Due, update: &mut Update) {
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

    fn answer_l4_policies(
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

    fn answer_backends(
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

    fn answer_policies(
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

/// The health check that the parameters of a Gateway ask for.
fn usual_check(plan: &GatewayPlan) -> Option<&Arc<Check>> {
    plan.accepted()?.parameters.check.as_ref()
}

/// Puts a value, or takes it away. Returns whether that is another than before.
fn put<K: Ord + Clone, V: PartialEq>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) -> bool {
    if map.get(key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => _ = map.insert(key.clone(), value),
        None => _ = map.remove(key),
    }
    true
}

/// What of a Gateway decides which addresses it and others have, beside what it had.
fn asks(plan: &GatewayPlan) -> Option<impl PartialEq> {
    plan.accepted().map(|accepted| {
        let Accepted { asked, parameters } = accepted;
        (&plan.age, asked.as_slice(), parameters.pools.as_slice(), said(plan))
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
