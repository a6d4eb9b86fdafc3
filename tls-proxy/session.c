/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wolfssl/error-ssl.h>
#include <wolfssl/wolfcrypt/error-crypt.h>

#include "tls-proxy/buffer.h"
#include "tls-proxy/hello.h"
#include "tls-proxy/tls_client.h"

/* The library has no public call for an alert of choice; this one is linked statically from the pinned version. */
extern int SendAlert(WOLFSSL *ssl, int severity, int type);
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
#define CERT_BYTES_MAX 16384
#define CERTS_MAX 6

struct session {
	WOLFSSL *ssl; /* NULL until the first message is whole */
	const struct tls_ctx *ctx; /* until then */
	struct tls_cert *cert; /* ours, until the handshake is over */
	uint32_t fed; /* bytes, until the session is open */
	enum session_state state;
	bool identified;
	bool client;
	bool by_address; /* the server, by `server`; else the library checks its name */
	struct ip_addr server;
	bool keep_certificate;
	bool shut; /* close_notify is out */
	uint8_t *certificate; /* DER; NULL: not kept */
	char *asked; /* server name; NULL: none, or told already */
	size_t certificate_bytes;
	bool datagrams; /* DTLS: `in` is one datagram, `out` is datagrams behind their lengths */
	struct identity id;
	/* Of the certificate's chain, for revocation lists to come. */
	uint8_t anchor[16]; /* the CA that it hangs on */
	uint8_t n_above;
	struct cert_ref
		*above; /* the certificates that the device sent beside its own; NULL: none */
	struct revoked *revoked; /* until the handshake is over */
	char reason[128];
	struct buffer in, out; /* from the wire, for the wire */
};

static void reason_set(struct session *s, const char *text)
{
	if (s->reason[0] == '\0')
		snprintf(s->reason, sizeof(s->reason), "%.127s", text);
}

static const char *reason_text(int error)
{
	static const struct {
		int error;
		const char *text;
	} texts[] = {
		{ASN_NO_SIGNER_E, "unknown CA"},
		{ASN_SELF_SIGNED_E, "unknown CA (self-signed)"},
		{ASN_SIG_CONFIRM_E, "bad signature in the certificate"},
		{ASN_AFTER_DATE_E, "certificate expired"},
		{ASN_BEFORE_DATE_E, "certificate not yet valid"},
		{CRL_CERT_REVOKED, "certificate revoked (CRL)"},
		{CRL_MISSING, "no revocation list of the certificate's issuer"},
		{CRL_CERT_DATE_ERR, "revocation list is past its next update"},
		{KEYUSE_SIGNATURE_E, "wrong key usage: no digitalSignature"},
		{EXTKEYUSE_AUTH_E, "wrong key usage: no clientAuth"},
		{ASN_NAME_INVALID_E, "name constraint of a CA violated"},
		{ASN_PATHLEN_SIZE_E, "CA path too long"},
		{ASN_PATHLEN_INV_E, "CA path too long"},
		{MAX_CHAIN_ERROR, "certificate chain too long"},
		{NO_PEER_CERT, "no certificate"},
		{DOMAIN_NAME_MISMATCH, "the certificate is for another name"},
		{RSA_KEY_SIZE_E, "key too small"},
		{ECC_KEY_SIZE_E, "key too small"},
		{VERSION_ERROR, "TLS version not accepted"},
		{UNSUPPORTED_SUITE, "no common cipher suite"},
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (texts[i].error == error)
			return texts[i].text;
	}
	return NULL;
}

static void fail(struct session *s, int error)
{
	const char *text = reason_text(error);
	char own[WOLFSSL_MAX_ERROR_SZ];
	WOLFSSL_ALERT_HISTORY h;

	if (error == FATAL_ERROR && wolfSSL_get_alert_history(s->ssl, &h) == WOLFSSL_SUCCESS) {
		snprintf(own, sizeof(own), "the peer refused with alert %d (RFC 8446 section 6)",
			 h.last_rx.code);
		text = own;
	}
	reason_set(s, text != NULL ? text : wolfSSL_ERR_error_string(error, own));
	s->state = SESSION_FAILED;
}

