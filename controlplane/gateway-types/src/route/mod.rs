//! The routes: TCPRoute and UDPRoute here, TLSRoute, HTTPRoute and GRPCRoute below; and the status that all share.

pub mod grpc;
pub mod http;
pub mod tls;

pub use grpc::{GRPCRoute, GRPCRouteSpec};
pub use http::{HTTPRoute, HTTPRouteSpec};
pub use tcp::{TCPRoute, TCPRouteSpec};
pub use tls::{TLSRoute, TLSRouteSpec};
pub use udp::{UDPRoute, UDPRouteSpec};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
pub use k8s_openapi::apimachinery::pkg::runtime::RawExtension as Unread;
use serde::{Deserialize, Serialize};

use crate::reference::{BackendRef, ParentReference};

mod tcp {
    use super::RouteSpec;
    use crate::object::object;

    object! {
        /// Sends the TCP connections of a listener to backends.
        TCPRoute { spec: TCPRouteSpec, status: super::RouteStatus },
        plural: "tcproutes", scope: NamespaceResourceScope
    }

    /// What a TCPRoute asks for.
    pub type TCPRouteSpec = RouteSpec;
}

mod udp {
    use super::RouteSpec;
    use crate::object::object;

    object! {
        /// Sends the UDP datagrams of a listener to backends, a flow at a time.
        UDPRoute { spec: UDPRouteSpec, status: super::RouteStatus },
        plural: "udproutes", scope: NamespaceResourceScope
    }

    /// What a UDPRoute asks for.
    pub type UDPRouteSpec = RouteSpec;
}

/// What an L4 route asks for: the same for TCP and UDP.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSpec {
    /// The Gateways and ListenerSets, or their listeners, to attach to; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    /// Exactly one rule in v1.6.
    #[serde(default)]
    pub rules: Vec<RouteRule>,
}

/// One rule of an L4 route or a TLSRoute: it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRule {
    /// For people and policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// 1 to 16 backends.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
}

/// What the controllers answered, one entry a parent and controller.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct RouteStatus {
    /// At most 32 entries.
    #[serde(default)]
    pub parents: Vec<RouteParentStatus>,
}

/// How one controller sees a route at one parent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    /// The parent, as the route wrote it, with group and kind filled in.
    pub parent_ref: ParentReference,
    /// Who says so.
    pub controller_name: String,
    /// `Accepted` and `ResolvedRefs`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
