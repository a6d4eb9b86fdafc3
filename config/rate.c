/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/rate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DIGITS_MAX 12
#define FRACTION 1000u /* three digits behind the point */

static const struct {
	const char *word;
	uint64_t bits; /* 0: packets */
} units[] = {
	{"bit/s", 1},		{"kbit/s", 1000}, {"Mbit/s", 1000000},
	{"Gbit/s", 1000000000}, {"packet/s", 0},  {"packets/s", 0},
};
#define N_UNITS (sizeof(units) / sizeof(units[0]))

/* "12" or "1.5", in thousandths. @return what follows it, or NULL */
static const char *number(const char *text, uint64_t *thousandths)
{
	uint64_t whole = 0, part = 0, scale = FRACTION;
	const char *at = text;

	for (; *at >= '0' && *at <= '9'; at++) {
		if (at - text >= DIGITS_MAX)
			return NULL;
		whole = whole * 10 + (uint64_t)(*at - '0');
	}
	if (at == text)
		return NULL;
	if (*at == '.') {
		const char *first = ++at;

		for (; *at >= '0' && *at <= '9' && scale > 1; at++) {
			scale /= 10;
			part += (uint64_t)(*at - '0') * scale;
		}
		if (at == first || (*at >= '0' && *at <= '9'))
			return NULL;
	}
	*thousandths = whole * FRACTION + part;
	return at;
}

static int set_packets(struct rate *r, uint64_t thousandths, const char **why)
{
	uint64_t packets = thousandths / FRACTION;

	if (r->packets_per_s != 0) {
		*why = "packet/s is there twice";
		return -EINVAL;
	}
	*why = "is outside 1 .. 10000000 packet/s, or no whole number";
	if (packets < 1 || packets > POLICY_PACKETS_MAX || thousandths % FRACTION != 0)
		return -EINVAL;
	r->packets_per_s = (uint32_t)packets;
	return 0;
}

static int set_bits(struct rate *r, uint64_t thousandths, uint64_t unit, const char **why)
{
	uint64_t bits;

	if (r->bits_per_s != 0) {
		*why = "bit/s is there twice";
		return -EINVAL;
	}
	*why = "is outside 8 kbit/s .. 100 Gbit/s";
	if (thousandths > 8 * POLICY_RATE_BYTES_MAX * FRACTION / unit)
		return -EINVAL;
	bits = thousandths * unit / FRACTION;
	if (bits < 8 * POLICY_RATE_BYTES_MIN || bits > 8 * POLICY_RATE_BYTES_MAX)
		return -EINVAL;
	r->bits_per_s = bits;
	return 0;
}

int rate_parse(struct rate *r, const char *text, const char **why)
{
	uint64_t thousandths;
	const char *unit = number(text, &thousandths);

	*why = "must be a rate, as \"2 Mbit/s\", \"500 kbit/s\" or \"1000 packet/s\"";
	if (unit == NULL)
		return -EINVAL;
	unit += *unit == ' ';
	for (size_t i = 0; i < N_UNITS; i++) {
		if (strcmp(unit, units[i].word) == 0)
			return units[i].bits == 0 ? set_packets(r, thousandths, why)
						  : set_bits(r, thousandths, units[i].bits, why);
	}
	return -EINVAL;
}

void rate_limits(struct policy_limits *out, const struct rate *r, uint32_t burst_ms)
{
	out->bytes_per_s = r->bits_per_s / 8;
	out->packets_per_s = r->packets_per_s;
	if (out->bytes_per_s != 0) {
		out->burst_bytes = out->bytes_per_s * burst_ms / 1000;
		if (out->burst_bytes < POLICY_BURST_BYTES_MIN)
			out->burst_bytes = POLICY_BURST_BYTES_MIN;
	}
	if (out->packets_per_s != 0) {
		out->burst_packets = (uint32_t)((uint64_t)out->packets_per_s * burst_ms / 1000);
		if (out->burst_packets < POLICY_BURST_PACKETS_MIN)
			out->burst_packets = POLICY_BURST_PACKETS_MIN;
	}
}

struct out {
	char *text;
	size_t n;
};

__attribute__((format(printf, 2, 3))) static void add(struct out *o, const char *fmt, ...)
{
	size_t room = RATE_TEXT_BYTES - o->n;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(o->text + o->n, room, fmt, ap);
	va_end(ap);
	o->n += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

static void add_bits(struct out *o, uint64_t bits)
{
	uint64_t unit = bits < 1000000 ? 1000 : bits < 1000000000 ? 1000000 : 1000000000;
	char part[8] = "";

	if (bits % unit != 0) {
		snprintf(part, sizeof(part), ".%03" PRIu64, bits % unit / (unit / 1000) % 1000);
		while (part[strlen(part) - 1] == '0')
			part[strlen(part) - 1] = '\0';
		if (part[1] == '\0')
			part[0] = '\0';
	}
	add(o, "%" PRIu64 "%s %cbit/s", bits / unit, part,
	    unit == 1000      ? 'k'
	    : unit == 1000000 ? 'M'
			      : 'G');
}

const char *limits_text(const struct policy_limits *l, char *out)
{
	struct out o = {.text = out};

	out[0] = '\0';
	if (l->bytes_per_s != 0)
		add_bits(&o, l->bytes_per_s * 8);
	if (l->packets_per_s != 0)
		add(&o, "%s%u packet/s", o.n > 0 ? ", " : "", l->packets_per_s);
	if (l->new_flows_per_s != 0)
		add(&o, "%s%u new flows/s", o.n > 0 ? ", " : "", l->new_flows_per_s);
	if (l->flows != 0)
		add(&o, "%s%u flows", o.n > 0 ? ", " : "", l->flows);
	return out;
}
