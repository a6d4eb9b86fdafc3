/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What fills the sets and maps: configuration, policy, bindings, lease. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "controlplane/agent/nft_internal.h"

#define V4_OFFSET 12 /* of an IPv4 address in its mapped form */
#define IFNAMES_MAX (2 * MSG_PORTS_MAX)
#define TIMEOUT_PAST_MS 5000 /* longer than a transaction takes */
#define TIMEOUT_MAX_MS                                                                             \
	(10ULL * 365 * 86400 * 1000) /* the kernel counts in jiffies and refuses far more */

/* ---- configuration ---- */

struct ifnames {
	char name[IFNAMES_MAX][16];
	unsigned n;
};

/* Does a wildcard of the list ("b.*") cover the name, or is it there already? */
static bool covered(const struct ifnames *l, const char *name)
{
	for (unsigned i = 0; i < l->n; i++) {
		size_t len = strlen(l->name[i]);

		if (strncmp(name, l->name[i], len) == 0 && (name[len] == '\0' || name[len] == '.'))
			return true;
	}
	return false;
}

/* Shortest first, so that a name that another's wildcard covers is met after it: overlapping intervals are refused. */
static int shorter(const void *a, const void *b)
{
	size_t la = strlen(a), lb = strlen(b);

	return la < lb ? -1 : la > lb;
}

/* Each name, and as an interval every VLAN subinterface of it, configured or not: "sp-dev", "sp-dev.*". */
static void put_ifnames(struct nft_batch *b, const char *set, struct ifnames *in)
{
	struct ifnames done = {.n = 0};
	struct nft_elems e;

	qsort(in->name, in->n, sizeof(in->name[0]), shorter);
	elems_flush(b, set);
	elems_begin(&e, b, NFT_MSG_NEWSETELEM, set);
	for (unsigned i = 0; i < in->n; i++) {
		size_t len = strlen(in->name[i]);
		char key[16] = "", end[16] = "";

		if (len == 0 || covered(&done, in->name[i]))
			continue;
		memcpy(done.name[done.n++], in->name[i], sizeof(done.name[0]));
		memcpy(key, in->name[i], len);
		memcpy(end, in->name[i], len);
		end[15] = 1;
		elems_put(&e, &(struct nft_elem){.key = key, .key_bytes = sizeof(key)});
		elems_put(&e, &(struct nft_elem){.key = end,
						 .key_bytes = sizeof(end),
						 .flags = NFT_SET_ELEM_INTERVAL_END});
		if (len + 2 > sizeof(key) - 1)
			continue; /* no room for a VLAN's number: no such interface */
		key[len] = '.';
		end[15] = 0;
		end[len] = '.' + 1;
		elems_put(&e, &(struct nft_elem){.key = key, .key_bytes = sizeof(key)});
		elems_put(&e, &(struct nft_elem){.key = end,
						 .key_bytes = sizeof(end),
						 .flags = NFT_SET_ELEM_INTERVAL_END});
	}
	elems_end(&e);
}

static void add_ifname(struct ifnames *l, const char *name)
{
	if (name[0] != '\0' && l->n < IFNAMES_MAX)
		snprintf(l->name[l->n++], sizeof(l->name[0]), "%.15s", name);
}

static void put_service(struct nft_elems *e, uint8_t proto, uint16_t port)
{
	uint8_t key[8] = {proto};

	port = htons(port);
	memcpy(key + 4, &port, sizeof(port));
	elems_put(e, &(struct nft_elem){.key = key, .key_bytes = sizeof(key)});
}

static bool unspecified(const struct ip_addr *a)
{
	static const struct ip_addr zero;
	unsigned from = ip_addr_is_v4(a) ? V4_OFFSET : 0;

	return memcmp(a->b + from, zero.b, sizeof(a->b) - from) == 0;
}

static void put_listeners(struct nft_batch *b, const struct gw_config *cfg, bool v6,
			  enum gw_transport transport, const char *set)
{
	struct nft_elems e;

	elems_flush(b, set);
	elems_begin(&e, b, NFT_MSG_NEWSETELEM, set);
	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		const struct gw_listener *l = &cfg->listeners[i];
		uint16_t port = htons(l->port), addr_bytes = v6 ? 16 : 4;
		uint8_t key[24] = {0};

