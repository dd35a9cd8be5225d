//! Random changes of the state, of the kernel and of flows: what is made of them one by one is what would
//! be made of the whole.

use proptest::prelude::*;

use super::whole::Whole;
use super::*;

/// What may happen between two translations.
#[derive(Clone, Debug)]
enum Event {
    /// A transaction. One after which the state would not pass [`State::check`] is not committed.
    Change(Vec<feed::Change>),
    /// A listener has other policies and lets others in, and is the same but for that.
    Policies(u8, feed::Policies, Option<feed::SourceRanges>),
    /// The kernel has another address of another's, has lost it, or has a router.
    Kernel(u8, u8),
    /// The kernel has, or has lost, an address of ours.
    Ours(u8, bool),
    /// Flows of some of all listeners and backends ever numbered begin and end.
    Flows(u64),
    /// Every worker has gone over, and numbers are given back.
    Release,
    /// So many milliseconds pass.
    Later(u32),
    /// Another commit comes before the translation.
    Hurry,
}

/// A dozen addresses that listeners, members, pools and the kernel may all have, so that they meet.
fn address(n: u8) -> IpAddr {
    match n % 12 {
        n @ 0..=8 => [192, 0, 2, n + 1].into(),
        9 => ip("fe80::9"),
        n => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()]),
    }
}

fn any_listener() -> impl Strategy<Value = FedListener> {
    let ports = (1..8_u16, prop_oneof![4 => Just(0_u16), 1 => 1..3_u16]);
    let mode = prop_oneof![
        4 => Just(feed::Mode::FullNat),
        3 => Just(feed::Mode::Dnat),
        1 => Just(feed::Mode::L2Dsr),
        1 => Just(feed::Mode::Ipip)
    ];
    let where_to = (0..12_u8, any::<bool>(), ports);
    let pool = prop::option::weighted(0.3, 0..3_u8);
    let also = (any_policies(), any_ranges());
    (where_to, mode, 0..4_u8, pool, also).prop_map(
        |((vip, udp, (first, more)), mode, group, pool, (policies, ranges))| FedListener {
            vip: address(vip),
            protocol: if udp { feed::Protocol::Udp } else { feed::Protocol::Tcp },
            ports: PortRange::new(first, first + more).unwrap(),
            mode,
            affinity: feed::Affinity::Tuple,
            policies,
            source_ranges: ranges.filter(|_| address(vip).is_ipv4()),
            group: name(&format!("group/{group}")),
            snat_pool: pool.map(|pool| name(&format!("pool/{pool}"))),
        },
    )
}

/// Few, so that some stay the same.
fn any_ranges() -> impl Strategy<Value = Option<feed::SourceRanges>> {
    let ranges = (0..3_u8).prop_map(|length| {
        feed::SourceRanges::new(feed::Prefix::new([10, 0, 0, 0].into(), length)).unwrap()
    });
    prop::option::of(ranges)
}

/// Most keep their flows, so that at times all do.
fn any_policies() -> impl Strategy<Value = feed::Policies> {
    let on_removal = prop_oneof![
        4 => Just(feed::OnRemoval::Keep),
        1 => Just(feed::OnRemoval::Reset),
        1 => (1..100_000_u32).prop_map(|grace_ms| feed::OnRemoval::Expire { grace_ms })
    ];
    let on_exhaustion = prop_oneof![
        Just(feed::OnExhaustion::Reset),
        Just(feed::OnExhaustion::Icmp),
        Just(feed::OnExhaustion::Drop)
    ];
    let on_unknown = prop_oneof![Just(feed::OnUnknown::Drop), Just(feed::OnUnknown::Reset)];
    let mss_clamp = prop_oneof![
        2 => Just(feed::MssClamp::Auto),
        1 => Just(feed::MssClamp::Off),
        1 => (feed::MssClamp::LEAST_BYTES..=feed::MssClamp::MOST_BYTES).prop_map(|bytes| feed::MssClamp::Most { bytes })
    ];
    let timeouts = prop::option::weighted(0.3, 1000..9000_u32);
    let all = (on_removal, on_exhaustion, on_unknown, mss_clamp, timeouts);
    all.prop_map(|(on_removal, on_exhaustion, on_unknown, mss_clamp, ms)| feed::Policies {
        on_removal,
        on_exhaustion,
        on_unknown,
        mss_clamp,
        timeouts: ms
            .and_then(|ms| feed::Timeouts::default().with(feed::Silence::TcpReset, ms))
            .unwrap_or_default(),
    })
}

