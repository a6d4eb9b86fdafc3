/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/schema.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/addr.h"

#define FILE_BYTES_MAX (4u << 20)
#define KEY_PATH_BYTES 128
#define KEY_NAME_BYTES 40 /* of it, for the last part */

struct walk {
	const char *file;
	struct config_errors *errs;
	int ret; /* 0 until the first error */
};

int config_error(struct config_errors *errs, const char *file, unsigned line, const char *key,
		 const char *fmt, ...)
{
	char why[160];
	va_list ap;

	if (errs->n >= CONFIG_ERRORS_MAX) {
		errs->more++;
		return -EINVAL;
	}
	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	if (line == 0)
		snprintf(errs->line[errs->n], sizeof(errs->line[0]), "%.80s: %s%s%s", file, key,
			 key[0] != '\0' ? ": " : "", why);
	else
		snprintf(errs->line[errs->n], sizeof(errs->line[0]), "%.80s:%u: %s%s%s", file, line,
			 key, key[0] != '\0' ? ": " : "", why);
	errs->n++;
	return -EINVAL;
}

int config_error_whole(struct config_errors *errs, const char *line)
{
	if (errs->n >= CONFIG_ERRORS_MAX)
		errs->more++;
	else
		snprintf(errs->line[errs->n++], sizeof(errs->line[0]), "%.255s", line);
	return -EINVAL;
}

static void put_uint(void *at, size_t bytes, uint64_t v)
{
	uint8_t v8 = v;
	uint16_t v16 = v;
	uint32_t v32 = v;

	switch (bytes) {
	case 1:
		memcpy(at, &v8, 1);
		break;
	case 2:
		memcpy(at, &v16, 2);
		break;
	case 4:
		memcpy(at, &v32, 4);
		break;
	case 8:
		memcpy(at, &v, 8);
		break;
	}
}

static bool choice_find(const struct key_choice *choices, const char *word, uint32_t *value)
{
	for (; choices->word != NULL; choices++) {
		if (strcmp(choices->word, word) == 0) {
			*value = choices->value;
			return true;
		}
	}
	return false;
}

static const char *choice_words(const struct key_choice *choices, char *out, size_t bytes)
{
	size_t n = 0;

	out[0] = '\0';
	for (; choices->word != NULL && n < bytes; choices++)
		n += snprintf(out + n, bytes - n, "%s\"%s\"", n > 0 ? ", " : "", choices->word);
	return out;
}

static bool name_valid(const char *s)
{
	if (!isalnum((unsigned char)*s))
		return false;
	for (; *s != '\0'; s++) {
		if (!isalnum((unsigned char)*s) && *s != '-' && *s != '_')
			return false;
	}
	return true;
}

/* Convert one text to a key's place. The same for a value in the file and for the table's default. */
static int put_text(void *at, const struct schema_key *k, const char *text, char *why,
		    size_t why_bytes)
{
	char words[128];
	uint32_t v;

	switch (k->type) {
	case KEY_NAME:
		if (text[0] != '\0' && !name_valid(text)) {
			snprintf(why, why_bytes,
				 "\"%.40s\" is not a name (letters, digits, - and _)", text);
			return -EINVAL;
		}
		/* fall through */
	case KEY_STRING:
		if (strlen(text) >= k->bytes) {
			snprintf(why, why_bytes, "longer than %zu bytes", k->bytes - 1);
			return -EINVAL;
		}
		strcpy(at, text);
		return 0;
	case KEY_ADDR:
		if (text[0] == '\0')
			return 0;
		if (ip_addr_parse(at, text) < 0) {
			snprintf(why, why_bytes, "\"%.60s\" is not an IP address", text);
			return -EINVAL;
		}
		return 0;
	case KEY_CHOICE:
		if (!choice_find(k->choices, text, &v)) {
			snprintf(why, why_bytes, "\"%.40s\" is none of %s", text,
				 choice_words(k->choices, words, sizeof(words)));
			return -EINVAL;
		}
		put_uint(at, k->bytes, v);
		return 0;
	default:
		snprintf(why, why_bytes, "not a text");
		return -EINVAL;
	}
}

