//! GatewayClass: which Gateways are ours.

use penstock_gateway_types::GatewayClass;

use super::look::View;
use super::parameters::{self, Parameters};
use super::verdict::{Refusal, Verdict};

/// The controller that we are.
pub const CONTROLLER_NAME: &str = "penstock.dev/gateway-controller";

/// The features of the conformance suite that we claim, sorted as the API wants them: those that are true of this
/// version. `GatewayInfrastructurePropagation` is [`crate::infrastructure`]'s, and true of a cluster only: a folder has
/// nothing to propagate to.
pub const SUPPORTED_FEATURES: &[&str] = &[
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayInfrastructurePropagation",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "UDPRoute",
];

/// The version of the API that our types have; a patch changes no field.
const VERSION: &str = "v1.6";

/// Whether we serve a class that names us, and what is usual for its Gateways; `None` for others, which are left untouched.
pub(super) fn ours(class: &GatewayClass, view: View<'_>) -> Option<Result<Parameters, Refusal>> {
    let is_ours = class.spec.controller_name == CONTROLLER_NAME;
    is_ours.then(|| parameters::of_class(class, view))
}

/// The conditions of a class of ours, where the CRDs are of `installed`.
pub(super) fn conditions(
    accepted: &Result<Parameters, Refusal>,
    installed: Option<&str>,
) -> Vec<Verdict> {
    let accepted = match accepted {
        Ok(_) => Verdict::holds("Accepted", "Accepted", "Gateways of this class are served"),
        Err(refusal) => Verdict::fails("Accepted", refusal.clone()),
    };
    vec![accepted, supported_version(installed)]
}

/// `SupportedVersion`. With CRDs of another version Gateways are served all the same, as far as their fields are
/// known.
fn supported_version(installed: Option<&str>) -> Verdict {
    let is_ours = |installed: &str| {
        installed.strip_prefix(VERSION).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    match installed {
        Some(installed) if !is_ours(installed) => {
            let message = format!(
                "the CRDs are of {installed}, and objects are read as Gateway API {VERSION} has them: install \
                 that version"
            );
            Verdict::fails("SupportedVersion", Refusal::new("UnsupportedVersion", message))
        }
        _ => {
            let message = format!("objects are read as Gateway API {VERSION} has them");
            Verdict::holds("SupportedVersion", "SupportedVersion", message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_of_our_version_is_our_version() {
        for (installed, expected) in [
            (None, "SupportedVersion"),
            (Some("v1.6.0"), "SupportedVersion"),
            (Some("v1.6.1-rc.1"), "SupportedVersion"),
            (Some("v1.6"), "SupportedVersion"),
            (Some("v1.60.0"), "UnsupportedVersion"),
            (Some("v1.5.1"), "UnsupportedVersion"),
            (Some("v1.7.0-dev"), "UnsupportedVersion"),
            (Some("monthly-2026.06"), "UnsupportedVersion"),
            (Some(""), "UnsupportedVersion"),
        ] {
            assert_eq!(supported_version(installed).reason, expected, "{installed:?}");
        }
    }

    #[test]
    fn features_are_sorted_and_few_enough() {
        assert!(SUPPORTED_FEATURES.is_sorted() && SUPPORTED_FEATURES.len() <= 64);
    }
}
