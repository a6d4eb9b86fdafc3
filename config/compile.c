/* SPDX-License-Identifier: GPL-3.0-or-later */
/* compile: from the engineer's rules to disjoint entries, from nested prefixes to disjoint ranges. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/segments.h"

#define ENTRIES_MAX 262144u
#define RANGES_MAX 262144u

/* One rule's claim on a port range, before the cut. `rule` is also its rank: the lower wins. */
struct claim {
	uint16_t from, to;
	uint8_t proto;
	uint8_t action;
	uint16_t lo, hi;
	uint32_t rule;
};

struct build {
	const struct segments *s;
	struct policy_endpoint *eps;
	const struct policy_endpoint **by_name; /* the same, sorted */
	uint32_t n_eps;
	struct claim *claims;
	uint32_t n_claims, cap_claims;
	struct policy_entry *entries;
	uint32_t n_entries, cap_entries;
	struct policy_range *ranges;
	uint32_t n_ranges, cap_ranges;
};

/* Make room for one more; array points at the array's pointer. */
static int reserve(void *array, uint32_t n, uint32_t *cap, size_t each)
{
	void **at = array;
	uint32_t want = *cap == 0 ? 64 : *cap * 2;
	void *more;

	if (n < *cap)
		return 0;
	more = realloc(*at, want * each);
	if (more == NULL)
		return -ENOMEM;
	*at = more;
	*cap = want;
	return 0;
}

void segment_limits(struct policy_limits *l, const struct seg_segment *g)
{
	uint64_t burst = g->new_flows_burst != 0 ? g->new_flows_burst : 2ull * g->new_flows_per_s;

	rate_limits(l, &g->rate, g->burst_ms);
	l->new_flows_per_s = g->new_flows_per_s;
	l->burst_new_flows = burst > POLICY_NEW_FLOWS_MAX ? POLICY_NEW_FLOWS_MAX : burst;
	l->flows = g->flows;
}

static int endpoint_cmp(const void *a, const void *b)
{
	return strcmp((*(const struct policy_endpoint *const *)a)->name,
		      (*(const struct policy_endpoint *const *)b)->name);
}

static int endpoints_sort(struct build *b)
{
	b->by_name = calloc(b->n_eps + 1, sizeof(*b->by_name));
	if (b->by_name == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->n_eps; i++)
		b->by_name[i] = &b->eps[i];
	qsort(b->by_name, b->n_eps, sizeof(*b->by_name), endpoint_cmp);
	return 0;
}

static const struct policy_endpoint *endpoint_find(const struct build *b, const char *name)
{
	struct policy_endpoint key;
	const struct policy_endpoint *at = &key, **found;

	snprintf(key.name, sizeof(key.name), "%s", name);
	found = bsearch(&at, b->by_name, b->n_eps, sizeof(*b->by_name), endpoint_cmp);
	return found != NULL ? *found : NULL;
}

static int endpoints_build(struct build *b, const struct policy_form *prev, struct err *err)
{
	uint32_t n = b->s->n_segments + b->s->n_networks, next = 1, n_resting = 0;
	uint8_t used[POLICY_ID_MAX + 2] = {0};

	if (n > POLICY_ID_MAX)
		return err_set(err, -E2BIG, "%s: %u segments and networks, at most %d", b->s->file,
			       n, POLICY_ID_MAX);
	b->eps = calloc(n + 1, sizeof(*b->eps));
	if (b->eps == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		bool seg = i < b->s->n_segments;
		const char *name =
			seg ? b->s->segments[i].name : b->s->networks[i - b->s->n_segments].name;
		const struct policy_endpoint *old =
			prev != NULL ? policy_endpoint_by_name(prev, name) : NULL;

		strcpy(b->eps[i].name, name);
		b->eps[i].kind = seg ? ENDPOINT_SEGMENT : ENDPOINT_NETWORK;
		if (seg)
			segment_limits(&b->eps[i].limits, &b->s->segments[i]);
		if (old != NULL) {
			b->eps[i].id = old->id;
			used[old->id] = 1;
		}
	}
	/* An id that has just lost its name stays free for one policy: while planes and trust records change over, it
	 * means the same or nothing. Only without room it is given away at once. */
	for (uint32_t i = 0; prev != NULL && i < prev->n_endpoints; i++) {
		const struct policy_endpoint *old = &policy_endpoints(prev)[i];

		if (old->id <= POLICY_ID_MAX && !used[old->id]) {
			used[old->id] = 2;
			n_resting++;
		}
	}
	if (n + n_resting > POLICY_ID_MAX) {
		for (uint32_t id = 0; id <= POLICY_ID_MAX; id++)
			used[id] = used[id] == 1;
	}
	for (uint32_t i = 0; i < n; i++) {
		if (b->eps[i].id != 0)
			continue;
		while (used[next])
			next++;
		b->eps[i].id = next;
		used[next] = 1;
	}
	b->n_eps = n;
	return endpoints_sort(b);
}

