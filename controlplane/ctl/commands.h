/* SPDX-License-Identifier: GPL-3.0-or-later */
/* commands: the one table that sallyctl consists of. Help is printed from it, requests are made by it. */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "config/base/err.h"
#include "controlplane/ctl/args.h"

enum ctl_peer { PEER_NONE, PEER_AGENT, PEER_CONTROLLER };

struct ctl_command {
	const char *name; /* one or two words */
	const char *args; /* for help */
	const char *what; /* one line */
	const char *example;
	enum ctl_peer peer;
	unsigned min_words, max_words; /* behind the name */
	uint64_t options; /* OPT_BIT()s, beside the global ones */
	const char *cmd; /* of the request; NULL: run() does it all */
	/** Add members to the request. word: those behind the name. @return 0 or -EINVAL with text in err: usage */
	int (*build)(json_t *req, const struct args *a, const char *const *word, struct err *err);
	int (*show)(const json_t *response, FILE *to); /* @return exit code */
	/** Before the request is sent, or instead of it: what is done on this side. @return exit code */
	int (*run)(json_t *req, const struct args *a, const char *const *word, FILE *to);
};

extern const struct ctl_command ctl_commands[];
extern const unsigned ctl_n_commands;

/** The command that the first words name; *n_name is how many they are. NULL: none. */
const struct ctl_command *ctl_find(const struct args *a, unsigned *n_name);
/** Are the words behind the name and the options those of the command? @return 0 or -EINVAL with text in err */
int ctl_check(const struct ctl_command *c, const struct args *a, unsigned n_name, struct err *err);

void ctl_help(FILE *to);
void ctl_help_command(const struct ctl_command *c, FILE *to);
