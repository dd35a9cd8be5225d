//! The Service of one Gateway: what it is, and what must be done about it. Pure.
//!
//! It is headless (`clusterIP: None`), without a selector and without ports. So it takes no address of the cluster, no
//! cloud controller makes a balancer of it, no endpoints are looked for, kube-proxy does nothing, and our own handling of
//! Services of `type: LoadBalancer` does not see it. It is there to be found by its labels, and to bear what
//! `spec.infrastructure` says (GEP-1762).

use penstock_gateway_types::GROUP;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::object::NamespacedName;
use crate::source::cluster::raw::Made;
use crate::status::cluster::is_covered;
use crate::translate::Infrastructure;

/// The longest name of a Service: a label of RFC 1035.
const NAME_MAX_BYTES: usize = 63;

/// What is wanted of one Gateway's Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The Gateway.
    pub gateway: NamespacedName,
    /// Which Gateway of that name: the Service goes with it.
    pub uid: String,
    /// Its class.
    pub class: String,
    /// What the Service bears.
    pub infrastructure: Infrastructure,
}

/// Gateway, uid, class and what the Service bears.
type Parts<'a> = (&'a NamespacedName, &'a str, &'a str, &'a Infrastructure);

impl From<Parts<'_>> for Wanted {
    fn from((gateway, uid, class, infrastructure): Parts<'_>) -> Self {
        let (uid, class) = (uid.to_owned(), class.to_owned());
        Self { gateway: gateway.clone(), uid, class, infrastructure: infrastructure.clone() }
    }
}

/// What must be done next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// It is as it should be.
    Nothing,
    /// Look whether the name is free, and make it.
    Make(Value),
    /// Apply what differs.
    Apply(Value),
    /// Remove the Service of this uid.
    Remove(String),
}

/// The next step, for what is wanted under a name and what is there of ours.
pub(super) fn next(service: &NamespacedName, wanted: Option<&Wanted>, made: Option<&Made>) -> Step {
    match (wanted, made) {
        (None, None) => Step::Nothing,
        (None, Some(made)) => Step::Remove(made.uid.clone()),
        (Some(wanted), None) => Step::Make(body(service, wanted)),
        (Some(wanted), Some(made)) => {
            let body = body(service, wanted);
            let is_so = ["metadata", "spec"].iter().all(|part| {
                let ours = made.ours.get(format!("f:{part}")).unwrap_or(&Value::Null);
                let mut wanted = body[part].clone();
                if let Some(fields) = wanted.as_object_mut() {
                    fields.retain(|name, _| name != "name" && name != "namespace");
                }
                is_covered(part, &wanted, &made.value[part], ours)
            });
            if is_so { Step::Nothing } else { Step::Apply(body) }
        }
    }
}

/// The Service, as the API server applies it.
fn body(service: &NamespacedName, wanted: &Wanted) -> Value {
    let Infrastructure { labels, annotations } = &wanted.infrastructure;
    let mut metadata = json!({
        "name": service.name,
        "namespace": service.namespace,
        "ownerReferences": [{
            "apiVersion": format!("{GROUP}/v1"),
            "kind": "Gateway",
            "name": wanted.gateway.name,
            "uid": wanted.uid,
            "controller": true,
        }],
    });
    for (field, map) in [("labels", labels), ("annotations", annotations)] {
        if !map.is_empty() {
            metadata[field] = json!(map);
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"type": "ClusterIP", "clusterIP": "None"},
    })
}

/// The name of a Gateway's Service: `<gateway>-<class>` (GEP-1762), or the beginning of it and a hash, where that is no
/// name of a Service or `is_taken`.
pub(super) fn name(gateway: &str, class: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let plain = format!("{gateway}-{class}");
    if is_label(&plain) && !is_taken(&plain) {
        return plain;
    }
    let hash = format!("{:016x}", xxh3_64(format!("{gateway}/{class}").as_bytes()));
    let mut begin = plain.replace('.', "-");
    if !begin.starts_with(|first: char| first.is_ascii_lowercase()) {
        begin.insert_str(0, "gateway-");
    }
    begin.retain(|c| c == '-' || c.is_ascii_lowercase() || c.is_ascii_digit());
    begin.truncate(NAME_MAX_BYTES - 1 - hash.len());
    format!("{}-{hash}", begin.trim_end_matches('-'))
}

