/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/ports.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>

#include "config/base/log.h"
#include "dataplane/pkt.h"
#include "dataplane/port_fd.h"
#include "dataplane/worker.h"

#define RX_DESCRIPTORS 2048
#define TX_DESCRIPTORS 2048
#define PORT_MBUFS 12288 /* rings of a port and its shadow, AF_XDP's fill ring, bursts under way */
#define MBUF_BYTES (RTE_MBUF_DEFAULT_BUF_SIZE + sizeof(struct rte_mbuf) + sizeof(struct pkt) + 64)
#define MBUF_CACHE 256
#define POOL_NAME "mbufs"
#define PORTS_SPARE 1 /* buffers for so many ports that are added later, memory_mb permitting */
#define MTU_DEFAULT 1500
#define EAL_ARGS_MAX (24 + 2 * MSG_PORTS_MAX)

void port_from_config(struct port *p, const struct msg_port *cfg)
{
	*p = (struct port){
		.eth = PORT_ETH_NONE, .tap_eth = PORT_ETH_NONE, .rx_fd = -1, .tap_fd = -1};
	snprintf(p->name, sizeof(p->name), "%s", cfg->name);
	p->side = cfg->side;
	p->mtu_bytes = cfg->mtu_bytes != 0 ? cfg->mtu_bytes : MTU_DEFAULT;
	if (cfg->untagged)
		p->vlans[0] |= 1;
	for (unsigned i = 0; i < cfg->n_vlans && i < MSG_VLANS_MAX; i++) {
		if (cfg->outer[i] != 0)
			p->qinq[p->n_qinq++] =
				(struct port_qinq){cfg->outer[i], cfg->vlans[i],
						   subinterface_id(cfg->outer[i], cfg->vlans[i])};
		else if (cfg->vlans[i] < 4095)
			p->vlans[cfg->vlans[i] / 64] |= 1ull << (cfg->vlans[i] % 64);
	}
}

/* "0000:03:00.0" or "03:00.0": a PCI address, not a virtual device. */
static bool is_pci(const char *devargs)
{
	size_t n = strspn(devargs, "0123456789abcdefABCDEF:");

	return n >= 5 && devargs[n] == '.' && isxdigit((unsigned char)devargs[n + 1]);
}

static bool any_pci(const struct msg_dp_config *cfg)
{
	for (unsigned i = 0; i < cfg->n_ports; i++) {
		if (is_pci(cfg->ports[i].devargs))
			return true;
	}
	return false;
}

/* "1", "2-3", "1,4-5" to a list of CPUs. @return how many, or -EINVAL */
static int parse_cpus(const char *text, unsigned *cpu, unsigned room)
{
	unsigned n = 0;

	while (*text != '\0') {
		char *end;
		unsigned long lo = strtoul(text, &end, 10), hi = lo;

		if (end == text || !isdigit((unsigned char)*text))
			return -EINVAL;
		text = end;
		if (*text == '-') {
			text++;
			hi = strtoul(text, &end, 10);
			if (end == text || !isdigit((unsigned char)*text))
				return -EINVAL;
			text = end;
		}
		if (hi < lo || hi - lo >= room - n || hi > 1023)
			return -EINVAL;
		while (lo <= hi)
			cpu[n++] = lo++;
		if (*text == ',')
			text++;
		else if (*text != '\0')
			return -EINVAL;
	}
	return n > 0 ? (int)n : -EINVAL;
}

