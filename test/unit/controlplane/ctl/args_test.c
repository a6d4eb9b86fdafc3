/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Command lines to requests. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/ctl/commands.h"
#include "controlplane/ctl/show.h"

#define HEX "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
#define UPPER "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08"
#define WORDS (ARGS_WORDS_MAX + 4)

/* @return the request, NULL with text in err; or what find and check said */
static json_t *request(const char *const *words, struct err *err)
{
	char *argv[WORDS + 2] = {(char *)"sallyctl"};
	const char *behind[ARGS_WORDS_MAX + 1] = {0};
	const struct ctl_command *c;
	json_t *req;
	unsigned n_name;
	struct args a;
	int argc = 1;

	for (unsigned i = 0; i < WORDS && words[i] != NULL; i++)
		argv[argc++] = (char *)words[i];
	if (args_parse(&a, argc, argv, err) < 0)
		return NULL;
	c = ctl_find(&a, &n_name);
	if (c == NULL) {
		err_set(err, -EINVAL, "no such command");
		return NULL;
	}
	if (ctl_check(c, &a, n_name, err) < 0)
		return NULL;
	for (unsigned i = n_name; i < a.n_words; i++)
		behind[i - n_name] = a.word[i];
	req = json_object();
	if (c->cmd != NULL)
		json_object_set_new(req, "cmd", json_string(c->cmd));
	if (c->build != NULL && c->build(req, &a, behind, err) < 0) {
		json_decref(req);
		return NULL;
	}
	return req;
}

