/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/epoll.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "config/listeners.h"
#include "tls-proxy/tls_client.h"
#include "tls-proxy/dtls.h"
#include "tls-proxy/worker.h"

#define HEAP_TUNABLES "GLIBC_TUNABLES"

static void usage(FILE *to)
{
	fputs("usage: sallyport-tls-proxy [-c FILE] [--worker N] [-n] [--log-level LEVEL]\n"
	      "Ends the devices' mTLS and relays their plaintext. One process is one worker.\n\n"
	      "  -c, --config FILE      gateway.cfg (default /etc/sallyport/gateway.cfg)\n"
	      "      --worker N         number of this worker, from 0 (default 0)\n"
	      "  -n, --check            check gateway.cfg, certificates, keys and lists, then exit "
	      "(0: good, 1: not)\n"
	      "      --log-level LEVEL  error, warn, info or debug, instead of the configured one\n"
	      "      --version, --help\n\n"
	      "Starts as root and drops every privilege. SIGHUP reads gateway.cfg's listeners and "
	      "their files again. SIGTERM ends: it takes nobody new, and gives its sessions "
	      "gateway.drain_s to finish; a second one ends at once.\n",
	      to);
}

static void signal_ready(void *arg, uint32_t events)
{
	struct worker *w = arg;
	struct signalfd_siginfo si;

	(void)events;
	while (read(w->signals.fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGHUP)
			w->reload = true;
		else
			worker_drain(w);
	}
}

static int signals_open(struct worker *w)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	w->signals = (struct source){.fd = fd, .ready = signal_ready, .arg = w};
	return source_add(w, &w->signals, EPOLLIN);
}

