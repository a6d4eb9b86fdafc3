/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/base/msg.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const struct {
	const char *name;
	uint32_t bytes;
} types[] = {
	[MSG_HELLO] = {"HELLO", sizeof(struct msg_hello)},
	[MSG_WELCOME] = {"WELCOME", sizeof(struct msg_welcome)},
	[MSG_OK] = {"OK", sizeof(struct msg_result)},
	[MSG_ERROR] = {"ERROR", sizeof(struct msg_result)},
	[MSG_DP_CONFIG] = {"DP_CONFIG", sizeof(struct msg_dp_config)},
	[MSG_DP_READY] = {"DP_READY", sizeof(struct msg_hdr)},
	[MSG_SYNC_BEGIN] = {"SYNC_BEGIN", sizeof(struct msg_hdr)},
	[MSG_SYNC_END] = {"SYNC_END", sizeof(struct msg_hdr)},
	[MSG_POLICY_PREPARE] = {"POLICY_PREPARE", sizeof(struct msg_policy)},
	[MSG_POLICY_COMMIT] = {"POLICY_COMMIT", sizeof(struct msg_policy)},
	[MSG_POLICY_ABORT] = {"POLICY_ABORT", sizeof(struct msg_policy)},
	[MSG_ROUTE_ADD] = {"ROUTE_ADD", sizeof(struct msg_route)},
	[MSG_ROUTE_DEL] = {"ROUTE_DEL", sizeof(struct msg_route)},
	[MSG_NEIGH_ADD] = {"NEIGH_ADD", sizeof(struct msg_neigh)},
	[MSG_NEIGH_DEL] = {"NEIGH_DEL", sizeof(struct msg_neigh)},
	[MSG_BIND_ADD] = {"BIND_ADD", sizeof(struct msg_bind)},
	[MSG_BIND_DEL] = {"BIND_DEL", sizeof(struct msg_bind)},
	[MSG_FLOW_ORIGIN] = {"FLOW_ORIGIN", sizeof(struct msg_flow_origin)},
	[MSG_SWEEP] = {"SWEEP", sizeof(struct msg_sweep)},
	[MSG_FLOWS_GET] = {"FLOWS_GET", sizeof(struct msg_flows_get)},
	[MSG_FLOW_INFO] = {"FLOW_INFO", sizeof(struct msg_flow_info)},
	[MSG_STATS_GET] = {"STATS_GET", sizeof(struct msg_hdr)},
	[MSG_STATS] = {"STATS", sizeof(struct msg_stats)},
	[MSG_FLOW_LOG] = {"FLOW_LOG", sizeof(struct msg_flow_log)},
	[MSG_TALLIES_GET] = {"TALLIES_GET", sizeof(struct msg_tallies_get)},
	[MSG_TALLIES] = {"TALLIES", sizeof(struct msg_tallies)},
	[MSG_TRACE_ARM] = {"TRACE_ARM", sizeof(struct msg_trace_arm)},
	[MSG_TRACE_DISARM] = {"TRACE_DISARM", sizeof(struct msg_trace_arm)},
	[MSG_TRACED] = {"TRACED", sizeof(struct msg_traced)},
	[MSG_JUDGE] = {"JUDGE", sizeof(struct msg_judge)},
	[MSG_JUDGED] = {"JUDGED", sizeof(struct msg_traced)},
	[MSG_ADMIT] = {"ADMIT", sizeof(struct msg_admit)},
	[MSG_ADMITTED] = {"ADMITTED", sizeof(struct msg_admitted)},
	[MSG_SESSION_CLOSED] = {"SESSION_CLOSED", sizeof(struct msg_session_closed)},
	[MSG_RECHECK] = {"RECHECK", sizeof(struct msg_recheck)},
	[MSG_RECHECKED] = {"RECHECKED", sizeof(struct msg_recheck)},
	[MSG_HANDSHAKE_REFUSED] = {"HANDSHAKE_REFUSED", sizeof(struct msg_handshake_refused)},
	[MSG_RELOAD_PREPARE] = {"RELOAD_PREPARE", sizeof(struct msg_reload)},
	[MSG_RELOAD_COMMIT] = {"RELOAD_COMMIT", sizeof(struct msg_reload)},
	[MSG_RELOAD_ABORT] = {"RELOAD_ABORT", sizeof(struct msg_reload)},
	[MSG_TLS_STATE_GET] = {"TLS_STATE_GET", sizeof(struct msg_hdr)},
	[MSG_TLS_LISTENER] = {"TLS_LISTENER", sizeof(struct msg_tls_listener)},
	[MSG_RELOAD_WANTED] = {"RELOAD_WANTED", sizeof(struct msg_reload)},
};

#define TYPES (sizeof(types) / sizeof(types[0]))

const char *msg_type_name(unsigned type)
{
	return type < TYPES && types[type].name != NULL ? types[type].name : "unknown";
}

uint32_t msg_type_bytes(unsigned type)
{
	return type < TYPES ? types[type].bytes : 0;
}

const char *flow_state_name(unsigned state)
{
	static const char *const names[] = {
		[FLOW_NEW] = "new",
		[FLOW_OPENING] = "opening",
		[FLOW_ESTABLISHED] = "established",
		[FLOW_CLOSING] = "closing",
		[FLOW_REFUSED] = "refused",
		[FLOW_DIVERTED] = "diverted",
	};

	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "invalid";
}

