//! One place's socket: connections are taken and served until the place is gone, and then drained.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;

use crate::counters::Counters;
use crate::http::Answerer;
use crate::place::Place;
use crate::tls::UNRECOGNIZED_NAME;

const BACKLOG: i32 = 4096;
/// For the first bytes, for a TLS handshake, for the head of a request, and between requests.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most of a head that is kept while it comes, and its fields.
const HEAD_BYTES: usize = 64 * 1024;
const HEAD_FIELDS: usize = 128;
/// What open connections of a place that is gone are given.
const DRAIN: Duration = Duration::from_secs(10);
/// What is waited after a failure of `accept` that lasts.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const H2_PING: Duration = Duration::from_secs(20);
const H2_STREAMS: u32 = 128;
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What all places share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where to count.
    pub counters: Arc<Counters>,
    /// A permit for each connection that may be open.
    pub room: Arc<Semaphore>,
}

/// Binds a place. The VIP need not be on the box yet (`IP_FREEBIND`), so that the order in which the data
/// plane and we learn of it does not matter.
///
/// # Errors
/// The kernel's.
pub fn bind_place(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => {
            sockopt::set_ipv6_v6only(&socket, true)?;
            sockopt::set_ipv6_freebind(&socket, true)?;
        }
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    TcpListener::from_std(std::net::TcpListener::from(socket))
}

/// Accepts until `gone` says so (or its sender is dropped); connections that are open then are asked to end.
pub async fn accept(
    listener: TcpListener,
    place: Arc<ArcSwap<Place>>,
    shared: Shared,
    mut gone: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            _ = gone.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(permit) = Arc::clone(&shared.room).try_acquire_owned() else {
                    shared.counters.connections_over_limit.add_one();
                    continue;
                };
                shared.counters.connections.add_one();
                let connection = Connection {
                    place: Arc::clone(&place),
                    shared: shared.clone(),
                    gone: gone.clone(),
                };
                tokio::spawn(connection.serve(stream, permit));
            }
            Err(_) => {
                shared.counters.accept_errors.add_one();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Connection {
    place: Arc<ArcSwap<Place>>,
    shared: Shared,
    gone: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(mut self, stream: TcpStream, _permit: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true); // a slower answer is no reason to end
        if self.place.load().is_https() {
            self.serve_tls(stream).await;
            return;
        }
        let answerer = self.answerer(None);
        match timeout(PATIENCE, has_h2_preface(&stream)).await {
            Ok(Ok(h2)) => self.speak(stream, h2, answerer).await,
            Ok(Err(_)) => self.shared.counters.http_errors.add_one(),
            Err(_) => self.shared.counters.first_bytes_timeout.add_one(),
        }
    }

    async fn serve_tls(&mut self, stream: TcpStream) {
        let counters = Arc::clone(&self.shared.counters);
        let ended = timeout(PATIENCE, self.shake_hands(stream)).await;
        match ended {
            Ok(Some((stream, answerer))) => {
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.speak(stream, h2, answerer).await;
            }
            Ok(None) => {} // counted where it was seen
            Err(_) => counters.tls_handshake_timeout.add_one(),
        }
    }

    /// The listener is the one that has the name when the client says it, and its TLS is used.
    async fn shake_hands(
        &self,
        stream: TcpStream,
    ) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, Answerer)> {
        let counters = &self.shared.counters;
        let Ok(mut started) = LazyConfigAcceptor::new(Acceptor::default(), stream).await else {
            counters.tls_handshake_failed.add_one();
            return None;
        };
        let place = self.place.load_full();
        let hello = started.client_hello();
        let served = place.listener(hello.server_name()).cloned();
        let Some((served, tls)) =
            served.and_then(|served| served.tls.clone().map(|tls| (served, tls)))
        else {
            counters.tls_unrecognized_name.add_one();
            if started.io.write_all(&UNRECOGNIZED_NAME).await.is_ok() {
                let _ = started.io.shutdown().await; // it was told; that is all we owe it
            }
            return None;
        };
        match started.into_stream(tls).await {
            Ok(stream) => Some((stream, self.answerer(Some(served)))),
            Err(fault) => {
                match fault.get_ref().and_then(|fault| fault.downcast_ref()) {
                    Some(
                        rustls::Error::NoCertificatesPresented
                        | rustls::Error::InvalidCertificate(_),
                    ) => &counters.tls_client_certificate,
                    _ => &counters.tls_handshake_failed,
                }
                .add_one();
                None
            }
        }
    }

    fn answerer(&self, by_sni: Option<Arc<crate::place::Served>>) -> Answerer {
        let counters = Arc::clone(&self.shared.counters);
        Answerer { place: Arc::clone(&self.place), by_sni, counters }
    }

    /// HTTP until the client has had enough, or the place is gone and the connection has ended its requests.
    async fn speak<S>(&mut self, stream: S, h2: bool, answerer: Answerer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request| std::future::ready(answerer.answer(&request)));
        let (io, counters) = (TokioIo::new(stream), Arc::clone(&self.shared.counters));
        macro_rules! until_gone {
            ($connection:expr) => {{
                let mut connection = pin!($connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => Some(ended),
                    _ = self.gone.changed() => None,
                };
                match ended {
                    Some(ended) => Ok(ended),
                    None => {
                        connection.as_mut().graceful_shutdown();
                        timeout(DRAIN, connection).await
                    }
                }
            }};
        }
        let ended = if h2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).max_concurrent_streams(H2_STREAMS);
            builder.max_header_list_size(HEAD_BYTES as u32);
            builder.keep_alive_interval(H2_PING).keep_alive_timeout(PATIENCE);
            until_gone!(builder.serve_connection(io, service))
        } else {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            builder.max_buf_size(HEAD_BYTES).max_headers(HEAD_FIELDS);
            until_gone!(builder.serve_connection(io, service))
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(fault)) if fault.is_timeout() => counters.head_timeout.add_one(),
            Ok(Err(_)) => counters.http_errors.add_one(),
            Err(_) => counters.drain_timeout.add_one(),
        }
    }
}

/// Whether HTTP/2 begins there by prior knowledge (RFC 9113 §3.3). Takes nothing from the stream.
async fn has_h2_preface(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; H2_PREFACE.len()];
    loop {
        let count = stream.peek(&mut first).await?;
        match &first[..count] {
            [] => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes if bytes == H2_PREFACE => return Ok(true),
            bytes if !H2_PREFACE.starts_with(bytes) => return Ok(false),
            _ => sleep(Duration::from_millis(5)).await, // it is readable already: there is no event to wait for
        }
    }
}
