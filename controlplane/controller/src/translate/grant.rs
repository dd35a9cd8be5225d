//! Who may refer across namespaces (ReferenceGrant).

use std::collections::BTreeSet;

use penstock_gateway_types::GROUP;

use crate::object::{Kind, NamespacedName, Objects};

/// One pair of a grant: routes of a kind in a namespace may refer to Services, or to one, in another.
type Grant<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

/// Every grant that lets a route refer to a Service.
pub(super) struct Grants<'a> {
    /// From kind, from namespace, to namespace, to name.
    pairs: BTreeSet<Grant<'a>>,
}

impl<'a> Grants<'a> {
    pub(super) fn of(objects: &'a Objects) -> Self {
        let mut pairs = BTreeSet::new();
        for (name, grant) in &objects.reference_grants {
            let routes = grant.spec.from.iter().filter(|from| from.group == GROUP);
            for from in routes {
                let services =
                    grant.spec.to.iter().filter(|to| to.group.is_empty() && to.kind == "Service");
                for to in services {
                    let from = (from.kind.as_str(), from.namespace.as_str());
                    pairs.insert((from.0, from.1, name.namespace.as_str(), to.name.as_deref()));
                }
            }
        }
        Self { pairs }
    }

    /// Whether a route of `kind` in `namespace` may send to `service`. Within a namespace it always may.
    pub(super) fn allow(&self, kind: Kind, namespace: &str, service: &NamespacedName) -> bool {
        let to = service.namespace.as_str();
        let granted = |name| self.pairs.contains(&(kind.as_str(), namespace, to, name));
        namespace == to || granted(None) || granted(Some(service.name.as_str()))
    }
}
