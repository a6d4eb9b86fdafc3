/* SPDX-License-Identifier: GPL-3.0-or-later */
/* msg: what the processes say to each other, beside the trust table. Fixed structs over one Unix SOCK_SEQPACKET
 * socket (gateway.cfg run_dir "/agent.sock"); one packet is one struct. The agent listens; the dataplane and
 * the TLS workers connect, and connect again when the agent was away. Same machine, same build: host byte order.
 *
 * The receiver checks type, length and every index before use. A bad message costs its sender the connection,
 * never the process. The agent takes a role only from a peer of the right uid (SO_PEERCRED).
 *
 * Dataplane:  HELLO > WELCOME, DP_CONFIG > (EAL and ports come up) DP_READY >
 *             SYNC_BEGIN, POLICY_PREPARE, POLICY_COMMIT, ROUTE_ADD*, NEIGH_ADD*, BIND_ADD*, SYNC_END > OK
 *             then changes as they come. On SYNC_END the dataplane forgets whatever the sync did not name again
 *             (mark and sweep), so an agent's restart disturbs no flow.
 * TLS worker: HELLO > WELCOME; ADMIT > ADMITTED a handshake; SESSION_CLOSED; RECHECK > RECHECKED.
 *             After a reconnect it sends ADMIT again for every live session (readmit = 1).
 *             RELOAD_PREPARE > OK or ERROR, then RELOAD_COMMIT > OK, or RELOAD_ABORT: the listeners of gateway.cfg anew,
 *             in all processes or in none. RELOAD_WANTED asks the agent for one.
 * A request carries a seq that its reply repeats; seq 0 asks for no reply. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "config/base/addr.h"
#include "config/base/err.h"
#include "config/base/policy.h"
#include "config/base/reason.h"

#define MSG_VERSION 3
#define MSG_PORTS_MAX 16
#define MSG_VLANS_MAX 16
#define MSG_LISTENERS_MAX 32
#define MSG_TLS_WORKERS_MAX 16
#define MSG_UPSTREAMS_MAX 256
#define MSG_SOURCES_MAX 16
#define MSG_IDENTITY_BYTES 256
#define MSG_PATH_BYTES 108
#define MSG_SWEEP_SLOTS 64

enum msg_type {
	MSG_HELLO = 1, /* peer > agent */
	MSG_WELCOME, /* agent > peer */
	MSG_OK, /* reply: done; struct msg_result */
	MSG_ERROR, /* reply: not done; struct msg_result */

	MSG_DP_CONFIG = 16, /* agent > dataplane */
	MSG_DP_READY, /* dataplane > agent: ports are up */
	MSG_SYNC_BEGIN, /* struct msg_hdr alone */
	MSG_SYNC_END, /* struct msg_hdr alone; OK */
	MSG_POLICY_PREPARE, /* fd of a sealed memfd with a policy form; OK once it can be committed */
	MSG_POLICY_COMMIT, /* struct msg_policy; OK once every worker uses it */
	MSG_POLICY_ABORT, /* struct msg_policy; forget what was prepared */
	MSG_ROUTE_ADD, /* struct msg_route, replaces an equal prefix */
	MSG_ROUTE_DEL,
	MSG_NEIGH_ADD, /* struct msg_neigh, replaces */
	MSG_NEIGH_DEL,
	MSG_BIND_ADD, /* struct msg_bind, replaces the binding of this IP; OK */
	MSG_BIND_DEL,
	MSG_FLOW_ORIGIN, /* struct msg_flow_origin request and reply */
	MSG_SWEEP, /* struct msg_sweep request; reply when all lcores have closed the device's stale flows */
	MSG_FLOWS_GET, /* struct msg_flows_get; replies: FLOW_INFO*, then OK */
	MSG_FLOW_INFO,
	MSG_STATS_GET, /* struct msg_hdr alone; reply STATS */
	MSG_STATS,
	MSG_FLOW_LOG, /* dataplane > agent: a flow started under a rule with log = true, or was refused (sampled) */
	MSG_TALLIES_GET, /* struct msg_tallies_get; replies: TALLIES*, then OK */
	MSG_TALLIES,
	MSG_TRACE_ARM, /* struct msg_trace_arm: replaces the one before; OK */
	MSG_TRACE_DISARM, /* struct msg_trace_arm, id alone; OK */
	MSG_TRACED, /* dataplane > agent: a packet of the trace */
	MSG_JUDGE, /* struct msg_judge; reply JUDGED */
	MSG_JUDGED, /* struct msg_traced */

	MSG_ADMIT = 64, /* TLS worker > agent */
	MSG_ADMITTED, /* agent > TLS worker, the reply */
	MSG_SESSION_CLOSED, /* TLS worker > agent */
	MSG_RECHECK, /* agent > TLS worker: the journal moved; reply RECHECKED */
	MSG_RECHECKED,
	MSG_HANDSHAKE_REFUSED, /* TLS worker > agent: for counters and the accountability log */
	MSG_RELOAD_PREPARE, /* struct msg_reload: read gateway.cfg and its files, listen where it is new; OK or ERROR */
	MSG_RELOAD_COMMIT, /* struct msg_reload: use what was prepared; OK */
	MSG_RELOAD_ABORT, /* struct msg_reload: forget what was prepared; OK */
	MSG_TLS_STATE_GET, /* agent > TLS worker, struct msg_hdr alone; replies: TLS_LISTENER*, then OK */
	MSG_TLS_LISTENER,
	MSG_RELOAD_WANTED, /* TLS worker > agent, struct msg_reload; OK or ERROR once it is in force or refused */
};

