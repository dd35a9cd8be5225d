//! The objects we read, by kind, namespace and name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use penstock_gateway_types::k8s_openapi::Metadata;
use penstock_gateway_types::{
    EndpointSlice, GROUP, Gateway, GatewayClass, Namespace, ObjectMeta, ReferenceGrant, Service,
    TCPRoute, UDPRoute,
};
use serde::{Deserialize, Serialize};

/// The kinds we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `gateway.networking.k8s.io/v1 GatewayClass`, without a namespace.
    GatewayClass,
    /// `gateway.networking.k8s.io/v1 Gateway`.
    Gateway,
    /// `gateway.networking.k8s.io/v1 TCPRoute`.
    TcpRoute,
    /// `gateway.networking.k8s.io/v1 UDPRoute`.
    UdpRoute,
    /// `gateway.networking.k8s.io/v1 ReferenceGrant`.
    ReferenceGrant,
    /// `v1 Service`.
    Service,
    /// `discovery.k8s.io/v1 EndpointSlice`.
    EndpointSlice,
    /// `v1 Namespace`, without a namespace: read for its labels.
    Namespace,
}

impl Kind {
    /// Every kind, in the order of the enum.
    pub const ALL: [Kind; 8] = [
        Kind::GatewayClass,
        Kind::Gateway,
        Kind::TcpRoute,
        Kind::UdpRoute,
        Kind::ReferenceGrant,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Namespace,
    ];

    /// The kind as Kubernetes spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::GatewayClass => "GatewayClass",
            Kind::Gateway => "Gateway",
            Kind::TcpRoute => "TCPRoute",
            Kind::UdpRoute => "UDPRoute",
            Kind::ReferenceGrant => "ReferenceGrant",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Namespace => "Namespace",
        }
    }

    /// Its API group; empty for the core group.
    #[must_use]
    pub fn group(self) -> &'static str {
        match self {
            Kind::Service | Kind::Namespace => "",
            Kind::EndpointSlice => "discovery.k8s.io",
            _ => GROUP,
        }
    }

    /// The versions that mean the same to us; the first is the one we write.
    #[must_use]
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Kind::GatewayClass | Kind::Gateway | Kind::ReferenceGrant => &["v1", "v1beta1"],
            _ => &["v1"],
        }
    }

    /// The `apiVersion` we write.
    #[must_use]
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.versions()[0].to_owned(),
            group => format!("{group}/{}", self.versions()[0]),
        }
    }

    /// Whether objects of this kind live in namespaces.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Kind::GatewayClass | Kind::Namespace)
    }

    /// Whether we write a status for objects of this kind, and so count its generations.
    #[must_use]
    pub fn has_status(self) -> bool {
        matches!(self, Kind::GatewayClass | Kind::Gateway | Kind::TcpRoute | Kind::UdpRoute)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name within a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl NamespacedName {
    /// `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The name of an object that lives in a namespace.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self { namespace: text(&metadata.namespace), name: text(&metadata.name) }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which object is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a kind without namespaces.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// An object of a kind with namespaces.
    #[must_use]
    pub fn of(kind: Kind, name: &NamespacedName) -> Self {
        Self { kind, namespace: name.namespace.clone(), name: name.name.clone() }
    }

    /// An object of a kind without namespaces.
    #[must_use]
    pub fn cluster(kind: Kind, name: &str) -> Self {
        Self { kind, namespace: String::new(), name: name.to_owned() }
    }
}

/// `Gateway default/web`, or `GatewayClass penstock`.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// One object of any kind we read. Cloning is a reference count.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant holds the kind of its name")]
pub enum Object {
    GatewayClass(Arc<GatewayClass>),
    Gateway(Arc<Gateway>),
    TcpRoute(Arc<TCPRoute>),
    UdpRoute(Arc<UDPRoute>),
    ReferenceGrant(Arc<ReferenceGrant>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Namespace(Arc<Namespace>),
}

/// Runs one expression on whatever object is inside.
macro_rules! on_each {
    ($object:expr, $inner:ident => $do:expr) => {
        match $object {
            Object::GatewayClass($inner) => $do,
            Object::Gateway($inner) => $do,
            Object::TcpRoute($inner) => $do,
            Object::UdpRoute($inner) => $do,
            Object::ReferenceGrant($inner) => $do,
            Object::Service($inner) => $do,
            Object::EndpointSlice($inner) => $do,
            Object::Namespace($inner) => $do,
        }
    };
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Object::GatewayClass(_) => Kind::GatewayClass,
            Object::Gateway(_) => Kind::Gateway,
            Object::TcpRoute(_) => Kind::TcpRoute,
            Object::UdpRoute(_) => Kind::UdpRoute,
            Object::ReferenceGrant(_) => Kind::ReferenceGrant,
            Object::Service(_) => Kind::Service,
            Object::EndpointSlice(_) => Kind::EndpointSlice,
            Object::Namespace(_) => Kind::Namespace,
        }
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        on_each!(self, object => &object.metadata)
    }

    /// Its metadata, to change; copies the object first if someone else holds it.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        on_each!(self, object => Arc::make_mut(object).metadata_mut())
    }

    /// Which object it is.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        let name = NamespacedName::of(self.metadata());
        let kind = self.kind();
        match kind.is_namespaced() {
            true => ObjectKey::of(kind, &name),
            false => ObjectKey::cluster(kind, &name.name),
        }
    }

    /// The object as JSON, with `apiVersion` and `kind`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        // These types have string keys and finite numbers only, which is all that JSON asks for.
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        on_each!(self, object => (**object).serialize(serializer))
    }
}

