/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The layout beside the rules: table, sets, counters, chains; how it is installed and compared. */
#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/agent/nft_internal.h"

/* nft's datatype numbers (its src/datatype.h): only for listing; 6 bits each in a concatenation */
enum {
	TYPE_VERDICT = 0xffffff00,
	TYPE_NFPROTO = 2,
	TYPE_IPADDR = 7,
	TYPE_IP6ADDR = 8,
	TYPE_ETHERADDR = 9,
	TYPE_PROTOCOL = 12,
	TYPE_SERVICE = 13,
	TYPE_ICMP = 14,
	TYPE_ICMP6 = 29,
	TYPE_IFNAME = 41,
	TYPE_FIB_ADDR = 38,
};
#define CAT(a, b) ((a) << 6 | (b))

/* The endpoint's id travels as a 16-bit big-endian number: nft then prints it in decimal, as sallyctl does. */
#define TYPE_ENDPOINT TYPE_SERVICE

static const struct set_spec {
	const char *name, *comment;
	uint32_t key_type, data_type, flags;
	uint8_t key_bytes, data_bytes;
	uint8_t fields[5]; /* bytes of each, of a concatenation */
} set_specs[] = {
	{SET_ALIVE,
	 "lease: refreshed by sallyport-agent",
	 TYPE_NFPROTO,
	 0,
	 NFT_SET_TIMEOUT,
	 1,
	 0,
	 {0}},
	{SET_RAW, "kernel side of DPDK ports", TYPE_IFNAME, 0, NFT_SET_INTERVAL, 16, 0, {0}},
	{SET_DEVICE, "where devices are", TYPE_IFNAME, 0, NFT_SET_INTERVAL, 16, 0, {0}},
	{SET_HERE, "what does not leave the box", TYPE_FIB_ADDR, 0, 0, 4, 0, {0}},
	{SET_LISTENERS4,
	 "mTLS listeners",
	 CAT(CAT(TYPE_IPADDR, TYPE_PROTOCOL), TYPE_SERVICE),
	 0,
	 NFT_SET_CONCAT,
	 12,
	 0,
	 {4, 1, 2}},
	{SET_LISTENERS6,
	 "mTLS listeners",
	 CAT(CAT(TYPE_IP6ADDR, TYPE_PROTOCOL), TYPE_SERVICE),
	 0,
	 NFT_SET_CONCAT,
	 24,
	 0,
	 {16, 1, 2}},
	{SET_STACK4,
	 "mTLS listeners of the TLS workers' own stack, none of the kernel's",
	 CAT(CAT(TYPE_IPADDR, TYPE_PROTOCOL), TYPE_SERVICE),
	 0,
	 NFT_SET_CONCAT,
	 12,
	 0,
	 {4, 1, 2}},
	{SET_STACK6,
	 "mTLS listeners of the TLS workers' own stack, none of the kernel's",
	 CAT(CAT(TYPE_IP6ADDR, TYPE_PROTOCOL), TYPE_SERVICE),
	 0,
	 NFT_SET_CONCAT,
	 24,
	 0,
	 {16, 1, 2}},
	{SET_SERVICES,
	 "of the box, open to strangers",
	 CAT(TYPE_PROTOCOL, TYPE_SERVICE),
	 0,
	 NFT_SET_CONCAT,
	 8,
	 0,
	 {1, 2}},
	{SET_ICMP4, "to the box, open to strangers", TYPE_ICMP, 0, 0, 1, 0, {0}},
	{SET_ICMP6, "to the box, open to strangers", TYPE_ICMP6, 0, 0, 1, 0, {0}},
	{SET_BOUND4,
	 "bindings",
	 CAT(CAT(TYPE_IFNAME, TYPE_ETHERADDR), TYPE_IPADDR),
	 0,
	 NFT_SET_CONCAT | NFT_SET_TIMEOUT,
	 28,
	 0,
	 {16, 6, 4}},
	{SET_BOUND6,
	 "bindings",
	 CAT(CAT(TYPE_IFNAME, TYPE_ETHERADDR), TYPE_IP6ADDR),
	 0,
	 NFT_SET_CONCAT | NFT_SET_TIMEOUT,
	 40,
	 0,
	 {16, 6, 16}},
	{MAP_SEGMENT4,
	 "device to endpoint id",
	 TYPE_IPADDR,
	 TYPE_ENDPOINT,
	 NFT_SET_MAP | NFT_SET_TIMEOUT,
	 4,
	 2,
	 {0}},
	{MAP_SEGMENT6,
	 "device to endpoint id",
	 TYPE_IP6ADDR,
	 TYPE_ENDPOINT,
	 NFT_SET_MAP | NFT_SET_TIMEOUT,
	 16,
	 2,
	 {0}},
	{MAP_NETWORK4,
	 "network to endpoint id",
	 TYPE_IPADDR,
	 TYPE_ENDPOINT,
	 NFT_SET_MAP | NFT_SET_INTERVAL,
	 4,
	 2,
	 {0}},
	{MAP_NETWORK6,
	 "network to endpoint id",
	 TYPE_IP6ADDR,
	 TYPE_ENDPOINT,
	 NFT_SET_MAP | NFT_SET_INTERVAL,
	 16,
	 2,
	 {0}},
	{MAP_POLICY,
	 "from . to . protocol . port (ICMP: type * 256)",
	 CAT(CAT(CAT(TYPE_ENDPOINT, TYPE_ENDPOINT), TYPE_PROTOCOL), TYPE_SERVICE),
	 TYPE_VERDICT,
	 NFT_SET_MAP | NFT_SET_INTERVAL | NFT_SET_CONCAT,
	 16,
	 16,
	 {2, 2, 1, 2}},
	{MAP_RATES,
	 "as verdicts: bytes a second of a rule",
	 CAT(CAT(CAT(TYPE_ENDPOINT, TYPE_ENDPOINT), TYPE_PROTOCOL), TYPE_SERVICE),
	 NFT_OBJECT_LIMIT,
	 NFT_SET_OBJECT | NFT_SET_INTERVAL | NFT_SET_CONCAT,
	 16,
	 0,
	 {2, 2, 1, 2}},
	{MAP_PACKET_RATES,
	 "as verdicts: packets a second of a rule",
	 CAT(CAT(CAT(TYPE_ENDPOINT, TYPE_ENDPOINT), TYPE_PROTOCOL), TYPE_SERVICE),
	 NFT_OBJECT_LIMIT,
	 NFT_SET_OBJECT | NFT_SET_INTERVAL | NFT_SET_CONCAT,
	 16,
	 0,
	 {2, 2, 1, 2}},
};

