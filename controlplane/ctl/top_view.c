/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdlib.h>
#include <string.h>

#include "controlplane/ctl/table.h"
#include "controlplane/ctl/top.h"

#define SHORT_ROWS 5 /* of a list among others */

static json_int_t number_of(const json_t *o, const char *member)
{
	return json_integer_value(json_object_get(o, member));
}

static const char *text_of(const json_t *o, const char *member)
{
	return json_string_value(json_object_get(o, member));
}

const char *top_number(long long n, char out[24])
{
	static const char unit[] = {'k', 'M', 'G', 'T', 'P'};
	double v = (double)n;
	unsigned u = 0;

	if (n < 1000) {
		snprintf(out, 24, "%lld", n);
		return out;
	}
	for (v /= 1000; v >= 999.95 && u + 1 < sizeof(unit); u++)
		v /= 1000;
	snprintf(out, 24, "%.1f%c", v, unit[u]);
	return out;
}

static void cell_number(struct table *t, long long n)
{
	char text[24];

	table_cell(t, top_number(n, text));
}

/* ---- lists ---- */

struct ranked {
	json_int_t weight;
	const json_t *row;
};

static int ranked_cmp(const void *x, const void *y)
{
	const struct ranked *a = x, *b = y;

	return a->weight > b->weight ? -1 : a->weight < b->weight;
}

/* What is refused counts too: a pair that is only refused is what one looks for. */
static json_int_t weight(const struct top_view *v, const json_t *row)
{
	json_int_t n = number_of(row, v->by_packets ? "packets" : "bytes");

	return n > 0 ? n : number_of(row, "refused");
}

struct list {
	const char *member, *heads;
	void (*cells)(struct table *t, const json_t *row);
};

static void print_list(const struct top_view *v, const struct list *l, const json_t *rows,
		       unsigned max, FILE *to)
{
	struct table *t = table_new(l->heads);
	size_t n = json_array_size(rows), i, shown = 0;
	struct ranked *rank = calloc(n + 1, sizeof(*rank));
	json_t *row;

	if (t == NULL || rank == NULL) {
		table_free(t);
		free(rank);
		return;
	}
	json_array_foreach((json_t *)rows, i, row)
		rank[i] = (struct ranked){weight(v, row), row};
	qsort(rank, n, sizeof(*rank), ranked_cmp);
	for (i = 0; i < n && shown < max && (rank[i].weight > 0 || v->page != TOP_ALL); i++) {
		l->cells(t, rank[i].row);
		shown++;
	}
	if (shown > 0 || v->page != TOP_ALL) {
		fputc('\n', to);
		table_print(t, to);
	}
	table_free(t);
	free(rank);
}

static void rule_cells(struct table *t, const json_t *row)
{
	table_cell(t, text_of(row, "rule"));
	table_cell(t, text_of(row, "from"));
	table_cell(t, text_of(row, "to"));
	table_cell(t, text_of(row, "verdict"));
	cell_number(t, number_of(row, "packets"));
	cell_number(t, 8 * number_of(row, "bytes"));
	cell_number(t, number_of(row, "flows"));
	cell_number(t, number_of(row, "open"));
}

static void pair_cells(struct table *t, const json_t *row)
{
	table_cell(t, text_of(row, "from"));
	table_cell(t, text_of(row, "to"));
	cell_number(t, number_of(row, "packets"));
	cell_number(t, 8 * number_of(row, "bytes"));
	cell_number(t, number_of(row, "flows"));
	cell_number(t, number_of(row, "open"));
	cell_number(t, number_of(row, "refused"));
}

static void device_cells(struct table *t, const json_t *row)
{
	table_cell(t, text_of(row, "device"));
	table_cell(t, text_of(row, "segment"));
	cell_number(t, number_of(row, "packets"));
	cell_number(t, 8 * number_of(row, "bytes"));
	cell_number(t, number_of(row, "flows"));
	cell_number(t, number_of(row, "open"));
	cell_number(t, number_of(row, "refused"));
}