/// Whether `text` is a label of RFC 1035, as names of Services are.
fn is_label(text: &str) -> bool {
    let inner = |c: char| c == '-' || c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= NAME_MAX_BYTES
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(inner)
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> NamespacedName {
        NamespacedName::new("shop", "web-penstock")
    }

    fn wanted() -> Wanted {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        Wanted {
            gateway: NamespacedName::new("shop", "web"),
            uid: "u1".into(),
            class: "penstock".into(),
            infrastructure: Infrastructure {
                labels: map(&[("a", "b"), ("gateway.networking.k8s.io/gateway-name", "web")]),
                annotations: map(&[("c", "d")]),
            },
        }
    }

    fn made() -> Made {
        Made {
            uid: "s1".into(),
            resource_version: "7".into(),
            value: json!({
                "metadata": {
                    "labels": {"a": "b", "gateway.networking.k8s.io/gateway-name": "web"},
                    "annotations": {"c": "d"},
                    "ownerReferences": [{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                        "name": "web", "uid": "u1", "controller": true}],
                },
                "spec": {"type": "ClusterIP", "clusterIP": "None"},
            }),
            ours: json!({"f:metadata": {"f:labels": {"f:a": {}}}}),
        }
    }

    #[test]
    fn what_differs_is_applied_and_what_is_others_is_left() {
        let with = |pointer: &str, value: Value| {
            let mut made = made();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            made.value.pointer_mut(parent).unwrap()[field] = value;
            made
        };
        let no_longer = {
            let mut made = with("/metadata/labels/old", json!("x"));
            made.ours["f:metadata"]["f:labels"]["f:old"] = json!({});
            made
        };
        for (promise, made, applies) in [
            ("what is there is not written", made(), false),
            ("a label is other", with("/metadata/labels/a", json!("c")), true),
            ("an annotation is gone", with("/metadata/annotations", json!({})), true),
            ("a label of someone else is his", with("/metadata/labels/x", json!("y")), false),
            ("a label that we had is not wanted any more", no_longer, true),
            ("someone else's annotation", with("/metadata/annotations/x", json!("y")), false),
            ("someone made a balancer of it", with("/spec/type", json!("LoadBalancer")), true),
            (
                "a Gateway that was made again",
                with("/metadata/ownerReferences/0/uid", json!("u0")),
                true,
            ),
            ("ports that someone gave it", with("/spec/ports", json!([{"port": 80}])), false),
        ] {
            let step = next(&service(), Some(&wanted()), Some(&made));
            assert_eq!(matches!(step, Step::Apply(_)), applies, "{promise}: {step:?}");
        }
        assert_eq!(next(&service(), None, Some(&made())), Step::Remove("s1".into()));
        assert_eq!(next(&service(), None, None), Step::Nothing);
    }

    #[test]
    fn a_service_byte_for_byte() {
        let Step::Make(body) = next(&service(), Some(&wanted()), None) else { panic!() };
        assert_eq!(
            body.to_string(),
            "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"annotations\":{\"c\":\"d\"},\
             \"labels\":{\"a\":\"b\",\"gateway.networking.k8s.io/gateway-name\":\"web\"},\"name\":\"web-penstock\",\
             \"namespace\":\"shop\",\"ownerReferences\":[{\"apiVersion\":\"gateway.networking.k8s.io/v1\",\
             \"controller\":true,\"kind\":\"Gateway\",\"name\":\"web\",\"uid\":\"u1\"}]},\
             \"spec\":{\"clusterIP\":\"None\",\"type\":\"ClusterIP\"}}"
        );
    }

    #[test]
    fn a_name_is_one_that_a_service_may_have() {
        let free = |_: &str| false;
        assert_eq!(name("web", "penstock", free), "web-penstock");
        for (gateway, begins) in
            [("web.example", "web-example-penstock-"), ("9web", "gateway-9web-penstock-")]
        {
            let name = name(gateway, "penstock", free);
            assert!(name.starts_with(begins) && is_label(&name), "{name}");
        }
        let long = "x".repeat(253);
        assert!(is_label(&name(&long, "penstock", free)));
        assert_ne!(name(&long, "penstock", free), name(&long, "other", free));
        let taken = name("a-b", "c", |name| name == "a-b-c");
        assert!(taken.starts_with("a-b-c-") && is_label(&taken), "{taken}");
    }
}
