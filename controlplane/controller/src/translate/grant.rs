//! Who may refer across namespaces (ReferenceGrant).

use std::collections::BTreeMap;

use penstock_gateway_types::ReferenceGrant;

use crate::object::{Kind, NamespacedName};

/// One pair of a grant: objects of a kind in a namespace may refer to objects of a kind, or to one, in another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    from_group: String,
    from_kind: String,
    from_namespace: String,
    to_group: String,
    to_kind: String,
    to_namespace: String,
    to_name: Option<String>,
}

/// Every grant.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// How many grants give each.
    pairs: BTreeMap<Pair, usize>,
    given: BTreeMap<NamespacedName, Vec<Pair>>,
}

impl Grants {
    /// Takes in what the grant `name` says now; nothing if there is none.
    pub(super) fn put(&mut self, name: &NamespacedName, grant: Option<&ReferenceGrant>) {
        for pair in self.given.remove(name).into_iter().flatten() {
            if let Some(count) = self.pairs.get_mut(&pair) {
                *count -= 1;
                if *count == 0 {
                    self.pairs.remove(&pair);
                }
            }
        }
        let Some(grant) = grant else { return };
        let pairs = pairs(name, grant);
        for pair in &pairs {
            *self.pairs.entry(pair.clone()).or_default() += 1;
        }
        self.given.insert(name.clone(), pairs);
    }

    /// Whether an object of kind `from` in `namespace` may refer to `name` of kind `to` in another.
    pub(super) fn allow(
        &self,
        from: Kind,
        namespace: &str,
        to: Kind,
        name: &NamespacedName,
    ) -> bool {
        let granted = |to_name: Option<&str>| {
            self.pairs.contains_key(&Pair {
                from_group: from.group().to_owned(),
                from_kind: from.as_str().to_owned(),
                from_namespace: namespace.to_owned(),
                to_group: to.group().to_owned(),
                to_kind: to.as_str().to_owned(),
                to_namespace: name.namespace.clone(),
                to_name: to_name.map(str::to_owned),
            })
        };
        granted(None) || granted(Some(&name.name))
    }
}

fn pairs(name: &NamespacedName, grant: &ReferenceGrant) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for from in &grant.spec.from {
        pairs.extend(grant.spec.to.iter().map(|to| Pair {
            from_group: from.group.clone(),
            from_kind: from.kind.clone(),
            from_namespace: from.namespace.clone(),
            to_group: to.group.clone(),
            to_kind: to.kind.clone(),
            to_namespace: name.namespace.clone(),
            to_name: to.name.clone().filter(|name| !name.is_empty()),
        }));
    }
    pairs
}

/// What to write so that [`Grants::allow`] does.
pub(super) fn missing(from: Kind, namespace: &str, to: Kind, name: &NamespacedName) -> String {
    format!(
        "{to} {name} is in another namespace: write a ReferenceGrant in {} from {from} in {namespace} to {to}",
        name.namespace
    )
}
