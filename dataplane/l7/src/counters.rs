//! What became of connections and requests, by name.

use std::sync::atomic::{AtomicU64, Ordering};

/// One count.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// All counts since the process started.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Every count with its name.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Connections that were accepted and had room.
    connections,
    /// Connections closed at once: as many were open as may be.
    connections_over_limit,
    /// `accept` failed: the process is out of descriptors, or the kernel out of memory.
    accept_errors,
    /// Nothing that tells the protocol arrived in time.
    first_bytes_timeout,
    /// A TLS handshake was not over in time.
    tls_handshake_timeout,
    /// A TLS handshake failed: no TLS, or nothing in common.
    tls_handshake_failed,
    /// A TLS handshake failed by a client certificate that is missing or not valid.
    tls_client_certificate,
    /// No listener that can be served has the name that the client asked for: it got `unrecognized_name`.
    tls_unrecognized_name,
    /// The head of a request, or after one the next request, was not there in time.
    head_timeout,
    /// Connections that ended by an error of HTTP or of the socket.
    http_errors,
    /// Requests answered 400: HTTP/1.1 without exactly one good host.
    requests_bad_host,
    /// Requests answered 404: no route matches.
    requests_not_found,
    /// Requests answered 421: another listener has the host than the one the TLS handshake chose.
    requests_misdirected,
    /// Connections cut because their place was gone and they did not end in time.
    drain_timeout,
}
