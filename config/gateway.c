/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/gateway.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/certificate.h"
#include "config/gateway_tls.h"
#include "config/schema.h"
#include "config/upstream.h"

static const struct key_choice sides[] = {{"device", PORT_DEVICE}, {"uplink", PORT_UPLINK}, {0}};
static const struct key_choice pickups[] = {
	{"restart", PICKUP_RESTART}, {"never", PICKUP_NEVER}, {"always", PICKUP_ALWAYS}, {0}};
static const struct key_choice polls[] = {{"adaptive", 0}, {"always", 1}, {0}};
static const struct key_choice transports[] = {{"socket", GW_SOCKET}, {"stack", GW_STACK}, {0}};
static const struct key_choice protocols[] = {{"tls", GW_TLS}, {"dtls", GW_DTLS}, {0}};
static const struct key_choice levels[] = {{"error", LOG_LEVEL_ERROR},
					   {"warn", LOG_LEVEL_WARN},
					   {"info", LOG_LEVEL_INFO},
					   {"debug", LOG_LEVEL_DEBUG},
					   {0}};
static const struct key_choice services[] = {
	{"dhcp", STRANGER_DHCP}, {"dns", STRANGER_DNS}, {"ping", STRANGER_PING}, {0}};

static void *port_slot(void *parent)
{
	struct gw_config *c = parent;

	return c->n_ports < MSG_PORTS_MAX ? &c->ports[c->n_ports++] : NULL;
}

static void *route_slot(void *parent)
{
	struct gw_config *c = parent;

	return c->n_routes < GW_ROUTES_MAX ? &c->routes[c->n_routes++] : NULL;
}

static void *listener_slot(void *parent)
{
	struct gw_config *c = parent;

	return c->n_listeners < MSG_LISTENERS_MAX ? &c->listeners[c->n_listeners++] : NULL;
}

/* vlans[0] is kept for the port's own, untagged addresses until the check. */
static void *vlan_slot(void *parent)
{
	struct gw_port *p = parent;

	if (p->n_vlans == 0)
		p->n_vlans = 1;
	return p->n_vlans < MSG_VLANS_MAX ? &p->vlans[p->n_vlans++] : NULL;
}

static int vlan_address(void *parent, const char *text, const char **why)
{
	struct gw_vlan *v = parent;
	struct gw_ifaddr *a = &v->addrs[v->n_addrs];

	if (v->n_addrs == GW_ADDRS_MAX) {
		*why = "too many addresses";
		return -EINVAL;
	}
	if (strchr(text, '/') == NULL || ip_ifaddr_parse(&a->addr, &a->len, text) < 0) {
		*why = "must be an address with its prefix length, as 10.0.0.1/24";
		return -EINVAL;
	}
	v->n_addrs++;
	return 0;
}

static int port_address(void *parent, const char *text, const char **why)
{
	struct gw_port *p = parent;

	if (p->n_vlans == 0)
		p->n_vlans = 1;
	return vlan_address(&p->vlans[0], text, why);
}

static int route_to(void *parent, const char *text, const char **why)
{
	struct gw_route *r = parent;
	int ret = ip_prefix_parse(&r->to, text);

	if (ret == -ERANGE)
		*why = "has bits set behind the prefix length";
	else if (ret < 0)
		*why = "is not a prefix";
	return ret;
}

static void *listener_upstreams(void *parent)
{
	((struct gw_listener *)parent)->upstreams_given = true;
	return upstream_slot(parent);
}

#define G(field) SCHEMA_AT(struct gw_config, field)
#define UINT(key, at, lo, hi, dflt, unit_, text)                                                   \
	{                                                                                          \
		.name = key, .type = KEY_UINT, at, .min = lo, .max = hi, .def = dflt,              \
		.unit = unit_, .doc = text                                                         \
	}
#define TEXT(key, at, dflt, text)                                                                  \
	{                                                                                          \
		.name = key, .type = KEY_STRING, at, .def = dflt, .doc = text                      \
	}
#define FLAG(key, at, dflt, text)                                                                  \
	{                                                                                          \
		.name = key, .type = KEY_BOOL, at, .def = dflt, .doc = text                        \
	}

