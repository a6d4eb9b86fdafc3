/* SPDX-License-Identifier: GPL-3.0-or-later */
/* admit: a device has proved to hold a certificate's key. May it in, where, and from which port does it come?
 *   judge with this certificate > where do its frames come from > bind > answer the worker */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "config/listeners.h"
#include "controlplane/agent/agent.h"
#include "controlplane/agent/listeners.h"
#include "controlplane/agent/reload.h"

#define WALL_S_MAX (UINT32_MAX * 64ull) /* beyond the year 9999, RFC 5280 section 4.1.2.5 */

struct admission {
	LIST_ENTRY(admission) next, saving;
	struct agent *a;
	struct peer *worker; /* NULL: gone meanwhile */
	struct device *dev;
	struct msg_admit m;
	uint8_t listener; /* index in cfg */
	struct device_cert cert;
};

static void cert_key(char *out, size_t bytes, const struct device *dev)
{
	snprintf(out, bytes, "cert/%u/%s", dev->kind, dev->identity);
}

static void cert_save(struct agent *a, const struct device *dev)
{
	const struct device_cert *c = &dev->cert;
	char key[MSG_IDENTITY_BYTES + 16], sha[65], issuer[65], serial[41], value[256];
	struct err err = {""};

	cert_key(key, sizeof(key), dev);
	/* "-": what a revocation list took from it is not taken for good again after a restart */
	snprintf(value, sizeof(value), "-");
	if (c->known)
		snprintf(value, sizeof(value), "%s %s %s %llu %llu %llu",
			 hex_text(sha, c->sha256, 32), hex_text(issuer, c->issuer_sha256, 32),
			 c->serial_bytes > 0 ? hex_text(serial, c->serial, c->serial_bytes) : "-",
			 (unsigned long long)c->not_before_s, (unsigned long long)c->not_after_s,
			 (unsigned long long)c->crl_next_update_s);
	/* Not fatal: after an agent's restart the device has to knock again. */
	(void)store_gather(a->store, &err); /* else it is written by itself */
	if (store_meta_put_later(a->store, key, value, &err) < 0)
		log_warn("certificate of %s not stored: %s", dev->identity, err.msg);
}

void admit_cert_load(struct agent *a, struct device *dev)
{
	char key[MSG_IDENTITY_BYTES + 16], value[256], sha[65], issuer[65], serial[41];
	struct device_cert c = {.known = true};
	unsigned long long nb, na, crl;

	cert_key(key, sizeof(key), dev);
	if (store_meta_get(a->store, key, value, sizeof(value)) < 0 ||
	    sscanf(value, "%64s %64s %40s %llu %llu %llu", sha, issuer, serial, &nb, &na, &crl) !=
		    6 ||
	    hex_parse(c.sha256, 32, sha) < 0 || hex_parse(c.issuer_sha256, 32, issuer) < 0)
		return;
	c.serial_bytes = strcmp(serial, "-") == 0 ? 0 : strlen(serial) / 2;
	if (c.serial_bytes > 0 && hex_parse(c.serial, c.serial_bytes, serial) < 0)
		return;
	c.not_before_s = nb;
	c.not_after_s = na;
	c.crl_next_update_s = crl;
	registry_present(a->registry, dev, &c);
}

static void answer(struct peer *worker, const struct msg_admit *m, const struct msg_admitted *say,
		   const char *reason)
{
	struct msg_admitted out = *say;

	out.h = (struct msg_hdr){.type = MSG_ADMITTED, .bytes = sizeof(out), .seq = m->h.seq};
	out.session = m->session;
	snprintf(out.reason, sizeof(out.reason), "%.127s", reason);
	peer_send(worker, &out, -1);
}

static void refuse(struct peer *worker, const struct msg_admit *m, const char *reason)
{
	const struct msg_admitted none = {0};

	answer(worker, m, &none, reason);
}

static void admission_free(struct admission *ad)
{
	LIST_REMOVE(ad, next);
	free(ad);
}

static int session_add(struct admission *ad, uint32_t generation, uint8_t relay)
{
	struct session *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return -ENOMEM;
	s->worker = ad->worker;
	s->id = ad->m.session;
	s->dev = ad->dev;
	s->cert = ad->cert;
	s->ip = ad->m.flow.src;
	s->since_ms = clock_boot_ms();
	s->generation = generation;
	s->listener = ad->listener;
	s->relay = relay;
	LIST_INSERT_HEAD(&ad->a->sessions, s, next);
	LIST_INSERT_HEAD(&ad->dev->held, s, of_device);
	ad->dev->sessions++;
	binding_session(ad->a, &s->ip, s->dev, 1);
	return 0;
}

