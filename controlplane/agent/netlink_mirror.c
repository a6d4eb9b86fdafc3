/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <linux/neighbour.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/clock.h"
#include "controlplane/agent/netlink_internal.h"

#define NEIGH_HASH 65536 /* power of two */
#define REST_TIMES 10 /* reading takes at most a tenth of our time */
#define REST_MS_MAX 500
#define READ_QUICK_US 2000 /* a small table is read as often as it changes */
#define USABLE (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP)

struct neigh {
	struct neigh *next;
	struct msg_neigh m; /* header zero */
	unsigned index; /* interface */
	bool seen; /* in the reading under way */
};

struct mirror {
	const struct gw_config *cfg;
	const struct mirror_ops *ops;
	void *arg;
	struct mnl_socket *events;
	struct rtnl req;
	struct link_list links;
	struct msg_route *routes; /* as reported, sorted by prefix */
	size_t n_routes;
	struct neigh *neigh[NEIGH_HASH];
	bool quiet; /* first reading: mirror_dump() reports it */
	bool routes_stale; /* read again before the dispatch ends */
	bool all_stale; /* notifications were lost */
	uint64_t rest_until_us; /* boot clock; no table is read again before */
};

/* ---- neighbours ---- */

static unsigned neigh_slot(const struct ip_addr *ip, unsigned index)
{
	uint32_t h = 2166136261u ^ index;

	for (size_t i = 0; i < sizeof(ip->b); i++)
		h = (h ^ ip->b[i]) * 16777619u;
	return (h ^ h >> 16) & (NEIGH_HASH - 1);
}

static void report_neigh(struct mirror *m, bool add, const struct neigh *n)
{
	if (!m->quiet)
		m->ops->neigh(m->arg, add, &n->m);
}

static void neigh_drop(struct mirror *m, struct neigh **at)
{
	struct neigh *n = *at;

	*at = n->next;
	report_neigh(m, false, n);
	free(n);
}

struct neigh_seen {
	struct msg_neigh m;
	unsigned index;
	bool usable;
};

static bool neigh_parse(const struct mirror *m, struct neigh_seen *out, const struct nlmsghdr *nlh)
{
	const struct ndmsg *ndm = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *a[NDA_LLADDR + 1];
	const struct link *link;

	memset(out, 0, sizeof(*out));
	if (rtnl_attrs(nlh, sizeof(*ndm), a, NDA_LLADDR + 1) < 0 || (ndm->ndm_flags & NTF_PROXY) ||
	    a[NDA_DST] == NULL || !rtnl_get_addr(&out->m.ip, ndm->ndm_family, a[NDA_DST]))
		return false;
	link = link_by_index(&m->links, (unsigned)ndm->ndm_ifindex);
	if (link == NULL || !link->ours || ndm->ndm_type == RTN_MULTICAST)
		return false;
	out->index = link->index;
	out->m.port = link->port;
	out->m.vlan = link->vlan;
	out->usable = nlh->nlmsg_type == RTM_NEWNEIGH && (ndm->ndm_state & USABLE) &&
		      a[NDA_LLADDR] != NULL &&
		      mnl_attr_get_payload_len(a[NDA_LLADDR]) == sizeof(out->m.mac.b);
	if (out->usable)
		memcpy(out->m.mac.b, mnl_attr_get_payload(a[NDA_LLADDR]), sizeof(out->m.mac.b));
	return true;
}

static void neigh_take(struct mirror *m, const struct nlmsghdr *nlh)
{
	struct neigh **at;
	struct neigh_seen s;
	struct neigh *n;

	if (!neigh_parse(m, &s, nlh))
		return;
	at = &m->neigh[neigh_slot(&s.m.ip, s.index)];
	while (*at != NULL && ((*at)->index != s.index || !ip_addr_eq(&(*at)->m.ip, &s.m.ip)))
		at = &(*at)->next;
	n = *at;
	if (!s.usable) {
		if (n != NULL)
			neigh_drop(m, at);
		return;
	}
	if (n == NULL) {
		n = calloc(1, sizeof(*n));
		if (n == NULL) {
			m->all_stale = true; /* once more, when there is memory */
			return;
		}
		n->index = s.index;
		*at = n;
	} else if (memcmp(&n->m, &s.m, sizeof(s.m)) == 0) {
		n->seen = true;
		return;
	}
	n->seen = true;
	n->m = s.m;
	report_neigh(m, true, n);
}

