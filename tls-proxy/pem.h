/* SPDX-License-Identifier: GPL-3.0-or-later */
/* pem: the certificates of a PEM text, one by one. */
#pragma once

#include <errno.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/asn_public.h>

/**
 * @param[in,out] at  where to go on; ends with a NUL
 * @param[out] out  wc_FreeDer()
 * @return 1, 0 at the end, -EINVAL
 */
static inline int pem_next(const char **at, DerBuffer **out)
{
	static const char begin[] = "-----BEGIN CERTIFICATE-----",
			  end[] = "-----END CERTIFICATE-----";
	const char *from = strstr(*at, begin), *to;

	*out = NULL;
	if (from == NULL)
		return 0;
	to = strstr(from, end);
	if (to == NULL)
		return -EINVAL;
	*at = to + sizeof(end) - 1;
	if (wc_PemToDer((const unsigned char *)from, *at - from, CERT_TYPE, out, NULL, NULL,
			NULL) == 0)
		return 1;
	wc_FreeDer(out); /* which it may have left */
	return -EINVAL;
}
