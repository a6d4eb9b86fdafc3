/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/neighbour.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "controlplane/agent/netlink_internal.h"

/* What the kernel shall know of a bound device; kept, for a TAP takes its entries along when it goes. */
struct pin {
	struct ip_addr ip; /* the key: ip, port, vlan */
	uint16_t port, vlan;
	struct mac_addr mac;
	bool pinned, proxied;
};

struct ports {
	const struct gw_config *cfg;
	struct rtnl req;
	struct link_list links;
	void *pins; /* tsearch(3) tree */
};

/* The first error of several steps, that all are tried. */
static void first(int *ret, int step)
{
	if (*ret == 0)
		*ret = step;
}

/* Where the next step may write: the first error's text stays. */
static struct err *unless(int ret, struct err *err)
{
	return ret < 0 ? NULL : err;
}

/* ---- sysctl ---- */

/* @return 0 (also: was so already), or -errno with the path in err */
static int sysctl_set(const char *path, const char *value, struct err *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), ret = 0;
	size_t len = strlen(value);
	char now[32];
	ssize_t got;

	if (fd < 0)
		fd = open(path, O_RDONLY | O_CLOEXEC); /* read-only /proc: fine if it is right */
	if (fd < 0) {
		ret = -errno;
		return err_set(err, ret, "%s: %s", path, strerror(-ret));
	}
	got = read(fd, now, sizeof(now));
	if (got < (ssize_t)len || memcmp(now, value, len) != 0 ||
	    (got > (ssize_t)len && now[len] != '\n'))
		if (pwrite(fd, value, len, 0) < 0)
			ret = -errno;
	close(fd);
	return ret < 0 ? err_set(err, ret, "%s = %s: %s", path, value, strerror(-ret)) : 0;
}

static int sysctl_if(const char *tree, const char *ifname, const char *key, const char *value,
		     struct err *err)
{
	char path[128];

	snprintf(path, sizeof(path), "/proc/sys/net/%s/%s/%s", tree, ifname, key);
	return sysctl_set(path, value, err);
}

static bool has_ipv6(void)
{
	return access("/proc/sys/net/ipv6/conf/all", F_OK) == 0;
}

int ports_forwarding(struct ports *p, struct err *err)
{
	/* The kernel sees a part of a flow only, the rest takes the fast path: windows cannot be checked, and a
	 * connection may begin in the middle. */
	static const char *const conntrack[] = {
		"/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal",
		"/proc/sys/net/netfilter/nf_conntrack_tcp_loose"};
	int ret = 0;

	(void)p;
	for (size_t i = 0; i < sizeof(conntrack) / sizeof(conntrack[0]); i++)
		first(&ret, sysctl_set(conntrack[i], "1", unless(ret, err)));
	first(&ret, sysctl_set("/proc/sys/net/ipv4/ip_forward", "1", unless(ret, err)));
	if (has_ipv6())
		first(&ret,
		      sysctl_set("/proc/sys/net/ipv6/conf/all/forwarding", "1", unless(ret, err)));
	return ret;
}

static int sysctls_port(const struct gw_port *port, const char *ifname, struct err *err)
{
	const char *proxy = port->isolated && port->side == PORT_DEVICE ? "1" : "0";
	const struct {
		const char *tree, *key, *value;
	} rows[] = {
		/* Loose: the dataplane and the source guard check the way back; a strict filter would drop what
		 * reaches the kernel by the shadow of another port. */
		{"ipv4/conf", "rp_filter", "2"},	 {"ipv4/conf", "accept_redirects", "0"},
		{"ipv4/conf", "send_redirects", "0"},	 {"ipv4/conf", "accept_source_route", "0"},
		{"ipv4/conf", "proxy_arp_pvlan", proxy}, {"ipv4/neigh", "proxy_delay", "0"},
		{"ipv6/conf", "accept_ra", "0"},	 {"ipv6/conf", "autoconf", "0"},
		{"ipv6/conf", "accept_redirects", "0"},	 {"ipv6/conf", "proxy_ndp", proxy},
		{"ipv6/neigh", "proxy_delay", "0"},
	};
	bool v6 = has_ipv6();
	int ret = 0;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (v6 || rows[i].tree[3] == '4')
			first(&ret, sysctl_if(rows[i].tree, ifname, rows[i].key, rows[i].value,
					      unless(ret, err)));
	return ret;
}

/* ---- links ---- */

