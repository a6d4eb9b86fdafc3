/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "config/schema.h"
#include "controlplane/agent/agent.h"
#include "controlplane/agent/api_trace.h"
#include "controlplane/agent/metrics_text.h"
#include "controlplane/agent/port_slots.h"
#include "controlplane/agent/reload.h"
#include "controlplane/agent/tls_state.h"
#include "controlplane/confine.h"

struct slot_hint { /* what the table of the last run says */
	uint64_t hash;
	uint32_t slot;
};

struct hints {
	struct slot_hint *all;
	uint32_t n;
};

static void usage(FILE *to)
{
	fputs("usage: sallyport-agent [-c FILE] [-n] [--log-level LEVEL]\n"
	      "Holds the policy, decides about devices, and writes the trust table, nftables and "
	      "the store.\n\n"
	      "  -c, --config FILE      gateway.cfg (default /etc/sallyport/gateway.cfg)\n"
	      "  -n, --check            check gateway.cfg and the policy it names, then exit (0: "
	      "good, 1: not)\n"
	      "      --reference        print every key of both files and exit\n"
	      "      --metrics          list every metric and exit\n"
	      "      --log-level LEVEL  error, warn, info or debug, instead of the configured one\n"
	      "      --version, --help\n\n"
	      "SIGHUP, or `sallyctl reload`, brings listeners, their files and ports as "
	      "gateway.cfg "
	      "has them into force\neverywhere, and loads the policy file again, unless a decision "
	      "has replaced it; SIGTERM ends.\n",
	      to);
}

static void print_errors(const struct config_errors *errs)
{
	for (uint32_t i = 0; i < errs->n; i++)
		fprintf(stderr, "%s\n", errs->line[i]);
	if (errs->more > 0)
		fprintf(stderr, "and %u more\n", errs->more);
}

/* ---- events ---- */

static void link_ready(void *arg, uint32_t events)
{
	struct agent *a = arg;

	(void)events;
	link_dispatch(a->link, clock_boot_ms(), clock_wall_ms());
}

static void nft_ready(void *arg, uint32_t events)
{
	struct agent *a = arg;
	struct nft_tamper t = {0};
	struct err err = {""};
	int ret = nft_dispatch(a->nft, &t);

	(void)events;
	if (ret < 0) {
		/* A guard that sees nothing is none: a new process opens the socket anew and looks at every rule. */
		agent_alarm(a, "kernel-plane",
			    "cannot watch nftables: %s; ending, to be started anew",
			    strerror(-ret));
		a->failed = ret;
		return;
	}
	if (!t.happened)
		return;
	ret = nft_restore(a->nft, &err);
	agent_alarm(a, "tampered", "nftables: %s by %s (pid %u); %s%s", t.what,
		    t.process[0] != '\0' ? t.process : "unknown", t.pid,
		    ret == 0 ? "restored" : "NOT restored: ", ret == 0 ? "" : err.msg);
	if (ret < 0)
		a->nft_retry_ms = clock_boot_ms() + 1000;
}

static void mirror_ready(void *arg, uint32_t events)
{
	struct agent *a = arg;
	struct err err = {""};

	(void)events;
	if (mirror_dispatch(a->mirror, &err) < 0)
		log_warn("routes and neighbours: %s", err.msg);
}

static void api_ready(void *arg, uint32_t events)
{
	struct agent *a = arg;
	int ret = api_server_dispatch(a->api, clock_boot_ms());

	(void)events;
	if (ret < 0)
		log_error("api: %s", strerror(-ret));
}

static void signal_ready(void *arg, uint32_t events)
{
	struct agent *a = arg;
	struct signalfd_siginfo si;

	(void)events;
	while (read(a->signal_src.fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGHUP)
			reload_all(a);
		else
			a->stop = true;
	}
}

static void tick(struct agent *a, uint64_t now)
{
	struct err err = {""};

	trust_writer_alive(&a->trust, now);
	link_tick(a->link, now, clock_wall_ms());
	enforce_tick(a, now);
	bindings_expire(a, now);
	bindings_save(a);
	peers_tick(a->peers, now);
	reload_tick(a, now);
	tls_state_tick(a, now);
	api_server_tick(a->api, now);
	metrics_tick(a);
	if (now - a->stats_ms >= 1000)
		sync_stats(a);
	tallies_tick(a, now);
	managed_tick(a->managed, now);
	trace_tick(a, now);
	/* The kernel path stays open for kernel_lease_s after our last sign of life, if it holds what it should. */
	if (a->nft_retry_ms == 0 &&
	    (a->heartbeat_ms == 0 ||
	     now - a->heartbeat_ms >= a->cfg->kernel_lease_s * 1000ull / 4)) {
		if (nft_heartbeat(a->nft, a->cfg->kernel_lease_s, &err) < 0)
			agent_alarm(a, "kernel-plane", "lease not renewed: %s", err.msg);
		a->heartbeat_ms = now;
	}
}