/* Words of a default, with spaces between them. */
static uint32_t flags_default(const struct schema_key *k)
{
	uint32_t all = 0, v;
	char word[32];
	size_t n;

	for (const char *p = k->def; *p != '\0'; p += n + strspn(p + n, " ")) {
		n = strcspn(p, " ");
		snprintf(word, sizeof(word), "%.*s", (int)n, p);
		if (choice_find(k->choices, word, &v))
			all |= v;
	}
	return all;
}

static void put_default(void *at, const struct schema_key *k)
{
	const char *reason;
	char why[160];

	switch (k->type) {
	case KEY_UINT:
		put_uint(at, k->bytes, strtoull(k->def, NULL, 10));
		break;
	case KEY_BOOL:
		*(bool *)at = strcmp(k->def, "true") == 0;
		break;
	case KEY_STRING:
	case KEY_NAME:
	case KEY_ADDR:
	case KEY_CHOICE:
		put_text(at, k, k->def, why, sizeof(why));
		break;
	case KEY_EACH: /* offset 0: at is the parent */
		(void)k->each(at, k->def, &reason);
		break;
	case KEY_FLAGS:
		put_uint(at, sizeof(uint32_t), flags_default(k));
		break;
	default:
		break;
	}
}

/* "path.name", both cut to what a message can bear. Keys are many, so this does without printf. */
static void path_join(char out[static KEY_PATH_BYTES], const char *path, const char *name)
{
	size_t p = strnlen(path, KEY_PATH_BYTES - KEY_NAME_BYTES - 2);
	size_t n = strnlen(name, KEY_NAME_BYTES);

	memcpy(out, path, p);
	if (p > 0)
		out[p++] = '.';
	memcpy(out + p, name, n);
	out[p + n] = '\0';
}

static void complain(struct walk *w, const config_setting_t *s, const char *path, const char *why)
{
	w->ret = config_error(w->errs, w->file, config_setting_source_line(s), path, "%s", why);
}

static void read_uint(struct walk *w, void *at, const struct schema_key *k,
		      const config_setting_t *s, const char *path)
{
	char why[160];
	long long v;

	if (config_setting_type(s) != CONFIG_TYPE_INT &&
	    config_setting_type(s) != CONFIG_TYPE_INT64) {
		complain(w, s, path, "must be a whole number");
		return;
	}
	v = config_setting_type(s) == CONFIG_TYPE_INT ? config_setting_get_int(s)
						      : config_setting_get_int64(s);
	if (v < k->min || v > k->max) {
		snprintf(why, sizeof(why), "%lld is outside %lld..%lld%s%s", v, (long long)k->min,
			 (long long)k->max, k->unit != NULL ? " " : "",
			 k->unit != NULL ? k->unit : "");
		complain(w, s, path, why);
		return;
	}
	put_uint(at, k->bytes, v);
}

static void read_flags(struct walk *w, void *at, const struct schema_key *k,
		       const config_setting_t *s, const char *path)
{
	char why[160], words[128];
	uint32_t all = 0, v;

	if (!config_setting_is_array(s) && !config_setting_is_list(s)) {
		complain(w, s, path, "must be an array of words, as [ \"a\", \"b\" ]");
		return;
	}
	for (int i = 0; i < config_setting_length(s); i++) {
		const char *word = config_setting_get_string_elem(s, i);

		if (word == NULL || !choice_find(k->choices, word, &v)) {
			snprintf(why, sizeof(why), "\"%.40s\" is none of %s",
				 word != NULL ? word : "(not a text)",
				 choice_words(k->choices, words, sizeof(words)));
			complain(w, s, path, why);
			continue;
		}
		all |= v;
	}
	memcpy(at, &all, sizeof(all));
}

static void read_each(struct walk *w, void *parent, const struct schema_key *k,
		      const config_setting_t *s, const char *path)
{
	bool many = config_setting_is_array(s) || config_setting_is_list(s);
	int n = many ? config_setting_length(s) : 1;
	char why[160];

	if (n < k->min || n > k->max) {
		snprintf(why, sizeof(why), "%d entries, must be %lld..%lld", n, (long long)k->min,
			 (long long)k->max);
		complain(w, s, path, why);
		return;
	}
	for (int i = 0; i < n; i++) {
		const config_setting_t *e = many ? config_setting_get_elem(s, i) : s;
		const char *text = config_setting_get_string(e), *reason = "is not valid";

		if (text == NULL) {
			complain(w, e, path, "must be a text or an array of texts");
			return;
		}
		if (k->each(parent, text, &reason) < 0) {
			snprintf(why, sizeof(why), "\"%.60s\": %s", text, reason);
			complain(w, e, path, why);
		}
	}
}

