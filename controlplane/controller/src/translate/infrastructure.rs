//! What a Gateway wants of the objects that are made for it (`infrastructure`).

use std::collections::BTreeMap;

use penstock_gateway_types::Gateway;
use penstock_gateway_types::gateway_parameters::ParametersInfrastructure;

use crate::object::NamespacedName;

/// The label by which others find what belongs to a Gateway (GEP-1762).
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// The longest value of a label; a Gateway's name may be longer.
const LABEL_MAX_BYTES: usize = 63;

/// What a Service that stands for a Gateway bears: whoever writes to a cluster keeps one in the Gateway's
/// namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Infrastructure {
    /// `infrastructure.labels`, and the label that names the Gateway.
    pub labels: BTreeMap<String, String>,
    /// `infrastructure.annotations`.
    pub annotations: BTreeMap<String, String>,
}

/// What `gateway` wants.
/// What its parameters say is kept, where it says nothing else itself.
pub(super) fn of(
    name: &NamespacedName,
    gateway: &Gateway,
    parameters: &ParametersInfrastructure,
) -> Infrastructure {
    let wanted = gateway.spec.infrastructure.clone().unwrap_or_default();
    let ParametersInfrastructure { mut labels, mut annotations } = parameters.clone();
    labels.extend(wanted.labels);
    annotations.extend(wanted.annotations);
    if name.name.len() <= LABEL_MAX_BYTES {
        labels.insert(GATEWAY_NAME.to_owned(), name.name.clone());
    }
    Infrastructure { labels, annotations }
}

#[cfg(test)]
mod tests {
    use penstock_gateway_types::GatewaySpec;
    use penstock_gateway_types::gateway::GatewayInfrastructure;

    use super::*;

    #[test]
    fn the_labels_of_a_gateway_are_kept_and_its_name_is_added() {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let infrastructure = GatewayInfrastructure {
            labels: [label("a", "b"), label(GATEWAY_NAME, "another")].into(),
            annotations: [label("c", "d")].into(),
            parameters_ref: None,
        };
        let spec = GatewaySpec { infrastructure: Some(infrastructure), ..GatewaySpec::default() };
        let gateway = Gateway { metadata: Default::default(), spec, status: None };
        let parameters = ParametersInfrastructure {
            labels: [label("a", "usual"), label("d", "e")].into(),
            annotations: [label("f", "g")].into(),
        };
        let found = of(&NamespacedName::new("shop", "web"), &gateway, &parameters);
        assert_eq!(
            found.labels,
            [label("a", "b"), label("d", "e"), label(GATEWAY_NAME, "web")].into()
        );
        assert_eq!(found.annotations, [label("c", "d"), label("f", "g")].into());
        let long = "x".repeat(64);
        let found = of(&NamespacedName::new("shop", &long), &gateway, &parameters);
        assert_eq!(found.labels[GATEWAY_NAME], "another", "no label can hold so long a name");
    }
}
