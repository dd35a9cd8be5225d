//! What a program asks of a port, what the device can do, and what the two come to.

use penstock_dpdk_sys as c;

use super::error::PortError;
use super::vlan::{self, VlanTags};
use crate::mempool::Mempool;

/// Ethernet header, two 802.1Q tags and FCS: what a frame has beside its payload.
const FRAME_OVERHEAD_BYTES: u32 = 14 + 2 * 4 + 4;

/// What a program asks of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// RX queues, each to be polled by one thread. Some PMDs (`net_tap`) want as many TX queues.
    pub rx_queues: u16,
    /// TX queues, each to be filled by one thread.
    pub tx_queues: u16,
    /// Descriptors of each RX ring: packets the NIC can hold for us. Rounded up to what it aligns to.
    pub rx_descriptors: u16,
    /// Descriptors of each TX ring.
    pub tx_descriptors: u16,
    /// The largest payload of a frame, in bytes; `None` leaves the device's own.
    pub mtu: Option<u16>,
    /// Spread packets over the RX queues by a hash. Without, what lands where is up to the PMD.
    pub rss: Option<RssConfig>,
    /// Take in frames for any destination MAC.
    pub promiscuous: bool,
    /// Take in frames for any group of hosts: without, a NIC drops what its filter does not name, and
    /// IPv6 neighbours ask by multicast (RFC 4861 §7.2.2).
    pub all_multicast: bool,
    /// Let the NIC verify IPv4, TCP and UDP checksums, see [`Mbuf::rx_checksums`](crate::Mbuf::rx_checksums).
    pub rx_checksums: bool,
    /// The VLAN tags of its frames, for the NIC to take off and put on as far as it can; without, it leaves all as
    /// they are.
    pub vlan_tags: Option<VlanTags>,
}

impl Default for PortConfig {
    /// One queue each way of 1024 descriptors, nothing else.
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            rss: None,
            promiscuous: false,
            all_multicast: false,
            rx_checksums: false,
            vlan_tags: None,
        }
    }
}

impl PortConfig {
    pub(super) fn rss_key(&self) -> Option<Box<[u8]>> {
        self.rss.as_ref().and_then(|rss| rss.key.clone()).map(Vec::into_boxed_slice)
    }
}

/// How packets are spread over RX queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RssConfig {
    /// What goes into the hash.
    pub hash: RssHash,
    /// The key of the Toeplitz hash; `None` leaves the PMD's. Its length is the device's to say.
    pub key: Option<Vec<u8>>,
}

/// What goes into the hash of RSS, per protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RssHash {
    /// The addresses of IPv4 and IPv6 packets.
    pub ip: bool,
    /// Addresses and L4 ports of TCP.
    pub tcp: bool,
    /// Addresses and L4 ports of UDP.
    pub udp: bool,
}

impl Default for RssHash {
    /// All of it.
    fn default() -> Self {
        Self { ip: true, tcp: true, udp: true }
    }
}

impl RssHash {
    const NONE: Self = Self { ip: false, tcp: false, udp: false };

    pub(super) fn bits(self) -> u64 {
        let bits = |on, bits| if on { bits } else { 0 };
        bits(self.ip, c::PENSTOCK_RSS_IP)
            | bits(self.tcp, c::PENSTOCK_RSS_TCP)
            | bits(self.udp, c::PENSTOCK_RSS_UDP)
    }

    /// A protocol counts as hashed if the device hashes its IPv4 form at least.
    fn from_bits(offered: u64) -> Self {
        Self {
            ip: offered & c::PENSTOCK_RSS_IP != 0,
            tcp: offered & c::PENSTOCK_RSS_TCP != 0,
            udp: offered & c::PENSTOCK_RSS_UDP != 0,
        }
    }
}

