//! BackendTLSPolicies: whether each is in force, at every Gateway whose routes reach what it is about.

use std::collections::{BTreeMap, BTreeSet};

use penstock_gateway_types::backend_tls_policy::PolicyTargetReference;
use penstock_gateway_types::reference::ObjectReference;
use penstock_gateway_types::value::SubjectAltNameType;
use penstock_gateway_types::{BackendRef, BackendTLSPolicy, GROUP, ParentReference};

use super::AncestorVerdict;
use super::certificate::{Certificates, Referrer};
use super::gateway::Age;
use super::look::View;
use super::route::Route;
use super::verdict::{Refusal, Verdict};
use crate::object::{Kind, NamespacedName};

/// The API has room for no more.
const ANCESTORS: usize = 16;

/// What a policy is about: a Service, and a port of it by name.
pub(crate) type Target = (NamespacedName, Option<String>);

/// By which Gateways Services are reached, and which policies are about them.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// How many routes reach a Service by a Gateway.
    reached: BTreeMap<NamespacedName, BTreeMap<NamespacedName, usize>>,
    /// Of several policies about one target the oldest has it.
    about: BTreeMap<Target, BTreeSet<Age>>,
    targets: BTreeMap<NamespacedName, (Age, BTreeSet<Target>)>,
}

/// Which Services a route reaches, and by which Gateways.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reach {
    services: BTreeSet<NamespacedName>,
    gateways: BTreeSet<NamespacedName>,
}

impl Reach {
    /// What `route` reaches that is attached to `gateways`. TCP and UDP are no business of these policies.
    pub(super) fn of(route: &Route<'_>, gateways: BTreeSet<NamespacedName>) -> Self {
        if matches!(route.key.kind, Kind::TcpRoute | Kind::UdpRoute) || gateways.is_empty() {
            return Self::default();
        }
        let service = |backend: &BackendRef| {
            let namespace = backend.namespace.as_deref().unwrap_or(&route.name.namespace);
            NamespacedName::new(namespace, &backend.name)
        };
        let services = route.backends.iter().map(|(_, backend)| service(backend)).collect();
        Self { services, gateways }
    }
}

impl Targets {
    /// Takes in what the policy `name` is about now; nothing if there is none. Returns the policies for which that
    /// may mean something else: itself, and those about the same.
    pub(super) fn put(
        &mut self,
        name: &NamespacedName,
        policy: Option<&BackendTLSPolicy>,
    ) -> BTreeSet<NamespacedName> {
        let mut concerned = BTreeSet::from([name.clone()]);
        if let Some((age, targets)) = self.targets.remove(name) {
            for target in targets {
                let Some(policies) = self.about.get_mut(&target) else { continue };
                policies.remove(&age);
                concerned.extend(policies.iter().map(|age| age.name.clone()));
                if policies.is_empty() {
                    self.about.remove(&target);
                }
            }
        }
        let Some(policy) = policy else { return concerned };
        let age = Age::of(policy.metadata.creation_timestamp.as_ref(), name);
        let targets: BTreeSet<_> = services(name, policy).collect();
        for target in &targets {
            let policies = self.about.entry(target.clone()).or_default();
            concerned.extend(policies.iter().map(|age| age.name.clone()));
            policies.insert(age.clone());
        }
        self.targets.insert(name.clone(), (age, targets));
        concerned
    }

    /// Takes in that a route reaches `now` what it reached `before`. Returns the policies that this concerns.
    pub(super) fn reach(&mut self, before: &Reach, now: &Reach) -> BTreeSet<NamespacedName> {
        let mut concerned = BTreeSet::new();
        if before == now {
            return concerned;
        }
        for service in &now.services {
            for gateway in &now.gateways {
                let reached = self.reached.entry(service.clone()).or_default();
                *reached.entry(gateway.clone()).or_default() += 1;
            }
            concerned.extend(self.policies_about(service));
        }
        for service in &before.services {
            let Some(reached) = self.reached.get_mut(service) else { continue };
            for gateway in &before.gateways {
                let Some(routes) = reached.get_mut(gateway) else { continue };
                *routes -= 1;
                if *routes == 0 {
                    reached.remove(gateway);
                }
            }
            if reached.is_empty() {
                self.reached.remove(service);
            }
            concerned.extend(self.policies_about(service));
        }
        concerned
    }

    fn policies_about(&self, service: &NamespacedName) -> impl Iterator<Item = NamespacedName> {
        let about = self.about.range((service.clone(), None)..);
        let about = about.take_while(move |((target, _), _)| target == service);
        about.flat_map(|(_, policies)| policies.iter().map(|age| age.name.clone()))
    }