/* clang-format off */
static const struct schema_key gateway_keys[] = {
	{"name", KEY_NAME, G(name), .def = NULL, .doc = "name of this gateway, in receipts and logs"},
	TEXT("run_dir", G(run_dir), "/run/sallyport", "sockets and the trust table"),
	TEXT("state_dir", G(state_dir), "/var/lib/sallyport", "the agent's store"),
	TEXT("segments", G(segments), "segments.cfg", "policy to start with, relative to this file"),
	TEXT("user", G(user), "nobody", "user of the TLS workers"),
	{"log_level", KEY_CHOICE, G(log_level), .def = "info", .doc = "least important line that is logged", .choices = levels},
	UINT("devices_max", G(devices_max), 16, 524287, "16384", NULL, "devices that can be known; 64 bytes each"),
	UINT("binding_lease_s", G(binding_lease_s), 0, 604800, "300", "s", "a device's addresses stay bound after its last session"),
	UINT("drain_s", G(drain_s), 0, 86400, "0", "s", "a TLS worker that is to end lets its sessions finish for so long"),
	UINT("kernel_lease_s", G(kernel_lease_s), 2, 3600, "10", "s", "agent silent for so long: the kernel path shuts"),
	{"strangers", KEY_FLAGS, G(strangers), .def = "", .doc = "what a stranger may reach beside listeners, ARP and ND", .choices = services},
	{0}
};

static const struct schema_key dataplane_keys[] = {
	TEXT("lcores", G(lcores), "1", "cores of the packet workers, as 1 or 2-3"),
	UINT("main_lcore", G(main_lcore), 0, 1023, "0", NULL, "core of the control thread"),
	UINT("memory_mb", G(memory_mb), 64, 1048576, "256", "MB", "DPDK memory"),
	FLAG("hugepages", G(hugepages), "true", "use hugepages"),
	{"poll", KEY_CHOICE, G(poll_always), .def = "adaptive", .doc = "adaptive backs off when idle; always is for benchmarks", .choices = polls},
	UINT("neighbours_max", G(neighbours_max), 256, 524287, "16384", NULL, "hosts on the links whose MAC address can be known"),
	UINT("flows_max", G(flows_max), 1024, 67108864, "131072", NULL, "flows a core can hold"),
	UINT("tcp_established_s", G(tcp_established_s), 1, 604800, "7200", "s", "idle limit"),
	UINT("tcp_opening_s", G(tcp_opening_s), 1, 3600, "20", "s", "idle limit of half-open connections"),
	UINT("tcp_closing_s", G(tcp_closing_s), 1, 3600, "20", "s", "idle limit of connections that both ends have closed, or one has reset"),
	UINT("udp_s", G(udp_s), 1, 86400, "60", "s", "idle limit of flows that were answered"),
	UINT("udp_unanswered_s", G(udp_unanswered_s), 1, 86400, "30", "s", "idle limit of flows that were not"),
	UINT("icmp_s", G(icmp_s), 1, 3600, "10", "s", "idle limit"),
	UINT("refused_ms", G(refused_ms), 0, 60000, "1000", "ms", "a refusal is remembered for so long"),
	{"pickup", KEY_CHOICE, G(pickup), .def = "restart", .doc = "when a TCP packet mid-stream may open its flow, if a rule allows the flow", .choices = pickups},
	UINT("pickup_ms", G(pickup_ms), 0, 600000, "10000", "ms", "after a restart of the dataplane, for so long"),
	{0}
};

static const struct schema_key limit_device_keys[] = {
	UINT("new_flows", G(limits.device_new_flows), 0, 1000000, "200", "a second", "tries to open a flow, refused ones too; 0 = no limit"),
	UINT("new_flows_burst", G(limits.device_new_flows_burst), 1, 1000000, "400", NULL, "tries at once"),
	UINT("flows", G(limits.device_flows), 0, 67108864, "4096", NULL, "open at a time, at most an eighth of flows_max; 0 = no limit"),
	UINT("kernel_packets", G(limits.device_kernel_packets), 0, 10000000, "5000", "a second", "to the box, or by way of its kernel, but for listeners; 0 = no limit"),
	UINT("tls_packets", G(limits.device_tls_packets), 0, 10000000, "20000", "a second", "to listeners; 0 = no limit"),
	{0}
};

