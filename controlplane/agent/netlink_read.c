/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "controlplane/agent/netlink_internal.h"

#define READ_TRIES 8 /* of a dump that somebody's change tears */

/* ---- links ---- */

bool link_parse(struct link *out, const struct gw_config *cfg, const struct nlmsghdr *nlh)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *a[IFLA_MTU + 1];

	memset(out, 0, sizeof(*out));
	/* Bridges announce their ports in messages of the same type and another family. */
	if (rtnl_attrs(nlh, sizeof(*ifi), a, IFLA_MTU + 1) < 0 || ifi->ifi_family != AF_UNSPEC ||
	    a[IFLA_IFNAME] == NULL || mnl_attr_validate(a[IFLA_IFNAME], MNL_TYPE_NUL_STRING) < 0 ||
	    mnl_attr_get_payload_len(a[IFLA_IFNAME]) > IFNAMSIZ)
		return false;
	out->index = (unsigned)ifi->ifi_index;
	strcpy(out->name, mnl_attr_get_str(a[IFLA_IFNAME]));
	out->admin_up = ifi->ifi_flags & IFF_UP;
	out->up = out->admin_up && (ifi->ifi_flags & IFF_RUNNING);
	if (a[IFLA_MTU] != NULL && mnl_attr_validate(a[IFLA_MTU], MNL_TYPE_U32) >= 0)
		out->mtu_bytes = mnl_attr_get_u32(a[IFLA_MTU]);
	out->ours = ports_find(cfg, out->name, &out->port, &out->vlan);
	return true;
}

struct link *link_by_index(const struct link_list *l, unsigned index)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->link[i].index == index)
			return &l->link[i];
	return NULL;
}

struct link *link_by_name(const struct link_list *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->link[i].name, name) == 0)
			return &l->link[i];
	return NULL;
}

int link_put(struct link_list *l, const struct link *link)
{
	struct link *at = link_by_index(l, link->index);

	if (at == NULL && l->n == l->cap) {
		size_t cap = l->cap * 2 + 16;
		struct link *grown = realloc(l->link, cap * sizeof(*grown));

		if (grown == NULL)
			return -ENOMEM;
		l->link = grown;
		l->cap = cap;
	}
	if (at == NULL)
		at = &l->link[l->n++];
	*at = *link;
	return 0;
}

struct link_reading {
	struct link_list *list;
	const struct gw_config *cfg;
	bool no_memory;
};

static int link_cb(const struct nlmsghdr *nlh, void *arg)
{
	struct link_reading *rd = arg;
	struct link link;

	if (nlh->nlmsg_type == RTM_NEWLINK && link_parse(&link, rd->cfg, nlh) &&
	    link_put(rd->list, &link) < 0)
		rd->no_memory = true;
	return MNL_CB_OK;
}

int link_read(struct link_list *l, struct rtnl *r, const struct gw_config *cfg)
{
	struct link_reading rd = {.list = l, .cfg = cfg};
	int ret = -EINTR;

	for (int i = 0; i < READ_TRIES && ret == -EINTR; i++) {
		char buf[128];
		struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};

		l->n = 0;
		ret = rtnl_ask(r, rtnl_header(buf, RTM_GETLINK, NLM_F_DUMP, &ifi, sizeof(ifi)),
			       link_cb, &rd);
	}
	return rd.no_memory ? -ENOMEM : ret;
}

/* ---- routes ---- */

struct seen {
	struct msg_route r;
	uint32_t priority;
	uint32_t order;
	bool local; /* of the table that is looked up first */
};

struct route_reading {
	const struct gw_config *cfg;
	const struct link_list *links;
	struct seen *seen;
	size_t n, cap;
	bool no_memory;
};

int route_prefix_cmp(const struct msg_route *a, const struct msg_route *b)
{
	int diff = memcmp(&a->prefix.addr, &b->prefix.addr, sizeof(a->prefix.addr));

	return diff != 0 ? diff : a->prefix.len - b->prefix.len;
}

