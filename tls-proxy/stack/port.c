/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <rte_atomic.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_mbuf.h>

#include "config/base/log.h"
#include "config/base/msg.h"
#include <lwip/pbuf.h> /* alone: the others and the C library both know a struct ip6_hdr */
#include "tls-proxy/stack/port.h"
#include "tls-proxy/stack/stack.h"

#define DEVICE "net_virtio_user0"
#define RING 2048 /* frames that wait to go out while the dataplane does not have the core */
/* Buffers that frames come into, all in turn: with more they would be out of the cache when it is theirs again. What
 * finds none waits in the dataplane. */
#define RX_POSTED 256
#define TX_USED                                                                                    \
	128 /* frames that have left; then their buffers are used again, while the cache has them */
#define BURST STACK_BURST
#define BUFFERS 16383
#define LARGE_BUFFERS 8191 /* of them where one takes more than two pages */
#define CACHED                                                                                     \
	512 /* of them, taken and given back without the ring, those that were used last first */
#define OUT_MAX 2048 /* frames that wait for room in the ring */
#define MEMORY_MB 32 /* beside the buffers */
#define ETHER_BYTES 14
#define VIRTIO_BYTES 16 /* the driver counts its own header, and a VLAN tag */

struct port {
	struct rte_mempool *pool;
	uint16_t id;
	uint8_t header[2][ETHER_BYTES]; /* IPv4, IPv6 */
	bool up;
	bool hold; /* frames wait for port_flush() */
	int wake_fd;
	uint32_t held, held_max; /* buffers that are pbufs now */
	uint32_t n_out;
	struct rte_mbuf *out[OUT_MAX];
	struct port_stats stats;
};

/* In a buffer's private area: the pbuf that its bytes go by while the stack has them. */
struct held {
	struct pbuf_custom pc;
	struct port *port;
};

static struct rte_mbuf *mbuf_of(struct pbuf *p)
{
	return (struct rte_mbuf *)p - 1; /* the private area follows the header */
}

static void held_free(struct pbuf *p)
{
	((struct held *)p)->port->held--;
	rte_pktmbuf_free(mbuf_of(p));
}

/* Bytes stay where they came. When connections hold a third of all buffers they are copied, or none would be left to
 * receive with. @return NULL: no memory, or no IP */
static struct pbuf *pbuf_of(struct port *port, struct rte_mbuf *m)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	uint16_t bytes = m->data_len - ETHER_BYTES;
	struct held *h = rte_mbuf_to_priv(m);
	struct pbuf *p;

	if (m->nb_segs != 1 || m->data_len <= ETHER_BYTES ||
	    (memcmp(frame + 12, "\x08\x00", 2) != 0 && memcmp(frame + 12, "\x86\xdd", 2) != 0)) {
		port->stats.in_dropped++;
		return NULL;
	}
	if (port->held < port->held_max) {
		h->pc.custom_free_function = held_free;
		h->port = port;
		port->held++;
		return pbuf_alloced_custom(PBUF_RAW, bytes, PBUF_REF, &h->pc,
					   (void *)(uintptr_t)(frame + ETHER_BYTES), bytes);
	}
	p = pbuf_alloc(PBUF_RAW, bytes, PBUF_RAM);
	if (p == NULL)
		return NULL;
	memcpy(p->payload, frame + ETHER_BYTES, bytes);
	rte_pktmbuf_free(m);
	port->stats.in_copied++;
	return p;
}

/* The packet's headers, and what it will be known by in the stack. */
static void port_fetch(const struct rte_mbuf *m)
{
	rte_prefetch0(rte_pktmbuf_mtod(m, const void *));
	rte_prefetch0(m + 1); /* the private area */
}

unsigned port_receive(struct port *port, struct stack *st, unsigned max)
{
	struct rte_mbuf *in[BURST];
	struct pbuf *p[BURST];
	unsigned n = 0;
	uint16_t got;

	do {
		unsigned ip = 0;

		got = rte_eth_rx_burst(port->id, 0, in, BURST);
		for (uint16_t i = 0; i < got; i++)
			port_fetch(in[i]);
		for (uint16_t i = 0; i < got; i++) {
			p[ip] = pbuf_of(port, in[i]);
			if (p[ip] != NULL)
				ip++;
			else
				rte_pktmbuf_free(in[i]);
		}
		stack_input(st, p, ip);
		n += got;
	} while (got == BURST && n < max);
	port->stats.in += n;
	return n;
}

