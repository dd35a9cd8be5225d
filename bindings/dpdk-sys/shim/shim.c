#include <stdio.h>
#include <string.h>

#include "shim.h"

int penstock_errno(void)
{
	return rte_errno;
}

int penstock_log_to_stderr(void)
{
	return rte_openlog_stream(stderr);
}

uint64_t penstock_tsc_cycles(void)
{
	return rte_get_tsc_cycles();
}

int penstock_lcore_runs_on(unsigned int lcore, unsigned int cpu)
{
	rte_cpuset_t cpus = rte_lcore_cpuset(lcore);

	return CPU_ISSET(cpu, &cpus) != 0;
}

uint16_t penstock_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t penstock_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

uint16_t penstock_eth_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_prepare(port, queue, mbufs, count);
}

int penstock_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail)
{
	return rte_pktmbuf_chain(head, tail);
}

int penstock_pktmbuf_linearize(struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_linearize(mbuf);
}

struct rte_mbuf *penstock_pktmbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void penstock_pktmbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

int penstock_eth_link_get_nowait(uint16_t port, struct penstock_link *link)
{
	struct rte_eth_link now;
	int failed = rte_eth_link_get_nowait(port, &now);

	if (failed)
		return failed;
	link->speed_mbps = now.link_speed;
	link->up = now.link_status;
	link->full_duplex = now.link_duplex;
	return 0;
}

uint32_t penstock_softrss(const uint32_t *words, uint32_t count, const uint8_t *key)
{
	return rte_softrss((uint32_t *)(uintptr_t)words, count, key);
}

/* Sets `spec` and `mask` to the address and the protocol. The type of an IPv6 address changed in 24.11. */
static enum rte_flow_item_type steer_ip(const struct penstock_steering *to, void *spec, void *mask)
{
	if (to->is_v6) {
		struct rte_flow_item_ipv6 *v6 = spec, *v6_mask = mask;

		memcpy(&v6->hdr.dst_addr, to->address, 16);
		memset(&v6_mask->hdr.dst_addr, 0xff, 16);
		v6->hdr.proto = to->protocol;
		v6_mask->hdr.proto = 0xff;
		return RTE_FLOW_ITEM_TYPE_IPV6;
	}
	struct rte_flow_item_ipv4 *v4 = spec, *v4_mask = mask;

	memcpy(&v4->hdr.dst_addr, to->address, 4);
	memset(&v4_mask->hdr.dst_addr, 0xff, 4);
	v4->hdr.next_proto_id = to->protocol;
	v4_mask->hdr.next_proto_id = 0xff;
	return RTE_FLOW_ITEM_TYPE_IPV4;
}

/* Both headers begin with source and destination port. */
static enum rte_flow_item_type steer_l4(const struct penstock_steering *to, void *spec, void *mask)
{
	if (to->protocol == IPPROTO_TCP) {
		struct rte_flow_item_tcp *tcp = spec, *tcp_mask = mask;

		tcp->hdr.dst_port = rte_cpu_to_be_16(to->l4_port);
		tcp_mask->hdr.dst_port = rte_cpu_to_be_16(to->l4_port_mask);
		return RTE_FLOW_ITEM_TYPE_TCP;
	}
	struct rte_flow_item_udp *udp = spec, *udp_mask = mask;

	udp->hdr.dst_port = rte_cpu_to_be_16(to->l4_port);
	udp_mask->hdr.dst_port = rte_cpu_to_be_16(to->l4_port_mask);
	return RTE_FLOW_ITEM_TYPE_UDP;
}

int penstock_flow_steer(uint16_t port, const struct penstock_steering *to, struct rte_flow **flow,
			const char **why)
{
	union {
		struct rte_flow_item_ipv4 v4;
		struct rte_flow_item_ipv6 v6;
	} ip, ip_mask;
	union {
		struct rte_flow_item_tcp tcp;
		struct rte_flow_item_udp udp;
	} l4, l4_mask;
	struct rte_flow_attr attr = { .ingress = 1 };
	struct rte_flow_action_queue queue = { .index = to->queue };
	struct rte_flow_action actions[] = {
		{ .type = RTE_FLOW_ACTION_TYPE_QUEUE, .conf = &queue },
		{ .type = RTE_FLOW_ACTION_TYPE_END },
	};
	struct rte_flow_error error = { .message = NULL };
	int code;

	memset(&ip, 0, sizeof(ip));
	memset(&ip_mask, 0, sizeof(ip_mask));
	memset(&l4, 0, sizeof(l4));
	memset(&l4_mask, 0, sizeof(l4_mask));
	struct rte_flow_item pattern[] = {
		{ .type = RTE_FLOW_ITEM_TYPE_ETH },
		{ .type = steer_ip(to, &ip, &ip_mask), .spec = &ip, .mask = &ip_mask },
		{ .type = steer_l4(to, &l4, &l4_mask), .spec = &l4, .mask = &l4_mask },
		{ .type = RTE_FLOW_ITEM_TYPE_END },
	};

	code = rte_flow_validate(port, &attr, pattern, actions, &error);
	if (code == 0) {
		*flow = rte_flow_create(port, &attr, pattern, actions, &error);
		code = *flow ? 0 : -rte_errno;
	}
	*why = error.message;
	return code;
}

int penstock_flow_destroy(uint16_t port, struct rte_flow *flow)
{
	struct rte_flow_error error = { .message = NULL };

	return rte_flow_destroy(port, flow, &error);
}
