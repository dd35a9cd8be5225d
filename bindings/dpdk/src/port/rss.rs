//! What a port's RSS does: read from it, and set where the PMD lets us.
//!
//! Spreading is by the Toeplitz hash of a packet: its low bits name an entry of the RETA, and that a queue. A
//! PMD may say so and do otherwise, or answer with what was asked and not done; only packets tell.

use penstock_dpdk_sys as c;

use super::config::{Limits, RssHash};
use super::device::Description;
use super::error::{PortError, check};

/// Which packets' L4 ports go into the hash, besides the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// TCP over IPv4.
    pub tcp_v4: bool,
    /// UDP over IPv4.
    pub udp_v4: bool,
    /// TCP over IPv6.
    pub tcp_v6: bool,
    /// UDP over IPv6.
    pub udp_v6: bool,
}

impl Hashed {
    fn from_bits(bits: u64) -> Self {
        Self {
            tcp_v4: bits & c::PENSTOCK_RSS_TCP_V4 != 0,
            udp_v4: bits & c::PENSTOCK_RSS_UDP_V4 != 0,
            tcp_v6: bits & c::PENSTOCK_RSS_TCP_V6 != 0,
            udp_v6: bits & c::PENSTOCK_RSS_UDP_V6 != 0,
        }
    }
}

/// What a port says of its RSS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The key of the hash.
    pub key: Vec<u8>,
    /// What is hashed.
    pub hashed: Hashed,
    /// The RETA: the queue of each entry.
    pub table: Vec<u16>,
}

/// The Toeplitz hash of words in host order, as DPDK computes it in software.
///
/// Source address, destination address, then both L4 ports in a word, the source's first.
///
/// # Panics
/// If the key has not four bytes more than the words.
#[must_use]
pub fn softrss(words: &[u32], key: &[u8]) -> u32 {
    assert!(key.len() >= words.len() * 4 + 4, "a key of {} bytes", key.len());
    let aligned: Vec<u32> = key
        .chunks_exact(4)
        .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    // SAFETY: reads as many words as we say, and one more than that of the key; there are as many.
    unsafe {
        c::penstock_softrss(words.as_ptr(), words.len() as u32, aligned.as_ptr().cast::<u8>())
    }
}

/// What a byte can say.
const LONGEST_KEY: usize = 255;

/// As the PMD tells, or else what ethdev documents for all.
fn key_len(limits: &Limits) -> u8 {
    if limits.rss_key_bytes == 0 { 40 } else { limits.rss_key_bytes }
}

pub(super) fn read(port: &Description) -> Result<Rss, PortError> {
    let limits = port.limits()?;
    let (len, mut key) = (key_len(&limits), vec![0; LONGEST_KEY]);
    let mut conf = c::rte_eth_rss_conf::default();
    (conf.rss_key, conf.rss_key_len) = (key.as_mut_ptr(), len);
    // SAFETY: the port exists, and there is room for any key: PMDs write theirs whatever length we give.
    let code = unsafe { c::rte_eth_dev_rss_hash_conf_get(port.id, &raw mut conf) };
    check(&port.name, "rte_eth_dev_rss_hash_conf_get", code)?;
    key.truncate(len.into());
    let table = read_table(port, limits.rss_table_len)?;
    Ok(Rss { key, hashed: Hashed::from_bits(conf.rss_hf), table })
}

fn read_table(port: &Description, len: u16) -> Result<Vec<u16>, PortError> {
    let mut groups = groups(&vec![0; usize::from(len)]);
    // SAFETY: the port exists, and there are groups for as many entries as we say.
    let code = unsafe { c::rte_eth_dev_rss_reta_query(port.id, groups.as_mut_ptr(), len) };
    check(&port.name, "rte_eth_dev_rss_reta_query", code)?;
    Ok(groups.iter().flat_map(|group| group.reta).take(len.into()).collect())
}

/// The entries in DPDK's groups, every one of them meant.
fn groups(table: &[u16]) -> Vec<c::rte_eth_rss_reta_entry64> {
    let group = |entries: &[u16]| {
        let mut group = c::rte_eth_rss_reta_entry64::default();
        group.reta[..entries.len()].copy_from_slice(entries);
        group.mask = u64::MAX >> (usize::from(c::PENSTOCK_RETA_GROUP) - entries.len());
        group
    };
    table.chunks(c::PENSTOCK_RETA_GROUP.into()).map(group).collect()
}

pub(super) fn set_key(port: &Description, key: &[u8], hash: RssHash) -> Result<(), PortError> {
    let limits = port.limits()?;
    let needed = key_len(&limits);
    if key.len() != usize::from(needed) {
        let (port, asked) = (port.name.clone(), key.len());
        return Err(PortError::RssKey { port, asked, needed });
    }
    let mut key = key.to_vec();
    let mut conf = c::rte_eth_rss_conf::default();
    (conf.rss_key, conf.rss_key_len) = (key.as_mut_ptr(), needed);
    conf.rss_hf = hash.bits() & limits.rss_hash;
    // SAFETY: the port exists; the PMD copies the key.
    let code = unsafe { c::rte_eth_dev_rss_hash_update(port.id, &raw mut conf) };
    check(&port.name, "rte_eth_dev_rss_hash_update", code).map(drop)
}

pub(super) fn set_table(port: &Description, table: &[u16], queues: u16) -> Result<(), PortError> {
    let len = port.limits()?.rss_table_len;
    if table.len() != usize::from(len) {
        let (port, asked) = (port.name.clone(), table.len());
        return Err(PortError::RssTable { port, asked, needed: len });
    }
    if let Some(asked) = table.iter().copied().find(|queue| *queue >= queues) {
        return Err(no_such_queue(port, asked, queues));
    }
    let mut groups = groups(table);
    // SAFETY: the port exists, and there are groups for as many entries as we say.
    let code = unsafe { c::rte_eth_dev_rss_reta_update(port.id, groups.as_mut_ptr(), len) };
    check(&port.name, "rte_eth_dev_rss_reta_update", code).map(drop)
}

/// `asked` is a queue's number, from 0.
pub(super) fn no_such_queue(port: &Description, asked: u16, queues: u16) -> PortError {
    PortError::NoSuchQueue { port: port.name.clone(), asked, queues }
}
