/* SPDX-License-Identifier: GPL-3.0-or-later */
/* flow: one UDP flow with a clock, for the revocation benchmark. All times are CLOCK_BOOTTIME in microseconds.
 *   flow send ADDR PORT PER_SECOND FILE   FILE holds {packets sent, time of the last}, two native 64-bit words
 *   flow receive ADDR PORT FILE           the same of what was received, stamped after recv() returned
 * Both run at a real-time priority: what the benchmark makes other processes do must not hold up its clock.
 *   flow stamp FILE COMMAND...            writes {0, now} and becomes the command */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "config/base/clock.h"

struct count {
	_Atomic uint64_t packets, last_us;
};

static struct count *count_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	struct count *c = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, sizeof(*c)) == 0)
		c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (c == MAP_FAILED) {
		perror(path);
		exit(1);
	}
	close(fd);
	return c;
}

static int udp_socket(const char *addr, const char *port,
		      int (*use)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (inet_pton(AF_INET, addr, &sa.sin_addr) != 1 || fd < 0 ||
	    use(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0) {
		perror(addr);
		exit(1);
	}
	return fd;
}

static void on_time(void)
{
	struct sched_param prio = {.sched_priority = 10};

	if (sched_setscheduler(0, SCHED_FIFO, &prio) < 0) {
		perror("real-time priority");
		exit(1);
	}
}

static int send_flow(int fd, unsigned long per_second, struct count *c)
{
	struct timespec next;
	char payload[18] = {0};

	if (per_second == 0 || per_second > 1000000)
		return 2;
	on_time();
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		next.tv_nsec += 1000000000l / (long)per_second;
		if (next.tv_nsec >= 1000000000l) {
			next.tv_nsec -= 1000000000l;
			next.tv_sec++;
		}
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) == EINTR)
			;
		/* An ICMP error about an earlier packet may be reported here; the flow goes on. */
		if (send(fd, payload, sizeof(payload), 0) < 0 && errno != ECONNREFUSED &&
		    errno != EHOSTUNREACH && errno != EACCES) {
			perror("send");
			return 1;
		}
		atomic_store(&c->last_us, clock_boot_us());
		atomic_fetch_add(&c->packets, 1);
	}
}

static int receive_flow(int fd, struct count *c)
{
	char payload[2048];

	on_time();
	for (;;) {
		if (recv(fd, payload, sizeof(payload), 0) < 0) {
			if (errno == EINTR)
				continue;
			perror("recv");
			return 1;
		}
		atomic_store(&c->last_us, clock_boot_us());
		atomic_fetch_add(&c->packets, 1);
	}
}

int main(int argc, char **argv)
{
	if (argc == 6 && strcmp(argv[1], "send") == 0)
		return send_flow(udp_socket(argv[2], argv[3], connect), strtoul(argv[4], NULL, 10),
				 count_open(argv[5]));
	if (argc == 5 && strcmp(argv[1], "receive") == 0)
		return receive_flow(udp_socket(argv[2], argv[3], bind), count_open(argv[4]));
	if (argc >= 4 && strcmp(argv[1], "stamp") == 0) {
		atomic_store(&count_open(argv[2])->last_us, clock_boot_us());
		execvp(argv[3], argv + 3);
		perror(argv[3]);
		return 127;
	}
	fprintf(stderr, "usage: flow send|receive|stamp ..., see bench/flow.c\n");
	return 2;
}
