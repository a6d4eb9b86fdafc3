/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/ctl/show.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "controlplane/ctl/table.h"

/* ---- members ---- */

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text != NULL && text[0] != '\0' ? text : "-";
}

static long long number_of(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static bool true_of(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

static void cell_number(struct table *t, const json_t *o, const char *key)
{
	if (json_is_integer(json_object_get(o, key)))
		table_cell_format(t, "%lld", number_of(o, key));
	else
		table_cell(t, NULL);
}

/* Seconds as a person says them: 45s, 12m05s, 3h20m, 5d04h. */
static const char *span_text(char out[32], long long s)
{
	if (s < 60)
		snprintf(out, 32, "%llds", s);
	else if (s < 3600)
		snprintf(out, 32, "%lldm%02llds", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out, 32, "%lldh%02lldm", s / 3600, s % 3600 / 60);
	else
		snprintf(out, 32, "%lldd%02lldh", s / 86400, s % 86400 / 3600);
	return out;
}

static const char *left_text(char out[32], const json_t *v, const char *never)
{
	return json_is_integer(v) ? span_text(out, json_integer_value(v)) : never;
}

static const char *time_text(char out[40], long long ms)
{
	time_t s = ms / 1000;
	struct tm tm;

	if (gmtime_r(&s, &tm) == NULL || strftime(out, 40, "%Y-%m-%d %H:%M:%SZ", &tm) == 0)
		snprintf(out, 40, "-");
	return out;
}

/* Array of texts into one, parted by ", ". */
static const char *join(char *out, size_t bytes, const json_t *array)
{
	size_t i, n = 0;
	json_t *v;

	out[0] = '\0';
	json_array_foreach(array, i, v) {
		if (n < bytes && json_is_string(v))
			n += (size_t)snprintf(out + n, bytes - n, "%s%s", n > 0 ? ", " : "",
					      json_string_value(v));
	}
	return out;
}

static int print_table(struct table *t, FILE *to)
{
	table_print(t, to);
	table_free(t);
	return CTL_OK;
}

/* ---- agent ---- */

static void line(FILE *to, const char *head, const char *text)
{
	fprintf(to, "%-12s", head);
	print_clean(to, text);
	fputc('\n', to);
}

/* "name 3, other 4" of an object of numbers that are not zero. */
static void line_counts(FILE *to, const char *head, const json_t *o)
{
	char text[2048] = "";
	const char *key;
	size_t n = 0;
	json_t *v;

	json_object_foreach((json_t *)o, key, v) {
		if (json_integer_value(v) != 0 && n < sizeof(text))
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s %lld",
					      n > 0 ? ", " : "", key,
					      (long long)json_integer_value(v));
	}
	line(to, head, text[0] != '\0' ? text : "none");
}

static void status_dataplane(const json_t *d, FILE *to)
{
	char text[512];

	if (!true_of(d, "connected")) {
		line(to, "dataplane", "NOT CONNECTED");
		return;
	}
	snprintf(text, sizeof(text),
		 "%s, %lld forwarded, %lld diverted, %lld of %lld flows, %lld bindings, %.1f %% "
		 "busy",
		 true_of(d, "ready") ? "ready" : "NOT READY", number_of(d, "forwarded"),
		 number_of(d, "diverted"), number_of(d, "flows"), number_of(d, "flows_max"),
		 number_of(d, "bindings"), json_number_value(json_object_get(d, "busy_pct")));
	line(to, "dataplane", text);
}

static void status_ports(const json_t *ports, FILE *to)
{
	struct table *t =
		table_new("PORT|SIDE|LINK|>RX PACKETS|>TX PACKETS|>TO KERNEL|>FROM KERNEL");
	size_t i;
	json_t *p;

	if (t == NULL || json_array_size(ports) == 0) {
		table_free(t);
		return;
	}
	json_array_foreach(ports, i, p) {
		table_cell(t, text_of(p, "name"));
		table_cell(t, text_of(p, "side"));
		table_cell(t, text_of(p, "link"));
		cell_number(t, p, "rx_packets");
		cell_number(t, p, "tx_packets");
		cell_number(t, p, "to_kernel");
		cell_number(t, p, "from_kernel");
	}
	fputc('\n', to);
	print_table(t, to);
}

static void status_alarms(const json_t *alarms, FILE *to)
{
	struct table *t = table_new("ALARM|KIND|TEXT");
	char when[40];
	size_t i;
	json_t *a;

	if (t == NULL || json_array_size(alarms) == 0) {
		table_free(t);
		return;
	}
	json_array_foreach(alarms, i, a) {
		table_cell(t, time_text(when, number_of(a, "at")));
		table_cell(t, text_of(a, "kind"));
		table_cell(t, text_of(a, "text"));
	}
	fputc('\n', to);
	print_table(t, to);
}

int show_status(const json_t *r, FILE *to)
{
	const json_t *policy = json_object_get(r, "policy"), *c = json_object_get(r, "controller"),
		     *w;
	const json_t *workers = json_object_get(r, "tls_workers");
	char text[640], span[32], part[64];
	long long sessions = 0;
	size_t i;

	snprintf(text, sizeof(text), "%s, version %s, up %s", text_of(r, "gateway"),
		 text_of(r, "version"), span_text(span, number_of(r, "uptime_s")));
	line(to, "gateway", text);
	snprintf(text, sizeof(text), "%s, epoch %lld, sha256:%.16s", text_of(policy, "file"),
		 number_of(policy, "epoch"), text_of(policy, "sha256"));
	line(to, "policy", text);
	snprintf(part, sizeof(part), "lease %s",
		 left_text(span, json_object_get(c, "lease_left_s"), "none"));
	snprintf(text, sizeof(text), "%s%s, revision %lld of %lld, %s",
		 true_of(c, "connected") ? "connected" : "NOT CONNECTED",
		 true_of(c, "frozen") ? ", FROZEN (stored log is damaged)" : "",
		 number_of(c, "revision"), number_of(c, "head"), part);
	line(to, "controller", text);
	status_dataplane(json_object_get(r, "dataplane"), to);
	json_array_foreach(workers, i, w)
		sessions += number_of(w, "sessions");
	snprintf(text, sizeof(text), "%zu workers, %lld sessions", json_array_size(workers),
		 sessions);
	line(to, "tls", text);
	line_counts(to, "devices", json_object_get(r, "devices"));
	line_counts(to, "drops", json_object_get(r, "drops"));
	line_counts(to, "refused", json_object_get(r, "handshakes_refused"));
	line_counts(to, "kernel", json_object_get(r, "kernel"));
	status_ports(json_object_get(json_object_get(r, "dataplane"), "ports"), to);
	status_alarms(json_object_get(r, "alarms"), to);
	return CTL_OK;
}

int show_devices(const json_t *r, FILE *to)
{
	struct table *t = table_new(
		"DEVICE|STANDING|SEGMENT|HOME|>EXPIRES|>SESSIONS|ADDRESSES|>REVISION|REASON");
	char span[32], list[512];
	size_t i;
	json_t *d;

	if (t == NULL)
		return CTL_REFUSED;
	json_array_foreach(json_object_get(r, "devices"), i, d) {
		table_cell(t, text_of(d, "device"));
		table_cell(t, text_of(d, "standing"));
		table_cell(t, text_of(d, "segment"));
		table_cell(t, text_of(d, "home"));
		table_cell(t, left_text(span, json_object_get(d, "expires_s"), "never"));
		cell_number(t, d, "sessions");
		table_cell(t, join(list, sizeof(list), json_object_get(d, "addresses")));
		cell_number(t, d, "revision");
		table_cell(t, text_of(d, "reason"));
	}
	return print_table(t, to);
}

int show_bindings(const json_t *r, FILE *to)
{
	struct table *t = table_new("ADDRESS|MAC|PORT|>VLAN|>LEASE|DEVICE");
	char span[32];
	size_t i;
	json_t *b;

	if (t == NULL)
		return CTL_REFUSED;
	json_array_foreach(json_object_get(r, "bindings"), i, b) {
		table_cell(t, text_of(b, "ip"));
		table_cell(t, text_of(b, "mac"));
		table_cell(t, text_of(b, "port"));
		cell_number(t, b, "vlan");
		table_cell(t, left_text(span, json_object_get(b, "lease_left_s"), "in session"));
		table_cell(t, text_of(b, "device"));
	}
	return print_table(t, to);
}

int show_segments(const json_t *r, FILE *to)
{
	struct table *s = table_new(">ID|NAME|KIND|>DEVICES|LIMITS|PREFIXES");
	struct table *u = table_new(">LINE|RULE|FROM|TO|ACTION|LOG|LIMITS|SERVICES");
	char list[1024];
	size_t i;
	json_t *o;

	if (s == NULL || u == NULL) {
		table_free(s);
		table_free(u);
		return CTL_REFUSED;
	}
	json_array_foreach(json_object_get(r, "segments"), i, o) {
		cell_number(s, o, "id");
		table_cell(s, text_of(o, "name"));
		table_cell(s, text_of(o, "kind"));
		cell_number(s, o, "devices");
		table_cell(s, text_of(o, "limits"));
		table_cell(s, join(list, sizeof(list), json_object_get(o, "prefixes")));
	}
	json_array_foreach(json_object_get(r, "rules"), i, o) {
		cell_number(u, o, "line");
		table_cell(u, text_of(o, "name"));
		table_cell(u, text_of(o, "from"));
		table_cell(u, text_of(o, "to"));
		table_cell(u, text_of(o, "action"));
		table_cell(u, true_of(o, "log") ? "yes" : "no");
		table_cell(u, text_of(o, "limits"));
		table_cell(u, join(list, sizeof(list), json_object_get(o, "services")));
	}
	print_table(s, to);
	fputc('\n', to);
	return print_table(u, to);
}

static void cell_end(struct table *t, const json_t *f, const char *addr, const char *port,
		     long long proto)
{
	const char *ip = text_of(f, addr);
	bool v6 = strchr(ip, ':') != NULL;

	if (proto == IPPROTO_TCP || proto == IPPROTO_UDP)
		table_cell_format(t, v6 ? "[%s]:%lld" : "%s:%lld", ip, number_of(f, port));
	else
		table_cell(t, ip);
}

/* The device where there is one, else the network. */
static const char *end_name(const json_t *f, const char *device, const char *segment)
{
	const char *name = text_of(f, device);

	return strcmp(name, "-") != 0 ? name : text_of(f, segment);
}

int show_flows(const json_t *r, FILE *to)
{
	struct table *t = table_new(
		"PROTO|SOURCE|DESTINATION|STATE|FROM|TO|RULE|CURRENT|>PACKETS|>BYTES|>IDLE");
	size_t i;
	json_t *f;

	if (t == NULL)
		return CTL_REFUSED;
	json_array_foreach(json_object_get(r, "flows"), i, f) {
		long long proto = number_of(f, "proto");

		if (proto == IPPROTO_TCP || proto == IPPROTO_UDP)
			table_cell(t, proto == IPPROTO_TCP ? "tcp" : "udp");
		else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6)
			table_cell(t, proto == IPPROTO_ICMP ? "icmp" : "icmp6");
		else
			table_cell_format(t, "%lld", proto);
		cell_end(t, f, "src", "sport", proto);
		cell_end(t, f, "dst", "dport", proto);
		table_cell(t, text_of(f, "state"));
		table_cell(t, end_name(f, "device_src", "segment_src"));
		table_cell(t, end_name(f, "device_dst", "segment_dst"));
		table_cell(t, text_of(f, "rule"));
		table_cell(t, true_of(f, "current") ? "yes" : "no");
		cell_number(t, f, "packets");
		cell_number(t, f, "bytes");
		table_cell_format(t, "%.1fs", (double)number_of(f, "idle_ms") / 1000);
	}
	return print_table(t, to);
}

