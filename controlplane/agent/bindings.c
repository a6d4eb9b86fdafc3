/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "controlplane/agent/agent.h"

static int binding_cmp(const void *a, const void *b)
{
	return memcmp(&((const struct binding *)a)->ip, &((const struct binding *)b)->ip, 16);
}

struct binding *binding_find(struct agent *a, const struct ip_addr *ip)
{
	struct binding key = {.ip = *ip};
	void *node = tfind(&key, &a->bindings, binding_cmp);

	return node != NULL ? *(struct binding **)node : NULL;
}

static void log_binding(const char *what, const struct agent *a, const struct binding *b,
			const char *why)
{
	char ip[ADDR_TEXT_BYTES], mac[MAC_TEXT_BYTES];

	log_info("binding %s device=%s ip=%s mac=%s port=%s vlan=%u%s%s", what, b->dev->identity,
		 ip_addr_text(&b->ip, ip), mac_addr_text(&b->mac, mac), a->cfg->ports[b->port].name,
		 b->vlan, why[0] != '\0' ? " why=" : "", why);
}

bool binding_nft(const struct agent *a, const struct binding *b, struct nft_binding *out)
{
	const struct policy_endpoint *ep;

	if (a->form == NULL || !standing_passes(b->dev->judged.standing))
		return false;
	ep = policy_endpoint_by_name(a->form, b->dev->judged.segment);
	if (ep == NULL)
		return false;
	*out = (struct nft_binding){.ip = b->ip,
				    .mac = b->mac,
				    .segment = ep->id,
				    .expires_ms = b->dev->judged.expires_ms};
	return ports_ifname(a->cfg, b->port, b->vlan, out->ifname) == 0;
}

static void bind_msg(struct msg_bind *m, uint16_t type, const struct binding *b)
{
	memset(m, 0, sizeof(*m));
	MSG_INIT(m, type, 0);
	m->ip = b->ip;
	m->mac = b->mac;
	m->port = b->port;
	m->vlan = b->vlan;
	m->slot = b->dev->slot;
}

static void binding_store(struct agent *a, const struct binding *b)
{
	struct store_binding s = {.ip = b->ip,
				  .mac = b->mac,
				  .vlan = b->vlan,
				  .identity_kind = b->dev->kind,
				  .lease_ms = b->lease_ms};
	struct err err = {""};

	memcpy(s.port, a->cfg->ports[b->port].name, sizeof(s.port));
	memcpy(s.identity, b->dev->identity, sizeof(s.identity));
	(void)store_gather(a->store, &err); /* else it is written by itself */
	/* Not fatal: after an agent's restart the device has to knock again. */
	if (store_boot_id(s.boot_id) < 0 || store_binding_put(a->store, &s, &err) < 0)
		log_warn("binding not stored: %s", err.msg);
}

/* The kernel plane knows a binding by its element; a failure leaves the address shut there, and is tried again. */
static void binding_kernel(struct agent *a, const struct binding *b, bool add)
{
	struct nft_binding nb;
	struct err err = {""};
	int ret = nft_begin(a->nft);

	if (ret == 0) {
		ret = add && binding_nft(a, b, &nb) ? nft_put_binding(a->nft, &nb)
						    : nft_del_binding(a->nft, &b->ip);
		if (ret == 0)
			ret = nft_commit(a->nft, &err);
		else
			nft_abort(a->nft);
	}
	if (ret < 0)
		enforce_kernel_failed(a, "binding not in force", ret, &err);
	if (add) {
		neigh_pin_add(a->ports, &b->ip, &b->mac, b->port, b->vlan);
		neigh_proxy_add(a->ports, &b->ip, b->port, b->vlan);
	} else {
		neigh_pin_del(a->ports, &b->ip, b->port, b->vlan);
		neigh_proxy_del(a->ports, &b->ip, b->port, b->vlan);
	}
}

static void binding_unlink(struct agent *a, struct binding *b)
{
	a->review |= enforce_is_upstream(a, &b->ip);
	tdelete(b, &a->bindings, binding_cmp);
	LIST_REMOVE(b, of_device);
	if (b->is_unsaved)
		LIST_REMOVE(b, unsaved);
	a->n_bindings--;
}

