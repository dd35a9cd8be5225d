//! GatewayClass: which controller owns the Gateways that name it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Deserialize, Serialize};

use crate::object::object;

object! {
    /// A class of Gateways, cluster-scoped. A controller answers for the classes that bear its name and
    /// leaves the others untouched.
    GatewayClass { spec: GatewayClassSpec, status: GatewayClassStatus },
    plural: "gatewayclasses", scope: ClusterResourceScope
}

/// What a GatewayClass says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// The controller that owns this class, for instance `penstock.dev/gateway-controller`.
    pub controller_name: String,
    /// Where the controller finds parameters of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<ParametersReference>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// An object, in any namespace or in none, that parameterises a class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParametersReference {
    /// Its API group; empty for the core group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace, when the kind has namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What the controller answered.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassStatus {
    /// `Accepted` and `SupportedVersion`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The names of the conformance features that the controller supports, sorted; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supported_features: Vec<SupportedFeature>,
}

/// One conformance feature.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SupportedFeature {
    /// Its name, as in the conformance suite.
    pub name: String,
}