fn any_change() -> impl Strategy<Value = feed::Change> {
    use feed::Change as C;
    let named = |kind: &'static str, n: u8| (0..n).prop_map(move |n| name(&format!("{kind}/{n}")));
    let (listener, group, pool) =
        (move || named("listener", 8), move || named("group", 4), move || named("pool", 3));
    // Members seldom have an address that a listener may have.
    let member = || {
        let addresses = prop_oneof![
            1 => (0..12_u8).prop_map(address),
            6 => (0..9_u8).prop_map(|n| [10, 0, 0, n + 1].into()),
            1 => (0..3_u8).prop_map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, n.into()]))
        ];
        (addresses, 80..82_u16).prop_map(SocketAddr::from)
    };
    let snat = || prop_oneof![3 => (0..6_u8).prop_map(|n| [10, 0, 9, n].into()), 1 => (0..12_u8).prop_map(address)];
    prop_oneof![
        8 => (listener(), any_listener()).prop_map(|(name, listener)| C::PutListener { name, listener }),
        2 => listener().prop_map(|name| C::RemoveListener { name }),
        3 => (group(), 0..2_u32).prop_map(|(name, refused_weight)| C::PutGroup { name, refused_weight }),
        1 => group().prop_map(|name| C::RemoveGroup { name }),
        8 => (group(), member(), 0..3_u32, any::<bool>()).prop_map(|(group, address, weight, draining)| {
            C::PutMember { group, address, member: FedMember { weight, draining } }
        }),
        4 => (group(), member()).prop_map(|(group, address)| C::RemoveMember { group, address }),
        2 => pool().prop_map(|name| C::PutSnatPool { name }),
        1 => pool().prop_map(|name| C::RemoveSnatPool { name }),
        3 => (pool(), snat()).prop_map(|(pool, address)| C::PutSnatAddress { pool, address }),
        2 => (pool(), snat()).prop_map(|(pool, address)| C::RemoveSnatAddress { pool, address }),
        1 => (0..6_u8, 0..12_u8).prop_map(|(to, via)| C::PutNextHop {
            address: [203, 0, 113, to].into(),
            next_hop: feed::NextHop { via: address(via) },
        }),
        1 => (0..6_u8).prop_map(|to| C::RemoveNextHop { address: [203, 0, 113, to].into() }),
        3 => (0..12_u8).prop_map(|n| C::PutVip { address: address(n) }),
        2 => (0..12_u8).prop_map(|n| C::RemoveVip { address: address(n) }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => prop::collection::vec(any_change(), 1..4).prop_map(Event::Change),
        4 => (0..8_u8, any_policies(), any_ranges())
            .prop_map(|(of, policies, ranges)| Event::Policies(of, policies, ranges)),
        1 => (0..12_u8, 0..4_u8).prop_map(|(at, what)| Event::Kernel(at, what)),
        1 => (0..12_u8, any::<bool>()).prop_map(|(at, there)| Event::Ours(at, there)),
        2 => any::<u64>().prop_map(Event::Flows),
        3 => Just(Event::Release),
        3 => (1..20_000_u32).prop_map(Event::Later),
        2 => Just(Event::Hurry),
    ]
}

/// Groups, pools and listeners that may stand beside each other: what random changes seldom come to.
fn a_start() -> Vec<feed::Change> {
    use feed::Change as C;
    let groups =
        (0..4).map(|n| C::PutGroup { name: name(&format!("group/{n}")), refused_weight: 0 });
    let member = |n: u8| C::PutMember {
        group: name(&format!("group/{}", n % 4)),
        address: SocketAddr::from(([10, 0, 0, n + 1], 80)),
        member: FedMember { weight: 1, draining: false },
    };
    let pools = (0..3).map(|n| C::PutSnatPool { name: name(&format!("pool/{n}")) });
    let pooled = (0..6_u8).map(|n| C::PutSnatAddress {
        pool: name(&format!("pool/{}", n % 3)),
        address: [10, 0, 9, n].into(),
    });
    let listener = |n: u8| C::PutListener {
        name: name(&format!("listener/{n}")),
        listener: FedListener {
            vip: address(n / 2),
            ports: PortRange::single(u16::from(n) + 1).unwrap(),
            group: name(&format!("group/{}", n % 4)),
            snat_pool: n.is_multiple_of(3).then(|| name(&format!("pool/{}", n % 2))),
            ..listener(
                "192.0.2.1",
                if n.is_multiple_of(2) { feed::Mode::FullNat } else { feed::Mode::Dnat },
                "g",
            )
        },
    };
    groups
        .chain((0..8).map(member))
        .chain(pools)
        .chain(pooled)
        .chain((0..6).map(listener))
        .collect()
}