/* ---- start and end ---- */

static int watch(struct agent *a, struct loop_source *s, int fd,
		 void (*ready)(void *arg, uint32_t events))
{
	*s = (struct loop_source){.fd = fd, .ready = ready, .arg = a};
	return loop_add(a->loop, s, EPOLLIN);
}

static int hint_cmp(const void *x, const void *y)
{
	const struct slot_hint *a = x, *b = y;

	return a->hash < b->hash ? -1 : a->hash > b->hash;
}

static uint32_t hint_slot(void *arg, uint64_t identity_hash)
{
	const struct hints *h = arg;
	struct slot_hint key = {.hash = identity_hash};
	struct slot_hint *found =
		h->n > 0 ? bsearch(&key, h->all, h->n, sizeof(key), hint_cmp) : NULL;

	return found != NULL ? found->slot : 0;
}

static int hints_read(struct hints *h, const struct trust_table *t)
{
	h->all = calloc(t->slots, sizeof(*h->all));
	if (h->all == NULL)
		return -ENOMEM;
	for (uint32_t i = 1; i < t->slots; i++) {
		if (t->rec[i].identity_hash != 0)
			h->all[h->n++] = (struct slot_hint){t->rec[i].identity_hash, i};
	}
	qsort(h->all, h->n, sizeof(*h->all), hint_cmp);
	return 0;
}

/* A record whose device the store does not know (any more) passes nothing. */
static void orphans_clear(struct agent *a)
{
	const struct trust_state none = {0};

	for (uint32_t i = 1; i < a->trust.slots; i++) {
		if (atomic_load(&a->trust.rec[i].expires_ms) != 0 &&
		    registry_by_slot(a->registry, i) == NULL)
			trust_writer_put(&a->trust, i, &none, true, clock_boot_us());
	}
}

/* What is remembered: the decision log, certificates, the policy. */
static int state_load(struct agent *a, struct config_errors *errs, struct err *err)
{
	char *text = NULL;
	int ret = link_replay(a->link, err);

	if (ret < 0 && ret != -EBADMSG) /* -EBADMSG: alarm raised; what verified is in force */
		return err_wrap(err, ret, "store");
	for (uint32_t i = 0; i < registry_devices(a->registry); i++)
		admit_cert_load(a, registry_device(a->registry, i));
	entry_lease_load(a, clock_boot_ms(), clock_wall_ms());
	if (a->replayed_text != NULL)
		return policy_first(a, a->replayed_text, a->replayed_file, true, errs, err);
	ret = schema_slurp(&text, a->cfg->segments, errs);
	if (ret == 0)
		ret = policy_first(a, text, a->cfg->segments, false, errs, err);
	free(text);
	return ret;
}

static int kernel_start(struct agent *a, struct err *err)
{
	static const char *const found[] = {[NFT_FOUND_NONE] = "installed",
					    [NFT_FOUND_INTACT] = "kept",
					    [NFT_FOUND_FOREIGN] = "replaced, it was not ours"};
	enum nft_found how = NFT_FOUND_NONE;
	int ret = nft_new(&a->nft, a->cfg, &how, err);

	if (ret < 0)
		return err_wrap(err, ret, "nftables");
	log_info("nftables table %s", found[how]);
	ret = managed_new(&a->managed, a->cfg, err);
	if (ret < 0)
		return ret;
	ret = ports_new(&a->ports, a->cfg, err);
	if (ret == 0)
		ret = mirror_new(&a->mirror, a->cfg, &sync_mirror_ops, a, err);
	if (ret == 0)
		ret = bindings_restore(a, err);
	if (ret < 0)
		return ret;
	registry_touch_all(a->registry);
	for (struct device *d; (d = registry_next_dirty(a->registry)) != NULL;)
		enforce_judge(a, d);
	orphans_clear(a);
	ret = nft_begin(a->nft);
	if (ret == 0)
		ret = nft_put_policy(a->nft, a->form);
	if (ret == 0)
		ret = bindings_put_all(a);
	if (ret == 0)
		ret = nft_commit(a->nft, err);
	/* Only now, with the table in place, may the kernel forward at all. */
	if (ret == 0)
		ret = ports_forwarding(a->ports, err);
	if (ret == 0)
		ret = ports_configure(a->ports, NULL, err);
	return ret;
}