int show_why(const json_t *r, FILE *to)
{
	size_t i;
	json_t *l;

	line(to, "verdict", text_of(r, "verdict"));
	json_array_foreach(json_object_get(r, "lines"), i, l)
		line(to, text_of(l, "what"), text_of(l, "text"));
	return CTL_OK;
}

/* ---- decisions ---- */

static const char *plural(long long n)
{
	return n == 1 ? "" : "s";
}

static void print_receipt(const json_t *rc, long long revision, FILE *to)
{
	long long sessions = number_of(rc, "sessions_closed"),
		  flows = number_of(rc, "flows_closed");
	const char *text = text_of(rc, "text");

	if (number_of(rc, "result") != 0) {
		fprintf(to, "revision %lld NOT in force on ", revision);
		print_clean(to, text_of(rc, "gateway"));
		fputs(": ", to);
		print_clean(to, text);
	} else {
		fprintf(to, "revision %lld in force on ", revision);
		print_clean(to, text_of(rc, "gateway"));
		fprintf(to, " in %lld µs: %lld session%s and %lld flow%s closed, %lld untracked",
			number_of(rc, "in_force_us"), sessions, plural(sessions), flows,
			plural(flows), number_of(rc, "untracked"));
		if (strcmp(text, "-") != 0) {
			fputs(" (", to);
			print_clean(to, text);
			fputc(')', to);
		}
	}
	fputc('\n', to);
}

