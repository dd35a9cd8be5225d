//! L4Policies: which of them has what it is about, and what each is told.
//!
//! Of two policies about one object, or one listener, the older has it, then the one that sorts first; the other is
//! `Conflicted` there. A policy that cannot be done as written is in force nowhere and takes nothing from others.
//!
//! What is more specific goes first, field by field: a listener's policy, its ListenerSet's or Gateway's, the
//! parameters of the Gateway and of its class. Of health checks: that of a Service or Backend, that of the route, the
//! parameters of the Gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_gateway_types::l4_policy::{BackendPolicy, L4PolicyTarget};
use penstock_gateway_types::{BackendRef, L4Policy, ParentReference};

use super::AncestorVerdict;
use super::gateway::{Age, Plan as GatewayPlan};
use super::listener::{Owner, Plan as ListenerPlan};
use super::listener_set::Plan as SetPlan;
use super::look::View;
use super::route::Route;
use super::service;
use super::settings::Settings;
use super::verdict::{Refusal, Truth, Verdict};
use crate::health::Check;
use crate::object::{Kind, NamespacedName, ObjectKey};

/// The API has room for no more.
const ANCESTORS: usize = 16;

/// What a policy is about: an object, or a listener of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    object: ObjectKey,
    section: Option<String>,
}

/// What a policy asks for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Asks {
    has_listener: bool,
    listener: Settings,
    check: Option<Arc<Check>>,
}

/// A policy, judged by itself.
#[derive(Debug)]
struct Judged {
    age: Age,
    asks: Result<Asks, Refusal>,
    /// In the order of the spec.
    targets: Vec<Target>,
}

/// Every policy, by what it is about; and by which Gateways that is reached.
#[derive(Debug, Default)]
pub(super) struct L4Policies {
    judged: BTreeMap<NamespacedName, Judged>,
    /// Those that can be done. The oldest has the target.
    about: BTreeMap<Target, BTreeSet<Age>>,
    /// All that name an object.
    naming: BTreeMap<ObjectKey, BTreeSet<NamespacedName>>,
    /// How many routes reach an object by a Gateway.
    reached: BTreeMap<ObjectKey, BTreeMap<NamespacedName, usize>>,
}

/// Which routes, Services and Backends are reached, and by which Gateways.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reach {
    objects: BTreeSet<ObjectKey>,
    gateways: BTreeSet<NamespacedName>,
}

impl Reach {
    /// What `route` reaches that is attached to `gateways`. Others than TCP and UDP are no business of these policies.
    pub(super) fn of(route: &Route<'_>, gateways: BTreeSet<NamespacedName>) -> Self {
        if !route.is_l4() || gateways.is_empty() {
            return Self::default();
        }
        let backends = route.backends.iter();
        let backends = backends.filter_map(|(_, backend): &(_, BackendRef)| route.key_of(backend));
        Self { objects: backends.chain([route.key.clone()]).collect(), gateways }
    }
}

/// What another policy, or another reach, concerns.
#[derive(Debug, Default)]
pub(super) struct Concerned {
    /// The objects that a policy is about, or was.
    pub(super) objects: BTreeSet<ObjectKey>,
    /// The policies that may have another answer.
    pub(super) policies: BTreeSet<NamespacedName>,
}

