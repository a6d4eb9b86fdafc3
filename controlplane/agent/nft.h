/* SPDX-License-Identifier: GPL-3.0-or-later */
/* nft: the kernel plane: table `inet sallyport`, which holds the same segments as the dataplane.
 *
 * Everything that does not go port to port by the fast path meets this table: fragments, ICMP errors, first packets
 * to an unresolved neighbour, kernel-only ports, and all traffic when the dataplane is dead. The number of rules is
 * constant; devices, segments, networks, rules of the policy and interfaces are elements of sets and maps.
 *
 * What holds with every process dead: frames on a raw interface are dropped; the forward chain drops unless
 * nft_heartbeat() came within its lease; a device's elements die with its standing. Established connections have no
 * privilege: each packet's original direction is judged anew, so a deleted element stops both directions.
 *
 * Single-threaded: all calls from one thread. Calls wait for the kernel's answer and for nothing else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/addr.h"
#include "config/base/err.h"
#include "config/base/policy.h"
#include "config/gateway.h"

#define NFT_TABLE "sallyport"
#define NFT_IFNAME_BYTES 16

struct nft;

/* A device's address and where it must come from. */
struct nft_binding {
	struct ip_addr ip; /* the key: one binding an address */
	struct mac_addr mac;
	char ifname[NFT_IFNAME_BYTES]; /* kernel interface: ports_ifname() of netlink.h */
	uint16_t segment; /* endpoint id in force, 1..POLICY_ID_MAX */
	uint64_t
		expires_ms; /* boot clock: trust expiry; the kernel forgets it then; CLOCK_NEVER_MS: no timeout */
};

enum nft_found {
	NFT_FOUND_NONE, /* no table: installed, shut */
	NFT_FOUND_INTACT, /* our table, rules as they should be: kept in force, flows undisturbed */
	NFT_FOUND_FOREIGN, /* other version, or its rules were changed while nobody watched: replaced, shut */
};

/**
 * Open the sockets, and install the table, shut, unless an intact one of this layout is in force. The sets that follow
 * from cfg (interfaces, listeners, what strangers may reach) are brought up to date either way, in one transaction.
 * Then put the policy and all bindings (nft_put_all_bindings): until then nothing is known of an earlier process's
 * elements.
 * @param cfg    borrowed, outlives the object
 * @param found  may be NULL
 * @return 0 or -errno, the kernel's reason in err
 */
int nft_new(struct nft **out, const struct gw_config *cfg, enum nft_found *found, struct err *err);
void nft_free(struct nft *n); /* leaves the table in force, under its timeouts; NULL is a no-op */

/** Bring the sets that follow from cfg up to date once more, after its ports have changed. @return 0 or -errno */
int nft_put_interfaces(struct nft *n, struct err *err);

/* ---- one change = one atomic transaction; what is not committed has no effect ---- */

int nft_begin(struct nft *n); /* 0, or -EBUSY if one is open */

/** Replace networks and verdicts. The form was checked (policy_form_check) and is copied. @return 0 or -ENOMEM */
int nft_put_policy(struct nft *n, const struct policy_form *form);

/** Add or replace, also to move only the expiry; in the past: as nft_del_binding. The last call for an address wins.
 * @return 0, -EINVAL (segment, interface name), -ENOMEM */
int nft_put_binding(struct nft *n, const struct nft_binding *b);
int nft_del_binding(struct nft *n,
		    const struct ip_addr *ip); /* unknown address: nothing to do. 0 or -ENOMEM */

/** All bindings, those of an earlier process too, are replaced by these. @return as nft_put_binding */
int nft_put_all_bindings(struct nft *n, const struct nft_binding *b, uint32_t count);

/**
 * Put it in force, all or nothing. Closes the transaction either way; on error the old state stays in force.
 * O(what changed). @return 0, or the kernel's -errno with the object that it refused in err
 */
int nft_commit(struct nft *n, struct err *err);
void nft_abort(struct nft *n); /* no transaction open: a no-op */

/* ---- lease ---- */

/** Let the kernel path forward for lease_s seconds from now; 0 shuts it at once. Its own transaction, also while
 * another is being prepared. @return 0 or -errno */
int nft_heartbeat(struct nft *n, uint32_t lease_s, struct err *err);

/* ---- guard ---- */

struct nft_tamper {
	bool happened; /* somebody else touched our table, or so much was missed that it may be */
	uint32_t pid; /* who; 0 = not known */
	char process[32]; /* printable; "" = not known */
	char what[64]; /* e.g. "deleted rule in chain forward" */
};

int nft_fd(const struct nft *n); /* poll for reading, then nft_dispatch() */

/** Read the notifications. Own changes and other tables never count. @return 0 or -errno (socket is broken) */
int nft_dispatch(struct nft *n, struct nft_tamper *t);

/** Are table, chains and rules exactly those that this version installs? (Elements are not compared.)
 * @return 0; -ESTALE with the difference in err; or -errno */
int nft_verify(struct nft *n, struct err *err);

/**
 * Replace the whole table, in one transaction, by what was last committed here: rules, policy, bindings, and the
 * lease if it still runs. Counters start at 0. An open transaction stays open and uncommitted. @return as nft_commit
 */
int nft_restore(struct nft *n, struct err *err);

/* ---- counters ---- */

/** Calls cb for every named counter: forwarded, denied, no_segment, no_lease, invalid, raw, spoofed, stranger,
 * translated, to_box, rate. @return 0 or -errno */
int nft_counters(struct nft *n,
		 void (*cb)(void *arg, const char *name, uint64_t packets, uint64_t bytes),
		 void *arg);
