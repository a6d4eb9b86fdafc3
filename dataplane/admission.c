/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/admission.h"

#include <netinet/in.h>

#define ECHO_REQUEST 8
#define ECHO6_REQUEST 128

struct flow_key flow_opener_key(const struct flow *f)
{
	struct flow_key k = f->id;

	if (f->opener) {
		k.src = f->id.dst;
		k.dst = f->id.src;
		k.sport = f->id.dport;
		k.dport = f->id.sport;
	}
	return k;
}

static enum drop_reason judge_device(const struct worker *w, const struct binding *b,
				     struct admission *out, int end)
{
	struct trust_view v;

	if (w->trust == NULL || b->slot == TRUST_SLOT_NONE || !trust_read(w->trust, b->slot, &v))
		return DROP_NO_TRUST;
	out->slot[end] = b->slot;
	out->generation[end] = v.generation;
	if (v.standing == STANDING_REVOKED)
		return DROP_REVOKED;
	if (!standing_passes(v.standing) || v.segment == 0)
		return DROP_NO_TRUST;
	if (w->now_ms >= v.expires_ms)
		return DROP_EXPIRED;
	out->segment[end] = v.segment;
	return DROP_NONE;
}

/* Networks lie outside the device side: an address behind a device port that is nobody's binding has no segment,
 * whatever prefix covers it. */
static enum drop_reason judge_network(const struct worker *w, const struct ip_addr *a,
				      struct admission *out, int end)
{
	const struct nexthop *nh = w->fib != NULL ? fib_lookup(w->fib, a) : NULL;

	if (nh != NULL && nh->kind == ROUTE_FORWARD && nh->port < w->st->n_ports &&
	    w->st->ports[nh->port].side == PORT_DEVICE)
		return DROP_NO_SEGMENT;
	out->segment[end] = policy_network_of(w->policy, a);
	return out->segment[end] != 0 ? DROP_NONE : DROP_NO_SEGMENT;
}

enum drop_reason admission_judge(const struct worker *w, const struct flow_key *key,
				 const struct binding *from, const struct binding *to,
				 struct admission *out)
{
	const struct policy_entry *e;
	enum drop_reason why;
	uint16_t port = key->dport;

	*out = (struct admission){.rule = FLOW_RULE_NONE};
	/* 1. There is a policy. */
	if (w->policy == NULL)
		return DROP_NO_POLICY;
	/* 2. The opener may do something now. */
	why = from != NULL ? judge_device(w, from, out, 0) : judge_network(w, &key->src, out, 0);
	if (why != DROP_NONE)
		return why;
	/* 3. So may the other end. */
	why = to != NULL ? judge_device(w, to, out, 1) : judge_network(w, &key->dst, out, 1);
	if (why != DROP_NONE)
		return why;
	/* 4. A rule allows this between their segments. */
	if (key->proto == IPPROTO_ICMP)
		port = ECHO_REQUEST;
	else if (key->proto == IPPROTO_ICMPV6)
		port = ECHO6_REQUEST;
	e = policy_lookup(w->policy, out->segment[0], out->segment[1], key->proto, port);
	if (e == NULL)
		return DROP_DENIED;
	out->rule = e->rule;
	out->log = policy_rules(w->policy)[e->rule].log != 0;
	return e->action == POLICY_ALLOW ? DROP_NONE : DROP_DENIED;
}

enum drop_reason admission_of_flow(const struct worker *w, const struct flow *f,
				   const struct binding *const bind[2], struct admission *out)
{
	struct flow_key key = flow_opener_key(f);

	return admission_judge(w, &key, bind[f->opener], bind[!f->opener], out);
}

void admission_note(struct flow *f, const struct admission *a)
{
	for (int end = 0; end < 2; end++) {
		struct flow_end *e = &f->end[end == 0 ? f->opener : !f->opener];

		e->slot = a->slot[end];
		e->generation = a->generation[end];
		e->segment = a->segment[end];
	}
	f->rule = a->rule;
}

static bool end_current(const struct worker *w, const struct flow *f,
			const struct binding *const bind[2], int end)
{
	uint32_t slot = bind[end] != NULL ? bind[end]->slot : TRUST_SLOT_NONE;

	if (slot != f->end[end].slot)
		return false;
	if (slot == TRUST_SLOT_NONE)
		return true;
	return w->trust != NULL && slot < w->trust->slots &&
	       trust_current(&w->trust->rec[slot], f->end[end].generation, w->now_ms);
}

bool admission_current(const struct worker *w, const struct flow *f,
		       const struct binding *const bind[2])
{
	return w->policy != NULL && f->epoch == w->epoch && end_current(w, f, bind, 0) &&
	       end_current(w, f, bind, 1);
}
