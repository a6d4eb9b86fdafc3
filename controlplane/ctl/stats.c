/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/ctl/stats.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "controlplane/ctl/ask.h"
#include "controlplane/ctl/show.h"
#include "controlplane/ctl/table.h"

#define COLUMNS_MAX 14
#define RATE_MS 1000

enum column_kind {
	COLUMN_KEY, /* a text that says which row this is */
	COLUMN_KEY_NUMBER,
	COLUMN_TEXT,
	COLUMN_COUNTER,
	COLUMN_GAUGE,
	COLUMN_REAL,
	COLUMN_COUNTERS, /* an object of counters */
	COLUMN_HIDDEN, /* a counter that is not printed */
};

struct part {
	const char *name;
	const char *heads; /* of table_new() */
	struct {
		const char *member;
		enum column_kind kind;
	} column[COLUMNS_MAX];
};

/* clang-format off */
static const struct part parts[] = {
	{"ports", "PORT|SIDE|LINK|>RX PACKETS|>RX BYTES|>TX PACKETS|>TX BYTES|>TO KERNEL|>FROM KERNEL|>NIC MISSED|"
		  ">NIC RX ERRORS|>NIC NO BUFFER|>NIC TX ERRORS",
	 {{"name", COLUMN_KEY}, {"side", COLUMN_TEXT}, {"link", COLUMN_TEXT}, {"rx_packets", COLUMN_COUNTER},
	  {"rx_bytes", COLUMN_COUNTER}, {"tx_packets", COLUMN_COUNTER}, {"tx_bytes", COLUMN_COUNTER},
	  {"to_kernel", COLUMN_COUNTER}, {"from_kernel", COLUMN_COUNTER}, {"nic_missed", COLUMN_COUNTER},
	  {"nic_rx_errors", COLUMN_COUNTER}, {"nic_no_buffer", COLUMN_COUNTER}, {"nic_tx_errors", COLUMN_COUNTER}}},
	{"lcores", "LCORE|CPU|>BUSY %|>CYCLES/PACKET|>BURST FILL|>PACKETS|>FLOWS|>ROOM|>HANDED ON|>RING DROPS",
	 {{"lcore", COLUMN_KEY_NUMBER}, {"cpu", COLUMN_KEY_NUMBER}, {"busy_pct", COLUMN_REAL},
	  {"cycles_per_packet", COLUMN_REAL}, {"burst_fill", COLUMN_REAL}, {"packets", COLUMN_COUNTER},
	  {"flows", COLUMN_GAUGE}, {"flows_max", COLUMN_GAUGE}, {"handed", COLUMN_COUNTER},
	  {"ring_dropped", COLUMN_COUNTER}, {"bursts", COLUMN_HIDDEN}, {"busy_cycles", COLUMN_HIDDEN},
	  {"total_cycles", COLUMN_HIDDEN}}},
	{"rules", "RULE|FROM|TO|VERDICT|>PACKETS|>BYTES|>FLOWS|>OPEN",
	 {{"rule", COLUMN_KEY}, {"from", COLUMN_KEY}, {"to", COLUMN_KEY}, {"verdict", COLUMN_KEY},
	  {"packets", COLUMN_COUNTER}, {"bytes", COLUMN_COUNTER}, {"flows", COLUMN_COUNTER}, {"open", COLUMN_GAUGE}}},
	{"pairs", "FROM|TO|>PACKETS|>BYTES|>FLOWS|>OPEN|>REFUSED|WHY",
	 {{"from", COLUMN_KEY}, {"to", COLUMN_KEY}, {"packets", COLUMN_COUNTER}, {"bytes", COLUMN_COUNTER},
	  {"flows", COLUMN_COUNTER}, {"open", COLUMN_GAUGE}, {"refused", COLUMN_COUNTER},
	  {"reasons", COLUMN_COUNTERS}}},
	{"devices", "DEVICE|SEGMENT|>PACKETS|>BYTES|>FLOWS|>OPEN|>REFUSED|>TO LISTENERS",
	 {{"device", COLUMN_KEY}, {"segment", COLUMN_TEXT}, {"packets", COLUMN_COUNTER}, {"bytes", COLUMN_COUNTER},
	  {"flows", COLUMN_COUNTER}, {"open", COLUMN_GAUGE}, {"refused", COLUMN_COUNTER},
	  {"diverted", COLUMN_COUNTER}}},
	{"reasons", "DROPPED BECAUSE|>PACKETS|MEANING",
	 {{"reason", COLUMN_KEY}, {"packets", COLUMN_COUNTER}, {"text", COLUMN_TEXT}}},
};
/* clang-format on */

#define PARTS (sizeof(parts) / sizeof(parts[0]))

static json_int_t number_of(const json_t *o, const char *member)
{
	return json_integer_value(json_object_get(o, member));
}