int ports_eal_init(const struct msg_dp_config *cfg, struct err *err)
{
	unsigned cpu[WORKERS_MAX + 1];
	char lcores[512], memory[16];
	char *argv[EAL_ARGS_MAX] = {"sallyport-dataplane"};
	int argc = 1, n, workers = parse_cpus(cfg->lcores, cpu, WORKERS_MAX);

	if (workers < 0)
		return err_set(err, -EINVAL, "lcores \"%s\": not a list of at most %u CPUs",
			       cfg->lcores, WORKERS_MAX);
	n = snprintf(lcores, sizeof(lcores), "0@%u", cfg->main_lcore);
	for (int i = 0; i < workers; i++)
		n += snprintf(lcores + n, sizeof(lcores) - n, ",%d@%u", i + 1, cpu[i]);
	snprintf(memory, sizeof(memory), "%u", cfg->memory_mb);
	argv[argc++] = "--lcores";
	argv[argc++] = lcores;
	argv[argc++] = "--main-lcore=0";
	argv[argc++] = "-m";
	argv[argc++] = memory;
	argv[argc++] = "--log-level=warning";
	/* The TAP driver calls "error" what it can do without: flow rules, secondary processes. */
	argv[argc++] = "--log-level=pmd.net.tap:critical";
	/* Nothing is left behind by a kill. One wish, two options: --in-memory wants hugepages. */
	if (cfg->hugepages) {
		argv[argc++] = "--in-memory";
	} else {
		argv[argc++] = "--no-huge";
		argv[argc++] = "--no-shconf";
	}
	if (cfg->file_prefix[0] != '\0') {
		argv[argc++] = "--file-prefix";
		argv[argc++] = (char *)cfg->file_prefix;
	}
	if (!any_pci(cfg))
		argv[argc++] = "--no-pci";
	for (unsigned i = 0; i < cfg->n_ports; i++) {
		if (is_pci(cfg->ports[i].devargs)) {
			argv[argc++] = "-a";
			argv[argc++] = (char *)cfg->ports[i].devargs;
		}
	}
	if (rte_eal_init(argc, argv) < 0)
		return err_set(err, -rte_errno, "EAL: %s (lcores %s, %u MB, %s)",
			       rte_strerror(rte_errno), lcores, cfg->memory_mb,
			       cfg->hugepages ? "hugepages" : "no hugepages");
	return workers;
}

static int attach(const char *devargs, uint16_t *eth, struct err *err)
{
	char name[192];
	int ret;

	snprintf(name, sizeof(name), "%s", devargs);
	name[strcspn(name, ",")] = '\0';
	if (rte_eth_dev_get_port_by_name(name, eth) == 0)
		return 0;
	ret = rte_dev_probe(devargs);
	if (ret < 0)
		return err_set(err, ret, "%s: probe: %s", devargs, strerror(-ret));
	if (rte_eth_dev_get_port_by_name(name, eth) != 0)
		return err_set(err, -ENODEV, "%s: no such port after probing", devargs);
	return 0;
}

static int start(uint16_t eth, uint16_t mtu, struct rte_mempool *pool, struct err *err)
{
	/* Drivers that know no interrupts ignore the wish. */
	struct rte_eth_conf conf = {.rxmode = {.mq_mode = RTE_ETH_MQ_RX_NONE}, .intr_conf.rxq = 1};
	uint16_t rx = RX_DESCRIPTORS, tx = TX_DESCRIPTORS, now = 0;
	int node = rte_eth_dev_socket_id(eth);
	int ret;

	ret = rte_eth_dev_configure(eth, 1, 1, &conf);
	if (ret < 0)
		return err_set(err, ret, "configure: %s", strerror(-ret));
	if (rte_eth_dev_get_mtu(eth, &now) == 0 && now != mtu) {
		ret = rte_eth_dev_set_mtu(eth, mtu);
		if (ret < 0)
			log_warn("port mtu=%u wanted=%u: %s", now, mtu, strerror(-ret));
	}
	ret = rte_eth_dev_adjust_nb_rx_tx_desc(eth, &rx, &tx);
	if (ret < 0)
		return err_set(err, ret, "descriptors: %s", strerror(-ret));
	ret = rte_eth_rx_queue_setup(eth, 0, rx, node, NULL, pool);
	if (ret < 0)
		return err_set(err, ret, "receive queue: %s", strerror(-ret));
	ret = rte_eth_tx_queue_setup(eth, 0, tx, node, NULL);
	if (ret < 0)
		return err_set(err, ret, "transmit queue: %s", strerror(-ret));
	ret = rte_eth_dev_start(eth);
	if (ret < 0)
		return err_set(err, ret, "start: %s", strerror(-ret));
	/* Neighbour discovery is multicast. A port that can do neither hears everything anyway (AF_XDP on veth). */
	if (rte_eth_allmulticast_enable(eth) < 0)
		(void)rte_eth_promiscuous_enable(eth);
	return 0;
}

