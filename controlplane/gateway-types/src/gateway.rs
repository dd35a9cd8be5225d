//! Gateway: addresses, and the listeners on them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use serde::{Deserialize, Serialize};

use crate::object::object;
use crate::reference::{
    LocalParametersReference, ObjectReference, RouteGroupKind, SecretObjectReference,
};
use crate::value::{AddressType, FromNamespaces, FrontendValidationMode, Protocol, TlsMode};

object! {
    /// Addresses on which listeners wait for traffic. Routes attach to its listeners.
    Gateway { spec: GatewaySpec, status: GatewayStatus },
    plural: "gateways", scope: NamespaceResourceScope
}

/// What a Gateway asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// The class it belongs to, and through it the controller that serves it.
    pub gateway_class_name: String,
    /// 1 to 64 listeners with distinct names.
    pub listeners: Vec<Listener>,
    /// At most 16 addresses; none leaves the choice to the implementation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<GatewaySpecAddress>,
    /// What to put on objects that are created for this Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<GatewayInfrastructure>,
    /// From where ListenerSets may add listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_listeners: Option<AllowedListeners>,
    /// TLS of the Gateway as a whole: towards backends, and towards clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<GatewayTlsConfig>,
}

/// One address that a Gateway asks for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct GatewaySpecAddress {
    /// What `value` is; an IP address if absent.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<AddressType>,
    /// The address; absent or empty asks for any of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// One port on which a Gateway waits for traffic.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name, unique within the Gateway; routes name it as `sectionName`.
    pub name: String,
    /// The host name it serves; none serves all. Not for TCP and UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The L4 port. Valid from 1 to 65535; wider here so that a wrong one is refused by name.
    pub port: i32,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its TLS settings. Not for HTTP, TCP and UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTlsConfig>,
    /// Which routes may attach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_routes: Option<AllowedRoutes>,
}

/// TLS of one listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTlsConfig {
    /// Terminate if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// The certificates to terminate with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificate_refs: Vec<SecretObjectReference>,
    /// Settings of the implementation's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct AllowedRoutes {
    /// From which namespaces; the Gateway's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<RouteNamespaces>,
    /// Of which kinds; those that fit the protocol if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<RouteGroupKind>,
}

/// The namespaces from which routes may attach.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct RouteNamespaces {
    /// `Same` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<FromNamespaces>,
    /// Read when `from` is `Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// What to put on objects that are created for a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayInfrastructure {
    /// Labels; at most 8.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations; at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Parameters of this Gateway, in its own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<LocalParametersReference>,
}

/// From where ListenerSets may attach.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct AllowedListeners {
    /// From which namespaces; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<RouteNamespaces>,
}

/// TLS of a Gateway as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct GatewayTlsConfig {
    /// Towards backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<GatewayBackendTls>,
    /// Towards clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontend: Option<FrontendTlsConfig>,
}

/// How a Gateway presents itself to backends.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayBackendTls {
    /// The client certificate it presents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretObjectReference>,
}

/// How a Gateway validates clients.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendTlsConfig {
    /// For every port without an entry of its own.
    pub default: TlsConfig,
    /// For single ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_port: Vec<TlsPortConfig>,
}

/// Client validation on one port.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct TlsPortConfig {
    /// The port.
    pub port: i32,
    /// Its settings.
    pub tls: TlsConfig,
}

/// Client validation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct TlsConfig {
    /// How clients are validated; not at all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<FrontendTlsValidation>,
}

/// Against what a client's certificate is validated.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendTlsValidation {
    /// The certificate authorities.
    #[serde(default)]
    pub ca_certificate_refs: Vec<ObjectReference>,
    /// What happens to a certificate that does not validate; refused if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FrontendValidationMode>,
}

/// What the controller answered.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// The addresses that are bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<GatewayStatusAddress>,
    /// How many ListenerSets are attached and accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_listener_sets: Option<i32>,
    /// `Accepted` and `Programmed`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// One entry a listener.
    #[serde(default)]
    pub listeners: Vec<ListenerStatus>,
}

/// One address that is bound.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct GatewayStatusAddress {
    /// What `value` is.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<AddressType>,
    /// The address.
    pub value: String,
}

/// The state of one listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// The listener's name.
    pub name: String,
    /// The kinds of routes that may attach. Written even when empty: `[]` says "none".
    #[serde(default)]
    pub supported_kinds: Vec<RouteGroupKind>,
    /// How many routes are attached and accepted.
    pub attached_routes: i32,
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Conflicted`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