static int link_set(struct ports *p, const struct link *link, uint16_t mtu_bytes, struct err *err)
{
	struct ifinfomsg ifi = {
		.ifi_index = (int)link->index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
	bool mtu = mtu_bytes != 0 && link->mtu_bytes != mtu_bytes;
	struct nlmsghdr *req;
	char buf[256];
	int ret;

	if (!mtu && link->admin_up)
		return 0;
	req = rtnl_header(buf, RTM_NEWLINK, NLM_F_ACK, &ifi, sizeof(ifi));
	if (mtu)
		mnl_attr_put_u32(req, IFLA_MTU, mtu_bytes);
	ret = rtnl_ask(&p->req, req, NULL, NULL);
	return ret < 0 ? err_set(err, ret, "%s: set up, mtu %u: %s", link->name, mtu_bytes,
				 strerror(-ret))
		       : 0;
}

static int vlan_create(struct ports *p, const struct link *parent, const char *name, uint16_t vlan,
		       uint16_t proto, struct err *err)
{
	struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
	struct nlattr *info, *data;
	struct nlmsghdr *req;
	char buf[256];
	int ret;

	req = rtnl_header(buf, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &ifi,
			  sizeof(ifi));
	mnl_attr_put_strz(req, IFLA_IFNAME, name);
	mnl_attr_put_u32(req, IFLA_LINK, parent->index);
	info = mnl_attr_nest_start(req, IFLA_LINKINFO);
	mnl_attr_put_str(req, IFLA_INFO_KIND, "vlan");
	data = mnl_attr_nest_start(req, IFLA_INFO_DATA);
	mnl_attr_put_u16(req, IFLA_VLAN_ID, vlan);
	mnl_attr_put_u16(req, IFLA_VLAN_PROTOCOL, __builtin_bswap16(proto));
	mnl_attr_nest_end(req, data);
	mnl_attr_nest_end(req, info);
	ret = rtnl_ask(&p->req, req, NULL, NULL);
	return ret < 0 && ret != -EEXIST ? err_set(err, ret, "%s: create: %s", name, strerror(-ret))
					 : 0;
}

static int addrs_add(struct ports *p, unsigned index, const char *ifname,
		     const struct gw_vlan *vlan, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; i < vlan->n_addrs && i < GW_ADDRS_MAX; i++) {
		const struct gw_ifaddr *a = &vlan->addrs[i];
		bool v4 = ip_addr_is_v4(&a->addr);
		struct ifaddrmsg ifa = {.ifa_family = v4 ? AF_INET : AF_INET6,
					.ifa_prefixlen = (uint8_t)(a->len - (v4 ? 96 : 0)),
					.ifa_index = index};
		struct nlmsghdr *req;
		char buf[256], text[ADDR_TEXT_BYTES];
		int step;

		req = rtnl_header(buf, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &ifa,
				  sizeof(ifa));
		rtnl_put_addr(req, IFA_LOCAL, &a->addr);
		rtnl_put_addr(req, IFA_ADDRESS, &a->addr);
		if (!v4)
			mnl_attr_put_u32(req, IFA_FLAGS, IFA_F_NODAD);
		if (v4 && ifa.ifa_prefixlen < 31) {
			uint32_t addr, host;

			memcpy(&addr, a->addr.b + 12, sizeof(addr));
			host = (uint32_t)(UINT32_MAX >> ifa.ifa_prefixlen);
			mnl_attr_put_u32(req, IFA_BROADCAST, addr | __builtin_bswap32(host));
		}
		step = rtnl_ask(&p->req, req, NULL, NULL);
		if (step < 0 && step != -EEXIST)
			first(&ret, err_set(unless(ret, err), step, "%s: address %s: %s", ifname,
					    ip_addr_text(&a->addr, text), strerror(-step)));
	}
	return ret;
}

/* ---- pins ---- */

static int pin_cmp(const void *a, const void *b)
{
	const struct pin *x = a, *y = b;
	int diff = memcmp(&x->ip, &y->ip, sizeof(x->ip));

	if (diff != 0)
		return diff;
	return x->port != y->port ? x->port - y->port : x->vlan - y->vlan;
}

static struct pin *pin_get(struct ports *p, const struct ip_addr *ip, uint16_t port, uint16_t vlan,
			   bool make)
{
	struct pin key = {.ip = *ip, .port = port, .vlan = vlan}, *pin,
		   **at = tfind(&key, &p->pins, pin_cmp);

	if (at != NULL || !make)
		return at != NULL ? *at : NULL;
	pin = malloc(sizeof(*pin));
	if (pin == NULL)
		return NULL;
	*pin = key;
	if (tsearch(pin, &p->pins, pin_cmp) == NULL) {
		free(pin);
		return NULL;
	}
	return pin;
}

