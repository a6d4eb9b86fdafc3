/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The mirror and the ports, against the kernel of a namespace of the test's own. */
#include "test/unit/controlplane/agent/net_world.h"

#include "controlplane/agent/netlink.h"

enum { DEV, UP, WIFI }; /* ports */

static struct gw_config cfg;
static struct mirror *m;
static struct ports *p;
static struct err err;
static int peer; /* namespace with the far ends */

/* ---- what the mirror says ---- */

static struct {
	struct msg_route route[256]; /* as the listener has it now */
	struct msg_neigh neigh[64];
	unsigned n_routes, n_neighs, calls, links;
	char link[IFNAMSIZ];
	bool link_up, link_exists;
} seen;

static void on_route(void *arg, bool add, const struct msg_route *r)
{
	unsigned i = 0;

	(void)arg;
	seen.calls++;
	while (i < seen.n_routes &&
	       memcmp(&seen.route[i].prefix, &r->prefix, sizeof(r->prefix)) != 0)
		i++;
	if (!add) {
		assert_true(i < seen.n_routes); /* only what was added is deleted */
		seen.route[i] = seen.route[--seen.n_routes];
		return;
	}
	assert_true(i < 256);
	seen.route[i] = *r;
	if (i == seen.n_routes)
		seen.n_routes++;
}

static void on_neigh(void *arg, bool add, const struct msg_neigh *n)
{
	unsigned i = 0;

	(void)arg;
	seen.calls++;
	while (i < seen.n_neighs &&
	       (!ip_addr_eq(&seen.neigh[i].ip, &n->ip) || seen.neigh[i].port != n->port ||
		seen.neigh[i].vlan != n->vlan))
		i++;
	if (!add) {
		assert_true(i < seen.n_neighs);
		seen.neigh[i] = seen.neigh[--seen.n_neighs];
		return;
	}
	assert_true(i < 64);
	seen.neigh[i] = *n;
	if (i == seen.n_neighs)
		seen.n_neighs++;
}

static void on_link(void *arg, const char *ifname, bool up, bool exists)
{
	(void)arg;
	seen.calls++;
	seen.links++;
	snprintf(seen.link, sizeof(seen.link), "%s", ifname);
	seen.link_up = up;
	seen.link_exists = exists;
}

static const struct mirror_ops ops = {on_route, on_neigh, on_link};

static const struct msg_route *route(const char *prefix)
{
	struct ip_prefix want;

	assert_int_equal(ip_prefix_parse(&want, prefix), 0);
	for (unsigned i = 0; i < seen.n_routes; i++)
		if (seen.route[i].prefix.len == want.len &&
		    ip_addr_eq(&seen.route[i].prefix.addr, &want.addr))
			return &seen.route[i];
	return NULL;
}

static const struct msg_neigh *neigh(const char *ip)
{
	struct ip_addr want;

	assert_int_equal(ip_addr_parse(&want, ip), 0);
	for (unsigned i = 0; i < seen.n_neighs; i++)
		if (ip_addr_eq(&seen.neigh[i].ip, &want))
			return &seen.neigh[i];
	return NULL;
}

/* Until there is nothing to come: after a reading that took long, it rests before the next. */
static void dispatch(void)
{
	for (;;) {
		int wait_ms = mirror_wait_ms(m);

		if (!readable(mirror_fd(m), wait_ms > 0 ? wait_ms : 0) && wait_ms < 0)
			return;
		assert_int_equal(mirror_dispatch(m, &err), 0);
	}
}

/* ---- the ports ---- */

static void port_add(const char *name, const char *kernel, uint8_t side, bool isolated,
		     const char *addr4, const char *addr6)
{
	struct gw_port *port = &cfg.ports[cfg.n_ports++];
	struct gw_vlan *v = &port->vlans[port->n_vlans++];

	snprintf(port->name, sizeof(port->name), "%s", name);
	snprintf(port->tap, sizeof(port->tap), "%s%s", kernel ? "" : "sp-", kernel ? kernel : name);
	snprintf(port->kernel, sizeof(port->kernel), "%s", kernel ? kernel : "");
	snprintf(port->devargs, sizeof(port->devargs), "%s", kernel ? "" : "net_af_xdp0");
	port->side = side;
	port->isolated = isolated;
	port->untagged = true;
	port->mtu_bytes = 1400;
	assert_int_equal(
		ip_ifaddr_parse(&v->addrs[v->n_addrs].addr, &v->addrs[v->n_addrs].len, addr4), 0);
	v->n_addrs++;
	assert_int_equal(
		ip_ifaddr_parse(&v->addrs[v->n_addrs].addr, &v->addrs[v->n_addrs].len, addr6), 0);
	v->n_addrs++;
}

