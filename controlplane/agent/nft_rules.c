/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The rules, as `nft list table inet sallyport` shows them. Registers are chosen so that nft 1.0.6 can turn the
 * expressions back into text. */
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>

#include "controlplane/agent/nft_internal.h"

/* ---- expressions ---- */

static struct nftnl_expr *expr(struct nft_ruleset *s, const char *name)
{
	struct nftnl_expr *e = s->failed ? NULL : nftnl_expr_alloc(name);

	if (e == NULL) {
		s->failed = true;
		return NULL;
	}
	nftnl_rule_add_expr(s->rules[s->n - 1], e);
	return e;
}

static void u32(struct nftnl_expr *e, uint16_t attr, uint32_t value)
{
	if (e != NULL)
		nftnl_expr_set_u32(e, attr, value);
}

static void rule(struct nft_ruleset *s, const char *chain)
{
	struct nftnl_rule *r;

	if (s->failed || s->n == NFT_RULES_MAX || (r = nftnl_rule_alloc()) == NULL) {
		s->failed = true;
		return;
	}
	nftnl_rule_set_u32(r, NFTNL_RULE_FAMILY, NFPROTO_INET);
	nftnl_rule_set_str(r, NFTNL_RULE_TABLE, NFT_TABLE);
	nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, chain);
	s->rules[s->n++] = r;
}

static void comment(struct nft_ruleset *s, const char *text)
{
	struct nftnl_udata_buf *ud = s->failed ? NULL : nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);

	if (ud == NULL) {
		s->failed = true;
		return;
	}
	nftnl_udata_put_strz(ud, NFTNL_UDATA_RULE_COMMENT, text);
	nftnl_rule_set_data(s->rules[s->n - 1], NFTNL_RULE_USERDATA, nftnl_udata_buf_data(ud),
			    nftnl_udata_buf_len(ud));
	nftnl_udata_buf_free(ud);
}

static void meta(struct nft_ruleset *s, uint32_t key, uint32_t reg)
{
	struct nftnl_expr *e = expr(s, "meta");

	u32(e, NFTNL_EXPR_META_KEY, key);
	u32(e, NFTNL_EXPR_META_DREG, reg);
}

static void meta_set(struct nft_ruleset *s, uint32_t key, uint32_t reg)
{
	struct nftnl_expr *e = expr(s, "meta");

	u32(e, NFTNL_EXPR_META_KEY, key);
	u32(e, NFTNL_EXPR_META_SREG, reg);
}

static void payload(struct nft_ruleset *s, uint32_t base, uint32_t offset, uint32_t bytes,
		    uint32_t reg)
{
	struct nftnl_expr *e = expr(s, "payload");

	u32(e, NFTNL_EXPR_PAYLOAD_DREG, reg);
	u32(e, NFTNL_EXPR_PAYLOAD_BASE, base);
	u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	u32(e, NFTNL_EXPR_PAYLOAD_LEN, bytes);
}

static void ct(struct nft_ruleset *s, uint32_t key, int dir, uint32_t reg)
{
	struct nftnl_expr *e = expr(s, "ct");

	u32(e, NFTNL_EXPR_CT_KEY, key);
	u32(e, NFTNL_EXPR_CT_DREG, reg);
	if (e != NULL && dir >= 0)
		nftnl_expr_set_u8(e, NFTNL_EXPR_CT_DIR, (uint8_t)dir);
}

static void cmp(struct nft_ruleset *s, uint32_t op, uint32_t reg, const void *data, uint32_t bytes)
{
	struct nftnl_expr *e = expr(s, "cmp");

	u32(e, NFTNL_EXPR_CMP_SREG, reg);
	u32(e, NFTNL_EXPR_CMP_OP, op);
	if (e != NULL)
		nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, data, bytes);
}

static void any_bit(struct nft_ruleset *s, uint32_t reg, uint32_t mask)
{
	static const uint32_t zero;
	struct nftnl_expr *e = expr(s, "bitwise");

	u32(e, NFTNL_EXPR_BITWISE_SREG, reg);
	u32(e, NFTNL_EXPR_BITWISE_DREG, reg);
	u32(e, NFTNL_EXPR_BITWISE_LEN, sizeof(mask));
	if (e != NULL) {
		nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, &mask, sizeof(mask));
		nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, &zero, sizeof(zero));
	}
	cmp(s, NFT_CMP_NEQ, reg, &zero, sizeof(zero));
}

enum { NO_DREG = 1000 };

