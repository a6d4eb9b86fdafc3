/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "config/segments.h"

#define SEG "segments = ( { name = \"a\"; }, { name = \"b\"; } );\n"

static struct segments *parse(const char *text)
{
	struct config_errors errs = {0};
	struct segments *s = NULL;

	if (segments_parse(&s, text, "t.cfg", &errs) < 0) {
		for (uint32_t i = 0; i < errs.n; i++)
			print_error("%s\n", errs.line[i]);
		fail_msg("a good text was refused");
	}
	return s;
}

static void each_error_names_its_line_and_key(void **state)
{
	static const struct {
		const char *name, *text, *want;
	} rows[] = {
		{"syntax", "segments = (\n{ name = ; }\n);", "t.cfg:2: syntax error"},
		{"no segments", "rules = ();", "t.cfg: segments: is missing"},
		{"unknown key", SEG "colour = 1;", "t.cfg:2: colour: unknown key"},
		{"unknown key inside", "segments = ( { name = \"a\"; size = 3; } );",
		 "t.cfg:1: segments.a.size: unknown key"},
		{"name missing", "segments = ( {} );", "t.cfg:1: segments[0].name: is missing"},
		{"name empty", "segments = ( { name = \"\"; } );",
		 "t.cfg:1: segments[0].name: must not be empty"},
		{"name with a blank", "segments = ( { name = \"a b\"; } );",
		 "t.cfg:1: segments[0].name: \"a b\" is not a name (letters, digits, - and _)"},
		{"twice", "segments = ( { name = \"a\"; },\n { name = \"a\"; } );",
		 "t.cfg:2: a: name is there twice"},
		{"reserved", "segments = ( { name = \"any\"; } );",
		 "t.cfg:1: any: is a reserved name"},
		{"fallback", "segments = ( { name = \"a\"; fallback = \"x\"; } );",
		 "t.cfg:1: a: fallback \"x\" is no segment"},
		{"rule end", SEG "rules = (\n{ from = \"a\"; to = \"zz\"; service = \"tcp\"; } );",
		 "t.cfg:3: to: \"zz\" is neither a segment nor a network"},
		{"service",
		 SEG "rules = ( { from = \"a\"; to = \"b\"; service = \"tcp/70000\"; } );",
		 "t.cfg:2: rules[0].service: \"tcp/70000\": must be tcp/PORT, udp/PORT-PORT, tcp, "
		 "udp, icmp, ping, any or proto/NUMBER"},
		{"range upside down",
		 SEG "rules = ( { from = \"a\"; to = \"b\"; service = \"tcp/9-8\"; } );",
		 "t.cfg:2: rules[0].service: \"tcp/9-8\": must be tcp/PORT, udp/PORT-PORT, tcp, "
		 "udp, icmp, ping, any or proto/NUMBER"},
		{"host bits",
		 SEG "networks = ( { name = \"n\"; prefixes = [ \"10.0.0.1/8\" ]; } );",
		 "t.cfg:2: networks.n.prefixes: \"10.0.0.1/8\": has bits set behind the prefix "
		 "length"},
		{"prefix twice",
		 SEG "networks = ( { name = \"n\"; prefixes = \"10.0.0.0/8\"; },\n{ name = \"m\"; "
		     "prefixes = \"10.0.0.0/8\"; } );",
		 "is also in"},
		{"wrong type", "segments = ( { name = 5; } );",
		 "t.cfg:1: segments[0].name: must be a text in \"quotes\""},
		{"out of range", "segments = ( { name = \"a\"; lease = { after_s = 0; }; } );",
		 "t.cfg:1: segments.a.lease.after_s: 0 is outside 1..31536000 s"},
		{"bad word",
		 "segments = ( { name = \"a\"; requires = { attestation = \"good\"; }; } );",
		 "t.cfg:1: segments.a.requires.attestation: \"good\" is none of \"none\", "
		 "\"affirming\", \"warning\""},
		{"software alone",
		 "segments = ( { name = \"a\"; requires = { software = \"certified\"; }; } );",
		 "t.cfg:1: a: software = \"certified\" needs attestation = \"affirming\" or "
		 "\"warning\""},
		{"member empty", "segments = ( { name = \"a\"; members = ( {} ); } );",
		 "t.cfg:1: a: member 1 has none of san, dns, cn"},
		{"member of two kinds",
		 "segments = ( { name = \"a\"; members = ( { dns = \"x\"; cn = \"y\"; } ); } );",
		 "t.cfg:1: segments.a.members[0].cn: \"y\": a member has one of san, dns, cn"},
		{"include", "@include \"/etc/passwd\"\n" SEG,
		 "t.cfg: @include: not supported; put everything into one file"},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct config_errors errs = {0};
		struct segments *s = NULL;
		int ret = segments_parse(&s, rows[i].text, "t.cfg", &errs);

		if (ret != -22 || s != NULL || errs.n == 0 ||
		    strstr(errs.line[0], rows[i].want) == NULL)
			fail_msg("%s: ret %d, \"%s\", want \"%s\"", rows[i].name, ret,
				 errs.n > 0 ? errs.line[0] : "", rows[i].want);
	}
}