static const struct schema_key limit_network_keys[] = {
	UINT("new_flows", G(limits.network_new_flows), 0, 1000000, "0", "a second", "tries to open a flow to a device; 0 = no limit"),
	UINT("flows_pct", G(limits.network_flows_pct), 0, 100, "50", "% of flows_max", "open at a time; 0 = no limit"),
	{0}
};

static const struct schema_key limit_stranger_keys[] = {
	UINT("packets", G(limits.stranger_packets), 0, 10000000, "10000", "a second", "to listeners and the box, of all strangers; 0 = no limit"),
	UINT("packets_each", G(limits.stranger_each_packets), 0, 10000000, "200", "a second", "of each MAC address; 0 = no limit"),
	UINT("new_flows", G(limits.stranger_new_flows), 0, 1000000, "500", "a second", "to listeners, of all strangers; 0 = no limit"),
	UINT("new_flows_each", G(limits.stranger_each_new_flows), 0, 1000000, "20", "a second", "of each MAC address; 0 = no limit"),
	{0}
};

static const struct schema_key limit_listener_keys[] = {
	UINT("flows_pct", G(limits.listener_flows_pct), 1, 100, "50", "% of flows_max", "records of connections to listeners, so that the rest is for flows"),
	{0}
};

static const struct schema_key limits_keys[] = {
	{"device", KEY_GROUP, .def = "", .doc = "each device; its segment may say otherwise of flows", .sub = limit_device_keys},
	{"networks", KEY_GROUP, .def = "", .doc = "all networks together", .sub = limit_network_keys},
	{"strangers", KEY_GROUP, .def = "", .doc = "sources without a binding", .sub = limit_stranger_keys},
	{"listeners", KEY_GROUP, .def = "", .doc = "connections to all listeners together", .sub = limit_listener_keys},
	{0}
};

static const struct schema_key tls_keys[] = {
	UINT("workers", G(tls_workers), 1, MSG_TLS_WORKERS_MAX, "1", NULL, "TLS worker processes; each has its own port in the dataplane"),
	{"upstream_ports", KEY_EACH, .min = 1, .max = 1, .def = "16384-32767", .doc = "source ports to upstreams, FIRST-LAST, outside the kernel's own (ip_local_port_range)", .each = gw_tls_ports_parse},
	{"upstream_addresses", KEY_EACH, .min = 0, .max = MSG_SOURCES_MAX, .def = "", .doc = "the box's own addresses to send from; else that of the port towards the upstream", .each = gw_tls_address_parse},
	{0}
};

static const struct schema_key controller_keys[] = {
	TEXT("socket", G(controller_socket), "/run/sallyport/decisions.sock", "where the controller on this box serves decisions"),
	TEXT("public_key", G(controller_key), "/etc/sallyport/controller.pub", "file with the controller's public key"),
	UINT("skew_s", G(controller_skew_s), 1, 86400, "30", "s", "tolerated difference of clocks"),
	{0}
};

static const struct schema_key metrics_keys[] = {
	{"address", KEY_ADDR, G(metrics_addr), .def = "127.0.0.1", .doc = "loopback address of the Prometheus endpoint"},
	UINT("port", G(metrics_port), 0, 65535, "9464", NULL, "0 = off"),
	FLAG("devices", G(metrics_devices), "false", "counters of each device too: one time series a device and counter"),
	{0}
};

#define V(field) SCHEMA_AT(struct gw_vlan, field)
static const struct schema_key vlan_keys[] = {
	UINT("id", V(tag), 1, 4094, NULL, NULL, "VLAN id; with outer, that of the inner tag (802.1Q)"),
	UINT("outer", V(outer), 0, 4094, "0", NULL, "service tag around it (802.1ad, QinQ); 0 = none"),
	{"addresses", KEY_EACH, .min = 0, .max = GW_ADDRS_MAX, .def = "", .doc = "the box's own addresses there", .each = vlan_address},
	{0}
};

