//! GatewayParameters, a kind of Penstock's own: what Gateways do unless a policy says otherwise.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::l4_policy::{BackendPolicy, ListenerPolicy};
use crate::object::object;

object! {
    /// What Gateways do unless a policy says otherwise: those of a GatewayClass that names it as `parametersRef`, or
    /// one Gateway by `infrastructure.parametersRef`, whose word goes before its class's.
    GatewayParameters { spec: GatewayParametersSpec },
    plural: "gatewayparameters", scope: NamespaceResourceScope,
    group: "penstock.dev", version: "v1alpha1"
}

/// What Gateways do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayParametersSpec {
    /// The AddressPools from which a Gateway without an address of its own gets one, the first that has one first; any
    /// pool if there is none here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub address_pools: Vec<String>,
    /// Gateways that say the same here share the addresses that they leave to us, each its L4 ports of them; the
    /// oldest has a port that two want. Those of one namespace, by parameters of their own; of any, by parameters of
    /// their class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub address_sharing_key: Option<String>,
    /// What listeners do: an L4Policy's `listener`, where none says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerPolicy>,
    /// What is done about backends: an L4Policy's `backend`, where none says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendPolicy>,
    /// What to put on objects that are created for Gateways, beside what each says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<ParametersInfrastructure>,
}

/// What to put on objects that are created for Gateways.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct ParametersInfrastructure {
    /// Labels; at most 8.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub labels: BTreeMap<String, String>,
    /// Annotations; at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub annotations: BTreeMap<String, String>,
}
