//! Backend, a kind of Penstock's own: backends that no Service knows, by address or by name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::l4_policy::CheckStatus;
use crate::object::object;

object! {
    /// What a backendRef of group `penstock.dev` and kind `Backend` sends to.
    Backend { spec: BackendSpec, status: BackendStatus },
    plural: "backends", scope: NamespaceResourceScope,
    group: "penstock.dev", version: "v1alpha1"
}

/// Who serves.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct BackendSpec {
    /// Addresses and names, each with an equal share of what the Backend gets; at most 256.
    #[schemars(length(max = 256))]
    pub endpoints: Vec<BackendEndpoint>,
}

/// An address, or a name and every address that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.address) != has(self.hostname)",
    "message": "exactly one of address and hostname belongs here",
}]))]
pub struct BackendEndpoint {
    /// An IPv4 or IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 45), extend("x-kubernetes-validations" = [{
        "rule": "isIP(self)", "message": "must be an IP address, such as 192.0.2.10 or 2001:db8::10",
    }]))]
    pub address: Option<String>,
    /// A name, which the box's resolver is asked for again as often as its records say, within 5 seconds and 5 minutes.
    /// While there is no answer, the last one stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9_]([-a-z0-9_]*[a-z0-9])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9])?)*$")
    )]
    pub hostname: Option<String>,
    /// Its L4 port; the backendRef's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,
    /// Whether it keeps its connections and gets no new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
}

/// What the controller answered.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct BackendStatus {
    /// `Accepted` and `Resolved`.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The addresses of its names, each name with at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub names: Vec<NameStatus>,
    /// What came of health checks of it, an entry for whatever is checked together; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub checks: Vec<CheckStatus>,
}

/// What a name came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct NameStatus {
    /// The name.
    pub hostname: String,
    /// Its addresses, by the last good answer.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub addresses: Vec<String>,
}
