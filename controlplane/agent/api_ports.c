/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Ports come and go while everything runs. gateway.cfg says what a port is; `port add` and SIGHUP read it again and take over
 * ports alone. One change at a time; a port's index is its slot, and no other's moves. */
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/log.h"
#include "controlplane/agent/agent.h"
#include "controlplane/agent/api_ports.h"
#include "controlplane/agent/port_slots.h"

#define CHANGE_MS 10000 /* a driver may take its time */

struct port_job {
	struct agent *a;
	struct api_call *call; /* NULL: a reload */
	int slot; /* of the port that is added, to be emptied again on failure; -1: none */
	bool shut_before; /* its interface was held shut before it was added */
	bool in_file; /* the port that is removed is in gateway.cfg still */
	char name[16];
};

static int slot_of(const struct gw_config *cfg, const char *name)
{
	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		if (strcmp(cfg->ports[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

/* ---- interfaces that were ports ---- */

/* Nothing may enter by them unjudged while the box takes no notice of them any more. */
static void shut(struct gw_config *cfg, const char *ifname)
{
	if (ifname[0] == '\0')
		return;
	for (uint32_t i = 0; i < cfg->n_shut; i++) {
		if (strcmp(cfg->shut[i], ifname) == 0)
			return;
	}
	if (cfg->n_shut == GW_SHUT_MAX) {
		log_warn("interface %s is not held shut any more: too many were ports",
			 cfg->shut[0]);
		memmove(cfg->shut[0], cfg->shut[1], sizeof(cfg->shut) - sizeof(cfg->shut[0]));
		cfg->n_shut--;
	}
	memcpy(cfg->shut[cfg->n_shut++], ifname, sizeof(cfg->shut[0]));
}

static bool is_shut(const struct gw_config *cfg, const char *ifname)
{
	uint32_t i = 0;

	while (i < cfg->n_shut && strcmp(cfg->shut[i], ifname) != 0)
		i++;
	return i < cfg->n_shut;
}

static void unshut(struct gw_config *cfg, const char *ifname)
{
	for (uint32_t i = 0; i < cfg->n_shut; i++) {
		if (ifname[0] == '\0' || strcmp(cfg->shut[i], ifname) != 0)
			continue;
		memcpy(cfg->shut[i], cfg->shut[cfg->n_shut - 1], sizeof(cfg->shut[0]));
		cfg->n_shut--;
		return;
	}
}

/* ---- slots ---- */

static int slot_fill(struct agent *a, const struct gw_port *p)
{
	struct gw_config *cfg = a->cfg;
	uint32_t i = 0;

	while (i < MSG_PORTS_MAX && cfg->ports[i].name[0] != '\0')
		i++;
	if (i == MSG_PORTS_MAX)
		return -ENOSPC;
	cfg->ports[i] = *p;
	if (i >= cfg->n_ports)
		cfg->n_ports = i + 1;
	unshut(cfg, p->raw);
	unshut(cfg, p->tap);
	return (int)i;
}

static void slot_empty(struct agent *a, int slot)
{
	struct gw_port *p = &a->cfg->ports[slot];

	shut(a->cfg, p->devargs[0] != '\0' ? p->raw : p->tap);
	memset(p, 0, sizeof(*p));
	while (a->cfg->n_ports > 0 && a->cfg->ports[a->cfg->n_ports - 1].name[0] == '\0')
		a->cfg->n_ports--;
}

struct leaving {
	struct agent *a;
	uint16_t port;
};

static void unbind_one(void *arg, struct binding *b)
{
	struct leaving *l = arg;

	if (b->port == l->port)
		binding_remove(l->a, b, "its port was removed");
}

/* Bindings go while the port still has a name, then the kernel's part of it. */
static void port_leave(struct agent *a, int slot)
{
	struct leaving l = {a, (uint16_t)slot};
	struct err err = {""};

	bindings_each(a, unbind_one, &l);
	if (ports_deconfigure(a->ports, (uint16_t)slot, &err) < 0)
		log_warn("ports: %s", err.msg);
	slot_empty(a, slot);
}

/* What is not the dataplane's: nftables, remembered slots, whose interface is whose. */
static int kernel_follow(struct agent *a, struct err *err)
{
	struct err why = {""};
	int ret = nft_put_interfaces(a->nft, err);

	if (ret < 0)
		return ret;
	if (port_slots_save(a->cfg, &why) < 0)
		log_warn("ports: %s", why.msg);
	mirror_refresh(a->mirror);
	if (mirror_dispatch(a->mirror, &why) < 0)
		log_warn("routes and neighbours: %s", why.msg);
	if (ports_configure(a->ports, NULL, &why) < 0)
		log_warn("ports: %s", why.msg);
	return 0;
}

/* The dataplane first: of a port that it does not know it takes no neighbour. */
static int follow(struct port_job *j, peer_done *done, struct err *err)
{
	struct agent *a = j->a;
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct msg_dp_config m;
	int ret;

	a->port_change = true;
	if (dp != NULL) {
		sync_config_msg(a->cfg, &m);
		peer_request(dp, &m, -1, CHANGE_MS, done, j);
	}
	ret = kernel_follow(a, err);
	if (ret < 0)
		enforce_kernel_failed(a, "interfaces not in force", ret, err);
	if (dp == NULL)
		done(j, NULL);
	return ret;
}

/* ---- answers ---- */

static void job_end(struct port_job *j)
{
	j->a->port_change = false;
	free(j);
}

static void undone(void *arg, const union msg_any *reply)
{
	(void)reply;
	job_end(arg);
}

static void added(void *arg, const union msg_any *reply)
{
	struct port_job *j = arg;
	struct gw_port gone;
	struct agent *a = j->a;
	struct err err = {""};

	if (reply == NULL && !a->dp_ready) {
		api_reply(j->call, json_pack("{s:s,s:s}", "port", j->name, "text",
					     "added; it comes up with the dataplane, which is "
					     "not connected"));
		job_end(j);
		return;
	}
	if (reply != NULL && reply->h.type == MSG_OK) {
		log_info("port added name=%s index=%d", j->name, j->slot);
		api_reply(j->call, json_pack("{s:s,s:s}", "port", j->name, "text", "added"));
		job_end(j);
		return;
	}
	api_fail(j->call, reply != NULL ? "invalid" : "timeout",
		 "%s; nothing has changed. Check its devargs in %s",
		 reply != NULL ? reply->result.text : "the dataplane did not answer", a->cfg->file);
	gone = a->cfg->ports[j->slot];
	port_leave(a, j->slot);
	if (!j->shut_before) {
		unshut(a->cfg, gone.raw);
		unshut(a->cfg, gone.tap);
	}
	j->call = NULL;
	(void)follow(j, undone, &err);
}

static void removed(void *arg, const union msg_any *reply)
{
	struct port_job *j = arg;

	if (j->a->dp_ready && (reply == NULL || reply->h.type != MSG_OK))
		sync_failed(j->a, "does not take the ports", reply);
	log_info("port removed name=%s", j->name);
	api_reply(j->call, json_pack("{s:s,s:s}", "port", j->name, "text",
				     j->in_file ? "removed; gateway.cfg still has it, so it comes "
						  "back with SIGHUP or a new start of the agent"
						: "removed"));
	job_end(j);
}

static void reloaded(void *arg, const union msg_any *reply)
{
	struct port_job *j = arg;

	if (reply != NULL && reply->h.type == MSG_ERROR)
		agent_alarm(j->a, "ports", "%s", reply->result.text);
	else if (reply == NULL && j->a->dp_ready)
		sync_failed(j->a, "does not take the ports", reply);
	job_end(j);
}

static struct port_job *job_new(struct agent *a, struct api_call *call, const char *name)
{
	struct port_job *j = calloc(1, sizeof(*j));

	if (j == NULL)
		return NULL;
	*j = (struct port_job){.a = a, .call = call, .slot = -1};
	if (name != NULL)
		snprintf(j->name, sizeof(j->name), "%s", name);
	return j;
}

/* ---- checks ---- */

struct gw_config *api_ports_file(struct agent *a, char *why, size_t bytes)
{
	struct config_errors *errs = calloc(1, sizeof(*errs));
	struct gw_config *cfg = NULL;

	why[0] = '\0';
	if (errs != NULL && gw_config_load(&cfg, a->cfg->file, errs) < 0)
		cfg = NULL;
	for (uint32_t i = 0; cfg == NULL && errs != NULL && i < errs->n; i++) {
		size_t len = strlen(why);

		snprintf(why + len, bytes - len, "%s%s", i > 0 ? "\n" : "", errs->line[i]);
	}
	free(errs);
	return cfg;
}

/* Of the ports that run; the file was checked by itself, and may have lost one that still runs. */
static const char *shares_interface(const struct gw_config *cfg, const struct gw_port *p)
{
	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		const struct gw_port *q = &cfg->ports[i];

		if (q->name[0] != '\0' && strcmp(q->name, p->name) != 0 &&
		    (strcmp(q->tap, p->tap) == 0 ||
		     (p->raw[0] != '\0' && strcmp(q->raw, p->raw) == 0)))
			return q->name;
	}
	return NULL;
}

/* The listener that would lose its address with the port. */
static const struct gw_listener *listener_on(const struct gw_config *cfg, const struct gw_port *p)
{
	for (uint32_t l = 0; l < cfg->n_listeners; l++) {
		for (unsigned v = 0; v < p->n_vlans && v < MSG_VLANS_MAX; v++) {
			for (unsigned k = 0; k < p->vlans[v].n_addrs; k++) {
				if (cfg->listeners[l].left == GW_LISTENER_STAYS &&
				    ip_addr_eq(&p->vlans[v].addrs[k].addr, &cfg->listeners[l].addr))
					return &cfg->listeners[l];
			}
		}
	}
	return NULL;
}

static bool absent(const struct agent *a, int slot)
{
	return a->cfg->ports[slot].devargs[0] != '\0' && a->stats.h.type == MSG_STATS &&
	       !a->stats.ports[slot].present;
}

/* ---- commands ---- */

void api_port_add(struct agent *a, struct api_call *call, json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "name")), *other;
	char why[1024];
	struct gw_config *file;
	struct port_job *j;
	struct err err = {""};
	int at, slot;

	if (name == NULL || a->port_change) {
		api_fail(call, name == NULL ? "invalid" : "conflict",
			 name == NULL ? "name is missing"
				      : "another change of ports is under way; try again");
		return;
	}
	file = api_ports_file(a, why, sizeof(why));
	if (file == NULL) {
		api_fail(call, "invalid", "nothing has changed:\n%s", why);
		return;
	}
	at = slot_of(file, name);
	slot = slot_of(a->cfg, name);
	other = at >= 0 ? shares_interface(a->cfg, &file->ports[at]) : NULL;
	j = job_new(a, call, name);
	if (j == NULL)
		api_fail(call, "internal", "out of memory");
	else if (at < 0)
		api_fail(call, "not_found", "%s has no port \"%s\": add it there first",
			 a->cfg->file, name);
	else if (slot >= 0 && !absent(a, slot))
		api_fail(call, "conflict",
			 "port \"%s\" is there already; `sallyctl port remove %s` first, to have "
			 "it read anew",
			 name, name);
	else if (other != NULL)
		api_fail(call, "conflict", "port \"%s\" shares an interface with \"%s\"", name,
			 other);
	else {
		if (slot >= 0)
			port_leave(a, slot);
		j->shut_before = is_shut(a->cfg, file->ports[at].raw) ||
				 is_shut(a->cfg, file->ports[at].tap);
		j->slot = slot_fill(a, &file->ports[at]);
		if (j->slot >= 0) {
			(void)follow(j, added, &err);
			j = NULL;
		} else {
			api_fail(call, "conflict", "there are %u ports already", MSG_PORTS_MAX);
		}
	}
	free(j);
	gw_config_free(file);
}

void api_port_remove(struct agent *a, struct api_call *call, json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "name"));
	int slot = name != NULL && name[0] != '\0' ? slot_of(a->cfg, name) : -1;
	const struct gw_listener *l = slot >= 0 ? listener_on(a->cfg, &a->cfg->ports[slot]) : NULL;
	struct port_job *j = job_new(a, call, name);
	struct gw_config *file;
	struct err err = {""};
	char why[1024];

	if (j == NULL)
		api_fail(call, "internal", "out of memory");
	else if (slot < 0)
		api_fail(call, "not_found", "no port \"%s\"; `sallyctl port list` names them",
			 name != NULL ? name : "");
	else if (a->port_change)
		api_fail(call, "conflict", "another change of ports is under way; try again");
	else if (l != NULL)
		api_fail(call, "conflict",
			 "listener \"%s\" has its address on port \"%s\": it would be cut off",
			 l->name, name);
	else {
		file = api_ports_file(a, why, sizeof(why));
		j->in_file = file != NULL && slot_of(file, name) >= 0;
		gw_config_free(file);
		port_leave(a, slot);
		(void)follow(j, removed, &err);
		j = NULL;
	}
	free(j);
}

