/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/session_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wolfssl/error-ssl.h>

#include "tls-proxy/hello.h"
#include "tls-proxy/signatures.h"
#include "tls-proxy/stream.h"

/* As the library does after a handshake, but not for TLS 1.3 where a certificate may be asked for again. */
extern void FreeHandshakeHashes(WOLFSSL *ssl);
extern void FreeSuites(WOLFSSL *ssl);

#define IN_BYTES (18 * 1024) /* one record of the largest size, RFC 8446 section 5.2 */
#define OUT_BYTES (40 * 1024) /* two records and a handshake flight */
#define RECORD_BYTES (16 * 1024) /* the largest of DTLS, whatever the link takes at once */
#define QUIET_BYTES 256 /* of which there is room for an alert or an acknowledgement */
#define HELLO_BYTES                                                                                \
	(2 * 1024) /* a peer that has not said its first message whole gets no more, if it fits */
#define HANDSHAKE_BYTES_MAX (64 * 1024) /* from the peer, until the session is open */

void session_reason_set(struct session *s, const char *text)
{
	if (s->reason[0] == '\0')
		snprintf(s->reason, sizeof(s->reason), "%.127s", text);
}

static void fail(struct session *s, int error)
{
	const char *text = session_error_text(error);
	char own[WOLFSSL_MAX_ERROR_SZ];
	WOLFSSL_ALERT_HISTORY h = {.last_tx.code = -1};
	bool told = wolfSSL_get_alert_history(s->ssl, &h) == WOLFSSL_SUCCESS;

	if (told && error == FATAL_ERROR) {
		snprintf(own, sizeof(own), "the peer refused with alert %d (RFC 8446 section 6)",
			 h.last_rx.code);
		text = own;
	} else if (told && h.last_tx.code < 0) { /* it is silent about some errors */
		SendAlert(s->ssl, 2 /* fatal */, SESSION_ALERT_HANDSHAKE_FAILURE);
	}
	session_reason_set(s, text != NULL ? text : wolfSSL_ERR_error_string(error, own));
	s->state = SESSION_FAILED;
}

/* Straight from the stack's packets into the library's record. */
static int wire_recv(struct session *s, char *buf, size_t bytes)
{
	const struct session_wire *w = &s->wire;
	ssize_t n;

	if (w->stream == NULL || !*w->may || !stream_is_open(w->stream))
		return WOLFSSL_CBIO_ERR_WANT_READ;
	n = stream_recv(w->stream, buf, bytes);
	*w->may = n > 0 && stream_has(w->stream);
	if (n > 0)
		return (int)n;
	*w->fin = n != -EAGAIN;
	return WOLFSSL_CBIO_ERR_WANT_READ;
}

static int io_recv(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct session *s = arg;
	size_t n = buffer_waiting(&s->in);

	(void)ssl;
	if (n == 0)
		return wire_recv(s, buf, bytes);
	if (n > (size_t)bytes)
		n = bytes;
	memcpy(buf, s->in.data + s->in.at, n);
	/* What of a datagram the library has no room for is no record of ours. */
	buffer_taken(&s->in, s->datagrams ? buffer_waiting(&s->in) : n);
	return n;
}

/* One that finds no room is lost, as on any network: the peer sends again. */
static int datagram_put(struct session *s, const char *buf, int bytes)
{
	uint16_t head = bytes;

	if (bytes <= UINT16_MAX && buffer_room(&s->out) >= sizeof(head) + bytes) {
		buffer_put(&s->out, &head, sizeof(head));
		buffer_put(&s->out, buf, bytes);
	}
	return bytes;
}

/* @return how many went out at once; what is lost with the stream, whoever sends the rest will hear of */
static int wire_take(struct session *s, const char *buf, int bytes)
{
	ssize_t n;

	if (s->wire.stream == NULL || buffer_waiting(&s->out) > 0 ||
	    !stream_is_open(s->wire.stream))
		return 0;
	n = stream_send(s->wire.stream, buf, bytes);
	return n > 0 ? (int)n : 0;
}

static int io_send(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct session *s = arg;
	int n = wire_take(s, buf, bytes);

	(void)ssl;
	if (n > 0)
		return n; /* the library offers the rest again */
	if (!buffer_hold_for(&s->out, sizeof(uint16_t) + bytes)) {
		session_reason_set(s, "out of memory");
		return WOLFSSL_CBIO_ERR_GENERAL;
	}
	if (s->datagrams)
		return datagram_put(s, buf, bytes);
	if (buffer_room(&s->out) == 0)
		return WOLFSSL_CBIO_ERR_WANT_WRITE;
	return buffer_put(&s->out, buf, bytes);
}