static const char *const counters[] = {
	"forwarded", "denied",	 "no_segment", "no_lease", "invalid", "raw",
	"spoofed",   "stranger", "translated", "to_box",   "rate",    "stack",
};

static const struct chain_spec {
	const char *name;
	int hook; /* -1: not a base chain */
	int prio;
	uint32_t policy;
} chains[] = {
	{CHAIN_PASS, -1, 0, 0},
	{CHAIN_REFUSE, -1, 0, 0},
	{"box", -1, 0, 0},
	{"decide", -1, 0, 0},
	{"bound_only", -1, 0, 0},
	{"known_only", -1, 0, 0},
	{"from_device", -1, 0, 0},
	{"to_box", -1, 0, 0},
	/* Before conntrack: a spoofed segment must not reach the state of the real device's connection. */
	{"guard", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW, NF_ACCEPT},
	{"forward", NF_INET_FORWARD, NF_IP_PRI_FILTER, NF_DROP},
	{"input", NF_INET_LOCAL_IN, NF_IP_PRI_FILTER, NF_ACCEPT},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- installing ---- */

static void put_table(struct nft_batch *b, uint16_t cmd, bool comment)
{
	struct nlmsghdr *nlh =
		batch_msg(b, cmd, NFPROTO_INET, cmd == NFT_MSG_NEWTABLE ? NLM_F_CREATE : 0);
	struct nftnl_udata_buf *ud = comment ? nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN) : NULL;

	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, NFT_TABLE);
	if (comment && ud == NULL)
		b->ret = -ENOMEM;
	if (ud != NULL) {
		nftnl_udata_put_strz(ud, NFTNL_UDATA_TABLE_COMMENT, NFT_LAYOUT);
		mnl_attr_put(nlh, NFTA_TABLE_USERDATA, nftnl_udata_buf_len(ud),
			     nftnl_udata_buf_data(ud));
		nftnl_udata_buf_free(ud);
	}
	batch_push(b);
}

void rules_drop_table(struct nft_batch *b)
{
	put_table(b, NFT_MSG_NEWTABLE, false); /* deleting what is not there would fail the batch */
	put_table(b, NFT_MSG_DELTABLE, false);
}

