//! The model to records; `decode` is the way back.
//!
//! Encoding appends to a buffer of the caller's and cannot fail, since the model's types hold only
//! what a record can.

use std::net::{IpAddr, SocketAddr};

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64, U128};

use crate::model::{
    Affinity, Change, ClientMode, Hostname, L7Listener, Listener, Member, Mode, MssClamp, Name,
    NextHop, ObjectError, ObjectId, ObjectKind, OnExhaustion, OnRemoval, OnUnknown, PemId,
    Protocol, Secret, Silence, SourceRanges, Speaks, limits,
};
use crate::record::{
    AckBody, AckErrorBody, AckRecord, Address, BeginBody, CommitBody, FEED_VERSION, Fixed,
    GroupBody, HEADER_BYTES, Header, Kind, L7ListenerBody, ListenerBody, MAX_MESSAGE_BYTES,
    MemberBody, NextHopBody, PemBody, PemPartBody, PrefixBody, Record, RemoveMemberBody,
    RemoveNextHopBody, SnatAddressBody, VipBody,
};

/// Appends `record` with header and padding.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let kind = body(record, out);
    let length = u32::try_from(out.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
    let header = Header {
        version: FEED_VERSION,
        kind: kind as u8,
        zero: U16::ZERO,
        length: U32::new(length),
    };
    out[start..start + HEADER_BYTES].copy_from_slice(header.as_bytes());
    out.resize(start + (out.len() - start).next_multiple_of(8), 0);
}

fn body(record: &Record, out: &mut Vec<u8>) -> Kind {
    match record {
        Record::Begin(begin) => {
            let (generation, digest) = begin.base.unwrap_or_default();
            fixed(
                out,
                &BeginBody {
                    epoch: U64::new(begin.epoch),
                    generation: U64::new(begin.generation),
                    base_generation: U64::new(generation),
                    base_digest: U128::new(digest.to_bits()),
                    snapshot: u8::from(begin.base.is_none()),
                },
            );
            Kind::Begin
        }
        Record::Commit(commit) => {
            fixed(
                out,
                &CommitBody {
                    generation: U64::new(commit.generation),
                    digest: U128::new(commit.digest.to_bits()),
                    changes: U64::new(commit.changes),
                },
            );
            Kind::Commit
        }
        Record::Change(change) => change_body(change, out),
        Record::AckError(error) => ack_error(error, out),
        Record::Ack(ack) => ack_body(ack, out),
    }
}

fn fixed(out: &mut Vec<u8>, part: &impl Fixed) {
    out.extend_from_slice(part.as_bytes());
}

fn text(out: &mut Vec<u8>, name: &Name) {
    out.extend_from_slice(name.as_str().as_bytes());
}

fn name_length(name: &Name) -> U16 {
    U16::new(u16::try_from(name.as_str().len()).unwrap_or(u16::MAX)) // a name has at most 600 bytes
}

/// Appends the body of `change` and says its kind.
pub(crate) fn change_body(change: &Change, out: &mut Vec<u8>) -> Kind {
    match change {
        Change::PutListener { name, listener } => listener_body(name, listener, out),
        Change::RemoveListener { name } => named(Kind::RemoveListener, name, out),
        Change::PutGroup { name, refused_weight } => group_body(name, *refused_weight, out),
        Change::RemoveGroup { name } => named(Kind::RemoveGroup, name, out),
        Change::PutMember { group, address, member } => member_body(group, *address, *member, out),
        Change::RemoveMember { group, address } => {
            let port = U16::new(address.port());
            fixed(out, &RemoveMemberBody { address: Address::from(address.ip()), port });
            named(Kind::RemoveMember, group, out)
        }
        Change::PutSnatPool { name } => snat_pool_body(name, out),
        Change::RemoveSnatPool { name } => named(Kind::RemoveSnatPool, name, out),
        Change::PutSnatAddress { pool, address } => snat_address_body(pool, *address, out),
        Change::RemoveSnatAddress { pool, address } => {
            snat_address_body(pool, *address, out);
            Kind::RemoveSnatAddress
        }
        Change::PutNextHop { address, next_hop } => next_hop_body(*address, *next_hop, out),
        Change::RemoveNextHop { address } => {
            fixed(out, &RemoveNextHopBody { address: Address::from(*address) });
            Kind::RemoveNextHop
        }
        Change::PutVip { address } => vip_body(*address, out),
        Change::RemoveVip { address } => {
            vip_body(*address, out);
            Kind::RemoveVip
        }
        Change::PutL7Listener { name, listener } => l7_listener_body(name, listener, out),
        Change::RemoveL7Listener { name } => named(Kind::RemoveL7Listener, name, out),
        Change::PutPem { pem } => pem_body(*pem, out),
        Change::RemovePem { pem } => {
            pem_body(*pem, out);
            Kind::RemovePem
        }
        Change::PutPemPart { pem, index, part } => pem_part_body(*pem, *index, part, out),
    }
}

fn named(kind: Kind, name: &Name, out: &mut Vec<u8>) -> Kind {
    text(out, name);
    kind
}

