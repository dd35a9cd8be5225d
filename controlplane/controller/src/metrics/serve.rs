//! `/metrics`, `/healthz`, `/livez` and `/readyz` by HTTP, on a thread of its own: a scraper that is slow, or many of
//! them, cost the event loop nothing.
//!
//! Bounded: 16 connections, 16 KiB and 5 s for the head of a request, half a minute a connection; who comes
//! seventeenth waits in the kernel. It reads nothing but the path and changes nothing, so there is nobody to
//! authenticate; where it listens is the operator's choice, and nowhere unless told.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Metrics;

/// Connections at once.
const MOST_CONNECTIONS: usize = 16;
/// A connection that lasts longer is closed, and may come back.
const CONNECTION: Duration = Duration::from_secs(30);
/// A request's head must be there by then.
const HEAD: Duration = Duration::from_secs(5);
/// And be no longer.
const HEAD_MAX_BYTES: usize = 16 << 10;
/// After an accept that failed, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// What Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where to listen: `127.0.0.1:9465`, `[::1]:9465`, or `unix:` and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket, for who may not have a network: our user and group may connect.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => {
                Err("write an absolute path after unix:, as in unix:/run/penstock/metrics.sock"
                    .into())
            }
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "write an address and a port, as in 127.0.0.1:9465, or unix: and a path".to_owned()
            }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// Serves `metrics` at `address`, on a thread that ends with the process. Returns where, with the port that the
/// kernel chose if none was named.
///
/// # Errors
/// The kernel's, for a socket or a thread.
pub fn start(address: &Address, metrics: Arc<Metrics>) -> io::Result<Address> {
    let (listener, address) = bind(address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    info!(%address, "metrics are served");
    let run = move || {
        runtime.block_on(async {
            if let Err(error) = run(listener, metrics).await {
                warn!(%error, "metrics are not served");
            }
        });
    };
    std::thread::Builder::new().name("metrics".to_owned()).spawn(run)?;
    Ok(address)
}

fn bind(address: &Address) -> io::Result<(Listener, Address)> {
    match address {
        Address::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((Listener::Tcp(listener), Address::Tcp(address)))
        }
        Address::Unix(path) => {
            // One that nobody listens on any more is ours to replace.
            if let Err(error) = std::os::unix::net::UnixStream::connect(path)
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                std::fs::remove_file(path)?;
            }
            let listener = std::os::unix::net::UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
            listener.set_nonblocking(true)?;
            Ok((Listener::Unix(listener), address.clone()))
        }
    }
}

async fn run(listener: Listener, metrics: Arc<Metrics>) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let listener = Accepting::new(listener)?;
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok(stream) => {
                tokio::spawn(talk(stream, place, Arc::clone(&metrics)));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
    Ok(())
}

/// A connection of either kind.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for S {}

/// A listener on the runtime of this thread.
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accepting {
    fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    async fn accept(&self) -> io::Result<Box<dyn Connection>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// One connection, which keeps its place until it ends.
async fn talk(stream: Box<dyn Connection>, _place: OwnedSemaphorePermit, metrics: Arc<Metrics>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &metrics);
        async { Ok::<_, std::convert::Infallible>(answer) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_MAX_BYTES);
    // Who breaks off or says nonsense is told by the end of the connection.
    let _ = timeout(CONNECTION, server.serve_connection(TokioIo::new(stream), service)).await;
}

fn answer(method: &Method, path: &str, metrics: &Metrics) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return said(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".to_owned());
    }
    match path {
        "/metrics" => {
            let mut response = said(StatusCode::OK, metrics.text());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
            response
        }
        "/healthz" | "/livez" => judged(metrics.health()),
        "/readyz" => judged(metrics.readiness()),
        _ => said(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz, /livez and /readyz\n".to_owned(),
        ),
    }
}

fn judged(verdict: Result<(), String>) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => said(StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => said(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn said(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    fn ask(mut stream: impl Read + Write, what: &str) -> String {
        stream
            .write_all(
                format!("{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
            )
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn serve() -> (Arc<Metrics>, SocketAddr) {
        let metrics = super::super::none();
        let any = "127.0.0.1:0".parse().unwrap();
        let Address::Tcp(at) = start(&any, Arc::clone(&metrics)).unwrap() else { panic!() };
        (metrics, at)
    }

    #[test]
    fn each_path_says_its_own() {
        let (metrics, at) = serve();
        metrics.beat();
        for (what, begins, holds) in [
            ("GET /metrics", "HTTP/1.1 200", "penstock_controlplane_build_info{version="),
            ("GET /metrics", "HTTP/1.1 200", "application/openmetrics-text; version=1.0.0"),
            ("GET /healthz", "HTTP/1.1 200", "ok"),
            ("GET /livez", "HTTP/1.1 200", "ok"),
            ("GET /readyz", "HTTP/1.1 503", "the objects have not been read yet"),
            ("GET /", "HTTP/1.1 404", "/readyz"),
            ("POST /metrics", "HTTP/1.1 405", "only GET"),
        ] {
            let said = ask(TcpStream::connect(at).unwrap(), what);
            assert!(said.starts_with(begins) && said.contains(holds), "{what}: {said}");
        }
    }

    #[test]
    fn who_is_slow_or_sends_nonsense_keeps_nobody_from_asking() {
        let (_metrics, at) = serve();
        let slow: Vec<_> = (0..MOST_CONNECTIONS - 1)
            .map(|_| {
                let mut stream = TcpStream::connect(at).unwrap();
                stream.write_all(b"GET /met").unwrap();
                stream
            })
            .collect();
        let mut nonsense = TcpStream::connect(at).unwrap();
        nonsense.write_all(&[0xff; 64]).unwrap();
        let mut end = Vec::new();
        let _ = nonsense.read_to_end(&mut end);
        let start = Instant::now();
        assert!(ask(TcpStream::connect(at).unwrap(), "GET /metrics").contains("# EOF"));
        // With every place taken, one that is slow gives way after its time.
        let _last = {
            let mut last = TcpStream::connect(at).unwrap();
            last.write_all(b"G").unwrap();
            last
        };
        assert!(ask(TcpStream::connect(at).unwrap(), "GET /metrics").contains("# EOF"));
        assert!(start.elapsed() < HEAD + Duration::from_secs(3), "{:?}", start.elapsed());
        drop(slow);
    }

    #[test]
    fn a_unix_socket_is_taken_over_from_who_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address: Address = format!("unix:{}", path.display()).parse().unwrap();
        start(&address, super::super::none()).unwrap();
        assert!(ask(UnixStream::connect(&path).unwrap(), "GET /metrics").contains("# EOF"));
        let again = start(&address, super::super::none()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse, "one that is served is not");
    }

    #[test]
    fn an_address_is_one_or_says_how_one_is_written() {
        for good in ["127.0.0.1:9465", "[::1]:0", "unix:/run/x.sock"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in ["9465", "localhost:1", "unix:x", ""] {
            assert!(bad.parse::<Address>().unwrap_err().starts_with("write an"), "{bad}");
        }
    }
}
