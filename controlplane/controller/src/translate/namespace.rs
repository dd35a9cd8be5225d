//! Which namespaces a listener takes routes from (`allowedRoutes.namespaces`), and a Gateway ListenerSets
//! (`allowedListeners.namespaces`).

use std::collections::BTreeMap;

use penstock_gateway_types::gateway::RouteNamespaces;
use penstock_gateway_types::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use penstock_gateway_types::{FromNamespaces, Gateway, LabelSelector, Listener};

use super::look::View;
use super::verdict::Refusal;

/// The label that every namespace has in a cluster: its own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The namespaces whose objects may attach.
#[derive(Clone, Copy)]
pub(super) enum AllowedNamespaces<'a> {
    All,
    Same(&'a str),
    Matching(&'a LabelSelector),
    None,
}

impl<'a> AllowedNamespaces<'a> {
    /// What `listener` of a Gateway in `own` allows.
    pub(super) fn of(listener: &'a Listener, own: &'a str) -> Result<Self, Refusal> {
        let namespaces =
            listener.allowed_routes.as_ref().and_then(|routes| routes.namespaces.as_ref());
        let Some(namespaces) = namespaces else { return Ok(Self::Same(own)) };
        Self::read(namespaces, Self::Same(own), own, "allowedRoutes.namespaces")
    }

    /// The namespaces whose ListenerSets may join `gateway` in `own`.
    pub(super) fn of_sets(gateway: &'a Gateway, own: &'a str) -> Result<Self, Refusal> {
        let allowed = gateway.spec.allowed_listeners.as_ref();
        let Some(namespaces) = allowed.and_then(|allowed| allowed.namespaces.as_ref()) else {
            return Ok(Self::None);
        };
        Self::read(namespaces, Self::None, own, "allowedListeners.namespaces")
    }

    fn read(
        namespaces: &'a RouteNamespaces,
        default: Self,
        own: &'a str,
        field: &str,
    ) -> Result<Self, Refusal> {
        match (&namespaces.from, &namespaces.selector) {
            (None, _) => Ok(default),
            (Some(FromNamespaces::Same), _) => Ok(Self::Same(own)),
            (Some(FromNamespaces::All), _) => Ok(Self::All),
            (Some(FromNamespaces::None), _) => Ok(Self::None),
            (Some(FromNamespaces::Selector), Some(selector)) => {
                check(selector, field)?;
                Ok(Self::Matching(selector))
            }
            (Some(FromNamespaces::Selector), None) => Err(unsupported(format!(
                "{field}.from is Selector, but there is no selector: add one"
            ))),
            (Some(FromNamespaces::Unknown(other)), _) => Err(unsupported(format!(
                "{field}.from {other:?} is not known: write All, Same or Selector"
            ))),
        }
    }

    /// The namespaces that a pool of addresses is for; all without a selector.
    pub(super) fn of_pool(selector: Option<&'a LabelSelector>) -> Result<Self, Refusal> {
        let Some(selector) = selector else { return Ok(Self::All) };
        check(selector, "gatewayNamespaces")?;
        Ok(Self::Matching(selector))
    }

    /// Whether an object of `namespace` may attach. Labels come from Namespace objects, if they are
    /// given; the namespace's own name is a label in any case.
    pub(super) fn allow(&self, namespace: &str, view: View<'_>) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Same(own) => *own == namespace,
            Self::Matching(selector) => {
                let given = view.namespace(namespace);
                let mut labels = given.and_then(|n| n.metadata.labels.clone()).unwrap_or_default();
                labels.insert(NAME_LABEL.to_owned(), namespace.to_owned());
                matches(selector, &labels)
            }
        }
    }
}

fn unsupported(message: String) -> Refusal {
    Refusal::new("UnsupportedValue", message)
}

fn requirements(selector: &LabelSelector) -> &[LabelSelectorRequirement] {
    selector.match_expressions.as_deref().unwrap_or_default()
}

fn check(selector: &LabelSelector, field: &str) -> Result<(), Refusal> {
    for requirement in requirements(selector) {
        let operator = requirement.operator.as_str();
        if !matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist") {
            return Err(unsupported(format!(
                "{field}.selector: operator {operator:?} is not known: write In, NotIn, \
                 Exists or DoesNotExist"
            )));
        }
    }
    Ok(())
}

/// Whether a selector selects what has these labels. An operator that nobody knows selects nothing.
#[must_use]
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let wanted = selector.match_labels.iter().flatten();
    wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && requirements(selector).iter().all(|requirement| meets(requirement, labels))
}

fn meets(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let label = labels.get(&requirement.key);
    let listed = |value: &String| requirement.values.iter().flatten().any(|v| v == value);
    match requirement.operator.as_str() {
        "In" => label.is_some_and(listed),
        "NotIn" => !label.is_some_and(listed),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        _ => false, // refused by `check`
    }
}
