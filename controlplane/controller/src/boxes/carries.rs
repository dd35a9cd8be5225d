//! Which Gateways a Box carries.

use std::collections::{BTreeMap, BTreeSet};

use penstock_gateway_types::BoxSpec;

use crate::object::NamespacedName;
use crate::object::Objects;
use crate::translate::{Translation, selects};

/// Of the Gateways of our classes, those that a Box with `spec` carries.
#[must_use]
pub fn gateways(
    spec: &BoxSpec,
    objects: &Objects,
    translation: &Translation,
) -> BTreeSet<NamespacedName> {
    let ours = translation.gateways.keys();
    let Some(wanted) = &spec.gateways else { return ours.cloned().collect() };
    let none = BTreeMap::new();
    let is_wanted = |name: &&NamespacedName| {
        let named =
            wanted.names.iter().any(|it| it.namespace == name.namespace && it.name == name.name);
        let labels =
            objects.gateways.get(*name).and_then(|gateway| gateway.metadata.labels.as_ref());
        let selector = wanted.selector.as_ref();
        named || selector.is_some_and(|selector| selects(selector, labels.unwrap_or(&none)))
    };
    ours.filter(is_wanted).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;
    use crate::translate::translate;

    #[test]
    fn by_name_by_label_or_all() {
        let gateway = |name: &str, class: &str, label: &str| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
                 metadata: {{name: {name}, labels: {{site: {label}}}}}\n\
                 spec: {{gatewayClassName: {class}, listeners: [{{name: a, protocol: TCP, port: 80}}]}}\n---\n"
            )
        };
        let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: penstock}\n\
            spec: {controllerName: penstock.dev/gateway-controller}\n---\n"
            .to_owned()
            + &gateway("a", "penstock", "north")
            + &gateway("b", "penstock", "south")
            + &gateway("c", "penstock", "west")
            + &gateway("d", "other", "north");
        let objects: Objects =
            manifest::read("t.yaml", &text).manifests.into_iter().map(|m| m.object).collect();
        let translation = translate(&objects);
        for (promise, spec, expected) in [
            ("all of ours", "{}", &["a", "b", "c"][..]),
            ("none", "{gateways: {}}", &[]),
            ("by name", "{gateways: {names: [{namespace: default, name: b}]}}", &["b"]),
            ("not of another class", "{gateways: {names: [{namespace: default, name: d}]}}", &[]),
            ("by label", "{gateways: {selector: {matchLabels: {site: north}}}}", &["a"]),
            (
                "either",
                "{gateways: {names: [{namespace: default, name: c}], selector: {matchExpressions: [{key: site, operator: In, values: [south]}]}}}",
                &["b", "c"],
            ),
            (
                "an operator that nobody knows matches nothing",
                "{gateways: {selector: {matchExpressions: [{key: site, operator: Like}]}}}",
                &[],
            ),
        ] {
            let spec: BoxSpec = serde_saphyr::from_str(spec).unwrap();
            let found = gateways(&spec, &objects, &translation);
            let found: Vec<_> = found.iter().map(|name| name.name.as_str()).collect();
            assert_eq!(found, expected, "{promise}");
        }
    }
}