static void flow_cells(struct table *t, const json_t *row)
{
	table_cell_format(t, "%lld", (long long)number_of(row, "proto"));
	table_cell_format(t, "%s port %lld",
			  text_of(row, "src") != NULL ? text_of(row, "src") : "-",
			  (long long)number_of(row, "sport"));
	table_cell_format(t, "%s port %lld",
			  text_of(row, "dst") != NULL ? text_of(row, "dst") : "-",
			  (long long)number_of(row, "dport"));
	table_cell(t, text_of(row, "state"));
	table_cell(t, text_of(row, "rule"));
	cell_number(t, number_of(row, "packets"));
	cell_number(t, 8 * number_of(row, "bytes"));
}

static const struct list rules = {
	"rules", "RULE|FROM|TO|VERDICT|>PACKET/S|>BIT/S|>NEW FLOW/S|>FLOWS", rule_cells};
static const struct list pairs = {"pairs", "FROM|TO|>PACKET/S|>BIT/S|>NEW FLOW/S|>FLOWS|>REFUSED/S",
				  pair_cells};
static const struct list devices = {
	"devices", "DEVICE|SEGMENT|>PACKET/S|>BIT/S|>NEW FLOW/S|>FLOWS|>REFUSED/S", device_cells};
static const struct list flow_list = {NULL, ">PROTO|SOURCE|DESTINATION|STATE|RULE|>PACKET/S|>BIT/S",
				      flow_cells};

/* ---- what stands above them ---- */

static json_int_t sum_of(const json_t *rows, const char *member)
{
	json_int_t sum = 0;
	size_t i;
	json_t *row;

	json_array_foreach((json_t *)rows, i, row)
		sum += number_of(row, member);
	return sum;
}

static void print_head(const struct top_view *v, const json_t *rate, FILE *to)
{
	const json_t *totals = json_object_get(rate, "totals");
	const json_t *ports = json_object_get(rate, "ports");
	char text[6][24];

	fprintf(to,
		"%s packet/s in, %s bit/s in, %s bit/s out, %s new flow/s, %s drop/s, %s flows of "
		"%lld\n",
		top_number(sum_of(ports, "rx_packets"), text[0]),
		top_number(8 * sum_of(ports, "rx_bytes"), text[1]),
		top_number(8 * sum_of(ports, "tx_bytes"), text[2]),
		top_number(number_of(totals, "admissions"), text[3]),
		top_number(sum_of(json_object_get(rate, "reasons"), "packets"), text[4]),
		top_number(number_of(totals, "flows"), text[5]),
		(long long)number_of(totals, "flows_max"));
	fprintf(to, "sorted by %s\n", v->by_packets ? "packets" : "bytes");
}

static void print_lcores(const json_t *rows, FILE *to)
{
	struct table *t = table_new(
		"CORE|CPU|>BUSY %|>CYCLES/PACKET|>BURST FILL|>PACKET/S|>FLOWS|>ROOM|>RING DROP/S");
	size_t i;
	json_t *row;

	if (t == NULL)
		return;
	json_array_foreach((json_t *)rows, i, row) {
		table_cell_format(t, "%lld", (long long)number_of(row, "lcore"));
		table_cell_format(t, "%lld", (long long)number_of(row, "cpu"));
		table_cell_format(t, "%.1f", json_number_value(json_object_get(row, "busy_pct")));
		table_cell_format(t, "%.0f",
				  json_number_value(json_object_get(row, "cycles_per_packet")));
		table_cell_format(t, "%.1f", json_number_value(json_object_get(row, "burst_fill")));
		cell_number(t, number_of(row, "packets"));
		cell_number(t, number_of(row, "flows"));
		cell_number(t, number_of(row, "flows_max"));
		cell_number(t, number_of(row, "ring_dropped"));
	}
	fputc('\n', to);
	table_print(t, to);
	table_free(t);
}