		if (ip_addr_is_v4(&l->addr) == v6 || unspecified(&l->addr) ||
		    l->transport != transport || l->left == GW_LISTENER_BEFORE)
			continue;
		memcpy(key, l->addr.b + (v6 ? 0 : V4_OFFSET), addr_bytes);
		key[addr_bytes] = gw_listener_proto(l);
		memcpy(key + addr_bytes + 4, &port, sizeof(port));
		elems_put(&e, &(struct nft_elem){.key = key, .key_bytes = addr_bytes + 8});
	}
	elems_end(&e);
}

static void put_icmp(struct nft_batch *b, const char *set, const uint8_t *types, unsigned n)
{
	struct nft_elems e;

	elems_flush(b, set);
	elems_begin(&e, b, NFT_MSG_NEWSETELEM, set);
	for (unsigned i = 0; i < n; i++)
		elems_put(&e, &(struct nft_elem){.key = &types[i], .key_bytes = 1});
	elems_end(&e);
}

void elems_put_config(struct nft_batch *b, const struct gw_config *cfg)
{
	static const uint8_t icmp4[] = {ICMP_ECHO};
	/* Of neighbour discovery what a host says; no router advertisement, no redirect. */
	static const uint8_t icmp6[] = {ND_ROUTER_SOLICIT, ND_NEIGHBOR_SOLICIT, ND_NEIGHBOR_ADVERT,
					ICMP6_ECHO_REQUEST};
	struct ifnames raw = {.n = 0}, device = {.n = 0};
	bool ping = cfg->strangers & STRANGER_PING;
	struct nft_elems e;

	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		add_ifname(&raw, cfg->ports[i].raw);
		if (cfg->ports[i].side != PORT_UPLINK)
			add_ifname(&device, cfg->ports[i].tap);
	}
	for (uint32_t i = 0; i < cfg->n_shut; i++)
		add_ifname(&raw, cfg->shut[i]);
	put_ifnames(b, SET_RAW, &raw);
	put_ifnames(b, SET_DEVICE, &device);
	put_listeners(b, cfg, false, GW_SOCKET, SET_LISTENERS4);
	put_listeners(b, cfg, true, GW_SOCKET, SET_LISTENERS6);
	put_listeners(b, cfg, false, GW_STACK, SET_STACK4);
	put_listeners(b, cfg, true, GW_STACK, SET_STACK6);
	put_icmp(b, SET_ICMP4, icmp4, ping ? 1 : 0);
	put_icmp(b, SET_ICMP6, icmp6, ping ? 4 : 3);
	elems_flush(b, SET_SERVICES);
	elems_begin(&e, b, NFT_MSG_NEWSETELEM, SET_SERVICES);
	if (cfg->strangers & STRANGER_DHCP) {
		put_service(&e, IPPROTO_UDP, 67);
		put_service(&e, IPPROTO_UDP, 547);
	}
	if (cfg->strangers & STRANGER_DNS) {
		put_service(&e, IPPROTO_UDP, 53);
		put_service(&e, IPPROTO_TCP, 53);
	}
	for (uint32_t i = 0; i < cfg->n_listeners; i++)
		if (unspecified(&cfg->listeners[i].addr) &&
		    cfg->listeners[i].left != GW_LISTENER_BEFORE)
			put_service(&e, gw_listener_proto(&cfg->listeners[i]),
				    cfg->listeners[i].port);
	elems_end(&e);
}

/* ---- policy ---- */

/* @return false if this was the last address */
static bool after(uint8_t *addr, size_t bytes)
{
	while (bytes-- > 0)
		if (++addr[bytes] != 0)
			return true;
	return false;
}

static void put_range(struct nft_elems *e, const uint8_t *lo, const uint8_t *hi, uint16_t bytes,
		      uint16_t endpoint)
{
	uint16_t id = htons(endpoint);
	uint8_t end[16];

	memcpy(end, hi, bytes);
	elems_put(e, &(struct nft_elem){
			     .key = lo, .key_bytes = bytes, .data = &id, .data_bytes = sizeof(id)});
	if (after(end, bytes))
		elems_put(e, &(struct nft_elem){.key = end,
						.key_bytes = bytes,
						.flags = NFT_SET_ELEM_INTERVAL_END});
}