void binding_remove(struct agent *a, struct binding *b, const char *why)
{
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct err err = {""};
	struct msg_bind m;

	log_binding("ends", a, b, why);
	binding_unlink(a, b);
	bind_msg(&m, MSG_BIND_DEL, b);
	if (dp != NULL)
		peer_send(dp, &m, -1);
	binding_kernel(a, b, false);
	(void)store_gather(a->store, &err);
	store_binding_del(a->store, &b->ip, &err);
	free(b);
}

static uint32_t bindings_of(const struct agent *a, const struct device *dev)
{
	const struct binding *b;
	uint32_t n = 0;

	LIST_FOREACH(b, &a->bound[dev->slot], of_device)
		n++;
	return n;
}

/* The address was another's for a while, or its lease had run out: sessions from it may be open all the same. */
static uint32_t sessions_of(const struct device *dev, const struct ip_addr *ip)
{
	const struct session *s;
	uint32_t n = 0;

	LIST_FOREACH(s, &dev->held, of_device)
		n += ip_addr_eq(&s->ip, ip);
	return n;
}

/* Into the tree, in place of whatever held the address. */
static struct binding *binding_link(struct agent *a, struct device *dev, const struct ip_addr *ip)
{
	struct binding *b = binding_find(a, ip);

	if (b != NULL && b->dev != dev)
		binding_remove(a, b, "another device proved to hold the address");
	else if (b != NULL)
		return b;
	b = calloc(1, sizeof(*b));
	if (b == NULL)
		return NULL;
	b->dev = dev;
	b->ip = *ip;
	b->sessions = sessions_of(dev, ip);
	if (tsearch(b, &a->bindings, binding_cmp) == NULL) {
		free(b);
		return NULL;
	}
	LIST_INSERT_HEAD(&a->bound[dev->slot], b, of_device);
	a->n_bindings++;
	a->review |= enforce_is_upstream(a, ip);
	return b;
}

int binding_set(struct agent *a, struct device *dev, const struct ip_addr *ip,
		const struct mac_addr *mac, uint16_t port, uint16_t vlan, uint64_t lease_ms,
		peer_done *done, void *arg)
{
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct binding *b = binding_find(a, ip);
	bool fresh = b == NULL || b->dev != dev || memcmp(&b->mac, mac, sizeof(*mac)) != 0 ||
		     b->port != port || b->vlan != vlan,
	     moved;
	struct msg_bind m;

	if (fresh && (b == NULL || b->dev != dev) && bindings_of(a, dev) >= AGENT_BINDINGS_A_DEVICE)
		return -EDQUOT;
	moved = b != NULL && b->dev == dev && (b->port != port || b->vlan != vlan);
	if (moved) {
		neigh_pin_del(a->ports, &b->ip, b->port, b->vlan);
		neigh_proxy_del(a->ports, &b->ip, b->port, b->vlan);
	}
	b = binding_link(a, dev, ip);
	if (b == NULL)
		return -ENOMEM;
	b->mac = *mac;
	b->port = port;
	b->vlan = vlan;
	b->lease_ms = b->sessions == 0 ? lease_ms : CLOCK_NEVER_MS;
	if (fresh) {
		log_binding("begins", a, b, "");
		binding_kernel(a, b, true);
		binding_store(a, b);
	}
	if (dp == NULL || !fresh) {
		done(arg, NULL);
		return 0;
	}
	bind_msg(&m, MSG_BIND_ADD, b);
	peer_request(dp, &m, -1, AGENT_ANSWER_MS, done, arg);
	return 0;
}

void binding_session(struct agent *a, const struct ip_addr *ip, struct device *dev, int change)
{
	struct binding *b = binding_find(a, ip);

	if (b == NULL || b->dev != dev)
		return;
	b->sessions = change < 0 && b->sessions == 0 ? 0 : b->sessions + change;
	b->lease_ms = b->sessions > 0 ? CLOCK_NEVER_MS
				      : clock_boot_ms() + a->cfg->binding_lease_s * 1000ull;
	if (b->sessions > 1 || b->is_unsaved)
		return;
	b->is_unsaved = true;
	LIST_INSERT_HEAD(&a->unsaved, b, unsaved);
}