static void route_add(const char *to, const char *via)
{
	struct gw_route *r = &cfg.routes[cfg.n_routes++];

	assert_int_equal(ip_prefix_parse(&r->to, to), 0);
	assert_int_equal(ip_addr_parse(&r->via, via), 0);
}

static void cable(const char *name)
{
	assert_int_equal(sh("ip link add %s type veth peer name x%s netns /proc/%d/fd/%d", name,
			    name, getpid(), peer),
			 0);
	world_enter(peer);
	assert_int_equal(sh("ip link set x%s up", name), 0);
	world_enter(world_gateway);
}

static int up(void **state)
{
	struct gw_vlan *v;

	(void)state;
	world_gateway = world_new();
	peer = world_new();
	world_enter(world_gateway);
	port_add("dev", NULL, PORT_DEVICE, true, "10.1.0.1/24", "fd01::1/64");
	port_add("up", NULL, PORT_UPLINK, false, "10.2.0.1/24", "fd02::1/64");
	port_add("wifi", "wl0", PORT_DEVICE, false, "10.3.0.1/24", "fd03::1/64");
	strcpy(cfg.ports[UP].raw, "rawup");
	v = &cfg.ports[DEV].vlans[cfg.ports[DEV].n_vlans++];
	v->id = 10;
	v->n_addrs = 1;
	assert_int_equal(ip_ifaddr_parse(&v->addrs[0].addr, &v->addrs[0].len, "10.10.0.1/24"), 0);
	route_add("0.0.0.0/0", "10.2.0.254");
	route_add("::/0", "fd02::fe");
	route_add("192.0.2.0/24", "10.9.9.9"); /* its gateway never comes */
	/* A kernel may lack the driver for VLANs; an interface that is there is configured, whatever made it. */
	cable("sp-dev");
	if (sh("ip link add link sp-dev name sp-dev.10 type vlan id 10 2>/dev/null") != 0)
		cable("sp-dev.10");
	else
		assert_int_equal(sh("ip link del sp-dev.10"), 0);
	cable("sp-up");
	cable("rawup");
	cable("wl0");
	cable("other");
	assert_int_equal(ports_new(&p, &cfg, &err), 0);
	assert_int_equal(mirror_new(&m, &cfg, &ops, NULL, &err), 0);
	assert_int_equal(seen.calls, 0);
	return 0;
}

static int down(void **state)
{
	(void)state;
	mirror_free(m);
	mirror_free(NULL);
	ports_free(p);
	ports_free(NULL);
	close(peer);
	return 0;
}

static void names_lead_both_ways(void **state)
{
	static const struct {
		const char *name;
		uint16_t port, vlan;
		bool found;
	} rows[] = {
		{"sp-dev", DEV, 0, true},
		{"sp-dev.10", DEV, 10, true},
		{"sp-dev.11", DEV, 11, false},
		{"sp-dev.010", 0, 0, false},
		{"sp-dev.", 0, 0, false},
		{"wl0", WIFI, 0, true},
		{"rawup", 0, 0, false},
		{"lo", 0, 0, false},
		{"", 0, 0, false},
		{"sp-devices", 0, 0, false},
	};
	char name[IFNAMSIZ];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint16_t port, vlan;

		if (ports_find(&cfg, rows[i].name, &port, &vlan) != rows[i].found)
			fail_msg("%s: found or not", rows[i].name);
		if (rows[i].found) {
			assert_int_equal(port, rows[i].port);
			assert_int_equal(vlan, rows[i].vlan);
			assert_int_equal(ports_ifname(&cfg, port, vlan, name), 0);
			assert_string_equal(name, rows[i].name);
		}
	}
	assert_int_equal(ports_ifname(&cfg, 3, 0, name), -EINVAL);
	assert_int_equal(ports_ifname(&cfg, DEV, 11, name), -EINVAL);
}

