/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_wire: the generator's streams over frames: a TCP stack in this process (tls-proxy/stack) between two virtio-user ports,
 * which are the gateway's device port and its uplink. The upstream is here too, as tls_sink is for sockets. No system call
 * while there is something to do.
 * The stack has one address for all devices: on the wire a frame from port P is from the address of device P % devices, and
 * back. Who connects learns from its port which device it is. */
#pragma once

#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "bench/tls_device.h"
#include "config/base/clock.h"
#include <lwip/pbuf.h> /* alone, as in port.c */
#include "tls-proxy/stack/stack.h"
#include "tls-proxy/stream.h"

#define WIRE_ETHER 14
#define WIRE_RING 512
#define WIRE_BUFFERS 16383
#define WIRE_BURST 32
#define WIRE_PORT_FIRST 1024
#define WIRE_OUT 4096 /* frames that wait for room in a ring */
#define WIRE_OWN "10.64.0.2"
#define WIRE_SINK_PORTS 8
#define WIRE_MEMORY (2048ull << 20)
#define WIRE_SINK_BYTES (64 * 1024)

struct wire_sink { /* an upstream connection */
	struct stream s;
	struct wire_sink *greet; /* the next one to be greeted */
	uint8_t mode; /* 'E', 'S' as in tls_sink.c, 0: not known yet */
	uint32_t waits, sent;
	uint8_t *data; /* of an echo that was not taken */
};

static struct wire {
	bool up;
	struct rte_mempool *pool;
	struct stack *stack;
	uint8_t header[2][WIRE_ETHER]; /* [0] device port, [1] uplink */
	struct rte_mbuf *out[2][WIRE_OUT];
	uint16_t n_out[2];
	struct ip_addr own;
	uint32_t own_v4, server_v4, devices; /* addresses as on the wire */
	uint16_t syn_port; /* that the last SYN to the gateway came from */
	struct stack_listener sink[WIRE_SINK_PORTS];
	struct wire_sink *greet;
} wire;

/* What the ring does not take waits here: a generator that loses its own frames measures itself. */
static inline void wire_flush(unsigned side)
{
	struct rte_mbuf **out = wire.out[side];
	uint16_t n = rte_eth_tx_burst((uint16_t)side, 0, out, wire.n_out[side]);

	wire.n_out[side] -= n;
	if (n > 0 && wire.n_out[side] > 0)
		memmove(out, out + n, wire.n_out[side] * sizeof(*out));
}

/* Another address in a packet, and its checksums, RFC 1624. */
static inline void wire_address_change(uint8_t *ip, unsigned at, uint32_t to)
{
	uint8_t *sums[2] = {ip + 10, ip + (ip[0] & 15) * 4 + 16};
	uint16_t was[2], now[2];

	memcpy(was, ip + at, 4);
	memcpy(now, &to, 4);
	memcpy(ip + at, &to, 4);
	for (unsigned i = 0; i < 2; i++) {
		uint16_t sum;
		uint32_t n;

		memcpy(&sum, sums[i], 2);
		n = (uint16_t)~sum + (uint32_t)(uint16_t)~was[0] + (uint16_t)~was[1] + now[0] +
		    now[1];
		n = (n & 0xffff) + (n >> 16);
		n = (n & 0xffff) + (n >> 16);
		sum = (uint16_t)~n;
		memcpy(sums[i], &sum, 2);
	}
}

static inline uint32_t wire_device_of(uint16_t port)
{
	return port % wire.devices;
}

static inline unsigned wire_side(const struct pbuf *p)
{
	return memcmp((const uint8_t *)p->payload + 16, &wire.server_v4, 4) == 0 ? 0 : 1;
}

static bool wire_send(void *arg, const struct pbuf *p)
{
	unsigned side = wire_side(p);
	struct rte_mbuf *m = wire.n_out[side] < WIRE_OUT ? rte_pktmbuf_alloc(wire.pool) : NULL;
	uint8_t *at, *ip;

	(void)arg;
	at = m != NULL ? (uint8_t *)rte_pktmbuf_append(m, WIRE_ETHER + p->tot_len) : NULL;
	if (at == NULL) {
		rte_pktmbuf_free(m);
		return false;
	}
	ip = at + WIRE_ETHER;
	pbuf_copy_partial(p, ip, p->tot_len, 0);
	memcpy(at, wire.header[side], WIRE_ETHER);
	if (side == 0) {
		uint8_t *tcp = ip + (ip[0] & 15) * 4;
		uint16_t port = (uint16_t)(tcp[0] << 8 | tcp[1]);

		if (tcp[13] & 2)
			wire.syn_port = port;
		wire_address_change(ip, 12,
				    htonl(DEVICE_NET + DEVICE_FIRST + wire_device_of(port)));
	}
	wire.out[side][wire.n_out[side]++] = m;
	if (wire.n_out[side] % WIRE_BURST == 0)
		wire_flush(side);
	return true;
}

