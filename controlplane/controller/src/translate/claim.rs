//! Who gets which VIP, protocol and port.
//!
//! Gateways claim oldest first, so that a new one never takes what an old one serves; a Gateway's ListenerSets
//! come after its own listeners, oldest first. Within the feed's limits, for the same reason: what does not fit
//! is of the youngest. L7 listeners of one Gateway share a port; to everyone else it is taken.
//!
//! While everything fits, a claim concerns nobody but those who want the same place. Beyond the limits every claim
//! may concern every younger one, and all are looked at in their order: rules are the same, the cost is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use penstock_feed::model::{Group, Listener, Mode, Name, PortRange, Protocol, State, Touched};

use super::gateway::{Age, Plan as GatewayPlan};
use super::holding::{Holdings, Sizes};
use super::l7::{L7, L7Listener};
use super::listener::{Plan as ListenerPlan, Serves};
use super::{Note, Serving};
use crate::object::{Kind, ObjectKey};

/// When a claim's turn comes: by the Gateway's age, its own listeners before those of its sets, these by age; then
/// in the order of listeners and of addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    owner: Arc<(Age, Option<Age>)>,
    listener: usize,
    address: usize,
}

/// What only one may have.
type Place = (IpAddr, Protocol, PortRange);

/// What a listener wants at one address.
#[derive(Debug)]
struct Claim {
    rank: Rank,
    name: Name,
    place: Place,
    wants: Wants,
    /// An error is why it has it not, for people.
    granted: Result<(), String>,
}

/// The listener of the feed and its group, or why there is none.
type Forwarded = Result<(Listener, Arc<Group>), String>;

#[derive(Debug)]
enum Wants {
    /// That the data plane forwards to a group; or why it cannot.
    Forwarding(Forwarded),
    /// That the L7 tier reads.
    Reading(L7Listener),
}

impl Claim {
    fn address(&self) -> IpAddr {
        self.place.0
    }

    fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.place.0, self.place.2.first())
    }

    fn is_l7(&self) -> bool {
        matches!(self.wants, Wants::Reading(_))
    }

    /// Whether it may have its place, which `owner` has if anyone.
    fn may_follow(&self, owner: Option<&Claim>) -> Result<(), String> {
        if let Some(owner) = owner {
            let same_gateway = owner.rank.owner.0 == self.rank.owner.0;
            if same_gateway && owner.is_l7() && self.is_l7() {
                return Ok(()); // told apart by host name, or they would be in conflict
            }
            let (address, protocol, ports) = self.place;
            let owner = owner.name.as_str().split('@').next().unwrap_or_default();
            return Err(format!(
                "{address} port {ports}/{protocol} is served by listener {owner}, whose Gateway came first: \
                 choose another port or address"
            ));
        }
        match &self.wants {
            Wants::Forwarding(Err(fault)) => Err(fault.clone()),
            _ => Ok(()),
        }
    }

    /// Whether there is room for it beside what is granted already.
    fn fits(&self, holdings: &Holdings, most: &Sizes) -> Result<(), String> {
        let sizes = holdings.sizes;
        let (listener, group) = match &self.wants {
            Wants::Reading(_) if sizes.l7_listeners >= most.l7_listeners => {
                let most = most.l7_listeners;
                return Err(format!("the L7 tier holds {most} listeners, and all are taken"));
            }
            Wants::Reading(_) | Wants::Forwarding(Err(_)) => return Ok(()),
            Wants::Forwarding(Ok(wanted)) => wanted,
        };
        if sizes.listeners >= most.listeners {
            let most = most.listeners;
            return Err(format!("the data plane holds {most} listeners, and all are taken"));
        }
        let members = sizes.members + group.members.len();
        let too_many = sizes.groups >= most.groups || members > most.members;
        if !holdings.has_group(&listener.group) && too_many {
            return Err(format!(
                "the data plane holds {} groups and {} backends, and group {} with {} does not fit",
                most.groups,
                most.members,
                listener.group,
                group.members.len()
            ));
        }
        Ok(())
    }
}

