/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/port_kick.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_atomic.h>
#include <rte_eth_vhost.h>
#include <rte_ethdev.h>
#include <rte_pause.h>
#include <rte_vhost.h>

#include "dataplane/port_queues.h"

#define VRING(queue) ((queue)*2 + 1) /* what the peer sends by, VIRTIO 1.1 section 5.1.2 */

struct kick_queue {
	int fd; /* the peer's eventfd under a number of ours; before the first peer one of our own */
	_Atomic bool kicks; /* this peer has given one */
	_Atomic bool busy; /* its worker uses the ring's notifications just now */
};

struct port_kick {
	uint16_t eth, queues;
	pthread_mutex_t lock; /* link events against open */
	_Atomic int vid; /* -1: no peer, or one that leaves: its rings must not be touched */
	struct kick_queue q[PORT_QUEUES_MAX];
};

/* Whoever sleeps on what the number meant before wakes, and so does who sleeps on what it means now, but armed the ring
 * of the former peer. */
static void queue_renew(struct kick_queue *q, int kickfd)
{
	int before = fcntl(q->fd, F_DUPFD_CLOEXEC, 0);

	atomic_store(&q->kicks, kickfd >= 0 && dup3(kickfd, q->fd, O_CLOEXEC) >= 0);
	fcntl(q->fd, F_SETFL, fcntl(q->fd, F_GETFL) | O_NONBLOCK);
	(void)eventfd_write(q->fd, 1);
	if (before >= 0) {
		(void)eventfd_write(before, 1);
		close(before);
	}
}

static void peer_came(struct port_kick *k, int vid)
{
	for (uint16_t i = 0; i < k->queues; i++) {
		struct rte_vhost_vring ring = {.kickfd = -1};
		int ret = rte_vhost_get_vhost_vring(vid, VRING(i), &ring);

		queue_renew(&k->q[i], ret == 0 ? ring.kickfd : -1);
	}
	atomic_store(&k->vid, vid);
	/* Those that armed nothing because nobody was there, a moment ago. */
	for (uint16_t i = 0; i < k->queues; i++)
		(void)eventfd_write(k->q[i].fd, 1);
}

/* The driver frees the rings when this returns. */
static void peer_leaves(struct port_kick *k)
{
	atomic_store(&k->vid, -1);
	for (uint16_t i = 0; i < k->queues; i++) {
		while (atomic_load(&k->q[i].busy))
			rte_pause();
		(void)eventfd_write(k->q[i].fd, 1);
	}
}

static int on_link(uint16_t eth, enum rte_eth_event_type type, void *arg, void *ret)
{
	struct port_kick *k = arg;
	int vid;

	(void)type;
	(void)ret;
	pthread_mutex_lock(&k->lock);
	vid = rte_eth_vhost_get_vid_from_port_id(eth);
	if (vid < 0)
		peer_leaves(k);
	else
		peer_came(k, vid);
	pthread_mutex_unlock(&k->lock);
	return 0;
}

static void queues_close(struct port_kick *k)
{
	for (uint16_t i = 0; i < k->queues; i++) {
		if (k->q[i].fd >= 0)
			close(k->q[i].fd);
	}
	free(k);
}

static int queues_open(struct port_kick *k)
{
	int ret = 0;

	for (uint16_t i = 0; i < k->queues; i++) {
		k->q[i].fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (k->q[i].fd < 0)
			ret = -errno;
	}
	return ret;
}

struct port_kick *port_kick_open(uint16_t eth, uint16_t queues, int *fds)
{
	struct rte_eth_dev_info info;
	struct port_kick *k;

	if (rte_eth_dev_info_get(eth, &info) != 0 || info.driver_name == NULL ||
	    strcmp(info.driver_name, "net_vhost") != 0)
		return NULL;
	k = calloc(1, sizeof(*k));
	if (k == NULL)
		return NULL;
	k->eth = eth;
	k->queues = queues;
	atomic_init(&k->vid, -1);
	pthread_mutex_init(&k->lock, NULL);
	if (queues_open(k) < 0 ||
	    rte_eth_dev_callback_register(eth, RTE_ETH_EVENT_INTR_LSC, on_link, k) < 0) {
		queues_close(k);
		return NULL;
	}
	on_link(eth, RTE_ETH_EVENT_INTR_LSC, k, NULL); /* it may be there already */
	for (uint16_t i = 0; i < queues; i++)
		fds[i] = k->q[i].fd;
	return k;
}

void port_kick_close(struct port_kick *k)
{
	if (k == NULL)
		return;
	while (rte_eth_dev_callback_unregister(k->eth, RTE_ETH_EVENT_INTR_LSC, on_link, k) ==
	       -EAGAIN)
		rte_pause();
	queues_close(k);
}

/* @return the peer whose rings may be used until notify_end(); -1: none */
static int notify_begin(struct port_kick *k, struct kick_queue *q)
{
	atomic_store(&q->busy, true);
	return atomic_load(&k->vid);
}

static void notify_end(struct kick_queue *q)
{
	atomic_store(&q->busy, false);
}

bool port_kick_arm(struct port_kick *k, uint16_t queue)
{
	struct kick_queue *q = &k->q[queue];
	int vid = notify_begin(k, q);
	bool kicks = vid < 0 || atomic_load(&q->kicks);

	if (vid >= 0 && kicks)
		rte_vhost_enable_guest_notification(vid, VRING(queue), 1);
	notify_end(q);
	rte_mb(); /* either the peer sees that we ask, or we see what it sent */
	return kicks;
}

void port_kick_disarm(struct port_kick *k, uint16_t queue)
{
	struct kick_queue *q = &k->q[queue];
	int vid = notify_begin(k, q);
	eventfd_t value;

	if (vid >= 0)
		rte_vhost_enable_guest_notification(vid, VRING(queue), 0);
	notify_end(q);
	(void)eventfd_read(q->fd, &value);
}
