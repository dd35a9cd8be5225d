//! The conditions of a Gateway and its listeners.

use super::claim::Claims;
use super::gateway::Plan as GatewayPlan;
use super::listener::Plan as ListenerPlan;
use super::verdict::{Refusal, Truth, Verdict};
use super::{GatewayVerdict, ListenerVerdict, Serving};
use crate::object::NamespacedName;

/// Answers one Gateway.
pub(super) fn gateway(plan: &GatewayPlan<'_>, claims: &Claims) -> (NamespacedName, GatewayVerdict) {
    let served = claims.get(plan.name).map(Vec::as_slice).unwrap_or_default();
    let listeners: Vec<_> = plan
        .listeners
        .iter()
        .enumerate()
        .map(|(index, listener)| {
            answer(plan, listener, served.get(index).cloned().unwrap_or_default())
        })
        .collect();
    let accepted = accepted(plan, &listeners);
    let obstacle = obstacle(plan, &accepted);
    (plan.name.clone(), GatewayVerdict { accepted, obstacle, listeners })
}

fn accepted(plan: &GatewayPlan<'_>, listeners: &[ListenerVerdict]) -> Verdict {
    if let Err(refusal) = &plan.accepted {
        return Verdict::fails("Accepted", refusal.clone());
    }
    let faults: Vec<_> = listeners.iter().filter_map(fault).collect();
    let message = faults.join("; ");
    match faults.len() {
        0 => Verdict::holds("Accepted", "Accepted", "the Gateway is accepted"),
        all if all == listeners.len() => {
            Verdict::fails("Accepted", Refusal::new("ListenersNotValid", message))
        }
        _ => Verdict::holds("Accepted", "ListenersNotValid", message),
    }
}

/// Why a listener is not accepted, under its name.
fn fault(listener: &ListenerVerdict) -> Option<String> {
    let accepted = listener.conditions.iter().find(|condition| condition.type_ == "Accepted")?;
    (accepted.status != Truth::True)
        .then(|| format!("listener {}: {}", listener.name, accepted.message))
}

/// Why a Gateway cannot be programmed, whatever the data plane acknowledges.
fn obstacle(plan: &GatewayPlan<'_>, accepted: &Verdict) -> Option<Refusal> {
    if accepted.status != Truth::True {
        return Some(Refusal::new("Invalid", format!("not accepted: {}", accepted.message)));
    }
    let addresses = plan.accepted.as_ref().ok()?;
    if !addresses.unusable.is_empty() {
        return Some(Refusal::new("AddressNotUsable", addresses.unusable.join("; ")));
    }
    let message = "spec.addresses holds no address, and there are no pools to take one from: write one of \
                   type IPAddress";
    addresses.addresses.is_empty().then(|| Refusal::new("AddressNotAssigned", message))
}

fn answer(
    gateway: &GatewayPlan<'_>,
    listener: &ListenerPlan<'_>,
    serving: Serving,
) -> ListenerVerdict {
    let refusal = refusal(listener, &serving);
    let accepted = match &refusal {
        None => Verdict::holds("Accepted", "Accepted", "the listener is accepted"),
        Some(refusal) => Verdict::fails("Accepted", refusal.clone()),
    };
    let references = match &listener.references {
        Ok(()) => Verdict::holds("ResolvedRefs", "ResolvedRefs", "all references are resolved"),
        Err(refusal) => Verdict::fails("ResolvedRefs", refusal.clone()),
    };
    let conflicted = match &listener.conflict {
        Some(message) => Verdict::holds("Conflicted", "ProtocolConflict", message.clone()),
        None => Verdict::fails(
            "Conflicted",
            Refusal::new("NoConflicts", "no other listener of the Gateway wants its port"),
        ),
    };
    ListenerVerdict {
        name: listener.spec.name.clone(),
        supported_kinds: listener.supported_kinds(),
        attached_routes: i32::try_from(listener.routes.len()).unwrap_or(i32::MAX),
        conditions: vec![accepted, references, conflicted],
        serving: with_reasons(gateway, refusal, serving),
    }
}

/// Why a listener is not accepted.
fn refusal(listener: &ListenerPlan<'_>, serving: &Serving) -> Option<Refusal> {
    if let Err(refusal) = &listener.serves {
        return Some(refusal.clone());
    }
    if let Some(conflict) = &listener.conflict {
        return Some(Refusal::new("ProtocolConflict", conflict.clone()));
    }
    let nowhere = serving.places.is_empty() && !serving.obstacles.is_empty();
    nowhere.then(|| Refusal::new("PortUnavailable", serving.obstacles.join("; ")))
}

/// Adds to `serving` why it has no place, if nothing did so yet.
fn with_reasons(
    gateway: &GatewayPlan<'_>,
    refusal: Option<Refusal>,
    mut serving: Serving,
) -> Serving {
    if serving.places.is_empty() && serving.obstacles.is_empty() {
        serving.obstacles.push(match (&gateway.accepted, refusal) {
            (_, Some(refusal)) => format!("not accepted: {}", refusal.message),
            (Err(refusal), None) => format!("the Gateway is not accepted: {}", refusal.message),
            (Ok(_), None) => "the Gateway has no usable address".to_owned(),
        });
    }
    serving
}