impl L4Policies {
    /// Takes in what the policy `name` says now; nothing if there is none.
    pub(super) fn put(&mut self, name: &NamespacedName, policy: Option<&L4Policy>) -> Concerned {
        let mut concerned = Concerned::default();
        concerned.policies.insert(name.clone());
        if let Some(Judged { age, targets, .. }) = self.judged.remove(name) {
            for target in targets {
                if let Some(others) = self.about.get_mut(&target) {
                    others.remove(&age);
                    concerned.policies.extend(others.iter().map(|age| age.name.clone()));
                    if others.is_empty() {
                        self.about.remove(&target);
                    }
                }
                if let Some(naming) = self.naming.get_mut(&target.object) {
                    naming.remove(name);
                    if naming.is_empty() {
                        self.naming.remove(&target.object);
                    }
                }
                concerned.objects.insert(target.object);
            }
        }
        let Some(policy) = policy else { return concerned };
        let age = Age::of(policy.metadata.creation_timestamp.as_ref(), name);
        let asks = asks(policy);
        let targets = policy.spec.target_refs.iter().filter_map(|it| Target::of(name, it));
        let targets: Vec<_> = targets.collect();
        for target in &targets {
            if asks.is_ok() {
                let others = self.about.entry(target.clone()).or_default();
                concerned.policies.extend(others.iter().map(|age| age.name.clone()));
                others.insert(age.clone());
            }
            self.naming.entry(target.object.clone()).or_default().insert(name.clone());
            concerned.objects.insert(target.object.clone());
        }
        self.judged.insert(name.clone(), Judged { age, asks, targets });
        concerned
    }

    /// Takes in that a route reaches `now` what it reached `before`. Returns the policies that this concerns.
    pub(super) fn reach(&mut self, before: &Reach, now: &Reach) -> BTreeSet<NamespacedName> {
        if before == now {
            return BTreeSet::new();
        }
        for object in &now.objects {
            let reached = self.reached.entry(object.clone()).or_default();
            for gateway in &now.gateways {
                *reached.entry(gateway.clone()).or_default() += 1;
            }
        }
        for object in &before.objects {
            let Some(reached) = self.reached.get_mut(object) else { continue };
            for gateway in &before.gateways {
                let Some(routes) = reached.get_mut(gateway) else { continue };
                *routes -= 1;
                if *routes == 0 {
                    reached.remove(gateway);
                }
            }
            if reached.is_empty() {
                self.reached.remove(object);
            }
        }
        let objects = before.objects.union(&now.objects);
        objects.filter_map(|object| self.naming.get(object)).flatten().cloned().collect()
    }

    /// What policies say of a listener: its own first, then that of all of the owner's. Of one that stands in for a
    /// Service, what is said of the Service goes first.
    pub(super) fn listener(&self, owner: &Owner, listener: Option<&str>) -> Settings {
        let object = ObjectKey::of(owner.kind, &owner.name);
        let service = service::subject(&object);
        if service != object && listener.is_some() {
            let target = Target { object: service, section: None };
            let said = self.in_force(&target).map(|(_, asks)| asks.listener.clone());
            return said.unwrap_or_default().or(self.listener(owner, None));
        }
        let of = |section: Option<&str>| {
            let target = Target { object: object.clone(), section: section.map(str::to_owned) };
            self.in_force(&target).map(|(_, asks)| asks.listener.clone()).unwrap_or_default()
        };
        match listener {
            Some(_) => of(listener).or(of(None)),
            None => of(None),
        }
    }

    /// The health check of a route, a Service or a Backend, and the policy that asks for it.
    pub(super) fn check(&self, object: &ObjectKey) -> Option<(&NamespacedName, &Arc<Check>)> {
        let target = Target { object: object.clone(), section: None };
        let (name, asks) = self.in_force(&target)?;
        Some((name, asks.check.as_ref()?))
    }

    fn in_force(&self, target: &Target) -> Option<(&NamespacedName, &Asks)> {
        let name = &self.about.get(target)?.first()?.name;
        Some((name, self.judged.get(name)?.asks.as_ref().ok()?))
    }

    /// What the policy `name` is told; `None` if there is none.
    pub(super) fn answer(
        &self,
        name: &NamespacedName,
        around: Surroundings<'_>,
    ) -> Option<Vec<AncestorVerdict>> {
        let judged = self.judged.get(name)?;
        let mut answers: Vec<AncestorVerdict> = Vec::new();
        for target in &judged.targets {
            let verdict = self.accepted(name, &judged.asks, target, around);
            for ancestor in self.ancestors(target) {
                answer(&mut answers, ancestor, &verdict);
            }
        }
        answers.truncate(ANCESTORS);
        Some(answers)
    }