static void lookup(struct nft_ruleset *s, uint32_t reg, const char *set, uint32_t dreg,
		   uint32_t flags)
{
	struct nftnl_expr *e = expr(s, "lookup");

	u32(e, NFTNL_EXPR_LOOKUP_SREG, reg);
	if (e != NULL)
		nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, set);
	if (dreg != NO_DREG)
		u32(e, NFTNL_EXPR_LOOKUP_DREG, dreg);
	u32(e, NFTNL_EXPR_LOOKUP_FLAGS, flags); /* also 0: so the kernel reports it */
}

static void count(struct nft_ruleset *s, const char *counter)
{
	struct nftnl_expr *e = expr(s, "objref");

	u32(e, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
	if (e != NULL)
		nftnl_expr_set_str(e, NFTNL_EXPR_OBJREF_IMM_NAME, counter);
}

static void verdict(struct nft_ruleset *s, int code, const char *chain)
{
	struct nftnl_expr *e = expr(s, "immediate");

	u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)code);
	if (e != NULL && chain != NULL)
		nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, chain);
}

static void drop(struct nft_ruleset *s, const char *counter)
{
	count(s, counter);
	verdict(s, NF_DROP, NULL);
}

static void clear(struct nft_ruleset *s, uint32_t key)
{
	static const uint32_t zero;
	struct nftnl_expr *e = expr(s, "immediate");

	u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_1);
	if (e != NULL)
		nftnl_expr_set(e, NFTNL_EXPR_IMM_DATA, &zero, sizeof(zero));
	meta_set(s, key, NFT_REG_1);
}

/* ---- phrases ---- */

static void family(struct nft_ruleset *s, bool v6)
{
	uint8_t proto = v6 ? NFPROTO_IPV6 : NFPROTO_IPV4;

	meta(s, NFT_META_NFPROTO, NFT_REG_1);
	cmp(s, NFT_CMP_EQ, NFT_REG_1, &proto, 1);
}

static void saddr(struct nft_ruleset *s, bool v6, uint32_t reg)
{
	payload(s, NFT_PAYLOAD_NETWORK_HEADER, v6 ? 8 : 12, v6 ? 16 : 4, reg);
}

static void daddr(struct nft_ruleset *s, bool v6, uint32_t reg)
{
	payload(s, NFT_PAYLOAD_NETWORK_HEADER, v6 ? 24 : 16, v6 ? 16 : 4, reg);
}

static void iif_in(struct nft_ruleset *s, const char *set)
{
	meta(s, NFT_META_IIFNAME, NFT_REG_1);
	lookup(s, NFT_REG_1, set, NO_DREG, 0);
}

/* iifname . ether saddr . ip saddr @bound */
static void is_bound(struct nft_ruleset *s, bool v6)
{
	uint16_t ether = ARPHRD_ETHER;

	meta(s, NFT_META_IIFTYPE, NFT_REG_1);
	cmp(s, NFT_CMP_EQ, NFT_REG_1, &ether, sizeof(ether));
	family(s, v6);
	meta(s, NFT_META_IIFNAME, NFT_REG_1);
	payload(s, NFT_PAYLOAD_LL_HEADER, 6, 6, NFT_REG_2);
	saddr(s, v6, NFT_REG32_06);
	lookup(s, NFT_REG_1, v6 ? SET_BOUND6 : SET_BOUND4, NO_DREG, 0);
}

/* meta mark set ip saddr (daddr) map @segment: the rule ends if there is no such device. */
static void is_device(struct nft_ruleset *s, bool v6, bool dst)
{
	family(s, v6);
	if (dst)
		daddr(s, v6, NFT_REG_1);
	else
		saddr(s, v6, NFT_REG_1);
	lookup(s, NFT_REG_1, v6 ? MAP_SEGMENT6 : MAP_SEGMENT4, NFT_REG_1, 0);
	meta_set(s, NFT_META_MARK, NFT_REG_1);
}

/* Who opened it, towards whom, what for: never this packet's own addresses, so that answers and ICMP errors are judged
 * as the flow that they belong to. A ct expression ends the rule if the packet belongs to none.
 * The two ids pass through the packet's mark and priority, though registers could hold them: of a map's result in a
 * concatenated key, nft 1.0.6 does not know the length, and dies on listing the table. */
static void judge(struct nft_ruleset *s, bool v6, const char *from, const char *to,
		  const char *text)
{
	rule(s, "decide");
	comment(s, text);
	ct(s, v6 ? NFT_CT_SRC_IP6 : NFT_CT_SRC_IP, 0, NFT_REG_1);
	lookup(s, NFT_REG_1, from, NFT_REG_1, 0);
	meta_set(s, NFT_META_MARK, NFT_REG_1);
	ct(s, v6 ? NFT_CT_DST_IP6 : NFT_CT_DST_IP, 0, NFT_REG_1);
	lookup(s, NFT_REG_1, to, NFT_REG_1, 0);
	meta_set(s, NFT_META_PRIORITY, NFT_REG_1);
	meta(s, NFT_META_MARK, NFT_REG_1);
	meta(s, NFT_META_PRIORITY, NFT_REG32_01);
	ct(s, NFT_CT_PROTOCOL, -1, NFT_REG32_02);
	ct(s, NFT_CT_PROTO_DST, 0, NFT_REG32_03);
	lookup(s, NFT_REG_1, MAP_POLICY, NFT_REG_VERDICT, 0);
}

