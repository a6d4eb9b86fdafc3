/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/ctl/args.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	bool takes_value;
} options[OPT_COUNT] = {
	[OPT_JSON] = {"json", false},
	[OPT_AGENT] = {"agent", true},
	[OPT_CONTROLLER] = {"controller", true},
	[OPT_TIMEOUT] = {"timeout", true},
	[OPT_HELP] = {"help", false},
	[OPT_VERSION] = {"version", true},
	[OPT_URI] = {"uri", false},
	[OPT_DNS] = {"dns", false},
	[OPT_CN] = {"cn", false},
	[OPT_REASON] = {"reason", true},
	[OPT_CERT] = {"cert", true},
	[OPT_ISSUER] = {"issuer", true},
	[OPT_SERIAL] = {"serial", true},
	[OPT_DIGEST] = {"digest", true},
	[OPT_TIER] = {"tier", true},
	[OPT_FOR] = {"for", true},
	[OPT_NAME] = {"name", true},
	[OPT_SPORT] = {"sport", true},
	[OPT_DEVICE] = {"device", true},
	[OPT_LIMIT] = {"limit", true},
	[OPT_AFTER] = {"after", true},
	[OPT_AT] = {"at", true},
	[OPT_SEGMENT] = {"segment", true},
	[OPT_RULE] = {"rule", true},
	[OPT_STATE] = {"state", true},
	[OPT_TOP] = {"top", true},
	[OPT_BY] = {"by", true},
	[OPT_RATE] = {"rate", false},
	[OPT_ONCE] = {"once", false},
	[OPT_NUMBER] = {"number", true},
};

const char *args_option_name(enum args_option opt)
{
	return options[opt].name;
}

static int find_option(const char *text, size_t len)
{
	for (int i = 0; i < OPT_COUNT; i++) {
		if (strlen(options[i].name) == len && memcmp(options[i].name, text, len) == 0)
			return i;
	}
	return -1;
}

/* @return arguments used, or -EINVAL */
static int take_option(struct args *a, int left, char **argv, struct err *err)
{
	bool is_short = strcmp(argv[0], "-n") == 0;
	const char *text = is_short ? options[OPT_NUMBER].name : argv[0] + 2;
	const char *eq = strchr(text, '=');
	size_t len = eq != NULL ? (size_t)(eq - text) : strlen(text);
	int opt = find_option(text, len);
	bool takes_value;

	if (opt < 0)
		return err_set(err, -EINVAL, "unknown option %s", argv[0]);
	if (a->given & OPT_BIT(opt))
		return err_set(err, -EINVAL, "--%s is given twice", options[opt].name);
	takes_value = options[opt].takes_value && (opt != OPT_VERSION || a->n_words > 0);
	if (!takes_value && eq != NULL)
		return err_set(err, -EINVAL, "--%s takes no value", options[opt].name);
	a->given |= OPT_BIT(opt);
	if (!takes_value)
		return 1;
	if (eq == NULL && left < 2)
		return err_set(err, -EINVAL, "--%s needs a value", options[opt].name);
	a->value[opt] = eq != NULL ? eq + 1 : argv[1];
	if (a->value[opt][0] == '\0')
		return err_set(err, -EINVAL, "--%s needs a value", options[opt].name);
	return eq != NULL ? 1 : 2;
}

int args_parse(struct args *out, int argc, char **argv, struct err *err)
{
	bool only_words = false;

	memset(out, 0, sizeof(*out));
	for (int i = 1; i < argc;) {
		if (!only_words && strcmp(argv[i], "--") == 0) {
			only_words = true;
			i++;
		} else if (!only_words && strcmp(argv[i], "-h") == 0) {
			out->given |= OPT_BIT(OPT_HELP);
			i++;
		} else if (!only_words &&
			   (strncmp(argv[i], "--", 2) == 0 || strcmp(argv[i], "-n") == 0)) {
			int n = take_option(out, argc - i, argv + i, err);

			if (n < 0)
				return n;
			i += n;
		} else if (!only_words && argv[i][0] == '-' && argv[i][1] != '\0') {
			return err_set(err, -EINVAL, "unknown option %s", argv[i]);
		} else if (out->n_words == ARGS_WORDS_MAX) {
			return err_set(err, -EINVAL, "too many arguments");
		} else {
			out->word[out->n_words++] = argv[i++];
		}
	}
	return 0;
}