/* Detached too: what is probed anew gets a new device. */
static void stop(uint16_t *eth)
{
	struct rte_eth_dev_info info = {0};

	if (*eth == PORT_ETH_NONE)
		return;
	(void)rte_eth_dev_info_get(*eth, &info);
	rte_eth_dev_stop(*eth);
	rte_eth_dev_close(*eth);
	if (info.device != NULL && rte_dev_remove(info.device) < 0)
		log_warn("port device=%s stays attached", rte_dev_name(info.device));
	*eth = PORT_ETH_NONE;
}

void port_close(struct port *p)
{
	int fd = p->rx_fd;

	p->rx_fd = p->tap_fd = -1;
	stop(&p->tap_eth);
	stop(&p->eth);
	port_fd_release(fd, p->rx_cookie);
	p->rx_cookie = 0;
}

static int bring_up(struct port *p, unsigned index, const struct msg_port *cfg,
		    struct rte_mempool *pool, struct err *err)
{
	char tap[128], mac[MAC_TEXT_BYTES];
	struct rte_ether_addr addr;
	struct port_fds before;
	int ret;

	port_fds_now(&before);
	ret = attach(cfg->devargs, &p->eth, err);
	if (ret < 0)
		return ret;
	ret = start(p->eth, p->mtu_bytes, pool, err);
	if (ret < 0)
		goto fail;
	p->rx_fd = port_fd_find(p->eth, &before);
	p->rx_cookie = port_fd_cookie(p->rx_fd);
	ret = rte_eth_macaddr_get(p->eth, &addr);
	if (ret < 0) {
		err_set(err, ret, "MAC address: %s", strerror(-ret));
		goto fail;
	}
	memcpy(p->mac.b, addr.addr_bytes, sizeof(p->mac.b));
	snprintf(tap, sizeof(tap), "net_tap_shadow%u,iface=%s,mac=%s", index, cfg->tap,
		 mac_addr_text(&p->mac, mac));
	ret = attach(tap, &p->tap_eth, err);
	if (ret == 0)
		ret = start(p->tap_eth, p->mtu_bytes, pool, err);
	if (ret < 0) {
		err_wrap(err, ret, "shadow %s", cfg->tap);
		goto fail;
	}
	p->tap_fd = port_fd_find(p->tap_eth, &before);
	return 0;
fail:
	port_close(p);
	return ret;
}

static unsigned dpdk_ports(const struct msg_dp_config *cfg)
{
	unsigned n = 0;

	for (unsigned i = 0; i < cfg->n_ports; i++)
		n += cfg->ports[i].devargs[0] != '\0';
	return n;
}

/* With small pages, AF_XDP loses every frame that lies across two of them (the kernel takes no buffer that is not
 * contiguous), so each buffer gets a page of its own. */
static struct rte_mempool *paged_pool(unsigned n)
{
	const unsigned page = getpagesize(), header = sizeof(struct rte_mempool_objhdr);
	const unsigned flags = RTE_MEMPOOL_F_NO_SPREAD | RTE_MEMPOOL_F_NO_IOVA_CONTIG;
	struct rte_pktmbuf_pool_private priv = {.mbuf_priv_size = sizeof(struct pkt)};
	unsigned elem = page - RTE_ALIGN(header, RTE_CACHE_LINE_SIZE);
	struct rte_mempool *mp;
	void *mem;