static int claim_add(struct build *b, uint16_t from, uint16_t to, uint32_t rule,
		     const struct seg_service *sv)
{
	if (reserve(&b->claims, b->n_claims, &b->cap_claims, sizeof(*b->claims)) < 0)
		return -ENOMEM;
	b->claims[b->n_claims++] = (struct claim){.from = from,
						  .to = to,
						  .proto = sv->proto,
						  .action = b->s->rules[rule].action,
						  .lo = sv->lo,
						  .hi = sv->hi,
						  .rule = rule};
	return 0;
}

/* The endpoints that a rule's word stands for: indices first to end - 1. */
struct ends {
	uint32_t first, end;
};

static struct ends ends_of(const struct build *b, const char *word)
{
	const struct policy_endpoint *ep;

	if (strcmp(word, "any") == 0)
		return (struct ends){0, b->n_eps};
	ep = endpoint_find(b, word);
	return ep != NULL ? (struct ends){(uint32_t)(ep - b->eps), (uint32_t)(ep - b->eps) + 1}
			  : (struct ends){0, 0};
}

static int rule_claims(struct build *b, uint32_t rule, struct err *err)
{
	const struct seg_rule *r = &b->s->rules[rule];
	struct ends from = ends_of(b, r->from), to = ends_of(b, r->to);

	for (uint32_t i = from.first; i < from.end; i++) {
		for (uint32_t k = to.first; k < to.end; k++) {
			for (uint32_t v = 0; v < r->n_services; v++) {
				if (claim_add(b, b->eps[i].id, b->eps[k].id, rule,
					      &r->services[v]) < 0)
					return -ENOMEM;
			}
			if (b->n_claims > ENTRIES_MAX)
				return err_set(err, -E2BIG,
					       "%s:%u: %s: more than %u entries up to here",
					       b->s->file, r->line, r->name, ENTRIES_MAX);
		}
	}
	return 0;
}

static int claim_group_cmp(const struct claim *x, const struct claim *y)
{
	if (x->from != y->from)
		return x->from < y->from ? -1 : 1;
	if (x->to != y->to)
		return x->to < y->to ? -1 : 1;
	if (x->proto != y->proto)
		return x->proto < y->proto ? -1 : 1;
	return 0;
}

static int claim_cmp(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int c = claim_group_cmp(x, y);

	if (c != 0)
		return c;
	return x->rule < y->rule ? -1 : x->rule > y->rule;
}

