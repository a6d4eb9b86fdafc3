/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/port_fd.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_ethdev.h>

static bool carries_frames(int fd)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 &&
	       (domain == AF_XDP || domain == AF_PACKET);
}

void port_fds_now(struct port_fds *out)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *e;

	out->n = 0;
	while (dir != NULL && (e = readdir(dir)) != NULL) {
		if (!isdigit((unsigned char)e->d_name[0]) || !carries_frames(atoi(e->d_name)))
			continue;
		if (out->n < PORT_FDS_MAX)
			out->fd[out->n++] = atoi(e->d_name);
	}
	if (dir != NULL)
		closedir(dir);
}

static int new_socket(const struct port_fds *before)
{
	struct port_fds now;
	int found = -1;

	port_fds_now(&now);
	for (unsigned i = 0; i < now.n; i++) {
		unsigned k = 0;

		while (k < before->n && before->fd[k] != now.fd[i])
			k++;
		if (k < before->n)
			continue;
		if (found >= 0)
			return -1; /* which of them is the queue's? */
		found = now.fd[i];
	}
	return found;
}

static bool driver_is(uint16_t eth, const char *name)
{
	struct rte_eth_dev_info info;

	return rte_eth_dev_info_get(eth, &info) == 0 && info.driver_name != NULL &&
	       strcmp(info.driver_name, name) == 0;
}

int port_fd_socket(uint16_t eth, const struct port_fds *before)
{
	return driver_is(eth, "net_af_xdp") || driver_is(eth, "net_af_packet") ? new_socket(before)
									       : -1;
}

int port_fd_tap(uint16_t eth, uint16_t queue)
{
	/* The interrupt of this driver is the TAP's own descriptor, so nothing needs to be armed. */
	return driver_is(eth, "net_tap") ? rte_eth_dev_rx_intr_ctl_q_get_fd(eth, queue) : -1;
}

uint64_t port_fd_cookie(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie), domain_len = sizeof(int);
	int domain = 0;

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) < 0 ||
	    domain != AF_XDP || getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0)
		return 0;
	return cookie;
}

void port_fd_release(int fd, uint64_t cookie)
{
	if (cookie != 0 && port_fd_cookie(fd) == cookie)
		close(fd);
}
