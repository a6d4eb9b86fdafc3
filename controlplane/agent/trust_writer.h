/* SPDX-License-Identifier: GPL-3.0-or-later */
/* trust_writer: the one writer of the trust table (config/base/trust.h). Agent's main thread only. */
#pragma once

#include "config/base/trust.h"

struct trust_state { /* what a record is to say */
	uint64_t expires_ms; /* 0: passes nothing */
	uint64_t revision;
	uint64_t identity_hash;
	uint16_t segment;
	uint8_t standing;
	uint8_t reason;
	uint8_t cert_sha256_head[16];
};

/**
 * Open the table, or make it (mode 0644: readers are other users). An existing one of the right size and version stays
 * as it is, so that an agent's restart disturbs no flow; another is replaced by a new file, and readers remap.
 * @param[out] kept  true if an existing table was taken over
 * @return 0 or -errno; text in err
 */
int trust_writer_open(struct trust_table *out, const char *path, uint32_t slots, bool *kept,
		      struct err *err);

/**
 * Put a record in force. The generation changes if segment, standing or identity do, if passing begins or ends, or
 * if `bump`. One store ends every flow: generation first, then the expiry (see trust_current()).
 * @return true if the generation changed
 */
bool trust_writer_put(struct trust_table *t, uint32_t slot, const struct trust_state *s, bool bump,
		      uint64_t now_us);

void trust_writer_epoch(struct trust_table *t, uint64_t epoch);
void trust_writer_alive(struct trust_table *t, uint64_t now_ms);
