/* SPDX-License-Identifier: GPL-3.0-or-later */
/* policy_file: a policy text (segments.cfg) checked on this side, with no daemon. Both return an exit code (show.h). */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "controlplane/ctl/args.h"

/** Print every error of the file word[0], or that it is good. With --json, one object {ok, file, errors}. */
int policy_check_run(json_t *req, const struct args *a, const char *const *word, FILE *to);
/** Check word[0] and, if it is good, put its name and text into the request. */
int policy_apply_run(json_t *req, const struct args *a, const char *const *word, FILE *to);
