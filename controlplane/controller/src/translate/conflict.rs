//! Which listeners cannot be told apart, and which of them give way.
//!
//! Within a Gateway nobody wins: every listener of an indistinct set is refused. Listeners that come by a
//! ListenerSet give way to those that came first: the Gateway's own, then those of older sets, then those
//! written above.

use std::sync::Arc;

use penstock_gateway_types::Listener;
use penstock_gateway_types::value::Protocol as Spoken;

use super::hostname;
use super::listener::Plan;

/// What a listener waits for: that by which it is told from others.
#[derive(Clone)]
pub(super) struct Waits {
    port: i32,
    protocol: Spoken,
    /// In lower case; none for every name.
    pub(super) hostname: Option<Arc<str>>,
}

impl Waits {
    pub(super) fn of(listener: &Listener) -> Self {
        let hostname = hostname::of(listener.hostname.as_deref());
        Self { port: listener.port, protocol: listener.protocol.clone(), hostname }
    }
}

/// Why a listener is not accepted beside others.
#[derive(Clone)]
pub(super) struct Conflict {
    /// `ProtocolConflict` or `HostnameConflict`.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Marks the listeners of one Gateway that cannot be told apart, and those whose names overlap.
pub(super) fn mark_own(plans: &mut [Plan]) {
    let conflicts: Vec<_> = (0..plans.len()).map(|one| among_siblings(plans, one)).collect();
    for (plan, conflict) in plans.iter_mut().zip(conflicts) {
        plan.conflict = conflict;
    }
}

fn among_siblings(plans: &[Plan], one: usize) -> Option<Conflict> {
    let own = &plans[one].waits;
    let others = plans.iter().enumerate().filter(|(other, _)| *other != one);
    let others: Vec<_> = others
        .filter_map(|(_, other)| Some((between(own, &other.waits)?, other.spec.name.as_str())))
        .collect();
    let reason = strongest(others.iter().map(|(reason, _)| *reason))?;
    let names: Vec<_> = others.iter().map(|(_, name)| *name).collect();
    let names = format!("listener {}", names.join(", "));
    Some(Conflict { reason, message: wanted_twice(own, reason, &names) })
}

/// A listener that shares a port with another protocol cannot be saved by a name.
fn strongest(reasons: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    reasons.max_by_key(|reason| *reason == "ProtocolConflict")
}

/// The conflict of a listener of a ListenerSet with those that came first. Nothing is told of whose they are:
/// the set's author may not be allowed to see them.
pub(super) fn with_earlier(own: &Waits, earlier: &[Waits]) -> Option<Conflict> {
    let reason = earlier.iter().find_map(|other| between(own, other))?;
    let message = wanted_twice(own, reason, "a listener that came first");
    Some(Conflict { reason, message })
}

fn wanted_twice(own: &Waits, reason: &str, others: &str) -> String {
    let port = own.port;
    if reason == "HostnameConflict" {
        let name = match &own.hostname {
            Some(name) => format!("host name {name}"),
            None => "every host name".to_owned(),
        };
        return format!(
            "port {port} with {name} is wanted by {others} too: keep one of them, or give each a host name of \
             its own"
        );
    }
    let transport = if own.protocol == Spoken::Udp { "UDP" } else { "TCP" };
    format!(
        "port {port} {transport} is wanted by {others} too: keep one of them, or give each a port of its own"
    )
}

/// Why two listeners cannot be told apart; `None` if they can. HTTPS and TLS share a port by SNI; HTTP in clear
/// text shares it with HTTP alone.
fn between(one: &Waits, other: &Waits) -> Option<&'static str> {
    let protocols = (&one.protocol, &other.protocol);
    let unknown = |spoken: &Spoken| matches!(spoken, Spoken::Unknown(_));
    let udp = |spoken: &Spoken| *spoken == Spoken::Udp;
    if one.port != other.port
        || unknown(protocols.0)
        || unknown(protocols.1)
        || udp(protocols.0) != udp(protocols.1)
    {
        return None;
    }
    let named = |spoken: &Spoken| matches!(spoken, Spoken::Https | Spoken::Tls);
    let both_http = *protocols.0 == Spoken::Http && *protocols.1 == Spoken::Http;
    let both_named = named(protocols.0) && named(protocols.1);
    if !both_http && !both_named {
        return Some("ProtocolConflict");
    }
    match one.hostname == other.hostname {
        false => None,
        true if protocols.0 == protocols.1 => Some("HostnameConflict"),
        true => Some("ProtocolConflict"),
    }
}

/// `OverlappingTLSConfig` of `one`: the listeners on its port that end TLS for names that it serves too. A browser
/// may use one connection for both, and so reach the wrong one.
pub(super) fn overlap(one: &Plan, all: &[&Plan]) -> Option<String> {
    let ends_tls = |plan: &Plan| matches!(plan.spec.protocol, Spoken::Https | Spoken::Tls);
    if !ends_tls(one) || one.conflict.is_some() {
        return None;
    }
    let meets = |other: &Plan| match (&one.waits.hostname, &other.waits.hostname) {
        (Some(own), Some(other)) => hostname::meet(own, other),
        _ => true,
    };
    let others = all.iter().filter(|other| {
        !std::ptr::eq(**other, one)
            && other.spec.port == one.spec.port
            && ends_tls(other)
            && other.conflict.is_none()
            && meets(other)
    });
    let shown: Vec<_> = others
        .map(|other| match other.owner == one.owner {
            true => other.spec.name.as_str(),
            false => "another's",
        })
        .collect();
    (!shown.is_empty()).then(|| {
        format!(
            "listener {} serves some of the same names on port {}: a client may send requests for one over a \
             connection to the other",
            shown.join(", "),
            one.spec.port
        )
    })
}
