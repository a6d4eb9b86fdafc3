/* SPDX-License-Identifier: GPL-3.0-or-later */
/* loop: the agent's one epoll loop. One thread. */
#pragma once

#include <stdint.h>

struct loop;

struct loop_source { /* owned by the module that waits; must stay where it is while added */
	int fd;
	void (*ready)(void *arg, uint32_t events); /* EPOLL* */
	void *arg;
};

int loop_new(struct loop **out); /* 0 or -errno */
void loop_free(struct loop *l); /* NULL is a no-op; closes no source */

int loop_add(struct loop *l, struct loop_source *s, uint32_t events);
int loop_change(struct loop *l, struct loop_source *s, uint32_t events);
void loop_del(struct loop *l, struct loop_source *s); /* safe inside any callback of this turn */

/** Wait at most timeout_ms and serve what is ready. @return 0 or -errno */
int loop_turn(struct loop *l, int timeout_ms);