/// A state with a change made to it, or none if it cannot be.
fn changed(state: &State, changes: &[feed::Change]) -> Option<State> {
    use penstock_feed::transaction::{Outcome, Transactions};
    let mut transactions = Transactions::new(1, Arc::new(state.clone()));
    let begin = feed::Begin { epoch: 1, generation: 2, base: Some((1, state.digest())) };
    let mut records = vec![feed::Record::Begin(begin)];
    records.extend(changes.iter().cloned().map(feed::Record::Change));
    for record in records {
        match transactions.take(record, 1) {
            Ok(Outcome::Open) => {}
            _ => return None,
        }
    }
    let mut next = state.clone();
    for change in changes {
        apply(&mut next, change.clone())?;
    }
    next.check().is_empty().then_some(next)
}

fn apply(state: &mut State, change: feed::Change) -> Option<()> {
    use feed::Change as C;
    match change {
        C::PutListener { name, listener } => state.listeners.insert_mut(name, listener),
        C::RemoveListener { name } => _ = state.listeners.remove_mut(&name),
        C::PutGroup { name, refused_weight } => {
            let mut group = state.groups.get(&name).cloned().unwrap_or_default();
            Arc::make_mut(&mut group).refused_weight = refused_weight;
            state.groups.insert_mut(name, group);
        }
        C::RemoveGroup { name } => _ = state.groups.remove_mut(&name),
        C::PutMember { group, address, member } => {
            Arc::make_mut(state.groups.get_mut(&group)?).members.insert(address, member);
        }
        C::RemoveMember { group, address } => {
            Arc::make_mut(state.groups.get_mut(&group)?).members.remove(&address);
        }
        C::PutSnatPool { name } => {
            let pool = state.snat_pools.get(&name).cloned().unwrap_or_default();
            state.snat_pools.insert_mut(name, pool);
        }
        C::RemoveSnatPool { name } => _ = state.snat_pools.remove_mut(&name),
        C::PutSnatAddress { pool, address } => {
            state.snat_pools.get_mut(&pool)?.addresses.insert(address);
        }
        C::RemoveSnatAddress { pool, address } => {
            state.snat_pools.get_mut(&pool)?.addresses.remove(&address);
        }
        C::PutNextHop { address, next_hop } => state.next_hops.insert_mut(address, next_hop),
        C::RemoveNextHop { address } => _ = state.next_hops.remove_mut(&address),
        C::PutVip { address } => state.vips.insert_mut(address, ()),
        C::RemoveVip { address } => _ = state.vips.remove_mut(&address),
        other => panic!("{other:?} is the L7 tier's"),
    }
    Some(())
}

/// Both translations, and what they are given.
struct Pair {
    bench: Bench,
    whole: Whole,
    state: Arc<State>,
    view: KernelView,
    flows: BTreeSet<String>,
}

impl Pair {
    fn new() -> Self {
        let capacities = [10, 14];
        let mut bench = Bench::with_snat(snat(&[SNAT]));
        bench.translator.listeners = Slots::new(capacities[0]);
        bench.translator.groups = Groups::new(capacities[1]);
        let whole = Whole::new([SNAT].into(), capacities);
        Self { bench, whole, state: Arc::default(), view: on_the_lan(), flows: BTreeSet::new() }
    }