enum msg_role { MSG_ROLE_DATAPLANE = 1, MSG_ROLE_TLS = 2 };

struct msg_hdr {
	uint16_t type; /* enum msg_type */
	uint16_t reserved;
	uint32_t bytes; /* of the whole struct, this header included */
	uint64_t seq;
};

struct msg_hello {
	struct msg_hdr h;
	uint32_t version; /* MSG_VERSION */
	uint32_t role; /* enum msg_role */
	uint32_t pid;
	uint32_t worker; /* TLS worker's index; else 0 */
	uint64_t instance; /* random, of this run of the peer */
	uint64_t listeners; /* TLS worker: gw_listeners_hash() of those that it runs; else 0 */
};

struct msg_welcome {
	struct msg_hdr h;
	uint32_t version;
	uint32_t reserved;
	char trust_path[MSG_PATH_BYTES];
};

struct msg_result {
	struct msg_hdr h;
	int32_t code; /* 0 or -errno */
	uint32_t reserved;
	char text[ERR_MSG_BYTES];
};

/* ---- dataplane ---- */

enum port_side { PORT_DEVICE = 1, PORT_UPLINK = 2 };

struct msg_port {
	char name[16]; /* of gateway.cfg */
	char tap[16]; /* kernel interface of the shadow, or the kernel-only interface itself */
	char devargs
		[192]; /* DPDK vdev/PCI devargs; "" for a kernel-only interface (then the dataplane skips it) */
	uint8_t side; /* enum port_side */
	uint8_t untagged; /* 1: frames without a VLAN tag belong to the port (vlan 0) */
	uint16_t n_vlans;
	uint16_t vlans[MSG_VLANS_MAX]; /* tags; with an outer one, the inner */
	uint16_t outer[MSG_VLANS_MAX]; /* service tag (802.1ad); 0: none */
	uint16_t mtu_bytes;
	uint16_t reserved;
};

#define SUBINTERFACE_QINQ 4096 /* the first number that is no VLAN id */

/* Wherever a `vlan` is named: 0 without a tag, the VLAN id with one, and for a service tag and one inside it a number
 * that follows from the two alone, so it outlives every change of the configuration. Two pairs may meet in one
 * number; gateway.cfg's check takes no two such on a port. */
static inline uint16_t subinterface_id(uint16_t outer, uint16_t tag)
{
	/* the largest prime that leaves all numbers below 65535 */
	return outer == 0 ? tag : SUBINTERFACE_QINQ + ((uint32_t)outer << 12 | tag) % 61417u;
}

