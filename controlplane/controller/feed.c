/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/controller/feed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/log.h"
#include "controlplane/stream.h"
#include "controlplane/unix_listen.h"

#define QUEUE_BYTES (FRAME_DOWN_BYTES + (2u << 20)) /* a snapshot, and entries behind it */
#define QUEUE_LOW_BYTES (256u * 1024) /* refill from the log below this */
#define CLOCK_STEP_MS 10000
#define HELLO_MS 10000 /* to subscribe after connecting */

struct subscriber {
	struct feed *feed;
	struct stream *stream; /* NULL: slot is free */
	uint32_t events;
	char gateway[FRAME_GATEWAY_BYTES]; /* "": not subscribed yet */
	uint64_t next; /* revision to send next */
	uint64_t
		foreign; /* it came with a history up to here that is not this log's; 0 = it follows this log */
	uint64_t snapshot; /* revision of the last snapshot sent; 0 = none */
	uint64_t since_ms; /* connected, boot clock */
	bool wants_snapshot; /* asked while there was none */
	bool broken;
};

struct feed {
	struct feed_config cfg; /* without path */
	char path[108];
	int epoll, listener;
	uint64_t now_boot_ms, now_wall_ms;
	uint64_t beat_ms; /* boot clock, when the next heartbeat is due */
	uint64_t beat_issued_ms; /* wall clock, of the last heartbeat */
	uint8_t *snapshot; /* signed, of revision snapshot_revision; made when asked for */
	size_t snapshot_bytes;
	uint64_t snapshot_revision;
	struct subscriber subs[FEED_GATEWAYS_MAX];
};

static void sub_close(struct subscriber *s)
{
	struct feed *f = s->feed;
	char gateway[FRAME_GATEWAY_BYTES];

	memcpy(gateway, s->gateway, sizeof(gateway));
	stream_close(s->stream);
	*s = (struct subscriber){.feed = f};
	if (gateway[0] != '\0') {
		log_info("gateway %s left", gateway);
		f->cfg.gone(f->cfg.arg, gateway);
	}
}

static void sub_watch(struct subscriber *s)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = s};

	if (s->stream == NULL)
		return;
	if (s->broken) {
		sub_close(s);
		return;
	}
	if (stream_wants_write(s->stream))
		ev.events |= EPOLLOUT;
	if (ev.events != s->events &&
	    epoll_ctl(s->feed->epoll, s->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD,
		      stream_fd(s->stream), &ev) == 0)
		s->events = ev.events;
}

static void sub_send(struct subscriber *s, enum frame_type type, const uint8_t *cose, size_t bytes)
{
	struct frame f = {.type = type, .cose = cose, .cose_bytes = bytes};
	uint8_t *data;
	size_t n;

	if (s->broken)
		return;
	if (frame_encode(&data, &n, &f) < 0) {
		s->broken = true;
		return;
	}
	if (stream_send(s->stream, data, n) < 0)
		s->broken = true;
	free(data);
}

/* Gateways want every heartbeat later than the one before: a clock that was set back a little must not cost them the
 * lease. After a big step the clock is right and the heartbeats before it were wrong. */
static uint64_t beat_time(struct feed *f)
{
	if (f->now_wall_ms > f->beat_issued_ms ||
	    f->beat_issued_ms - f->now_wall_ms > CLOCK_STEP_MS)
		f->beat_issued_ms = f->now_wall_ms;
	else
		f->beat_issued_ms++;
	return f->beat_issued_ms;
}

static void sub_heartbeat(struct subscriber *s)
{
	const struct journal_head *head = journal_head(s->feed->cfg.journal);
	struct decision_heartbeat h = {.revision = head->revision,
				       .issued_ms = beat_time(s->feed),
				       .lease_ms = s->feed->cfg.lease_ms};
	uint8_t *cose;
	size_t bytes;

	memcpy(h.hash, head->hash, sizeof(h.hash));
	if (decision_heartbeat_seal(&cose, &bytes, &h, s->feed->cfg.signer) < 0) {
		log_error("cannot sign a heartbeat");
		return;
	}
	sub_send(s, FRAME_HEARTBEAT, cose, bytes);
	free(cose);
}

/* As much of the log as the queue takes now; the rest follows when it has drained. */
static void sub_fill(struct subscriber *s)
{
	uint64_t head = journal_head(s->feed->cfg.journal)->revision;
	uint8_t *cose;
	size_t bytes;

	while (s->gateway[0] != '\0' && !s->broken && s->next <= head &&
	       stream_queued_bytes(s->stream) < QUEUE_LOW_BYTES) {
		int ret = journal_read(s->feed->cfg.journal, s->next, &cose, &bytes);

		if (ret < 0) {
			log_error("cannot read revision %llu: %s", (unsigned long long)s->next,
				  strerror(-ret));
			s->broken = true;
			return;
		}
		sub_send(s, FRAME_ENTRY, cose, bytes);
		free(cose);
		s->next++;
	}
}

