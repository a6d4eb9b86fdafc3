/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "config/gateway.h"

#define ROWS(t) (sizeof(t) / sizeof((t)[0]))
#define GW "gateway = { name = \"g\"; };\n"
#define PORT                                                                                       \
	"{ name = \"d\"; side = \"device\"; devargs = \"net_af_xdp0,iface=e1\"; addresses = [ "    \
	"\"10.0.0.1/24\" ]; }"
#define LISTENER(extra)                                                                            \
	"listeners = ( { name = \"l\"; port = 1; certificate = \"c\"; key = \"k\"; ca = "          \
	"\"a\"; " extra " } );"

#define UPLINK                                                                                     \
	"{ name = \"u\"; side = \"uplink\"; devargs = \"net_af_xdp1,iface=e2\"; mtu = 1400; "      \
	"addresses = [ \"10.1.0.1/24\", \"10.1.0.2/24\", \"fd01::1/64\" ]; }"
#define WLAN                                                                                       \
	"{ name = \"w\"; side = \"uplink\"; kernel = \"wlan0\"; addresses = [ \"10.2.0.1/24\" ]; " \
	"}"
#define ROUTE "routes = ( { to = \"10.8.0.0/16\"; via = \"10.1.0.9\"; } );\n"
#define STACK(addr, up)                                                                            \
	GW ROUTE "ports = ( " PORT ", " UPLINK ", " WLAN " );\n" LISTENER(                         \
		"address = \"" addr "\"; transport = \"stack\"; upstream = \"" up "\";")

static int load(struct gw_config **c, const char *text, struct config_errors *errs)
{
	char path[] = "/tmp/gateway-test-XXXXXX";
	int fd = mkstemp(path), ret;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	ret = gw_config_load(c, path, errs);
	unlink(path);
	return ret;
}

struct wrong {
	const char *name, *text, *want; /* "want" is in one of the errors */
};

static void refused(const struct wrong *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct config_errors errs = {0};
		struct gw_config *c = NULL;
		bool found = false;
		int ret = load(&c, rows[i].text, &errs);

		for (uint32_t k = 0; k < errs.n; k++)
			found |= strstr(errs.line[k], rows[i].want) != NULL;
		if (ret != -22 || c != NULL || !found)
			fail_msg("%s: ret %d, \"%s\", want \"%s\"", rows[i].name, ret,
				 errs.n > 0 ? errs.line[0] : "", rows[i].want);
	}
}

static void ports_that_cannot_be(void **state)
{
	static const struct wrong rows[] = {
		{"nothing", "", "gateway: is missing"},
		{"no ports", GW, "ports: is missing"},
		{"empty ports", GW "ports = ();", "ports: 0 entries, must be 1..16"},
		{"side", GW "ports = ( { name = \"d\"; side = \"left\"; kernel = \"w\"; } );",
		 "side: \"left\" is none of \"device\", \"uplink\""},
		{"neither devargs nor kernel",
		 GW "ports = ( { name = \"d\"; side = \"device\"; } );",
		 "ports.d: must have either devargs or kernel"},
		{"bare address",
		 GW "ports = ( { name = \"d\"; side = \"device\"; kernel = \"w\"; addresses = [ "
		    "\"10.0.0.1\" ]; } );",
		 "must be an address with its prefix length"},
		{"vlan twice",
		 GW "ports = ( { name = \"d\"; side = \"device\"; kernel = \"w\"; vlans = ( { id = "
		    "5; }, { id = 5; } ); } );",
		 "VLAN 5 is there twice"},
		{"vlan range",
		 GW "ports = ( { name = \"d\"; side = \"device\"; kernel = \"w\"; vlans = ( { id = "
		    "4095; } ); } );",
		 "4095 is outside 1..4094"},
		{"port twice", GW "ports = ( " PORT ", " PORT " );", "name is there twice"},
	};

	(void)state;
	refused(rows, ROWS(rows));
}

