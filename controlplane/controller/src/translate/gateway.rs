//! One Gateway: whether it is ours and well-formed, and what it asks for.

use std::sync::Arc;

use penstock_gateway_types::{Gateway, Time};

use super::address::{self, Asked, Given};
use super::certificate::Certificates;
use super::conflict;
use super::frontend::{self, Frontend};
use super::listener::{Owner, Plan as ListenerPlan, Spec};
use super::look::View;
use super::parameters::{self, Parameters};
use super::settings::Settings;
use super::verdict::{Refusal, Verdict};
use crate::object::{Kind, NamespacedName};

/// A Gateway of ours, judged by itself.
pub(super) struct Plan {
    pub(super) name: NamespacedName,
    pub(super) age: Age,
    pub(super) gateway: Arc<Gateway>,
    /// What it asks for; an error is its `Accepted` condition, and then it serves nothing.
    pub(super) accepted: Result<Accepted, Refusal>,
    /// What its listeners and those of its ListenerSets do, unless a policy says more.
    pub(super) usual: Settings,
    /// What of that it has.
    pub(super) given: Given,
    pub(super) listeners: Vec<ListenerPlan>,
    /// The conditions that only some Gateways have.
    pub(super) conditions: Vec<Verdict>,
}

/// What an accepted Gateway asks for.
pub(super) struct Accepted {
    pub(super) parameters: Parameters,
    pub(super) asked: Vec<Asked>,
}

/// What decides who is older: creation, then name. Objects without a creation time come last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    is_unknown: bool,
    created: Option<Time>,
    pub(super) name: NamespacedName,
}

impl Age {
    /// The age of an object created at `created`.
    pub(super) fn of(created: Option<&Time>, name: &NamespacedName) -> Self {
        Self { is_unknown: created.is_none(), created: created.cloned(), name: name.clone() }
    }
}

impl Plan {
    pub(super) fn of(
        name: &NamespacedName,
        gateway: &Arc<Gateway>,
        class: Result<Parameters, Refusal>,
        view: View<'_>,
        certificates: Certificates<'_>,
    ) -> Self {
        let frontend = Frontend::of(name, gateway);
        let owner = Arc::new(Owner { kind: Kind::Gateway, name: name.clone() });
        let specs = (0..gateway.spec.listeners.len())
            .map(|index| Spec::OfGateway(Arc::clone(gateway), index));
        let mut listeners: Vec<_> =
            specs.map(|spec| ListenerPlan::of(spec, &owner, &frontend, certificates)).collect();
        conflict::mark_own(&mut listeners);
        let accepted = class.and_then(|class| accept(name, gateway, &class, view));
        let usual = accepted.as_ref().map(|it| it.parameters.listener.clone()).unwrap_or_default();
        let usual = view.settings(&owner, None).or(usual);
        for listener in &mut listeners {
            let own = view.settings(&owner, Some(&listener.spec.name));
            listener.settle(own.or(usual.clone()));
        }
        let resolved = frontend::backend(name, gateway, certificates);
        let conditions = resolved.into_iter().chain(frontend.insecure()).collect();
        let age = Age::of(gateway.metadata.creation_timestamp.as_ref(), name);
        let (name, gateway, given) = (name.clone(), Arc::clone(gateway), Given::default());
        Self { name, age, gateway, accepted, usual, given, listeners, conditions }
    }

    /// What it asks for, if it is accepted.
    pub(super) fn accepted(&self) -> Option<&Accepted> {
        self.accepted.as_ref().ok()
    }
}

fn accept(
    name: &NamespacedName,
    gateway: &Gateway,
    class: &Parameters,
    view: View<'_>,
) -> Result<Accepted, Refusal> {
    let parameters = parameters::of_gateway(name, gateway, class, view)?;
    let asked = address::asked(gateway)?;
    Ok(Accepted { parameters, asked })
}