/// What the device agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// As asked.
    pub rx_queues: u16,
    /// As asked.
    pub tx_queues: u16,
    /// As asked, rounded up to what the device aligns to.
    pub rx_descriptors: u16,
    /// As asked, rounded up to what the device aligns to.
    pub tx_descriptors: u16,
    /// The MTU now, in bytes.
    pub mtu: u16,
    /// What of the hash asked for the device does; all false without RSS.
    pub rss: RssHash,
    /// Whether packets bring their hash, see [`Mbuf::rss_hash`](crate::Mbuf::rss_hash).
    pub rss_hash_told: bool,
    /// As asked.
    pub promiscuous: bool,
    /// Whether frames for any group are taken in; false too where the PMD knows no such filter.
    pub all_multicast: bool,
    /// Whether the NIC verifies IPv4 header checksums.
    pub rx_ip_checksum: bool,
    /// Whether the NIC verifies both TCP and UDP checksums.
    pub rx_l4_checksum: bool,
    /// As asked.
    pub vlan_tags: Option<VlanTags>,
    /// Whether the NIC takes tags off, as far as each [`Mbuf::stripped`](crate::Mbuf::stripped) says.
    pub vlan_strip: bool,
    /// Whether the NIC puts tags on where [`Mbuf::insert_tag`](crate::Mbuf::insert_tag) or
    /// [`Mbuf::insert_tags`](crate::Mbuf::insert_tags) asks for it.
    pub vlan_insert: bool,
    /// Whether the NIC drops frames of other VLANs.
    pub vlan_filter: bool,
}

/// What a device can do, as its PMD says.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) port: String,
    pub(super) max_rx_queues: u16,
    pub(super) max_tx_queues: u16,
    pub(super) rx_descriptors: (u16, u16),
    pub(super) tx_descriptors: (u16, u16),
    pub(super) mtu_bytes: (u16, u16),
    pub(super) mtu_now: u16,
    pub(super) rx_offloads: u64,
    pub(super) tx_offloads: u64,
    pub(super) rss_hash: u64,
    pub(super) rss_key_bytes: u8,
    pub(super) rss_table_len: u16,
}

/// What a device offers, for a program to ask for no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// RX queues at most.
    pub rx_queues: u16,
    /// TX queues at most.
    pub tx_queues: u16,
    /// What RSS can hash; all false without RSS.
    pub rss: RssHash,
    /// Bytes of an RSS key; 0 if the PMD does not tell, and then none can be given at configuration.
    pub rss_key_bytes: u8,
    /// Entries of the RETA; 0 without one.
    pub rss_table_len: u16,
}

impl From<&Limits> for Capabilities {
    fn from(limits: &Limits) -> Self {
        Self {
            rx_queues: limits.max_rx_queues,
            tx_queues: limits.max_tx_queues,
            rss: RssHash::from_bits(limits.rss_hash),
            rss_key_bytes: limits.rss_key_bytes,
            rss_table_len: limits.rss_table_len,
        }
    }
}

/// What `config` comes to on a device of these `limits`, before the device itself was asked.
pub(super) fn negotiate(
    config: &PortConfig,
    limits: &Limits,
    pool: &Mempool,
) -> Result<Granted, PortError> {
    check_queues(config, limits)?;
    check_mtu(config, limits, pool.name(), pool.data_room())?;
    Ok(grant(config, limits))
}

fn check_queues(config: &PortConfig, limits: &Limits) -> Result<(), PortError> {
    let queues = [
        ("RX", config.rx_queues, limits.max_rx_queues),
        ("TX", config.tx_queues, limits.max_tx_queues),
    ];
    for (direction, asked, most) in queues {
        if asked == 0 || asked > most {
            return Err(PortError::Queues { port: limits.port.clone(), direction, asked, most });
        }
    }
    let descriptors = [
        ("RX", config.rx_descriptors, limits.rx_descriptors),
        ("TX", config.tx_descriptors, limits.tx_descriptors),
    ];
    for (direction, asked, (least, most)) in descriptors {
        let least = least.max(1);
        if asked < least || asked > most {
            return Err(PortError::Descriptors {
                port: limits.port.clone(),
                direction,
                asked,
                least,
                most,
            });
        }
    }
    Ok(())
}

fn check_mtu(config: &PortConfig, limits: &Limits, pool: &str, room: u16) -> Result<(), PortError> {
    let (least, most) = limits.mtu_bytes;
    let mtu = config.mtu.unwrap_or(limits.mtu_now);
    if config.mtu.is_some() && (mtu < least || mtu > most) {
        return Err(PortError::Mtu { port: limits.port.clone(), asked: mtu, least, most });
    }
    let frame = u32::from(mtu) + FRAME_OVERHEAD_BYTES;
    if frame > u32::from(room) {
        return Err(PortError::DataRoom {
            port: limits.port.clone(),
            mtu,
            frame,
            pool: pool.to_owned(),
            room,
        });
    }
    let key = config.rss.as_ref().and_then(|rss| rss.key.as_ref());
    if let Some(key) = key.filter(|key| key.len() != usize::from(limits.rss_key_bytes)) {
        return Err(PortError::RssKey {
            port: limits.port.clone(),
            asked: key.len(),
            needed: limits.rss_key_bytes,
        });
    }
    Ok(())
}