static void ports_come_to_their_state(void **state)
{
	static const struct {
		const char *path, *value;
	} rows[] = {
		{"ipv4/conf/sp-dev/proxy_arp_pvlan", "1"},
		{"ipv4/conf/sp-dev.10/proxy_arp_pvlan", "1"},
		{"ipv4/conf/wl0/proxy_arp_pvlan", "0"},
		{"ipv6/conf/sp-dev/proxy_ndp", "1"},
		{"ipv4/conf/sp-dev/rp_filter", "2"},
		{"ipv4/conf/sp-up/send_redirects", "0"},
		{"ipv6/conf/sp-up/accept_ra", "0"},
		{"ipv6/conf/rawup/disable_ipv6", "1"},
		{"ipv4/conf/rawup/arp_ignore", "8"},
		{"ipv4/neigh/sp-dev/proxy_delay", "0"},
		{"ipv4/ip_forward", "1"},
		{"ipv6/conf/all/forwarding", "1"},
	};

	(void)state;
	assert_int_equal(sh("nft 'add table inet x; add chain inet x c { type filter hook forward "
			    "priority 0; }; "
			    "add rule inet x c ct state new'"),
			 0); /* conntrack's sysctls come with its first user, as with our table */
	assert_int_equal(ports_forwarding(p, &err), 0);
	assert_int_equal(ports_configure(p, NULL, &err), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (sh("test $(cat /proc/sys/net/%s) = %s", rows[i].path, rows[i].value) != 0)
			fail_msg("%s is not %s", rows[i].path, rows[i].value);
	assert_int_equal(sh("ip -o link show sp-dev | grep -q 'UP.*mtu 1400'"), 0);
	assert_int_equal(sh("ip -o addr show sp-dev | grep -q '10.1.0.1/24 brd 10.1.0.255'"), 0);
	assert_int_equal(sh("ip -o addr show sp-dev | grep 'fd01::1/64' | grep -vq tentative"), 0);
	assert_int_equal(sh("ip -o addr show sp-dev.10 | grep -q '10.10.0.1/24'"), 0);
	assert_int_equal(sh("ip -o addr show rawup | grep -q inet"), 0x100);
	assert_int_equal(sh("ip route get 8.8.8.8 | grep -q 'via 10.2.0.254 dev sp-up'"), 0);
	dispatch();
	seen.calls = 0;
	assert_int_equal(ports_configure(p, NULL, &err), 0);
	assert_int_equal(ports_configure(p, "sp-dev", &err), 0);
	assert_int_equal(ports_configure(p, "nosuch", &err), 0);
	dispatch();
	assert_int_equal(seen.calls, 0); /* all was as it should be */
}

static void routes_are_mirrored(void **state)
{
	static const struct {
		const char *cmd, *prefix;
		int kind; /* 0: not there */
		uint16_t port, vlan;
		const char *gateway;
		uint16_t mtu_bytes;
	} rows[] = {
		{"true", "10.1.0.0/24", ROUTE_FORWARD, DEV, 0, NULL, 0},
		{"true", "10.1.0.1/32", ROUTE_LOCAL, MSG_PORT_KERNEL, 0, NULL, 0},
		{"true", "10.1.0.255/32", ROUTE_LOCAL, MSG_PORT_KERNEL, 0, NULL, 0},
		{"true", "10.10.0.0/24", ROUTE_FORWARD, DEV, 10, NULL, 0},
		{"true", "10.3.0.0/24", ROUTE_FORWARD, MSG_PORT_KERNEL, 0, NULL, 0},
		{"true", "0.0.0.0/0", ROUTE_FORWARD, UP, 0, "10.2.0.254", 0},
		{"true", "::/0", ROUTE_FORWARD, UP, 0, "fd02::fe", 0},
		{"true", "fd01::/64", ROUTE_FORWARD, DEV, 0, NULL, 0},
		{"true", "fd01::1/128", ROUTE_LOCAL, MSG_PORT_KERNEL, 0, NULL, 0},
		{"true", "fe80::/64", ROUTE_LOCAL, MSG_PORT_KERNEL, 0, NULL, 0},
		{"true", "ff00::/8", ROUTE_LOCAL, MSG_PORT_KERNEL, 0, NULL, 0},
		{"ip route add 10.50.0.0/16 via 10.2.0.7", "10.50.0.0/16", ROUTE_FORWARD, UP, 0,
		 "10.2.0.7", 0},
		{"ip route add 10.50.0.0/16 via 10.1.0.7 metric 9", "10.50.0.0/16", ROUTE_FORWARD,
		 UP, 0, "10.2.0.7", 0},
		{"ip route del 10.50.0.0/16 via 10.2.0.7", "10.50.0.0/16", ROUTE_FORWARD, DEV, 0,
		 "10.1.0.7", 0},
		{"ip route change 10.50.0.0/16 via 10.1.0.8 metric 9 mtu 1300", "10.50.0.0/16",
		 ROUTE_FORWARD, DEV, 0, "10.1.0.8", 1300},
		{"ip route del 10.50.0.0/16", "10.50.0.0/16", 0, 0, 0, NULL, 0},
		{"ip route add blackhole 10.51.0.0/16", "10.51.0.0/16", ROUTE_DROP, MSG_PORT_KERNEL,
		 0, NULL, 0},
		{"ip route add unreachable fd51::/32", "fd51::/32", ROUTE_DROP, MSG_PORT_KERNEL, 0,
		 NULL, 0},
		{"ip -6 route add prohibit fd52::/32", "fd52::/32", ROUTE_DROP, MSG_PORT_KERNEL, 0,
		 NULL, 0},
		{"ip route add 10.53.0.0/16 nexthop via 10.2.0.7 nexthop via 10.1.0.7",
		 "10.53.0.0/16", ROUTE_FORWARD, UP, 0, "10.2.0.7", 0},
		{"ip route add 10.54.0.0/16 via 10.2.0.7 table 77", "10.54.0.0/16", 0, 0, 0, NULL,
		 0},
		{"ip route add 10.55.0.0/16 via inet6 fd02::7 dev sp-up", "10.55.0.0/16",
		 ROUTE_FORWARD, UP, 0, "fd02::7", 0},
		{"ip -6 route add fd56::/32 via fd02::8", "fd56::/32", ROUTE_FORWARD, UP, 0,
		 "fd02::8", 0},
		{"ip addr add 10.57.0.1/24 dev other && ip link set other up", "10.57.0.0/24",
		 ROUTE_FORWARD, MSG_PORT_KERNEL, 0, NULL, 0},
		{"ip link set other down", "10.57.0.0/24", 0, 0, 0, NULL, 0},
	};

	(void)state;
	mirror_dump(m);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct msg_route *r;
		struct ip_addr gateway;

		assert_int_equal(sh("%s", rows[i].cmd), 0);
		dispatch();
		r = route(rows[i].prefix);
		if ((r != NULL) != (rows[i].kind != 0))
			fail_msg("%s: %s is there, or not", rows[i].cmd, rows[i].prefix);
		if (r == NULL)
			continue;
		if (r->kind != rows[i].kind || r->port != rows[i].port || r->vlan != rows[i].vlan ||
		    r->has_gateway != (rows[i].gateway != NULL) ||
		    r->mtu_bytes != rows[i].mtu_bytes)
			fail_msg("%s: %s: kind %u port %u vlan %u gateway %u mtu %u", rows[i].cmd,
				 rows[i].prefix, r->kind, r->port, r->vlan, r->has_gateway,
				 r->mtu_bytes);
		if (r->has_gateway) {
			assert_int_equal(ip_addr_parse(&gateway, rows[i].gateway), 0);
			assert_true(ip_addr_eq(&r->gateway, &gateway));
		}
	}
}

