//! L4Policy, a kind of Penstock's own: how listeners forward, and whether backends are asked if they are well.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::Duration;
use crate::backend_tls_policy::PolicyAncestorStatus;
use crate::duration::PATTERN;
use crate::object::object;
use crate::value::{
    AffinityBy, ForwardingMode, MssClampAction, OnExhaustion, OnUnknown, ProxyProtocol,
    RemovalAction, Scheme,
};

object! {
    /// What listeners of Gateways and ListenerSets do with packets, and how backends are checked. It is about objects
    /// of its own namespace.
    L4Policy { spec: L4PolicySpec, status: L4PolicyStatus },
    plural: "l4policies", scope: NamespaceResourceScope,
    group: "penstock.dev", version: "v1alpha1"
}

/// What an L4Policy says, and of what.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.targetRefs.all(t, t.kind in ['Gateway', 'ListenerSet'] ? has(self.listener) : t.kind == 'Service' ? has(self.listener) || has(self.backend) : has(self.backend))",
        "message": "a Gateway or ListenerSet takes `listener`, a Service either, and every other target `backend`: write it, or leave the target out",
    },
    {
        "rule": "(!has(self.listener) || self.targetRefs.exists(t, t.kind in ['Gateway', 'ListenerSet', 'Service'])) && (!has(self.backend) || self.targetRefs.exists(t, !(t.kind in ['Gateway', 'ListenerSet'])))",
        "message": "`listener` needs a target of kind Gateway, ListenerSet or Service, and `backend` one of kind TCPRoute, UDPRoute, Service or Backend",
    },
]))]
pub struct L4PolicySpec {
    /// The objects it is about, all of its own namespace. Of two policies about one object the older has it.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<L4PolicyTarget>,
    /// What listeners do: of a Gateway or a ListenerSet, or one listener of it; or of a Service that asks for an address
    /// of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerPolicy>,
    /// What is done about backends: those of a TCPRoute or UDPRoute, of a Service, or a Backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendPolicy>,
}

/// An object of the policy's namespace, or a listener of it.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.group == 'gateway.networking.k8s.io' ? self.kind in ['Gateway', 'ListenerSet', 'TCPRoute', 'UDPRoute'] : self.group == 'penstock.dev' ? self.kind == 'Backend' : self.group == '' && self.kind == 'Service'",
        "message": "group and kind must be of a Gateway, ListenerSet, TCPRoute or UDPRoute (gateway.networking.k8s.io), a Backend (penstock.dev) or a Service (empty group)",
    },
    {
        "rule": "!has(self.sectionName) || self.kind in ['Gateway', 'ListenerSet']",
        "message": "sectionName names a listener: remove it, or name a Gateway or a ListenerSet",
    },
]))]
pub struct L4PolicyTarget {
    /// Its API group; empty for the core group.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Its kind.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The listener that is meant; all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// What listeners do. What is absent is as a less specific policy says, then as the parameters of the Gateway and of its
/// class say, then as each field tells.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerPolicy {
    /// How packets are rewritten on their way to a backend; `full-nat` if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ForwardingMode>,
    /// By what of a packet its backend is chosen; by its 5-tuple if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<AffinityPolicy>,
    /// What becomes of the connections of a backend that left, and of a listener that is removed; they are kept if
    /// nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_removal: Option<RemovalPolicy>,
    /// How a client is answered for whom no SNAT port is free, and who sends a datagram that no backend takes;
    /// `reset` if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exhaustion: Option<OnExhaustion>,
    /// How a TCP segment is answered of a connection that nobody knows; `drop` if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<OnUnknown>,
    /// How far the MSS option of SYNs is lowered; to what fits the routes if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mss_clamp: Option<MssClampPolicy>,
    /// How long a silent connection or exchange of datagrams is remembered, those that exist too; what nobody says is
    /// the box's to say (`flows.timeouts` in `/etc/penstock/dataplane.yaml`, where the names are the same).
    #[serde(default, skip_serializing_if = "FlowTimeouts::is_empty")]
    pub timeouts: FlowTimeouts,
    /// The networks whose clients are let in, of both families; of a family that has none here, nobody. Everyone is let in
    /// if nobody says. Connections of clients that are shut out later go on, unless `onRemoval` ends them. Listeners of
    /// HTTP and HTTPS are not served with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "networks")]
    pub source_ranges: Vec<String>,
    /// How much a listener takes at most. Not served by this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

fn networks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 256, "items": {
        "type": "string", "maxLength": 64,
        "x-kubernetes-validations": [
            {"rule": "isCIDR(self)", "message": "must be a network, such as 192.0.2.0/24"},
        ],
    }})
}

/// How long what is silent is remembered, by what it has lived through: at least a second, at most a week (168h).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FlowTimeouts {
    /// TCP after the handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "timeout")]
    pub tcp_established: Option<Duration>,
    /// TCP before the handshake is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "timeout")]
    pub tcp_half_open: Option<Duration>,
    /// TCP of which both sides have sent FIN. Until then the SNAT port is no other's while others are free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "timeout")]
    pub tcp_closing: Option<Duration>,
    /// TCP of which a RST was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "timeout")]
    pub tcp_reset: Option<Duration>,
    /// UDP of which only the client has spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "timeout")]
    pub udp_one_way: Option<Duration>,
    /// UDP of which the backend has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "timeout")]
    pub udp_replied: Option<Duration>,
}

