//! TLSRoute: TLS connections to backends, by the name that the client asks for.

use serde::{Deserialize, Serialize};

use super::RouteRule;
use crate::object::object;
use crate::reference::ParentReference;

object! {
    /// Sends the TLS connections of a listener to backends, by SNI.
    TLSRoute { spec: TLSRouteSpec, status: super::RouteStatus },
    plural: "tlsroutes", scope: NamespaceResourceScope
}

/// What a TLSRoute asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TLSRouteSpec {
    /// The Gateways and ListenerSets, or their listeners, to attach to; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    /// The names, exact or `*.example.com`; 1 to 1024.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Exactly one rule in v1.6.
    #[serde(default)]
    pub rules: Vec<RouteRule>,
}
