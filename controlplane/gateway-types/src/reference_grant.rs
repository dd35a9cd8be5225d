//! ReferenceGrant: who may refer, across namespaces, to what is here.

use serde::{Deserialize, Serialize};

use crate::object::object;

object! {
    /// Lives in the namespace of what is referred to, and lets others refer to it. Grants add up, and one that
    /// is removed takes effect at once.
    ReferenceGrant { spec: ReferenceGrantSpec },
    plural: "referencegrants", scope: NamespaceResourceScope
}

/// Any of `from` may refer to any of `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ReferenceGrantSpec {
    /// Who may refer; 1 to 16.
    pub from: Vec<ReferenceGrantFrom>,
    /// To what; 1 to 16.
    pub to: Vec<ReferenceGrantTo>,
}

/// Objects of one kind in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ReferenceGrantFrom {
    /// Their API group; empty for the core group.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// Their namespace.
    pub namespace: String,
}

/// Objects of one kind in the grant's own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ReferenceGrantTo {
    /// Their API group; empty for the core group.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// The one object; all of the kind if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