bool port_send(void *arg, const struct pbuf *p)
{
	struct port *port = arg;
	struct rte_mbuf *m;
	uint8_t *at;

	if (port->n_out == OUT_MAX)
		port_flush(port);
	m = port->n_out < OUT_MAX ? rte_pktmbuf_alloc(port->pool) : NULL;
	at = m != NULL ? (uint8_t *)rte_pktmbuf_append(m, ETHER_BYTES + p->tot_len) : NULL;
	if (at == NULL) {
		rte_pktmbuf_free(m);
		port->stats.out_stalled++;
		return false;
	}
	memcpy(at, port->header[*(uint8_t *)p->payload >> 4 == 6], ETHER_BYTES);
	at += ETHER_BYTES;
	for (; p != NULL; p = p->next) {
		memcpy(at, p->payload, p->len);
		at += p->len;
	}
	port->out[port->n_out++] = m;
	if (port->n_out % BURST == 0 && !port->hold)
		port_flush(port);
	return true;
}

void port_hold(struct port *port, bool hold)
{
	port->hold = hold;
}

void port_flush(struct port *port)
{
	uint16_t sent = 0;

	if (port->n_out == 0)
		return;
	sent = rte_eth_tx_burst(port->id, 0, port->out, port->n_out);
	port->n_out -= sent;
	port->stats.out += sent;
	if (port->n_out > 0 && sent > 0)
		memmove(port->out, port->out + sent, port->n_out * sizeof(port->out[0]));
}

int port_wake_fd(const struct port *port)
{
	return port->wake_fd;
}

bool port_sleep(struct port *port, struct stack *st)
{
	port_flush(port);
	if (port->n_out > 0 && port->up)
		return false;
	rte_eth_dev_rx_intr_enable(port->id, 0);
	/* Whatever came before that makes no event: the wish must be out before we look (the peer does the reverse). */
	rte_mb();
	if (port_receive(port, st, BURST) == 0)
		return true;
	port_wake(port);
	return false;
}

void port_wake(struct port *port)
{
	rte_eth_dev_rx_intr_disable(port->id, 0);
}

void port_tick(struct port *port)
{
	struct rte_eth_link link;

	/* Asking is what makes the driver look whether its peer went or came. */
	if (rte_eth_link_get_nowait(port->id, &link) < 0 || link.link_status == port->up)
		return;
	port->up = link.link_status;
	if (port->up)
		log_info("the dataplane is there again");
	else
		log_warn("the dataplane is gone; sessions wait for it");
}

const struct port_stats *port_stats(const struct port *port)
{
	return &port->stats;
}

/* ---- opening ---------------------------------------------------------------------------------- */

/* All CPUs that the process may use: EAL must not pin its only thread. */
static void lcores_text(char *out, size_t bytes)
{
	cpu_set_t set;
	size_t n = snprintf(out, bytes, "0@(");

	CPU_ZERO(&set);
	sched_getaffinity(0, sizeof(set), &set);
	for (int i = 0; i < CPU_SETSIZE && n + 8 < bytes; i++) {
		if (CPU_ISSET(i, &set))
			n += snprintf(out + n, bytes - n, "%s%d", out[n - 1] == '(' ? "" : ",", i);
	}
	snprintf(out + n, bytes - n, ")");
}

static uint16_t buffer_room(const struct port_config *cfg)
{
	uint16_t room = RTE_PKTMBUF_HEADROOM + VIRTIO_BYTES + ETHER_BYTES + cfg->mtu_bytes;

	return room > RTE_MBUF_DEFAULT_BUF_SIZE ? RTE_ALIGN(room, 64) : RTE_MBUF_DEFAULT_BUF_SIZE;
}

static uint32_t buffers(const struct port_config *cfg)
{
	return buffer_room(cfg) > 8192 ? LARGE_BUFFERS : BUFFERS;
}

static unsigned buffers_mb(const struct port_config *cfg)
{
	return (unsigned)(buffers(cfg) * (buffer_room(cfg) + 256ull) >> 20);
}