/// Who serves the VIPs of a listener: the groups of its oldest route, by IPv4 and by IPv6, and their name.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) name: Name,
    pub(super) groups: [Arc<Group>; 2],
}

/// What one listener claims.
#[derive(Debug, Default)]
struct Filed {
    /// Why it claims nothing.
    blocked: Option<String>,
    /// A claim an address; or why it cannot have one.
    claims: Vec<Result<Claim, String>>,
    /// What its author should know of each, once it is granted.
    notes: Vec<(usize, Note)>,
}

/// Where a claim is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    owner: Arc<ObjectKey>,
    listener: usize,
    address: usize,
}

/// All claims, and what came of them.
#[derive(Debug)]
pub(super) struct Register {
    most: Sizes,
    filed: BTreeMap<Arc<ObjectKey>, Vec<Filed>>,
    places: BTreeMap<Place, BTreeMap<Rank, At>>,
    holdings: Holdings,
    /// Whether more is claimed than the data plane or the L7 tier takes.
    is_crowded: bool,
    /// Where somebody came, or left.
    contested: BTreeSet<Place>,
}

impl Register {
    /// One without claims, for a data plane and an L7 tier that take so much.
    pub(super) fn new(most: Sizes) -> Self {
        Self {
            most,
            filed: BTreeMap::new(),
            places: BTreeMap::new(),
            holdings: Holdings::default(),
            is_crowded: false,
            contested: BTreeSet::new(),
        }
    }

    /// Serves only these listeners from now on, whatever else is granted. Costs a look at every claim, unless that
    /// is what it did before.
    pub(super) fn serve_only(&mut self, only: Option<Arc<BTreeSet<String>>>) {
        if !self.holdings.serve_only(only) {
            return;
        }
        let claims = self.filed.values().flatten().flat_map(|filed| filed.claims.iter().flatten());
        for claim in claims.filter(|claim| claim.granted.is_ok()) {
            match &claim.wants {
                Wants::Forwarding(Ok((listener, _))) => {
                    self.holdings.say_again(&claim.name, listener);
                }
                Wants::Forwarding(Err(_)) => {}
                Wants::Reading(listener) => {
                    self.holdings.say_l7_again(claim.socket(), &claim.name, listener);
                }
            }
        }
    }

    /// Files the claims of all listeners of `owner`, the Gateway itself or a ListenerSet of the age given, in the
    /// place of those it had.
    pub(super) fn file(
        &mut self,
        owner: &ObjectKey,
        gateway: &GatewayPlan,
        set: Option<&Age>,
        listeners: &[ListenerPlan],
        served: impl Fn(usize) -> Option<Served>,
    ) {
        self.withdraw(owner);
        let owner = Arc::new(owner.clone());
        let rank = Arc::new((gateway.age.clone(), set.cloned()));
        let filed = listeners.iter().enumerate();
        let filed: Vec<_> = filed
            .map(|(index, listener)| {
                claims(&rank, index, gateway, listener, served(index).as_ref())
            })
            .collect();
        for (listener, filed) in filed.iter().enumerate() {
            self.contest(&owner, listener, filed);
        }
        self.filed.insert(owner, filed);
    }

    /// Files the claims of one listener anew.
    pub(super) fn refile(
        &mut self,
        owner: &ObjectKey,
        gateway: &GatewayPlan,
        set: Option<&Age>,
        (index, listener): (usize, &ListenerPlan),
        served: Option<&Served>,
    ) {
        let Some((owner, filed)) = self.filed.remove_entry(owner) else { return };
        let mut filed = filed;
        if let Some(before) = filed.get_mut(index).map(std::mem::take) {
            self.leave(before);
            let rank = Arc::new((gateway.age.clone(), set.cloned()));
            filed[index] = claims(&rank, index, gateway, listener, served);
            self.contest(&owner, index, &filed[index]);
        }
        self.filed.insert(owner, filed);
    }

