//! What the forwarder promises, a row each. A new behaviour starts as a new row.

mod admit;
mod affinity;
mod attacks;
mod dnat;
mod drops;
mod dsr;
mod explain;
mod extension_headers;
mod fragments;
mod full_nat;
mod hops;
mod icmp;
mod kernel;
mod lanes;
mod lifetimes;
mod limits;
mod malformed;
mod mss;
mod owners;
mod properties;
mod quarantine;
mod refusal;
mod removal;
mod rss;
mod stack;
mod traced;
mod unknown;
mod vlan;

use crate::testing::Family;

/// IPv4, then IPv6: a promise holds in both. A test that fails has said last at which it was.
fn families() -> impl Iterator<Item = Family> {
    Family::BOTH.into_iter().inspect(|family| eprintln!("{family:?}"))
}

/// A client far away.
const CLIENT: &str = "203.0.113.7:40000";
/// The service.
const VIP: &str = "192.0.2.10:80";
/// The backend that serves it.
const BACKEND: &str = "10.0.0.3:8080";
/// The SNAT address, at the port the flow got.
const SNAT: &str = "10.0.0.200:0";

/// One TCP listener in full NAT with one backend.
const FULL_NAT: &str = "192.0.2.10:80/tcp mode=full-nat backend=10.0.0.3:8080 snat=10.0.0.200";
/// One UDP listener in full NAT with one backend.
const FULL_NAT_UDP: &str = "192.0.2.10:53/udp mode=full-nat backend=10.0.0.3:5300 snat=10.0.0.200";
/// One TCP listener in DNAT with one backend.
const DNAT: &str = "192.0.2.10:80/tcp mode=dnat backend=10.0.0.3:8080";

/// Counted for the first packet of a flow.
const NEW: &[&str] = &[
    "flow_misses",
    "flows_new",
    "sent",
    "listener_flows_new",
    "listener_packets_in",
    "backend_flows_new",
    "backend_packets_to",
];
/// Counted for a later packet of the client.
const TO: &[&str] = &["flow_hits", "sent", "listener_packets_in", "backend_packets_to"];
/// Counted for a packet of the backend.
const FROM: &[&str] = &["flow_hits", "sent", "listener_packets_out", "backend_packets_from"];
