//! Certificates, their keys and authorities: what listeners refer to, checked as the L7 tier will use it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_gateway_types::reference::{ObjectReference, SecretObjectReference};
use penstock_gateway_types::{ConfigMap, Secret};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::grant;
use super::l7::Certificate;
use super::look::View;
use super::verdict::Refusal;
use crate::object::{Kind, NamespacedName};

/// The one type of Secret that holds a certificate.
const SECRET_TYPE: &str = "kubernetes.io/tls";
/// The key of a ConfigMap under which authorities are.
const AUTHORITIES: &str = "ca.crt";

/// Who refers: an object of a kind, in a namespace.
#[derive(Clone, Copy)]
pub(super) struct Referrer<'a> {
    pub(super) kind: Kind,
    pub(super) namespace: &'a str,
}

/// What was read of objects, by name.
type Read<T> = RefCell<BTreeMap<NamespacedName, Result<Arc<T>, String>>>;

/// What was read of Secrets and ConfigMaps. Each is parsed once, whoever names it, until it changes.
pub(super) struct Parsed {
    provider: CryptoProvider,
    certificates: Read<Certificate>,
    authorities: Read<[u8]>,
}

impl Default for Parsed {
    fn default() -> Self {
        let (certificates, authorities) = (Read::default(), Read::default());
        Self { provider: ring::default_provider(), certificates, authorities }
    }
}

impl Parsed {
    /// Forgets a Secret that changed.
    pub(super) fn forget_secret(&self, name: &NamespacedName) {
        self.certificates.borrow_mut().remove(name);
    }

    /// Forgets a ConfigMap that changed.
    pub(super) fn forget_config_map(&self, name: &NamespacedName) {
        self.authorities.borrow_mut().remove(name);
    }
}

/// Certificates by reference.
#[derive(Clone, Copy)]
pub(super) struct Certificates<'a> {
    view: View<'a>,
    parsed: &'a Parsed,
}

impl<'a> Certificates<'a> {
    pub(super) fn of(view: View<'a>, parsed: &'a Parsed) -> Self {
        Self { view, parsed }
    }

    /// The certificate that `from` refers to.
    ///
    /// # Errors
    /// `RefNotPermitted`, or `invalid` as the reason for everything else that is wrong with it.
    pub(super) fn certificate(
        &self,
        from: Referrer<'_>,
        reference: &SecretObjectReference,
        invalid: &'static str,
    ) -> Result<Arc<Certificate>, Refusal> {
        let (group, kind) = (reference.group.as_deref(), reference.kind.as_deref());
        if !matches!((group, kind), (None | Some(""), None | Some("Secret"))) {
            let (group, kind) = (group.unwrap_or_default(), kind.unwrap_or("Secret"));
            let message = format!(
                "group {group:?} kind {kind:?} holds no certificate we know: name a Secret"
            );
            return Err(Refusal::new(invalid, message));
        }
        let namespace = reference.namespace.as_deref().unwrap_or(from.namespace);
        let name = NamespacedName::new(namespace, &reference.name);
        self.permitted(from, Kind::Secret, &name)?;
        let secret = self.view.secret(&name);
        let read = || match secret {
            Some(secret) => read_certificate(secret, &self.parsed.provider).map(Arc::new),
            None => Err("it does not exist".to_owned()),
        };
        let mut known = self.parsed.certificates.borrow_mut();
        let found = known.entry(name.clone()).or_insert_with(read).clone();
        found.map_err(|fault| Refusal::new(invalid, format!("Secret {name}: {fault}")))
    }

    /// The certificate authorities that `from` refers to, in PEM.
    ///
    /// # Errors
    /// `RefNotPermitted`, `kind` as the reason for a kind that holds none, `invalid` for everything else.
    pub(super) fn authorities(
        &self,
        from: Referrer<'_>,
        reference: &ObjectReference,
        kind: &'static str,
        invalid: &'static str,
    ) -> Result<Arc<[u8]>, Refusal> {
        if (reference.group.as_str(), reference.kind.as_str()) != ("", "ConfigMap") {
            let message = format!(
                "group {:?} kind {:?} holds no certificate authority we know: name a ConfigMap",
                reference.group, reference.kind
            );
            return Err(Refusal::new(kind, message));
        }
        let namespace = reference.namespace.as_deref().unwrap_or(from.namespace);
        let name = NamespacedName::new(namespace, &reference.name);
        self.permitted(from, Kind::ConfigMap, &name)?;
        let map = self.view.config_map(&name);
        let read = || match map {
            Some(map) => read_authorities(map),
            None => Err("it does not exist".to_owned()),
        };
        let mut known = self.parsed.authorities.borrow_mut();
        let found = known.entry(name.clone()).or_insert_with(read).clone();
        found.map_err(|fault| Refusal::new(invalid, format!("ConfigMap {name}: {fault}")))
    }

    fn permitted(
        &self,
        from: Referrer<'_>,
        to: Kind,
        name: &NamespacedName,
    ) -> Result<(), Refusal> {
        if self.view.allows(from.kind, from.namespace, to, name) {
            return Ok(());
        }
        let message = grant::missing(from.kind, from.namespace, to, name);
        Err(Refusal::new("RefNotPermitted", message))
    }
}

fn read_certificate(secret: &Secret, provider: &CryptoProvider) -> Result<Certificate, String> {
    let type_ = secret.type_.as_deref().unwrap_or("Opaque");
    if type_ != SECRET_TYPE {
        return Err(format!("its type is {type_}: it must be {SECRET_TYPE}"));
    }
    let (chain, key) = (data(secret, "tls.crt")?, data(secret, "tls.key")?);
    let certificates = certificates("tls.crt", &chain)?;
    let no_key = "tls.key is no private key in PEM";
    let parsed = PrivateKeyDer::from_pem_slice(&key).map_err(|_| no_key.to_owned())?;
    // rustls' words tell what is wrong, never what is in it.
    CertifiedKey::from_der(certificates, parsed, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            "tls.key is not the key of the first certificate in tls.crt".to_owned()
        }
        error => format!("tls.crt and tls.key cannot be used: {error}"),
    })?;
    Ok(Certificate { chain, key })
}

/// What a Secret holds under `key`: as an API server has it, or as a file may write it.
fn data(secret: &Secret, key: &str) -> Result<Vec<u8>, String> {
    let encoded = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
    let plain = || Some(secret.string_data.as_ref()?.get(key)?.clone().into_bytes());
    encoded.or_else(plain).ok_or_else(|| format!("it has no {key}"))
}

fn certificates(key: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|error| format!("{key} is no PEM: {error:?}"))?;
    match certificates.is_empty() {
        true => Err(format!("{key} holds no certificate in PEM")),
        false => Ok(certificates),
    }
}

fn read_authorities(map: &ConfigMap) -> Result<Arc<[u8]>, String> {
    let plain = map.data.as_ref().and_then(|data| data.get(AUTHORITIES)).map(String::as_bytes);
    let binary = || Some(map.binary_data.as_ref()?.get(AUTHORITIES)?.0.as_slice());
    let pem = plain.or_else(binary).ok_or_else(|| format!("it has no {AUTHORITIES}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(AUTHORITIES, pem)? {
        let added = roots.add(certificate);
        added.map_err(|error| {
            format!("{AUTHORITIES} holds what is no certificate authority: {error}")
        })?;
    }
    Ok(pem.into())
}