static int put_set(struct nft_batch *b, const struct set_spec *spec, uint32_t id)
{
	struct nftnl_set *s = nftnl_set_alloc();
	struct nftnl_udata_buf *ud = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
	int ret = -ENOMEM;
	uint8_t n = 0;

	if (s == NULL || ud == NULL)
		goto fail;
	nftnl_set_set_u32(s, NFTNL_SET_FAMILY, NFPROTO_INET);
	nftnl_set_set_str(s, NFTNL_SET_TABLE, NFT_TABLE);
	nftnl_set_set_str(s, NFTNL_SET_NAME, spec->name);
	nftnl_set_set_u32(s, NFTNL_SET_ID, id);
	nftnl_set_set_u32(s, NFTNL_SET_FLAGS, spec->flags);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, spec->key_type);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, spec->key_bytes);
	if (spec->flags & NFT_SET_MAP) {
		nftnl_set_set_u32(s, NFTNL_SET_DATA_TYPE, spec->data_type);
		nftnl_set_set_u32(s, NFTNL_SET_DATA_LEN, spec->data_bytes);
	}
	if (spec->flags & NFT_SET_OBJECT)
		nftnl_set_set_u32(s, NFTNL_SET_OBJ_TYPE, spec->data_type);
	while (n < COUNT(spec->fields) && spec->fields[n] != 0)
		n++;
	if (n > 0)
		nftnl_set_set_data(s, NFTNL_SET_DESC_CONCAT, spec->fields, n);
	nftnl_udata_put_strz(ud, NFTNL_UDATA_SET_COMMENT, spec->comment);
	nftnl_set_set_data(s, NFTNL_SET_USERDATA, nftnl_udata_buf_data(ud),
			   nftnl_udata_buf_len(ud));
	nftnl_set_nlmsg_build_payload(batch_msg(b, NFT_MSG_NEWSET, NFPROTO_INET, NLM_F_CREATE), s);
	batch_push(b);
	ret = 0;
fail:
	nftnl_udata_buf_free(ud);
	if (s != NULL)
		nftnl_set_free(s);
	return ret;
}

static void put_chain(struct nft_batch *b, const struct chain_spec *spec)
{
	struct nftnl_chain *c = nftnl_chain_alloc();

	if (c == NULL) {
		b->ret = -ENOMEM;
		return;
	}
	nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, NFT_TABLE);
	nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, spec->name);
	if (spec->hook >= 0) {
		nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, "filter");
		nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, (uint32_t)spec->hook);
		nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, spec->prio);
		nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, spec->policy);
	}
	nftnl_chain_nlmsg_build_payload(batch_msg(b, NFT_MSG_NEWCHAIN, NFPROTO_INET, NLM_F_CREATE),
					c);
	batch_push(b);
	nftnl_chain_free(c);
}