static bool is_idle(const struct part *p, const json_t *row)
{
	for (unsigned c = 0; c < COLUMNS_MAX && p->column[c].member != NULL; c++) {
		enum column_kind kind = p->column[c].kind;

		if ((kind == COLUMN_COUNTER || kind == COLUMN_GAUGE) &&
		    number_of(row, p->column[c].member) != 0)
			return false;
	}
	return true;
}

static void cell_counters(struct table *t, const json_t *o)
{
	char text[400] = "";
	size_t n = 0;
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)o, key, v) {
		if (json_integer_value(v) != 0 && n < sizeof(text))
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s %lld",
					      n > 0 ? ", " : "", key,
					      (long long)json_integer_value(v));
	}
	table_cell(t, text);
}

static void cell(struct table *t, enum column_kind kind, const json_t *v)
{
	switch (kind) {
	case COLUMN_KEY:
	case COLUMN_TEXT:
		table_cell(t, json_string_value(v));
		break;
	case COLUMN_REAL:
		table_cell_format(t, "%.1f", json_number_value(v));
		break;
	case COLUMN_COUNTERS:
		cell_counters(t, v);
		break;
	case COLUMN_HIDDEN:
		break;
	default:
		table_cell_format(t, "%lld", (long long)json_integer_value(v));
		break;
	}
}

static void print_part(const struct part *p, const json_t *rows, bool every, FILE *to)
{
	bool always = strcmp(p->name, "ports") == 0 || strcmp(p->name, "lcores") == 0;
	struct table *t = table_new(p->heads);
	size_t i;
	json_t *row;

	if (t == NULL)
		return;
	json_array_foreach(rows, i, row) {
		if (!every && !always && is_idle(p, row))
			continue;
		for (unsigned c = 0; c < COLUMNS_MAX && p->column[c].member != NULL; c++)
			cell(t, p->column[c].kind, json_object_get(row, p->column[c].member));
	}
	table_print(t, to);
	table_free(t);
}

static void print_totals(const json_t *o, FILE *to)
{
	fprintf(to,
		"%lld packets forwarded (%lld judged by the fast lane), %lld to listeners; %lld "
		"flows of %lld; %lld admitted, "
		"%lld refused; %lld bindings\n\n",
		(long long)number_of(o, "forwarded"), (long long)number_of(o, "lane"),
		(long long)number_of(o, "diverted"), (long long)number_of(o, "flows"),
		(long long)number_of(o, "flows_max"), (long long)number_of(o, "admissions"),
		(long long)number_of(o, "refusals"), (long long)number_of(o, "bindings"));
}

void stats_print(const json_t *r, bool every, FILE *to)
{
	const json_t *totals = json_object_get(r, "totals");
	bool first = true;

	if (totals != NULL)
		print_totals(totals, to);
	for (unsigned i = 0; i < PARTS; i++) {
		const json_t *rows = json_object_get(r, parts[i].name);

		if (rows == NULL)
			continue;
		if (!first)
			fputc('\n', to);
		print_part(&parts[i], rows, every, to);
		first = false;
	}
}

/* ---- rates ---- */

static bool same_row(const struct part *p, const json_t *a, const json_t *b)
{
	for (unsigned c = 0; c < COLUMNS_MAX && p->column[c].member != NULL; c++) {
		enum column_kind kind = p->column[c].kind;

		if ((kind == COLUMN_KEY || kind == COLUMN_KEY_NUMBER) &&
		    !json_equal(json_object_get(a, p->column[c].member),
				json_object_get(b, p->column[c].member)))
			return false;
	}
	return true;
}

/* Rows of both answers mostly stand at one place. */
static const json_t *row_before(const struct part *p, const json_t *rows, const json_t *row,
				size_t guess)
{
	const json_t *there = json_array_get(rows, guess);
	size_t i;
	json_t *r;

	if (there != NULL && same_row(p, there, row))
		return there;
	json_array_foreach((json_t *)rows, i, r) {
		if (same_row(p, r, row))
			return r;
	}
	return NULL;
}

static json_int_t more(const json_t *before, const json_t *now)
{
	json_int_t a = json_integer_value(before), b = json_integer_value(now);

	return b >= a ? b - a : b;
}

static json_t *per_second(json_int_t n, json_int_t us)
{
	return json_integer((n * 1000000 + us / 2) / us);
}

static json_t *rate_counters(const json_t *before, const json_t *now, json_int_t us)
{
	json_t *out = json_object();
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)now, key, v)
		json_object_set_new(out, key,
				    per_second(more(json_object_get(before, key), v), us));
	return out;
}

static double quotient(double a, double b)
{
	return b > 0 ? a / b : 0;
}

static void rate_lcore(json_t *out, const json_t *before, const json_t *now)
{
	double busy = (double)more(json_object_get(before, "busy_cycles"),
				   json_object_get(now, "busy_cycles"));
	double total = (double)more(json_object_get(before, "total_cycles"),
				    json_object_get(now, "total_cycles"));
	double packets =
		(double)more(json_object_get(before, "packets"), json_object_get(now, "packets"));
	double bursts =
		(double)more(json_object_get(before, "bursts"), json_object_get(now, "bursts"));

	json_object_set_new(out, "busy_pct", json_real(quotient(100 * busy, total)));
	json_object_set_new(out, "cycles_per_packet", json_real(quotient(busy, packets)));
	json_object_set_new(out, "burst_fill", json_real(quotient(packets, bursts)));
}

