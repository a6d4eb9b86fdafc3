/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/api_server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "controlplane/unix_listen.h"

#define READ_BYTES 65536

struct client {
	struct api_server *server;
	int fd; /* -1: slot is free */
	uint32_t events; /* as epoll knows them */
	char *in; /* bytes that were read and not yet taken as a request */
	size_t in_len, in_cap, in_scanned; /* scanned: no line feed before it */
	char *out;
	size_t out_len, out_at;
	struct api_call *call; /* the request being answered; NULL: none */
	uint64_t since_ms; /* last sign of life, or start of the call */
	bool inside; /* its request is in the handler right now */
	bool ended; /* peer sends no more */
	bool broken; /* close as soon as out is written */
};

/* Freed by its answer. The client may go before that: client is NULL then. */
struct api_call {
	struct client *client;
};

struct api_server {
	int epoll, listener;
	void (*handler)(void *arg, struct api_call *call, const char *cmd, json_t *request);
	void *arg;
	uint64_t now_ms;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct client clients[API_CLIENTS_MAX];
};

/* ---- requests ---- */

int api_request_parse(json_t **out, const char **cmd, const char *line, size_t bytes,
		      struct err *err)
{
	json_error_t je;
	json_t *obj = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, &je);
	const char *name;

	if (obj == NULL)
		return err_set(err, -EPROTO, "not JSON: %s (column %d)", je.text, je.column);
	name = json_string_value(json_object_get(obj, "cmd"));
	if (name == NULL || name[0] == '\0') {
		json_decref(obj);
		return err_set(err, -EPROTO, "not an object with a \"cmd\"");
	}
	*out = obj;
	*cmd = name;
	return 0;
}

/* ---- clients ---- */

static void client_close(struct client *c)
{
	if (c->call != NULL)
		c->call->client = NULL;
	close(c->fd); /* leaves the epoll set by itself */
	free(c->in);
	free(c->out);
	*c = (struct client){.server = c->server, .fd = -1};
}

static void client_watch(struct client *c)
{
	bool reading = c->call == NULL && !c->ended && !c->broken;
	struct epoll_event ev = {.events = (reading ? EPOLLIN : 0) |
					   (c->out_at < c->out_len ? EPOLLOUT : 0),
				 .data.ptr = c};

	if (ev.events != c->events && epoll_ctl(c->server->epoll, EPOLL_CTL_MOD, c->fd, &ev) == 0)
		c->events = ev.events;
}

/* @return false: the client is gone */
static bool client_flush(struct client *c)
{
	while (c->out_at < c->out_len) {
		ssize_t n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return true;
		if (n < 0) {
			client_close(c);
			return false;
		}
		c->out_at += (size_t)n;
		c->since_ms = c->server->now_ms;
	}
	free(c->out);
	c->out = NULL;
	c->out_at = c->out_len = 0;
	if (c->broken || (c->ended && c->call == NULL && c->in_len == 0)) {
		client_close(c);
		return false;
	}
	return true;
}

/* Queue one response line. There is at most one at a time: the next request is taken when this one is written. */
static void client_respond(struct client *c, json_t *response)
{
	char *text = response == NULL ? NULL : json_dumps(response, JSON_COMPACT);
	size_t n = text == NULL ? 0 : strlen(text);
	char *line = NULL;

	if (text != NULL && n < API_RESPONSE_BYTES)
		line = realloc(text, n + 1);
	if (line == NULL) {
		static const char sorry[] = "{\"ok\":false,\"error\":\"the response is too large "
					    "or out of memory\",\"code\":\"internal\"}";

		free(text);
		line = strdup(sorry);
		n = sizeof(sorry) - 1;
		if (line == NULL) {
			c->broken = true;
			return;
		}
	}
	line[n] = '\n'; /* over the terminating NUL */
	c->out = line;
	c->out_len = n + 1;
	c->out_at = 0;
}

static json_t *failure(json_t *extra, const char *code, const char *text)
{
	json_t *obj = extra != NULL ? extra : json_object();

	json_object_set_new(obj, "ok", json_false());
	json_object_set_new(obj, "error", json_string(text));
	json_object_set_new(obj, "code", json_string(code));
	return obj;
}

