//! States: a plain one of any size, and random ones that a data plane can commit.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use penstock_feed::{
    Affinity, Group, Listener, Member, Mode, MssClamp, Name, NextHop, OnExhaustion, OnRemoval,
    OnUnknown, Policies, PortRange, Prefix, Protocol, Silence, SnatPool, SourceRanges, State,
    Timeouts,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// One listener and its group of `members`.
pub(crate) fn a_state(members: u32) -> Arc<State> {
    let mut state = State::default();
    let listener = Listener {
        vip: IpAddr::from([192, 0, 2, 10]),
        protocol: Protocol::Tcp,
        ports: PortRange::single(80).unwrap(),
        mode: Mode::FullNat,
        group: name("default/route/0"),
        affinity: Affinity::Tuple,
        policies: Policies::default(),
        source_ranges: None,
        snat_pool: None,
    };
    state.listeners.insert_mut(name("default/web/http"), listener);
    let address = |n: u32| SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + n), 8080));
    let members = (1..=members).map(|n| (address(n), Member { weight: n, draining: false }));
    let group = Group { members: members.collect(), refused_weight: 0 };
    state.groups.insert_mut(name("default/route/0"), Arc::new(group));
    Arc::new(state)
}

prop_compose! {
    fn any_address()(v6: bool, last in 1..6_u8) -> IpAddr {
        if v6 { IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)]) } else { [10, 0, 0, last].into() }
    }
}

prop_compose! {
    fn any_group()(
        members in btree_map((any_address(), 1..3_u16).prop_map(SocketAddr::from), (0..3_u32, any::<bool>()), 0..5),
        refused_weight in 0..2_u32,
    ) -> Group {
        let member = |(weight, draining)| Member { weight, draining };
        Group { members: members.into_iter().map(|(address, m)| (address, member(m))).collect(), refused_weight }
    }
}

fn some_timeouts(n: u8) -> Timeouts {
    Timeouts::default().with(Silence::UdpOneWay, u32::from(n) * 1000).unwrap_or_default()
}

fn some_ranges(length: u8) -> SourceRanges {
    SourceRanges::new(Prefix::new([10, 0, 0, 0].into(), length)).unwrap()
}

/// A state of few names, so that the next one shares some of them, that passes `State::check`.
pub(crate) fn any_state() -> impl Strategy<Value = Arc<State>> {
    let groups = btree_map(0..4_u8, any_group(), 1..4);
    let pools = btree_map(0..3_u8, btree_set(any_address(), 0..3), 0..3);
    let hops = btree_map(any_address(), any_address(), 0..3);
    let listeners = vec((0..6_u8, any::<[bool; 3]>(), any::<prop::sample::Index>()), 0..5);
    let vips = btree_set(any_address(), 0..3);
    (groups, pools, hops, listeners, vips).prop_map(|(groups, pools, hops, listeners, vips)| {
        let mut state = State::default();
        for (n, group) in groups {
            state.groups.insert_mut(name(&format!("group/{n}")), Arc::new(group));
        }
        for (n, addresses) in pools {
            state.snat_pools.insert_mut(name(&format!("pool/{n}")), SnatPool { addresses });
        }
        state.vips = vips.into_iter().map(|address| (address, ())).collect();
        state.next_hops =
            hops.into_iter().map(|(address, via)| (address, NextHop { via })).collect();
        for (n, [udp, dnat, pool], group) in listeners {
            let listener = Listener {
                vip: [192, 0, 2, n % 2 + 1].into(),
                protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                ports: PortRange::new(u16::from(n) * 10 + 1, u16::from(n) * 10 + 5).unwrap(),
                mode: if dnat { Mode::Dnat } else { Mode::FullNat },
                affinity: if pool {
                    Affinity::Source { bits: n % 32 + 1 }
                } else {
                    Affinity::Tuple
                },
                policies: Policies {
                    on_removal: OnRemoval::expire(n.into()).unwrap_or_default(),
                    on_exhaustion: OnExhaustion::ALL[usize::from(n) % 3],
                    on_unknown: OnUnknown::ALL[usize::from(n) % 2],
                    mss_clamp: MssClamp::most(u16::from(n) * 100).unwrap_or_default(),
                    timeouts: some_timeouts(n),
                },
                source_ranges: (n % 3 == 0).then(|| some_ranges(n)),
                group: group.get(&state.groups.keys().collect::<Vec<_>>()).to_owned().clone(),
                snat_pool: state.snat_pools.keys().next().filter(|_| pool).cloned(),
            };
            state.listeners.insert_mut(name(&format!("listener/{n}")), listener);
        }
        Arc::new(state)
    })
}
