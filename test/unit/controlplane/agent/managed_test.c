/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The neighbours of upstreams, with a real kernel: the gateway's uplink and a host behind it. */
#include "controlplane/agent/netlink.h"
#include "test/unit/controlplane/agent/net_world.h"

static struct gw_config cfg;
static struct managed *m;
static struct err err;
static int host;
static uint64_t at_ms;

static void upstream(unsigned listener, const char *ip, enum gw_transport transport)
{
	struct gw_listener *l = &cfg.listeners[listener];

	l->transport = transport;
	assert_int_equal(ip_addr_parse(&l->upstreams[l->n_upstreams++].addr, ip), 0);
	if (listener >= cfg.n_listeners)
		cfg.n_listeners = listener + 1;
}

static void ask(void)
{
	at_ms += 1000;
	managed_tick(m, at_ms);
}

/* Does the kernel know where it is, and keep it? */
static bool kept(const char *ip)
{
	return sh("ip neigh show %s dev sp-up | grep -q 'lladdr 02:00:00:00:00:99.*managed'", ip) ==
	       0;
}

static bool becomes_kept(const char *ip)
{
	for (uint64_t end = now_ms() + WAIT_MS; now_ms() < end;) {
		struct timespec nap = {.tv_nsec = 20000000};

		if (kept(ip))
			return true;
		nanosleep(&nap, NULL);
	}
	return false;
}

static void addresses(void)
{
	assert_int_equal(sh("ip addr add 10.2.0.1/24 dev sp-up && "
			    "ip -6 addr add fd02::1/64 dev sp-up nodad && "
			    "ip route add 10.9.0.0/16 via 10.2.0.254"),
			 0);
}

static int up(void **state)
{
	struct gw_port *p = &cfg.ports[cfg.n_ports++];

	(void)state;
	world_gateway = world_new();
	strcpy(p->name, "up");
	strcpy(p->tap, "sp-up");
	strcpy(p->devargs, "net_af_xdp0");
	p->side = PORT_UPLINK;
	p->untagged = true;
	p->n_vlans = 1;
	host = world_host("sp-up", "02:00:00:00:00:99");
	addresses();
	assert_int_equal(sh_in(host, "ip addr add 10.2.0.10/24 dev eth0 && "
				     "ip addr add 10.2.0.254/24 dev eth0 && "
				     "ip addr add 10.2.0.77/24 dev eth0 && "
				     "ip -6 addr add fd02::10/64 dev eth0 nodad"),
			 0);
	upstream(0, "10.2.0.10", GW_STACK);
	upstream(0, "fd02::10", GW_STACK);
	upstream(1, "10.9.0.5", GW_STACK);
	upstream(1, "192.0.2.1", GW_STACK); /* no route */
	upstream(1, "127.0.0.5", GW_STACK); /* no port of ours */
	upstream(2, "10.2.0.77", GW_SOCKET);
	return managed_new(&m, &cfg, &err);
}

static int down(void **state)
{
	(void)state;
	managed_free(m);
	managed_free(NULL);
	close(host);
	return 0;
}

static void upstreams_and_gateways_are_kept(void **state)
{
	(void)state;
	ask();
	assert_true(becomes_kept("10.2.0.10"));
	assert_true(becomes_kept("fd02::10"));
	assert_true(becomes_kept("10.2.0.254"));
	assert_int_not_equal(sh("ip neigh show | grep -q 10.9.0.5"), 0);
	assert_int_not_equal(sh("ip neigh show | grep -q 10.2.0.77"), 0);
}

static void it_asks_once_a_second(void **state)
{
	(void)state;
	assert_int_equal(sh("ip neigh flush all nud all"), 0);
	managed_tick(m, at_ms + 999);
	assert_false(kept("10.2.0.10"));
	ask();
	assert_true(becomes_kept("10.2.0.10"));
}

/* The shadow goes with the dataplane, and what the kernel kept there with it. */
static void a_new_interface_gets_them_too(void **state)
{
	(void)state;
	assert_int_equal(sh("ip link del sp-up"), 0);
	ask();
	close(host);
	host = world_host("sp-up", "02:00:00:00:00:99");
	addresses();
	assert_int_equal(sh_in(host, "ip addr add 10.2.0.10/24 dev eth0"), 0);
	ask();
	assert_true(becomes_kept("10.2.0.10"));
}

static void another_route_another_neighbour(void **state)
{
	(void)state;
	assert_int_equal(sh_in(host, "ip addr add 10.2.0.253/24 dev eth0"), 0);
	assert_int_equal(sh("ip route replace 10.9.0.0/16 via 10.2.0.253"), 0);
	ask();
	assert_true(becomes_kept("10.2.0.253"));
}

/* An engineer who names a MAC address knows why. */
static void a_permanent_neighbour_is_left_alone(void **state)
{
	static const char *const ips[] = {"10.2.0.10", "fd02::10"};

	(void)state;
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			sh("ip neigh replace %s lladdr 02:00:00:00:00:55 dev sp-up nud permanent",
			   ips[i]),
			0);
	ask();
	for (int i = 0; i < 2; i++) {
		assert_int_equal(
			sh("ip neigh show %s dev sp-up | grep -q '02:00:00:00:00:55 PERMANENT'",
			   ips[i]),
			0);
		assert_int_equal(sh("ip neigh del %s dev sp-up", ips[i]), 0);
	}
	ask();
	assert_true(becomes_kept("10.2.0.10"));
}

/* What a reachable neighbour is stays while it is asked for again. */
static void asking_again_forgets_nothing(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		ask();
		assert_true(kept("10.2.0.10"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(upstreams_and_gateways_are_kept),
		cmocka_unit_test(it_asks_once_a_second),
		cmocka_unit_test(a_new_interface_gets_them_too),
		cmocka_unit_test(another_route_another_neighbour),
		cmocka_unit_test(a_permanent_neighbour_is_left_alone),
		cmocka_unit_test(asking_again_forgets_nothing),
	};

	return cmocka_run_group_tests(tests, up, down);
}
