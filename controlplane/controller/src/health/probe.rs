//! One question to one backend: by TCP, HTTP(S) or UDP, from the kernel's own sockets and by its routes.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;

use super::{Asked, Question};

/// The longest answer of UDP that is looked at.
const DATAGRAM_BYTES: usize = 2048;

/// Asks, for as long as the check allows. An error says why the answer is bad.
pub(super) async fn ask(asked: &Asked) -> Result<(), String> {
    let timeout = asked.check.timeout;
    match tokio::time::timeout(timeout, question(asked)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(timeout))),
    }
}

async fn question(asked: &Asked) -> Result<(), String> {
    let place = asked.place();
    match &asked.check.question {
        Question::Tcp => {
            TcpStream::connect(place).await.map(drop).map_err(|error| error.to_string())
        }
        Question::Http { tls, path, host, statuses } => {
            let stream = TcpStream::connect(place).await.map_err(|error| error.to_string())?;
            let host = host.clone().unwrap_or_else(|| named(place));
            let status = match tls {
                false => status(stream, &host, path).await?,
                true => status(encrypted(stream, place, &host).await?, &host, path).await?,
            };
            let expected = match statuses.as_slice() {
                [] => (200..300).contains(&status),
                statuses => statuses.contains(&status),
            };
            if expected { Ok(()) } else { Err(format!("status {status}")) }
        }
        Question::Udp { payload, answer } => datagram(place, payload, answer).await,
    }
}

/// The Host of who has no name.
fn named(place: SocketAddr) -> String {
    match place {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

/// The status by which a GET is answered. The body is not waited for.
async fn status(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
) -> Result<u16, String> {
    let said = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    let request = Request::get(path)
        .header("host", host)
        .header("user-agent", "penstock-health-check")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    // The connection is driven beside the request, and dropped with it. It may end with the answer, and before that is
    // looked at.
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    };
    Ok(answer.map_err(said)?.status().as_u16())
}

async fn encrypted(
    stream: TcpStream,
    place: SocketAddr,
    host: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).unwrap_or(ServerName::from(place.ip()));
    let config = TLS.as_ref().map_err(Clone::clone)?;
    TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())
}

async fn datagram(place: SocketAddr, payload: &[u8], answer: &[u8]) -> Result<(), String> {
    let any = if place.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.map_err(|error| error.to_string())?;
    socket.connect(place).await.map_err(|error| error.to_string())?;
    socket.send(payload).await.map_err(|error| error.to_string())?;
    let mut buffer = [0; DATAGRAM_BYTES];
    let length = socket.recv(&mut buffer).await.map_err(|error| error.to_string())?;
    match buffer.get(..length).is_some_and(|found| found.starts_with(answer)) {
        true => Ok(()),
        false => Err("another answer than expected".to_owned()),
    }
}

/// TLS as we ask in it.
static TLS: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
});

/// Takes any certificate whose key signs: it is asked whether a backend is well, not who it is, and nothing is told that
/// is worth hearing.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use penstock_gateway_types::l4_policy::HealthCheck;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::super::Check;
    use super::*;

    fn check(text: &str) -> Arc<Check> {
        let mut check: HealthCheck = serde_json::from_str(text).unwrap();
        check.timeout.get_or_insert(penstock_gateway_types::Duration("300ms".into()));
        Arc::new(Check::read("", &check).unwrap())
    }

    /// Answers every connection by these bytes, once something was asked.
    async fn answers(bytes: &'static [u8]) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 1024];
                let length = stream.read(&mut asked).await.unwrap();
                let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
                let expected = "GET /healthz HTTP/1.1\r\nhost: web.example.com\r\n";
                if length > 0 && !asked.starts_with(expected) {
                    stream.write_all(b"HTTP/1.1 500 X\r\n\r\n").await.unwrap();
                }
                let _ = stream.write_all(bytes).await;
                if bytes.is_empty() {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            }
        });
        (place, served)
    }

    #[tokio::test]
    async fn a_request_is_answered_as_expected_or_not() {
        let http = r#"{"http": {"path": "/healthz", "host": "web.example.com"}}"#;
        let some = r#"{"http": {"path": "/healthz", "host": "web.example.com", "expectedStatuses": [404]}}"#;
        for (promise, bytes, text, expected) in [
            ("200 is good", &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"[..], http, Ok(())),
            ("so is 299", b"HTTP/1.1 299 X\r\n\r\n", http, Ok(())),
            ("503 is not", b"HTTP/1.1 503 X\r\n\r\n", http, Err("status 503")),
            ("but if it is expected", b"HTTP/1.1 404 X\r\n\r\n", some, Ok(())),
            ("then 200 is not", b"HTTP/1.1 200 X\r\n\r\n", some, Err("status 200")),
            ("no HTTP", b"SSH-2.0-x\r\n\r\n", http, Err("invalid HTTP version")),
            ("silence", b"", http, Err("no answer within 300ms")),
            ("a connection is enough for TCP", b"", r#"{"tcp": {}}"#, Ok(())),
        ] {
            let (backend, served) = answers(bytes).await;
            let found = ask(&Asked { backend, check: check(text) }).await;
            match expected {
                Ok(()) => assert_eq!(found, Ok(()), "{promise}"),
                Err(why) => {
                    let fault = found.unwrap_err();
                    assert!(fault.contains(why), "{promise}: {fault}");
                }
            }
            served.abort();
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let fault =
            ask(&Asked { backend: closed, check: check(r#"{"tcp": {}}"#) }).await.unwrap_err();
        assert!(fault.contains("refused"), "{fault}");
    }

    #[tokio::test]
    async fn https_asks_for_no_certificate_of_anyone() {
        let key = rcgen::generate_simple_self_signed(["other.example.com".to_owned()]).unwrap();
        let chain = vec![key.cert.der().clone()];
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key.signing_key.into())
                .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            stream.flush().await.unwrap();
        });
        let check = check(r#"{"http": {"scheme": "HTTPS"}, "timeout": "2s"}"#);
        assert_eq!(ask(&Asked { backend, check }).await, Ok(()));
    }

    #[tokio::test]
    async fn a_datagram_is_answered_by_what_is_expected() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let backend = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let answer: &[u8] = if &buffer[..length] == b"ping" { b"pong!" } else { b"what?" };
                socket.send_to(answer, from).await.unwrap();
            }
        });
        for (text, expected) in [
            (r#"{"udp": {"send": "ping", "expect": "pong"}}"#, Ok(())),
            (r#"{"udp": {"sendHex": "70696e67", "expectHex": "706f"}}"#, Ok(())),
            (r#"{"udp": {"send": "else"}}"#, Ok(())),
            (
                r#"{"udp": {"send": "else", "expect": "pong"}}"#,
                Err("another answer than expected".to_owned()),
            ),
        ] {
            assert_eq!(ask(&Asked { backend, check: check(text) }).await, expected, "{text}");
        }
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let nobody =
            ask(&Asked { backend: closed, check: check(r#"{"udp": {"send": "x"}}"#) }).await;
        assert!(nobody.unwrap_err().contains("refused"));
    }
}