static void pin_put(struct ports *p, struct pin *pin)
{
	if (pin->pinned || pin->proxied)
		return;
	tdelete(pin, &p->pins, pin_cmp);
	free(pin);
}

static int neigh_change(struct ports *p, const struct pin *pin, bool add, bool proxy)
{
	struct ndmsg ndm = {.ndm_family = ip_addr_is_v4(&pin->ip) ? AF_INET : AF_INET6,
			    .ndm_state = NUD_PERMANENT,
			    .ndm_flags = proxy ? NTF_PROXY : 0};
	uint16_t flags = NLM_F_ACK | (add ? NLM_F_CREATE | NLM_F_REPLACE : 0);
	char buf[256], ifname[IFNAMSIZ];
	struct nlmsghdr *req;
	int ret = ports_ifname(p->cfg, pin->port, pin->vlan, ifname);

	if (ret < 0)
		return ret;
	ndm.ndm_ifindex = (int)if_nametoindex(ifname);
	if (ndm.ndm_ifindex == 0)
		return 0; /* when it comes, ports_configure() adds; what it had is gone with it */
	req = rtnl_header(buf, add ? RTM_NEWNEIGH : RTM_DELNEIGH, flags, &ndm, sizeof(ndm));
	rtnl_put_addr(req, NDA_DST, &pin->ip);
	if (add && !proxy)
		mnl_attr_put(req, NDA_LLADDR, sizeof(pin->mac.b), pin->mac.b);
	ret = rtnl_ask(&p->req, req, NULL, NULL);
	if ((add && ret == -EEXIST) || (!add && (ret == -ENOENT || ret == -ENODEV)))
		ret = 0;
	return ret;
}

static bool wants_proxy(const struct ports *p, const struct ip_addr *ip, uint16_t port)
{
	return !ip_addr_is_v4(ip) && port < p->cfg->n_ports && p->cfg->ports[port].isolated &&
	       has_ipv6();
}

int neigh_proxy_add(struct ports *p, const struct ip_addr *ip, uint16_t port, uint16_t vlan)
{
	struct pin *pin;
	char name[IFNAMSIZ];
	int ret = ports_ifname(p->cfg, port, vlan, name);

	if (ret < 0 || !wants_proxy(p, ip, port))
		return ret;
	pin = pin_get(p, ip, port, vlan, true);
	if (pin == NULL)
		return -ENOMEM;
	pin->proxied = true;
	return neigh_change(p, pin, true, true);
}

int neigh_proxy_del(struct ports *p, const struct ip_addr *ip, uint16_t port, uint16_t vlan)
{
	struct pin *pin = pin_get(p, ip, port, vlan, false);
	struct pin gone = {.ip = *ip, .port = port, .vlan = vlan};

	if (pin != NULL) {
		pin->proxied = false;
		pin_put(p, pin);
	}
	return wants_proxy(p, ip, port) ? neigh_change(p, &gone, false, true) : 0;
}

int neigh_pin_add(struct ports *p, const struct ip_addr *ip, const struct mac_addr *mac,
		  uint16_t port, uint16_t vlan)
{
	struct pin *pin;
	char name[IFNAMSIZ];
	int ret = ports_ifname(p->cfg, port, vlan, name);

	if (ret < 0)
		return ret;
	pin = pin_get(p, ip, port, vlan, true);
	if (pin == NULL)
		return -ENOMEM;
	pin->pinned = true;
	pin->mac = *mac;
	return neigh_change(p, pin, true, false);
}

int neigh_pin_del(struct ports *p, const struct ip_addr *ip, uint16_t port, uint16_t vlan)
{
	struct pin *pin = pin_get(p, ip, port, vlan, false);
	struct pin gone = {.ip = *ip, .port = port, .vlan = vlan};

	if (pin != NULL) {
		pin->pinned = false;
		pin_put(p, pin);
	}
	return neigh_change(p, &gone, false, false);
}

struct pins_again {
	struct ports *p;
	uint16_t port;
	int ret;
};

static void pin_again(const void *node, VISIT visit, void *arg)
{
	const struct pin *pin = *(struct pin *const *)node;
	struct pins_again *again = arg;

	if ((visit != postorder && visit != leaf) || pin->port != again->port)
		return;
	if (pin->pinned)
		first(&again->ret, neigh_change(again->p, pin, true, false));
	if (pin->proxied)
		first(&again->ret, neigh_change(again->p, pin, true, true));
}

