/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/segments.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/schema.h"

#define SEGMENTS_MAX 2048
#define NETWORKS_MAX 2047
#define RULES_MAX 16384
#define RULE_SERVICES_MAX 256
#define MEMBERS_MAX 1024
#define PREFIXES_MAX 65536

static const struct {
	const char *word;
	enum attest_tier tier;
} tiers[] = {{"none", ATTEST_NONE},
	     {"affirming", ATTEST_AFFIRMING},
	     {"warning", ATTEST_WARNING},
	     {"contraindicated", ATTEST_CONTRAINDICATED}};

const char *attest_tier_name(enum attest_tier t)
{
	return (unsigned)t <= ATTEST_CONTRAINDICATED ? tiers[t].word : "invalid";
}

bool attest_tier_parse(const char *word, enum attest_tier *out)
{
	for (unsigned i = 0; i <= ATTEST_CONTRAINDICATED; i++) {
		if (strcmp(word, tiers[i].word) == 0) {
			*out = tiers[i].tier;
			return true;
		}
	}
	return false;
}

/* Room for one more zeroed element. The address of the array may change: never keep two. */
static void *grow(void *array, uint32_t *n, size_t each)
{
	void **at = array;
	void *more = *at;

	if ((*n & (*n - 1)) == 0) { /* full at every power of two */
		more = realloc(*at, (*n == 0 ? 1 : *n * 2) * each);
		if (more == NULL)
			return NULL;
		*at = more;
	}
	more = (char *)more + *n * each;
	memset(more, 0, each);
	(*n)++;
	return more;
}

static void *segment_slot(void *parent)
{
	struct segments *s = parent;

	return grow(&s->segments, &s->n_segments, sizeof(*s->segments));
}

static void *network_slot(void *parent)
{
	struct segments *s = parent;

	return grow(&s->networks, &s->n_networks, sizeof(*s->networks));
}

static void *rule_slot(void *parent)
{
	struct segments *s = parent;

	return grow(&s->rules, &s->n_rules, sizeof(*s->rules));
}

static void *member_slot(void *parent)
{
	struct seg_segment *s = parent;

	return grow(&s->members, &s->n_members, sizeof(*s->members));
}

static int member_pattern(struct seg_member *m, uint8_t kind, const char *text, const char **why)
{
	if (m->kind != 0) {
		*why = "a member has one of san, dns, cn";
		return -EINVAL;
	}
	if (text[0] == '\0' || strlen(text) >= sizeof(m->pattern) ||
	    strpbrk(text, "?[\\") != NULL) {
		*why = "must be an identity, in which only * stands for anything but /";
		return -EINVAL;
	}
	m->kind = kind;
	strcpy(m->pattern, text);
	return 0;
}

static int member_san(void *parent, const char *text, const char **why)
{
	if (strstr(text, "://") == NULL) {
		*why = "must be a URI, as spiffe://site/kind/*; for a DNS name use dns";
		return -EINVAL;
	}
	return member_pattern(parent, IDENTITY_URI, text, why);
}

static int member_dns(void *parent, const char *text, const char **why)
{
	return member_pattern(parent, IDENTITY_DNS, text, why);
}

static int member_cn(void *parent, const char *text, const char **why)
{
	return member_pattern(parent, IDENTITY_CN, text, why);
}

static int network_prefix(void *parent, const char *text, const char **why)
{
	struct seg_network *n = parent;
	struct ip_prefix p, *slot;
	int ret = ip_prefix_parse(&p, text);

	*why = ret == -ERANGE ? "has bits set behind the prefix length" : "is not a prefix";
	if (ret < 0)
		return ret;
	slot = grow(&n->prefixes, &n->n_prefixes, sizeof(*n->prefixes));
	*why = "out of memory";
	if (slot == NULL)
		return -ENOMEM;
	*slot = p;
	return 0;
}

