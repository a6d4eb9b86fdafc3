/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Decisions as people read them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "config/segments.h"
#include "controlplane/decision.h"

static const char *const op_names[DECISION_OP_COUNT] = {
	[DECISION_ENROL] = "enrol",
	[DECISION_UNENROL] = "unenrol",
	[DECISION_REVOKE_CERT] = "revoke-cert",
	[DECISION_QUARANTINE] = "quarantine",
	[DECISION_RESTORE] = "restore",
	[DECISION_SOFTWARE_CERTIFY] = "software-certify",
	[DECISION_SOFTWARE_REVOKE] = "software-revoke",
	[DECISION_ATTEST] = "attest",
	[DECISION_POLICY] = "policy",
};

static const char *const kind_names[] = {
	[IDENTITY_URI] = "uri",
	[IDENTITY_DNS] = "dns",
	[IDENTITY_CN] = "cn",
};

const char *decision_op_name(unsigned op)
{
	return op > 0 && op < DECISION_OP_COUNT ? op_names[op] : "invalid";
}

const char *identity_kind_name(unsigned kind)
{
	return kind >= IDENTITY_URI && kind <= IDENTITY_CN ? kind_names[kind] : "invalid";
}

bool identity_kind_parse(const char *word, uint8_t *out)
{
	for (uint8_t i = IDENTITY_URI; i <= IDENTITY_CN; i++) {
		if (strcmp(word, kind_names[i]) == 0) {
			*out = i;
			return true;
		}
	}
	return false;
}

const char *hex_text(char *out, const uint8_t *data, size_t bytes)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < bytes; i++) {
		out[2 * i] = digits[data[i] >> 4];
		out[2 * i + 1] = digits[data[i] & 15];
	}
	out[2 * bytes] = '\0';
	return out;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int hex_parse(uint8_t *out, size_t bytes, const char *text)
{
	for (size_t i = 0; i < bytes; i++) {
		int hi = hex_digit(text[2 * i]);
		int lo = hi < 0 ? -1 : hex_digit(text[2 * i + 1]);

		if (lo < 0)
			return -EINVAL;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return text[2 * bytes] == '\0' ? 0 : -EINVAL;
}

static const char *time_text(char out[40], uint64_t wall_ms)
{
	time_t s = (time_t)(wall_ms / 1000);
	struct tm tm;

	if (gmtime_r(&s, &tm) == NULL || strftime(out, 40, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		out[0] = '\0';
	return out;
}

static void detail(char *out, size_t bytes, const struct decision *d)
{
	char hex[HEX_SHA256_BYTES], when[40];

	out[0] = '\0';
	switch (d->op) {
	case DECISION_ENROL:
		if (d->has & DECISION_HAS_CERT)
			snprintf(out, bytes, " (pinned to sha256:%.16s)",
				 hex_text(hex, d->cert_sha256, 32));
		break;
	case DECISION_REVOKE_CERT:
		if (d->has & DECISION_HAS_CERT)
			snprintf(out, bytes, " (certificate sha256:%.16s)",
				 hex_text(hex, d->cert_sha256, 32));
		else if (d->has & DECISION_HAS_SERIAL)
			snprintf(out, bytes, " (serial %s)",
				 hex_text(hex, d->serial, d->serial_bytes));
		else
			snprintf(out, bytes, " (issued before %s)",
				 time_text(when, d->not_before_ms));
		break;
	case DECISION_SOFTWARE_CERTIFY:
		if (d->has & DECISION_HAS_NOT_AFTER)
			snprintf(out, bytes, " until %s", time_text(when, d->not_after_ms));
		break;
	case DECISION_ATTEST:
		snprintf(out, bytes, " %s, runs sha256:%.16s, until %s", attest_tier_name(d->tier),
			 hex_text(hex, d->digest, 32), time_text(when, d->expires_ms));
		break;
	case DECISION_POLICY:
		snprintf(out, bytes, " sha256:%.16s", hex_text(hex, d->policy_sha256, 32));
		break;
	default:
		break;
	}
}

const char *decision_summary(char out[DECISION_SUMMARY_BYTES], const struct decision *d)
{
	char hex[HEX_SHA256_BYTES], more[160], what[MSG_IDENTITY_BYTES + 160] = "";

	if (d->has & DECISION_HAS_IDENTITY)
		snprintf(what, sizeof(what), " %s", d->identity);
	else if (d->has & DECISION_HAS_FILE)
		snprintf(what, sizeof(what), " %s", d->file);
	else if (d->has & DECISION_HAS_NAME)
		snprintf(what, sizeof(what), " %s %s sha256:%.16s", d->name, d->version,
			 hex_text(hex, d->digest, 32));
	else if (d->has & DECISION_HAS_DIGEST)
		snprintf(what, sizeof(what), " sha256:%.16s", hex_text(hex, d->digest, 32));
	detail(more, sizeof(more), d);
	snprintf(out, DECISION_SUMMARY_BYTES, "%s%s%s%s%s", decision_op_name(d->op), what, more,
		 d->reason[0] != '\0' ? ": " : "", d->reason);
	return out;
}

const char *decision_entry_summary(char out[DECISION_SUMMARY_BYTES], const struct decision_entry *e)
{
	size_t n;

	if (e->snapshot) {
		snprintf(out, DECISION_SUMMARY_BYTES, "snapshot of %u operations", e->n_ops);
		return out;
	}
	out[0] = '\0';
	if (e->n_ops > 0)
		decision_summary(out, &e->ops[0]);
	n = strlen(out);
	if (e->n_ops > 1)
		snprintf(out + n, DECISION_SUMMARY_BYTES - n, " and %u more", e->n_ops - 1);
	return out;
}