/* The TLS object. @return 0 or -ENOMEM */
static int engine_start(struct session *s, struct tls_cert *cert, int verify)
{
	s->ssl = wolfSSL_new(cert->wolf);
	if (s->ssl == NULL)
		return -ENOMEM;
	s->cert = tls_cert_hold(cert);
	s->in.capacity = IN_BYTES;
	if (cert->key != NULL)
		key_attach(cert->key, s->ssl);
	wolfSSL_SSLSetIORecv(s->ssl, io_recv);
	wolfSSL_SSLSetIOSend(s->ssl, io_send);
	wolfSSL_SetIOReadCtx(s->ssl, s);
	wolfSSL_SetIOWriteCtx(s->ssl, s);
	wolfSSL_set_verify(s->ssl, verify, session_on_verify);
	wolfSSL_SetCertCbCtx(s->ssl, s);
	return 0;
}

/* ALPN: the first of these that the other end has too; none: no session. */
static int protocols_set(struct session *s, const char *list)
{
	return list[0] == '\0' ||
			       wolfSSL_UseALPN(s->ssl, (char *)list, strlen(list),
					       WOLFSSL_ALPN_FAILED_ON_MISMATCH) == WOLFSSL_SUCCESS
		       ? 0
		       : -ENOMEM;
}

static int server_start(struct session *s, struct tls_cert *cert)
{
	const struct tls_ctx *ctx = s->ctx;

	if (engine_start(s, cert, WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT) < 0 ||
	    protocols_set(s, ctx->alpn) < 0)
		return -ENOMEM;
	s->revoked = revoked_hold(ctx->revoked);
	s->ctx = NULL;
	return 0;
}

static struct session *engine_none(void)
{
	struct session *s = calloc(1, sizeof(*s));

	if (s != NULL) {
		s->in.capacity = HELLO_BYTES;
		s->out.capacity = OUT_BYTES;
	}
	return s;
}

int session_new(struct session **out, const struct tls_ctx *ctx)
{
	struct session *s = engine_none();

	if (s == NULL)
		return -ENOMEM;
	s->keep_certificate = ctx->keep_certificate;
	s->ctx = ctx;
	s->datagrams = ctx->datagrams;
	/* A peer that DTLS has let in has proved its address; its first message may be in many pieces. */
	if (s->datagrams && server_start(s, ctx->certs[0]) < 0) {
		session_free(s);
		return -ENOMEM;
	}
	*out = s;
	return 0;
}

int session_new_client(struct session **out, const struct tls_ctx *ctx,
		       const struct session_server *server)
{
	struct session *s = engine_none();
	bool good;

	if (s == NULL)
		return -ENOMEM;
	s->client = true;
	s->server = server->addr;
	s->by_address = server->name[0] == '\0';
	good = engine_start(s, ctx->certs[0], WOLFSSL_VERIFY_PEER) == 0 &&
	       (s->by_address ||
		(wolfSSL_check_domain_name(s->ssl, server->name) == WOLFSSL_SUCCESS &&
		 wolfSSL_UseSNI(s->ssl, WOLFSSL_SNI_HOST_NAME, server->name,
				strlen(server->name)) == WOLFSSL_SUCCESS)) &&
	       protocols_set(s, server->alpn != NULL ? server->alpn : "") == 0;
	if (!good) {
		session_free(s);
		return -EINVAL;
	}
	*out = s;
	return 0;
}

void session_free(struct session *s)
{
	if (s == NULL)
		return;
	wolfSSL_free(s->ssl);
	tls_cert_drop(s->cert);
	ticket_drop(s->ticket);
	revoked_drop(s->revoked);
	peer_drop(&s->peer);
	transcript_drop(&s->transcript);
	free(s->asked);
	buffer_drop(&s->in);
	buffer_drop(&s->out);
	explicit_bzero(s, sizeof(*s));
	free(s);
}

size_t session_room(const struct session *s)
{
	if (s->datagrams && buffer_waiting(&s->in) > 0)
		return 0;
	return buffer_room(&s->in);
}

/* Whatever the library makes of it. @return false: the peer sends too much before it has shown who it is */
static bool handshake_bounded(struct session *s, size_t bytes)
{
	if (s->state != SESSION_HANDSHAKE || s->datagrams ||
	    (s->fed += bytes) <= HANDSHAKE_BYTES_MAX)
		return true;
	session_reason_set(s, "handshake too large");
	session_abort(s, SESSION_ALERT_INTERNAL_ERROR);
	return false;
}

