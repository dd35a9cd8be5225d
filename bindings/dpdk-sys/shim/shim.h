/*
 * What Rust cannot reach in libdpdk by itself: inline functions, errno, stdio and layouts.
 *
 * Rules. Names begin with penstock_ (functions) or PENSTOCK_ (constants) and say what the DPDK name
 * says. A shim adds no policy: one DPDK call, or a few that only make sense together. Constants are
 * `static const`, because bindgen then knows their value; DPDK's own are macros with casts that it
 * drops in silence. Differences between DPDK releases are settled here and nowhere else.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <rte_config.h>
#include <rte_version.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_thash.h>

/* EAL ------------------------------------------------------------------------------------------ */

/* rte_errno is a per-thread variable behind a macro. */
int penstock_errno(void);
/* Logs go to stderr alone; by default they go to syslog too. 0, or -1. */
int penstock_log_to_stderr(void);
uint64_t penstock_tsc_cycles(void);
/* Whether `cpu` is in the set an lcore is pinned to; rte_lcore_to_cpu_id() knows nothing of --lcores. */
int penstock_lcore_runs_on(unsigned int lcore, unsigned int cpu);
static const uint32_t PENSTOCK_CPU_SETSIZE = CPU_SETSIZE;

/* Packets -------------------------------------------------------------------------------------- */

uint16_t penstock_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t penstock_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
/* Reset as if fresh from the NIC: headroom in place, no length, no flags. NULL if the pool is empty. */
struct rte_mbuf *penstock_pktmbuf_alloc(struct rte_mempool *pool);
void penstock_pktmbuf_free(struct rte_mbuf *mbuf);
/* What of a burst may be sent, made ready for it: NICs that put VLAN tags on may want that. */
uint16_t penstock_eth_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
/* 0; or not, and nothing is changed: -EOVERFLOW for too many segments. */
int penstock_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);
/* 0; or -1, and nothing is changed: the first segment has no room for the others. */
int penstock_pktmbuf_linearize(struct rte_mbuf *mbuf);

/* Ports ---------------------------------------------------------------------------------------- */

/* rte_eth_link is a bit field, and an anonymous union of one since 24.11. */
struct penstock_link {
	uint32_t speed_mbps; /* PENSTOCK_SPEED_UNKNOWN if the PMD cannot tell */
	uint8_t up;
	uint8_t full_duplex;
};
int penstock_eth_link_get_nowait(uint16_t port, struct penstock_link *link);

static const uint32_t PENSTOCK_SPEED_UNKNOWN = RTE_ETH_SPEED_NUM_UNKNOWN;
static const uint32_t PENSTOCK_ETH_NAME_MAX_LEN = RTE_ETH_NAME_MAX_LEN;
static const uint32_t PENSTOCK_MAX_ETHPORTS = RTE_MAX_ETHPORTS;
static const uint32_t PENSTOCK_MAX_LCORE = RTE_MAX_LCORE;
static const int PENSTOCK_SOCKET_ID_ANY = SOCKET_ID_ANY;
static const uint64_t PENSTOCK_ETH_NO_OWNER = RTE_ETH_DEV_NO_OWNER;

static const uint32_t PENSTOCK_ETH_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;
static const uint64_t PENSTOCK_RSS_IP = RTE_ETH_RSS_IP;
static const uint64_t PENSTOCK_RSS_TCP = RTE_ETH_RSS_TCP;
static const uint64_t PENSTOCK_RSS_UDP = RTE_ETH_RSS_UDP;

static const uint64_t PENSTOCK_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t PENSTOCK_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t PENSTOCK_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t PENSTOCK_RX_OFFLOAD_VLAN_STRIP = RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
static const uint64_t PENSTOCK_RX_OFFLOAD_VLAN_FILTER = RTE_ETH_RX_OFFLOAD_VLAN_FILTER;
static const uint64_t PENSTOCK_RX_OFFLOAD_VLAN_EXTEND = RTE_ETH_RX_OFFLOAD_VLAN_EXTEND;
static const uint64_t PENSTOCK_RX_OFFLOAD_QINQ_STRIP = RTE_ETH_RX_OFFLOAD_QINQ_STRIP;
static const uint64_t PENSTOCK_TX_OFFLOAD_VLAN_INSERT = RTE_ETH_TX_OFFLOAD_VLAN_INSERT;
static const uint64_t PENSTOCK_TX_OFFLOAD_QINQ_INSERT = RTE_ETH_TX_OFFLOAD_QINQ_INSERT;
static const uint32_t PENSTOCK_VLAN_TYPE_OUTER = RTE_ETH_VLAN_TYPE_OUTER;
static const uint64_t PENSTOCK_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;