static int u32_cmp(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int entry_add(struct build *b, const struct claim *c, uint32_t lo, uint32_t hi)
{
	struct policy_entry *last = b->n_entries > 0 ? &b->entries[b->n_entries - 1] : NULL;

	if (last != NULL && last->from == c->from && last->to == c->to && last->proto == c->proto &&
	    last->rule == c->rule && (uint32_t)last->port_hi + 1 == lo) {
		last->port_hi = hi;
		return 0;
	}
	if (reserve(&b->entries, b->n_entries, &b->cap_entries, sizeof(*b->entries)) < 0)
		return -ENOMEM;
	b->entries[b->n_entries++] = (struct policy_entry){.from = c->from,
							   .to = c->to,
							   .port_lo = lo,
							   .port_hi = hi,
							   .proto = c->proto,
							   .action = c->action,
							   .rule = c->rule};
	return 0;
}

/* Claims of one (from, to, proto), in rank order: cut the ports at every border; each piece goes to the first claim
 * that has it. */
static int group_cut(struct build *b, const struct claim *c, uint32_t n)
{
	uint32_t *cut = calloc(2 * (size_t)n, sizeof(*cut));
	int ret = 0;

	if (cut == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		cut[2 * i] = c[i].lo;
		cut[2 * i + 1] = (uint32_t)c[i].hi + 1;
	}
	qsort(cut, 2 * (size_t)n, sizeof(*cut), u32_cmp);
	for (uint32_t i = 0; ret == 0 && i + 1 < 2 * n; i++) {
		if (cut[i] == cut[i + 1])
			continue;
		for (uint32_t k = 0; k < n; k++) {
			if (c[k].lo <= cut[i] && c[k].hi >= cut[i + 1] - 1) {
				ret = entry_add(b, &c[k], cut[i], cut[i + 1] - 1);
				break;
			}
		}
	}
	free(cut);
	return ret;
}

static int entries_build(struct build *b, struct err *err)
{
	int ret = 0;

	for (uint32_t i = 0; ret == 0 && i < b->s->n_rules; i++)
		ret = rule_claims(b, i, err);
	if (ret < 0)
		return ret;
	if (b->n_claims > 0)
		qsort(b->claims, b->n_claims, sizeof(*b->claims), claim_cmp);
	for (uint32_t i = 0, n; ret == 0 && i < b->n_claims; i += n) {
		for (n = 1;
		     i + n < b->n_claims && claim_group_cmp(&b->claims[i], &b->claims[i + n]) == 0;
		     n++)
			;
		ret = group_cut(b, &b->claims[i], n);
	}
	if (ret == 0 && b->n_entries > ENTRIES_MAX)
		return err_set(err, -E2BIG, "%s: %u entries, at most %u", b->s->file, b->n_entries,
			       ENTRIES_MAX);
	return ret;
}

/* ---- prefixes to ranges ---- */

struct span {
	struct ip_addr lo, hi;
	uint8_t len;
	uint16_t endpoint;
};

/* Outer before inner: by lower end, then the shorter prefix. */
static int span_cmp(const void *a, const void *b)
{
	const struct span *x = a, *y = b;
	int c = memcmp(&x->lo, &y->lo, 16);

	return c != 0 ? c : (int)x->len - (int)y->len;
}

static bool addr_step(struct ip_addr *a, bool up)
{
	for (int i = 15; i >= 0; i--) {
		a->b[i] += up ? 1 : -1;
		if (a->b[i] != (up ? 0 : 0xff))
			return true;
	}
	return false; /* wrapped */
}

static int range_add(struct build *b, const struct ip_addr *lo, const struct ip_addr *hi,
		     uint16_t endpoint)
{
	if (memcmp(lo, hi, 16) > 0)
		return 0;
	if (reserve(&b->ranges, b->n_ranges, &b->cap_ranges, sizeof(*b->ranges)) < 0)
		return -ENOMEM;
	b->ranges[b->n_ranges++] =
		(struct policy_range){.lo = *lo, .hi = *hi, .endpoint = endpoint};
	return 0;
}

/* Close the innermost open spans that end before `lo` (NULL: all), emitting what inner ones left of them. */
static int spans_close(struct build *b, struct span *stack, unsigned *depth, struct ip_addr *next,
		       bool *wrapped, const struct ip_addr *lo)
{
	while (*depth > 0 && (lo == NULL || memcmp(&stack[*depth - 1].hi, lo, 16) < 0)) {
		const struct span *top = &stack[--*depth];

		if (!*wrapped && range_add(b, next, &top->hi, top->endpoint) < 0)
			return -ENOMEM;
		if (!*wrapped && memcmp(next, &top->hi, 16) <= 0) {
			*next = top->hi;
			*wrapped = !addr_step(next, true);
		}
	}
	return 0;
}

/* Prefixes nest or are apart, never overlap in part: one sweep with a stack of open ones. Endpoint 0 spans
 * (the IPv4-mapped block inside ::/0) are holes. */
static int spans_sweep(struct build *b, const struct span *sp, uint32_t n)
{
	struct span stack[130];
	struct ip_addr next = {{0}}, before;
	unsigned depth = 0;
	bool wrapped = false;

	for (uint32_t i = 0; i < n; i++) {
		if (spans_close(b, stack, &depth, &next, &wrapped, &sp[i].lo) < 0)
			return -ENOMEM;
		before = sp[i].lo;
		if (depth > 0 && addr_step(&before, false) && memcmp(&before, &sp[i].lo, 16) < 0 &&
		    range_add(b, &next, &before, stack[depth - 1].endpoint) < 0)
			return -ENOMEM;
		next = sp[i].lo;
		stack[depth++] = sp[i];
	}
	return spans_close(b, stack, &depth, &next, &wrapped, NULL);
}

static uint16_t endpoint_id(const struct build *b, const char *name)
{
	const struct policy_endpoint *ep = endpoint_find(b, name);

	return ep != NULL ? ep->id : 0;
}

static struct span span_of(const struct ip_prefix *p, uint16_t endpoint)
{
	struct span s = {.lo = p->addr, .hi = p->addr, .len = p->len, .endpoint = endpoint};

	for (unsigned bit = p->len; bit < 128; bit++)
		s.hi.b[bit / 8] |= 0x80 >> (bit % 8);
	return s;
}

static int ranges_build(struct build *b, struct err *err)
{
	/* ::/0 and its like would swallow IPv4, which lives in ::ffff:0:0/96: IPv4 needs a prefix of its own. */
	static const struct ip_prefix v4_block = {.addr = {{[10] = 0xff, [11] = 0xff}}, .len = 96};
	struct span *sp;
	uint32_t n = 0, kept = 0;
	int ret;

	for (uint32_t i = 0; i < b->s->n_networks; i++)
		n += b->s->networks[i].n_prefixes;
	sp = calloc(n + 1, sizeof(*sp));
	if (sp == NULL)
		return -ENOMEM;
	n = 0;
	sp[n++] = span_of(&v4_block, 0);
	for (uint32_t i = 0; i < b->s->n_networks; i++) {
		const struct seg_network *net = &b->s->networks[i];
		uint16_t id = endpoint_id(b, net->name);

		for (uint32_t k = 0; k < net->n_prefixes; k++) {
			if (net->prefixes[k].len == 96 && ip_addr_is_v4(&net->prefixes[k].addr))
				sp[0].endpoint = id; /* 0.0.0.0/0 is exactly that block */
			else
				sp[n++] = span_of(&net->prefixes[k], id);
		}
	}
	qsort(sp, n, sizeof(*sp), span_cmp);
	ret = spans_sweep(b, sp, n);
	free(sp);
	if (ret < 0)
		return ret;
	for (uint32_t i = 0; i < b->n_ranges; i++) {
		if (b->ranges[i].endpoint != 0)
			b->ranges[kept++] = b->ranges[i];
	}
	b->n_ranges = kept;
	if (kept > RANGES_MAX)
		return err_set(err, -E2BIG, "%s: %u prefix ranges, at most %u", b->s->file, kept,
			       RANGES_MAX);
	return 0;
}

static uint32_t table_put(struct policy_form *f, uint32_t *end, const void *from, uint32_t n,
			  size_t each)
{
	uint32_t at = *end;

	if (n > 0)
		memcpy((char *)f + at, from, n * each);
	*end = (at + n * each + 7) & ~7u;
	return at;
}

static int form_pack(struct policy_form **out, const struct build *b, uint64_t epoch)
{
	uint32_t n_rules = b->s->n_rules, end = (sizeof(struct policy_form) + 7) & ~7u;
	size_t bytes = end + b->n_eps * sizeof(*b->eps) + b->n_ranges * sizeof(*b->ranges) +
		       n_rules * sizeof(struct policy_rule) + b->n_entries * sizeof(*b->entries) +
		       32;
	struct policy_form *f = calloc(1, bytes);
	struct policy_rule *rules = calloc(n_rules + 1, sizeof(*rules));

	if (f == NULL || rules == NULL) {
		free(f);
		free(rules);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n_rules; i++) {
		strcpy(rules[i].name, b->s->rules[i].name);
		rules[i].line = b->s->rules[i].line;
		rules[i].log = b->s->rules[i].log;
		rules[i].action = b->s->rules[i].action;
		rate_limits(&rules[i].limits, &b->s->rules[i].rate, b->s->rules[i].burst_ms);
	}
	f->magic = POLICY_MAGIC;
	f->epoch = epoch;
	strcpy(f->file, b->s->file);
	memcpy(f->sha256, b->s->sha256, sizeof(f->sha256));
	f->n_endpoints = b->n_eps;
	f->n_ranges = b->n_ranges;
	f->n_rules = n_rules;
	f->n_entries = b->n_entries;
	f->off_endpoints = table_put(f, &end, b->eps, b->n_eps, sizeof(*b->eps));
	f->off_ranges = table_put(f, &end, b->ranges, b->n_ranges, sizeof(*b->ranges));
	f->off_rules = table_put(f, &end, rules, n_rules, sizeof(*rules));
	f->off_entries = table_put(f, &end, b->entries, b->n_entries, sizeof(*b->entries));
	f->bytes = end;
	free(rules);
	*out = f;
	return 0;
}

int policy_compile(struct policy_form **out, const struct segments *s, uint64_t epoch,
		   const struct policy_form *prev, struct err *err)
{
	struct build b = {.s = s};
	struct policy_form *f = NULL;
	int ret;

	ret = endpoints_build(&b, prev, err);
	if (ret == 0)
		ret = entries_build(&b, err);
	if (ret == 0)
		ret = ranges_build(&b, err);
	if (ret == 0)
		ret = form_pack(&f, &b, epoch);
	/* What leaves here has passed the check that its readers make. */
	if (ret == 0)
		ret = policy_form_check(f, f->bytes, err);
	if (ret == 0)
		*out = f;
	else
		free(f);
	if (ret == -ENOMEM)
		err_set(err, ret, "out of memory");
	free(b.eps);
	free(b.by_name);
	free(b.claims);
	free(b.entries);
	free(b.ranges);
	return ret;
}

int segments_check(struct segments **out, const char *text, const char *file,
		   struct config_errors *errs)
{
	struct segments *s = NULL;
	struct policy_form *f = NULL;
	struct err err = {""};
	int ret = segments_parse(&s, text, file, errs);

	if (ret == 0) {
		ret = policy_compile(&f, s, 1, NULL, &err);
		if (ret < 0 &&
		    ret != -ENOMEM) /* the compiler's message names file and line itself */
			ret = config_error_whole(errs, err.msg);
	}
	free(f);
	if (ret == 0 && out != NULL)
		*out = s;
	else
		segments_free(s);
	return ret;
}
