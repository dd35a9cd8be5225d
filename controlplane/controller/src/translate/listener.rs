//! One listener of a Gateway: what it serves, and who may attach.

use penstock_feed::model::{PortRange, Protocol};
use penstock_gateway_types::reference::RouteGroupKind;
use penstock_gateway_types::value::Protocol as Spoken;
use penstock_gateway_types::{GROUP, Listener};

use super::namespace::AllowedNamespaces;
use super::verdict::Refusal;
use crate::object::{Kind, NamespacedName, Objects};

/// A listener, judged by itself and beside its siblings.
pub(super) struct Plan<'a> {
    pub(super) spec: &'a Listener,
    /// What it would serve; an error is its `Accepted` condition.
    pub(super) serves: Result<Serves, Refusal>,
    /// An error is its `ResolvedRefs` condition.
    pub(super) references: Result<(), Refusal>,
    /// The siblings it cannot live with; the message of its `Conflicted` condition.
    pub(super) conflict: Option<String>,
    /// The kinds of routes that may attach.
    pub(super) kinds: Vec<Kind>,
    namespaces: AllowedNamespaces<'a>,
    /// The routes that are attached, oldest first.
    pub(super) routes: Vec<NamespacedName>,
}

/// A protocol and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Serves {
    pub(super) protocol: Protocol,
    pub(super) ports: PortRange,
}

impl<'a> Plan<'a> {
    /// Judges a listener of a Gateway in `namespace` by itself.
    pub(super) fn of(spec: &'a Listener, namespace: &'a str) -> Self {
        let fitting = fitting_kind(&spec.protocol);
        let (kinds, references) = kinds(spec, fitting);
        let allowed = AllowedNamespaces::of(spec, namespace);
        let namespaces = *allowed.as_ref().unwrap_or(&AllowedNamespaces::None);
        let serves = allowed.map(|_| ()).and_then(|()| serves(spec));
        Self { spec, serves, references, conflict: None, kinds, namespaces, routes: Vec::new() }
    }

    /// Whether a parentRef with this sectionName and port means this listener.
    pub(super) fn is_meant_by(&self, section_name: Option<&str>, port: Option<i32>) -> bool {
        section_name.is_none_or(|name| name == self.spec.name)
            && port.is_none_or(|port| port == self.spec.port)
    }

    /// Why a route of `kind` in `namespace` may not attach.
    pub(super) fn refuses(&self, kind: Kind, namespace: &str, objects: &Objects) -> Option<String> {
        let name = &self.spec.name;
        if !self.kinds.contains(&kind) {
            let (protocol, kinds) = (&self.spec.protocol, named(&self.kinds));
            return Some(format!("listener {name} ({protocol}) takes {kinds}, no {kind}"));
        }
        let allowed = self.namespaces.allow(namespace, objects);
        (!allowed).then(|| format!("listener {name} takes no routes from namespace {namespace}"))
    }

    /// Attaches a route, once. Returns the older route that serves in its stead.
    pub(super) fn attach(&mut self, route: &NamespacedName) -> Option<&NamespacedName> {
        if !self.routes.contains(route) {
            self.routes.push(route.clone());
        }
        self.routes.first().filter(|oldest| *oldest != route)
    }

    /// `supportedKinds` of its status.
    pub(super) fn supported_kinds(&self) -> Vec<RouteGroupKind> {
        let entry = |kind: &Kind| RouteGroupKind {
            group: Some(GROUP.to_owned()),
            kind: kind.as_str().to_owned(),
        };
        self.kinds.iter().map(entry).collect()
    }
}

