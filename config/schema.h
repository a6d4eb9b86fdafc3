/* SPDX-License-Identifier: GPL-3.0-or-later */
/* schema: tables that hold every key of a configuration file with its type, range, unit and default. One walker
 * fills a struct from a libconfig tree by such a table, reports every error with its line, and refuses keys that
 * the table does not have. `schema_print()` makes the reference text from the same tables. */
#pragma once

#include <libconfig.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "config/errors.h"

enum key_type {
	KEY_STRING, /* char[bytes] */
	KEY_NAME, /* char[bytes]; letters, digits, '-', '_'; starts with a letter or digit */
	KEY_UINT, /* uint8_t, uint16_t or uint32_t by bytes; min..max */
	KEY_BOOL, /* bool */
	KEY_CHOICE, /* one word of choices, its value by bytes */
	KEY_FLAGS, /* array of words, their values or-ed, uint32_t */
	KEY_ADDR, /* struct ip_addr */
	KEY_LINE, /* no key: uint32_t gets the group's line */
	KEY_EACH, /* array or list (or one alone) of strings, each given to `each` */
	KEY_GROUP, /* { ... }: `sub`, into the struct at offset */
	KEY_GROUPS, /* ( {...}, ... ): `sub`, each into what `slot` returns */
};

struct key_choice {
	const char *word; /* NULL ends the array */
	uint32_t value;
};

struct schema_key {
	const char *name; /* NULL ends the table */
	enum key_type type;
	size_t offset, bytes; /* in the struct of this table */
	int64_t min, max; /* KEY_UINT; KEY_GROUPS and KEY_EACH: how many */
	const char *def; /* default as text; NULL: key must be given; "": zero or empty */
	const char *unit; /* NULL: none */
	const char *doc;
	const struct key_choice *choices;
	const struct schema_key *sub;
	/* A new zeroed element of parent's array; NULL: out of memory or room. */
	void *(*slot)(void *parent);
	/* Take one string of a KEY_EACH. @return 0, or -errno with a reason in why */
	int (*each)(void *parent, const char *text, const char **why);
};

#define SCHEMA_AT(type_, field) offsetof(type_, field), sizeof(((type_ *)0)->field)

/**
 * Read a text by a table. `file` is the name for messages; text with @include is refused, so that a policy
 * from the network cannot read files.
 * @param out  struct of the table, zeroed by the caller; partly filled on error
 * @return 0, -EINVAL with every error found in errs
 */
int schema_read(void *out, const struct schema_key *table, const char *text, const char *file,
		struct config_errors *errs);

/** Read a whole file; caller frees *text. Refuses more than 4 MiB. @return 0 or -errno, noted in errs */
int schema_slurp(char **text, const char *path, struct config_errors *errs);

/** The reference: every key with type, range, unit, default and meaning. */
void schema_print(FILE *to, const struct schema_key *table);
