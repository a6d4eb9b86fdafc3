/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define TURN_EVENTS 64

struct loop {
	int epoll;
	struct epoll_event ev[TURN_EVENTS];
	int n, at; /* of the turn under way */
};

int loop_new(struct loop **out)
{
	struct loop *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return -ENOMEM;
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll < 0) {
		int ret = -errno;

		free(l);
		return ret;
	}
	*out = l;
	return 0;
}

void loop_free(struct loop *l)
{
	if (l == NULL)
		return;
	close(l->epoll);
	free(l);
}

int loop_add(struct loop *l, struct loop_source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};

	return epoll_ctl(l->epoll, EPOLL_CTL_ADD, s->fd, &ev) < 0 ? -errno : 0;
}

int loop_change(struct loop *l, struct loop_source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};

	return epoll_ctl(l->epoll, EPOLL_CTL_MOD, s->fd, &ev) < 0 ? -errno : 0;
}

void loop_del(struct loop *l, struct loop_source *s)
{
	epoll_ctl(l->epoll, EPOLL_CTL_DEL, s->fd, NULL);
	/* What this turn has still to serve must not reach a source that is about to be freed. */
	for (int i = l->at; i < l->n; i++) {
		if (l->ev[i].data.ptr == s)
			l->ev[i].data.ptr = NULL;
	}
}

int loop_turn(struct loop *l, int timeout_ms)
{
	int n = epoll_wait(l->epoll, l->ev, TURN_EVENTS, timeout_ms);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	l->n = n;
	for (l->at = 0; l->at < l->n; l->at++) {
		struct loop_source *s = l->ev[l->at].data.ptr;

		if (s != NULL)
			s->ready(s->arg, l->ev[l->at].events);
	}
	l->n = 0;
	return 0;
}
