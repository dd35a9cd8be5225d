//! One listener, of a Gateway or a ListenerSet: what it serves, and who may attach.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use penstock_feed::model::{Name, PortRange, Protocol};
use penstock_gateway_types::reference::RouteGroupKind;
use penstock_gateway_types::value::Protocol as Spoken;
use penstock_gateway_types::{GROUP, Gateway, Listener, ListenerSet, TlsMode};

use super::Note;
use super::certificate::{Certificates, Referrer};
use super::conflict::{Conflict, Waits};
use super::frontend::Frontend;
use super::hostname;
use super::l7::{Certificate, L7Listener, Speaks, Tls};
use super::look::View;
use super::namespace::AllowedNamespaces;
use super::settings::Settings;
use super::verdict::Refusal;
use crate::object::{Kind, NamespacedName, ObjectKey};

/// Whose listener it is: a Gateway's or a ListenerSet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) kind: Kind,
    pub(super) name: NamespacedName,
}

/// `Gateway default/web`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl Owner {
    /// The name of its listener in the feed, which outlives restarts: that of a Gateway's is the short one.
    pub(super) fn place(&self, listener: &str) -> String {
        match self.kind {
            Kind::Gateway => format!("{}/{listener}", self.name),
            _ => format!("listenerset/{}/{listener}", self.name),
        }
    }

    /// The name of the group of its listener while no route serves there.
    pub(super) fn group(&self, listener: &str) -> Option<Name> {
        let kind = self.kind.as_str().to_ascii_lowercase();
        Name::new(&format!("{kind}/{}/{listener}", self.name)).ok()
    }

    fn referrer(&self) -> Referrer<'_> {
        Referrer { kind: self.kind, namespace: &self.name.namespace }
    }
}

/// The Gateway or the ListenerSet whose listener has that name in the feed.
#[must_use]
pub fn owner_of(name: &Name) -> Option<ObjectKey> {
    let (kind, namespace, owner) = match *name.as_str().split('/').collect::<Vec<_>>() {
        [namespace, gateway, _] => (Kind::Gateway, namespace, gateway),
        ["listenerset", namespace, set, _] => (Kind::ListenerSet, namespace, set),
        _ => return None,
    };
    Some(ObjectKey::of(kind, &NamespacedName::new(namespace, owner)))
}

/// What a listener's author wrote, within the object that holds it.
#[derive(Clone)]
pub(super) enum Spec {
    OfGateway(Arc<Gateway>, usize),
    OfListenerSet(Arc<ListenerSet>, usize),
}

impl Deref for Spec {
    type Target = Listener;

    fn deref(&self) -> &Listener {
        match self {
            Self::OfGateway(gateway, index) => &gateway.spec.listeners[*index],
            Self::OfListenerSet(set, index) => &set.spec.listeners[*index],
        }
    }
}

/// A listener, judged by itself and beside its siblings.
pub(super) struct Plan {
    pub(super) spec: Spec,
    pub(super) owner: Arc<Owner>,
    /// What it would serve; an error is its `Accepted` condition.
    pub(super) serves: Result<Serves, Refusal>,
    /// An error is its `ResolvedRefs` condition.
    pub(super) references: Result<(), Refusal>,
    /// Why it cannot be served although it is accepted: no certificate that it names is usable, or nobody
    /// speaks its protocol yet.
    pub(super) blocked: Option<String>,
    /// What it does, by its policies and the parameters of its Gateway.
    pub(super) settings: Settings,
    /// That by which it is told from its siblings.
    pub(super) waits: Waits,
    /// The siblings it cannot live with.
    pub(super) conflict: Option<Conflict>,
    /// Siblings that end TLS for its names; the message of its `OverlappingTLSConfig` condition.
    pub(super) overlap: Option<String>,
    /// The kinds of routes that may attach.
    pub(super) kinds: Vec<Kind>,
}

/// Why a listener of the L7 tier with source ranges is not served.
const SHUTS_OUT: &str = "sourceRanges are not kept by this version for HTTP and HTTPS, and nobody is let in whom they shut \
                         out: use TCP, or let the L4Policy name the other listeners alone";

/// A protocol and a port.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Serves {
    pub(super) protocol: Protocol,
    pub(super) ports: PortRange,
    /// What the L7 tier does there; the data plane's own if none.
    pub(super) l7: Option<L7Listener>,
}

impl Plan {
    /// Judges a listener by itself. `frontend` is what its Gateway says of clients.
    pub(super) fn of(
        spec: Spec,
        owner: &Arc<Owner>,
        frontend: &Frontend<'_>,
        certificates: Certificates<'_>,
    ) -> Self {
        let (kinds, mut references) = kinds(&spec, fitting_kinds(&spec.protocol));
        let waits = Waits::of(&spec);
        let mut judged = Judged::default();
        let serves = AllowedNamespaces::of(&spec, &owner.name.namespace)
            .map(|_| ())
            .and_then(|()| nameable(&waits))
            .and_then(|()| transport(&spec))
            .and_then(|(protocol, ports)| {
                let speaks = judged.speaks(&spec, owner, frontend, certificates)?;
                let hostname = waits.hostname.clone();
                let l7 = speaks.map(|speaks| L7Listener { hostname, speaks });
                Ok(Serves { protocol, ports, l7 })
            });
        if let (Ok(()), Some(refusal)) = (&references, judged.unresolved) {
            references = Err(refusal);
        }
        let unserved = (spec.protocol == Spoken::Tls && serves.is_ok()).then(|| {
            "protocol TLS is not served by this version: TCP passes TLS through unread, HTTPS ends it"
                .to_owned()
        });
        let blocked = judged.blocked.or(unserved);
        let (owner, settings, conflict, overlap) =
            (Arc::clone(owner), Settings::default(), None, None);
        Self { spec, owner, serves, references, blocked, settings, waits, conflict, overlap, kinds }
    }

