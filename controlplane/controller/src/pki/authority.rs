//! The authority: it signs the certificates of boxes and controllers, and the tokens by which boxes join.

use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType, SerialNumber,
};
use ring::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::identity::SKEW;
use super::{Identity, Unusable, random};

/// The name that every controller's certificate has: boxes reach controllers by many addresses.
pub const CONTROLLER: &str = "controller.boxes.penstock.dev";
/// How long an authority is good for.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(20 * 365 * 86_400);
/// A request is longer than this only if someone is up to something.
const MOST_REQUEST_BYTES: usize = 16 << 10;

/// An authority as it is kept. Its keys are wiped from memory when it is dropped.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Its certificate in PEM.
    pub certificate: String,
    /// Its key in PEM.
    pub key: Zeroizing<String>,
    /// The key of tokens, 32 bytes in base64url.
    pub token_key: Zeroizing<String>,
}

/// An authority at work.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    certificate: CertificateDer<'static>,
    token_key: hmac::Key,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A controller's certificate and key.
pub struct Server {
    /// The certificate, then the authority's.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

impl Kept {
    /// A new authority.
    ///
    /// # Errors
    /// If the kernel has no random bytes.
    pub fn make(now: SystemTime) -> Result<Self, Unusable> {
        let fail = |error| Unusable::because("no authority can be made", error);
        let key = KeyPair::generate().map_err(fail)?;
        let mut params = params(now, AUTHORITY_LIFETIME)?;
        // Of two authorities, no certificate of the one looks like the other's.
        let name = format!("Penstock boxes {}", BASE64URL_NOPAD.encode(&random::<9>()?));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(fail)?.pem();
        let token_key = Zeroizing::new(BASE64URL_NOPAD.encode(&random::<32>()?));
        Ok(Self { certificate, key: Zeroizing::new(key.serialize_pem()), token_key })
    }
}

impl Authority {
    /// The authority that was kept so.
    ///
    /// # Errors
    /// If a part of it is not what it should be.
    pub fn open(kept: &Kept) -> Result<Self, Unusable> {
        let fail = |error| Unusable::because("the authority's key or certificate", error);
        let key = KeyPair::from_pem(&kept.key).map_err(fail)?;
        let certificate = CertificateDer::from_pem_slice(kept.certificate.as_bytes());
        let certificate =
            certificate.map_err(|error| Unusable::because("the authority's certificate", error))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(fail)?;
        let mut secret = BASE64URL_NOPAD
            .decode(kept.token_key.as_bytes())
            .map_err(|error| Unusable::because("the key of tokens", error))?;
        let token_key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        secret.zeroize();
        Ok(Self { issuer, pem: kept.certificate.clone(), certificate, token_key })
    }

    /// Its certificate in PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The key of tokens.
    pub(super) fn token_key(&self) -> &hmac::Key {
        &self.token_key
    }

    /// A certificate in PEM for the key of a request (PKCS #10 in PEM). Only the key is taken from the request, and
    /// that whoever sent it has its private half: who the certificate is for is what we know.
    ///
    /// # Errors
    /// For a request that is none.
    pub fn certify(
        &self,
        request: &str,
        identity: &Identity,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<String, Unusable> {
        let fail = |error| Unusable::because("the request for a certificate", error);
        if request.len() > MOST_REQUEST_BYTES {
            return Err(Unusable("the request for a certificate is too long".into()));
        }
        let request = CertificateSigningRequestParams::from_pem(request).map_err(fail)?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(Unusable("the request's key is not of P-256".into()));
        }
        let mut params = params(now, lifetime)?;
        params.distinguished_name.push(DnType::OrganizationName, "Penstock box");
        let uri = identity.uri().try_into().map_err(fail)?;
        params.subject_alt_names.push(SanType::URI(uri));
        self.sign(params, &request.public_key, ExtendedKeyUsagePurpose::ClientAuth)
            .map(|certificate| certificate.pem())
    }