    fn accepted(
        &self,
        name: &NamespacedName,
        asks: &Result<Asks, Refusal>,
        target: &Target,
        around: Surroundings<'_>,
    ) -> Verdict {
        let asks = match asks {
            Ok(asks) => asks,
            Err(refusal) => return Verdict::fails("Accepted", refusal.clone()),
        };
        if let Err(refusal) = around.find(target, asks) {
            return Verdict::fails("Accepted", refusal);
        }
        if let Some((older, _)) = self.in_force(target).filter(|(owner, _)| *owner != name) {
            let message = format!("the older policy {older} is about {} too", target.words());
            return Verdict::fails("Accepted", Refusal::new("Conflicted", message));
        }
        let unreached = !target.has_listeners() && !self.reached.contains_key(&target.object);
        let message = match unreached {
            true => format!("the policy is accepted; no route of ours sends to {}", target.words()),
            false => "the policy is accepted".to_owned(),
        };
        Verdict::holds("Accepted", "Accepted", message)
    }

    /// Where a policy's status is about a target: at the target, and for backends at the Gateways that reach them.
    fn ancestors(&self, target: &Target) -> Vec<ParentReference> {
        match self.reached.get(&target.object) {
            Some(gateways) if !target.has_listeners() => {
                let gateway = |name: &NamespacedName| {
                    let object = service::subject(&ObjectKey::of(Kind::Gateway, name));
                    Target { object, section: None }.reference()
                };
                gateways.keys().map(gateway).collect()
            }
            _ => vec![target.reference()],
        }
    }
}

impl Target {
    /// `None` for a group and kind that the schema does not have.
    fn of(policy: &NamespacedName, target: &L4PolicyTarget) -> Option<Self> {
        let known = [
            Kind::Gateway,
            Kind::ListenerSet,
            Kind::TcpRoute,
            Kind::UdpRoute,
            Kind::Service,
            Kind::Backend,
        ];
        let is_it = |kind: &Kind| kind.as_str() == target.kind && kind.group() == target.group;
        let kind = known.into_iter().find(is_it)?;
        let object = ObjectKey::of(kind, &NamespacedName::new(&policy.namespace, &target.name));
        Some(Self { object, section: target.section_name.clone() })
    }

    fn has_listeners(&self) -> bool {
        matches!(self.object.kind, Kind::Gateway | Kind::ListenerSet)
    }

    /// As the ancestor of a policy.
    fn reference(&self) -> ParentReference {
        ParentReference {
            group: Some(self.object.kind.group().to_owned()),
            kind: Some(self.object.kind.as_str().to_owned()),
            namespace: Some(self.object.namespace.clone()),
            name: self.object.name.clone(),
            section_name: self.section.clone(),
            port: None,
        }
    }

    /// `Gateway default/web`, or `listener http of Gateway default/web`.
    fn words(&self) -> String {
        match &self.section {
            Some(section) => format!("listener {section} of {}", self.object),
            None => self.object.to_string(),
        }
    }
}

/// What a policy asks for.
///
/// # Errors
/// A refusal for its `Accepted`, naming the first field that cannot be done.
fn asks(policy: &L4Policy) -> Result<Asks, Refusal> {
    let spec = &policy.spec;
    let listener = spec.listener.as_ref().map(|policy| Settings::read("spec.listener", policy));
    let check = spec.backend.as_ref().map(|policy| check("spec.backend", policy));
    Ok(Asks {
        has_listener: spec.listener.is_some(),
        listener: listener.transpose()?.unwrap_or_default(),
        check: check.transpose()?.flatten(),
    })
}