/* What decide let pass has its ids in mark and priority still. The rule ends if there is no limit, or it is kept. */
static void over_rate(struct nft_ruleset *s, const char *map, const char *text)
{
	struct nftnl_expr *e;

	rule(s, CHAIN_PASS);
	comment(s, text);
	meta(s, NFT_META_MARK, NFT_REG_1);
	meta(s, NFT_META_PRIORITY, NFT_REG32_01);
	ct(s, NFT_CT_PROTOCOL, -1, NFT_REG32_02);
	ct(s, NFT_CT_PROTO_DST, 0, NFT_REG32_03);
	e = expr(s, "objref");
	u32(e, NFTNL_EXPR_OBJREF_SET_SREG, NFT_REG_1);
	if (e != NULL)
		nftnl_expr_set_str(e, NFTNL_EXPR_OBJREF_SET_NAME, map);
	drop(s, "rate");
}

/* ---- chains ---- */

static void rules_guard(struct nft_ruleset *s)
{
	char lo[IFNAMSIZ] = "lo";

	rule(s, "guard");
	iif_in(s, SET_RAW);
	drop(s, "raw");
	rule(s, "guard");
	iif_in(s, SET_DEVICE);
	verdict(s, NFT_GOTO, "from_device");
	rule(s, "guard");
	meta(s, NFT_META_IIFNAME, NFT_REG_1);
	cmp(s, NFT_CMP_EQ, NFT_REG_1, lo, sizeof(lo));
	verdict(s, NF_ACCEPT, NULL);
	for (int v6 = 0; v6 <= 1; v6++) {
		rule(s, "guard");
		is_device(s, v6, false);
		comment(s, "a device's address, and not from the device side");
		drop(s, "spoofed");
	}

	for (int v6 = 0; v6 <= 1; v6++) {
		rule(s, "from_device");
		is_bound(s, v6);
		verdict(s, NF_ACCEPT, NULL);
	}
	for (int v6 = 0; v6 <= 1; v6++) {
		rule(s, "from_device");
		is_device(s, v6, false);
		comment(s, "a device's address from elsewhere than its binding");
		drop(s, "spoofed");
	}
	rule(s, "from_device");
	struct nftnl_expr *e = expr(s, "fib");
	u32(e, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
	u32(e, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
	u32(e, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
	lookup(s, NFT_REG_1, SET_HERE, NO_DREG, 0);
	verdict(s, NF_ACCEPT, NULL);
	rule(s, "from_device");
	drop(s, "stranger");
}

static void rules_forward(struct nft_ruleset *s)
{
	static const char *const maps[2][2] = {{MAP_SEGMENT4, MAP_NETWORK4},
					       {MAP_SEGMENT6, MAP_NETWORK6}};
	static const char *const texts[] = {"device to device", "device to network",
					    "network to device", "network to network"};

	rule(s, "forward");
	iif_in(s, SET_DEVICE);
	verdict(s, NFT_JUMP, "bound_only");
	rule(s, "forward");
	meta(s, NFT_META_OIFNAME, NFT_REG_1);
	lookup(s, NFT_REG_1, SET_DEVICE, NO_DREG, 0);
	verdict(s, NFT_JUMP, "known_only");
	rule(s, "forward");
	verdict(s, NFT_GOTO, "decide");

	for (int v6 = 0; v6 <= 1; v6++) {
		rule(s, "bound_only");
		is_bound(s, v6);
		verdict(s, NFT_RETURN, NULL);
	}
	rule(s, "bound_only");
	drop(s, "stranger");

	/* Who is revoked is no destination either, though some network may have the address. */
	for (int v6 = 0; v6 <= 1; v6++) {
		rule(s, "known_only");
		is_device(s, v6, true);
		verdict(s, NFT_RETURN, NULL);
	}
	rule(s, "known_only");
	drop(s, "no_segment");

	rule(s, "decide");
	meta(s, NFT_META_NFPROTO, NFT_REG_1);
	lookup(s, NFT_REG_1, SET_ALIVE, NO_DREG, NFT_LOOKUP_F_INV);
	drop(s, "no_lease");
	rule(s, "decide");
	ct(s, NFT_CT_STATE, -1, NFT_REG_1);
	any_bit(s, NFT_REG_1, 1); /* NF_CT_STATE_INVALID_BIT of the kernel */
	drop(s, "invalid");
	/* The original direction names an address that the packet does not go to: not what rules are about. */
	rule(s, "decide");
	ct(s, NFT_CT_STATUS, -1, NFT_REG_1);
	any_bit(s, NFT_REG_1, IPS_DST_NAT);
	drop(s, "translated");
	/* A device first, by its segment, else a network: the catch-all of the policy map ends the search, so that a
	 * device is never judged by a network that its address lies in. */
	for (int v6 = 0; v6 <= 1; v6++)
		for (int i = 0; i < 4; i++)
			judge(s, v6, maps[v6][i >> 1], maps[v6][i & 1], texts[i]);
	rule(s, "decide");
	drop(s, "no_segment");

	over_rate(s, MAP_RATES, "bytes of a rule with a rate");
	over_rate(s, MAP_PACKET_RATES, "packets of a rule with a rate");
	rule(s, CHAIN_PASS);
	clear(s, NFT_META_MARK);
	clear(s, NFT_META_PRIORITY);
	count(s, "forwarded");
	verdict(s, NF_ACCEPT, NULL);
	rule(s, CHAIN_REFUSE);
	drop(s, "denied");
}

static void icmp(struct nft_ruleset *s, bool v6)
{
	uint8_t proto = v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;

	rule(s, "to_box");
	family(s, v6);
	meta(s, NFT_META_L4PROTO, NFT_REG_1);
	cmp(s, NFT_CMP_EQ, NFT_REG_1, &proto, 1);
	payload(s, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, NFT_REG_1);
	lookup(s, NFT_REG_1, v6 ? SET_ICMP6 : SET_ICMP4, NO_DREG, 0);
	verdict(s, NFT_GOTO, "box");
}

/* Is it for a listener in this set? */
static void for_listener(struct nft_ruleset *s, bool v6, const char *set)
{
	uint32_t proto = v6 ? NFT_REG_2 : NFT_REG32_01;

	family(s, v6);
	daddr(s, v6, NFT_REG_1);
	meta(s, NFT_META_L4PROTO, proto);
	payload(s, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, v6 ? NFT_REG32_05 : NFT_REG32_02);
	lookup(s, NFT_REG_1, set, NO_DREG, 0);
}

static void rules_input(struct nft_ruleset *s)
{
	uint8_t reply = IP_CT_DIR_REPLY;

	for (int v6 = 0; v6 <= 1; v6++) {
		rule(s, "input");
		for_listener(s, v6, v6 ? SET_STACK6 : SET_STACK4);
		comment(s, "an answer of the kernel would end a connection that is not its own");
		drop(s, "stack");
	}
	rule(s, "input");
	iif_in(s, SET_DEVICE);
	verdict(s, NFT_GOTO, "to_box");

	for (int v6 = 0; v6 <= 1; v6++)
		icmp(s, v6);
	for (int v6 = 0; v6 <= 1; v6++) {
		rule(s, "to_box");
		for_listener(s, v6, v6 ? SET_LISTENERS6 : SET_LISTENERS4);
		verdict(s, NFT_GOTO, "box");
	}
	rule(s, "to_box");
	meta(s, NFT_META_L4PROTO, NFT_REG_1);
	payload(s, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG32_01);
	lookup(s, NFT_REG_1, SET_SERVICES, NO_DREG, 0);
	verdict(s, NFT_GOTO, "box");
	rule(s, "to_box");
	comment(s, "answers to what the box itself asked");
	ct(s, NFT_CT_DIRECTION, -1, NFT_REG_1);
	cmp(s, NFT_CMP_EQ, NFT_REG_1, &reply, 1);
	ct(s, NFT_CT_STATE, -1, NFT_REG_1);
	any_bit(s, NFT_REG_1, 2 | 4); /* established, related */
	verdict(s, NFT_GOTO, "box");
	for (int v6 = 0; v6 <= 1; v6++) {
		rule(s, "to_box");
		is_bound(s, v6);
		verdict(s, NFT_GOTO, "decide");
	}
	rule(s, "to_box");
	drop(s, "stranger");

	rule(s, "box");
	count(s, "to_box");
	verdict(s, NF_ACCEPT, NULL);
}

void ruleset_fini(struct nft_ruleset *s)
{
	for (unsigned i = 0; i < s->n; i++)
		nftnl_rule_free(s->rules[i]);
	s->n = 0;
}

int ruleset_init(struct nft_ruleset *s)
{
	memset(s, 0, sizeof(*s));
	rules_guard(s);
	rules_forward(s);
	rules_input(s);
	if (!s->failed)
		return 0;
	ruleset_fini(s);
	return -ENOMEM;
}