static int neigh_cb(const struct nlmsghdr *nlh, void *arg)
{
	neigh_take(arg, nlh);
	return MNL_CB_OK;
}

/* Drop the neighbours of one interface (0: of all), those of the present reading excepted if `unseen`. */
static void neigh_sweep(struct mirror *m, unsigned index, bool unseen)
{
	for (size_t i = 0; i < NEIGH_HASH; i++) {
		struct neigh **at = &m->neigh[i];

		while (*at != NULL)
			if ((index == 0 || (*at)->index == index) && !(unseen && (*at)->seen))
				neigh_drop(m, at);
			else
				at = &(*at)->next;
	}
}

static int neigh_read(struct mirror *m)
{
	struct ndmsg ndm = {.ndm_family = AF_UNSPEC};
	char buf[128];
	int ret = -EINTR;

	for (int tries = 0; tries < 8 && ret == -EINTR; tries++) {
		for (size_t i = 0; i < NEIGH_HASH; i++)
			for (struct neigh *n = m->neigh[i]; n != NULL; n = n->next)
				n->seen = false;
		ret = rtnl_ask(&m->req,
			       rtnl_header(buf, RTM_GETNEIGH, NLM_F_DUMP, &ndm, sizeof(ndm)),
			       neigh_cb, m);
	}
	if (ret == 0)
		neigh_sweep(m, 0, true);
	return ret;
}

int mirror_neigh_find(struct mirror *m, const struct ip_addr *ip, struct mac_addr *mac,
		      uint16_t *port, uint16_t *vlan)
{
	bool v4 = ip_addr_is_v4(ip);

	for (int fresh = 0; fresh <= 1; fresh++) {
		for (size_t i = 0; i < m->links.n; i++) {
			const struct link *link = &m->links.link[i];
			const struct neigh *n;

			if (!link->ours)
				continue;
			if (fresh) {
				struct ndmsg ndm = {.ndm_family = v4 ? AF_INET : AF_INET6,
						    .ndm_ifindex = (int)link->index};
				char buf[128];
				struct nlmsghdr *req = rtnl_header(buf, RTM_GETNEIGH, NLM_F_ACK,
								   &ndm, sizeof(ndm));

				rtnl_put_addr(req, NDA_DST, ip);
				rtnl_ask(&m->req, req, neigh_cb,
					 m); /* no such entry: still not found */
			}
			n = m->neigh[neigh_slot(ip, link->index)];
			while (n != NULL && (n->index != link->index || !ip_addr_eq(&n->m.ip, ip)))
				n = n->next;
			if (n != NULL) {
				*mac = n->m.mac;
				*port = n->m.port;
				*vlan = n->m.vlan;
				return 0;
			}
		}
	}
	return -ENOENT;
}

/* ---- links ---- */

static void report_link(struct mirror *m, const struct link *link, bool exists)
{
	if (!m->quiet)
		m->ops->link(m->arg, link->name, exists && link->up, exists);
}

