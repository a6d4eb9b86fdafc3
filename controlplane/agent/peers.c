/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "config/base/log.h"

#define QUEUE_MAX 300000u /* messages waiting for one peer */
#define HELLO_MS 5000
#define READS_A_TURN 256
#define SNDBUF_BYTES (4 << 20)

struct queued {
	STAILQ_ENTRY(queued) next;
	int fd;
	char bytes[]; /* a message */
};

struct request {
	TAILQ_ENTRY(request) next;
	uint64_t seq, deadline_ms;
	uint16_t more_type; /* 0: one reply */
	void (*each)(void *arg, const union msg_any *m);
	peer_done *done;
	void *arg;
};

struct peer {
	LIST_ENTRY(peer) next;
	struct peers *ps;
	struct loop_source src;
	struct msg_hello hello; /* role 0 until it came */
	uint64_t connected_ms, seq;
	uint32_t n_queued;
	const char *doomed; /* cut off at the end of this turn: why */
	bool root; /* root's or our own user's: may be the dataplane */
	void *data;
	STAILQ_HEAD(, queued) queue;
	TAILQ_HEAD(, request) requests; /* the oldest, which is answered next, first */
};

struct peers {
	struct loop *loop;
	struct loop_source listener;
	struct peers_handler handler;
	void *arg;
	uid_t uid;
	char path[MSG_PATH_BYTES];
	LIST_HEAD(, peer) list; /* the newest first */
	uint32_t n;
};

static void peer_ready(void *arg, uint32_t events);

static void peer_close(struct peer *p)
{
	struct request *r;
	struct queued *q;

	LIST_REMOVE(p, next);
	p->ps->n--;
	loop_del(p->ps->loop, &p->src);
	close(p->src.fd);
	while ((r = TAILQ_FIRST(&p->requests)) != NULL) {
		TAILQ_REMOVE(&p->requests, r, next);
		r->done(r->arg, NULL);
		free(r);
	}
	while ((q = STAILQ_FIRST(&p->queue)) != NULL) {
		STAILQ_REMOVE_HEAD(&p->queue, next);
		if (q->fd >= 0)
			close(q->fd);
		free(q);
	}
	if (p->hello.role != 0)
		p->ps->handler.left(p->ps->arg, p);
	free(p);
}

static bool peer_allowed(const struct peers *ps, int fd, bool *root)
{
	struct ucred cred;
	socklen_t n = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0)
		return false;
	*root = cred.uid == 0 || cred.uid == geteuid();
	return *root || cred.uid == ps->uid;
}