fn shared<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Arc<T>, D::Error> {
    T::deserialize(deserializer).map(Arc::new)
}

/// Reads an object of `kind`, whatever its `apiVersion` says.
///
/// # Errors
/// The deserializer's, for the first value that does not fit.
pub fn deserialize<'de, D: serde::Deserializer<'de>>(
    kind: Kind,
    deserializer: D,
) -> Result<Object, D::Error> {
    Ok(match kind {
        Kind::GatewayClass => Object::GatewayClass(shared(deserializer)?),
        Kind::Gateway => Object::Gateway(shared(deserializer)?),
        Kind::TcpRoute => Object::TcpRoute(shared(deserializer)?),
        Kind::UdpRoute => Object::UdpRoute(shared(deserializer)?),
        Kind::ReferenceGrant => Object::ReferenceGrant(shared(deserializer)?),
        Kind::Service => Object::Service(shared(deserializer)?),
        Kind::EndpointSlice => Object::EndpointSlice(shared(deserializer)?),
        Kind::Namespace => Object::Namespace(shared(deserializer)?),
    })
}

/// A set of objects, each once, by kind and name: what `translate` reads.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "each field holds the kind of its name")]
pub struct Objects {
    pub gateway_classes: BTreeMap<String, Arc<GatewayClass>>,
    pub gateways: BTreeMap<NamespacedName, Arc<Gateway>>,
    pub tcp_routes: BTreeMap<NamespacedName, Arc<TCPRoute>>,
    pub udp_routes: BTreeMap<NamespacedName, Arc<UDPRoute>>,
    pub reference_grants: BTreeMap<NamespacedName, Arc<ReferenceGrant>>,
    pub services: BTreeMap<NamespacedName, Arc<Service>>,
    pub endpoint_slices: BTreeMap<NamespacedName, Arc<EndpointSlice>>,
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
}

impl Objects {
    /// Adds an object, or replaces the one of the same kind and name.
    pub fn insert(&mut self, object: Object) {
        let name = NamespacedName::of(object.metadata());
        match object {
            Object::GatewayClass(object) => drop(self.gateway_classes.insert(name.name, object)),
            Object::Gateway(object) => drop(self.gateways.insert(name, object)),
            Object::TcpRoute(object) => drop(self.tcp_routes.insert(name, object)),
            Object::UdpRoute(object) => drop(self.udp_routes.insert(name, object)),
            Object::ReferenceGrant(object) => drop(self.reference_grants.insert(name, object)),
            Object::Service(object) => drop(self.services.insert(name, object)),
            Object::EndpointSlice(object) => drop(self.endpoint_slices.insert(name, object)),
            Object::Namespace(object) => drop(self.namespaces.insert(name.name, object)),
        }
    }

    /// The object of that name.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Object> {
        let name = NamespacedName::new(&key.namespace, &key.name);
        Some(match key.kind {
            Kind::GatewayClass => {
                Object::GatewayClass(self.gateway_classes.get(&key.name)?.clone())
            }
            Kind::Gateway => Object::Gateway(self.gateways.get(&name)?.clone()),
            Kind::TcpRoute => Object::TcpRoute(self.tcp_routes.get(&name)?.clone()),
            Kind::UdpRoute => Object::UdpRoute(self.udp_routes.get(&name)?.clone()),
            Kind::ReferenceGrant => {
                Object::ReferenceGrant(self.reference_grants.get(&name)?.clone())
            }
            Kind::Service => Object::Service(self.services.get(&name)?.clone()),
            Kind::EndpointSlice => Object::EndpointSlice(self.endpoint_slices.get(&name)?.clone()),
            Kind::Namespace => Object::Namespace(self.namespaces.get(&key.name)?.clone()),
        })
    }

    /// Removes the object of that name. Returns whether there was one.
    pub fn remove(&mut self, key: &ObjectKey) -> bool {
        let name = NamespacedName::new(&key.namespace, &key.name);
        match key.kind {
            Kind::GatewayClass => self.gateway_classes.remove(&key.name).is_some(),
            Kind::Gateway => self.gateways.remove(&name).is_some(),
            Kind::TcpRoute => self.tcp_routes.remove(&name).is_some(),
            Kind::UdpRoute => self.udp_routes.remove(&name).is_some(),
            Kind::ReferenceGrant => self.reference_grants.remove(&name).is_some(),
            Kind::Service => self.services.remove(&name).is_some(),
            Kind::EndpointSlice => self.endpoint_slices.remove(&name).is_some(),
            Kind::Namespace => self.namespaces.remove(&key.name).is_some(),
        }
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.gateway_classes.len()
            + self.gateways.len()
            + self.tcp_routes.len()
            + self.udp_routes.len()
            + self.reference_grants.len()
            + self.services.len()
            + self.endpoint_slices.len()
            + self.namespaces.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FromIterator<Object> for Objects {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut all = Self::default();
        objects.into_iter().for_each(|object| all.insert(object));
        all
    }
}
