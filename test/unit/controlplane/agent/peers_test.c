/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The agent's socket with good, bad, slow and dying peers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "controlplane/agent/peers.h"

#define OTHER_UID 65534

struct world {
	struct loop *loop;
	struct peers *peers;
	char dir[64], path[96];
	struct peer *last; /* joined */
	unsigned joined, left, messages;
	int verdict; /* of message() */
	/* of requests */
	unsigned done, answered, more;
	unsigned done_when_left;
	struct peer *again; /* done() asks again here */
	bool cut; /* done() cuts its own peer off */
};

static void joined(void *arg, struct peer *p)
{
	struct world *w = arg;
	struct msg_welcome m = {.version = MSG_VERSION};

	w->joined++;
	w->last = p;
	MSG_INIT(&m, MSG_WELCOME, 0);
	peer_send(p, &m, -1);
}

static int message(void *arg, struct peer *p, const union msg_any *m)
{
	struct world *w = arg;

	(void)p;
	(void)m;
	w->messages++;
	return w->verdict;
}

static void left(void *arg, struct peer *p)
{
	struct world *w = arg;

	w->left++;
	w->done_when_left = w->done;
	if (p == w->last)
		w->last = NULL;
}

static const struct peers_handler handler = {.joined = joined, .message = message, .left = left};

static void done(void *arg, const union msg_any *reply)
{
	struct world *w = arg;
	struct msg_sweep m = {.n_slots = 1, .slot = {1}};

	w->done++;
	w->answered += reply != NULL;
	if (w->again != NULL) {
		struct peer *p = w->again;

		w->again = NULL;
		MSG_INIT(&m, MSG_SWEEP, 0);
		peer_request(p, &m, -1, 1000, done, w);
	}
	if (w->cut && w->last != NULL)
		peer_cut(w->last, "test");
}

static void each(void *arg, const union msg_any *m)
{
	struct world *w = arg;

	assert_int_equal(m->h.type, MSG_FLOW_INFO);
	w->more++;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err err = {""};

	strcpy(w->dir, "/tmp/sp-peers-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	chmod(w->dir, 0755);
	snprintf(w->path, sizeof(w->path), "%s/agent.sock", w->dir);
	assert_int_equal(loop_new(&w->loop), 0);
	if (peers_new(&w->peers, w->loop, w->path, geteuid() == 0 ? OTHER_UID : geteuid(), &handler,
		      w, &err) < 0)
		fail_msg("%s", err.msg);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	peers_free(w->peers);
	loop_free(w->loop);
	rmdir(w->dir);
	free(w);
	return 0;
}

static void turns(struct world *w, int n)
{
	for (int i = 0; i < n; i++)
		assert_int_equal(loop_turn(w->loop, 0), 0);
}

static int say_hello(struct world *w, uint32_t role)
{
	struct msg_hello m = {.version = MSG_VERSION, .role = role, .pid = 1};
	int fd = msg_connect(w->path);

	assert_true(fd >= 0);
	MSG_INIT(&m, MSG_HELLO, 0);
	assert_int_equal(msg_send(fd, &m, -1), 0);
	return fd;
}

/* Connected, greeted, welcomed. */
static int peer_up(struct world *w, uint32_t role, struct peer **out)
{
	union msg_any m;
	int fd = say_hello(w, role);

	turns(w, 3);
	assert_int_equal(msg_recv(fd, &m, NULL), sizeof(struct msg_welcome));
	*out = w->last;
	assert_non_null(*out);
	return fd;
}

static bool hung_up(int fd)
{
	union msg_any m;
	ssize_t n;

	do {
		n = msg_recv(fd, &m, NULL);
	} while (n > 0);
	return n == 0 || n == -ECONNRESET;
}

static void a_bad_greeting_costs_the_connection(void **state)
{
	struct msg_hello good = {.version = MSG_VERSION, .role = MSG_ROLE_TLS};
	struct msg_hello version, role, type;
	union msg_any reply;
	const struct {
		const char *name;
		const void *bytes;
		size_t n;
	} rows[] = {
		{"another version", &version, sizeof(version)},
		{"no such role", &role, sizeof(role)},
		{"a message before the greeting", &type, sizeof(type)},
		{"half a header", &good, 7},
		{"cut off", &good, sizeof(good) - 1},
		{"empty bytes", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16},
	};
	struct world *w = *state;

	MSG_INIT(&good, MSG_HELLO, 0);
	version = role = type = good;
	version.version++;
	role.role = 77;
	type.h.type = MSG_OK;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int fd = msg_connect(w->path);

		assert_int_equal(send(fd, rows[i].bytes, rows[i].n, 0), rows[i].n);
		turns(w, 3);
		if (!hung_up(fd) || w->joined != 0 || w->left != 0)
			fail_msg("%s was let in", rows[i].name);
		close(fd);
	}
	/* nothing said at all: until the time is over, and not longer */
	{
		int fd = msg_connect(w->path);

		turns(w, 2);
		peers_tick(w->peers, clock_boot_ms() + 4000);
		assert_int_equal(msg_recv(fd, &reply, NULL), -EAGAIN);
		peers_tick(w->peers, clock_boot_ms() + 6000);
		assert_true(hung_up(fd));
		close(fd);
	}
}