/* A message as it comes, or of a reading (then nothing is ever removed here). */
static void link_take(struct mirror *m, const struct nlmsghdr *nlh)
{
	struct link link, *old, before;
	bool had;

	if (!link_parse(&link, m->cfg, nlh))
		return;
	old = link_by_index(&m->links, link.index);
	had = old != NULL;
	if (had)
		before = *old;
	if (nlh->nlmsg_type == RTM_DELLINK) {
		if (!had)
			return;
		neigh_sweep(m, link.index, false);
		*old = m->links.link[--m->links.n];
		m->routes_stale = true;
		report_link(m, &before, false);
		return;
	}
	link.seen = true;
	if (link_put(&m->links, &link) < 0) {
		m->all_stale = true;
		return;
	}
	if (had &&
	    (before.ours != link.ours || before.port != link.port || before.vlan != link.vlan)) {
		neigh_sweep(m, link.index, false); /* another port's now, or nobody's */
		m->all_stale = true;
	} else if (had && strcmp(before.name, link.name) == 0 && before.up == link.up &&
		   before.admin_up == link.admin_up) {
		return;
	}
	/* The kernel says nothing of the IPv4 routes that go with an interface. */
	m->routes_stale = true;
	if (had && strcmp(before.name, link.name) != 0) {
		neigh_sweep(m, link.index, false); /* they belonged to another (port, vlan) */
		report_link(m, &before, false);
		m->all_stale = true;
	}
	report_link(m, &link, true);
}

static int link_cb(const struct nlmsghdr *nlh, void *arg)
{
	link_take(arg, nlh);
	return MNL_CB_OK;
}

static int links_read(struct mirror *m)
{
	struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
	char buf[128];
	int ret = -EINTR;

	for (int tries = 0; tries < 8 && ret == -EINTR; tries++) {
		for (size_t i = 0; i < m->links.n; i++)
			m->links.link[i].seen = false;
		ret = rtnl_ask(&m->req,
			       rtnl_header(buf, RTM_GETLINK, NLM_F_DUMP, &ifi, sizeof(ifi)),
			       link_cb, m);
	}
	for (size_t i = 0; ret == 0 && i < m->links.n;) {
		struct link gone = m->links.link[i];

		if (gone.seen) {
			i++;
			continue;
		}
		neigh_sweep(m, gone.index, false);
		m->links.link[i] = m->links.link[--m->links.n];
		report_link(m, &gone, false);
	}
	return ret;
}

/* ---- routes ---- */

static void report_route(struct mirror *m, bool add, const struct msg_route *r)
{
	if (!m->quiet)
		m->ops->route(m->arg, add, r);
}

/* Read all and report the difference: both lists are sorted by prefix, each prefix once. */
static int routes_take(struct mirror *m)
{
	struct msg_route *fresh;
	size_t n, i = 0, k = 0;
	int ret = routes_read(&fresh, &n, &m->req, m->cfg, &m->links);

	if (ret < 0)
		return ret;
	while (i < m->n_routes || k < n) {
		int diff = i == m->n_routes ? 1
			   : k == n	    ? -1
					    : route_prefix_cmp(&m->routes[i], &fresh[k]);

		if (diff < 0) {
			report_route(m, false, &m->routes[i++]);
			continue;
		}
		if (diff > 0 || memcmp(&m->routes[i], &fresh[k], sizeof(fresh[k])) != 0)
			report_route(m, true, &fresh[k]);
		i += diff == 0;
		k++;
	}
	free(m->routes);
	m->routes = fresh;
	m->n_routes = n;
	m->routes_stale = false;
	return 0;
}

static int read_all(struct mirror *m)
{
	int ret = links_read(m);

	m->all_stale = false;
	if (ret == 0)
		ret = neigh_read(m);
	if (ret == 0)
		ret = routes_take(m);
	if (ret < 0)
		m->all_stale = true;
	return ret;
}

/* ---- the object ---- */

static void take(struct mirror *m, const struct nlmsghdr *nlh)
{
	switch (nlh->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		link_take(m, nlh);
		break;
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		neigh_take(m, nlh);
		break;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
	case RTM_NEWADDR: /* routes come and go with addresses, not all of them with a word */
	case RTM_DELADDR:
		m->routes_stale = true;
		break;
	}
}