static void client_refuse(struct client *c, const char *code, const char *text)
{
	json_t *obj = failure(NULL, code, text);

	client_respond(c, obj);
	json_decref(obj);
}

static void client_request(struct client *c, const char *line, size_t bytes)
{
	struct api_server *s = c->server;
	struct api_call *call;
	struct err err = {0};
	const char *cmd;
	json_t *request;

	if (api_request_parse(&request, &cmd, line, bytes, &err) < 0) {
		client_refuse(c, "invalid", err.msg);
		return;
	}
	call = calloc(1, sizeof(*call));
	if (call == NULL) {
		json_decref(request);
		client_refuse(c, "internal", "out of memory");
		return;
	}
	call->client = c;
	c->call = call;
	c->since_ms = s->now_ms;
	c->inside = true;
	s->handler(s->arg, call, cmd, request);
	c->inside = false;
	json_decref(request);
}

/* Take the next request line from what was read. @return false: there is none to take now */
static bool client_next(struct client *c)
{
	char *nl;
	size_t bytes, rest;

	if (c->call != NULL || c->out != NULL || c->broken || c->in_len == 0)
		return false;
	nl = memchr(c->in + c->in_scanned, '\n', c->in_len - c->in_scanned);
	if (nl == NULL) {
		c->in_scanned = c->in_len;
		if (c->in_len >= API_REQUEST_BYTES) {
			client_refuse(c, "invalid", "the request is too long");
			c->broken = true;
		} else if (c->ended) {
			c->in_len = c->in_scanned = 0; /* half a line: the rest will never come */
		}
		return false;
	}
	bytes = (size_t)(nl - c->in);
	if (bytes > 0)
		client_request(c, c->in, bytes);
	rest = c->in_len - bytes - 1;
	memmove(c->in, nl + 1, rest);
	c->in_len = rest;
	c->in_scanned = 0;
	return true;
}

/* Write and take requests for as long as both go. */
static void client_run(struct client *c)
{
	do {
		if (!client_flush(c))
			return;
	} while (client_next(c));
	if (client_flush(c))
		client_watch(c);
}

static void client_read(struct client *c)
{
	char *grown;
	ssize_t n;

	if (c->in_cap - c->in_len < READ_BYTES) {
		grown = realloc(c->in, c->in_len + READ_BYTES);
		if (grown == NULL) {
			client_close(c);
			return;
		}
		c->in = grown;
		c->in_cap = c->in_len + READ_BYTES;
	}
	n = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, MSG_DONTWAIT);
	if (n < 0) {
		if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			client_close(c);
		return;
	}
	if (n == 0)
		c->ended = true;
	c->in_len += (size_t)n;
	c->since_ms = c->server->now_ms;
	client_run(c);
}

int api_server_adopt(struct api_server *s, int fd, uint64_t now_boot_ms)
{
	struct client *c = NULL;
	struct epoll_event ev = {.events = EPOLLIN};

	for (unsigned i = 0; i < API_CLIENTS_MAX && c == NULL; i++) {
		if (s->clients[i].fd < 0)
			c = &s->clients[i];
	}
	if (c == NULL)
		return -EBUSY;
	ev.data.ptr = c;
	if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	c->fd = fd;
	c->events = EPOLLIN;
	c->since_ms = now_boot_ms;
	return 0;
}

