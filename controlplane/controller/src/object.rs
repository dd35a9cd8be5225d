//! The objects we read, by kind, namespace and name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use penstock_feed::model::join;
use penstock_gateway_types::boxes::Box as BoxObject;
use penstock_gateway_types::k8s_openapi::{Metadata, Resource};
use penstock_gateway_types::{
    AddressPool, Backend, BackendTLSPolicy, ConfigMap, EndpointSlice, GROUP, GRPCRoute, Gateway,
    GatewayClass, GatewayParameters, HTTPRoute, L4Policy, ListenerSet, Namespace, OWN_GROUP,
    ObjectMeta, ReferenceGrant, Secret, Service, TCPRoute, TLSRoute, UDPRoute,
};
use serde::{Deserialize, Serialize};

/// Declares the kinds we read, a row each, and with them [`Kind`], [`Object`] and [`Objects`].
macro_rules! kinds {
    ($($(#[$doc:meta])*
       $kind:ident = $text:literal: $type:ident in $field:ident by $name:ident,
       $group:expr, $versions:expr, status: $status:literal;)+) => {
        /// The kinds we read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
        }

        impl Kind {
            /// Every kind, in the order of the enum.
            pub const ALL: [Kind; [$($text),+].len()] = [$(Kind::$kind),+];

            /// The kind as Kubernetes spells it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$kind => $text,)+ }
            }

            /// Its API group; empty for the core group.
            #[must_use]
            pub fn group(self) -> &'static str {
                match self { $(Kind::$kind => $group,)+ }
            }

            /// The versions that mean the same to us; the first is the one we write.
            #[must_use]
            pub fn versions(self) -> &'static [&'static str] {
                match self { $(Kind::$kind => $versions,)+ }
            }

            /// The kind in paths of an API server.
            #[must_use]
            pub fn plural(self) -> &'static str {
                match self { $(Kind::$kind => <$type as Resource>::URL_PATH_SEGMENT,)+ }
            }

            /// Whether objects of this kind live in namespaces.
            #[must_use]
            pub fn is_namespaced(self) -> bool {
                match self { $(Kind::$kind => <name!($name)>::IS_NAMESPACED,)+ }
            }

            /// Whether we write a status for objects of this kind, and so count its generations.
            #[must_use]
            pub fn has_status(self) -> bool {
                match self { $(Kind::$kind => $status,)+ }
            }
        }

        /// One object of any kind we read. Cloning is a reference count.
        #[derive(Clone, PartialEq)]
        #[expect(missing_docs, reason = "each variant holds the kind of its name")]
        pub enum Object {
            $($kind(Arc<$type>),)+
        }

        /// Runs one expression on whatever object is inside.
        macro_rules! on_each {
            ($object:expr, $inner:ident => $do:expr) => {
                match $object { $(Object::$kind($inner) => $do,)+ }
            };
        }

        impl Object {
            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $(Object::$kind(_) => Kind::$kind,)+ }
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
        }

        impl Serialize for Object {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                on_each!(self, object => (**object).serialize(serializer))
            }
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
                $(Kind::$kind => Object::$kind(Arc::new($type::deserialize(deserializer)?)),)+
            })
        }

        /// A set of objects, each once, by kind and name: what `translate` reads.
        #[derive(Clone, Default, PartialEq)]
        #[expect(missing_docs, reason = "each field holds the kind of its name")]
        pub struct Objects {
            $(pub $field: BTreeMap<name!($name), Arc<$type>>,)+
        }

        impl Objects {
            /// Adds an object, or replaces the one of the same kind and name.
            pub fn insert(&mut self, object: Object) {
                let name = NamespacedName::of(object.metadata());
                match object {
                    $(Object::$kind(object) => drop(self.$field.insert(name.into(), object)),)+
                }
            }

            /// Takes an object out. Returns whether it was there.
            pub fn remove(&mut self, key: &ObjectKey) -> bool {
                let name = NamespacedName::new(&key.namespace, &key.name);
                match key.kind {
                    $(Kind::$kind => self.$field.remove(&<name!($name)>::from(name)).is_some(),)+
                }
            }

            /// The object of that kind and name.
            #[must_use]
            pub fn get(&self, key: &ObjectKey) -> Option<Object> {
                let name = NamespacedName::new(&key.namespace, &key.name);
                match key.kind {
                    $(Kind::$kind => {
                        let object = self.$field.get(&<name!($name)>::from(name))?;
                        Some(Object::$kind(Arc::clone(object)))
                    })+
                }
            }

            /// Every object, in the order of kinds and names.
            pub fn iter(&self) -> impl Iterator<Item = Object> {
                std::iter::empty()
                    $(.chain(self.$field.values().map(|object| Object::$kind(Arc::clone(object)))))+
            }

            /// The key of every object, in the order of kinds and names.
            pub fn keys(&self) -> impl Iterator<Item = ObjectKey> {
                std::iter::empty()
                    $(.chain(self.$field.keys().map(|name| ObjectKey::named(Kind::$kind, name.clone()))))+
            }

            /// The keys of objects that are not the same in both. Costs a look at each.
            #[must_use]
            pub fn differing(&self, other: &Self) -> BTreeSet<ObjectKey> {
                let mut keys = BTreeSet::new();
                $(for (name, one, other) in join(&self.$field, &other.$field) {
                    let same = |(one, other): (&Arc<$type>, &Arc<$type>)| {
                        Arc::ptr_eq(one, other) || one == other
                    };
                    if !one.zip(other).is_some_and(same) {
                        keys.insert(ObjectKey::named(Kind::$kind, name.clone()));
                    }
                })+
                keys
            }

            /// How many objects there are.
            #[must_use]
            pub fn len(&self) -> usize {
                [$(self.$field.len()),+].into_iter().sum()
            }
        }
    };
}

