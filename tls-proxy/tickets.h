/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tickets: what a listener keeps of sessions that may be resumed (RFC 8446 section 4.6.1).
 *
 * A ticket that a device gets names an entry here and holds the library's own state, sealed with a key that is in that
 * entry alone. So a ticket is good once, at this worker and listener, until its time is over; what is forgotten here opens
 * nothing any more, whoever recorded it; and what must be checked again lies here, however large, not in the ticket.
 * The number of entries is bounded: the oldest gives its place. Forgetting one costs a device a whole handshake, no more.
 * The listener's thread; no clock, times are arguments. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "tls-proxy/peer.h"

#define TICKET_NAME_BYTES 16
#define TICKET_IV_BYTES 16
#define TICKET_MAC_BYTES 32
#define TICKET_KEY_BYTES 32
#define TICKET_LINKS_MAX                                                                           \
	200 /* the library numbers those of a chain, by one byte, RFC 8446 section 4.6.1 */

struct tickets;

struct ticket {
	uint32_t held;
	uint8_t links; /* tickets before it, since the last whole handshake */
	bool listed; /* in the table: not used yet, not forgotten */
	TAILQ_ENTRY(ticket) age;
	LIST_ENTRY(ticket) named;
	uint8_t name[TICKET_NAME_BYTES], key[TICKET_KEY_BYTES];
	uint64_t
		until_ms; /* boot clock: good for so long after the device has last shown its key */
	const void *home; /* of which of our certificates */
	struct peer peer;
	char asked[]; /* server name; "": none */
};

/** @param max  entries. @return 0 or -ENOMEM */
int tickets_new(struct tickets **out, uint32_t max, uint32_t life_s);
struct tickets *tickets_hold(struct tickets *t); /* @return t, held once more; NULL is a no-op */
void tickets_drop(struct tickets *t); /* the last one forgets all and frees it; NULL is a no-op */

/** A ticket for whom `peer` is, not in the table yet. @param asked  NULL: no server name. @return NULL: no memory */
struct ticket *ticket_new(const struct peer *peer, const char *asked, const void *home,
			  uint64_t until_ms);
void ticket_drop(struct ticket *k); /* the last one wipes and frees it; NULL is a no-op */

/** Seal the library's state in place, under a new name, and list the ticket. @return 0 or -EIO */
int tickets_seal(struct tickets *t, struct ticket *k, uint8_t name[static TICKET_NAME_BYTES],
		 uint8_t iv[static TICKET_IV_BYTES], uint8_t mac[static TICKET_MAC_BYTES],
		 uint8_t *text, size_t bytes);

/** Find and open in place what a stranger sent. It stays listed.
 * @return held: ticket_drop(). NULL: not of ours, used, over, forged, of another of our certificates or server names */
struct ticket *tickets_open(struct tickets *t, const uint8_t name[static TICKET_NAME_BYTES],
			    const uint8_t iv[static TICKET_IV_BYTES],
			    const uint8_t mac[static TICKET_MAC_BYTES], uint8_t *text, size_t bytes,
			    const void *home, const char *asked, uint64_t now_ms);

/** Use it up. @return false: it was used, or forgotten, meanwhile */
bool tickets_spend(struct tickets *t, struct ticket *k);

void tickets_expire(struct tickets *t, uint64_t now_ms); /* forget the oldest whose time is over */
uint32_t tickets_life_s(const struct tickets *t);
uint32_t tickets_count(const struct tickets *t);