static void vlans_that_cannot_be(void **state)
{
	static const struct wrong rows[] = {
		{"VLAN twice in one service tag",
		 GW "ports = ( { name = \"a\"; side = \"device\"; devargs = \"net_tap0\"; vlans = "
		    "( { id = 20; outer = 100; }, { id = 20; outer = 100; } ); } );",
		 "VLAN 20 is there twice"},
		{"service tag that is a VLAN too",
		 GW "ports = ( { name = \"a\"; side = \"device\"; devargs = \"net_tap0\"; vlans = "
		    "( { id = 20; outer = 100; }, { id = 100; } ); } );",
		 "100 is both a VLAN and an outer tag"},
		{"two pairs with one number",
		 GW "ports = ( { name = \"a\"; side = \"device\"; devargs = \"net_tap0\"; vlans = "
		    "( { id = 1; outer = 1; }, { id = 4074; outer = 15; } ); } );",
		 "VLAN 4074 in 15 cannot be with VLAN 1 in 1 on one port"},
		{"service tag out of range",
		 GW "ports = ( { name = \"a\"; side = \"device\"; devargs = \"net_tap0\"; vlans = "
		    "( { id = 20; outer = 4095; } ); } );",
		 "outer: 4095 is outside"},
		{"interface name too long",
		 GW "ports = ( { name = \"longname\"; side = \"device\"; devargs = \"net_tap0\"; "
		    "vlans = ( { id = 20; outer = 100; } ); } );",
		 "sp-longname.100.20, is longer than 15 characters"},
	};

	(void)state;
	refused(rows, ROWS(rows));
}

static void listeners_that_cannot_be(void **state)
{
	static const struct wrong rows[] = {
		{"listener elsewhere",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.9.9.9\"; upstream = \"10.0.0.2:80\";"),
		 "address is not one of the ports' addresses"},
		{"a name of two certificates",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\"; "
				   "certificates = ( { names = [ \"a.b\", \"A.B\" ]; "
				   "certificate = \"c\"; key = \"k\"; } );"),
		 "certificates: the name a.b is there twice"},
		{"no DNS name",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\"; "
				   "certificates = ( { names = [ \"a..b\" ]; certificate = "
				   "\"c\"; key = \"k\"; } );"),
		 "must be a DNS name"},
		{"sni without certificates",
		 GW "ports = ( " PORT " );" LISTENER(
			 "address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\"; sni = \"required\";"),
		 "refuses everybody"},
		{"alpn with a comma",
		 GW "ports = ( " PORT " );" LISTENER(
			 "address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\"; alpn = [ \"a,b\" ];"),
		 "must be a protocol's name"},
		{"transport",
		 GW "ports = ( " PORT
		    " );" LISTENER("transport = \"quic\"; address = \"10.0.0.1\"; "
				   "upstream = \"10.0.0.2:80\";"),
		 "transport: \"quic\" is none of \"socket\", \"stack\""},
	};

	(void)state;
	refused(rows, ROWS(rows));
}

static void upstreams_that_cannot_be(void **state)
{
	static const struct wrong rows[] = {
		{"upstream without a port",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.0.0.1\"; upstream = \"10.0.0.2\";"),
		 "must be address:port"},
		{"upstream IPv6 without brackets",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.0.0.1\"; upstream = \"fd00::1:80\";"),
		 "must be address:port"},
		{"no upstream", GW "ports = ( " PORT " );" LISTENER("address = \"10.0.0.1\"; "),
		 "listeners.l: needs upstream or upstreams"},
		{"two ways to name them",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\"; upstreams "
				   "= ( { address = \"10.0.0.3:80\"; } );"),
		 "listeners.l: has both upstream and upstreams"},
		{"upstream twice",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.0.0.1\"; upstreams = ( { address = "
				   "\"10.0.0.2:80\"; }, { address = \"10.0.0.2:80\"; } );"),
		 "upstream 10.0.0.2 port 80 is there twice"},
		{"a weight of nothing",
		 GW "ports = ( " PORT " );" LISTENER("address = \"10.0.0.1\"; upstreams = ( { "
						     "address = \"10.0.0.2:80\"; weight = 0; } );"),
		 "weight: 0 is outside 1..100"},
		{"an empty list of upstreams",
		 GW "ports = ( " PORT " );" LISTENER("address = \"10.0.0.1\"; upstreams = ( );"),
		 "upstreams: 0 entries, must be 1..8"},
	};

	(void)state;
	refused(rows, ROWS(rows));
}

static void tls_to_upstreams_that_cannot_be(void **state)
{
	static const struct wrong rows[] = {
		{"TLS that verifies nothing",
		 GW "ports = ( " PORT " );" LISTENER(
			 "address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\"; upstream_tls = { };"),
		 "upstream_tls.ca: is missing"},
		{"an empty CA",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\"; "
				   "upstream_tls = { ca = \"\"; };"),
		 "upstream_tls.ca must not be empty"},
		{"a certificate without its key",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\"; "
				   "upstream_tls = { ca = \"x\"; certificate = \"y\"; };"),
		 "needs both certificate and key"},
		{"a TLV that is none",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\"; proxy_tlvs "
				   "= [ \"colour\" ];"),
		 "\"colour\" is none of \"ssl\""},
	};

	(void)state;
	refused(rows, ROWS(rows));
}

