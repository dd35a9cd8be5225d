//! Which addresses a Gateway has: those that it asks for by value, and others from AddressPools.
//!
//! The oldest Gateway chooses first, and what a Gateway has stays its own for as long as a pool holds it: what
//! it had before is an input, like its creation time. So every box, and a process that starts anew, comes to the
//! same, and of several controllers all to what a Gateway's status says. Two Gateways share an address if both ask for
//! it by value, or have the same sharing key by their parameters; else each has its own. Who has which L4 port of it is
//! decided elsewhere, by age.
//!
//! Without any pool every address may be asked for by value, and none is given.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use penstock_gateway_types::{AddressPool, AddressType, Gateway};

use super::Note;
use super::gateway::{Accepted, Plan as GatewayPlan};
use super::look::View;
use super::namespace::AllowedNamespaces;
use super::parameters::{Parameters, SharingKey};
use super::verdict::Refusal;
use crate::object::{Kind, NamespacedName, ObjectKey};

/// One entry of a Gateway's `spec.addresses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// This one.
    Value(IpAddr),
    /// Any.
    Any,
}

/// What a Gateway asks for; one of any kind if it does not say.
///
/// # Errors
/// `UnsupportedAddress`, for a type that we do not serve.
pub(super) fn asked(gateway: &Gateway) -> Result<Vec<Asked>, Refusal> {
    let unsupported = |message: String| Err(Refusal::new("UnsupportedAddress", message));
    let mut asked = Vec::new();
    for address in &gateway.spec.addresses {
        match address.type_.as_ref().unwrap_or(&AddressType::IpAddress) {
            AddressType::IpAddress => {}
            other => {
                return unsupported(format!("address type {other} is not served: write IPAddress"));
            }
        }
        let Some(text) = address.value.as_deref().filter(|text| !text.is_empty()) else {
            asked.push(Asked::Any);
            continue;
        };
        match text.parse::<IpAddr>() {
            Ok(parsed) if asked.contains(&Asked::Value(parsed)) => {}
            Ok(parsed) => asked.push(Asked::Value(parsed)),
            Err(_) => {
                return unsupported(format!(
                    "address {text:?} is no IP address, such as 192.0.2.10 or 2001:db8::10"
                ));
            }
        }
    }
    Ok(if asked.is_empty() { vec![Asked::Any] } else { asked })
}

/// What a Gateway has, and what it asks for in vain.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Given {
    /// What it has, each once: what it asks for by value, in the order of its spec, then what it was given.
    pub(super) addresses: Vec<IpAddr>,
    /// The addresses it asks for and cannot have, with the reason; the message of `Programmed`.
    pub(super) unusable: Vec<String>,
    /// Why it was given no address, or too few.
    pub(super) unassigned: Option<String>,
}

/// What every accepted Gateway is given. `held` is what each had before.
pub(super) fn assign(
    gateways: &BTreeMap<NamespacedName, GatewayPlan>,
    held: &dyn Fn(&GatewayPlan) -> Vec<IpAddr>,
    view: View<'_>,
    notes: &mut Vec<Note>,
) -> BTreeMap<NamespacedName, Given> {
    let mut pools = Pools::of(view, notes);
    let accepted = |plan| Some((plan, GatewayPlan::accepted(plan)?));
    let mut by_age: Vec<_> = gateways.values().filter_map(accepted).collect();
    by_age.sort_by(|(one, _), (other, _)| one.age.cmp(&other.age));
    // What is held goes before what is asked for anew: an address does not move under its connections.
    let mut kept = Vec::new();
    for (gateway, accepted) in &by_age {
        kept.push(pools.keep(&gateway.name, accepted, held(gateway)));
    }
    let mut all = Vec::new();
    for (gateway, accepted) in &by_age {
        all.push(pools.by_value(&gateway.name, accepted));
    }
    let mut given = BTreeMap::new();
    for (((gateway, accepted), mut kept), mut has) in by_age.into_iter().zip(kept).zip(all) {
        let name = &gateway.name;
        for _ in kept.len()..accepted.any() {
            match pools.take(name, &accepted.parameters, &kept) {
                Some(address) => kept.push(address),
                None => has.unassigned = Some(pools.nothing_left(name, &accepted.parameters.pools)),
            }
        }
        kept.sort(); // the first one's listener has the plain name: on every box the same one
        has.addresses.extend(kept);
        given.insert(name.clone(), has);
    }
    given
}