/* RFC 3986 section 3.1, then "://". */
static bool looks_like_uri(const char *name)
{
	const char *p = name;

	if (!isalpha((unsigned char)*p))
		return false;
	while (isalnum((unsigned char)*p) || *p == '+' || *p == '-' || *p == '.')
		p++;
	return strncmp(p, "://", 3) == 0;
}

int args_device(json_t *req, const char *name, const struct args *a, struct err *err)
{
	unsigned forced = !!(a->given & OPT_BIT(OPT_URI)) + !!(a->given & OPT_BIT(OPT_DNS)) +
			  !!(a->given & OPT_BIT(OPT_CN));
	const char *kind;

	if (forced > 1)
		return err_set(err, -EINVAL, "only one of --uri, --dns, --cn");
	if (name[0] == '\0' || strlen(name) > 255)
		return err_set(err, -EINVAL, "a device's name has 1 to 255 bytes");
	if (a->given & OPT_BIT(OPT_URI))
		kind = "uri";
	else if (a->given & OPT_BIT(OPT_DNS))
		kind = "dns";
	else if (a->given & OPT_BIT(OPT_CN))
		kind = "cn";
	else if (looks_like_uri(name))
		kind = "uri";
	else
		kind = strchr(name, '.') != NULL && strchr(name, ' ') == NULL ? "dns" : "cn";
	if (json_object_set_new(req, "device", json_string(name)) < 0)
		return err_set(err, -EINVAL, "a device's name is UTF-8 text");
	json_object_set_new(req, "kind", json_string(kind));
	return 0;
}

int args_digest(json_t *req, const char *key, const char *text, struct err *err)
{
	char out[72] = "sha256:";
	const char *hex = strncasecmp(text, "sha256:", 7) == 0 ? text + 7 : text;
	size_t i;

	for (i = 0; i < 64 && isxdigit((unsigned char)hex[i]); i++)
		out[7 + i] = (char)tolower((unsigned char)hex[i]);
	if (i != 64 || hex[64] != '\0')
		return err_set(err, -EINVAL, "not sha256:<64 hex digits>: %s", text);
	out[71] = '\0';
	json_object_set_new(req, key, json_string(out));
	return 0;
}

int args_number(json_t *req, const char *key, const char *text, uint64_t lo, uint64_t hi,
		struct err *err)
{
	unsigned long long v;
	char *end;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno != 0 || !isdigit((unsigned char)text[0]) || *end != '\0' || v < lo || v > hi)
		return err_set(err, -EINVAL, "not a number from %llu to %llu: %s",
			       (unsigned long long)lo, (unsigned long long)hi, text);
	json_object_set_new(req, key, json_integer((json_int_t)v));
	return 0;
}

int args_duration(json_t *req, const char *key, const char *text, struct err *err)
{
	static const struct {
		char unit;
		uint64_t s;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	size_t n = strlen(text);
	char digits[12];

	if (n < 2 || n > sizeof(digits))
		return err_set(err, -EINVAL, "not a duration like 90s, 10m, 12h, 30d: %s", text);
	memcpy(digits, text, n - 1);
	digits[n - 1] = '\0';
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (text[n - 1] != units[i].unit)
			continue;
		if (args_number(req, key, digits, 1, 36600ull * 86400 / units[i].s, err) < 0)
			break;
		json_object_set_new(req, key,
				    json_integer(json_integer_value(json_object_get(req, key)) *
						 (json_int_t)units[i].s));
		return 0;
	}
	return err_set(err, -EINVAL, "not a duration like 90s, 10m, 12h, 30d: %s", text);
}

int args_service(json_t *req, const char *text, struct err *err)
{
	static const struct {
		const char *word, *proto;
		bool ports;
	} protos[] = {{"tcp", "tcp", true},
		      {"udp", "udp", true},
		      {"icmp", "icmp", false},
		      {"ping", "icmp", false}};
	const char *slash = strchr(text, '/');
	size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);

	for (size_t i = 0; i < sizeof(protos) / sizeof(protos[0]); i++) {
		if (strlen(protos[i].word) != len || memcmp(protos[i].word, text, len) != 0)
			continue;
		if (protos[i].ports && slash == NULL)
			return err_set(err, -EINVAL, "a port is missing: %s/PORT", text);
		json_object_set_new(req, "proto", json_string(protos[i].proto));
		if (slash == NULL)
			return 0;
		return args_number(req, "dport", slash + 1, 0, protos[i].ports ? 65535 : 255, err);
	}
	return err_set(err, -EINVAL, "not a service like tcp/554, udp/53, ping, icmp/8: %s", text);
}
