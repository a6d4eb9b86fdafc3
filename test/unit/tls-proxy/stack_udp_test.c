/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Datagrams of the stack: whole, to whom they are for, no more of them held than is said. */
#include "test/unit/tls-proxy/stack_wire.h"

#include "tls-proxy/stack/udp.h"

#define PORT 5684
#define LISTENER_WAITING 1024
#define CONNECTED_WAITING 32

struct talk { /* one end */
	struct datagram d;
	uint32_t told;
	unsigned tells;
};

static const char *const own[] = {"10.1.0.1", "fd01::1"}, *const device[] = {"10.0.0.1", "fd00::1"};

static void talk_ready(void *arg, uint32_t events)
{
	struct talk *t = arg;

	t->told |= events;
	t->tells++;
}

static void talk_init(struct talk *t)
{
	*t = (struct talk){.d = {.ready = talk_ready, .arg = t}};
}

static void listens(struct wire *x, struct talk *t, const char *at, uint16_t port)
{
	struct ip_addr a = addr(at);
	struct err err = {""};

	talk_init(t);
	if (stack_udp_listen(x->stack, &t->d, &a, port, &err) < 0)
		fail_msg("%s", err.msg);
}

static void connects(struct wire *x, struct talk *t, const char *from, const char *to,
		     uint16_t port)
{
	struct ip_addr a = addr(from), b = addr(to);

	talk_init(t);
	assert_int_equal(stack_udp_connect(x->stack, &t->d, &a, 1, &b, port), 0);
}

static void says(struct talk *t, const struct datagram_peer *to, size_t bytes)
{
	uint8_t data[2000];

	for (size_t i = 0; i < bytes; i++)
		data[i] = (uint8_t)(i * 7 + bytes);
	datagram_send(&t->d, to, data, bytes / 3, data + bytes / 3, bytes - bytes / 3);
}

static void hears(struct talk *t, size_t bytes, struct datagram_peer *from)
{
	uint8_t data[2000];

	assert_int_equal(datagram_recv(&t->d, data, sizeof(data), from), bytes);
	for (size_t i = 0; i < bytes; i++)
		assert_int_equal(data[i], (uint8_t)(i * 7 + bytes));
}

static void hears_nothing(struct talk *t)
{
	uint8_t data[2000];

	assert_int_equal(datagram_recv(&t->d, data, sizeof(data), NULL), -EAGAIN);
}

static void there_and_back(void **state)
{
	static const size_t sizes[] = {1, 2, 100, 1200, 1452};

	(void)state;
	for (int family = 0; family < 2; family++) {
		struct wire *x = wire_new(1, own[family]);
		struct talk server, client;
		struct datagram_peer from;

		listens(x, &server, own[family], PORT);
		connects(x, &client, device[family], own[family], PORT);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			server.told = client.told = 0;
			says(&client, NULL, sizes[i]);
			wire_settle(x, 1000);
			assert_int_equal(server.told, STREAM_READ);
			assert_int_equal(client.told, 0);
			hears(&server, sizes[i], &from);
			hears_nothing(&server);
			assert_int_equal(ip_addr_eq(&from.addr, &client.d.stk.own), 1);
			says(&server, &from, sizes[i]);
			wire_settle(x, 1000);
			assert_int_equal(client.told, STREAM_READ);
			hears(&client, sizes[i], NULL);
		}
		datagram_close(&client.d);
		datagram_close(&server.d);
		wire_free(x);
	}
}

/* Told for as long as it is wanted and possible, and not otherwise. */
static void told_what_is_wanted(void **state)
{
	struct wire *x = wire_new(1, own[0]);
	struct talk server, client;

	(void)state;
	listens(x, &server, own[0], PORT);
	connects(x, &client, device[0], own[0], PORT);
	datagram_want(&server.d, 0);
	says(&client, NULL, 10);
	wire_settle(x, 1000);
	assert_int_equal(server.tells, 0);
	datagram_want(&server.d, STREAM_READ);
	wire_turn(x, 10);
	assert_int_equal(server.tells, 1);
	assert_int_equal(stack_wait_us(x->stack, x->now_us), 0);
	wire_turn(x, 10);
	assert_int_equal(server.tells, 2); /* it did not read */
	hears(&server, 10, NULL);
	server.tells = 0;
	wire_turn(x, 10);
	wire_turn(x, 10);
	assert_int_equal(server.tells, 0);
	datagram_want(&client.d, STREAM_WRITE);
	wire_turn(x, 10);
	assert_int_equal(client.told, STREAM_WRITE);
	datagram_close(&client.d);
	datagram_close(&server.d);
	wire_free(x);
}

