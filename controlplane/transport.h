/* SPDX-License-Identifier: GPL-3.0-or-later */
/* transport: how a gateway reaches the controller's log. The link above it trusts nothing that comes out of here, so
 * a transport only has to move frames. One thread, non-blocking. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/err.h"

struct transport; /* one connection */

struct transport_ops {
	const char *name;
	/** @param address of the kind that this transport has (embedded: a socket's path). @return 0 or -errno */
	int (*open)(struct transport **out, const char *address, struct err *err);
	void (*close)(struct transport *t); /* NULL is a no-op */
	int (*fd)(const struct transport *t);
	bool (*wants_write)(const struct transport *t);
	/** One frame (frame.h). @return 0 or -errno: the connection is of no more use */
	int (*send)(struct transport *t, const void *frame, size_t bytes);
	/** Read and write what is possible; see stream_pump(). */
	int (*pump)(struct transport *t,
		    int (*deliver)(void *arg, const uint8_t *frame, size_t bytes), void *arg);
};

/* A Unix stream socket of a controller on the same box. */
extern const struct transport_ops transport_embedded;