#define P(field) SCHEMA_AT(struct gw_port, field)
static const struct schema_key port_keys[] = {
	{"name", KEY_NAME, P(name), .def = NULL, .doc = "up to 12 characters; the kernel shadow is sp-NAME"},
	TEXT("devargs", P(devargs), "", "DPDK port, as net_af_xdp0,iface=eth1 or 0000:03:00.0"),
	TEXT("kernel", P(kernel), "", "instead of devargs: interface that DPDK cannot take"),
	{"side", KEY_CHOICE, P(side), .def = NULL, .doc = "what is behind the port", .choices = sides},
	FLAG("untagged", P(untagged), "true", "frames without a VLAN tag are taken"),
	FLAG("isolated", P(isolated), "true", "peers in one subnet reach each other through the box only"),
	UINT("mtu", P(mtu_bytes), 1280, 9000, "1500", "bytes", "of the IP packet"),
	{"addresses", KEY_EACH, .min = 0, .max = GW_ADDRS_MAX, .def = "", .doc = "the box's own addresses, untagged", .each = port_address},
	{"vlans", KEY_GROUPS, .min = 0, .max = MSG_VLANS_MAX - 1, .def = "", .doc = "tagged subinterfaces", .sub = vlan_keys, .slot = vlan_slot},
	{0}
};

#define R(field) SCHEMA_AT(struct gw_route, field)
static const struct schema_key route_keys[] = {
	{"to", KEY_EACH, .min = 1, .max = 1, .def = NULL, .doc = "prefix", .each = route_to},
	{"via", KEY_ADDR, R(via), .def = NULL, .doc = "next hop"},
	{0}
};

#define L(field) SCHEMA_AT(struct gw_listener, field)
static const struct schema_key listener_keys[] = {
	{"name", KEY_NAME, L(name), .def = NULL, .doc = "for logs"},
	{"address", KEY_ADDR, L(addr), .def = NULL, .doc = "one of the box's own addresses"},
	UINT("port", L(port), 1, 65535, NULL, NULL, "TCP port; UDP port of DTLS"),
	{"protocol", KEY_CHOICE, L(protocol), .def = "tls", .doc = "tls, or dtls: over UDP, its upstream too", .choices = protocols},
	TEXT("certificate", L(certificate), NULL, "PEM file: own certificate and chain"),
	TEXT("key", L(key), NULL, "PEM file: own private key"),
	TEXT("ocsp", L(ocsp), "", "DER file: OCSP response for the certificate, stapled for clients that ask"),
	{"certificates", KEY_GROUPS, .min = 1, .max = GW_CERTIFICATES_MAX, .def = "", .doc = "others, by the name that the client asks for (SNI)", .sub = certificate_keys, .slot = certificate_slot},
	{"sni", KEY_CHOICE, L(sni_required), .def = "any", .doc = "required: a client without a name, or with an unknown one, is refused", .choices = certificate_sni},
	{"alpn", KEY_EACH, .min = 1, .max = 8, .def = "", .doc = "protocols that clients may ask for (ALPN), the preferred one first; others are refused", .each = certificate_alpn},
	TEXT("ca", L(ca), NULL, "PEM file: roots of the device certificates"),
	TEXT("crl", L(crl), "", "PEM file or folder of revocation lists"),
	{"transport", KEY_CHOICE, L(transport), .def = "socket", .doc = "who ends TCP: the kernel, or the fast path's own stack, see tls", .choices = transports},
	{"upstream", KEY_EACH, .min = 1, .max = 1, .def = "", .doc = "address:port that gets the plaintext", .each = upstream_one},
	{"upstreams", KEY_GROUPS, .min = 1, .max = GW_UPSTREAMS_MAX, .def = "", .doc = "or several, which get new sessions in turn", .sub = upstream_keys, .slot = listener_upstreams},
	{"upstream_check", KEY_GROUP, L(upstream_check), .def = "", .doc = "of several: is each there? By connecting, with TLS if it has TLS; not of DTLS", .sub = upstream_check_keys},
	{"upstream_tls", KEY_GROUP, L(upstream_tls), .def = "", .doc = "TLS to the upstreams; their certificates are always verified", .sub = upstream_tls_keys},
	FLAG("proxy_protocol", L(proxy_protocol), "false", "tell the upstream who it is: PROXY protocol v2"),
	{"proxy_tlvs", KEY_FLAGS, L(proxy_tlvs), .def = "ssl identity segment standing certificate_sha256", .doc = "what it says beside addresses", .choices = upstream_tlvs},
	FLAG("tls12", L(tls12), "false", "accept TLS 1.2, or DTLS 1.2 (ECDHE-AEAD), too"),
	FLAG("aes_ccm", L(aes_ccm), "false", "dtls: take AES-CCM too, from devices that have nothing else; with 1.2 CCM_8, whose tags are short"),
	UINT("handshake_timeout_s", L(handshake_timeout_s), 1, 300, "10", "s", "an unfinished handshake is cut"),
	UINT("idle_timeout_s", L(idle_timeout_s), 1, 604800, "3600", "s", "a silent session is closed"),
	UINT("connect_timeout_s", L(connect_timeout_s), 1, 300, "5", "s", "upstream does not answer"),
	UINT("half_closed_timeout_s", L(half_closed_timeout_s), 1, 86400, "60", "s", "silent after one end has closed its direction"),
	UINT("max_session_s", L(max_session_s), 0, 31536000, "0", "s", "an older session is closed: the device connects anew; 0 = never"),
	UINT("resumption_s", L(resumption_s), 0, 604800, "0", "s", "for so long after its certificate was seen a device may come back with a ticket (TLS 1.3); 0 = never"),
	UINT("handshakes_max", L(handshakes_max), 1, 1000000, "1000", NULL, "unfinished ones at a time and worker"),
	UINT("handshakes_s", L(handshakes_s), 0, 1000000, "0", "a second", "begun, of a worker; 0 = no limit"),
	UINT("handshakes_each", L(handshakes_each), 0, 1000000, "0", NULL, "unfinished ones of each source address; 0 = a quarter of handshakes_max"),
	UINT("handshakes_each_s", L(handshakes_each_s), 0, 1000000, "0", "a second", "begun, of each source address; 0 = no limit"),
	UINT("sessions_max", L(sessions_max), 1, 1000000, "10000", NULL, "at a time and worker"),
	{0}
};

