/* SPDX-License-Identifier: GPL-3.0-or-later */
/* gateway: gateway.cfg as a struct: this box, its ports, listeners, paths, controller. Who may talk to whom is in
 * segments.cfg (segments.h). Text > parse > check > struct; no running code sees libconfig. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "config/base/log.h"
#include "config/base/msg.h"
#include "config/errors.h"

#define GW_ADDRS_MAX 8 /* a port or VLAN */
#define GW_ROUTES_MAX 64
#define GW_PATH_BYTES 256
#define GW_UPSTREAM_NONE 0
#define GW_SHUT_MAX 16

/* Who carries a listener's sessions: the kernel's sockets, or the TLS worker's own stack on the fast path. */
enum gw_transport { GW_SOCKET, GW_STACK };

/* When a packet mid-stream may open its flow. */
enum pickup { PICKUP_RESTART, PICKUP_NEVER, PICKUP_ALWAYS };

struct gw_ifaddr {
	struct ip_addr addr;
	uint8_t len; /* of the 128-bit form */
};

struct gw_vlan {
	uint16_t id; /* subinterface_id(); 0: untagged */
	uint16_t tag, outer; /* as on the wire; outer 0: a plain VLAN, whose tag is the id */
	uint8_t n_addrs;
	struct gw_ifaddr addrs[GW_ADDRS_MAX];
};

struct gw_port {
	char name[16];
	char devargs[192]; /* "" when kernel is set */
	char kernel[16]; /* kernel-only interface; "" when devargs is set */
	char tap[16]; /* shadow's name: "sp-<name>"; of a kernel-only port, the interface itself */
	char raw[16]; /* kernel interface under an AF_XDP or AF_PACKET port (from devargs iface=); "" if none */
	uint8_t side; /* enum port_side */
	bool untagged;
	bool isolated; /* peers in one subnet reach each other through the box: answer ARP and ND for them */
	uint16_t mtu_bytes;
	uint8_t n_vlans; /* entries of vlans; [0] is id 0 when untagged */
	struct gw_vlan vlans[MSG_VLANS_MAX];
};

struct gw_route {
	struct ip_prefix to;
	struct ip_addr via;
};

#define GW_UPSTREAMS_MAX 8 /* msg_admitted.relay has a bit for each */

struct gw_upstream {
	struct ip_addr addr;
	uint16_t port;
	uint16_t weight; /* of new sessions */
};

struct gw_upstream_check { /* only where there is another one to turn to */
	uint32_t interval_s; /* 0: never */
	uint32_t timeout_s;
	uint32_t rise, fall; /* in a row */
};

struct gw_upstream_tls {
	uint32_t line; /* in the file; 0: plain TCP */
	char ca[GW_PATH_BYTES]; /* PEM bundle, roots */
	char certificate[GW_PATH_BYTES], key[GW_PATH_BYTES]; /* PEM; "": none */
	char name[256]; /* in the server's certificate, and SNI; "": its address must be in it */
	bool tls12, alpn;
};

/* What the PROXY header says beside the addresses. */
#define PROXY_SSL 1u
#define PROXY_CERTIFICATE 2u /* the device's, whole */
#define PROXY_AUTHORITY 4u
#define PROXY_ALPN 8u
#define PROXY_UNIQUE_ID 16u
#define PROXY_CRC32C 32u
#define PROXY_IDENTITY 64u
#define PROXY_SEGMENT 128u
#define PROXY_STANDING 256u
#define PROXY_CERT_SHA256 512u

#define GW_CERTIFICATES_MAX 8 /* a listener, beside its default one */
#define GW_NAMES_MAX 8 /* a certificate */
#define GW_NAME_BYTES 254

struct gw_certificate { /* one that SNI chooses */
	char certificate[GW_PATH_BYTES], key[GW_PATH_BYTES]; /* PEM files, chain and key */
	char ocsp[GW_PATH_BYTES]; /* DER file; "": none */
	uint32_t n_names;
	char names[GW_NAMES_MAX][GW_NAME_BYTES]; /* lower case; "*.lab": one label for the star */
};