static const struct {
	const char *words[WORDS];
	const char *want; /* request */
	const char *error; /* or a part of the message */
} rows[] = {
	{{"devices"}, "{\"cmd\":\"devices\"}", NULL},
	{{"--json", "devices"}, "{\"cmd\":\"devices\"}", NULL},
	{{"devices", "--agent", "/x"}, "{\"cmd\":\"devices\"}", NULL},
	{{"enrol", "spiffe://p/c/1"},
	 "{\"cmd\":\"enrol\",\"device\":\"spiffe://p/c/1\",\"kind\":\"uri\"}",
	 NULL},
	{{"enrol", "cam.plant.example"},
	 "{\"cmd\":\"enrol\",\"device\":\"cam.plant.example\",\"kind\":\"dns\"}",
	 NULL},
	{{"enrol", "Camera 1.2"},
	 "{\"cmd\":\"enrol\",\"device\":\"Camera 1.2\",\"kind\":\"cn\"}",
	 NULL},
	{{"enrol", "camera"}, "{\"cmd\":\"enrol\",\"device\":\"camera\",\"kind\":\"cn\"}", NULL},
	{{"enrol", "camera", "--dns"},
	 "{\"cmd\":\"enrol\",\"device\":\"camera\",\"kind\":\"dns\"}",
	 NULL},
	{{"enrol", "a.b", "--cn"}, "{\"cmd\":\"enrol\",\"device\":\"a.b\",\"kind\":\"cn\"}", NULL},
	{{"enrol", "--", "--odd"},
	 "{\"cmd\":\"enrol\",\"device\":\"--odd\",\"kind\":\"cn\"}",
	 NULL},
	{{"enrol", "camera", "--cert", UPPER},
	 "{\"cmd\":\"enrol\",\"device\":\"camera\",\"kind\":\"cn\",\"cert_sha256\":\"sha256:" HEX
	 "\"}",
	 NULL},
	{{"revoke", "camera", "--reason=stolen"},
	 "{\"cmd\":\"revoke\",\"device\":\"camera\",\"kind\":\"cn\",\"reason\":\"stolen\"}",
	 NULL},
	{{"revoke", "--issuer", HEX, "--serial", "01af"},
	 "{\"cmd\":\"revoke\",\"issuer_sha256\":\"sha256:" HEX "\",\"serial\":\"01af\"}",
	 NULL},
	{{"software", "certify", "--digest", HEX, "--name", "fw", "--version", "4.2", "--for",
	  "90d"},
	 "{\"cmd\":\"software_certify\",\"digest\":\"sha256:" HEX
	 "\",\"name\":\"fw\",\"version\":\"4.2\",\"for_s\":7776000}",
	 NULL},
	{{"software", "revoke", "sha256:" HEX},
	 "{\"cmd\":\"software_revoke\",\"digest\":\"sha256:" HEX "\"}",
	 NULL},
	{{"attest", "camera", "--digest", HEX, "--tier", "affirming", "--for", "10m"},
	 "{\"cmd\":\"attest\",\"device\":\"camera\",\"kind\":\"cn\",\"digest\":\"sha256:" HEX
	 "\",\"tier\":\"affirming\",\"for_s\":600}",
	 NULL},
	{{"why", "camera"}, "{\"cmd\":\"why\",\"device\":\"camera\"}", NULL},
	{{"why", "10.1.0.5", "10.20.0.10", "tcp/554", "--sport", "40000"},
	 "{\"cmd\":\"why\",\"src\":\"10.1.0.5\",\"dst\":\"10.20.0.10\",\"proto\":\"tcp\",\"dport\":"
	 "554,"
	 "\"sport\":40000}",
	 NULL},
	{{"why", "a", "b", "ping"},
	 "{\"cmd\":\"why\",\"src\":\"a\",\"dst\":\"b\",\"proto\":\"icmp\"}",
	 NULL},
	{{"flows", "--segment", "cams", "--state", "refused", "--top", "5", "--by", "packets"},
	 "{\"cmd\":\"flows\",\"segment\":\"cams\",\"state\":\"refused\",\"by\":\"packets\",\"top\":"
	 "5}",
	 NULL},
	{{"flows", "--device", "camera", "--limit", "5"},
	 "{\"cmd\":\"flows\",\"device\":\"camera\",\"limit\":5}",
	 NULL},
	{{"log", "--after", "3", "--at", "controller"}, "{\"cmd\":\"log\",\"after\":3}", NULL},
	{{"policy", "check", "f"}, "{}", NULL},
	{{"policy", "apply", "f"}, "{\"cmd\":\"policy_apply\"}", NULL},

	{{"dance"}, NULL, "no such command"},
	{{"software"}, NULL, "no such command"},
	{{"software", "dance"}, NULL, "no such command"},
	{{"devices", "--frob"}, NULL, "unknown option --frob"},
	{{"devices", "-x"}, NULL, "unknown option -x"},
	{{"devices", "more"}, NULL, "one argument too many: more"},
	{{"devices", "--reason", "x"}, NULL, "devices has no option --reason"},
	{{"devices", "--json", "--json"}, NULL, "--json is given twice"},
	{{"devices", "--json=yes"}, NULL, "--json takes no value"},
	{{"devices", "--agent"}, NULL, "--agent needs a value"},
	{{"devices", "--agent="}, NULL, "--agent needs a value"},
	{{"enrol"}, NULL, "an argument is missing"},
	{{"enrol", "a", "--dns", "--cn"}, NULL, "only one of"},
	{{"enrol", ""}, NULL, "1 to 255 bytes"},
	{{"enrol", "\xff"}, NULL, "UTF-8"},
	{{"enrol", "a", "--cert", "abc"}, NULL, "not sha256:"},
	{{"enrol", "a", "--cert", HEX "00"}, NULL, "not sha256:"},
	{{"revoke"}, NULL, "name a device"},
	{{"software", "certify", "--name", "x"}, NULL, "--digest is missing"},
	{{"attest", "a", "--digest", HEX, "--tier", "affirming"}, NULL, "--for is missing"},
	{{"attest", "a", "--digest", HEX, "--tier", "affirming", "--for", "10"},
	 NULL,
	 "not a duration"},
	{{"attest", "a", "--digest", HEX, "--tier", "affirming", "--for", "0m"},
	 NULL,
	 "not a duration"},
	{{"attest", "a", "--digest", HEX, "--tier", "affirming", "--for", "-1m"},
	 NULL,
	 "not a duration"},
	{{"attest", "a", "--digest", HEX, "--tier", "affirming", "--for", "99999999999d"},
	 NULL,
	 "not a duration"},
	{{"why", "a", "b"}, NULL, "a flow is SRC DST SERVICE"},
	{{"why", "a", "--sport", "1"}, NULL, "--sport is of a flow"},
	{{"why", "a", "b", "tcp"}, NULL, "a port is missing"},
	{{"why", "a", "b", "tcp/70000"}, NULL, "not a number"},
	{{"why", "a", "b", "sctp/1"}, NULL, "not a service"},
	{{"log", "--at", "moon"}, NULL, "--at is gateway or controller"},
	{{"flows", "--by", "bytes"}, NULL, "--by is for --top N"},
	{{"flows", "--top", "5", "--by", "age"}, NULL, "--by is packets or bytes"},
	{{"flows", "--top", "5000"}, NULL, "not a number"},
	{{"flows", "-n"}, NULL, "--number needs a value"},
	{{"flows", "-n", "5"}, NULL, "flows has no option --number"},
	{{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "0", "1", "2",
	  "3", "4", "5", "6", "7", "8", "9", "0", "1", "2", "3", "4"},
	 NULL,
	 "too many arguments"},
};

static void lines_become_requests_or_say_what_is_wrong(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct err err = {0};
		json_t *req = request(rows[i].words, &err);
		char *text = req != NULL ? json_dumps(req, JSON_COMPACT) : NULL;

		if (rows[i].want != NULL && (text == NULL || strcmp(text, rows[i].want) != 0))
			fail_msg("row %zu (%s): %s %s", i, rows[i].words[0],
				 text != NULL ? text : "", err.msg);
		if (rows[i].error != NULL &&
		    (text != NULL || strstr(err.msg, rows[i].error) == NULL))
			fail_msg("row %zu (%s): %s", i, rows[i].words[0],
				 text != NULL ? text : err.msg);
		free(text);
		json_decref(req);
	}
}

