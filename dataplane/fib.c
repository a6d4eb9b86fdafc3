/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/fib.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define V4_BITS_OFF 96
#define NONE UINT32_MAX
#define START_BITS_MAX 16

typedef unsigned __int128 u128; /* an address as a number; the language has no other name for it */

#define V4_FIRST ((u128)0xffff << 32) /* ::ffff:0.0.0.0 */

struct fib {
	uint32_t n_points, n_nexthops;
	u128 *point; /* sorted; [0] is 0. Addresses from here to the next point go by hop[] */
	uint32_t *hop; /* index into nexthops, or NONE */
	uint32_t *
		start; /* by the first bits of an IPv4 address: the last point that is not above all such */
	unsigned start_bits;
	struct nexthop *nexthops;
};

struct route {
	u128 lo, hi;
	struct msg_route m;
	uint64_t order; /* of arrival: the last of an equal prefix holds */
	uint16_t mark;
	bool removed;
};

struct routes {
	struct route *list;
	uint32_t n, room;
	uint64_t order;
	bool dirty;
};

static u128 number(const struct ip_addr *a)
{
	u128 v = 0;

	for (unsigned i = 0; i < sizeof(a->b); i++)
		v = v << 8 | a->b[i];
	return v;
}

const struct nexthop *fib_lookup(const struct fib *f, const struct ip_addr *a)
{
	u128 v = number(a);
	uint32_t lo = 0, hi = f->n_points;
	const struct nexthop *nh;

	if (ip_addr_is_v4(a)) {
		uint32_t first = (uint32_t)((uint64_t)(uint32_t)v >> (32 - f->start_bits));

		lo = f->start[first];
		hi = f->start[first + 1] + 1;
	}
	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (f->point[mid] <= v)
			lo = mid;
		else
			hi = mid;
	}
	if (f->hop[lo] == NONE)
		return NULL;
	nh = &f->nexthops[f->hop[lo]];
	return nh->v4 == ip_addr_is_v4(a) ? nh : NULL;
}

int routes_new(struct routes **out)
{
	*out = calloc(1, sizeof(**out));
	return *out != NULL ? 0 : -ENOMEM;
}

void routes_free(struct routes *r)
{
	if (r == NULL)
		return;
	free(r->list);
	free(r);
}

static int routes_note(struct routes *r, const struct msg_route *m, uint16_t mark, bool removed)
{
	uint8_t len = m->prefix.len;
	u128 lo = number(&m->prefix.addr), host;

	if (len > 128)
		return -EINVAL;
	host = len == 128 ? 0 : ~(u128)0 >> len;
	if (lo & host)
		return -EINVAL;
	if (r->n == r->room) {
		uint32_t room = r->room != 0 ? r->room * 2 : 64;
		struct route *list = realloc(r->list, room * sizeof(*list));

		if (list == NULL)
			return -ENOMEM;
		r->list = list;
		r->room = room;
	}
	r->list[r->n++] = (struct route){.lo = lo,
					 .hi = lo | host,
					 .m = *m,
					 .order = r->order++,
					 .mark = mark,
					 .removed = removed};
	r->dirty = true;
	return 0;
}

int routes_add(struct routes *r, const struct msg_route *m, uint16_t mark)
{
	return routes_note(r, m, mark, false);
}

int routes_del(struct routes *r, const struct msg_route *m)
{
	return routes_note(r, m, 0, true);
}

uint32_t routes_count(const struct routes *r)
{
	return r->n;
}

bool routes_dirty(const struct routes *r)
{
	return r->dirty;
}