static int seen_cmp(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;
	int diff = route_prefix_cmp(&x->r, &y->r);

	if (diff != 0)
		return diff;
	if (x->local != y->local)
		return x->local ? -1 : 1;
	if (x->priority != y->priority)
		return x->priority < y->priority ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

static enum route_kind kind_of(unsigned type)
{
	switch (type) {
	case RTN_UNICAST:
		return ROUTE_FORWARD;
	case RTN_LOCAL:
	case RTN_BROADCAST:
	case RTN_ANYCAST:
	case RTN_MULTICAST:
		return ROUTE_LOCAL;
	case RTN_BLACKHOLE:
	case RTN_UNREACHABLE:
	case RTN_PROHIBIT:
		return ROUTE_DROP;
	default:
		return 0;
	}
}

static void set_gateway(struct msg_route *r, unsigned family, const struct nlattr *gateway,
			const struct nlattr *via)
{
	const struct rtvia *v;
	unsigned bytes;

	if (gateway != NULL) {
		r->has_gateway = rtnl_get_addr(&r->gateway, family, gateway);
		return;
	}
	if (via == NULL || mnl_attr_get_payload_len(via) < sizeof(*v))
		return;
	v = mnl_attr_get_payload(via);
	bytes = mnl_attr_get_payload_len(via) - sizeof(*v);
	if (v->rtvia_family == AF_INET && bytes == 4)
		r->gateway = ip_addr_from_v4(v->rtvia_addr);
	else if (v->rtvia_family == AF_INET6 && bytes == 16)
		r->gateway = ip_addr_from_v6(v->rtvia_addr);
	else
		return;
	r->has_gateway = 1;
}

/* @return false if this way is dead */
static bool set_way(const struct route_reading *rd, struct msg_route *r, unsigned index,
		    unsigned flags)
{
	const struct link *link = link_by_index(rd->links, index);

	if (link == NULL || !link->admin_up || (flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN)))
		return false;
	r->port = MSG_PORT_KERNEL;
	if (link->ours && rd->cfg->ports[link->port].devargs[0] != '\0') {
		r->port = link->port;
		r->vlan = link->vlan;
	}
	return true;
}

static bool set_multipath(const struct route_reading *rd, struct msg_route *r, unsigned family,
			  const struct nlattr *paths)
{
	const struct rtnexthop *nh = mnl_attr_get_payload(paths);
	size_t left = mnl_attr_get_payload_len(paths);

	while (left >= sizeof(*nh) && nh->rtnh_len >= sizeof(*nh) && nh->rtnh_len <= left) {
		const struct nlattr *gateway = NULL, *via = NULL;
		size_t step = RTNH_ALIGN(nh->rtnh_len);
		int bytes = nh->rtnh_len - (int)sizeof(*nh);

		for (const struct nlattr *at = (const void *)(nh + 1); mnl_attr_ok(at, bytes);
		     bytes -= MNL_ALIGN(at->nla_len), at = mnl_attr_next(at)) {
			if (mnl_attr_get_type(at) == RTA_GATEWAY)
				gateway = at;
			if (mnl_attr_get_type(at) == RTA_VIA)
				via = at;
		}
		if (set_way(rd, r, (unsigned)nh->rtnh_ifindex, nh->rtnh_flags)) {
			set_gateway(r, family, gateway, via);
			return true;
		}
		if (step >= left)
			break;
		left -= step;
		nh = (const void *)((const char *)nh + step);
	}
	return false;
}

static uint32_t u32_of(const struct nlattr *a, uint32_t otherwise)
{
	return a != NULL && mnl_attr_validate(a, MNL_TYPE_U32) >= 0 ? mnl_attr_get_u32(a)
								    : otherwise;
}

