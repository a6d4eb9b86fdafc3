/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/ports.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>

#include "config/base/log.h"
#include "dataplane/pkt.h"
#include "dataplane/port_fd.h"
#include "dataplane/port_pool.h"
#include "dataplane/port_tap.h"
#include "dataplane/worker.h"

#define MTU_DEFAULT 1500
#define EAL_ARGS_MAX (24 + 2 * MSG_PORTS_MAX)

static void forget_descriptors(struct port *p)
{
	for (unsigned q = 0; q < PORT_QUEUES_MAX; q++)
		p->rx_fd[q] = -1;
}

void port_none(struct port *p)
{
	*p = (struct port){
		.eth = PORT_ETH_NONE, .tap_eth = PORT_ETH_NONE, .tap_fd = -1, .large_fd = -1};
	port_queues_one(&p->queues);
	forget_descriptors(p);
}

void port_from_config(struct port *p, const struct msg_port *cfg)
{
	port_none(p);
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

static int configure(uint16_t eth, const struct rte_eth_dev_info *info, const struct port_queues *q,
		     struct err *err)
{
	/* Drivers that know no interrupts ignore the wish. */
	struct rte_eth_conf conf = {.rxmode = {.mq_mode = RTE_ETH_MQ_RX_NONE}, .intr_conf.rxq = 1};
	uint8_t key[RSS_KEY_MAX];
	int ret;

	if (q->rss != 0) {
		port_queues_key(key, info->hash_key_size);
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = q->rss;
		conf.rx_adv_conf.rss_conf.rss_key = info->hash_key_size > 0 ? key : NULL;
		conf.rx_adv_conf.rss_conf.rss_key_len = info->hash_key_size;
	}
	ret = rte_eth_dev_configure(eth, q->rx, q->tx, &conf);
	return ret < 0 ? err_set(err, ret, "configure: %s", strerror(-ret)) : 0;
}

/* @param[out] fds  the sockets of several receive queues, one each; NULL: of no interest */
static int queues_set_up(uint16_t eth, const struct port_queues *q, struct rte_mempool *pool,
			 int *fds, struct err *err)
{
	/* A port's rings together hold so much, whatever their number: the pool is made for that. */
	uint16_t rx = RTE_MAX(RX_DESCRIPTORS / q->rx, DESCRIPTORS_MIN);
	uint16_t tx = RTE_MAX(TX_DESCRIPTORS / q->tx, DESCRIPTORS_MIN);
	int node = rte_eth_dev_socket_id(eth);
	struct port_fds before;
	int ret = rte_eth_dev_adjust_nb_rx_tx_desc(eth, &rx, &tx);

	if (ret < 0)
		return err_set(err, ret, "descriptors: %s", strerror(-ret));
	for (uint16_t i = 0; i < q->rx; i++) {
		port_fds_now(&before);
		ret = rte_eth_rx_queue_setup(eth, i, rx, node, NULL, pool);
		if (ret < 0)
			return err_set(err, ret, "receive queue %u: %s", i, strerror(-ret));
		if (fds != NULL && q->rx > 1)
			fds[i] = port_fd_socket(eth, &before);
	}
	for (uint16_t i = 0; i < q->tx; i++) {
		ret = rte_eth_tx_queue_setup(eth, i, tx, node, NULL);
		if (ret < 0)
			return err_set(err, ret, "transmit queue %u: %s", i, strerror(-ret));
	}
	return 0;
}

static bool driver_is(const struct rte_eth_dev_info *info, const char *name)
{
	return info->driver_name != NULL && strcmp(info->driver_name, name) == 0;
}

/* What is configured is what holds: a worker's TCP stack cuts its segments by it, and one that nothing takes is lost. */
static int mtu_set(uint16_t eth, const struct rte_eth_dev_info *info, uint16_t mtu, struct err *err)
{
	uint16_t now = 0;
	int ret;

	/* These drivers know of no more, and yet carry what the kernel's interface and their buffers take. */
	if (mtu > MTU_DEFAULT && (driver_is(info, "net_tap") || driver_is(info, "net_af_packet"))) {
		ret = port_tap_mtu(info->if_index, mtu);
		return ret < 0 ? err_set(err, ret, "mtu = %u: %s", mtu, strerror(-ret)) : 0;
	}
	if (rte_eth_dev_get_mtu(eth, &now) < 0 || now == mtu)
		return 0;
	ret = rte_eth_dev_set_mtu(eth, mtu);
	/* A driver that knows no MTU (vhost-user, memif) carries what fits a buffer. */
	if (ret < 0 && ret != -ENOTSUP && mtu > now)
		return err_set(err, ret, "mtu = %u: the device stays at %u (%s); set it to that",
			       mtu, now, strerror(-ret));
	if (ret < 0)
		log_warn("port mtu=%u wanted=%u: %s", now, mtu, strerror(-ret));
	return 0;
}

static int start(uint16_t eth, uint16_t mtu, const struct port_queues *q, struct rte_mempool *pool,
		 int *fds, struct err *err)
{
	struct rte_eth_dev_info info;
	int ret = rte_eth_dev_info_get(eth, &info);

	if (ret < 0)
		return err_set(err, ret, "device information: %s", strerror(-ret));
	ret = configure(eth, &info, q, err);
	if (ret < 0)
		return ret;
	ret = mtu_set(eth, &info, mtu, err);
	if (ret < 0)
		return ret;
	ret = queues_set_up(eth, q, pool, fds, err);
	if (ret < 0)
		return ret;
	ret = rte_eth_dev_start(eth);
	if (ret < 0)
		return err_set(err, ret, "start: %s", strerror(-ret));
	/* Neighbour discovery is multicast. A port that can do neither hears everything anyway (AF_XDP on veth). */
	if (rte_eth_allmulticast_enable(eth) < 0)
		(void)rte_eth_promiscuous_enable(eth);
	return 0;
}

/* With as many queues as suit it. One that offers to hash and then will not is started with one. */
static int start_spread(struct port *p, const char *devargs, uint16_t workers,
			struct rte_mempool *pool, struct err *err)
{
	struct rte_eth_dev_info info;
	int ret = rte_eth_dev_info_get(p->eth, &info);

	if (ret < 0)
		return err_set(err, ret, "device information: %s", strerror(-ret));
	if (port_queues_asked(devargs) > PORT_QUEUES_MAX)
		return err_set(err, -EINVAL, "%s: more than %u queues", devargs, PORT_QUEUES_MAX);
	port_queues_pick(&info, devargs, workers, &p->queues);
	ret = start(p->eth, p->mtu_bytes, &p->queues, pool, p->rx_fd, err);
	if (ret == 0 || p->queues.rss == 0)
		return ret;
	log_warn("port name=%s: not with %u queues: %s; one queue for all workers", p->name,
		 p->queues.rx, err->msg);
	(void)rte_eth_dev_stop(p->eth);
	port_queues_one(&p->queues);
	forget_descriptors(p);
	return start(p->eth, p->mtu_bytes, &p->queues, pool, p->rx_fd, err);
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
	p->tap_fd = p->large_fd = -1;
	stop(&p->tap_eth);
	port_kick_close(p->kick);
	p->kick = NULL;
	stop(&p->eth);
	for (unsigned q = 0; q < PORT_QUEUES_MAX; q++) {
		port_fd_release(p->rx_fd[q], p->rx_cookie[q]);
		p->rx_fd[q] = -1;
		p->rx_cookie[q] = 0;
	}
	port_queues_one(&p->queues);
}

static int bring_up(struct port *p, unsigned index, const struct msg_port *cfg, uint16_t workers,
		    struct rte_mempool *pool, struct err *err)
{
	struct port_queues one;
	char tap[128], mac[MAC_TEXT_BYTES];
	struct rte_ether_addr addr;
	struct port_fds before;
	int ret;

	port_fds_now(&before);
	ret = attach(cfg->devargs, &p->eth, err);
	if (ret < 0)
		return ret;
	ret = start_spread(p, cfg->devargs, workers, pool, err);
	if (p->queues.rx == 1)
		p->rx_fd[0] = port_fd_socket(p->eth, &before); /* the probing may have opened it */
	for (uint16_t q = 0; q < p->queues.rx; q++)
		p->rx_cookie[q] = port_fd_cookie(p->rx_fd[q]);
	if (ret < 0)
		goto fail;
	for (uint16_t q = 0; q < p->queues.rx; q++)
		p->rx_fd[q] = p->rx_fd[q] >= 0 ? p->rx_fd[q] : port_fd_tap(p->eth, q);
	p->kick = port_kick_open(p->eth, p->queues.rx, p->rx_fd);
	p->large_fd = p->mtu_bytes > MTU_DEFAULT ? port_fd_tap(p->eth, 0) : -1;
	ret = rte_eth_macaddr_get(p->eth, &addr);
	if (ret < 0) {
		err_set(err, ret, "MAC address: %s", strerror(-ret));
		goto fail;
	}
	memcpy(p->mac.b, addr.addr_bytes, sizeof(p->mac.b));
	snprintf(tap, sizeof(tap), "net_tap_shadow%u,iface=%s,mac=%s", index, cfg->tap,
		 mac_addr_text(&p->mac, mac));
	ret = attach(tap, &p->tap_eth, err);
	port_queues_one(&one);
	if (ret == 0)
		ret = start(p->tap_eth, p->mtu_bytes, &one, pool, NULL, err);
	if (ret < 0) {
		err_wrap(err, ret, "shadow %s", cfg->tap);
		goto fail;
	}
	p->tap_fd = port_fd_tap(p->tap_eth, 0);
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

int port_open(struct port *p, unsigned index, const struct msg_dp_config *cfg, uint16_t workers,
	      struct err *err)
{
	struct rte_mempool *pool;
	int ret = port_pool_get(&pool, cfg, cfg->ports[index].devargs, p->mtu_bytes, workers, err);

	if (ret == 0)
		ret = bring_up(p, index, &cfg->ports[index], workers, pool, err);
	if (ret == 0)
		log_info("port up name=%s devargs=%s shadow=%s mtu=%u rx_queues=%u tx_queues=%u "
			 "rss=%s",
			 p->name, cfg->ports[index].devargs, cfg->ports[index].tap, p->mtu_bytes,
			 p->queues.rx, p->queues.own_tx ? p->queues.tx : 1,
			 p->queues.rss != 0 ? "yes" : "no");
	return ret;
}

int port_open_link(struct port *p, unsigned n, const struct msg_dp_config *cfg, uint16_t workers,
		   struct err *err)
{
	struct rte_mempool *pool;
	char devargs[192];
	int ret = port_pool_get(&pool, cfg, "net_vhost", p->mtu_bytes, workers, err);

	if (ret < 0)
		return ret;
	snprintf(devargs, sizeof(devargs), "net_vhost_tls%u,iface=%.84s/tls%u.sock,client=1", n,
		 cfg->tls_dir, n);
	ret = attach(devargs, &p->eth, err);
	if (ret < 0)
		return ret;
	port_queues_one(&p->queues);
	ret = start(p->eth, p->mtu_bytes, &p->queues, pool, NULL, err);
	if (ret < 0) {
		port_close(p);
		return ret;
	}
	p->kick = port_kick_open(p->eth, p->queues.rx, p->rx_fd);
	log_info("link opened tls_worker=%u devargs=%s", n, devargs);
	return 0;
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
