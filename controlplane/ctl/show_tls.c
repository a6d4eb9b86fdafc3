/* SPDX-License-Identifier: GPL-3.0-or-later */
/* show_tls: listeners, TLS workers, upstreams. */
#include <string.h>

#include "controlplane/ctl/show.h"
#include "controlplane/ctl/table.h"

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text != NULL ? text : "";
}

static void cell_number(struct table *t, const json_t *o, const char *key)
{
	const json_t *n = json_object_get(o, key);

	if (json_is_integer(n))
		table_cell_format(t, "%lld", (long long)json_integer_value(n));
	else
		table_cell(t, NULL);
}

static void cell_address(struct table *t, const json_t *o)
{
	const char *addr = text_of(o, "address");
	int port = (int)json_integer_value(json_object_get(o, "port"));

	table_cell_format(t, strchr(addr, ':') != NULL ? "[%s]:%d" : "%s:%d", addr, port);
}

/* "12 (handshakes_s 10, sessions_max 2)" */
static void cell_turned(struct table *t, const json_t *turned)
{
	char text[192] = "";
	long long sum = 0;
	size_t len = 0;
	const char *key;
	json_t *n;

	json_object_foreach((json_t *)turned, key, n) {
		int more = 0;

		sum += json_integer_value(n);
		if (json_integer_value(n) > 0)
			more = snprintf(text + len, sizeof(text) - len, "%s%s %lld",
					len > 0 ? ", " : "", key, (long long)json_integer_value(n));
		len += more > 0 && (size_t)more < sizeof(text) - len ? (size_t)more : 0;
	}
	if (len > 0)
		table_cell_format(t, "%lld (%s)", sum, text);
	else
		table_cell_format(t, "%lld", sum);
}

static int print(struct table *t, FILE *to)
{
	table_print(t, to);
	table_free(t);
	return CTL_OK;
}

int show_listeners(const json_t *r, FILE *to)
{
	struct table *t =
		table_new("LISTENER|ADDRESS|PROTOCOL|TRANSPORT|STATE|>SESSIONS|>HANDSHAKES|"
			  ">LEAVING|>BEGUN|>REFUSED|TURNED AWAY");
	struct table *w = table_new(">WORKER|>PID|LINK|>SESSIONS|>HANDSHAKES");
	size_t i;
	json_t *o;

	if (t == NULL || w == NULL) {
		table_free(t);
		table_free(w);
		return CTL_REFUSED;
	}
	json_array_foreach(json_object_get(r, "listeners"), i, o) {
		table_cell(t, text_of(o, "name"));
		cell_address(t, o);
		table_cell(t, text_of(o, "protocol"));
		table_cell(t, text_of(o, "transport"));
		table_cell(t, text_of(o, "state"));
		cell_number(t, o, "sessions");
		cell_number(t, o, "handshakes");
		cell_number(t, o, "leaving");
		cell_number(t, o, "begun");
		cell_number(t, o, "refused");
		cell_turned(t, json_object_get(o, "turned_away"));
	}
	print(t, to);
	fputc('\n', to);
	json_array_foreach(json_object_get(r, "workers"), i, o) {
		cell_number(w, o, "worker");
		cell_number(w, o, "pid");
		table_cell(w, text_of(o, "link"));
		cell_number(w, o, "sessions");
		cell_number(w, o, "handshakes");
	}
	return print(w, to);
}

int show_upstreams(const json_t *r, FILE *to)
{
	struct table *t =
		table_new("LISTENER|UPSTREAM|STATE|>CONNECTIONS|>CONNECTED|>FAILED|>CHECKS|"
			  ">CHECKS FAILED|LAST ERROR");
	size_t i;
	json_t *o;

	if (t == NULL)
		return CTL_REFUSED;
	json_array_foreach(json_object_get(r, "upstreams"), i, o) {
		const json_t *age = json_object_get(o, "last_error_age_s");

		table_cell(t, text_of(o, "listener"));
		cell_address(t, o);
		table_cell(t, text_of(o, "state"));
		cell_number(t, o, "connections");
		cell_number(t, o, "connected");
		cell_number(t, o, "failed");
		if (json_is_true(json_object_get(o, "checked"))) {
			cell_number(t, o, "checks");
			cell_number(t, o, "checks_failed");
		} else {
			table_cell(t, NULL);
			table_cell(t, NULL);
		}
		if (json_is_integer(age))
			table_cell_format(t, "%s, %lld s ago", text_of(o, "last_error"),
					  (long long)json_integer_value(age));
		else
			table_cell(t, NULL);
	}
	return print(t, to);
}
