/* SPDX-License-Identifier: GPL-3.0-or-later */
/* proxyv2: the header that tells an upstream who is behind a connection.
 * PROXY protocol version 2 (HAProxy, doc/proxy-protocol.txt sections 2.2 to 2.2.7). Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/base/addr.h"
#include "tls-proxy/identity.h"

#define PROXYV2_BYTES_MAX 1536 /* without the device's certificate */
#define PROXYV2_UNIQUE_ID_BYTES 128 /* section 2.2.5 */

/* TLVs of the range for applications (section 2.2.7). */
#define PROXYV2_TLV_IDENTITY 0xe0 /* SPIFFE ID, DNS name or CN: the authenticated identity */
#define PROXYV2_TLV_SEGMENT 0xe1 /* segment in force, by name */
#define PROXYV2_TLV_STANDING 0xe2 /* "full", "restricted", ... */
#define PROXYV2_TLV_CERT_SHA256 0xe3 /* 32 bytes */

struct proxyv2_front { /* the certificate that the devices see: of PP2_SUBTYPE_SSL_SIG_ALG and _KEY_ALG; "": not known */
	char sig_alg[24]; /* "ecdsa-with-SHA256" */
	char key_alg[16]; /* "EC256", "RSA2048" */
};

/* What is NULL, "" or of no length is left out. */
struct proxyv2 {
	uint32_t tlvs; /* PROXY_* of config/gateway.h: which of the things below are told */
	struct ip_addr src, dst; /* the device's end and the listener, one family */
	uint16_t sport, dport; /* host order */
	bool datagrams; /* the device speaks UDP */
	const struct identity *id;
	bool resumed; /* its certificate was shown in an earlier connection */
	const char *tls_version, *cipher, *group; /* of PP2_TYPE_SSL, as the front */
	const struct proxyv2_front *front;
	const uint8_t *cert; /* the device's, DER */
	size_t cert_bytes;
	const char *authority, *alpn; /* server name, protocol */
	const char *unique_id; /* of the session, at most PROXYV2_UNIQUE_ID_BYTES */
	const char *segment, *standing;
};

/** Read a listener's own certificate, PEM. What it cannot tell stays "". */
void proxyv2_front_read(struct proxyv2_front *out, const char *pem, size_t bytes);

#define PROXYV2_LOCAL_BYTES 16

/** The header of a connection of the gateway's own, as a check (command LOCAL). */
void proxyv2_local(uint8_t out[static PROXYV2_LOCAL_BYTES]);

/** @return bytes written, or -EMSGSIZE: no room, or too long for the protocol */
int proxyv2_encode(uint8_t *out, size_t out_bytes, const struct proxyv2 *p);
