/* SPDX-License-Identifier: GPL-3.0-or-later */
/* files: what a context is made of: from the disk, or from descriptors that somebody with more privileges has opened
 * (opener.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/base/err.h"
#include "config/gateway.h"

#define FILES_PATH_BYTES (GW_PATH_BYTES + 256) /* a folder's and a name */
#define FILES_MAX 4096

struct files {
	struct file {
		char *path;
		int fd; /* -1: a folder, whose files are there too */
	} * at;
	unsigned n;
};

/** Add a file; takes the descriptor over, also on error. @param fd  -1: a folder @return 0, -ENOMEM, -E2BIG */
int files_add(struct files *f, const char *path, int fd);
void files_fini(struct files *f); /* closes them; takes an empty one */

/**
 * Read a whole file of at most 64 MB.
 * @param f  NULL: from the disk
 * @param[out] out  a NUL behind the bytes; files_wipe()
 * @return 0 or -errno with the path in err
 */
int files_read(const struct files *f, const char *path, char **out, size_t *bytes, struct err *err);
void files_wipe(char *text, size_t bytes); /* NULL is a no-op */

/** Call each() with every file of a folder, or with the path itself if it is a file. @return 0, what each() said, or -errno */
int files_each(const struct files *f, const char *path,
	       int (*each)(void *arg, const char *path, struct err *err), void *arg,
	       struct err *err);