enum gw_protocol { GW_TLS, GW_DTLS }; /* over TCP, over UDP */

/* Of a listener in the agent, behind those of the file: its place has another one's upstreams now, or nobody's. */
enum gw_left { GW_LISTENER_STAYS, GW_LISTENER_BEFORE, GW_LISTENER_CLOSING };

struct gw_listener {
	char name[32];
	uint8_t protocol; /* enum gw_protocol; its upstream is TCP or UDP alike */
	struct ip_addr addr;
	uint16_t port;
	char certificate[GW_PATH_BYTES], key[GW_PATH_BYTES]; /* PEM files, own chain and key */
	char ocsp[GW_PATH_BYTES]; /* DER file, stapled; "": none */
	struct gw_certificate certificates[GW_CERTIFICATES_MAX];
	uint32_t n_certificates;
	bool sni_required; /* no name, or an unknown one, is refused */
	char alpn[256]; /* with commas between them, the first is preferred; "": not asked */
	char ca[GW_PATH_BYTES]; /* PEM bundle, roots that device certificates chain to */
	char crl[GW_PATH_BYTES]; /* PEM or DER file or folder; "" = none */
	enum gw_transport transport;
	struct gw_upstream upstreams[GW_UPSTREAMS_MAX];
	uint32_t n_upstreams; /* 1 at least */
	bool upstream_alone, upstreams_given; /* by which key */
	struct gw_upstream_check upstream_check;
	struct gw_upstream_tls upstream_tls;
	bool proxy_protocol; /* PROXY protocol v2 to the upstream */
	uint32_t proxy_tlvs; /* PROXY_* */
	bool aes_ccm; /* DTLS: AES-CCM too, last choice */
	bool tls12; /* also TLS 1.2 (ECDHE-AEAD); default false: 1.3 only */
	uint32_t handshake_timeout_s, idle_timeout_s, connect_timeout_s;
	uint32_t half_closed_timeout_s; /* silent after one end has closed its direction */
	uint32_t max_session_s; /* then it is closed; 0: never */
	uint32_t resumption_s; /* for so long a session may be resumed; 0: never */
	uint32_t handshakes_max; /* unfinished at a time, of this listener and worker */
	uint32_t handshakes_s; /* begun a second; 0: no limit */
	uint32_t handshakes_each,
		handshakes_each_s; /* the same of each source address; 0: no limit */
	uint32_t sessions_max; /* at a time, of this listener and worker */
	/* not of the file, the agent's: a listener that is there for its sessions alone, and how long at most */
	uint8_t left; /* enum gw_left */
	uint64_t until_ms; /* GW_LISTENER_CLOSING: boot clock */
};

struct gw_config {
	char file[GW_PATH_BYTES];
	char name[64]; /* of the gateway, in receipts */
	char run_dir[GW_PATH_BYTES]; /* sockets, trust table */
	char state_dir[GW_PATH_BYTES]; /* store */
	char segments[GW_PATH_BYTES]; /* segments.cfg, relative to gateway.cfg's folder */
	char user[32]; /* of the TLS workers; the agent's socket accepts this uid and root */
	enum log_level log_level;
	uint32_t devices_max; /* trust table slots */
	uint32_t binding_lease_s; /* after a device's last session has ended */
	uint32_t drain_s; /* a TLS worker that is to end lets its sessions finish for so long */
	uint32_t kernel_lease_s; /* agent silent for so long: the kernel path shuts */
	uint32_t strangers; /* STRANGER_* */

	/* dataplane */
	char lcores[64];
	uint32_t main_lcore, memory_mb, flows_max, neighbours_max;
	bool hugepages, poll_always;
	uint32_t tcp_established_s, tcp_opening_s, tcp_closing_s, udp_s, udp_unanswered_s, icmp_s;
	uint32_t refused_ms, pickup_ms;
	uint8_t pickup; /* enum pickup */

