/* SPDX-License-Identifier: GPL-3.0-or-later */
/* metrics: Prometheus text (exposition format 0.0.4) on a loopback port, and /healthz. Served from the agent's loop. */
#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "controlplane/agent/agent.h"
#include "controlplane/agent/metrics_text.h"

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
		metrics_write(f, a);
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