static int ports_parse(const char *text, uint16_t *lo, uint16_t *hi)
{
	unsigned long a, b;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	a = b = strtoul(text, &end, 10);
	if (*end == '-') {
		if (end[1] < '0' || end[1] > '9')
			return -EINVAL;
		b = strtoul(end + 1, &end, 10);
	}
	if (*end != '\0' || a > b || b > 65535)
		return -EINVAL;
	*lo = a;
	*hi = b;
	return 0;
}

static int rule_service_add(struct seg_rule *r, uint8_t proto, uint16_t lo, uint16_t hi)
{
	struct seg_service *s = grow(&r->services, &r->n_services, sizeof(*r->services));

	if (s == NULL)
		return -ENOMEM;
	*s = (struct seg_service){.proto = proto, .lo = lo, .hi = hi};
	return 0;
}

static int rule_service(void *parent, const char *text, const char **why)
{
	static const struct {
		const char *word;
		struct seg_service s;
	} fixed[] = {
		{"tcp", {POLICY_PROTO_TCP, 0, 65535}}, {"udp", {POLICY_PROTO_UDP, 0, 65535}},
		{"icmp", {POLICY_PROTO_ICMP, 0, 255}}, {"icmp", {POLICY_PROTO_ICMP6, 0, 255}},
		{"ping", {POLICY_PROTO_ICMP, 8, 8}},   {"ping", {POLICY_PROTO_ICMP6, 128, 128}},
		{"any", {POLICY_PROTO_TCP, 0, 65535}}, {"any", {POLICY_PROTO_UDP, 0, 65535}},
		{"any", {POLICY_PROTO_ICMP, 0, 255}},  {"any", {POLICY_PROTO_ICMP6, 0, 255}},
	};
	struct seg_rule *r = parent;
	uint16_t lo, hi;
	bool found = false;

	*why = "must be tcp/PORT, udp/PORT-PORT, tcp, udp, icmp, ping, any or proto/NUMBER";
	for (unsigned i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		if (strcmp(text, fixed[i].word) != 0)
			continue;
		found = true;
		if (rule_service_add(r, fixed[i].s.proto, fixed[i].s.lo, fixed[i].s.hi) < 0)
			return -ENOMEM;
	}
	if (found)
		return 0;
	if ((strncmp(text, "tcp/", 4) == 0 || strncmp(text, "udp/", 4) == 0) &&
	    ports_parse(text + 4, &lo, &hi) == 0 && lo > 0)
		return rule_service_add(r, text[0] == 't' ? POLICY_PROTO_TCP : POLICY_PROTO_UDP, lo,
					hi);
	if (strncmp(text, "proto/", 6) == 0 && ports_parse(text + 6, &lo, &hi) == 0 && lo == hi &&
	    lo > 0 && lo < 255) {
		*why = "has a name of its own: use tcp, udp or icmp";
		if (lo == POLICY_PROTO_TCP || lo == POLICY_PROTO_UDP || lo == POLICY_PROTO_ICMP ||
		    lo == POLICY_PROTO_ICMP6)
			return -EINVAL;
		return rule_service_add(r, lo, 0, 65535);
	}
	return -EINVAL;
}

static int segment_rate(void *parent, const char *text, const char **why)
{
	return rate_parse(&((struct seg_segment *)parent)->rate, text, why);
}

static int rule_rate(void *parent, const char *text, const char **why)
{
	return rate_parse(&((struct seg_rule *)parent)->rate, text, why);
}

static const struct key_choice tier_words[] = {
	{"none", ATTEST_NONE}, {"affirming", ATTEST_AFFIRMING}, {"warning", ATTEST_WARNING}, {0}};
static const struct key_choice software_words[] = {{"any", 0}, {"certified", 1}, {0}};
static const struct key_choice actions[] = {{"deny", POLICY_DENY}, {"allow", POLICY_ALLOW}, {0}};
static const struct key_choice lease_words[] = {
	{"hold", LEASE_HOLD}, {"restrict", LEASE_RESTRICT}, {"quarantine", LEASE_QUARANTINE}, {0}};

