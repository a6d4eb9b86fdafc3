/* SPDX-License-Identifier: GPL-3.0-or-later */
/* metrics: Prometheus text (exposition format 0.0.4) on a loopback port, and /healthz. Served from the agent's loop. */
#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "config/base/clock.h"
#include "controlplane/agent/agent.h"

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP sallyport_%s %s\n# TYPE sallyport_%s %s\n", name, help, name, type);
}

static void one(FILE *f, const char *name, const char *type, const char *help,
		unsigned long long value)
{
	head(f, name, type, help);
	fprintf(f, "sallyport_%s %llu\n", name, value);
}

/* Label values: backslash, quote and line feed are escaped. */
static void label(FILE *f, const char *text)
{
	for (; *text != '\0'; text++) {
		if (*text == '\\' || *text == '"')
			fputc('\\', f);
		fputc(*text == '\n' ? ' ' : *text, f);
	}
}

static void write_devices(FILE *f, const struct agent *a)
{
	uint32_t count[STANDING_COUNT] = {0};

	for (uint32_t i = 0; i < registry_devices(a->registry); i++)
		count[registry_device(a->registry, i)->judged.standing]++;
	head(f, "devices", "gauge", "Devices by standing.");
	for (int s = 0; s < STANDING_COUNT; s++)
		fprintf(f, "sallyport_devices{standing=\"%s\"} %u\n", standing_name(s), count[s]);
}

static void write_dataplane(FILE *f, const struct agent *a)
{
	const struct msg_stats *s = &a->stats;

	one(f, "dataplane_up", "gauge", "Is the dataplane connected and in step?",
	    a->dp_ready && s->h.type == MSG_STATS);
	if (s->h.type != MSG_STATS)
		return;
	one(f, "forwarded_packets_total", "counter",
	    "Packets that went port to port by the fast path.", s->forwarded);
	one(f, "diverted_packets_total", "counter", "Packets to a TLS listener.", s->diverted);
	one(f, "admissions_total", "counter", "Flows admitted.", s->admissions);
	one(f, "refusals_total", "counter", "Flows refused.", s->refusals);
	one(f, "flows", "gauge", "Flows now.", s->flows);
	one(f, "flows_max", "gauge", "Room for flows.", s->flows_max);
	one(f, "worker_busy_cycles_total", "counter",
	    "TSC cycles in which the workers had packets.", s->busy_cycles);
	one(f, "worker_cycles_total", "counter", "TSC cycles of the workers.", s->total_cycles);
	head(f, "dropped_packets_total", "counter", "Packets dropped, by reason.");
	for (unsigned i = 1; i < DROP_REASON_COUNT; i++)
		fprintf(f, "sallyport_dropped_packets_total{reason=\"%s\"} %llu\n",
			drop_reason_name(i), (unsigned long long)s->drops[i]);
	head(f, "port_packets_total", "counter", "Packets of a port.");
	for (uint32_t i = 0; i < s->n_ports && i < a->cfg->n_ports; i++) {
		if (a->cfg->ports[i].name[0] == '\0')
			continue;
		fprintf(f, "sallyport_port_packets_total{port=\"%s\",direction=\"rx\"} %llu\n",
			a->cfg->ports[i].name, (unsigned long long)s->ports[i].rx_packets);
		fprintf(f, "sallyport_port_packets_total{port=\"%s\",direction=\"tx\"} %llu\n",
			a->cfg->ports[i].name, (unsigned long long)s->ports[i].tx_packets);
	}
}

static void write_kernel_one(void *arg, const char *name, uint64_t packets, uint64_t bytes)
{
	(void)bytes;
	fprintf(arg, "sallyport_kernel_packets_total{counter=\"%s\"} %llu\n", name,
		(unsigned long long)packets);
}

static void write_all(FILE *f, struct agent *a)
{
	struct link_state l;
	const struct session *s;
	uint64_t now = clock_boot_ms();
	unsigned n = 0;

	link_get_state(a->link, &l);
	LIST_FOREACH(s, &a->sessions, next)
		n++;
	head(f, "build_info", "gauge", "Version.");
	fprintf(f, "sallyport_build_info{version=\"" SALLYPORT_VERSION "\"} 1\n");
	one(f, "uptime_seconds", "gauge", "Of the agent.", (now - a->started_ms) / 1000);
	write_devices(f, a);
	one(f, "bindings", "gauge", "Addresses bound to devices.", a->n_bindings);
	one(f, "tls_sessions", "gauge", "Open mTLS sessions.", n);
	head(f, "handshakes_refused_total", "counter", "Handshakes refused, by reason.");
	for (unsigned i = 0; i < AGENT_REFUSALS_MAX && a->refusals[i].n > 0; i++) {
		fputs("sallyport_handshakes_refused_total{reason=\"", f);
		label(f, a->refusals[i].reason);
		fprintf(f, "\"} %llu\n", (unsigned long long)a->refusals[i].n);
	}
	one(f, "policy_epoch", "gauge", "Of the policy in force.",
	    a->form != NULL ? a->form->epoch : 0);
	one(f, "controller_connected", "gauge", "Is the controller there?", l.connected);
	one(f, "decision_revision", "gauge", "Last decision in force here.", l.revision);
	one(f, "decision_head", "gauge", "Last decision that the controller's heartbeat named.",
	    l.head);
	one(f, "controller_lease_seconds", "gauge",
	    "For how long the controller's word still holds.",
	    a->lease_until_ms > now ? (a->lease_until_ms - now) / 1000 : 0);
	write_dataplane(f, a);
	head(f, "kernel_packets_total", "counter",
	     "Packets of the kernel path, by nftables counter.");
	nft_counters(a->nft, write_kernel_one, f);
}