static void neighbours_are_mirrored(void **state)
{
	static const struct {
		const char *cmd, *ip, *mac; /* NULL: not there */
		uint16_t port, vlan;
	} rows[] = {
		{"ip neigh add 10.1.0.5 lladdr 02:00:00:00:00:05 dev sp-dev nud reachable",
		 "10.1.0.5", "02:00:00:00:00:05", DEV, 0},
		{"ip neigh change 10.1.0.5 lladdr 02:00:00:00:00:55 dev sp-dev nud stale",
		 "10.1.0.5", "02:00:00:00:00:55", DEV, 0},
		{"ip neigh change 10.1.0.5 dev sp-dev nud failed", "10.1.0.5", NULL, 0, 0},
		{"ip neigh add fd01::5 lladdr 02:00:00:00:00:05 dev sp-dev nud permanent",
		 "fd01::5", "02:00:00:00:00:05", DEV, 0},
		{"ip neigh add 10.10.0.6 lladdr 02:00:00:00:00:06 dev sp-dev.10", "10.10.0.6",
		 "02:00:00:00:00:06", DEV, 10},
		{"ip neigh add 10.3.0.7 lladdr 02:00:00:00:00:07 dev wl0", "10.3.0.7",
		 "02:00:00:00:00:07", WIFI, 0},
		{"ip neigh add 10.57.0.7 lladdr 02:00:00:00:00:07 dev other", "10.57.0.7", NULL, 0,
		 0},
		{"ip neigh del fd01::5 dev sp-dev", "fd01::5", NULL, 0, 0},
		{"ip neigh add proxy fd01::99 dev sp-dev", "fd01::99", NULL, 0, 0},
	};
	struct ip_addr ip;
	struct mac_addr mac, want;
	uint16_t port, vlan;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct msg_neigh *n;

		assert_int_equal(sh("%s", rows[i].cmd), 0);
		dispatch();
		n = neigh(rows[i].ip);
		if ((n != NULL) != (rows[i].mac != NULL))
			fail_msg("%s: there, or not", rows[i].cmd);
		if (n == NULL)
			continue;
		assert_int_equal(mac_addr_parse(&want, rows[i].mac), 0);
		assert_memory_equal(&n->mac, &want, sizeof(want));
		assert_int_equal(n->port, rows[i].port);
		assert_int_equal(n->vlan, rows[i].vlan);
	}
	/* The table is asked when the notification has not been read. */
	assert_int_equal(sh("ip neigh add 10.3.0.8 lladdr 02:00:00:00:00:08 dev wl0"), 0);
	assert_int_equal(ip_addr_parse(&ip, "10.3.0.8"), 0);
	assert_int_equal(mirror_neigh_find(m, &ip, &mac, &port, &vlan), 0);
	assert_int_equal(mac.b[5], 8);
	assert_int_equal(port, WIFI);
	assert_int_equal(vlan, 0);
	assert_int_equal(ip_addr_parse(&ip, "10.3.0.9"), 0);
	assert_int_equal(mirror_neigh_find(m, &ip, &mac, &port, &vlan), -ENOENT);
	dispatch();
}