static int io_recv(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct session *s = arg;
	size_t n = buffer_waiting(&s->in);

	(void)ssl;
	if (n == 0)
		return WOLFSSL_CBIO_ERR_WANT_READ;
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

static int io_send(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct session *s = arg;

	(void)ssl;
	if (!buffer_hold_for(&s->out, sizeof(uint16_t) + bytes)) {
		reason_set(s, "out of memory");
		return WOLFSSL_CBIO_ERR_GENERAL;
	}
	if (s->datagrams)
		return datagram_put(s, buf, bytes);
	if (buffer_room(&s->out) == 0)
		return WOLFSSL_CBIO_ERR_WANT_WRITE;
	return buffer_put(&s->out, buf, bytes);
}

/* The device's certificate as its issuer's list names it, and what it sent above it. Room for CERTS_MAX. */
static unsigned chain_of(const struct session *s, struct cert_ref *out)
{
	memset(&out[0], 0, sizeof(out[0]));
	memcpy(out[0].issuer_sha256, s->id.issuer_sha256, sizeof(out[0].issuer_sha256));
	memcpy(out[0].issuer_key, s->id.issuer_key, sizeof(out[0].issuer_key));
	out[0].has_issuer_key = s->id.has_issuer_key;
	memcpy(out[0].serial.b + sizeof(out[0].serial.b) - s->id.serial_bytes, s->id.serial,
	       s->id.serial_bytes);
	if (s->n_above > 0)
		memcpy(&out[1], s->above, s->n_above * sizeof(out[0]));
	return 1 + s->n_above;
}

static int chain_keep(struct session *s, const WOLFSSL_X509_STORE_CTX *store)
{
	if (store->totalCerts < 2)
		return 0;
	s->above = calloc(store->totalCerts - 1, sizeof(*s->above));
	if (s->above == NULL)
		return -ENOMEM;
	for (int i = 1; i < store->totalCerts; i++) {
		if (cert_ref_read(&s->above[i - 1], store->certs[i].buffer,
				  store->certs[i].length) < 0)
			return -EINVAL;
	}
	s->n_above = store->totalCerts - 1;
	return 0;
}

static enum revoked_verdict chain_check(struct session *s)
{
	struct cert_ref chain[CERTS_MAX];
	unsigned n = chain_of(s, chain);

	return revoked_chain(s->revoked, chain, n, time(NULL), s->anchor, false);
}

static int certificate_keep(struct session *s, const WOLFSSL_BUFFER_INFO *der)
{
	uint8_t *copy = malloc(der->length);

	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, der->buffer, der->length);
	free(s->certificate);
	s->certificate = copy;
	s->certificate_bytes = der->length;
	return 0;
}

static int server_verify(struct session *s, const WOLFSSL_X509_STORE_CTX *store)
{
	if (store->certs == NULL || store->certs[0].length > CERT_BYTES_MAX ||
	    (s->by_address && tls_client_address_check(store->certs[0].buffer,
						       store->certs[0].length, &s->server) < 0)) {
		reason_set(s, "the certificate is for another address");
		return 0;
	}
	s->identified = true;
	return 1;
}

/* Called for each certificate of the chain with the library's finding. It can refuse more, never accept more. */
static int on_verify(int good, WOLFSSL_X509_STORE_CTX *store)
{
	struct session *s = store->userCtx;
	enum revoked_verdict verdict;
	struct err err = {""};

	if (!good) {
		const char *text = reason_text(store->error);

		if (text != NULL)
			reason_set(s, text);
		return 0;
	}
	if (store->totalCerts > CERTS_MAX) {
		reason_set(s, "certificate chain too long");
		return 0;
	}
	if (store->error_depth != 0)
		return 1;
	if (s->client)
		return server_verify(s, store);
	if (store->certs == NULL || store->certs[0].length > CERT_BYTES_MAX ||
	    identity_from_der(&s->id, store->certs[0].buffer, store->certs[0].length, &err) < 0) {
		reason_set(s, err.msg[0] != '\0' ? err.msg : "certificate too large");
		return 0;
	}
	if (chain_keep(s, store) < 0) {
		reason_set(s, "a certificate of the chain cannot be read");
		return 0;
	}
	verdict = chain_check(s);
	if (verdict != REVOKED_GOOD) {
		reason_set(s, revoked_text(verdict));
		/* The library's own alert, bad_certificate, comes second and is not read any more. */
		if (verdict == REVOKED_LISTED)
			SendAlert(s->ssl, 2 /* fatal */, SESSION_ALERT_CERTIFICATE_REVOKED);
		return 0;
	}
	if (s->keep_certificate && certificate_keep(s, &store->certs[0]) < 0) {
		reason_set(s, "out of memory");
		return 0;
	}
	s->identified = true;
	return 1;
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
	wolfSSL_set_verify(s->ssl, verify, on_verify);
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
	revoked_drop(s->revoked);
	free(s->above);
	session_certificate_drop(s);
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

void session_feed(struct session *s, const uint8_t *data, size_t bytes)
{
	if (s->state == SESSION_HANDSHAKE && !s->datagrams &&
	    (s->fed += bytes) > HANDSHAKE_BYTES_MAX) {
		reason_set(s, "handshake too large");
		session_abort(s, SESSION_ALERT_INTERNAL_ERROR);
		return;
	}
	if (!buffer_hold_for(&s->in, bytes)) {
		reason_set(s, "out of memory");
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
		reason_set(s, "out of memory");
		s->state = SESSION_FAILED;
		return NULL;
	}
	buffer_pack(&s->in);
	return s->in.data + s->in.n;
}

void session_fed(struct session *s, size_t bytes)
{
	s->in.n += bytes;
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
		reason_set(s,
			   name[0] != '\0' ? "unknown server name (SNI)" : "no server name (SNI)");
		session_abort(s, SESSION_ALERT_UNRECOGNIZED_NAME);
		return false;
	}
	s->asked = name[0] != '\0' ? strdup(name) : NULL;
	if ((s->asked != NULL || name[0] == '\0') && server_start(s, cert) == 0)
		return true;
	reason_set(s, "out of memory");
	s->state = SESSION_FAILED;
	return false;
}

