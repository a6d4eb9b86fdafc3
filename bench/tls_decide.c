/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_decide: the decisions of the TLS benchmark, by the controller's socket.
 *   tls_decide CONTROLLER-SOCKET TRUST-TABLE enrol FROM TO
 *   tls_decide CONTROLLER-SOCKET TRUST-TABLE revoke FROM TO EVERY-MS
 * revoke: devices for good, one after another. One line each on standard output: when the revocation was in force, which is
 * when the agent wrote into the device's trust record (boot clock in us), and what the receipt says (in_force_us). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "config/base/trust.h"

#define BATCH 64
#define DEVICE_NAME "spiffe://bench/device/%u"

static void die(const char *what)
{
	fprintf(stderr, "tls_decide: %s\n", what);
	exit(1);
}

static int controller_join(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(sa.sun_path))
		die("the controller's socket has too long a name");
	strcpy(sa.sun_path, path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		die("no controller");
	return fd;
}

/* One question, and its answer of one line. */
static void ask(int fd, const char *text, char *answer, size_t room)
{
	size_t have = 0;

	if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text))
		die("the controller hung up");
	do {
		ssize_t n = recv(fd, answer + have, room - have - 1, 0);

		if (n <= 0)
			die("the controller hung up, or its answer is too long");
		have += (size_t)n;
		answer[have] = '\0';
	} while (answer[have - 1] != '\n');
	if (strstr(answer, "\"ok\":true") == NULL && strstr(answer, "\"ok\": true") == NULL)
		die(answer);
}

/* The record that the journal says was revoked since `seen`. @return 0: none */
static uint64_t in_force_us(const struct trust_table *t, uint64_t seen)
{
	uint64_t head = atomic_load_explicit(&t->hdr->journal_head, memory_order_acquire);

	for (; seen < head; seen++) {
		uint32_t slot = t->journal[seen % TRUST_JOURNAL_ENTRIES];
		struct trust_view v;

		if (trust_read(t, slot, &v) && v.standing == STANDING_REVOKED)
			return v.changed_us;
	}
	return 0;
}

static void revoke_one(int fd, const struct trust_table *t, unsigned d)
{
	uint64_t seen = atomic_load_explicit(&t->hdr->journal_head, memory_order_acquire), at;
	char text[256], answer[16384];
	const char *receipt;

	snprintf(text, sizeof(text),
		 "{\"cmd\":\"revoke\",\"device\":\"" DEVICE_NAME "\",\"kind\":\"uri\"}\n", d);
	ask(fd, text, answer, sizeof(answer));
	at = in_force_us(t, seen);
	if (at == 0)
		die("the controller has its receipt, but no record says \"revoked\"");
	receipt = strstr(answer, "\"in_force_us\"");
	printf("%" PRIu64 " %ld\n", at,
	       receipt != NULL ? strtol(receipt + strcspn(receipt, "0123456789"), NULL, 10) : -1L);
}

static void enrol(int fd, unsigned from, unsigned to)
{
	static char text[BATCH * 128], answer[65536];
	size_t n = (size_t)snprintf(text, sizeof(text), "{\"cmd\":\"batch\",\"decisions\":[");

	for (unsigned d = from; d < to; d++)
		n += (size_t)snprintf(text + n, sizeof(text) - n,
				      "%s{\"cmd\":\"enrol\",\"device\":\"" DEVICE_NAME
				      "\",\"kind\":\"uri\"}",
				      d == from ? "" : ",", d);
	snprintf(text + n, sizeof(text) - n, "]}\n");
	ask(fd, text, answer, sizeof(answer));
}

static int usage(void)
{
	fputs("usage: tls_decide CONTROLLER-SOCKET TRUST-TABLE enrol FROM TO\n"
	      "       tls_decide CONTROLLER-SOCKET TRUST-TABLE revoke FROM TO EVERY-MS\n",
	      stderr);
	return 2;
}

int main(int argc, char **argv)
{
	bool revokes = argc == 7 && strcmp(argv[3], "revoke") == 0;
	struct trust_table t;
	struct err err = {0};
	unsigned from, to;
	int fd;

	if (!revokes && (argc != 6 || strcmp(argv[3], "enrol") != 0))
		return usage();
	from = (unsigned)atoi(argv[4]);
	to = (unsigned)atoi(argv[5]);
	if (trust_map(&t, argv[2], &err) < 0)
		die(err.msg);
	fd = controller_join(argv[1]);
	for (unsigned d = from; !revokes && d < to; d += BATCH)
		enrol(fd, d, d + BATCH < to ? d + BATCH : to);
	for (unsigned d = from; revokes && d < to; d++) {
		unsigned ms = (unsigned)atoi(argv[6]);
		struct timespec pause = {.tv_sec = ms / 1000,
					 .tv_nsec = (long)(ms % 1000) * 1000000};

		nanosleep(&pause, NULL); /* the pace of the samples; nothing is waited for */
		revoke_one(fd, &t, d);
	}
	close(fd);
	trust_unmap(&t);
	return 0;
}