static void what_is_too_much_is_lost(void **state)
{
	struct wire *x = wire_new(1, own[0]);
	const struct stack_stats *n = stack_stats(x->stack);
	struct talk server, client;
	struct datagram_peer from;

	(void)state;
	listens(x, &server, own[0], PORT);
	connects(x, &client, device[0], own[0], PORT);
	for (unsigned i = 0; i < LISTENER_WAITING + 5; i++)
		says(&client, NULL, 8);
	wire_settle(x, 1000);
	assert_int_equal(n->udp_lost, 5);
	for (unsigned i = 0; i < LISTENER_WAITING; i++)
		hears(&server, 8, &from);
	hears_nothing(&server);
	for (unsigned i = 0; i < CONNECTED_WAITING + 3; i++)
		says(&server, &from, 8);
	wire_settle(x, 1000);
	assert_int_equal(n->udp_lost, 8);
	says(&client, NULL, 1473); /* 1500 without headers: 1472 */
	assert_int_equal(n->udp_lost, 9);
	says(&client, NULL, 1472);
	wire_settle(x, 1000);
	hears(&server, 1472, NULL);
	stack_mem_limit(1);
	says(&client, NULL, 8);
	assert_int_equal(n->udp_lost, 10);
	stack_mem_limit(1 << 30);
	datagram_close(&client.d); /* with datagrams in it: wire_free() counts the memory */
	datagram_close(&server.d);
	wire_free(x);
}

/* Ports on one shelf, each datagram to its own; one address and port are nobody else's. */
static void each_to_its_own(void **state)
{
	enum { N = 600 };
	struct wire *x = wire_new(1, own[0]);
	struct talk *client = calloc(N, sizeof(*client)), server, same;
	struct ip_addr a = addr(own[0]);
	struct err err = {""};

	(void)state;
	assert_non_null(client);
	listens(x, &server, own[0], PORT);
	talk_init(&same);
	assert_int_equal(stack_udp_listen(x->stack, &same.d, &a, PORT, &err), -EADDRINUSE);
	assert_false(datagram_is_open(&same.d));
	listens(x, &same, own[0], PORT + STACK_UDP_SHELVES); /* a neighbour on the shelf */
	for (unsigned i = 0; i < N; i++) {
		connects(x, &client[i], device[0], own[0], PORT);
		says(&client[i], NULL, i + 1);
	}
	wire_settle(x, 1000);
	hears_nothing(&same);
	for (unsigned i = 0; i < N; i++) {
		struct datagram_peer from;

		hears(&server, i + 1, &from);
		assert_int_equal(from.port, client[i].d.stk.pcb->local_port);
		says(&server, &from, i + 1);
	}
	wire_settle(x, 1000);
	for (unsigned i = 0; i < N; i++) {
		hears(&client[i], i + 1, NULL);
		hears_nothing(&client[i]);
		datagram_close(&client[i].d);
	}
	datagram_close(&same.d);
	datagram_close(&server.d);
	wire_free(x);
	free(client);
}

/* A connected one hears its peer alone. */
static void strangers_are_not_heard(void **state)
{
	struct wire *x = wire_new(1, own[0]);
	struct talk server, other, client;
	struct datagram_peer to;

	(void)state;
	listens(x, &server, own[0], PORT);
	listens(x, &other, own[0], PORT + 1);
	connects(x, &client, device[0], own[0], PORT);
	to = (struct datagram_peer){.addr = client.d.stk.own, .port = client.d.stk.pcb->local_port};
	says(&other, &to, 9);
	wire_settle(x, 1000);
	hears_nothing(&client);
	says(&server, &to, 9);
	wire_settle(x, 1000);
	hears(&client, 9, NULL);
	datagram_close(&client.d);
	says(&server, &to, 9); /* nobody is there */
	wire_settle(x, 1000);
	datagram_close(&other.d);
	datagram_close(&server.d);
	wire_free(x);
}

static void ports_run_out(void **state)
{
	struct wire *x = wire_new(1, own[0]);
	struct ip_addr from = addr(device[0]), to = addr(own[0]), six = addr(own[1]);
	struct talk one, more;

	(void)state;
	x->stack->cfg.port_first = x->stack->cfg.port_last = 20000;
	talk_init(&one);
	talk_init(&more);
	assert_int_equal(stack_udp_connect(x->stack, &one.d, &from, 1, &to, PORT), 0);
	assert_int_equal(one.d.stk.pcb->local_port, 20000);
	assert_int_equal(stack_udp_connect(x->stack, &more.d, &from, 1, &to, PORT), -EADDRNOTAVAIL);
	assert_false(datagram_is_open(&more.d));
	assert_int_equal(stack_stats(x->stack)->ports_out, 1);
	assert_int_equal(stack_udp_connect(x->stack, &more.d, &six, 1, &to, PORT), -EADDRNOTAVAIL);
	datagram_close(&one.d);
	assert_int_equal(stack_udp_connect(x->stack, &more.d, &from, 1, &to, PORT), 0);
	datagram_close(&more.d);
	wire_free(x);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),	    cmocka_unit_test(told_what_is_wanted),
		cmocka_unit_test(what_is_too_much_is_lost), cmocka_unit_test(each_to_its_own),
		cmocka_unit_test(strangers_are_not_heard),  cmocka_unit_test(ports_run_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