/* @return true: the library may go on */
static bool hello_step(struct session *s)
{
	char name[HELLO_NAME_BYTES];

	switch (hello_read(s->in.data + s->in.at, buffer_waiting(&s->in), name)) {
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
	tls_cert_drop(s->cert);
	s->cert = NULL;
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
	ret = s->client ? wolfSSL_connect(s->ssl) : wolfSSL_accept(s->ssl);
	if (ret == WOLFSSL_SUCCESS) {
		/* No identity, no session: whatever the library thought. */
		if (!s->identified) {
			reason_set(s, "no certificate");
			session_abort(s, SESSION_ALERT_ACCESS_DENIED);
		} else {
			handshake_over(s);
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

	if (s->state != SESSION_OPEN)
		return -EPROTO;
	/* The library takes a record's bytes and no more: without new ones it has nothing to say. */
	if (!s->datagrams && buffer_waiting(&s->in) == 0 && wolfSSL_pending(s->ssl) == 0)
		return -EAGAIN;
	read_prepare(s);
	ret = wolfSSL_read(s->ssl, out, bytes);
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
	/* Its handshake's flights fit any link; of what it carries, a datagram stays a datagram. */
	if (s->datagrams)
		wolfSSL_dtls_set_mtu(s->ssl, RECORD_BYTES);
	if (s->datagrams && (int)bytes > wolfSSL_GetMaxOutputSize(s->ssl))
		return bytes; /* no record holds it */
	ret = wolfSSL_write(s->ssl, data, bytes);
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
}

void session_abort(struct session *s, enum session_alert alert)
{
	if (s->state != SESSION_FAILED && s->ssl != NULL)
		SendAlert(s->ssl, 2 /* fatal */, alert);
	else if (s->state != SESSION_FAILED)
		alert_plain(s, alert);
	s->state = SESSION_FAILED;
}

int session_reverify(const struct session *s, const struct tls_ctx *ctx)
{
	uint8_t anchor[sizeof(s->anchor)];
	struct cert_ref chain[CERTS_MAX];
	unsigned n = chain_of(s, chain);

	memcpy(anchor, s->anchor, sizeof(anchor));
	if (s->state == SESSION_OPEN &&
	    revoked_chain(ctx->revoked, chain, n, time(NULL), anchor, true) == REVOKED_GOOD)
		return 0;
	return -EACCES;
}

const struct identity *session_identity(const struct session *s)
{
	return s->state == SESSION_OPEN && !s->client ? &s->id : NULL;
}

const char *session_reason(const struct session *s)
{
	return s->reason;
}

const char *session_version(const struct session *s)
{
	return s->ssl != NULL ? wolfSSL_get_version(s->ssl) : "";
}

const char *session_cipher(const struct session *s)
{
	const char *name = s->ssl != NULL ? wolfSSL_get_cipher_name(s->ssl) : NULL;

	return name != NULL ? name : "";
}

const char *session_group(const struct session *s)
{
	const char *name = s->ssl != NULL ? wolfSSL_get_curve_name(s->ssl) : NULL;

	return name != NULL ? name : "";
}

size_t session_alpn(const struct session *s, char *out, size_t out_bytes)
{
	unsigned short n = 0;
	char *name = NULL;

	if (wolfSSL_ALPN_GetProtocol(s->ssl, &name, &n) != WOLFSSL_SUCCESS || name == NULL ||
	    n >= out_bytes)
		n = 0;
	if (n > 0)
		memcpy(out, name, n);
	out[n] = '\0';
	return n;
}

const uint8_t *session_certificate(const struct session *s, size_t *bytes)
{
	*bytes = s->certificate_bytes;
	return s->certificate;
}

void session_certificate_drop(struct session *s)
{
	free(s->certificate);
	free(s->asked);
	s->certificate = NULL;
	s->asked = NULL;
	s->certificate_bytes = 0;
}

size_t session_sni(const struct session *s, char *out, size_t out_bytes)
{
	static const char dns[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
	size_t n = s->asked != NULL ? strlen(s->asked) : 0;

	if (n >= out_bytes)
		n = 0;
	if (n > 0)
		memcpy(out, s->asked, n);
	out[n] = '\0';
	/* What is no DNS name goes to nobody's log. */
	if (strspn(out, dns) != n)
		out[n = 0] = '\0';
	return n;
}
