//! ListenerSet: more listeners for a Gateway, from whoever the Gateway allows.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Deserialize, Serialize};

use crate::gateway::{Listener, ListenerStatus};
use crate::object::object;

object! {
    /// Listeners that join those of a Gateway, if its `allowedListeners` lets them. Routes attach to them as
    /// to the Gateway's own, by a parentRef of kind ListenerSet.
    ListenerSet { spec: ListenerSetSpec, status: ListenerSetStatus },
    plural: "listenersets", scope: NamespaceResourceScope
}

/// What a ListenerSet asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSetSpec {
    /// The Gateway that its listeners join.
    pub parent_ref: ParentGatewayReference,
    /// 1 to 64 listeners with distinct names.
    pub listeners: Vec<Listener>,
}

/// The Gateway of a ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ParentGatewayReference {
    /// Its API group; the Gateway API's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its kind; Gateway if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// Its namespace; that of the ListenerSet if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What the controller answered.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct ListenerSetStatus {
    /// `Accepted` and `Programmed`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// One entry a listener.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
}
