/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/ctl/ask.h"

#include <stdio.h>
#include <stdlib.h>

#include "controlplane/ctl/client.h"
#include "controlplane/ctl/show.h"
#include "controlplane/ctl/table.h"

#define AGENT_SOCKET "/run/sallyport/api.sock"
#define CONTROLLER_SOCKET "/run/sallyport/controller.sock"
#define TIMEOUT_S 20

static const char *socket_of(const struct args *a, enum args_option opt, const char *env,
			     const char *fallback)
{
	const char *from_env = getenv(env);

	if (a->value[opt] != NULL)
		return a->value[opt];
	return from_env != NULL && from_env[0] != '\0' ? from_env : fallback;
}

int ctl_ask(const struct args *a, enum ctl_peer peer, const json_t *req, json_t **response)
{
	unsigned timeout_s =
		a->value[OPT_TIMEOUT] != NULL ? (unsigned)atoi(a->value[OPT_TIMEOUT]) : TIMEOUT_S;
	struct err err = {0};
	const char *path;

	*response = NULL;
	path = peer == PEER_AGENT
		       ? socket_of(a, OPT_AGENT, "SALLYCTL_AGENT", AGENT_SOCKET)
		       : socket_of(a, OPT_CONTROLLER, "SALLYCTL_CONTROLLER", CONTROLLER_SOCKET);
	if (client_call(path, req, timeout_s * 1000, response, &err) == 0)
		return CTL_OK;
	fprintf(stderr, "sallyctl: cannot reach the %s: %s\n",
		peer == PEER_AGENT ? "gateway" : "controller", err.msg);
	return CTL_UNREACHABLE;
}

int ctl_refusal(const json_t *response, const char *command)
{
	const json_t *errors = json_object_get(response, "errors");
	const char *text = json_string_value(json_object_get(response, "error"));
	size_t i;
	json_t *v;

	json_array_foreach(errors, i, v) {
		if (json_is_string(v)) {
			print_clean(stderr, json_string_value(v));
			fputc('\n', stderr);
		}
	}
	fprintf(stderr, "sallyctl %s: ", command);
	print_clean(stderr, text != NULL ? text : "refused without a reason");
	fputc('\n', stderr);
	return json_array_size(errors) > 0 ? CTL_POLICY : CTL_REFUSED;
}

int ctl_ask_good(const struct args *a, enum ctl_peer peer, const json_t *req, const char *command,
		 json_t **response)
{
	int ret = ctl_ask(a, peer, req, response);

	if (ret != CTL_OK)
		return ret;
	if (json_is_true(json_object_get(*response, "ok")))
		return CTL_OK;
	if (a->given & OPT_BIT(OPT_JSON)) {
		json_dumpf(*response, stdout, JSON_COMPACT);
		fputc('\n', stdout);
		ret = CTL_REFUSED;
	} else {
		ret = ctl_refusal(*response, command);
	}
	json_decref(*response);
	*response = NULL;
	return ret;
}
