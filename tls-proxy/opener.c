/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/opener.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define ANSWER_S 5

enum what { OPENER_ASK, OPENER_CONFIG, OPENER_FILE, OPENER_FOLDER, OPENER_ERROR, OPENER_END };

struct message {
	uint32_t what; /* enum what */
	char text[FILES_PATH_BYTES]; /* a path, or what is wrong */
};

/* ---- both ends ---- */

static int message_send(int fd, enum what what, const char *text, int pass)
{
	struct message m = {.what = what};
	struct iovec iov = {&m, sizeof(m)};
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} c = {0};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

	snprintf(m.text, sizeof(m.text), "%s", text);
	if (pass >= 0) {
		h.msg_control = c.room;
		h.msg_controllen = sizeof(c.room);
		c.h = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
				       .cmsg_level = SOL_SOCKET,
				       .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&c.h), &pass, sizeof(pass));
	}
	return sendmsg(fd, &h, MSG_NOSIGNAL) == sizeof(m) ? 0 : -errno;
}

/* @return 0; -EPIPE: the other end is gone; -errno. pass: -1 if none came */
static int message_recv(int fd, struct message *m, int *pass)
{
	struct iovec iov = {m, sizeof(*m)};
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} c = {0};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = c.room,
			   .msg_controllen = sizeof(c.room)};
	ssize_t n;

	*pass = -1;
	do
		n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (CMSG_FIRSTHDR(&h) != NULL && c.h.cmsg_level == SOL_SOCKET &&
	    c.h.cmsg_type == SCM_RIGHTS)
		memcpy(pass, CMSG_DATA(&c.h), sizeof(*pass));
	if (n == 0)
		return -EPIPE;
	m->text[sizeof(m->text) - 1] = '\0';
	return n == sizeof(*m) ? 0 : -EPROTO;
}

/* ---- the opener's end ---- */

static int file_pass(int fd, const char *path)
{
	char why[FILES_PATH_BYTES];
	int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), ret;

	if (file < 0) {
		snprintf(why, sizeof(why), "%.300s: %s", path, strerror(errno));
		return message_send(fd, OPENER_ERROR, why, -1);
	}
	ret = message_send(fd, OPENER_FILE, path, file);
	close(file);
	return ret;
}

static int folder_pass(int fd, const char *path, DIR *d)
{
	int ret = message_send(fd, OPENER_FOLDER, path, -1);
	struct dirent *e;

	while (ret == 0 && (e = readdir(d)) != NULL) {
		char file[FILES_PATH_BYTES];

		if (e->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%.255s/%.255s", path, e->d_name);
		ret = file_pass(fd, file);
	}
	return ret;
}

static int path_pass(int fd, const char *path)
{
	DIR *d;
	int ret;

	if (path[0] == '\0')
		return 0;
	d = opendir(path);
	if (d == NULL)
		return file_pass(fd, path);
	ret = folder_pass(fd, path, d);
	closedir(d);
	return ret;
}

static int listener_pass(int fd, const struct gw_listener *l)
{
	const char *paths[] = {l->certificate,
			       l->key,
			       l->ocsp,
			       l->ca,
			       l->crl,
			       l->upstream_tls.ca,
			       l->upstream_tls.certificate,
			       l->upstream_tls.key};
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < sizeof(paths) / sizeof(paths[0]); i++)
		ret = path_pass(fd, paths[i]);
	for (uint32_t i = 0; ret == 0 && i < l->n_certificates; i++) {
		ret = path_pass(fd, l->certificates[i].certificate);
		if (ret == 0)
			ret = path_pass(fd, l->certificates[i].key);
		if (ret == 0)
			ret = path_pass(fd, l->certificates[i].ocsp);
	}
	return ret;
}

/* The checked struct: the worker has the same program, and so the same layout. */
static int config_pass(int fd, const struct gw_config *cfg)
{
	int mem = memfd_create("gateway", MFD_CLOEXEC), ret = 0;
	const char *at = (const char *)cfg;
	size_t left = sizeof(*cfg);

	if (mem < 0)
		return -errno;
	while (left > 0) {
		ssize_t n = write(mem, at, left);

		if (n <= 0) {
			ret = -EIO;
			break;
		}
		at += n;
		left -= n;
	}
	if (ret == 0)
		ret = message_send(fd, OPENER_CONFIG, "", mem);
	close(mem);
	return ret;
}

static int answer(int fd, const char *config)
{
	struct config_errors *errs = calloc(1, sizeof(*errs));
	struct gw_config *cfg = NULL;
	int ret = errs == NULL ? -ENOMEM : 0;

	if (ret == 0 && gw_config_load(&cfg, config, errs) < 0) {
		for (uint32_t i = 0; ret == 0 && i < errs->n; i++)
			ret = message_send(fd, OPENER_ERROR, errs->line[i], -1);
	} else if (ret == 0) {
		ret = config_pass(fd, cfg);
		for (uint32_t i = 0; ret == 0 && i < cfg->n_listeners; i++)
			ret = listener_pass(fd, &cfg->listeners[i]);
	}
	gw_config_free(cfg);
	free(errs);
	return ret == 0 ? message_send(fd, OPENER_END, "", -1) : ret;
}

void opener_serve(int fd, const char *config)
{
	struct message m;
	int pass;

	while (message_recv(fd, &m, &pass) == 0 && m.what == OPENER_ASK && answer(fd, config) == 0)
		;
}