static void all_errors_are_reported(void **state)
{
	struct config_errors errs = {0};
	struct segments *s = NULL;

	(void)state;
	assert_int_equal(segments_parse(&s, "segments = ( { name = 1; bad = 2; } );\nother = 3;",
					"t.cfg", &errs),
			 -22);
	assert_null(s);
	assert_int_equal(errs.n, 3);
}

static void the_shipped_policy_is_good(void **state)
{
	struct config_errors errs = {0};
	struct segments *s = NULL;
	struct policy_form *f = NULL;
	struct err err = {""};

	(void)state;
	assert_int_equal(segments_load(&s, "config/segments.cfg", &errs), 0);
	assert_int_equal(policy_compile(&f, s, 1, NULL, &err), 0);
	assert_int_equal(policy_form_check(f, f->bytes, &err), 0);
	assert_int_equal(f->n_endpoints, s->n_segments + s->n_networks);
	free(f);
	segments_free(s);
}

static void members_match_by_kind_and_pattern(void **state)
{
	static const struct {
		const char *name;
		uint8_t kind;
		const char *identity, *want;
	} rows[] = {
		{"uri", IDENTITY_URI, "spiffe://p/cam/1", "cams"},
		{"star does not cross a slash", IDENTITY_URI, "spiffe://p/cam/1/x", NULL},
		{"other site", IDENTITY_URI, "spiffe://q/cam/1", NULL},
		{"a CN that looks like the URI", IDENTITY_CN, "spiffe://p/cam/1", NULL},
		{"dns", IDENTITY_DNS, "a.s.example", "sens"},
		{"first match counts", IDENTITY_URI, "spiffe://p/cam/9", "cams"},
		{"cn exact", IDENTITY_CN, "plc-1", "sens"},
		{"cn longer", IDENTITY_CN, "plc-12", NULL},
	};
	struct segments *s = parse(
		"segments = ( { name = \"cams\"; members = ( { san = \"spiffe://p/cam/*\"; } ); },"
		"{ name = \"sens\"; members = ( { dns = \"*.s.example\"; }, { cn = \"plc-1\"; }, { "
		"san = \"spiffe://p/*/9\"; } ); } );");

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct seg_segment *g = segments_match(s, rows[i].kind, rows[i].identity);

		if ((g == NULL) != (rows[i].want == NULL) ||
		    (g != NULL && strcmp(g->name, rows[i].want) != 0))
			fail_msg("%s: got %s", rows[i].name, g != NULL ? g->name : "none");
	}
	segments_free(s);
}

#define HOME "{ name = \"a\"; members = ( { cn = \"x\"; } ); }"