/* ---- configure ---- */

static int configure_raw(struct ports *p, const struct gw_port *port, struct err *err)
{
	const struct link *link = link_by_name(&p->links, port->raw);
	int ret = 0;

	if (link == NULL)
		return 0;
	if (has_ipv6())
		first(&ret,
		      sysctl_if("ipv6/conf", port->raw, "disable_ipv6", "1", unless(ret, err)));
	/* 8: answer no ARP at all; the frames are the dataplane's, and the shadow answers */
	first(&ret, sysctl_if("ipv4/conf", port->raw, "arp_ignore", "8", unless(ret, err)));
	first(&ret, link_set(p, link, 0, unless(ret, err)));
	return ret;
}

static int vlan_link(struct ports *p, const char *parent, const char *name, uint16_t tag,
		     uint16_t proto, struct err *err)
{
	const struct link *link = link_by_name(&p->links, parent);
	int ret;

	if (link_by_name(&p->links, name) != NULL)
		return 0;
	if (link == NULL)
		return err_set(err, -ENODEV, "%s: is not there", parent);
	ret = vlan_create(p, link, name, tag, proto, err);
	return ret < 0 ? ret : link_read(&p->links, &p->req, p->cfg);
}

/* The interface, and of a VLAN in a service tag the one around it, which has no address and must be up. */
static int vlan_links(struct ports *p, const struct gw_port *port, const struct gw_vlan *vlan,
		      const char *name, struct err *err)
{
	const struct link *link;
	char outer[IFNAMSIZ];
	int ret;

	if (vlan->outer == 0)
		return vlan_link(p, port->tap, name, vlan->id, ETH_P_8021Q, err);
	snprintf(outer, sizeof(outer), "%.10s.%u", port->tap, vlan->outer & 0xfffu);
	ret = vlan_link(p, port->tap, outer, vlan->outer, ETH_P_8021AD, err);
	link = link_by_name(&p->links, outer);
	if (ret == 0 && link != NULL)
		ret = link_set(p, link, 0, err);
	return ret < 0 ? ret : vlan_link(p, outer, name, vlan->tag, ETH_P_8021Q, err);
}

static int configure_vlan(struct ports *p, uint16_t index, const struct gw_vlan *vlan,
			  struct err *err)
{
	const struct gw_port *port = &p->cfg->ports[index];
	const struct link *link;
	char name[IFNAMSIZ];
	int ret = ports_ifname(p->cfg, index, vlan->id, name);

	if (ret < 0)
		return err_set(err, ret, "%s: VLAN %u: no interface name", port->name, vlan->id);
	if (vlan->id != 0) {
		ret = vlan_links(p, port, vlan, name, err);
		link = link_by_name(&p->links, name);
		if (ret < 0 || link == NULL)
			return ret < 0 ? ret : err_set(err, -ENODEV, "%s: is not there", name);
		first(&ret, sysctls_port(port, name, unless(ret, err)));
		first(&ret, link_set(p, link, port->mtu_bytes, unless(ret, err)));
	}
	link = link_by_name(&p->links, name);
	if (link != NULL)
		first(&ret, addrs_add(p, link->index, name, vlan, unless(ret, err)));
	return ret;
}

static int configure_port(struct ports *p, uint16_t index, struct err *err)
{
	const struct gw_port *port = &p->cfg->ports[index];
	const struct link *link = link_by_name(&p->links, port->tap);
	struct pins_again again = {.p = p, .port = index};
	int ret = 0;

	if (link == NULL)
		return 0;
	first(&ret, sysctls_port(port, port->tap, unless(ret, err)));
	first(&ret, link_set(p, link, port->mtu_bytes, unless(ret, err)));
	for (unsigned i = 0; i < port->n_vlans && i < MSG_VLANS_MAX; i++)
		first(&ret, configure_vlan(p, index, &port->vlans[i], unless(ret, err)));
	twalk_r(p->pins, pin_again, &again);
	first(&ret, again.ret);
	return ret;
}

