//! Box, a kind of Penstock's own: a machine that control processes push their configuration to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::object;

object! {
    /// A machine that forwards packets and is told what to do by control processes elsewhere, cluster-scoped. It
    /// joins with `penstock join`, and is let in for as long as its Box is there and not revoked.
    Box { spec: BoxSpec, status: BoxStatus },
    plural: "boxes", scope: ClusterResourceScope,
    group: "penstock.dev", version: "v1alpha1"
}

/// What a Box is to do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoxSpec {
    /// The Gateways it carries; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateways: Option<BoxGateways>,
    /// Whether it is let in no more: its link is cut at once, its certificate is of no use, and it goes on with what
    /// it has until someone stops it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
    /// Where it is, for people: nobody dials it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)))]
    pub addresses: Vec<String>,
}

/// Which Gateways a Box carries: those of one of the names, and those that the selector matches.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoxGateways {
    /// Gateways by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub names: Vec<BoxGateway>,
    /// Gateways by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::label_selector")]
    pub selector: Option<LabelSelector>,
}

/// A Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct BoxGateway {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How a Box is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoxStatus {
    /// `Connected`, `InSync`, and `Pinned` while an earlier version is in force.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Whether it has a link to the controller that leads.
    #[serde(default)]
    pub connected: bool,
    /// The version of Penstock that runs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The number of the configuration in force there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// What that hashes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The highest epoch of controllers that it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// When it was heard last, as of when it connected or was lost: while it is connected, it is heard all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub last_seen: Option<Time>,
    /// How many Gateways it carries.
    #[serde(default)]
    pub gateways: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_needs_no_word_to_carry_everything() {
        let text = r#"{"apiVersion":"penstock.dev/v1alpha1","kind":"Box","metadata":{"name":"edge-1"},"spec":{}}"#;
        let read: Box = serde_json::from_str(text).unwrap();
        assert_eq!(read.spec, BoxSpec::default());
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
