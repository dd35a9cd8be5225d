//! The CRDs of our own kinds, from their types: what a cluster installs (`deploy/kubernetes/crds`, held equal by a test),
//! and what objects in files are checked against.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kube_core::schema::StructuralSchemaRewriter;
use penstock_gateway_types::address_pool::AddressPoolSpec;
use penstock_gateway_types::{
    BackendSpec, BackendStatus, BoxSpec, BoxStatus, GatewayParametersSpec, L4PolicySpec,
    L4PolicyStatus,
};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::object::Kind;

/// Columns of `kubectl get`: name, type and path.
type Columns = &'static [(&'static str, &'static str, &'static str)];

/// What a CRD says beside its types.
struct Own {
    kind: Kind,
    description: &'static str,
    columns: Columns,
    spec: Value,
    status: Option<Value>,
}

fn own() -> [Own; 5] {
    [
        Own {
            kind: Kind::AddressPool,
            description: "Addresses that may become VIPs. A Gateway that asks for no address gets one of these.",
            columns: &[("Addresses", "string", ".spec.addresses")],
            spec: of::<AddressPoolSpec>(),
            status: None,
        },
        Own {
            kind: Kind::Box,
            description: "A machine that forwards packets and is told what to do by control processes elsewhere. It joins with `penstock join`, and is let in for as long as its Box is there and not revoked.",
            columns: &[
                ("Connected", "boolean", ".status.connected"),
                ("In sync", "string", ".status.conditions[?(@.type=='InSync')].status"),
                ("Version", "integer", ".status.version"),
                ("Release", "string", ".status.release"),
                ("Gateways", "integer", ".status.gateways"),
                ("Age", "date", ".metadata.creationTimestamp"),
            ],
            spec: of::<BoxSpec>(),
            status: Some(of::<BoxStatus>()),
        },
        Own {
            kind: Kind::GatewayParameters,
            description: "What Gateways do unless a policy says otherwise. A GatewayClass or a Gateway names it.",
            columns: &[
                ("Mode", "string", ".spec.listener.mode"),
                ("Pools", "string", ".spec.addressPools"),
            ],
            spec: of::<GatewayParametersSpec>(),
            status: None,
        },
        Own {
            kind: Kind::L4Policy,
            description: "What listeners of Gateways and ListenerSets do with packets, and how backends are checked.",
            columns: &[
                ("Mode", "string", ".spec.listener.mode"),
                (
                    "Accepted",
                    "string",
                    ".status.ancestors[0].conditions[?(@.type=='Accepted')].status",
                ),
                ("Unhealthy", "string", ".status.checks[*].unhealthy"),
            ],
            spec: of::<L4PolicySpec>(),
            status: Some(of::<L4PolicyStatus>()),
        },
        Own {
            kind: Kind::Backend,
            description: "Backends that no Service knows, by address or by name. A backendRef names it.",
            columns: &[
                ("Accepted", "string", ".status.conditions[?(@.type=='Accepted')].status"),
                ("Resolved", "string", ".status.conditions[?(@.type=='Resolved')].status"),
                ("Unhealthy", "string", ".status.checks[*].unhealthy"),
            ],
            spec: of::<BackendSpec>(),
            status: Some(of::<BackendStatus>()),
        },
    ]
}

/// A type's schema, as an API server takes it.
fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let settings = settings.with_transform(StructuralSchemaRewriter);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema
}

/// Takes out what an API server makes nothing of: titles, formats that are Rust's, and `null`, which a field that may be
/// absent is not meant to hold.
fn tidy(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    fields.remove("title");
    fields.remove("nullable");
    fields.remove("default");
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if let Some(Value::Array(known)) = fields.get_mut("enum") {
        known.retain(|value| !value.is_null());
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(tidy);
    }
    for below in ["items", "additionalProperties"] {
        fields.get_mut(below).into_iter().for_each(tidy);
    }
}

/// The schemas of the specs, by kind.
static SPECS: LazyLock<BTreeMap<Kind, Value>> =
    LazyLock::new(|| own().into_iter().map(|own| (own.kind, own.spec)).collect());

/// The schema of the spec of a kind of our own.
pub(crate) fn spec(kind: Kind) -> Option<&'static Value> {
    SPECS.get(&kind)
}

/// The CustomResourceDefinitions of our own kinds.
#[must_use]
pub fn all() -> Vec<(Kind, Value)> {
    own().into_iter().map(|own| (own.kind, definition(own))).collect()
}

fn definition(own: Own) -> Value {
    let (kind, plural) = (own.kind, own.kind.plural());
    let column = |(name, type_, path): &(&str, &str, &str)| json!({"name": name, "type": type_, "jsonPath": path});
    let mut properties = Map::from_iter([("spec".to_owned(), own.spec)]);
    let mut version = json!({
        "name": kind.versions()[0], "served": true, "storage": true,
        "additionalPrinterColumns": own.columns.iter().map(column).collect::<Vec<_>>(),
    });
    if let Some(status) = own.status {
        properties.insert("status".to_owned(), status);
        version["subresources"] = json!({"status": {}});
    }
    version["schema"] = json!({"openAPIV3Schema": {
        "description": own.description, "type": "object", "required": ["spec"], "properties": properties,
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{}", kind.group())},
        "spec": {
            "group": kind.group(),
            "scope": if kind.is_namespaced() { "Namespaced" } else { "Cluster" },
            "names": {
                "kind": kind.as_str(), "plural": plural, "singular": kind.as_str().to_lowercase(),
            },
            "versions": [version],
        },
    })
}