static int server_accept(struct api_server *s)
{
	static const char full[] =
		"{\"ok\":false,\"error\":\"too many clients\",\"code\":\"unavailable\"}\n";
	static const char denied[] = "{\"ok\":false,\"error\":\"only root and the daemon's own "
				     "user\",\"code\":\"denied\"}\n";
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED ||
				       errno == EMFILE || errno == ENFILE || errno == ENOMEM
			       ? 0
			       : -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
	    (cred.uid != 0 && cred.uid != geteuid())) {
		send(fd, denied, sizeof(denied) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		close(fd);
		return 0;
	}
	if (api_server_adopt(s, fd, s->now_ms) < 0) {
		send(fd, full, sizeof(full) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		close(fd);
	}
	return 0;
}

int api_server_dispatch(struct api_server *s, uint64_t now_boot_ms)
{
	struct epoll_event evs[API_CLIENTS_MAX + 1];
	int n = epoll_wait(s->epoll, evs, API_CLIENTS_MAX + 1, 0), ret = 0;

	s->now_ms = now_boot_ms;
	for (int i = 0; i < n; i++) {
		struct client *c = evs[i].data.ptr;

		if (c == NULL) {
			ret = server_accept(s);
			continue;
		}
		if (c->fd < 0)
			continue;
		if ((evs[i].events & (EPOLLHUP | EPOLLERR)) && !(evs[i].events & EPOLLIN)) {
			client_close(c);
			continue;
		}
		if (evs[i].events & EPOLLIN)
			client_read(c);
		else
			client_run(c);
	}
	return ret;
}

void api_server_tick(struct api_server *s, uint64_t now_boot_ms)
{
	s->now_ms = now_boot_ms;
	for (unsigned i = 0; i < API_CLIENTS_MAX; i++) {
		struct client *c = &s->clients[i];

		if (c->fd < 0)
			continue;
		if (c->call != NULL && now_boot_ms - c->since_ms >= API_DEADLINE_MS) {
			c->call->client = NULL; /* its answer, when it comes, goes nowhere */
			c->call = NULL;
			client_refuse(c, "timeout", "no answer in time");
			client_run(c);
		} else if (c->call == NULL && now_boot_ms - c->since_ms >= API_IDLE_MS) {
			client_close(c);
		}
	}
}

/* ---- answers ---- */

/* Takes the reference to response. */
static void call_answer(struct api_call *call, json_t *response)
{
	struct client *c = call->client;

	free(call);
	if (c != NULL) {
		c->call = NULL;
		client_respond(c, response);
		/* An answer from inside the handler is written by the loop that called it. */
		if (!c->inside)
			client_run(c);
	}
	json_decref(response);
}

void api_reply(struct api_call *call, json_t *response)
{
	if (response != NULL && json_object_set_new(response, "ok", json_true()) < 0) {
		json_decref(response);
		response = NULL;
	}
	if (response == NULL) {
		api_fail(call, "internal", "out of memory");
		return;
	}
	call_answer(call, response);
}

__attribute__((format(printf, 4, 0))) static void
fail_va(struct api_call *call, const char *code, json_t *extra, const char *fmt, va_list ap)
{
	char text[ERR_MSG_BYTES];

	vsnprintf(text, sizeof(text), fmt, ap);
	call_answer(call, failure(extra, code, text));
}

void api_fail(struct api_call *call, const char *code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail_va(call, code, NULL, fmt, ap);
	va_end(ap);
}

void api_fail_with(struct api_call *call, const char *code, json_t *extra, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail_va(call, code, extra, fmt, ap);
	va_end(ap);
}

/* ---- life ---- */

int api_server_new(struct api_server **out, const char *path, api_handler *handler, void *arg,
		   struct err *err)
{
	struct api_server *s = calloc(1, sizeof(*s));
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	int ret = -ENOMEM;

	if (s == NULL)
		return err_set(err, ret, "out of memory");
	s->epoll = s->listener = -1;
	s->handler = handler;
	s->arg = arg;
	for (unsigned i = 0; i < API_CLIENTS_MAX; i++)
		s->clients[i] = (struct client){.server = s, .fd = -1};
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll < 0) {
		ret = err_set(err, -errno, "epoll: %s", strerror(errno));
		goto fail;
	}
	ret = unix_listen(path, API_CLIENTS_MAX, err);
	if (ret < 0)
		goto fail;
	s->listener = ret;
	snprintf(s->path, sizeof(s->path), "%s", path);
	if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listener, &ev) < 0) {
		ret = err_set(err, -errno, "epoll: %s", strerror(errno));
		goto fail;
	}
	*out = s;
	return 0;
fail:
	api_server_free(s);
	return ret;
}

void api_server_free(struct api_server *s)
{
	if (s == NULL)
		return;
	for (unsigned i = 0; i < API_CLIENTS_MAX; i++) {
		if (s->clients[i].fd >= 0)
			client_close(&s->clients[i]);
	}
	if (s->path[0] != '\0')
		unlink(s->path);
	if (s->listener >= 0)
		close(s->listener);
	if (s->epoll >= 0)
		close(s->epoll);
	free(s);
}

int api_server_fd(const struct api_server *s)
{
	return s->epoll;
}