static void every_command_has_help_with_an_example_that_parses(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ctl_n_commands; i++) {
		const struct ctl_command *c = &ctl_commands[i];
		char *text = NULL;
		size_t bytes;
		FILE *f = open_memstream(&text, &bytes);

		assert_true((c->cmd != NULL) == (c->peer != PEER_NONE));
		assert_true(c->cmd == NULL || c->show != NULL);
		ctl_help_command(c, f);
		fclose(f);
		assert_non_null(strstr(text, c->what));
		assert_int_equal(strncmp(c->example, "sallyctl ", 9), 0);
		assert_int_equal(strncmp(c->example + 9, c->name, strlen(c->name)), 0);
		free(text);
	}
}

static const struct {
	const char *name, *response, *want;
	int exit;
} receipts[] = {
	{"in force",
	 "{\"ok\":true,\"revision\":12,\"receipts\":[{\"gateway\":\"gw1\",\"result\":0,\"text\":"
	 "\"\",\"in_force_us\":412,"
	 "\"sessions_closed\":1,\"flows_closed\":2,\"untracked\":0}]}",
	 "revision 12 in force on gw1 in 412 µs: 1 session and 2 flows closed, 0 untracked\n",
	 CTL_OK},
	{"not in force",
	 "{\"ok\":true,\"revision\":12,\"receipts\":[{\"gateway\":\"gw1\",\"result\":-22,\"text\":"
	 "\"segments.cfg:3: bad\"}]}",
	 "revision 12 NOT in force on gw1: segments.cfg:3: bad\n", CTL_REFUSED},
	{"nobody there",
	 "{\"ok\":true,\"revision\":3,\"receipts\":[],\"missing\":[],\"warning\":\"no gateway\"}",
	 "revision 3 is signed and in the log; no gateway\n", CTL_OK},
	{"no receipt",
	 "{\"ok\":true,\"revision\":3,\"receipts\":[],\"missing\":[\"gw1\"],\"warning\":\"gw1: no "
	 "receipt in time\"}",
	 "revision 3 is signed and in the log; gw1: no receipt in time\n", CTL_REFUSED},
	{"an escape sequence in a name",
	 "{\"ok\":true,\"revision\":1,\"receipts\":[{\"gateway\":\"a\\u001b[2J\\u009b\",\"result\":"
	 "-1,\"text\":\"x\"}]}",
	 "revision 1 NOT in force on a?[2J??: x\n", CTL_REFUSED},
};

static void receipts_read_as_a_sentence(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(receipts) / sizeof(receipts[0]); i++) {
		json_t *r = json_loads(receipts[i].response, 0, NULL);
		char *text = NULL;
		size_t bytes;
		FILE *f = open_memstream(&text, &bytes);
		int ret = show_receipts(r, f);

		fclose(f);
		if (ret != receipts[i].exit || strcmp(text, receipts[i].want) != 0)
			fail_msg("%s: exit %d: %s", receipts[i].name, ret, text);
		free(text);
		json_decref(r);
	}
}

/* Whatever a daemon of another version answers, printing it does not fail. */
static void tables_take_any_answer(void **state)
{
	static const char *const answers[] = {
		"{}",
		"{\"devices\":5,\"flows\":\"x\",\"entries\":{},\"segments\":[1,null,{}],\"rules\":["
		"[]],\"lines\":[7]}",
		"{\"devices\":[{}],\"bindings\":[{}],\"flows\":[{}],\"entries\":[{},{\"receipts\":["
		"{},{}]}],"
		"\"software\":[{}],\"alarms\":[{}],\"dataplane\":{\"connected\":true,\"ports\":[{}]"
		"}}",
	};
	int (*const shows[])(const json_t *, FILE *) = {show_status,   show_devices, show_bindings,
							show_segments, show_flows,   show_why,
							show_log,      show_state};

	(void)state;
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		json_t *r = json_loads(answers[i], 0, NULL);

		assert_non_null(r);
		for (size_t k = 0; k < sizeof(shows) / sizeof(shows[0]); k++) {
			char *text = NULL;
			size_t bytes;
			FILE *f = open_memstream(&text, &bytes);

			assert_int_equal(shows[k](r, f), CTL_OK);
			fclose(f);
			assert_true(bytes > 0);
			free(text);
		}
		json_decref(r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_become_requests_or_say_what_is_wrong),
		cmocka_unit_test(every_command_has_help_with_an_example_that_parses),
		cmocka_unit_test(receipts_read_as_a_sentence),
		cmocka_unit_test(tables_take_any_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