/* The groups' keys lie in gw_config itself, so their offset is 0. */
static const struct schema_key gw_schema[] = {
	{"gateway", KEY_GROUP, .def = NULL, .doc = "this box", .sub = gateway_keys},
	{"dataplane", KEY_GROUP, .def = "", .doc = "the packet path", .sub = dataplane_keys},
	{"limits", KEY_GROUP, .def = "", .doc = "how much anybody may use", .sub = limits_keys},
	{"tls", KEY_GROUP, .def = "", .doc = "workers of listeners with transport = \"stack\"", .sub = tls_keys},
	{"controller", KEY_GROUP, .def = "", .doc = "where decisions come from", .sub = controller_keys},
	{"metrics", KEY_GROUP, .def = "", .doc = "Prometheus text over HTTP", .sub = metrics_keys},
	{"ports", KEY_GROUPS, .min = 1, .max = MSG_PORTS_MAX, .def = NULL, .doc = "physical and virtual ports", .sub = port_keys, .slot = port_slot},
	{"routes", KEY_GROUPS, .min = 0, .max = GW_ROUTES_MAX, .def = "", .doc = "static routes", .sub = route_keys, .slot = route_slot},
	{"listeners", KEY_GROUPS, .min = 0, .max = MSG_LISTENERS_MAX, .def = "", .doc = "where devices knock: mTLS", .sub = listener_keys, .slot = listener_slot},
	{0}
};
/* clang-format on */

/* "net_af_xdp0,iface=eth1,..." > "eth1" */
static void raw_interface(struct gw_port *p)
{
	const char *at = strstr(p->devargs, ",iface=");
	size_t n;

	if (at == NULL || (strncmp(p->devargs, "net_af_xdp", 10) != 0 &&
			   strncmp(p->devargs, "eth_af_packet", 13) != 0 &&
			   strncmp(p->devargs, "net_af_packet", 13) != 0))
		return;
	at += strlen(",iface=");
	n = strcspn(at, ",");
	if (n > 0 && n < sizeof(p->raw))
		memcpy(p->raw, at, n);
}