static int run_dir_lock(const struct gw_config *cfg, struct err *err)
{
	char path[MSG_PATH_BYTES];
	int fd;

	if (mkdir(cfg->run_dir, 0755) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", cfg->run_dir, strerror(errno));
	fd = open(gw_run_path(cfg, "agent.lock", path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, -EBUSY, "%s: another agent runs here", path);
	return fd; /* held until exit */
}

static int sockets_start(struct agent *a, struct err *err)
{
	/* netlink, and sysctls of the net tree */
	static const cap_value_t keep[] = {CAP_NET_ADMIN, CAP_NET_RAW};
	const struct passwd *pw = getpwnam(a->cfg->user);
	char path[MSG_PATH_BYTES];
	int ret;

	if (pw == NULL)
		return err_set(err, -ENOENT, "gateway.user: no user \"%s\"", a->cfg->user);
	ret = peers_new(&a->peers, a->loop, gw_run_path(a->cfg, "agent.sock", path), pw->pw_uid,
			&sync_peers_handler, a, err);
	if (ret == 0)
		ret = api_server_new(&a->api, gw_run_path(a->cfg, "api.sock", path), api_handle, a,
				     err);
	if (ret == 0)
		ret = metrics_start(a, err);
	if (ret == 0)
		ret = confine(keep, sizeof(keep) / sizeof(keep[0]), err);
	if (ret == 0)
		ret = watch(a, &a->link_src, link_fd(a->link), link_ready);
	if (ret == 0)
		ret = watch(a, &a->nft_src, nft_fd(a->nft), nft_ready);
	if (ret == 0)
		ret = watch(a, &a->mirror_src, mirror_fd(a->mirror), mirror_ready);
	if (ret == 0)
		ret = watch(a, &a->api_src, api_server_fd(a->api), api_ready);
	return ret;
}

static int signals_start(struct agent *a)
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
	return fd < 0 ? -errno : watch(a, &a->signal_src, fd, signal_ready);
}

static void agent_stop(struct agent *a)
{
	struct session *s;

	/* Peers go first: their leaving still writes bindings. */
	peers_free(a->peers);
	bindings_save(a);
	metrics_stop(a);
	api_server_free(a->api);
	reload_fini(a);
	while ((s = LIST_FIRST(&a->sessions)) != NULL) {
		LIST_REMOVE(s, next);
		free(s);
	}
	bindings_free(a);
	tallies_forget(a);
	trace_free(a);
	mirror_free(a->mirror);
	ports_free(a->ports);
	managed_free(a->managed);
	nft_free(a->nft); /* the table stays, under its timeouts */
	link_free(a->link);
	registry_free(a->registry);
	store_close(a->store);
	trust_unmap(&a->trust);
	segments_free(a->segments);
	free(a->form);
	free(a->replayed_text);
	free(a->replayed_file);
	free(a->bound);
	loop_free(a->loop);
}

static int agent_start(struct agent *a, struct hints *hints, struct config_errors *errs,
		       struct err *err)
{
	char path[MSG_PATH_BYTES];
	bool kept;
	int ret = run_dir_lock(a->cfg, err);

	if (ret < 0)
		return ret;
	ret = port_slots_load(a->cfg, err);
	if (ret == 0)
		ret = port_slots_save(a->cfg, err);
	if (ret < 0)
		return ret;
	ret = store_open(&a->store, a->cfg->state_dir, err);
	if (ret == 0)
		ret = trust_writer_open(&a->trust, gw_run_path(a->cfg, "trust", path),
					a->cfg->devices_max + 1, &kept, err);
	if (ret == 0)
		ret = hints_read(hints, &a->trust);
	if (ret == 0)
		ret = registry_new(&a->registry, a->trust.slots, hint_slot, hints);
	if (ret == 0)
		ret = loop_new(&a->loop);
	a->bound = calloc(a->cfg->devices_max + 1, sizeof(*a->bound));
	if (ret == 0 && a->bound == NULL)
		ret = -ENOMEM;
	if (ret == 0)
		ret = signals_start(a);
	if (ret == 0)
		ret = link_new(&a->link, a->cfg, a->store, &entry_callbacks, a, err);
	if (ret == 0)
		ret = state_load(a, errs, err);
	if (ret == 0)
		ret = kernel_start(a, err);
	if (ret == 0)
		ret = sockets_start(a, err);
	return ret;
}

static int agent_run(struct agent *a)
{
	int ret = 0, wait_ms, mirror_ms;

	while (!a->stop && a->failed == 0 && ret == 0) {
		uint64_t now = clock_boot_ms();

		if (now >= a->tick_ms) {
			tick(a, now);
			a->tick_ms = now + AGENT_TICK_MS;
		}
		admit_settle(a);
		now = clock_boot_ms();
		wait_ms = a->tick_ms > now ? (int)(a->tick_ms - now) : 0;
		mirror_ms = mirror_wait_ms(a->mirror);
		if (mirror_ms >= 0 && mirror_ms < wait_ms)
			wait_ms = mirror_ms;
		ret = loop_turn(a->loop, wait_ms);
		if (mirror_wait_ms(a->mirror) == 0)
			mirror_ready(a, 0);
	}
	return ret < 0 ? ret : a->failed;
}

static int check_only(const struct gw_config *cfg)
{
	struct config_errors *errs = calloc(1, sizeof(*errs));
	struct segments *s = NULL;
	struct policy_form *f = NULL;
	struct err err = {""};
	int ret = errs == NULL ? -ENOMEM : segments_load(&s, cfg->segments, errs);

	if (ret == 0)
		ret = policy_compile(&f, s, 1, NULL, &err);
	if (ret == 0)
		printf("%s: good; %s: good: %u segments, %u networks, %u rules\n", cfg->file,
		       cfg->segments, s->n_segments, s->n_networks, s->n_rules);
	else if (err.msg[0] != '\0')
		fprintf(stderr, "%s\n", err.msg);
	else if (errs != NULL)
		print_errors(errs);
	free(f);
	segments_free(s);
	free(errs);
	return ret == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

struct options {
	const char *config;
	bool check, level_set;
	enum log_level level;
};

/* @return -1 to go on, else the exit code */
static int options_read(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
					      {"check", no_argument, NULL, 'n'},
					      {"reference", no_argument, NULL, 'r'},
					      {"metrics", no_argument, NULL, 'm'},
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
		case 'r':
			printf("gateway.cfg\n\n");
			gw_config_reference(stdout);
			printf("\nsegments.cfg\n\n");
			segments_reference(stdout);
			return EXIT_SUCCESS;
		case 'm':
			metrics_reference(stdout);
			return EXIT_SUCCESS;
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
			puts("sallyport-agent " SALLYPORT_VERSION);
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

static int serve(struct agent *a, const struct options *o, struct gw_config *cfg,
		 struct config_errors *errs)
{
	struct hints hints = {0};
	struct err err = {""};
	int ret;

	log_init("agent", o->level_set ? o->level : cfg->log_level);
	STAILQ_INIT(&a->policy_jobs);
	a->cfg = cfg;
	cfg->stack_ready = gw_uses_stack(cfg);
	a->started_ms = clock_boot_ms();
	a->wall_minus_boot_ms = (int64_t)clock_wall_ms() - (int64_t)a->started_ms;
	ret = agent_start(a, &hints, errs, &err);
	if (ret == 0) {
		log_info("ready gateway=%s devices=%u bindings=%u policy=%s", cfg->name,
			 registry_devices(a->registry), a->n_bindings, a->form->file);
		ret = agent_run(a);
	} else {
		print_errors(errs);
		log_error("cannot start: %s", err.msg[0] != '\0' ? err.msg : strerror(-ret));
	}
	agent_stop(a);
	free(hints.all);
	return ret == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	struct options o = {.config = "/etc/sallyport/gateway.cfg"};
	struct config_errors *errs;
	struct gw_config *cfg = NULL;
	struct agent *a;
	int ret = options_read(&o, argc, argv);

	if (ret >= 0)
		return ret;
	errs = calloc(1, sizeof(*errs));
	a = calloc(1, sizeof(*a));
	if (errs == NULL || a == NULL) {
		ret = EXIT_FAILURE;
	} else if (gw_config_load(&cfg, o.config, errs) < 0) {
		print_errors(errs);
		ret = EXIT_FAILURE;
	} else if (o.check) {
		ret = check_only(cfg);
	} else {
		ret = serve(a, &o, cfg, errs);
	}
	free(a);
	gw_config_free(cfg);
	free(errs);
	return ret;
}