static void pins_stand_against_lies(void **state)
{
	struct ip_addr ip4, ip6;
	struct mac_addr mac;

	(void)state;
	assert_int_equal(ip_addr_parse(&ip4, "10.1.0.44"), 0);
	assert_int_equal(ip_addr_parse(&ip6, "fd01::44"), 0);
	assert_int_equal(mac_addr_parse(&mac, "02:00:00:00:00:44"), 0);
	for (int twice = 0; twice < 2; twice++) {
		assert_int_equal(neigh_pin_add(p, &ip4, &mac, DEV, 0), 0);
		assert_int_equal(neigh_pin_add(p, &ip6, &mac, DEV, 0), 0);
		assert_int_equal(neigh_proxy_add(p, &ip6, DEV, 0), 0);
		assert_int_equal(neigh_proxy_add(p, &ip4, DEV, 0), 0);
	}
	assert_int_equal(neigh_pin_add(p, &ip4, &mac, DEV, 99), -EINVAL);
	dispatch();
	assert_non_null(neigh("10.1.0.44"));
	assert_int_equal(sh("ip neigh show proxy | grep -q fd01::44"), 0);
	/* Somebody says that he has the address. */
	world_enter(peer);
	assert_int_equal(
		sh("ip addr add 10.1.0.44/24 dev xsp-dev && ping -q -c1 -W1 10.1.0.1 >/dev/null; "
		   "ip addr del 10.1.0.44/24 dev xsp-dev"),
		0);
	world_enter(world_gateway);
	dispatch();
	assert_memory_equal(&neigh("10.1.0.44")->mac, &mac, sizeof(mac));
	/* The TAP goes, and comes again: everything is as before. */
	assert_int_equal(sh("ip link del sp-dev"), 0);
	dispatch();
	assert_null(neigh("10.1.0.44"));
	assert_null(route("10.1.0.0/24"));
	assert_non_null(route("0.0.0.0/0"));
	cable("sp-dev");
	dispatch();
	assert_string_equal(seen.link, "sp-dev");
	assert_true(seen.link_exists);
	assert_int_equal(ports_configure(p, "sp-dev", &err), 0);
	dispatch();
	assert_non_null(route("10.1.0.0/24"));
	assert_non_null(neigh("10.1.0.44"));
	assert_non_null(neigh("fd01::44"));
	assert_int_equal(sh("ip neigh show proxy | grep -q fd01::44"), 0);
	assert_int_equal(neigh_pin_del(p, &ip4, DEV, 0), 0);
	assert_int_equal(neigh_pin_del(p, &ip6, DEV, 0), 0);
	for (int twice = 0; twice < 2; twice++) {
		assert_int_equal(neigh_proxy_del(p, &ip6, DEV, 0), 0);
		assert_int_equal(neigh_pin_del(p, &ip4, DEV, 0), 0);
	}
	dispatch();
	assert_null(neigh("10.1.0.44"));
	assert_int_equal(sh("ip neigh show proxy | grep -q fd01::44"), 0x100);
	/* The uplink goes with its default route, which is put again. */
	assert_int_equal(sh("ip link del sp-up"), 0);
	dispatch();
	assert_null(route("0.0.0.0/0"));
	cable("sp-up");
	assert_int_equal(ports_configure(p, "sp-up", &err), 0);
	dispatch();
	assert_non_null(route("0.0.0.0/0"));
	assert_non_null(route("::/0"));
}

