//! GRPCRoute: gRPC calls to backends, by service and method.

use serde::{Deserialize, Serialize};

use super::Unread;
use super::http::{HTTPBackendRef, HTTPRouteFilter};
use crate::object::object;
use crate::reference::ParentReference;

object! {
    /// Sends the gRPC calls of a listener to backends.
    GRPCRoute { spec: GRPCRouteSpec, status: super::RouteStatus },
    plural: "grpcroutes", scope: NamespaceResourceScope
}

/// What a GRPCRoute asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GRPCRouteSpec {
    /// The Gateways and ListenerSets, or their listeners, to attach to; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    /// The hosts, exact or `*.example.com`; at most 16, none for those of the listener.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// At most 16 rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<GRPCRouteRule>,
}

/// What is matched, and what happens to it. Filters and backends are those of HTTP.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GRPCRouteRule {
    /// For people and policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of which matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Unread>,
    /// What is done to every call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<HTTPRouteFilter>,
    /// At most 16 backends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<HTTPBackendRef>,
    /// How a client stays with a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<Unread>,
}
