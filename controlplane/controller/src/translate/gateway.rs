//! One Gateway: whether it is ours and well-formed, and the addresses it may have.

use std::net::IpAddr;
use std::sync::Arc;

use penstock_feed::model::{Affinity, Mode, Policies};
use penstock_gateway_types::{AddressType, Gateway, Time};

use super::listener::{self, Plan as ListenerPlan};
use super::policy;
use super::verdict::Refusal;
use crate::object::NamespacedName;

/// The annotation that chooses how packets are rewritten.
pub const MODE_ANNOTATION: &str = "penstock.dev/mode";
/// The annotation of a Gateway that says by what of a packet its backend is chosen.
pub const AFFINITY_ANNOTATION: &str = "penstock.dev/affinity";

/// A Gateway of ours, judged by itself.
pub(super) struct Plan<'a> {
    pub(super) name: &'a NamespacedName,
    pub(super) gateway: &'a Arc<Gateway>,
    /// Its addresses and mode; an error is its `Accepted` condition, and then it serves nothing.
    pub(super) accepted: Result<Accepted, Refusal>,
    pub(super) listeners: Vec<ListenerPlan<'a>>,
}

/// What an accepted Gateway asks for.
pub(super) struct Accepted {
    pub(super) mode: Mode,
    pub(super) affinity: SourceBits,
    pub(super) policies: Policies,
    /// In the order of its spec, each once.
    pub(super) addresses: Vec<IpAddr>,
    /// The addresses it asks for and cannot have, with the reason; the message of `Programmed`.
    pub(super) unusable: Vec<String>,
}

/// What decides who is older: creation, then name. Objects without a creation time come last.
pub(super) type Age<'a> = (bool, Option<&'a Time>, &'a NamespacedName);

/// The age of an object created at `created`.
pub(super) fn age<'a>(created: Option<&'a Time>, name: &'a NamespacedName) -> Age<'a> {
    (created.is_none(), created, name)
}

impl<'a> Plan<'a> {
    pub(super) fn of(
        name: &'a NamespacedName,
        gateway: &'a Arc<Gateway>,
        class: Result<(), Refusal>,
    ) -> Self {
        let specs = gateway.spec.listeners.iter();
        let mut listeners: Vec<_> =
            specs.map(|spec| ListenerPlan::of(spec, &name.namespace)).collect();
        listener::mark_conflicts(&mut listeners);
        let accepted = class.and_then(|()| accept(gateway));
        Self { name, gateway, accepted, listeners }
    }

    pub(super) fn age(&self) -> Age<'a> {
        age(self.gateway.metadata.creation_timestamp.as_ref(), self.name)
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
    let (addresses, unusable) = addresses(gateway)?;
    Ok(Accepted { mode, affinity, policies, addresses, unusable })
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

/// The usable addresses, and what is wrong with the others.
fn addresses(gateway: &Gateway) -> Result<(Vec<IpAddr>, Vec<String>), Refusal> {
    let unsupported = |message: String| Err(Refusal::new("UnsupportedAddress", message));
    let (mut usable, mut unusable) = (Vec::new(), Vec::new());
    for address in &gateway.spec.addresses {
        match address.type_.as_ref().unwrap_or(&AddressType::IpAddress) {
            AddressType::IpAddress => {}
            other => {
                return unsupported(format!("address type {other} is not served: write IPAddress"));
            }
        }
        let Some(text) = address.value.as_deref().filter(|text| !text.is_empty()) else { continue };
        match text.parse::<IpAddr>() {
            Ok(parsed) if usable.contains(&parsed) => {}
            Ok(parsed) => match not_a_vip(parsed) {
                None => usable.push(parsed),
                Some(fault) => unusable.push(format!("address {parsed} {fault}: choose another")),
            },
            Err(_) => {
                return unsupported(format!(
                    "address {text:?} is no IP address, such as 192.0.2.10 or 2001:db8::10"
                ));
            }
        }
    }
    Ok((usable, unusable))
}

/// Why an address cannot be a VIP.
fn not_a_vip(address: IpAddr) -> Option<&'static str> {
    match address {
        a if a.is_unspecified() => Some("stands for any address"),
        a if a.is_multicast() => Some("is a multicast group"),
        a if a.is_loopback() => Some("is a loopback address"),
        IpAddr::V4(a) if a.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V4(a) if a.is_link_local() => Some("is link-local"),
        IpAddr::V6(a) if a.is_unicast_link_local() => Some("is link-local"),
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => Some("is an IPv4 address written as IPv6"),
        _ => None,
    }
}