    /// Whether a translation is due.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Change(changes) => {
                if let Some(next) = changed(&self.state, &changes) {
                    self.state = Arc::new(next);
                }
            }
            Event::Policies(of, policies, ranges) => {
                let mut next = State::clone(&self.state);
                if let Some(listener) = next.listeners.get_mut(&name(&format!("listener/{of}"))) {
                    listener.policies = policies;
                    listener.source_ranges = ranges.filter(|_| listener.vip.is_ipv4());
                    self.state = Arc::new(next);
                }
            }
            Event::Kernel(at, what) => {
                let mut addresses = self.view.addresses.to_vec();
                let own =
                    kernel_address(1 + u32::from(what % 2) * 6, &format!("{}/32", address(at)));
                match addresses.iter().position(|held| held.address == own.address) {
                    Some(at) => drop(addresses.remove(at)),
                    None => addresses.push(own),
                }
                match what {
                    3 => self.view.routers = [address(at)].into(),
                    _ => self.view.addresses = addresses.into(),
                }
            }
            Event::Ours(at, true) => self.view.ours.insert_mut((address(at), Ifindex(7), 32)),
            Event::Ours(at, false) => _ = self.view.ours.remove_mut(&(address(at), Ifindex(7), 32)),
            Event::Flows(seed) => self.set_flows(seed),
            Event::Release => {
                self.translate(); // workers have gone over to what is known
                self.release();
            }
            Event::Later(ms) => self.bench.now = self.bench.now.plus_ms(ms),
            Event::Hurry => return false,
        }
        true
    }

    fn set_flows(&mut self, seed: u64) {
        let Pair { bench, whole, flows, .. } = self;
        let drawn = |text: &String| {
            let hash = text
                .bytes()
                .fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
            hash >> 32 & 3 == 0
        };
        let listeners = whole.listeners.0.values().map(|key| format!("{key:?}"));
        let backends = whole.backends.0.values().map(|key| format!("{key:?}"));
        *flows = listeners.chain(backends).filter(drawn).collect();
        for row in 0..20 {
            let of = |key: Option<String>| u64::from(key.is_some_and(|key| flows.contains(&key)));
            let key = bench.translator.listeners.key(row).map(|key| format!("{key:?}"));
            bench.set_listener_flows(ListenerSlot(row), of(key));
            let key = bench.translator.groups.key(row).map(|key| format!("{key:?}"));
            bench.set_flows(BackendId(row), of(key));
        }
    }

    fn release(&mut self) {
        let Pair { bench, whole, flows, .. } = self;
        let less = bench.release_unused();
        let has_flows = |key: String| flows.contains(&key);
        let expected = whole.release_unused(
            |key| has_flows(format!("{key:?}")),
            |key| has_flows(format!("{key:?}")),
        );
        assert_eq!(less, expected, "whether the next translation says less");
    }

    /// Translates both ways, and compares.
    fn translate(&mut self) {
        let now = self.bench.translate_under(&self.view, &self.state);
        let (snapshot, errors, addresses) =
            self.whole.translate(&self.state, &self.view, self.bench.now);
        let [now_errors, errors] = [&now.errors, &errors].map(|errors| texts(errors));
        assert_eq!(now_errors, errors);
        assert_eq!(now.addresses.iter().copied().collect::<BTreeSet<_>>(), addresses);
        self.compare_ends([&now.snapshot, &snapshot]);
        self.compare_timeouts([&now.snapshot, &snapshot]);
        let all = (0..12).map(address).chain((0..10).map(|n| [10, 0, 0, n].into()));
        let all = all
            .chain((0..6).map(|n| [10, 0, 9, n].into()))
            .chain((0..3).map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, n])));
        for at in all.chain([SNAT, ip("192.0.2.9"), ip("192.0.2.254"), ip("192.0.2.255")]) {
            let said = |snapshot: &Snapshot| {
                [
                    snapshot.is_vip(at),
                    snapshot.is_departed_vip(at),
                    snapshot.is_snat(at),
                    snapshot.is_local(at),
                    snapshot.is_own(at),
                    snapshot.is_no_source(at),
                    snapshot.is_dnat_address(at),
                ]
            };
            assert_eq!(said(&now.snapshot), said(&snapshot), "{at}");
            for port in (0..12).chain([80, 81]) {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    self.compare_at(
                        SocketAddr::new(at, port),
                        protocol,
                        [&now.snapshot, &snapshot],
                    );
                }
            }
        }
    }

    /// When flows of a listener to a backend end, whoever of them is served and whoever has gone.
    fn compare_ends(&self, [now, whole]: [&Snapshot; 2]) {
        let (now, whole) = match (now.removals(), whole.removals()) {
            (Some(now), Some(whole)) => (now, whole),
            (now, whole) => return assert_eq!(now.is_some(), whole.is_some(), "whether any end"),
        };
        let Pair {
            bench: Bench { translator, .. }, whole: Whole { listeners, backends, .. }, ..
        } = self;
        for (row, slot) in (0..20).zip((0..20).map(ListenerSlot)) {
            let Some(key) = translator.listeners.key(row) else { continue };
            let other = ListenerSlot(listeners.number(key).expect("a listener of both"));
            for id in 0..20 {
                let Some(backend) = translator.groups.key(id) else { continue };
                let other_id = backends.number(backend).expect("a backend of both");
                let ends = [now.end(slot, BackendId(id)), whole.end(other, BackendId(other_id))];
                assert_eq!(ends[0], ends[1], "{key:?} to {backend:?}");
            }
            let ends = [now.end_of_shut_out(slot), whole.end_of_shut_out(other)];
            assert_eq!(ends[0], ends[1], "{key:?}, shut out");
        }
    }

    /// How long flows may be silent, of listeners that are served and of those that have gone.
    fn compare_timeouts(&self, [now, whole]: [&Snapshot; 2]) {
        let Pair { bench: Bench { translator, .. }, whole: Whole { listeners, .. }, .. } = self;
        for row in 0..20 {
            let Some(key) = translator.listeners.key(row) else { continue };
            let other = ListenerSlot(listeners.number(key).expect("a listener of both"));
            assert_eq!(now.timeouts_of(ListenerSlot(row)), whole.timeouts_of(other), "{key:?}");
        }
    }

    fn compare_at(&self, at: SocketAddr, protocol: Protocol, [now, whole]: [&Snapshot; 2]) {
        let said = |snapshot: &Snapshot| {
            [snapshot.is_departed(at, protocol), snapshot.is_dnat_backend(at, protocol)]
        };
        assert_eq!(said(now), said(whole), "{at} {protocol:?}");
        let (now, whole) = (now.listener_of(at, protocol), whole.listener_of(at, protocol));
        let (Some(now), Some(whole)) = (now, whole) else {
            assert_eq!(now.is_some(), whole.is_some(), "{at} {protocol:?}");
            return;
        };
        let translator = &self.bench.translator;
        let keys =
            (translator.listeners.key(now.slot.0), self.whole.listeners.0.get(&whole.slot.0));
        assert_eq!(keys.0, keys.1, "{at} {protocol:?}");
        let facts = |listener: &Listener| {
            let policies = (listener.on_exhaustion, listener.on_unknown, listener.mss_clamp);
            let ranges = listener.source_ranges.clone();
            (listener.mode, listener.affinity, policies, ranges, listener.snat.clone())
        };
        assert_eq!(facts(now), facts(whole), "{at} {protocol:?}");
        let (members, expected) = (now.group.members(), whole.group.members());
        assert_eq!(members.len(), expected.len(), "{at} {protocol:?}");
        for (member, expected) in members.iter().zip(expected) {
            let keys =
                (translator.groups.key(member.id.0), self.whole.backends.0.get(&expected.id.0));
            assert!(keys.0.is_some() && keys.0 == keys.1, "{keys:?} is a backend of {at}");
            let of_both = Member { id: BackendId(0), ..*member };
            assert_eq!(of_both, Member { id: BackendId(0), ..*expected }, "{at} {protocol:?}");
        }
        assert_eq!(now.group.digest(), whole.group.digest(), "{at} {protocol:?}");
    }
}

/// The errors in words, without the numbers of listeners, which may differ.
fn texts(errors: &[ObjectError]) -> Vec<String> {
    let without_number = |error: &ObjectError| {
        let parts: Vec<_> = error.to_string().split("ListenerSlot(").map(str::to_owned).collect();
        let rest = |part: &String| part.split_once(')').map(|(_, rest)| rest.to_owned());
        let first = parts[0].clone();
        parts[1..].iter().filter_map(rest).fold(first, |text, rest| text + "a listener" + &rest)
    };
    errors.iter().map(without_number).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_time: 120_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_made_of_changes_is_what_would_be_made_of_the_whole(
        events in prop::collection::vec(any_event(), 1..40),
    ) {
        let mut pair = Pair::new();
        for event in [Event::Change(a_start())].into_iter().chain(events) {
            if pair.take(event) {
                pair.translate();
            }
        }
    }
}