    /// Takes back every claim of `owner`.
    pub(super) fn withdraw(&mut self, owner: &ObjectKey) {
        for before in self.filed.remove(owner).into_iter().flatten() {
            self.leave(before);
        }
    }

    fn contest(&mut self, owner: &Arc<ObjectKey>, listener: usize, filed: &Filed) {
        for (address, claim) in filed.claims.iter().enumerate() {
            let Ok(claim) = claim else { continue };
            let at = At { owner: Arc::clone(owner), listener, address };
            self.places.entry(claim.place).or_default().insert(claim.rank.clone(), at);
            self.contested.insert(claim.place);
        }
    }

    fn leave(&mut self, filed: Filed) {
        for claim in filed.claims.into_iter().flatten() {
            if claim.granted.is_ok() {
                release(&mut self.holdings, &claim);
            }
            self.contested.insert(claim.place);
            if let Some(claimants) = self.places.get_mut(&claim.place) {
                claimants.remove(&claim.rank);
                if claimants.is_empty() {
                    self.places.remove(&claim.place);
                }
            }
        }
    }

    /// Decides who has what, and makes `state` and `l7` say so. Returns what that touched, and which
    /// places of the L7 tier; the owners of listeners for which something else was decided are added to `decided`.
    pub(super) fn settle(
        &mut self,
        state: &mut Arc<State>,
        l7: &mut Arc<L7>,
        decided: &mut BTreeSet<ObjectKey>,
    ) -> (Touched, BTreeSet<SocketAddr>) {
        let contested = std::mem::take(&mut self.contested);
        match (contested.is_empty(), self.is_crowded) {
            (true, _) => {}
            (false, false) => self.settle_places(&contested, decided),
            (false, true) => {
                let all = self.places.keys().copied().collect();
                self.settle_places(&all, decided);
            }
        }
        self.holdings.write(state, l7)
    }

    /// Decides who has which of these places, and whether all that fits.
    fn settle_places(&mut self, places: &BTreeSet<Place>, decided: &mut BTreeSet<ObjectKey>) {
        for place in places {
            let claimants = self.places.get(place).cloned().unwrap_or_default();
            let mut owner = None;
            for at in claimants.values() {
                self.decide(at, owner.as_ref(), false, decided);
                if owner.is_none() && self.claim(at).is_some_and(|claim| claim.granted.is_ok()) {
                    owner = Some(at.clone());
                }
            }
        }
        self.is_crowded = !self.holdings.sizes.fit(&self.most);
        if self.is_crowded {
            self.settle_crowded(decided);
        }
    }

    /// Decides on all claims in their order, each within what room the older ones left.
    fn settle_crowded(&mut self, decided: &mut BTreeSet<ObjectKey>) {
        let mut all: Vec<(Rank, At)> = Vec::new();
        for claimants in self.places.values() {
            all.extend(claimants.iter().map(|(rank, at)| (rank.clone(), at.clone())));
        }
        all.sort();
        for (_, at) in &all {
            self.set(at, Err(String::new()));
        }
        let mut owners: BTreeMap<Place, At> = BTreeMap::new();
        for (_, at) in &all {
            let Some(place) = self.claim(at).map(|claim| claim.place) else { continue };
            self.decide(at, owners.get(&place), true, decided);
            if self.claim(at).is_some_and(|claim| claim.granted.is_ok()) {
                owners.entry(place).or_insert_with(|| at.clone());
            }
        }
    }

    /// Decides on one claim, whose place is `owner`'s if anyone's.
    fn decide(
        &mut self,
        at: &At,
        owner: Option<&At>,
        within_limits: bool,
        decided: &mut BTreeSet<ObjectKey>,
    ) {
        let Some(claim) = self.claim(at) else { return };
        let mut granted = claim.may_follow(owner.and_then(|owner| self.claim(owner)));
        if within_limits {
            granted = granted.and_then(|()| claim.fits(&self.holdings, &self.most));
        }
        if claim.granted != granted {
            self.set(at, granted);
            decided.insert((*at.owner).clone());
        }
    }