static void read_group(struct walk *w, void *out, const struct schema_key *table,
		       const config_setting_t *group, const char *path);

static void read_groups(struct walk *w, void *parent, const struct schema_key *k,
			const config_setting_t *s, const char *path)
{
	int n = config_setting_length(s);
	char sub[KEY_PATH_BYTES], why[160];

	if (!config_setting_is_list(s)) {
		complain(w, s, path, "must be a list of groups, as ( { ... }, { ... } )");
		return;
	}
	if (n < k->min || n > k->max) {
		snprintf(why, sizeof(why), "%d entries, must be %lld..%lld", n, (long long)k->min,
			 (long long)k->max);
		complain(w, s, path, why);
		return;
	}
	for (int i = 0; i < n; i++) {
		const config_setting_t *e = config_setting_get_elem(s, i);
		const char *name = NULL;
		void *element;

		/* An engineer knows a segment by its name, not by its number. */
		if (config_setting_is_group(e) && config_setting_lookup_string(e, "name", &name) &&
		    name_valid(name))
			path_join(sub, path, name);
		else
			snprintf(sub, sizeof(sub), "%.100s[%d]", path, i);
		if (!config_setting_is_group(e)) {
			complain(w, e, sub, "must be a group, as { ... }");
			continue;
		}
		element = k->slot(parent);
		if (element == NULL) {
			complain(w, e, sub, "out of memory");
			return;
		}
		read_group(w, element, k->sub, e, sub);
	}
}

static void read_key(struct walk *w, void *out, const struct schema_key *k,
		     const config_setting_t *s, const char *path)
{
	void *at = (char *)out + k->offset;
	char why[160];

	switch (k->type) {
	case KEY_UINT:
		read_uint(w, at, k, s, path);
		return;
	case KEY_BOOL:
		if (config_setting_type(s) != CONFIG_TYPE_BOOL)
			complain(w, s, path, "must be true or false");
		else
			*(bool *)at = config_setting_get_bool(s) != 0;
		return;
	case KEY_FLAGS:
		read_flags(w, at, k, s, path);
		return;
	case KEY_EACH:
		read_each(w, out, k, s, path);
		return;
	case KEY_GROUP:
		if (!config_setting_is_group(s))
			complain(w, s, path, "must be a group, as { ... }");
		else
			read_group(w, at, k->sub, s, path);
		return;
	case KEY_GROUPS:
		read_groups(w, out, k, s, path);
		return;
	case KEY_LINE:
		return;
	default:
		break;
	}
	if (config_setting_type(s) != CONFIG_TYPE_STRING) {
		complain(w, s, path, "must be a text in \"quotes\"");
		return;
	}
	if (put_text(at, k, config_setting_get_string(s), why, sizeof(why)) < 0)
		complain(w, s, path, why);
	else if (k->type == KEY_NAME && config_setting_get_string(s)[0] == '\0' && k->def == NULL)
		complain(w, s, path, "must not be empty");
}

/* Defaults of a group that the text leaves out. Groups hold no required keys unless they are given. */
static void default_group(void *out, const struct schema_key *table)
{
	for (const struct schema_key *k = table; k->name != NULL; k++) {
		if (k->type == KEY_GROUP)
			default_group((char *)out + k->offset, k->sub);
		else if (k->def != NULL && k->def[0] != '\0')
			put_default((char *)out + k->offset, k);
	}
}