static void limits_that_cannot_be(void **state)
{
	static const struct wrong rows[] = {
		{"metrics for all the world",
		 GW "ports = ( " PORT " );\nmetrics = { address = \"0.0.0.0\"; };",
		 "metrics.address: must be a loopback address"},
		{"a limit that is none",
		 GW "ports = ( " PORT " );\nlimits = { device = { new_flows = 2000000; }; };",
		 "limits.device.new_flows: 2000000 is outside 0..1000000 a second"},
		{"a burst of nothing",
		 GW "ports = ( " PORT " );\nlimits = { device = { new_flows_burst = 0; }; };",
		 "limits.device.new_flows_burst: 0 is outside 1..1000000"},
		{"more than all flows",
		 GW "ports = ( " PORT " );\nlimits = { networks = { flows_pct = 101; }; };",
		 "limits.networks.flows_pct: 101 is outside 0..100 % of flows_max"},
		{"no room for connections to listeners",
		 GW "ports = ( " PORT " );\nlimits = { listeners = { flows_pct = 0; }; };",
		 "limits.listeners.flows_pct: 0 is outside 1..100 % of flows_max"},
		{"unknown limit",
		 GW "ports = ( " PORT " );\nlimits = { strangers = { pps = 1; }; };",
		 "limits.strangers.pps: unknown key"},
		{"pickup", GW "ports = ( " PORT " );\ndataplane = { pickup = \"sometimes\"; };",
		 "\"sometimes\" is none of \"restart\", \"never\", \"always\""},
	};

	(void)state;
	refused(rows, ROWS(rows));
}

static void dtls_and_tickets_that_cannot_be(void **state)
{
	static const struct wrong rows[] = {
		{"protocol",
		 GW "ports = ( " PORT " );" LISTENER("protocol = \"quic\"; address = \"10.0.0.1\"; "
						     "upstream = \"10.0.0.2:80\";"),
		 "protocol: \"quic\" is none of \"tls\", \"dtls\""},
		{"AES-CCM over TCP",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\"; "
				   "aes_ccm = true;"),
		 "aes_ccm goes with protocol = \"dtls\" alone"},
		{"DTLS and TLS behind it",
		 GW "ports = ( " PORT
		    " );" LISTENER("protocol = \"dtls\"; address = \"10.0.0.1\"; upstream = "
				   "\"10.0.0.2:80\"; upstream_tls = { ca = \"/x\"; };"),
		 "protocol = \"dtls\" goes without upstream_tls"},
		{"DTLS and tickets",
		 GW "ports = ( " PORT
		    " );" LISTENER("protocol = \"dtls\"; address = \"10.0.0.1\"; upstream = "
				   "\"10.0.0.2:80\"; resumption_s = 60;"),
		 "protocol = \"dtls\" goes without resumption_s"},
		{"tickets for too long",
		 GW "ports = ( " PORT
		    " );" LISTENER("address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\"; "
				   "resumption_s = 604801;"),
		 "resumption_s: 604801 is outside 0..604800"},
	};

	(void)state;
	refused(rows, ROWS(rows));
}