fn grant(config: &PortConfig, limits: &Limits) -> Granted {
    let can = |offloads| limits.rx_offloads & offloads == offloads;
    let tags = vlan::Offered::by(limits, config.vlan_tags);
    let l4 = c::PENSTOCK_RX_OFFLOAD_TCP_CKSUM | c::PENSTOCK_RX_OFFLOAD_UDP_CKSUM;
    let rss = config
        .rss
        .as_ref()
        .map_or(RssHash::NONE, |rss| RssHash::from_bits(rss.hash.bits() & limits.rss_hash));
    Granted {
        rx_queues: config.rx_queues,
        tx_queues: config.tx_queues,
        rx_descriptors: config.rx_descriptors,
        tx_descriptors: config.tx_descriptors,
        mtu: config.mtu.unwrap_or(limits.mtu_now),
        rss,
        rss_hash_told: rss != RssHash::NONE && can(c::PENSTOCK_RX_OFFLOAD_RSS_HASH),
        promiscuous: config.promiscuous,
        all_multicast: config.all_multicast,
        rx_ip_checksum: config.rx_checksums && can(c::PENSTOCK_RX_OFFLOAD_IPV4_CKSUM),
        rx_l4_checksum: config.rx_checksums && can(l4),
        vlan_tags: config.vlan_tags,
        vlan_strip: tags.strip,
        vlan_insert: tags.insert,
        vlan_filter: tags.filter,
    }
}

impl Granted {
    /// The offloads it comes to, as bits of `rte_eth_rxmode`.
    pub(super) fn rx_offloads(&self) -> u64 {
        let bits = |on, bits| if on { bits } else { 0 };
        bits(self.rss_hash_told, c::PENSTOCK_RX_OFFLOAD_RSS_HASH)
            | bits(self.rx_ip_checksum, c::PENSTOCK_RX_OFFLOAD_IPV4_CKSUM)
            | bits(
                self.rx_l4_checksum,
                c::PENSTOCK_RX_OFFLOAD_TCP_CKSUM | c::PENSTOCK_RX_OFFLOAD_UDP_CKSUM,
            )
            | vlan::offloads(self).0
    }