	struct msg_limits limits;

	/* tls: of listeners with transport = "stack" */
	uint32_t tls_workers; /* processes: sallyport-tls-proxy --worker 0 .. tls_workers - 1 */
	uint16_t tls_port_first,
		tls_port_last; /* source ports to upstreams; worker N has those with
						   port % tls_workers == N */
	uint32_t n_tls_addrs; /* 0: see gw_upstream_sources() */
	struct ip_addr tls_addrs[MSG_SOURCES_MAX]; /* to send from to upstreams */
	/* not of the file: all of gw_upstream_sources() as the file was read; ports that come and go do not move them */
	uint32_t n_tls_sources;
	struct ip_addr tls_sources[MSG_SOURCES_MAX];

	/* controller */
	char controller_socket[GW_PATH_BYTES]; /* embedded transport: decisions */
	char controller_key[GW_PATH_BYTES]; /* public key file (COSE_Key or hex Ed25519) */
	uint32_t controller_skew_s; /* tolerated difference of wall clocks */

	/* metrics */
	struct ip_addr metrics_addr;
	uint16_t metrics_port; /* 0 = off */
	bool metrics_devices; /* counters of each device too */

	uint32_t n_ports, n_routes,
		n_listeners; /* ports that were removed leave a slot without name */
	struct gw_port ports[MSG_PORTS_MAX];
	struct gw_route routes[GW_ROUTES_MAX];
	struct gw_listener listeners[MSG_LISTENERS_MAX];

	/* not of the file: the process was started with the stack, so listeners of it can be added; and the last can go */
	bool stack_ready;
	/* not of the file: interfaces that were ports of this run, and stay shut */
	uint32_t n_shut;
	char shut[GW_SHUT_MAX][16];
};

/**
 * Load and check gateway.cfg. Reports every error that it finds, not only the first.
 * @param[out] out  caller owns, gw_config_free(); untouched on error
 * @return 0, -EINVAL with the errors in errs, or -errno
 */
int gw_config_load(struct gw_config **out, const char *path, struct config_errors *errs);
void gw_config_free(struct gw_config *cfg); /* NULL is a no-op */

/** The reference of gateway.cfg: every key with type, range, unit, default and meaning. */
void gw_config_reference(FILE *to);

/** What carries a listener's packets, and those to its upstream. @return POLICY_PROTO_TCP or POLICY_PROTO_UDP */
static inline uint8_t gw_listener_proto(const struct gw_listener *l)
{
	return l->protocol == GW_DTLS ? POLICY_PROTO_UDP : POLICY_PROTO_TCP;
}

/** "<run_dir>/<leaf>" into out (MSG_PATH_BYTES). @return out */
const char *gw_run_path(const struct gw_config *cfg, const char *leaf, char *out);

/** Is there a listener with transport = "stack", or was there one when the process started? */
bool gw_uses_stack(const struct gw_config *cfg);

/**
 * From which of its addresses the box speaks to an upstream of a stack listener: tls.upstream_addresses of its family,
 * else the address of the port whose subnet holds the upstream, or its static route's gateway. The nearest comes first.
 * @return how many there are in out, at most max; 0: none
 */
unsigned gw_upstream_sources(const struct gw_config *cfg, const struct ip_addr *upstream,
			     struct ip_addr *out, unsigned max);
/** The first of them. @return 0 or -EADDRNOTAVAIL */
int gw_upstream_source(const struct gw_config *cfg, const struct ip_addr *upstream,
		       struct ip_addr *out);

/** Bytes of an IP packet that the workers' stack sends from this address: the MTU of the DPDK port that has it; of an
 * address that none has, what fits through each of them. 0: there is no such port */
uint16_t gw_stack_mtu(const struct gw_config *cfg, const struct ip_addr *own);
/** The largest MTU of a DPDK port; 0: there is none */
uint16_t gw_stack_mtu_max(const struct gw_config *cfg);