static json_t *rate_row(const struct part *p, const json_t *before, const json_t *now,
			json_int_t us)
{
	json_t *out = json_copy((json_t *)now);

	for (unsigned c = 0; c < COLUMNS_MAX && p->column[c].member != NULL; c++) {
		const char *member = p->column[c].member;
		const json_t *a = json_object_get(before, member),
			     *b = json_object_get(now, member);

		if (p->column[c].kind == COLUMN_COUNTER || p->column[c].kind == COLUMN_HIDDEN)
			json_object_set_new(out, member, per_second(more(a, b), us));
		else if (p->column[c].kind == COLUMN_COUNTERS)
			json_object_set_new(out, member, rate_counters(a, b, us));
	}
	if (strcmp(p->name, "lcores") == 0)
		rate_lcore(out, before, now);
	return out;
}

static json_t *rate_totals(const json_t *before, const json_t *now, json_int_t us)
{
	static const char *const counters[] = {"forwarded", "lane", "diverted", "admissions",
					       "refusals"};
	json_t *out = json_copy((json_t *)now);

	for (unsigned i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		json_object_set_new(out, counters[i],
				    per_second(more(json_object_get(before, counters[i]),
						    json_object_get(now, counters[i])),
					       us));
	return out;
}

json_t *stats_rate(const json_t *before, const json_t *now)
{
	json_int_t us = number_of(now, "at_us") - number_of(before, "at_us");
	json_t *out = json_copy((json_t *)now), *totals = json_object_get(now, "totals");

	if (us <= 0)
		us = 1000000;
	if (totals != NULL)
		json_object_set_new(out, "totals",
				    rate_totals(json_object_get(before, "totals"), totals, us));
	for (unsigned p = 0; p < PARTS; p++) {
		const json_t *rows = json_object_get(now, parts[p].name);
		const json_t *old = json_object_get(before, parts[p].name);
		json_t *list;
		size_t i;
		json_t *row;

		if (rows == NULL)
			continue;
		list = json_array();
		json_array_foreach((json_t *)rows, i, row)
			json_array_append_new(
				list,
				rate_row(&parts[p], row_before(&parts[p], old, row, i), row, us));
		json_object_set_new(out, parts[p].name, list);
	}
	json_object_set_new(out, "per_second", json_true());
	return out;
}

/* ---- the command ---- */

static bool part_exists(const char *name)
{
	for (unsigned i = 0; i < PARTS; i++) {
		if (strcmp(parts[i].name, name) == 0)
			return true;
	}
	return false;
}

static int ask_twice(const struct args *a, const json_t *req, json_t **rate)
{
	const struct timespec wait = {.tv_sec = RATE_MS / 1000};
	json_t *before, *now;
	int ret = ctl_ask_good(a, PEER_AGENT, req, "stats", &before);

	if (ret != CTL_OK)
		return ret;
	nanosleep(&wait, NULL);
	ret = ctl_ask_good(a, PEER_AGENT, req, "stats", &now);
	if (ret == CTL_OK) {
		*rate = stats_rate(before, now);
		json_decref(now);
	}
	json_decref(before);
	return ret;
}

int stats_run(json_t *req, const struct args *a, const char *const *word, FILE *to)
{
	const char *what = word[0], *device = a->value[OPT_DEVICE];
	json_t *r = NULL;
	int ret;

	if (what == NULL && device != NULL)
		what = "devices";
	if ((what != NULL && !part_exists(what)) ||
	    (device != NULL && strcmp(what, "devices") != 0)) {
		fprintf(stderr, "sallyctl stats: %s\ntry: sallyctl stats --help\n",
			device != NULL ? "--device is for devices"
				       : "there are ports, lcores, rules, pairs, devices, reasons");
		return CTL_USAGE;
	}
	json_object_set_new(req, "cmd", json_string("stats"));
	if (what != NULL)
		json_object_set_new(req, "what", json_string(what));
	if (device != NULL && json_object_set_new(req, "device", json_string(device)) < 0) {
		fprintf(stderr, "sallyctl stats: a device's name is UTF-8 text\n");
		return CTL_USAGE;
	}
	ret = a->given & OPT_BIT(OPT_RATE) ? ask_twice(a, req, &r)
					   : ctl_ask_good(a, PEER_AGENT, req, "stats", &r);
	if (ret != CTL_OK)
		return ret;
	if (a->given & OPT_BIT(OPT_JSON)) {
		json_dumpf(r, to, JSON_COMPACT);
		fputc('\n', to);
	} else {
		stats_print(r, false, to);
	}
	json_decref(r);
	return CTL_OK;
}
