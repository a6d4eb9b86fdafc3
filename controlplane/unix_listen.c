/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/unix_listen.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* A socket that nobody listens on is left over from a crash; anything else at that path is not ours to remove. */
static int path_clear(const struct sockaddr_un *sa, struct err *err)
{
	struct stat st;
	int fd, ret;

	if (lstat(sa->sun_path, &st) < 0)
		return errno == ENOENT
			       ? 0
			       : err_set(err, -errno, "%s: %s", sa->sun_path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, -EEXIST, "%s: is there and is not a socket", sa->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	ret = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 ? errno : 0;
	close(fd);
	if (ret != ECONNREFUSED)
		return err_set(err, -EADDRINUSE, "%s: another process listens there", sa->sun_path);
	if (unlink(sa->sun_path) < 0)
		return err_set(err, -errno, "%s: %s", sa->sun_path, strerror(errno));
	return 0;
}

int unix_listen(const char *path, int backlog, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	mode_t old;
	int ret, fd;

	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: path is too long for a socket", path);
	strcpy(sa.sun_path, path);
	ret = path_clear(&sa, err);
	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	old = umask(0177); /* mode 0600 from the first moment */
	ret = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, backlog) < 0 ? -errno
											  : 0;
	umask(old);
	if (ret < 0) {
		close(fd);
		return err_set(err, ret, "%s: %s", path, strerror(-ret));
	}
	return fd;
}