pub(crate) fn listener_body(name: &Name, listener: &Listener, out: &mut Vec<u8>) -> Kind {
    let (on_removal, grace_ms) = match listener.policies.on_removal {
        OnRemoval::Keep => (ON_REMOVAL_KEEP, 0),
        OnRemoval::Reset => (ON_REMOVAL_RESET, 0),
        OnRemoval::Expire { grace_ms } => (ON_REMOVAL_EXPIRE, grace_ms),
    };
    fixed(
        out,
        &ListenerBody {
            vip: Address::from(listener.vip),
            protocol: match listener.protocol {
                Protocol::Tcp => IPPROTO_TCP,
                Protocol::Udp => IPPROTO_UDP,
            },
            mode: match listener.mode {
                Mode::FullNat => MODE_FULL_NAT,
                Mode::Dnat => MODE_DNAT,
                Mode::L2Dsr => MODE_L2_DSR,
                Mode::Ipip => MODE_IPIP,
                Mode::Gue => MODE_GUE,
                Mode::GueVariant0 => MODE_GUE_VARIANT_0,
            },
            affinity: match listener.affinity {
                Affinity::Tuple => 0,
                Affinity::Source { bits } => bits,
            },
            on_removal,
            grace_ms: U32::new(grace_ms),
            on_exhaustion: match listener.policies.on_exhaustion {
                OnExhaustion::Reset => ON_EXHAUSTION_RESET,
                OnExhaustion::Icmp => ON_EXHAUSTION_ICMP,
                OnExhaustion::Drop => ON_EXHAUSTION_DROP,
            },
            on_unknown: match listener.policies.on_unknown {
                OnUnknown::Drop => ON_UNKNOWN_DROP,
                OnUnknown::Reset => ON_UNKNOWN_RESET,
            },
            mss_clamp: U16::new(match listener.policies.mss_clamp {
                MssClamp::Auto => MSS_CLAMP_AUTO,
                MssClamp::Off => MSS_CLAMP_OFF,
                MssClamp::Most { bytes } => bytes,
            }),
            timeouts_ms: Silence::ALL
                .map(|silence| U32::new(listener.policies.timeouts.get(silence).unwrap_or(0))),
            first: U16::new(listener.ports.first()),
            last: U16::new(listener.ports.last()),
            name_length: name_length(name),
            group_length: name_length(&listener.group),
            pool_length: listener.snat_pool.as_ref().map_or(U16::ZERO, name_length),
            source_ranges: listener.source_ranges.as_ref().map_or(ALL_SOURCES, ranges_length),
        },
    );
    text(out, name);
    text(out, &listener.group);
    if let Some(pool) = &listener.snat_pool {
        text(out, pool);
    }
    for prefix in listener.source_ranges.iter().flat_map(SourceRanges::iter) {
        let (address, length) = (Address::from(prefix.address()), prefix.length());
        fixed(out, &PrefixBody { address, length });
    }
    Kind::Listener
}

fn ranges_length(ranges: &SourceRanges) -> U16 {
    U16::new(ranges.iter().len() as u16) // at most 256
}

pub(crate) fn group_body(name: &Name, refused_weight: u32, out: &mut Vec<u8>) -> Kind {
    fixed(out, &GroupBody { refused_weight: U32::new(refused_weight) });
    named(Kind::Group, name, out)
}

pub(crate) fn member_body(
    group: &Name,
    address: SocketAddr,
    member: Member,
    out: &mut Vec<u8>,
) -> Kind {
    fixed(
        out,
        &MemberBody {
            address: Address::from(address.ip()),
            port: U16::new(address.port()),
            weight: U32::new(member.weight),
            draining: u8::from(member.draining),
        },
    );
    named(Kind::Member, group, out)
}

pub(crate) fn snat_pool_body(name: &Name, out: &mut Vec<u8>) -> Kind {
    named(Kind::SnatPool, name, out)
}

pub(crate) fn snat_address_body(pool: &Name, address: IpAddr, out: &mut Vec<u8>) -> Kind {
    fixed(out, &SnatAddressBody { address: Address::from(address) });
    named(Kind::SnatAddress, pool, out)
}

pub(crate) fn next_hop_body(address: IpAddr, next_hop: NextHop, out: &mut Vec<u8>) -> Kind {
    fixed(out, &NextHopBody { address: Address::from(address), via: Address::from(next_hop.via) });
    Kind::NextHop
}

pub(crate) fn vip_body(address: IpAddr, out: &mut Vec<u8>) -> Kind {
    fixed(out, &VipBody { address: Address::from(address) });
    Kind::Vip
}

