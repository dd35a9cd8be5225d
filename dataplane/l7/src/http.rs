//! One connection's HTTP: framing by hyper, and the answer to each request.
//!
//! No route is served yet, so every request gets 404, but for one whose host is another listener's than the
//! TLS handshake chose (421, RFC 9110 §15.5.20: the client opens a connection for it), and one of HTTP/1.1
//! without exactly one host (400, RFC 9112 §3.2), which hyper would let pass.

use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::{Request, Response, StatusCode, Version};

use crate::counters::{Counter, Counters};
use crate::place::{Place, Served};

/// What a connection needs to answer.
#[derive(Clone, Debug)]
pub struct Answerer {
    /// The listeners of its place, as they are now.
    pub place: Arc<ArcSwap<Place>>,
    /// The listener that its TLS handshake chose.
    pub by_sni: Option<Arc<Served>>,
    /// Where to count.
    pub counters: Arc<Counters>,
}

impl Answerer {
    /// The answer to one request.
    ///
    /// # Errors
    /// None.
    pub fn answer(&self, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (status, counter) = self.judge(request);
        counter.add_one();
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = status;
        Ok(response)
    }

    /// The status of the answer, and who counts it.
    fn judge(&self, request: &Request<Incoming>) -> (StatusCode, &Counter) {
        let Some(host) = host(request) else {
            return (StatusCode::BAD_REQUEST, &self.counters.requests_bad_host);
        };
        let place = self.place.load();
        let by_host = place.listener(Some(host.host()));
        // A connection that was let in by other authorities than it would be now begins anew, too.
        let differs = |sni: &Served, served: &Served| {
            served.name != sni.name || served.clients() != sni.clients()
        };
        let sni = self.by_sni.as_deref();
        if sni.is_some_and(|sni| by_host.is_some_and(|served| differs(sni, served))) {
            return (StatusCode::MISDIRECTED_REQUEST, &self.counters.requests_misdirected);
        }
        (StatusCode::NOT_FOUND, &self.counters.requests_not_found)
    }
}

/// The host a request is for: of its target if it has one (RFC 9112 §3.2.2), else the `Host` field.
/// HTTP/1.0 may leave it out, and then it has none that a listener could be named for.
fn host(request: &Request<Incoming>) -> Option<Authority> {
    let mut fields = request.headers().get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return None;
    }
    let host = match (request.uri().authority(), field) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(field)) => Authority::try_from(field.as_bytes()).ok(),
        (None, None) if request.version() == Version::HTTP_10 => {
            Some(Authority::from_static("invalid"))
        }
        (None, None) => None,
    };
    // A user before the host is a way to look like another one (RFC 9110 §4.2.4).
    host.filter(|host| !host.as_str().contains('@') && !host.host().is_empty())
}
