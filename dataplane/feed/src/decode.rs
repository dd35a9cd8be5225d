//! Records to the model: total, so that any bytes give a record or an error.
//!
//! Values are copied out as they are checked, so that what was checked is what is used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U64};

use crate::digest::Digest;
use crate::encode::{
    ALL_SOURCES, CLIENTS_INSECURE_FALLBACK, CLIENTS_REQUIRED, CLIENTS_UNKNOWN, IPPROTO_TCP,
    IPPROTO_UDP, MODE_DNAT, MODE_FULL_NAT, MODE_GUE, MODE_GUE_VARIANT_0, MODE_IPIP, MODE_L2_DSR,
    MSS_CLAMP_AUTO, MSS_CLAMP_OFF, ON_EXHAUSTION_DROP, ON_EXHAUSTION_ICMP, ON_EXHAUSTION_RESET,
    ON_REMOVAL_EXPIRE, ON_REMOVAL_KEEP, ON_REMOVAL_RESET, ON_UNKNOWN_DROP, ON_UNKNOWN_RESET,
    SPEAKS_HTTP, SPEAKS_HTTPS,
};
use crate::model::{
    Affinity, Change, ClientMode, Clients, Hostname, L7Listener, Listener, Member, Mode, MssClamp,
    Name, NextHop, ObjectError, ObjectId, ObjectKind, OnExhaustion, OnRemoval, OnUnknown, Pem,
    PemId, Policies, PortRange, Prefix, Protocol, Secret, Silence, SourceRanges, Speaks, Timeouts,
    Tls, limits,
};
use crate::record::{
    AckBody, AckErrorBody, AckRecord, Address, Begin, BeginBody, Commit, CommitBody, FEED_VERSION,
    Fixed, GroupBody, HEADER_BYTES, Header, Kind, L7ListenerBody, ListenerBody, MAX_MESSAGE_BYTES,
    MAX_RECORD_BYTES, MemberBody, NextHopBody, PemBody, PemPartBody, PrefixBody, Record,
    RemoveMemberBody, RemoveNextHopBody, SnatAddressBody, VipBody,
};

/// Why bytes are no record of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the header or its length need.
    #[error("a record of {have} bytes ends early: {need} are needed")]
    Truncated {
        /// What there is.
        have: usize,
        /// What the header says.
        need: usize,
    },
    /// The other end speaks another version.
    #[error(
        "a record of version {found}, this end speaks feed {FEED_VERSION}: upgrade the older of the two"
    )]
    Version {
        /// The version found.
        found: u8,
    },
    /// No record has this kind.
    #[error("kind {found} is no record of feed {FEED_VERSION}")]
    Kind {
        /// The kind found.
        found: u8,
    },
    /// The length is above what any record has.
    #[error("a body of {length} bytes is longer than a record may be ({MAX_RECORD_BYTES} in all)")]
    TooLong {
        /// The length found.
        length: u32,
    },
    /// The body has another length than its kind and its names need.
    #[error("{kind}: its body has {length} bytes, which its fields do not add up to")]
    BodyLength {
        /// The kind, in words.
        kind: String,
        /// The length of the body.
        length: usize,
    },
    /// A field holds a value that it cannot have.
    #[error("{kind}: field {field} holds {value}")]
    Value {
        /// The kind, in words.
        kind: String,
        /// The field.
        field: &'static str,
        /// The value, in words.
        value: String,
    },
}

/// The bytes of the record at the front of `header`, with header and padding: at least 8, a
/// multiple of 8, at most [`MAX_RECORD_BYTES`]. This is all that a ring looks at before it copies.
///
/// # Errors
/// [`DecodeError`] for another version, or a length that no record has.
pub fn record_bytes(header: [u8; 8]) -> Result<usize, DecodeError> {
    if header[0] != FEED_VERSION {
        return Err(DecodeError::Version { found: header[0] });
    }
    let [_, _, _, _, length @ ..] = header;
    let length = u32::from_le_bytes(length);
    match usize::try_from(length) {
        Ok(body) if body <= MAX_RECORD_BYTES - HEADER_BYTES => {
            Ok((HEADER_BYTES + body).next_multiple_of(8))
        }
        _ => Err(DecodeError::TooLong { length }),
    }
}

