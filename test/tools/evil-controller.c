/* SPDX-License-Identifier: GPL-3.0-or-later */
/* evil-controller: serves the decision socket as an attacker on the transport would: it has a real controller's log and
 * public traffic, but not the signing key. It sends what the --modes say, in order, to the gateway that subscribes, prints what the
 * gateway answers as one line each, and goes on until the gateway closes or --wait-s has passed. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "controlplane/decision.h"
#include "controlplane/frame.h"
#include "controlplane/stream.h"
#include "controlplane/unix_listen.h"

#define LOG_MAX 100000
#define MODES_MAX 16

struct blob {
	uint8_t *data;
	size_t bytes;
};

struct evil {
	struct blob *log; /* [revision] of the stolen log */
	uint64_t head;
	uint8_t (*hash)[32]; /* [revision] */
	struct cose_signer *key; /* our own: not the controller's */
	struct stream *s;
	uint64_t from; /* what the gateway said it has */
	bool subscribed;
	void (*runs[MODES_MAX])(struct evil *e); /* in this order */
	unsigned n_runs;
	unsigned answers;
};

static void die(const char *what, const char *detail)
{
	fprintf(stderr, "evil-controller: %s: %s\n", what, detail);
	exit(1);
}

static void say(const char *text)
{
	puts(text);
	fflush(stdout);
}

/* ---- the stolen log ---- */

static void log_read(struct evil *e, const char *path)
{
	sqlite3_stmt *st = NULL;
	sqlite3 *db = NULL;
	int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(
			db, "SELECT revision, hash, cose FROM entries ORDER BY revision", -1, &st,
			NULL);
	if (rc != SQLITE_OK)
		die(path, sqlite3_errmsg(db));
	e->log = calloc(LOG_MAX + 1, sizeof(*e->log));
	e->hash = calloc(LOG_MAX + 1, sizeof(*e->hash));
	if (e->log == NULL || e->hash == NULL)
		die(path, "out of memory");
	while (sqlite3_step(st) == SQLITE_ROW && e->head < LOG_MAX) {
		struct blob *b = &e->log[++e->head];

		b->bytes = (size_t)sqlite3_column_bytes(st, 2);
		b->data = malloc(b->bytes + 1);
		if (b->data == NULL || (uint64_t)sqlite3_column_int64(st, 0) != e->head ||
		    sqlite3_column_bytes(st, 1) != 32)
			die(path, "not a log");
		memcpy(b->data, sqlite3_column_blob(st, 2), b->bytes);
		memcpy(e->hash[e->head], sqlite3_column_blob(st, 1), 32);
	}
	sqlite3_finalize(st);
	sqlite3_close(db);
}

/* ---- frames ---- */

static void send_cose(struct evil *e, enum frame_type type, const void *cose, size_t bytes)
{
	struct frame f = {.type = type, .cose = cose, .cose_bytes = bytes};
	uint8_t *data;
	size_t n;

	if (frame_encode(&data, &n, &f) < 0)
		die("frame", "cannot encode");
	if (stream_send(e->s, data, n) < 0)
		say("gateway closed");
	free(data);
}

static void send_log(struct evil *e, uint64_t revision)
{
	if (revision >= 1 && revision <= e->head)
		send_cose(e, FRAME_ENTRY, e->log[revision].data, e->log[revision].bytes);
}

/* An enrolment of a device of ours, on the gateway's own chain, signed with our own key. */
static struct blob own_entry(struct evil *e, uint64_t revision, bool snapshot)
{
	struct decision d = {
		.op = DECISION_ENROL, .identity_kind = IDENTITY_URI, .has = DECISION_HAS_DEVICE};
	struct decision_entry entry = {.revision = revision,
				       .issued_ms = clock_wall_ms(),
				       .snapshot = snapshot,
				       .n_ops = 1,
				       .ops = &d};
	struct err err = {0};
	struct blob b;

	strcpy(d.identity, "spiffe://plant-7/evil/1");
	if (snapshot)
		memset(entry.hash, 0x66, 32);
	else if (revision > 1 && revision - 1 <= e->head)
		memcpy(entry.prev, e->hash[revision - 1], 32);
	if (decision_entry_seal(&b.data, &b.bytes, &entry, e->key, &err) < 0)
		die("seal", err.msg);
	return b;
}

