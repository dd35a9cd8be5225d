//! An object as the API server sends it, and what we keep of it.
//!
//! The list of a kind must not fail because one object is of a shape we do not know, so a response is read as
//! JSON first and object by object afterwards (what `kube`'s `DeserializeGuard` does, without a type for every
//! kind).
//!
//! Kept are the spec and what of the metadata means something to us: managed fields, most annotations and the
//! names of pods behind endpoints are a third of a cluster's bytes. The status is kept apart ([`Observed`]): it
//! is what we write, so that a write of ours is no change of the object. But for the addresses of a Gateway, which
//! and a Service of our class, which stay its own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kube::Resource;
use kube::api::{ApiResource, GroupVersionKind};
use kube::core::DynamicResourceScope;
use penstock_gateway_types::ObjectMeta;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::object::{self, Kind, Object, ObjectKey};
use crate::schema;
use crate::translate::service::{LOAD_BALANCER_CLASS, RANGES_ANNOTATION};

/// The name under which the API server keeps which fields are ours.
pub const FIELD_MANAGER: &str = "penstock-controlplane";

/// An object of any kind and shape.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Raw {
    value: Value,
    #[serde(skip)]
    metadata: ObjectMeta,
}

impl From<Value> for Raw {
    fn from(value: Value) -> Self {
        let metadata = value.get("metadata").unwrap_or(&Value::Null);
        let metadata = ObjectMeta::deserialize(metadata).unwrap_or_else(|_| ObjectMeta {
            name: text(metadata, "name"),
            namespace: text(metadata, "namespace"),
            resource_version: text(metadata, "resourceVersion"),
            ..ObjectMeta::default()
        });
        Self { value, metadata }
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// Reads any JSON: a list is never undecodable because of one object.
impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.kind).into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.group).into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.version).into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.plural).into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Where the API server has objects of `kind`.
#[must_use]
pub fn resource(kind: Kind) -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(kind.group(), kind.versions()[0], kind.as_str()),
        kind.plural(),
    )
}

/// An object that was seen.
#[derive(Debug)]
pub struct Seen {
    /// Which object.
    pub key: ObjectKey,
    /// The object, or why it cannot be read.
    pub object: Result<Object, String>,
    /// What the status writer must know, if we write a status for its kind.
    pub observed: Option<Observed>,
    /// What we made of it, if it is a Service of ours.
    pub made: Option<Made>,
    /// Whether it was named by a list, which also corrects what we think is newer.
    pub listed: bool,
}

/// An object with a status, as the API server has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Which object of this name: another one after it was deleted and made again.
    pub uid: String,
    /// The version that a guarded write must name.
    pub resource_version: String,
    /// The generation of its spec.
    pub generation: i64,
    /// Its status, of every controller and to the last field.
    pub status: Value,
    /// The fields of the status that are ours, as `managedFields` has them.
    pub ours: Value,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Whether its deletion waits for them.
    pub deleting: bool,
}

/// A Service that we made for a Gateway, as far as a Gateway can want something of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Made {
    /// Which Service of this name.
    pub uid: String,
    /// Its version: watches lag behind the answers to our own requests.
    pub resource_version: String,
    /// Labels, annotations and owners, type and cluster address.
    pub value: Value,
    /// Which of these fields are ours, as `managedFields` has them.
    pub ours: Value,
}

impl Raw {
    /// Which object it is.
    #[must_use]
    pub fn key(&self, kind: Kind) -> ObjectKey {
        let name = self.metadata.name.clone().unwrap_or_default();
        let namespace = self.metadata.namespace.clone().unwrap_or_default();
        ObjectKey { kind, namespace, name }
    }

