/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int above_read(struct peer *p, const WOLFSSL_X509_STORE_CTX *chain)
{
	if (chain->totalCerts < 2)
		return 0;
	p->above = calloc(chain->totalCerts - 1, sizeof(*p->above));
	if (p->above == NULL)
		return -ENOMEM;
	for (int i = 1; i < chain->totalCerts; i++) {
		if (cert_ref_read(&p->above[i - 1], chain->certs[i].buffer,
				  chain->certs[i].length) < 0)
			return -EINVAL;
	}
	p->n_above = chain->totalCerts - 1;
	return 0;
}

static int certificate_keep(struct peer *p, const uint8_t *der, size_t bytes)
{
	p->certificate = malloc(bytes);
	if (p->certificate == NULL)
		return -ENOMEM;
	memcpy(p->certificate, der, bytes);
	p->certificate_bytes = bytes;
	return 0;
}

int peer_read(struct peer *p, const WOLFSSL_X509_STORE_CTX *chain, bool keep, struct err *err)
{
	const WOLFSSL_BUFFER_INFO *own = chain->certs;
	int ret;

	peer_drop(p);
	if (chain->totalCerts > PEER_CERTS_MAX)
		return err_set(err, -E2BIG, "certificate chain too long");
	if (own == NULL || own->length > PEER_CERT_BYTES_MAX)
		return err_set(err, -E2BIG, "certificate too large");
	ret = identity_from_der(&p->id, own->buffer, own->length, err);
	if (ret < 0)
		return ret;
	ret = above_read(p, chain);
	if (ret < 0)
		return err_set(err, ret, "a certificate of the chain cannot be read");
	ret = keep ? certificate_keep(p, own->buffer, own->length) : 0;
	return ret < 0 ? err_set(err, ret, "out of memory") : 0;
}

int peer_copy(struct peer *out, const struct peer *p)
{
	*out = *p;
	out->above = NULL;
	out->certificate = NULL;
	if (p->n_above > 0)
		out->above = malloc(p->n_above * sizeof(*p->above));
	if (p->certificate != NULL)
		out->certificate = malloc(p->certificate_bytes);
	if ((p->n_above > 0 && out->above == NULL) ||
	    (p->certificate != NULL && out->certificate == NULL)) {
		peer_drop(out);
		return -ENOMEM;
	}
	if (p->n_above > 0)
		memcpy(out->above, p->above, p->n_above * sizeof(*p->above));
	if (p->certificate != NULL)
		memcpy(out->certificate, p->certificate, p->certificate_bytes);
	return 0;
}

void peer_drop(struct peer *p)
{
	free(p->above);
	free(p->certificate);
	*p = (struct peer){0};
}

/* The device's certificate as its issuer's list names it, and what it sent above it. */
static unsigned chain_of(const struct peer *p, struct cert_ref out[static PEER_CERTS_MAX])
{
	const struct identity *id = &p->id;

	memset(&out[0], 0, sizeof(out[0]));
	memcpy(out[0].issuer_sha256, id->issuer_sha256, sizeof(out[0].issuer_sha256));
	memcpy(out[0].issuer_key, id->issuer_key, sizeof(out[0].issuer_key));
	out[0].has_issuer_key = id->has_issuer_key;
	memcpy(out[0].serial.b + sizeof(out[0].serial.b) - id->serial_bytes, id->serial,
	       id->serial_bytes);
	if (p->n_above > 0)
		memcpy(&out[1], p->above, p->n_above * sizeof(out[0]));
	return 1 + p->n_above;
}

enum revoked_verdict peer_check(struct peer *p, const struct revoked *r)
{
	struct cert_ref chain[PEER_CERTS_MAX];
	unsigned n = chain_of(p, chain);

	return revoked_chain(r, chain, n, time(NULL), p->anchor, false, &p->id.not_after_s);
}

enum revoked_verdict peer_check_again(const struct peer *p, const struct revoked *r)
{
	struct cert_ref chain[PEER_CERTS_MAX];
	unsigned n = chain_of(p, chain);
	uint8_t anchor[sizeof(p->anchor)];
	uint64_t until_s = UINT64_MAX;

	memcpy(anchor, p->anchor, sizeof(anchor));
	return revoked_chain(r, chain, n, time(NULL), anchor, true, &until_s);
}
