/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/ctl/policy_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "config/segments.h"
#include "controlplane/ctl/show.h"
#include "controlplane/ctl/table.h"

#define POLICY_MAX_BYTES (512u * 1024)

/* @return text from malloc; NULL with the reason in err */
static char *read_file(const char *path, struct err *err)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t n;

	if (f == NULL) {
		err_set(err, -errno, "%s: %s", path, strerror(errno));
		return NULL;
	}
	text = malloc(POLICY_MAX_BYTES + 2);
	if (text == NULL) {
		err_set(err, -ENOMEM, "out of memory");
		goto out;
	}
	n = fread(text, 1, POLICY_MAX_BYTES + 1, f);
	if (ferror(f) || n > POLICY_MAX_BYTES || memchr(text, '\0', n) != NULL) {
		err_set(err, -EINVAL, "%s: %s", path,
			ferror(f)	       ? strerror(errno)
			: n > POLICY_MAX_BYTES ? "too large"
					       : "not a text");
		free(text);
		text = NULL;
		goto out;
	}
	text[n] = '\0';
out:
	fclose(f);
	return text;
}

static void report(const struct args *a, const char *file, const struct config_errors *errs,
		   const char *good, FILE *to)
{
	json_t *obj, *lines;

	if (a->given & OPT_BIT(OPT_JSON)) {
		lines = json_array();
		for (uint32_t i = 0; i < errs->n; i++)
			json_array_append_new(lines, json_string(errs->line[i]));
		obj = json_pack("{s:b, s:s, s:o}", "ok", errs->n == 0, "file", file, "errors",
				lines);
		json_dumpf(obj, to, JSON_COMPACT);
		fputc('\n', to);
		json_decref(obj);
		return;
	}
	for (uint32_t i = 0; i < errs->n; i++) {
		print_clean(to, errs->line[i]);
		fputc('\n', to);
	}
	if (errs->more > 0)
		fprintf(to, "and %u more errors\n", errs->more);
	if (errs->n == 0)
		fprintf(to, "%s: %s\n", file, good);
}

static int check(const char *text, const char *file, struct config_errors *errs, char *good,
		 size_t good_bytes)
{
	struct segments *seg = NULL;
	int ret = segments_check(&seg, text, file, errs);

	if (ret == 0)
		snprintf(good, good_bytes, "good: %u segments, %u networks, %u rules",
			 seg->n_segments, seg->n_networks, seg->n_rules);
	else if (errs->n == 0)
		config_error(errs, file, 0, "policy", "%s", strerror(-ret));
	segments_free(seg);
	return ret == 0 ? CTL_OK : CTL_POLICY;
}

/* On success *text is the file's text, the caller's to free. */
static int load_checked(const struct args *a, const char *path, const char *name, bool say_good,
			char **text, FILE *to)
{
	struct config_errors *errs = calloc(1, sizeof(*errs));
	struct err err = {0};
	char good[128] = "";
	int ret;

	if (errs == NULL)
		return CTL_REFUSED;
	*text = read_file(path, &err);
	if (*text == NULL) {
		fprintf(stderr, "sallyctl: %s\n", err.msg);
		free(errs);
		return CTL_POLICY;
	}
	ret = check(*text, name, errs, good, sizeof(good));
	if (ret != CTL_OK || say_good)
		report(a, name, errs, good, to);
	if (ret != CTL_OK) {
		free(*text);
		*text = NULL;
	}
	free(errs);
	return ret;
}

static void limit_print(const char *what, const char *name, const struct policy_limits *l, FILE *to)
{
	char text[RATE_TEXT_BYTES];

	if (limits_text(l, text)[0] != '\0')
		fprintf(to, "  %s %s: %s\n", what, name, text);
}

/* What the text limits, in the words of `sallyctl segments`. It has passed its check. */
static void limits_print(const char *text, const char *name, FILE *to)
{
	struct config_errors *errs = calloc(1, sizeof(*errs));
	struct segments *s = NULL;

	if (errs == NULL || segments_parse(&s, text, name, errs) < 0)
		goto out;
	for (uint32_t i = 0; i < s->n_segments; i++) {
		struct policy_limits l = {0};

		segment_limits(&l, &s->segments[i]);
		limit_print("each member of", s->segments[i].name, &l, to);
	}
	for (uint32_t i = 0; i < s->n_rules; i++) {
		struct policy_limits l = {0};

		rate_limits(&l, &s->rules[i].rate, s->rules[i].burst_ms);
		limit_print("rule", s->rules[i].name, &l, to);
	}
out:
	segments_free(s);
	free(errs);
}

int policy_check_run(json_t *req, const struct args *a, const char *const *word, FILE *to)
{
	char *text;
	int ret = load_checked(a, word[0], word[0], true, &text, to);

	(void)req;
	if (ret != CTL_OK)
		return ret;
	if ((a->given & OPT_BIT(OPT_JSON)) == 0)
		limits_print(text, word[0], to);
	free(text);
	return CTL_OK;
}

int policy_apply_run(json_t *req, const struct args *a, const char *const *word, FILE *to)
{
	const char *slash = strrchr(word[0], '/'), *name = slash != NULL ? slash + 1 : word[0];
	char *text;
	int ret = load_checked(a, word[0], name, false, &text, to);

	if (ret != CTL_OK)
		return ret;
	if (json_object_set_new(req, "file", json_string(name)) < 0 ||
	    json_object_set_new(req, "text", json_string(text)) < 0) {
		fprintf(stderr, "sallyctl: %s: not UTF-8 text\n", word[0]);
		ret = CTL_POLICY;
	}
	free(text);
	return ret;
}
