/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ask: a question to the gateway or the controller, by the command line's sockets and time limit. */
#pragma once

#include <jansson.h>

#include "controlplane/ctl/args.h"
#include "controlplane/ctl/commands.h"

/**
 * Ask and wait. What goes wrong on the way is printed.
 * @param[out] response  an object with a boolean "ok"; caller owns; NULL unless CTL_OK is returned
 * @return CTL_OK or CTL_UNREACHABLE
 */
int ctl_ask(const struct args *a, enum ctl_peer peer, const json_t *req, json_t **response);

/** Print why the daemon refused. @return exit code */
int ctl_refusal(const json_t *response, const char *command);

/** The same, and a refusal is printed too. @return CTL_OK with *response "ok", else the exit code with NULL */
int ctl_ask_good(const struct args *a, enum ctl_peer peer, const json_t *req, const char *command,
		 json_t **response);