struct msg_listener {
	struct ip_addr addr;
	uint16_t port; /* host order */
	uint8_t proto; /* TCP or UDP */
	uint8_t stack; /* 1: its packets go to the TLS workers; 0: to the kernel */
};

/* Where the TLS workers' own stack opens connections to. */
struct msg_upstream {
	struct ip_addr addr;
	uint16_t port; /* host order */
	uint8_t proto; /* TCP or UDP */
	uint8_t reserved;
};

/* Plain Ethernet between the dataplane and TLS worker N: always these addresses, no VLAN, IP alone. */
#define TLS_LINK_MAC(n)                                                                            \
	{                                                                                          \
		{                                                                                  \
			0x02, 0x53, 0x50, 0x00, 0x01, (uint8_t)(n)                                 \
		}                                                                                  \
	} /* the worker's end */
#define TLS_LINK_MAC_DATAPLANE                                                                     \
	{                                                                                          \
		{                                                                                  \
			0x02, 0x53, 0x50, 0x00, 0x00, 0x01                                         \
		}                                                                                  \
	}

/* What a stranger on a device port may reach on the box itself, beside listeners, ARP and ND. */
#define STRANGER_DHCP 1u
#define STRANGER_DNS 2u
#define STRANGER_PING 4u

/* Of gateway.cfg: a second, or at a time; 0: no limit. */
struct msg_limits {
	uint32_t device_new_flows, device_new_flows_burst; /* tries to open one */
	uint32_t device_flows;
	uint32_t device_kernel_packets; /* to the kernel port, but for listeners */
	uint32_t device_tls_packets; /* to listeners */
	uint32_t network_new_flows, network_flows_pct; /* all networks; pct of flows_max */
	uint32_t stranger_packets, stranger_each_packets;
	uint32_t stranger_new_flows, stranger_each_new_flows; /* to listeners */
	uint32_t
		listener_flows_pct; /* records of connections to listeners; pct of flows_max, 0: LISTENER_FLOWS_PCT */
};

#define LISTENER_FLOWS_PCT 50

#define MSG_PICKUP_ALWAYS UINT32_MAX /* of pickup_ms */

struct msg_dp_config {
	struct msg_hdr h;
	char lcores[64]; /* EAL core list of the workers, e.g. "1" or "2-3" */
	uint32_t main_lcore;
	uint32_t memory_mb;
	uint8_t hugepages; /* 0: --no-huge */
	uint8_t poll_always; /* 1: never back off */
	uint16_t n_ports;
	uint16_t n_listeners;
	uint16_t stranger_services; /* STRANGER_* */
	uint32_t flows_max; /* per lcore */
	uint32_t neighbours_max;
	uint32_t reserved_neighbours; /* 0 */
	uint32_t bindings_max;
	uint32_t slots; /* of the trust table; 0: as many as bindings_max */
	struct msg_limits limits;
	uint32_t tcp_established_s, tcp_opening_s, tcp_closing_s; /* flow idle limits */
	uint32_t udp_s, udp_unanswered_s, icmp_s; /* flow idle limits */
	uint32_t refused_ms; /* how long a refusal is cached */
	uint32_t
		pickup_ms; /* after a dataplane restart: how long a TCP packet mid-stream may open its flow;
			   MSG_PICKUP_ALWAYS: for ever */
	char file_prefix[32]; /* EAL --file-prefix */
	/* of listeners with `stack`; without one tls_workers is 0 */
	char tls_dir[MSG_PATH_BYTES]; /* of the workers' sockets, "tls<N>.sock" */
	uint16_t tls_workers;
	uint16_t tls_port_first, tls_port_last; /* source ports to upstreams */
	uint16_t n_upstreams, n_sources;
	uint16_t reserved_tls; /* 0 */
	struct msg_upstream upstreams[MSG_UPSTREAMS_MAX];
	struct ip_addr sources[MSG_SOURCES_MAX]; /* from which the workers speak to upstreams */
	struct msg_port ports[MSG_PORTS_MAX]; /* index = port number everywhere */
	struct msg_listener listeners[MSG_LISTENERS_MAX];
};

