/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/ctl/trace.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "controlplane/ctl/ask.h"
#include "controlplane/ctl/show.h"
#include "controlplane/ctl/table.h"

#define POLL_MS 200
#define COUNT_MAX 1000
#define FOR_MAX_S 600

static volatile sig_atomic_t stopped;

static void on_signal(int sig)
{
	(void)sig;
	stopped = 1;
}

/* ---- filter ---- */

static int put_text(json_t *f, const char *key, const char *text, struct err *err)
{
	if (json_object_get(f, key) != NULL)
		return err_set(err, -EINVAL, "%s is given twice", key);
	return json_object_set_new(f, key, json_string(text)) < 0
		       ? err_set(err, -EINVAL, "%s: is not UTF-8 text", key)
		       : 0;
}

static int put_number(json_t *f, const char *key, const char *text, struct err *err)
{
	if (json_object_get(f, key) != NULL)
		return err_set(err, -EINVAL, "%s is given twice", key);
	return args_number(f, key, text, 0, 65535, err);
}

static int put_word(json_t *f, const char *const *word, unsigned *used, struct err *err)
{
	static const char *const texts[] = {"src",    "dst",  "host",  "proto",
					    "device", "port", "reason"};
	static const char *const numbers[] = {"sport", "dport", "vlan"};

	*used = 1;
	if (strcmp(word[0], "drop") == 0)
		return json_object_set_new(f, "drop", json_true());
	if (strncmp(word[0], "tcp/", 4) == 0 || strncmp(word[0], "udp/", 4) == 0) {
		char proto[4] = {word[0][0], word[0][1], word[0][2], '\0'};
		int ret = put_text(f, "proto", proto, err);

		return ret < 0 ? ret : put_number(f, "dport", word[0] + 4, err);
	}
	*used = 2;
	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (strcmp(word[0], texts[i]) == 0)
			return word[1] != NULL ? put_text(f, word[0], word[1], err)
					       : err_set(err, -EINVAL, "%s needs a value", word[0]);
	}
	for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (strcmp(word[0], numbers[i]) == 0)
			return word[1] != NULL ? put_number(f, word[0], word[1], err)
					       : err_set(err, -EINVAL, "%s needs a value", word[0]);
	}
	return err_set(err, -EINVAL,
		       "\"%.64s\" is no part of a filter: there are src, dst, host, proto, sport, "
		       "dport, tcp/N, udp/N, device, port, vlan, drop and reason",
		       word[0]);
}

int trace_filter_words(json_t **out, const char *const *word, struct err *err)
{
	json_t *f = json_object();
	unsigned used;

	for (; *word != NULL; word += used) {
		int ret = put_word(f, word, &used, err);

		if (ret < 0) {
			json_decref(f);
			return -EINVAL;
		}
	}
	*out = f;
	return 0;
}

/* ---- print ---- */

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text != NULL ? text : "-";
}

void trace_print(const json_t *packet, unsigned number, FILE *to)
{
	long long at_ms = json_integer_value(json_object_get(packet, "at_ms"));
	time_t s = at_ms / 1000;
	char when[40] = "-";
	struct tm tm;
	size_t i;
	json_t *stage;

	if (gmtime_r(&s, &tm) != NULL)
		strftime(when, sizeof(when), "%H:%M:%S", &tm);
	fprintf(to, "%spacket %u at %s.%03lldZ\n", number > 1 ? "\n" : "", number, when,
		at_ms % 1000);
	json_array_foreach(json_object_get(packet, "stages"), i, stage) {
		fprintf(to, "  %-10s ", text_of(stage, "stage"));
		print_clean(to, text_of(stage, "text"));
		fputc('\n', to);
	}
}

/* ---- the command ---- */

static int build(json_t *req, const struct args *a, const char *const *word, struct err *err)
{
	json_t *filter = NULL, *seconds = json_object();
	int ret = trace_filter_words(&filter, word, err);

	json_object_set_new(req, "cmd", json_string("trace_start"));
	if (ret == 0)
		json_object_set_new(req, "filter", filter);
	if (ret == 0 && a->value[OPT_NUMBER] != NULL)
		ret = args_number(req, "count", a->value[OPT_NUMBER], 1, COUNT_MAX, err);
	if (ret == 0 && a->value[OPT_FOR] != NULL)
		ret = args_duration(seconds, "s", a->value[OPT_FOR], err);
	if (ret == 0 && a->value[OPT_FOR] != NULL) {
		json_int_t s = json_integer_value(json_object_get(seconds, "s"));

		if (s < 1 || s > FOR_MAX_S)
			ret = err_set(err, -EINVAL, "--for: 1s to %ds", FOR_MAX_S);
		else
			json_object_set_new(req, "for_ms", json_integer(s * 1000));
	}
	json_decref(seconds);
	return ret;
}

static void print_packets(const json_t *list, const struct args *a, unsigned *n, FILE *to)
{
	size_t i;
	json_t *p;

	json_array_foreach((json_t *)list, i, p) {
		++*n;
		if (a->given & OPT_BIT(OPT_JSON)) {
			json_dumpf(p, to, JSON_COMPACT);
			fputc('\n', to);
		} else {
			trace_print(p, *n, to);
		}
	}
	fflush(to);
}

/* @return exit code */
static int follow(const struct args *a, json_int_t id, unsigned *n, FILE *to)
{
	const struct timespec wait = {.tv_nsec = POLL_MS * 1000000l};
	json_t *req = json_pack("{s:s,s:I,s:i}", "cmd", "trace_poll", "id", id, "after", 0);
	bool done = false;
	int ret = CTL_OK;

	while (!done && !stopped && ret == CTL_OK) {
		json_t *r;

		nanosleep(&wait, NULL);
		ret = ctl_ask_good(a, PEER_AGENT, req, "trace", &r);
		if (ret != CTL_OK)
			break;
		print_packets(json_object_get(r, "packets"), a, n, to);
		json_object_set(req, "after", json_object_get(r, "next"));
		done = json_is_true(json_object_get(r, "done"));
		json_decref(r);
	}
	if (ret == CTL_OK) {
		json_t *r = NULL;

		json_object_set_new(req, "cmd", json_string("trace_stop"));
		(void)ctl_ask(a, PEER_AGENT, req, &r); /* else it ends by itself */
		json_decref(r);
	}
	json_decref(req);
	return ret;
}

int trace_run(json_t *req, const struct args *a, const char *const *word, FILE *to)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct err err = {""};
	unsigned n = 0;
	json_t *r;
	int ret;

	if (build(req, a, word, &err) < 0) {
		fputs("sallyctl trace: ", stderr);
		print_clean(stderr, err.msg);
		fputs("\ntry: sallyctl trace --help\n", stderr);
		return CTL_USAGE;
	}
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	ret = ctl_ask_good(a, PEER_AGENT, req, "trace", &r);
	if (ret != CTL_OK)
		return ret;
	fputs("tracing; ends by itself, or with Ctrl-C\n", stderr);
	ret = follow(a, json_integer_value(json_object_get(r, "id")), &n, to);
	json_decref(r);
	if (ret == CTL_OK && n == 0) {
		fputs("sallyctl trace: no packet fitted\n", stderr);
		return CTL_REFUSED;
	}
	return ret;
}