static void tls_workers_that_cannot_be(void **state)
{
	static const struct wrong rows[] = {
		{"no workers", GW "ports = ( " PORT " );\ntls = { workers = 0; };",
		 "tls.workers: 0 is outside 1..16"},
		{"upstream ports: one number",
		 GW "ports = ( " PORT " );\ntls = { upstream_ports = \"20000\"; };",
		 "tls.upstream_ports: \"20000\": must be FIRST-LAST"},
		{"upstream ports: backwards",
		 GW "ports = ( " PORT " );\ntls = { upstream_ports = \"20001-20000\"; };",
		 "must be FIRST-LAST"},
		{"upstream ports: well-known",
		 GW "ports = ( " PORT " );\ntls = { upstream_ports = \"80-20000\"; };",
		 "must be FIRST-LAST"},
		{"upstream ports: too high",
		 GW "ports = ( " PORT " );\ntls = { upstream_ports = \"2000-65536\"; };",
		 "must be FIRST-LAST"},
		{"upstream ports: something behind",
		 GW "ports = ( " PORT " );\ntls = { upstream_ports = \"2000-3000,\"; };",
		 "must be FIRST-LAST"},
		{"fewer upstream ports than workers",
		 STACK("10.0.0.1", "10.1.0.5:80") "tls = { workers = 4; upstream_ports = "
						  "\"2000-2002\"; };",
		 "2000-2002 has fewer ports than there are workers (4)"},
		{"upstream ports with a listener's port",
		 GW
		 "ports = ( " PORT ", " UPLINK " );\nlisteners = ( { name = \"l\"; port = 20000; "
		 "certificate = \"c\"; key = \"k\"; ca = \"a\"; transport = \"stack\"; address = "
		 "\"10.0.0.1\"; upstream = \"10.1.0.5:80\"; } );",
		 "tls.upstream_ports: 16384-32767 holds port 20000 of listener l"},
		{"upstream address of somebody else",
		 GW "ports = ( " PORT " );\ntls = { upstream_addresses = [ \"10.0.0.9\" ]; };",
		 "tls.upstream_addresses: 10.0.0.9 is not one of the ports' addresses"},
		{"upstream address twice",
		 GW "ports = ( " PORT
		    " );\ntls = { upstream_addresses = [ \"10.0.0.1\", \"10.0.0.1\" "
		    "]; };",
		 "is there twice"},
		{"upstream address that is none",
		 GW "ports = ( " PORT " );\ntls = { upstream_addresses = [ \"x\" ]; };",
		 "tls.upstream_addresses: \"x\": is not an IP address"},
	};

	(void)state;
	refused(rows, ROWS(rows));
}

static void stack_listeners_that_cannot_be(void **state)
{
	static const struct wrong rows[] = {
		{"stack on a kernel-only port", STACK("10.2.0.1", "10.1.0.5:80"),
		 "transport = \"stack\" needs an address of a port with devargs; w is a "
		 "kernel-only"},
		{"upstream behind a kernel-only port", STACK("10.0.0.1", "10.2.0.5:80"),
		 "10.2.0.1 is on the kernel-only port w"},
		{"upstream on the box", STACK("10.0.0.1", "127.0.0.1:80"),
		 "upstream 127.0.0.1 is this box"},
		{"upstream is an own address", STACK("10.0.0.1", "10.1.0.2:80"),
		 "upstream 10.1.0.2 is this box"},
		{"upstream behind a device port", STACK("10.0.0.1", "10.0.0.5:80"),
		 "upstream 10.0.0.5 is behind the device port d"},
		{"no way to the upstream", STACK("10.0.0.1", "192.0.2.1:80"),
		 "no port's subnet and no route leads to the upstream 192.0.2.1"},
	};

	(void)state;
	refused(rows, ROWS(rows));
}

static void the_shipped_file_is_good(void **state)
{
	struct config_errors errs = {0};
	struct gw_config *c = NULL;

	(void)state;
	assert_int_equal(gw_config_load(&c, "config/gateway.cfg", &errs), 0);
	assert_int_equal(c->n_ports, 2);
	assert_string_equal(c->ports[0].tap, "sp-dev");
	assert_string_equal(c->ports[0].raw, "eth1");
	assert_int_equal(c->ports[0].n_vlans, 2);
	assert_int_equal(c->ports[0].vlans[0].n_addrs, 2);
	assert_int_equal(c->ports[0].vlans[1].id, 20);
	assert_int_equal(c->listeners[0].upstreams[0].port, 1883);
	assert_int_equal(c->strangers, STRANGER_DHCP | STRANGER_PING);
	assert_string_equal(c->segments, "config/segments.cfg");
	assert_int_equal(c->refused_ms, 1000);
	assert_int_equal(c->pickup, PICKUP_RESTART);
	assert_int_equal(c->tcp_closing_s, 20);
	assert_int_equal(c->udp_unanswered_s, 30);
	assert_int_equal(c->limits.device_new_flows, 200);
	assert_int_equal(c->limits.device_flows, 4096);
	assert_int_equal(c->limits.network_flows_pct, 50);
	assert_int_equal(c->limits.listener_flows_pct, 50);
	assert_int_equal(c->limits.stranger_each_packets, 200);
	gw_config_free(c);
}

