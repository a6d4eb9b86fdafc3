/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "config/base/msg.h"

struct pair {
	int from, to;
};

static void pair_open(struct pair *p)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd),
			 0);
	*p = (struct pair){.from = fd[0], .to = fd[1]};
}

static void pair_close(struct pair *p)
{
	close(p->from);
	close(p->to);
}

/* @return messages in order from `first` on */
static uint64_t received(struct pair *p, uint64_t first)
{
	union msg_any m;
	uint64_t n = 0;
	ssize_t ret;

	while ((ret = msg_recv(p->to, &m, NULL)) > 0) {
		assert_int_equal(m.h.type, MSG_SESSION_CLOSED);
		assert_int_equal(m.h.seq, first + n);
		n++;
	}
	assert_int_equal(ret, -EAGAIN);
	return n;
}

static void many_arrive_each_whole_and_in_order(void **state)
{
	static const struct {
		unsigned n;
		int went;
	} rows[] = {{1, 1}, {2, 2}, {MSG_MANY, MSG_MANY}, {MSG_MANY + 5, MSG_MANY}};
	static struct msg_session_closed m[MSG_MANY + 5];
	const void *msgs[MSG_MANY + 5];
	struct pair p;

	(void)state;
	for (unsigned i = 0; i < MSG_MANY + 5; i++) {
		MSG_INIT(&m[i], MSG_SESSION_CLOSED, i);
		msgs[i] = &m[i];
	}
	pair_open(&p);
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		assert_int_equal(msg_send_many(p.from, msgs, rows[r].n), rows[r].went);
		assert_int_equal(received(&p, 0), rows[r].went);
	}
	pair_close(&p);
}

static void what_has_no_room_is_left_to_the_sender(void **state)
{
	static struct msg_session_closed m[MSG_MANY];
	const void *msgs[MSG_MANY];
	uint64_t sent = 0;
	struct pair p;
	int ret;

	(void)state;
	pair_open(&p);
	do {
		for (unsigned i = 0; i < MSG_MANY; i++) {
			MSG_INIT(&m[i], MSG_SESSION_CLOSED, sent + i);
			msgs[i] = &m[i];
		}
		ret = msg_send_many(p.from, msgs, MSG_MANY);
		sent += ret > 0 ? (uint64_t)ret : 0;
	} while (ret == MSG_MANY);
	if (ret >= 0) /* some of them went: the next has no room */
		ret = msg_send_many(p.from, msgs, 1);
	assert_int_equal(ret, -EAGAIN);
	assert_true(sent > 0);
	assert_int_equal(received(&p, 0), sent);
	pair_close(&p);
}

static void a_peer_that_is_gone_is_told(void **state)
{
	struct msg_session_closed m = {.slot = 0};
	const void *msgs[] = {&m, &m};
	struct pair p;

	(void)state;
	MSG_INIT(&m, MSG_SESSION_CLOSED, 0);
	pair_open(&p);
	close(p.to);
	assert_int_equal(msg_send_many(p.from, msgs, 2), -EPIPE);
	close(p.from);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_arrive_each_whole_and_in_order),
		cmocka_unit_test(what_has_no_room_is_left_to_the_sender),
		cmocka_unit_test(a_peer_that_is_gone_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