    /// A certificate and key for a controller.
    ///
    /// # Errors
    /// If the kernel has no random bytes.
    pub fn server(&self, now: SystemTime, lifetime: Duration) -> Result<Server, Unusable> {
        let fail = |error| Unusable::because("no certificate can be made", error);
        let key = KeyPair::generate().map_err(fail)?;
        let mut params = params(now, lifetime)?;
        params.distinguished_name.push(DnType::OrganizationName, "Penstock controller");
        params.subject_alt_names.push(SanType::DnsName(CONTROLLER.try_into().map_err(fail)?));
        let certificate = self.sign(params, &key, ExtendedKeyUsagePurpose::ServerAuth)?;
        Ok(Server {
            chain: vec![certificate.der().clone(), self.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<rcgen::Certificate, Unusable> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        params
            .signed_by(key, &self.issuer)
            .map_err(|error| Unusable::because("no certificate can be made", error))
    }
}

/// What all certificates have.
fn params(now: SystemTime, lifetime: Duration) -> Result<CertificateParams, Unusable> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + lifetime).into();
    let mut serial = random::<16>()?;
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and of one length
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    Ok(params)
}

/// A new key, and a request for a certificate for it, both in PEM.
///
/// # Errors
/// If the kernel has no random bytes.
pub fn new_request() -> Result<(KeyPair, String), Unusable> {
    let fail = |error| Unusable::because("no key can be made", error);
    let key = KeyPair::generate().map_err(fail)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(fail)?.pem().map_err(fail)?;
    Ok((key, request))
}

#[cfg(test)]
mod tests {
    use super::super::identity::Card;
    use super::*;

    #[test]
    fn a_certificate_says_whose_it_is_and_for_how_long() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let kept = Kept::make(now).unwrap();
        let authority = Authority::open(&kept).unwrap();
        let identity = Identity::new("edge-1", "uid-1").unwrap();
        let (_, request) = new_request().unwrap();
        let lifetime = Duration::from_secs(10 * 3600);
        let pem = authority.certify(&request, &identity, now, lifetime).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let card = Card::of(&der).unwrap();
        assert_eq!(card.identity, identity);
        assert_eq!((card.from, card.until), (now - SKEW, now + lifetime));
        assert_eq!(card.renew_at(), now + Duration::from_secs(6 * 3600), "six tenths of 10 h");
        assert_eq!(card.serial.len(), 32);
        let again = authority.certify(&request, &identity, now, lifetime).unwrap();
        assert_ne!(again, pem, "serials differ");
        assert!(Card::of(authority.certificate()).is_err(), "an authority is no box");
    }

    #[test]
    fn what_is_no_request_gets_no_certificate() {
        let now = SystemTime::now();
        let authority = Authority::open(&Kept::make(now).unwrap()).unwrap();
        let identity = Identity::new("edge-1", "uid-1").unwrap();
        let (_, good) = new_request().unwrap();
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let other = CertificateParams::default().serialize_request(&other).unwrap().pem().unwrap();
        // A signature by another key than the request's: its last bytes are changed.
        let middle = good.len() - 50;
        let changed = |c: char| if c == 'A' { 'B' } else { 'A' };
        let forged: String = good
            .char_indices()
            .map(|(at, c)| if at == middle && c != '\n' { changed(c) } else { c })
            .collect();
        for (promise, request) in [
            ("nothing", String::new()),
            ("text", "-----BEGIN".to_owned()),
            ("a certificate", authority.pem().to_owned()),
            ("a key of another kind", other),
            ("a forged request", forged),
            ("a long one", "a".repeat(MOST_REQUEST_BYTES + 1)),
        ] {
            let issued = authority.certify(&request, &identity, now, SKEW);
            assert!(issued.is_err(), "{promise}: {issued:?}");
        }
    }

    #[test]
    fn an_authority_that_is_none_is_refused() {
        let kept = Kept::make(SystemTime::now()).unwrap();
        for broken in [
            Kept { key: String::new().into(), ..kept.clone() },
            Kept { certificate: "x".into(), ..kept.clone() },
            Kept { token_key: "*".to_owned().into(), ..kept.clone() },
        ] {
            assert!(Authority::open(&broken).is_err());
        }
        assert!(!format!("{:?}", Authority::open(&kept).unwrap()).contains("KEY"));
    }
}
