/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/base/policy.h"

#include <errno.h>
#include <string.h>

static bool table_fits(const struct policy_form *f, uint32_t off, uint32_t n, size_t each)
{
	return off >= sizeof(*f) && off % 8 == 0 && off <= f->bytes && n <= (f->bytes - off) / each;
}

static int entry_cmp(const struct policy_entry *a, uint16_t from, uint16_t to, uint8_t proto)
{
	if (a->from != from)
		return a->from < from ? -1 : 1;
	if (a->to != to)
		return a->to < to ? -1 : 1;
	if (a->proto != proto)
		return a->proto < proto ? -1 : 1;
	return 0;
}

static bool rate_ok(uint64_t rate, uint64_t max, uint64_t burst, uint64_t burst_min,
		    uint64_t burst_max)
{
	return rate == 0 ? burst == 0 : rate <= max && burst >= burst_min && burst <= burst_max;
}

static bool limits_ok(const struct policy_limits *l, bool of_devices)
{
	if (!rate_ok(l->bytes_per_s, POLICY_RATE_BYTES_MAX, l->burst_bytes, POLICY_BURST_BYTES_MIN,
		     POLICY_RATE_BYTES_MAX * POLICY_BURST_MS_MAX / 1000) ||
	    (l->bytes_per_s != 0 && l->bytes_per_s < POLICY_RATE_BYTES_MIN))
		return false;
	if (!rate_ok(l->packets_per_s, POLICY_PACKETS_MAX, l->burst_packets,
		     POLICY_BURST_PACKETS_MIN, POLICY_PACKETS_MAX * (POLICY_BURST_MS_MAX / 1000)))
		return false;
	if (!of_devices)
		return l->new_flows_per_s == 0 && l->burst_new_flows == 0 && l->flows == 0;
	return rate_ok(l->new_flows_per_s, POLICY_NEW_FLOWS_MAX, l->burst_new_flows, 1,
		       POLICY_NEW_FLOWS_MAX) &&
	       l->flows <= POLICY_FLOWS_MAX;
}

static bool limits_none(const struct policy_limits *l)
{
	return limits_ok(l, false) && l->bytes_per_s == 0 && l->packets_per_s == 0;
}

static int endpoints_check(const struct policy_form *f, struct err *err)
{
	const struct policy_endpoint *ep = policy_endpoints(f);
	uint8_t seen[POLICY_ID_MAX + 1] = {0};

	for (uint32_t i = 0; i < f->n_endpoints; i++) {
		if (ep[i].id == 0 || ep[i].id > POLICY_ID_MAX || seen[ep[i].id]++ ||
		    memchr(ep[i].name, '\0', sizeof(ep[i].name)) == NULL ||
		    (ep[i].kind != ENDPOINT_SEGMENT && ep[i].kind != ENDPOINT_NETWORK) ||
		    !(ep[i].kind == ENDPOINT_SEGMENT ? limits_ok(&ep[i].limits, true)
						     : limits_none(&ep[i].limits)))
			return err_set(err, -EPROTO, "policy form: endpoint %u is malformed", i);
	}
	return 0;
}

static int ranges_check(const struct policy_form *f, struct err *err)
{
	const struct policy_range *r = policy_ranges(f);

	for (uint32_t i = 0; i < f->n_ranges; i++) {
		if (memcmp(&r[i].lo, &r[i].hi, 16) > 0 || r[i].endpoint == 0 ||
		    r[i].endpoint > POLICY_ID_MAX ||
		    (i > 0 && memcmp(&r[i - 1].hi, &r[i].lo, 16) >= 0))
			return err_set(err, -EPROTO, "policy form: range %u is malformed", i);
	}
	return 0;
}

static int entries_check(const struct policy_form *f, struct err *err)
{
	const struct policy_entry *e = policy_entries(f);

	for (uint32_t i = 0; i < f->n_entries; i++) {
		bool bad = e[i].port_lo > e[i].port_hi || e[i].rule >= f->n_rules ||
			   e[i].action > POLICY_ALLOW || e[i].from == 0 ||
			   e[i].from > POLICY_ID_MAX || e[i].to == 0 || e[i].to > POLICY_ID_MAX;

		if (!bad && i > 0) {
			int c = entry_cmp(&e[i - 1], e[i].from, e[i].to, e[i].proto);

			bad = c > 0 || (c == 0 && e[i - 1].port_hi >= e[i].port_lo);
		}
		if (bad)
			return err_set(err, -EPROTO, "policy form: entry %u is malformed", i);
	}
	return 0;
}

int policy_form_check(const void *block, size_t bytes, struct err *err)
{
	const struct policy_form *f = block;
	const struct policy_rule *rule;
	int ret;

	if (bytes < sizeof(*f) || f->magic != POLICY_MAGIC || f->bytes != bytes || f->epoch == 0)
		return err_set(err, -EPROTO, "policy form: bad header");
	if (!table_fits(f, f->off_endpoints, f->n_endpoints, sizeof(struct policy_endpoint)) ||
	    !table_fits(f, f->off_ranges, f->n_ranges, sizeof(struct policy_range)) ||
	    !table_fits(f, f->off_rules, f->n_rules, sizeof(struct policy_rule)) ||
	    !table_fits(f, f->off_entries, f->n_entries, sizeof(struct policy_entry)) ||
	    memchr(f->file, '\0', sizeof(f->file)) == NULL)
		return err_set(err, -EPROTO, "policy form: a table reaches outside the block");
	rule = policy_rules(f);
	for (uint32_t i = 0; i < f->n_rules; i++) {
		if (memchr(rule[i].name, '\0', sizeof(rule[i].name)) == NULL ||
		    rule[i].action > POLICY_ALLOW || !limits_ok(&rule[i].limits, false))
			return err_set(err, -EPROTO, "policy form: rule %u is malformed", i);
	}
	ret = endpoints_check(f, err);
	if (ret == 0)
		ret = ranges_check(f, err);
	if (ret == 0)
		ret = entries_check(f, err);
	return ret;
}

uint16_t policy_network_of(const struct policy_form *f, const struct ip_addr *a)
{
	const struct policy_range *r = policy_ranges(f);
	uint32_t lo = 0, hi = f->n_ranges;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (memcmp(a, &r[mid].lo, 16) < 0)
			hi = mid;
		else if (memcmp(a, &r[mid].hi, 16) > 0)
			lo = mid + 1;
		else
			return r[mid].endpoint;
	}
	return 0;
}

const struct policy_entry *policy_lookup(const struct policy_form *f, uint16_t from, uint16_t to,
					 uint8_t proto, uint16_t port)
{
	const struct policy_entry *e = policy_entries(f);
	uint32_t lo = 0, hi = f->n_entries;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		int c = entry_cmp(&e[mid], from, to, proto);

		if (c == 0)
			c = e[mid].port_hi < port ? -1 : e[mid].port_lo > port ? 1 : 0;
		if (c == 0)
			return &e[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

const struct policy_endpoint *policy_endpoint_by_id(const struct policy_form *f, uint16_t id)
{
	const struct policy_endpoint *ep = policy_endpoints(f);

	for (uint32_t i = 0; i < f->n_endpoints; i++) {
		if (ep[i].id == id)
			return &ep[i];
	}
	return NULL;
}

const struct policy_endpoint *policy_endpoint_by_name(const struct policy_form *f, const char *name)
{
	const struct policy_endpoint *ep = policy_endpoints(f);

	for (uint32_t i = 0; i < f->n_endpoints; i++) {
		if (strcmp(ep[i].name, name) == 0)
			return &ep[i];
	}
	return NULL;
}