impl Accepted {
    /// How many addresses it leaves to us.
    fn any(&self) -> usize {
        self.asked.iter().filter(|asked| **asked == Asked::Any).count()
    }
}

/// A pool: who may have its addresses, and what they are.
struct Pool<'a> {
    name: &'a str,
    allowed: AllowedNamespaces<'a>,
    ranges: Vec<Range>,
}

/// Addresses of one family, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    ipv4: bool,
    first: u128,
    last: u128,
    /// Those before it are taken.
    next: u128,
    /// Those after it are not given.
    end: u128,
}

/// Who was given an address, the first of them if several share it.
#[derive(Clone, Copy)]
struct Holder<'a> {
    gateway: &'a NamespacedName,
    sharing: Option<&'a SharingKey>,
}

impl<'a> Holder<'a> {
    fn of(gateway: &'a NamespacedName, parameters: &'a Parameters) -> Self {
        Self { gateway, sharing: parameters.sharing.as_ref() }
    }

    fn shares_with(&self, other: &Self) -> bool {
        self.sharing.is_some() && self.sharing == other.sharing
    }
}

struct Pools<'a> {
    view: View<'a>,
    pools: Vec<Pool<'a>>,
    /// What Gateways were given that left the choice to us.
    given: BTreeMap<IpAddr, Holder<'a>>,
    /// What Gateways have that ask for it by value.
    asked: BTreeSet<IpAddr>,
    /// Whether there is any AddressPool, usable or not.
    any: bool,
}

impl<'a> Pools<'a> {
    fn of(view: View<'a>, notes: &mut Vec<Note>) -> Self {
        let (mut pools, mut any) = (Vec::new(), false);
        for (name, pool) in view.pools() {
            any = true;
            match Pool::of(name, pool, notes) {
                Ok(pool) => pools.push(pool),
                Err(Refusal { message, .. }) => {
                    notes.push(Note {
                        object: ObjectKey::cluster(Kind::AddressPool, name),
                        message,
                    });
                }
            }
        }
        let (given, asked) = (BTreeMap::new(), BTreeSet::new());
        Self { view, pools, given, asked, any }
    }

    /// What a Gateway has of what it asks for by value.
    fn by_value(&mut self, name: &'a NamespacedName, accepted: &'a Accepted) -> Given {
        let (mut has, us) = (Given::default(), Holder::of(name, &accepted.parameters));
        for asked in &accepted.asked {
            let Asked::Value(address) = *asked else { continue };
            let other = self.given.get(&address).filter(|holder| !holder.shares_with(&us));
            let fault = match not_a_vip(address) {
                Some(fault) => Some(format!("address {address} {fault}: choose another")),
                None if self.any && !self.holds(address, name) => Some(format!(
                    "address {address} is in no AddressPool that namespace {} may use: choose another, or \
                     add it to a pool",
                    name.namespace
                )),
                None => other.map(|holder| {
                    format!(
                        "address {address} was given to Gateway {}: choose another, or let both ask for it, or share it \
                         by an addressSharingKey of their parameters",
                        holder.gateway
                    )
                }),
            };
            match fault {
                Some(fault) => has.unusable.push(fault),
                None => {
                    self.asked.insert(address);
                    has.addresses.push(address);
                }
            }
        }
        has
    }

    /// What a Gateway keeps of what it had before: as much as it leaves to us, of what a pool holds and no older
    /// Gateway keeps that does not share with it.
    fn keep(
        &mut self,
        name: &'a NamespacedName,
        accepted: &'a Accepted,
        before: Vec<IpAddr>,
    ) -> Vec<IpAddr> {
        let (mut kept, us) = (Vec::new(), Holder::of(name, &accepted.parameters));
        for address in before {
            let others = self.given.get(&address).is_some_and(|holder| !holder.shares_with(&us));
            let free = !others
                && !kept.contains(&address)
                && !accepted.asked.contains(&Asked::Value(address))
                && not_a_vip(address).is_none();
            if kept.len() < accepted.any() && free && self.holds(address, name) {
                self.given.entry(address).or_insert(us);
                kept.push(address);
            }
        }
        kept
    }