/* Whose L4 ports go into the hash. */
static const uint64_t PENSTOCK_RSS_TCP_V4 = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t PENSTOCK_RSS_UDP_V4 = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t PENSTOCK_RSS_TCP_V6 = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t PENSTOCK_RSS_UDP_V6 = RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint16_t PENSTOCK_RETA_GROUP = RTE_ETH_RETA_GROUP_SIZE;
/* The Toeplitz hash of `count` words in host order; the key has a word more than that, and is aligned to one. */
uint32_t penstock_softrss(const uint32_t *words, uint32_t count, const uint8_t *key);

/* TCP or UDP to one address and to the L4 ports that have the bits of `l4_port` under `l4_port_mask`. */
struct penstock_steering {
	uint8_t address[16]; /* as in the packet; that of IPv4 in the first four bytes */
	uint8_t is_v6;
	uint8_t protocol;
	uint16_t l4_port; /* host order */
	uint16_t l4_port_mask;
	uint16_t queue;
};
/* Validates the rule and creates it. 0; or what was returned negative, and in `why` words of the PMD or NULL. */
int penstock_flow_steer(uint16_t port, const struct penstock_steering *to, struct rte_flow **flow,
			const char **why);
int penstock_flow_destroy(uint16_t port, struct rte_flow *flow);

/* Mbuf flags ----------------------------------------------------------------------------------- */

static const uint64_t PENSTOCK_MBUF_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint64_t PENSTOCK_MBUF_RX_VLAN = RTE_MBUF_F_RX_VLAN;
static const uint64_t PENSTOCK_MBUF_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
static const uint64_t PENSTOCK_MBUF_RX_QINQ = RTE_MBUF_F_RX_QINQ;
static const uint64_t PENSTOCK_MBUF_RX_QINQ_STRIPPED = RTE_MBUF_F_RX_QINQ_STRIPPED;
static const uint64_t PENSTOCK_MBUF_TX_VLAN = RTE_MBUF_F_TX_VLAN;
static const uint64_t PENSTOCK_MBUF_TX_QINQ = RTE_MBUF_F_TX_QINQ;
static const uint64_t PENSTOCK_MBUF_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t PENSTOCK_MBUF_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t PENSTOCK_MBUF_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t PENSTOCK_MBUF_RX_IP_CKSUM_NONE = RTE_MBUF_F_RX_IP_CKSUM_NONE;
static const uint64_t PENSTOCK_MBUF_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t PENSTOCK_MBUF_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t PENSTOCK_MBUF_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t PENSTOCK_MBUF_RX_L4_CKSUM_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;

/* Layout of struct rte_mbuf, against which the Rust mirror of its head is asserted --------------- */

static const size_t PENSTOCK_MBUF_SIZE = sizeof(struct rte_mbuf);
static const size_t PENSTOCK_MBUF_ALIGN = _Alignof(struct rte_mbuf);
static const size_t PENSTOCK_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr);
static const size_t PENSTOCK_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off);
static const size_t PENSTOCK_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt);
static const size_t PENSTOCK_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs);
static const size_t PENSTOCK_MBUF_PORT = offsetof(struct rte_mbuf, port);
static const size_t PENSTOCK_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags);
static const size_t PENSTOCK_MBUF_PACKET_TYPE = offsetof(struct rte_mbuf, packet_type);
static const size_t PENSTOCK_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len);
static const size_t PENSTOCK_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len);
static const size_t PENSTOCK_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci);
static const size_t PENSTOCK_MBUF_HASH_RSS = offsetof(struct rte_mbuf, hash.rss);
static const size_t PENSTOCK_MBUF_VLAN_TCI_OUTER = offsetof(struct rte_mbuf, vlan_tci_outer);
static const size_t PENSTOCK_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len);
static const uint16_t PENSTOCK_MBUF_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint32_t PENSTOCK_MEMPOOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE;
