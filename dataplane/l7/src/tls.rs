//! How TLS ends: a rustls configuration of each listener, made once and shared by its connections.
//!
//! TLS 1.2 and 1.3 with ring, sessions resumed by tickets. ALPN offers `h2` and `http/1.1`. Of several certificates the first serves that has
//! the name asked for and a signature scheme the client knows.

use std::sync::Arc;

use penstock_feed::Map;
use penstock_feed::model::{ClientMode, Clients, Pem, PemId, Tls};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};

/// The record by which a client learns that nobody here has the name it asked for: a fatal
/// `unrecognized_name` (RFC 8446 §6, RFC 6066 §3), which rustls has no call for.
pub const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Why a listener's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It is not there.
    #[error("pem {:032x} does not exist: send it with the listener", .0.to_bits())]
    Missing(PemId),
    /// There is no certificate, or no key, or what is there is broken.
    #[error("pem {:032x}: {what}: {fault}: give a certificate chain, leaf first, and its key", pem.to_bits())]
    Unreadable {
        /// The pem.
        pem: PemId,
        /// What was looked for.
        what: &'static str,
        /// What the parser said.
        fault: String,
    },
    /// rustls refuses it.
    #[error("TLS cannot be set up with these certificates: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The configuration of a listener.
///
/// # Errors
/// [`TlsError`], with the pem.
pub fn server_config(
    tls: &Tls,
    pems: &Map<PemId, Arc<Pem>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let keys = tls.certificates.iter().map(|id| certified_key(*id, pems, &provider));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &tls.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(verifier(*clients, pems, provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Keys(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // By a key of its own: no session outlives the authorities that it was let in by.
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(Arc::new(config))
}

fn certified_key(
    id: PemId,
    pems: &Map<PemId, Arc<Pem>>,
    provider: &CryptoProvider,
) -> Result<Key, TlsError> {
    let text = pems.get(&id).ok_or(TlsError::Missing(id))?.text();
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|fault| unreadable(id, "its private key", &fault.to_string()))?;
    let certified = CertifiedKey::from_der(certificates(id, &text)?, key, provider)?;
    Ok(Key(Arc::new(certified)))
}

fn certificates(id: PemId, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(unreadable(id, "its certificates", "there are none")),
        Ok(found) => Ok(found),
        Err(fault) => Err(unreadable(id, "its certificates", &fault.to_string())),
    }
}

fn unreadable(pem: PemId, what: &'static str, fault: &str) -> TlsError {
    TlsError::Unreadable { pem, what, fault: fault.to_owned() }
}

fn verifier(
    clients: Clients,
    pems: &Map<PemId, Arc<Pem>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let id = clients.authorities;
    let text = pems.get(&id).ok_or(TlsError::Missing(id))?.text();
    let mut roots = RootCertStore::empty();
    for authority in certificates(id, &text)? {
        roots.add(authority)?;
    }
    let strict = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|fault| unreadable(id, "its authorities", &fault.to_string()))?;
    Ok(match clients.mode {
        ClientMode::Required => strict,
        ClientMode::InsecureFallback => Arc::new(Lenient(strict)),
    })
}

/// A certificate chain with its key.
#[derive(Debug)]
struct Key(Arc<CertifiedKey>);

impl Key {
    fn has_name(&self, name: Option<&str>) -> bool {
        let Some(Ok(name)) = name.map(ServerName::try_from) else { return false };
        let leaf = self.0.end_entity_cert().and_then(ParsedCertificate::try_from);
        leaf.is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok())
    }
}

/// The certificates of a listener, in its order.
#[derive(Debug)]
struct Keys(Vec<Key>);

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let signs = |key: &&Key| key.0.key.choose_scheme(hello.signature_schemes()).is_some();
        let usable = || self.0.iter().filter(signs);
        let key =
            usable().find(|key| key.has_name(hello.server_name())).or_else(|| usable().next());
        key.map(|key| Arc::clone(&key.0))
    }
}

/// Asks for a certificate and lets everyone in (Gateway API `AllowInsecureFallback`). What is shown must still
/// be the client's own: its signature is checked.
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lenient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
