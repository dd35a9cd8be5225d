//! AddressPool, a kind of Penstock's own: the addresses that Gateways may have.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::object::object;

object! {
    /// Addresses that may become VIPs, cluster-scoped. A Gateway that asks for no address gets one of these.
    AddressPool { spec: AddressPoolSpec },
    plural: "addresspools", scope: ClusterResourceScope,
    group: "penstock.dev", version: "v1alpha1"
}

/// What an AddressPool holds, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// Networks (`192.0.2.0/28`: the first and the last address of an IPv4 network are given only to who asks for
    /// them by value), ranges (`192.0.2.10-192.0.2.20`) and single addresses, of IPv4 and IPv6.
    #[schemars(schema_with = "ranges")]
    pub addresses: Vec<String>,
    /// The namespaces whose Gateways may have them; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::label_selector")]
    pub gateway_namespaces: Option<LabelSelector>,
}

fn ranges(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "minItems": 1, "maxItems": 256, "items": {
        "type": "string", "minLength": 2, "maxLength": 96,
        "x-kubernetes-validations": [{
            "rule": "isIP(self) || isCIDR(self) || \
                (self.split('-').size() == 2 && self.split('-').all(end, isIP(end)))",
            "message": "must be a network, a range or an address",
        }],
    }})
}