impl FlowTimeouts {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn timeout(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": PATTERN, "maxLength": 32, "x-kubernetes-validations": [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('168h')",
        "message": "must be at least a second and at most a week (168h)",
    }]})
}

/// By what of a packet its backend is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.by == 'source' || (!has(self.ipv4PrefixLength) && !has(self.ipv6PrefixLength))",
    "message": "prefix lengths are of the source address: write `by: source`, or remove them",
}]))]
pub struct AffinityPolicy {
    /// The whole 5-tuple, or the source address alone.
    pub by: AffinityBy,
    /// So many leading bits of an IPv4 source; 32 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub ipv4_prefix_length: Option<i32>,
    /// So many leading bits of an IPv6 source; 128 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix_length: Option<i32>,
}

/// What becomes of connections that nobody serves any more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.action == 'expire' || !has(self.grace)",
        "message": "a grace is for `action: expire`: write that, or remove it",
    },
    {
        "rule": "!has(self.grace) || (duration(self.grace) > duration('0s') && duration(self.grace) <= duration('168h'))",
        "message": "grace must be above zero and at most a week (168h)",
    },
]))]
pub struct RemovalPolicy {
    /// They go on; or both ends get a RST; or they get it after a grace.
    pub action: RemovalAction,
    /// How long they have to end by themselves; 30s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration>,
}

/// How far the MSS option of SYNs is lowered. It is never raised.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.action == 'limit') == has(self.bytes)",
    "message": "`action: limit` needs bytes, and no other action takes them",
}]))]
pub struct MssClampPolicy {
    /// To what fits the routes of a connection, both ways; not at all; to so many bytes, and to what fits.
    pub action: MssClampAction,
    /// What SYNs offer at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 536, max = 9560))]
    pub bytes: Option<i32>,
}

/// How much a listener takes at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// New connections a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub connections_per_second: Option<i32>,
}

/// What is done about backends.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendPolicy {
    /// How backends are asked if they are well, by the control process on the box; they are not if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// How the client's address is told to the backend. Not served by this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// How a backend is asked if it is well. One that is not gets no new flows and keeps those it has.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.tcp) ? 1 : 0) + (has(self.http) ? 1 : 0) + (has(self.udp) ? 1 : 0) == 1",
        "message": "exactly one of tcp, http and udp belongs here",
    },
    {
        "rule": "(!has(self.interval) || duration(self.interval) >= duration('100ms')) && (!has(self.timeout) || duration(self.timeout) >= duration('10ms'))",
        "message": "interval must be at least 100ms, and timeout at least 10ms",
    },
    {
        "rule": "!has(self.timeout) || duration(self.timeout) <= duration(has(self.interval) ? self.interval : '5s')",
        "message": "timeout must be no longer than interval, which is 5s if absent",
    },
]))]
pub struct HealthCheck {
    /// A TCP connection is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// A GET request is answered as expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A datagram is answered as expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpCheck>,
    /// The port that is asked; the backend's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,
    /// The time from one question to the next; 5s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How long an answer may take, and no longer than the interval; if absent 2s, or the interval if that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// So many good answers in a row bring a backend back; 2 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub rise: Option<i32>,
    /// So many bad answers in a row take a backend out; 3 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub fall: Option<i32>,
    /// When more of 100 backends than this are not well, all of them serve: then the check is more likely wrong than
    /// they are. 50 if absent. When none is well, all serve in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub fail_open_above_percent: Option<i32>,
}

/// A TCP connection is accepted. It is closed at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct TcpCheck {}

/// A GET request is answered as expected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// `HTTP` if absent. With `HTTPS` any certificate will do: it is asked whether the backend is well, not who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// What is asked for; `/` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-~]*$"))]
    pub path: Option<String>,
    /// The Host of the request, and the SNI; the backend's address if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub host: Option<String>,
    /// The statuses that are good; 200 to 299 if there is none here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(range(min = 100, max = 599)))]
    pub expected_statuses: Vec<i32>,
}

/// A datagram is answered as expected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.send) != has(self.sendHex) && !(has(self.expect) && has(self.expectHex))",
    "message": "exactly one of send and sendHex belongs here, and one of expect and expectHex at most",
}]))]
pub struct UdpCheck {
    /// What is sent, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub send: Option<String>,
    /// What is sent, two hexadecimal digits a byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 2048), regex(pattern = r"^([0-9a-fA-F]{2})+$"))]
    pub send_hex: Option<String>,
    /// What the answer begins with, as text; any answer will do if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub expect: Option<String>,
    /// What the answer begins with, two hexadecimal digits a byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 2048), regex(pattern = r"^([0-9a-fA-F]{2})+$"))]
    pub expect_hex: Option<String>,
}

/// What the controller answered.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L4PolicyStatus {
    /// One entry a target, or a Gateway by which it is reached; at most 16.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub ancestors: Vec<PolicyAncestorStatus>,
    /// What came of its health check, an entry for whatever is checked together; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub checks: Vec<CheckStatus>,
}

/// What came of a health check: of a Service's port, or of a Backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckStatus {
    /// What is checked, as `Service shop/web 80/tcp`.
    pub target: String,
    /// How many backends are asked.
    pub backends: i32,
    /// How many of them are not well.
    pub unhealthy: i32,
    /// Whether so many are not well that all serve.
    #[serde(default)]
    pub fail_open: bool,
    /// Those that are not well, the first 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub unhealthy_backends: Vec<String>,
}
