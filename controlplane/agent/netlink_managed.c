/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <linux/neighbour.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/log.h"
#include "controlplane/agent/netlink_internal.h"

#define LOCAL_PORTS "/proc/sys/net/ipv4/ip_local_port_range"
#define EVERY_MS 1000 /* a shadow that comes anew, or another route, is noticed so fast */
#ifndef NTF_EXT_MANAGED
#define NTF_EXT_MANAGED 1
#endif

struct managed {
	const struct gw_config *cfg;
	struct rtnl req;
	uint64_t next_ms;
	int said; /* the error that was logged last; 0: none */
};

struct hop {
	struct ip_addr ip;
	unsigned index; /* of the interface; 0: none */
};

static int take_hop(const struct nlmsghdr *nlh, void *data)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *a[RTA_GATEWAY + 1];
	struct hop *h = data;

	if (nlh->nlmsg_type != RTM_NEWROUTE ||
	    rtnl_attrs(nlh, sizeof(*rtm), a, RTA_GATEWAY + 1) < 0 || rtm->rtm_type != RTN_UNICAST ||
	    a[RTA_OIF] == NULL || mnl_attr_get_payload_len(a[RTA_OIF]) != sizeof(uint32_t))
		return MNL_CB_OK;
	if (a[RTA_GATEWAY] != NULL && !rtnl_get_addr(&h->ip, rtm->rtm_family, a[RTA_GATEWAY]))
		return MNL_CB_OK;
	h->index = mnl_attr_get_u32(a[RTA_OIF]);
	return MNL_CB_OK;
}

/* @return 0, with h->index 0 if no unicast route leads there, or -errno */
static int find_hop(struct managed *m, const struct ip_addr *to, struct hop *h)
{
	bool v4 = ip_addr_is_v4(to);
	struct rtmsg rtm = {.rtm_family = v4 ? AF_INET : AF_INET6, .rtm_dst_len = v4 ? 32 : 128};
	struct nlmsghdr *req;
	char buf[256];
	int ret;

	*h = (struct hop){.ip = *to};
	req = rtnl_header(buf, RTM_GETROUTE, NLM_F_ACK, &rtm, sizeof(rtm));
	rtnl_put_addr(req, RTA_DST, to);
	ret = rtnl_ask(&m->req, req, take_hop, h);
	return ret == -ENETUNREACH || ret == -EHOSTUNREACH ? 0 : ret;
}

static int take_state(const struct nlmsghdr *nlh, void *data)
{
	const struct ndmsg *ndm = mnl_nlmsg_get_payload(nlh);

	if (nlh->nlmsg_type == RTM_NEWNEIGH && mnl_nlmsg_get_payload_len(nlh) >= sizeof(*ndm))
		*(uint16_t *)data = ndm->ndm_state;
	return MNL_CB_OK;
}

/* Somebody's word, which must not be asked about: the kernel would forget it. @return false also if it cannot be known */
static bool is_fixed(struct managed *m, const struct hop *h)
{
	struct ndmsg ndm = {.ndm_family = ip_addr_is_v4(&h->ip) ? AF_INET : AF_INET6,
			    .ndm_ifindex = (int)h->index};
	uint16_t state = NUD_NONE;
	struct nlmsghdr *req;
	char buf[256];

	req = rtnl_header(buf, RTM_GETNEIGH, NLM_F_ACK, &ndm, sizeof(ndm));
	rtnl_put_addr(req, NDA_DST, &h->ip);
	return rtnl_ask(&m->req, req, take_state, &state) == 0 &&
	       (state & (NUD_PERMANENT | NUD_NOARP)) != 0;
}

/* NTF_USE asks for it now; a kernel that knows NTF_EXT_MANAGED (5.16) goes on by itself, an older one heeds the first. */
static int keep(struct managed *m, const struct hop *h)
{
	struct ndmsg ndm = {.ndm_family = ip_addr_is_v4(&h->ip) ? AF_INET : AF_INET6,
			    .ndm_state = NUD_NONE,
			    .ndm_flags = NTF_USE,
			    .ndm_ifindex = (int)h->index};
	struct nlmsghdr *req;
	char buf[256];

	req = rtnl_header(buf, RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &ndm,
			  sizeof(ndm));
	rtnl_put_addr(req, NDA_DST, &h->ip);
	mnl_attr_put_u32(req, NDA_FLAGS_EXT, NTF_EXT_MANAGED);
	return rtnl_ask(&m->req, req, NULL, NULL);
}

static int keep_upstream(struct managed *m, const struct ip_addr *to)
{
	char name[IFNAMSIZ];
	uint16_t port, vlan;
	struct hop h;
	int ret = find_hop(m, to, &h);

	if (ret < 0 || h.index == 0 || if_indextoname(h.index, name) == NULL ||
	    !ports_find(m->cfg, name, &port, &vlan) || is_fixed(m, &h))
		return ret;
	return keep(m, &h);
}

void managed_tick(struct managed *m, uint64_t now_ms)
{
	int ret = 0;

	if (now_ms < m->next_ms)
		return;
	m->next_ms = now_ms + EVERY_MS;
	for (uint32_t i = 0; i < m->cfg->n_listeners; i++) {
		const struct gw_listener *l = &m->cfg->listeners[i];

		for (uint32_t k = 0; l->transport == GW_STACK && k < l->n_upstreams; k++) {
			int one = keep_upstream(m, &l->upstreams[k].addr);

			ret = one < 0 ? one : ret;
		}
	}
	if (ret < 0 && ret != m->said)
		log_warn("upstreams' neighbours cannot be kept: %s", strerror(-ret));
	m->said = ret;
}

void managed_soon(struct managed *m)
{
	m->next_ms = 0;
}

/* A socket of the kernel's with such a port would lose what an upstream answers to a TLS worker. */
static void warn_of_overlap(const struct gw_config *cfg)
{
	FILE *f = fopen(LOCAL_PORTS, "re");
	unsigned first, last;

	if (f == NULL)
		return;
	if (fscanf(f, "%u %u", &first, &last) == 2 && first <= cfg->tls_port_last &&
	    last >= cfg->tls_port_first)
		log_warn("tls.upstream_ports %u-%u meets the kernel's own %u-%u: set "
			 "net.ipv4.ip_local_port_range to other ports, or upstream_ports",
			 cfg->tls_port_first, cfg->tls_port_last, first, last);
	fclose(f);
}

int managed_new(struct managed **out, const struct gw_config *cfg, struct err *err)
{
	struct managed *m = calloc(1, sizeof(*m));
	int ret;

	if (m == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	m->cfg = cfg;
	ret = rtnl_open(&m->req, err);
	if (ret < 0) {
		free(m);
		return ret;
	}
	if (gw_uses_stack(cfg))
		warn_of_overlap(cfg);
	*out = m;
	return 0;
}

void managed_free(struct managed *m)
{
	if (m == NULL)
		return;
	rtnl_close(&m->req);
	free(m);
}