static void vlans_check(struct gw_config *c, struct gw_port *p, const char *key,
			struct config_errors *errs)
{
	char name[64];

	for (unsigned i = 1; i < p->n_vlans; i++) {
		struct gw_vlan *v = &p->vlans[i];

		v->id = subinterface_id(v->outer, v->tag);
		if (v->outer != 0 &&
		    snprintf(name, sizeof(name), "%s.%u.%u", p->tap, v->outer, v->tag) > 15)
			config_error(
				errs, c->file, 0, key,
				"VLAN %u in %u: the kernel's name for it, %s, is longer than 15 "
				"characters; give the port a shorter name",
				v->tag, v->outer, name);
		for (unsigned j = 1; j < i; j++) {
			const struct gw_vlan *w = &p->vlans[j];

			if (v->outer == w->outer && v->tag == w->tag)
				config_error(errs, c->file, 0, key, "VLAN %u is there twice",
					     v->tag);
			else if (v->id == w->id)
				config_error(
					errs, c->file, 0, key,
					"VLAN %u in %u cannot be with VLAN %u in %u on one port; "
					"take another id for one of them",
					v->tag, v->outer, w->tag, w->outer);
			else if ((v->outer == 0 && w->outer == v->tag) ||
				 (w->outer == 0 && v->outer == w->tag))
				config_error(errs, c->file, 0, key,
					     "%u is both a VLAN and an outer tag",
					     v->outer == 0 ? v->tag : w->tag);
		}
	}
}

static void port_check(struct gw_config *c, struct gw_port *p, struct config_errors *errs)
{
	char key[64];

	snprintf(key, sizeof(key), "ports.%s", p->name);
	if ((p->devargs[0] == '\0') == (p->kernel[0] == '\0'))
		config_error(errs, c->file, 0, key, "must have either devargs or kernel");
	if (strlen(p->name) > 12)
		config_error(errs, c->file, 0, key, "name is longer than 12 characters");
	if (p->n_vlans == 0)
		p->n_vlans = 1;
	snprintf(p->tap, sizeof(p->tap), p->devargs[0] != '\0' ? "sp-%.12s" : "%.15s",
		 p->devargs[0] != '\0' ? p->name : p->kernel);
	raw_interface(p);
	if (!p->untagged && p->vlans[0].n_addrs > 0)
		config_error(errs, c->file, 0, key,
			     "has addresses without a VLAN, but untagged = false");
	vlans_check(c, p, key, errs);
	for (struct gw_port *q = c->ports; q < p; q++) {
		if (strcmp(q->name, p->name) == 0)
			config_error(errs, c->file, 0, key, "name is there twice");
		else if (strcmp(q->tap, p->tap) == 0 ||
			 (p->raw[0] != '\0' && strcmp(q->raw, p->raw) == 0))
			config_error(errs, c->file, 0, key, "shares an interface with %s", q->name);
	}
}

static void dtls_check(const struct gw_config *c, const struct gw_listener *l, const char *key,
		       struct config_errors *errs)
{
	if (l->protocol != GW_DTLS && l->aes_ccm)
		config_error(errs, c->file, 0, key, "aes_ccm goes with protocol = \"dtls\" alone");
	if (l->protocol != GW_DTLS)
		return;
	if (l->resumption_s != 0)
		config_error(errs, c->file, 0, key,
			     "protocol = \"dtls\" goes without resumption_s: a device with a "
			     "connection ID keeps its session instead");
	if (l->upstream_tls.line != 0)
		config_error(errs, c->file, 0, key,
			     "protocol = \"dtls\" goes without upstream_tls: its upstream gets "
			     "plain UDP");
}

