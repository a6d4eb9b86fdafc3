/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/port_pool.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "config/base/log.h"
#include "dataplane/backlog.h"
#include "dataplane/pkt.h"
#include "dataplane/port_queues.h"

#define PORT_MBUFS 12288 /* rings of a port and its shadow, AF_XDP's fill ring, bursts under way */
/* Under way from a TLS worker, or waiting for it: the driver copies, no ring holds any. */
#define LINK_MBUFS (1024 + BACKLOG_MAX)
#define QUEUE_MBUFS 4096 /* AF_XDP's fill ring, and what is under way, of each further queue */
#define LARGE_MBUFS 2048 /* of a port whose driver copies: under way, and in the shadow's hands */
#define PRIVATE_BYTES (sizeof(struct rte_mbuf) + sizeof(struct pkt) + 64)
#define MBUF_CACHE 256
#define POOL_NAME "mbufs"
#define LARGE_NAME "mbufs-large"
#define PORTS_SPARE 1 /* buffers for so many ports that are added later, memory_mb permitting */
#define MTU_LEAST 1500
#define LARGE_BYTES                                                                                \
	9216 /* a frame of the largest MTU that gateway.cfg may have: a port that is added later finds these */
#define FRAME_MAX 65536
#define AF_PACKET_FRAMESZ 2048 /* unless devargs say so */

static bool has_device(const struct msg_port *p)
{
	return p->devargs[0] != '\0';
}

/* "net_vhost0,...": a virtual device's driver copies into buffers. A NIC's rings hold them. */
static bool copies(const char *devargs)
{
	return strncmp(devargs, "net_", 4) == 0;
}

static bool is_af_xdp(const char *devargs)
{
	return strncmp(devargs, "net_af_xdp", strlen("net_af_xdp")) == 0;
}

/* Those that hash share their rings' entries among the queues, down to a least number. */
static size_t port_mbufs(const char *devargs, uint16_t workers)
{
	unsigned asked = RTE_MIN(port_queues_asked(devargs), PORT_QUEUES_MAX);
	size_t rings = (size_t)RTE_MIN(workers, PORT_QUEUES_MAX) * 2 * DESCRIPTORS_MIN;
	size_t more = rings > RX_DESCRIPTORS + TX_DESCRIPTORS
			      ? rings - (RX_DESCRIPTORS + TX_DESCRIPTORS)
			      : 0;

	return PORT_MBUFS + RTE_MAX(more, asked > 1 ? (size_t)(asked - 1) * QUEUE_MBUFS : 0);
}

/* What a driver writes at once into a buffer, where devargs say so: AF_PACKET's framesz, memif's bsize. */
static size_t piece_asked(const char *devargs)
{
	static const char *const keys[] = {",framesz=", ",bsize="};
	size_t most = 0;

	for (unsigned i = 0; i < RTE_DIM(keys); i++) {
		const char *at = strstr(devargs, keys[i]);
		unsigned long n = at != NULL ? strtoul(at + strlen(keys[i]), NULL, 10) : 0;

		if (n > most && n <= FRAME_MAX - RTE_PKTMBUF_HEADROOM)
			most = n;
	}
	return most;
}

static size_t frame_bytes(const char *devargs, uint16_t mtu)
{
	return RTE_MAX((size_t)mtu + PORT_FRAME_BYTES, piece_asked(devargs));
}

/* AF_PACKET's pieces hold the kernel's header too. */
static bool is_cut(const char *devargs, uint16_t mtu)
{
	size_t piece = piece_asked(devargs);

	return strncmp(devargs, "net_af_packet", strlen("net_af_packet")) == 0 &&
	       (size_t)mtu + PORT_FRAME_BYTES + TPACKET2_HDRLEN >
		       (piece != 0 ? piece : AF_PACKET_FRAMESZ);
}

static bool is_paged(const struct msg_dp_config *cfg)
{
	for (unsigned i = 0; i < cfg->n_ports; i++) {
		if (has_device(&cfg->ports[i]) && !copies(cfg->ports[i].devargs))
			return false;
	}
	return !cfg->hugepages;
}

/* Behind the headroom, of an ordinary buffer. */
static size_t small_room(const struct msg_dp_config *cfg)
{
	size_t page = getpagesize() -
		      RTE_ALIGN(sizeof(struct rte_mempool_objhdr), RTE_CACHE_LINE_SIZE) -
		      sizeof(struct rte_mbuf) - sizeof(struct pkt);

	return (is_paged(cfg) ? page : RTE_MBUF_DEFAULT_BUF_SIZE) - RTE_PKTMBUF_HEADROOM;
}

static bool is_large(const struct msg_dp_config *cfg, const char *devargs, uint16_t mtu)
{
	return frame_bytes(devargs, mtu) > small_room(cfg);
}