static const char *mac_of(const char *ifname, char out[static MAC_TEXT_BYTES])
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq r = {0};
	struct mac_addr mac;
	bool known;

	memcpy(r.ifr_name, ifname, sizeof(r.ifr_name) - 1);
	known = fd >= 0 && ioctl(fd, SIOCGIFHWADDR, &r) == 0;
	if (fd >= 0)
		close(fd);
	memcpy(mac.b, r.ifr_hwaddr.sa_data, sizeof(mac.b));
	return known ? mac_addr_text(&mac, out) : "";
}

/* "net_af_xdp0,iface=eth1" > "net_af_xdp" */
static json_t *driver_of(const struct gw_port *p)
{
	size_t n = strcspn(p->devargs, ",");

	if (p->kernel[0] != '\0')
		return json_string("kernel");
	if (strncmp(p->devargs, "net_", 4) != 0 && strncmp(p->devargs, "eth_", 4) != 0)
		return json_string("pci");
	while (n > 0 && p->devargs[n - 1] >= '0' && p->devargs[n - 1] <= '9')
		n--;
	return json_stringn(p->devargs, n);
}

static json_t *port_one(const struct agent *a, uint32_t i)
{
	const struct gw_port *p = &a->cfg->ports[i];
	const struct msg_stats_port *s = &a->stats.ports[i];
	bool known = a->stats.h.type == MSG_STATS && p->devargs[0] != '\0';
	json_t *vlans = json_array();
	char mac[MAC_TEXT_BYTES];

	for (unsigned v = p->untagged ? 0 : 1; v < p->n_vlans && v < MSG_VLANS_MAX; v++)
		json_array_append_new(
			vlans, p->vlans[v].outer == 0
				       ? json_integer(p->vlans[v].id)
				       : json_sprintf("%u.%u", p->vlans[v].outer, p->vlans[v].tag));
	return json_pack("{s:s,s:I,s:s,s:o,s:s,s:s,s:s,s:o,s:b}", "name", p->name, "index",
			 (json_int_t)i, "side", p->side == PORT_DEVICE ? "device" : "uplink",
			 "driver", driver_of(p), "link",
			 p->kernel[0] != '\0' ? "kernel"
			 : !known	      ? "unknown"
			 : !s->present	      ? "absent"
			 : s->link_up	      ? "up"
					      : "down",
			 "mac", mac_of(p->tap, mac), "shadow", p->tap, "vlans", vlans, "present",
			 p->kernel[0] != '\0' ? if_nametoindex(p->tap) != 0 : known && s->present);
}