static int caps_keep(void)
{
	static const cap_value_t kept[] = {CAP_DAC_READ_SEARCH};
	cap_t c = cap_init();
	int ret = -1;

	if (c != NULL &&
	    (geteuid() != 0 || (cap_set_flag(c, CAP_PERMITTED, 1, kept, CAP_SET) == 0 &&
				cap_set_flag(c, CAP_EFFECTIVE, 1, kept, CAP_SET) == 0)))
		ret = cap_set_proc(c);
	cap_free(c);
	return ret;
}

static int filter_set(void)
{
#ifdef SALLYPORT_SANITIZED
	return 0; /* the sanitizer's runtime makes calls of its own */
#else
	static const int calls[] = {
		SCMP_SYS(read),	      SCMP_SYS(write),	      SCMP_SYS(recvmsg),
		SCMP_SYS(sendmsg),    SCMP_SYS(close),	      SCMP_SYS(fstat),
		SCMP_SYS(newfstatat), SCMP_SYS(getdents64),   SCMP_SYS(lseek),
		SCMP_SYS(mmap),	      SCMP_SYS(munmap),	      SCMP_SYS(mremap),
		SCMP_SYS(brk),	      SCMP_SYS(memfd_create), SCMP_SYS(fcntl),
		SCMP_SYS(futex),      SCMP_SYS(getrandom),    SCMP_SYS(clock_gettime),
		SCMP_SYS(madvise),    SCMP_SYS(rt_sigreturn), SCMP_SYS(exit_group),
		SCMP_SYS(uname),      SCMP_SYS(pread64),      SCMP_SYS(restart_syscall),
	};
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int ret = ctx == NULL ? -ENOMEM : 0;

	for (size_t i = 0; ret == 0 && i < sizeof(calls) / sizeof(calls[0]); i++) {
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
		if (ret == -EDOM || ret == -EFAULT)
			ret = 0; /* this architecture does not have that call */
	}
	if (ret == 0)
		ret = seccomp_rule_add(
			ctx, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
			SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
	if (ret == 0)
		ret = seccomp_load(ctx);
	seccomp_release(ctx);
	return ret;
#endif
}

/* Its signals are the worker's: the opener ends with it, not before. */
static void child(int fd, const char *config)
{
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	prctl(PR_SET_NAME, "tls-opener", 0, 0, 0);
	if (caps_keep() == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && filter_set() == 0)
		opener_serve(fd, config);
	_exit(0);
}

/* ---- the worker's end ---- */

int opener_start(struct opener *o, const char *config, struct err *err)
{
	const struct timeval limit = {.tv_sec = ANSWER_S};
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(err, -errno, "socket pair: %s", strerror(errno));
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	pid = fork();
	if (pid < 0) {
		int ret = err_set(err, -errno, "fork: %s", strerror(errno));

		close(pair[0]);
		close(pair[1]);
		return ret;
	}
	if (pid == 0) {
		close(pair[0]);
		child(pair[1], config);
	}
	close(pair[1]);
	o->fd = pair[0];
	return 0;
}

void opener_stop(struct opener *o)
{
	if (o->fd > 0)
		close(o->fd);
	o->fd = 0;
}

static int config_take(struct gw_config **cfg, int fd)
{
	struct gw_config *c = calloc(1, sizeof(*c));
	int ret = c == NULL ? -ENOMEM : 0;
	struct stat st;

	if (ret == 0 && (*cfg != NULL || fd < 0 || fstat(fd, &st) < 0 || st.st_size != sizeof(*c) ||
			 pread(fd, c, sizeof(*c), 0) != sizeof(*c)))
		ret = -EPROTO;
	if (fd >= 0)
		close(fd);
	if (ret < 0)
		free(c);
	else
		*cfg = c;
	return ret;
}

/* Everything up to the end is read, whatever came before it: the next answer begins behind it. */
static int answers_take(int fd, struct gw_config **cfg, struct files *files, struct err *err)
{
	int ret = 0;

	for (;;) {
		struct message m;
		int pass, now = message_recv(fd, &m, &pass);

		if (now < 0)
			return err_set(err, now, "the opener does not answer: %s", strerror(-now));
		switch (m.what) {
		case OPENER_CONFIG:
			now = config_take(cfg, pass);
			break;
		case OPENER_FILE:
			now = pass >= 0 ? files_add(files, m.text, pass) : -EPROTO;
			break;
		case OPENER_FOLDER:
			now = files_add(files, m.text, -1);
			break;
		case OPENER_ERROR:
			now = ret == 0 ? err_set(err, -EINVAL, "%.300s", m.text) : -EINVAL;
			break;
		case OPENER_END:
			return ret == 0 && *cfg == NULL ? -EPROTO : ret;
		default:
			now = -EPROTO;
		}
		if (ret == 0)
			ret = now;
	}
}

int opener_ask(struct opener *o, struct gw_config **cfg, struct files *files, struct err *err)
{
	int ret;

	*cfg = NULL;
	*files = (struct files){0};
	if (o->fd <= 0)
		return err_set(err, -ENOTCONN, "there is no opener");
	ret = message_send(o->fd, OPENER_ASK, "", -1);
	if (ret < 0)
		err_set(err, ret, "the opener is gone: %s; restart the worker", strerror(-ret));
	else
		ret = answers_take(o->fd, cfg, files, err);
	if (ret == -EAGAIN ||
	    ret == -EPROTO) /* what is still to come would be taken for the next answer */
		opener_stop(o);
	if (ret < 0) {
		gw_config_free(*cfg);
		files_fini(files);
		*cfg = NULL;
	}
	return ret;
}