static bool text_ends(const char *text, size_t bytes)
{
	return memchr(text, '\0', bytes) != NULL;
}

bool msg_tallies_check(const struct msg_tallies *m)
{
	switch (m->kind) {
	case TALLY_ACCOUNTS:
		if (m->n > MSG_TALLY_ACCOUNTS)
			return false;
		for (unsigned i = 0; i < m->n; i++) {
			const struct msg_tally_account *a = &m->account[i];

			if (!text_ends(a->rule, sizeof(a->rule)) ||
			    !text_ends(a->from, sizeof(a->from)) ||
			    !text_ends(a->to, sizeof(a->to)) || a->reason >= DROP_REASON_COUNT)
				return false;
		}
		return true;
	case TALLY_DEVICES:
		return m->n <= MSG_TALLY_DEVICES;
	case TALLY_LCORES:
		return m->n <= MSG_TALLY_LCORES;
	}
	return false;
}

const char *tls_count_name(unsigned count)
{
	static const char *const names[] = {
		[TLS_BEGUN] = "begun",
		[TLS_SESSIONS] = "sessions",
		[TLS_REFUSED] = "refused",
		[TLS_OVER_HANDSHAKES] = "handshakes_max",
		[TLS_OVER_SESSIONS] = "sessions_max",
		[TLS_OVER_RATE] = "handshakes_s",
		[TLS_OVER_SOURCE] = "handshakes_each",
	};

	return count < TLS_COUNTS ? names[count] : "invalid";
}

bool msg_tls_listener_check(const struct msg_tls_listener *m)
{
	if (!text_ends(m->name, sizeof(m->name)) || m->n_upstreams > MSG_TLS_UPSTREAMS_MAX)
		return false;
	for (unsigned i = 0; i < m->n_upstreams; i++) {
		if (!text_ends(m->upstream[i].why, sizeof(m->upstream[i].why)))
			return false;
	}
	return true;
}

bool msg_trace_filter_check(const struct msg_trace_filter *f, unsigned n_ports)
{
	return (f->fields & ~(uint32_t)TRACE_FIELDS) == 0 && f->src.len <= 128 &&
	       f->dst.len <= 128 && f->host.len <= 128 && f->reason < DROP_REASON_COUNT &&
	       (!(f->fields & TRACE_PORT) || f->in_port < n_ports);
}

static bool is_link(uint16_t port)
{
	return port >= MSG_PORT_LINK && port < MSG_PORT_LINK + MSG_TLS_WORKERS_MAX;
}

bool msg_traced_check(const struct msg_traced *m, unsigned n_ports)
{
	return (m->in_port < n_ports || is_link(m->in_port)) && m->stage <= TRACED_LINK &&
	       m->edge <= TRACED_KERNEL && m->reason < DROP_REASON_COUNT &&
	       m->judged_reason < DROP_REASON_COUNT && m->flow <= TRACED_DIVERTED &&
	       (!m->bound || m->bound_port < n_ports) &&
	       (m->out_port < n_ports || m->out_port == MSG_PORT_KERNEL || is_link(m->out_port));
}

int msg_send(int sock, const void *msg, int fd)
{
	const struct msg_hdr *h = msg;
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = (void *)msg, .iov_len = h->bytes};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (fd >= 0) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		mh.msg_control = control.buf;
		mh.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	do {
		n = sendmsg(sock, &mh, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return 0;
}

int msg_send_many(int sock, const void *const *msgs, unsigned n)
{
	struct mmsghdr mm[MSG_MANY] = {0};
	struct iovec iov[MSG_MANY];
	int sent;

	n = n < MSG_MANY ? n : MSG_MANY;
	for (unsigned i = 0; i < n; i++) {
		const struct msg_hdr *h = msgs[i];

		iov[i] = (struct iovec){.iov_base = (void *)h, .iov_len = h->bytes};
		mm[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
	}
	do {
		sent = sendmmsg(sock, mm, n, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return sent;
}

static int take_fd(struct msghdr *mh)
{
	int found = -1;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c != NULL; c = CMSG_NXTHDR(mh, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (found >= 0)
				close(fd);
			else
				found = fd;
		}
	}
	return found;
}

ssize_t msg_recv(int sock, union msg_any *out, int *fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * 4)];
	} control;
	struct iovec iov = {.iov_base = out, .iov_len = sizeof(*out)};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.buf,
			    .msg_controllen = sizeof(control.buf)};
	ssize_t n;
	int passed;

	do {
		n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (fd != NULL)
		*fd = -1;
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	passed = take_fd(&mh);
	if (n == 0 || (mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
	    (size_t)n < sizeof(struct msg_hdr) || out->h.bytes != (size_t)n ||
	    msg_type_bytes(out->h.type) != (size_t)n) {
		if (passed >= 0)
			close(passed);
		return n == 0 ? 0 : -EPROTO;
	}
	if (fd != NULL)
		*fd = passed;
	else if (passed >= 0)
		close(passed);
	return n;
}

int msg_connect(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd, ret;

	if (strlen(path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}
