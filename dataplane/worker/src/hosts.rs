//! The hosts that the configuration sends packets to: members of groups, in use or not, and the routers
//! of next-hop hints. Kept up with the state, at the cost of what was touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use penstock_feed::{Name, State, Touched, model::join};

/// See the module.
#[derive(Debug, Default)]
pub struct Hosts {
    /// By address, the members that have it.
    members: BTreeMap<IpAddr, BTreeSet<(Name, SocketAddr)>>,
    /// By address, the backends that are reached by it.
    routers: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    new: BTreeSet<IpAddr>,
}

impl Hosts {
    /// Goes over from one state to the next, which differ in what is `touched`; the hosts that came.
    pub fn follow(&mut self, before: &State, now: &State, touched: &Touched) -> BTreeSet<IpAddr> {
        let mut came = BTreeSet::new();
        let none = BTreeMap::new();
        for name in &touched.groups {
            let [before, now] = [before, now]
                .map(|state| state.groups.get(name).map_or(&none, |group| &group.members));
            for (member, was, is) in join(before, now) {
                match (was, is) {
                    (None, Some(_)) => {
                        if !self.has(member.ip()) {
                            came.insert(member.ip());
                        }
                        let named = self.members.entry(member.ip()).or_default();
                        named.insert((name.clone(), *member));
                    }
                    (Some(_), None) => {
                        take(&mut self.members, member.ip(), &(name.clone(), *member));
                    }
                    _ => {}
                }
            }
        }
        for to in &touched.next_hops {
            if let Some(hint) = before.next_hops.get(to) {
                take(&mut self.routers, hint.via, to);
            }
            if let Some(hint) = now.next_hops.get(to) {
                if !self.has(hint.via) {
                    came.insert(hint.via);
                }
                self.routers.entry(hint.via).or_default().insert(*to);
            }
        }
        self.new.extend(&came);
        came
    }

    /// What a host is to the configuration, in words; `None` if it is none.
    pub fn role(&self, address: IpAddr) -> Option<String> {
        if let Some((group, backend)) = self.members.get(&address).and_then(BTreeSet::last) {
            return Some(format!("the address of backend {backend} of {group}"));
        }
        let to = self.routers.get(&address)?.last()?;
        Some(format!("the router of the next hop to {to}"))
    }

    /// Whether the configuration sends there.
    pub fn has(&self, address: IpAddr) -> bool {
        self.members.contains_key(&address) || self.routers.contains_key(&address)
    }

    /// Every host, some twice.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.members.keys().chain(self.routers.keys()).copied()
    }

    /// Those that came since the last call, and are there still.
    pub fn take_new(&mut self) -> BTreeSet<IpAddr> {
        let mut new = std::mem::take(&mut self.new);
        new.retain(|address| self.has(*address));
        new
    }
}

fn take<T: Ord>(map: &mut BTreeMap<IpAddr, BTreeSet<T>>, address: IpAddr, item: &T) {
    if let Some(items) = map.get_mut(&address) {
        items.remove(item);
        if items.is_empty() {
            map.remove(&address);
        }
    }
}