    /// Answers a policy, if it is about a Service that is reached.
    pub(super) fn answer(
        &self,
        name: &NamespacedName,
        policy: &BackendTLSPolicy,
        view: View<'_>,
        certificates: Certificates<'_>,
    ) -> Option<Vec<AncestorVerdict>> {
        let (mut gateways, mut older, mut missing) = (BTreeSet::new(), None, Vec::new());
        for target in services(name, policy) {
            gateways.extend(self.reached.get(&target.0).into_iter().flat_map(BTreeMap::keys));
            if view.service(&target.0).is_none() {
                missing.push(target.0.name.clone());
            }
            let owner = self.about.get(&target).and_then(BTreeSet::first).map(|age| &age.name);
            older = older.or(owner.filter(|owner| *owner != name));
        }
        if gateways.is_empty() {
            return None; // nobody would use it
        }
        let (references, usable) = references(name, policy, certificates);
        let conditions = vec![accepted(policy, older, &missing, usable), references];
        let verdict = |gateway: &NamespacedName| AncestorVerdict {
            ancestor: ancestor(gateway.clone()),
            conditions: conditions.clone(),
        };
        Some(gateways.into_iter().take(ANCESTORS).map(verdict).collect())
    }
}

/// The Services that a policy is about.
pub(crate) fn services(
    name: &NamespacedName,
    policy: &BackendTLSPolicy,
) -> impl Iterator<Item = Target> {
    let targets = policy.spec.target_refs.iter().filter(|target| is_service(target));
    targets.map(|target| {
        let service = NamespacedName::new(&name.namespace, &target.name);
        (service, target.section_name.clone())
    })
}

fn is_service(target: &PolicyTargetReference) -> bool {
    (target.group.as_str(), target.kind.as_str()) == ("", "Service")
}

fn ancestor(gateway: NamespacedName) -> ParentReference {
    ParentReference {
        group: Some(GROUP.to_owned()),
        kind: Some("Gateway".to_owned()),
        namespace: Some(gateway.namespace),
        name: gateway.name,
        ..ParentReference::default()
    }
}

/// `ResolvedRefs`, and whether an authority is usable.
fn references(
    name: &NamespacedName,
    policy: &BackendTLSPolicy,
    certificates: Certificates<'_>,
) -> (Verdict, bool) {
    let from = Referrer { kind: Kind::BackendTlsPolicy, namespace: &name.namespace };
    let (mut first, mut usable) = (None, false);
    for (index, reference) in policy.spec.validation.ca_certificate_refs.iter().enumerate() {
        let reference = ObjectReference {
            group: reference.group.clone(),
            kind: reference.kind.clone(),
            name: reference.name.clone(),
            namespace: None,
        };
        match certificates.authorities(from, &reference, "InvalidKind", "InvalidCACertificateRef") {
            Ok(_) => usable = true,
            Err(Refusal { reason, message }) => {
                let message = format!("validation.caCertificateRefs[{index}]: {message}");
                first.get_or_insert(Refusal { reason, message });
            }
        }
    }
    let verdict = match first {
        None => Verdict::holds("ResolvedRefs", "ResolvedRefs", "all references are resolved"),
        Some(refusal) => Verdict::fails("ResolvedRefs", refusal),
    };
    (verdict, usable)
}

fn accepted(
    policy: &BackendTLSPolicy,
    older: Option<&NamespacedName>,
    missing: &[String],
    usable: bool,
) -> Verdict {
    let fails = |reason, message: String| Verdict::fails("Accepted", Refusal::new(reason, message));
    let validation = &policy.spec.validation;
    if missing.len() == policy.spec.target_refs.len() {
        return fails("TargetNotFound", format!("Service {} does not exist", missing.join(", ")));
    }
    if let Some(older) = older {
        return fails("Conflicted", format!("the older policy {older} is about the same Service"));
    }
    if let Some(set) = &validation.well_known_ca_certificates {
        let message =
            format!("wellKnownCACertificates {set} is not served: write caCertificateRefs");
        return fails("Invalid", message);
    }
    let unknown = |name: &SubjectAltNameType| matches!(name, SubjectAltNameType::Unknown(_));
    if let Some(name) = validation.subject_alt_names.iter().find(|name| unknown(&name.type_)) {
        return fails(
            "Invalid",
            format!("subjectAltNames: type {:?} is not known", name.type_.as_str()),
        );
    }
    match usable {
        true => Verdict::holds("Accepted", "Accepted", "the policy is accepted"),
        false => fails("NoValidCACertificate", "no certificate authority is usable".to_owned()),
    }
}
