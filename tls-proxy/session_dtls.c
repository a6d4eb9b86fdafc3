/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/session_dtls.h"

#include <errno.h>
/* Which record is the newest is in no public call; the library is linked statically from the pinned version, whose
 * private header session_fetch.c includes beside this file. */
#include <wolfssl/internal.h>

int session_dtls_open_door(struct session *s, const uint8_t *secret, const uint8_t *cid)
{
	WOLFSSL *ssl = session_library(s);
	unsigned char id[DTLS_CID_BYTES];

	memcpy(id, cid, sizeof(id));
	if (wolfSSL_DTLS_SetCookieSecret(ssl, secret, DTLS_SECRET_BYTES) != 0 ||
	    wolfSSL_send_hrr_cookie(ssl, secret, DTLS_SECRET_BYTES) != WOLFSSL_SUCCESS ||
	    wolfSSL_dtls13_allow_ch_frag(ssl, 1) != WOLFSSL_SUCCESS ||
	    wolfSSL_dtls_cid_use(ssl) != WOLFSSL_SUCCESS ||
	    wolfSSL_dtls_cid_set(ssl, id, sizeof(id)) != WOLFSSL_SUCCESS)
		return -ENOMEM;
	return 0;
}

enum knock session_dtls_knock(struct session *s, const void *peer, size_t peer_bytes,
			      const uint8_t *record, size_t bytes)
{
	WOLFSSL *ssl = session_library(s);

	if (wolfSSL_dtls_set_peer(ssl, (void *)peer, peer_bytes) != WOLFSSL_SUCCESS ||
	    session_room(s) < bytes)
		return KNOCK_BROKEN;
	session_feed(s, record, bytes);
	switch (wolfDTLS_accept_stateless(ssl)) {
	case WOLFSSL_SUCCESS:
		return KNOCK_PROVED;
	case WOLFSSL_FAILURE:
		return KNOCK_ANSWERED;
	default:
		return KNOCK_BROKEN;
	}
}

bool session_dtls_has_cid(const struct session *s)
{
	return wolfSSL_dtls_cid_is_enabled(session_library(s)) != 0;
}

uint32_t session_dtls_timeout_ms(const struct session *s)
{
	WOLFSSL *ssl = session_library(s);
	uint32_t ms = wolfSSL_dtls_get_current_timeout(ssl) * 1000u;

	return wolfSSL_dtls13_use_quick_timeout(ssl) ? ms / 4 : ms;
}

int session_dtls_timed_out(struct session *s)
{
	return wolfSSL_dtls_got_timeout(session_library(s)) == WOLFSSL_SUCCESS ? 0 : -ETIMEDOUT;
}

static uint64_t joined(uint32_t high, uint32_t low)
{
	return (uint64_t)high << 32 | low;
}

struct dtls_newest session_dtls_newest(const struct session *s)
{
	WOLFSSL *ssl = session_library(s);
	const WOLFSSL_DTLS_PEERSEQ *seq = &ssl->keys.peerSeq[0];

	if (ssl->version.minor != DTLSv1_3_MINOR)
		return (struct dtls_newest){seq->nextEpoch,
					    joined(seq->nextSeq_hi, seq->nextSeq_lo)};
	for (int i = 0; i < DTLS13_EPOCH_SIZE; i++) {
		const Dtls13Epoch *e = &ssl->dtls13Epochs[i];

		if (e->isValid && e->epochNumber.n == ssl->dtls13PeerEpoch.n)
			return (struct dtls_newest){e->epochNumber.n, e->nextPeerSeqNumber.n};
	}
	return (struct dtls_newest){0, 0};
}