    fn holds(&self, address: IpAddr, gateway: &NamespacedName) -> bool {
        let view = self.view;
        let mut open =
            self.pools.iter().filter(|pool| pool.allowed.allow(&gateway.namespace, view));
        open.any(|pool| pool.holds(address))
    }

    /// An address for a Gateway that has `kept` already: one of those that it shares, or else the first free one of the
    /// first pool that has one, in the order in which its parameters name them if they do. Costs no more than
    /// what was taken since; a look at all that is given if it shares.
    fn take(
        &mut self,
        gateway: &'a NamespacedName,
        parameters: &'a Parameters,
        kept: &[IpAddr],
    ) -> Option<IpAddr> {
        let us = Holder::of(gateway, parameters);
        let open = self.open_to(gateway, &parameters.pools);
        if us.sharing.is_some() {
            let mut shared = self.given.iter().filter(|(_, holder)| holder.shares_with(&us));
            let held = |address: IpAddr| open.iter().any(|pool| self.pools[*pool].holds(address));
            let shared = shared.find(|(address, _)| !kept.contains(address) && held(**address));
            if let Some((address, _)) = shared {
                return Some(*address);
            }
        }
        let (given, asked) = (&mut self.given, &self.asked);
        for pool in open {
            for range in &mut self.pools[pool].ranges {
                while let Some(address) = range.pop() {
                    let free = not_a_vip(address).is_none() && !asked.contains(&address);
                    if free && let Entry::Vacant(vacant) = given.entry(address) {
                        vacant.insert(us);
                        return Some(address);
                    }
                }
            }
        }
        None
    }

    /// The pools that a Gateway may take from, in the order of `wanted` if some are named.
    fn open_to(&self, gateway: &NamespacedName, wanted: &[String]) -> Vec<usize> {
        let place = |pool: &Pool<'_>| wanted.iter().position(|name| name == pool.name);
        let may = |pool: &(usize, &Pool<'a>)| {
            (wanted.is_empty() || place(pool.1).is_some())
                && pool.1.allowed.allow(&gateway.namespace, self.view)
        };
        let mut open: Vec<_> = self.pools.iter().enumerate().filter(may).collect();
        open.sort_by_key(|(_, pool)| place(pool));
        open.into_iter().map(|(index, _)| index).collect()
    }

    fn nothing_left(&self, gateway: &NamespacedName, wanted: &[String]) -> String {
        let exists = |name: &String| self.pools.iter().any(|pool| pool.name == name);
        if let Some(missing) = wanted.iter().find(|name| !exists(name)) {
            return format!(
                "AddressPool {missing}, which the Gateway's parameters name, does not exist or is refused: write it, \
                 or name another"
            );
        }
        if !self.any {
            return "spec.addresses holds no address, and there is no AddressPool to take one from: write one of \
                    type IPAddress, or a pool"
                .to_owned();
        }
        let may =
            |pool: &&Pool<'_>| wanted.is_empty() || wanted.iter().any(|name| name == pool.name);
        let pools: Vec<_> = self.pools.iter().filter(may).map(|pool| pool.name).collect();
        format!(
            "no AddressPool has a free address that namespace {} may use: add some to one of {}",
            gateway.namespace,
            if pools.is_empty() { "them".to_owned() } else { pools.join(", ") }
        )
    }
}

impl<'a> Pool<'a> {
    fn holds(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.holds(address))
    }

    fn of(name: &'a str, pool: &'a AddressPool, notes: &mut Vec<Note>) -> Result<Self, Refusal> {
        let allowed = AllowedNamespaces::of_pool(pool.spec.gateway_namespaces.as_ref())?;
        let mut ranges = Vec::new();
        for (index, text) in pool.spec.addresses.iter().enumerate() {
            match Range::read(text) {
                Some(range) => ranges.push(range),
                None => {
                    let message = format!(
                        "spec.addresses[{index}]: {text:?} is left out: write a network (192.0.2.0/28), a range \
                         (192.0.2.10-192.0.2.20) or an address"
                    );
                    notes.push(Note {
                        object: ObjectKey::cluster(Kind::AddressPool, name),
                        message,
                    });
                }
            }
        }
        Ok(Self { name, allowed, ranges })
    }
}