/// Decodes the record at the front of `bytes` and returns what follows it.
///
/// # Errors
/// [`DecodeError`] if the front of `bytes` is no record of this version, whatever it is.
pub fn decode(bytes: &[u8]) -> Result<(Record, &[u8]), DecodeError> {
    let truncated = |need| DecodeError::Truncated { have: bytes.len(), need };
    let head = bytes.first_chunk::<HEADER_BYTES>().ok_or_else(|| truncated(HEADER_BYTES))?;
    let whole = record_bytes(*head)?;
    let (record, rest) = bytes.split_at_checked(whole).ok_or_else(|| truncated(whole))?;
    let (header, body) = Header::read_from_prefix(record).map_err(|_| truncated(whole))?;
    let kind = Kind::from_byte(header.kind).ok_or(DecodeError::Kind { found: header.kind })?;
    let length = usize::try_from(header.length.get()).unwrap_or(usize::MAX);
    let (body, padding) = body.split_at_checked(length).ok_or_else(|| truncated(whole))?;
    let body = Body { kind, length, rest: body };
    if header.zero != U16::ZERO || padding.iter().any(|byte| *byte != 0) {
        return Err(body.value("padding", &"bytes other than zero"));
    }
    Ok((body.decode()?, rest))
}

/// The part of a body that is not yet decoded.
struct Body<'a> {
    kind: Kind,
    length: usize,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn decode(mut self) -> Result<Record, DecodeError> {
        let record = match self.kind {
            Kind::Begin => self.begin()?,
            Kind::Commit => self.commit()?,
            Kind::AckError => self.ack_error()?,
            Kind::Ack => self.ack()?,
            _ => Record::Change(self.change()?),
        };
        if self.rest.is_empty() { Ok(record) } else { Err(self.wrong_length()) }
    }

    fn change(&mut self) -> Result<Change, DecodeError> {
        Ok(match self.kind {
            Kind::Listener => self.listener()?,
            Kind::RemoveListener => Change::RemoveListener { name: self.name()? },
            Kind::Group => {
                let part: GroupBody = self.fixed()?;
                Change::PutGroup { refused_weight: part.refused_weight.get(), name: self.name()? }
            }
            Kind::RemoveGroup => Change::RemoveGroup { name: self.name()? },
            Kind::Member => self.member()?,
            Kind::RemoveMember => {
                let part: RemoveMemberBody = self.fixed()?;
                let address = SocketAddr::new(self.address(part.address)?, part.port.get());
                Change::RemoveMember { address, group: self.name()? }
            }
            Kind::SnatPool => Change::PutSnatPool { name: self.name()? },
            Kind::RemoveSnatPool => Change::RemoveSnatPool { name: self.name()? },
            Kind::SnatAddress => {
                let part: SnatAddressBody = self.fixed()?;
                Change::PutSnatAddress { address: self.address(part.address)?, pool: self.name()? }
            }
            Kind::RemoveSnatAddress => {
                let part: SnatAddressBody = self.fixed()?;
                Change::RemoveSnatAddress {
                    address: self.address(part.address)?,
                    pool: self.name()?,
                }
            }
            Kind::NextHop => {
                let part: NextHopBody = self.fixed()?;
                let next_hop = NextHop { via: self.address(part.via)? };
                Change::PutNextHop { address: self.address(part.address)?, next_hop }
            }
            Kind::RemoveNextHop => {
                let part: RemoveNextHopBody = self.fixed()?;
                Change::RemoveNextHop { address: self.address(part.address)? }
            }
            Kind::Vip => Change::PutVip { address: self.vip()? },
            Kind::RemoveVip => Change::RemoveVip { address: self.vip()? },
            Kind::L7Listener => self.l7_listener()?,
            Kind::RemoveL7Listener => Change::RemoveL7Listener { name: self.name()? },
            Kind::Pem => Change::PutPem { pem: self.pem()? },
            Kind::RemovePem => Change::RemovePem { pem: self.pem()? },
            Kind::PemPart => {
                let part: PemPartBody = self.fixed()?;
                let (pem, index) = (PemId::from_bits(part.pem.get()), part.index.get());
                if !(1..=Pem::PART_BYTES).contains(&self.rest.len()) {
                    return Err(self.wrong_length());
                }
                let part = Secret::new(self.take(self.rest.len())?);
                Change::PutPemPart { pem, index, part }
            }
            Kind::Begin | Kind::Commit | Kind::AckError | Kind::Ack => {
                return Err(DecodeError::Kind { found: self.kind as u8 });
            }
        })
    }

    fn begin(&mut self) -> Result<Record, DecodeError> {
        let part: BeginBody = self.fixed()?;
        let base = (part.base_generation.get(), Digest::from_bits(part.base_digest.get()));
        let snapshot = self.flag("snapshot", part.snapshot)?;
        if snapshot && base != <(u64, Digest)>::default() {
            return Err(self.value("base", &"a base, which a snapshot has not"));
        }
        Ok(Record::Begin(Begin {
            epoch: part.epoch.get(),
            generation: part.generation.get(),
            base: (!snapshot).then_some(base),
        }))
    }

    fn commit(&mut self) -> Result<Record, DecodeError> {
        let part: CommitBody = self.fixed()?;
        Ok(Record::Commit(Commit {
            generation: part.generation.get(),
            digest: Digest::from_bits(part.digest.get()),
            changes: part.changes.get(),
        }))
    }

    fn listener(&mut self) -> Result<Change, DecodeError> {
        let part: ListenerBody = self.fixed()?;
        let protocol = match part.protocol {
            IPPROTO_TCP => Protocol::Tcp,
            IPPROTO_UDP => Protocol::Udp,
            other => return Err(self.value("protocol", &other)),
        };
        let mode = match part.mode {
            MODE_FULL_NAT => Mode::FullNat,
            MODE_DNAT => Mode::Dnat,
            MODE_L2_DSR => Mode::L2Dsr,
            MODE_IPIP => Mode::Ipip,
            MODE_GUE => Mode::Gue,
            MODE_GUE_VARIANT_0 => Mode::GueVariant0,
            other => return Err(self.value("mode", &other)),
        };
        let vip = self.address(part.vip)?;
        let affinity = match part.affinity {
            0 => Affinity::Tuple,
            bits => Affinity::source(bits, vip).ok_or_else(|| self.value("affinity", &bits))?,
        };
        let policies = self.policies(&part)?;
        let ports = PortRange::new(part.first.get(), part.last.get())
            .map_err(|bad| self.value("ports", &bad))?;
        let name = self.name_of(part.name_length)?;
        let group = self.name_of(part.group_length)?;
        let snat_pool = match part.pool_length {
            U16::ZERO => None,
            length => Some(self.name_of(length)?),
        };
        let source_ranges = match part.source_ranges {
            ALL_SOURCES => None,
            count => Some(self.source_ranges(count.get())?),
        };
        let listener = Listener {
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
        Ok(Change::PutListener { name, listener })
    }

    fn source_ranges(&mut self, count: u16) -> Result<SourceRanges, DecodeError> {
        if usize::from(count) > SourceRanges::MOST {
            return Err(self.value("source_ranges", &count));
        }
        let prefixes = (0..count).map(|_| self.prefix()).collect::<Result<Vec<_>, _>>()?;
        let ranges = SourceRanges::new(prefixes.iter().copied());
        let ranges = ranges.map_err(|bad| self.value("source_ranges", &bad))?;
        if !ranges.iter().eq(prefixes) {
            return Err(self.value("source_ranges", &"networks out of order, or within others"));
        }
        Ok(ranges)
    }

    fn prefix(&mut self) -> Result<Prefix, DecodeError> {
        let part: PrefixBody = self.fixed()?;
        let address = self.address(part.address)?;
        let prefix = Prefix::new(address, part.length);
        prefix.filter(|prefix| prefix.address() == address).ok_or_else(|| {
            self.value("source_ranges", &format!("{address}/{}, which is no network", part.length))
        })
    }

    fn vip(&mut self) -> Result<IpAddr, DecodeError> {
        let part: VipBody = self.fixed()?;
        self.address(part.address)
    }

    fn pem(&mut self) -> Result<PemId, DecodeError> {
        let part: PemBody = self.fixed()?;
        Ok(PemId::from_bits(part.pem.get()))
    }

    fn l7_listener(&mut self) -> Result<Change, DecodeError> {
        let part: L7ListenerBody = self.fixed()?;
        let address = SocketAddr::new(self.address(part.address)?, part.port.get());
        let mode = match part.clients {
            CLIENTS_UNKNOWN => None,
            CLIENTS_REQUIRED => Some(ClientMode::Required),
            CLIENTS_INSECURE_FALLBACK => Some(ClientMode::InsecureFallback),
            other => return Err(self.value("clients", &other)),
        };
        let authorities = PemId::from_bits(part.authorities.get());
        if mode.is_none() && authorities.to_bits() != 0 {
            return Err(self.value("authorities", &"a number that nobody asks for"));
        }
        let name = self.name_of(part.name_length)?;
        let hostname = match part.hostname_length.get() {
            0 => None,
            length => Some(self.hostname_of(length)?),
        };
        let certificates = self.pems(part.certificates.get())?;
        let speaks = match part.speaks {
            SPEAKS_HTTP if certificates.is_empty() && mode.is_none() => Speaks::Http,
            SPEAKS_HTTPS => {
                let clients = mode.map(|mode| Clients { authorities, mode });
                Speaks::Https(Tls { certificates, clients })
            }
            other => return Err(self.value("speaks", &other)),
        };
        Ok(Change::PutL7Listener { name, listener: L7Listener { address, hostname, speaks } })
    }

    fn hostname_of(&mut self, length: u16) -> Result<Hostname, DecodeError> {
        let bytes = self.take(length.into())?;
        let text = std::str::from_utf8(bytes).map_err(|bad| self.value("hostname", &bad))?;
        Hostname::new(text).map_err(|bad| self.value("hostname", &bad))
    }

    fn pems(&mut self, count: u16) -> Result<Vec<PemId>, DecodeError> {
        let count = usize::from(count);
        if count > limits::CERTIFICATES {
            return Err(self.value("certificates", &count));
        }
        let (numbers, _) = self.take(count * size_of::<u128>())?.as_chunks();
        Ok(numbers.iter().map(|bits| PemId::from_bits(u128::from_le_bytes(*bits))).collect())
    }

    fn policies(&self, part: &ListenerBody) -> Result<Policies, DecodeError> {
        let on_removal = match (part.on_removal, part.grace_ms.get()) {
            (ON_REMOVAL_KEEP, 0) => OnRemoval::Keep,
            (ON_REMOVAL_RESET, 0) => OnRemoval::Reset,
            (ON_REMOVAL_EXPIRE, grace_ms) => {
                OnRemoval::expire(grace_ms).ok_or_else(|| self.value("grace_ms", &grace_ms))?
            }
            (ON_REMOVAL_KEEP | ON_REMOVAL_RESET, grace_ms) => {
                return Err(self.value("grace_ms", &grace_ms));
            }
            (other, _) => return Err(self.value("on_removal", &other)),
        };
        let on_exhaustion = match part.on_exhaustion {
            ON_EXHAUSTION_RESET => OnExhaustion::Reset,
            ON_EXHAUSTION_ICMP => OnExhaustion::Icmp,
            ON_EXHAUSTION_DROP => OnExhaustion::Drop,
            other => return Err(self.value("on_exhaustion", &other)),
        };
        let on_unknown = match part.on_unknown {
            ON_UNKNOWN_DROP => OnUnknown::Drop,
            ON_UNKNOWN_RESET => OnUnknown::Reset,
            other => return Err(self.value("on_unknown", &other)),
        };
        let mss_clamp = match part.mss_clamp.get() {
            MSS_CLAMP_AUTO => MssClamp::Auto,
            MSS_CLAMP_OFF => MssClamp::Off,
            bytes => MssClamp::most(bytes).ok_or_else(|| self.value("mss_clamp", &bytes))?,
        };
        let timeouts = self.timeouts(part)?;
        Ok(Policies { on_removal, on_exhaustion, on_unknown, mss_clamp, timeouts })
    }

    /// Those that are not zero.
    fn timeouts(&self, part: &ListenerBody) -> Result<Timeouts, DecodeError> {
        let said = Silence::ALL.into_iter().zip(part.timeouts_ms).filter(|(_, ms)| *ms != 0);
        said.into_iter().try_fold(Timeouts::default(), |timeouts, (silence, ms)| {
            let with = timeouts.with(silence, ms.get());
            with.ok_or_else(|| self.value("timeouts_ms", &format!("{} {ms} ms", silence.name())))
        })
    }

    fn member(&mut self) -> Result<Change, DecodeError> {
        let part: MemberBody = self.fixed()?;
        let address = SocketAddr::new(self.address(part.address)?, part.port.get());
        let draining = self.flag("draining", part.draining)?;
        let member = Member { weight: part.weight.get(), draining };
        Ok(Change::PutMember { group: self.name()?, address, member })
    }

    fn ack_error(&mut self) -> Result<Record, DecodeError> {
        let part: AckErrorBody = self.fixed()?;
        let kind = match part.object {
            1 => ObjectKind::Listener,
            2 => ObjectKind::Group,
            3 => ObjectKind::SnatPool,
            4 => ObjectKind::NextHop,
            5 => ObjectKind::Vip,
            6 => ObjectKind::L7Listener,
            other => return Err(self.value("object", &other)),
        };
        let name = self.name_of(part.name_length)?;
        Ok(Record::AckError(ObjectError {
            object: ObjectId { kind, name },
            message: self.message()?,
        }))
    }

    fn ack(&mut self) -> Result<Record, DecodeError> {
        let part: AckBody = self.fixed()?;
        let refused = self.flag("refused", part.refused)?;
        if !refused && part.refused_generation != U64::ZERO {
            return Err(self.value("refused_generation", &part.refused_generation));
        }
        Ok(Record::Ack(AckRecord {
            generation: part.generation.get(),
            digest: Digest::from_bits(part.digest.get()),
            errors: part.errors.get(),
            wants_snapshot: self.flag("wants_snapshot", part.wants_snapshot)?,
            refused: if refused {
                Some((part.refused_generation.get(), self.message()?))
            } else {
                None
            },
        }))
    }

    fn fixed<T: Fixed>(&mut self) -> Result<T, DecodeError> {
        let (part, rest) = T::read_from_prefix(self.rest).map_err(|_| self.wrong_length())?;
        self.rest = rest;
        Ok(part)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| self.wrong_length())?;
        self.rest = rest;
        Ok(taken)
    }

    fn name_of(&mut self, length: U16) -> Result<Name, DecodeError> {
        let bytes = self.take(length.into())?;
        let text = std::str::from_utf8(bytes).map_err(|bad| self.value("name", &bad))?;
        Name::new(text).map_err(|bad| self.value("name", &bad))
    }

    /// The name that fills the rest of the body.
    fn name(&mut self) -> Result<Name, DecodeError> {
        let length = u16::try_from(self.rest.len()).map_err(|_| self.wrong_length())?;
        self.name_of(U16::new(length))
    }

    /// The text that fills the rest of the body.
    fn message(&mut self) -> Result<String, DecodeError> {
        let bytes = self.take(self.rest.len())?;
        let text = std::str::from_utf8(bytes).map_err(|bad| self.value("message", &bad))?;
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(self.value("message", &format!("{} bytes of text", text.len())));
        }
        Ok(text.to_owned())
    }

    fn address(&self, address: Address) -> Result<IpAddr, DecodeError> {
        let [a, b, c, d, rest @ ..] = address.bytes;
        match address.family {
            4 if rest == [0; 12] => Ok(Ipv4Addr::new(a, b, c, d).into()),
            4 => Err(self.value("address", &"an IPv4 address with bytes after it")),
            6 => Ok(Ipv6Addr::from(address.bytes).into()),
            other => Err(self.value("address family", &other)),
        }
    }

    fn flag(&self, field: &'static str, byte: u8) -> Result<bool, DecodeError> {
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.value(field, &other)),
        }
    }

    fn wrong_length(&self) -> DecodeError {
        DecodeError::BodyLength { kind: format!("{:?}", self.kind), length: self.length }
    }

    fn value(&self, field: &'static str, value: &impl ToString) -> DecodeError {
        DecodeError::Value { kind: format!("{:?}", self.kind), field, value: value.to_string() }
    }
}