/* clang-format off */
static const struct schema_key member_keys[] = {
	{"san", KEY_EACH, .min = 1, .max = 1, .def = "", .doc = "URI in the subject alternative name; * does not cross /", .each = member_san},
	{"dns", KEY_EACH, .min = 1, .max = 1, .def = "", .doc = "DNS name in the subject alternative name", .each = member_dns},
	{"cn", KEY_EACH, .min = 1, .max = 1, .def = "", .doc = "common name", .each = member_cn},
	{0}
};

#define S(field) SCHEMA_AT(struct seg_segment, field)
static const struct schema_key requires_keys[] = {
	{"attestation", KEY_CHOICE, S(tier), .def = "none", .doc = "worst tier of the attestation result that will do", .choices = tier_words},
	{"attestation_age_s", KEY_UINT, S(attestation_age_s), .min = 0, .max = 31536000, .def = "0", .unit = "s", .doc = "result not older than this; 0 = its own expiry counts alone"},
	{"software", KEY_CHOICE, S(software), .def = "any", .doc = "the attested software must be certified", .choices = software_words},
	{"crl", KEY_BOOL, S(crl), .def = "false", .doc = "a revocation list must be there, and fresh"},
	{0}
};

static const struct schema_key lease_keys[] = {
	{"on_loss", KEY_CHOICE, S(lease_action), .def = "hold", .doc = "controller out of reach for longer than after_s", .choices = lease_words},
	{"after_s", KEY_UINT, S(lease_s), .min = 1, .max = 31536000, .def = "3600", .unit = "s", .doc = "for so long nothing changes"},
	{0}
};

static const struct schema_key limits_keys[] = {
	{"rate", KEY_EACH, .min = 1, .max = 2, .def = "", .doc = "what each member may send: \"2 Mbit/s\", \"1000 packet/s\", or both", .each = segment_rate},
	{"burst_ms", KEY_UINT, S(burst_ms), .min = 1, .max = POLICY_BURST_MS_MAX, .def = "100", .unit = "ms", .doc = "of rate: how much may come at once; at least 9216 bytes, 8 packets"},
	{"new_flows", KEY_UINT, S(new_flows_per_s), .min = 1, .max = POLICY_NEW_FLOWS_MAX, .def = "", .unit = "a second", .doc = "flows that each member may try to open; none = gateway.cfg's limits.device"},
	{"new_flows_burst", KEY_UINT, S(new_flows_burst), .min = 1, .max = POLICY_NEW_FLOWS_MAX, .def = "", .doc = "at once; none = two seconds' worth"},
	{"flows", KEY_UINT, S(flows), .min = 1, .max = POLICY_FLOWS_MAX, .def = "", .doc = "that each member may have open at a time; none = gateway.cfg's limits.device"},
	{0}
};

static const struct schema_key segment_keys[] = {
	{"name", KEY_NAME, S(name), .def = NULL, .doc = "of the segment"},
	{.name = "line", .type = KEY_LINE, S(line)},
	{"members", KEY_GROUPS, .min = 0, .max = MEMBERS_MAX, .def = "", .doc = "identities; a device is in the first segment that matches", .sub = member_keys, .slot = member_slot},
	{"requires", KEY_GROUP, .def = "", .doc = "what a member must show", .sub = requires_keys},
	{"fallback", KEY_NAME, S(fallback), .def = "", .doc = "segment while it does not; none = refused"},
	{"restricted", KEY_NAME, S(restricted), .def = "", .doc = "segment while restricted; none = as fallback"},
	{"lease", KEY_GROUP, .def = "", .doc = "degraded operation", .sub = lease_keys},
	{"limits", KEY_GROUP, .def = "", .doc = "of each member", .sub = limits_keys},
	{0}
};