int show_receipts(const json_t *r, FILE *to)
{
	const json_t *receipts = json_object_get(r, "receipts");
	const char *warning = json_string_value(json_object_get(r, "warning"));
	long long revision = number_of(r, "revision");
	/* Nobody there to obey is as asked; somebody there who did not answer is not. */
	int ret = json_array_size(json_object_get(r, "missing")) > 0 ? CTL_REFUSED : CTL_OK;
	size_t i;
	json_t *rc;

	json_array_foreach(receipts, i, rc) {
		print_receipt(rc, revision, to);
		if (number_of(rc, "result") != 0)
			ret = CTL_REFUSED;
	}
	if (warning != NULL) {
		fprintf(to, "revision %lld is signed and in the log; ", revision);
		print_clean(to, warning);
		fputc('\n', to);
	}
	return ret;
}

static void cell_receipt(struct table *t, const json_t *rc)
{
	if (!json_is_object(rc))
		table_cell(t, "no receipt");
	else if (number_of(rc, "result") != 0)
		table_cell_format(t, "%s: FAILED: %s", text_of(rc, "gateway"), text_of(rc, "text"));
	else
		table_cell_format(t, "%s: %lld µs, %lld sessions, %lld flows, %lld untracked",
				  text_of(rc, "gateway"), number_of(rc, "in_force_us"),
				  number_of(rc, "sessions_closed"), number_of(rc, "flows_closed"),
				  number_of(rc, "untracked"));
}

