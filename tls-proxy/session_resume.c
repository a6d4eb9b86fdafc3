/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sessions that go on from an earlier one's keys: TLS 1.3 with a fresh key exchange (psk_dhe_ke), no early data. The
 * library takes a good ticket for proof enough. Here it is not: what the certificate's chain said is asked again before the
 * ticket is taken, and conn.c asks lists, CAs and agent for who it then is, as after any handshake. Whatever is in doubt
 * is answered as if no ticket had come: by a whole handshake. */
#include "tls-proxy/session_internal.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "config/base/clock.h"

static bool is_tls13(const struct session *s)
{
	return !s->datagrams && strcmp(session_version(s), "TLSv1.3") == 0;
}

static bool valid_now(const struct identity *id)
{
	uint64_t now_s = time(NULL);

	return now_s >= id->not_before_s && now_s < id->not_after_s;
}

/* One ticket a handshake, however many are offered: whose it was is known when the library has chosen. */
static bool take(struct session *s, const uint8_t *name, const uint8_t *iv, const uint8_t *mac,
		 uint8_t *text, size_t bytes)
{
	struct ticket *k;

	if (s->client || s->state != SESSION_HANDSHAKE || s->cert == NULL ||
	    s->cert->tickets == NULL || !is_tls13(s))
		return false;
	k = tickets_open(s->cert->tickets, name, iv, mac, text, bytes, s->cert, s->asked,
			 clock_boot_ms());
	if (k == NULL)
		return false;
	if ((s->ticket != NULL && s->ticket != k) || !valid_now(&k->peer.id) ||
	    peer_check_again(&k->peer, s->revoked) != REVOKED_GOOD) {
		ticket_drop(k);
		return false;
	}
	ticket_drop(s->ticket); /* the same: a second hello */
	s->ticket = k;
	return true;
}

static int on_ticket(WOLFSSL *ssl, unsigned char *name, unsigned char *iv, unsigned char *mac,
		     int seal, unsigned char *text, int bytes, int *out_bytes, void *arg)
{
	struct session *s = wolfSSL_GetIOReadCtx(ssl);

	(void)arg;
	*out_bytes = bytes;
	if (s == NULL || bytes <= 0)
		return WOLFSSL_TICKET_RET_REJECT;
	if (!seal)
		return take(s, name, iv, mac, text, bytes) ? WOLFSSL_TICKET_RET_OK
							   : WOLFSSL_TICKET_RET_REJECT;
	if (s->cert == NULL || s->cert->tickets == NULL || s->ticket == NULL ||
	    tickets_seal(s->cert->tickets, s->ticket, name, iv, mac, text, bytes) < 0)
		return WOLFSSL_TICKET_RET_FATAL;
	return WOLFSSL_TICKET_RET_OK;
}

int session_tickets_serve(WOLFSSL_CTX *ctx, uint32_t life_s)
{
	return wolfSSL_CTX_set_TicketEncCb(ctx, on_ticket) == WOLFSSL_SUCCESS &&
			       wolfSSL_CTX_set_timeout(ctx, life_s) == WOLFSSL_SUCCESS &&
			       wolfSSL_CTX_only_dhe_psk(ctx) == 0
		       ? 0
		       : -EIO;
}

void session_tickets_show(struct session *s, bool show)
{
	if (s->cert->tickets != NULL)
		wolfSSL_CTX_set_TicketEncCb(s->cert->wolf, show ? on_ticket : NULL);
}

void session_resume_settle(struct session *s)
{
	if (!wolfSSL_session_reused(s->ssl)) {
		ticket_drop(s->ticket);
		s->ticket = NULL;
		return;
	}
	/* Without a certificate in this handshake nobody is identified but by a ticket of ours. */
	s->identified = false;
	if (s->ticket == NULL || !is_tls13(s)) {
		session_reason_set(s, "resumed without a ticket");
	} else if (!tickets_spend(s->cert->tickets, s->ticket)) {
		session_reason_set(s, "its ticket was used by another connection");
	} else {
		peer_drop(&s->peer);
		if (peer_copy(&s->peer, &s->ticket->peer) < 0)
			session_reason_set(s, "out of memory");
		else
			s->identified = s->resumed = true;
	}
}

/* How long the next one is good: a chain of them is no older than one ticket. */
static uint64_t until(const struct session *s, uint64_t now_ms)
{
	return s->ticket != NULL ? s->ticket->until_ms
				 : now_ms + tickets_life_s(s->cert->tickets) * 1000ull;
}

static int give(struct session *s)
{
	uint64_t now_ms = clock_boot_ms(), until_ms = until(s, now_ms);
	uint8_t links = s->ticket != NULL ? s->ticket->links + 1 : 0;
	uint64_t left_s = until_ms > now_ms ? (until_ms - now_ms) / 1000 : 0;
	struct ticket *k;

	/* None that would be good for longer than the certificate. */
	if (left_s == 0 || links > TICKET_LINKS_MAX ||
	    (uint64_t)time(NULL) + left_s >= s->peer.id.not_after_s)
		return 0;
	k = ticket_new(&s->peer, s->asked, s->cert, until_ms);
	if (k == NULL)
		return 0;
	k->links = links;
	ticket_drop(s->ticket);
	s->ticket = k;
	wolfSSL_CTX_set_TicketHint(s->cert->wolf, left_s);
	return wolfSSL_send_SessionTicket(s->ssl) == WOLFSSL_SUCCESS ? 0 : -EIO;
}

void session_ticket_give(struct session *s)
{
	if (s->cert == NULL || s->state != SESSION_OPEN)
		return;
	if (s->cert->tickets != NULL && is_tls13(s) && !s->shut && give(s) < 0) {
		session_reason_set(s, "the library cannot write a ticket");
		s->state = SESSION_FAILED;
	}
	session_records_settle(s);
	ticket_drop(s->ticket);
	s->ticket = NULL;
	tls_cert_drop(s->cert);
	s->cert = NULL;
}

bool session_resumed(const struct session *s)
{
	return s->resumed;
}