static void put_counter(struct nft_batch *b, const char *name)
{
	struct nftnl_obj *o = nftnl_obj_alloc();

	if (o == NULL) {
		b->ret = -ENOMEM;
		return;
	}
	nftnl_obj_set_str(o, NFTNL_OBJ_TABLE, NFT_TABLE);
	nftnl_obj_set_str(o, NFTNL_OBJ_NAME, name);
	nftnl_obj_set_u32(o, NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
	nftnl_obj_set_u64(o, NFTNL_OBJ_CTR_PKTS, 0);
	nftnl_obj_set_u64(o, NFTNL_OBJ_CTR_BYTES, 0);
	nftnl_obj_nlmsg_build_payload(batch_msg(b, NFT_MSG_NEWOBJ, NFPROTO_INET, NLM_F_CREATE), o);
	batch_push(b);
	nftnl_obj_free(o);
}

void rules_put_table(struct nft_batch *b)
{
	static const uint32_t here[] = {RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST};
	struct nft_ruleset s;
	struct nft_elems e;

	if (ruleset_init(&s) < 0) {
		b->ret = -ENOMEM;
		return;
	}
	put_table(b, NFT_MSG_NEWTABLE, true);
	for (size_t i = 0; i < COUNT(counters); i++)
		put_counter(b, counters[i]);
	for (size_t i = 0; i < COUNT(set_specs); i++)
		if (put_set(b, &set_specs[i], (uint32_t)i + 1) < 0)
			b->ret = -ENOMEM;
	for (size_t i = 0; i < COUNT(chains); i++)
		put_chain(b, &chains[i]);
	elems_begin(&e, b, NFT_MSG_NEWSETELEM, SET_HERE);
	for (size_t i = 0; i < COUNT(here); i++)
		elems_put(&e, &(struct nft_elem){.key = &here[i], .key_bytes = 4});
	elems_end(&e);
	for (unsigned i = 0; i < s.n; i++) {
		struct nlmsghdr *nlh =
			batch_msg(b, NFT_MSG_NEWRULE, NFPROTO_INET, NLM_F_CREATE | NLM_F_APPEND);

		nftnl_rule_nlmsg_build_payload(nlh, s.rules[i]);
		batch_push(b);
	}
	ruleset_fini(&s);
}

/* ---- comparing ---- */

struct found {
	struct nft_ruleset want;
	unsigned next[COUNT(chains)]; /* of each chain, the wanted rule that must come next */
	unsigned n_chains;
	bool table, version;
	char diff[128]; /* "" = none */
};

static void differs(struct found *f, const char *what, const char *name)
{
	if (f->diff[0] == '\0')
		snprintf(f->diff, sizeof(f->diff), "%s%s%s", what, name != NULL ? " " : "",
			 name != NULL ? name : "");
}

static int comment_cb(const struct nftnl_udata *attr, void *data)
{
	const char **text = data;
	uint8_t len = nftnl_udata_len(attr);

	if (nftnl_udata_type(attr) == NFTNL_UDATA_TABLE_COMMENT && len > 0 &&
	    ((const char *)nftnl_udata_get(attr))[len - 1] == '\0')
		*text = nftnl_udata_get(attr);
	return 0;
}

static int table_cb(const struct nlmsghdr *nlh, void *arg)
{
	struct found *f = arg;
	struct nftnl_table *t = nftnl_table_alloc();
	const char *name, *comment = NULL;
	const void *ud;
	uint32_t bytes;

	if (t == NULL)
		return MNL_CB_ERROR;
	if (nftnl_table_nlmsg_parse(nlh, t) == 0 &&
	    nftnl_table_get_u32(t, NFTNL_TABLE_FAMILY) == NFPROTO_INET &&
	    (name = nftnl_table_get_str(t, NFTNL_TABLE_NAME)) != NULL &&
	    strcmp(name, NFT_TABLE) == 0) {
		f->table = true;
		ud = nftnl_table_get_data(t, NFTNL_TABLE_USERDATA, &bytes);
		if (ud != NULL)
			nftnl_udata_parse(ud, bytes, comment_cb, &comment);
		f->version = comment != NULL && strcmp(comment, NFT_LAYOUT) == 0;
		if (nftnl_table_get_u32(t, NFTNL_TABLE_FLAGS) != 0)
			differs(f, "table is dormant or owned", NULL);
	}
	nftnl_table_free(t);
	return MNL_CB_OK;
}

static size_t chain_index(const char *name)
{
	size_t i = 0;

	while (i < COUNT(chains) && (name == NULL || strcmp(chains[i].name, name) != 0))
		i++;
	return i;
}

static bool chain_matches(const struct nftnl_chain *c, const struct chain_spec *spec)
{
	if (spec->hook < 0)
		return !nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM);
	return nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM) &&
	       nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM) == (uint32_t)spec->hook &&
	       nftnl_chain_get_s32(c, NFTNL_CHAIN_PRIO) == spec->prio &&
	       nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY) == spec->policy;
}

static int chain_cb(const struct nlmsghdr *nlh, void *arg)
{
	struct found *f = arg;
	struct nftnl_chain *c = nftnl_chain_alloc();
	const char *name;
	size_t i;

	if (c == NULL)
		return MNL_CB_ERROR;
	if (nftnl_chain_nlmsg_parse(nlh, c) == 0 &&
	    nftnl_chain_get_u32(c, NFTNL_CHAIN_FAMILY) == NFPROTO_INET &&
	    strcmp(nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE), NFT_TABLE) == 0) {
		name = nftnl_chain_get_str(c, NFTNL_CHAIN_NAME);
		i = chain_index(name);
		f->n_chains++;
		if (i == COUNT(chains) || !chain_matches(c, &chains[i]))
			differs(f, "chain", name);
	}
	nftnl_chain_free(c);
	return MNL_CB_OK;
}