impl Range {
    fn read(text: &str) -> Option<Self> {
        let mut ends = 0; // at either end, and not given
        let (ipv4, first, last) = if let Some((network, bits)) = text.split_once('/') {
            let (ipv4, address) = number(network.trim().parse().ok()?);
            let host = (if ipv4 { 32_u32 } else { 128 }).checked_sub(bits.trim().parse().ok()?)?;
            let hosts = 1_u128.checked_shl(host).map_or(u128::MAX, |size| size - 1);
            // The network's own address and its broadcast address are what a link makes of them: who knows that
            // nobody does asks for them by value or writes a range. A /31 has neither (RFC 3021).
            ends = u128::from(ipv4 && hosts > 1);
            (ipv4, address & !hosts, address | hosts)
        } else if let Some((first, last)) = text.split_once('-') {
            let (ipv4, first) = number(first.trim().parse().ok()?);
            let (same, last) = number(last.trim().parse().ok()?);
            (same == ipv4 && first <= last).then_some((ipv4, first, last))?
        } else {
            let (ipv4, address) = number(text.trim().parse().ok()?);
            (ipv4, address, address)
        };
        Some(Self { ipv4, first, last, next: first + ends, end: last - ends })
    }

    fn holds(&self, address: IpAddr) -> bool {
        let (ipv4, address) = number(address);
        ipv4 == self.ipv4 && (self.first..=self.last).contains(&address)
    }

    /// The next address; none after the last.
    fn pop(&mut self) -> Option<IpAddr> {
        let next = (self.next <= self.end).then_some(self.next)?;
        // The range of all IPv6 addresses ends where numbers do; nobody gets that far.
        self.next = next.checked_add(1)?;
        Some(match u32::try_from(next) {
            Ok(v4) if self.ipv4 => Ipv4Addr::from(v4).into(),
            _ => Ipv6Addr::from(next).into(),
        })
    }
}

/// Whether an address is IPv4, and its number.
fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(v4) => (true, u32::from(v4).into()),
        IpAddr::V6(v6) => (false, v6.into()),
    }
}

/// Why an address cannot be a VIP.
fn not_a_vip(address: IpAddr) -> Option<&'static str> {
    match address {
        a if a.is_unspecified() => Some("stands for any address"),
        a if a.is_multicast() => Some("is a multicast group"),
        a if a.is_loopback() => Some("is a loopback address"),
        IpAddr::V4(a) if a.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V4(a) if a.is_link_local() => Some("is link-local"),
        IpAddr::V6(a) if a.is_unicast_link_local() => Some("is link-local"),
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => Some("is an IPv4 address written as IPv6"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_network_two_ends_or_one_address() {
        let all = |text: &str| {
            let mut range = Range::read(text)?;
            let found: Vec<_> = std::iter::from_fn(|| range.pop()).take(9).collect();
            Some(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        for (text, expected) in [
            ("192.0.2.8/30", Some("192.0.2.9 192.0.2.10")),
            ("192.0.2.9/30", Some("192.0.2.9 192.0.2.10")),
            ("192.0.2.8/31", Some("192.0.2.8 192.0.2.9")),
            ("192.0.2.8-192.0.2.11", Some("192.0.2.8 192.0.2.9 192.0.2.10 192.0.2.11")),
            ("2001:db8::/126", Some("2001:db8:: 2001:db8::1 2001:db8::2 2001:db8::3")),
            ("192.0.2.9/32", Some("192.0.2.9")),
            ("192.0.2.254-192.0.3.1", Some("192.0.2.254 192.0.2.255 192.0.3.0 192.0.3.1")),
            ("255.255.255.254 - 255.255.255.255", Some("255.255.255.254 255.255.255.255")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("::1-::2", Some("::1 ::2")),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", Some("")),
            ("192.0.2.2-192.0.2.1", None),
            ("192.0.2.2-::1", None),
            ("192.0.2.0/33", None),
            ("192.0.2.0/-1", None),
            ("192.0.2/24", None),
            ("", None),
        ] {
            assert_eq!(all(text).as_deref(), expected, "{text}");
        }
        assert!(Range::read("::/0").is_some_and(|range| range.holds(IpAddr::from([1_u16; 8]))));
        assert!(!Range::read("::/0").is_some_and(|range| range.holds(IpAddr::from([1_u8; 4]))));
        assert!(Range::read("0.0.0.0/0").is_some_and(|range| range.holds(IpAddr::from([1_u8; 4]))));
    }
}
