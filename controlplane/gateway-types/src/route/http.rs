//! HTTPRoute: requests to backends, by host, path, headers and more.
//!
//! What only the L7 tier acts upon (matches, most filters, timeouts) is kept as it was written: [`Unread`].

use serde::{Deserialize, Serialize};

use super::Unread;
use crate::object::object;
use crate::reference::{BackendObjectReference, BackendRef, LocalObjectReference, ParentReference};

object! {
    /// Sends the HTTP requests of a listener to backends.
    HTTPRoute { spec: HTTPRouteSpec, status: super::RouteStatus },
    plural: "httproutes", scope: NamespaceResourceScope
}

/// What an HTTPRoute asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteSpec {
    /// The Gateways and ListenerSets, or their listeners, to attach to; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    /// The hosts, exact or `*.example.com`; at most 16, none for those of the listener.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// 1 to 16 rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<HTTPRouteRule>,
}

/// What is matched, and what happens to it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteRule {
    /// For people and policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of which matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Unread>,
    /// What is done to every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<HTTPRouteFilter>,
    /// At most 16 backends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<HTTPBackendRef>,
    /// Of the request, and of one attempt at a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Unread>,
    /// When an attempt is repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Unread>,
    /// How a client stays with a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<Unread>,
}

/// One thing that is done to a request or a response. That which `type` names is set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteFilter {
    /// What it does.
    #[serde(rename = "type")]
    pub type_: String,
    /// Headers of the request that are set, added or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<Unread>,
    /// The same of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<Unread>,
    /// A backend that gets a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<HTTPRequestMirrorFilter>,
    /// Where the client is sent instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<Unread>,
    /// Host and path that the backend sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<Unread>,
    /// Who may call from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Unread>,
    /// Who is asked whether the request may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_auth: Option<Unread>,
    /// A filter of the implementation's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension_ref: Option<LocalObjectReference>,
}

/// A backend that gets a copy of requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRequestMirrorFilter {
    /// The backend.
    pub backend_ref: BackendObjectReference,
    /// How many of a hundred requests; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i32>,
    /// The same, as a fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Unread>,
}

/// Where a rule sends its share of the requests, and what it does to them on the way.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct HTTPBackendRef {
    /// The backend's API group; the core group if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The backend's kind; Service if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The backend's name.
    pub name: String,
    /// The backend's namespace; the route's if absent. Another one needs a ReferenceGrant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The port of the Service, which is not the port of its endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Its share, over the sum of all weights of the rule; 1 if absent, at most 1 000 000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// What is done to the requests of this backend alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<HTTPRouteFilter>,
}

impl HTTPBackendRef {
    /// The reference without its filters.
    #[must_use]
    pub fn reference(&self) -> BackendRef {
        let Self { group, kind, name, namespace, port, weight, filters: _ } = self.clone();
        BackendRef { group, kind, name, namespace, port, weight }
    }
}