static int routes_add(struct ports *p, struct err *err)
{
	int ret = 0;

	for (uint32_t i = 0; i < p->cfg->n_routes && i < GW_ROUTES_MAX; i++) {
		const struct gw_route *r = &p->cfg->routes[i];
		bool v4 = ip_addr_is_v4(&r->via);
		struct rtmsg rtm = {.rtm_family = v4 ? AF_INET : AF_INET6,
				    .rtm_dst_len = (uint8_t)(r->to.len - (v4 ? 96 : 0)),
				    .rtm_table = RT_TABLE_MAIN,
				    .rtm_protocol = RTPROT_STATIC,
				    .rtm_scope = RT_SCOPE_UNIVERSE,
				    .rtm_type = RTN_UNICAST};
		struct nlmsghdr *req;
		char buf[256], text[ADDR_TEXT_BYTES];
		int step;

		req = rtnl_header(buf, RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &rtm,
				  sizeof(rtm));
		rtnl_put_addr(req, RTA_DST, &r->to.addr);
		rtnl_put_addr(req, RTA_GATEWAY, &r->via);
		step = rtnl_ask(&p->req, req, NULL, NULL);
		if (step == -ENETUNREACH || step == -EHOSTUNREACH || step == -ENETDOWN)
			continue; /* its interface is not there yet: again when it comes */
		if (step < 0)
			first(&ret, err_set(unless(ret, err), step, "route %s: %s",
					    ip_prefix_text(&r->to, text), strerror(-step)));
	}
	return ret;
}

/* Is it the port's TAP, or a VLAN of it? */
static bool of_port(const struct gw_port *port, const char *ifname)
{
	size_t len = strlen(port->tap);

	return strncmp(ifname, port->tap, len) == 0 && (ifname[len] == '\0' || ifname[len] == '.');
}

int ports_configure(struct ports *p, const char *ifname, struct err *err)
{
	int ret = link_read(&p->links, &p->req, p->cfg);
	bool any = false;

	if (ret < 0)
		return err_set(err, ret, "netlink: read links: %s", strerror(-ret));
	for (uint32_t i = 0; i < p->cfg->n_ports; i++) {
		const struct gw_port *port = &p->cfg->ports[i];

		if (port->raw[0] != '\0' && (ifname == NULL || strcmp(ifname, port->raw) == 0))
			first(&ret, configure_raw(p, port, unless(ret, err)));
		if (ifname == NULL || of_port(port, ifname)) {
			first(&ret, configure_port(p, (uint16_t)i, unless(ret, err)));
			any = true;
		}
	}
	if (any)
		first(&ret, routes_add(p, unless(ret, err)));
	return ret;
}

static int addr_del(struct ports *p, unsigned index, const struct gw_ifaddr *a, struct err *err)
{
	bool v4 = ip_addr_is_v4(&a->addr);
	struct ifaddrmsg ifa = {.ifa_family = v4 ? AF_INET : AF_INET6,
				.ifa_prefixlen = (uint8_t)(a->len - (v4 ? 96 : 0)),
				.ifa_index = index};
	char buf[256], text[ADDR_TEXT_BYTES];
	struct nlmsghdr *req = rtnl_header(buf, RTM_DELADDR, NLM_F_ACK, &ifa, sizeof(ifa));
	int ret;

	rtnl_put_addr(req, IFA_LOCAL, &a->addr);
	ret = rtnl_ask(&p->req, req, NULL, NULL);
	if (ret == 0 || ret == -EADDRNOTAVAIL)
		return 0;
	return err_set(err, ret, "remove address %s: %s", ip_addr_text(&a->addr, text),
		       strerror(-ret));
}

int ports_deconfigure(struct ports *p, uint16_t port, struct err *err)
{
	const struct gw_port *gw = &p->cfg->ports[port];
	char name[IFNAMSIZ];
	int ret = 0;

	for (unsigned v = 0; gw->kernel[0] != '\0' && v < gw->n_vlans && v < MSG_VLANS_MAX; v++) {
		const struct gw_vlan *vlan = &gw->vlans[v];
		unsigned index =
			ports_ifname(p->cfg, port, vlan->id, name) == 0 ? if_nametoindex(name) : 0;

		for (unsigned i = 0; index != 0 && i < vlan->n_addrs && i < GW_ADDRS_MAX; i++)
			first(&ret, addr_del(p, index, &vlan->addrs[i], unless(ret, err)));
	}
	return ret;
}

int ports_new(struct ports **out, const struct gw_config *cfg, struct err *err)
{
	struct ports *p = calloc(1, sizeof(*p));
	int ret;

	if (p == NULL)
		return err_set(err, -ENOMEM, "netlink: no memory");
	p->cfg = cfg;
	ret = rtnl_open(&p->req, err);
	if (ret < 0) {
		ports_free(p);
		return ret;
	}
	*out = p;
	return 0;
}

void ports_free(struct ports *p)
{
	if (p == NULL)
		return;
	tdestroy(p->pins, free);
	free(p->links.link);
	rtnl_close(&p->req);
	free(p);
}