static void an_ipv6_upstream_has_brackets(void **state)
{
	struct config_errors errs = {0};
	struct gw_config *c = NULL;
	struct ip_addr want;

	(void)state;
	ip_addr_parse(&want, "fd00::1");
	assert_int_equal(load(&c,
			      GW "ports = ( " PORT " );" LISTENER(
				      "address = \"10.0.0.1\"; upstream = \"[fd00::1]:80\";"),
			      &errs),
			 0);
	assert_true(ip_addr_eq(&c->listeners[0].upstreams[0].addr, &want));
	assert_int_equal(c->listeners[0].upstreams[0].port, 80);
	gw_config_free(c);
}

static void the_stack_speaks_from_the_nearest_address(void **state)
{
	static const struct {
		const char *name, *tls, *upstream;
		const char *want[3]; /* up to NULL */
	} rows[] = {
		{"on-link", "", "10.1.0.5", {"10.1.0.1"}},
		{"IPv6", "", "fd01::5", {"fd01::1"}},
		{"by the route's gateway", "", "10.8.1.1", {"10.1.0.1"}},
		{"nowhere", "", "192.0.2.1", {NULL}},
		{"the one that is named",
		 "tls = { upstream_addresses = [ \"10.1.0.2\" ]; };",
		 "10.8.1.1",
		 {"10.1.0.2"}},
		{"the nearest first",
		 "tls = { upstream_addresses = [ \"10.1.0.2\", \"fd01::1\", \"10.1.0.1\" ]; };",
		 "10.1.0.5",
		 {"10.1.0.1", "10.1.0.2"}},
		{"of its family only",
		 "tls = { upstream_addresses = [ \"10.1.0.2\" ]; };",
		 "fd01::5",
		 {NULL}},
	};

	(void)state;
	for (unsigned i = 0; i < ROWS(rows); i++) {
		struct ip_addr up, got[3], one;
		struct config_errors errs = {0};
		struct gw_config *c = NULL;
		char text[2048], have[ADDR_TEXT_BYTES];
		unsigned n, want = 0;

		snprintf(text, sizeof(text), "%s%s", STACK("10.0.0.1", "10.1.0.5:80"), rows[i].tls);
		if (load(&c, text, &errs) != 0)
			fail_msg("%s: %s", rows[i].name, errs.line[0]);
		assert_int_equal(ip_addr_parse(&up, rows[i].upstream), 0);
		n = gw_upstream_sources(c, &up, got, 3);
		while (want < 3 && rows[i].want[want] != NULL)
			want++;
		if (n != want)
			fail_msg("%s: %u addresses, want %u", rows[i].name, n, want);
		for (unsigned k = 0; k < n; k++)
			assert_string_equal(ip_addr_text(&got[k], have), rows[i].want[k]);
		assert_int_equal(gw_upstream_source(c, &up, &one), n > 0 ? 0 : -EADDRNOTAVAIL);
		assert_true(n == 0 || ip_addr_eq(&one, &got[0]));
		gw_config_free(c);
	}
}

static void the_tls_group_has_defaults(void **state)
{
	struct config_errors errs = {0};
	struct gw_config *c = NULL;
	struct ip_addr want;

	(void)state;
	assert_int_equal(load(&c, STACK("10.0.0.1", "10.1.0.5:80"), &errs), 0);
	assert_int_equal(c->tls_workers, 1);
	assert_int_equal(c->tls_port_first, 16384);
	assert_int_equal(c->tls_port_last, 32767);
	assert_int_equal(c->n_tls_addrs, 0);
	assert_true(gw_uses_stack(c));
	assert_int_equal(gw_stack_mtu_max(c), 1500);
	ip_addr_parse(&want, "10.0.0.1");
	assert_int_equal(gw_stack_mtu(c, &want), 1500);
	ip_addr_parse(&want, "10.1.0.2");
	assert_int_equal(gw_stack_mtu(c, &want), 1400);
	ip_addr_parse(&want, "10.2.0.1"); /* of a kernel-only port */
	assert_int_equal(gw_stack_mtu(c, &want), 1400);
	assert_int_equal(c->n_tls_sources, 1);
	ip_addr_parse(&want, "10.1.0.1");
	assert_true(ip_addr_eq(&c->tls_sources[0], &want));
	c->listeners[0].transport = GW_SOCKET;
	assert_false(gw_uses_stack(c));
	gw_config_free(c);
}