static int snapshot_make(struct feed *f)
{
	const struct journal_head *head = journal_head(f->cfg.journal);
	struct decision_entry e = {
		.revision = head->revision, .snapshot = true, .issued_ms = head->issued_ms};
	struct err err = {0};
	uint8_t *cose;
	size_t bytes;
	int ret;

	if (f->snapshot != NULL && f->snapshot_revision == head->revision)
		return 0;
	/* Issued as its head was: a later time could be past the next entry's, if the clock is set back. */
	memcpy(e.hash, head->hash, sizeof(e.hash));
	ret = state_operations(f->cfg.state, &e.ops, &e.n_ops);
	if (ret < 0)
		return ret;
	ret = decision_entry_seal(&cose, &bytes, &e, f->cfg.signer, &err);
	free(e.ops); /* texts in it are the state's */
	if (ret < 0) {
		log_error("cannot make a snapshot: %s", err.msg);
		return ret;
	}
	free(f->snapshot);
	f->snapshot = cose;
	f->snapshot_bytes = bytes;
	f->snapshot_revision = head->revision;
	return 0;
}

static void sub_snapshot(struct subscriber *s)
{
	s->wants_snapshot = true;
	if (journal_head(s->feed->cfg.journal)->revision == 0 || snapshot_make(s->feed) < 0)
		return; /* feed_push() tries again */
	s->wants_snapshot = false;
	log_info("snapshot of revision %llu for gateway %s",
		 (unsigned long long)s->feed->snapshot_revision, s->gateway);
	sub_send(s, FRAME_SNAPSHOT, s->feed->snapshot, s->feed->snapshot_bytes);
	s->snapshot = s->feed->snapshot_revision;
	s->next = s->snapshot + 1;
}

static void sub_subscribe(struct subscriber *s, const struct frame *f)
{
	struct feed *feed = s->feed;
	uint8_t hash[32];
	int ret = journal_hash(feed->cfg.journal, f->revision, hash);
	bool known = s->gateway[0] != '\0';
	char clean[FRAME_GATEWAY_BYTES];

	log_clean(clean, sizeof(clean), f->gateway);
	/* Its newer connection counts: the older one is a left-over that nobody reads. */
	for (unsigned i = 0; i < FEED_GATEWAYS_MAX; i++) {
		struct subscriber *o = &feed->subs[i];

		if (o != s && o->stream != NULL && strcmp(o->gateway, f->gateway) == 0) {
			o->gateway[0] = '\0';
			o->broken = true;
		}
	}
	memcpy(s->gateway, f->gateway, sizeof(s->gateway));
	s->foreign = 0;
	if (ret == 0 && memcmp(hash, f->hash, sizeof(hash)) == 0) {
		s->next = f->revision + 1;
		if (!known)
			log_info("gateway %s subscribed from revision %llu", clean,
				 (unsigned long long)f->revision);
	} else {
		/* It follows another history, or one that we lost. What it is sent now lets it see that. */
		log_error("gateway %s is at revision %llu, which is not in this log", clean,
			  (unsigned long long)f->revision);
		s->next = f->revision + 1;
		s->foreign = f->revision;
	}
	sub_fill(s);
	sub_heartbeat(s);
}

static void sub_receipt(struct subscriber *s, const struct receipt *r)
{
	struct err err = {0};
	uint64_t covers = r->revision == s->snapshot ? 1 : r->revision;

	/* About a history that this log is not, or not any more: it says nothing about ours. */
	if (r->revision <= s->foreign && strcmp(r->gateway, s->gateway) == 0)
		return;
	if (strcmp(r->gateway, s->gateway) != 0 || r->revision == 0 ||
	    r->revision > journal_head(s->feed->cfg.journal)->revision) {
		log_warn("gateway %s sent a receipt that is not its own or of no revision",
			 s->gateway);
		s->broken = true;
		return;
	}
	if (journal_receipt_put(s->feed->cfg.journal, r, &err) < 0)
		log_error("%s", err.msg);
	s->feed->cfg.receipt(s->feed->cfg.arg, r, covers);
}

static int on_frame(void *arg, const uint8_t *data, size_t bytes)
{
	struct subscriber *s = arg;
	struct err err = {0};
	struct frame f;

	if (frame_decode(&f, data, bytes, &err) < 0) {
		log_warn("gateway %s: %s", s->gateway[0] != '\0' ? s->gateway : "(not subscribed)",
			 err.msg);
		return -EPROTO;
	}
	if (f.type == FRAME_SUBSCRIBE) {
		sub_subscribe(s, &f);
	} else if (s->gateway[0] == '\0') {
		return -EPROTO;
	} else if (f.type == FRAME_RECEIPT) {
		sub_receipt(s, &f.receipt);
	} else if (f.type == FRAME_WANT_SNAPSHOT) {
		sub_snapshot(s);
	} else {
		return -EPROTO;
	}
	return s->broken ? -EPROTO : 0;
}

