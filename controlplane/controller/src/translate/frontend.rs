//! How a Gateway validates its clients (`tls.frontend`), and how it presents itself to backends (`tls.backend`).

use std::sync::Arc;

use penstock_gateway_types::Gateway;
use penstock_gateway_types::gateway::{FrontendTlsConfig, FrontendTlsValidation};
use penstock_gateway_types::value::FrontendValidationMode;

use super::certificate::{Certificates, Referrer};
use super::l7::Clients;
use super::verdict::{Refusal, Verdict};
use crate::object::{Kind, NamespacedName};

/// What a Gateway says of its clients, for the listeners on each of its ports.
pub(super) struct Frontend<'a> {
    config: Option<&'a FrontendTlsConfig>,
    gateway: Referrer<'a>,
}

impl<'a> Frontend<'a> {
    pub(super) fn of(name: &'a NamespacedName, gateway: &'a Gateway) -> Self {
        let config = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
        let gateway = Referrer { kind: Kind::Gateway, namespace: &name.namespace };
        Self { config, gateway }
    }

    /// How the clients of a listener that ends TLS on `port` are validated, and what is wrong with single
    /// references.
    ///
    /// The error is the listener's `Accepted`: no authority is usable, or the mode is not known.
    pub(super) fn clients(
        &self,
        port: i32,
        certificates: Certificates<'_>,
    ) -> (Result<Option<Clients>, Refusal>, Vec<Refusal>) {
        let Some(validation) = self.validation(port) else { return (Ok(None), Vec::new()) };
        let insecure_fallback = match &validation.mode {
            None | Some(FrontendValidationMode::AllowValidOnly) => false,
            Some(FrontendValidationMode::AllowInsecureFallback) => true,
            Some(FrontendValidationMode::Unknown(other)) => {
                let message = format!("tls.frontend: mode {other:?} is not known");
                return (Err(Refusal::new("UnsupportedValue", message)), Vec::new());
            }
        };
        let (mut authorities, mut faults): (Vec<Arc<[u8]>>, _) = (Vec::new(), Vec::new());
        for reference in &validation.ca_certificate_refs {
            let (kind, invalid) = ("InvalidCACertificateKind", "InvalidCACertificateRef");
            match certificates.authorities(self.gateway, reference, kind, invalid) {
                Ok(pem) => authorities.push(pem),
                Err(Refusal { reason, message }) => {
                    let message = format!("tls.frontend: caCertificateRefs: {message}");
                    faults.push(Refusal { reason, message });
                }
            }
        }
        if authorities.is_empty() {
            let all: Vec<_> = faults.iter().map(|fault| fault.message.as_str()).collect();
            let message = format!("no client can be validated: {}", all.join("; "));
            return (Err(Refusal::new("NoValidCACertificate", message)), faults);
        }
        (Ok(Some(Clients { authorities, insecure_fallback })), faults)
    }

    fn validation(&self, port: i32) -> Option<&'a FrontendTlsValidation> {
        let config = self.config?;
        let own = config.per_port.iter().find(|entry| entry.port == port).map(|entry| &entry.tls);
        own.unwrap_or(&config.default).validation.as_ref()
    }

    /// `InsecureFrontendValidationMode`, while some port lets in whoever has no valid certificate.
    pub(super) fn insecure(&self) -> Option<Verdict> {
        let config = self.config?;
        let all = config.per_port.iter().map(|entry| &entry.tls).chain([&config.default]);
        let fallback = Some(FrontendValidationMode::AllowInsecureFallback);
        let insecure = |validation: &FrontendTlsValidation| validation.mode == fallback;
        let message =
            "tls.frontend lets in clients without a valid certificate: AllowInsecureFallback";
        let verdict =
            || Verdict::holds("InsecureFrontendValidationMode", "ConfigurationChanged", message);
        all.filter_map(|tls| tls.validation.as_ref()).any(insecure).then(verdict)
    }
}

/// `ResolvedRefs` of a Gateway that has a certificate for backends.
pub(super) fn backend(
    name: &NamespacedName,
    gateway: &Gateway,
    certificates: Certificates<'_>,
) -> Option<Verdict> {
    let backend = gateway.spec.tls.as_ref()?.backend.as_ref()?;
    let reference = backend.client_certificate_ref.as_ref()?;
    let from = Referrer { kind: Kind::Gateway, namespace: &name.namespace };
    let found = certificates.certificate(from, reference, "InvalidClientCertificateRef");
    Some(match found {
        Ok(_) => Verdict::holds("ResolvedRefs", "ResolvedRefs", "all references are resolved"),
        Err(Refusal { reason, message }) => {
            let message = format!("tls.backend.clientCertificateRef: {message}");
            Verdict::fails("ResolvedRefs", Refusal { reason, message })
        }
    })
}