pub(crate) fn l7_listener_body(name: &Name, listener: &L7Listener, out: &mut Vec<u8>) -> Kind {
    let (speaks, tls) = match &listener.speaks {
        Speaks::Http => (SPEAKS_HTTP, None),
        Speaks::Https(tls) => (SPEAKS_HTTPS, Some(tls)),
    };
    // More are refused by `State::check`, which both ends ask: no record has more.
    let certificates = tls.map_or(&[][..], |tls| &tls.certificates);
    let certificates = &certificates[..certificates.len().min(limits::CERTIFICATES)];
    let clients = tls.and_then(|tls| tls.clients);
    let hostname = listener.hostname.as_ref().map_or("", Hostname::as_str);
    fixed(
        out,
        &L7ListenerBody {
            address: Address::from(listener.address.ip()),
            port: U16::new(listener.address.port()),
            speaks,
            clients: match clients.map(|clients| clients.mode) {
                None => CLIENTS_UNKNOWN,
                Some(ClientMode::Required) => CLIENTS_REQUIRED,
                Some(ClientMode::InsecureFallback) => CLIENTS_INSECURE_FALLBACK,
            },
            authorities: U128::new(clients.map_or(0, |clients| clients.authorities.to_bits())),
            name_length: name_length(name),
            hostname_length: U16::new(hostname.len() as u16),
            certificates: U16::new(certificates.len() as u16),
        },
    );
    text(out, name);
    out.extend_from_slice(hostname.as_bytes());
    for pem in certificates {
        out.extend_from_slice(&pem.to_bits().to_le_bytes());
    }
    Kind::L7Listener
}

pub(crate) fn pem_body(pem: PemId, out: &mut Vec<u8>) -> Kind {
    fixed(out, &PemBody { pem: U128::new(pem.to_bits()) });
    Kind::Pem
}

pub(crate) fn pem_part_body(pem: PemId, index: u16, part: &Secret, out: &mut Vec<u8>) -> Kind {
    fixed(out, &PemPartBody { pem: U128::new(pem.to_bits()), index: U16::new(index) });
    out.extend_from_slice(part.bytes());
    Kind::PemPart
}

fn ack_error(error: &ObjectError, out: &mut Vec<u8>) -> Kind {
    let ObjectId { kind, name } = &error.object;
    let object = match kind {
        ObjectKind::Listener => 1,
        ObjectKind::Group => 2,
        ObjectKind::SnatPool => 3,
        ObjectKind::NextHop => 4,
        ObjectKind::Vip => 5,
        ObjectKind::L7Listener => 6,
    };
    fixed(out, &AckErrorBody { object, name_length: name_length(name) });
    text(out, name);
    out.extend_from_slice(cut(&error.message).as_bytes());
    Kind::AckError
}

fn ack_body(ack: &AckRecord, out: &mut Vec<u8>) -> Kind {
    let (generation, reason) =
        ack.refused.as_ref().map_or((0, ""), |(generation, reason)| (*generation, reason));
    fixed(
        out,
        &AckBody {
            generation: U64::new(ack.generation),
            digest: U128::new(ack.digest.to_bits()),
            errors: U32::new(ack.errors),
            wants_snapshot: u8::from(ack.wants_snapshot),
            refused: u8::from(ack.refused.is_some()),
            refused_generation: U64::new(generation),
        },
    );
    out.extend_from_slice(cut(reason).as_bytes());
    Kind::Ack
}

/// At most [`MAX_MESSAGE_BYTES`] of a text, cut between characters.
pub(crate) fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)]
}

pub(crate) const SPEAKS_HTTP: u8 = 1;
pub(crate) const SPEAKS_HTTPS: u8 = 2;
pub(crate) const CLIENTS_UNKNOWN: u8 = 0;
pub(crate) const CLIENTS_REQUIRED: u8 = 1;
pub(crate) const CLIENTS_INSECURE_FALLBACK: u8 = 2;
pub(crate) const IPPROTO_TCP: u8 = 6;
pub(crate) const IPPROTO_UDP: u8 = 17;
pub(crate) const MODE_FULL_NAT: u8 = 1;
pub(crate) const MODE_DNAT: u8 = 2;
pub(crate) const MODE_L2_DSR: u8 = 3;
pub(crate) const MODE_IPIP: u8 = 4;
pub(crate) const MODE_GUE: u8 = 5;
pub(crate) const MODE_GUE_VARIANT_0: u8 = 6;
pub(crate) const ON_REMOVAL_KEEP: u8 = 0;
pub(crate) const ON_REMOVAL_RESET: u8 = 1;
pub(crate) const ON_REMOVAL_EXPIRE: u8 = 2;
pub(crate) const ON_EXHAUSTION_RESET: u8 = 0;
pub(crate) const ON_EXHAUSTION_ICMP: u8 = 1;
pub(crate) const ON_EXHAUSTION_DROP: u8 = 2;
pub(crate) const ON_UNKNOWN_DROP: u8 = 0;
pub(crate) const ON_UNKNOWN_RESET: u8 = 1;
/// Anything else is a number of bytes.
pub(crate) const MSS_CLAMP_AUTO: u16 = 0;
pub(crate) const MSS_CLAMP_OFF: u16 = u16::MAX;
/// Anything else is a number of networks.
pub(crate) const ALL_SOURCES: U16 = U16::MAX_VALUE;

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(v4) => {
                bytes[..4].copy_from_slice(&v4.octets());
                Self { family: 4, bytes }
            }
            IpAddr::V6(v6) => Self { family: 6, bytes: v6.octets() },
        }
    }
}

#[cfg(test)]
mod tests;
