//! The conditions of a Gateway, of a ListenerSet, and of their listeners.

use super::gateway::Plan as GatewayPlan;
use super::listener::Plan as ListenerPlan;
use super::listener_set::Plan as SetPlan;
use super::verdict::{Refusal, Truth, Verdict};
use super::{GatewayVerdict, ListenerSetVerdict, ListenerVerdict, Serving};
use crate::object::Kind;

/// What the listeners of a Gateway or a ListenerSet came to, in the order of its spec.
pub(super) struct Outcome {
    /// What each has.
    pub(super) serving: Vec<Serving>,
    /// How many routes each has.
    pub(super) attached: Vec<usize>,
}

/// Answers one Gateway. `sets` is how many ListenerSets are attached to it and accepted.
pub(super) fn gateway(plan: &GatewayPlan, sets: usize, outcome: Outcome) -> GatewayVerdict {
    let listeners = listeners(plan, &plan.listeners, outcome);
    let accepted = accepted(plan, &listeners);
    let obstacle = obstacle(plan, &accepted, &listeners);
    let conditions = plan.conditions.clone();
    let attached_listener_sets = i32::try_from(sets).unwrap_or(i32::MAX);
    GatewayVerdict { accepted, obstacle, conditions, attached_listener_sets, listeners }
}

/// Answers one ListenerSet of `gateway`.
pub(super) fn listener_set(
    plan: &SetPlan,
    gateway: &GatewayPlan,
    outcome: Outcome,
) -> ListenerSetVerdict {
    let listeners = listeners(gateway, &plan.listeners, outcome);
    let accepted = set_accepted(plan, &listeners);
    let obstacle = match accepted.status {
        Truth::True => obstacle_of_addresses(gateway)
            .map(|refusal| Refusal::new("ParentNotProgrammed", refusal.message)),
        _ => Some(Refusal::new(accepted.reason, accepted.message.clone())),
    };
    ListenerSetVerdict { accepted, obstacle, listeners }
}

/// A set is accepted if one of its listeners can be served.
fn set_accepted(plan: &SetPlan, listeners: &[ListenerVerdict]) -> Verdict {
    if let Err(refusal) = &plan.allowed {
        return Verdict::fails("Accepted", refusal.clone());
    }
    let blocked = |(plan, listener): (&ListenerPlan, &ListenerVerdict)| {
        let blocked = plan.blocked.as_ref();
        fault(listener).or_else(|| Some(format!("listener {}: {}", listener.name, blocked?)))
    };
    let faults: Vec<_> = plan.listeners.iter().zip(listeners).filter_map(blocked).collect();
    verdict(&faults, listeners.len(), "the ListenerSet is accepted")
}

fn listeners(
    gateway: &GatewayPlan,
    plans: &[ListenerPlan],
    outcome: Outcome,
) -> Vec<ListenerVerdict> {
    let mut serving = outcome.serving.into_iter();
    let mut attached = outcome.attached.into_iter();
    let mut next = || (serving.next().unwrap_or_default(), attached.next().unwrap_or_default());
    plans.iter().map(|listener| answer(gateway, listener, next())).collect()
}

fn accepted(plan: &GatewayPlan, listeners: &[ListenerVerdict]) -> Verdict {
    if let Err(refusal) = &plan.accepted {
        return Verdict::fails("Accepted", refusal.clone());
    }
    let faults: Vec<_> = listeners.iter().filter_map(fault).collect();
    verdict(&faults, listeners.len(), "the Gateway is accepted")
}

/// `Accepted` of what has `all` listeners, of which some have a fault.
fn verdict(faults: &[String], all: usize, accepted: &str) -> Verdict {
    let message = faults.join("; ");
    match faults.len() {
        0 => Verdict::holds("Accepted", "Accepted", accepted),
        faulty if faulty == all => {
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
fn obstacle(
    plan: &GatewayPlan,
    accepted: &Verdict,
    listeners: &[ListenerVerdict],
) -> Option<Refusal> {
    if accepted.status != Truth::True {
        return Some(Refusal::new("Invalid", format!("not accepted: {}", accepted.message)));
    }
    if let Some(refusal) = obstacle_of_addresses(plan) {
        return Some(refusal);
    }
    let serves = |listener: &ListenerVerdict| !listener.serving.is_nowhere();
    if listeners.iter().any(serves) {
        return None;
    }
    let all = listeners.iter().flat_map(|listener| &listener.serving.obstacles);
    let all: Vec<_> = all.map(String::as_str).collect();
    Some(Refusal::new("Invalid", format!("no listener can be served: {}", all.join("; "))))
}

fn obstacle_of_addresses(plan: &GatewayPlan) -> Option<Refusal> {
    plan.accepted()?;
    if !plan.given.unusable.is_empty() {
        return Some(Refusal::new("AddressNotUsable", plan.given.unusable.join("; ")));
    }
    let unassigned = plan.given.unassigned.as_ref()?;
    Some(Refusal::new("AddressNotAssigned", unassigned.clone()))
}

fn answer(
    gateway: &GatewayPlan,
    listener: &ListenerPlan,
    (serving, attached): (Serving, usize),
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
        Some(conflict) => Verdict::holds("Conflicted", conflict.reason, conflict.message.clone()),
        None => Verdict::fails(
            "Conflicted",
            Refusal::new("NoConflicts", "no other listener of the Gateway wants its port"),
        ),
    };
    let mut conditions = vec![accepted, references, conflicted];
    if let Some(message) = &listener.overlap {
        let (type_, reason) = ("OverlappingTLSConfig", "OverlappingHostnames");
        conditions.push(Verdict::holds(type_, reason, message.clone()));
    }
    ListenerVerdict {
        name: listener.spec.name.clone(),
        supported_kinds: listener.supported_kinds(),
        attached_routes: i32::try_from(attached).unwrap_or(i32::MAX),
        conditions,
        serving: with_reasons(gateway, listener, refusal, serving),
    }
}

/// Why a listener is not accepted.
fn refusal(listener: &ListenerPlan, serving: &Serving) -> Option<Refusal> {
    if let Err(refusal) = &listener.serves {
        return Some(refusal.clone());
    }
    if let Some(conflict) = &listener.conflict {
        return Some(Refusal::new(conflict.reason, conflict.message.clone()));
    }
    let nowhere = serving.is_nowhere() && !serving.obstacles.is_empty();
    (nowhere && listener.blocked.is_none())
        .then(|| Refusal::new("PortUnavailable", serving.obstacles.join("; ")))
}

/// Adds to `serving` why it has no place, if nothing did so yet.
fn with_reasons(
    gateway: &GatewayPlan,
    listener: &ListenerPlan,
    refusal: Option<Refusal>,
    mut serving: Serving,
) -> Serving {
    // The API has a reason of its own for the listeners of a ListenerSet, and "Invalid" for a Gateway's.
    if let (Kind::ListenerSet, Some(conflict)) = (listener.owner.kind, &listener.conflict) {
        serving.reason = Some(conflict.reason);
    }
    if serving.is_nowhere() && serving.obstacles.is_empty() {
        serving.obstacles.push(match (&gateway.accepted, refusal) {
            (_, Some(refusal)) => format!("not accepted: {}", refusal.message),
            (Err(refusal), None) => format!("the Gateway is not accepted: {}", refusal.message),
            (Ok(_), None) => "the Gateway has no usable address".to_owned(),
        });
    }
    serving
}
