/* SPDX-License-Identifier: GPL-3.0-or-later */
/* port_fd: the descriptors by which a sleeping worker hears of a port's packets. The drivers of DPDK 22.11 for AF_XDP and
 * AF_PACKET keep theirs to themselves: what sockets of these families a port's start has brought are the port's.
 * Control thread, one port at a time. */
#pragma once

#include <stdint.h>

#define PORT_FDS_MAX 64

struct port_fds { /* the packet sockets of this process at one moment */
	unsigned n;
	int fd[PORT_FDS_MAX];
};

void port_fds_now(struct port_fds *out);

/**
 * The packet socket of a receive queue of an AF_XDP or AF_PACKET port: readable while the queue has packets.
 * @param before  taken before the queue was set up; of a port with one queue, before it was attached
 * @return -1: the port has none, or more than one, so it must be asked by time; else it is the driver's and ends with
 *         the port
 */
int port_fd_socket(uint16_t eth, const struct port_fds *before);

/** The same of a TAP port's queue, once the port is started. */
int port_fd_tap(uint16_t eth, uint16_t queue);

/** What tells a socket from a later one with its number. @return 0: no AF_XDP socket */
uint64_t port_fd_cookie(int fd);

/** After the port was closed: the driver (22.11) leaves its AF_XDP socket open, and that holds the interface's queue. */
void port_fd_release(int fd, uint64_t cookie);