int mirror_dispatch(struct mirror *m, struct err *err)
{
	char buf[RTNL_BYTES];
	int ret = 0;

	for (;;) {
		ssize_t got = mnl_socket_recvfrom(m->events, buf, sizeof(buf));
		const struct nlmsghdr *nlh = (const void *)buf;
		int left = (int)got;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && (errno == ENOBUFS || errno == ENOSPC)) {
			m->all_stale = true;
			continue;
		}
		if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
			ret = -errno;
			return err_set(err, ret, "netlink: %s", strerror(-ret));
		}
		if (got < 0)
			break;
		for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
			take(m, nlh);
	}
	if ((m->all_stale || m->routes_stale) && clock_boot_us() >= m->rest_until_us) {
		uint64_t start = clock_boot_us(), took;

		ret = m->all_stale ? read_all(m) : routes_take(m);
		took = clock_boot_us() - start;
		m->rest_until_us = start + took;
		m->rest_until_us += REST_TIMES * took < REST_MS_MAX * 1000 ? REST_TIMES * took
									   : REST_MS_MAX * 1000;
		if (took < READ_QUICK_US)
			m->rest_until_us = 0;
	}
	return ret < 0 ? err_set(err, ret, "netlink: read: %s", strerror(-ret)) : 0;
}

int mirror_wait_ms(const struct mirror *m)
{
	uint64_t now = clock_boot_us();

	if (!m->all_stale && !m->routes_stale)
		return -1;
	return m->rest_until_us > now ? (int)((m->rest_until_us - now) / 1000) + 1 : 0;
}

void mirror_dump(struct mirror *m)
{
	for (size_t i = 0; i < m->n_routes; i++)
		m->ops->route(m->arg, true, &m->routes[i]);
	for (size_t i = 0; i < NEIGH_HASH; i++)
		for (const struct neigh *n = m->neigh[i]; n != NULL; n = n->next)
			m->ops->neigh(m->arg, true, &n->m);
}

int mirror_new(struct mirror **out, const struct gw_config *cfg, const struct mirror_ops *ops,
	       void *arg, struct err *err)
{
	static const int groups[] = {RTNLGRP_LINK,	 RTNLGRP_NEIGH,	      RTNLGRP_IPV4_ROUTE,
				     RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR};
	struct mirror *m = calloc(1, sizeof(*m));
	int room = 8 << 20, ret;

	if (m == NULL)
		return err_set(err, -ENOMEM, "netlink: no memory");
	m->cfg = cfg;
	m->ops = ops;
	m->arg = arg;
	ret = rtnl_open(&m->req, err);
	if (ret < 0)
		goto fail;
	m->events = mnl_socket_open2(NETLINK_ROUTE, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (m->events == NULL || mnl_socket_bind(m->events, 0, MNL_SOCKET_AUTOPID) < 0)
		goto fail_errno;
	setsockopt(mnl_socket_get_fd(m->events), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		if (mnl_socket_setsockopt(m->events, NETLINK_ADD_MEMBERSHIP, (void *)&groups[i],
					  sizeof(groups[i])) < 0)
			goto fail_errno;
	m->quiet = true;
	ret = read_all(m);
	m->quiet = false;
	if (ret < 0) {
		err_set(err, ret, "netlink: read: %s", strerror(-ret));
		goto fail;
	}
	*out = m;
	return 0;
fail_errno:
	ret = -errno;
	err_set(err, ret, "netlink: notification socket: %s", strerror(-ret));
fail:
	mirror_free(m);
	return ret;
}

void mirror_free(struct mirror *m)
{
	if (m == NULL)
		return;
	m->quiet = true;
	neigh_sweep(m, 0, false);
	free(m->routes);
	free(m->links.link);
	rtnl_close(&m->req);
	if (m->events != NULL)
		mnl_socket_close(m->events);
	free(m);
}

void mirror_refresh(struct mirror *m)
{
	m->rest_until_us = 0;
	m->all_stale = true;
}

bool mirror_link_up(const struct mirror *m, const char *ifname)
{
	const struct link *link = link_by_name(&m->links, ifname);

	return link != NULL && link->up;
}

int mirror_fd(const struct mirror *m)
{
	return mnl_socket_get_fd(m->events);
}
