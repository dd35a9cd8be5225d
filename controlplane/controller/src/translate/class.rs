//! GatewayClass: which Gateways are ours.

use std::collections::BTreeMap;

use penstock_gateway_types::GatewayClass;

use super::verdict::{Refusal, Verdict};
use crate::object::Objects;

/// The controller that we are.
pub const CONTROLLER_NAME: &str = "penstock.dev/gateway-controller";

/// The features of the conformance suite that we claim, sorted as the API wants them.
pub const SUPPORTED_FEATURES: &[&str] = &["Gateway", "ReferenceGrant", "TCPRoute", "UDPRoute"];

/// The classes that name us, each accepted or refused. Others are left untouched.
pub(super) fn ours(objects: &Objects) -> BTreeMap<&str, Result<(), Refusal>> {
    let ours = objects.gateway_classes.iter();
    let ours = ours.filter(|(_, class)| class.spec.controller_name == CONTROLLER_NAME);
    ours.map(|(name, class)| (name.as_str(), accept(class))).collect()
}

fn accept(class: &GatewayClass) -> Result<(), Refusal> {
    match &class.spec.parameters_ref {
        None => Ok(()),
        Some(parameters) => {
            let message = format!(
                "parametersRef {} {}: no kind of parameters is known, remove it",
                parameters.kind, parameters.name
            );
            Err(Refusal::new("InvalidParameters", message))
        }
    }
}

/// The conditions of a class of ours.
pub(super) fn conditions(accepted: &Result<(), Refusal>) -> Vec<Verdict> {
    let accepted = match accepted {
        Ok(()) => Verdict::holds("Accepted", "Accepted", "Gateways of this class are served"),
        Err(refusal) => Verdict::fails("Accepted", refusal.clone()),
    };
    let message = "objects are read as Gateway API v1.6 has them";
    vec![accepted, Verdict::holds("SupportedVersion", "SupportedVersion", message)]
}