static void a_change_says_what_it_means_for_devices(void **state)
{
	static const struct {
		const char *name, *text;
		enum segments_change want;
	} rows[] = {
		{"the same", "segments = ( " HOME ", { name = \"b\"; } );", SEGMENTS_SAME},
		{"rules, networks, limits",
		 "segments = ( { name = \"a\"; members = ( { cn = \"x\"; } ); limits = { flows = "
		 "9; }; },"
		 "{ name = \"b\"; } ); networks = ( { name = \"n\"; prefixes = \"10.0.0.0/8\"; } );"
		 "rules = ( { from = \"a\"; to = \"n\"; service = \"tcp\"; } );",
		 SEGMENTS_SAME},
		{"attestation",
		 "segments = ( " HOME
		 ", { name = \"b\"; requires = { attestation = \"warning\"; }; } );",
		 SEGMENTS_TERMS},
		{"age of attestation",
		 "segments = ( " HOME
		 ", { name = \"b\"; requires = { attestation_age_s = 7; }; } );",
		 SEGMENTS_TERMS},
		{"revocation list",
		 "segments = ( " HOME ", { name = \"b\"; requires = { crl = true; }; } );",
		 SEGMENTS_TERMS},
		{"fallback", "segments = ( " HOME ", { name = \"b\"; fallback = \"a\"; } );",
		 SEGMENTS_TERMS},
		{"restricted", "segments = ( " HOME ", { name = \"b\"; restricted = \"a\"; } );",
		 SEGMENTS_TERMS},
		{"what the lost lease does",
		 "segments = ( " HOME ", { name = \"b\"; lease = { on_loss = \"restrict\"; }; } );",
		 SEGMENTS_TERMS},
		{"when the lease is lost",
		 "segments = ( " HOME ", { name = \"b\"; lease = { after_s = 7; }; } );",
		 SEGMENTS_TERMS},
		{"one fewer", "segments = ( " HOME " );", SEGMENTS_MEMBERS},
		{"one more", "segments = ( " HOME ", { name = \"b\"; }, { name = \"c\"; } );",
		 SEGMENTS_MEMBERS},
		{"the order", "segments = ( { name = \"b\"; }, " HOME " );", SEGMENTS_MEMBERS},
		{"a name", "segments = ( " HOME ", { name = \"c\"; } );", SEGMENTS_MEMBERS},
		{"another member",
		 "segments = ( " HOME ", { name = \"b\"; members = ( { cn = \"y\"; } ); } );",
		 SEGMENTS_MEMBERS},
		{"a pattern",
		 "segments = ( { name = \"a\"; members = ( { cn = \"z\"; } ); }, { name = \"b\"; } "
		 ");",
		 SEGMENTS_MEMBERS},
		{"a kind",
		 "segments = ( { name = \"a\"; members = ( { dns = \"x\"; } ); }, { name = \"b\"; "
		 "} );",
		 SEGMENTS_MEMBERS},
	};
	struct segments *was = parse("segments = ( " HOME ", { name = \"b\"; } );");

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct segments *is = parse(rows[i].text);

		if (segments_compare(was, is) != rows[i].want ||
		    segments_compare(is, was) != rows[i].want)
			fail_msg("%s: %d and %d", rows[i].name, segments_compare(was, is),
				 segments_compare(is, was));
		segments_free(is);
	}
	segments_free(was);
}

static struct policy_form *compile(const char *text, const struct policy_form *prev)
{
	struct segments *s = parse(text);
	struct policy_form *f = NULL;
	struct err err = {""};

	if (policy_compile(&f, s, prev != NULL ? prev->epoch + 1 : 1, prev, &err) < 0)
		fail_msg("%s", err.msg);
	segments_free(s);
	return f;
}