static void session_end(struct agent *a, struct session *s)
{
	LIST_REMOVE(s, next);
	LIST_REMOVE(s, of_device);
	s->dev->sessions--;
	binding_session(a, &s->ip, s->dev, -1);
	free(s);
}

/* Bound, or of nowhere that the box can see: now the worker may let it talk. */
static void admission_end(struct admission *ad)
{
	struct agent *a = ad->a;
	const struct judgement *j = &ad->dev->judged;
	struct msg_admitted out = {0};
	struct judgement own;
	struct trust_view v;

	if (ad->worker == NULL) {
		admission_free(ad);
		return;
	}
	/* What was decided while the dataplane was asked counts, and the device may stand on another certificate by now:
	 * this one must give it the same. */
	own = enforce_judge_with(a, ad->dev, &ad->cert);
	if (!trust_read(&a->trust, ad->dev->slot, &v) || !standing_passes(v.standing) ||
	    v.expires_ms <= clock_boot_ms() || own.standing != v.standing) {
		refuse(ad->worker, &ad->m,
		       decide_reason_text(standing_passes(j->standing) ? own.reason : j->reason));
		admission_free(ad);
		return;
	}
	out.slot = ad->dev->slot;
	out.generation = v.generation;
	/* Only what is the session's own: the record's expiry moves on with the controller's lease and new evidence. */
	out.expires_ms = clock_boot_of_wall((ad->cert.not_after_s + 1) * 1000, clock_wall_ms(),
					    clock_boot_ms());
	out.segment = v.segment;
	out.standing = v.standing;
	out.relay = enforce_relay(a, ad->dev, ad->listener);
	memcpy(out.segment_name, j->segment, sizeof(out.segment_name));
	if (session_add(ad, out.generation, out.relay) < 0) {
		refuse(ad->worker, &ad->m, "out of memory");
		admission_free(ad);
		return;
	}
	answer(ad->worker, &ad->m, &out, decide_reason_text(j->reason));
	admission_free(ad);
}

static void admission_bound(void *arg, const union msg_any *reply)
{
	struct admission *ad = arg;

	if (reply != NULL && reply->h.type == MSG_ERROR) {
		struct binding *b = binding_find(ad->a, &ad->m.flow.src);

		log_error("dataplane refused a binding of %s: %.511s", ad->dev->identity,
			  reply->result.text);
		/* Not in one plane alone; and the next handshake must ask again. */
		if (b != NULL && b->dev == ad->dev && b->sessions == 0)
			binding_remove(ad->a, b, "the dataplane has no room");
		if (ad->worker != NULL)
			refuse(ad->worker, &ad->m, "the dataplane has no room for its address");
		admission_free(ad);
		return;
	}
	admission_end(ad);
}

static void admission_bind(struct admission *ad, const struct mac_addr *mac, uint16_t port,
			   uint16_t vlan)
{
	struct agent *a = ad->a;
	char ifname[IFNAMSIZ];
	int ret;

	if (ports_ifname(a->cfg, port, vlan, ifname) < 0 ||
	    a->cfg->ports[port].side != PORT_DEVICE) {
		/* A device beyond the uplink has a session, and no place in the fast path. */
		admission_end(ad);
		return;
	}
	ret = binding_set(a, ad->dev, &ad->m.flow.src, mac, port, vlan,
			  clock_boot_ms() + a->cfg->binding_lease_s * 1000ull, admission_bound, ad);
	if (ret == 0)
		return;
	log_warn("no binding device=%s: %s", ad->dev->identity,
		 ret == -EDQUOT ? "too many addresses" : strerror(-ret));
	if (ad->worker != NULL)
		refuse(ad->worker, &ad->m,
		       ret == -EDQUOT ? "too many addresses for one device" : "out of memory");
	admission_free(ad);
}

/* The dataplane saw the frames of this flow, or nobody did: then it came by a kernel-only port. */
static void admission_origin(void *arg, const union msg_any *reply)
{
	struct admission *ad = arg;
	struct agent *a = ad->a;
	const struct msg_flow_origin *o = (const struct msg_flow_origin *)reply;
	struct mac_addr mac;
	uint16_t port, vlan;

	if (o != NULL && o->h.type == MSG_FLOW_ORIGIN && o->found && o->port < a->cfg->n_ports) {
		admission_bind(ad, &o->mac, o->port, o->vlan);
		return;
	}
	if (mirror_neigh_find(a->mirror, &ad->m.flow.src, &mac, &port, &vlan) == 0 &&
	    port < a->cfg->n_ports && a->cfg->ports[port].kernel[0] != '\0') {
		admission_bind(ad, &mac, port, vlan);
		return;
	}
	if (!ad->m.readmit)
		log_info("session of %s without a binding: its frames were not seen on a device "
			 "port",
			 ad->dev->identity);
	admission_end(ad);
}

