/* SPDX-License-Identifier: GPL-3.0-or-later */
/* sallyctl: asks the gateway's agent, and has the controller decide. */
#include <stdio.h>
#include <string.h>

#include "controlplane/ctl/ask.h"
#include "controlplane/ctl/commands.h"
#include "controlplane/ctl/show.h"
#include "controlplane/ctl/table.h"

static int usage(const char *what, const char *command)
{
	fputs("sallyctl: ", stderr);
	print_clean(stderr, what);
	fprintf(stderr, "\ntry: sallyctl %s%s--help\n", command, command[0] != '\0' ? " " : "");
	return CTL_USAGE;
}

static int answer(const struct ctl_command *c, const struct args *a, const json_t *response)
{
	bool ok = json_is_true(json_object_get(response, "ok"));
	FILE *text = NULL;
	int ret;

	if ((a->given & OPT_BIT(OPT_JSON)) == 0)
		return ok ? c->show(response, stdout) : ctl_refusal(response, c->name);
	json_dumpf(response, stdout, JSON_COMPACT);
	fputc('\n', stdout);
	if (!ok)
		return json_array_size(json_object_get(response, "errors")) > 0 ? CTL_POLICY
										: CTL_REFUSED;
	text = fopen("/dev/null", "we"); /* the same exit code as for people */
	ret = text != NULL ? c->show(response, text) : CTL_REFUSED;
	if (text != NULL)
		fclose(text);
	return ret;
}

static int ask(const struct ctl_command *c, const struct args *a, const json_t *req)
{
	const char *at = a->value[OPT_AT];
	enum ctl_peer peer =
		at != NULL && strcmp(at, "controller") == 0 ? PEER_CONTROLLER : c->peer;
	json_t *response;
	int ret = ctl_ask(a, peer, req, &response);

	if (ret != CTL_OK)
		return ret;
	ret = answer(c, a, response);
	json_decref(response);
	return ret;
}

static int run(const struct ctl_command *c, const struct args *a, unsigned n_name)
{
	const char *words[ARGS_WORDS_MAX + 1] = {0};
	json_t *req = json_object(), *timeout = json_object();
	struct err err = {0};
	int ret = ctl_check(c, a, n_name, &err);

	for (unsigned i = n_name; i < a->n_words; i++)
		words[i - n_name] = a->word[i];
	if (ret == 0 && a->value[OPT_TIMEOUT] != NULL)
		ret = args_number(timeout, "timeout", a->value[OPT_TIMEOUT], 1, 3600, &err);
	if (ret == 0 && c->cmd != NULL)
		json_object_set_new(req, "cmd", json_string(c->cmd));
	if (ret == 0 && c->build != NULL)
		ret = c->build(req, a, words, &err);
	if (ret < 0)
		ret = usage(err.msg, c->name);
	else if (c->run != NULL)
		ret = c->run(req, a, words, stdout);
	if (ret == CTL_OK && c->cmd != NULL)
		ret = ask(c, a, req);
	json_decref(req);
	json_decref(timeout);
	return ret;
}

int main(int argc, char **argv)
{
	const struct ctl_command *c;
	struct err err = {0};
	struct args a;
	unsigned n_name;

	if (args_parse(&a, argc, argv, &err) < 0)
		return usage(err.msg, "");
	if (a.n_words == 0 && (a.given & OPT_BIT(OPT_VERSION))) {
		puts("sallyctl " SALLYPORT_VERSION);
		return CTL_OK;
	}
	if (a.n_words == 0) {
		ctl_help(a.given & OPT_BIT(OPT_HELP) ? stdout : stderr);
		return a.given & OPT_BIT(OPT_HELP) ? CTL_OK : CTL_USAGE;
	}
	c = ctl_find(&a, &n_name);
	if (c == NULL)
		return usage("no such command", "");
	if (a.given & OPT_BIT(OPT_HELP)) {
		ctl_help_command(c, stdout);
		return CTL_OK;
	}
	return run(c, &a, n_name);
}