    /// Has it do so. The L7 tier lets everyone in: a listener of it that is to shut out some is not served.
    pub(super) fn settle(&mut self, settings: Settings) {
        let is_l7 = self.serves.as_ref().is_ok_and(|serves| serves.l7.is_some());
        if is_l7 && settings.shuts_out() {
            self.blocked.get_or_insert_with(|| SHUTS_OUT.to_owned());
        }
        self.settings = settings;
    }

    /// What is written about it and does nothing, for who wrote it.
    pub(super) fn in_vain(&self) -> Vec<Note> {
        let is_l7 = self.serves.as_ref().is_ok_and(|serves| serves.l7.is_some());
        let object = ObjectKey::of(self.owner.kind, &self.owner.name);
        let messages = self.settings.in_vain().filter(|_| !is_l7);
        let name = &self.spec.name;
        let note = |message| Note {
            object: object.clone(),
            message: format!("listener {name}: {message}"),
        };
        messages.map(note).collect()
    }

    /// Whether the same routes attach to both, in the same way.
    pub(super) fn admits_as(&self, other: &Self) -> bool {
        let (one, other) = (&*self.spec, &*other.spec);
        (&one.name, &one.hostname, one.port) == (&other.name, &other.hostname, other.port)
            && (&one.protocol, &one.allowed_routes) == (&other.protocol, &other.allowed_routes)
    }

    /// Whether a parentRef with this sectionName and port means this listener.
    pub(super) fn is_meant_by(&self, section_name: Option<&str>, port: Option<i32>) -> bool {
        section_name.is_none_or(|name| name == self.spec.name)
            && port.is_none_or(|port| port == self.spec.port)
    }