#define N(field) SCHEMA_AT(struct seg_network, field)
static const struct schema_key network_keys[] = {
	{"name", KEY_NAME, N(name), .def = NULL, .doc = "of the network"},
	{.name = "line", .type = KEY_LINE, N(line)},
	{"prefixes", KEY_EACH, .min = 1, .max = PREFIXES_MAX, .def = NULL, .doc = "of either family; the longest match wins", .each = network_prefix},
	{0}
};

#define R(field) SCHEMA_AT(struct seg_rule, field)
static const struct schema_key rule_keys[] = {
	{"name", KEY_NAME, R(name), .def = "", .doc = "for logs and counters"},
	{.name = "line", .type = KEY_LINE, R(line)},
	{"from", KEY_NAME, R(from), .def = NULL, .doc = "segment or network that opens the flow, or any"},
	{"to", KEY_NAME, R(to), .def = NULL, .doc = "segment or network it is opened to, or any"},
	{"service", KEY_EACH, .min = 1, .max = RULE_SERVICES_MAX, .def = NULL, .doc = "tcp/554, udp/5000-5100, tcp, udp, icmp, ping, any, proto/47", .each = rule_service},
	{"action", KEY_CHOICE, R(action), .def = "allow", .doc = "first matching rule counts", .choices = actions},
	{"log", KEY_BOOL, R(log), .def = "false", .doc = "log the start of every flow"},
	{"rate", KEY_EACH, .min = 1, .max = 2, .def = "", .doc = "of all its flows together, both directions: \"10 Mbit/s\", \"5000 packet/s\", or both", .each = rule_rate},
	{"burst_ms", KEY_UINT, R(burst_ms), .min = 1, .max = POLICY_BURST_MS_MAX, .def = "100", .unit = "ms", .doc = "of rate: how much may come at once; at least 9216 bytes, 8 packets"},
	{0}
};

static const struct schema_key segments_schema[] = {
	{"segments", KEY_GROUPS, .min = 1, .max = SEGMENTS_MAX, .def = NULL, .doc = "sets of devices", .sub = segment_keys, .slot = segment_slot},
	{"networks", KEY_GROUPS, .min = 0, .max = NETWORKS_MAX, .def = "", .doc = "prefixes outside the device side", .sub = network_keys, .slot = network_slot},
	{"rules", KEY_GROUPS, .min = 0, .max = RULES_MAX, .def = "", .doc = "who may open what to whom; everything else is denied", .sub = rule_keys, .slot = rule_slot},
	{0}
};
/* clang-format on */

const struct seg_segment *segments_by_name(const struct segments *s, const char *name)
{
	for (uint32_t i = 0; i < s->n_segments; i++) {
		if (strcmp(s->segments[i].name, name) == 0)
			return &s->segments[i];
	}
	return NULL;
}

/* What a rule may name: all segments and networks, sorted. */
struct names {
	const char **at;
	size_t n;
};

static int name_cmp(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int names_init(struct names *names, const struct segments *s)
{
	names->n = 0;
	names->at = calloc((size_t)s->n_segments + s->n_networks + 1, sizeof(*names->at));
	if (names->at == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->n_segments; i++)
		names->at[names->n++] = s->segments[i].name;
	for (uint32_t i = 0; i < s->n_networks; i++)
		names->at[names->n++] = s->networks[i].name;
	qsort(names->at, names->n, sizeof(*names->at), name_cmp);
	return 0;
}

static bool names_have(const struct names *names, const char *name)
{
	return bsearch(&name, names->at, names->n, sizeof(*names->at), name_cmp) != NULL;
}

static void name_check(const struct segments *s, const char *name, uint32_t line,
		       struct config_errors *errs)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < s->n_segments; i++)
		n += strcmp(s->segments[i].name, name) == 0 && s->segments[i].line <= line;
	for (uint32_t i = 0; i < s->n_networks; i++)
		n += strcmp(s->networks[i].name, name) == 0 && s->networks[i].line <= line;
	if (n > 1)
		config_error(errs, s->file, line, name, "name is there twice");
	if (strcmp(name, "any") == 0)
		config_error(errs, s->file, line, name, "is a reserved name");
}

