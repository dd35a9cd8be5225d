//! One Gateway: whether it is ours and well-formed, and what it asks for.

use std::net::IpAddr;
use std::sync::Arc;

use penstock_feed::model::{Affinity, Mode, Policies};
use penstock_gateway_types::{Gateway, Time};

use super::address::{self, Asked, Given};
use super::certificate::Certificates;
use super::frontend::{self, Frontend};
use super::listener::{Owner, Plan as ListenerPlan, Spec};
use super::verdict::{Refusal, Verdict};
use super::{conflict, policy};
use crate::object::{Kind, NamespacedName};

/// The annotation that chooses how packets are rewritten.
pub const MODE_ANNOTATION: &str = "penstock.dev/mode";
/// The annotation of a Gateway that says by what of a packet its backend is chosen.
pub const AFFINITY_ANNOTATION: &str = "penstock.dev/affinity";

/// A Gateway of ours, judged by itself.
pub(super) struct Plan {
    pub(super) name: NamespacedName,
    pub(super) age: Age,
    pub(super) gateway: Arc<Gateway>,
    /// What it asks for; an error is its `Accepted` condition, and then it serves nothing.
    pub(super) accepted: Result<Accepted, Refusal>,
    /// What of that it has.
    pub(super) given: Given,
    pub(super) listeners: Vec<ListenerPlan>,
    /// The conditions that only some Gateways have.
    pub(super) conditions: Vec<Verdict>,
}

/// What an accepted Gateway asks for.
pub(super) struct Accepted {
    pub(super) mode: Mode,
    pub(super) affinity: SourceBits,
    pub(super) policies: Policies,
    pub(super) asked: Vec<Asked>,
}

/// What decides who is older: creation, then name. Objects without a creation time come last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    is_unknown: bool,
    created: Option<Time>,
    pub(super) name: NamespacedName,
}

impl Age {
    /// The age of an object created at `created`.
    pub(super) fn of(created: Option<&Time>, name: &NamespacedName) -> Self {
        Self { is_unknown: created.is_none(), created: created.cloned(), name: name.clone() }
    }
}

impl Plan {
    pub(super) fn of(
        name: &NamespacedName,
        gateway: &Arc<Gateway>,
        class: Result<(), Refusal>,
        certificates: Certificates<'_>,
    ) -> Self {
        let frontend = Frontend::of(name, gateway);
        let owner = Arc::new(Owner { kind: Kind::Gateway, name: name.clone() });
        let specs = (0..gateway.spec.listeners.len())
            .map(|index| Spec::OfGateway(Arc::clone(gateway), index));
        let mut listeners: Vec<_> =
            specs.map(|spec| ListenerPlan::of(spec, &owner, &frontend, certificates)).collect();
        conflict::mark_own(&mut listeners);
        let accepted = class.and_then(|()| accept(gateway));
        let resolved = frontend::backend(name, gateway, certificates);
        let conditions = resolved.into_iter().chain(frontend.insecure()).collect();
        let age = Age::of(gateway.metadata.creation_timestamp.as_ref(), name);
        let (name, gateway, given) = (name.clone(), Arc::clone(gateway), Given::default());
        Self { name, age, gateway, accepted, given, listeners, conditions }
    }

    /// What it asks for, if it is accepted.
    pub(super) fn accepted(&self) -> Option<&Accepted> {
        self.accepted.as_ref().ok()
    }
}

fn accept(gateway: &Gateway) -> Result<Accepted, Refusal> {
    let parameters = gateway.spec.infrastructure.as_ref().and_then(|i| i.parameters_ref.as_ref());
    if let Some(parameters) = parameters {
        let message = format!(
            "infrastructure.parametersRef {} {}: no kind of parameters is known, remove it",
            parameters.kind, parameters.name
        );
        return Err(Refusal::new("InvalidParameters", message));
    }
    let (mode, affinity) = (mode(gateway)?, affinity(gateway)?);
    let policies = policy::policies(gateway)?;
    let asked = address::asked(gateway)?;
    Ok(Accepted { mode, affinity, policies, asked })
}

fn mode(gateway: &Gateway) -> Result<Mode, Refusal> {
    let annotations = gateway.metadata.annotations.as_ref();
    let Some(wanted) = annotations.and_then(|annotations| annotations.get(MODE_ANNOTATION)) else {
        return Ok(Mode::FullNat);
    };
    Mode::ALL.into_iter().find(|mode| mode.name() == wanted).ok_or_else(|| {
        let names = Mode::ALL.map(Mode::name).join(", ");
        let message =
            format!("annotation {MODE_ANNOTATION}: {wanted:?} is no mode: write one of {names}");
        Refusal::new("Invalid", message)
    })
}

/// By how many bits of the source address backends are chosen, for IPv4 and for IPv6; by the 5-tuple if none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SourceBits(Option<[u8; 2]>);

impl SourceBits {
    pub(super) fn of(self, vip: IpAddr) -> Affinity {
        let bits = self.0.map(|[v4, v6]| if vip.is_ipv4() { v4 } else { v6 });
        bits.and_then(|bits| Affinity::source(bits, vip)).unwrap_or_default()
    }

    fn read(text: &str) -> Option<Self> {
        let bits =
            |text: &str, most: u8| text.parse().ok().filter(|bits: &u8| (1..=most).contains(bits));
        match *text.split('/').collect::<Vec<_>>() {
            ["5-tuple"] => Some(Self(None)),
            ["source"] => Some(Self(Some([32, 128]))),
            ["source", v4, v6] => Some(Self(Some([bits(v4, 32)?, bits(v6, 128)?]))),
            _ => None,
        }
    }
}

fn affinity(gateway: &Gateway) -> Result<SourceBits, Refusal> {
    let annotations = gateway.metadata.annotations.as_ref();
    let wanted = annotations.and_then(|annotations| annotations.get(AFFINITY_ANNOTATION));
    let Some(wanted) = wanted else { return Ok(SourceBits::default()) };
    SourceBits::read(wanted).ok_or_else(|| {
        let message = format!(
            "annotation {AFFINITY_ANNOTATION}: {wanted:?} is no affinity: write 5-tuple, source, or \
             source/24/64 with prefix lengths for IPv4 and IPv6"
        );
        Refusal::new("Invalid", message)
    })
}