    fn claim(&self, at: &At) -> Option<&Claim> {
        self.filed.get(&at.owner)?.get(at.listener)?.claims.get(at.address)?.as_ref().ok()
    }

    fn set(&mut self, at: &At, granted: Result<(), String>) {
        let filed = self.filed.get_mut(&at.owner).and_then(|filed| filed.get_mut(at.listener));
        let claim = filed.and_then(|filed| filed.claims.get_mut(at.address));
        let Some(Ok(claim)) = claim else { return };
        match (claim.granted.is_ok(), granted.is_ok()) {
            (true, false) => release(&mut self.holdings, claim),
            (false, true) => hold(&mut self.holdings, claim),
            _ => {}
        }
        claim.granted = granted;
    }

    /// What each listener of `owner` has.
    pub(super) fn serving(&self, owner: &ObjectKey) -> Vec<Serving> {
        let filed = self.filed.get(owner).map(Vec::as_slice).unwrap_or_default();
        filed.iter().map(serving).collect()
    }

    /// What the author of `owner` should know of what its listeners have.
    pub(super) fn notes(&self, owner: &ObjectKey) -> Vec<Note> {
        let granted = |filed: &Filed, address: usize| {
            let claim = filed.claims.get(address).and_then(|claim| claim.as_ref().ok());
            claim.is_some_and(|claim| claim.granted.is_ok())
        };
        let filed = self.filed.get(owner).into_iter().flatten();
        let notes = filed.flat_map(|filed| {
            let notes = filed.notes.iter().filter(|(address, _)| granted(filed, *address));
            notes.map(|(_, note)| note.clone())
        });
        notes.collect()
    }
}

fn hold(holdings: &mut Holdings, claim: &Claim) {
    match &claim.wants {
        Wants::Forwarding(Ok((listener, group))) => holdings.hold(&claim.name, listener, group),
        Wants::Forwarding(Err(_)) => {} // never granted
        Wants::Reading(listener) => holdings.hold_l7(claim.socket(), &claim.name, listener),
    }
}

fn release(holdings: &mut Holdings, claim: &Claim) {
    match &claim.wants {
        Wants::Forwarding(Ok((listener, _))) => holdings.release(&claim.name, listener),
        Wants::Forwarding(Err(_)) => {}
        Wants::Reading(_) => holdings.release_l7(claim.socket(), &claim.name),
    }
}

fn serving(filed: &Filed) -> Serving {
    let mut serving =
        Serving { obstacles: filed.blocked.iter().cloned().collect(), ..Serving::default() };
    for claim in &filed.claims {
        match claim {
            Err(fault) => serving.obstacles.push(fault.clone()),
            Ok(Claim { granted: Err(fault), .. }) => serving.obstacles.push(fault.clone()),
            Ok(claim) if claim.is_l7() => serving.l7.push((claim.socket(), claim.name.clone())),
            Ok(claim) => serving.places.push((claim.address(), claim.name.clone())),
        }
    }
    serving
}

/// What a listener claims, at each address of its Gateway.
fn claims(
    rank: &Arc<(Age, Option<Age>)>,
    index: usize,
    gateway: &GatewayPlan,
    listener: &ListenerPlan,
    served: Option<&Served>,
) -> Filed {
    let mut filed = Filed::default();
    let (Some(_), Ok(serves), None) = (gateway.accepted(), &listener.serves, &listener.conflict)
    else {
        return filed; // refused, which is answered elsewhere
    };
    if listener.blocked.is_some() {
        filed.blocked.clone_from(&listener.blocked);
        return filed;
    }
    let plain = listener.owner.place(&listener.spec.name);
    for (number, address) in gateway.given.addresses.iter().enumerate() {
        // The first address keeps the plain name, so that adding a second renames nothing.
        let text = if number == 0 { plain.clone() } else { format!("{plain}@{address}") };
        let claim = Name::new(&text).map_err(|fault| fault.to_string()).map(|name| {
            let rank = Rank { owner: Arc::clone(rank), listener: index, address: number };
            let place = (*address, serves.protocol, serves.ports);
            let wants = match &serves.l7 {
                Some(l7) => Wants::Reading(l7.clone()),
                None => {
                    let (wanted, notes) = forwarding(gateway, listener, *address, serves, served);
                    filed.notes.extend(notes.into_iter().map(|note| (number, note)));
                    Wants::Forwarding(wanted)
                }
            };
            Claim { rank, name, place, wants, granted: Err(String::new()) }
        });
        filed.claims.push(claim);
    }
    filed
}