static void the_first_matching_rule_wins_on_every_port(void **state)
{
	static const struct {
		const char *name, *from, *to;
		uint8_t proto;
		uint16_t port;
		int rule; /* -1: none */
		int action;
	} rows[] = {
		{"below the hole", "a", "b", 6, 99, 2, POLICY_ALLOW},
		{"the hole", "a", "b", 6, 100, 0, POLICY_DENY},
		{"end of the hole", "a", "b", 6, 200, 0, POLICY_DENY},
		{"above the hole", "a", "b", 6, 201, 2, POLICY_ALLOW},
		{"exact", "a", "b", 6, 5000, 1, POLICY_ALLOW},
		{"last port", "a", "b", 6, 65535, 2, POLICY_ALLOW},
		{"port 0", "a", "b", 6, 0, 2, POLICY_ALLOW},
		{"other protocol", "a", "b", 17, 100, -1, 0},
		{"other direction", "b", "a", 6, 99, -1, 0},
		{"any from", "b", "n", 17, 53, 3, POLICY_ALLOW},
		{"any from is also the network itself", "n", "n", 17, 53, 3, POLICY_ALLOW},
		{"ping v4", "a", "n", 1, 8, 4, POLICY_ALLOW},
		{"ping v6", "a", "n", 58, 128, 4, POLICY_ALLOW},
		{"echo reply opens nothing", "a", "n", 1, 0, -1, 0},
		{"GRE", "a", "n", 47, 0, 5, POLICY_ALLOW},
	};
	struct policy_form *f = compile(
		SEG "networks = ( { name = \"n\"; prefixes = \"10.0.0.0/8\"; } );\n"
		    "rules = ( { from = \"a\"; to = \"b\"; service = \"tcp/100-200\"; action = "
		    "\"deny\"; },"
		    "{ from = \"a\"; to = \"b\"; service = [ \"tcp/5000\", \"tcp/150\" ]; },"
		    "{ from = \"a\"; to = \"b\"; service = \"tcp\"; },"
		    "{ from = \"any\"; to = \"n\"; service = \"udp/53\"; },"
		    "{ from = \"a\"; to = \"n\"; service = \"ping\"; },"
		    "{ from = \"a\"; to = \"n\"; service = \"proto/47\"; } );",
		NULL);

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct policy_entry *e = policy_lookup(
			f, policy_endpoint_by_name(f, rows[i].from)->id,
			policy_endpoint_by_name(f, rows[i].to)->id, rows[i].proto, rows[i].port);

		if ((e == NULL) != (rows[i].rule < 0) ||
		    (e != NULL && (e->rule != rows[i].rule || e->action != rows[i].action)))
			fail_msg("%s: rule %d", rows[i].name, e != NULL ? e->rule : -1);
	}
	free(f);
}

static void the_longest_prefix_wins(void **state)
{
	static const struct {
		const char *addr, *want;
	} rows[] = {
		{"10.0.0.0", "wide"},
		{"10.1.2.2", "wide"},
		{"10.1.2.3", "host"},
		{"10.1.2.4", "wide"},
		{"10.255.255.255", "wide"},
		{"11.0.0.0", "v4"},
		{"255.255.255.255", "v4"},
		{"0.0.0.0", "v4"},
		{"fd00::1", "six"},
		{"fe00::1", "all6"},
		{"::", "all6"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "top"},
		{"ffff::", "all6"},
	};
	struct policy_form *f = compile(
		SEG
		"networks = ( { name = \"wide\"; prefixes = \"10.0.0.0/8\"; },"
		"{ name = \"host\"; prefixes = \"10.1.2.3/32\"; }, { name = \"v4\"; prefixes = "
		"\"0.0.0.0/0\"; },"
		"{ name = \"six\"; prefixes = \"fd00::/16\"; }, { name = \"all6\"; prefixes = "
		"\"::/0\"; },"
		"{ name = \"top\"; prefixes = \"ffff:ffff:ffff:ffff:ffff:ffff:ffff:0/112\"; } );",
		NULL);

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ip_addr a;
		const struct policy_endpoint *ep;

		assert_int_equal(ip_addr_parse(&a, rows[i].addr), 0);
		ep = policy_endpoint_by_id(f, policy_network_of(f, &a));
		if (ep == NULL || strcmp(ep->name, rows[i].want) != 0)
			fail_msg("%s is in %s", rows[i].addr, ep != NULL ? ep->name : "nothing");
	}
	free(f);
}

static void a_default_route_of_ipv6_does_not_take_ipv4(void **state)
{
	struct policy_form *f =
		compile(SEG "networks = ( { name = \"n\"; prefixes = \"::/0\"; } );", NULL);
	struct ip_addr a;

	(void)state;
	ip_addr_parse(&a, "10.0.0.1");
	assert_int_equal(policy_network_of(f, &a), 0);
	ip_addr_parse(&a, "2001:db8::1");
	assert_int_not_equal(policy_network_of(f, &a), 0);
	free(f);
}

static void a_name_keeps_its_id(void **state)
{
	struct policy_form *f1 = compile(SEG, NULL);
	struct policy_form *f2 =
		compile("segments = ( { name = \"new\"; }, { name = \"b\"; } );", f1);

	(void)state;
	assert_int_equal(policy_endpoint_by_name(f1, "b")->id,
			 policy_endpoint_by_name(f2, "b")->id);
	assert_int_not_equal(policy_endpoint_by_name(f2, "new")->id,
			     policy_endpoint_by_name(f2, "b")->id);
	free(f1);
	free(f2);
}