    /// The same of `rte_eth_txmode`.
    pub(super) fn tx_offloads(&self) -> u64 {
        vlan::offloads(self).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            port: "net_test0".to_owned(),
            max_rx_queues: 4,
            max_tx_queues: 2,
            rx_descriptors: (64, 4096),
            tx_descriptors: (0, 1024),
            mtu_bytes: (68, 9000),
            mtu_now: 1500,
            rx_offloads: c::PENSTOCK_RX_OFFLOAD_IPV4_CKSUM | c::PENSTOCK_RX_OFFLOAD_TCP_CKSUM,
            tx_offloads: 0,
            rss_hash: c::PENSTOCK_RSS_IP | c::PENSTOCK_RSS_TCP,
            rss_key_bytes: 40,
            rss_table_len: 128,
        }
    }

    fn refusal(change: impl FnOnce(&mut PortConfig)) -> String {
        let mut config = PortConfig::default();
        change(&mut config);
        let queues = check_queues(&config, &limits());
        let refused = queues.and_then(|()| check_mtu(&config, &limits(), "mbufs", 2048));
        refused.map_or_else(|error| error.to_string(), |()| "accepted".to_owned())
    }

    /// What a program reads when it asks too much, a row each.
    #[test]
    fn a_refusal_names_port_value_and_limit() {
        let key = |bytes| Some(RssConfig { key: Some(vec![0; bytes]), ..RssConfig::default() });
        let rows = [
            (refusal(|_| {}), "accepted"),
            (refusal(|c| c.rx_queues = 5), "port net_test0: 5 RX queues asked, PMD allows 1..=4"),
            (refusal(|c| c.tx_queues = 0), "port net_test0: 0 TX queues asked, PMD allows 1..=2"),
            (
                refusal(|c| c.rx_descriptors = 32),
                "port net_test0: 32 RX descriptors asked, PMD allows 64..=4096",
            ),
            (
                refusal(|c| c.tx_descriptors = 0),
                "port net_test0: 0 TX descriptors asked, PMD allows 1..=1024",
            ),
            (
                refusal(|c| c.tx_descriptors = 2048),
                "port net_test0: 2048 TX descriptors asked, PMD allows 1..=1024",
            ),
            (
                refusal(|c| c.mtu = Some(9001)),
                "port net_test0: MTU 9001 asked, PMD allows 68..=9000",
            ),
            (
                refusal(|c| c.mtu = Some(2023)),
                "port net_test0: frames of MTU 2023 have up to 2049 bytes, mbufs of mempool mbufs hold 2048: give it a larger data room",
            ),
            (refusal(|c| c.mtu = Some(2022)), "accepted"),
            (
                refusal(|c| c.rss = key(52)),
                "port net_test0: an RSS key of 52 bytes given, PMD takes 40",
            ),
            (refusal(|c| c.rss = key(40)), "accepted"),
        ];
        for (seen, promised) in rows {
            assert_eq!(seen, promised);
        }
    }

    #[test]
    fn what_the_device_cannot_do_is_not_granted() {
        let asked = PortConfig {
            rx_checksums: true,
            vlan_tags: Some(VlanTags::One { vlan: 7 }),
            rss: Some(RssConfig::default()),
            ..PortConfig::default()
        };
        let granted = grant(&asked, &limits());
        assert!(granted.rx_ip_checksum, "the device verifies IPv4");
        assert!(!granted.rx_l4_checksum, "TCP without UDP is not both");
        assert!(!granted.vlan_strip && !granted.vlan_insert && !granted.vlan_filter, "not offered");
        assert!(!granted.rss_hash_told, "not offered");
        assert_eq!(granted.rss, RssHash { ip: true, tcp: true, udp: false });
        assert_eq!(granted.rx_offloads(), c::PENSTOCK_RX_OFFLOAD_IPV4_CKSUM);
    }

    #[test]
    fn what_was_not_asked_is_not_granted() {
        let all = Limits { rx_offloads: u64::MAX, tx_offloads: u64::MAX, ..limits() };
        let granted = grant(&PortConfig::default(), &all);
        assert_eq!((granted.rx_offloads(), granted.tx_offloads()), (0, 0));
        assert_eq!(granted.rss, RssHash::NONE);
    }

    /// What a device offers of a port's tags, and what it is asked for: a row each. Two tags are the NIC's only if it
    /// knows of two.
    #[test]
    fn a_nic_deals_with_tags_as_far_as_it_can() {
        const STRIP: u64 = c::PENSTOCK_RX_OFFLOAD_VLAN_STRIP;
        const FILTER: u64 = c::PENSTOCK_RX_OFFLOAD_VLAN_FILTER;
        const STRIP_TWO: u64 =
            STRIP | c::PENSTOCK_RX_OFFLOAD_QINQ_STRIP | c::PENSTOCK_RX_OFFLOAD_VLAN_EXTEND;
        const INSERT: u64 = c::PENSTOCK_TX_OFFLOAD_VLAN_INSERT;
        const INSERT_TWO: u64 = INSERT | c::PENSTOCK_TX_OFFLOAD_QINQ_INSERT;
        let (one, two) = (VlanTags::One { vlan: 7 }, VlanTags::Two { outer_type: 0x88a8 });
        let rows = [
            (one, (STRIP, INSERT), (STRIP, INSERT)),
            (one, (STRIP | FILTER, 0), (STRIP | FILTER, 0)),
            (one, (STRIP_TWO | FILTER, INSERT_TWO), (STRIP | FILTER, INSERT)),
            (two, (STRIP | FILTER, INSERT), (0, 0)),
            (two, (STRIP_TWO | FILTER, INSERT), (STRIP_TWO, 0)),
            (two, (STRIP_TWO, INSERT_TWO), (STRIP_TWO, INSERT_TWO)),
        ];
        for (tags, (rx_offloads, tx_offloads), expected) in rows {
            let asked = PortConfig { vlan_tags: Some(tags), ..PortConfig::default() };
            let granted = grant(&asked, &Limits { rx_offloads, tx_offloads, ..limits() });
            let offloads = (granted.rx_offloads(), granted.tx_offloads());
            assert_eq!(offloads, expected, "{tags:?} of {rx_offloads:#x}, {tx_offloads:#x}");
        }
    }
}