/* @return false if the route says nothing about where packets go */
static bool route_parse(const struct route_reading *rd, struct seen *out,
			const struct nlmsghdr *nlh)
{
	static const struct ip_prefix link_local = {{{0xfe, 0x80}}, 10}; /* RFC 4291 section 2.4 */
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *a[RTA_VIA + 1], *metrics[RTAX_MTU + 1];
	struct msg_route *r = &out->r;
	uint32_t table;
	bool v4;

	memset(out, 0, sizeof(*out));
	if (rtnl_attrs(nlh, sizeof(*rtm), a, RTA_VIA + 1) < 0)
		return false;
	v4 = rtm->rtm_family == AF_INET;
	table = u32_of(a[RTA_TABLE], rtm->rtm_table);
	r->kind = kind_of(rtm->rtm_type);
	if ((!v4 && rtm->rtm_family != AF_INET6) || r->kind == 0 ||
	    (rtm->rtm_flags & RTM_F_CLONED) || rtm->rtm_tos != 0 ||
	    (table != RT_TABLE_MAIN && table != RT_TABLE_LOCAL) ||
	    rtm->rtm_dst_len > (v4 ? 32 : 128))
		return false;
	r->prefix.addr = v4 ? ip_addr_from_v4("\0\0\0\0") : (struct ip_addr){{0}};
	r->prefix.len = (uint8_t)(rtm->rtm_dst_len + (v4 ? 96 : 0));
	if (a[RTA_DST] != NULL && !rtnl_get_addr(&r->prefix.addr, rtm->rtm_family, a[RTA_DST]))
		return false;
	if (r->kind == ROUTE_FORWARD && r->prefix.len >= 10 &&
	    ip_prefix_has(&link_local, &r->prefix.addr))
		r->kind =
			ROUTE_LOCAL; /* never forwarded, and on every interface another: the kernel's */
	r->port = MSG_PORT_KERNEL;
	if (r->kind == ROUTE_FORWARD && a[RTA_MULTIPATH] != NULL) {
		if (!set_multipath(rd, r, rtm->rtm_family, a[RTA_MULTIPATH]))
			return false;
	} else if (r->kind == ROUTE_FORWARD) {
		if (!set_way(rd, r, u32_of(a[RTA_OIF], 0), rtm->rtm_flags))
			return false;
		set_gateway(r, rtm->rtm_family, a[RTA_GATEWAY], a[RTA_VIA]);
	}
	if (a[RTA_METRICS] != NULL && rtnl_nested(a[RTA_METRICS], metrics, RTAX_MTU + 1) == 0 &&
	    u32_of(metrics[RTAX_MTU], 0) <= UINT16_MAX)
		r->mtu_bytes = (uint16_t)u32_of(metrics[RTAX_MTU], 0);
	out->priority = u32_of(a[RTA_PRIORITY], 0);
	out->local = table == RT_TABLE_LOCAL;
	return true;
}

static int route_cb(const struct nlmsghdr *nlh, void *arg)
{
	struct route_reading *rd = arg;
	struct seen one;

	if (nlh->nlmsg_type != RTM_NEWROUTE || !route_parse(rd, &one, nlh))
		return MNL_CB_OK;
	if (rd->n == rd->cap) {
		size_t cap = rd->cap * 2 + 64;
		struct seen *grown = realloc(rd->seen, cap * sizeof(*grown));

		if (grown == NULL) {
			rd->no_memory = true;
			return MNL_CB_OK;
		}
		rd->seen = grown;
		rd->cap = cap;
	}
	one.order = (uint32_t)rd->n;
	rd->seen[rd->n++] = one;
	return MNL_CB_OK;
}

int routes_read(struct msg_route **out, size_t *n, struct rtnl *r, const struct gw_config *cfg,
		const struct link_list *links)
{
	struct route_reading rd = {.cfg = cfg, .links = links};
	struct msg_route *best = NULL;
	size_t count = 0;
	int ret = -EINTR;

	for (int i = 0; i < READ_TRIES && ret == -EINTR; i++) {
		char buf[128];
		struct rtmsg rtm = {.rtm_family = AF_UNSPEC};

		rd.n = 0;
		ret = rtnl_ask(r, rtnl_header(buf, RTM_GETROUTE, NLM_F_DUMP, &rtm, sizeof(rtm)),
			       route_cb, &rd);
	}
	if (ret == 0 && rd.no_memory)
		ret = -ENOMEM;
	if (ret == 0 && (best = calloc(rd.n + 1, sizeof(*best))) == NULL)
		ret = -ENOMEM;
	if (ret == 0) {
		if (rd.n > 0)
			qsort(rd.seen, rd.n, sizeof(rd.seen[0]), seen_cmp);
		for (size_t i = 0; i < rd.n; i++)
			if (i == 0 || route_prefix_cmp(&rd.seen[i - 1].r, &rd.seen[i].r) != 0)
				best[count++] = rd.seen[i].r;
		*out = best;
		*n = count;
	}
	free(rd.seen);
	return ret;
}
