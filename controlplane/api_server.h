/* SPDX-License-Identifier: GPL-3.0-or-later */
/* api_server: the JSON API of agent and controller on a Unix stream socket. A request is one object on one line,
 * {"cmd": "...", ...}; a response is one object on one line, {"ok": true, ...} or
 * {"ok": false, "error": "text", "code": "invalid"}. A client may send its next request without waiting; it is read
 * when the one before was answered. Only root and the process's own uid may connect (SO_PEERCRED).
 *
 * One thread, non-blocking. The owner polls api_server_fd() for reading (it is an epoll descriptor, always the same)
 * and calls api_server_dispatch(); and calls api_server_tick() about every second. */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/err.h"

#define API_REQUEST_BYTES (2u << 20) /* longest request line */
#define API_RESPONSE_BYTES (64u << 20) /* longest response line; a longer one becomes an error */
#define API_CLIENTS_MAX 32
#define API_DEADLINE_MS 15000 /* a request not answered by then is answered "timeout" */
#define API_IDLE_MS 60000 /* a client that says nothing for so long is closed */

struct api_server;
struct api_call; /* one request waiting for its answer */

/**
 * Called for each request. Answer with api_reply() or api_fail(), now or later, exactly once; that frees the call.
 * `request` is borrowed until this function returns (json_incref() to keep it).
 */
typedef void api_handler(void *arg, struct api_call *call, const char *cmd, json_t *request);

/**
 * Listen on `path`, mode 0600; a socket left over there is replaced, anything else is not.
 * @param[out] out caller owns, api_server_free(); untouched on error
 * @return 0 or -errno (-EADDRINUSE: somebody answers there); text in err
 */
int api_server_new(struct api_server **out, const char *path, api_handler *handler, void *arg,
		   struct err *err);

/** Closes all clients and removes the socket. Calls that are still open stay valid: answer them, into the void. NULL is a no-op. */
void api_server_free(struct api_server *s);

int api_server_fd(const struct api_server *s);
int api_server_dispatch(struct api_server *s,
			uint64_t now_boot_ms); /* @return 0 or -errno of the listener */
void api_server_tick(struct api_server *s, uint64_t now_boot_ms);
/** Serve an already connected socket as a client. @return 0 or -errno; fd is taken over on success */
int api_server_adopt(struct api_server *s, int fd, uint64_t now_boot_ms);

/** Answer with an object; "ok": true is added. Takes over the reference. NULL (out of memory) answers an error. */
void api_reply(struct api_call *call, json_t *response);
/** Answer {"ok":false,...}. code: "invalid", "not_found", "conflict", "unavailable", "timeout", "internal". */
void api_fail(struct api_call *call, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** The same with further members: takes over `extra`, an object or NULL. */
void api_fail_with(struct api_call *call, const char *code, json_t *extra, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/**
 * Parse one request line, without its line feed. Pure.
 * @param[out] cmd  points into *out
 * @param[out] out  caller owns (json_decref)
 * @return 0 or -EPROTO with text in err
 */
int api_request_parse(json_t **out, const char **cmd, const char *line, size_t bytes,
		      struct err *err);