static void segment_check(const struct segments *s, const struct seg_segment *g,
			  struct config_errors *errs)
{
	name_check(s, g->name, g->line, errs);
	for (uint32_t i = 0; i < g->n_members; i++) {
		if (g->members[i].kind == 0)
			config_error(errs, s->file, g->line, g->name,
				     "member %u has none of san, dns, cn", i + 1);
	}
	if (g->fallback[0] != '\0' && segments_by_name(s, g->fallback) == NULL)
		config_error(errs, s->file, g->line, g->name, "fallback \"%s\" is no segment",
			     g->fallback);
	if (g->restricted[0] != '\0' && segments_by_name(s, g->restricted) == NULL)
		config_error(errs, s->file, g->line, g->name, "restricted \"%s\" is no segment",
			     g->restricted);
	if (g->fallback[0] != '\0' && strcmp(g->fallback, g->name) == 0)
		config_error(errs, s->file, g->line, g->name, "is its own fallback");
	if (g->software && !g->attestation)
		config_error(errs, s->file, g->line, g->name,
			     "software = \"certified\" needs attestation = \"affirming\" or "
			     "\"warning\"");
	if (g->new_flows_burst != 0 && g->new_flows_per_s == 0)
		config_error(errs, s->file, g->line, g->name, "new_flows_burst needs new_flows");
}

static void rule_check(const struct segments *s, const struct seg_rule *r,
		       const struct names *names, struct config_errors *errs)
{
	const char *ends[] = {r->from, r->to};

	for (unsigned i = 0; i < 2; i++) {
		if (strcmp(ends[i], "any") != 0 && !names_have(names, ends[i]))
			config_error(errs, s->file, r->line, i == 0 ? "from" : "to",
				     "\"%s\" is neither a segment nor a network", ends[i]);
	}
	if (r->action == POLICY_DENY && (r->rate.bits_per_s != 0 || r->rate.packets_per_s != 0))
		config_error(errs, s->file, r->line, r->name,
			     "a rule that denies lets nothing pass: it has no rate");
}

static int rules_check(struct segments *s, struct config_errors *errs)
{
	struct names names;
	int ret = names_init(&names, s);

	for (uint32_t i = 0; ret == 0 && i < s->n_rules; i++) {
		struct seg_rule *r = &s->rules[i];

		if (r->name[0] == '\0')
			snprintf(r->name, sizeof(r->name), "line %u", r->line);
		rule_check(s, r, &names, errs);
	}
	free(names.at);
	return ret;
}

struct owned_prefix {
	struct ip_prefix p;
	const struct seg_network *net;
};

static int owned_cmp(const void *a, const void *b)
{
	return memcmp(&((const struct owned_prefix *)a)->p, &((const struct owned_prefix *)b)->p,
		      sizeof(struct ip_prefix));
}

/* Two networks with the same prefix: nobody could say whose it is. */
static int prefixes_check(const struct segments *s, struct config_errors *errs)
{
	struct owned_prefix *all;
	char text[ADDR_TEXT_BYTES];
	size_t n = 0;

	for (uint32_t i = 0; i < s->n_networks; i++)
		n += s->networks[i].n_prefixes;
	all = calloc(n + 1, sizeof(*all));
	if (all == NULL)
		return -ENOMEM;
	n = 0;
	for (uint32_t i = 0; i < s->n_networks; i++) {
		for (uint32_t k = 0; k < s->networks[i].n_prefixes; k++)
			all[n++] =
				(struct owned_prefix){s->networks[i].prefixes[k], &s->networks[i]};
	}
	qsort(all, n, sizeof(*all), owned_cmp);
	for (size_t i = 1; i < n; i++) {
		if (owned_cmp(&all[i - 1], &all[i]) == 0)
			config_error(errs, s->file, all[i].net->line, all[i].net->name,
				     "prefix %s is also in %s", ip_prefix_text(&all[i].p, text),
				     all[i - 1].net->name);
	}
	free(all);
	return 0;
}