fn named(kinds: &[Kind]) -> String {
    match kinds {
        [] => "no routes".to_owned(),
        kinds => kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// The kind of route that fits a protocol, of those we serve.
fn fitting_kind(protocol: &Spoken) -> Option<Kind> {
    match protocol {
        Spoken::Tcp => Some(Kind::TcpRoute),
        Spoken::Udp => Some(Kind::UdpRoute),
        _ => None,
    }
}

/// The kinds that may attach: what fits the protocol, if `allowedRoutes.kinds` lists it or is empty.
fn kinds(spec: &Listener, fitting: Option<Kind>) -> (Vec<Kind>, Result<(), Refusal>) {
    let listed =
        spec.allowed_routes.as_ref().map(|routes| routes.kinds.as_slice()).unwrap_or_default();
    let Some(fitting) = fitting else { return (Vec::new(), Ok(())) };
    if listed.is_empty() {
        return (vec![fitting], Ok(()));
    }
    let fits = |kind: &RouteGroupKind| {
        kind.group.as_deref().unwrap_or(GROUP) == GROUP && kind.kind == fitting.as_str()
    };
    let kinds = if listed.iter().any(fits) { vec![fitting] } else { Vec::new() };
    let references = match listed.iter().find(|kind| !fits(kind)) {
        None => Ok(()),
        Some(other) => {
            let message = format!(
                "allowedRoutes.kinds: {} cannot attach to a {} listener: {fitting} can",
                other.kind, spec.protocol
            );
            Err(Refusal::new("InvalidRouteKinds", message))
        }
    };
    (kinds, references)
}

fn serves(spec: &Listener) -> Result<Serves, Refusal> {
    let protocol = match &spec.protocol {
        Spoken::Tcp => Protocol::Tcp,
        Spoken::Udp => Protocol::Udp,
        Spoken::Unknown(other) => {
            let message = format!("protocol {other:?} is not known: TCP and UDP are served");
            return Err(Refusal::new("UnsupportedProtocol", message));
        }
        later => {
            let message = format!(
                "protocol {later} is not served yet, TCP and UDP are: it needs the L7 tier, which this \
                 version does not have"
            );
            return Err(Refusal::new("UnsupportedProtocol", message));
        }
    };
    let unsupported = |message: String| Refusal::new("UnsupportedValue", message);
    let port = u16::try_from(spec.port).ok().and_then(|port| PortRange::single(port).ok());
    let ports = port
        .ok_or_else(|| unsupported(format!("port {} is no L4 port: 1 to 65535 are", spec.port)))?;
    Ok(Serves { protocol, ports })
}

/// Marks the listeners of one Gateway that want the same port. The API knows no winner among them.
pub(super) fn mark_conflicts(plans: &mut [Plan<'_>]) {
    let conflicts: Vec<_> = (0..plans.len()).map(|one| conflict(plans, one)).collect();
    for (plan, conflict) in plans.iter_mut().zip(conflicts) {
        plan.conflict = conflict;
    }
}

fn conflict(plans: &[Plan<'_>], one: usize) -> Option<String> {
    let own = &plans[one].spec;
    let others: Vec<_> = plans
        .iter()
        .enumerate()
        .filter(|(other, plan)| *other != one && collide(own, plan.spec))
        .map(|(_, plan)| plan.spec.name.as_str())
        .collect();
    if others.is_empty() {
        return None;
    }
    let transport = if own.protocol == Spoken::Udp { "UDP" } else { "TCP" };
    let others = others.join(", ");
    Some(format!(
        "port {} {transport} is wanted by listener {others} too: keep one of them, or give each a port of its own",
        own.port
    ))
}

/// Whether two listeners of a Gateway cannot be told apart. Listeners that see host names could share a
/// port; which of them do is for the tier that serves them to say.
fn collide(one: &Listener, other: &Listener) -> bool {
    let l4 = |spoken: &Spoken| matches!(spoken, Spoken::Tcp | Spoken::Udp);
    let udp = |spoken: &Spoken| *spoken == Spoken::Udp;
    let unknown = |spoken: &Spoken| matches!(spoken, Spoken::Unknown(_));
    one.port == other.port
        && !unknown(&one.protocol)
        && !unknown(&other.protocol)
        && udp(&one.protocol) == udp(&other.protocol)
        && (l4(&one.protocol) || l4(&other.protocol))
}