static void a_bad_message_costs_the_connection(void **state)
{
	struct world *w = *state;
	struct msg_hdr m = {.type = MSG_DP_READY, .bytes = sizeof(m)};
	struct peer *p;
	int fd = peer_up(w, MSG_ROLE_DATAPLANE, &p);

	assert_int_equal(msg_send(fd, &m, -1), 0);
	turns(w, 2);
	assert_int_equal(w->messages, 1);
	w->verdict = -EPROTO;
	assert_int_equal(msg_send(fd, &m, -1), 0);
	assert_int_equal(msg_send(fd, &m, -1), 0);
	turns(w, 2);
	assert_int_equal(w->messages, 2);
	assert_int_equal(w->left, 1);
	assert_true(hung_up(fd));
	assert_null(peers_dataplane(w->peers));
	close(fd);
}

static uint64_t request_came(int fd)
{
	union msg_any m;

	assert_int_equal(msg_recv(fd, &m, NULL), sizeof(struct msg_sweep));
	assert_int_not_equal(m.h.seq, 0);
	return m.h.seq;
}

static void reply(int fd, uint16_t type, uint64_t seq)
{
	struct msg_sweep sweep = {.closed = 1};
	struct msg_result result = {.code = 0};
	struct msg_flow_info info = {.packets = 1};

	MSG_INIT(&sweep, MSG_SWEEP, seq);
	MSG_INIT(&result, MSG_OK, seq);
	MSG_INIT(&info, MSG_FLOW_INFO, seq);
	assert_int_equal(msg_send(fd,
				  type == MSG_SWEEP ? (void *)&sweep
				  : type == MSG_OK  ? (void *)&result
						    : (void *)&info,
				  -1),
			 0);
}

static void each_request_is_done_once(void **state)
{
	struct world *w = *state;
	struct msg_sweep m = {.n_slots = 1, .slot = {1}};
	struct msg_flows_get get = {.max = 3};
	struct peer *p;
	int fd = peer_up(w, MSG_ROLE_DATAPLANE, &p);
	uint64_t seq;

	/* answered: an answer nobody asked for, the answer, the same again */
	MSG_INIT(&m, MSG_SWEEP, 0);
	peer_request(p, &m, -1, 1000, done, w);
	seq = request_came(fd);
	reply(fd, MSG_SWEEP, seq + 7);
	reply(fd, MSG_SWEEP, 0);
	turns(w, 2);
	assert_int_equal(w->done, 0);
	reply(fd, MSG_SWEEP, seq);
	reply(fd, MSG_SWEEP, seq);
	turns(w, 2);
	assert_int_equal(w->done, 1);
	assert_int_equal(w->answered, 1);
	/* too late; what is asked from inside done() waits its own time */
	peer_request(p, &m, -1, 1000, done, w);
	seq = request_came(fd);
	peers_tick(w->peers, clock_boot_ms() + 500);
	assert_int_equal(w->done, 1);
	w->again = p;
	peers_tick(w->peers, clock_boot_ms() + 1001);
	assert_int_equal(w->done, 2);
	assert_int_equal(w->answered, 1);
	reply(fd, MSG_SWEEP, seq);
	turns(w, 2);
	assert_int_equal(w->done, 2);
	reply(fd, MSG_SWEEP, request_came(fd));
	turns(w, 2);
	assert_int_equal(w->done, 3);
	assert_int_equal(w->answered, 2);
	/* many */
	MSG_INIT(&get, MSG_FLOWS_GET, 0);
	peer_request_many(p, &get, 1000, MSG_FLOW_INFO, each, done, w);
	{
		union msg_any got;

		assert_int_equal(msg_recv(fd, &got, NULL), sizeof(get));
		reply(fd, MSG_FLOW_INFO, got.h.seq);
		reply(fd, MSG_FLOW_INFO, got.h.seq);
		reply(fd, MSG_OK, got.h.seq);
		reply(fd, MSG_FLOW_INFO, got.h.seq);
	}
	turns(w, 2);
	assert_int_equal(w->more, 2);
	assert_int_equal(w->done, 4);
	assert_int_equal(w->left, 0);
	close(fd);
}

