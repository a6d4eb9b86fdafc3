/* SPDX-License-Identifier: GPL-3.0-or-later */
/* session_record: a record of data of an open TLS 1.3 session costs the library about twice what its cipher costs, and touches
 * many more lines of memory (bench/session_cost). So a plain one, whole and under AES-GCM, is opened and sealed here (RFC 8446
 * section 5.2), with the library's own keys and counters: it may take over at any record. All else is its business: alerts,
 * changes of keys, empty records, what does not authenticate, other ciphers and versions. Nothing is taken from the wire
 * before a record was opened. */
#include "tls-proxy/session_internal.h"

#include <errno.h>
#include <string.h>
/* Where the library keeps keys and counters; linked statically from the pinned version. */
#include <wolfssl/internal.h>
#include <wolfssl/wolfcrypt/aes.h>

#include "tls-proxy/stream.h"

#define HEADER_BYTES 5
#define TAG_BYTES 16
#define NONCE_BYTES 12
#define CONTENT_MAX (16 * 1024)
#define SEALED_MAX (CONTENT_MAX + 1 + TAG_BYTES) /* data, type, padding: RFC 8446 section 5.4 */
#define SEALS_MAX                                                                                  \
	0x016a09e6 /* 2^24.5 records with one key, RFC 8446 section 5.5: then the library changes it */

enum { CONTENT_DATA = 23 }; /* RFC 8446 section 5.1 */

/* Sealed bytes alone, and what is to be sealed in its place. */
static struct {
	uint8_t opening[HEADER_BYTES + SEALED_MAX], sealing[HEADER_BYTES + SEALED_MAX];
} scratch;

static bool library_is_well(const WOLFSSL *ssl)
{
	return (ssl->error == 0 || ssl->error == WOLFSSL_ERROR_WANT_READ ||
		ssl->error == WC_NO_ERR_TRACE(WANT_READ)) &&
	       !ssl->options.isClosed && !ssl->options.connReset &&
	       ssl->pendingAlert.level == alert_none;
}

void session_records_settle(struct session *s)
{
	const WOLFSSL *ssl = s->ssl;
	bool ours = s->state == SESSION_OPEN && !s->datagrams && ssl->options.tls1_3 &&
		    ssl->specs.bulk_cipher_algorithm == wolfssl_aes_gcm &&
		    ssl->specs.aead_mac_size == TAG_BYTES && library_is_well(ssl);
	/* It is between two records. */
	bool opens = ours && !ssl->options.closeNotify && ssl->options.processReply == 0 &&
		     ssl->buffers.inputBuffer.idx == ssl->buffers.inputBuffer.length &&
		     ssl->buffers.clearOutputBuffer.length == 0;
	bool seals = ours && !s->shut && ssl->buffers.outputBuffer.length == 0 &&
		     !ssl->keys.keyUpdateRespond && !ssl->options.sendKeyUpdate;

	s->opens = opens ? ssl->decrypt.aes : NULL;
	s->seals = seals ? ssl->encrypt.aes : NULL;
}

static void nonce_make(uint8_t nonce[NONCE_BYTES], const uint8_t *iv, uint32_t hi, uint32_t lo)
{
	uint32_t low[2] = {__builtin_bswap32(hi), __builtin_bswap32(lo)};
	const uint8_t *seq = (const uint8_t *)low;

	memcpy(nonce, iv, NONCE_BYTES);
	for (int i = 0; i < 8; i++)
		nonce[NONCE_BYTES - 8 + i] ^= seq[i];
}

/* ---- opening ---------------------------------------------------------------------------------- */

/* @return bytes of the record behind its header; 0: none of ours */
static size_t sealed_bytes(const uint8_t *header)
{
	size_t n = header[3] << 8 | header[4];

	return header[0] == CONTENT_DATA && header[1] == 3 && header[2] == 3 && n > TAG_BYTES &&
			       n <= SEALED_MAX
		       ? n
		       : 0;
}

/* What the peer wrote: data, its type, zeros. @return bytes of data, 0: something else, or nothing */
static size_t data_bytes(const uint8_t *inner, size_t n)
{
	while (n > 0 && inner[n - 1] == 0)
		n--;
	return n > 1 && n - 1 <= CONTENT_MAX && inner[n - 1] == CONTENT_DATA ? n - 1 : 0;
}

/* @param record  whole. @return bytes of data in out, 0: the library must see it */
static size_t unseal(struct session *s, const uint8_t *record, size_t sealed, uint8_t *out)
{
	struct Keys *keys = &s->ssl->keys;
	size_t inner = sealed - TAG_BYTES, n = 0;
	const uint8_t *at = record + HEADER_BYTES;
	uint8_t nonce[NONCE_BYTES];

	nonce_make(nonce, keys->aead_dec_imp_IV, keys->peer_sequence_number_hi,
		   keys->peer_sequence_number_lo);
	if (wc_AesGcmDecrypt(s->opens, out, at, inner, nonce, NONCE_BYTES, at + inner, TAG_BYTES,
			     record, HEADER_BYTES) == 0)
		n = data_bytes(out, inner);
	if (n == 0) {
		explicit_bzero(out, inner);
		return 0;
	}
	if (++keys->peer_sequence_number_lo == 0)
		keys->peer_sequence_number_hi++;
	s->data_came = true;
	return n;
}