int segments_parse(struct segments **out, const char *text, const char *file,
		   struct config_errors *errs)
{
	struct segments *s = calloc(1, sizeof(*s));
	int ret = -ENOMEM;

	if (s == NULL)
		return ret;
	snprintf(s->file, sizeof(s->file), "%s", file);
	ret = schema_read(s, segments_schema, text, s->file, errs);
	for (uint32_t i = 0; i < s->n_segments; i++) {
		s->segments[i].attestation = s->segments[i].tier != ATTEST_NONE;
		segment_check(s, &s->segments[i], errs);
	}
	for (uint32_t i = 0; i < s->n_networks; i++)
		name_check(s, s->networks[i].name, s->networks[i].line, errs);
	if (rules_check(s, errs) < 0 || prefixes_check(s, errs) < 0)
		ret = -ENOMEM;
	if (ret == 0 && errs->n > 0)
		ret = -EINVAL;
	if (ret < 0)
		goto fail;
	*out = s;
	return 0;
fail:
	segments_free(s);
	return ret;
}

int segments_load(struct segments **out, const char *path, struct config_errors *errs)
{
	char *text = NULL;
	int ret = schema_slurp(&text, path, errs);

	if (ret == 0)
		ret = segments_parse(out, text, path, errs);
	free(text);
	return ret;
}

void segments_free(struct segments *s)
{
	if (s == NULL)
		return;
	for (uint32_t i = 0; i < s->n_segments; i++)
		free(s->segments[i].members);
	for (uint32_t i = 0; i < s->n_networks; i++)
		free(s->networks[i].prefixes);
	for (uint32_t i = 0; i < s->n_rules; i++)
		free(s->rules[i].services);
	free(s->segments);
	free(s->networks);
	free(s->rules);
	free(s);
}

const struct seg_segment *segments_match(const struct segments *s, uint8_t identity_kind,
					 const char *identity)
{
	for (uint32_t i = 0; i < s->n_segments; i++) {
		const struct seg_segment *g = &s->segments[i];

		for (uint32_t k = 0; k < g->n_members; k++) {
			if (g->members[k].kind == identity_kind &&
			    fnmatch(g->members[k].pattern, identity, FNM_PATHNAME | FNM_NOESCAPE) ==
				    0)
				return g;
		}
	}
	return NULL;
}

static bool same_members(const struct seg_segment *x, const struct seg_segment *y)
{
	if (strcmp(x->name, y->name) != 0 || x->n_members != y->n_members)
		return false;
	for (uint32_t i = 0; i < x->n_members; i++) {
		if (x->members[i].kind != y->members[i].kind ||
		    strcmp(x->members[i].pattern, y->members[i].pattern) != 0)
			return false;
	}
	return true;
}

/* All that decide() reads. */
static bool same_terms(const struct seg_segment *x, const struct seg_segment *y)
{
	return x->attestation == y->attestation && x->tier == y->tier &&
	       x->attestation_age_s == y->attestation_age_s && x->software == y->software &&
	       x->crl == y->crl && strcmp(x->fallback, y->fallback) == 0 &&
	       strcmp(x->restricted, y->restricted) == 0 && x->lease_action == y->lease_action &&
	       x->lease_s == y->lease_s;
}

enum segments_change segments_compare(const struct segments *was, const struct segments *is)
{
	enum segments_change change = SEGMENTS_SAME;

	if (was->n_segments != is->n_segments)
		return SEGMENTS_MEMBERS;
	for (uint32_t i = 0; i < is->n_segments; i++) {
		if (!same_members(&was->segments[i], &is->segments[i]))
			return SEGMENTS_MEMBERS;
		if (!same_terms(&was->segments[i], &is->segments[i]))
			change = SEGMENTS_TERMS;
	}
	return change;
}

void segments_reference(FILE *to)
{
	schema_print(to, segments_schema);
}