int show_log(const json_t *r, FILE *to)
{
	struct table *t = table_new(">REVISION|TIME|DECISION|RECEIPT");
	char when[40];
	size_t i, k;
	json_t *e, *rc;

	if (t == NULL)
		return CTL_REFUSED;
	json_array_foreach(json_object_get(r, "entries"), i, e) {
		json_t *many = json_object_get(e, "receipts");
		long long at = json_object_get(e, "issued") != NULL ? number_of(e, "issued")
								    : number_of(e, "stored");
		const char *what = json_string_value(json_object_get(e, "summary"));

		cell_number(t, e, "revision");
		table_cell(t, time_text(when, at));
		table_cell(t, what != NULL ? what : text_of(e, "hash"));
		if (many == NULL) { /* a gateway's log: its own */
			cell_receipt(t, json_object_get(e, "receipt"));
			continue;
		}
		cell_receipt(t, json_array_get(many, 0));
		json_array_foreach(many, k, rc) {
			if (k == 0)
				continue;
			table_cell(t, " ");
			table_cell(t, " ");
			table_cell(t, " ");
			cell_receipt(t, rc);
		}
	}
	return print_table(t, to);
}

static void state_devices(const json_t *devices, FILE *to)
{
	struct table *t = table_new("DEVICE|KIND|ENROLLED|QUARANTINE|ATTESTED|UNTIL");
	char when[40];
	size_t i;
	json_t *d;

	if (t == NULL)
		return;
	json_array_foreach(devices, i, d) {
		json_t *a = json_object_get(d, "attestation");

		table_cell(t, text_of(d, "device"));
		table_cell(t, text_of(d, "kind"));
		table_cell(t, true_of(d, "enrolled") ? "yes" : "no");
		if (true_of(d, "quarantined") &&
		    json_string_length(json_object_get(d, "reason")) > 0)
			table_cell_format(t, "yes: %s", text_of(d, "reason"));
		else
			table_cell(t, true_of(d, "quarantined") ? "yes" : "no");
		table_cell(t, text_of(a, "tier"));
		table_cell(t, a != NULL ? time_text(when, number_of(a, "expires_ms")) : NULL);
	}
	print_table(t, to);
}

static void state_software(const json_t *software, FILE *to)
{
	struct table *t = table_new("SOFTWARE|VERSION|DIGEST|CERTIFIED|REVOKED");
	size_t i;
	json_t *w;

	if (t == NULL)
		return;
	json_array_foreach(software, i, w) {
		table_cell(t, text_of(w, "name"));
		table_cell(t, text_of(w, "version"));
		table_cell_format(t, "sha256:%s", text_of(w, "digest"));
		table_cell(t, true_of(w, "certified") ? "yes" : "no");
		table_cell(t, true_of(w, "revoked") ? "yes" : "no");
	}
	fputc('\n', to);
	print_table(t, to);
}

int show_state(const json_t *r, FILE *to)
{
	const json_t *policy = json_object_get(r, "policy");
	char text[512];
	size_t i;
	json_t *v;

	snprintf(text, sizeof(text), "%lld, sha256:%.16s", number_of(r, "revision"),
		 text_of(r, "hash"));
	line(to, "revision", text);
	snprintf(text, sizeof(text), "ed25519 %s", text_of(r, "key"));
	line(to, "key", text);
	if (json_is_object(policy))
		snprintf(text, sizeof(text), "%s, sha256:%.16s", text_of(policy, "file"),
			 text_of(policy, "sha256"));
	else
		snprintf(text, sizeof(text), "none");
	line(to, "policy", text);
	json_array_foreach(json_object_get(r, "gateways"), i, v) {
		snprintf(text, sizeof(text), "%s, sent up to revision %lld", text_of(v, "gateway"),
			 number_of(v, "sent"));
		line(to, "gateway", text);
	}
	json_array_foreach(json_object_get(r, "revocations"), i, v)
		line(to, "revoked", json_string_value(v) != NULL ? json_string_value(v) : "-");
	fputc('\n', to);
	state_devices(json_object_get(r, "devices"), to);
	state_software(json_object_get(r, "software"), to);
	return CTL_OK;
}