static void upstreams_have_weights_checks_and_tls(void **state)
{
	struct config_errors errs = {0};
	struct gw_config *c = NULL;
	const struct gw_listener *l;

	(void)state;
	assert_int_equal(
		load(&c,
		     GW "ports = ( " PORT " );" LISTENER(
			     "address = \"10.0.0.1\"; upstreams = ( { address = \"10.0.0.2:80\"; "
			     "weight = 3; }, { address = \"10.0.0.3:81\"; } ); upstream_check = { "
			     "fall = 9; }; upstream_tls = { ca = \"/x\"; name = \"n\"; }; "
			     "proxy_tlvs = [ \"crc32c\", \"alpn\" ];"),
		     &errs),
		0);
	l = &c->listeners[0];
	assert_int_equal(l->n_upstreams, 2);
	assert_int_equal(l->upstreams[0].weight, 3);
	assert_int_equal(l->upstreams[1].weight, 1);
	assert_int_equal(l->upstreams[1].port, 81);
	assert_int_equal(l->upstream_check.fall, 9);
	assert_int_equal(l->upstream_check.interval_s, 5);
	assert_int_not_equal(l->upstream_tls.line, 0);
	assert_string_equal(l->upstream_tls.ca, "/x");
	assert_int_equal(l->proxy_tlvs, PROXY_CRC32C | PROXY_ALPN);
	gw_config_free(c);
	c = NULL;
	/* what is not given: one upstream, plain TCP, the TLVs of the reference */
	assert_int_equal(load(&c,
			      GW "ports = ( " PORT " );" LISTENER(
				      "address = \"10.0.0.1\"; upstream = \"10.0.0.2:80\";"),
			      &errs),
			 0);
	l = &c->listeners[0];
	assert_int_equal(l->n_upstreams, 1);
	assert_int_equal(l->upstreams[0].weight, 1);
	assert_int_equal(l->upstream_tls.line, 0);
	assert_int_equal(l->proxy_tlvs, PROXY_SSL | PROXY_IDENTITY | PROXY_SEGMENT |
						PROXY_STANDING | PROXY_CERT_SHA256);
	assert_int_equal(l->half_closed_timeout_s, 60);
	gw_config_free(c);
}

static void tls_and_dtls_may_share_a_port_number(void **state)
{
	static const char same[] =
		"{ name = \"%s\"; protocol = \"%s\"; address = \"10.0.0.1\"; port = 5684; "
		"certificate = \"c\"; key = \"k\"; ca = \"a\"; upstream = \"10.0.0.2:5683\"; }";
	static const struct {
		const char *first, *second;
		int ret;
	} rows[] = {{"tls", "dtls", 0}, {"dtls", "dtls", -EINVAL}, {"tls", "tls", -EINVAL}};
	char one[256], two[256], text[1024];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct config_errors errs = {0};
		struct gw_config *c = NULL;

		snprintf(one, sizeof(one), same, "l1", rows[i].first);
		snprintf(two, sizeof(two), same, "l2", rows[i].second);
		snprintf(text, sizeof(text), GW "ports = ( " PORT " );\nlisteners = ( %s, %s );",
			 one, two);
		assert_int_equal(load(&c, text, &errs), rows[i].ret);
		if (rows[i].ret < 0) {
			assert_non_null(strstr(errs.line[0], "shares address and port with l1"));
			continue;
		}
		assert_int_equal(gw_listener_proto(&c->listeners[0]), POLICY_PROTO_TCP);
		assert_int_equal(gw_listener_proto(&c->listeners[1]), POLICY_PROTO_UDP);
		gw_config_free(c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ports_that_cannot_be),
		cmocka_unit_test(vlans_that_cannot_be),
		cmocka_unit_test(listeners_that_cannot_be),
		cmocka_unit_test(upstreams_that_cannot_be),
		cmocka_unit_test(tls_to_upstreams_that_cannot_be),
		cmocka_unit_test(limits_that_cannot_be),
		cmocka_unit_test(dtls_and_tickets_that_cannot_be),
		cmocka_unit_test(tls_workers_that_cannot_be),
		cmocka_unit_test(stack_listeners_that_cannot_be),
		cmocka_unit_test(the_shipped_file_is_good),
		cmocka_unit_test(an_ipv6_upstream_has_brackets),
		cmocka_unit_test(the_stack_speaks_from_the_nearest_address),
		cmocka_unit_test(the_tls_group_has_defaults),
		cmocka_unit_test(upstreams_have_weights_checks_and_tls),
		cmocka_unit_test(tls_and_dtls_may_share_a_port_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
