/* SPDX-License-Identifier: GPL-3.0-or-later */
/* idle: how a worker waits when nothing comes. It polls on for a moment, then sleeps until a descriptor of its ports, another
 * worker or the control thread wakes it. A port without a descriptor is asked by time, at least every 100 us.
 * While it sleeps a worker holds nothing: no grace period waits for it. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct worker;

struct idle {
	int fd; /* eventfd; -1: the worker never sleeps */
	_Atomic bool asleep; /* the worker sets it, whoever wakes the worker clears it */
	uint64_t worked_us; /* boot clock, last round that had work */
	uint32_t naps; /* timed sleeps since then */
	bool armed; /* ports were asked to wake us: the next round may be the last before we sleep */
	bool blind; /* one of these cannot */
	uint32_t vain; /* times that a port woke us, and had nothing, since then */
};

/** @return 0 or -errno */
int idle_init(struct idle *idle);
void idle_fini(struct idle *idle);

/** After each round. Sleeps if the worker has been without work for long enough. Its own thread, registered with QSBR. */
void idle_after(struct worker *w, bool worked);

/** Wake a worker that sleeps, or is about to. What it shall find (ring entry, flag) must have been written. Any thread. */
void idle_wake(struct worker *w);
