use proptest::prelude::*;

use super::*;
use crate::decode::{decode, record_bytes};
use crate::digest::Digest;
use crate::model::{Affinity, Clients, Pem, Policies, PortRange, Prefix, Timeouts, Tls};
use crate::record::{Begin, Commit, MAX_RECORD_BYTES};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn any_name() -> impl Strategy<Value = Name> {
    prop_oneof!["[a-z/]{1,30}", "\\PC{1,20}", "é{300}"]
        .prop_filter_map("a control character", |text| Name::new(&text).ok())
}

fn any_policies() -> impl Strategy<Value = Policies> {
    let most = OnRemoval::MOST_GRACE_MS;
    let on_removal = prop_oneof![
        Just(OnRemoval::Keep),
        Just(OnRemoval::Reset),
        (1..=most).prop_map(|grace_ms| OnRemoval::Expire { grace_ms }),
    ];
    let mss_clamp = prop_oneof![
        Just(MssClamp::Auto),
        Just(MssClamp::Off),
        (MssClamp::LEAST_BYTES..=MssClamp::MOST_BYTES).prop_map(|bytes| MssClamp::Most { bytes }),
    ];
    let others = (prop::sample::select(&OnExhaustion::ALL), prop::sample::select(&OnUnknown::ALL));
    (on_removal, others, mss_clamp, any_timeouts()).prop_map(
        |(on_removal, (on_exhaustion, on_unknown), mss_clamp, timeouts)| Policies {
            on_removal,
            on_exhaustion,
            on_unknown,
            mss_clamp,
            timeouts,
        },
    )
}

fn any_l7_change() -> impl Strategy<Value = Change> {
    let id = || any::<u128>().prop_map(PemId::from_bits);
    let hostname = prop::option::of("(\\*\\.)?[a-z]{1,9}(\\.[a-z0-9]{1,9}){0,3}");
    let clients = prop::option::of((id(), any::<bool>()));
    let certificates = prop::collection::vec(id(), 0..=limits::CERTIFICATES);
    let tls = prop::option::of((certificates, clients));
    let address = any::<(IpAddr, u16)>().prop_map(SocketAddr::from);
    let listener = (any_name(), address, hostname, tls);
    let listener = listener.prop_map(|(name, address, hostname, tls)| {
        let speaks = tls.map_or(Speaks::Http, |(certificates, clients)| {
            let mode = |insecure| match insecure {
                true => ClientMode::InsecureFallback,
                false => ClientMode::Required,
            };
            let clients = clients
                .map(|(authorities, insecure)| Clients { authorities, mode: mode(insecure) });
            Speaks::Https(Tls { certificates, clients })
        });
        let hostname = hostname.map(|text| Hostname::new(&text).unwrap());
        Change::PutL7Listener { name, listener: L7Listener { address, hostname, speaks } }
    });
    let part = prop::collection::vec(any::<u8>(), 1..=Pem::PART_BYTES);
    prop_oneof![
        listener,
        any_name().prop_map(|name| Change::RemoveL7Listener { name }),
        id().prop_map(|pem| Change::PutPem { pem }),
        id().prop_map(|pem| Change::RemovePem { pem }),
        (id(), any::<u16>(), part).prop_map(|(pem, index, part)| Change::PutPemPart {
            pem,
            index,
            part: Secret::new(&part)
        }),
    ]
}

fn any_timeouts() -> impl Strategy<Value = Timeouts> {
    let one = prop::option::weighted(0.3, Timeouts::LEAST_MS..=Timeouts::MOST_MS);
    prop::array::uniform6(one).prop_map(|all| {
        let said = Silence::ALL.into_iter().zip(all).filter_map(|(it, ms)| Some((it, ms?)));
        said.fold(Timeouts::default(), |timeouts, (it, ms)| timeouts.with(it, ms).unwrap())
    })
}

fn any_source_ranges() -> impl Strategy<Value = Option<SourceRanges>> {
    let prefix = any::<(IpAddr, u8)>();
    let prefix = prefix.prop_map(|(address, length)| Prefix::new(address, length % 33).unwrap());
    let ranges = prop::collection::vec(prefix, 0..=SourceRanges::MOST);
    prop::option::weighted(0.3, ranges.prop_map(|ranges| SourceRanges::new(ranges).unwrap()))
}

