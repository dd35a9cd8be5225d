//! GatewayParameters: what Gateways do unless a policy says otherwise, by their class or by themselves.

use std::sync::Arc;

use penstock_gateway_types::gateway_parameters::ParametersInfrastructure;
use penstock_gateway_types::{Gateway, GatewayClass, OWN_GROUP};

use super::l4_policy;
use super::look::View;
use super::settings::Settings;
use super::verdict::Refusal;
use crate::health::Check;
use crate::object::{Kind, NamespacedName};

/// What a Gateway's parameters come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parameters {
    pub(super) listener: Settings,
    pub(super) check: Option<Arc<Check>>,
    /// The pools to take addresses from, in this order; any if none.
    pub(super) pools: Vec<String>,
    pub(super) sharing: Option<SharingKey>,
    pub(super) infrastructure: ParametersInfrastructure,
}

/// Gateways that say the same share addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SharingKey {
    /// Of Gateways that say it themselves. A class says it for those of every namespace.
    namespace: Option<String>,
    key: String,
}

/// What a class says of its Gateways.
///
/// # Errors
/// `InvalidParameters`, for its `Accepted`.
pub(super) fn of_class(class: &GatewayClass, view: View<'_>) -> Result<Parameters, Refusal> {
    let Some(reference) = &class.spec.parameters_ref else { return Ok(Parameters::default()) };
    let path = "parametersRef";
    let Some(namespace) = &reference.namespace else {
        let message = format!("{path}: {} lives in a namespace: name it", Kind::GatewayParameters);
        known(path, &reference.group, &reference.kind, &reference.name)?;
        return Err(Refusal::new("InvalidParameters", message));
    };
    let name = NamespacedName::new(namespace, &reference.name);
    let mut parameters = find(path, &reference.group, &reference.kind, &name, view)?;
    if let Some(sharing) = &mut parameters.sharing {
        sharing.namespace = None;
    }
    Ok(parameters)
}

/// What a Gateway says, and where it says nothing, its class.
///
/// # Errors
/// `InvalidParameters`, for its `Accepted`.
pub(super) fn of_gateway(
    name: &NamespacedName,
    gateway: &Gateway,
    class: &Parameters,
    view: View<'_>,
) -> Result<Parameters, Refusal> {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let Some(reference) = infrastructure.and_then(|i| i.parameters_ref.as_ref()) else {
        return Ok(class.clone());
    };
    let own = NamespacedName::new(&name.namespace, &reference.name);
    let path = "infrastructure.parametersRef";
    let own = find(path, &reference.group, &reference.kind, &own, view)?;
    Ok(own.or(class))
}

impl Parameters {
    /// These, and where they say nothing, what `class` says.
    fn or(mut self, class: &Self) -> Self {
        let others = class.infrastructure.clone();
        let own = std::mem::replace(&mut self.infrastructure, others);
        self.infrastructure.labels.extend(own.labels);
        self.infrastructure.annotations.extend(own.annotations);
        Self {
            listener: self.listener.or(class.listener.clone()),
            check: self.check.or_else(|| class.check.clone()),
            pools: if self.pools.is_empty() { class.pools.clone() } else { self.pools },
            sharing: self.sharing.or_else(|| class.sharing.clone()),
            infrastructure: self.infrastructure,
        }
    }
}

fn known(path: &str, group: &str, kind: &str, name: &str) -> Result<(), Refusal> {
    let ours = Kind::GatewayParameters;
    if (group, kind) == (OWN_GROUP, ours.as_str()) {
        return Ok(());
    }
    let message = format!(
        "{path} {kind} {name}: group {group:?} kind {kind:?} holds no parameters of ours: name a {ours} of \
         group {OWN_GROUP}"
    );
    Err(Refusal::new("InvalidParameters", message))
}

fn find(
    path: &str,
    group: &str,
    kind: &str,
    name: &NamespacedName,
    view: View<'_>,
) -> Result<Parameters, Refusal> {
    known(path, group, kind, &name.name)?;
    let invalid = |message| Refusal::new("InvalidParameters", message);
    let parameters = view.parameters(name);
    let parameters = parameters
        .ok_or_else(|| invalid(format!("{path}: GatewayParameters {name} does not exist")))?;
    let named = |refusal: Refusal| {
        invalid(format!("{path}: GatewayParameters {name}: {}", refusal.message))
    };
    let spec = &parameters.spec;
    let listener = spec.listener.as_ref().map(|policy| Settings::read("spec.listener", policy));
    let sharing = spec.address_sharing_key.clone();
    let namespace = Some(name.namespace.clone());
    let check = spec.backend.as_ref().map(|policy| l4_policy::check("spec.backend", policy));
    Ok(Parameters {
        listener: listener.transpose().map_err(named)?.unwrap_or_default(),
        check: check.transpose().map_err(named)?.flatten(),
        pools: spec.address_pools.clone(),
        sharing: sharing.map(|key| SharingKey { namespace, key }),
        infrastructure: spec.infrastructure.clone().unwrap_or_default(),
    })
}
