/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A revocation list of any bytes: what is accepted can be walked to its end and points into the list only. */
#include <stdlib.h>
#include <string.h>

#include "tls-proxy/crl.h"
#include "tls-proxy/revoked.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void within(const struct der *d, const uint8_t *data, size_t bytes)
{
	if (d->at != NULL && (d->at < data || d->end > data + bytes || d->at > d->end))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct err err = {""};
	struct crl_entry e;
	struct crl crl;
	struct der walk;
	int ret;

	if (crl_read(&crl, data, bytes, &err) < 0)
		return err.msg[0] == '\0' ? (abort(), 0) : 0;
	within(&crl.tbs, data, bytes);
	within(&crl.signature, data, bytes);
	within(&crl.signature_params, data, bytes);
	within(&crl.entries, data, bytes);
	walk = crl.entries;
	while ((ret = crl_entry(&walk, &e, &err)) == 1)
		;
	if (ret != 0)
		abort();
	return 0;
}
