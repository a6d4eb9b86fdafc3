/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/telemetry.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <rte_telemetry.h>

#include "dataplane/query.h"

/* "/dpdk/PREFIX/dpdk_telemetry.v2" goes behind it into sun_path; the EAL does not start with a longer one. */
#define DIR_BYTES_MAX (MSG_PATH_BYTES - 60)

/* rte_telemetry's callbacks carry no argument. */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static const struct state *served; /* under lock */

void telemetry_place(const char *agent)
{
	const char *slash = strrchr(agent, '/');
	char dir[DIR_BYTES_MAX + 1];
	size_t n = slash != NULL ? (size_t)(slash - agent) : 0;

	if (n == 0 || n > DIR_BYTES_MAX)
		return; /* the EAL's own place then: /var/run */
	memcpy(dir, agent, n);
	dir[n] = '\0';
	/* what systemd's RuntimeDirectory= sets, and the EAL looks at; dpdk-telemetry.py too */
	setenv("RUNTIME_DIRECTORY", dir, 0);
}

/* A number and nothing else. @return -1: none */
static long number_of(const char *text)
{
	char *end;
	long n;

	if (!isdigit((unsigned char)text[0]))
		return -1;
	n = strtol(text, &end, 10);
	return *end == '\0' ? n : -1;
}

static int stats(const struct state *st, const char *params, struct rte_tel_data *d)
{
	struct msg_stats m = {0};

	(void)params;
	query_counters(st, &m);
	rte_tel_data_start_dict(d);
	rte_tel_data_add_dict_u64(d, "forwarded", m.forwarded);
	rte_tel_data_add_dict_u64(d, "lane", m.lane);
	rte_tel_data_add_dict_u64(d, "diverted", m.diverted);
	rte_tel_data_add_dict_u64(d, "admissions", m.admissions);
	rte_tel_data_add_dict_u64(d, "refusals", m.refusals);
	rte_tel_data_add_dict_u64(d, "flows", m.flows);
	rte_tel_data_add_dict_u64(d, "flows_max", m.flows_max);
	rte_tel_data_add_dict_u64(d, "busy_cycles", m.busy_cycles);
	rte_tel_data_add_dict_u64(d, "total_cycles", m.total_cycles);
	return 0;
}

static int reasons(const struct state *st, const char *params, struct rte_tel_data *d)
{
	struct msg_stats m = {0};

	(void)params;
	query_counters(st, &m);
	rte_tel_data_start_dict(d);
	for (unsigned i = 1; i < DROP_REASON_COUNT; i++)
		rte_tel_data_add_dict_u64(d, drop_reason_name(i), m.drops[i]);
	return 0;
}

static int lcores(const struct state *st, const char *params, struct rte_tel_data *d)
{
	struct msg_tally_lcore l;
	long i;

	if (params == NULL || params[0] == '\0') {
		rte_tel_data_start_array(d, RTE_TEL_INT_VAL);
		for (i = 0; i < st->n_workers; i++)
			rte_tel_data_add_array_int(d, (int)i);
		return 0;
	}
	i = number_of(params);
	if (i < 0 || i >= st->n_workers)
		return -EINVAL;
	query_lcore(st, (unsigned)i, &l);
	rte_tel_data_start_dict(d);
	rte_tel_data_add_dict_u64(d, "cpu", l.cpu);
	rte_tel_data_add_dict_u64(d, "packets", l.packets);
	rte_tel_data_add_dict_u64(d, "bursts", l.bursts);
	rte_tel_data_add_dict_u64(d, "busy_cycles", l.busy_cycles);
	rte_tel_data_add_dict_u64(d, "total_cycles", l.total_cycles);
	rte_tel_data_add_dict_u64(d, "flows", l.flows);
	rte_tel_data_add_dict_u64(d, "flows_max", l.flows_max);
	rte_tel_data_add_dict_u64(d, "handed", l.handed);
	rte_tel_data_add_dict_u64(d, "ring_dropped", l.ring_dropped);
	return 0;
}

static int ports(const struct state *st, const char *params, struct rte_tel_data *d)
{
	struct msg_stats m = {0};
	unsigned i = 0;

	if (params == NULL || params[0] == '\0') {
		rte_tel_data_start_array(d, RTE_TEL_STRING_VAL);
		for (i = 0; i < st->n_ports; i++) {
			if (st->ports[i].name[0] != '\0')
				rte_tel_data_add_array_string(d, st->ports[i].name);
		}
		return 0;
	}
	while (i < st->n_ports &&
	       strncmp(st->ports[i].name, params, sizeof(st->ports[i].name)) != 0)
		i++;
	if (i == st->n_ports)
		return -EINVAL;
	query_counters(st, &m);
	rte_tel_data_start_dict(d);
	rte_tel_data_add_dict_u64(d, "rx_packets", m.ports[i].rx_packets);
	rte_tel_data_add_dict_u64(d, "rx_bytes", m.ports[i].rx_bytes);
	rte_tel_data_add_dict_u64(d, "tx_packets", m.ports[i].tx_packets);
	rte_tel_data_add_dict_u64(d, "tx_bytes", m.ports[i].tx_bytes);
	rte_tel_data_add_dict_u64(d, "to_kernel", m.ports[i].to_kernel);
	rte_tel_data_add_dict_u64(d, "from_kernel", m.ports[i].from_kernel);
	return 0;
}

static const struct {
	const char *cmd;
	int (*answer)(const struct state *st, const char *params, struct rte_tel_data *d);
	const char *help;
} commands[] = {
	{"/sallyport/stats", stats, "Totals of the dataplane. No parameters."},
	{"/sallyport/reasons", reasons, "Dropped packets by reason. No parameters."},
	{"/sallyport/lcores", lcores, "The workers; with a worker's number: its counters."},
	{"/sallyport/ports", ports, "The ports; with a port's name: its counters."},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int answer(const char *cmd, const char *params, struct rte_tel_data *d)
{
	int ret = -ENODEV;

	pthread_rwlock_rdlock(&lock);
	for (unsigned i = 0; i < COMMANDS && served != NULL; i++) {
		if (strcmp(commands[i].cmd, cmd) == 0)
			ret = commands[i].answer(served, params, d);
	}
	pthread_rwlock_unlock(&lock);
	return ret;
}

int telemetry_start(const struct state *st)
{
	for (unsigned i = 0; i < COMMANDS; i++) {
		int ret = rte_telemetry_register_cmd(commands[i].cmd, answer, commands[i].help);

		if (ret < 0)
			return ret;
	}
	pthread_rwlock_wrlock(&lock);
	served = st;
	pthread_rwlock_unlock(&lock);
	return 0;
}

void telemetry_stop(void)
{
	pthread_rwlock_wrlock(&lock);
	served = NULL;
	pthread_rwlock_unlock(&lock);
}