static void peers_accept(void *arg, uint32_t events)
{
	struct peers *ps = arg;
	int buf = SNDBUF_BYTES, fd;
	bool root = false;
	struct peer *p;

	(void)events;
	fd = accept4(ps->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	if (ps->n >= PEERS_MAX || !peer_allowed(ps, fd, &root)) {
		log_warn("peer refused: %s", ps->n >= PEERS_MAX ? "too many" : "wrong user");
		close(fd);
		return;
	}
	p = calloc(1, sizeof(*p));
	if (p == NULL) {
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buf, sizeof(buf));
	p->ps = ps;
	p->root = root;
	p->src = (struct loop_source){.fd = fd, .ready = peer_ready, .arg = p};
	p->connected_ms = clock_boot_ms();
	STAILQ_INIT(&p->queue);
	TAILQ_INIT(&p->requests);
	LIST_INSERT_HEAD(&ps->list, p, next);
	ps->n++;
	if (loop_add(ps->loop, &p->src, EPOLLIN) < 0)
		peer_close(p);
}

int peers_new(struct peers **out, struct loop *loop, const char *path, uid_t uid,
	      const struct peers_handler *handler, void *arg, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct peers *ps = calloc(1, sizeof(*ps));
	int ret = -ENOMEM;

	if (ps == NULL)
		return ret;
	ps->listener.fd = -1;
	ps->loop = loop;
	ps->uid = uid;
	ps->handler = *handler;
	ps->arg = arg;
	LIST_INIT(&ps->list);
	if (strlen(path) >= sizeof(sa.sun_path)) {
		ret = -ENAMETOOLONG;
		goto fail;
	}
	strcpy(sa.sun_path, path);
	ps->listener.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (ps->listener.fd < 0) {
		ret = -errno;
		goto fail;
	}
	/* The run folder is the agent's own: what lies there under this name is a dead agent's. */
	unlink(path);
	if (bind(ps->listener.fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    chmod(path, 0660) < 0 || listen(ps->listener.fd, PEERS_MAX) < 0) {
		ret = -errno;
		goto fail;
	}
	/* TLS workers run as `uid`; who else can open the socket is sent away by peer_allowed() */
	if (chown(path, uid, -1) < 0 && uid != geteuid()) {
		ret = -errno;
		goto fail;
	}
	strcpy(ps->path, path);
	ps->listener.ready = peers_accept;
	ps->listener.arg = ps;
	ret = loop_add(loop, &ps->listener, EPOLLIN);
	if (ret < 0)
		goto fail;
	*out = ps;
	return 0;
fail:
	err_set(err, ret, "%s: %s", path, strerror(-ret));
	peers_free(ps);
	return ret;
}

void peers_free(struct peers *ps)
{
	struct peer *p;

	if (ps == NULL)
		return;
	while ((p = LIST_FIRST(&ps->list)) != NULL)
		peer_close(p);
	if (ps->listener.fd >= 0) {
		if (ps->listener.ready != NULL)
			loop_del(ps->loop, &ps->listener);
		close(ps->listener.fd);
	}
	if (ps->path[0] != '\0')
		unlink(ps->path);
	free(ps);
}

static int peer_hello(struct peer *p, const union msg_any *m)
{
	const struct msg_hello *h = (const struct msg_hello *)m;
	struct peer *other;

	if (m->h.type != MSG_HELLO || (h->role != MSG_ROLE_DATAPLANE && h->role != MSG_ROLE_TLS))
		return -EPROTO;
	if (h->version != MSG_VERSION) {
		log_error("peer of version %u, this is %u: pid=%u", h->version, MSG_VERSION,
			  h->pid);
		return -EPROTO;
	}
	/* A TLS worker that was taken over must not become the one who is told policy and bindings. */
	if (h->role == MSG_ROLE_DATAPLANE && !p->root) {
		log_error("peer refused: not root, and says that it is the dataplane: pid=%u",
			  h->pid);
		return -EPERM;
	}
	LIST_FOREACH(other, &p->ps->list, next) {
		if (h->role == MSG_ROLE_DATAPLANE && other->hello.role == h->role)
			peer_cut(other, "another dataplane joined");
	}
	p->hello = *h;
	p->ps->handler.joined(p->ps->arg, p);
	return 0;
}

/* Is it the reply that a request waits for? Then hand it over. */
static bool peer_reply(struct peer *p, const union msg_any *m)
{
	struct request *r;

	TAILQ_FOREACH(r, &p->requests, next) {
		if (r->seq == m->h.seq)
			break;
	}
	if (r == NULL)
		return false;
	if (r->more_type != 0 && m->h.type == r->more_type) {
		r->each(r->arg, m);
		return true;
	}
	TAILQ_REMOVE(&p->requests, r, next);
	r->done(r->arg, m);
	free(r);
	return true;
}

static bool is_reply(uint16_t type)
{
	switch (type) {
	case MSG_OK:
	case MSG_ERROR:
	case MSG_FLOW_ORIGIN:
	case MSG_SWEEP:
	case MSG_FLOW_INFO:
	case MSG_STATS:
	case MSG_TALLIES:
	case MSG_JUDGED:
	case MSG_RECHECKED:
	case MSG_TLS_LISTENER:
		return true;
	default:
		return false;
	}
}

static int peer_message(struct peer *p, const union msg_any *m)
{
	if (p->hello.role == 0)
		return peer_hello(p, m);
	if (is_reply(m->h.type)) {
		if (!peer_reply(p, m))
			log_debug("late reply type=%s pid=%u", msg_type_name(m->h.type),
				  p->hello.pid);
		return 0;
	}
	return p->ps->handler.message(p->ps->arg, p, m);
}

/* Send what is queued as far as the socket takes it. */
static int peer_flush(struct peer *p)
{
	struct queued *q;

	while ((q = STAILQ_FIRST(&p->queue)) != NULL) {
		int ret = msg_send(p->src.fd, q->bytes, q->fd);

		if (ret == -EAGAIN)
			return loop_change(p->ps->loop, &p->src, EPOLLIN | EPOLLOUT);
		if (ret < 0)
			return ret;
		STAILQ_REMOVE_HEAD(&p->queue, next);
		p->n_queued--;
		if (q->fd >= 0)
			close(q->fd);
		free(q);
	}
	return loop_change(p->ps->loop, &p->src, EPOLLIN);
}

static void peer_ready(void *arg, uint32_t events)
{
	struct peer *p = arg;
	union msg_any m;
	int ret = 0;

	if (events & EPOLLOUT)
		ret = peer_flush(p);
	for (int i = 0; ret >= 0 && p->doomed == NULL && i < READS_A_TURN &&
			(events & (EPOLLIN | EPOLLHUP | EPOLLERR));
	     i++) {
		ssize_t n = msg_recv(p->src.fd, &m, NULL);

		if (n == -EAGAIN)
			break;
		ret = n > 0 ? peer_message(p, &m) : n == 0 ? -ECONNRESET : (int)n;
	}
	if (ret >= 0 && p->doomed == NULL)
		return;
	if (p->doomed != NULL || (ret != -ECONNRESET && ret != -EPIPE))
		log_warn("peer cut off pid=%u role=%u: %s", p->hello.pid, p->hello.role,
			 p->doomed != NULL ? p->doomed : strerror(-ret));
	peer_close(p);
}

struct peer *peers_dataplane(struct peers *ps)
{
	struct peer *p;

	LIST_FOREACH(p, &ps->list, next) {
		if (p->hello.role == MSG_ROLE_DATAPLANE && p->doomed == NULL)
			return p;
	}
	return NULL;
}

uint32_t peers_tls(struct peers *ps, struct peer **out, uint32_t max)
{
	struct peer *p;
	uint32_t n = 0;

	LIST_FOREACH(p, &ps->list, next) {
		if (p->hello.role == MSG_ROLE_TLS && p->doomed == NULL && n < max)
			out[n++] = p;
	}
	return n;
}

uint32_t peer_role(const struct peer *p)
{
	return p->hello.role;
}

uint32_t peer_pid(const struct peer *p)
{
	return p->hello.pid;
}

uint64_t peer_instance(const struct peer *p)
{
	return p->hello.instance;
}

uint32_t peer_worker(const struct peer *p)
{
	return p->hello.worker;
}

uint64_t peer_listeners(const struct peer *p)
{
	return p->hello.listeners;
}

struct peer *peers_by_instance(struct peers *ps, uint64_t instance)
{
	struct peer *p;

	LIST_FOREACH(p, &ps->list, next) {
		if (p->hello.role != 0 && p->hello.instance == instance && p->doomed == NULL)
			return p;
	}
	return NULL;
}

void **peer_data(struct peer *p)
{
	return &p->data;
}

/* Not at once, for its own callbacks may be running: at the latest by the next tick. */
void peer_cut(struct peer *p, const char *why)
{
	if (p->doomed != NULL)
		return;
	p->doomed = why;
	shutdown(p->src.fd, SHUT_RDWR);
}

void peer_send(struct peer *p, const void *m, int fd)
{
	const struct msg_hdr *h = m;
	struct queued *q;

	if (p->doomed != NULL)
		return;
	if (STAILQ_EMPTY(&p->queue)) {
		int ret = msg_send(p->src.fd, m, fd);

		if (ret == 0)
			return;
		if (ret != -EAGAIN) {
			peer_cut(p, "hung up");
			return;
		}
	}
	q = p->n_queued < QUEUE_MAX ? malloc(sizeof(*q) + h->bytes) : NULL;
	if (q == NULL) {
		peer_cut(p, "does not keep up");
		return;
	}
	memcpy(q->bytes, m, h->bytes);
	q->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
	STAILQ_INSERT_TAIL(&p->queue, q, next);
	p->n_queued++;
	if ((fd >= 0 && q->fd < 0) || loop_change(p->ps->loop, &p->src, EPOLLIN | EPOLLOUT) < 0)
		peer_cut(p, "cannot be sent to");
}

static void request_add(struct peer *p, void *m, int fd, uint32_t timeout_ms,
			const struct request *like)
{
	struct request *r = malloc(sizeof(*r));
	struct msg_hdr *h = m;

	if (r == NULL) {
		like->done(like->arg, NULL);
		return;
	}
	*r = *like;
	r->seq = h->seq = ++p->seq;
	r->deadline_ms = clock_boot_ms() + timeout_ms;
	TAILQ_INSERT_TAIL(&p->requests, r, next);
	peer_send(p, m, fd);
}

void peer_request(struct peer *p, void *m, int fd, uint32_t timeout_ms, peer_done *done, void *arg)
{
	request_add(p, m, fd, timeout_ms, &(struct request){.done = done, .arg = arg});
}

void peer_request_many(struct peer *p, void *m, uint32_t timeout_ms, uint16_t more_type,
		       void (*each)(void *arg, const union msg_any *m), peer_done *done, void *arg)
{
	request_add(
		p, m, -1, timeout_ms,
		&(struct request){.more_type = more_type, .each = each, .done = done, .arg = arg});
}

static void requests_expire(struct peer *p, uint64_t now_ms)
{
	struct request *r, *next;

	/* Callbacks may add requests at the end, which are not due. */
	for (r = TAILQ_FIRST(&p->requests); r != NULL; r = next) {
		next = TAILQ_NEXT(r, next);
		if (r->deadline_ms > now_ms)
			continue;
		TAILQ_REMOVE(&p->requests, r, next);
		log_warn("no answer in time pid=%u role=%u", p->hello.pid, p->hello.role);
		r->done(r->arg, NULL);
		free(r);
	}
}

void peers_tick(struct peers *ps, uint64_t now_ms)
{
	struct peer *p, *next;

	for (p = LIST_FIRST(&ps->list); p != NULL; p = next) {
		next = LIST_NEXT(p, next);
		if (p->hello.role == 0 && now_ms > p->connected_ms + HELLO_MS)
			peer_cut(p, "said nothing");
		if (p->doomed == NULL) {
			requests_expire(p, now_ms);
			continue;
		}
		log_warn("peer cut off pid=%u role=%u: %s", p->hello.pid, p->hello.role, p->doomed);
		peer_close(p);
	}
}
