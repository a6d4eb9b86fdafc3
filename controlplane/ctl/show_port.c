/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <string.h>

#include "controlplane/ctl/show.h"
#include "controlplane/ctl/table.h"

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text != NULL ? text : "";
}

/* "untagged 20 100.20" */
static const char *vlans_text(const json_t *vlans, char *out, size_t bytes)
{
	size_t i, len = 0;
	json_t *v;

	out[0] = '\0';
	json_array_foreach(vlans, i, v) {
		int n;

		if (json_is_string(v))
			n = snprintf(out + len, bytes - len, "%s ", json_string_value(v));
		else if (json_integer_value(v) == 0)
			n = snprintf(out + len, bytes - len, "untagged ");
		else
			n = snprintf(out + len, bytes - len, "%d ", (int)json_integer_value(v));
		len += n > 0 && (size_t)n < bytes - len ? (size_t)n : 0;
	}
	if (len > 0)
		out[len - 1] = '\0';
	return out;
}

int show_port_list(const json_t *r, FILE *to)
{
	struct table *t = table_new("PORT|SIDE|DRIVER|LINK|MAC|SHADOW|VLANS");
	char vlans[256];
	size_t i;
	json_t *p;

	if (t == NULL)
		return CTL_REFUSED;
	json_array_foreach(json_object_get(r, "ports"), i, p) {
		table_cell(t, text_of(p, "name"));
		table_cell(t, text_of(p, "side"));
		table_cell(t, text_of(p, "driver"));
		table_cell(t, text_of(p, "link"));
		table_cell(t, text_of(p, "mac"));
		table_cell(t, text_of(p, "shadow"));
		table_cell(t, vlans_text(json_object_get(p, "vlans"), vlans, sizeof(vlans)));
	}
	table_print(t, to);
	table_free(t);
	return CTL_OK;
}

int show_port(const json_t *r, FILE *to)
{
	fprintf(to, "port %s: %s\n", text_of(r, "port"), text_of(r, "text"));
	return CTL_OK;
}

int show_reload(const json_t *r, FILE *to)
{
	fprintf(to, "%s\n", text_of(r, "text"));
	return CTL_OK;
}
