//! Health checks in translation: whom they are about, and what becomes of those that are not well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use penstock_gateway_types::BackendRef;

use super::backend::Endpoints;
use super::look::View;
use super::route::Route;
use super::weight::Readiness;
use crate::health::{Asked, Check, fails_open};
use crate::object::{NamespacedName, ObjectKey};

/// What came of a health check: the endpoints of a backendRef, which are checked together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckVerdict {
    /// The L4Policy that asks for it; a Gateway's parameters if none.
    pub policy: Option<NamespacedName>,
    /// The Service or Backend whose endpoints are checked.
    pub object: ObjectKey,
    /// The port of it, as `80/tcp`; of each endpoint its own if none.
    pub port: Option<String>,
    /// Who is asked.
    pub asked: BTreeSet<Asked>,
    /// Who of them is not well.
    pub unhealthy: BTreeSet<SocketAddr>,
    /// Whether so many are not well that all serve.
    pub fail_open: bool,
}

/// `Service shop/web 80/tcp`.
impl fmt::Display for CheckVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        self.port.as_ref().map_or(Ok(()), |port| write!(f, " {port}"))
    }
}

/// The check of a backendRef, that of what it names, of its route, or else the `usual` one of its Gateway; and what
/// came of it: endpoints that are not well are taken out of the choice for new flows, unless too many are.
pub(super) fn check(
    route: &Route<'_>,
    backend: &BackendRef,
    usual: Option<&Arc<Check>>,
    endpoints: &mut Endpoints,
    view: View<'_>,
) -> Option<CheckVerdict> {
    let object = route.key_of(backend).filter(|_| route.is_l4())?;
    let policy = view.check(&object).or_else(|| view.check(&route.key));
    let usual = usual.map(|check| (None, check));
    let check = policy.map(|(name, check)| (Some(name), check)).or(usual)?;
    let port = backend.port.map(|port| format!("{port}/{}", route.protocol));
    Some(apply(check, (object, port), endpoints, view))
}

/// Who drains is not asked: he gets no new flows in any case.
fn apply(
    (policy, check): (Option<&NamespacedName>, &Arc<Check>),
    (object, port): (ObjectKey, Option<String>),
    endpoints: &mut Endpoints,
    view: View<'_>,
) -> CheckVerdict {
    let ready = endpoints.iter().filter(|(_, readiness)| **readiness == Readiness::Ready);
    let asked =
        |(backend, _): (&SocketAddr, _)| Asked { backend: *backend, check: Arc::clone(check) };
    let asked: BTreeSet<_> = ready.map(asked).collect();
    let unhealthy = asked.iter().filter(|asked| view.is_unhealthy(asked)).map(|it| it.backend);
    let unhealthy: BTreeSet<_> = unhealthy.collect();
    let mut fail_open = false;
    for ipv6 in [false, true] {
        // A VIP is served by endpoints of its own family: none of it may be left without any.
        let down = || unhealthy.iter().filter(|backend| backend.is_ipv6() == ipv6);
        let all = asked.iter().filter(|asked| asked.backend.is_ipv6() == ipv6).count();
        if fails_open(all, down().count(), check.fail_open_above_percent) {
            fail_open = true;
        } else {
            endpoints.extend(down().map(|backend| (*backend, Readiness::Draining)));
        }
    }
    CheckVerdict { policy: policy.cloned(), object, port, asked, unhealthy, fail_open }
}

/// What came of all health checks, by the routes that send to who is checked.
#[derive(Clone, Debug, Default)]
pub struct Checkups {
    of_routes: BTreeMap<ObjectKey, Vec<CheckVerdict>>,
    /// Which routes reach what is checked for a policy, or is an object's.
    of_policies: BTreeMap<NamespacedName, BTreeSet<ObjectKey>>,
    of_objects: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// For how many of them each is asked.
    asked: BTreeMap<Asked, usize>,
}