/// What the data plane is to do for a listener at an address, and what its author should know of that.
fn forwarding(
    gateway: &GatewayPlan,
    listener: &ListenerPlan,
    vip: IpAddr,
    serves: &Serves,
    served: Option<&Served>,
) -> (Forwarded, Vec<Note>) {
    let (mode, affinity) = (listener.settings.mode(), listener.settings.affinity(vip));
    let Some((group, members)) = group(listener, vip, mode, served) else {
        return (Err("its name is too long".to_owned()), Vec::new());
    };
    let other_family = served.filter(|served| !mode.is_tunnel() && lacks_family(served, vip));
    let messages = [
        other_family.map(|_| of_other_family(listener, vip)),
        unused_port(listener, mode, serves.ports, &members),
    ];
    let object = ObjectKey::of(Kind::Gateway, &gateway.name);
    let note = |message| Note { object: object.clone(), message };
    let notes = messages.into_iter().flatten().map(note).collect();
    let (protocol, ports) = (serves.protocol, serves.ports);
    let (policies, snat_pool) = (listener.settings.policies(), None);
    let source_ranges = listener.settings.source_ranges(vip);
    let record = Listener {
        vip,
        protocol,
        ports,
        mode,
        affinity,
        policies,
        source_ranges,
        group,
        snat_pool,
    };
    (Ok((record, members)), notes)
}

/// Whether there are endpoints, and none of the family of `vip`.
fn lacks_family(served: &Served, vip: IpAddr) -> bool {
    let [v4, v6] = &served.groups;
    let (own, other) = if vip.is_ipv4() { (v4, v6) } else { (v6, v4) };
    own.members.is_empty() && !other.members.is_empty()
}

/// The group of the oldest route for a VIP; without a route, one of the listener's own that refuses. That for
/// IPv4 has the plain name. Where endpoints of the VIP's family are none, a tunnel reaches those of the other.
/// `None` if its name is too long.
fn group(
    listener: &ListenerPlan,
    vip: IpAddr,
    mode: Mode,
    served: Option<&Served>,
) -> Option<(Name, Arc<Group>)> {
    let Some(served) = served else {
        return Some((listener.owner.group(&listener.spec.name)?, Arc::default()));
    };
    let crosses = mode.is_tunnel() && lacks_family(served, vip);
    let [v4, v6] = &served.groups;
    Some(match vip.is_ipv4() != crosses {
        true => (served.name.clone(), Arc::clone(v4)),
        false => (Name::new(&format!("{}@ipv6", served.name)).ok()?, Arc::clone(v6)),
    })
}

/// With DSR the backend gets what the client sent, L4 port and all.
fn unused_port(
    listener: &ListenerPlan,
    mode: Mode,
    ports: PortRange,
    group: &Group,
) -> Option<String> {
    let mut addresses = group.members.keys().filter(|_| mode.is_dsr());
    let endpoint = addresses.find(|at| !(ports.first()..=ports.last()).contains(&at.port()))?;
    Some(format!(
        "listener {}: mode {mode} keeps the L4 port, so port {} of endpoint {} is not used; let the \
         endpoint serve port {} on the Gateway's address",
        listener.spec.name,
        endpoint.port(),
        endpoint.ip(),
        ports.first()
    ))
}

fn of_other_family(listener: &ListenerPlan, vip: IpAddr) -> String {
    let (ours, theirs) = if vip.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
    format!(
        "listener {}: {vip} is {ours} and every endpoint of its route is {theirs}: its flows are \
         refused; give the Services {ours} endpoints",
        listener.spec.name
    )
}