static int eal_start(const struct port_config *cfg, struct err *err)
{
	char lcores[1024], memory[16];
	char *argv[16] = {"sallyport-tls-proxy"};
	int argc = 1, ret;
	sigset_t all, was;

	lcores_text(lcores, sizeof(lcores));
	argv[argc++] = "--lcores";
	argv[argc++] = lcores;
	argv[argc++] = "--no-telemetry";
	argv[argc++] = "--no-pci";
	argv[argc++] = "--iova-mode=va";
	argv[argc++] = "--log-level=error";
	snprintf(memory, sizeof(memory), "%u", MEMORY_MB + buffers_mb(cfg));
	argv[argc++] = "-m";
	argv[argc++] = memory;
	if (cfg->hugepages) {
		/* A vhost-user peer maps at most eight files. */
		argv[argc++] = "--in-memory";
		argv[argc++] = "--single-file-segments";
	} else {
		argv[argc++] = "--no-huge";
		argv[argc++] = "--no-shconf";
	}
	/* EAL's thread leaves all signals to ours. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	ret = rte_eal_init(argc, argv);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	if (ret < 0)
		return err_set(err, -rte_errno, "EAL: %s (%s)", rte_strerror(rte_errno),
			       cfg->hugepages ? "hugepages" : "no hugepages");
	return 0;
}

static int port_attach(struct port *port, const struct port_config *cfg, struct err *err)
{
	char args[512];
	int ret;

	if (unlink(cfg->path) < 0 && errno != ENOENT)
		return err_set(err, -errno, "%s: %s", cfg->path, strerror(errno));
	snprintf(args, sizeof(args),
		 DEVICE ",path=%s,server=1,queues=1,queue_size=%u,mac=02:53:50:00:01:%02x",
		 cfg->path, RING, cfg->index & 0xff);
	log_info("waiting for the dataplane at %s", cfg->path);
	ret = rte_dev_probe(args);
	if (ret == 0)
		ret = rte_eth_dev_get_port_by_name(DEVICE, &port->id);
	if (ret < 0)
		return err_set(err, ret, "port %s: %s", cfg->path, strerror(-ret));
	return 0;
}

static int port_start(struct port *port, const struct port_config *cfg, struct err *err)
{
	struct rte_eth_conf conf = {.intr_conf.rxq = 1};
	struct rte_eth_txconf tx = {.tx_free_thresh = RING - TX_USED};
	int ret;

	port->pool = rte_pktmbuf_pool_create("stack", buffers(cfg), CACHED,
					     RTE_ALIGN(sizeof(struct held), RTE_MBUF_PRIV_ALIGN),
					     buffer_room(cfg), SOCKET_ID_ANY);
	if (port->pool == NULL)
		return err_set(err, -rte_errno, "packet buffers: %s", rte_strerror(rte_errno));
	port->held_max = buffers(cfg) / 3;
	log_info("packet buffers=%u mtu=%u memory=%u MB", buffers(cfg), cfg->mtu_bytes,
		 buffers_mb(cfg));
	ret = rte_eth_dev_configure(port->id, 1, 1, &conf);
	if (ret == 0)
		ret = rte_eth_rx_queue_setup(port->id, 0, RX_POSTED, SOCKET_ID_ANY, NULL,
					     port->pool);
	if (ret == 0)
		ret = rte_eth_tx_queue_setup(port->id, 0, RING, SOCKET_ID_ANY, &tx);
	if (ret == 0 && cfg->mtu_bytes > RTE_ETHER_MTU)
		ret = rte_eth_dev_set_mtu(port->id, cfg->mtu_bytes);
	if (ret == 0)
		ret = rte_eth_dev_start(port->id);
	if (ret < 0)
		return err_set(err, ret, "port %s: %s", cfg->path, strerror(-ret));
	port->wake_fd = rte_eth_dev_rx_intr_ctl_q_get_fd(port->id, 0);
	if (port->wake_fd < 0)
		return err_set(err, -ENOTSUP, "port %s: it has no event", cfg->path);
	port->up = true;
	/* The driver calls an error each time that it looks for a peer that is not there; port_tick() says it once. */
	rte_log_set_level_pattern("pmd.net.virtio.*", RTE_LOG_CRIT);
	return 0;
}

int port_open(struct port **out, const struct port_config *cfg, struct err *err)
{
	const struct mac_addr to = TLS_LINK_MAC_DATAPLANE, from = TLS_LINK_MAC(cfg->index);
	struct port *port = calloc(1, sizeof(*port));
	int ret;

	if (port == NULL)
		return -ENOMEM;
	for (int v6 = 0; v6 < 2; v6++) {
		memcpy(port->header[v6], &to, 6);
		memcpy(port->header[v6] + 6, &from, 6);
		memcpy(port->header[v6] + 12, v6 ? "\x86\xdd" : "\x08\x00", 2);
	}
	port->id = UINT16_MAX;
	ret = eal_start(cfg, err);
	if (ret == 0)
		ret = port_attach(port, cfg, err);
	if (ret == 0)
		ret = port_start(port, cfg, err);
	if (ret < 0) {
		port_close(port);
		return ret;
	}
	*out = port;
	return 0;
}

void port_close(struct port *port)
{
	if (port == NULL)
		return;
	if (port->id != UINT16_MAX) {
		port_flush(port);
		rte_pktmbuf_free_bulk(port->out, port->n_out);
		rte_eth_dev_stop(port->id);
		rte_eth_dev_close(port->id);
	}
	rte_mempool_free(port->pool);
	free(port);
}