void api_port_list(struct agent *a, struct api_call *call, json_t *request)
{
	json_t *list = json_array();

	(void)request;
	for (uint32_t i = 0; i < a->cfg->n_ports; i++) {
		if (a->cfg->ports[i].name[0] != '\0')
			json_array_append_new(list, port_one(a, i));
	}
	api_reply(call, json_pack("{s:o}", "ports", list));
}

/* ---- SIGHUP ---- */

static bool ports_differ(const struct gw_port *a, const struct gw_port *b)
{
	return memcmp(a, b, sizeof(*a)) != 0;
}

static unsigned reload_slots(struct agent *a, const struct gw_config *file)
{
	unsigned changes = 0;

	for (int i = 0; i < (int)a->cfg->n_ports; i++) {
		const struct gw_port *p = &a->cfg->ports[i];
		const struct gw_listener *l = listener_on(a->cfg, p);
		int at = p->name[0] != '\0' ? slot_of(file, p->name) : -1;

		if (p->name[0] == '\0')
			continue;
		if (at >= 0 && ports_differ(p, &file->ports[at]))
			log_warn("port %s is not as %s has it; `sallyctl port remove %s` and `port "
				 "add %s` read it anew",
				 p->name, a->cfg->file, p->name, p->name);
		if (at >= 0)
			continue;
		if (l != NULL) {
			log_warn("port %s stays: listener %s has its address there", p->name,
				 l->name);
			continue;
		}
		log_info("port removed name=%s", p->name);
		port_leave(a, i);
		changes++;
	}
	for (uint32_t i = 0; i < file->n_ports; i++) {
		const char *other = shares_interface(a->cfg, &file->ports[i]);

		if (slot_of(a->cfg, file->ports[i].name) >= 0)
			continue;
		if (other != NULL || slot_fill(a, &file->ports[i]) < 0) {
			log_warn("port %s is not added: %s%s", file->ports[i].name,
				 other != NULL ? "it shares an interface with " : "too many ports",
				 other != NULL ? other : "");
			continue;
		}
		log_info("port added name=%s", file->ports[i].name);
		changes++;
	}
	return changes;
}

void api_ports_reload(struct agent *a)
{
	struct port_job *j = job_new(a, NULL, NULL);
	struct gw_config *file;
	struct err err = {""};
	char why[1024];

	if (j == NULL || a->port_change) {
		log_error("ports are not read again: %s",
			  j == NULL ? "out of memory" : "a change of ports is under way");
		free(j);
		return;
	}
	file = api_ports_file(a, why, sizeof(why));
	if (file == NULL)
		log_error("ports stay as they are: %s", why);
	if (file == NULL || reload_slots(a, file) == 0)
		free(j);
	else
		(void)follow(j, reloaded, &err);
	gw_config_free(file);
}