/// The key of a map of objects.
macro_rules! name {
    (name) => {
        String
    };
    (namespace) => {
        NamespacedName
    };
}

/// How a kind's objects are named.
trait Scope {
    const IS_NAMESPACED: bool;

    /// Namespace and name.
    fn parts(self) -> (String, String);
}

impl Scope for String {
    const IS_NAMESPACED: bool = false;

    fn parts(self) -> (String, String) {
        (String::new(), self)
    }
}

impl Scope for NamespacedName {
    const IS_NAMESPACED: bool = true;

    fn parts(self) -> (String, String) {
        (self.namespace, self.name)
    }
}

impl From<NamespacedName> for String {
    fn from(name: NamespacedName) -> Self {
        name.name
    }
}

const V1: &[&str] = &["v1"];
const V1ALPHA1: &[&str] = &["v1alpha1"];
const SINCE_V1BETA1: &[&str] = &["v1", "v1beta1"];

kinds! {
    /// `gateway.networking.k8s.io/v1 GatewayClass`, without a namespace.
    GatewayClass = "GatewayClass": GatewayClass in gateway_classes by name, GROUP, SINCE_V1BETA1, status: true;
    /// `gateway.networking.k8s.io/v1 Gateway`.
    Gateway = "Gateway": Gateway in gateways by namespace, GROUP, SINCE_V1BETA1, status: true;
    /// `gateway.networking.k8s.io/v1 ListenerSet`.
    ListenerSet = "ListenerSet": ListenerSet in listener_sets by namespace, GROUP, V1, status: true;
    /// `gateway.networking.k8s.io/v1 TCPRoute`.
    TcpRoute = "TCPRoute": TCPRoute in tcp_routes by namespace, GROUP, V1, status: true;
    /// `gateway.networking.k8s.io/v1 UDPRoute`.
    UdpRoute = "UDPRoute": UDPRoute in udp_routes by namespace, GROUP, V1, status: true;
    /// `gateway.networking.k8s.io/v1 TLSRoute`.
    TlsRoute = "TLSRoute": TLSRoute in tls_routes by namespace, GROUP, V1, status: true;
    /// `gateway.networking.k8s.io/v1 HTTPRoute`.
    HttpRoute = "HTTPRoute": HTTPRoute in http_routes by namespace, GROUP, SINCE_V1BETA1, status: true;
    /// `gateway.networking.k8s.io/v1 GRPCRoute`.
    GrpcRoute = "GRPCRoute": GRPCRoute in grpc_routes by namespace, GROUP, V1, status: true;
    /// `gateway.networking.k8s.io/v1 ReferenceGrant`.
    ReferenceGrant = "ReferenceGrant": ReferenceGrant in reference_grants by namespace, GROUP, SINCE_V1BETA1, status: false;
    /// `gateway.networking.k8s.io/v1 BackendTLSPolicy`.
    BackendTlsPolicy = "BackendTLSPolicy": BackendTLSPolicy in backend_tls_policies by namespace, GROUP, V1, status: true;
    /// `v1 Service`. Only of those of our class is a status written.
    Service = "Service": Service in services by namespace, "", V1, status: true;
    /// `discovery.k8s.io/v1 EndpointSlice`.
    EndpointSlice = "EndpointSlice": EndpointSlice in endpoint_slices by namespace, "discovery.k8s.io", V1, status: false;
    /// `v1 Namespace`, without a namespace: read for its labels.
    Namespace = "Namespace": Namespace in namespaces by name, "", V1, status: false;
    /// `v1 Secret`: certificates and their keys.
    Secret = "Secret": Secret in secrets by namespace, "", V1, status: false;
    /// `v1 ConfigMap`: certificate authorities.
    ConfigMap = "ConfigMap": ConfigMap in config_maps by namespace, "", V1, status: false;
    /// `penstock.dev/v1alpha1 AddressPool`, without a namespace.
    AddressPool = "AddressPool": AddressPool in address_pools by name, OWN_GROUP, V1ALPHA1, status: false;
    /// `penstock.dev/v1alpha1 Box`, without a namespace: who is pushed what is in force.
    Box = "Box": BoxObject in boxes by name, OWN_GROUP, V1ALPHA1, status: true;
    /// `penstock.dev/v1alpha1 GatewayParameters`.
    GatewayParameters = "GatewayParameters": GatewayParameters in gateway_parameters by namespace, OWN_GROUP, V1ALPHA1, status: false;
    /// `penstock.dev/v1alpha1 L4Policy`.
    L4Policy = "L4Policy": L4Policy in l4_policies by namespace, OWN_GROUP, V1ALPHA1, status: true;
    /// `penstock.dev/v1alpha1 Backend`.
    Backend = "Backend": Backend in backends by namespace, OWN_GROUP, V1ALPHA1, status: true;
}