struct msg_policy {
	struct msg_hdr h;
	uint64_t epoch;
};

#define MSG_PORT_LINK MSG_PORTS_MAX /* and behind it: the links to the TLS workers */
#define MSG_PORT_KERNEL 0xffff /* leaves or enters by an interface that DPDK does not have */

enum route_kind {
	ROUTE_FORWARD = 1, /* through port/vlan, by way of gateway or on-link */
	ROUTE_LOCAL, /* an address of the box, broadcast or multicast: to the kernel port */
	ROUTE_DROP, /* blackhole, unreachable: to the kernel port, which answers as it should */
};

struct msg_route {
	struct msg_hdr h;
	struct ip_prefix prefix;
	uint8_t kind; /* enum route_kind */
	uint8_t has_gateway; /* 0: on-link */
	uint16_t port; /* or MSG_PORT_KERNEL */
	uint16_t vlan; /* 0 = untagged */
	uint16_t mtu_bytes; /* 0 = the port's */
	struct ip_addr gateway;
};

struct msg_neigh {
	struct msg_hdr h;
	struct ip_addr ip;
	struct mac_addr mac;
	uint16_t port;
	uint16_t vlan;
};

struct msg_bind {
	struct msg_hdr h;
	struct ip_addr ip; /* the key: an address is bound once on the whole box */
	struct mac_addr mac;
	uint16_t
		port; /* may be a kernel-only port: the dataplane then knows that the IP is a device's */
	uint16_t vlan;
	uint16_t reserved;
	uint32_t slot; /* of the trust table */
};

struct flow_key {
	struct ip_addr src, dst;
	uint16_t sport, dport; /* host order; ICMP echo: identifier in both; other protocols: 0 */
	uint8_t proto;
	uint8_t reserved[3];
};

struct msg_flow_origin {
	struct msg_hdr h;
	struct flow_key key; /* as the device sees it: src is the device */
	uint8_t found; /* reply */
	uint8_t reserved;
	struct mac_addr mac; /* reply: of the frames */
	uint16_t port; /* reply */
	uint16_t vlan; /* reply */
};

struct msg_sweep {
	struct msg_hdr h;
	uint32_t n_slots; /* 0: every flow that is not current */
	uint32_t slot[MSG_SWEEP_SLOTS];
	uint32_t
		closed; /* reply: flows removed, of these slots or of others that were asked for meanwhile */
	uint32_t reserved;
	uint64_t
		last_forward_us; /* reply: boot clock, when a packet of these flows last passed, rounded up to 64 us; 0 = never */
};

#define MSG_FLOWS_TOP_MAX 1024
#define MSG_ANY 0xffff

enum msg_flows_order { FLOWS_AS_THEY_LIE, FLOWS_BY_PACKETS, FLOWS_BY_BYTES };

struct msg_flows_get {
	struct msg_hdr h;
	uint32_t slot; /* 0: any */
	uint32_t
		max; /* at most so many FLOW_INFO; with an order, at most MSG_FLOWS_TOP_MAX of each worker */
	uint16_t segment; /* endpoint id at either end; 0: any */
	uint16_t rule; /* index of the policy in force; MSG_ANY: any */
	uint8_t state; /* enum flow_state; 0xff: any */
	uint8_t order; /* enum msg_flows_order; the largest first */
	uint8_t reserved[2];
};

enum flow_state {
	FLOW_NEW,
	FLOW_OPENING,
	FLOW_ESTABLISHED,
	FLOW_CLOSING,
	FLOW_REFUSED,
	FLOW_DIVERTED
};

const char *flow_state_name(unsigned state);

struct msg_flow_info {
	struct msg_hdr h;
	struct flow_key key; /* as the opener sees it */
	uint32_t slot_src, slot_dst; /* 0: not a device */
	uint16_t segment_src, segment_dst;
	uint16_t port_in, vlan_in;
	uint16_t rule; /* index of the policy form with this epoch; 0xffff: none */
	uint8_t state; /* enum flow_state */
	uint8_t current; /* would the next packet pass without another admission? */
	uint64_t epoch;
	uint64_t packets, bytes; /* both directions */
	uint64_t idle_ms;
};