static void a_peer_that_goes_fails_what_it_owes(void **state)
{
	struct world *w = *state;
	struct msg_sweep m = {.n_slots = 1, .slot = {1}};
	struct peer *p, *other;
	int tls = peer_up(w, MSG_ROLE_TLS, &other);
	int fd = peer_up(w, MSG_ROLE_DATAPLANE, &p);

	MSG_INIT(&m, MSG_SWEEP, 0);
	for (int i = 0; i < 3; i++)
		peer_request(p, &m, -1, 60000, done, w);
	w->again = other; /* a callback that asks somebody else */
	close(fd);
	turns(w, 3);
	assert_int_equal(w->left, 1);
	assert_int_equal(w->done_when_left, 3);
	assert_int_equal(w->answered, 0);
	reply(tls, MSG_SWEEP, request_came(tls));
	turns(w, 2);
	assert_int_equal(w->answered, 1);
	/* a callback that cuts off the peer whose message is being served */
	fd = peer_up(w, MSG_ROLE_DATAPLANE, &p);
	peer_request(p, &m, -1, 60000, done, w);
	peer_request(p, &m, -1, 60000, done, w);
	w->cut = true;
	reply(fd, MSG_SWEEP, request_came(fd));
	turns(w, 3);
	assert_int_equal(w->left, 2);
	assert_int_equal(w->answered, 2);
	assert_int_equal(w->done, 6);
	close(fd);
	close(tls);
}

static void a_peer_that_never_reads_is_cut_off(void **state)
{
	struct world *w = *state;
	struct msg_neigh m = {.port = 1};
	struct msg_sweep ask = {.n_slots = 1, .slot = {1}};
	struct peer *p;
	int fd = peer_up(w, MSG_ROLE_DATAPLANE, &p), devnull = dup(0);
	unsigned sent = 0;

	MSG_INIT(&ask, MSG_SWEEP, 0);
	peer_request(p, &ask, devnull, 60000, done, w);
	MSG_INIT(&m, MSG_NEIGH_ADD, 0);
	for (; peers_dataplane(w->peers) == p && sent < 2000000; sent++)
		peer_send(p, &m, sent % 100000 == 0 ? devnull : -1);
	assert_true(sent < 2000000);
	assert_null(peers_dataplane(w->peers));
	assert_int_equal(w->left, 0); /* not in the middle of a caller's work */
	turns(w, 2);
	assert_int_equal(w->left, 1);
	assert_int_equal(w->done, 1);
	close(fd);
	close(devnull);
}

static void the_newest_dataplane_is_the_dataplane(void **state)
{
	struct world *w = *state;
	struct peer *first, *second, *worker, *list[4];
	int tls = peer_up(w, MSG_ROLE_TLS, &worker);
	int a = peer_up(w, MSG_ROLE_DATAPLANE, &first);
	int b = peer_up(w, MSG_ROLE_DATAPLANE, &second);

	turns(w, 2);
	assert_ptr_equal(peers_dataplane(w->peers), second);
	assert_true(hung_up(a)); /* it would go on with what was true before */
	assert_int_equal(w->left, 1);
	assert_int_equal(peers_tls(w->peers, list, 4), 1);
	assert_ptr_equal(list[0], worker);
	close(a);
	close(b);
	close(tls);
}

/* As the TLS workers' user: say hello in this role, tell whether a welcome came. */
static int as_worker(struct world *w, uint32_t role)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct msg_hello m = {.version = MSG_VERSION, .role = role};
		int fd;

		if (setresuid(OTHER_UID, OTHER_UID, OTHER_UID) < 0)
			_exit(3);
		fd = msg_connect(w->path);
		MSG_INIT(&m, MSG_HELLO, 0);
		if (fd < 0 || msg_send(fd, &m, -1) < 0)
			_exit(4);
		for (;;) {
			union msg_any got;
			ssize_t n = msg_recv(fd, &got, NULL);

			if (n != -EAGAIN)
				_exit(n > 0 ? 0 : 1);
		}
	}
	while (waitpid(pid, &status, WNOHANG) == 0)
		loop_turn(w->loop, 10);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void a_worker_cannot_pass_for_the_dataplane(void **state)
{
	struct world *w = *state;
	struct peer *p;
	int fd;

	if (geteuid() != 0)
		skip();
	fd = peer_up(w, MSG_ROLE_DATAPLANE, &p);
	assert_int_equal(as_worker(w, MSG_ROLE_DATAPLANE), 1);
	assert_ptr_equal(peers_dataplane(w->peers), p);
	assert_int_equal(w->joined, 1);
	assert_int_equal(as_worker(w, MSG_ROLE_TLS), 0);
	assert_int_equal(w->joined, 2);
	close(fd);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_bad_greeting_costs_the_connection),
		T(a_bad_message_costs_the_connection),
		T(each_request_is_done_once),
		T(a_peer_that_goes_fails_what_it_owes),
		T(a_peer_that_never_reads_is_cut_off),
		T(the_newest_dataplane_is_the_dataplane),
		T(a_worker_cannot_pass_for_the_dataplane),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
