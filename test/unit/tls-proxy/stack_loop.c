/* SPDX-License-Identifier: GPL-3.0-or-later */
/* stack_loop: port.h without DPDK: what the worker's stack sends comes back to it. Both ends of its connections are in it then,
 * and a whole worker runs over it in one process. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <lwip/pbuf.h>

#include "tls-proxy/stack/port.h"
#include "tls-proxy/stack/stack.h"

#define LOOP_PACKETS 65536

struct packet {
	uint16_t bytes;
	uint8_t ip[];
};

struct port {
	struct packet *queue[LOOP_PACKETS];
	uint32_t head, tail;
	int fd; /* nothing ever comes from it */
	struct port_stats stats;
};

int port_open(struct port **out, const struct port_config *cfg, struct err *err)
{
	struct port *port = calloc(1, sizeof(*port));

	(void)cfg;
	if (port == NULL)
		return err_set(err, -ENOMEM, "no memory");
	port->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (port->fd < 0) {
		free(port);
		return err_set(err, -errno, "eventfd: %s", strerror(errno));
	}
	*out = port;
	return 0;
}

void port_close(struct port *port)
{
	if (port == NULL)
		return;
	for (; port->head != port->tail; port->head++)
		free(port->queue[port->head % LOOP_PACKETS]);
	close(port->fd);
	free(port);
}

const struct port_stats *port_stats(const struct port *port)
{
	return &port->stats;
}

bool port_send(void *arg, const struct pbuf *p)
{
	struct port *port = arg;
	struct packet *packet;

	if (port->tail - port->head == LOOP_PACKETS ||
	    (packet = malloc(sizeof(*packet) + p->tot_len)) == NULL)
		return false;
	packet->bytes = pbuf_copy_partial(p, packet->ip, p->tot_len, 0);
	port->queue[port->tail++ % LOOP_PACKETS] = packet;
	port->stats.out++;
	return true;
}

unsigned port_receive(struct port *port, struct stack *st, unsigned max)
{
	uint32_t end = port->tail; /* answers come in the next turn */
	unsigned n = 0;

	for (; n < max && port->head != end; n++) {
		struct packet *packet = port->queue[port->head++ % LOOP_PACKETS];
		struct pbuf *p = pbuf_alloc(PBUF_RAW, packet->bytes, PBUF_RAM);

		if (p != NULL) { /* as a full pool of buffers */
			memcpy(p->payload, packet->ip, packet->bytes);
			stack_input(st, &p, 1);
		}
		free(packet);
	}
	port->stats.in += n;
	return n;
}

void port_flush(struct port *port)
{
	(void)port;
}

void port_hold(struct port *port, bool hold)
{
	(void)port;
	(void)hold;
}

int port_wake_fd(const struct port *port)
{
	return port->fd;
}

bool port_sleep(struct port *port, struct stack *st)
{
	(void)st;
	return port->head == port->tail;
}

void port_wake(struct port *port)
{
	(void)port;
}

void port_tick(struct port *port)
{
	(void)port;
}