static void listener_check(struct gw_config *c, struct gw_listener *l, struct config_errors *errs)
{
	char key[64];

	snprintf(key, sizeof(key), "listeners.%s", l->name);
	if (gw_address_home(c, &l->addr, NULL) == NULL)
		config_error(errs, c->file, 0, key, "address is not one of the ports' addresses");
	upstream_check(c, l, key, errs);
	dtls_check(c, l, key, errs);
	certificate_check(c, l, key, errs);
	for (struct gw_listener *q = c->listeners; q < l; q++) {
		if (strcmp(q->name, l->name) == 0)
			config_error(errs, c->file, 0, key, "name is there twice");
		if (ip_addr_eq(&q->addr, &l->addr) && q->port == l->port &&
		    q->protocol == l->protocol)
			config_error(errs, c->file, 0, key, "shares address and port with %s",
				     q->name);
	}
}

/* A relative path is relative to the file that names it, not to where the daemon was started. */
static void path_resolve(char *path, const char *file)
{
	const char *slash = strrchr(file, '/');
	char joined[GW_PATH_BYTES * 2];

	if (path[0] == '\0' || path[0] == '/' || slash == NULL)
		return;
	snprintf(joined, sizeof(joined), "%.*s/%s", (int)(slash - file), file, path);
	if (strlen(joined) < GW_PATH_BYTES)
		strcpy(path, joined);
}

static void config_check(struct gw_config *c, struct config_errors *errs)
{
	static const uint8_t loopback6[16] = {[15] = 1};

	for (unsigned i = 0; i < c->n_ports; i++)
		port_check(c, &c->ports[i], errs);
	for (unsigned i = 0; i < c->n_listeners; i++) {
		struct gw_listener *l = &c->listeners[i];

		listener_check(c, l, errs);
		path_resolve(l->certificate, c->file);
		path_resolve(l->key, c->file);
		if (l->handshakes_each == 0)
			l->handshakes_each = l->handshakes_max / 4 + 1;
		path_resolve(l->ocsp, c->file);
		for (unsigned k = 0; k < l->n_certificates; k++) {
			path_resolve(l->certificates[k].certificate, c->file);
			path_resolve(l->certificates[k].key, c->file);
			path_resolve(l->certificates[k].ocsp, c->file);
		}
		path_resolve(l->ca, c->file);
		path_resolve(l->crl, c->file);
		path_resolve(l->upstream_tls.ca, c->file);
		path_resolve(l->upstream_tls.certificate, c->file);
		path_resolve(l->upstream_tls.key, c->file);
	}
	gw_tls_check(c, errs);
	path_resolve(c->segments, c->file);
	path_resolve(c->controller_key, c->file);
	if (strlen(c->run_dir) > MSG_PATH_BYTES - 24)
		config_error(errs, c->file, 0, "gateway.run_dir", "too long for a socket's name");
	if (c->metrics_port != 0 && memcmp(c->metrics_addr.b, loopback6, 16) != 0 &&
	    !(ip_addr_is_v4(&c->metrics_addr) && c->metrics_addr.b[12] == 127))
		config_error(errs, c->file, 0, "metrics.address", "must be a loopback address");
}

int gw_config_load(struct gw_config **out, const char *path, struct config_errors *errs)
{
	struct gw_config *c = calloc(1, sizeof(*c));
	char *text = NULL;
	int ret = -ENOMEM;

	if (c == NULL)
		return ret;
	snprintf(c->file, sizeof(c->file), "%s", path);
	ret = schema_slurp(&text, path, errs);
	if (ret < 0)
		goto fail;
	ret = schema_read(c, gw_schema, text, path, errs);
	config_check(c, errs);
	if (ret == 0 && errs->n > 0)
		ret = -EINVAL;
	if (ret < 0)
		goto fail;
	free(text);
	*out = c;
	return 0;
fail:
	free(text);
	gw_config_free(c);
	return ret;
}

void gw_config_free(struct gw_config *cfg)
{
	free(cfg);
}

void gw_config_reference(FILE *to)
{
	schema_print(to, gw_schema);
}

const char *gw_run_path(const struct gw_config *cfg, const char *leaf, char *out)
{
	snprintf(out, MSG_PATH_BYTES, "%.84s/%.22s", cfg->run_dir, leaf);
	return out;
}