static void feed_accept(struct feed *f)
{
	int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct subscriber *s = NULL;
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (fd < 0)
		return;
	for (unsigned i = 0; i < FEED_GATEWAYS_MAX && s == NULL; i++) {
		if (f->subs[i].stream == NULL)
			s = &f->subs[i];
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
	    (cred.uid != 0 && cred.uid != geteuid()) || s == NULL ||
	    stream_adopt(&s->stream, fd, FRAME_UP_BYTES, QUEUE_BYTES) < 0) {
		close(fd);
		return;
	}
	s->since_ms = f->now_boot_ms;
	sub_watch(s);
}

static void sub_pump(struct subscriber *s)
{
	int ret = stream_pump(s->stream, on_frame, s);

	if (ret < 0)
		s->broken = true;
	else
		sub_fill(s);
	sub_watch(s);
}

void feed_dispatch(struct feed *f, uint64_t now_boot_ms, uint64_t now_wall_ms)
{
	struct epoll_event evs[16];
	int n = epoll_wait(f->epoll, evs, 16, 0);

	f->now_boot_ms = now_boot_ms;
	f->now_wall_ms = now_wall_ms;
	for (int i = 0; i < n; i++) {
		struct subscriber *s = evs[i].data.ptr;

		if (s == NULL)
			feed_accept(f);
		else if (s->stream != NULL)
			sub_pump(s);
	}
}

void feed_tick(struct feed *f, uint64_t now_boot_ms, uint64_t now_wall_ms)
{
	bool beat = now_boot_ms >= f->beat_ms;

	f->now_boot_ms = now_boot_ms;
	f->now_wall_ms = now_wall_ms;
	if (beat)
		f->beat_ms = now_boot_ms + f->cfg.heartbeat_ms;
	for (unsigned i = 0; i < FEED_GATEWAYS_MAX; i++) {
		struct subscriber *s = &f->subs[i];

		if (s->stream == NULL)
			continue;
		if (s->gateway[0] == '\0')
			s->broken = s->broken || now_boot_ms - s->since_ms > HELLO_MS;
		else if (beat)
			sub_heartbeat(s);
		sub_watch(s);
	}
}

void feed_push(struct feed *f)
{
	for (unsigned i = 0; i < FEED_GATEWAYS_MAX; i++) {
		if (f->subs[i].stream == NULL || f->subs[i].gateway[0] == '\0')
			continue;
		if (f->subs[i].wants_snapshot)
			sub_snapshot(&f->subs[i]);
		sub_fill(&f->subs[i]);
		sub_watch(&f->subs[i]);
	}
}

void feed_gateways(const struct feed *f,
		   void (*each)(void *arg, const char *gateway, uint64_t sent), void *arg)
{
	for (unsigned i = 0; i < FEED_GATEWAYS_MAX; i++) {
		const struct subscriber *s = &f->subs[i];

		if (s->stream != NULL && s->gateway[0] != '\0' && !s->broken)
			each(arg, s->gateway, s->next - 1);
	}
}

int feed_new(struct feed **out, const struct feed_config *cfg, struct err *err)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	struct feed *f = calloc(1, sizeof(*f));
	int ret;

	if (f == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	f->cfg = *cfg;
	f->cfg.path = NULL;
	f->listener = -1;
	for (unsigned i = 0; i < FEED_GATEWAYS_MAX; i++)
		f->subs[i].feed = f;
	f->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (f->epoll < 0) {
		ret = err_set(err, -errno, "epoll: %s", strerror(errno));
		goto fail;
	}
	ret = unix_listen(cfg->path, FEED_GATEWAYS_MAX, err);
	if (ret < 0)
		goto fail;
	f->listener = ret;
	snprintf(f->path, sizeof(f->path), "%s", cfg->path);
	if (epoll_ctl(f->epoll, EPOLL_CTL_ADD, f->listener, &ev) < 0) {
		ret = err_set(err, -errno, "epoll: %s", strerror(errno));
		goto fail;
	}
	*out = f;
	return 0;
fail:
	feed_free(f);
	return ret;
}

void feed_free(struct feed *f)
{
	if (f == NULL)
		return;
	for (unsigned i = 0; i < FEED_GATEWAYS_MAX; i++)
		stream_close(f->subs[i].stream);
	if (f->listener >= 0) {
		unlink(f->path);
		close(f->listener);
	}
	if (f->epoll >= 0)
		close(f->epoll);
	free(f->snapshot);
	free(f);
}

int feed_fd(const struct feed *f)
{
	return f->epoll;
}