static void put_networks(struct nft_batch *b, const struct policy_form *f, bool v6)
{
	static const struct ip_addr lo4 = {{[10] = 0xff, [11] = 0xff}};
	static const struct ip_addr hi4 = {
		{[10] = 0xff, [11] = 0xff, [12] = 0xff, [13] = 0xff, [14] = 0xff, [15] = 0xff}};
	const char *set = v6 ? MAP_NETWORK6 : MAP_NETWORK4;
	struct nft_elems e;

	elems_flush(b, set);
	elems_begin(&e, b, NFT_MSG_NEWSETELEM, set);
	for (uint32_t i = 0; f != NULL && i < f->n_ranges; i++) {
		const struct policy_range *r = &policy_ranges(f)[i];
		const struct ip_addr *lo = &r->lo, *hi = &r->hi;

		if (v6) {
			if (ip_addr_is_v4(lo) && ip_addr_is_v4(hi))
				continue;
			put_range(&e, lo->b, hi->b, 16, r->endpoint);
			continue;
		}
		/* What of the range lies in the mapped block is IPv4's, as in the dataplane: "::/0" is both. */
		if (memcmp(hi, &lo4, 16) < 0 || memcmp(lo, &hi4, 16) > 0)
			continue;
		lo = memcmp(lo, &lo4, 16) < 0 ? &lo4 : lo;
		hi = memcmp(hi, &hi4, 16) > 0 ? &hi4 : hi;
		put_range(&e, lo->b + V4_OFFSET, hi->b + V4_OFFSET, 4, r->endpoint);
	}
	elems_end(&e);
}

static bool same_ranges(const struct policy_form *f, const struct policy_form *prev)
{
	return f != NULL && prev != NULL && f->n_ranges == prev->n_ranges &&
	       memcmp(policy_ranges(f), policy_ranges(prev),
		      f->n_ranges * sizeof(struct policy_range)) == 0;
}

static void policy_key(uint8_t key[static 16], const struct policy_entry *p, uint16_t port)
{
	uint16_t from = htons(p->from), to = htons(p->to);

	memset(key, 0, 16);
	port = htons(port);
	memcpy(key, &from, 2);
	memcpy(key + 4, &to, 2);
	key[8] = p->proto;
	memcpy(key + 12, &port, 2);
}

bool elems_next_allowed(const struct policy_form *f, uint32_t *i, struct nft_verdict_key *out)
{
	while (f != NULL && *i < f->n_entries) {
		const struct policy_entry *p = &policy_entries(f)[(*i)++];
		uint16_t lo = p->port_lo, hi = p->port_hi;

		if (p->action != POLICY_ALLOW)
			continue; /* the catch-all denies it */
		if (p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6) {
			/* Conntrack keeps type and code where others have the destination port. */
			if (lo > 255)
				continue;
			lo = (uint16_t)(lo << 8);
			hi = (uint16_t)((hi > 255 ? 255 : hi) << 8 | 255);
		} else if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP) {
			lo = 0;
			hi = 65535;
		}
		policy_key(out->lo, p, lo);
		policy_key(out->hi, p, hi);
		return true;
	}
	return false;
}

/* The entries of `f` that `other` has not: both are sorted. */
static void put_difference(struct nft_elems *e, const struct policy_form *f,
			   const struct policy_form *other)
{
	struct nft_verdict_key key, theirs;
	uint32_t i = 0, k = 0;
	bool more = elems_next_allowed(other, &k, &theirs);

	while (elems_next_allowed(f, &i, &key)) {
		while (more && memcmp(&theirs, &key, sizeof(key)) < 0)
			more = elems_next_allowed(other, &k, &theirs);
		if (more && memcmp(&theirs, &key, sizeof(key)) == 0)
			continue;
		elems_put(e, &(struct nft_elem){.key = key.lo,
						.key_end = key.hi,
						.key_bytes = sizeof(key.lo),
						.chain = CHAIN_PASS});
	}
}

void elems_put_policy(struct nft_batch *b, const struct policy_form *f,
		      const struct policy_form *prev)
{
	struct nft_elems e;

	if (!same_ranges(f, prev)) {
		put_networks(b, f, false);
		put_networks(b, f, true);
	}
	/* To empty this kind of map costs the square of its size, and most of a policy stays what it was. */
	if (prev != NULL) {
		elems_begin(&e, b, NFT_MSG_DELSETELEM, MAP_POLICY);
		put_difference(&e, prev, f);
		elems_end(&e);
	} else {
		elems_flush(b, MAP_POLICY);
	}
	elems_begin(&e, b, NFT_MSG_NEWSETELEM, MAP_POLICY);
	if (prev == NULL)
		elems_put(&e, &(struct nft_elem){.chain = CHAIN_REFUSE,
						 .flags = NFT_SET_ELEM_CATCHALL});
	put_difference(&e, f, prev);
	elems_end(&e);
	rates_put_policy(b, f, prev);
}

