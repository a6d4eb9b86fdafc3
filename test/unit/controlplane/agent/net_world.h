/* SPDX-License-Identifier: GPL-3.0-or-later */
/* net_world: a gateway and its hosts in network namespaces, for tests of the kernel plane. The test's own process
 * is the gateway; a host is a namespace that a file descriptor holds. Needs root. Nothing outside is touched. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define WAIT_MS 3000 /* longest wait for what must happen */

static int world_gateway = -1; /* namespace of the gateway */

static inline int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline int sh(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	return system(cmd);
}

static inline void world_enter(int ns)
{
	assert_int_equal(setns(ns, CLONE_NEWNET), 0);
}

static inline int world_new(void)
{
	int ns;

	assert_int_equal(unshare(CLONE_NEWNET), 0);
	ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_true(ns >= 0);
	assert_int_equal(sh("ip link set lo up"), 0);
	return ns;
}

/* A cable from the gateway's interface to eth0 of a new host. @return the host's namespace */
static inline int world_host(const char *gw_if, const char *mac)
{
	int ns = world_new();

	world_enter(world_gateway);
	/* Our descriptor number is only good in this process: `ip` is told a path that it can open. */
	assert_int_equal(
		sh("ip link add %s type veth peer name eth0 address %s netns /proc/%d/fd/%d && "
		   "ip link set %s up",
		   gw_if, mac, getpid(), ns, gw_if),
		0);
	world_enter(ns);
	assert_int_equal(sh("ip link set eth0 up"), 0);
	world_enter(world_gateway);
	return ns;
}

static inline int sh_in(int ns, const char *cmd)
{
	int ret;

	world_enter(ns);
	ret = sh("%s", cmd);
	world_enter(world_gateway);
	return ret;
}

static inline struct sockaddr_storage sock_addr(const char *ip, uint16_t port, socklen_t *len)
{
	struct sockaddr_storage ss = {0};
	struct sockaddr_in *v4 = (void *)&ss;
	struct sockaddr_in6 *v6 = (void *)&ss;

	if (inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		*len = sizeof(*v4);
	} else {
		assert_int_equal(inet_pton(AF_INET6, ip, &v6->sin6_addr), 1);
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		*len = sizeof(*v6);
	}
	return ss;
}

/* A bound socket in a host. */
static inline int sock_in(int ns, int type, const char *ip, uint16_t port)
{
	socklen_t len;
	struct sockaddr_storage ss = sock_addr(ip, port, &len);
	int fd, on = 1;

	world_enter(ns);
	fd = socket(ss.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	world_enter(world_gateway);
	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, SOL_IP, IP_TRANSPARENT, &on,
		   sizeof(on)); /* sources that are not the host's */
	assert_int_equal(bind(fd, (void *)&ss, len), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static inline int sock_connect(int fd, const char *ip, uint16_t port)
{
	socklen_t len;
	struct sockaddr_storage ss = sock_addr(ip, port, &len);

	return connect(fd, (void *)&ss, len);
}

static inline bool readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

static inline uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}
