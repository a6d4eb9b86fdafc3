/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "controlplane/frame.h"
#include "controlplane/stream.h"
#include "controlplane/transport.h"

#define QUEUE_BYTES (64u * 1024) /* receipts that wait for a slow controller */

/* A connection of this transport is a stream, by another name. */
static struct stream *stream_of(const struct transport *t)
{
	return (struct stream *)t;
}

static int embedded_open(struct transport **out, const char *address, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct stream *s;
	int ret, fd;

	if (strlen(address) >= sizeof(sa.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: path is too long for a socket", address);
	strcpy(sa.sun_path, address);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	/* Unix sockets connect at once or not at all (EAGAIN: the backlog is full). */
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		ret = err_set(err, -errno, "%s: %s", address, strerror(errno));
		close(fd);
		return ret;
	}
	ret = stream_adopt(&s, fd, FRAME_DOWN_BYTES, QUEUE_BYTES);
	if (ret < 0) {
		close(fd);
		return err_set(err, ret, "%s: %s", address, strerror(-ret));
	}
	*out = (struct transport *)s;
	return 0;
}

static void embedded_close(struct transport *t)
{
	stream_close(stream_of(t));
}

static int embedded_fd(const struct transport *t)
{
	return stream_fd(stream_of(t));
}

static bool embedded_wants_write(const struct transport *t)
{
	return stream_wants_write(stream_of(t));
}

static int embedded_send(struct transport *t, const void *frame, size_t bytes)
{
	return stream_send(stream_of(t), frame, bytes);
}

static int embedded_pump(struct transport *t,
			 int (*deliver)(void *arg, const uint8_t *frame, size_t bytes), void *arg)
{
	return stream_pump(stream_of(t), deliver, arg);
}

const struct transport_ops transport_embedded = {
	.name = "embedded",
	.open = embedded_open,
	.close = embedded_close,
	.fd = embedded_fd,
	.wants_write = embedded_wants_write,
	.send = embedded_send,
	.pump = embedded_pump,
};