impl Kind {
    /// The `apiVersion` we write.
    #[must_use]
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.versions()[0].to_owned(),
            group => format!("{group}/{}", self.versions()[0]),
        }
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

    /// An object of any kind, by the key of its map.
    fn named<S: Scope>(kind: Kind, name: S) -> Self {
        let (namespace, name) = name.parts();
        Self { kind, namespace, name }
    }

    /// Its name within its namespace.
    #[must_use]
    pub fn namespaced(&self) -> NamespacedName {
        NamespacedName::new(&self.namespace, &self.name)
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

impl Object {
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

    /// It without its status, whoever wrote that; copied first if it has one and someone else holds it.
    #[must_use]
    pub fn without_status(mut self) -> Self {
        macro_rules! clear {
            ($($kind:ident),+) => {
                match &mut self {
                    $(Self::$kind(object) if object.status.is_some() => {
                        Arc::make_mut(object).status = None;
                    })+
                    _ => {}
                }
            };
        }
        clear!(
            GatewayClass,
            Gateway,
            ListenerSet,
            TcpRoute,
            UdpRoute,
            TlsRoute,
            HttpRoute,
            GrpcRoute,
            BackendTlsPolicy,
            Service,
            Box,
            L4Policy,
            Backend
        );
        self
    }

    /// The object as JSON, with `apiVersion` and `kind`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        // These types have string keys and finite numbers only, which is all that JSON asks for.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// The object, except for what a Secret holds: a log is no place for keys.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Secret(secret) => {
                let names = secret.data.iter().flatten().map(|(name, _)| name);
                let names: Vec<_> = names.collect();
                f.debug_struct("Secret").field("key", &self.key()).field("data", &names).finish()
            }
            other => on_each!(other, object => object.fmt(f)),
        }
    }
}

impl Objects {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl FromIterator<Object> for Objects {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut all = Self::default();
        objects.into_iter().for_each(|object| all.insert(object));
        all
    }
}

#[cfg(test)]
mod tests {
    use penstock_gateway_types::k8s_openapi::ByteString;

    use super::*;

    fn secret() -> Object {
        let metadata = ObjectMeta {
            name: Some("tls".into()),
            namespace: Some("shop".into()),
            ..ObjectMeta::default()
        };
        let data = [("tls.key".to_owned(), ByteString(b"KEY".to_vec()))].into();
        Object::Secret(Arc::new(Secret { metadata, data: Some(data), ..Secret::default() }))
    }

    #[test]
    fn a_key_is_not_shown_to_whoever_debugs() {
        let objects: Objects = [secret()].into_iter().collect();
        let shown = format!("{objects:?}");
        assert!(shown.contains("tls.key") && !shown.contains("75, 69, 89"), "{shown}");
    }

    #[test]
    fn what_is_put_in_is_found_and_taken_out() {
        let mut objects: Objects = [secret()].into_iter().collect();
        let key = secret().key();
        assert_eq!(objects.get(&key), Some(secret()));
        assert_eq!(objects.iter().collect::<Vec<_>>(), [secret()]);
        assert!(objects.remove(&key) && !objects.remove(&key) && objects.is_empty());
    }

    #[test]
    fn a_kind_is_named_once() {
        for kind in Kind::ALL {
            let same =
                |other: &&Kind| (other.as_str(), other.group()) == (kind.as_str(), kind.group());
            assert_eq!(Kind::ALL.iter().filter(same).count(), 1, "{kind}");
        }
        assert_eq!(Kind::AddressPool.api_version(), "penstock.dev/v1alpha1");
        assert!(!Kind::AddressPool.is_namespaced() && Kind::Secret.is_namespaced());
    }
}
