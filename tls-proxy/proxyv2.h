/* SPDX-License-Identifier: GPL-3.0-or-later */
/* proxyv2: the header that tells an upstream who is behind a connection.
 * PROXY protocol version 2 (HAProxy, doc/proxy-protocol.txt sections 2.2 and 2.2.6). Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/base/addr.h"
#include "tls-proxy/identity.h"

#define PROXYV2_BYTES_MAX 1024

/* TLVs of the range for applications (section 2.2.7). */
#define PROXYV2_TLV_IDENTITY 0xe0 /* SPIFFE ID, DNS name or CN: the authenticated identity */
#define PROXYV2_TLV_SEGMENT 0xe1 /* segment in force, by name */
#define PROXYV2_TLV_STANDING 0xe2 /* "full", "restricted", ... */
#define PROXYV2_TLV_CERT_SHA256 0xe3 /* 32 bytes */

struct proxyv2 {
	struct ip_addr src, dst; /* the device's end and the listener, one family */
	uint16_t sport, dport; /* host order */
	bool datagrams; /* the device speaks UDP */
	const struct identity *id;
	const char *tls_version, *cipher; /* of PP2_TYPE_SSL */
	const char *segment, *standing;
};

#define PROXYV2_LOCAL_BYTES 16

/** The header of a connection of the gateway's own, as a check (command LOCAL). */
void proxyv2_local(uint8_t out[static PROXYV2_LOCAL_BYTES]);

/** @return bytes written, or -EMSGSIZE */
int proxyv2_encode(uint8_t *out, size_t out_bytes, const struct proxyv2 *p);
