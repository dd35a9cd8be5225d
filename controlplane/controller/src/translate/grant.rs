//! Who may refer across namespaces (ReferenceGrant).

use std::collections::BTreeSet;

use crate::object::{Kind, NamespacedName, Objects};

/// One pair of a grant: objects of a kind in a namespace may refer to objects of a kind, or to one, in another.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Grant<'a> {
    from_group: &'a str,
    from_kind: &'a str,
    from_namespace: &'a str,
    to_group: &'a str,
    to_kind: &'a str,
    to_namespace: &'a str,
    to_name: Option<&'a str>,
}

/// Every grant.
pub(super) struct Grants<'a> {
    pairs: BTreeSet<Grant<'a>>,
}

impl<'a> Grants<'a> {
    pub(super) fn of(objects: &'a Objects) -> Self {
        let mut pairs = BTreeSet::new();
        for (name, grant) in &objects.reference_grants {
            for from in &grant.spec.from {
                pairs.extend(grant.spec.to.iter().map(|to| Grant {
                    from_group: &from.group,
                    from_kind: &from.kind,
                    from_namespace: &from.namespace,
                    to_group: &to.group,
                    to_kind: &to.kind,
                    to_namespace: &name.namespace,
                    to_name: to.name.as_deref().filter(|name| !name.is_empty()),
                }));
            }
        }
        Self { pairs }
    }

    /// Whether an object of kind `from` in `namespace` may refer to `name` of kind `to`. Within a namespace it
    /// always may.
    pub(super) fn allow(
        &self,
        from: Kind,
        namespace: &str,
        to: Kind,
        name: &NamespacedName,
    ) -> bool {
        let granted = |to_name| {
            self.pairs.contains(&Grant {
                from_group: from.group(),
                from_kind: from.as_str(),
                from_namespace: namespace,
                to_group: to.group(),
                to_kind: to.as_str(),
                to_namespace: &name.namespace,
                to_name,
            })
        };
        namespace == name.namespace || granted(None) || granted(Some(name.name.as_str()))
    }
}

/// What to write so that [`Grants::allow`] does.
pub(super) fn missing(from: Kind, namespace: &str, to: Kind, name: &NamespacedName) -> String {
    format!(
        "{to} {name} is in another namespace: write a ReferenceGrant in {} from {from} in {namespace} to {to}",
        name.namespace
    )
}
