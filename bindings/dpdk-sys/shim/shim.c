#include <stdio.h>

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