uint16_t port_pool_mtu(const struct msg_dp_config *cfg)
{
	uint16_t most = MTU_LEAST;

	for (unsigned i = 0; i < cfg->n_ports; i++) {
		if (has_device(&cfg->ports[i]))
			most = RTE_MAX(most, cfg->ports[i].mtu_bytes);
	}
	return most;
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

static struct rte_mempool *made(struct rte_mempool *pool, size_t n, size_t each, struct err *err)
{
	if (pool == NULL)
		err_set(err, -rte_errno, "%zu packet buffers of %zu bytes: %s; give memory_mb more",
			n, each, rte_strerror(rte_errno));
	else
		log_info("packet buffers pool=%s buffers=%zu bytes_each=%zu memory=%zu MB",
			 pool->name, n, each, n * each >> 20);
	return pool;
}

static struct rte_mempool *small_pool(const struct msg_dp_config *cfg, uint16_t workers,
				      struct err *err)
{
	size_t each =
		cfg->hugepages ? RTE_MBUF_DEFAULT_BUF_SIZE + PRIVATE_BYTES : (size_t)getpagesize();
	size_t room = (size_t)cfg->memory_mb * 1024 * 1024 / 2 / each;
	size_t n = (size_t)PORTS_SPARE * PORT_MBUFS + (size_t)workers * MBUF_CACHE * 2;
	struct rte_mempool *pool;

	for (unsigned i = 0; i < cfg->n_ports; i++) {
		const struct msg_port *p = &cfg->ports[i];

		if (has_device(p) && !is_large(cfg, p->devargs, p->mtu_bytes))
			n += port_mbufs(p->devargs, workers);
	}
	n += (size_t)cfg->tls_workers * LINK_MBUFS;
	if (n > room)
		n = room;
	pool = is_paged(cfg) ? paged_pool(n)
			     : rte_pktmbuf_pool_create(POOL_NAME, n, MBUF_CACHE, sizeof(struct pkt),
						       RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	return made(pool, n, each, err);
}

/* For frames of any MTU that gateway.cfg may have, so that a port that is added later finds them; how many, by what is
 * there now. */
static struct rte_mempool *large_pool(const struct msg_dp_config *cfg, uint16_t workers,
				      struct err *err)
{
	size_t frame = LARGE_BYTES, n = (size_t)workers * MBUF_CACHE * 2, each;
	struct rte_mempool *pool;

	for (unsigned i = 0; i < cfg->n_ports; i++) {
		const struct msg_port *p = &cfg->ports[i];

		if (!has_device(p) || is_af_xdp(p->devargs) ||
		    !is_large(cfg, p->devargs, p->mtu_bytes))
			continue;
		frame = RTE_MAX(frame, frame_bytes(p->devargs, p->mtu_bytes));
		n += LARGE_MBUFS + (copies(p->devargs) ? 0 : RX_DESCRIPTORS + TX_DESCRIPTORS);
	}
	n += (size_t)cfg->tls_workers * LINK_MBUFS;
	frame = RTE_ALIGN(RTE_PKTMBUF_HEADROOM + frame, RTE_CACHE_LINE_SIZE);
	if (frame > UINT16_MAX)
		frame = UINT16_MAX;
	each = frame + PRIVATE_BYTES;
	pool = rte_pktmbuf_pool_create(LARGE_NAME, n, MBUF_CACHE, sizeof(struct pkt), frame,
				       SOCKET_ID_ANY);
	return made(pool, n, each, err);
}

int port_pool_get(struct rte_mempool **out, const struct msg_dp_config *cfg, const char *devargs,
		  uint16_t mtu, uint16_t workers, struct err *err)
{
	bool large = is_large(cfg, devargs, mtu);
	struct rte_mempool *pool;
	size_t room;

	if (large && is_af_xdp(devargs))
		return err_set(err, -EMSGSIZE,
			       "mtu = %u: a buffer of this driver takes %zu bytes here; set it to "
			       "that or less",
			       mtu, small_room(cfg) - PORT_FRAME_BYTES);
	if (is_cut(devargs, mtu))
		return err_set(err, -EMSGSIZE,
			       "mtu = %u: the driver's frames are smaller; let devargs end with "
			       ",framesz=9216,blocksz=36864",
			       mtu);
	pool = rte_mempool_lookup(large ? LARGE_NAME : POOL_NAME);
	if (pool == NULL)
		pool = large ? large_pool(cfg, workers, err) : small_pool(cfg, workers, err);
	if (pool == NULL)
		return -ENOMEM;
	room = rte_pktmbuf_data_room_size(pool) - RTE_PKTMBUF_HEADROOM;
	if (frame_bytes(devargs, mtu) > room)
		return err_set(err, -EMSGSIZE,
			       "%s: packet buffers take %zu bytes since the start; restart the "
			       "dataplane for larger ones",
			       devargs, room);
	*out = pool;
	return 0;
}

static void count(const char *name, uint64_t *all, uint64_t *free)
{
	const struct rte_mempool *pool = rte_mempool_lookup(name);

	*all += pool != NULL ? pool->size : 0;
	*free += pool != NULL ? rte_mempool_avail_count(pool) : 0;
}

void port_pool_count(uint64_t *all, uint64_t *free)
{
	*all = *free = 0;
	count(POOL_NAME, all, free);
	count(LARGE_NAME, all, free);
}