fn any_change() -> impl Strategy<Value = Change> {
    let listener = (
        any_name(),
        (any::<(IpAddr, u8, bool, usize, u16, u16)>(), any_policies(), any_source_ranges()),
        any_name(),
        prop::option::of(any_name()),
    );
    let listener =
        listener.prop_map(|(name, (fixed, policies, source_ranges), group, snat_pool)| {
            let (vip, bits, udp, mode, a, b) = fixed;
            let (first, last) = (a.min(b).max(1), a.max(b).max(1));
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let mode = Mode::ALL[mode % Mode::ALL.len()];
            let affinity = Affinity::source(bits, vip).unwrap_or_default();
            let ports = PortRange::new(first, last).unwrap();
            Change::PutListener {
                name,
                listener: Listener {
                    vip,
                    protocol,
                    ports,
                    mode,
                    affinity,
                    policies,
                    source_ranges,
                    group,
                    snat_pool,
                },
            }
        });
    let address = || any::<(IpAddr, u16)>().prop_map(SocketAddr::from);
    let member = any::<(u32, bool)>().prop_map(|(weight, draining)| Member { weight, draining });
    prop_oneof![
        listener,
        any_name().prop_map(|name| Change::RemoveListener { name }),
        (any_name(), any::<u32>())
            .prop_map(|(name, refused_weight)| Change::PutGroup { name, refused_weight }),
        any_name().prop_map(|name| Change::RemoveGroup { name }),
        (any_name(), address(), member).prop_map(|(group, address, member)| Change::PutMember {
            group,
            address,
            member
        }),
        (any_name(), address())
            .prop_map(|(group, address)| Change::RemoveMember { group, address }),
        any_name().prop_map(|name| Change::PutSnatPool { name }),
        any_name().prop_map(|name| Change::RemoveSnatPool { name }),
        (any_name(), any::<IpAddr>())
            .prop_map(|(pool, address)| Change::PutSnatAddress { pool, address }),
        (any_name(), any::<IpAddr>())
            .prop_map(|(pool, address)| Change::RemoveSnatAddress { pool, address }),
        any::<(IpAddr, IpAddr)>()
            .prop_map(|(address, via)| Change::PutNextHop { address, next_hop: NextHop { via } }),
        any::<IpAddr>().prop_map(|address| Change::RemoveNextHop { address }),
        any::<IpAddr>().prop_map(|address| Change::PutVip { address }),
        any::<IpAddr>().prop_map(|address| Change::RemoveVip { address }),
        any_l7_change(),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    let base = prop::option::of(any::<(u64, u128)>());
    let begin = (any::<(u64, u64)>(), base).prop_map(|((epoch, generation), base)| {
        let base = base.map(|(generation, digest)| (generation, Digest::from_bits(digest)));
        Record::Begin(Begin { epoch, generation, base })
    });
    let commit = any::<(u64, u128, u64)>().prop_map(|(generation, digest, changes)| {
        Record::Commit(Commit { generation, digest: Digest::from_bits(digest), changes })
    });
    static KINDS: [ObjectKind; 6] = [
        ObjectKind::Listener,
        ObjectKind::Group,
        ObjectKind::SnatPool,
        ObjectKind::NextHop,
        ObjectKind::Vip,
        ObjectKind::L7Listener,
    ];
    let error = (prop::sample::select(&KINDS[..]), any_name(), ".{0,40}").prop_map(
        |(kind, name, message)| {
            Record::AckError(ObjectError { object: ObjectId { kind, name }, message })
        },
    );
    let ack = (any::<(u64, u128, u32, bool)>(), prop::option::of((any::<u64>(), ".{0,40}")));
    let ack = ack.prop_map(|((generation, digest, errors, wants_snapshot), refused)| {
        let digest = Digest::from_bits(digest);
        Record::Ack(AckRecord { generation, digest, errors, wants_snapshot, refused })
    });
    prop_oneof![6 => any_change().prop_map(Record::Change), 1 => begin, 1 => commit, 1 => error, 1 => ack]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_record_comes_back_as_it_was(records in prop::collection::vec(any_record(), 1..5)) {
        let mut bytes = Vec::new();
        for record in &records {
            encode(record, &mut bytes);
        }
        let mut rest = &bytes[..];
        for record in &records {
            let length = record_bytes(*rest.first_chunk().unwrap()).unwrap();
            prop_assert!(length.is_multiple_of(8) && length <= MAX_RECORD_BYTES);
            let (decoded, after) = decode(rest).unwrap();
            prop_assert_eq!(&decoded, record);
            prop_assert_eq!(rest.len() - after.len(), length);
            rest = after;
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_record_cut_anywhere_or_with_a_byte_changed_is_an_error_or_another_record(
        record in any_record(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        let at = at.index(bytes.len());
        prop_assert!(decode(&bytes[..at]).is_err());
        bytes[at] = byte;
        if let Ok((decoded, rest)) = decode(&bytes) {
            let mut again = Vec::new();
            encode(&decoded, &mut again);
            prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()], "one meaning, one encoding");
        }
    }
}

/// A member's record, to spoil: header 8, address 17, port 2, weight 4, draining 1, then the name.
fn a_member() -> Vec<u8> {
    let member = Member { weight: 7, draining: true };
    let address = "10.0.0.1:80".parse().unwrap();
    let mut bytes = Vec::new();
    encode(
        &Record::Change(Change::PutMember { group: name("group"), address, member }),
        &mut bytes,
    );
    bytes
}

/// What is wrong with a record, a row each: which byte becomes what, and the words for it.
#[test]
fn a_wrong_byte_is_named() {
    for (promise, at, byte, expected) in [
        (
            "another version",
            0,
            9,
            "a record of version 9, this end speaks feed 5: upgrade the older of the two",
        ),
        ("an unknown kind", 1, 200, "kind 200 is no record of feed 5"),
        (
            "something in the reserved bytes",
            3,
            1,
            "Member: field padding holds bytes other than zero",
        ),
        ("too long", 6, 1, "a body of 65565 bytes is longer than a record may be (8192 in all)"),
        ("shorter by one", 4, 28, "Member: field padding holds bytes other than zero"),
        ("no room for the name", 4, 20, "Member: field padding holds bytes other than zero"),
        ("a family of five", 8, 5, "Member: field address family holds 5"),
        (
            "bytes after an IPv4 address",
            13,
            1,
            "Member: field address holds an IPv4 address with bytes after it",
        ),
        ("a flag of two", 31, 2, "Member: field draining holds 2"),
        (
            "a control character",
            32,
            7,
            "Member: field name holds a name holds the control character '\\u{7}' at byte 0: only printable text is allowed",
        ),
        (
            "no UTF-8",
            32,
            0xff,
            "Member: field name holds invalid utf-8 sequence of 1 bytes from index 0",
        ),
        ("something in the padding", 39, 1, "Member: field padding holds bytes other than zero"),
    ] {
        let mut bytes = a_member();
        assert_eq!(bytes.len(), 40);
        bytes[at] = byte;
        assert_eq!(decode(&bytes).unwrap_err().to_string(), expected, "{promise}");
    }
    assert!(decode(&a_member()).is_ok());
    let truncated = decode(&a_member()[..39]).unwrap_err();
    assert_eq!(truncated.to_string(), "a record of 39 bytes ends early: 40 are needed");
}

/// Where the policies and source ranges of a listener lie, and what they cannot be.
#[test]
fn a_policy_that_nobody_knows_is_named() {
    let listener = Listener {
        vip: [192, 0, 2, 10].into(),
        protocol: Protocol::Tcp,
        ports: PortRange::single(80).unwrap(),
        mode: Mode::FullNat,
        affinity: Affinity::Tuple,
        policies: Policies {
            on_removal: OnRemoval::Expire { grace_ms: 30_000 },
            on_exhaustion: OnExhaustion::Icmp,
            on_unknown: OnUnknown::Reset,
            mss_clamp: MssClamp::Most { bytes: 1400 },
            timeouts: Timeouts::default().with(Silence::UdpReplied, 60_000).unwrap(),
        },
        source_ranges: SourceRanges::new(
            [[10, 0, 0, 0], [11, 0, 0, 0]].map(|at| Prefix::new(at.into(), 8).unwrap()),
        )
        .ok(),
        group: name("g"),
        snat_pool: None,
    };
    let mut bytes = Vec::new();
    encode(&Record::Change(Change::PutListener { name: name("l"), listener }), &mut bytes);
    let policies = [0, 2, 0x30, 0x75, 0, 0, 1, 1, 0x78, 5];
    assert_eq!(bytes[61..65], [0x60, 0xea, 0, 0], "the last of six timeouts");
    assert_eq!(bytes[27..37], policies, "affinity, then policies");
    for (promise, changes, expected) in [
        ("another removal", &[(28, 3)][..], "Listener: field on_removal holds 3"),
        ("a grace of nothing", &[(29, 0), (30, 0)], "Listener: field grace_ms holds 0"),
        ("a grace of 49 days", &[(32, 0xff)], "Listener: field grace_ms holds 4278220080"),
        ("a grace of what is kept", &[(28, 0)], "Listener: field grace_ms holds 30000"),
        ("a grace of what is reset", &[(28, 1)], "Listener: field grace_ms holds 30000"),
        ("another exhaustion", &[(33, 3)], "Listener: field on_exhaustion holds 3"),
        ("another unknown", &[(34, 2)], "Listener: field on_unknown holds 2"),
        ("an MSS of 535", &[(35, 0x17), (36, 2)], "Listener: field mss_clamp holds 535"),
        (
            "an MSS of nearly 64 KiB",
            &[(35, 0xfe), (36, 0xff)],
            "Listener: field mss_clamp holds 65534",
        ),
        (
            "a timeout of less than a second",
            &[(41, 1)],
            "Listener: field timeouts_ms holds tcp-established 1 ms",
        ),
        (
            "one of more than a week",
            &[(64, 0x25)],
            "Listener: field timeouts_ms holds udp-replied 620816992 ms",
        ),
        ("257 source ranges", &[(72, 1), (71, 1)], "Listener: field source_ranges holds 257"),
        (
            "host bits",
            &[(77, 1)],
            "Listener: field source_ranges holds 10.1.0.0/8, which is no network",
        ),
        (
            "more bits than an address has",
            &[(92, 33)],
            "Listener: field source_ranges holds 10.0.0.0/33, which is no network",
        ),
        (
            "out of order",
            &[(76, 12)],
            "Listener: field source_ranges holds networks out of order, or within others",
        ),
        (
            "one network twice",
            &[(76, 11)],
            "Listener: field source_ranges holds networks out of order, or within others",
        ),
        (
            "one range less than there are",
            &[(71, 1)],
            "Listener: its body has 103 bytes, which its fields do not add up to",
        ),
    ] {
        let mut bytes = bytes.clone();
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        assert_eq!(decode(&bytes).unwrap_err().to_string(), expected, "{promise}");
    }
    assert!(decode(&bytes).is_ok());
}

#[test]
fn a_message_too_long_is_cut_between_characters() {
    let object = ObjectId { kind: ObjectKind::Group, name: name("g") };
    let message = "x".to_owned() + &"ü".repeat(1000);
    let mut bytes = Vec::new();
    encode(&Record::AckError(ObjectError { object, message: message.clone() }), &mut bytes);
    let Ok((Record::AckError(error), _)) = decode(&bytes) else { panic!("no error record") };
    assert_eq!(error.message, message[..1023]);
}

/// The bytes of feed version 5, so that no release changes them unawares.
#[test]
fn the_encoding_is_this() {
    assert_eq!(
        a_member(),
        [
            &[5, 20, 0, 0, 29, 0, 0, 0][..],
            &[4, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[80, 0, 7, 0, 0, 0, 1],
            b"group\0\0\0",
        ]
        .concat()
    );
}
