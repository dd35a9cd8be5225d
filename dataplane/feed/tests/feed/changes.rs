//! What is kept up by changes is what would be found anew: the state, its digest, what is wrong with
//! it, and what a commit touched.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use penstock_feed::transaction::{Outcome, Transactions};
use penstock_feed::{
    Affinity, Begin, Change, Commit, Group, L7, Listener, Member, Mode, Name, NextHop, Policies,
    PortRange, Prefix, Protocol, Record, SnatPool, SourceRanges, State, Touched,
};
use proptest::prelude::*;

use crate::support::name;

/// A state in maps of the standard library, in which a change is made as its documentation says.
#[derive(Clone, Default)]
struct Plain {
    listeners: BTreeMap<Name, Listener>,
    groups: BTreeMap<Name, Group>,
    snat_pools: BTreeMap<Name, SnatPool>,
    next_hops: BTreeMap<IpAddr, NextHop>,
    vips: BTreeMap<IpAddr, ()>,
}

impl Plain {
    /// Whether the change could be made.
    fn apply(&mut self, change: Change) -> bool {
        use Change as C;
        match change {
            C::PutListener { name, listener } => drop(self.listeners.insert(name, listener)),
            C::RemoveListener { name } => drop(self.listeners.remove(&name)),
            C::PutGroup { name, refused_weight } => {
                self.groups.entry(name).or_default().refused_weight = refused_weight;
            }
            C::RemoveGroup { name } => drop(self.groups.remove(&name)),
            C::PutMember { group, address, member } => {
                let Some(group) = self.groups.get_mut(&group) else { return false };
                group.members.insert(address, member);
            }
            C::RemoveMember { group, address } => {
                self.groups.get_mut(&group).map(|group| group.members.remove(&address));
            }
            C::PutSnatPool { name } => _ = self.snat_pools.entry(name).or_default(),
            C::RemoveSnatPool { name } => drop(self.snat_pools.remove(&name)),
            C::PutSnatAddress { pool, address } => {
                let Some(pool) = self.snat_pools.get_mut(&pool) else { return false };
                pool.addresses.insert(address);
            }
            C::RemoveSnatAddress { pool, address } => {
                self.snat_pools.get_mut(&pool).map(|pool| pool.addresses.remove(&address));
            }
            C::PutNextHop { address, next_hop } => drop(self.next_hops.insert(address, next_hop)),
            C::RemoveNextHop { address } => drop(self.next_hops.remove(&address)),
            C::PutVip { address } => _ = self.vips.insert(address, ()),
            C::RemoveVip { address } => _ = self.vips.remove(&address),
            other => panic!("{other:?} is the L7 tier's: l7.rs"),
        }
        true
    }

    fn state(&self) -> State {
        let groups =
            self.groups.iter().map(|(name, group)| (name.clone(), Arc::new(group.clone())));
        State {
            listeners: self.listeners.clone().into_iter().collect(),
            groups: groups.collect(),
            snat_pools: self.snat_pools.clone().into_iter().collect(),
            next_hops: self.next_hops.clone().into_iter().collect(),
            vips: self.vips.clone().into_iter().collect(),
            l7: L7::default(),
        }
    }
}

/// Few addresses, so that they meet; one in ten is none that a packet could be sent to.
fn any_address() -> impl Strategy<Value = IpAddr> {
    (0..30_u8).prop_map(|n| match n {
        0 => [224, 0, 0, 1].into(),
        1 => [0, 0, 0, 0].into(),
        2 => [255, 255, 255, 255].into(),
        n if n % 2 == 0 => [192, 0, 2, n % 8].into(),
        n => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n % 8)]),
    })
}

fn any_name(kind: &'static str) -> impl Strategy<Value = Name> {
    (0..4_u8).prop_map(move |n| name(&format!("{kind}/{n}")))
}

