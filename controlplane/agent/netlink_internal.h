/* SPDX-License-Identifier: GPL-3.0-or-later */
/* netlink_internal: what the files netlink*.c share and nobody else sees. */
#pragma once

#include <libmnl/libmnl.h>
#include <net/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include "controlplane/agent/netlink.h"

#define RTNL_BYTES 65536 /* the kernel fills packets of at most half of it */

struct rtnl {
	struct mnl_socket *sock;
	uint32_t seq;
};

int rtnl_open(struct rtnl *r, struct err *err);
void rtnl_close(struct rtnl *r);

/** One request (flags of its own: NLM_F_ACK or NLM_F_DUMP) and all its answers to cb, which may be NULL.
 * @return 0; -EINTR: the dump is torn, ask again; or the kernel's -errno */
int rtnl_ask(struct rtnl *r, struct nlmsghdr *req, mnl_cb_t cb, void *arg);

struct nlmsghdr *rtnl_header(char *buf, uint16_t type, uint16_t flags, const void *body,
			     size_t body_bytes);

/** The address in the family's own form, as an attribute. */
void rtnl_put_addr(struct nlmsghdr *nlh, uint16_t type, const struct ip_addr *a);

/** An address of `family` from an attribute. @return false if the length is wrong */
bool rtnl_get_addr(struct ip_addr *out, unsigned family, const struct nlattr *attr);

/** Attributes by type below max, the last of a kind wins; out is zeroed first. @return 0 or -EPROTO */
int rtnl_attrs(const struct nlmsghdr *nlh, unsigned body_bytes, const struct nlattr **out,
	       unsigned max);
int rtnl_nested(const struct nlattr *nest, const struct nlattr **out, unsigned max);

/* ---- netlink_read: readings of the kernel's links and routing tables ---- */

struct link {
	unsigned index;
	char name[IFNAMSIZ];
	bool ours; /* port and vlan are set */
	bool up;
	bool seen; /* in the reading under way */
	uint16_t port, vlan;
	uint32_t mtu_bytes;
	bool admin_up;
};

struct link_list {
	struct link *link;
	size_t n, cap;
};

/** From RTM_NEWLINK or RTM_DELLINK. @return false if it is not a message about an interface of this kind */
bool link_parse(struct link *out, const struct gw_config *cfg, const struct nlmsghdr *nlh);
struct link *link_by_index(const struct link_list *l, unsigned index);
struct link *link_by_name(const struct link_list *l, const char *name);
int link_put(struct link_list *l, const struct link *link); /* adds or replaces; 0 or -ENOMEM */
int link_read(struct link_list *l, struct rtnl *r,
	      const struct gw_config *cfg); /* replaces the list; 0 or -errno */

/** Read the tables main and local: the best route of every prefix, sorted by prefix, headers zero.
 * @param[out] out  caller frees; @return 0 or -errno */
int routes_read(struct msg_route **out, size_t *n, struct rtnl *r, const struct gw_config *cfg,
		const struct link_list *links);
int route_prefix_cmp(const struct msg_route *a, const struct msg_route *b);
