//! BackendTLSPolicies: whether each is in force, at every Gateway whose routes reach what it is about.

use std::collections::{BTreeMap, BTreeSet};

use penstock_gateway_types::backend_tls_policy::PolicyTargetReference;
use penstock_gateway_types::reference::ObjectReference;
use penstock_gateway_types::value::SubjectAltNameType;
use penstock_gateway_types::{BackendTLSPolicy, GROUP, ParentReference};

use super::AncestorVerdict;
use super::certificate::{Certificates, Referrer};
use super::gateway;
use super::route::Route;
use super::verdict::{Refusal, Verdict};
use crate::object::{Kind, NamespacedName, Objects};

/// The API has room for no more.
const ANCESTORS: usize = 16;

/// By which Gateways each Service is reached.
pub(super) type Reached = BTreeMap<NamespacedName, BTreeSet<NamespacedName>>;

/// Notes that `route` reaches its backends by `gateways`. TCP and UDP are no business of these policies.
pub(super) fn reach(route: &Route<'_>, gateways: &[NamespacedName], reached: &mut Reached) {
    if matches!(route.key.kind, Kind::TcpRoute | Kind::UdpRoute) || gateways.is_empty() {
        return;
    }
    for (_, backend) in &route.backends {
        let namespace = backend.namespace.as_deref().unwrap_or(&route.name.namespace);
        let service = NamespacedName::new(namespace, &backend.name);
        reached.entry(service).or_default().extend(gateways.iter().cloned());
    }
}

/// Answers every policy that is about a Service that is reached.
pub(super) fn answers(
    objects: &Objects,
    reached: &Reached,
    certificates: &Certificates<'_>,
) -> BTreeMap<NamespacedName, Vec<AncestorVerdict>> {
    let mut by_age: Vec<_> = objects.backend_tls_policies.iter().collect();
    by_age.sort_by(|(one, a), (other, b)| {
        let created = |policy: &BackendTLSPolicy| policy.metadata.creation_timestamp.clone();
        let (a, b) = (created(a), created(b));
        gateway::age(a.as_ref(), one).cmp(&gateway::age(b.as_ref(), other))
    });
    let mut owners: BTreeMap<(NamespacedName, Option<&str>), &NamespacedName> = BTreeMap::new();
    let mut answers = BTreeMap::new();
    for (name, policy) in by_age {
        let (mut gateways, mut older, mut missing) = (BTreeSet::new(), None, Vec::new());
        for target in policy.spec.target_refs.iter().filter(|target| is_service(target)) {
            let service = NamespacedName::new(&name.namespace, &target.name);
            gateways.extend(reached.get(&service).into_iter().flatten().cloned());
            if !objects.services.contains_key(&service) {
                missing.push(target.name.as_str());
            }
            let key = (service, target.section_name.as_deref());
            let owner = *owners.entry(key).or_insert(name);
            older = older.or((owner != name).then_some(owner));
        }
        if gateways.is_empty() {
            continue; // nobody would use it
        }
        let (references, usable) = references(name, policy, certificates);
        let conditions = vec![accepted(policy, older, &missing, usable), references];
        let verdict = |gateway: NamespacedName| AncestorVerdict {
            ancestor: ancestor(gateway),
            conditions: conditions.clone(),
        };
        answers.insert(name.clone(), gateways.into_iter().take(ANCESTORS).map(verdict).collect());
    }
    answers
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
    certificates: &Certificates<'_>,
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
    missing: &[&str],
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