static struct device_cert cert_of(const struct msg_admit *m)
{
	struct device_cert c = {.known = true,
				.serial_bytes = m->serial_bytes,
				.not_before_s = m->not_before_s,
				.not_after_s = m->not_after_s,
				.crl_next_update_s = m->crl_next_update_s};

	memcpy(c.sha256, m->cert_sha256, sizeof(c.sha256));
	memcpy(c.issuer_sha256, m->issuer_sha256, sizeof(c.issuer_sha256));
	memcpy(c.serial, m->serial, sizeof(c.serial));
	return c;
}

static void ask_origin(struct admission *ad)
{
	struct agent *a = ad->a;
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct msg_flow_origin m = {.key = ad->m.flow};

	MSG_INIT(&m, MSG_FLOW_ORIGIN, 0);
	if (dp != NULL)
		peer_request(dp, &m, -1, AGENT_ANSWER_MS, admission_origin, ad);
	else
		admission_origin(ad, NULL);
}

/* By where the device knocked, and to whom it may be passed on there: before and after a reload that may be others. */
static int listener_of(const struct agent *a, const struct msg_admit *m)
{
	for (uint32_t i = 0; i < a->cfg->n_listeners; i++) {
		const struct gw_listener *l = &a->cfg->listeners[i];

		if (l->port == m->flow.dport && ip_addr_eq(&l->addr, &m->flow.dst) &&
		    gw_listener_proto(l) == m->flow.proto &&
		    gw_listener_upstreams_hash(l) == m->upstreams)
			return i;
	}
	return -ENOENT;
}

static int admit(struct agent *a, struct peer *p, const struct msg_admit *m)
{
	int listener = listener_of(a, m);
	struct device_cert c;
	struct judgement j;
	struct admission *ad;
	struct device *dev;
	bool fresh;

	if (memchr(m->identity, '\0', sizeof(m->identity)) == NULL ||
	    m->serial_bytes > sizeof(m->serial) || m->not_after_s > WALL_S_MAX ||
	    m->not_before_s > WALL_S_MAX || m->crl_next_update_s > WALL_S_MAX)
		return -EPROTO;
	if (listener < 0) {
		refuse(p, m,
		       "the agent does not know this listener, or not with these upstreams: "
		       "reload");
		return 0;
	}
	dev = registry_find(a->registry, m->identity_kind, m->identity);
	if (dev == NULL || a->segments == NULL) {
		refuse(p, m,
		       dev == NULL ? decide_reason_text(DECIDE_NOT_ENROLLED)
				   : "no policy in force");
		return 0;
	}
	c = cert_of(m);
	j = enforce_judge_with(a, dev, &c);
	if (!standing_passes(j.standing)) {
		refuse(p, m, decide_reason_text(j.reason));
		return 0;
	}
	fresh = registry_present(a->registry, dev, &c);
	if (fresh)
		cert_save(a, dev);
	enforce_now(a);
	ad = calloc(1, sizeof(*ad));
	if (ad == NULL) {
		refuse(p, m, "out of memory");
		return 0;
	}
	ad->a = a;
	ad->worker = p;
	ad->dev = dev;
	ad->m = *m;
	ad->listener = (uint8_t)listener;
	ad->cert = c;
	LIST_INSERT_HEAD(&a->admissions, ad, next);
	/* Nobody is answered before what his answer rests on is durable; it may have come in this turn by another session. */
	if (fresh || !LIST_EMPTY(&a->saving))
		LIST_INSERT_HEAD(&a->saving, ad, saving);
	else
		ask_origin(ad);
	return 0;
}

static void flush(struct agent *a)
{
	struct err err = {""};

	/* Not fatal: after an agent's restart the devices have to knock again. */
	if (store_flush(a->store, &err) < 0)
		log_warn("certificates and bindings not stored: %s", err.msg);
}

