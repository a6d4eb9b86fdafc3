/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/ctl/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/base/clock.h"

#define RESPONSE_MAX_BYTES (80u << 20)
#define READ_BYTES 65536

static int connect_to(const char *path, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd, ret;

	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: path is too long for a socket", path);
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		ret = err_set(err, -errno, "%s: %s", path,
			      errno == ECONNREFUSED ? "nobody listens there" : strerror(errno));
		close(fd);
		return ret;
	}
	return fd;
}

static int wait_for(int fd, short events, uint64_t deadline_ms, struct err *err)
{
	struct pollfd p = {.fd = fd, .events = events};
	uint64_t now = clock_boot_ms();
	int n = now >= deadline_ms ? 0 : poll(&p, 1, (int)(deadline_ms - now));

	if (n < 0 && errno != EINTR)
		return err_set(err, -errno, "poll: %s", strerror(errno));
	return n == 0 ? err_set(err, -ETIMEDOUT, "no answer in time") : 0;
}

static int send_all(int fd, const char *data, size_t bytes, uint64_t deadline_ms, struct err *err)
{
	int ret = 0;

	while (bytes > 0 && ret == 0) {
		ssize_t n = send(fd, data, bytes, MSG_NOSIGNAL);

		if (n >= 0) {
			data += n;
			bytes -= (size_t)n;
		} else if (errno == EAGAIN || errno == EINTR) {
			ret = wait_for(fd, POLLOUT, deadline_ms, err);
		} else if (errno == EPIPE || errno == ECONNRESET) {
			break; /* it refused us; the reason may be there to read */
		} else {
			ret = err_set(err, -errno, "send: %s", strerror(errno));
		}
	}
	return ret;
}

static int read_line(int fd, char **out, size_t *out_bytes, uint64_t deadline_ms, struct err *err)
{
	size_t len = 0, cap = 0;
	char *line = NULL, *grown, *nl;
	int ret = 0;

	while (ret == 0) {
		ssize_t n;

		if (cap - len < READ_BYTES) {
			cap = len + READ_BYTES > 2 * cap ? len + READ_BYTES : 2 * cap;
			grown = cap > RESPONSE_MAX_BYTES ? NULL : realloc(line, cap);
			if (grown == NULL) {
				ret = err_set(err, -EPROTO, "the response is too large");
				break;
			}
			line = grown;
		}
		n = recv(fd, line + len, cap - len, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			ret = wait_for(fd, POLLIN, deadline_ms, err);
			continue;
		}
		if (n <= 0) {
			ret = err_set(err, n == 0 ? -EPROTO : -errno, "%s",
				      n == 0 ? "the daemon closed the connection without an answer"
					     : strerror(errno));
			break;
		}
		nl = memchr(line + len, '\n', (size_t)n);
		len += (size_t)n;
		if (nl != NULL) {
			*out = line;
			*out_bytes = (size_t)(nl - line);
			return 0;
		}
	}
	free(line);
	return ret;
}

int client_call(const char *socket_path, const json_t *request, unsigned timeout_ms,
		json_t **response, struct err *err)
{
	uint64_t deadline_ms = clock_boot_ms() + timeout_ms;
	char *text = json_dumps(request, JSON_COMPACT), *line = NULL;
	size_t bytes = 0;
	json_t *obj;
	int fd, ret;

	if (text == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	fd = connect_to(socket_path, err);
	if (fd < 0) {
		free(text);
		return fd;
	}
	ret = send_all(fd, text, strlen(text), deadline_ms, err);
	if (ret == 0)
		ret = send_all(fd, "\n", 1, deadline_ms, err);
	if (ret == 0)
		ret = read_line(fd, &line, &bytes, deadline_ms, err);
	if (ret == 0) {
		obj = json_loadb(line, bytes, 0, NULL);
		if (json_is_boolean(json_object_get(obj, "ok"))) {
			*response = obj;
		} else {
			json_decref(obj);
			ret = err_set(err, -EPROTO, "the answer is not one of this API");
		}
	}
	free(line);
	free(text);
	close(fd);
	return ret;
}