/* Two descriptors a session: the soft limit of 1024 is no limit that anybody meant. */
static void descriptors_raise(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

static int user_drop(const struct gw_config *cfg, struct err *err)
{
	const struct passwd *pw = getpwnam(cfg->user);
	cap_t none;
	int ret = 0;

	if (geteuid() == 0) {
		if (pw == NULL)
			return err_set(err, -ENOENT, "gateway.user: no user \"%s\"", cfg->user);
		if (setgroups(0, NULL) < 0 || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 ||
		    setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0)
			return err_set(err, -errno, "cannot become %s: %s", cfg->user,
				       strerror(errno));
	}
	none = cap_init();
	if (none == NULL || cap_set_proc(none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		ret = err_set(err, -errno, "privileges cannot be dropped: %s", strerror(errno));
	cap_free(none);
	return ret;
}

/* What the loop, the allocator and the logger need. Everything else kills the process. */
static int seccomp_set(struct err *err)
{
#ifdef SALLYPORT_SANITIZED
	(void)err;
	return 0; /* the sanitizer's runtime makes calls of its own */
#else
	static const int calls[] = {
		SCMP_SYS(read),
		SCMP_SYS(write),
		SCMP_SYS(readv),
		SCMP_SYS(writev),
		SCMP_SYS(recvfrom),
		SCMP_SYS(recvmsg),
		SCMP_SYS(sendto),
		SCMP_SYS(sendmmsg),
		SCMP_SYS(sendmsg),
		SCMP_SYS(pread64),
		SCMP_SYS(accept4),
		SCMP_SYS(socket),
		SCMP_SYS(connect),
		SCMP_SYS(bind), /* of listeners that a reload brings */
		SCMP_SYS(listen),
		SCMP_SYS(shutdown),
		SCMP_SYS(getsockopt),
		SCMP_SYS(setsockopt),
		SCMP_SYS(getpeername),
		SCMP_SYS(close),
		SCMP_SYS(epoll_wait),
		SCMP_SYS(epoll_pwait),
		SCMP_SYS(epoll_ctl),
		SCMP_SYS(clock_gettime),
		SCMP_SYS(time),
		SCMP_SYS(gettimeofday),
		SCMP_SYS(getrandom),
		SCMP_SYS(openat),
		SCMP_SYS(open),
		SCMP_SYS(fstat),
		SCMP_SYS(newfstatat),
		SCMP_SYS(stat),
		SCMP_SYS(lseek),
		SCMP_SYS(getdents64),
		SCMP_SYS(mmap),
		SCMP_SYS(munmap),
		SCMP_SYS(mremap),
		SCMP_SYS(mprotect),
		SCMP_SYS(madvise),
		SCMP_SYS(brk),
		SCMP_SYS(futex),
		SCMP_SYS(rt_sigprocmask),
		SCMP_SYS(rt_sigaction),
		SCMP_SYS(rt_sigreturn),
		SCMP_SYS(getpid),
		SCMP_SYS(exit_group),
		SCMP_SYS(exit),
		SCMP_SYS(restart_syscall),
		SCMP_SYS(fcntl),
		SCMP_SYS(statx),
		/* DPDK's, when the dataplane went or came back */
		SCMP_SYS(accept),
		SCMP_SYS(epoll_create),
		SCMP_SYS(epoll_create1),
		SCMP_SYS(timerfd_settime),
		SCMP_SYS(sched_yield),
	};
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int ret = ctx == NULL ? -ENOMEM : 0;

	/* For EAL's thread as well. */
	if (ret == 0)
		ret = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	for (size_t i = 0; ret == 0 && i < sizeof(calls) / sizeof(calls[0]); i++) {
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
		if (ret == -EDOM || ret == -EFAULT)
			ret = 0; /* this architecture does not have that call */
	}
	/* DPDK would take its socket away at the end; the next worker does, before it makes its own. */
	if (ret == 0)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(unlink), 0);
	if (ret == -EDOM || ret == -EFAULT)
		ret = 0;
	if (ret == 0)
		ret = seccomp_load(ctx);
	seccomp_release(ctx);
	return ret < 0 ? err_set(err, ret, "seccomp: %s", strerror(-ret)) : 0;
#endif
}

/* The kernel shares an address among sockets of one user only: those of workers that bind after a reload, without
 * privileges, and those of workers that start. */
static int listen_all(struct worker *w, struct err *err)
{
	const struct passwd *pw = geteuid() == 0 ? getpwnam(w->cfg->user) : NULL;
	int ret = 0;

	if (pw != NULL)
		setfsuid(pw->pw_uid);
	for (uint32_t i = 0; ret == 0 && i < w->n_listeners; i++) {
		ret = listener_listen(&w->listeners[i], err);
		if (ret < 0)
			err_wrap(err, ret, "listener %s", w->listeners[i].cfg->name);
	}
	if (pw != NULL)
		setfsuid(0);
	return ret;
}

static int worker_start(struct worker *w, struct err *err)
{
	sigset_t hup;
	int ret;

	w->listeners_hash = gw_listeners_hash(w->cfg);
	conns_init(w);
	w->agent.fd = w->signals.fd = w->wake.fd = -1;
	descriptors_raise();
	if (getrandom(&w->instance, sizeof(w->instance), 0) != sizeof(w->instance))
		return -EIO;
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (w->epoll < 0)
		return -errno;
	/* While it waits for the dataplane, SIGTERM ends it, and SIGHUP is early. */
	sigemptyset(&hup);
	sigaddset(&hup, SIGHUP);
	sigprocmask(SIG_BLOCK, &hup, NULL);
	ret = opener_start(&w->opener, w->cfg->file, err);
	if (ret == 0)
		ret = transport_start(w, err);
	if (ret == 0)
		ret = signals_open(w);
	for (uint32_t i = 0; ret == 0 && i < w->cfg->n_listeners; i++) {
		ret = listener_prepare(w, &w->listeners[i], &w->cfg->listeners[i], i, err);
		w->n_listeners = i + 1;
	}
	if (ret == 0)
		ret = listen_all(w, err);
	if (ret == 0)
		ret = dtls_steer_open(w, err);
	if (ret == 0)
		ret = user_drop(w->cfg, err);
	if (ret == 0)
		ret = seccomp_set(err);
	return ret;
}

static int check_only(const struct gw_config *cfg)
{
	int bad = 0;

	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		struct tls_ctx ctx = {0};
		struct err err = {""};

		if (tls_ctx_init(&ctx, &cfg->listeners[i], &err) < 0) {
			fprintf(stderr, "listener %s: %s\n", cfg->listeners[i].name, err.msg);
			bad = 1;
		}
		tls_ctx_fini(&ctx);
		if (cfg->listeners[i].upstream_tls.line != 0 &&
		    tls_client_load(&ctx, &cfg->listeners[i].upstream_tls, NULL, &err) < 0) {
			fprintf(stderr, "listener %s: upstream_tls: %s\n", cfg->listeners[i].name,
				err.msg);
			bad = 1;
		}
		tls_ctx_fini(&ctx);
	}
	if (!bad)
		printf("%s: good: %u listeners\n", cfg->file, cfg->n_listeners);
	return bad;
}

struct options {
	const char *config;
	bool check, level_set;
	enum log_level level;
	uint32_t worker;
};

/* @return -1 to go on, else the exit code */
static int options_read(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
					      {"check", no_argument, NULL, 'n'},
					      {"worker", required_argument, NULL, 'w'},
					      {"log-level", required_argument, NULL, 'l'},
					      {"version", no_argument, NULL, 'v'},
					      {"help", no_argument, NULL, 'h'},
					      {0}};
	int c;

	while ((c = getopt_long(argc, argv, "c:nh", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			o->config = optarg;
			break;
		case 'n':
			o->check = true;
			break;
		case 'w':
			o->worker = strtoul(optarg, NULL, 10);
			break;
		case 'l':
			o->level_set = log_level_parse(optarg, &o->level);
			if (!o->level_set) {
				fprintf(stderr,
					"--log-level: \"%s\" is none of error, warn, info, debug\n",
					optarg);
				return 2;
			}
			break;
		case 'v':
			puts("sallyport-tls-proxy " SALLYPORT_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "surplus argument: %s\n", argv[optind]);
		return 2;
	}
	return -1;
}

static int serve(struct worker *w, const struct options *o, const struct gw_config *cfg)
{
	struct err err = {""};
	char name[32];
	int ret;

	snprintf(name, sizeof(name), "tls-proxy/%u", o->worker);
	log_init(name, o->level_set ? o->level : cfg->log_level);
	w->cfg = cfg;
	w->index = o->worker;
	ret = worker_start(w, &err);
	if (ret < 0)
		log_error("cannot start: %s", err.msg[0] != '\0' ? err.msg : strerror(-ret));
	while (ret == 0 && !w->stop)
		ret = worker_turn(w, WORKER_TICK_MS);
	worker_stop(w);
	return ret == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Sessions on large pages: with a thousand of them each message costs dozens of walks of the page table, more in a virtual
 * machine. The heap takes this only from the environment that a process begins with; without it, it works as well. */
static void heap_on_large_pages(char **argv)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (getenv(HEAP_TUNABLES) != NULL || n <= 0)
		return;
	self[n] = '\0';
	if (setenv(HEAP_TUNABLES, "glibc.malloc.hugetlb=1", 1) == 0)
		execv(self, argv);
}

int main(int argc, char **argv)
{
	struct options o = {.config = "/etc/sallyport/gateway.cfg"};
	struct config_errors *errs;
	struct gw_config *cfg = NULL;
	struct worker *w;
	int ret = options_read(&o, argc, argv);

	if (ret >= 0)
		return ret;
	if (!o.check)
		heap_on_large_pages(argv);
	errs = calloc(1, sizeof(*errs));
	w = calloc(1, sizeof(*w));
	if (errs == NULL || w == NULL || tls_ctx_global_init() < 0) {
		ret = EXIT_FAILURE;
	} else if (gw_config_load(&cfg, o.config, errs) < 0) {
		for (uint32_t i = 0; i < errs->n; i++)
			fprintf(stderr, "%s\n", errs->line[i]);
		ret = EXIT_FAILURE;
	} else {
		ret = o.check ? check_only(cfg) : serve(w, &o, cfg);
	}
	tls_ctx_global_fini();
	gw_config_free(cfg);
	free(errs);
	free(w);
	return ret;
}
