/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "controlplane/agent/netlink_internal.h"

int rtnl_open(struct rtnl *r, struct err *err)
{
	int ret;

	r->seq = 0;
	r->sock = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (r->sock != NULL && mnl_socket_bind(r->sock, 0, MNL_SOCKET_AUTOPID) == 0)
		return 0;
	ret = -errno;
	rtnl_close(r);
	return err_set(err, ret, "netlink: socket: %s", strerror(-ret));
}

void rtnl_close(struct rtnl *r)
{
	if (r->sock != NULL)
		mnl_socket_close(r->sock);
	r->sock = NULL;
}

int rtnl_ask(struct rtnl *r, struct nlmsghdr *req, mnl_cb_t cb, void *arg)
{
	char buf[RTNL_BYTES];
	int ret = 1;

	req->nlmsg_seq = ++r->seq;
	if (mnl_socket_sendto(r->sock, req, req->nlmsg_len) < 0)
		return -errno;
	while (ret > 0) {
		ssize_t got = mnl_socket_recvfrom(r->sock, buf, sizeof(buf));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		ret = mnl_cb_run(buf, (size_t)got, r->seq, mnl_socket_get_portid(r->sock), cb, arg);
		if (ret < 0 && errno == EINTR) {
			while (recv(mnl_socket_get_fd(r->sock), buf, sizeof(buf), MSG_DONTWAIT) > 0)
				;
			return -EINTR;
		}
		if (ret < 0 && errno != ESRCH && errno != EPROTO)
			return -errno;
		if (ret < 0)
			ret = 1; /* the tail of an earlier answer */
	}
	return 0;
}

struct nlmsghdr *rtnl_header(char *buf, uint16_t type, uint16_t flags, const void *body,
			     size_t body_bytes)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;
	memcpy(mnl_nlmsg_put_extra_header(nlh, body_bytes), body, body_bytes);
	return nlh;
}

void rtnl_put_addr(struct nlmsghdr *nlh, uint16_t type, const struct ip_addr *a)
{
	if (ip_addr_is_v4(a))
		mnl_attr_put(nlh, type, 4, a->b + 12);
	else
		mnl_attr_put(nlh, type, 16, a->b);
}

bool rtnl_get_addr(struct ip_addr *out, unsigned family, const struct nlattr *attr)
{
	const void *bytes = mnl_attr_get_payload(attr);
	unsigned len = mnl_attr_get_payload_len(attr);

	if (family == AF_INET && len == 4)
		*out = ip_addr_from_v4(bytes);
	else if (family == AF_INET6 && len == 16)
		*out = ip_addr_from_v6(bytes);
	else
		return false;
	return true;
}

struct attr_table {
	const struct nlattr **out;
	unsigned max;
};

static int attr_cb(const struct nlattr *attr, void *data)
{
	struct attr_table *t = data;

	if (mnl_attr_get_type(attr) < t->max)
		t->out[mnl_attr_get_type(attr)] = attr;
	return MNL_CB_OK;
}

int rtnl_attrs(const struct nlmsghdr *nlh, unsigned body_bytes, const struct nlattr **out,
	       unsigned max)
{
	struct attr_table t = {out, max};

	memset(out, 0, max * sizeof(out[0]));
	if (mnl_nlmsg_get_payload_len(nlh) < body_bytes)
		return -EPROTO;
	return mnl_attr_parse(nlh, body_bytes, attr_cb, &t) < 0 ? -EPROTO : 0;
}

int rtnl_nested(const struct nlattr *nest, const struct nlattr **out, unsigned max)
{
	struct attr_table t = {out, max};

	memset(out, 0, max * sizeof(out[0]));
	return mnl_attr_parse_nested(nest, attr_cb, &t) < 0 ? -EPROTO : 0;
}

/* ---- names ---- */

static const struct gw_vlan *vlan_of(const struct gw_port *p, uint16_t vlan)
{
	for (unsigned i = 0; i < p->n_vlans && i < MSG_VLANS_MAX; i++)
		if (p->vlans[i].id == vlan)
			return &p->vlans[i];
	return NULL;
}

int ports_ifname(const struct gw_config *cfg, uint16_t port, uint16_t vlan, char *out)
{
	const struct gw_vlan *v;
	int len;

	if (port >= cfg->n_ports)
		return -EINVAL;
	v = vlan_of(&cfg->ports[port], vlan);
	if (v == NULL && !(vlan == 0 && cfg->ports[port].untagged))
		return -EINVAL;
	if (v != NULL && v->outer != 0)
		len = snprintf(out, IFNAMSIZ, "%s.%u.%u", cfg->ports[port].tap, v->outer, v->tag);
	else if (vlan == 0)
		len = snprintf(out, IFNAMSIZ, "%s", cfg->ports[port].tap);
	else
		len = snprintf(out, IFNAMSIZ, "%s.%u", cfg->ports[port].tap, vlan);
	return len > 0 && len < IFNAMSIZ ? 0 : -EINVAL;
}

bool ports_find(const struct gw_config *cfg, const char *ifname, uint16_t *port, uint16_t *vlan)
{
	char name[IFNAMSIZ];

	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		const struct gw_port *p = &cfg->ports[i];

		*port = (uint16_t)i;
		*vlan = 0;
		if (p->untagged && strcmp(p->tap, ifname) == 0)
			return true;
		for (unsigned k = 0; k < p->n_vlans && k < MSG_VLANS_MAX; k++) {
			*vlan = p->vlans[k].id;
			if (ports_ifname(cfg, *port, *vlan, name) == 0 && strcmp(name, ifname) == 0)
				return true;
		}
	}
	return false;
}