struct msg_stats_port {
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
	uint64_t to_kernel, from_kernel;
	/* the NIC's own word: no descriptor was free, bad frames, no buffer was free, not sent */
	uint64_t nic_missed, nic_rx_errors, nic_no_buffer, nic_tx_errors;
	uint8_t link_up;
	uint8_t present; /* 0: configured, and not there */
	uint8_t reserved[6];
};

struct msg_stats {
	struct msg_hdr h;
	uint64_t drops[64]; /* by enum drop_reason */
	uint64_t forwarded; /* packets that the fast path sent by a port */
	uint64_t lane; /* packets that the fast lane judged */
	uint64_t diverted; /* to a listener */
	uint64_t admissions, refusals;
	uint64_t flows, flows_max; /* now; room */
	uint64_t bindings, routes, neighbours;
	uint64_t buffers,
		buffers_free; /* of packets, for all ports; what a worker caches is free */
	uint64_t busy_cycles, total_cycles; /* of the workers */
	uint64_t started_ms; /* boot clock */
	uint32_t n_ports;
	uint32_t n_lcores;
	struct msg_stats_port ports[MSG_PORTS_MAX];
	uint32_t n_tls; /* links to TLS workers */
	uint32_t reserved;
	struct msg_stats_port tls[MSG_TLS_WORKERS_MAX]; /* present: the worker is there */
};

_Static_assert(DROP_REASON_COUNT <= 64, "msg_stats has room for every reason");

/* What counts in lists. A request names the lists, each reply carries a part of one; a worker sends its own, so that
 * the receiver adds up entries of one name. */
enum tally_kind { TALLY_ACCOUNTS = 1, TALLY_DEVICES, TALLY_LCORES };

#define TALLY_BIT(kind) (1u << (kind))

struct msg_tallies_get {
	struct msg_hdr h;
	uint32_t kinds; /* TALLY_BIT()s */
	uint32_t slot; /* TALLY_DEVICES: of this one alone; 0: of all */
};

#define MSG_TALLY_ACCOUNTS 24
#define MSG_TALLY_DEVICES 48
#define MSG_TALLY_LCORES 16

/* Packets under one rule from one endpoint to another: that passed, or were refused for this reason. */
struct msg_tally_account {
	char rule[POLICY_NAME_BYTES], from[POLICY_NAME_BYTES],
		to[POLICY_NAME_BYTES]; /* "": none, or not known */
	uint8_t reason; /* enum drop_reason; 0: passed */
	uint8_t reserved[7];
	uint64_t packets, bytes;
	uint64_t flows; /* started; of a refusal: judgements */
	uint64_t open; /* flows now */
};

struct msg_tally_device {
	uint32_t slot;
	uint32_t reserved;
	uint64_t packets, bytes; /* that passed by the fast path, both directions */
	uint64_t flows, open; /* started; now */
	uint64_t refused; /* packets */
	uint64_t diverted; /* packets to a listener */
};

struct msg_tally_lcore {
	uint32_t worker, cpu;
	uint64_t busy_cycles, total_cycles; /* busy: rounds with work */
	uint64_t packets, bursts; /* of ports and of other workers; bursts that were not empty */
	uint64_t handed; /* packets given to other workers */
	uint64_t ring_dropped; /* of those, that found the ring full */
	uint64_t flows, flows_max;
};

struct msg_tallies {
	struct msg_hdr h;
	uint16_t kind; /* enum tally_kind */
	uint16_t n; /* entries */
	uint32_t reserved;
	union {
		struct msg_tally_account account[MSG_TALLY_ACCOUNTS];
		struct msg_tally_device device[MSG_TALLY_DEVICES];
		struct msg_tally_lcore lcore[MSG_TALLY_LCORES];
	};
};

/** Are kind, number and texts of a TALLIES possible? */
bool msg_tallies_check(const struct msg_tallies *m);