/* Whoever asks for an address gets ours: all that are behind this port are here. */
static inline bool wire_arp(unsigned side, struct rte_mbuf *m)
{
	uint8_t *f = rte_pktmbuf_mtod(m, uint8_t *), *arp = f + WIRE_ETHER, who[4];

	if (m->data_len < WIRE_ETHER + 28 || memcmp(f + 12, "\x08\x06", 2) != 0 || arp[7] != 1)
		return false;
	memcpy(who, arp + 24, 4);
	memcpy(arp + 18, arp + 8, 10); /* the target is who asked */
	memcpy(arp + 8, wire.header[side] + 6, 6);
	memcpy(arp + 14, who, 4);
	arp[7] = 2;
	memcpy(f, f + 6, 6);
	memcpy(f + 6, wire.header[side] + 6, 6);
	return rte_eth_tx_burst((uint16_t)side, 0, &m, 1) == 1;
}

/* @return NULL: not TCP in IPv4 */
static inline struct pbuf *wire_packet(unsigned side, const struct rte_mbuf *m)
{
	uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *), *ip = frame + WIRE_ETHER;
	uint16_t bytes = m->data_len - WIRE_ETHER;
	struct pbuf *p;

	if (m->data_len < WIRE_ETHER + 40 || memcmp(frame + 12, "\x08\x00", 2) != 0 || ip[9] != 6)
		return NULL;
	if (side == 0)
		wire_address_change(ip, 16, wire.own_v4);
	p = pbuf_alloc(PBUF_RAW, bytes, PBUF_RAM);
	if (p != NULL)
		memcpy(p->payload, ip, bytes);
	return p;
}

static inline void wire_receive(unsigned side)
{
	struct rte_mbuf *in[WIRE_BURST];
	struct pbuf *packet[WIRE_BURST];
	uint16_t n = rte_eth_rx_burst((uint16_t)side, 0, in, WIRE_BURST);
	unsigned packets = 0;

	for (uint16_t i = 0; i < n; i++) {
		if (wire_arp(side, in[i]))
			continue;
		packet[packets] = wire_packet(side, in[i]);
		packets += packet[packets] != NULL;
		rte_pktmbuf_free(in[i]);
	}
	stack_input(wire.stack, packet, packets);
}

/* ---- the upstream ---- */

static inline void wire_sink_end(struct wire_sink *k)
{
	stream_close(&k->s);
	free(k->data);
	k->data = NULL;
	k->mode = 'X'; /* freed when it was greeted */
	if (k->greet == NULL && wire.greet != k)
		free(k);
}

static inline void wire_sink_echo(struct wire_sink *k, const uint8_t *data, uint32_t bytes)
{
	ssize_t n = stream_send(&k->s, data, bytes);

	if (n < 0 && n != -EAGAIN) {
		wire_sink_end(k);
		return;
	}
	n = n < 0 ? 0 : n;
	if ((uint32_t)n == bytes)
		return;
	k->waits = bytes - (uint32_t)n;
	k->sent = 0;
	k->data = malloc(k->waits);
	if (k->data == NULL)
		device_die("memory");
	memcpy(k->data, data + n, k->waits);
	stream_want(&k->s, STREAM_WRITE);
}

static inline void wire_sink_rest(struct wire_sink *k)
{
	ssize_t n = stream_send(&k->s, k->data + k->sent, k->waits - k->sent);

	if (n < 0 && n != -EAGAIN) {
		wire_sink_end(k);
		return;
	}
	k->sent += n > 0 ? (uint32_t)n : 0;
	if (k->sent < k->waits)
		return;
	free(k->data);
	k->data = NULL;
	k->waits = 0;
	stream_want(&k->s, STREAM_READ);
}

static void wire_sink_ready(void *arg, uint32_t events)
{
	static uint8_t buf[WIRE_SINK_BYTES];
	struct wire_sink *k = arg;
	ssize_t n;

	(void)events;
	if (k->waits > 0) {
		wire_sink_rest(k);
		return;
	}
	n = stream_recv(&k->s, buf, sizeof(buf));
	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		wire_sink_end(k);
		return;
	}
	if (k->mode == 0)
		k->mode = buf[0];
	if (k->mode == 'E')
		wire_sink_echo(k, buf, (uint32_t)n);
	else if (buf[n - 1] == 'E')
		wire_sink_echo(k, buf + n - 1, 1);
}

static struct stream *wire_sink_accept(void *arg, const struct ip_addr *peer, uint16_t port)
{
	struct wire_sink *k = calloc(1, sizeof(*k));

	(void)arg;
	(void)peer;
	(void)port;
	if (k == NULL)
		device_die("memory");
	k->s.ready = wire_sink_ready;
	k->s.arg = k;
	k->greet = wire.greet;
	wire.greet = k;
	return &k->s;
}

