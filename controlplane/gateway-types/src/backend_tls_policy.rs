//! BackendTLSPolicy: how TLS is spoken to the backends behind a Service.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::object;
use crate::reference::{LocalObjectReference, ParentReference};
use crate::value::SubjectAltNameType;

object! {
    /// Lets a Gateway speak TLS to Services of the policy's namespace, and says whom it expects there.
    BackendTLSPolicy { spec: BackendTLSPolicySpec, status: PolicyStatus },
    plural: "backendtlspolicies", scope: NamespaceResourceScope
}

/// What a BackendTLSPolicy says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTLSPolicySpec {
    /// The Services it is about, or ports of them; 1 to 16.
    #[serde(default)]
    pub target_refs: Vec<PolicyTargetReference>,
    /// Whom to expect there.
    pub validation: BackendTLSPolicyValidation,
    /// Settings of the implementation's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// An object of the policy's namespace, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTargetReference {
    /// Its API group; empty for the core group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The name of a Service's port; the whole Service if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// Whom to expect at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTLSPolicyValidation {
    /// The certificate authorities; none with `wellKnownCACertificates`.
    #[serde(rename = "caCertificateRefs", default, skip_serializing_if = "Vec::is_empty")]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    /// A set of authorities by name, such as `System`.
    #[serde(rename = "wellKnownCACertificates", default, skip_serializing_if = "Option::is_none")]
    pub well_known_ca_certificates: Option<String>,
    /// The name that is sent as SNI, and that the certificate must bear.
    pub hostname: String,
    /// Names that the certificate must bear instead; at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// A name that a certificate bears.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SubjectAltName {
    /// What it is.
    #[serde(rename = "type")]
    pub type_: SubjectAltNameType,
    /// A host name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// A URI, such as `spiffe://example.com/web`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
}

/// What the controllers answered, one entry a Gateway and controller.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct PolicyStatus {
    /// At most 16 entries.
    #[serde(default)]
    pub ancestors: Vec<PolicyAncestorStatus>,
}

/// How one controller sees a policy at one Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAncestorStatus {
    /// The Gateway, with group and kind filled in.
    pub ancestor_ref: ParentReference,
    /// Who says so.
    pub controller_name: String,
    /// `Accepted` and `ResolvedRefs`.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}