prop_compose! {
    fn any_listener()(
        vip in any_address(),
        udp in any::<bool>(),
        (first, more) in (1..12_u16, 0..4_u16),
        group in any_name("group"),
        snat_pool in prop::option::weighted(0.3, any_name("pool")),
        source_ranges in prop::option::weighted(0.3, prop::collection::vec((any_address(), 0..33_u8), 0..3)),
    ) -> Listener {
        let prefixes = source_ranges.map(|all| all.into_iter().filter_map(|(at, length)| Prefix::new(at, length)));
        Listener {
            vip,
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            ports: PortRange::new(first, first + more).unwrap(),
            mode: Mode::FullNat,
            affinity: Affinity::Tuple,
            policies: Policies::default(),
            source_ranges: prefixes.map(|prefixes| SourceRanges::new(prefixes).unwrap()),
            group,
            snat_pool,
        }
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    use Change as C;
    let listener = || (0..12_u8).prop_map(|n| name(&format!("listener/{n}")));
    let (group, pool) = (|| any_name("group"), || any_name("pool"));
    let member = || (any_address(), 0..3_u16).prop_map(SocketAddr::from);
    prop_oneof![
        6 => (listener(), any_listener()).prop_map(|(name, listener)| C::PutListener { name, listener }),
        3 => listener().prop_map(|name| C::RemoveListener { name }),
        4 => (group(), 0..3_u32).prop_map(|(name, refused_weight)| C::PutGroup { name, refused_weight }),
        2 => group().prop_map(|name| C::RemoveGroup { name }),
        4 => (group(), member(), 0..3_u32, any::<bool>()).prop_map(|(group, address, weight, draining)| {
            C::PutMember { group, address, member: Member { weight, draining } }
        }),
        2 => (group(), member()).prop_map(|(group, address)| C::RemoveMember { group, address }),
        2 => pool().prop_map(|name| C::PutSnatPool { name }),
        2 => pool().prop_map(|name| C::RemoveSnatPool { name }),
        2 => (pool(), any_address()).prop_map(|(pool, address)| C::PutSnatAddress { pool, address }),
        1 => (pool(), any_address()).prop_map(|(pool, address)| C::RemoveSnatAddress { pool, address }),
        1 => (any_address(), any_address())
            .prop_map(|(address, via)| C::PutNextHop { address, next_hop: NextHop { via } }),
        1 => any_address().prop_map(|address| C::RemoveNextHop { address }),
        1 => any_address().prop_map(|address| C::PutVip { address }),
        1 => any_address().prop_map(|address| C::RemoveVip { address }),
    ]
}

/// Every group and pool that a listener may name, and some listeners that may stand beside each other: what
/// random changes seldom come to by themselves.
fn a_start() -> Vec<Change> {
    let groups =
        (0..4).map(|n| Change::PutGroup { name: name(&format!("group/{n}")), refused_weight: 0 });
    let pools = (0..4).map(|n| Change::PutSnatPool { name: name(&format!("pool/{n}")) });
    let listener = |n: u16| Listener {
        vip: [192, 0, 2, 2].into(),
        protocol: Protocol::Tcp,
        ports: PortRange::new(n * 4 + 1, n * 4 + 3).unwrap(),
        mode: Mode::FullNat,
        affinity: Affinity::Tuple,
        policies: Policies::default(),
        source_ranges: None,
        group: name(&format!("group/{}", n % 3)),
        snat_pool: n.is_multiple_of(2).then(|| name(&format!("pool/{}", n % 3))),
    };
    let listeners = (0..6).map(|n| (name(&format!("listener/{n}")), listener(n)));
    let listeners = listeners.map(|(name, listener)| Change::PutListener { name, listener });
    groups.chain(pools).chain(listeners).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Random transactions, good and bad: each is committed exactly if all of its changes can be made and
    /// nothing is wrong with the whole, under the digest that the whole has; and what is asked for now
    /// and then has been touched.
    #[test]
    fn what_is_kept_up_is_what_would_be_found_anew(
        transactions in prop::collection::vec((prop::collection::vec(any_change(), 1..4), any::<bool>()), 1..30),
    ) {
        let mut consumer = Transactions::new(0, Arc::default());
        let (mut committed, mut asked) = (Plain::default(), State::default());
        let transactions = [(a_start(), false)].into_iter().chain(transactions);
        for (generation, (changes, asks)) in (1..).zip(transactions) {
            let (mut plain, count) = (committed.clone(), changes.len() as u64);
            let fits = changes.iter().all(|change| plain.apply(change.clone()));
            let state = plain.state();
            let base = Some((consumer.generation(), consumer.digest()));
            let begin = Record::Begin(Begin { epoch: 1, generation, base });
            let commit = Record::Commit(Commit { generation, digest: state.digest(), changes: count });
            let records = [begin].into_iter().chain(changes.into_iter().map(Record::Change)).chain([commit]);
            let outcomes: Vec<Outcome> = records.map(|record| consumer.take(record, 1).unwrap()).collect();
            let errors = state.check();
            if fits && errors.is_empty() {
                prop_assert_eq!(outcomes.last(), Some(&Outcome::Committed));
                committed = plain;
            } else {
                let refusal = outcomes.iter().find_map(|outcome| match outcome {
                    Outcome::Refused(refusal) => Some(&refusal.errors),
                    _ => None,
                });
                prop_assert_eq!(refusal, Some(&if fits { errors } else { Vec::new() }));
            }
            prop_assert_eq!(&**consumer.state(), &committed.state());
            prop_assert_eq!(consumer.digest(), committed.state().digest());
            if asks {
                let touched = consumer.take_touched();
                let differing = Touched::between(&asked, consumer.state());
                prop_assert!(differing.listeners.is_subset(&touched.listeners));
                prop_assert!(differing.groups.is_subset(&touched.groups));
                prop_assert!(differing.snat_pools.is_subset(&touched.snat_pools));
                prop_assert!(differing.next_hops.is_subset(&touched.next_hops));
                asked = State::clone(consumer.state());
            }
        }
    }

    /// A difference leads from any state to any other, through maps that share and through maps that do
    /// not, and names nothing that is the same.
    #[test]
    fn a_difference_is_what_differs(
        before in prop::collection::vec(any_change(), 0..40),
        between in prop::collection::vec(any_change(), 0..6),
    ) {
        let made = |plain: &mut Plain, changes: Vec<Change>| {
            for change in changes {
                plain.apply(change);
            }
        };
        let mut plain = Plain::default();
        made(&mut plain, before);
        let old = plain.state();
        made(&mut plain, between);
        let new = plain.state();
        let mut shared = old.clone();
        for (name, listener) in &new.listeners {
            if old.listeners.get(name) != Some(listener) {
                shared.listeners.insert_mut(name.clone(), listener.clone());
            }
        }
        for name in old.listeners.keys().filter(|name| !new.listeners.contains_key(*name)) {
            shared.listeners.remove_mut(name);
        }
        let shared = State { listeners: shared.listeners, ..new.clone() };
        let changes = old.diff(&new);
        prop_assert_eq!(&old.diff(&shared), &changes);
        prop_assert_eq!(&old.diff_of(&new, &Touched::between(&old, &new)), &changes);
        let (mut touched, mut again) = (Touched::default(), Plain::default());
        made(&mut again, State::default().diff(&old));
        for change in changes {
            touched.note(&change);
            prop_assert!(again.apply(change));
        }
        prop_assert_eq!(again.state(), new.clone());
        prop_assert_eq!(touched, Touched::between(&old, &new));
        prop_assert!(new.diff(&new.clone()).is_empty() && new.diff(&again.state()).is_empty());
    }
}
