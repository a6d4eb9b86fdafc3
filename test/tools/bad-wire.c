/* SPDX-License-Identifier: GPL-3.0-or-later */
/* bad-wire: a cable between two interfaces that loses, repeats and overtakes frames, for kernels without netem.
 *   bad-wire IF IF [--loss PCT] [--repeat PCT] [--late PCT] [--seed N]
 * A late frame goes out after up to LATE_MAX of its successors, or after LATE_MS. Runs until TERM, then prints
 * "frames=N lost=N repeated=N late=N". Both interfaces should have neither addresses nor offloads. */
#include <errno.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/clock.h"

#define FRAME_BYTES 65536
#define HELD 32 /* late frames of a direction at a time */
#define LATE_MAX 8
#define LATE_MS 20

struct held {
	uint8_t *frame; /* NULL: free */
	size_t bytes;
	unsigned after; /* so many more frames, or */
	uint64_t until_ms;
};

struct wire {
	int fd[2];
	struct held held[2][HELD]; /* by the interface that they came in by */
	unsigned loss_pct, repeat_pct, late_pct;
	uint64_t seed;
	uint64_t frames, lost, repeated, late;
};

static volatile sig_atomic_t ended;

static void on_term(int sig)
{
	(void)sig;
	ended = 1;
}

static void die(const char *what)
{
	fprintf(stderr, "bad-wire: %s: %s\n", what, strerror(errno));
	exit(1);
}

static bool happens(struct wire *w, unsigned pct)
{
	w->seed = w->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (w->seed >> 33) % 100 < pct;
}

static int open_end(const char *name)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	struct packet_mreq all = {.mr_type = PACKET_MR_PROMISC};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)), on = 1;
	int room = 8 << 20;

	at.sll_ifindex = all.mr_ifindex = (int)if_nametoindex(name);
	if (fd < 0 || at.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0)
		die(name);
	return fd;
}

static void pass(const struct wire *w, int from, const uint8_t *frame, size_t bytes)
{
	/* A full queue loses the frame: a wire may. */
	if (send(w->fd[!from], frame, bytes, 0) < 0 && errno != ENOBUFS && errno != EAGAIN)
		die("send");
}

static void drop_held(struct wire *w)
{
	for (unsigned i = 0; i < 2 * HELD; i++)
		free(w->held[i / HELD][i % HELD].frame);
}

static bool hold(struct wire *w, int from, const uint8_t *frame, size_t bytes, uint64_t now_ms)
{
	for (unsigned i = 0; i < HELD; i++) {
		struct held *h = &w->held[from][i];

		if (h->frame != NULL)
			continue;
		h->frame = malloc(bytes);
		if (h->frame == NULL)
			return false;
		memcpy(h->frame, frame, bytes);
		h->bytes = bytes;
		h->after = 1 + (w->seed >> 40) % LATE_MAX;
		h->until_ms = now_ms + LATE_MS;
		return true;
	}
	return false;
}

/* @param overtaken  a frame has just gone the same way */
static void release(struct wire *w, int from, bool overtaken, uint64_t now_ms)
{
	for (unsigned i = 0; i < HELD; i++) {
		struct held *h = &w->held[from][i];

		if (h->frame == NULL)
			continue;
		h->after -= overtaken;
		if (h->after > 0 && now_ms < h->until_ms)
			continue;
		pass(w, from, h->frame, h->bytes);
		free(h->frame);
		h->frame = NULL;
	}
}

static void one(struct wire *w, int from, const uint8_t *frame, size_t bytes, uint64_t now_ms)
{
	w->frames++;
	if (happens(w, w->loss_pct)) {
		w->lost++;
		return;
	}
	if (happens(w, w->late_pct) && hold(w, from, frame, bytes, now_ms)) {
		w->late++;
		return;
	}
	pass(w, from, frame, bytes);
	if (happens(w, w->repeat_pct)) {
		pass(w, from, frame, bytes);
		w->repeated++;
	}
	release(w, from, true, now_ms);
}

static void run(struct wire *w)
{
	static uint8_t frame[FRAME_BYTES];
	struct pollfd p[2] = {{.fd = w->fd[0], .events = POLLIN},
			      {.fd = w->fd[1], .events = POLLIN}};

	while (!ended) {
		uint64_t now_ms;

		if (poll(p, 2, LATE_MS / 2) < 0 && errno != EINTR)
			die("poll");
		now_ms = clock_boot_ms();
		for (int from = 0; from < 2; from++) {
			ssize_t n = recv(w->fd[from], frame, sizeof(frame), MSG_DONTWAIT);

			for (int i = 0; n > 0 && i < 64; i++) {
				one(w, from, frame, n, now_ms);
				n = recv(w->fd[from], frame, sizeof(frame), MSG_DONTWAIT);
			}
			if (n > 0)
				one(w, from, frame, n, now_ms);
			release(w, from, false, now_ms);
		}
	}
}

static unsigned percent(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end != '\0' || n > 100) {
		fprintf(stderr, "bad-wire: \"%s\" is no percentage\n", text);
		exit(2);
	}
	return n;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"loss", required_argument, NULL, 'l'},
					      {"repeat", required_argument, NULL, 'r'},
					      {"late", required_argument, NULL, 'o'},
					      {"seed", required_argument, NULL, 's'},
					      {0}};
	struct sigaction term = {.sa_handler = on_term};
	struct wire w = {.seed = 1};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 'l')
			w.loss_pct = percent(optarg);
		else if (c == 'r')
			w.repeat_pct = percent(optarg);
		else if (c == 'o')
			w.late_pct = percent(optarg);
		else if (c == 's')
			w.seed = strtoull(optarg, NULL, 10);
		else
			return 2;
	}
	if (argc - optind != 2) {
		fputs("usage: bad-wire IF IF [--loss PCT] [--repeat PCT] [--late PCT] [--seed N]\n",
		      stderr);
		return 2;
	}
	sigaction(SIGTERM, &term, NULL);
	sigaction(SIGINT, &term, NULL);
	w.fd[0] = open_end(argv[optind]);
	w.fd[1] = open_end(argv[optind + 1]);
	puts("ready");
	fflush(stdout);
	run(&w);
	drop_held(&w);
	printf("frames=%lu lost=%lu repeated=%lu late=%lu\n", w.frames, w.lost, w.repeated, w.late);
	return 0;
}