static void an_id_without_a_name_rests_for_one_policy(void **state)
{
	struct policy_form *f1 = compile(SEG, NULL), *f2, *f3;
	uint16_t was = policy_endpoint_by_name(f1, "a")->id;
	char *many = malloc(POLICY_ID_MAX * 64), *at = many;

	(void)state;
	/* a device's record may still say `was` while the planes hold the new policy */
	f2 = compile("segments = ( { name = \"x\"; }, { name = \"b\"; } );", f1);
	assert_null(policy_endpoint_by_id(f2, was));
	f3 = compile("segments = ( { name = \"x\"; }, { name = \"b\"; }, { name = \"y\"; } );", f2);
	assert_int_equal(policy_endpoint_by_name(f3, "y")->id, was);
	free(f2);
	free(f3);
	/* where all ids are wanted, none rests */
	assert_non_null(many);
	at += sprintf(at, "segments = ( { name = \"s1\"; }");
	for (int i = 2; i <= 2048; i++)
		at += sprintf(at, ", { name = \"s%d\"; }", i);
	at += sprintf(at, " ); networks = ( { name = \"n0\"; prefixes = [ \"10.0.0.0/32\" ]; }");
	for (int i = 1; i < POLICY_ID_MAX - 2048; i++)
		at += sprintf(at, ", { name = \"n%d\"; prefixes = [ \"10.0.%d.%d\" ]; }", i,
			      i / 256, i % 256);
	sprintf(at, " );");
	f2 = compile(many, f1);
	assert_int_equal(f2->n_endpoints, POLICY_ID_MAX);
	free(many);
	free(f1);
	free(f2);
}

static void a_damaged_form_is_refused(void **state)
{
	struct policy_form *f = compile(
		SEG
		"networks = ( { name = \"n\"; prefixes = [ \"10.0.0.0/8\", \"fd00::/16\" ]; } );"
		"rules = ( { from = \"a\"; to = \"b\"; service = [ \"tcp/80\", \"tcp/443\" ]; } );",
		NULL);
	struct err err = {""};
	struct policy_entry *e = (struct policy_entry *)policy_entries(f);
	struct policy_range *r = (struct policy_range *)policy_ranges(f);
	struct policy_entry keep;
	struct policy_range keep_r;

	(void)state;
	assert_int_equal(policy_form_check(f, f->bytes, &err), 0);
	assert_int_equal(policy_form_check(f, f->bytes - 8, &err), -71);
	for (size_t n = 0; n < sizeof(*f); n += 7)
		assert_int_equal(policy_form_check(f, n, &err), -71);
	f->n_entries += 1000;
	assert_int_equal(policy_form_check(f, f->bytes, &err), -71);
	f->n_entries -= 1000;
	f->off_entries = 0xfffffff8;
	assert_int_equal(policy_form_check(f, f->bytes, &err), -71);
	f->off_entries = (uint32_t)((char *)e - (char *)f);
	keep = e[0];
	e[0].rule = 9;
	assert_int_equal(policy_form_check(f, f->bytes, &err), -71);
	e[0] = keep;
	e[0].port_hi = 443; /* overlaps the next */
	assert_int_equal(policy_form_check(f, f->bytes, &err), -71);
	e[0] = keep;
	keep_r = r[0];
	r[0].hi = r[1].hi;
	assert_int_equal(policy_form_check(f, f->bytes, &err), -71);
	r[0] = keep_r;
	assert_int_equal(policy_form_check(f, f->bytes, &err), 0);
	free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_error_names_its_line_and_key),
		cmocka_unit_test(all_errors_are_reported),
		cmocka_unit_test(the_shipped_policy_is_good),
		cmocka_unit_test(members_match_by_kind_and_pattern),
		cmocka_unit_test(a_change_says_what_it_means_for_devices),
		cmocka_unit_test(the_first_matching_rule_wins_on_every_port),
		cmocka_unit_test(the_longest_prefix_wins),
		cmocka_unit_test(a_default_route_of_ipv6_does_not_take_ipv4),
		cmocka_unit_test(a_name_keeps_its_id),
		cmocka_unit_test(an_id_without_a_name_rests_for_one_policy),
		cmocka_unit_test(a_damaged_form_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
