/* SPDX-License-Identifier: GPL-3.0-or-later */
/* err: an error's text on its way up. Functions return 0 or -errno and put the context here;
 * only the top of a process logs it, once. */
#pragma once

#define ERR_MSG_BYTES 512

struct err {
	char msg[ERR_MSG_BYTES]; /* "" while there is none */
};

/**
 * Set the message (cut to ERR_MSG_BYTES), replacing an earlier one. err may be NULL.
 * @return ret, so that `return err_set(err, -EINVAL, "...")` reads well
 */
int err_set(struct err *err, int ret, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/** Put "context: " before the present message. err may be NULL. @return ret */
int err_wrap(struct err *err, int ret, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