void session_feed(struct session *s, const uint8_t *data, size_t bytes)
{
	if (!handshake_bounded(s, bytes))
		return;
	if (!buffer_hold_for(&s->in, bytes)) {
		session_reason_set(s, "out of memory");
		s->state = SESSION_FAILED;
		return;
	}
	buffer_put(&s->in, data, bytes);
}

uint8_t *session_space(struct session *s, size_t *room)
{
	*room = session_room(s);
	if (*room == 0)
		return NULL;
	if (!buffer_hold(&s->in)) {
		session_reason_set(s, "out of memory");
		s->state = SESSION_FAILED;
		return NULL;
	}
	buffer_pack(&s->in);
	return s->in.data + s->in.n;
}

void session_fed(struct session *s, size_t bytes)
{
	if (handshake_bounded(s, bytes))
		s->in.n += bytes;
}

void session_carry(struct session *s, const struct session_wire *wire)
{
	s->wire = *wire;
}

bool session_is_carried(const struct session *s)
{
	return s->wire.stream != NULL;
}

bool session_may_read(const struct session *s)
{
	const struct session_wire *w = &s->wire;

	return session_record_waits(s) || (w->stream != NULL && *w->may && stream_has(w->stream)) ||
	       (s->opens == NULL && wolfSSL_pending(s->ssl) > 0);
}

void session_trim(struct session *s)
{
	buffer_trim(&s->in);
	buffer_trim(&s->out);
}

/* An alert before there is a TLS object: RFC 8446 section 5.1, a plaintext record. */
static void alert_plain(struct session *s, enum session_alert alert)
{
	const uint8_t record[] = {21, 3, 3, 0, 2, 2 /* fatal */, alert};

	if (buffer_hold_for(&s->out, sizeof(record)))
		buffer_put(&s->out, record, sizeof(record));
}

/* With the certificate for that name. @return true: the library may go on */
static bool name_answer(struct session *s, const char *name)
{
	struct tls_cert *cert = tls_ctx_choose(s->ctx, name);

	if (cert == NULL) {
		session_reason_set(s, name[0] != '\0' ? "unknown server name (SNI)"
						      : "no server name (SNI)");
		session_abort(s, SESSION_ALERT_UNRECOGNIZED_NAME);
		return false;
	}
	s->asked = name[0] != '\0' ? strdup(name) : NULL;
	if ((s->asked != NULL || name[0] == '\0') && server_start(s, cert) == 0)
		return true;
	session_reason_set(s, "out of memory");
	s->state = SESSION_FAILED;
	return false;
}

/* @return true: the library may go on */
static bool hello_step(struct session *s)
{
	char name[HELLO_NAME_BYTES];
	size_t ticket_bytes;
	enum hello kind =
		hello_read(s->in.data + s->in.at, buffer_waiting(&s->in), name, &ticket_bytes);

	s->foreign = ticket_bytes > 0;
	switch (kind) {
	case HELLO_MORE:
		if (buffer_room(&s->in) > 0)
			return false;
		if (s->in.capacity < IN_BYTES) {
			s->in.capacity = IN_BYTES;
			return false;
		}
		return name_answer(s, ""); /* it will say what is wrong with so much */
	case HELLO_WHOLE:
		return name_answer(s, name);
	case HELLO_STRANGE:
		break;
	}
	return name_answer(s, "");
}

static void handshake_over(struct session *s)
{
	s->state = SESSION_OPEN;
	revoked_drop(s->revoked);
	s->revoked = NULL;
	if (s->cert->tickets == NULL) {
		tls_cert_drop(s->cert);
		s->cert = NULL;
	}
	if (!s->client)
		wolfSSL_FreeArrays(s->ssl); /* kept for tickets */
	/* DTLS may have to send its last flight again; a client may be sent tickets, which it does not keep. */
	if (s->datagrams || s->client)
		return;
	FreeHandshakeHashes(s->ssl);
	FreeSuites(s->ssl);
}

enum session_state session_step(struct session *s)
{
	int ret, error;

	if (s->state != SESSION_HANDSHAKE || (s->ssl == NULL && !hello_step(s)))
		return s->state;
	key_turn(s->cert->key);
	signatures_turn(&s->identified);
	transcript_turn(&s->transcript, s->ssl);
	session_tickets_show(s, !s->foreign);
	ret = s->client ? wolfSSL_connect(s->ssl) : wolfSSL_accept(s->ssl);
	session_tickets_show(s, true);
	transcript_turn(NULL, NULL);
	signatures_turn(NULL);
	key_turn(NULL);
	if (ret == WOLFSSL_SUCCESS) {
		if (!s->client)
			session_resume_settle(s);
		/* No identity, no session: whatever the library thought. */
		if (!s->identified) {
			session_reason_set(s, "no certificate");
			session_abort(s, SESSION_ALERT_ACCESS_DENIED);
		} else {
			handshake_over(s);
			session_records_settle(s);
		}
		return s->state;
	}
	error = wolfSSL_get_error(s->ssl, ret);
	if (error != WOLFSSL_ERROR_WANT_READ && error != WOLFSSL_ERROR_WANT_WRITE)
		fail(s, error);
	return s->state;
}