	mp = rte_mempool_create_empty(POOL_NAME, n, elem, MBUF_CACHE, sizeof(priv), SOCKET_ID_ANY,
				      flags);
	if (mp == NULL)
		return NULL;
	priv.mbuf_data_room_size = elem - sizeof(struct rte_mbuf) - sizeof(struct pkt);
	rte_pktmbuf_pool_init(mp, &priv);
	mem = mmap(NULL, (size_t)n * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		   0);
	if (mem == MAP_FAILED)
		goto fail;
	/* The mapping lives as long as the process. */
	if (rte_mempool_populate_virt(mp, mem, (size_t)n * page, page, NULL, NULL) < (int)n) {
		munmap(mem, (size_t)n * page);
		goto fail;
	}
	rte_mempool_obj_iter(mp, rte_pktmbuf_init, NULL);
	return mp;
fail:
	rte_mempool_free(mp);
	rte_errno = ENOMEM;
	return NULL;
}

/* One for all ports, those that come later too: a frame that goes out by another port is not copied. */
static struct rte_mempool *pool_get(const struct msg_dp_config *cfg, uint16_t workers,
				    struct err *err)
{
	unsigned wanted = dpdk_ports(cfg) + PORTS_SPARE;
	size_t each = cfg->hugepages ? MBUF_BYTES : (size_t)getpagesize();
	size_t room = (size_t)cfg->memory_mb * 1024 * 1024 / 2 / each;
	size_t n = (size_t)wanted * PORT_MBUFS + (size_t)workers * MBUF_CACHE * 2;
	struct rte_mempool *pool = rte_mempool_lookup(POOL_NAME);

	if (pool != NULL)
		return pool;
	if (n > room)
		n = room;
	if (!cfg->hugepages && !any_pci(cfg))
		pool = paged_pool(n);
	else
		pool = rte_pktmbuf_pool_create(POOL_NAME, n, MBUF_CACHE, sizeof(struct pkt),
					       RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (pool == NULL)
		err_set(err, -rte_errno, "%zu packet buffers: %s", n, rte_strerror(rte_errno));
	return pool;
}

int port_open(struct port *p, unsigned index, const struct msg_dp_config *cfg, uint16_t workers,
	      struct err *err)
{
	struct rte_mempool *pool = pool_get(cfg, workers, err);
	int ret = pool != NULL ? bring_up(p, index, &cfg->ports[index], pool, err) : -ENOMEM;

	if (ret == 0)
		log_info("port up name=%s devargs=%s shadow=%s mtu=%u", p->name,
			 cfg->ports[index].devargs, cfg->ports[index].tap, p->mtu_bytes);
	return ret;
}

int ports_start(struct port *ports, const struct msg_dp_config *cfg, uint16_t workers,
		struct err *err)
{
	unsigned wanted = dpdk_ports(cfg), up = 0;
	int ret = 0;

	if (wanted == 0)
		return 0;
	for (unsigned i = 0; i < cfg->n_ports; i++) {
		struct err why = {0};

		if (cfg->ports[i].devargs[0] == '\0')
			continue;
		ret = port_open(&ports[i], i, cfg, workers, &why);
		if (ret < 0) {
			log_error("port down name=%s devargs=%s: %s", ports[i].name,
				  cfg->ports[i].devargs, why.msg);
			err_set(err, ret, "port %s: %s", ports[i].name, why.msg);
			continue;
		}
		ports[i].present = true;
		up++;
	}
	if (up > 0)
		return 0;
	return err_wrap(err, ret, "no port came up");
}

void ports_stop(struct port *ports, uint16_t n)
{
	for (uint16_t i = 0; i < n; i++) {
		ports[i].present = false;
		port_close(&ports[i]);
	}
}

bool port_link_up(const struct port *p)
{
	struct rte_eth_link link = {0};

	return p->eth != PORT_ETH_NONE && rte_eth_link_get_nowait(p->eth, &link) == 0 &&
	       link.link_status;
}