void bindings_save(struct agent *a)
{
	struct binding *b;

	while ((b = LIST_FIRST(&a->unsaved)) != NULL) {
		LIST_REMOVE(b, unsaved);
		b->is_unsaved = false;
		binding_store(a, b);
	}
}

/* twalk(3) may not see the tree change: collect, then act. */
struct collected {
	struct binding **all;
	uint32_t n;
};

static void collect(const void *node, VISIT which, void *arg)
{
	struct collected *c = arg;

	if (which == postorder || which == leaf)
		c->all[c->n++] = *(struct binding *const *)node;
}

void bindings_each(struct agent *a, void (*each)(void *arg, struct binding *b), void *arg)
{
	struct collected c = {.all = calloc(a->n_bindings + 1, sizeof(*c.all))};

	if (c.all == NULL)
		return;
	twalk_r(a->bindings, collect, &c);
	for (uint32_t i = 0; i < c.n; i++)
		each(arg, c.all[i]);
	free(c.all);
}

struct expiry {
	struct agent *a;
	uint64_t now_ms;
};

static void expire_one(void *arg, struct binding *b)
{
	struct expiry *x = arg;

	if (b->lease_ms <= x->now_ms)
		binding_remove(x->a, b, "lease over");
}

void bindings_expire(struct agent *a, uint64_t now_ms)
{
	struct expiry x = {a, now_ms};

	bindings_each(a, expire_one, &x);
}

static void sync_one(void *arg, struct binding *b)
{
	struct msg_bind m;

	bind_msg(&m, MSG_BIND_ADD, b);
	peer_send(arg, &m, -1);
}

void bindings_sync(struct agent *a, struct peer *dp)
{
	bindings_each(a, sync_one, dp);
}

int bindings_put_all(struct agent *a)
{
	struct nft_binding *all = calloc(a->n_bindings + 1, sizeof(*all));
	struct collected c = {.all = calloc(a->n_bindings + 1, sizeof(*c.all))};
	uint32_t n = 0;
	int ret = -ENOMEM;

	if (all != NULL && c.all != NULL) {
		twalk_r(a->bindings, collect, &c);
		for (uint32_t i = 0; i < c.n; i++)
			n += binding_nft(a, c.all[i], &all[n]);
		ret = nft_put_all_bindings(a->nft, all, n);
	}
	free(c.all);
	free(all);
	return ret;
}

static int restore_one(void *arg, const struct store_binding *s)
{
	struct agent *a = arg;
	struct device *dev = registry_find(a->registry, s->identity_kind, s->identity);
	uint64_t now = clock_boot_ms(), lease = s->lease_ms;
	char boot[STORE_BOOT_ID_BYTES], ifname[IFNAMSIZ];
	struct binding *b;
	uint16_t port = 0;

	while (port < a->cfg->n_ports && strcmp(a->cfg->ports[port].name, s->port) != 0)
		port++;
	/* A session may still be open: its worker announces it again, or the lease runs out. */
	if (lease == CLOCK_NEVER_MS)
		lease = now + a->cfg->binding_lease_s * 1000ull;
	if (dev == NULL || store_boot_id(boot) < 0 || strcmp(boot, s->boot_id) != 0 ||
	    lease <= now || port == a->cfg->n_ports ||
	    ports_ifname(a->cfg, port, s->vlan, ifname) < 0)
		return 0;
	b = binding_link(a, dev, &s->ip);
	if (b == NULL)
		return -ENOMEM;
	b->mac = s->mac;
	b->port = port;
	b->vlan = s->vlan;
	b->lease_ms = lease;
	log_binding("restored", a, b, "");
	return 0;
}

int bindings_restore(struct agent *a, struct err *err)
{
	return store_bindings(a->store, restore_one, a, err);
}

void bindings_free(struct agent *a)
{
	if (a->bindings != NULL)
		tdestroy(a->bindings, free);
	a->bindings = NULL;
	a->n_bindings = 0;
}
