/* SPDX-License-Identifier: GPL-3.0-or-later */
/* sallyport-dataplane: judges and forwards packets. Everything that it knows comes from sallyport-agent. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include <rte_eal.h>
#include <rte_launch.h>

#include "config/base/log.h"
#include "dataplane/apply.h"
#include "dataplane/control.h"
#include "dataplane/links.h"
#include "dataplane/ports.h"
#include "dataplane/state.h"
#include "dataplane/telemetry.h"
#include "dataplane/worker.h"

#define AGENT_SOCKET "/run/sallyport/agent.sock"

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

static void usage(FILE *to)
{
	fprintf(to, "usage: sallyport-dataplane [--agent SOCKET] [--log-level LEVEL]\n"
		    "\n"
		    "Forwards packets between DPDK ports as sallyport-agent tells it.\n"
		    "\n"
		    "  --agent SOCKET     the agent's socket (default " AGENT_SOCKET ")\n"
		    "  --log-level LEVEL  error, warn, info or debug (default info)\n"
		    "  --version, --help\n");
}

/* @return 0: go on; 1: done; -EINVAL */
static int parse_args(int argc, char **argv, const char **agent, enum log_level *level)
{
	static const struct option options[] = {
		{"agent", required_argument, NULL, 'a'},
		{"log-level", required_argument, NULL, 'l'},
		{"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int o;

	while ((o = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (o) {
		case 'a':
			*agent = optarg;
			break;
		case 'l':
			if (!log_level_parse(optarg, level)) {
				fprintf(stderr, "sallyport-dataplane: no such log level: %s\n",
					optarg);
				return -EINVAL;
			}
			break;
		case 'v':
			puts("sallyport-dataplane " SALLYPORT_VERSION);
			return 1;
		case 'h':
			usage(stdout);
			return 1;
		default:
			return -EINVAL;
		}
	}
	if (optind < argc) {
		usage(stderr);
		return -EINVAL;
	}
	return 0;
}

static void catch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int launch_workers(struct state *st, struct err *err)
{
	for (unsigned i = 0; i < st->n_workers; i++) {
		int ret = rte_eal_remote_launch(worker_run, st->workers[i], i + 1);

		if (ret < 0)
			return err_set(err, ret, "worker %u: %s", i, strerror(-ret));
	}
	return 0;
}

static void end_workers(struct state *st)
{
	atomic_store(&st->stop, true);
	for (unsigned i = 0; i < st->n_workers; i++)
		idle_wake(st->workers[i]);
	rte_eal_mp_wait_lcore();
}

/* Ports, tables and workers, from the first configuration to the end. */
static int serve(struct control *c, struct err *err)
{
	struct state *st = NULL;
	struct apply *a = NULL;
	int ret;

	telemetry_place(c->path);
	ret = ports_eal_init(&c->cfg, err);
	if (ret < 0)
		return ret;
	ret = state_new(&st, &c->cfg, ret, err);
	if (ret < 0)
		goto fail;
	ret = apply_new(&a, st);
	if (ret == 0)
		ret = apply_trust(a, c->trust_path, false, err);
	if (ret == 0)
		ret = ports_start(st->ports, &c->cfg, st->n_workers, err);
	if (ret == 0)
		links_start(st);
	if (ret == 0)
		ret = launch_workers(st, err);
	if (ret < 0)
		goto fail;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (telemetry_start(st) < 0)
		log_warn("no DPDK telemetry");
	log_info("running workers=%u ports=%u flows_max=%u flow_mb=%.1f limits_mb=%.1f (each "
		 "worker)",
		 st->n_workers, st->n_ports, c->cfg.flows_max,
		 (double)flow_table_bytes(c->cfg.flows_max) / 1e6,
		 (double)limits_bytes(c->cfg.slots) / 1e6);
	ret = control_run(c, st, a);
	log_info(ret == 1 ? "another configuration: starting anew" : "stopping");
	ret = 0;
fail:
	telemetry_stop();
	if (st != NULL) {
		end_workers(st);
		ports_stop(st->ports, st->n_ports);
		links_stop(st);
	}
	apply_free(a);
	state_free(st);
	rte_eal_cleanup();
	return ret;
}

int main(int argc, char **argv)
{
	const char *agent = AGENT_SOCKET;
	enum log_level level = LOG_LEVEL_INFO;
	struct err err = {0};
	struct control control;
	int ret = parse_args(argc, argv, &agent, &level);

	if (ret != 0)
		return ret < 0 ? 2 : 0;
	log_init("dataplane", level);
	catch_signals();
	ret = control_init(&control, agent, &stop);
	if (ret == 0)
		ret = control_first_meeting(&control);
	if (ret == 0)
		ret = serve(&control, &err);
	control_fini(&control);
	if (ret == -EINTR && stop)
		ret = 0;
	if (ret < 0)
		log_error("%s", err.msg[0] != '\0' ? err.msg : strerror(-ret));
	return ret < 0 ? 1 : 0;
}