void admit_settle(struct agent *a)
{
	struct admission *ad;

	flush(a);
	if (LIST_EMPTY(&a->saving))
		return;
	while ((ad = LIST_FIRST(&a->saving)) != NULL) {
		LIST_REMOVE(ad, saving);
		ask_origin(ad);
	}
	flush(a); /* bindings of those for whom there was no dataplane to ask */
}

/* The slot that the worker names finds it at once; what it names wrongly, or not, is looked for everywhere. */
static struct session *session_find(struct agent *a, const struct peer *p,
				    const struct msg_session_closed *m)
{
	struct device *dev = registry_by_slot(a->registry, m->slot);
	struct session *s;

	if (dev != NULL) {
		LIST_FOREACH(s, &dev->held, of_device) {
			if (s->worker == p && s->id == m->session)
				return s;
		}
	}
	LIST_FOREACH(s, &a->sessions, next) {
		if (s->worker == p && s->id == m->session)
			return s;
	}
	return NULL;
}

/* No lease for an address that its device has left: whoever comes next there is a stranger. */
static void unbind_left(struct agent *a, const struct device *dev, const struct ip_addr *ip)
{
	struct binding *b = binding_find(a, ip);

	if (b != NULL && b->dev == dev && b->sessions == 0)
		binding_remove(a, b, "the device has moved");
}

static int session_closed(struct agent *a, struct peer *p, const struct msg_session_closed *m)
{
	char reason[sizeof(m->reason) + 1];
	struct session *s = session_find(a, p, m);
	struct device *dev;
	struct ip_addr ip;

	if (s == NULL)
		return 0; /* ended before it was answered */
	snprintf(reason, sizeof(reason), "%.*s", (int)sizeof(m->reason), m->reason);
	log_clean(reason, sizeof(reason), reason);
	log_info("session ends device=%s seconds=%llu up=%llu down=%llu why=\"%s\"",
		 s->dev->identity, (unsigned long long)(clock_boot_ms() - s->since_ms) / 1000,
		 (unsigned long long)m->bytes_up, (unsigned long long)m->bytes_down, reason);
	if (m->cert_revoked) {
		registry_forget(a->registry, s->dev, s->cert.sha256);
		cert_save(a, s->dev);
	}
	ip = s->ip;
	dev = s->dev;
	session_end(a, s);
	if (m->moved)
		unbind_left(a, dev, &ip);
	if (m->cert_revoked)
		enforce_now(a);
	return 0;
}

static int handshake_refused(struct agent *a, const struct msg_handshake_refused *m)
{
	char reason[sizeof(m->reason)];
	unsigned i;

	if (m->n == 0 || memchr(m->reason, '\0', sizeof(m->reason)) == NULL)
		return -EPROTO;
	log_clean(reason, sizeof(reason), m->reason);
	for (i = 0; i < AGENT_REFUSALS_MAX - 1; i++) {
		if (a->refusals[i].n == 0 || strcmp(a->refusals[i].reason, reason) == 0)
			break;
	}
	memcpy(a->refusals[i].reason, i < AGENT_REFUSALS_MAX - 1 ? reason : "other",
	       i < AGENT_REFUSALS_MAX - 1 ? sizeof(reason) : sizeof("other"));
	a->refusals[i].n += m->n;
	return 0;
}

int admit_message(struct agent *a, struct peer *p, const union msg_any *m)
{
	switch (m->h.type) {
	case MSG_ADMIT:
		return admit(a, p, &m->admit);
	case MSG_SESSION_CLOSED:
		return session_closed(a, p, (const struct msg_session_closed *)m);
	case MSG_RELOAD_WANTED:
		reload_wanted(a, p, (const struct msg_reload *)m);
		return 0;
	case MSG_HANDSHAKE_REFUSED:
		return handshake_refused(a, &m->refused);
	default:
		return -EPROTO;
	}
}

void admit_listeners_move(struct agent *a, const uint8_t was[static MSG_LISTENERS_MAX])
{
	struct admission *ad;

	LIST_FOREACH(ad, &a->admissions, next)
		ad->listener =
			ad->listener < MSG_LISTENERS_MAX ? was[ad->listener] : LISTENERS_NONE;
}

void admit_worker_left(struct agent *a, struct peer *p)
{
	struct session *s, *next;
	struct admission *ad;

	LIST_FOREACH(ad, &a->admissions, next) {
		if (ad->worker == p)
			ad->worker = NULL;
	}
	for (s = LIST_FIRST(&a->sessions); s != NULL; s = next) {
		next = LIST_NEXT(s, next);
		if (s->worker == p)
			session_end(a, s);
	}
}