struct msg_flow_log {
	struct msg_hdr h;
	struct flow_key key;
	uint32_t slot_src, slot_dst;
	uint16_t rule; /* 0xffff: none */
	uint8_t reason; /* enum drop_reason; 0: admitted */
	uint8_t reserved;
	uint32_t more; /* not 0: so many like this were left out; nothing else is set then */
	uint64_t epoch;
};

/* ---- tracing ---- */

#define MSG_TRACE_COUNT_MAX 1000
#define MSG_TRACE_MS_MAX 600000

enum trace_field { /* which of a filter's fields count */
		   TRACE_SRC = 1,
		   TRACE_DST = 2,
		   TRACE_HOST = 4, /* src or dst */
		   TRACE_PROTO = 8,
		   TRACE_SPORT = 16,
		   TRACE_DPORT = 32,
		   TRACE_PORT = 64,
		   TRACE_VLAN = 128,
		   TRACE_DEVICE = 256, /* at either end */
		   TRACE_REASON = 512,
		   TRACE_DROP = 1024, /* packets that die */
		   TRACE_FIELDS = 2047
};

struct msg_trace_filter { /* all that are named must fit; as the packet was sent */
	uint32_t fields; /* enum trace_field bits */
	uint32_t slot;
	struct ip_prefix src, dst, host;
	uint8_t proto;
	uint8_t reason; /* enum drop_reason */
	uint16_t sport, dport;
	uint16_t in_port, vlan;
	uint16_t reserved;
};

struct msg_trace_arm {
	struct msg_hdr h;
	uint64_t id;
	uint32_t count; /* packets; 1..MSG_TRACE_COUNT_MAX */
	uint32_t for_ms; /* 1..MSG_TRACE_MS_MAX */
	struct msg_trace_filter filter;
};

enum traced_stage { /* the last one that saw the packet */
		    TRACED_PARSE,
		    TRACED_GUARD,
		    TRACED_DIVERT,
		    TRACED_ROUTE,
		    TRACED_FLOW,
		    TRACED_REWRITE,
		    TRACED_LINK, /* a TLS worker's: no other stage but parse sees it */
};

enum traced_edge { TRACED_DROPPED, TRACED_FORWARDED, TRACED_KERNEL };

enum traced_flow { /* what the flow table said */
		   TRACED_NO_FLOW,
		   TRACED_CURRENT,
		   TRACED_STALE, /* what admitted it no longer holds */
		   TRACED_REFUSED,
		   TRACED_DIVERTED,
};

struct traced_end { /* of a packet: source, destination */
	uint32_t slot; /* 0: no device */
	uint32_t generation; /* of the trust record now */
	uint32_t flow_generation; /* with which the flow was admitted */
	uint16_t segment; /* endpoint id, as admission found it; 0: none */
	uint8_t standing; /* enum standing */
	uint8_t reserved;
};

/* One packet's way. What belongs to a stage behind `stage` is 0. */
struct msg_traced {
	struct msg_hdr h;
	uint64_t id; /* of the trace; JUDGED: 0 */
	uint64_t at_us; /* boot clock */
	uint64_t epoch; /* of the policy then; 0: none */
	struct flow_key key; /* as the packet was sent */
	uint32_t frame_bytes;
	uint16_t ip_bytes;
	uint16_t in_port, vlan, worker; /* MSG_PORT_LINK + N: from TLS worker N */
	struct mac_addr src_mac, dst_mac;
	uint8_t kind; /* 0 other, 1 flow, 2 ICMP error, 3 ARP, 4 ND */
	uint8_t flags; /* TRACED_* */
	uint8_t l4_flags; /* TCP flags, or ICMP type */
	uint8_t ttl;
	uint8_t stage, edge, reason; /* where, how and why it left the path */
	uint8_t known; /* parse got as far as addresses */
	struct traced_end end[2];
	/* guard: where the source address is bound */
	struct mac_addr bound_mac;
	uint16_t bound_port, bound_vlan;
	uint8_t bound;
	/* route */
	uint8_t route_kind; /* enum route_kind; 0: none */
	uint8_t has_gateway;
	/* flow */
	uint8_t flow; /* enum traced_flow */
	uint8_t state_before, state_after; /* enum flow_state */
	uint8_t judged; /* admission was asked */
	uint8_t judged_reason; /* its answer: enum drop_reason */
	uint16_t rule; /* of `epoch`, by admission or of the flow; 0xffff: none */
	uint16_t out_port, out_vlan; /* MSG_PORT_LINK + N: to TLS worker N */
	uint64_t flow_packets; /* before this one */
	struct ip_addr gateway;
	/* rewrite */
	struct mac_addr out_src_mac, out_dst_mac;
	uint8_t out_ttl;
	uint8_t reserved[3];
};

