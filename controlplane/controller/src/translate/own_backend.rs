//! Backends: what stands behind them, and what they are told.

use std::net::{IpAddr, SocketAddr};

use penstock_gateway_types::Backend;
use penstock_gateway_types::backend::BackendEndpoint;

use super::CheckVerdict;
use super::backend::{Endpoints, not_a_host, not_found};
use super::look::View;
use super::verdict::{Refusal, Truth, Verdict};
use super::weight::Readiness;
use crate::object::NamespacedName;
use crate::observed::Named;

/// The answer to a Backend.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendVerdict {
    /// `Accepted`, and `Resolved` if it has names.
    pub conditions: Vec<Verdict>,
    /// What its names came to, in their order.
    pub names: Vec<(String, Vec<IpAddr>)>,
    /// What came of health checks of it.
    pub checks: Vec<CheckVerdict>,
}

/// The endpoints of a Backend, for a backendRef with `port`.
///
/// # Errors
/// A refusal for the route's `ResolvedRefs`: an endpoint without a port is none.
pub(super) fn endpoints(
    name: &NamespacedName,
    backend: &Backend,
    port: Option<i32>,
    view: View<'_>,
) -> Result<Endpoints, Refusal> {
    let mut found = Endpoints::new();
    for (index, endpoint) in backend.spec.endpoints.iter().enumerate() {
        let port = endpoint.port.or(port).and_then(|port| u16::try_from(port).ok());
        let port = port.filter(|port| *port > 0).ok_or_else(|| {
            not_found(format!(
                "port is missing: endpoints[{index}] of Backend {name} has none, so the backendRef needs one"
            ))
        })?;
        let readiness = match endpoint.draining {
            Some(true) => Readiness::Draining,
            _ => Readiness::Ready,
        };
        for address in addresses(endpoint, view).unwrap_or_default() {
            let known = found.entry(SocketAddr::new(address, port)).or_insert(readiness);
            *known = (*known).max(readiness); // ready by one entry is ready
        }
    }
    Ok(found)
}

/// The addresses of an endpoint: its own, or those of its name.
fn addresses(endpoint: &BackendEndpoint, view: View<'_>) -> Result<Vec<IpAddr>, String> {
    match (&endpoint.address, &endpoint.hostname) {
        (Some(text), None) => {
            let address = text.parse().map_err(|_| format!("address {text:?} is no IP address"))?;
            match cannot_be_sent_to(address) {
                true => Err(format!("address {address} is not one host's: it is left out")),
                false => Ok(vec![address]),
            }
        }
        (None, Some(hostname)) => {
            let named = view.named(hostname);
            let all = named.into_iter().flat_map(|named| &named.addresses).copied();
            Ok(all.filter(|address| !cannot_be_sent_to(*address)).collect())
        }
        _ => Err("exactly one of address and hostname belongs here".to_owned()),
    }
}

/// Whether an address is no other host's.
fn cannot_be_sent_to(address: IpAddr) -> bool {
    not_a_host(address) || address.is_loopback()
}

/// The names that a Backend has.
pub(super) fn names(backend: &Backend) -> impl Iterator<Item = &String> {
    backend.spec.endpoints.iter().filter_map(|endpoint| endpoint.hostname.as_ref())
}

/// Answers a Backend, of whose health checks `checks` came.
pub(super) fn answer(
    backend: &Backend,
    checks: Vec<CheckVerdict>,
    view: View<'_>,
) -> BackendVerdict {
    let endpoints = backend.spec.endpoints.iter().enumerate();
    let faults: Vec<_> = endpoints
        .filter_map(|(index, endpoint)| {
            let fault = addresses(endpoint, view).err()?;
            Some(format!("endpoints[{index}]: {fault}"))
        })
        .collect();
    let mut conditions = vec![accepted(&faults, backend.spec.endpoints.len())];
    let known = |name: &String| (name.clone(), view.named(name));
    let known: Vec<_> = names(backend).map(known).collect();
    conditions.extend((!known.is_empty()).then(|| resolved(&known)));
    let addresses = |named: Option<&Named>| {
        named.into_iter().flat_map(|named| &named.addresses).copied().collect()
    };
    let names = known.into_iter().map(|(name, named)| (name, addresses(named))).collect();
    BackendVerdict { conditions, names, checks }
}

fn accepted(faults: &[String], all: usize) -> Verdict {
    match faults.len() {
        0 => Verdict::holds("Accepted", "Accepted", "the Backend is accepted"),
        faulty if faulty == all => {
            Verdict::fails("Accepted", Refusal::new("Invalid", faults.join("; ")))
        }
        _ => Verdict::holds("Accepted", "EndpointsNotValid", faults.join("; ")),
    }
}

/// `Resolved`: whether every name has an answer, and how old answers stand.
fn resolved(names: &[(String, Option<&Named>)]) -> Verdict {
    let (mut troubles, mut waiting) = (Vec::new(), Vec::new());
    for (name, named) in names {
        match named {
            None => waiting.push(name.as_str()),
            Some(Named { trouble: Some(trouble), addresses }) if addresses.is_empty() => {
                troubles.push(format!("{name}: {trouble}"));
            }
            Some(Named { trouble: Some(trouble), .. }) => {
                troubles.push(format!("{name}: {trouble}; its last answer stays in force"));
            }
            Some(Named { trouble: None, .. }) => {}
        }
    }
    if !troubles.is_empty() {
        return Verdict::fails("Resolved", Refusal::new("NotResolved", troubles.join("; ")));
    }
    if !waiting.is_empty() {
        let message = format!("{}: the resolver has not answered yet", waiting.join(", "));
        return Verdict {
            status: Truth::Unknown,
            ..Verdict::holds("Resolved", "Pending", message)
        };
    }
    Verdict::holds("Resolved", "Resolved", "every name is resolved")
}
