//! The records of the feed, as they lie in a ring or a file.
//!
//! ```text
//!   0        1        2                 4                                   8
//!   +--------+--------+-----------------+-----------------------------------+
//!   | version|  kind  |    0            |  length of the body in bytes      |
//!   +--------+--------+-----------------+-----------------------------------+
//!   | body: a fixed part by kind, then names and text; zeros up to a multiple of 8 |
//! ```
//! Integers are little-endian, nothing is aligned, and every byte is defined: one meaning has one
//! encoding, which the digest relies on. The structs below are the fixed parts; `encode` turns
//! the model into records, `decode` into the model.

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::digest::Digest;
use crate::model::{Change, ObjectError};

/// The version of the encoding and of the hand-shake. Both ends must speak the same.
pub const FEED_VERSION: u8 = 5;

/// The largest record with its header and padding: a listener with three of the longest names and as many source ranges
/// as it may have fits.
pub const MAX_RECORD_BYTES: usize = 8192;

/// The longest text in a record, in bytes; longer ones are cut at a character.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// One record, decoded. Its values are checked; whether it may be applied is for a transaction to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Opens a transaction; one that is open is abandoned.
    Begin(Begin),
    /// A step of the open transaction.
    Change(Change),
    /// Closes it.
    Commit(Commit),
    /// One refused object; belongs to the [`Record::Ack`] that follows.
    AckError(ObjectError),
    /// What the consumer holds.
    Ack(AckRecord),
}

/// The start of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The connection it belongs to.
    pub epoch: u64,
    /// The generation it leads to.
    pub generation: u64,
    /// For a delta the generation and digest it starts from; `None` is a snapshot, from nothing.
    pub base: Option<(u64, Digest)>,
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The generation it leads to, as in its [`Begin`].
    pub generation: u64,
    /// The digest of the state it leads to.
    pub digest: Digest,
    /// How many changes lie between [`Begin`] and here.
    pub changes: u64,
}

/// The last record of an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckRecord {
    /// What the workers forward by.
    pub generation: u64,
    /// Its digest.
    pub digest: Digest,
    /// How many [`Record::AckError`] came before.
    pub errors: u32,
    /// The producer should send everything.
    pub wants_snapshot: bool,
    /// The last transaction that was refused, and why.
    pub refused: Option<(u64, String)>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal),* $(,)?) => {
        /// The kind of a record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Kind { $($(#[$doc])* $name = $value),* }

        impl Kind {
            pub(crate) fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Kind::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    Begin = 1,
    Commit = 2,
    Listener = 16,
    RemoveListener = 17,
    Group = 18,
    RemoveGroup = 19,
    Member = 20,
    RemoveMember = 21,
    SnatPool = 22,
    RemoveSnatPool = 23,
    SnatAddress = 24,
    RemoveSnatAddress = 25,
    NextHop = 26,
    RemoveNextHop = 27,
    Vip = 28,
    RemoveVip = 29,
    L7Listener = 48,
    RemoveL7Listener = 49,
    Pem = 50,
    RemovePem = 51,
    PemPart = 52,
    AckError = 64,
    Ack = 65,
}

/// What a fixed part must be able to do: any bytes are one, and it has no padding.
pub(crate) trait Fixed: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned {}
impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned> Fixed for T {}

macro_rules! fixed_parts {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* })*
    };
}

fixed_parts! {
    /// Before every body.
    Header { version: u8, kind: u8, zero: U16, length: U32 }
    /// An IP address: family 4 fills the first four bytes and leaves the others zero.
    Address { family: u8, bytes: [u8; 16] }
    BeginBody { epoch: U64, generation: U64, base_generation: U64, base_digest: U128, snapshot: u8 }
    CommitBody { generation: U64, digest: U128, changes: U64 }
    /// Followed by the names of the listener, its group and (unless its length is 0) its SNAT pool, and by so many
    /// [`PrefixBody`]s as `source_ranges` says, or by none if it lets all in.
    ListenerBody {
        vip: Address, protocol: u8, mode: u8, affinity: u8, on_removal: u8, grace_ms: U32,
        on_exhaustion: u8, on_unknown: u8, mss_clamp: U16, first: U16, last: U16,
        timeouts_ms: [U32; 6], name_length: U16, group_length: U16, pool_length: U16, source_ranges: U16,
    }
    /// A network of clients.
    PrefixBody { address: Address, length: u8 }
    /// Followed by the group's name.
    GroupBody { refused_weight: U32 }
    /// Followed by the group's name.
    MemberBody { address: Address, port: U16, weight: U32, draining: u8 }
    /// Followed by the group's name.
    RemoveMemberBody { address: Address, port: U16 }
    /// Put and remove alike; followed by the pool's name.
    SnatAddressBody { address: Address }
    NextHopBody { address: Address, via: Address }
    RemoveNextHopBody { address: Address }
    /// Put and remove alike.
    VipBody { address: Address }
    /// Followed by the names of the listener and (unless its length is 0) of its host, and the numbers of its
    /// certificates. `authorities` is zero unless `clients` asks for certificates.
    L7ListenerBody {
        address: Address, port: U16, speaks: u8, clients: u8, authorities: U128,
        name_length: U16, hostname_length: U16, certificates: U16,
    }
    /// Put and remove alike.
    PemBody { pem: U128 }
    /// Followed by the part.
    PemPartBody { pem: U128, index: U16 }
    /// Followed by the object's name and the message.
    AckErrorBody { object: u8, name_length: U16 }
    /// Followed by the reason of the refusal, if `refused` is 1.
    AckBody {
        generation: U64, digest: U128, errors: U32, wants_snapshot: u8,
        refused: u8, refused_generation: U64,
    }
}

pub(crate) const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(HEADER_BYTES == 8);
const _: () = assert!(
    HEADER_BYTES
        + size_of::<ListenerBody>()
        + 3 * crate::model::Name::MAX_BYTES
        + crate::model::SourceRanges::MOST * size_of::<PrefixBody>()
        <= MAX_RECORD_BYTES
);
const _: () = assert!(
    HEADER_BYTES
        + size_of::<L7ListenerBody>()
        + crate::model::Name::MAX_BYTES
        + crate::model::Hostname::MAX_BYTES
        + crate::model::limits::CERTIFICATES * size_of::<U128>()
        <= MAX_RECORD_BYTES
);
const _: () = assert!(
    HEADER_BYTES + size_of::<PemPartBody>() + crate::model::Pem::PART_BYTES <= MAX_RECORD_BYTES
);
const _: () = assert!(
    HEADER_BYTES + size_of::<AckErrorBody>() + crate::model::Name::MAX_BYTES + MAX_MESSAGE_BYTES
        <= MAX_RECORD_BYTES
);