static int route_cmp(const void *a, const void *b)
{
	const struct route *x = a, *y = b;

	if (x->lo != y->lo)
		return x->lo < y->lo ? -1 : 1;
	if (x->m.prefix.len != y->m.prefix.len)
		return x->m.prefix.len < y->m.prefix.len ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

/* One entry a prefix, in the order that fib_build() wants: outer before inner. */
static void routes_settle(struct routes *r)
{
	uint32_t kept = 0;

	if (r->n > 1)
		qsort(r->list, r->n, sizeof(*r->list), route_cmp);
	for (uint32_t i = 0; i < r->n; i++) {
		bool last = i + 1 == r->n || r->list[i + 1].lo != r->list[i].lo ||
			    r->list[i + 1].m.prefix.len != r->list[i].m.prefix.len;

		if (last && !r->list[i].removed)
			r->list[kept++] = r->list[i];
	}
	r->n = kept;
}

void routes_sweep(struct routes *r, uint16_t mark)
{
	uint32_t kept = 0;

	routes_settle(r);
	for (uint32_t i = 0; i < r->n; i++) {
		if (r->list[i].mark == mark)
			r->list[kept++] = r->list[i];
	}
	r->dirty |= kept != r->n;
	r->n = kept;
}

/* Open addressing, for the time of a build: routes by as many gateways must not cost their square. */
struct hop_index {
	uint32_t *slot; /* index into nexthops, or NONE */
	uint32_t mask;
};

static uint32_t hop_hash(const struct msg_route *m, bool has_gateway, bool v4)
{
	uint64_t h = (uint64_t)m->port << 48 | (uint64_t)m->vlan << 32 |
		     (uint64_t)m->mtu_bytes << 8 | (uint64_t)m->kind << 2 | has_gateway << 1 | v4;
	uint64_t w[2] = {0};

	if (has_gateway)
		memcpy(w, m->gateway.b, sizeof(w));
	h = (h ^ w[0]) * 0xff51afd7ed558ccdull;
	h = ((h ^ h >> 32) ^ w[1]) * 0xc4ceb9fe1a85ec53ull;
	return (uint32_t)(h ^ h >> 32);
}

static bool hop_is(const struct nexthop *nh, const struct msg_route *m, bool has_gateway, bool v4)
{
	return nh->kind == m->kind && nh->port == m->port && nh->vlan == m->vlan &&
	       nh->mtu_bytes == m->mtu_bytes && nh->v4 == v4 && nh->has_gateway == has_gateway &&
	       (!has_gateway || ip_addr_eq(&nh->gateway, &m->gateway));
}

static uint32_t nexthop_index(struct fib *f, struct hop_index *x, const struct msg_route *m)
{
	bool v4 = ip_addr_is_v4(&m->prefix.addr) && m->prefix.len >= V4_BITS_OFF;
	bool has_gateway = m->kind == ROUTE_FORWARD && m->has_gateway;
	uint32_t at = hop_hash(m, has_gateway, v4) & x->mask;
	struct nexthop *nh;

	for (; x->slot[at] != NONE; at = (at + 1) & x->mask) {
		if (hop_is(&f->nexthops[x->slot[at]], m, has_gateway, v4))
			return x->slot[at];
	}
	x->slot[at] = f->n_nexthops;
	nh = &f->nexthops[f->n_nexthops];
	nh->gateway = m->gateway;
	nh->port = m->port;
	nh->vlan = m->vlan;
	nh->mtu_bytes = m->mtu_bytes;
	nh->kind = m->kind;
	nh->has_gateway = has_gateway;
	nh->v4 = v4;
	return f->n_nexthops++;
}

static void emit(struct fib *f, u128 from, uint32_t hop)
{
	if (f->n_points > 0 && f->point[f->n_points - 1] == from) {
		f->hop[f->n_points - 1] = hop;
		return;
	}
	f->point[f->n_points] = from;
	f->hop[f->n_points++] = hop;
}

/* About two ranges an entry, so that a search has a step or two left. */
static unsigned start_bits(uint32_t n_points)
{
	unsigned bits = 1;

	while (bits < START_BITS_MAX && (n_points >> (bits - 1)) > 1)
		bits++;
	return bits;
}

static int start_fill(struct fib *f)
{
	uint32_t n = 1u << (f->start_bits = start_bits(f->n_points)), at = 0;

	f->start = calloc((size_t)n + 1, sizeof(*f->start));
	if (f->start == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i <= n; i++) {
		/* One past the last is the first that is no IPv4 address any more. */
		u128 from = V4_FIRST + ((u128)i << (32 - f->start_bits));

		while (at + 1 < f->n_points && f->point[at + 1] <= from)
			at++;
		f->start[i] = at;
	}
	return 0;
}

static int room_get(struct fib *f, struct hop_index *x, uint32_t n_routes)
{
	x->mask = 15;
	while (x->mask < 2 * n_routes)
		x->mask = x->mask * 2 + 1;
	x->slot = malloc(((size_t)x->mask + 1) * sizeof(*x->slot));
	f->point = calloc(2 * (size_t)n_routes + 1, sizeof(*f->point));
	f->hop = calloc(2 * (size_t)n_routes + 1, sizeof(*f->hop));
	f->nexthops = calloc((size_t)n_routes + 1, sizeof(*f->nexthops));
	if (x->slot == NULL || f->point == NULL || f->hop == NULL || f->nexthops == NULL)
		return -ENOMEM;
	memset(x->slot, 0xff, ((size_t)x->mask + 1) * sizeof(*x->slot));
	return 0;
}

int fib_build(struct fib **out, struct routes *r)
{
	struct {
		u128 hi;
		uint32_t hop;
	} open[130]; /* prefixes nest at most 129 deep */
	struct fib *f = calloc(1, sizeof(*f));
	struct hop_index index = {0};
	unsigned depth = 0;

	if (f == NULL)
		return -ENOMEM;
	routes_settle(r);
	if (room_get(f, &index, r->n) < 0)
		goto no_memory;
	emit(f, 0, NONE);
	for (uint32_t i = 0; i <= r->n; i++) {
		bool end = i == r->n;

		while (depth > 0 && (end || open[depth - 1].hi < r->list[i].lo)) {
			u128 after = open[--depth].hi + 1;

			if (after != 0) /* else it reached the last address */
				emit(f, after, depth > 0 ? open[depth - 1].hop : NONE);
		}
		if (end)
			break;
		open[depth].hi = r->list[i].hi;
		open[depth].hop = nexthop_index(f, &index, &r->list[i].m);
		emit(f, r->list[i].lo, open[depth++].hop);
	}
	if (start_fill(f) < 0)
		goto no_memory;
	free(index.slot);
	r->dirty = false;
	*out = f;
	return 0;
no_memory:
	free(index.slot);
	fib_free(f);
	return -ENOMEM;
}

void fib_free(struct fib *f)
{
	if (f == NULL)
		return;
	free(f->point);
	free(f->hop);
	free(f->start);
	free(f->nexthops);
	free(f);
}

const struct nexthop *fib_nexthop_array(const struct fib *f)
{
	return f->nexthops;
}

struct nexthop *fib_nexthops(struct fib *f, uint32_t *n)
{
	*n = f->n_nexthops;
	return f->nexthops;
}

void fib_set_gateway(struct fib *f, uint16_t port, uint16_t vlan, const struct ip_addr *ip,
		     uint64_t mac)
{
	for (uint32_t i = 0; i < f->n_nexthops; i++) {
		struct nexthop *nh = &f->nexthops[i];

		if (nh->has_gateway && nh->port == port && nh->vlan == vlan &&
		    ip_addr_eq(&nh->gateway, ip))
			atomic_store_explicit(&nh->mac, mac, memory_order_release);
	}
}