/* ---- lease and bindings ---- */

void elems_put_lease(struct nft_batch *b, uint64_t ms)
{
	static const uint8_t protos[] = {NFPROTO_IPV4, NFPROTO_IPV6};
	struct nft_elems e;

	/* Flush and add, in one transaction, for not every kernel moves the timeout of an element that is there. */
	elems_flush(b, SET_ALIVE);
	elems_begin(&e, b, NFT_MSG_NEWSETELEM, SET_ALIVE);
	for (size_t i = 0; ms > 0 && i < sizeof(protos); i++)
		elems_put(&e,
			  &(struct nft_elem){.key = &protos[i], .key_bytes = 1, .timeout_ms = ms});
	elems_end(&e);
}

void elems_flush_bindings(struct nft_batch *b)
{
	elems_flush(b, SET_BOUND4);
	elems_flush(b, SET_BOUND6);
	elems_flush(b, MAP_SEGMENT4);
	elems_flush(b, MAP_SEGMENT6);
}

/* 0: none. What is past is only put to be deleted again in the same transaction. */
static uint64_t timeout_of(const struct nft_binding *bind, uint64_t now_ms)
{
	if (bind->expires_ms == CLOCK_NEVER_MS)
		return 0;
	if (bind->expires_ms <= now_ms)
		return TIMEOUT_PAST_MS;
	return bind->expires_ms - now_ms > TIMEOUT_MAX_MS ? TIMEOUT_MAX_MS
							  : bind->expires_ms - now_ms;
}

static void put_bound(struct nft_elems *e, const struct nft_binding *bind, bool v6, uint64_t now_ms)
{
	uint16_t addr_bytes = v6 ? 16 : 4;
	uint8_t key[40] = {0};

	memcpy(key, bind->ifname, strnlen(bind->ifname, 15));
	memcpy(key + 16, bind->mac.b, 6);
	memcpy(key + 24, bind->ip.b + (v6 ? 0 : V4_OFFSET), addr_bytes);
	elems_put(e, &(struct nft_elem){.key = key,
					.key_bytes = 24 + addr_bytes,
					.timeout_ms = timeout_of(bind, now_ms)});
}

static void put_segment(struct nft_elems *e, const struct nft_binding *bind, bool v6,
			uint64_t now_ms)
{
	uint16_t id = htons(bind->segment);

	elems_put(e, &(struct nft_elem){.key = bind->ip.b + (v6 ? 0 : V4_OFFSET),
					.key_bytes = v6 ? 16 : 4,
					.data = &id,
					.data_bytes = sizeof(id),
					.timeout_ms = timeout_of(bind, now_ms)});
}

enum phase { PHASE_MAKE_SURE, PHASE_DELETE, PHASE_ADD, PHASES };

static void put_phase(struct nft_batch *b, struct nft_bind *const *staged, size_t count,
		      enum phase phase, bool segments, bool v6, uint64_t now_ms)
{
	static const char *const sets[2][2] = {{SET_BOUND4, SET_BOUND6},
					       {MAP_SEGMENT4, MAP_SEGMENT6}};
	struct nft_elems e;

	elems_begin(&e, b, phase == PHASE_DELETE ? NFT_MSG_DELSETELEM : NFT_MSG_NEWSETELEM,
		    sets[segments][v6]);
	for (size_t i = 0; i < count; i++) {
		struct nft_bind *bind = staged[i];
		const struct nft_binding *what = phase == PHASE_ADD ? &bind->want : &bind->cur;

		if (ip_addr_is_v4(&what->ip) == v6)
			continue;
		if (phase == PHASE_ADD ? bind->staged != STAGED_PUT : !bind->in_force)
			continue;
		if (segments)
			put_segment(&e, what, v6, now_ms);
		else
			put_bound(&e, what, v6, now_ms);
	}
	elems_end(&e);
}

/* An element that is in force may have timed out in the kernel a moment ago, and deleting what is not there would fail
 * the whole transaction; so it is added as it was (nothing happens if it is there), deleted, and added as it shall be.
 * Packets see only the outcome. */
void elems_put_staged(struct nft_batch *b, struct nft_bind *const *staged, size_t count, bool fresh,
		      uint64_t now_ms)
{
	for (int phase = fresh ? PHASE_ADD : PHASE_MAKE_SURE; phase < PHASES; phase++)
		for (int i = 0; i < 4; i++)
			put_phase(b, staged, count, (enum phase)phase, i >> 1, i & 1, now_ms);
}
