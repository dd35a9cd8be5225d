//! A backend group: who serves, by which share, and the Maglev table that says so for a new flow.

use std::net::{IpAddr, SocketAddr};

use crate::flow::FlowKey;
use crate::maglev::{self, MaglevError, Weighted};
use crate::maglev::{flow_hash, slot_of};
use crate::{BackendId, Protocol};

/// A backend of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its stable number.
    pub id: BackendId,
    /// Where it serves.
    pub address: SocketAddr,
    /// Its share of new flows; 0 for none.
    pub weight: u32,
    /// Whether it gets no new flows, whatever its weight, and keeps those it has.
    pub draining: bool,
}

/// What a group says of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick<'g> {
    /// This backend takes it.
    Backend(&'g Member),
    /// It falls in the share to refuse, or nobody is there to take it.
    Refused,
}

/// By what of a client's packet its backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// The 5-tuple: each flow for itself.
    #[default]
    Tuple,
    /// So many leading bits of the source address: all flows from there have one backend, as far as the group
    /// stays what it is.
    Source {
        /// At least 1; more than the address has are all of them.
        bits: u8,
    },
}

/// What counts of a packet's key where its source address does, or so many leading bits of it.
pub(crate) fn source_key(key: &FlowKey, bits: u8) -> FlowKey {
    let source = match key.source().ip() {
        IpAddr::V4(v4) => {
            let kept = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
            IpAddr::from((v4.to_bits() & kept).to_be_bytes())
        }
        IpAddr::V6(v6) => {
            let kept = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
            IpAddr::from((v6.to_bits() & kept).to_be_bytes())
        }
    };
    let end = SocketAddr::new(source, 0);
    FlowKey::new(end, end, Protocol::Tcp).unwrap_or(*key)
}

/// Members and their Maglev table; immutable, shared by the snapshots in which it did not change.
#[derive(Debug)]
pub struct Group {
    members: Box<[Member]>, // by address
    slots: Box<[u16]>,      // empty: refuse all; `members.len()`: the refused share
    digest: u64,
}

impl Group {
    /// Builds the Maglev table, of [`maglev::size_for`] slots where `table_size` is not given.
    ///
    /// The order of `members` does not matter. With no weight above zero the group refuses all.
    /// Costs up to half a millisecond for 65 537 slots: not for a worker.
    ///
    /// # Errors
    /// [`MaglevError::SizeNotPrime`], [`MaglevError::TooManyMembers`].
    pub fn new(
        mut members: Vec<Member>,
        refused_weight: u32,
        table_size: Option<usize>,
    ) -> Result<Self, MaglevError> {
        members.sort_by_key(|member| member.address);
        let weighted: Vec<Weighted> = members
            .iter()
            .map(|member| {
                Weighted::backend(member.address, if member.draining { 0 } else { member.weight })
            })
            .chain((refused_weight > 0).then(|| Weighted::refused(refused_weight)))
            .collect();
        let size = table_size.unwrap_or_else(|| maglev::size_for(weighted.len(), None));
        let serves = members.iter().any(|member| member.weight > 0 && !member.draining);
        let mut slots = vec![0; if serves { size } else { 0 }].into_boxed_slice();
        if serves {
            maglev::build(&mut slots, &weighted)?;
        }
        let digest = maglev::digest(&slots);
        Ok(Self { members: members.into_boxed_slice(), slots, digest })
    }

    /// Where in the Maglev table a flow's backend stands.
    #[inline]
    pub(crate) fn slot_of(&self, key: &FlowKey) -> usize {
        slot_of(flow_hash(key), self.slots.len())
    }

    /// What a slot says.
    #[inline(always)]
    pub(crate) fn pick_by(&self, slot: usize) -> Pick<'_> {
        let member = self.slots.get(slot).and_then(|member| self.members.get(usize::from(*member)));
        member.map_or(Pick::Refused, Pick::Backend)
    }

    /// Whether a backend is a member, draining or not.
    #[must_use]
    pub fn has(&self, backend: SocketAddr) -> bool {
        self.members.binary_search_by_key(&backend, |member| member.address).is_ok()
    }

    /// The members, sorted by address.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Slots of the Maglev table; 0 where the group refuses all. For [`maglev::size_for`].
    #[must_use]
    pub fn table_size(&self) -> usize {
        self.slots.len()
    }

    /// The digest of the Maglev table, to be compared between boxes.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }
}