#define TRACED_STRANGER 1u
#define TRACED_FRAGMENT 2u
#define TRACED_UNUSUAL 4u
#define TRACED_ON_LINK 8u

/* What would happen to the first packet of this flow? The dataplane sends one through all of its stages, to nowhere. */
struct msg_judge {
	struct msg_hdr h;
	struct flow_key key; /* as sent; ICMP: an echo request */
};

/** Are all indices and lengths possible? @param n_ports  of the configuration */
bool msg_trace_filter_check(const struct msg_trace_filter *f, unsigned n_ports);
bool msg_traced_check(const struct msg_traced *m, unsigned n_ports);

/* ---- TLS workers ---- */

enum identity_kind { IDENTITY_URI = 1, IDENTITY_DNS, IDENTITY_CN };

/* A device that has proved to hold the key of a certificate that chains to the listener's CA. */
struct msg_admit {
	struct msg_hdr h;
	uint64_t session; /* unique in the worker */
	struct flow_key flow; /* src = the device's end */
	uint64_t not_before_s, not_after_s; /* wall clock, of the certificate */
	uint64_t
		crl_next_update_s; /* wall clock, earliest nextUpdate of the CRLs used; 0 = no CRL configured */
	uint8_t cert_sha256[32];
	uint8_t issuer_sha256[32]; /* SHA-256 of the issuer's DER name */
	uint8_t serial[20];
	uint8_t serial_bytes;
	uint8_t identity_kind; /* enum identity_kind */
	uint8_t readmit; /* 1: live session, announced again after the agent was away */
	uint8_t reserved[5];
	uint64_t upstreams; /* gw_listener_upstreams_hash() of the listener that it came by */
	char identity[MSG_IDENTITY_BYTES]; /* URI SAN, else DNS SAN, else CN */
};

struct msg_admitted {
	struct msg_hdr h;
	uint64_t session;
	uint64_t expires_ms; /* boot clock */
	uint32_t slot; /* 0: refused */
	uint32_t generation; /* another one in the table ends the session */
	uint16_t segment;
	uint8_t standing; /* enum standing */
	uint8_t relay; /* a bit for each of the listener's upstreams that the segment may reach; 0: hold the session,
			* relay nothing */
	uint8_t reserved[4];
	char segment_name[POLICY_NAME_BYTES];
	char reason[128]; /* why this standing, or why refused; for the log */
};

struct msg_session_closed {
	struct msg_hdr h;
	uint64_t session;
	uint32_t slot;
	uint16_t cert_revoked; /* 1: a revocation list that was read now names its certificate */
	uint16_t
		moved; /* 1: the same session goes on from another address; this one is to be unbound */
	uint64_t bytes_up, bytes_down; /* plaintext, device > upstream and back */
	char reason[64];
};

/* Walk your sessions of this slot (0: all) against the trust table now, close what is no longer current. */
struct msg_recheck {
	struct msg_hdr h;
	uint32_t slot;
	uint32_t closed; /* reply */
};

/* What a listener of a worker counts since the worker started. */
enum tls_count {
	TLS_BEGUN, /* handshakes */
	TLS_SESSIONS, /* admitted */
	TLS_REFUSED, /* handshakes: the peer, its certificate, or the agent's word */
	TLS_OVER_HANDSHAKES, /* turned away: handshakes_max */
	TLS_OVER_SESSIONS, /* sessions_max */
	TLS_OVER_RATE, /* handshakes_s */
	TLS_OVER_SOURCE, /* handshakes_each, handshakes_each_s */
	TLS_COUNTS
};