/* As text, expression by expression: independent of handles and of attributes that only the kernel sets. */
static bool rules_equal(struct nftnl_rule *a, struct nftnl_rule *b)
{
	struct nftnl_expr_iter *ia = nftnl_expr_iter_create(a), *ib = nftnl_expr_iter_create(b);
	bool same = ia != NULL && ib != NULL;

	while (same) {
		struct nftnl_expr *ea = nftnl_expr_iter_next(ia), *eb = nftnl_expr_iter_next(ib);
		char ta[512], tb[512];

		if (ea == NULL || eb == NULL) {
			same = ea == eb;
			break;
		}
		nftnl_expr_snprintf(ta, sizeof(ta), ea, NFTNL_OUTPUT_DEFAULT, 0);
		nftnl_expr_snprintf(tb, sizeof(tb), eb, NFTNL_OUTPUT_DEFAULT, 0);
		same = strcmp(ta, tb) == 0 && strcmp(nftnl_expr_get_str(ea, NFTNL_EXPR_NAME),
						     nftnl_expr_get_str(eb, NFTNL_EXPR_NAME)) == 0;
	}
	nftnl_expr_iter_destroy(ia);
	nftnl_expr_iter_destroy(ib);
	return same;
}

/* The wanted rule number *from or later of this chain; *from moves past it. */
static struct nftnl_rule *next_rule(const struct nft_ruleset *want, const char *chain,
				    unsigned *from)
{
	while (*from < want->n) {
		struct nftnl_rule *r = want->rules[(*from)++];

		if (strcmp(nftnl_rule_get_str(r, NFTNL_RULE_CHAIN), chain) == 0)
			return r;
	}
	return NULL;
}

static int rule_cb(const struct nlmsghdr *nlh, void *arg)
{
	struct found *f = arg;
	struct nftnl_rule *r = nftnl_rule_alloc(), *want;
	const char *chain;
	size_t i;

	if (r == NULL)
		return MNL_CB_ERROR;
	if (nftnl_rule_nlmsg_parse(nlh, r) == 0 &&
	    nftnl_rule_get_u32(r, NFTNL_RULE_FAMILY) == NFPROTO_INET &&
	    strcmp(nftnl_rule_get_str(r, NFTNL_RULE_TABLE), NFT_TABLE) == 0) {
		chain = nftnl_rule_get_str(r, NFTNL_RULE_CHAIN);
		i = chain_index(chain);
		want = i < COUNT(chains) ? next_rule(&f->want, chain, &f->next[i]) : NULL;
		if (want == NULL || !rules_equal(want, r))
			differs(f, "rule in chain", chain);
	}
	nftnl_rule_free(r);
	return MNL_CB_OK;
}

int rules_verify(struct mnl_socket *sock, struct err *err)
{
	static const struct {
		uint16_t cmd;
		mnl_cb_t cb;
	} steps[] = {{NFT_MSG_GETTABLE, table_cb},
		     {NFT_MSG_GETCHAIN, chain_cb},
		     {NFT_MSG_GETRULE, rule_cb}};
	char buf[256];
	struct found f = {.table = false};
	int ret = ruleset_init(&f.want);

	if (ret < 0)
		return err_set(err, ret, "nftables: no memory");
	for (size_t i = 0; i < COUNT(steps); i++) {
		struct nlmsghdr *req =
			nftnl_nlmsg_build_hdr(buf, steps[i].cmd, NFPROTO_INET, NLM_F_DUMP, 0);
		struct found before;

		before = f;
		for (int tries = 0; tries < 8; tries++) {
			f = before; /* the dump was torn by somebody's change: count again */
			ret = nft_query(sock, req, steps[i].cb, &f);
			if (ret != -EINTR)
				break;
		}
		if (ret < 0) {
			err_set(err, ret, "nftables: read the table: %s", strerror(-ret));
			goto fail;
		}
		if (i == 0 && !f.table) {
			ret = -ENOENT;
			goto fail;
		}
	}
	if (!f.version)
		differs(&f, "table of another version", NULL);
	if (f.n_chains != COUNT(chains))
		differs(&f, "a chain is missing", NULL);
	for (size_t i = 0; i < COUNT(chains); i++)
		if (next_rule(&f.want, chains[i].name, &f.next[i]) != NULL)
			differs(&f, "a rule is missing in chain", chains[i].name);
	ret = f.diff[0] != '\0' ? err_set(err, -ESTALE, "nftables: %s", f.diff) : 0;
fail:
	ruleset_fini(&f.want);
	return ret;
}