/* ---- what it does ---- */

static void mode_foreign_key(struct evil *e)
{
	struct blob b = own_entry(e, e->from + 1, false);

	send_cose(e, FRAME_ENTRY, b.data, b.bytes);
	free(b.data);
}

/* The next real entry (or the last), with one bit of its payload changed. */
static void mode_forged(struct evil *e)
{
	struct blob *b = &e->log[e->from < e->head ? e->from + 1 : e->head];

	b->data[b->bytes - COSE_SIGNATURE_BYTES - 4] ^= 1;
	send_cose(e, FRAME_ENTRY, b->data, b->bytes);
	b->data[b->bytes - COSE_SIGNATURE_BYTES - 4] ^= 1;
}

static void mode_replayed(struct evil *e)
{
	for (uint64_t n = 1; n <= e->from && n <= e->head; n++)
		send_log(e, n);
}

/* From the end to the beginning of what the gateway lacks. */
static void mode_reordered(struct evil *e)
{
	for (uint64_t n = e->head; n > e->from; n--)
		send_log(e, n);
}

static void mode_hole(struct evil *e)
{
	for (uint64_t n = e->from + 2; n <= e->head; n++)
		send_log(e, n);
}

static void mode_truncated(struct evil *e)
{
	const struct blob *b = &e->log[e->from < e->head ? e->from + 1 : e->head];

	send_cose(e, FRAME_ENTRY, b->data, b->bytes / 2);
}

/* Half a frame, and then the end. */
static void mode_cut_stream(struct evil *e)
{
	static const uint8_t half[] = {0, 0, 1, 0, 0x82, 0x10, 0x58};

	if (send(stream_fd(e->s), half, sizeof(half), MSG_NOSIGNAL) < 0)
		say("gateway closed");
	shutdown(stream_fd(e->s), SHUT_WR);
}

static void mode_foreign_snapshot(struct evil *e)
{
	struct blob b = own_entry(e, e->from + 10, true);

	send_cose(e, FRAME_SNAPSHOT, b.data, b.bytes);
	free(b.data);
}

static void mode_foreign_heartbeat(struct evil *e)
{
	struct decision_heartbeat h = {
		.revision = e->from, .issued_ms = clock_wall_ms(), .lease_ms = 86400000};
	struct blob b;

	if (e->from > 0 && e->from <= e->head)
		memcpy(h.hash, e->hash[e->from], 32);
	if (decision_heartbeat_seal(&b.data, &b.bytes, &h, e->key) < 0)
		die("seal", "heartbeat");
	send_cose(e, FRAME_HEARTBEAT, b.data, b.bytes);
	free(b.data);
}

static void mode_garbage(struct evil *e)
{
	static const uint8_t junk[] = {0xff, 0x00, 0x61, 0x9f, 0xff};

	if (stream_send(e->s, junk, sizeof(junk)) < 0)
		say("gateway closed");
}

static void mode_huge(struct evil *e)
{
	static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0x00};

	if (send(stream_fd(e->s), huge, sizeof(huge), MSG_NOSIGNAL) < 0)
		say("gateway closed");
}

/* Says nothing at all: no entries, no heartbeats. */
static void mode_silent(struct evil *e)
{
	(void)e;
}

static const struct {
	const char *name;
	void (*run)(struct evil *e);
	const char *what;
} modes[] = {
	{"foreign-key", mode_foreign_key, "next entry, signed by another key"},
	{"forged", mode_forged, "next entry of the log, one bit changed"},
	{"replayed", mode_replayed, "all entries that the gateway has, again"},
	{"reordered", mode_reordered, "the entries that it lacks, last one first"},
	{"hole", mode_hole, "the entries that it lacks, without the first"},
	{"truncated", mode_truncated, "next entry, cut in half"},
	{"cut-stream", mode_cut_stream, "half a frame, then the end"},
	{"foreign-snapshot", mode_foreign_snapshot, "a snapshot signed by another key"},
	{"foreign-heartbeat", mode_foreign_heartbeat,
	 "a heartbeat with a long lease, signed by another key"},
	{"garbage", mode_garbage, "a frame that is none"},
	{"huge", mode_huge, "a frame of 4 GiB, so it says"},
	{"silent", mode_silent, "nothing"},
};