/** "handshakes_max": the key of gateway.cfg that turned somebody away, else what is counted. */
const char *tls_count_name(unsigned count);

#define MSG_TLS_UPSTREAMS_MAX 8

struct msg_tls_upstream { /* as one worker finds it */
	struct ip_addr addr;
	uint16_t port; /* host order */
	uint8_t down;
	uint8_t checked; /* by itself, beside what sessions find */
	uint32_t sessions; /* connected now */
	uint64_t connected, failed; /* sessions */
	uint64_t checks, checks_failed;
	uint64_t failed_ms; /* boot clock, of `why`; 0: never */
	char why[64]; /* of the last failure */
};

struct msg_tls_listener {
	struct msg_hdr h;
	char name[32];
	struct ip_addr addr;
	uint16_t port; /* host order */
	uint8_t proto; /* TCP or UDP */
	uint8_t stack;
	uint8_t left; /* 1: takes nobody any more, or has other keys by now; there for its sessions */
	uint8_t reserved;
	uint16_t n_upstreams;
	uint32_t sessions,
		handshakes; /* now; handshakes that are not finished count as sessions too */
	uint32_t sessions_max, handshakes_max;
	uint64_t count[TLS_COUNTS];
	struct msg_tls_upstream upstream[MSG_TLS_UPSTREAMS_MAX];
};

/** Are all counts and texts possible? */
bool msg_tls_listener_check(const struct msg_tls_listener *m);

struct msg_reload {
	struct msg_hdr h;
	uint64_t
		listeners; /* gw_listeners_hash() of the gateway.cfg that the agent has read; WANTED: 0 */
};

struct msg_handshake_refused {
	struct msg_hdr h;
	struct ip_addr peer;
	uint16_t peer_port;
	uint8_t listener;
	uint8_t reserved;
	uint32_t n; /* so many for this reason; of more than one, whose they are is not told */
	char reason[128];
	char identity[MSG_IDENTITY_BYTES]; /* "" if none was proved */
};

union msg_any { /* room for the largest */
	struct msg_hdr h;
	struct msg_dp_config dp_config;
	struct msg_stats stats;
	struct msg_tallies tallies;
	struct msg_traced traced;
	struct msg_trace_arm trace_arm;
	struct msg_judge judge;
	struct msg_result result;
	struct msg_admit admit;
	struct msg_handshake_refused refused;
	struct msg_tls_listener tls_listener;
};

const char *msg_type_name(unsigned type);

/**
 * Send one struct; sets nothing in it. fd < 0: none goes along.
 * @return 0, -EAGAIN (non-blocking socket, full), or -errno (-EPIPE, -ECONNRESET: peer is gone)
 */
int msg_send(int sock, const void *msg, int fd);

#define MSG_MANY 32

/**
 * Send several in one go, in this order: who reads them wakes up once, not for each. None with a descriptor.
 * @param n  1 to MSG_MANY; more are left for the next call
 * @return how many went, from the first; -EAGAIN (non-blocking socket, full: none went), or -errno as msg_send()
 */
int msg_send_many(int sock, const void *const *msgs, unsigned n);

/**
 * Receive one struct and check that its header's length is the packet's.
 * @param[out] fd  a passed descriptor, caller closes; -1 if there is none. NULL: a passed descriptor is closed
 * @return bytes, 0 at end of file, -EAGAIN, -EPROTO (malformed), or -errno
 */
ssize_t msg_recv(int sock, union msg_any *out, int *fd);

/** Exact length of a type's struct; 0 for an unknown type. A receiver compares it with h.bytes. */
uint32_t msg_type_bytes(unsigned type);

/** Connect to the agent's socket, non-blocking, close-on-exec. @return descriptor or -errno */
int msg_connect(const char *path);

#define MSG_INIT(msg, msg_type, msg_seq)                                                           \
	((msg)->h = (struct msg_hdr){.type = (msg_type), .bytes = sizeof(*(msg)), .seq = (msg_seq)})
