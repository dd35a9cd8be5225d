//! What the program promises, on loopback: fed by a real ring, spoken to by real clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use penstock_feed::model::{ClientMode, Clients, Hostname, L7Listener, Pem, PemId, Speaks, Tls};
use penstock_feed::{Ack, Name, Producer, State};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running program, which ends with its test.
struct L7 {
    directory: tempfile::TempDir,
    child: Child,
}

impl L7 {
    fn start(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = spawn(directory.path(), flags);
        Self { directory, child }
    }

    fn producer(&self) -> Producer {
        let socket = self.directory.path().join("l7.sock");
        let end = Instant::now() + PATIENCE;
        loop {
            match Producer::connect(&socket, Duration::from_secs(1)) {
                Ok(producer) => return producer,
                Err(fault) => assert!(Instant::now() < end, "{fault}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The count of that name in the report, as soon as it is `least`.
    fn counted(&self, name: &str, least: u64) -> u64 {
        let end = Instant::now() + PATIENCE;
        loop {
            let text =
                std::fs::read_to_string(self.directory.path().join("l7.json")).unwrap_or_default();
            let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let count = report["counters"][name].as_u64().unwrap_or_default();
            if count >= least || Instant::now() > end {
                return count;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for L7 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Path, flags: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock-l7"));
    command.arg("--run-dir").arg(directory).arg("--state-dir").arg(directory);
    command.args(["--threads", "2", "--feed-user", "0"]);
    command.args(flags).spawn().unwrap()
}

fn publish(producer: &mut Producer, generation: u64, state: State) -> Ack {
    let end = Instant::now() + PATIENCE;
    producer.publish(generation, &Arc::new(state), end).unwrap();
    loop {
        assert!(Instant::now() < end, "generation {generation} is not acknowledged");
        let acks = producer.wait(Duration::from_millis(100)).unwrap();
        if let Some(ack) = acks.into_iter().find(|ack| ack.generation == generation) {
            return ack;
        }
    }
}

fn free_port() -> SocketAddr {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    bound.local_addr().unwrap()
}

fn with(state: &mut State, name: &str, address: SocketAddr, host: Option<&str>, speaks: Speaks) {
    let hostname = host.map(|host| Hostname::new(host).unwrap());
    let listener = L7Listener { address, hostname, speaks };
    state.l7.listeners.insert_mut(Name::new(name).unwrap(), listener);
}

fn with_pem(state: &mut State, id: u128, text: &str) -> PemId {
    let id = PemId::from_bits(id);
    state.l7.pems.insert_mut(id, Arc::new(Pem::new(text.as_bytes()).unwrap()));
    id
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A chain and its key in PEM.
fn certificate(issuer: &CertifiedIssuer<'_, KeyPair>, host: &str) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, issuer).unwrap();
    certificate.pem() + &key.serialize_pem()
}

fn https(certificate: PemId, clients: Option<Clients>) -> Speaks {
    Speaks::Https(Tls { certificates: vec![certificate], clients })
}

/// A client that trusts `authority`, and shows `own` if there is one.
fn client(authority: &CertifiedIssuer<'_, KeyPair>, alpn: &str, own: Option<&str>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.unwrap().with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain =
                CertificateDer::pem_slice_iter(own.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(own.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// The status of a request for `host`, on a connection for `sni`; or what went wrong.
async fn get(at: SocketAddr, tls: &TlsConnector, sni: &str, host: &str) -> Result<u16, String> {
    let stream = tokio::net::TcpStream::connect(at).await.map_err(|fault| fault.to_string())?;
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    let stream = tls.connect(name, stream).await.map_err(|fault| fault.to_string())?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    request(stream, h2, host).await.map_err(|fault| format!("{fault:?}"))
}

async fn request<S>(stream: S, h2: bool, host: &str) -> hyper::Result<u16>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let request = Request::builder().header("host", host);
    if h2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        let request = Request::builder().version(Version::HTTP_2).uri(format!("https://{host}/"));
        Ok(sender
            .send_request(request.body(Empty::<Bytes>::new()).unwrap())
            .await?
            .status()
            .as_u16())
    } else {
        let (mut sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        let request = request.uri("/").body(Empty::<Bytes>::new()).unwrap();
        Ok(sender.send_request(request).await?.status().as_u16())
    }
}

/// The first line of what is answered to `text`.
fn say(at: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = [0; 256];
    let count = stream.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..count]).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn http_is_answered_and_bad_requests_are_told() {
    let l7 = L7::start(&[]);
    let at = free_port();
    let mut state = State::default();
    with(&mut state, "web", at, None, Speaks::Http);
    let ack = publish(&mut l7.producer(), 1, state);
    assert_eq!(ack.errors, []);
    for (promise, text, expected) in [
        ("a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("of 1991", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 404 Not Found"),
        ("no host", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (
            "a user before the host",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "HTTP/1.1 400 Bad Request",
        ),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("no HTTP", "\x16\x03\x01 hello\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("half a preface", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "HTTP/1.1 400 Bad Request"),
    ] {
        assert_eq!(say(at, text), expected, "{promise}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let h2c = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(at).await.unwrap();
        request(stream, true, "a.example").await.unwrap()
    });
    assert_eq!(h2c, 404, "HTTP/2 by prior knowledge");
    assert_eq!(l7.counted("requests_not_found", 3), 3);
    assert_eq!(l7.counted("requests_bad_host", 3), 3);
}

#[test]
fn https_ends_by_the_name_that_is_asked_for() {
    let l7 = L7::start(&[]);
    let (at, validating) = (free_port(), free_port());
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let mut state = State::default();
    let exact = with_pem(&mut state, 1, &certificate(&ours, "www.example.com"));
    let wild = with_pem(&mut state, 2, &certificate(&ours, "*.example.com"));
    let authorities = with_pem(&mut state, 3, &ours.pem());
    let strict = Clients { authorities, mode: ClientMode::Required };
    let lenient = Clients { authorities, mode: ClientMode::InsecureFallback };
    with(&mut state, "exact", at, Some("www.example.com"), https(exact, None));
    with(&mut state, "wild", at, Some("*.example.com"), https(wild, None));
    with(&mut state, "strict", validating, Some("www.example.com"), https(exact, Some(strict)));
    with(&mut state, "lenient", validating, Some("*.example.com"), https(wild, Some(lenient)));
    assert_eq!(publish(&mut l7.producer(), 1, state).errors, []);
    let (good, bad) = (certificate(&ours, "me"), certificate(&theirs, "me"));
    let (www, api, other) = ("www.example.com", "api.example.com", "example.org");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (promise, at, alpn, own, sni, host, expected) in [
        ("HTTP/1.1", at, "http/1.1", None, www, www, Ok(404)),
        ("HTTP/2 by ALPN", at, "h2", None, www, www, Ok(404)),
        ("a wildcard's certificate", at, "h2", None, api, api, Ok(404)),
        ("another listener's host", at, "h2", None, www, api, Ok(421)),
        ("and the other way round", at, "http/1.1", None, api, www, Ok(421)),
        ("nobody's host", at, "http/1.1", None, www, other, Ok(404)),
        ("nobody's name", at, "h2", None, other, other, Err("UnrecognisedName")),
        ("nothing in common", at, "smtp", None, www, www, Err("NoApplicationProtocol")),
        ("a client's certificate", validating, "h2", Some(&good), www, www, Ok(404)),
        ("none", validating, "http/1.1", None, www, www, Err("CertificateRequired")),
        ("a stranger's", validating, "http/1.1", Some(&bad), www, www, Err("UnknownCA")),
        ("a stranger's where all may", validating, "h2", Some(&bad), api, api, Ok(404)),
        ("none where all may", validating, "h2", None, api, api, Ok(404)),
    ] {
        let tls = client(&ours, alpn, own.map(String::as_str));
        let found = runtime.block_on(get(at, &tls, sni, host));
        match (&found, expected) {
            (Ok(status), Ok(expected)) => assert_eq!(*status, expected, "{promise}"),
            (Err(fault), Err(expected)) => assert!(fault.contains(expected), "{promise}: {fault}"),
            _ => panic!("{promise}: {found:?}"),
        }
    }
    assert_eq!(l7.counted("tls_unrecognized_name", 1), 1);
    assert_eq!(l7.counted("requests_misdirected", 2), 2);
    assert_eq!(l7.counted("tls_handshake_failed", 1), 1);
    assert_eq!(l7.counted("tls_client_certificate", 2), 2);
}

#[test]
fn a_port_that_is_taken_is_an_error_of_its_listener_until_it_is_free() {
    let l7 = L7::start(&[]);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = taken.local_addr().unwrap();
    let (broken, good) = (free_port(), free_port());
    let mut state = State::default();
    let empty = with_pem(&mut state, 1, "no certificate");
    with(&mut state, "taken", at, None, Speaks::Http);
    with(&mut state, "broken", broken, None, https(empty, None));
    with(&mut state, "good", good, None, Speaks::Http);
    let mut producer = l7.producer();
    let ack = publish(&mut producer, 1, state);
    let names: Vec<_> = ack.errors.iter().map(|error| error.object.name.to_string()).collect();
    assert_eq!(names, ["broken", "taken"]);
    assert!(ack.errors[1].message.contains("cannot be listened on"), "{}", ack.errors[1]);
    assert_eq!(say(good, "GET / HTTP/1.0\r\n\r\n"), "HTTP/1.0 404 Not Found");
    drop(taken);
    let end = Instant::now() + PATIENCE;
    while producer.wait(Duration::from_millis(100)).unwrap().iter().all(|ack| ack.errors.len() != 1)
    {
        assert!(Instant::now() < end, "the port is free, and nobody says so");
    }
    assert_eq!(say(at, "GET / HTTP/1.0\r\n\r\n"), "HTTP/1.0 404 Not Found");
}

#[test]
fn a_removed_place_drains_and_a_restart_serves_with_nobody_to_ask() {
    let mut l7 = L7::start(&[]);
    let (kept, removed) = (free_port(), free_port());
    let mut state = State::default();
    with(&mut state, "kept", kept, None, Speaks::Http);
    let after = state.clone();
    with(&mut state, "removed", removed, None, Speaks::Http);
    let mut producer = l7.producer();
    publish(&mut producer, 1, state);
    let mut open = TcpStream::connect(removed).unwrap();
    open.set_read_timeout(Some(PATIENCE)).unwrap();
    open.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(open.read(&mut [0; 256]).unwrap() > 0);
    publish(&mut producer, 2, after);
    assert_eq!(open.read(&mut [0; 256]).unwrap(), 0, "an idle connection is closed");
    assert!(TcpStream::connect(removed).is_err(), "nobody listens there");

    let file = l7.directory.path().join("l7.state");
    let end = Instant::now() + PATIENCE;
    while !file.exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500)); // the second state is written behind our back
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    l7.child.kill().unwrap();
    l7.child.wait().unwrap();
    l7.child = spawn(l7.directory.path(), &[]);
    let producer = l7.producer();
    assert_eq!(producer.hello().generation, 2);
    assert_eq!(say(kept, "GET / HTTP/1.0\r\n\r\n"), "HTTP/1.0 404 Not Found");
}

#[test]
fn one_connection_too_many_is_closed_and_counted() {
    let l7 = L7::start(&["--max-connections", "1"]);
    let at = free_port();
    let mut state = State::default();
    with(&mut state, "web", at, None, Speaks::Http);
    publish(&mut l7.producer(), 1, state);
    let first = TcpStream::connect(at).unwrap();
    assert_eq!(l7.counted("connections", 1), 1);
    assert_eq!(say(at, "GET / HTTP/1.0\r\n\r\n"), "", "closed without an answer");
    assert_eq!(l7.counted("connections_over_limit", 1), 1);
    drop(first);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(say(at, "GET / HTTP/1.0\r\n\r\n"), "HTTP/1.0 404 Not Found");
}

/// The bytes of `length` that a generator of its own gives, the same on every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A program that serves one place in clear text, and one with a certificate of `issuer`.
fn clear_and_secured(issuer: &CertifiedIssuer<'_, KeyPair>) -> (L7, SocketAddr, SocketAddr) {
    let l7 = L7::start(&[]);
    let (clear, secured) = (free_port(), free_port());
    let mut state = State::default();
    let pem = with_pem(&mut state, 1, &certificate(issuer, "www.example.com"));
    with(&mut state, "clear", clear, None, Speaks::Http);
    with(&mut state, "secured", secured, None, https(pem, None));
    publish(&mut l7.producer(), 1, state);
    (l7, clear, secured)
}

#[test]
fn any_bytes_end_a_connection_and_nothing_else() {
    let ours = authority("ours");
    let (l7, clear, secured) = clear_and_secured(&ours);
    let mut starts: Vec<Vec<u8>> = vec![
        vec![],
        b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3],
        vec![22, 3, 1, 255, 255],
    ];
    starts.push([&b"GET / HTTP/1.1\r\nHost: a\r\nX: "[..], &vec![b'x'; 200_000]].concat());
    starts.push((0..500).fold(b"GET / HTTP/1.1\r\n".to_vec(), |head, n| {
        [head, format!("x{n}: y\r\n").into_bytes()].concat()
    }));
    for at in [clear, secured] {
        for (n, start) in starts.iter().enumerate() {
            for seed in 1..8 {
                let mut stream = TcpStream::connect(at).unwrap();
                let bytes = [&start[..], &noise(seed * 77 + n as u64, 300)].concat();
                let _ = stream.write_all(&bytes); // it may have hung up already
                let _ = stream.shutdown(std::net::Shutdown::Write);
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer); // reset is as good an end
                let text = String::from_utf8_lossy(&answer);
                assert!(!text.starts_with("HTTP/1.1 2"), "{n} {seed}: {text}");
            }
        }
    }
    assert_eq!(say(clear, "GET / HTTP/1.0\r\n\r\n"), "HTTP/1.0 404 Not Found");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tls = client(&ours, "h2", None);
    let found = runtime.block_on(get(secured, &tls, "www.example.com", "www.example.com"));
    assert_eq!(found, Ok(404));
    let mut l7 = l7;
    assert_eq!(l7.child.try_wait().unwrap(), None, "it runs, and it is the same process");
}

#[test]
fn who_is_slow_is_sent_away() {
    let ours = authority("ours");
    let (l7, clear, secured) = clear_and_secured(&ours);
    let slow = [
        ("nothing", clear, &b""[..]),
        ("half a preface", clear, b"PRI * HT"),
        ("half a head", clear, b"GET / HTTP/1.1\r\nHost: a\r\n"),
        ("no handshake", secured, b""),
        ("half a handshake", secured, &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]),
    ];
    let begin = Instant::now();
    let streams = slow.map(|(promise, at, bytes)| {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(bytes).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (promise, stream)
    });
    for (promise, mut stream) in streams {
        let end = stream.read_to_end(&mut Vec::new()).map_err(|fault| fault.kind());
        let took = begin.elapsed().as_secs();
        let ended = matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)); // of bytes that nobody read
        assert!(ended && (9..16).contains(&took), "{promise}: {end:?} after {took} s");
    }
    for (counter, count) in
        [("first_bytes_timeout", 2), ("head_timeout", 1), ("tls_handshake_timeout", 2)]
    {
        assert_eq!(l7.counted(counter, count), count, "{counter}");
    }
}

/// What a change of certificates does to a connection that is there, and to the next.
#[test]
fn a_new_certificate_is_for_new_connections_and_new_authorities_for_all() {
    let l7 = L7::start(&[]);
    let at = free_port();
    let (old, new) = (authority("old"), authority("new"));
    let www = "www.example.com";
    let state_with = |issuer: &CertifiedIssuer<'_, KeyPair>, id: u128, clients: bool| {
        let mut state = State::default();
        let pem = with_pem(&mut state, id, &certificate(issuer, www));
        let authorities = with_pem(&mut state, 9, &old.pem());
        let clients = clients.then_some(Clients { authorities, mode: ClientMode::Required });
        with(&mut state, "web", at, Some(www), https(pem, clients));
        state
    };
    let mut producer = l7.producer();
    publish(&mut producer, 1, state_with(&old, 1, false));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut sender = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let name = ServerName::try_from(www).unwrap();
        let stream = client(&old, "http/1.1", None).connect(name, stream).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    });
    let mut ask = || {
        let request = Request::builder().header("host", www).uri("/");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        runtime.block_on(async {
            sender.ready().await.unwrap();
            sender.send_request(request).await.unwrap().status().as_u16()
        })
    };
    let fresh = |issuer| runtime.block_on(get(at, &client(issuer, "h2", None), www, www));
    assert_eq!((ask(), fresh(&old)), (404, Ok(404)));
    publish(&mut producer, 2, state_with(&new, 2, false));
    assert_eq!((ask(), fresh(&new)), (404, Ok(404)), "kept, and the new certificate");
    assert!(fresh(&old).is_err(), "the old one is not shown any more");
    publish(&mut producer, 3, state_with(&new, 2, true));
    assert_eq!(ask(), 421, "let in without a certificate, which is asked for now");
    assert!(fresh(&new).is_err(), "and so is everyone");
    assert_eq!(l7.counted("tls_client_certificate", 1), 1);
}

#[test]
fn a_name_whose_certificate_is_broken_is_nobody_elses() {
    let l7 = L7::start(&[]);
    let at = free_port();
    let ours = authority("ours");
    let mut state = State::default();
    let broken = with_pem(&mut state, 1, "no certificate");
    let wild = with_pem(&mut state, 2, &certificate(&ours, "*.example.com"));
    with(&mut state, "broken", at, Some("www.example.com"), https(broken, None));
    with(&mut state, "wild", at, Some("*.example.com"), https(wild, None));
    let ack = publish(&mut l7.producer(), 1, state);
    assert_eq!(ack.errors.len(), 1, "{:?}", ack.errors);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tls = client(&ours, "h2", None);
    let asked = |sni| runtime.block_on(get(at, &tls, sni, sni));
    assert_eq!(asked("api.example.com"), Ok(404));
    assert!(asked("www.example.com").unwrap_err().contains("UnrecognisedName"));
}