    /// What the status writer must know.
    #[must_use]
    pub fn observed(&self) -> Observed {
        let metadata = &self.metadata;
        Observed {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            status: self.value.get("status").cloned().unwrap_or_default(),
            ours: ours(metadata, Some("status"))
                .and_then(|fields| fields.get("f:status"))
                .cloned()
                .unwrap_or_default(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
        }
    }

    /// Whether it may have a status of ours: of Services only those of our class, and those that were.
    fn is_answered(&self, kind: Kind) -> bool {
        kind.has_status()
            && (kind != Kind::Service
                || is_balanced(&self.value)
                || ours(&self.metadata, Some("status")).is_some())
    }

    /// What we made of it: nothing, unless its owner is among the fields that are ours.
    #[must_use]
    pub fn made(&self) -> Option<Made> {
        let ours = ours(&self.metadata, None)?;
        ours.pointer("/f:metadata/f:ownerReferences")?;
        let pick = |part: &str, fields: &[&str]| -> Value {
            let part = self.value.get(part);
            let field = |name: &&str| Some(((*name).to_owned(), part?.get(*name)?.clone()));
            Value::Object(fields.iter().filter_map(field).collect())
        };
        Some(Made {
            uid: self.metadata.uid.clone().unwrap_or_default(),
            resource_version: self.metadata.resource_version.clone().unwrap_or_default(),
            value: json!({
                "metadata": pick("metadata", &["labels", "annotations", "ownerReferences"]),
                "spec": pick("spec", &["type", "clusterIP"]),
            }),
            ours: ours.clone(),
        })
    }

    /// What we keep of it.
    #[must_use]
    pub fn seen(mut self, kind: Kind, listed: bool) -> Seen {
        let key = self.key(kind);
        let observed = self.is_answered(kind).then(|| self.observed());
        let made = (kind == Kind::Service).then(|| self.made()).flatten();
        trim(&mut self.value, kind);
        Seen { key, object: read(kind, self.value), observed, made, listed }
    }
}

/// Whether an object of version `new` is at least as new as one of version `known`; yes if they cannot be compared.
#[must_use]
pub fn is_as_new(new: &str, known: &str) -> bool {
    match (new.parse::<u64>(), known.parse::<u64>()) {
        (Ok(new), Ok(known)) => new >= known,
        _ => true,
    }
}

/// The fields of a subresource, or of the object itself, that `managedFields` says we own.
fn ours<'a>(metadata: &'a ObjectMeta, subresource: Option<&str>) -> Option<&'a Value> {
    let entries = metadata.managed_fields.iter().flatten();
    let mut ours = entries.filter(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref() == subresource
    });
    Some(&ours.next()?.fields_v1.as_ref()?.0)
}

/// Whether it is a Service of our class.
fn is_balanced(service: &Value) -> bool {
    service.pointer("/spec/loadBalancerClass").is_some_and(|class| class == LOAD_BALANCER_CLASS)
}

fn read(kind: Kind, value: Value) -> Result<Object, String> {
    let object = object::deserialize(kind, value).map_err(|error| error.to_string())?;
    schema::check(&object).map_err(|fault| format!("{}: {}", fault.path, fault.message))?;
    Ok(object)
}

/// Takes out what means nothing to us.
fn trim(value: &mut Value, kind: Kind) {
    let is_balanced = kind == Kind::Service && is_balanced(value);
    let Some(fields) = value.as_object_mut() else { return };
    let status = if kind.has_status() { fields.remove("status") } else { None };
    if kind == Kind::Gateway
        && let Some(addresses) = status.as_ref().and_then(|status| status.get("addresses"))
    {
        fields.insert("status".to_owned(), json!({"addresses": addresses}));
    }
    if is_balanced
        && let Some(given) = status.as_ref().and_then(|status| status.get("loadBalancer"))
    {
        fields.insert("status".to_owned(), json!({"loadBalancer": given}));
    }
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        for needless in ["managedFields", "ownerReferences", "finalizers", "resourceVersion"] {
            metadata.remove(needless);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|name, _| {
                name.starts_with("penstock.dev/")
                    || name.contains("gateway.networking.k8s.io/")
                    || name == RANGES_ANNOTATION
            });
        }
    }
    let endpoints = fields.get_mut("endpoints").and_then(Value::as_array_mut);
    for endpoint in endpoints.into_iter().flatten().filter_map(Value::as_object_mut) {
        for needless in ["targetRef", "nodeName", "hostname", "deprecatedTopology"] {
            endpoint.remove(needless);
        }
    }
}

/// Names and their values, for requests about an object of ours.
#[must_use]
pub fn identity(key: &ObjectKey) -> BTreeMap<&'static str, Value> {
    let mut metadata = BTreeMap::from([("name", Value::from(key.name.as_str()))]);
    if !key.namespace.is_empty() {
        metadata.insert("namespace", Value::from(key.namespace.as_str()));
    }
    metadata
}