/* From `in`: what came before the wire was ours, or all, over a kernel's socket. */
static const uint8_t *in_view(const struct session *s, size_t bytes)
{
	return buffer_waiting(&s->in) >= bytes ? s->in.data + s->in.at : NULL;
}

static ssize_t open_in(struct session *s, uint8_t *out, size_t bytes)
{
	const uint8_t *record = in_view(s, HEADER_BYTES);
	size_t sealed, n;

	if (record != NULL) {
		sealed = sealed_bytes(record);
		if (sealed == 0 || sealed - TAG_BYTES > bytes)
			return -ENOTSUP;
		record = in_view(s, HEADER_BYTES + sealed);
	}
	if (record == NULL) /* the rest comes another way than the wire */
		return session_is_carried(s) ? -ENOTSUP : -EAGAIN;
	n = unseal(s, record, sealed, out);
	if (n == 0)
		return -ENOTSUP;
	buffer_taken(&s->in, HEADER_BYTES + sealed);
	return n;
}

static ssize_t open_wire(struct session *s, uint8_t *out, size_t bytes)
{
	const struct session_wire *w = &s->wire;
	const uint8_t *record;
	size_t sealed, n;

	if (!*w->may || !stream_is_open(w->stream))
		return -EAGAIN;
	record = stream_view(w->stream, scratch.opening, HEADER_BYTES);
	if (record != NULL) {
		sealed = sealed_bytes(record);
		if (sealed == 0 || sealed - TAG_BYTES > bytes)
			return -ENOTSUP;
		record = stream_view(w->stream, scratch.opening, HEADER_BYTES + sealed);
	}
	if (record == NULL) {
		*w->may = stream_has(w->stream);
		return *w->may ? -ENOTSUP /* the end */ : -EAGAIN;
	}
	n = unseal(s, record, sealed, out);
	if (n == 0)
		return -ENOTSUP;
	stream_taken(w->stream, HEADER_BYTES + sealed);
	*w->may = stream_has(w->stream);
	return n;
}

ssize_t session_record_open(struct session *s, uint8_t *out, size_t bytes)
{
	ssize_t n = -ENOTSUP;

	if (s->opens != NULL)
		n = buffer_waiting(&s->in) > 0 ? open_in(s, out, bytes) : open_wire(s, out, bytes);
	/* The library counts empty ones in a row. */
	if (n == -ENOTSUP && s->data_came) {
		s->ssl->options.emptyRecordCount = 0;
		s->data_came = false;
	}
	return n;
}

bool session_record_waits(const struct session *s)
{
	const uint8_t *header;
	size_t sealed;

	if (s->opens == NULL || session_is_carried(s))
		return buffer_waiting(&s->in) > 0;
	header = in_view(s, HEADER_BYTES);
	if (header == NULL)
		return false;
	sealed = sealed_bytes(header);
	return sealed == 0 || buffer_waiting(&s->in) >= HEADER_BYTES + sealed;
}

/* ---- sealing ---------------------------------------------------------------------------------- */

/* Out on the wire, and what it does not take behind what waits. @return false: no memory */
static bool record_send(struct session *s, const uint8_t *record, size_t bytes)
{
	struct stream *wire = s->wire.stream;
	ssize_t n = 0;

	if (wire != NULL && buffer_waiting(&s->out) == 0 && stream_is_open(wire))
		n = stream_send(wire, record, bytes);
	if (n < 0)
		n = 0; /* whoever sends the rest will hear of it */
	if ((size_t)n == bytes)
		return true;
	if (!buffer_hold_for(&s->out, bytes - n))
		return false;
	buffer_put(&s->out, record + n, bytes - n);
	return true;
}

ssize_t session_record_seal(struct session *s, const uint8_t *data, size_t bytes)
{
	struct Keys *keys = &s->ssl->keys;
	size_t inner = bytes + 1, sealed = inner + TAG_BYTES;
	uint8_t *record = scratch.sealing, *at = record + HEADER_BYTES, nonce[NONCE_BYTES];

	if (keys->sequence_number_hi > 0 || keys->sequence_number_lo >= SEALS_MAX)
		return -ENOTSUP;
	record[0] = CONTENT_DATA;
	record[1] = record[2] = 3;
	record[3] = sealed >> 8;
	record[4] = sealed & 0xff;
	memcpy(at, data, bytes);
	at[bytes] = CONTENT_DATA;
	nonce_make(nonce, keys->aead_enc_imp_IV, keys->sequence_number_hi,
		   keys->sequence_number_lo);
	if (wc_AesGcmEncrypt(s->seals, at, at, inner, nonce, NONCE_BYTES, at + inner, TAG_BYTES,
			     record, HEADER_BYTES) != 0) {
		explicit_bzero(at, inner);
		return -ENOTSUP;
	}
	keys->sequence_number_lo++; /* never used again, whatever becomes of the record */
	return record_send(s, record, HEADER_BYTES + sealed) ? (ssize_t)bytes : -ENOMEM;
}