static void peers_find_each_other_through_the_box(void **state)
{
	struct ip_addr ip6;
	struct mac_addr mac;

	(void)state;
	/* One end of the cable is a device, and asks for another that it cannot reach: the box answers for it. */
	assert_int_equal(ip_addr_parse(&ip6, "fd01::77"), 0);
	assert_int_equal(mac_addr_parse(&mac, "02:00:00:00:00:77"), 0);
	assert_int_equal(neigh_pin_add(p, &ip6, &mac, DEV, 0), 0);
	assert_int_equal(neigh_proxy_add(p, &ip6, DEV, 0), 0);
	world_enter(peer);
	assert_int_equal(
		sh("ip addr add fd01::5/64 dev xsp-dev nodad && ip addr add 10.1.0.5/24 dev "
		   "xsp-dev && "
		   "ping -6 -q -c1 -W1 fd01::77 >/dev/null; ping -q -c1 -W1 10.1.0.77 >/dev/null; "
		   "mac=$(ip -o neigh show fd01::77 dev xsp-dev | grep -o 'lladdr [^ ]*'); "
		   "test -n \"$mac\" && ip neigh show 10.1.0.77 dev xsp-dev | grep -q \"$mac\""),
		0);
	world_enter(world_gateway);
	assert_int_equal(neigh_pin_del(p, &ip6, DEV, 0), 0);
	assert_int_equal(neigh_proxy_del(p, &ip6, DEV, 0), 0);
}

static void lost_notifications_are_made_up_for(void **state)
{
	int room = 1;
	unsigned before;

	(void)state;
	assert_int_equal(sh("ip addr flush dev other"), 0);
	dispatch();
	before = seen.n_routes;
	assert_int_equal(sh("ip neigh add 10.3.0.20 lladdr 02:00:00:00:00:20 dev wl0"), 0);
	dispatch();
	assert_non_null(neigh("10.3.0.20"));
	assert_int_equal(setsockopt(mirror_fd(m), SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)), 0);
	assert_int_equal(sh("for i in $(seq 60); do echo route add 10.60.$i.0/24 via 10.2.0.7; "
			    "done | ip -batch - && "
			    "ip neigh del 10.3.0.20 dev wl0 && ip neigh add 10.3.0.21 lladdr "
			    "02:00:00:00:00:21 dev wl0 && "
			    "ip link del other"),
			 0);
	dispatch();
	assert_int_equal(seen.n_routes, before + 60);
	assert_null(neigh("10.3.0.20"));
	assert_non_null(neigh("10.3.0.21"));
	assert_string_equal(seen.link, "other");
	assert_false(seen.link_exists);

	/* What a dump tells is what was told bit by bit. */
	before = seen.n_routes + seen.n_neighs;
	seen.n_routes = seen.n_neighs = 0;
	mirror_dump(m);
	assert_int_equal(seen.n_routes + seen.n_neighs, before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_lead_both_ways),
		cmocka_unit_test(ports_come_to_their_state),
		cmocka_unit_test(routes_are_mirrored),
		cmocka_unit_test(neighbours_are_mirrored),
		cmocka_unit_test(pins_stand_against_lies),
		cmocka_unit_test(peers_find_each_other_through_the_box),
		cmocka_unit_test(lost_notifications_are_made_up_for),
	};

	return cmocka_run_group_tests(tests, up, down);
}
