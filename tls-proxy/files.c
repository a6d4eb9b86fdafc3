/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX (64u << 20) /* a list of 100,000 revoked certificates has 4 MB */

static const struct file *find(const struct files *f, const char *path)
{
	for (unsigned i = 0; i < f->n; i++) {
		if (strcmp(f->at[i].path, path) == 0)
			return &f->at[i];
	}
	return NULL;
}

int files_add(struct files *f, const char *path, int fd)
{
	struct file *at = f->n < FILES_MAX ? realloc(f->at, (f->n + 1) * sizeof(*at)) : NULL;
	int ret = f->n < FILES_MAX ? -ENOMEM : -E2BIG;

	if (at == NULL)
		goto fail;
	f->at = at;
	if (find(f, path) != NULL) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	at[f->n] = (struct file){.path = strdup(path), .fd = fd};
	if (at[f->n].path == NULL)
		goto fail;
	f->n++;
	return 0;
fail:
	if (fd >= 0)
		close(fd);
	return ret;
}

void files_fini(struct files *f)
{
	for (unsigned i = 0; i < f->n; i++) {
		free(f->at[i].path);
		if (f->at[i].fd >= 0)
			close(f->at[i].fd);
	}
	free(f->at);
	*f = (struct files){0};
}

void files_wipe(char *text, size_t bytes)
{
	if (text != NULL)
		explicit_bzero(text, bytes);
	free(text);
}

/* Without stdio: no copy of a key in a buffer that nobody wipes. From the beginning, whoever read it before. */
static int fd_read(int fd, const char *path, char **out, size_t *bytes, struct err *err)
{
	struct stat st;
	size_t have = 0;
	char *buf;

	if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > FILE_BYTES_MAX ||
	    !S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: empty, too large or not a file", path);
	buf = malloc(st.st_size + 1);
	if (buf == NULL)
		return -ENOMEM;
	while (have < (size_t)st.st_size) {
		ssize_t n = pread(fd, buf + have, st.st_size - have, have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			files_wipe(buf, have);
			return err_set(err, -EIO, "%s: cannot be read", path);
		}
		have += n;
	}
	buf[have] = '\0';
	*out = buf;
	*bytes = have;
	return 0;
}

int files_read(const struct files *f, const char *path, char **out, size_t *bytes, struct err *err)
{
	const struct file *file = f != NULL ? find(f, path) : NULL;
	int fd, ret;

	if (f != NULL)
		return file != NULL ? fd_read(file->fd, path, out, bytes, err)
				    : err_set(err, -ENOENT, "%s: was not handed over", path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	ret = fd_read(fd, path, out, bytes, err);
	close(fd);
	return ret;
}

static int each_of_set(const struct files *f, const char *path,
		       int (*each)(void *, const char *, struct err *), void *arg, struct err *err)
{
	const struct file *file = find(f, path);
	size_t n = strlen(path);
	int ret = 0;

	if (file == NULL)
		return err_set(err, -ENOENT, "%s: was not handed over", path);
	if (file->fd >= 0)
		return each(arg, path, err);
	for (unsigned i = 0; ret == 0 && i < f->n; i++) {
		if (f->at[i].fd >= 0 && strncmp(f->at[i].path, path, n) == 0 &&
		    f->at[i].path[n] == '/')
			ret = each(arg, f->at[i].path, err);
	}
	return ret;
}

int files_each(const struct files *f, const char *path,
	       int (*each)(void *arg, const char *path, struct err *err), void *arg,
	       struct err *err)
{
	struct dirent *e;
	struct stat st;
	int ret = 0;
	DIR *d;

	if (f != NULL)
		return each_of_set(f, path, each, arg, err);
	if (stat(path, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return each(arg, path, err);
	d = opendir(path);
	if (d == NULL)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	while (ret == 0 && (e = readdir(d)) != NULL) {
		char file[FILES_PATH_BYTES];

		if (e->d_name[0] == '.')
			continue;
		if (snprintf(file, sizeof(file), "%s/%s", path, e->d_name) >= (int)sizeof(file))
			ret = err_set(err, -ENAMETOOLONG, "%.200s: a name in it is too long", path);
		else
			ret = each(arg, file, err);
	}
	closedir(d);
	return ret;
}