    /// Why a route of `kind` in `namespace` may not attach.
    pub(super) fn refuses(&self, kind: Kind, namespace: &str, view: View<'_>) -> Option<String> {
        let name = &self.spec.name;
        if !self.kinds.contains(&kind) {
            let (protocol, kinds) = (&self.spec.protocol, named(&self.kinds));
            return Some(format!("listener {name} ({protocol}) takes {kinds}, no {kind}"));
        }
        let allowed = AllowedNamespaces::of(&self.spec, &self.owner.name.namespace);
        let allowed = allowed.is_ok_and(|allowed| allowed.allow(namespace, view));
        (!allowed).then(|| format!("listener {name} takes no routes from namespace {namespace}"))
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

/// The kinds of routes that fit a protocol.
fn fitting_kinds(protocol: &Spoken) -> &'static [Kind] {
    match protocol {
        Spoken::Tcp => &[Kind::TcpRoute],
        Spoken::Udp => &[Kind::UdpRoute],
        Spoken::Http | Spoken::Https => &[Kind::HttpRoute, Kind::GrpcRoute],
        Spoken::Tls => &[Kind::TlsRoute],
        Spoken::Unknown(_) => &[],
    }
}

/// The kinds that may attach: what fits the protocol, if `allowedRoutes.kinds` lists it or is empty.
fn kinds(spec: &Listener, fitting: &[Kind]) -> (Vec<Kind>, Result<(), Refusal>) {
    let listed =
        spec.allowed_routes.as_ref().map(|routes| routes.kinds.as_slice()).unwrap_or_default();
    if listed.is_empty() || fitting.is_empty() {
        return (fitting.to_vec(), Ok(()));
    }
    let is = |kind: &RouteGroupKind, fitting: &Kind| {
        kind.group.as_deref().unwrap_or(GROUP) == GROUP && kind.kind == fitting.as_str()
    };
    let is_listed = |fitting: &&Kind| listed.iter().any(|kind| is(kind, fitting));
    let kinds = fitting.iter().filter(is_listed).copied().collect();
    let stranger = listed.iter().find(|kind| !fitting.iter().any(|fitting| is(kind, fitting)));
    let references = stranger.map_or(Ok(()), |other| {
        let message = format!(
            "allowedRoutes.kinds: {} cannot attach to a {} listener: {} can",
            other.kind,
            spec.protocol,
            named(fitting)
        );
        Err(Refusal::new("InvalidRouteKinds", message))
    });
    (kinds, references)
}

/// Whether a client can ask for the listener's host name.
fn nameable(waits: &Waits) -> Result<(), Refusal> {
    let overlong = waits.hostname.as_deref().and_then(hostname::overlong);
    overlong.map_or(Ok(()), |label| {
        let bytes = label.len();
        Err(unsupported(format!("hostname: label {label} has {bytes} bytes: 63 are allowed")))
    })
}

/// The transport and the L4 port of a listener.
fn transport(spec: &Listener) -> Result<(Protocol, PortRange), Refusal> {
    let protocol = match &spec.protocol {
        Spoken::Udp => Protocol::Udp,
        Spoken::Unknown(other) => {
            let known = Spoken::KNOWN.join(", ");
            let message = format!("protocol {other:?} is not known: write one of {known}");
            return Err(Refusal::new("UnsupportedProtocol", message));
        }
        _ => Protocol::Tcp,
    };
    let port = u16::try_from(spec.port).ok().and_then(|port| PortRange::single(port).ok());
    let no_port = || format!("port {} is no L4 port: 1 to 65535 are", spec.port);
    Ok((protocol, port.ok_or_else(|| unsupported(no_port()))?))
}

/// What the certificates of a listener come to.
#[derive(Default)]
struct Judged {
    unresolved: Option<Refusal>,
    blocked: Option<String>,
}

impl Judged {
    /// What the L7 tier does for a listener; `None` if it is the data plane's own.
    fn speaks(
        &mut self,
        spec: &Listener,
        owner: &Owner,
        frontend: &Frontend<'_>,
        certificates: Certificates<'_>,
    ) -> Result<Option<Speaks>, Refusal> {
        let tls = spec.tls.as_ref();
        let mode = tls.and_then(|tls| tls.mode.as_ref()).unwrap_or(&TlsMode::Terminate);
        match (&spec.protocol, mode) {
            (Spoken::Http, _) => Ok(Some(Speaks::Http)),
            (Spoken::Https, TlsMode::Terminate) => {
                let tls = self.terminate(spec, owner, frontend, certificates)?;
                Ok(Some(Speaks::Https(tls)))
            }
            (Spoken::Tls, TlsMode::Terminate) => {
                let tls = self.terminate(spec, owner, frontend, certificates)?;
                Ok(Some(Speaks::Tls(tls)))
            }
            (Spoken::Tls, TlsMode::Passthrough) => Ok(Some(Speaks::Passthrough)),
            (Spoken::Https, TlsMode::Passthrough) => Err(unsupported(
                "tls.mode Passthrough reads no requests, HTTPS does: write protocol TLS, or mode Terminate"
                    .to_owned(),
            )),
            (Spoken::Https | Spoken::Tls, TlsMode::Unknown(other)) => Err(unsupported(format!(
                "tls.mode {other:?} is not known: write one of {}",
                TlsMode::KNOWN.join(", ")
            ))),
            (Spoken::Tcp | Spoken::Udp | Spoken::Unknown(_), _) => Ok(None),
        }
    }

    fn terminate(
        &mut self,
        spec: &Listener,
        owner: &Owner,
        frontend: &Frontend<'_>,
        certificates: Certificates<'_>,
    ) -> Result<Tls, Refusal> {
        let usable = self.certificates(spec, owner, certificates);
        let (clients, faults) = frontend.clients(spec.port, certificates);
        for fault in faults {
            self.unresolved.get_or_insert(fault);
        }
        Ok(Tls { certificates: usable, clients: clients? })
    }

    /// The usable certificates. Others make `ResolvedRefs` false; without any the listener cannot be served.
    fn certificates(
        &mut self,
        spec: &Listener,
        owner: &Owner,
        certificates: Certificates<'_>,
    ) -> Vec<Arc<Certificate>> {
        const INVALID: &str = "InvalidCertificateRef";
        let references =
            spec.tls.as_ref().map(|tls| tls.certificate_refs.as_slice()).unwrap_or_default();
        let mut usable = Vec::new();
        for (index, reference) in references.iter().enumerate() {
            match certificates.certificate(owner.referrer(), reference, INVALID) {
                Ok(certificate) => usable.push(certificate),
                Err(refusal) => {
                    let message = format!("tls.certificateRefs[{index}]: {}", refusal.message);
                    self.unresolved.get_or_insert(Refusal { message, ..refusal });
                }
            }
        }
        if references.is_empty() {
            let message = "tls.certificateRefs is empty: name the Secret of a certificate";
            self.unresolved = Some(Refusal::new(INVALID, message));
        }
        if usable.is_empty() {
            self.blocked = self.unresolved.as_ref().map(|refusal| refusal.message.clone());
        }
        usable
    }
}

fn unsupported(message: String) -> Refusal {
    Refusal::new("UnsupportedValue", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_says_whose_it_is() {
        let name = NamespacedName::new("listenerset", "web");
        for kind in [Kind::Gateway, Kind::ListenerSet] {
            let plain = Owner { kind, name: name.clone() }.place("http");
            for text in [plain.clone(), format!("{plain}@2001:db8::1")] {
                let found = owner_of(&Name::new(&text).unwrap());
                assert_eq!(found, Some(ObjectKey::of(kind, &name)), "{text}");
            }
        }
        assert_eq!(owner_of(&Name::new("x").unwrap()), None);
    }
}