/// The health check that `policy`, the field `path`, asks for.
///
/// # Errors
/// `UnsupportedValue`, naming the field that cannot be done.
pub(super) fn check(path: &str, policy: &BackendPolicy) -> Result<Option<Arc<Check>>, Refusal> {
    let unsupported = |message| Refusal::new("UnsupportedValue", message);
    if policy.proxy_protocol.is_some() {
        return Err(unsupported(format!(
            "{path}.proxyProtocol is not served by this version: remove it; mode dnat and DSR keep the client's \
             address"
        )));
    }
    let check = policy.health_check.as_ref();
    let check = check.map(|check| Check::read(&format!("{path}.healthCheck"), check));
    Ok(check.transpose().map_err(unsupported)?.map(Arc::new))
}

/// Adds a verdict, or puts it in the place of one that holds: an ancestor has one answer.
fn answer(answers: &mut Vec<AncestorVerdict>, ancestor: ParentReference, verdict: &Verdict) {
    match answers.iter_mut().find(|answer| answer.ancestor == ancestor) {
        None => answers.push(AncestorVerdict { ancestor, conditions: vec![verdict.clone()] }),
        Some(answer) => {
            if answer.conditions.iter().all(|before| before.status == Truth::True) {
                answer.conditions = vec![verdict.clone()];
            }
        }
    }
}

/// What policies are judged beside.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'s> {
    pub(super) view: View<'s>,
    pub(super) gateways: &'s BTreeMap<NamespacedName, GatewayPlan>,
    pub(super) sets: &'s BTreeMap<NamespacedName, SetPlan>,
}

impl Surroundings<'_> {
    /// Whether a Service has listeners: that which asks for an address of ours.
    fn is_load_balancer(&self, key: &ObjectKey) -> Result<(), Refusal> {
        let service = self.view.service(&key.namespaced());
        if service.is_some_and(service::is_ours) {
            return Ok(());
        }
        let message = format!(
            "spec.listener: {key} has no listeners: one of type LoadBalancer and loadBalancerClass {} has",
            service::LOAD_BALANCER_CLASS
        );
        Err(Refusal::new("UnsupportedValue", message))
    }

    /// Whether there is such a thing, and it is ours.
    fn find(&self, target: &Target, asks: &Asks) -> Result<(), Refusal> {
        let not_found = |message| Err(Refusal::new("TargetNotFound", message));
        if !self.view.exists(&target.object) {
            return not_found(format!("{} does not exist", target.object));
        }
        let name = target.object.namespaced();
        let listeners = match target.object.kind {
            Kind::Gateway => self.gateways.get(&name).map(|gateway| &gateway.listeners),
            Kind::ListenerSet => self.sets.get(&name).map(|set| &set.listeners),
            Kind::Service if asks.has_listener => return self.is_load_balancer(&target.object),
            _ => return Ok(()),
        };
        let Some(listeners) = listeners else {
            return not_found(format!("{} is served by another controller", target.object));
        };
        let Some(section) = &target.section else { return Ok(()) };
        match listeners.iter().find(|listener| listener.spec.name == *section) {
            None => {
                let names: Vec<_> = listeners.iter().map(|l| l.spec.name.as_str()).collect();
                let names = names.join(", ");
                not_found(format!("{} has no listener {section}: it has {names}", target.object))
            }
            Some(listener) if is_l7(listener) => {
                let (protocol, object) = (&listener.spec.protocol, &target.object);
                let message = format!(
                    "spec.listener: listener {section} of {object} speaks {protocol}, which the L7 tier serves: it \
                     has none of these settings"
                );
                Err(Refusal::new("UnsupportedValue", message))
            }
            Some(_) => Ok(()),
        }
    }
}

/// Whether the L7 tier serves the protocol of a listener, whatever else is wrong with it.
fn is_l7(listener: &ListenerPlan) -> bool {
    use penstock_gateway_types::Protocol::{Http, Https, Tls};
    matches!(listener.spec.protocol, Http | Https | Tls)
}
