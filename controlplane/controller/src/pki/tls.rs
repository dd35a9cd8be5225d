//! The two ends of a connection: TLS 1.3 and nothing older, each by certificates of the one authority.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::authority::CONTROLLER;
use super::{Authority, Credentials, Unusable};
use crate::link::Digest;

/// What both ends say they speak.
const PROTOCOL: &[u8] = b"penstock-boxes/1";
/// A controller's own certificate is good for so long, and replaced after half of it.
const SERVER_LIFETIME: Duration = Duration::from_secs(14 * 86_400);

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(error: impl fmt::Display) -> Unusable {
    Unusable::because("TLS", error)
}

fn roots(authority: CertificateDer<'static>) -> Result<Arc<RootCertStore>, Unusable> {
    let mut roots = RootCertStore::empty();
    roots.add(authority).map_err(unusable)?;
    Ok(Arc::new(roots))
}

/// The name that boxes ask controllers for.
///
/// # Panics
/// Never: the name is a constant, and a test reads it.
#[must_use]
pub fn controller_name() -> ServerName<'static> {
    ServerName::try_from(CONTROLLER).expect("the constant is a name")
}

/// A controller's end. A client may come without a certificate, and then say no more than that it wants to join; one
/// with somebody else's does not get that far.
///
/// # Errors
/// If the authority is none.
pub fn server(authority: Arc<Authority>) -> Result<Arc<ServerConfig>, Unusable> {
    let roots = roots(authority.certificate().clone())?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(unusable)?;
    let own = Own { authority, current: Mutex::new(None) };
    own.key(SystemTime::now())?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Links last: a session that goes on without a handshake is no gain, and would ask nobody.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A controller's certificate, made anew after half of its time.
struct Own {
    authority: Arc<Authority>,
    current: Mutex<Option<(SystemTime, Arc<CertifiedKey>)>>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}

impl Own {
    fn key(&self, now: SystemTime) -> Result<Arc<CertifiedKey>, Unusable> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, key)) = &*current
            && now.duration_since(*made).is_ok_and(|age| age < SERVER_LIFETIME / 2)
        {
            return Ok(Arc::clone(key));
        }
        let made = self.authority.server(now, SERVER_LIFETIME)?;
        let key = CertifiedKey::from_der(made.chain, made.key, &provider()).map_err(unusable)?;
        let key = Arc::new(key);
        *current = Some((now, Arc::clone(&key)));
        Ok(key)
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key(SystemTime::now()).ok()
    }
}

/// A box's end, with what it keeps.
///
/// # Errors
/// If a part of it is not what it should be.
pub fn client(credentials: &Credentials) -> Result<Arc<ClientConfig>, Unusable> {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(unusable);
    let roots = roots(certificate(&credentials.authority)?)?;
    let chain = vec![certificate(&credentials.certificate)?];
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).map_err(unusable)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// The end of a box that has nothing yet but the hash of the authority's certificate.
///
/// # Errors
/// If TLS cannot be set up.
pub fn joining(authority: Digest) -> Result<Arc<ClientConfig>, Unusable> {
    let pinned = Pinned { authority, provider: provider() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// Believes a certificate of the authority with that hash, which the other end sends along: no less than knowing the
/// authority, since nobody else has a certificate with that hash.
#[derive(Debug)]
struct Pinned {
    authority: Digest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_it = |certificate: &&CertificateDer<'_>| Digest::of(certificate) == self.authority;
        let Some(authority) = intermediates.iter().find(is_it) else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::super::authority::{Kept, new_request};
    use super::super::identity::{Card, Identity};
    use super::*;

    fn authority() -> Arc<Authority> {
        Arc::new(Authority::open(&Kept::make(SystemTime::now()).unwrap()).unwrap())
    }

    fn credentials(signed_by: &Authority, believes: &Authority, lifetime: Duration) -> Credentials {
        let (key, request) = new_request().unwrap();
        let identity = Identity::new("edge-1", "u").unwrap();
        // Made in the past, so that a short one is over.
        let then = SystemTime::now() - Duration::from_secs(60);
        Credentials {
            controllers: vec!["c:1".into()],
            authority: believes.pem().to_owned(),
            certificate: signed_by.certify(&request, &identity, then, lifetime).unwrap(),
            key: key.serialize_pem().into(),
        }
    }

    /// Who the controller sees, or why one of the ends does not want to.
    async fn shake(
        server_config: Arc<ServerConfig>,
        client: Arc<ClientConfig>,
    ) -> Result<String, String> {
        let (one, other) = tokio::io::duplex(16 << 10);
        let accept = async {
            let stream = TlsAcceptor::from(server_config).accept(one).await;
            let stream = stream.map_err(|error| format!("controller: {error}"))?;
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let name = certificates.first().map(|it| Card::of(it).unwrap().identity.to_string());
            Ok::<_, String>(name.unwrap_or_else(|| "nobody".into()))
        };
        let connect = async {
            let stream = TlsConnector::from(client).connect(controller_name(), other).await;
            stream.map_err(|error| format!("box: {error}"))
        };
        let (accepted, connected) = tokio::join!(accept, connect);
        match (accepted, connected) {
            (Ok(name), Ok(_)) => Ok(name),
            (_, Err(reason)) | (Err(reason), _) => Err(reason),
        }
    }

    #[tokio::test]
    async fn only_those_of_the_authority_meet() {
        let (ours, other) = (authority(), authority());
        let day = Duration::from_secs(86_400);
        let box_of = |signed_by: &Authority, believes: &Authority, lifetime| {
            client(&credentials(signed_by, believes, lifetime)).unwrap()
        };
        let pin = |authority: &Authority| joining(Digest::of(authority.certificate())).unwrap();
        for (promise, client, expected) in [
            ("a box of ours", box_of(&ours, &ours, day), Ok("edge-1")),
            ("another authority's", box_of(&other, &ours, day), Err("UnknownIssuer")),
            ("one that is over", box_of(&ours, &ours, Duration::from_secs(30)), Err("Expired")),
            ("a box that believes another", box_of(&ours, &other, day), Err("UnknownIssuer")),
            ("one that joins", pin(&ours), Ok("nobody")),
            ("one that joins another", pin(&other), Err("UnknownIssuer")),
        ] {
            let met = shake(server(Arc::clone(&ours)).unwrap(), client).await;
            match (met, expected) {
                (Ok(name), Ok(expected)) => assert_eq!(name, expected, "{promise}"),
                (Err(reason), Err(part)) => assert!(
                    reason.to_lowercase().contains(&part.to_lowercase()),
                    "{promise}: {reason}"
                ),
                (met, _) => panic!("{promise}: {met:?}"),
            }
        }
    }

    #[tokio::test]
    async fn tls_1_2_is_not_spoken() {
        let ours = authority();
        let mut roots = RootCertStore::empty();
        roots.add(ours.certificate().clone()).unwrap();
        let old = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let met = shake(server(ours).unwrap(), Arc::new(old)).await;
        assert!(met.as_ref().is_err_and(|reason| reason.contains("ProtocolVersion")), "{met:?}");
    }

    #[test]
    fn a_controllers_certificate_is_made_anew_in_time() {
        let own = Own { authority: authority(), current: Mutex::new(None) };
        let now = SystemTime::now();
        let first = own.key(now).unwrap();
        assert!(Arc::ptr_eq(&first, &own.key(now + SERVER_LIFETIME / 3).unwrap()));
        assert!(!Arc::ptr_eq(&first, &own.key(now + SERVER_LIFETIME / 2).unwrap()));
    }
}