static void print_ports(const json_t *rows, FILE *to)
{
	struct table *t = table_new("PORT|LINK|>RX PACKET/S|>RX BIT/S|>TX PACKET/S|>TX BIT/S|>TO "
				    "KERNEL/S|>FROM KERNEL/S|>NIC MISSED/S");
	size_t i;
	json_t *row;

	if (t == NULL)
		return;
	json_array_foreach((json_t *)rows, i, row) {
		table_cell(t, text_of(row, "name"));
		table_cell(t, text_of(row, "link"));
		cell_number(t, number_of(row, "rx_packets"));
		cell_number(t, 8 * number_of(row, "rx_bytes"));
		cell_number(t, number_of(row, "tx_packets"));
		cell_number(t, 8 * number_of(row, "tx_bytes"));
		cell_number(t, number_of(row, "to_kernel"));
		cell_number(t, number_of(row, "from_kernel"));
		cell_number(t, number_of(row, "nic_missed") + number_of(row, "nic_no_buffer"));
	}
	fputc('\n', to);
	table_print(t, to);
	table_free(t);
}

static void print_reasons(const struct top_view *v, const json_t *rows, FILE *to)
{
	struct table *t = table_new("DROPPED BECAUSE|>PACKET/S|MEANING");
	size_t i, shown = 0;
	json_t *row;

	if (t == NULL)
		return;
	json_array_foreach((json_t *)rows, i, row) {
		if (number_of(row, "packets") == 0 && v->page == TOP_ALL)
			continue;
		table_cell(t, text_of(row, "reason"));
		cell_number(t, number_of(row, "packets"));
		table_cell(t, text_of(row, "text"));
		shown++;
	}
	if (shown > 0) {
		fputc('\n', to);
		table_print(t, to);
	}
	table_free(t);
}

void top_print(const struct top_view *v, const json_t *rate, const json_t *flows, FILE *to)
{
	unsigned rows = v->page == TOP_ALL ? SHORT_ROWS : v->rows;

	print_head(v, rate, to);
	if (v->page == TOP_ALL) {
		print_lcores(json_object_get(rate, "lcores"), to);
		print_ports(json_object_get(rate, "ports"), to);
	}
	if (v->page == TOP_ALL || v->page == TOP_REASONS)
		print_reasons(v, json_object_get(rate, "reasons"), to);
	if (v->page == TOP_ALL || v->page == TOP_RULES)
		print_list(v, &rules, json_object_get(rate, "rules"), rows, to);
	if (v->page == TOP_ALL || v->page == TOP_PAIRS)
		print_list(v, &pairs, json_object_get(rate, "pairs"), rows, to);
	if (v->page == TOP_ALL || v->page == TOP_DEVICES)
		print_list(v, &devices, json_object_get(rate, "devices"), rows, to);
	if (v->page == TOP_ALL || v->page == TOP_FLOWS)
		print_list(v, &flow_list, flows, rows, to);
}

/* ---- flows ---- */

static bool same_flow(const json_t *a, const json_t *b)
{
	static const char *const key[] = {"proto", "src", "sport", "dst", "dport"};

	for (unsigned i = 0; i < sizeof(key) / sizeof(key[0]); i++) {
		if (!json_equal(json_object_get(a, key[i]), json_object_get(b, key[i])))
			return false;
	}
	return true;
}

/* A flow that was not among the largest before gives no rate: its numbers are of its whole life. */
json_t *top_flows(const json_t *before, const json_t *now)
{
	json_int_t us = number_of(now, "at_us") - number_of(before, "at_us");
	json_t *out = json_array(), *a, *b;
	size_t i, k;

	json_array_foreach(json_object_get(now, "flows"), i, b) {
		json_array_foreach(json_object_get(before, "flows"), k, a) {
			json_int_t packets = number_of(b, "packets") - number_of(a, "packets");
			json_int_t bytes = number_of(b, "bytes") - number_of(a, "bytes");
			json_t *row;

			if (!same_flow(a, b))
				continue;
			row = json_copy(b);
			json_object_set_new(
				row, "packets",
				json_integer(us > 0 && packets > 0 ? packets * 1000000 / us : 0));
			json_object_set_new(
				row, "bytes",
				json_integer(us > 0 && bytes > 0 ? bytes * 1000000 / us : 0));
			json_array_append_new(out, row);
			break;
		}
	}
	return out;
}
