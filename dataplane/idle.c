/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/idle.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <rte_rcu_qsbr.h>

#include "config/base/clock_near.h"
#include "dataplane/worker.h"

#define SPIN_US 50 /* polls on for so long after the last work: a wake-up costs about as much */
#define VAIN_MAX 8 /* a descriptor that cries wolf is not asked any more until there was work */
#define DESCRIPTORS_MAX (1 + 4 * MSG_PORTS_MAX) /* of more, the rest is asked every nap */
#define AGEING_NS 10000000
#define NOTHING_NS 100000000 /* no flow to forget: only against a wake-up that was lost */

/* Naps grow while nothing comes. The last is what a packet of a port without descriptor may wait. */
static const long nap_ns[] = {1000, 2000, 5000, 10000, 20000, 50000, 100000};
#define NAP_STEPS (sizeof(nap_ns) / sizeof(nap_ns[0]))
#define NAP_ROUNDS 32 /* naps at each step */

int idle_init(struct idle *idle)
{
	*idle = (struct idle){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	return idle->fd < 0 ? -errno : 0;
}

void idle_fini(struct idle *idle)
{
	if (idle->fd >= 0)
		close(idle->fd);
	idle->fd = -1;
}

void idle_wake(struct worker *w)
{
	/* With the fence in nothing_to_do(): either we see it asleep, or it sees what we wrote. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&w->idle.asleep, memory_order_relaxed) &&
	    atomic_exchange(&w->idle.asleep, false))
		eventfd_write(w->idle.fd, 1);
}

static bool nothing_to_do(const struct worker *w)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&w->st->stop, memory_order_relaxed) || w->command != NULL ||
	    !rte_ring_empty(w->commands))
		return false;
	for (unsigned i = 0; w->st->n_workers > 1 && i < w->st->n_workers; i++) {
		if (!rte_ring_empty(w->from[i]))
			return false;
	}
	return true;
}

static void add_descriptor(struct pollfd *fds, unsigned *n, int fd, bool *blind)
{
	if (fd < 0 || *n == DESCRIPTORS_MAX)
		*blind = true;
	else
		fds[(*n)++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

/* @param[out] blind  some port of ours cannot wake us @return how many descriptors */
static unsigned descriptors(const struct worker *w, struct pollfd *fds, bool *blind)
{
	unsigned n = 0;

	fds[n++] = (struct pollfd){.fd = w->idle.fd, .events = POLLIN};
	*blind = w->idle.blind || w->idle.vain >= VAIN_MAX;
	if (*blind)
		return n;
	for (uint16_t i = 0; i < PORTS_ALL; i++) {
		const struct port *p = &w->st->ports[i];

		if (!port_present(p))
			continue;
		for (uint16_t q = port_queue_first(p, w->index); q < p->queues.rx;
		     q += w->st->n_workers)
			add_descriptor(fds, &n, p->rx_fd[q], blind);
		if (p->owner == w->index && !port_is_link(i))
			add_descriptor(fds, &n, p->tap_fd, blind);
	}
	return n;
}

static void arm(struct worker *w, bool on)
{
	w->idle.armed = on;
	w->idle.blind = false;
	for (uint16_t i = 0; i < PORTS_ALL; i++) {
		const struct port *p = &w->st->ports[i];

		if (!port_present(p) || p->kick == NULL)
			continue;
		for (uint16_t q = port_queue_first(p, w->index); q < p->queues.rx;
		     q += w->st->n_workers) {
			if (on)
				w->idle.blind |= !port_kick_arm(p->kick, q);
			else
				port_kick_disarm(p->kick, q);
		}
	}
}

/* Descriptors are readable as long as a packet is there, so none that comes before ppoll() is slept through. */
static void idle_sleep(struct worker *w)
{
	struct pollfd fds[DESCRIPTORS_MAX];
	struct timespec t = {0};
	unsigned step, n;
	bool blind;
	int ready = 0;

	n = descriptors(w, fds, &blind);
	step = w->idle.naps++ / NAP_ROUNDS;
	if (blind)
		t.tv_nsec = nap_ns[step < NAP_STEPS ? step : NAP_STEPS - 1];
	else
		t.tv_nsec = flow_count(w->flows) > 0 ? AGEING_NS : NOTHING_NS;
	rte_rcu_qsbr_thread_offline(w->st->qsbr, w->index);
	atomic_store_explicit(&w->idle.asleep, true, memory_order_relaxed);
	if (nothing_to_do(w))
		ready = ppoll(fds, n, &t, NULL);
	atomic_store_explicit(&w->idle.asleep, false, memory_order_relaxed);
	rte_rcu_qsbr_thread_online(w->st->qsbr, w->index);
	if (ready > 0 && fds[0].revents != 0) {
		eventfd_t value;

		eventfd_read(w->idle.fd, &value);
		ready--;
	}
	/* The TAP driver reads only after its signal handler has run, a moment later in another thread. */
	if (ready > 0) {
		w->idle.vain++;
		w->idle.worked_us = clock_near_us();
	}
}

void idle_after(struct worker *w, bool worked)
{
	if (worked) {
		w->idle.worked_us = w->now_us;
		w->idle.naps = w->idle.vain = 0;
	} else if (w->now_us - w->idle.worked_us >= SPIN_US && w->idle.fd >= 0 && w->age_due == 0) {
		/* A port that is asked to wake us does not say what came before: one more round. */
		if (!w->idle.armed) {
			arm(w, true);
			return;
		}
		idle_sleep(w);
	}
	if (w->idle.armed)
		arm(w, false);
}