/// The same came of them: the rest is an index.
impl PartialEq for Checkups {
    fn eq(&self, other: &Self) -> bool {
        self.of_routes == other.of_routes
    }
}

/// What a change of check-ups concerns.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) policies: BTreeSet<NamespacedName>,
    pub(super) objects: BTreeSet<ObjectKey>,
    /// Whether others are asked.
    pub(super) has_questions: bool,
}

impl Changed {
    fn concerns(&mut self, check: &CheckVerdict) {
        self.policies.extend(check.policy.clone());
        self.objects.insert(check.object.clone());
    }
}

impl Checkups {
    /// Replaces what came of the checks of a route's backends.
    pub(super) fn set(&mut self, route: &ObjectKey, now: Vec<CheckVerdict>) -> Changed {
        let before = self.of_routes.remove(route).unwrap_or_default();
        let mut changed = Changed::default();
        if before != now {
            self.enter(route, &now, &mut changed);
            self.leave(route, &before, &now, &mut changed);
        }
        if !now.is_empty() {
            self.of_routes.insert(route.clone(), now);
        }
        changed
    }

    fn enter(&mut self, route: &ObjectKey, now: &[CheckVerdict], changed: &mut Changed) {
        for check in now {
            if let Some(policy) = &check.policy {
                self.of_policies.entry(policy.clone()).or_default().insert(route.clone());
            }
            self.of_objects.entry(check.object.clone()).or_default().insert(route.clone());
            for asked in &check.asked {
                let routes = self.asked.entry(asked.clone()).or_default();
                changed.has_questions |= *routes == 0;
                *routes += 1;
            }
            changed.concerns(check);
        }
    }

    fn leave(
        &mut self,
        route: &ObjectKey,
        before: &[CheckVerdict],
        now: &[CheckVerdict],
        changed: &mut Changed,
    ) {
        for check in before {
            for asked in &check.asked {
                let Some(routes) = self.asked.get_mut(asked) else { continue };
                *routes -= 1;
                if *routes == 0 {
                    self.asked.remove(asked);
                    changed.has_questions = true;
                }
            }
            if let Some(policy) = &check.policy
                && !now.iter().any(|now| now.policy.as_ref() == Some(policy))
            {
                forget(&mut self.of_policies, policy, route);
            }
            if !now.iter().any(|now| now.object == check.object) {
                forget(&mut self.of_objects, &check.object, route);
            }
            changed.concerns(check);
        }
    }

    /// What came of those that a policy asks for, each once.
    pub(super) fn of_policy(&self, policy: &NamespacedName) -> Vec<CheckVerdict> {
        let routes = self.of_policies.get(policy);
        self.once(routes, |check| check.policy.as_ref() == Some(policy))
    }

    /// What came of those of an object, each once.
    pub(super) fn of_object(&self, object: &ObjectKey) -> Vec<CheckVerdict> {
        self.once(self.of_objects.get(object), |check| check.object == *object)
    }

    fn once(
        &self,
        routes: Option<&BTreeSet<ObjectKey>>,
        is_meant: impl Fn(&CheckVerdict) -> bool,
    ) -> Vec<CheckVerdict> {
        let all = routes.into_iter().flatten().filter_map(|route| self.of_routes.get(route));
        let all: BTreeSet<_> = all.flatten().filter(|check| is_meant(check)).collect();
        all.into_iter().cloned().collect()
    }

    /// What came of all of them; what two routes send to may be there twice.
    pub fn iter(&self) -> impl Iterator<Item = &CheckVerdict> {
        self.of_routes.values().flatten()
    }

    /// Whom to ask.
    pub fn asked(&self) -> impl ExactSizeIterator<Item = &Asked> + Clone {
        self.asked.keys()
    }
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<ObjectKey>>, key: &K, route: &ObjectKey) {
    if let Some(routes) = index.get_mut(key) {
        routes.remove(route);
        if routes.is_empty() {
            index.remove(key);
        }
    }
}