static enum MHD_Result answer(struct MHD_Connection *c, unsigned code, void *body, size_t bytes)
{
	struct MHD_Response *r =
		MHD_create_response_from_buffer(bytes, body, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result ret;

	if (r == NULL) {
		free(body);
		return MHD_NO;
	}
	MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE,
				"text/plain; version=0.0.4; charset=utf-8");
	ret = MHD_queue_response(c, code, r);
	MHD_destroy_response(r);
	return ret;
}

static enum MHD_Result request(void *arg, struct MHD_Connection *c, const char *url,
			       const char *method, const char *version, const char *upload,
			       size_t *upload_bytes, void **state)
{
	struct agent *a = arg;
	unsigned code = MHD_HTTP_OK;
	char *body = NULL;
	size_t bytes = 0;
	FILE *f;

	(void)version;
	(void)upload;
	(void)upload_bytes;
	(void)state;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0)
		return MHD_NO;
	f = open_memstream(&body, &bytes);
	if (f == NULL)
		return MHD_NO;
	if (strcmp(url, "/metrics") == 0) {
		write_all(f, a);
	} else if (strcmp(url, "/healthz") == 0) {
		bool good = a->dp_ready && a->nft_retry_ms == 0;

		code = good ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
		fputs(good	    ? "ok\n"
		      : a->dp_ready ? "kernel plane not in force\n"
				    : "no dataplane\n",
		      f);
	} else {
		code = MHD_HTTP_NOT_FOUND;
		fputs("see /metrics and /healthz\n", f);
	}
	if (fclose(f) != 0) {
		free(body);
		return MHD_NO;
	}
	return answer(c, code, body, bytes);
}

static void metrics_ready(void *arg, uint32_t events)
{
	struct agent *a = arg;

	(void)events;
	MHD_run(a->metrics);
}

int metrics_start(struct agent *a, struct err *err)
{
	struct sockaddr_storage ss = {0};
	const union MHD_DaemonInfo *info;
	bool v4 = ip_addr_is_v4(&a->cfg->metrics_addr);

	if (a->cfg->metrics_port == 0)
		return 0;
	if (v4) {
		struct sockaddr_in *in = (struct sockaddr_in *)&ss;

		in->sin_family = AF_INET;
		in->sin_port = htons(a->cfg->metrics_port);
		memcpy(&in->sin_addr, a->cfg->metrics_addr.b + 12, 4);
	} else {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;

		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(a->cfg->metrics_port);
		memcpy(&in6->sin6_addr, a->cfg->metrics_addr.b, 16);
	}
	a->metrics = MHD_start_daemon(MHD_USE_EPOLL | (v4 ? 0 : MHD_USE_IPv6), a->cfg->metrics_port,
				      NULL, NULL, request, a, MHD_OPTION_SOCK_ADDR, &ss,
				      MHD_OPTION_CONNECTION_LIMIT, 16,
				      MHD_OPTION_CONNECTION_TIMEOUT, 10, MHD_OPTION_END);
	if (a->metrics == NULL)
		return err_set(err, -EADDRINUSE, "metrics: port %u cannot be opened",
			       a->cfg->metrics_port);
	info = MHD_get_daemon_info(a->metrics, MHD_DAEMON_INFO_EPOLL_FD);
	if (info == NULL)
		return err_set(err, -ENOSYS, "metrics: libmicrohttpd has no epoll");
	a->metrics_src =
		(struct loop_source){.fd = info->epoll_fd, .ready = metrics_ready, .arg = a};
	return loop_add(a->loop, &a->metrics_src, EPOLLIN);
}

/* Without it 16 clients that say nothing would keep everybody else out. */
void metrics_tick(struct agent *a)
{
	if (a->metrics != NULL)
		MHD_run(a->metrics);
}

void metrics_stop(struct agent *a)
{
	if (a->metrics != NULL)
		MHD_stop_daemon(a->metrics);
	a->metrics = NULL;
}