static void read_group(struct walk *w, void *out, const struct schema_key *table,
		       const config_setting_t *group, const char *path)
{
	char sub[KEY_PATH_BYTES];

	for (const struct schema_key *k = table; k->name != NULL; k++) {
		const config_setting_t *s;

		if (k->type == KEY_LINE) {
			put_uint((char *)out + k->offset, k->bytes,
				 config_setting_source_line(group));
			continue;
		}
		s = config_setting_get_member(group, k->name);
		path_join(sub, path, k->name);
		if (s != NULL)
			read_key(w, out, k, s, sub);
		else if (k->def == NULL)
			complain(w, group, sub, "is missing");
		else if (k->type == KEY_GROUP)
			default_group((char *)out + k->offset, k->sub);
		else if (k->def[0] != '\0')
			put_default((char *)out + k->offset, k);
	}
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *s = config_setting_get_elem(group, i);
		const char *name = config_setting_name(s);
		const struct schema_key *k = table;

		while (k->name != NULL && (k->type == KEY_LINE || strcmp(k->name, name) != 0))
			k++;
		if (k->name == NULL) {
			path_join(sub, path, name);
			complain(w, s, sub, "unknown key");
		}
	}
}

static bool has_include(const char *text)
{
	for (const char *p = text; p != NULL; p = strchr(p, '\n')) {
		p += strspn(p, "\n \t\r");
		if (strncmp(p, "@include", 8) == 0)
			return true;
	}
	return false;
}

int schema_read(void *out, const struct schema_key *table, const char *text, const char *file,
		struct config_errors *errs)
{
	struct walk w = {.file = file, .errs = errs};
	config_t cfg;

	if (has_include(text))
		return config_error(errs, file, 0, "@include",
				    "not supported; put everything into one file");
	config_init(&cfg);
	if (!config_read_string(&cfg, text)) {
		config_error(errs, file, config_error_line(&cfg), "", "%s",
			     config_error_text(&cfg));
		config_destroy(&cfg);
		return -EINVAL;
	}
	read_group(&w, out, table, config_root_setting(&cfg), "");
	config_destroy(&cfg);
	return w.ret;
}

int schema_slurp(char **text, const char *path, struct config_errors *errs)
{
	FILE *f = fopen(path, "re");
	char *buf;
	size_t n;

	if (f == NULL) {
		int ret = -errno;

		config_error(errs, path, 0, "", "%s", strerror(errno));
		return ret;
	}
	buf = malloc(FILE_BYTES_MAX + 1);
	if (buf == NULL) {
		fclose(f);
		config_error(errs, path, 0, "", "out of memory");
		return -ENOMEM;
	}
	n = fread(buf, 1, FILE_BYTES_MAX + 1, f);
	if (ferror(f) || n > FILE_BYTES_MAX || memchr(buf, '\0', n) != NULL) {
		config_error(errs, path, 0, "",
			     n > FILE_BYTES_MAX ? "larger than 4 MiB" : "cannot be read as text");
		fclose(f);
		free(buf);
		return -EINVAL;
	}
	fclose(f);
	buf[n] = '\0';
	*text = buf;
	return 0;
}

static void print_table(FILE *to, const struct schema_key *table, int depth)
{
	static const char *const types[] = {
		[KEY_STRING] = "text",	     [KEY_NAME] = "name",
		[KEY_UINT] = "number",	     [KEY_BOOL] = "true|false",
		[KEY_CHOICE] = "word",	     [KEY_FLAGS] = "[words]",
		[KEY_ADDR] = "address",	     [KEY_LINE] = "",
		[KEY_EACH] = "[texts]",	     [KEY_GROUP] = "{ }",
		[KEY_GROUPS] = "( {}, .. )",
	};
	char words[160];

	for (const struct schema_key *k = table; k->name != NULL; k++) {
		if (k->type == KEY_LINE)
			continue;
		fprintf(to, "%*s%-*s %-10s ", depth * 2, "", 26 - depth * 2, k->name,
			types[k->type]);
		fprintf(to, "%s", k->doc != NULL ? k->doc : "");
		if (k->choices != NULL)
			fprintf(to, "; of %s", choice_words(k->choices, words, sizeof(words)));
		if (k->type == KEY_UINT)
			fprintf(to, "; %lld..%lld%s%s", (long long)k->min, (long long)k->max,
				k->unit != NULL ? " " : "", k->unit != NULL ? k->unit : "");
		if (k->def == NULL)
			fprintf(to, "; required");
		else if (k->def[0] != '\0')
			fprintf(to, "; default %s", k->def);
		fputc('\n', to);
		if (k->sub != NULL)
			print_table(to, k->sub, depth + 1);
	}
}

void schema_print(FILE *to, const struct schema_key *table)
{
	print_table(to, table, 0);
}
