//! The enumerations of the API, each with a variant for a value we do not know.
//!
//! The API asks implementations to meet unknown values with a condition (`UnsupportedValue`) and not with a
//! failure to decode, since one such object would otherwise hide a whole list. The unknown value is kept, so
//! that the condition can name it and encoding gives it back.

use std::fmt;

/// Declares an enumeration that is written as a string and accepts any.
macro_rules! values {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A value this version does not know, as it was written.
            Unknown(String),
        }

        impl $name {
            /// Every known value, as the API spells it.
            pub const KNOWN: &'static [&'static str] = &[$($text),+];

            /// The value as the API spells it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Unknown(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    other => Self::Unknown(other.to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(|text| Self::from(text.as_str()))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        /// The known values: an API server takes no other.
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "enum": Self::KNOWN})
            }
        }
    };
}

values! {
    /// What a listener speaks.
    Protocol {
        /// HTTP in clear text.
        Http = "HTTP",
        /// HTTP over TLS, terminated here.
        Https = "HTTPS",
        /// TLS, passed through or terminated.
        Tls = "TLS",
        /// TCP, of whatever is in it.
        Tcp = "TCP",
        /// UDP datagrams.
        Udp = "UDP",
    }
}

values! {
    /// What the value of a Gateway address is.
    AddressType {
        /// An IPv4 or IPv6 address.
        IpAddress = "IPAddress",
        /// A DNS name.
        Hostname = "Hostname",
        /// A name that the implementation understands.
        NamedAddress = "NamedAddress",
    }
}

values! {
    /// From which namespaces routes or ListenerSets may attach.
    FromNamespaces {
        /// Every namespace.
        All = "All",
        /// The namespaces whose labels match a selector.
        Selector = "Selector",
        /// The namespace of the Gateway.
        Same = "Same",
        /// No namespace (the default for ListenerSets, never for routes).
        None = "None",
    }
}

values! {
    /// What a listener does with TLS.
    TlsMode {
        /// Ends it here.
        Terminate = "Terminate",
        /// Passes it to the backend unopened.
        Passthrough = "Passthrough",
    }
}

values! {
    /// What a Gateway does with a client certificate that does not validate.
    FrontendValidationMode {
        /// Refuses the connection.
        AllowValidOnly = "AllowValidOnly",
        /// Accepts it, and leaves the decision to the backend.
        AllowInsecureFallback = "AllowInsecureFallback",
    }
}

values! {
    /// What a name in a certificate is.
    SubjectAltNameType {
        /// A host name.
        Hostname = "Hostname",
        /// A URI.
        Uri = "URI",
    }
}

values! {
    /// How packets are rewritten on their way to a backend.
    ForwardingMode {
        /// Source and destination.
        FullNat = "full-nat",
        /// The destination.
        Dnat = "dnat",
        /// MAC addresses alone; backends answer clients themselves, as in the modes below.
        L2Dsr = "l2-dsr",
        /// In another IP header.
        Ipip = "ipip",
        /// In UDP, GUE variant 1.
        Gue = "gue",
        /// In UDP, GUE variant 0.
        GueVariant0 = "gue-variant-0",
    }
}

values! {
    /// By what of a packet its backend is chosen.
    AffinityBy {
        /// Each flow for itself.
        Tuple = "5-tuple",
        /// The source address, or leading bits of it.
        Source = "source",
    }
}

values! {
    /// What becomes of connections that nobody serves any more.
    RemovalAction {
        /// They go on until they end by themselves.
        Keep = "keep",
        /// Both ends get a RST.
        Reset = "reset",
        /// They get it after a grace.
        Expire = "expire",
    }
}

values! {
    /// How a client is answered for whom no SNAT port is free.
    OnExhaustion {
        /// A SYN by RST, a datagram not at all.
        Reset = "reset",
        /// By ICMP "port unreachable".
        Icmp = "icmp",
        /// Not at all.
        Drop = "drop",
    }
}

values! {
    /// How a segment is answered of a connection that nobody knows.
    OnUnknown {
        /// Not at all.
        Drop = "drop",
        /// By RST.
        Reset = "reset",
    }
}

values! {
    /// How far the MSS option of SYNs is lowered.
    MssClampAction {
        /// To what fits the routes.
        Auto = "auto",
        /// Not at all (not `off`, which is `false` to many readers of YAML).
        Never = "never",
        /// To so many bytes, and to what fits.
        Limit = "limit",
    }
}

values! {
    /// How a request is sent.
    Scheme {
        /// In clear text.
        Http = "HTTP",
        /// In TLS.
        Https = "HTTPS",
    }
}

values! {
    /// How the client's address is told to a backend.
    ProxyProtocol {
        /// A line of text.
        V1 = "v1",
        /// A binary header.
        V2 = "v2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_value_is_kept_and_written_back() {
        let read: Protocol = serde_json::from_str("\"QUIC\"").unwrap();
        assert_eq!(read, Protocol::Unknown("QUIC".into()));
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"QUIC\"");
    }

    #[test]
    fn every_known_value_is_read_as_itself() {
        for text in Protocol::KNOWN {
            let read = Protocol::from(*text);
            assert!(!matches!(read, Protocol::Unknown(_)), "{text}");
            assert_eq!(read.as_str(), *text);
        }
    }
}
