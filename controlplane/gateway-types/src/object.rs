//! What makes a metadata, a spec and a status a Kubernetes object.

/// Declares an object kind: the struct, its encoding with `apiVersion` and `kind` first, and the two traits
/// of `k8s_openapi` by which `kube` knows a resource.
///
/// `kube`'s derive would do this too, but bring its client to a crate that only describes data.
macro_rules! object {
    (
        $(#[$doc:meta])*
        $name:ident { spec: $spec:ty $(, status: $status:ty)? $(,)? },
        plural: $plural:literal, scope: $scope:ident
        $(, group: $group:literal, version: $version:literal)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Deserialize)]
        #[serde(from = "Encoded")]
        pub struct $name {
            /// Name, namespace, labels, annotations, generation and age.
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            /// What the author wants.
            pub spec: $spec,
            $(
                /// What the controllers answered.
                pub status: Option<$status>,
            )?
        }

        /// The object as it stands in a file.
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Encoded {
            #[serde(default, rename = "apiVersion")]
            _api_version: String,
            #[serde(default, rename = "kind")]
            _kind: String,
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            spec: $spec,
            $(
                #[serde(default)]
                status: Option<$status>,
            )?
        }

        impl From<Encoded> for $name {
            fn from(encoded: Encoded) -> Self {
                Self {
                    metadata: encoded.metadata,
                    spec: encoded.spec,
                    $( status: std::convert::identity::<Option<$status>>(encoded.status), )?
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct;
                let mut object = serializer.serialize_struct(stringify!($name), 5)?;
                object.serialize_field("apiVersion", <Self as k8s_openapi::Resource>::API_VERSION)?;
                object.serialize_field("kind", <Self as k8s_openapi::Resource>::KIND)?;
                object.serialize_field("metadata", &self.metadata)?;
                object.serialize_field("spec", &self.spec)?;
                $(
                    let status: &Option<$status> = &self.status;
                    if let Some(status) = status {
                        object.serialize_field("status", status)?;
                    }
                )?
                object.end()
            }
        }

        impl k8s_openapi::Resource for $name {
            const API_VERSION: &'static str = crate::object::place!($($group, $version)?).2;
            const GROUP: &'static str = crate::object::place!($($group, $version)?).0;
            const KIND: &'static str = stringify!($name);
            const VERSION: &'static str = crate::object::place!($($group, $version)?).1;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = k8s_openapi::$scope;
        }

        impl k8s_openapi::Metadata for $name {
            type Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }
            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use object;

/// Group, version, and both as `apiVersion`: the Gateway API's unless others are given.
macro_rules! place {
    () => {
        crate::object::place!("gateway.networking.k8s.io", "v1")
    };
    ($group:literal, $version:literal) => {
        ($group, $version, concat!($group, "/", $version))
    };
}
pub(crate) use place;