static void usage(FILE *to)
{
	fputs("usage: evil-controller --decisions SOCK --log DIR/decisions.db --mode MODE... "
	      "[--wait-s N]\n\n",
	      to);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		fprintf(to, "  %-18s %s\n", modes[i].name, modes[i].what);
}

/* ---- the gateway's side ---- */

static int on_frame(void *arg, const uint8_t *data, size_t bytes)
{
	struct evil *e = arg;
	struct frame f;

	if (frame_decode(&f, data, bytes, NULL) < 0)
		return -EPROTO;
	e->answers++;
	if (f.type == FRAME_SUBSCRIBE) {
		e->from = f.revision;
		printf("subscribe gateway=%s revision=%llu\n", f.gateway,
		       (unsigned long long)f.revision);
		e->subscribed = true;
	} else if (f.type == FRAME_RECEIPT) {
		printf("receipt revision=%llu result=%d\n", (unsigned long long)f.receipt.revision,
		       f.receipt.result);
	} else if (f.type == FRAME_WANT_SNAPSHOT) {
		puts("want-snapshot");
	}
	fflush(stdout);
	return 0;
}

static int serve(struct evil *e, int listener, uint64_t until_ms)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};
	bool sent = false;
	uint64_t now;

	while ((now = clock_boot_ms()) < until_ms) {
		if (poll(&p, 1, (int)(until_ms - now)) <= 0)
			continue;
		if (e->s == NULL) {
			int fd = accept(listener, NULL, NULL);

			if (fd < 0 || stream_adopt(&e->s, fd, FRAME_UP_BYTES, 64u << 20) < 0)
				die("accept", strerror(errno));
			p.fd = fd;
			continue;
		}
		if (stream_pump(e->s, on_frame, e) < 0) {
			say("gateway closed");
			return sent ? 0 : 1;
		}
		if (e->subscribed && !sent) {
			for (unsigned i = 0; i < e->n_runs; i++)
				e->runs[i](e);
			say("sent");
			sent = true;
		}
	}
	return sent ? 0 : 1;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"decisions", required_argument, NULL, 'd'},
		{"log", required_argument, NULL, 'l'},
		{"mode", required_argument, NULL, 'm'},
		{"wait-s", required_argument, NULL, 'w'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *path = NULL, *log = NULL;
	struct evil e = {0};
	struct err err = {0};
	unsigned wait_s = 10;
	int opt, listener, ret;

	while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (opt == 'd')
			path = optarg;
		else if (opt == 'l')
			log = optarg;
		else if (opt == 'w')
			wait_s = (unsigned)atoi(optarg);
		else if (opt == 'h') {
			usage(stdout);
			return 0;
		}
		for (size_t i = 0; opt == 'm' && i < sizeof(modes) / sizeof(modes[0]); i++) {
			if (strcmp(optarg, modes[i].name) == 0 && e.n_runs < MODES_MAX)
				e.runs[e.n_runs++] = modes[i].run;
		}
	}
	if (path == NULL || log == NULL || e.n_runs == 0 || optind != argc) {
		usage(stderr);
		return 2;
	}
	log_read(&e, log);
	if (e.head == 0)
		die(log, "the log is empty");
	if (cose_signer_new(&e.key, &err) < 0)
		die("key", err.msg);
	listener = unix_listen(path, 4, &err);
	if (listener < 0)
		die("listen", err.msg);
	say("ready");
	ret = serve(&e, listener, clock_boot_ms() + wait_s * 1000ull);
	stream_close(e.s);
	unlink(path);
	close(listener);
	for (uint64_t n = 1; n <= e.head; n++)
		free(e.log[n].data);
	free(e.log);
	free(e.hash);
	cose_signer_free(e.key);
	return ret;
}