/* The library takes a buffer of the MTU's size to read into, and keeps it while it waits. */
static void read_prepare(struct session *s)
{
	size_t n = buffer_waiting(&s->in);

	if (s->datagrams)
		wolfSSL_dtls_set_mtu(s->ssl, n < QUIET_BYTES	? QUIET_BYTES
					     : n < RECORD_BYTES ? n
								: RECORD_BYTES);
}

ssize_t session_read(struct session *s, uint8_t *out, size_t bytes)
{
	int ret, error;
	ssize_t n;

	if (s->state != SESSION_OPEN)
		return -EPROTO;
	/* The library takes a record's bytes and no more: without new ones it has nothing to say. */
	if (!s->datagrams && !session_may_read(s))
		return -EAGAIN;
	n = session_record_open(s, out, bytes);
	if (n != -ENOTSUP)
		return n;
	read_prepare(s);
	ret = wolfSSL_read(s->ssl, out, bytes);
	session_records_settle(s);
	if (ret > 0)
		return ret;
	error = wolfSSL_get_error(s->ssl, ret);
	if (error == WOLFSSL_ERROR_WANT_READ || error == WOLFSSL_ERROR_WANT_WRITE)
		return -EAGAIN;
	if (error == WOLFSSL_ERROR_ZERO_RETURN)
		return 0;
	fail(s, error);
	return -EPROTO;
}

ssize_t session_write(struct session *s, const uint8_t *data, size_t bytes)
{
	int ret, error;

	if (s->state != SESSION_OPEN || s->shut)
		return -EPROTO;
	/* The library keeps a record that did not fit and wants the same bytes again: never let it come to that. */
	if (buffer_room(&s->out) < 17 * 1024)
		return -EAGAIN;
	if (bytes > 16 * 1024)
		bytes = 16 * 1024;
	if (s->seals != NULL && bytes > 0) {
		ret = session_record_seal(s, data, bytes);
		if (ret == -ENOMEM) {
			session_reason_set(s, "out of memory");
			s->state = SESSION_FAILED;
			return -EPROTO;
		}
		if (ret != -ENOTSUP)
			return ret;
	}
	/* Its handshake's flights fit any link; of what it carries, a datagram stays a datagram. */
	if (s->datagrams)
		wolfSSL_dtls_set_mtu(s->ssl, RECORD_BYTES);
	if (s->datagrams && (int)bytes > wolfSSL_GetMaxOutputSize(s->ssl))
		return bytes; /* no record holds it */
	ret = wolfSSL_write(s->ssl, data, bytes);
	session_records_settle(s);
	if (ret > 0)
		return ret;
	error = wolfSSL_get_error(s->ssl, ret);
	if (error == WOLFSSL_ERROR_WANT_WRITE || error == WOLFSSL_ERROR_WANT_READ)
		return -EAGAIN;
	fail(s, error);
	return -EPROTO;
}

const uint8_t *session_output(const struct session *s, size_t *bytes)
{
	uint16_t head;

	*bytes = buffer_waiting(&s->out);
	if (*bytes == 0)
		return NULL;
	if (!s->datagrams)
		return s->out.data + s->out.at;
	memcpy(&head, s->out.data + s->out.at, sizeof(head));
	*bytes = head;
	return s->out.data + s->out.at + sizeof(head);
}

void session_sent(struct session *s, size_t bytes)
{
	buffer_taken(&s->out, s->datagrams ? sizeof(uint16_t) + bytes : bytes);
}

WOLFSSL *session_library(const struct session *s)
{
	return s->ssl;
}

void session_close_notify(struct session *s)
{
	if (s->state != SESSION_OPEN || s->shut)
		return;
	s->shut = true;
	wolfSSL_shutdown(s->ssl);
	session_records_settle(s);
}

void session_abort(struct session *s, enum session_alert alert)
{
	if (s->state != SESSION_FAILED && s->ssl != NULL)
		SendAlert(s->ssl, 2 /* fatal */, alert);
	else if (s->state != SESSION_FAILED)
		alert_plain(s, alert);
	s->state = SESSION_FAILED;
}

const char *session_reason(const struct session *s)
{
	return s->reason;
}
