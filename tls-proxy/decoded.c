/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/decoded.h"

static const DecodedCert *last; /* NULL: none */

/* The library's own, and what its callers get instead. */
int __real_ParseCertRelative(DecodedCert *cert, int type, int verify, void *cm, Signer *extra);
int __wrap_ParseCertRelative(DecodedCert *cert, int type, int verify, void *cm, Signer *extra);
void __real_FreeDecodedCert(DecodedCert *cert);
void __wrap_FreeDecodedCert(DecodedCert *cert);
void __real_wc_FreeDecodedCert(DecodedCert *cert);
void __wrap_wc_FreeDecodedCert(DecodedCert *cert);

int __wrap_ParseCertRelative(DecodedCert *cert, int type, int verify, void *cm, Signer *extra)
{
	int ret = __real_ParseCertRelative(cert, type, verify, cm, extra);

	last = ret == 0 ? cert : NULL;
	return ret;
}

void __wrap_FreeDecodedCert(DecodedCert *cert)
{
	if (cert == last)
		last = NULL;
	__real_FreeDecodedCert(cert);
}

void __wrap_wc_FreeDecodedCert(DecodedCert *cert)
{
	if (cert == last)
		last = NULL;
	__real_wc_FreeDecodedCert(cert);
}

const DecodedCert *decoded_get(const uint8_t *der, size_t bytes)
{
	return last != NULL && last->source == der && last->maxIdx == bytes ? last : NULL;
}
