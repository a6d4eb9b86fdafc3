/* SPDX-License-Identifier: GPL-3.0-or-later */
/* args: a command line as words and options, and the values that people write in them. Pure. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/base/err.h"

#define ARGS_WORDS_MAX 24

enum args_option {
	/* anywhere */
	OPT_JSON,
	OPT_AGENT,
	OPT_CONTROLLER,
	OPT_TIMEOUT,
	OPT_HELP,
	OPT_VERSION, /* without a value before the command; with one, of software, after it */
	/* of some commands */
	OPT_URI,
	OPT_DNS,
	OPT_CN,
	OPT_REASON,
	OPT_CERT,
	OPT_ISSUER,
	OPT_SERIAL,
	OPT_DIGEST,
	OPT_TIER,
	OPT_FOR,
	OPT_NAME,
	OPT_SPORT,
	OPT_DEVICE,
	OPT_LIMIT,
	OPT_AFTER,
	OPT_AT,
	OPT_SEGMENT,
	OPT_RULE,
	OPT_STATE,
	OPT_TOP,
	OPT_BY,
	OPT_RATE,
	OPT_ONCE,
	OPT_NUMBER,
	OPT_COUNT
};

#define OPT_BIT(opt) (1ull << (opt))
#define OPTS_GLOBAL                                                                                \
	(OPT_BIT(OPT_JSON) | OPT_BIT(OPT_AGENT) | OPT_BIT(OPT_CONTROLLER) | OPT_BIT(OPT_TIMEOUT) | \
	 OPT_BIT(OPT_HELP))

struct args {
	const char *word[ARGS_WORDS_MAX]; /* into argv */
	unsigned n_words;
	uint64_t given; /* OPT_BIT()s */
	const char *value[OPT_COUNT]; /* into argv; NULL for options without one */
};

/** Split argv[1..]. "--x=v" and "--x v" are the same, "-n v" is "--number v"; "--" ends options. @return 0 or -EINVAL with text in err */
int args_parse(struct args *out, int argc, char **argv, struct err *err);
const char *args_option_name(enum args_option opt); /* "json" */

/** Set {device, kind}: the kind by option, else "scheme://" is a URI, a dot without a blank a DNS name, else a CN.
 * @return 0 or -EINVAL with text in err */
int args_device(json_t *req, const char *name, const struct args *a, struct err *err);
/** "sha256:HEX" or HEX, 64 digits, to "sha256:hex" under `key`. @return 0 or -EINVAL */
int args_digest(json_t *req, const char *key, const char *text, struct err *err);
/** "90s", "10m", "12h", "30d" to seconds under `key`. @return 0 or -EINVAL */
int args_duration(json_t *req, const char *key, const char *text, struct err *err);
/** "tcp/554", "udp/53", "ping", "icmp/8" to proto and dport. @return 0 or -EINVAL */
int args_service(json_t *req, const char *text, struct err *err);
/** A number of lo to hi under `key`. @return 0 or -EINVAL */
int args_number(json_t *req, const char *key, const char *text, uint64_t lo, uint64_t hi,
		struct err *err);
