/* SPDX-License-Identifier: GPL-3.0-or-later */
/* nft_internal: what the files nft*.c share and nobody else sees.
 * nft_io: messages and sockets; nft_rules and nft_layout: what stands; nft_elems and nft_rates: what fills the sets;
 * nft_watch: guard and counters. */
#pragma once

#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <stddef.h>

#include "controlplane/agent/nft.h"

#define NFT_READ_BYTES 65536 /* the kernel fills packets of at most half of it */
#define NFT_LAYOUT "sallyport layout 3" /* the table's comment; another text is another version */

/* Names that files share; none is a keyword of nft, for engineers type them. */
#define SET_ALIVE "alive"
#define SET_RAW "raw_ifs"
#define SET_DEVICE "device_ifs"
#define SET_HERE "here"
#define SET_LISTENERS4 "listeners4"
#define SET_LISTENERS6 "listeners6"
#define SET_STACK4 "stack4"
#define SET_STACK6 "stack6"
#define SET_SERVICES "services"
#define SET_ICMP4 "icmp4"
#define SET_ICMP6 "icmp6"
#define SET_BOUND4 "bound4"
#define SET_BOUND6 "bound6"
#define MAP_SEGMENT4 "segment4"
#define MAP_SEGMENT6 "segment6"
#define MAP_NETWORK4 "network4"
#define MAP_NETWORK6 "network6"
#define MAP_POLICY "verdicts"
#define MAP_RATES "rates"
#define MAP_PACKET_RATES "packet_rates"
#define CHAIN_PASS "pass"
#define CHAIN_REFUSE "refuse"

/* ---- nft_io ---- */

/* A growing batch of netlink messages. A message is built in scratch and then appended, so that libnftnl, which does not
 * check for room, always has enough; want of memory sticks in ret until the batch is sent. */
struct nft_batch {
	uint8_t *data;
	size_t len, cap;
	size_t last; /* offset of the last message that is not begin or end */
	uint32_t seq;
	int ret;
	uint8_t *scratch;
	struct nlmsghdr *open;
};

int batch_init(struct nft_batch *b);
void batch_fini(struct nft_batch *b);
void batch_begin(struct nft_batch *b, uint32_t *seq);
struct nlmsghdr *batch_msg(struct nft_batch *b, uint16_t cmd, uint16_t family, uint16_t flags);
void batch_push(struct nft_batch *b); /* append the message from batch_msg() */

/** Close and send the batch; wait for the verdict. @return 0 or the kernel's -errno */
int batch_send(struct nft_batch *b, struct mnl_socket *sock, struct err *err);

/** One request, every answer to cb (as of mnl). @return 0; -EINTR: the rule set changed meanwhile, ask again; -errno */
int nft_query(struct mnl_socket *sock, struct nlmsghdr *req, mnl_cb_t cb, void *arg);

/* One element of a set or map. */
struct nft_elem {
	const void *key,
		*key_end; /* key_end NULL: a single key (or rbtree bound); key NULL: the catch-all */
	const void *data; /* value of a map */
	const char *chain; /* or: goto this chain */
	const char *object; /* or: this object */
	uint64_t timeout_ms; /* 0: none */
	uint16_t key_bytes, data_bytes;
	uint32_t flags; /* NFT_SET_ELEM_* */
};

/* Writer of elements of one set, over as many messages as it needs. */
struct nft_elems {
	struct nft_batch *b;
	const char *set;
	uint16_t cmd;
	struct nlmsghdr *nlh;
	struct nlattr *list;
};

void elems_begin(struct nft_elems *e, struct nft_batch *b, uint16_t cmd, const char *set);
void elems_put(struct nft_elems *e, const struct nft_elem *el);
void elems_end(struct nft_elems *e);
void elems_flush(struct nft_batch *b, const char *set); /* delete all */

/* ---- nft_rules ---- */

struct nftnl_rule;

#define NFT_RULES_MAX 64

struct nft_ruleset {
	struct nftnl_rule *rules[NFT_RULES_MAX]; /* in order within each chain */
	unsigned n;
	bool failed; /* no memory */
};

int ruleset_init(struct nft_ruleset *s); /* all rules; 0 or -ENOMEM */
void ruleset_fini(struct nft_ruleset *s);

/* ---- nft_layout ---- */

void rules_put_table(
	struct nft_batch
		*b); /* add table, sets, maps, counters, chains, rules: a table that is shut */
void rules_drop_table(struct nft_batch *b); /* whether it exists or not */

/** @return 0, -ENOENT (no table), -ESTALE (with the difference in err), or -errno */
int rules_verify(struct mnl_socket *sock, struct err *err);

/* ---- nft_elems ---- */

struct nft_bind {
	struct nft_bind *next; /* of the hash chain */
	struct nft_bind *next_staged;
	struct nft_binding cur, want;
	bool in_force; /* cur was committed */
	enum { STAGED_NO, STAGED_PUT, STAGED_DEL } staged;
};

void elems_put_config(struct nft_batch *b,
		      const struct gw_config *cfg); /* flushes these sets first */
/* An entry as the maps have it, from . to . protocol . ports; in the order of its bytes. */
struct nft_verdict_key {
	uint8_t lo[16], hi[16];
};

/** The next allowed entry from *i on, which moves past it; f may be NULL. @return false at the end */
bool elems_next_allowed(const struct policy_form *f, uint32_t *i, struct nft_verdict_key *out);

/** f NULL: refuse everything; prev: what is in force now, NULL if that is not known. */
void elems_put_policy(struct nft_batch *b, const struct policy_form *f,
		      const struct policy_form *prev);
void elems_put_lease(struct nft_batch *b, uint64_t ms); /* 0: shut */
/** The changes of the staged list. `fresh`: the sets are (being made) empty, what is in force is not in them. */
void elems_put_staged(struct nft_batch *b, struct nft_bind *const *staged, size_t count, bool fresh,
		      uint64_t now_ms);
void elems_flush_bindings(struct nft_batch *b);

/* ---- nft_rates ---- */

/** Objects and maps of the rules' rates; arguments as elems_put_policy(). */
void rates_put_policy(struct nft_batch *b, const struct policy_form *f,
		      const struct policy_form *prev);

/* ---- the object ---- */

#define NFT_HASH_BITS 17
#define NFT_HASH_SIZE (1u << NFT_HASH_BITS)

struct nft {
	const struct gw_config *cfg;
	struct mnl_socket *sock; /* requests */
	struct mnl_socket
		*watch; /* notifications of others: own ones are filtered out in the kernel */
	struct nft_batch batch;
	uint32_t seq;
	uint64_t lease_until_ms; /* boot clock */
	struct policy_form *form; /* in force; NULL = none yet */
	struct nft_bind **hash; /* NFT_HASH_SIZE */
	size_t n_binds;
	/* open transaction */
	bool open;
	bool all; /* put_all: flush first */
	struct policy_form *form_next;
	struct nft_bind *staged; /* list */
	size_t n_staged;
	/* guard: a foreign transaction whose end (NEWGEN, with the name) has not been read yet */
	bool touched;
	char what[64];
};

int watch_open(struct nft *n, struct err *err);
