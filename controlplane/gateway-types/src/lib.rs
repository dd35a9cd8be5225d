//! The Gateway API objects that Penstock reads and writes, as plain types.
//!
//! The version is v1.6, standard channel: the one in which TCPRoute and UDPRoute became `v1`. The kinds here
//! are the ones a load balancer needs, each complete, so that a field nobody declared is a field the API
//! does not have, and a reader can tell the author of a file so:
//!
//! * [`gateway_class`]: GatewayClass, which controller owns which Gateways;
//! * [`gateway`]: Gateway, its addresses and listeners;
//! * [`listener_set`]: ListenerSet, more listeners for a Gateway;
//! * [`route`]: TCPRoute, UDPRoute, TLSRoute, HTTPRoute and GRPCRoute, and the status that they share;
//! * [`backend_tls_policy`]: BackendTLSPolicy, how TLS is spoken to backends;
//! * [`reference_grant`]: ReferenceGrant, who may refer across namespaces;
//! * [`address_pool`], [`l4_policy`], [`gateway_parameters`], [`backend`]: the kinds of Penstock's own
//!   (`penstock.dev/v1alpha1`), with the schemas that become their CRDs;
//! * [`boxes`]: Box, another: a machine that is pushed its configuration;
//! * [`reference`](mod@reference): the references between objects ([`ParentReference`], [`BackendRef`], …), one type for all kinds;
//! * [`duration`], [`value`]: durations, and the enumerations, each with room for a value we do not know.
//!
//! Metadata, conditions, label selectors, Service, EndpointSlice, Secret, ConfigMap and Namespace are Kubernetes'
//! own and come from [`k8s_openapi`], which is re-exported, so that a user of this crate needs no second version of it.
//!
//! Three rules hold for every type:
//!
//! 1. **Decoding is lenient about meaning and strict about shape.** A number out of range, an unknown protocol
//!    or a list that is too long decodes; whoever reads it refuses it by name, or answers with a condition on
//!    that object. A string where a number belongs does not decode. One object the types cannot read must
//!    never hide the others.
//! 2. **What was read is what is written.** Encoding a decoded object gives the same fields back, without
//!    defaults filled in, so that a diff shows only what someone changed.
//! 3. **Each kind is a [`k8s_openapi::Resource`] with [`k8s_openapi::Metadata`]**, which is all that `kube`
//!    asks of a type to watch it.

pub mod address_pool;
pub mod backend;
pub mod backend_tls_policy;
pub mod boxes;
pub mod duration;
pub mod gateway;
pub mod gateway_class;
pub mod gateway_parameters;
pub mod l4_policy;
pub mod listener_set;
mod object;
pub mod reference;
pub mod reference_grant;
pub mod route;
mod schema;
pub mod value;

pub use address_pool::{AddressPool, AddressPoolSpec};
pub use backend::{Backend, BackendSpec, BackendStatus};
pub use backend_tls_policy::{BackendTLSPolicy, BackendTLSPolicySpec, PolicyStatus};
pub use boxes::{BoxGateways, BoxSpec, BoxStatus};
pub use duration::Duration;
pub use gateway::{Gateway, GatewaySpec, GatewayStatus, Listener, ListenerStatus};
pub use gateway_class::{GatewayClass, GatewayClassSpec, GatewayClassStatus};
pub use gateway_parameters::{GatewayParameters, GatewayParametersSpec};
pub use k8s_openapi;
pub use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
pub use k8s_openapi::api::discovery::v1::EndpointSlice;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    Condition, LabelSelector, ObjectMeta, Time,
};
pub use l4_policy::{L4Policy, L4PolicySpec, L4PolicyStatus};
pub use listener_set::{ListenerSet, ListenerSetSpec, ListenerSetStatus};
pub use reference::{BackendRef, ParentReference};
pub use reference_grant::{ReferenceGrant, ReferenceGrantSpec};
pub use route::{
    GRPCRoute, GRPCRouteSpec, HTTPRoute, HTTPRouteSpec, RouteParentStatus, RouteStatus, TCPRoute,
    TCPRouteSpec, TLSRoute, TLSRouteSpec, UDPRoute, UDPRouteSpec,
};
pub use value::{AddressType, FromNamespaces, Protocol, TlsMode};

/// The API group of the Gateway API's kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// The API group of Penstock's own kinds.
pub const OWN_GROUP: &str = "penstock.dev";
