/* SPDX-License-Identifier: GPL-3.0-or-later */
/* sallyport-controller: signs decisions, keeps them in its log, hands them to gateways. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "config/base/log.h"
#include "controlplane/confine.h"
#include "controlplane/controller/controller.h"

#define TICK_MS 200
#define HEARTBEAT_MAX_S 30
#define LEASE_MAX_S 86400

struct options {
	const char *dir, *api, *decisions;
	uint32_t heartbeat_s, lease_s;
	enum log_level level;
	bool init;
};

static const char usage[] =
	"usage: sallyport-controller --dir DIR --api SOCK --decisions SOCK [options]\n"
	"       sallyport-controller --init DIR\n"
	"\n"
	"Signs decisions about devices, software and policy, keeps them in an append-only log, and "
	"hands\n"
	"them to gateways.\n"
	"\n"
	"  --init DIR         make the signing key DIR/controller.key and DIR/controller.pub, and "
	"exit\n"
	"  --dir DIR          signing key and decision log\n"
	"  --api SOCK         where sallyctl finds this controller\n"
	"  --decisions SOCK   where gateways find this controller (controller_socket in "
	"gateway.cfg)\n"
	"  --heartbeat-s N    a sign of life every N seconds, 1 to 30 (default 5)\n"
	"  --lease-s N        how long a gateway may rely on one (default 20)\n"
	"  --log-level LEVEL  error, warn, info or debug (default info)\n"
	"  --version, --help\n"
	"\n"
	"exit: 0 ended by SIGTERM or SIGINT, 1 failed, 2 usage\n";

static bool number_parse(const char *text, uint32_t max, uint32_t *out)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno != 0 || text[0] < '0' || text[0] > '9' || *end != '\0' || v < 1 || v > max)
		return false;
	*out = (uint32_t)v;
	return true;
}

/* @return -1 to go on, else the exit code */
static int options_parse(struct options *o, int argc, char **argv)
{
	enum { INIT = 1, DIR, API, DECISIONS, HEARTBEAT, LEASE, LEVEL, VERSION, HELP };
	static const struct option longs[] = {
		{"init", required_argument, NULL, INIT},
		{"dir", required_argument, NULL, DIR},
		{"api", required_argument, NULL, API},
		{"decisions", required_argument, NULL, DECISIONS},
		{"heartbeat-s", required_argument, NULL, HEARTBEAT},
		{"lease-s", required_argument, NULL, LEASE},
		{"log-level", required_argument, NULL, LEVEL},
		{"version", no_argument, NULL, VERSION},
		{"help", no_argument, NULL, HELP},
		{0},
	};
	bool ok = true;
	int opt;

	while (ok && (opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (opt) {
		case INIT:
			o->init = true;
			o->dir = optarg;
			break;
		case DIR:
			o->dir = optarg;
			break;
		case API:
			o->api = optarg;
			break;
		case DECISIONS:
			o->decisions = optarg;
			break;
		case HEARTBEAT:
			ok = number_parse(optarg, HEARTBEAT_MAX_S, &o->heartbeat_s);
			break;
		case LEASE:
			ok = number_parse(optarg, LEASE_MAX_S, &o->lease_s);
			break;
		case LEVEL:
			ok = log_level_parse(optarg, &o->level);
			break;
		case VERSION:
			puts("sallyport-controller " SALLYPORT_VERSION);
			return 0;
		case HELP:
			fputs(usage, stdout);
			return 0;
		default:
			ok = false;
		}
	}
	if (ok && optind == argc && o->dir != NULL &&
	    (o->init || (o->api != NULL && o->decisions != NULL))) {
		if (o->init || o->lease_s > o->heartbeat_s)
			return -1;
		fputs("sallyport-controller: --lease-s must be more than --heartbeat-s\n", stderr);
		return 2;
	}
	fputs(usage, stderr);
	return 2;
}

static int fold(void *arg, const struct decision_entry *e)
{
	return state_fold(arg, e);
}

static void on_receipt(void *arg, const struct receipt *r, uint64_t covers)
{
	struct controller *c = arg;

	if (r->result != 0)
		log_warn("gateway %s: revision %llu is not in force: %s", r->gateway,
			 (unsigned long long)r->revision, r->text);
	pending_receipt(&c->pending, r, covers);
}

static void on_gone(void *arg, const char *gateway)
{
	struct controller *c = arg;

	pending_gone(&c->pending, gateway);
}

static void controller_fini(struct controller *c)
{
	if (c->pending != NULL)
		pending_free(&c->pending);
	api_server_free(c->api);
	feed_free(c->feed);
	journal_close(c->journal);
	state_free(c->state);
	cose_signer_free(c->signer);
}

static int controller_init(struct controller *c, const struct options *o, struct err *err)
{
	struct feed_config fc = {.path = o->decisions,
				 .heartbeat_ms = o->heartbeat_s * 1000,
				 .lease_ms = o->lease_s * 1000,
				 .receipt = on_receipt,
				 .gone = on_gone,
				 .arg = c};
	int ret = cose_signer_load(&c->signer, o->dir, err);

	if (ret == 0)
		ret = state_new(&c->state);
	if (ret == 0)
		ret = journal_open(&c->journal, o->dir, c->signer, fold, c->state, err);
	if (ret < 0)
		return ret;
	fc.journal = c->journal;
	fc.state = c->state;
	fc.signer = c->signer;
	ret = feed_new(&c->feed, &fc, err);
	if (ret == 0)
		ret = api_server_new(&c->api, o->api, command_handle, c, err);
	return ret;
}

static int loop_add(int epoll, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int run(struct controller *c, int signals, int epoll)
{
	struct epoll_event evs[4];
	int ret = loop_add(epoll, signals);

	if (ret == 0)
		ret = loop_add(epoll, feed_fd(c->feed));
	if (ret == 0)
		ret = loop_add(epoll, api_server_fd(c->api));
	while (ret == 0) {
		int n = epoll_wait(epoll, evs, 4, TICK_MS);

		c->now_boot_ms = clock_boot_ms();
		c->now_wall_ms = clock_wall_ms();
		for (int i = 0; i < n; i++) {
			if (evs[i].data.fd == signals)
				return 0;
			if (evs[i].data.fd == feed_fd(c->feed))
				feed_dispatch(c->feed, c->now_boot_ms, c->now_wall_ms);
			else
				ret = api_server_dispatch(c->api, c->now_boot_ms);
		}
		feed_tick(c->feed, c->now_boot_ms, c->now_wall_ms);
		api_server_tick(c->api, c->now_boot_ms);
		pending_tick(&c->pending, c->now_boot_ms);
	}
	return ret;
}

/* The key is in this process's memory: no core file, no tracing by others of the same user. */
static void keep_secret(void)
{
	static const struct rlimit none = {0, 0};

	if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		log_warn("cannot harden the process: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	struct options o = {.heartbeat_s = 5, .lease_s = 20, .level = LOG_LEVEL_INFO};
	struct controller c = {0};
	struct err err = {0};
	sigset_t set;
	int epoll = -1, signals = -1, ret = options_parse(&o, argc, argv);

	if (ret >= 0)
		return ret;
	log_init("sallyport-controller", o.level);
	keep_secret();
	if (o.init) {
		ret = cose_key_create(o.dir, &err);
		if (ret < 0)
			log_error("%s", err.msg);
		else
			printf("%s/controller.key (keep it secret)\n%s/controller.pub (copy it to "
			       "the gateways)\n",
			       o.dir, o.dir);
		return ret < 0;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	ret = signals < 0 || epoll < 0
		      ? err_set(&err, -errno, "signalfd, epoll: %s", strerror(errno))
		      : controller_init(&c, &o, &err);
	if (ret == 0)
		ret = confine(NULL, 0, &err);
	if (ret == 0) {
		log_info("ready at revision %llu",
			 (unsigned long long)journal_head(c.journal)->revision);
		ret = run(&c, signals, epoll);
	}
	if (ret < 0)
		log_error("%s", err.msg[0] != '\0' ? err.msg : strerror(-ret));
	controller_fini(&c);
	if (epoll >= 0)
		close(epoll);
	if (signals >= 0)
		close(signals);
	return ret < 0;
}
