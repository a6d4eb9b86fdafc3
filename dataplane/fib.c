/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/fib.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define V4_BITS_OFF 96
#define NONE UINT32_MAX

typedef unsigned __int128 u128; /* an address as a number; the language has no other name for it */

struct fib {
	uint32_t n_points, n_nexthops;
	u128 *point; /* sorted; [0] is 0. Addresses from here to the next point go by hop[] */
	uint32_t *hop; /* index into nexthops, or NONE */
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

static uint32_t nexthop_index(struct fib *f, const struct msg_route *m)
{
	bool v4 = ip_addr_is_v4(&m->prefix.addr) && m->prefix.len >= V4_BITS_OFF;
	bool has_gateway = m->kind == ROUTE_FORWARD && m->has_gateway;
	struct nexthop *nh;

	for (uint32_t i = 0; i < f->n_nexthops; i++) {
		nh = &f->nexthops[i];
		if (nh->kind == m->kind && nh->port == m->port && nh->vlan == m->vlan &&
		    nh->mtu_bytes == m->mtu_bytes && nh->v4 == v4 &&
		    nh->has_gateway == has_gateway &&
		    (!has_gateway || ip_addr_eq(&nh->gateway, &m->gateway)))
			return i;
	}
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

int fib_build(struct fib **out, struct routes *r)
{
	struct {
		u128 hi;
		uint32_t hop;
	} open[130]; /* prefixes nest at most 129 deep */
	struct fib *f = calloc(1, sizeof(*f));
	unsigned depth = 0;

	if (f == NULL)
		return -ENOMEM;
	routes_settle(r);
	f->point = calloc(2 * (size_t)r->n + 1, sizeof(*f->point));
	f->hop = calloc(2 * (size_t)r->n + 1, sizeof(*f->hop));
	f->nexthops = calloc((size_t)r->n + 1, sizeof(*f->nexthops));
	if (f->point == NULL || f->hop == NULL || f->nexthops == NULL) {
		fib_free(f);
		return -ENOMEM;
	}
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
		open[depth].hop = nexthop_index(f, &r->list[i].m);
		emit(f, r->list[i].lo, open[depth++].hop);
	}
	r->dirty = false;
	*out = f;
	return 0;
}

void fib_free(struct fib *f)
{
	if (f == NULL)
		return;
	free(f->point);
	free(f->hop);
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
