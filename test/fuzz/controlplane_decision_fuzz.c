/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Decisions: the payload decoder (behind the signature), and the envelope around it. What is accepted must encode to the
 * very same bytes: there is one encoding. */
#include <stdlib.h>
#include <string.h>

#include "controlplane/decision.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cose_signer *signer;

static void open_envelope(const uint8_t *data, size_t size)
{
	struct decision_heartbeat h;
	struct decision_entry *e = NULL;

	/* Nobody here has the key: whatever passes is a forgery. */
	if (decision_entry_open(&e, data, size, cose_signer_public(signer), NULL) == 0 ||
	    decision_snapshot_open(&e, data, size, cose_signer_public(signer), NULL) == 0 ||
	    decision_heartbeat_open(&h, data, size, cose_signer_public(signer), NULL) == 0)
		abort();
}

static void round_trip(struct decision_entry *e, const uint8_t *data, size_t size)
{
	char content[64], text[DECISION_SUMMARY_BYTES];
	const uint8_t *payload;
	size_t payload_bytes, bytes;
	struct err err = {0};
	uint8_t *msg;

	if (strlen(decision_entry_summary(text, e)) >= sizeof(text))
		abort();
	if (decision_entry_seal(&msg, &bytes, e, signer, &err) != 0)
		abort();
	strcpy(content, e->snapshot ? "application/vnd.sallyport.snapshot+cbor"
				    : "application/vnd.sallyport.entry+cbor");
	if (cose_verify1(&payload, &payload_bytes, content, msg, bytes, cose_signer_public(signer),
			 &err) != 0 ||
	    payload_bytes != size || memcmp(payload, data, size) != 0)
		abort();
	free(msg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct decision_entry *e = NULL;

	if (signer == NULL && cose_signer_new(&signer, NULL) != 0)
		abort();
	if (size == 0)
		return 0;
	if (data[0] % 4 == 3) {
		open_envelope(data + 1, size - 1);
		return 0;
	}
	if (decision_payload_decode(&e, data + 1, size - 1, data[0] % 2, NULL) == 0)
		round_trip(e, data + 1, size - 1);
	decision_entry_free(e);
	return 0;
}