/* Only now the stack has their connections. */
static inline void wire_sinks_greet(void)
{
	struct wire_sink *k;

	while ((k = wire.greet) != NULL) {
		wire.greet = k->greet;
		k->greet = NULL;
		if (k->mode == 'X')
			free(k);
		else if (stream_send(&k->s, "+", 1) != 1)
			wire_sink_end(k);
	}
}

/* ---- */

/** Frames in, streams told, frames out. */
static inline void wire_turn(void)
{
	stack_clock(wire.stack, clock_boot_us());
	for (unsigned side = 0; side < 2; side++)
		wire_receive(side);
	wire_sinks_greet();
	stack_serve(wire.stack, NULL, NULL);
	for (unsigned side = 0; side < 2; side++) {
		if (wire.n_out[side] > 0)
			wire_flush(side);
	}
}

/** As socket_connect(). @return 0 or -errno; *device: who it is from, by the port that it got */
static inline int wire_connect(struct stream *s, uint32_t *device, const struct sockaddr_in *to)
{
	struct ip_addr at = ip_addr_from_v4(&to->sin_addr.s_addr);
	int ret = stack_connect(wire.stack, s, &wire.own, 1, &at, ntohs(to->sin_port));

	if (ret == 0)
		*device = wire_device_of(wire.syn_port); /* the SYN is out */
	return ret;
}

static inline void wire_port_start(uint16_t id)
{
	const struct rte_eth_conf conf = {0};

	if (rte_eth_dev_configure(id, 1, 1, &conf) < 0 ||
	    rte_eth_rx_queue_setup(id, 0, WIRE_RING, SOCKET_ID_ANY, NULL, wire.pool) < 0 ||
	    rte_eth_tx_queue_setup(id, 0, WIRE_RING, SOCKET_ID_ANY, NULL) < 0 ||
	    rte_eth_dev_start(id) < 0)
		device_die("a port does not start");
}

static inline void wire_header(unsigned side, const char *mac)
{
	uint8_t *h = wire.header[side];

	if (sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &h[0], &h[1], &h[2], &h[3], &h[4],
		   &h[5]) != 6)
		device_die("not a MAC address");
	memcpy(h + 6, (uint8_t[]){2, 0, 0, 0, 1, (uint8_t)side}, 6);
	memcpy(h + 12, "\x08\x00", 2);
}

/* So many ports that as many sessions in a row as there are devices have a device each. */
static inline uint16_t wire_port_last(uint32_t devices)
{
	uint32_t ports = 65536 - WIRE_PORT_FIRST;

	return (uint16_t)(WIRE_PORT_FIRST + (devices < ports ? ports / devices * devices : ports) -
			  1);
}

/** EAL with two ports in argv up to "--"; then SERVER-ADDRESS SINK-ADDRESS SINK-PORT DEVICE-MAC UPLINK-MAC.
 * @return how many arguments it took */
static inline int wire_open(int argc, char **argv, uint32_t devices)
{
	struct stack_config cfg = {.mtu_bytes = 1500,
				   .port_first = WIRE_PORT_FIRST,
				   .port_last = wire_port_last(devices),
				   .workers = 1,
				   .buckets = 65536,
				   .half_open_max = 65536,
				   .memory_bytes = WIRE_MEMORY,
				   .send = wire_send};
	struct ip_addr server, sink;
	struct err err = {""};
	int n = rte_eal_init(argc, argv);

	argv += n + 1;
	if (n < 0 || argc < n + 6 || rte_eth_dev_count_avail() != 2 ||
	    ip_addr_parse(&server, argv[0]) < 0 || ip_addr_parse(&sink, argv[1]) < 0 ||
	    ip_addr_parse(&wire.own, WIRE_OWN) < 0)
		device_die("EAL does not start with two ports, or the arguments behind are wrong");
	wire.pool = rte_pktmbuf_pool_create("wire", WIRE_BUFFERS, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
					    SOCKET_ID_ANY);
	if (wire.pool == NULL)
		device_die("no packet buffers");
	memcpy(&wire.server_v4, server.b + 12, 4);
	memcpy(&wire.own_v4, wire.own.b + 12, 4);
	wire.devices = devices;
	wire_header(0, argv[3]);
	wire_header(1, argv[4]);
	wire_port_start(0);
	wire_port_start(1);
	if (stack_new(&wire.stack, &cfg, &err) < 0 || stack_address_add(wire.stack, &wire.own) < 0)
		device_die(err.msg);
	stack_clock(wire.stack, clock_boot_us());
	for (uint16_t i = 0; i < WIRE_SINK_PORTS; i++) {
		wire.sink[i].accept = wire_sink_accept;
		if (stack_listen(wire.stack, &wire.sink[i], &sink, (uint16_t)(atoi(argv[2]) + i),
				 &err) < 0)
			device_die(err.msg);
	}
	wire.up = true;
	return n + 6;
}
